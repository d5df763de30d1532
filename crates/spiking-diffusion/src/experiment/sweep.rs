//! Samples of a finished run by several settings of sampling: how near to real images they are, how varied, and how fast.

mod table;

use std::path::Path;
use std::time::Instant;

use absorbing_diffusion::{Denoiser, SamplingConfig};
use candle_core::{Device, Tensor};
use serde::{Deserialize, Serialize};
use snn_train::{Alone, Progress, read_json};
use vq_svae::CodeUsage;

use super::batches::process;
use super::config::ExperimentConfig;
use super::device::Kind;
use super::drawing::generate_over;
use super::judge::Judge;
use super::networks::Autoencoder;
use super::trained::{Condition, Trained};
use crate::error::{Error, Result};

/// Says what the samples of one setting are like.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// How they were drawn.
    pub sampling: SamplingConfig,
    /// In how many steps.
    pub steps: usize,
    /// The mean number of evaluations of the network that an image takes; none with an order of your own, which does not say.
    pub passes: Option<f64>,
    /// Images a second, sampled in the config's batches and decoded.
    pub images_per_second: f64,
    /// Codes that occur in the samples.
    pub codes_used: usize,
    /// `exp(entropy)` of their codes.
    pub codebook_perplexity: f64,
    /// Their Fréchet distances, in the order of the judges; smaller is better.
    pub distances: Vec<f64>,
}

/// Compares settings of sampling: a table with a row for each. [`sweep`] makes one of given settings; [`new`](Self::new) and
/// [`add`](Self::add) make one row by row, so that it can be [saved](Self::save) in between and a stop loses none.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sweep {
    /// SHA-256 of what the networks come from, as [`Trained::sha256`].
    pub networks_sha256: String,
    /// Images a row.
    pub images: usize,
    /// Their seed.
    pub seed: u64,
    /// The kind of device that drew them, with the precision of its products where that is not f32: `cpu`, `cuda`, `cuda (tf32)`.
    #[serde(default = "cpu")]
    pub device: String,
    /// The name of the user's own order, in place of those of the rows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub own_order: Option<String>,
    /// The classes, if the images have any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub condition: Option<Condition>,
    /// What the distances are measured by, and which real images they are to.
    pub judges: Vec<String>,
    /// A row for each setting.
    pub rows: Vec<Row>,
}

impl Sweep {
    /// Begins the table of the first `count` images of the config's seed, without rows yet.
    ///
    /// # Errors
    /// Returns an error if there are fewer than two images.
    pub fn new<D: Denoiser, A: Autoencoder>(
        trained: &Trained<D, A>,
        count: usize,
        judges: &[Judge],
        device: &Device,
    ) -> Result<Self> {
        check_count(count)?;
        Ok(Self {
            networks_sha256: trained.sha256.clone(),
            images: count,
            seed: trained.cfg.seed.0,
            device: Kind::of(device).to_string(),
            own_order: trained.order.as_ref().map(|own| own.name.clone()),
            condition: trained.condition.clone(),
            judges: judges.iter().map(|judge| judge.name().to_owned()).collect(),
            rows: Vec::new(),
        })
    }

    /// Reads the table that [`save`](Self::save) has written to a folder.
    ///
    /// # Errors
    /// Returns an error, with the file, if there is none or it cannot be read.
    pub fn load(folder: &Path) -> Result<Self> {
        Ok(read_json(&table::file(folder))?)
    }

    /// Draws the images by one more setting and measures them, unless there is a row of this setting already, in batches of any size. The
    /// images themselves are not kept. A new row is [told](Progress::message).
    ///
    /// # Errors
    /// Returns an error if the table is of other networks, classes or judges, another seed, device or own order; if the setting does not
    /// [validate](SamplingConfig::validate); if a judge does not take the images; or if a stop was asked for.
    pub fn add<D: Denoiser, A: Autoencoder>(
        &mut self,
        trained: &Trained<D, A>,
        sampling: SamplingConfig,
        judges: &[Judge],
        device: &Device,
        progress: &mut dyn Progress,
    ) -> Result<()> {
        self.check_same(&Self::new(trained, self.images, judges, device)?)?;
        sampling.validate()?;
        let in_batches_of = |batch_size| SamplingConfig { batch_size, ..sampling };
        if self.rows.iter().any(|row| row.sampling == in_batches_of(row.sampling.batch_size)) {
            return Ok(());
        }
        let cfg = ExperimentConfig { sampling, ..trained.cfg.clone() };
        let row = row(&cfg, trained, self.images, judges, device, progress)?;
        progress.message(&row.line());
        self.rows.push(row);
        Ok(())
    }

    /// Rejects a table whose rows cannot stand beside this one's.
    pub(crate) fn check_same(&self, other: &Self) -> Result<()> {
        let told = |sweep: &Self| {
            let condition = sweep.condition.as_ref().map(|condition| format!("{condition:?}"));
            [
                ("sweep.networks_sha256", sweep.networks_sha256.clone()),
                ("sweep.images", sweep.images.to_string()),
                ("sweep.seed", sweep.seed.to_string()),
                ("sweep.device", sweep.device.clone()),
                ("sweep.own_order", sweep.own_order.clone().unwrap_or_default()),
                ("sweep.condition", condition.unwrap_or_default()),
                ("sweep.judges", sweep.judges.join("; ")),
            ]
        };
        for ((field, here), (_, there)) in told(self).into_iter().zip(told(other)) {
            if here != there {
                return Err(Error::config(field, there, format!("the rows that are done have {here:?}")));
            }
        }
        Ok(())
    }
}

/// Draws images `0..count` of the config's seed by each of these settings, and measures them: a [`Sweep`] with all of these rows.
///
/// # Errors
/// Returns an error if there are no settings or one does not [validate](SamplingConfig::validate), if there are fewer than two images, if
/// a judge does not take them, or if a stop was asked for.
/// # Examples
/// ```no_run
/// use candle_core::Device;
/// use spiking_diffusion::absorbing_diffusion::SamplingConfig;
/// use spiking_diffusion::judge::Against;
/// use spiking_diffusion::{FadFiles, Silent, Trained, data, sweep};
/// # fn main() -> spiking_diffusion::Result<()> {
/// let (digits, trained) = (data::mnist(Some("mnist".as_ref()))?, Trained::mnist(&Device::Cpu)?);
/// let fad = FadFiles::at("fad".as_ref(), "mnist")?.judge(Against::Train, &digits, 10_000, &mut Silent)?;
/// let settings = [0.9, 1.0].map(|t| SamplingConfig { temperature: t.into(), ..trained.cfg.sampling });
/// let found = sweep::sweep(&trained, &settings, 5_000, &[fad], &Device::Cpu, &mut Silent)?;
/// println!("{}", found.to_markdown());
/// # Ok(()) }
/// ```
pub fn sweep<D: Denoiser, A: Autoencoder>(
    trained: &Trained<D, A>,
    settings: &[SamplingConfig],
    count: usize,
    judges: &[Judge],
    device: &Device,
    progress: &mut dyn Progress,
) -> Result<Sweep> {
    check(settings, count)?;
    let mut found = Sweep::new(trained, count, judges, device)?;
    for &sampling in settings {
        found.add(trained, sampling, judges, device, progress)?;
    }
    Ok(found)
}

/// Rejects what cannot be drawn or measured, before anything is.
pub(crate) fn check(settings: &[SamplingConfig], count: usize) -> Result<()> {
    if settings.is_empty() {
        return Err(Error::config("sweep", "0 settings", "needs at least one setting"));
    }
    check_count(count)?;
    Ok(settings.iter().try_for_each(SamplingConfig::validate)?)
}

/// Where older tables were drawn.
fn cpu() -> String {
    Kind::CPU.to_string()
}

fn check_count(count: usize) -> Result<()> {
    match count {
        0 | 1 => Err(Error::config("sweep", format!("{count} images"), "needs at least two images")),
        _ => Ok(()),
    }
}

fn row<D: Denoiser, A: Autoencoder>(
    cfg: &ExperimentConfig,
    trained: &Trained<D, A>,
    count: usize,
    judges: &[Judge],
    device: &Device,
    progress: &mut dyn Progress,
) -> Result<Row> {
    let (sampling, steps, mut codes) = (cfg.sampling, cfg.sampling.steps_of(&process(cfg)?), Vec::new());
    let clock = Instant::now();
    let mut keep_last = |_: usize, step: usize, seen: &[u32]| {
        if step + 1 == steps {
            codes.extend_from_slice(seen);
        }
    };
    let source = (cfg, trained.networks());
    let images = generate_over(&Alone, source, 0..count, device, progress, Some(&mut keep_last))?;
    let seconds = clock.elapsed().as_secs_f64();
    let mut usage = CodeUsage::new(cfg.sdid.codes);
    usage.record(&Tensor::new(codes, &Device::Cpu)?)?;
    let tokens = cfg.sdid.height * cfg.sdid.width;
    Ok(Row {
        sampling,
        steps,
        passes: trained.order.is_none().then(|| sampling.order.mean_passes(tokens, steps)),
        images_per_second: count as f64 / seconds,
        codes_used: usage.used(),
        codebook_perplexity: usage.perplexity(),
        distances: judges.iter().map(|judge| judge.distance(&images, progress)).collect::<Result<_>>()?,
    })
}
