use fsvae::*;

#[test]
fn public_types_cross_threads() {
    fn check<T: Send + Sync + Unpin>() {}
    check::<Divergence>();
    check::<Draws>();
    check::<Error>();
    check::<Fsvae>();
    check::<FsvaeConfig>();
    check::<Losses>();
    check::<Output>();
    check::<ScheduledSampling>();
}

#[test]
fn values_are_copied_and_compared() {
    fn check<T: Clone + PartialEq + std::fmt::Debug>() {}
    check::<Divergence>();
    check::<FsvaeConfig>();
    check::<ScheduledSampling>();
}
