//! A network of your own, trained by `snn_train::Trainer`: a convolutional spiking classifier of Fashion-MNIST (of the built-in
//! digits without data). `cargo run --release --example spiking_classifier -- --help`

use candle_core::{DType, Device, Result as CandleResult, Tensor};
use clap::Parser;
use spiking_diffusion::data::{fashion_mnist, synthetic_digits};
use spiking_diffusion::snn_core::*;
use spiking_diffusion::snn_train::{Batch, StepLoss, Trainer};
use spiking_diffusion::{Progress, RunDir, TrainingConfig, cli::print};

#[global_allocator] // Keeps the large blocks of freed tensors: about twice as fast as the system's.
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Train a convolutional spiking classifier, and print its accuracy and its firing rates
#[derive(Parser)]
struct Arguments {
    /// Folder with Fashion-MNIST's files [default: the small built-in set of digits]
    #[arg(long, env = "SPIKING_DATA_DIR")]
    data_dir: Option<std::path::PathBuf>,
    /// Folder of the run
    #[arg(long, default_value = "runs/spiking-classifier")]
    out: std::path::PathBuf,
    /// Passes over the training images
    #[arg(long, default_value_t = 8)]
    epochs: usize,
    /// Go on where a run in the same folder stopped
    #[arg(long)]
    resume: bool,
}
/// Two convolutions that halve the image, a hidden layer, and ten logits: means over four time steps.
struct Net(SpikingNetwork);
impl Model for Net {
    const KIND: &'static str = "spiking-classifier";
    type Config = ();
    type Error = Error;
    fn build(_: &(), vb: VarBuilder<'_>) -> Result<Self> {
        let (halve, neuron) = (ConvConfig::new(3, 2, 1), LifConfig::default());
        let network = SpikingNetwork::builder(&[1, 28, 28], neuron, vb).conv(32, halve).conv(64, halve);
        Ok(Self(network.flatten().linear(256).readout(10, Readout::Mean).build()?))
    }
    fn config(&self) -> &() {
        &()
    }
}
struct Lines;
impl Progress for Lines {
    fn advance(&mut self, done: usize, loss: Option<f64>) {
        let line = |loss| print(&format!("step {done}: loss {loss:.4}"));
        let _ = loss.filter(|_| done.is_multiple_of(100)).map(line);
    }
}
fn main() -> spiking_diffusion::Result<()> {
    let args = Arguments::parse();
    let data = args.data_dir.as_deref().map_or_else(synthetic_digits, fashion_mnist)?;
    let (schedule, adamw) =
        (LrSchedule::Cosine { floor: 0.02 }, AdamWConfig { lr: 2e-3, ..Default::default() });
    let cfg = TrainingConfig { batch_size: 64, schedule, adamw, ..TrainingConfig::new(args.epochs) };
    let run = RunDir::open(&args.out, &cfg, args.resume)?;
    let params = ParamStore::new(Seed(0), DType::F32, &Device::Cpu);
    let net = Net::build(&(), params.builder())?;
    let trainer = Trainer::new("classifier", &cfg, &params, data.train.len(), Seed(0)).in_run(&run);
    trainer.train_model(&net, &mut Lines, |batch: Batch<'_>| -> spiking_diffusion::Result<StepLoss> {
        let labels: Vec<u32> = batch.items.iter().map(|&i| data.train.labels()[i as usize].into()).collect();
        let images = data.train.batch(batch.items, &Device::Cpu)?;
        let logits = net.0.readout(Drive::Constant(&images, 4), true)?;
        Ok(candle_nn::loss::cross_entropy(&logits, &Tensor::new(labels, &Device::Cpu)?)?.into())
    })?;
    let (mut right, mut rates) = (0, FiringRates::default());
    for at in (0..data.test.len()).step_by(200) {
        let range = at..(at + 200).min(data.test.len());
        let images = data.test.range(range.clone(), &Device::Cpu)?;
        let mut observe = |layer: &str, spikes: &Tensor| -> CandleResult<()> { rates.record(layer, spikes) };
        let logits = net.0.readout_observed(Drive::Constant(&images, 4), false, &mut observe)?;
        let found: Vec<u32> = logits.argmax(1)?.to_vec1()?;
        right += found.iter().zip(&data.test.labels()[range]).filter(|&(&a, &b)| a == u32::from(b)).count();
    }
    let accuracy = 100. * right as f64 / data.test.len() as f64;
    let _ = print(&format!("{}: accuracy {accuracy:.2} %, firing rates {:.3?}", data.name, rates.rates()));
    Ok(())
}
