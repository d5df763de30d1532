//! Layers against naive compositions of Candle's operations, in f64: outputs, gradients, statistics.

use std::collections::BTreeMap;

use candle_core::{DType, Device, Tensor, Var};
use snn_core::{
    ConvConfig, LifConfig, ParamStore, Readout, ReadoutLayer, Seed, SpikingLayer, direct_encode, firing_rate,
    lif_reference,
};

use crate::common::{Result, assert_close, assert_relative, flat, gradients, max_difference};

const EPS: f64 = 1e-5;
const C_IN: usize = 3;
pub(crate) const C_OUT: usize = 4;

#[derive(Clone, Copy, Debug)]
pub(crate) enum Kind {
    Conv,
    ConvTranspose,
    Linear,
}
use Kind::{Conv, ConvTranspose, Linear};

impl Kind {
    fn cfg(self) -> ConvConfig {
        match self {
            ConvTranspose => ConvConfig::new(3, 2, 1).with_output_padding(1),
            _ => ConvConfig::new(3, 2, 1),
        }
    }

    fn synapse(self) -> &'static str {
        if let Linear = self { "linear" } else { "conv" }
    }

    /// An input `[T, N, ...]` of real numbers.
    pub(crate) fn input(self, time_steps: usize, batch: usize) -> Result<Tensor> {
        let shape = match self {
            Linear => vec![time_steps, batch, C_IN],
            _ => vec![time_steps, batch, C_IN, 5, 7],
        };
        random("input", &shape)
    }

    fn layer(self, store: &ParamStore) -> Result<SpikingLayer> {
        let (lif, vb) = (LifConfig::default(), store.builder());
        Ok(match self {
            Conv => SpikingLayer::conv(C_IN, C_OUT, self.cfg(), lif, vb)?,
            ConvTranspose => SpikingLayer::conv_transpose(C_IN, C_OUT, self.cfg(), lif, vb)?,
            Linear => SpikingLayer::linear(C_IN, C_OUT, lif, vb)?,
        })
    }

    pub(crate) fn readout_layer(self, readout: Readout, store: &ParamStore) -> Result<ReadoutLayer> {
        Ok(match self {
            ConvTranspose => ReadoutLayer::conv_transpose(C_IN, C_OUT, self.cfg(), readout, store.builder())?,
            Conv => ReadoutLayer::conv(C_IN, C_OUT, self.cfg(), readout, store.builder())?,
            Linear => ReadoutLayer::linear(C_IN, C_OUT, readout, store.builder())?,
        })
    }

    /// The synapse with its bias, once for every time step.
    fn at_every_step(self, xs: &Tensor, weight: &Tensor, bias: &Tensor) -> Result<Tensor> {
        let cfg = self.cfg();
        let step = |x: Tensor| match self {
            Conv => x.conv2d(weight, cfg.padding, cfg.stride, 1, 1)?.broadcast_add(&by_channel(bias, 4)?),
            ConvTranspose => x
                .conv_transpose2d(weight, cfg.padding, cfg.output_padding, cfg.stride, 1)?
                .broadcast_add(&by_channel(bias, 4)?),
            Linear => x.matmul(&weight.t()?)?.broadcast_add(bias),
        };
        let steps: Vec<Tensor> =
            (0..xs.dim(0)?).map(|t| step(xs.get(t)?)).collect::<candle_core::Result<_>>()?;
        Ok(Tensor::stack(&steps, 0)?)
    }
}

fn random(label: &str, shape: &[usize]) -> Result<Tensor> {
    Ok(Seed(11).normal(label, shape, (0., 1.), DType::F64, &Device::Cpu)?)
}

/// `[C]` to `[1, C, 1, ...]`, the channel on the last axis but `rank - 2`.
fn by_channel(xs: &Tensor, rank: usize) -> candle_core::Result<Tensor> {
    xs.reshape([vec![1, xs.elem_count()], vec![1; rank - 2]].concat())
}

fn vars(store: &ParamStore) -> BTreeMap<String, Var> {
    store.vars().into_iter().collect()
}

/// A layer whose affine map and statistics are not the initial ones, so that it fires and they matter.
fn layer(kind: Kind) -> Result<(ParamStore, SpikingLayer)> {
    let store = ParamStore::new(Seed(3), DType::F64, &Device::Cpu);
    let layer = kind.layer(&store)?;
    for (name, offset, scale) in [
        ("bn.weight", 1.5, 0.2),
        ("bn.bias", 0.6, 0.2),
        ("bn.running_mean", 0.1, 0.1),
        ("bn.running_var", 0.4, 0.05),
    ] {
        vars(&store)[name].set(&((random(name, &[C_OUT])? * scale)? + offset)?)?;
    }
    Ok((store, layer))
}

/// Output, and what the running statistics should be afterwards.
fn naive(kind: Kind, store: &ParamStore, xs: &Tensor, train: bool) -> Result<(Tensor, [Tensor; 2])> {
    let vars = vars(store);
    let get = |name: &str| vars[name].as_tensor();
    let [weight, bias] = ["weight", "bias"].map(|name| get(&format!("{}.{name}", kind.synapse())));
    let ys = kind.at_every_step(xs, weight, bias)?;
    let running = [get("bn.running_mean").copy()?.detach(), get("bn.running_var").copy()?.detach()];
    let (mean, variance, after) = if train {
        let rows = ys.transpose(0, 2)?.flatten_from(1)?;
        let n = rows.dim(1)? as f64;
        let mean = rows.mean(1)?;
        let squares = rows.broadcast_sub(&mean.unsqueeze(1)?)?.sqr()?.sum(1)?;
        let moved = |old: &Tensor, batch: Tensor| (old * 0.9)? + (batch.detach() * 0.1)?;
        let after = [moved(&running[0], mean.clone())?, moved(&running[1], (&squares / (n - 1.))?)?];
        (mean, (squares / n)?, after)
    } else {
        (running[0].clone(), running[1].clone(), running)
    };
    let flat = |xs: &Tensor| by_channel(xs, ys.rank() - 1);
    let normed = ys.broadcast_sub(&flat(&mean)?)?.broadcast_div(&flat(&(variance + EPS)?.sqrt()?)?)?;
    let currents = normed.broadcast_mul(&flat(get("bn.weight"))?)?.broadcast_add(&flat(get("bn.bias"))?)?;
    Ok((lif_reference(&currents, &LifConfig::default())?, after))
}

fn compare(kind: Kind, train: bool) -> Result {
    let what = format!("{kind:?}, train = {train}");
    let (store, layer) = layer(kind)?;
    let xs = Var::from_tensor(&kind.input(6, 3)?)?;
    let (wanted, after) = naive(kind, &store, &xs, train)?;
    let got = layer.forward_t(&xs, train)?;
    assert_close(&format!("{what}: spikes"), &got, &wanted, 0.);
    let rate = firing_rate(&got)?;
    assert!((0.03..0.6).contains(&rate), "{what}: fires at {rate}");

    let upstream = random("upstream", got.dims())?;
    let params = store.trainable();
    assert_eq!(params.len(), 4);
    let inputs: Vec<&Var> = [&xs].into_iter().chain(params.iter().map(|(_, var)| var)).collect();
    let (got, wanted) = (gradients(&got, &upstream, &inputs)?, gradients(&wanted, &upstream, &inputs)?);
    let names = ["input"].into_iter().chain(params.iter().map(|(name, _)| name.as_str()));
    for ((got, wanted), name) in got.iter().zip(&wanted).zip(names) {
        if train && name == format!("{}.bias", kind.synapse()) {
            // Batch norm takes it away again: exactly nothing for us, rounding noise for the naive one.
            assert_eq!(flat(got)?, vec![0.; C_OUT], "{what}: {name}");
            assert_close(&format!("{what}: {name}"), got, wanted, 1e-12);
        } else {
            assert!(flat(wanted)?.iter().any(|g| g.abs() > 1e-3), "{what}: {name} is tested for nothing");
            assert_relative(&format!("{what}: {name}"), got, wanted, 1e-11);
        }
    }
    for (name, wanted) in ["bn.running_mean", "bn.running_var"].iter().zip(&after) {
        assert_close(&format!("{what}: {name}"), vars(&store)[*name].as_tensor(), wanted, 1e-13);
    }
    Ok(())
}

#[test]
fn training_equals_the_naive_composition() -> Result {
    [Conv, ConvTranspose, Linear].into_iter().try_for_each(|kind| compare(kind, true))
}

#[test]
fn evaluation_equals_the_naive_composition() -> Result {
    [Conv, ConvTranspose, Linear].into_iter().try_for_each(|kind| compare(kind, false))
}

#[test]
fn constant_input_equals_direct_encoding() -> Result {
    for kind in [Conv, ConvTranspose, Linear] {
        for train in [true, false] {
            let what = format!("{kind:?}, train = {train}");
            let run = |constant: bool| -> Result<Vec<Tensor>> {
                let (store, layer) = layer(kind)?;
                // Few elements: the n of the unbiased variance (here T*N*H*W) is easily seen.
                let x = Var::from_tensor(&kind.input(1, 2)?.get(0)?)?;
                let spikes = match constant {
                    true => layer.forward_constant(&x, 16, train)?,
                    false => layer.forward_t(&direct_encode(&x, 16)?, train)?,
                };
                let params = store.trainable();
                let inputs: Vec<&Var> = [&x].into_iter().chain(params.iter().map(|(_, v)| v)).collect();
                let grads = gradients(&spikes, &random("upstream", spikes.dims())?, &inputs)?;
                let statistics =
                    ["bn.running_mean", "bn.running_var"].map(|n| vars(&store)[n].as_tensor().clone());
                Ok([vec![spikes.detach()], grads, statistics.to_vec()].concat())
            };
            let (once, encoded) = (run(true)?, run(false)?);
            assert_close(&what, &once[0], &encoded[0], 0.);
            for (got, wanted) in once.iter().zip(&encoded).skip(1) {
                assert_relative(&what, got, wanted, 1e-11);
            }
        }
    }
    Ok(())
}

#[test]
fn evaluation_leaves_the_statistics_alone() -> Result {
    let (store, layer) = layer(Conv)?;
    let before = store.snapshot("")?;
    layer.forward_t(&Conv.input(4, 2)?, false)?;
    for (name, value) in store.snapshot("")? {
        assert_close(&name, &value, &before[&name], 0.);
    }
    Ok(())
}

#[test]
fn readout_layer_equals_a_synapse_at_every_step() -> Result {
    let weights = |t: i32| [1. / 6., 0.75f64.powi(5 - t) / 4., 0.8f64.powi(5 - t)];
    let readouts = [Readout::Mean, Readout::Psp { tau: 4. }, Readout::ExponentialSum { decay: 0.8 }];
    for kind in [Conv, ConvTranspose, Linear] {
        for (i, readout) in readouts.into_iter().enumerate() {
            let what = format!("{kind:?}, {readout:?}");
            let store = ParamStore::new(Seed(5), DType::F64, &Device::Cpu);
            let layer = kind.readout_layer(readout, &store)?;
            let (spikes, vars) = (Var::from_tensor(&kind.input(6, 2)?)?, vars(&store));
            let inputs = [&spikes, &vars["weight"], &vars["bias"]];

            let steps = kind.at_every_step(&spikes, &vars["weight"], &vars["bias"])?;
            let terms = (0..6).map(|t| steps.get(t)? * weights(t as i32)[i]);
            let terms = terms.collect::<candle_core::Result<Vec<_>>>()?;
            let wanted = Tensor::stack(&terms, 0)?.sum(0)?;

            let got = layer.forward(&spikes)?;
            assert_relative(&what, &got, &wanted, 1e-12);
            let upstream = random("upstream", got.dims())?;
            let (ours, theirs) =
                (gradients(&got, &upstream, &inputs)?, gradients(&wanted, &upstream, &inputs)?);
            for (ours, theirs) in ours.iter().zip(&theirs) {
                assert_relative(&what, ours, theirs, 1e-12);
            }

            let parts = [spikes.narrow(2, 0, 1)?, spikes.narrow(2, 1, 2)?];
            assert_relative(&what, &layer.forward_cat(&[&parts[0], &parts[1]])?, &wanted, 1e-12);
        }
    }
    Ok(())
}

#[test]
fn initial_values_are_pytorchs() -> Result {
    let store = ParamStore::new(Seed(1), DType::F64, &Device::Cpu);
    let (vb, lif, k3) = (store.builder(), LifConfig::default(), ConvConfig::new(3, 2, 1));
    SpikingLayer::conv(1, 32, k3, lif, vb.pp("a"))?;
    SpikingLayer::conv(64, 16, ConvConfig::new(1, 1, 0), lif, vb.pp("b"))?;
    SpikingLayer::conv_transpose(16, 64, k3, lif, vb.pp("c"))?;
    SpikingLayer::linear(40, 30, lif, vb.pp("d"))?;
    ReadoutLayer::conv_transpose(32, 1, k3, Readout::Mean, vb.pp("e"))?;
    ReadoutLayer::conv(320, 128, k3, Readout::Mean, vb.pp("f"))?;
    let vars = vars(&store);
    // PyTorch's fan-in of a transposed convolution is C_out * k * k.
    for (layer, shape, fan_in) in [
        ("a.conv", &[32, 1, 3, 3][..], 9.),
        ("b.conv", &[16, 64, 1, 1], 64.),
        ("c.conv", &[16, 64, 3, 3], 64. * 9.),
        ("d.linear", &[30, 40], 40.),
        ("e", &[32, 1, 3, 3], 9.),
        ("f", &[128, 320, 3, 3], 320. * 9.),
    ] {
        let bound = 1. / f64::sqrt(fan_in);
        assert_eq!(vars[&format!("{layer}.weight")].dims(), shape);
        for name in [format!("{layer}.weight"), format!("{layer}.bias")] {
            let values = flat(&vars[&name])?;
            let n = values.len() as f64;
            let largest = values.iter().fold(0f64, |a, v| a.max(v.abs()));
            // The largest of n uniform numbers lies this close with probability 1 - exp(-9).
            assert!(largest <= bound && largest >= bound * (1. - 9. / n), "{name}: {largest} of {bound}");
            let mean = values.iter().sum::<f64>() / n;
            // Five standard deviations.
            assert!(mean.abs() <= 5. * bound / (3. * n).sqrt(), "{name}: mean {mean}");
        }
    }
    for (name, value) in [("weight", 1.), ("bias", 0.), ("running_mean", 0.), ("running_var", 1.)] {
        assert_eq!(flat(&vars[&format!("a.bn.{name}")])?, vec![value; 32], "{name}");
    }
    assert_eq!(store.vars().len(), 4 * 6 + 2 * 2);
    Ok(())
}

#[test]
fn odd_inputs_are_errors_or_empty_but_no_panics() -> Result {
    for kind in [Conv, ConvTranspose, Linear] {
        let (_, layer) = layer(kind)?;
        let xs = kind.input(4, 2)?;
        let empty = xs.narrow(1, 0, 0)?;
        assert_eq!(layer.forward_t(&empty, false)?.dims()[..2], [4, 0], "{kind:?}");
        assert!(layer.forward_t(&empty, true).is_err(), "{kind:?}: no statistics of nothing");
        assert_eq!(layer.forward_t(&xs.narrow(0, 0, 0)?, false)?.elem_count(), 0, "{kind:?}: no time");
        assert!(layer.forward_t(&xs.narrow(2, 0, 2)?, true).is_err(), "{kind:?}: channels");
        assert!(layer.forward_t(&xs.to_dtype(DType::F32)?, true).is_err(), "{kind:?}: element type");
        assert!(layer.forward_t(&xs.flatten_all()?, true).is_err(), "{kind:?}: rank");
    }
    let store = ParamStore::new(Seed(5), DType::F64, &Device::Cpu);
    let readout = Conv.readout_layer(Readout::Mean, &store)?;
    assert!(readout.forward(&Conv.input(4, 2)?.narrow(0, 0, 0)?).is_err());
    assert!(readout.forward_cat(&[]).is_err());
    let (long, short) = (Conv.input(4, 2)?, Conv.input(3, 2)?);
    let parts = [long.narrow(2, 0, 1)?, short.narrow(2, 0, 2)?];
    assert!(readout.forward_cat(&[&parts[0], &parts[1]]).is_err(), "unequal times");
    Ok(())
}

#[test]
fn training_in_f32_stays_close_to_f64() -> Result {
    let run = |dtype| -> Result<Tensor> {
        let store = ParamStore::new(Seed(3), dtype, &Device::Cpu);
        let layer = Conv.layer(&store)?;
        Ok(layer.forward_t(&Conv.input(16, 4)?.to_dtype(dtype)?, true)?)
    };
    // A flipped spike would show as 1.
    assert_eq!(max_difference(&run(DType::F32)?, &run(DType::F64)?)?, 0.);
    Ok(())
}
