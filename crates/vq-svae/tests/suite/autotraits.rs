use vq_svae::*;

#[test]
fn public_types_cross_threads() {
    fn check<T: Send + Sync + Unpin>() {}
    check::<CodeUsage>();
    check::<DenseTerm>();
    check::<Error>();
    check::<ImageSpec>();
    check::<Losses>();
    check::<Output>();
    check::<Reconstruction>();
    check::<Reduction>();
    check::<StraightThrough>();
    check::<VqSvae>();
    check::<VqSvaeConfig>();
}

#[test]
fn values_are_copied_and_compared() {
    fn check<T: Clone + PartialEq + std::fmt::Debug>() {}
    check::<CodeUsage>();
    check::<DenseTerm>();
    check::<ImageSpec>();
    check::<Reconstruction>();
    check::<Reduction>();
    check::<StraightThrough>();
    check::<VqSvaeConfig>();
}
