//! The run of a model that is a variational autoencoder.

use std::time::Instant;

use snn_train::Progress;

use crate::error::Result;
use crate::experiment::command::Asked;
use crate::experiment::fad::FadFiles;
use crate::experiment::finish::{Made, Session, finish};
use crate::experiment::vae::{self, TrainedVae};
use crate::report::Report;
#[cfg(feature = "report")]
use crate::report::{self, picture, size::square};

/// The run of a variational autoencoder.
pub(super) fn of_vae(
    session: Session<'_>,
    trained: &TrainedVae,
    asked: Asked<'_>,
    fad: Option<&FadFiles>,
    progress: &mut dyn Progress,
) -> Result<Report> {
    let Session { cfg, data, run, device } = session;
    #[cfg(feature = "report")]
    {
        vae::save_reconstructions(trained, &data.test, run, device)?;
        report::save_vae_losses(run, trained.kind(), &cfg.data.name)?;
    }
    let clock = Instant::now();
    let samples = trained.generate(0..cfg.samples, device, progress)?;
    run.record_seconds("sample", clock.elapsed().as_secs_f64())?;
    #[cfg(feature = "report")]
    picture::save_grid(&run.file("samples.png"), &samples, square(cfg.samples).1)?;
    let made = Made {
        evaluation: vae::evaluate(trained, &data.test, run, device, progress)?,
        samples,
        generate: &|images, progress| trained.generate(images, device, progress),
        reconstruct: &|count| trained.reconstruct_first(count, &data.test, device),
    };
    finish(session, made, asked, fad, progress)
}
