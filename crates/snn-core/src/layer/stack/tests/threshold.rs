//! Layers with scaled thresholds, against layers that were built with them.

use std::sync::Arc;

use super::*;
use crate::{LayerConfig, NeuronModel, Norm, Reset};

fn layers(layer: LayerConfig, scale: f64, params: &ParamStore) -> Result<SpikingStack> {
    let lif = LifConfig { v_threshold: layer.neuron.v_threshold * scale, ..layer.neuron };
    let (layer, same) = (LayerConfig { neuron: lif, ..layer }, ConvConfig::new(3, 1, 1));
    let conv = |c_in, c_out, name| SpikingLayer::conv(c_in, c_out, same, layer, params.builder().pp(name));
    Ok(SpikingStack::new(vec![conv(3, 8, "0")?, conv(8, 5, "1")?]))
}

#[test]
fn scaled_thresholds_are_those_that_layers_are_built_with() -> Result<()> {
    let lif = LifConfig::default();
    let soft = LifConfig { v_reset: Reset::Soft, strict_threshold: true, ..lif };
    let td = Norm::ThresholdDependent { alpha: 1., v_threshold: 1. };
    for layer in [lif.into(), soft.into(), LayerConfig::from(lif).with_norm(td).with_learned_tau()] {
        for dtype in [DType::F32, DType::F64] {
            let params = ParamStore::new(Seed(1), dtype, &Device::Cpu);
            let stack = layers(layer, 1., &params)?;
            let xs = (Tensor::arange(0f64, 270., &Device::Cpu)?.reshape((2, 3, 9, 5))? * 0.7)?;
            let drive = xs.sin()?.affine(2., 1.)?.to_dtype(dtype)?;
            let drive = Drive::Constant(&drive, 6);
            (0..20).try_for_each(|_| stack.forward(drive, true).map(drop))?;
            let spikes = |stack: &SpikingStack| stack.forward(drive, false);
            for scale in [0.5, 1., 1.2] {
                let got = spikes(&stack.with_threshold_scale(scale)?)?;
                assert_identical("spikes", &got, &spikes(&layers(layer, scale, &params)?)?);
            }
            // Fewer spikes get through higher thresholds.
            let first = SpikingStack::new(stack.layers()[..1].to_vec());
            let fired = |scale| {
                spikes(&first.with_threshold_scale(scale)?)?
                    .sum_all()?
                    .to_dtype(DType::F64)?
                    .to_scalar::<f64>()
            };
            assert!(fired(0.5)? > fired(1.)? && fired(1.)? > 0., "{layer:?}");
        }
    }
    Ok(())
}

#[derive(Debug)]
struct Own;

impl NeuronModel for Own {
    fn step(&self, x: &Tensor, _: &[Tensor]) -> Result<(Tensor, Vec<Tensor>)> {
        Ok((x.ge(1.)?.to_dtype(x.dtype())?, vec![]))
    }
}

#[test]
fn thresholds_that_cannot_be_scaled_are_an_error() -> Result<()> {
    let params = ParamStore::new(Seed(1), DType::F32, &Device::Cpu);
    let stack = layers(LifConfig::default().into(), 1., &params)?;
    let message =
        |stack: &SpikingStack, scale| stack.with_threshold_scale(scale).err().map(|e| e.to_string());
    for scale in [0., -1., f64::NAN, f64::INFINITY] {
        assert!(message(&stack, scale).is_some_and(|text| text.contains("lif.v_threshold")), "{scale}");
    }
    let own =
        SpikingStack::new(stack.layers().iter().map(|l| l.clone().with_neuron(Arc::new(Own))).collect());
    assert!(message(&own, 0.9).is_some_and(|text| text.contains("no threshold")));
    Ok(())
}
