use spiking_diffusion_metrics::*;

#[test]
fn public_types_cross_threads() {
    fn check<T: Send + Sync + Unpin>() {}
    check::<ClassScore>();
    check::<Classifier>();
    check::<ClassifierCard>();
    check::<ClassifierConfig>();
    check::<Error>();
    check::<FeatureStats>();
    check::<FeatureStatsBuilder>();
    check::<Inception>();
    check::<InceptionConfig>();
    check::<InceptionWeights>();
    check::<KernelDistance>();
    check::<Padding>();
    check::<Pixels>();
    check::<Resize>();
    check::<SsimConfig>();
}
