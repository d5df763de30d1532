//! A whole run, from data to report.

use std::path::{Path, PathBuf};
use std::time::Instant;

use candle_core::{Device, Tensor};
use snn_train::{Alone, Collective, Progress, RunDir, agree};
use vq_svae::VqSvae;

#[cfg(feature = "report")]
use super::batches::process;
#[cfg(feature = "report")]
use super::classes;
use super::command::Asked;
use super::config::ExperimentConfig;
use super::device::Kind;
use super::distance::{self, Features};
use super::drawing::{Film, draw, generate_over};
use super::evaluation::{Reconstructions, evaluate_denoiser};
use super::fad::FadFiles;
use super::finish::{Made, Session, finish};
use super::networks::Networks;
use super::reuse::FirstStages;
use super::sharing::{assist, dismiss};
use super::stages::{Codes, Place, encode_with, train_sdid_in, train_vqsvae_in};
use super::starter::Starter;
use super::vae::{self, TrainedVae};
use crate::data::Dataset;
#[cfg(feature = "report")]
use crate::data::Split;
use crate::error::{Error, Result};
use crate::report::Report;
#[cfg(feature = "report")]
use crate::report::{self, Unmasking, picture, size::square};

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
    /// The other run must have the same data, seed, `vqsvae` and `vqsvae_training`, so that this run ends with the same bytes as one that
    /// made all by itself.
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

    /// Puts the run on another device.
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
    /// [cannot be taken](RunDir::open), if the [codes](Self::codes_from) of another run are missing or are those of other settings, if features cannot be had (weights that cannot be read or lack a layer, images that the network
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

    fn lead(&self, workers: &dyn Collective, progress: &mut dyn Progress) -> Result<Report> {
        let Self { cfg, device, .. } = self;
        let resized = resized(cfg, self.data)?;
        let data = resized.as_ref().unwrap_or(self.data);
        let features = if cfg.evaluation.distance_images > 0 { &self.features } else { &Features::None };
        features.validate(data)?;
        let measured = self.fad.as_ref().filter(|_| cfg.evaluation.distance_images > 1);
        measured.map_or(Ok(()), |files| files.validate(self.data))?;
        let first = self.codes_from.as_deref().map(|from| FirstStages::of(from, cfg)).transpose()?;
        let run = RunDir::open(&self.out, *cfg, self.resume)?;
        first.map_or(Ok(()), |first| first.put_into(&run))?;
        let session = Session { cfg, data, run: &run, device };
        let pixel_variance = self.data.train.pixel_variance()?;
        let (fad, starter) = (self.fad.as_ref(), self.starter);
        let asked = Asked { features, fad, starter, pixel_variance, device };
        match &cfg.vae {
            Some(vae) => {
                vae::train(cfg, vae, &data.train, &run, device, progress)?;
                let trained = TrainedVae::load(&self.out, device)?;
                of_vae(session, &trained, asked, measured, progress)
            }
            None => of_codes(session, workers, asked, measured, progress),
        }
    }
}

/// The data set, where the model's images have another size.
pub(super) fn resized(cfg: &ExperimentConfig, data: &Dataset) -> Result<Option<Dataset>> {
    let ([_, height, width], (_, rows, columns)) = (cfg.image(), data.image());
    if (height, width) == (rows, columns) {
        return Ok(None);
    }
    Ok(Some(data.resized(height, width)?))
}

/// The run of an autoencoder and a denoiser of its codes, with the workers that [follow](follow).
fn of_codes(
    session: Session<'_>,
    workers: &dyn Collective,
    asked: Asked<'_>,
    fad: Option<&FadFiles>,
    progress: &mut dyn Progress,
) -> Result<Report> {
    let Session { cfg, data, run, device } = session;
    let place = Place { workers, run: Some(run), device };
    let vqsvae = train_vqsvae_in(cfg, &data.train, place, progress)?;
    let (codes, measured) = encode(cfg, data, &vqsvae, place, progress)?;
    #[cfg(feature = "report")]
    save_reconstructions(&vqsvae, &data.test, &codes.test, run)?;
    let sdid = train_sdid_in(cfg, &codes.train, data.train.labels(), place, progress)?;
    #[cfg(feature = "report")]
    report::save_losses(run, &cfg.data.name, cfg.weighting)?;
    let networks = Networks::spiking(&vqsvae, &sdid);
    let samples = draw_samples(cfg, networks, workers, run, device, progress)?;
    #[cfg(feature = "report")]
    if cfg.sdid.classes.is_some() {
        let clock = Instant::now();
        classes::save_picture(cfg, (&vqsvae, &sdid), run, device, progress)?;
        run.record_seconds("classes", clock.elapsed().as_secs_f64())?;
    }

    let measured = match measured {
        Some(measured) => measured,
        None => Reconstructions::measure(cfg, &vqsvae, &data.test, (&Alone, device), progress)?.0,
    };
    let (clock, before) = (Instant::now(), measured.seconds);
    let evaluation = evaluate_denoiser(cfg, networks, measured, &codes.test, device, progress)?;
    run.record_seconds("evaluate", before + clock.elapsed().as_secs_f64())?;
    #[cfg(feature = "report")]
    report::save_codebook(&evaluation.code_counts, run)?;

    let made = Made {
        evaluation,
        samples,
        generate: &|images, progress| generate_over(workers, (cfg, networks), images, device, progress, None),
        reconstruct: &|count| distance::reconstructions(cfg, &vqsvae, &codes.test.narrow(0, 0, count)?),
    };
    let report = finish(session, made, asked, fad, progress)?;
    dismiss(workers)?;
    Ok(report)
}

/// The part of a worker in the run that worker 0 [leads](of_codes).
fn follow(
    cfg: &ExperimentConfig,
    data: &Dataset,
    place: Place<'_>,
    progress: &mut dyn Progress,
) -> Result<()> {
    let vqsvae = train_vqsvae_in(cfg, &data.train, place, progress)?;
    let (codes, _) = encode(cfg, data, &vqsvae, place, progress)?;
    let sdid = train_sdid_in(cfg, &codes.train, data.train.labels(), place, progress)?;
    let networks = Networks::spiking(&vqsvae, &sdid);
    assist(place.workers, &|images, observe| draw(cfg, networks, images, place.device, observe))
}

/// The run of a variational autoencoder.
fn of_vae(
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

/// The codes of all images. Test images are encoded once, by the pass that measures what comes back of them; in an earlier
/// session, if nothing is returned of that.
fn encode(
    cfg: &ExperimentConfig,
    data: &Dataset,
    vqsvae: &VqSvae,
    place: Place<'_>,
    progress: &mut dyn Progress,
) -> Result<(Codes, Option<Reconstructions>)> {
    let mut measured = None;
    let mut of_test = |progress: &mut dyn Progress| {
        let at = (place.workers, place.device);
        let (found, codes) = Reconstructions::measure(cfg, vqsvae, &data.test, at, progress)?;
        measured = Some(found);
        Ok(codes)
    };
    let codes = encode_with(cfg, vqsvae, data, place, progress, &mut of_test)?;
    Ok((codes, measured))
}

/// The first samples, and how they come to be.
fn draw_samples(
    cfg: &ExperimentConfig,
    networks: Networks<'_>,
    workers: &dyn Collective,
    run: &RunDir,
    device: &Device,
    progress: &mut dyn Progress,
) -> Result<Tensor> {
    #[cfg(feature = "report")]
    let mut film = Unmasking::new(cfg.samples, process(cfg)?.mask(), (cfg.sdid.height, cfg.sdid.width));
    #[cfg(feature = "report")]
    let mut observe = |first: usize, step: usize, codes: &[u32]| film.record(first, step, codes);
    #[cfg(not(feature = "report"))]
    let mut observe = |_: usize, _: usize, _: &[u32]| ();
    let (clock, shown): (_, Film<'_>) = (Instant::now(), &mut observe);
    let samples = generate_over(workers, (cfg, networks), 0..cfg.samples, device, progress, Some(shown))?;
    run.record_seconds("sample", clock.elapsed().as_secs_f64())?;
    #[cfg(feature = "report")]
    {
        picture::save_grid(&run.file("samples.png"), &samples, square(cfg.samples).1)?;
        film.save(networks.vqsvae, run, device)?;
    }
    Ok(samples)
}

/// The first test images over what comes back of them.
#[cfg(feature = "report")]
fn save_reconstructions(vqsvae: &VqSvae, test: &Split, codes: &Tensor, run: &RunDir) -> Result<()> {
    let count = test.len().min(16);
    let (originals, again) =
        (test.range(0..count, &Device::Cpu)?, vqsvae.decode(&codes.narrow(0, 0, count)?)?);
    picture::save_pairs(&run.file("reconstructions.png"), &originals, &again)
}
