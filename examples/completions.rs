//! Does a denoiser err in the details or in the whole? Completes the codes of training images, of which some tokens are masked at
//! random, and measures how far the images are from the test images (FAD):
//! `cargo run --release --example completions -- RUN_DIR mnist_64.pth mnist_test_64.npz [IMAGES]`.
//!
//! With no token masked, the distance is the autoencoder's; with all, that of samples. A denoiser that was told clusters is told those of
//! the images.

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

use candle_core::{Device, Tensor};
use rand::seq::SliceRandom;
use spiking_diffusion::absorbing_diffusion::{AbsorbingProcess, Conditioned, Denoiser, Sampler, Sdid};
use spiking_diffusion::snn_core::{Checkpoint, Seed};
use spiking_diffusion::{ClassesFrom, Error, Result, Trained, cli};
use spiking_diffusion_metrics::{Fad, FeatureStats, frechet_distance};

/// Keeps the large blocks of freed tensors: about twice as fast as the system's allocator.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const CPU: Device = Device::Cpu;
const SEED: Seed = Seed(0);
/// Images that are drawn at a time, and those that FAD sees at a time, which is a part of the number.
const BATCH: usize = 125;
const FAD_BATCH: usize = 250;

fn main() -> ExitCode {
    cli::attempt("completions RUN_DIR FAD_WEIGHTS FAD_STATISTICS [IMAGES]", measure)
}

fn measure(words: &[OsString]) -> Result<()> {
    let (run, weights, statistics, images) = match words {
        [run, weights, statistics] => (run, weights, statistics, "5000".into()),
        [run, weights, statistics, images] => (run, weights, statistics, images.to_string_lossy()),
        _ => return Err(Error::config("words", words.len(), "there must be three or four")),
    };
    let few = || Error::config("IMAGES", &images, "must be a number, at least 2");
    let count = images.parse().ok().filter(|&n: &usize| n >= 2).ok_or_else(few)?;
    let (run, network) = (Path::new(run), Fad::open(weights)?.with_range([-0.5, 0.5]));
    let (test, given) = (FeatureStats::read_npz(statistics)?, Given::of(run, count)?);
    let tokens = given.trained.cfg.sdid.height * given.trained.cfg.sdid.width;
    for quarters in 0..=4 {
        let masked = tokens * quarters / 4;
        let images = given.completed(masked)?;
        let bytes = ((images + 0.5)? * 255.)?.round()?.clamp(0f32, 255f32)?;
        let found = network.statistics(&((bytes / 255.)? - 0.5)?, FAD_BATCH)?;
        let line =
            format!("{masked:3} of {tokens} tokens masked: FAD {:.2}", frechet_distance(&test, &found)?);
        cli::print(&line).map_err(Error::io(run))?;
    }
    Ok(())
}

/// Training images of a run.
struct Given {
    trained: Trained<Sdid>,
    codes: Tensor,
    /// Empty where the denoiser knows none.
    classes: Vec<u32>,
}

impl Given {
    /// So many, at random.
    fn of(run: &Path, count: usize) -> Result<Self> {
        let trained = Trained::load(run, &CPU)?;
        if trained.cfg.sdid.classes.is_some() && trained.cfg.classes_from == ClassesFrom::Labels {
            return Err(Error::run(run, "is a run with labels, which this example does not read"));
        }
        let saved = |name: &str, kind: &str| -> Result<Tensor> {
            Ok(Checkpoint::load(&run.join(name), kind, &CPU)?.tensor("train")?.clone())
        };
        let codes = saved("codes.safetensors", "codes")?;
        let mut order: Vec<u32> = (0..codes.dim(0)? as u32).collect();
        order.shuffle(&mut SEED.rng("images"));
        let some = Tensor::new(&order[..count.min(order.len())], &CPU)?;
        let classes = match trained.cfg.sdid.classes {
            Some(_) => saved("clusters.safetensors", "clusters")?.index_select(&some, 0)?.to_vec1()?,
            None => Vec::new(),
        };
        Ok(Self { codes: codes.index_select(&some, 0)?, classes, trained })
    }

    /// The images of these codes, of which so many tokens each are drawn anew.
    fn completed(&self, masked: usize) -> Result<Tensor> {
        let (n, height, width) = self.codes.dims3()?;
        let sdid = &self.trained.cfg.sdid;
        let process = AbsorbingProcess::new(sdid.codes, sdid.steps)?;
        let mut codes: Vec<u32> = self.codes.flatten_all()?.to_vec1()?;
        let (mut places, mut rng) = ((0..height * width).collect::<Vec<_>>(), SEED.rng("masks"));
        for map in codes.chunks_mut(height * width) {
            places.shuffle(&mut rng);
            places[..masked].iter().for_each(|&place| map[place] = process.mask());
        }
        let codes = Tensor::from_vec(codes, (n, height, width), &CPU)?;
        let batch = |first: usize| -> Result<Tensor> {
            let images = first..(first + BATCH).min(n);
            let codes = codes.narrow(0, images.start, images.len())?;
            let drawn = if masked == 0 { codes } else { self.drawn(&process, images, &codes)? };
            Ok(self.trained.autoencoder.decode(&drawn)?)
        };
        Ok(Tensor::cat(&(0..n).step_by(BATCH).map(batch).collect::<Result<Vec<_>>>()?, 0)?)
    }

    fn drawn(
        &self,
        process: &AbsorbingProcess,
        images: std::ops::Range<usize>,
        codes: &Tensor,
    ) -> Result<Tensor> {
        let (trained, map) = (&self.trained, (codes.dim(1)?, codes.dim(2)?));
        let told = (!self.classes.is_empty())
            .then(|| Conditioned::new(&trained.denoiser, self.classes.clone()))
            .transpose()?;
        let denoiser: &dyn Denoiser = match &told {
            Some(told) => told,
            None => &trained.denoiser,
        };
        let sampler = Sampler::new(process, denoiser, &trained.cfg.sampling)?.with_given(codes);
        Ok(sampler.sample(images, map, SEED, &CPU, &mut |_, _| ())?)
    }
}
