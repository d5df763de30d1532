//! An autoencoder that is not ours goes the whole way: codes, training of a denoiser, generation, a sweep, inpainting, evaluation.

use std::path::Path;

use candle_core::{DType, Device, Result, Tensor};
use spiking_diffusion::absorbing_diffusion::{SamplingConfig, Sdid, SdidConfig};
use spiking_diffusion::data::Dataset;
use spiking_diffusion::generation::{self, Formats, Saved};
use spiking_diffusion::snn_core::{Model, ParamStore};
use spiking_diffusion::{
    Autoencoder, Codes, ExperimentConfig, Networks, Report, RunDir, Silent, Trained, encode_dataset,
    evaluate, inpaint, snn_train, sweep, train_denoiser,
};

use crate::{few_digits, rejects, tiny};

const CPU: Device = Device::Cpu;
const SIDE: usize = 14;

/// Halves of a block of 2x2 pixels: a code says which of its two rows are bright, and is that half.
struct Halves;

impl Autoencoder for Halves {
    fn encode(&self, images: &Tensor) -> Result<Tensor> {
        let bright = images.mean_keepdim(1)?.avg_pool2d((1, 2))?.gt(0.)?.to_dtype(DType::U32)?;
        let (n, _, h, w) = bright.dims4()?;
        let rows = bright.reshape((n, h / 2, 2, w))?;
        rows.narrow(2, 0, 1)?.squeeze(2)? + (rows.narrow(2, 1, 1)?.squeeze(2)? * 2.)?
    }

    fn decode(&self, codes: &Tensor) -> Result<Tensor> {
        let (n, h, w) = codes.dims3()?;
        let looks = [[-0.5f32, -0.5], [0.5, -0.5], [-0.5, 0.5], [0.5, 0.5]];
        let rows = Tensor::new(&looks, codes.device())?.index_select(&codes.flatten_all()?, 0)?;
        let rows = rows.reshape((n, h, w, 2))?.permute((0, 1, 3, 2))?.contiguous()?;
        rows.reshape((n, 1, 2 * h, w))?.upsample_nearest2d(2 * h, 2 * w)
    }
}

/// The same of negatives.
struct Negative;

impl Autoencoder for Negative {
    fn encode(&self, images: &Tensor) -> Result<Tensor> {
        Halves.encode(&images.neg()?)
    }

    fn decode(&self, codes: &Tensor) -> Result<Tensor> {
        Halves.decode(codes)?.neg()
    }
}

struct Run {
    data: Dataset,
    cfg: ExperimentConfig,
    codes: Codes,
    sdid: Sdid,
}

fn run(folder: &Path) -> Run {
    let data = few_digits();
    let mut cfg = tiny(&data);
    cfg.sdid = SdidConfig { codes: 4, height: SIDE, width: SIDE, ..cfg.sdid };
    cfg.sampling.batch_size = 2;
    let run = RunDir::open(folder, &cfg, false).unwrap();
    let codes = encode_dataset(&cfg, &Halves, &data, &run, &CPU, &mut Silent).unwrap();
    let params = ParamStore::new(cfg.seed.child("sdid"), DType::F32, &CPU);
    let sdid = Sdid::new(&cfg.sdid, params.builder()).unwrap();
    train_denoiser(&cfg, &sdid, &params, &sdid, &codes.train, &run, &mut Silent).unwrap();
    Run { data, cfg, codes, sdid }
}

fn numbers(images: &Tensor) -> Vec<Vec<f32>> {
    images.flatten_from(1).unwrap().to_vec2().unwrap()
}

#[test]
fn an_own_autoencoder_is_trained_on_drawn_from_and_measured() {
    let folder = tempfile::tempdir().unwrap();
    let Run { data, cfg, codes, sdid } = run(folder.path());
    let test = data.test.range(0..data.test.len(), &CPU).unwrap();
    assert_eq!(codes.test.dims(), [24, SIDE, SIDE]);
    assert_eq!(codes.test.to_vec3::<u32>().unwrap(), Halves.encode(&test).unwrap().to_vec3::<u32>().unwrap());

    // Codes that are there are read again, and not for another autoencoder.
    let again = |autoencoder: &dyn Autoencoder| {
        let run = RunDir::open(folder.path(), &cfg, true).unwrap();
        encode_dataset(&cfg, autoencoder, &data, &run, &CPU, &mut Silent)
    };
    assert_eq!(again(&Halves).unwrap().train.dims(), codes.train.dims());
    rejects(again(&Negative), &["codes.safetensors", "another autoencoder"]);

    // What is measured is its own: the errors of what it decodes, and the operations of the denoiser alone, since it tells of no layers.
    let found = evaluate(&cfg, Networks::spiking(&Halves, &sdid), &data.test, &codes.test, &CPU, &mut Silent)
        .unwrap();
    let again = Halves.decode(&codes.test).unwrap();
    let mse = (&test - &again).unwrap().sqr().unwrap().mean_all().unwrap().to_scalar::<f32>().unwrap();
    assert!((found.metrics.mse - f64::from(mse)).abs() < 1e-6, "{} and {mse}", found.metrics.mse);
    assert!(found.code_counts.len() == 4 && found.code_counts.iter().sum::<u64>() == 24 * 196);
    assert!(
        found.firing_rates.keys().all(|name| name.starts_with("sdid.")) && !found.firing_rates.is_empty()
    );
    assert_eq!(found.energy.work.len(), 1);
    let run = RunDir::open(folder.path(), &cfg, true).unwrap();
    let report = Report::of(&cfg, found.clone(), &run, &CPU).unwrap();
    report.save(&run).unwrap();
    let read: Report = snn_train::read_json(&folder.path().join("report.json")).unwrap();
    assert!(read == report && read.metrics == found.metrics && read.command.is_none());
    assert!(folder.path().join("report.html").exists());
    drop(run);

    // Its images are its own too, from the library and in files, by any setting, and with a known part.
    let trained = Trained::new(cfg, Halves, sdid, "halves");
    let samples = trained.samples(3, &CPU, &mut Silent).unwrap();
    assert_eq!(samples.dims(), [3, 1, 28, 28]);
    assert!(numbers(&samples).concat().iter().all(|pixel| pixel.abs() == 0.5));
    let (out, formats) = (folder.path().join("images"), Formats { png: false, safetensors: true });
    let save =
        |trained: &Trained<Sdid, Halves>| generation::save(trained, 3, &out, formats, &CPU, &mut Silent);
    assert_eq!(save(&trained).unwrap(), Saved { drawn: 3, present: 0 });
    let read = candle_core::safetensors::load(out.join("images-0000.safetensors"), &CPU).unwrap();
    assert!(numbers(&read["images"]) == numbers(&(&samples + 0.5).unwrap()));

    let known =
        inpaint(&trained, &test.narrow(0, 0, 2).unwrap(), &|row, _| row < 14, 2, &CPU, &mut Silent).unwrap();
    assert_eq!(known.codes.dims(), [4, SIDE, SIDE]);
    assert!(known.known[..6 * SIDE].iter().all(|known| *known) && !known.known[7 * SIDE]);
    let (drawn, real) = (known.codes.to_vec3::<u32>().unwrap(), codes.test.to_vec3::<u32>().unwrap());
    assert!((0..4).all(|i| drawn[i][..6] == real[i / 2][..6]));
    let odd = Tensor::zeros((1, 1, 27, 28), DType::F32, &CPU).unwrap();
    rejects(
        inpaint(&trained, &odd, &|_, _| true, 1, &CPU, &mut Silent),
        &["`sdid.height` = 14", "27 pixels"],
    );

    // A borrowed autoencoder, in a box too, is one.
    let boxed: Box<dyn Autoencoder> = Box::new(Halves);
    let borrowed = Trained::new(trained.cfg.clone(), &boxed, &trained.denoiser, "halves");
    assert!(numbers(&borrowed.samples(3, &CPU, &mut Silent).unwrap()) == numbers(&samples));

    // A row of a sweep is that of a setting, however many images are drawn at once.
    let mut swept = sweep::Sweep::new(&trained, 4, &[], &CPU).unwrap();
    let sampling = trained.cfg.sampling;
    for batch_size in [2, 3] {
        let sampling = SamplingConfig { batch_size, ..sampling };
        swept.add(&trained, sampling, &[], &CPU, &mut Silent).unwrap();
    }
    assert_eq!(swept.rows.len(), 1);
    // Other networks are told apart by their name.
    let sdid = Sdid::load(&folder.path().join("sdid.safetensors"), &CPU).unwrap();
    let other = Trained::new(trained.cfg.clone(), Halves, sdid, "other halves");
    rejects(swept.add(&other, sampling, &[], &CPU, &mut Silent), &["networks_sha256"]);
    rejects(save(&other), &["`networks_sha256`"]);
}
