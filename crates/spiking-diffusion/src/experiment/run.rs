//! A whole run, from data to report.

use std::path::{Path, PathBuf};
use std::time::Instant;

use candle_core::{Device, Tensor};
use snn_train::{Alone, Collective, Progress, RunDir, agree};
use vq_svae::VqSvae;

#[cfg(feature = "report")]
use super::classes;
use super::command::Asked;
use super::config::ExperimentConfig;
#[cfg(feature = "report")]
use super::distance::in_8_bits;
use super::distance::{self, Features, Images};
use super::drawing::{assist, dismiss};
use super::evaluation::{Reconstructions, evaluate_denoiser};
use super::fad::FadFiles;
#[cfg(feature = "report")]
use super::neighbours::{images_of, nearest_of};
use super::neighbours::{mean_distance, nearest};
use super::networks::Networks;
#[cfg(feature = "report")]
use super::stages::process;
use super::stages::{Codes, Film, Place, encode_with, generate_over, train_sdid_in, train_vqsvae_in};
use super::starter::Starter;
use super::summary;
use crate::data::Dataset;
#[cfg(feature = "report")]
use crate::data::Split;
use crate::error::{Error, Result};
#[cfg(feature = "report")]
use crate::report::{self, Unmasking, picture, size::square};
use crate::report::{Machine, Neighbours, Report};
#[cfg(feature = "report")]
use spiking_diffusion_metrics::{Classifier, FeatureExtractor};

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
    device: Device,
    features: Features,
    fad: Option<FadFiles>,
    starter: Starter,
}

impl<'a> Experiment<'a> {
    /// Describes a new run on the CPU in the folder `runs/<data set>-<preset>-<seed>`, without distances.
    pub fn new(cfg: &'a ExperimentConfig, data: &'a Dataset) -> Self {
        let out = format!("runs/{}-{}-{}", data.name, cfg.preset.name(), cfg.seed.0).into();
        let (device, features, starter) = (Device::Cpu, Features::None, Starter::Example);
        Self { cfg, data, out, resume: false, device, features, fad: None, starter }
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
    /// [cannot be taken](RunDir::open), if features cannot be had (weights that cannot be read or lack a layer, images that the network
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
        if workers.rank() == 0 {
            return self.lead(workers, progress).map(Some);
        }
        let place = Place { workers, run: None, device: &self.device };
        let vqsvae = train_vqsvae_in(cfg, &self.data.train, place, progress)?;
        let (codes, _) = self.encode(&vqsvae, place, progress)?;
        let sdid = train_sdid_in(cfg, &codes.train, self.data.train.labels(), place, progress)?;
        assist(workers, (cfg, Networks::spiking(&vqsvae, &sdid)), &self.device)?;
        Ok(None)
    }

    fn lead(&self, workers: &dyn Collective, progress: &mut dyn Progress) -> Result<Report> {
        let Self { cfg, data, device, starter, .. } = self;
        let features = if cfg.evaluation.distance_images > 0 { &self.features } else { &Features::None };
        features.validate(data)?;
        let fad = self.fad.as_ref().filter(|_| cfg.evaluation.distance_images > 1);
        let fad = fad.map(FadFiles::open).transpose()?;
        let run = RunDir::open(&self.out, *cfg, self.resume)?;
        let place = Place { workers, run: Some(&run), device };
        let vqsvae = train_vqsvae_in(cfg, &data.train, place, progress)?;
        let (codes, measured) = self.encode(&vqsvae, place, progress)?;
        #[cfg(feature = "report")]
        save_reconstructions(&vqsvae, &data.test, &codes.test, &run)?;
        let sdid = train_sdid_in(cfg, &codes.train, data.train.labels(), place, progress)?;
        #[cfg(feature = "report")]
        report::save_losses(&run, &cfg.data.name, cfg.weighting)?;
        let networks = Networks::spiking(&vqsvae, &sdid);
        let samples = draw_samples(cfg, networks, workers, &run, device, progress)?;
        #[cfg(feature = "report")]
        if cfg.sdid.classes.is_some() {
            let clock = Instant::now();
            classes::save_picture(cfg, (&vqsvae, &sdid), &run, device, progress)?;
            run.record_seconds("classes", clock.elapsed().as_secs_f64())?;
        }

        let measured = match measured {
            Some(measured) => measured,
            None => Reconstructions::measure(cfg, &vqsvae, &data.test, (&Alone, device), progress)?.0,
        };
        let (clock, before) = (Instant::now(), measured.seconds);
        let mut evaluation = evaluate_denoiser(cfg, networks, measured, &codes.test, device, progress)?;
        run.record_seconds("evaluate", before + clock.elapsed().as_secs_f64())?;

        let extractor = distance::extractor(cfg, features, data, &run, progress)?;
        if extractor.is_some() || fad.is_some() {
            let clock = Instant::now();
            let generated = self.generated(networks, &samples, workers, progress)?;
            let count = generated.dim(0)?.min(data.test.len());
            let again = distance::reconstructions(cfg, &vqsvae, &codes.test.narrow(0, 0, count)?)?;
            if let Some(extractor) = extractor {
                let images = Images { test: &data.test, again: &again, generated: &generated };
                evaluation.metrics.distance = Some(distance::measure(cfg, &*extractor, images, progress)?);
            }
            if let Some(published) = fad {
                evaluation.metrics.fad = Some(published.measure(&generated, &again, progress)?);
            }
            run.record_seconds("distance", clock.elapsed().as_secs_f64())?;
        }
        dismiss(workers)?;
        let neighbours = self.neighbours(&samples, &run, progress)?;
        #[cfg(feature = "report")]
        report::save_codebook(&evaluation.code_counts, &run)?;
        let asked = Asked { features, fad: self.fad.as_ref(), starter: *starter };
        let machine = Machine::here(&name_of(device));
        let mut report = summary::report(cfg, evaluation, asked, run.seconds()?, machine);
        report.neighbours = Some(neighbours);
        run.write_json("report.json", &report)?;
        #[cfg(feature = "report")]
        {
            report::save_firing_rates(&report, &run)?;
            report.save_pages(&run)?;
        }
        Ok(report)
    }

    /// The codes of all images. Test images are encoded once, by the pass that measures what comes back of them; in an earlier
    /// session, if nothing is returned of that.
    fn encode(
        &self,
        vqsvae: &VqSvae,
        place: Place<'_>,
        progress: &mut dyn Progress,
    ) -> Result<(Codes, Option<Reconstructions>)> {
        let (cfg, at) = (self.cfg, (place.workers, place.device));
        let mut measured = None;
        let mut of_test = |progress: &mut dyn Progress| {
            let (found, codes) = Reconstructions::measure(cfg, vqsvae, &self.data.test, at, progress)?;
            measured = Some(found);
            Ok(codes)
        };
        let codes = encode_with(cfg, vqsvae, self.data, place, progress, &mut of_test)?;
        Ok((codes, measured))
    }

    /// How far the first samples are from the training images, and the picture of both.
    fn neighbours(&self, samples: &Tensor, run: &RunDir, progress: &mut dyn Progress) -> Result<Neighbours> {
        let (clock, data) = (Instant::now(), self.data);
        let images = self.cfg.samples.min(data.test.len()).min(NEIGHBOURS);
        let (samples, test) = (samples.narrow(0, 0, images)?, data.test.range(0..images, &Device::Cpu)?);
        let both = nearest(&Tensor::cat(&[&samples, &test], 0)?, &data.train, progress)?;
        let (of_samples, of_test) = both.split_at(images);
        #[cfg(feature = "report")]
        {
            let shown = images.min(SHOWN_NEIGHBOURS);
            let mut rows = vec![samples.narrow(0, 0, shown)?, images_of(&of_samples[..shown], &data.train)?];
            let classifier = run.file("classifier.safetensors");
            if classifier.exists() {
                let classifier = Classifier::load(&classifier)?;
                let mut features = |images: &Tensor| Ok(classifier.extract(&in_8_bits(images)?)?);
                let found = nearest_of(&rows[0], &data.train, &mut features, progress)?;
                rows.push(images_of(&found, &data.train)?);
            }
            picture::save_grid(&run.file("neighbours.png"), &Tensor::cat(&rows, 0)?, shown)?;
        }
        run.record_seconds("neighbours", clock.elapsed().as_secs_f64())?;
        Ok(Neighbours { images, samples: mean_distance(of_samples), test: mean_distance(of_test) })
    }

    /// As many images as distances are measured on. The first samples are among them: image i is the same in any range.
    fn generated(
        &self,
        networks: Networks<'_>,
        samples: &Tensor,
        workers: &dyn Collective,
        progress: &mut dyn Progress,
    ) -> Result<Tensor> {
        let (cfg, count) = (self.cfg, self.cfg.evaluation.distance_images);
        let there = cfg.samples.min(count);
        let first = samples.narrow(0, 0, there)?;
        if there == count {
            return Ok(first);
        }
        let more = generate_over(workers, (cfg, networks), there..count, &self.device, progress, None)?;
        Ok(Tensor::cat(&[first, more], 0)?)
    }
}

/// Samples, and test images, whose distance to the training images is measured, and how many of them are shown.
const NEIGHBOURS: usize = 64;
#[cfg(feature = "report")]
const SHOWN_NEIGHBOURS: usize = 16;

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

fn name_of(device: &Device) -> String {
    match device.location() {
        candle_core::DeviceLocation::Cpu => "cpu".to_owned(),
        candle_core::DeviceLocation::Cuda { gpu_id } => format!("cuda:{gpu_id}"),
        candle_core::DeviceLocation::Metal { gpu_id } => format!("metal:{gpu_id}"),
    }
}
