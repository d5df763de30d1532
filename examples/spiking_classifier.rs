//! A convolutional spiking classifier, trained by `snn_train::Trainer`: Fashion-MNIST, or the built-in digits without data.
//!
//! `cargo run --release --example spiking_classifier -- [--data-dir DIR] [--out DIR] [--epochs N] [--resume]`

use candle_core::{DType, Device, Result as CandleResult, Tensor};
use spiking_diffusion::data::{fashion_mnist, synthetic_digits};
use spiking_diffusion::snn_core::*;
use spiking_diffusion::snn_train::{Batch, StepLoss, Trainer};
use spiking_diffusion::{Progress, RunDir, TrainingConfig, cli::print};

/// Keeps the large blocks of freed tensors: about twice as fast as the system's allocator.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Two convolutions that halve the image, a hidden layer, and ten logits: means over four time steps.
struct Net(SpikingStack, SpikingStack, ReadoutLayer);

impl Model for Net {
    const KIND: &'static str = "spiking-classifier";
    type Config = ();
    type Error = Error;
    fn build(_: &(), vb: VarBuilder<'_>) -> Result<Self> {
        let (halve, lif) = (ConvConfig::new(3, 2, 1), LifConfig::default());
        let first = SpikingLayer::conv(1, 32, halve, lif, vb.pp("conv.0"))?;
        let second = SpikingLayer::conv(32, 64, halve, lif, vb.pp("conv.1"))?;
        let hidden = SpikingLayer::linear(64 * 7 * 7, 256, lif, vb.pp("hidden"))?;
        let head = ReadoutLayer::linear(256, 10, Readout::Mean, vb.pp("head"))?;
        Ok(Self(SpikingStack::new(vec![first, second]), SpikingStack::new(vec![hidden]), head))
    }
    fn config(&self) -> &() {
        &()
    }
}
impl Net {
    /// Images `[N, 1, 28, 28]` -> logits `[N, 10]`, and the spikes of the convolutions and of the hidden layer.
    fn forward(&self, images: &Tensor, train: bool) -> CandleResult<(Tensor, [Tensor; 2])> {
        let maps = self.0.forward(Drive::Constant(images, 4), train)?;
        let hidden = self.1.forward(Drive::Spikes(&maps.flatten_from(2)?), train)?;
        Ok((self.2.forward(&hidden)?, [maps, hidden]))
    }
}
struct Lines;
impl Progress for Lines {
    fn advance(&mut self, done: usize, loss: Option<f64>) {
        if let Some(loss) = loss.filter(|_| done.is_multiple_of(100)) {
            let _ = print(&format!("step {done}: loss {loss:.4}"));
        }
    }
}

fn main() -> spiking_diffusion::Result<()> {
    let flag = |name: &str| std::env::args().skip_while(|word| word != name).nth(1);
    let folder = flag("--data-dir").or_else(|| std::env::var("SPIKING_DATA_DIR").ok());
    let data = folder.map_or_else(synthetic_digits, |folder| fashion_mnist(folder.as_ref()))?;
    let epochs = flag("--epochs").and_then(|n| n.parse().ok()).unwrap_or(8);
    let schedule = LrSchedule::Cosine { floor: 0.02 };
    let adamw = AdamWConfig { lr: 2e-3, ..AdamWConfig::default() };
    let cfg = TrainingConfig { batch_size: 64, schedule, adamw, ..TrainingConfig::new(epochs) };
    let params = ParamStore::new(Seed(0), DType::F32, &Device::Cpu);
    let net = Net::build(&(), params.builder())?;
    let out = flag("--out").unwrap_or_else(|| format!("runs/spiking-classifier-{}", data.name));
    let run = RunDir::open(out.as_ref(), &cfg, std::env::args().any(|word| word == "--resume"))?;
    let trainer = Trainer::new("classifier", &cfg, &params, data.train.len(), Seed(0)).in_run(&run);
    trainer.train_model(&net, &mut Lines, |batch: Batch<'_>| -> spiking_diffusion::Result<StepLoss> {
        let labels: Vec<u32> = batch.items.iter().map(|&i| data.train.labels()[i as usize].into()).collect();
        let (logits, _) = net.forward(&data.train.batch(batch.items, &Device::Cpu)?, true)?;
        Ok(candle_nn::loss::cross_entropy(&logits, &Tensor::new(labels, &Device::Cpu)?)?.into())
    })?;
    let (mut right, mut rates) = (0, FiringRates::default());
    for at in (0..data.test.len()).step_by(200) {
        let range = at..(at + 200).min(data.test.len());
        let (logits, spikes) = net.forward(&data.test.range(range.clone(), &Device::Cpu)?, false)?;
        let found: Vec<u32> = logits.argmax(1)?.to_vec1()?;
        right += found.iter().zip(&data.test.labels()[range]).filter(|&(&a, &b)| a == u32::from(b)).count();
        ["conv.1", "hidden"].iter().zip(&spikes).try_for_each(|(name, it)| rates.record(name, it))?;
    }
    let accuracy = 100. * right as f64 / data.test.len() as f64;
    let _ = print(&format!("{}: accuracy {accuracy:.2} %, firing rates {:.3?}", data.name, rates.rates()));
    Ok(())
}
