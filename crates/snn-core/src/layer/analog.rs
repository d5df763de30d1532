//! Layers without spikes: what stands instead of neurons in a network to compare with.

use candle_core::{Result, Tensor};
use serde::{Deserialize, Serialize};

use crate::NeuronModel;

/// What a layer without spikes hands on instead of them: a number made of each current, at each time step by itself.
///
/// It turns a spiking network into its twin without spikes, which shows what the spikes cost and what they save: the parameters
/// are the same, and one time step is enough.
///
/// # Examples
/// ```
/// # use candle_core::{DType, Device, Tensor};
/// # use snn_core::{Analog, LayerConfig, LifConfig, Norm, ParamStore, Seed, SpikingLayer};
/// # fn main() -> candle_core::Result<()> {
/// let store = ParamStore::new(Seed(0), DType::F32, &Device::Cpu);
/// let cfg = LayerConfig::from(LifConfig::default()).with_norm(Norm::None).with_analog(Analog::Relu);
/// let layer = SpikingLayer::linear(4, 8, cfg, store.builder())?;
/// let numbers = layer.forward_constant(&Tensor::ones((2, 4), DType::F32, &Device::Cpu)?, 1, true)?;
/// assert!(numbers.min_all()?.to_scalar::<f32>()? >= 0.);
/// # Ok(()) }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Analog {
    /// `max(x, 0)`, whose derivative at 0 is 0, as in PyTorch.
    Relu,
    /// The current itself.
    Linear,
}

impl NeuronModel for Analog {
    fn step(&self, currents: &Tensor, _: &[Tensor]) -> Result<(Tensor, Vec<Tensor>)> {
        Ok((self.forward(currents)?, Vec::new()))
    }

    fn forward(&self, currents: &Tensor) -> Result<Tensor> {
        match self {
            // Candle's own passes the gradient at 0.
            Self::Relu => currents.le(0.)?.where_cond(&currents.zeros_like()?, currents),
            Self::Linear => Ok(currents.clone()),
        }
    }

    fn spikes(&self) -> bool {
        false
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device, Var};

    use super::*;
    use crate::{Drive, LayerConfig, LifConfig, ParamStore, Readout, Seed, SpikingLayer, SpikingStack};

    #[test]
    fn values_and_gradients_are_those_of_a_ramp() {
        let xs = Var::new(&[[-1f64, 0., 2.]], &Device::Cpu).unwrap();
        for (analog, wanted, slope) in
            [(Analog::Relu, [0., 0., 2.], [0., 0., 1.]), (Analog::Linear, [-1., 0., 2.], [1., 1., 1.])]
        {
            let ys = analog.forward(&xs).unwrap();
            let grads = ys.sum_all().unwrap().backward().unwrap();
            assert_eq!(ys.to_vec2::<f64>().unwrap(), [wanted]);
            assert_eq!(grads.get(&xs).unwrap().to_vec2::<f64>().unwrap(), [slope]);
            assert_eq!(analog.step(&xs, &[]).unwrap().0.to_vec2::<f64>().unwrap(), [wanted]);
        }
        let ends = Var::new(&[f64::NEG_INFINITY, f64::INFINITY], &Device::Cpu).unwrap();
        let ys = Analog::Relu.forward(&ends).unwrap().to_vec1::<f64>().unwrap();
        assert_eq!(ys, [0., f64::INFINITY]);
    }

    /// The layers around it stay what they are, and all of them run step by step too.
    #[test]
    fn a_stack_takes_it_between_spiking_layers() {
        let store = ParamStore::new(Seed(0), DType::F32, &Device::Cpu);
        let (spiking, vb) = (LayerConfig::from(LifConfig::default()), store.builder());
        let layers = [spiking, spiking.with_analog(Analog::Relu), spiking];
        let layers = layers.iter().enumerate();
        let layers = layers.map(|(i, cfg)| SpikingLayer::linear(6, 6, *cfg, vb.pp(i)).unwrap()).collect();
        let stack = SpikingStack::new(layers);
        let xs = Seed(1).normal("x", (2, 6), (2., 4.), DType::F32, &Device::Cpu).unwrap();
        let drive = Drive::Constant(&xs, 3);
        let mut seen = Vec::new();
        let mut look = |_: usize, spikes: &Tensor| {
            seen.push(spikes.max_all()?.to_scalar::<f32>()?);
            Ok(())
        };
        let spikes = stack.forward_observed(drive, false, &mut look).unwrap();
        assert!(seen[0] == 1. && seen[1] > 0. && seen[1] != 1., "{seen:?}");
        let mean = stack.readout(drive, Readout::Mean, false).unwrap();
        let wanted = spikes.mean(0).unwrap().to_vec2::<f32>().unwrap();
        assert_eq!(mean.to_vec2::<f32>().unwrap(), wanted);
        let prepared = stack.prepare(&[6]).unwrap().readout(drive, Readout::Mean).unwrap();
        assert_eq!(prepared.to_vec2::<f32>().unwrap(), wanted);
    }
}
