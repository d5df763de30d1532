//! How many steps of training fit in a time.

use std::time::Instant;

use candle_core::Device;
use snn_train::{Alone, Progress, RunDir, TrainingConfig};

use super::config::ExperimentConfig;
use super::run::resized;
use super::stages::{Place, encode, find_classes_in, seconds_to_find, train_sdid_in, train_vqsvae_in};
use super::vae;
use crate::data::Dataset;
use crate::error::{Error, Result};

/// Steps that are timed.
const TIMED: usize = 50;

impl ExperimentConfig {
    /// Returns the same experiment with as many steps of training as take about so many minutes on this machine now, so that schedules end
    /// with the time. Drawing and measuring come on top.
    ///
    /// Fifty steps of each network are timed, in a folder that is then deleted. Where the model has codes, a third of the time is the
    /// autoencoder's; the rest is for encoding the training images, for clusters of them, and for the denoiser, which gets a third at least. What follows is an ordinary
    /// config, which any machine runs to the same bytes: keep it (a run does, in `config.json`), because another call finds other numbers.
    ///
    /// # Errors
    /// Returns an error if `minutes` is not positive and finite, if the config does not [validate](Self::validate) or was made for other
    /// data, if a stop was asked for, if a loss is not finite, or if no temporary folder can be written to.
    /// # Examples
    /// ```no_run
    /// use candle_core::Device;
    /// use spiking_diffusion::{Experiment, ExperimentConfig, Preset, Silent, data};
    ///
    /// # fn main() -> spiking_diffusion::Result<()> {
    /// let digits = data::mnist(None)?;
    /// let cfg = ExperimentConfig::for_data(Preset::Best, &digits)?;
    /// let cfg = cfg.within_minutes(30., &digits, &Device::Cpu, &mut Silent)?;
    /// println!("{:?} and {:?} steps", cfg.vqsvae_training.max_steps, cfg.sdid_training.max_steps);
    /// # Ok(()) }
    /// ```
    pub fn within_minutes(
        mut self,
        minutes: f64,
        data: &Dataset,
        device: &Device,
        progress: &mut dyn Progress,
    ) -> Result<Self> {
        if !(minutes.is_finite() && minutes > 0.) {
            return Err(Error::config("minutes", minutes, "must be positive and finite"));
        }
        self.validate_for(data)?;
        let timed: Vec<_> =
            self.trainings().into_iter().map(|(_, training)| TIMED * training.batch_size).collect();
        let items = data.train.len();
        let few = data.clone().limit(timed.into_iter().max().unwrap_or(items).min(items))?;
        let few = resized(&self, &few)?.unwrap_or(few);
        let mut short = self.clone();
        short
            .trainings_mut()
            .into_iter()
            .try_for_each(|training| set_steps(training, TIMED, few.train.len()))?;
        let (seconds, progress) = (minutes * 60., &mut Unseen(progress));
        let folder = tempfile::tempdir().map_err(Error::io(&std::env::temp_dir()))?;
        let run = RunDir::open(folder.path(), &short, false)?;
        let place = Place { workers: &Alone, run: Some(&run), device };
        let seconds = match &short.vae {
            Some(vae) => {
                let of_step =
                    clock(|| vae::train(&short, vae, &few.train, &run, device, progress))?.1 / TIMED as f64;
                vec![seconds / of_step]
            }
            None => {
                let (vqsvae, took) = clock(|| train_vqsvae_in(&short, &few.train, place, progress))?;
                let (codes, encoding) = clock(|| encode(&short, &vqsvae, &few.train, place, progress))?;
                let Some(codes) = codes else { return Ok(self) };
                let classes = find_classes_in(&short, &few, place, progress)?;
                let of_sdid = clock(|| train_sdid_in(&short, &codes, &classes.train, place, progress))?.1;
                let of_all = encoding * items as f64 / few.train.len() as f64
                    + seconds_to_find(&self, items, &few.train)?;
                let of_all = of_all.min(seconds / 3.);
                let [first, second] = [took, of_sdid].map(|took| took / TIMED as f64);
                vec![seconds / 3. / first, (seconds * 2. / 3. - of_all) / second]
            }
        };
        for (training, steps) in self.trainings_mut().into_iter().zip(seconds) {
            set_steps(training, (steps as usize).max(1), items)?;
        }
        Ok(self)
    }
}

/// Lets a training last so many steps over so many items.
fn set_steps(training: &mut TrainingConfig, steps: usize, items: usize) -> Result<()> {
    training.epochs = steps.div_ceil(training.steps_per_epoch(items)?);
    training.max_steps = Some(steps);
    Ok(())
}

/// What comes of it, and the seconds that it took.
fn clock<T>(work: impl FnOnce() -> Result<T>) -> Result<(T, f64)> {
    let clock = Instant::now();
    Ok((work()?, clock.elapsed().as_secs_f64()))
}

/// Shows nothing, and hears when to stop.
struct Unseen<'a>(&'a dyn Progress);

impl Progress for Unseen<'_> {
    fn stop_requested(&self) -> bool {
        self.0.stop_requested()
    }
}
