//! The FSVAE of the comparison, that of the paper's Table 1, on a trained checkpoint.

use candle_core::{DType, Device, Tensor};
use candle_nn::VarBuilder;
use serde_json::{Value, json};
use spiking_diffusion::fsvae::{Draws, Fsvae as Network};
use spiking_diffusion::snn_core::{AdamW, FiringRates, Model, ParamStore, Seed};

use crate::Result;

/// Images that are drawn from the prior.
const SAMPLES: usize = 16;
/// Images of which the values are compared: so few that a pass in double precision is no peak of the memory.
const COMPARED: usize = 4;

pub(crate) struct Fsvae {
    network: Network,
    params: ParamStore,
    optimiser: AdamW,
    images: Tensor,
    draws: Draws,
    sample_picks: Tensor,
}

impl Fsvae {
    pub(crate) fn new(
        (network, params, optimiser): (Network, ParamStore, AdamW),
        images: &Tensor,
    ) -> Result<Self> {
        let (cfg, device) = (network.config(), Device::Cpu);
        Ok(Self {
            images: images.clone(),
            draws: Draws::new(cfg, images.dim(0)?, 0., Seed(1), "peer", &device)?,
            sample_picks: Draws::picks(cfg, SAMPLES, Seed(1), "peer/samples", &device)?,
            network,
            params,
            optimiser,
        })
    }

    pub(crate) fn train(&mut self) -> Result<()> {
        let out = self.network.forward_t(&self.images, &self.draws, true)?;
        let loss = self.network.losses(&self.images, &out)?.total()?;
        Ok(self.optimiser.step(&self.params.gradients(&loss.backward()?)?, 1.)?)
    }

    pub(crate) fn infer(&self) -> Result<()> {
        self.network.decode(&self.network.encode(&self.images, &self.draws.picks)?)?;
        Ok(())
    }

    pub(crate) fn sample(&self) -> Result<()> {
        self.network.sample(&self.sample_picks)?;
        Ok(())
    }

    /// What it computes, in double precision: no neuron is then so near its threshold that rounding decides.
    pub(crate) fn value(&self) -> Result<Value> {
        let wide = |(name, tensor): (String, Tensor)| Ok((name, tensor.to_dtype(DType::F64)?));
        let tensors = self.params.snapshot("")?.into_iter().map(wide).collect::<Result<_>>()?;
        let builder = VarBuilder::from_tensors(tensors, DType::F64, &Device::Cpu);
        let network = Network::new(self.network.config(), builder)?;
        let images = self.images.narrow(0, 0, COMPARED)?.to_dtype(DType::F64)?;
        let picks = |picks: &Tensor| picks.narrow(1, 0, COMPARED)?.contiguous();
        let draws = Draws { picks: picks(&self.draws.picks)?, scheduled: Vec::new() };
        let mean_square = |x: &Tensor| -> Result<f64> { Ok(x.sqr()?.mean_all()?.to_scalar()?) };
        let losses = network.losses(&images, &network.forward_t(&images, &draws, false)?)?;
        let again = network.decode(&network.encode(&images, &draws.picks)?)?;
        let samples = network.sample(&picks(&self.sample_picks)?)?;
        Ok(json!({
            "losses": losses.values()?,
            "error": [mean_square(&(again - images)?)?],
            "samples": [mean_square(&samples)?],
        }))
    }

    pub(crate) fn record(&self, rates: &mut FiringRates) -> Result<()> {
        let mut observe = |layer: &str, spikes: &Tensor| match layer {
            "z" => Ok(()), // drawn of the posterior's spikes, and no layer's
            _ => rates.record(&format!("fsvae.{layer}"), spikes),
        };
        self.network.forward_observed(&self.images, &self.draws, false, &mut observe)?;
        Ok(())
    }

    /// Its parameters, running statistics and draws, for the other side.
    pub(crate) fn tensors(&self) -> Result<Vec<(String, Tensor)>> {
        let picks = [("fsvae_picks", &self.draws.picks), ("fsvae_sample_picks", &self.sample_picks)];
        let mut tensors: Vec<_> = self.params.snapshot("fsvae.")?.into_iter().collect();
        for (name, picks) in picks {
            tensors.push((name.to_owned(), picks.to_dtype(DType::I64)?));
        }
        Ok(tensors)
    }
}
