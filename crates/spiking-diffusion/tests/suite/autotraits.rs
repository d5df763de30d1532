//! What may cross threads.

use spiking_diffusion::data::{Dataset, Split};
use spiking_diffusion::{Error, ExperimentConfig, Report, RunDir};

#[test]
fn types_are_send_and_sync() {
    fn check<T: Send + Sync>() {}
    check::<Dataset>();
    check::<Split>();
    check::<ExperimentConfig>();
    check::<Report>();
    check::<RunDir>();
    check::<Error>();
}
