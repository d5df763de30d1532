use fsvae::*;

#[test]
fn public_types_cross_threads() {
    fn check<T: Send + Sync + Unpin>() {}
    check::<BodyConfig>();
    check::<Divergence>();
    check::<Draws>();
    check::<Error>();
    check::<Esvae>();
    check::<EsvaeConfig>();
    check::<EsvaeDraws>();
    check::<EsvaeOutput>();
    check::<Fsvae>();
    check::<FsvaeConfig>();
    check::<Losses>();
    check::<Output>();
    check::<ScheduledSampling>();
}

#[test]
fn values_are_copied_and_compared() {
    fn check<T: Clone + PartialEq + std::fmt::Debug>() {}
    check::<BodyConfig>();
    check::<Divergence>();
    check::<EsvaeConfig>();
    check::<FsvaeConfig>();
    check::<ScheduledSampling>();
}
