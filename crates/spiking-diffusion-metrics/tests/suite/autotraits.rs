use spiking_diffusion_metrics::*;

#[test]
fn public_types_cross_threads() {
    fn check<T: Send + Sync + Unpin>() {}
    check::<ClassScore>();
    check::<Classifier>();
    check::<ClassifierCard>();
    check::<ClassifierConfig>();
    check::<download::Limits>();
    check::<Error>();
    check::<FeatureStats>();
    check::<FeatureStatsBuilder>();
    check::<ImageFolder>();
    check::<Inception>();
    check::<InceptionConfig>();
    check::<InceptionWeights>();
    check::<KernelDistance>();
    check::<Padding>();
    check::<Pixels>();
    check::<Resize>();
    check::<Settings>();
    check::<SsimConfig>();
    check::<TensorFile>();
}
