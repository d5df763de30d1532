//! The spiking classifier of the comparison: two convolutions that halve the image, a hidden layer, ten logits.

use candle_core::{DType, Device, Tensor};
use spiking_diffusion::data::Dataset;
use spiking_diffusion::snn_core::{
    AdamW, AdamWConfig, ConvConfig, Drive, FiringRates, LifConfig, ParamStore, PreparedNetwork, Readout,
    Seed, SpikingNetwork,
};

use crate::Result;

const BATCH: usize = 64;
const TIME_STEPS: usize = 4;
/// Steps that make it fire as a trained network does, before anything is timed.
const WARM_UP: usize = 150;

pub(crate) struct Classifier {
    network: SpikingNetwork,
    params: ParamStore,
    optimiser: AdamW,
    prepared: PreparedNetwork,
    pub(crate) images: Tensor,
    pub(crate) labels: Tensor,
}

impl Classifier {
    /// One that has been trained a little.
    pub(crate) fn new(digits: &Dataset) -> Result<Self> {
        let params = ParamStore::new(Seed(0), DType::F32, &Device::Cpu);
        let halve = ConvConfig::new(3, 2, 1);
        let network = SpikingNetwork::builder(&[1, 28, 28], LifConfig::default(), params.builder())
            .conv(32, halve)
            .conv(64, halve)
            .flatten()
            .linear(256)
            .readout(10, Readout::Mean)
            .build()?;
        let batch = |i: usize| -> Result<(Tensor, Tensor)> {
            let range = i * BATCH..(i + 1) * BATCH;
            let labels: Vec<u32> = digits.train.labels()[range.clone()].iter().map(|&l| l.into()).collect();
            Ok((digits.train.range(range, &Device::Cpu)?, Tensor::new(labels, &Device::Cpu)?))
        };
        let mut optimiser = AdamW::new(params.trainable(), AdamWConfig::default())?;
        for i in 0..WARM_UP {
            let (images, labels) = batch(i)?;
            step(&network, &params, &mut optimiser, (&images, &labels))?;
        }
        let (prepared, (images, labels)) = (network.prepare()?, batch(0)?);
        Ok(Self { network, params, optimiser, prepared, images, labels })
    }

    pub(crate) fn train(&mut self) -> Result<()> {
        step(&self.network, &self.params, &mut self.optimiser, (&self.images, &self.labels))
    }

    pub(crate) fn infer(&self) -> Result<()> {
        self.network.readout(Drive::Constant(&self.images, TIME_STEPS), false)?;
        Ok(())
    }

    pub(crate) fn infer_prepared(&self) -> Result<()> {
        self.prepared.readout(Drive::Constant(&self.images, TIME_STEPS))?;
        Ok(())
    }

    pub(crate) fn one_image(&self) -> Result<()> {
        self.prepared.readout(Drive::Constant(&self.images.narrow(0, 0, 1)?, TIME_STEPS))?;
        Ok(())
    }

    pub(crate) fn record(&self, rates: &mut FiringRates) -> Result<()> {
        let drive = Drive::Constant(&self.images, TIME_STEPS);
        let mut observe = |layer: &str, spikes: &Tensor| rates.record(&format!("classifier.{layer}"), spikes);
        self.network.readout_observed(drive, false, &mut observe)?;
        Ok(())
    }

    /// Its parameters and running statistics, for the other side.
    pub(crate) fn tensors(&self) -> Result<Vec<(String, Tensor)>> {
        Ok(self.params.snapshot("classifier.")?.into_iter().collect())
    }
}

fn step(
    network: &SpikingNetwork,
    params: &ParamStore,
    optimiser: &mut AdamW,
    (images, labels): (&Tensor, &Tensor),
) -> Result<()> {
    let logits = network.readout(Drive::Constant(images, TIME_STEPS), true)?;
    let loss = candle_nn::loss::cross_entropy(&logits, labels)?;
    Ok(optimiser.step(&params.gradients(&loss.backward()?)?, 1.)?)
}
