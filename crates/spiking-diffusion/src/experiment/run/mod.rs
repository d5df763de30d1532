//! A whole run, from data to report.

mod codes;
mod vae;

use std::path::{Path, PathBuf};

use candle_core::Device;
use snn_train::{Alone, Collective, Progress, RunDir, agree, read_json};

use super::command::Asked;
use super::config::ExperimentConfig;
use super::device::Kind;
use super::distance::Features;
use super::fad::FadFiles;
use super::finish::Session;
use super::reuse::FirstStages;
use super::stages::Place;
use super::starter::Starter;
use super::vae::{TrainedVae, train};
use crate::data::Dataset;
use crate::error::{Error, Result};
use crate::report::Report;
use codes::{follow, of_codes};
use vae::of_vae;

/// Makes a whole run: trains, encodes, samples, measures and reports, all into one folder.
///
/// # Examples
/// ```no_run
/// use spiking_diffusion::{Experiment, ExperimentConfig, Features, Preset, Silent, data};
///
/// # fn main() -> spiking_diffusion::Result<()> {
/// let digits = data::mnist(None)?;
/// let cfg = ExperimentConfig::for_data(Preset::Quick, &digits)?;
/// let experiment = Experiment::new(&cfg, &digits).out("runs/mine").features(Features::Classifier);
/// let report = experiment.resume(true).run(&mut Silent)?;
/// println!("test MSE {:.4}", report.metrics.mse);
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
#[must_use = "an experiment does nothing until it is run"]
pub struct Experiment<'a> {
    cfg: &'a ExperimentConfig,
    data: &'a Dataset,
    out: PathBuf,
    resume: bool,
    codes_from: Option<PathBuf>,
    device: Device,
    features: Features,
    fad: Option<FadFiles>,
    starter: Starter,
}

impl<'a> Experiment<'a> {
    /// Describes a new run on the CPU in the folder `runs/<data set>-<preset>-<seed>`, or `runs/<data set>-<model>-<preset>-<seed>` where the
    /// model is not the paper's, without distances.
    pub fn new(cfg: &'a ExperimentConfig, data: &'a Dataset) -> Self {
        let model = if cfg.model.is_the_papers() { String::new() } else { format!("-{}", cfg.model.name()) };
        let out = format!("runs/{}{model}-{}-{}", data.name, cfg.preset.name(), cfg.seed.0).into();
        let (device, features, starter) = (Device::Cpu, Features::None, Starter::Example);
        Self { cfg, data, out, resume: false, codes_from: None, device, features, fad: None, starter }
    }

    /// Puts the run into another folder.
    pub fn out(self, folder: impl Into<PathBuf>) -> Self {
        Self { out: folder.into(), ..self }
    }

    /// Says whether the run goes on where an earlier one of the same config in that folder stopped. It then ends with the same bytes as
    /// one that never did (times aside).
    pub fn resume(self, resume: bool) -> Self {
        Self { resume, ..self }
    }

    /// Takes the autoencoder and the codes of the run in another folder, instead of the first two stages: for many denoisers of the same
    /// codes.
    ///
    /// The other run must have the same data, seed, `vqsvae` and `vqsvae_training`, and have been made on a device of the same kind, so that
    /// this run ends with the same bytes as one that made all by itself.
    ///
    /// # Examples
    /// ```no_run
    /// use spiking_diffusion::{Experiment, ExperimentConfig, Preset, Silent, data};
    ///
    /// # fn main() -> spiking_diffusion::Result<()> {
    /// let digits = data::mnist(None)?;
    /// let cfg = ExperimentConfig::for_data(Preset::Quick, &digits)?;
    /// Experiment::new(&cfg, &digits).out("runs/five-layers").run(&mut Silent)?;
    /// let deeper = cfg.with("sdid.channels", "[128,128,128,128,128,128,128]")?;
    /// Experiment::new(&deeper, &digits).out("runs/seven-layers").codes_from("runs/five-layers").run(&mut Silent)?;
    /// # Ok(()) }
    /// ```
    pub fn codes_from(self, run: impl Into<PathBuf>) -> Self {
        Self { codes_from: Some(run.into()), ..self }
    }

    /// Puts the run on another device. Where that is no CPU, `device.json` in the folder says which kind it is, and how exactly it computes:
    /// a run goes on by the same alone.
    pub fn device(self, device: &Device) -> Self {
        Self { device: device.clone(), ..self }
    }

    /// Also measures the distances of `evaluation.distance_images` generated images to as many test images.
    pub fn features(self, features: Features) -> Self {
        Self { features, ..self }
    }

    /// Also measures FAD of the same generated images by these files.
    pub fn fad(self, files: FadFiles) -> Self {
        Self { fad: Some(files), ..self }
    }

    /// Lets the report say how to start this program again.
    #[cfg(feature = "cli")]
    pub(crate) fn started_by(self, starter: Starter) -> Self {
        Self { starter, ..self }
    }

    /// Returns the folder that everything is written to.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.out
    }

    /// Runs the experiment.
    ///
    /// # Errors
    /// Returns an error if the config does not [validate](ExperimentConfig::validate) or was made for other data, if the folder
    /// [cannot be taken](RunDir::open), if the run was begun on a device of another kind, if the [codes](Self::codes_from) of another run are
    /// missing or are those of other settings, if features cannot be had (weights that cannot be read or lack a layer, images that the network
    /// does not take), if a loss is not finite, if a stop was asked for, or if a file cannot be read or written.
    pub fn run(&self, progress: &mut dyn Progress) -> Result<Report> {
        self.cfg.validate_for(self.data)?;
        self.lead(&Alone, progress)
    }

    /// Runs the experiment with other workers, all of which call this with the same config and data, and returns the report in worker 0,
    /// which alone has a folder: the others train their [shards](snn_train::TrainingConfig::shards), encode, measure and draw their part,
    /// and return none. The run has the same bytes with any number of workers, up to one a shard.
    ///
    /// # Errors
    /// Returns the errors of [`run`](Self::run), and an error if there are more workers than shards, if the workers'
    /// configs differ, or if another worker has gone. A worker that returns one leaves others waiting: end the job.
    pub fn run_over(&self, workers: &dyn Collective, progress: &mut dyn Progress) -> Result<Option<Report>> {
        let cfg = self.cfg;
        cfg.validate_for(self.data)?;
        for (stage, training) in cfg.trainings() {
            let shards = training.shards.unwrap_or(1);
            if workers.size() > shards {
                let reason = format!("each of the {} workers needs one of a batch's shards", workers.size());
                return Err(Error::config(format!("{stage}.shards"), shards, reason));
            }
        }
        agree(workers, cfg)?;
        agree(workers, &Kind::of(&self.device))?;
        if workers.rank() == 0 {
            return self.lead(workers, progress).map(Some);
        }
        let place = Place { workers, run: None, device: &self.device };
        let resized = resized(cfg, self.data)?;
        follow(cfg, resized.as_ref().unwrap_or(self.data), place, progress)?;
        Ok(None)
    }

    /// Rejects what its distances would fail by after hours of training.
    pub(crate) fn check(&self) -> Result<()> {
        self.measured_features().validate(self.data, self.cfg.image())?;
        self.measured_fad().map_or(Ok(()), |files| files.validate(self.data))
    }

    fn measured_features(&self) -> &Features {
        if self.cfg.evaluation.distance_images > 0 { &self.features } else { &Features::None }
    }

    fn measured_fad(&self) -> Option<&FadFiles> {
        self.fad.as_ref().filter(|_| self.cfg.evaluation.distance_images > 1)
    }

    fn lead(&self, workers: &dyn Collective, progress: &mut dyn Progress) -> Result<Report> {
        let Self { cfg, device, .. } = self;
        self.check()?;
        let resized = resized(cfg, self.data)?;
        let data = resized.as_ref().unwrap_or(self.data);
        let run = self.open()?;
        self.keeps_what_was_measured(&run)?;
        let session = Session { cfg, data, run: &run, device };
        let pixel_variance = self.data.train.pixel_variance()?;
        let (features, fad, starter) = (self.measured_features(), self.fad.as_ref(), self.starter);
        let asked = Asked { features, fad, starter, pixel_variance, device };
        let measured = self.measured_fad();
        match &cfg.vae {
            Some(vae) => {
                train(cfg, vae, &data.train, &run, device, progress)?;
                let trained = TrainedVae::load(&self.out, device)?;
                of_vae(session, &trained, asked, measured, progress)
            }
            None => of_codes(session, workers, asked, measured, progress),
        }
    }

    /// Refuses to write a report without distances over one with them.
    fn keeps_what_was_measured(&self, run: &RunDir) -> Result<()> {
        let file = run.file("report.json");
        // A report that cannot be read is none.
        let Some(Report { metrics, .. }) = file.exists().then(|| read_json(&file).ok()).flatten() else {
            return Ok(());
        };
        let by_inception = metrics.distance.is_some_and(|d| d.extractor.contains("Inception"));
        let lost = [
            (metrics.fad.is_some() && self.measured_fad().is_none(), "FAD", "--fad"),
            (
                by_inception && !matches!(self.measured_features(), Features::Inception(_)),
                "FID",
                "--inception",
            ),
        ];
        match lost.into_iter().find(|(lost, ..)| *lost) {
            None => Ok(()),
            Some((_, what, flag)) => Err(Error::run(
                &file,
                format!(
                    "holds a {what}, which this command does not measure and would write over: add {flag}, or take the file away"
                ),
            )),
        }
    }

    /// Whether the folder holds more of a run than its config, behind which a run on a GPU writes what it runs on.
    fn has_begun(&self) -> bool {
        let names =
            std::fs::read_dir(&self.out).into_iter().flatten().flatten().map(|entry| entry.file_name());
        // Also the config that a run was killed in the middle of writing.
        let before = ["config.json", "config.json.tmp", ".lock"];
        names.into_iter().any(|name| before.iter().all(|own| name != *own))
    }

    /// Takes the folder, and puts what another run has made into it.
    fn open(&self) -> Result<RunDir> {
        let (kind, begun) = (Kind::of(&self.device), self.has_begun());
        let first = match &self.codes_from {
            Some(from) if !(self.resume && FirstStages::are_in(&self.out)) => {
                Some(FirstStages::of(from, self.cfg, kind)?)
            }
            _ => None,
        };
        let run = RunDir::open(&self.out, self.cfg, self.resume)?;
        kind.keep(&run, begun)?;
        first.map_or(Ok(()), |first| first.put_into(&run))?;
        Ok(run)
    }
}

/// The data set, where the model's images have another size.
pub(in crate::experiment) fn resized(cfg: &ExperimentConfig, data: &Dataset) -> Result<Option<Dataset>> {
    let ([_, height, width], (_, rows, columns)) = (cfg.image(), data.image());
    if (height, width) == (rows, columns) {
        return Ok(None);
    }
    Ok(Some(data.resized(height, width)?))
}
