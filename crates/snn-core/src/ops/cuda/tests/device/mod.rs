//! The ops on a GPU against the same ops on the CPU: what no host can show. Ignored where nobody asks for it; `scripts/gpu-suite` does.

mod bandwidth;
mod chain;

use candle_core::{DType, Device, Result, Tensor, Var};
use candle_nn::VarBuilder;

use super::lif::configs;
use super::norm::{EPS, size_of_input_gradient};
use super::norm_lif::settled;
use crate::ops::batch_norm::tests::check_shards;
use crate::ops::norm_lif::{Sequence, map_lif, norm_lif};
use crate::ops::rows::pick_rows;
use crate::ops::testing::{assert_identical, assert_within, random};
use crate::{
    AdamW, AdamWConfig, ConvConfig, LayerConfig, LifConfig, ParamStore, Readout, Seed, SpikingLayer,
    batch_norm, conv_transpose2d, conv2d, embedding, lif, lif_constant, nearest, psp_distances,
    straight_through,
};

fn gpu() -> Device {
    Device::new_cuda(0).expect("a GPU, for a test that is asked for by name")
}

/// `f(inputs)` and its gradients in all inputs on a device, brought to the CPU.
fn run_on(
    device: &Device,
    f: &dyn Fn(&[Tensor]) -> Result<Tensor>,
    inputs: &[Tensor],
) -> Result<Vec<Tensor>> {
    let vars = inputs.iter().map(|x| Var::from_tensor(&x.to_device(device)?)).collect::<Result<Vec<_>>>()?;
    let ys = f(&vars.iter().map(|var| var.as_tensor().clone()).collect::<Vec<_>>())?;
    let upstream = random("upstream", ys.dims(), ys.dtype())?.to_device(device)?;
    let grads = (&ys * upstream)?.sum_all()?.backward()?;
    let of = |var: &Var| grads.get(var).cloned().map_or_else(|| var.zeros_like(), Ok);
    let all = std::iter::once(Ok(ys.detach())).chain(vars.iter().map(of));
    all.map(|tensor| tensor?.to_device(&Device::Cpu)).collect()
}

/// Value and gradients of both, the value bit for bit where `exact`.
fn parity(
    what: &str,
    f: impl Fn(&[Tensor]) -> Result<Tensor>,
    inputs: &[Tensor],
    exact: bool,
    bound: f64,
) -> Result<()> {
    let (got, wanted) = (run_on(&gpu(), &f, inputs)?, run_on(&Device::Cpu, &f, inputs)?);
    for (i, (got, wanted)) in got.iter().zip(&wanted).enumerate() {
        let what = format!("{what}, {i} of value and gradients");
        if exact && i == 0 {
            assert_identical(&what, got, wanted);
        } else {
            // Sums of both signs are measured by the size of a term.
            assert_within(&what, got, wanted, &(wanted.abs()? + 1e-3)?, bound);
        }
    }
    Ok(())
}

fn both(f: impl Fn(DType, f64) -> Result<()>) -> Result<()> {
    f(DType::F32, 1e-5)?;
    f(DType::F64, 1e-12)
}

#[test]
#[ignore = "needs a GPU"]
fn gpu_lif() -> Result<()> {
    both(|dtype, bound| {
        for (i, cfg) in configs().iter().enumerate() {
            for shape in [[16, 7777], [1, 1], [5, 333]] {
                let xs = (random(&format!("xs {i}"), &shape, dtype)? * 1.5)?;
                parity("lif", |x| lif(&x[0], cfg), std::slice::from_ref(&xs), true, bound)?;
                parity("lif_constant", |x| lif_constant(&x[0], 9, cfg), &[xs.get(0)?], true, bound)?;
                // A view that does not begin where its storage does.
                parity("lif of a view", |x| lif(&x[0].narrow(0, 0, 1)?, cfg), &[xs], true, bound)?;
            }
        }
        Ok(())
    })
}

/// More time steps than shared memory holds, and half precision: the twin.
#[test]
#[ignore = "needs a GPU"]
fn gpu_lif_where_there_is_no_kernel() -> Result<()> {
    let (xs, cfg) = (random("xs", &[400, 3], DType::F32)?, LifConfig::default());
    parity("long", |x| lif(&x[0], &cfg), std::slice::from_ref(&xs), true, 1e-5)?;
    let half = xs.to_dtype(DType::BF16)?.to_device(&gpu())?;
    assert_eq!(lif(&half, &cfg)?.dims(), [400, 3]);
    Ok(())
}

#[test]
#[ignore = "needs a GPU"]
fn gpu_sums_and_distances() -> Result<()> {
    both(|dtype, bound| {
        for shape in [[16, 5000], [1, 1], [7, 333]] {
            let (a, b) = (random("a", &shape, dtype)?, random("b", &shape, dtype)?);
            let readouts = [Readout::Mean, Readout::Psp { tau: 2. }, Readout::ExponentialSum { decay: 0.8 }];
            parity(
                "read-outs",
                |x| Readout::apply_all(&readouts, &x[0]),
                std::slice::from_ref(&a),
                true,
                bound,
            )?;
            let distances = |x: &[Tensor]| {
                let (first, second) = psp_distances(&x[0], &x[1], 2.)?;
                Tensor::stack(&[first, (second * 0.5)?], 0)
            };
            parity("psp_distances", distances, &[a.clone(), b.clone()], false, bound)?;
            parity("straight_through", |x| straight_through(&x[0], &x[1]), &[a, b], true, bound)?;
        }
        Ok(())
    })
}

#[test]
#[ignore = "needs a GPU"]
fn gpu_batch_norm() -> Result<()> {
    both(|dtype, bound| {
        for shape in [&[64, 33, 7, 7][..], &[2, 1], &[6, 1], &[130, 5, 28, 28]] {
            let c = shape[1];
            let xs = (random("xs", shape, dtype)? + 3.)?;
            let inputs = [xs, random("weight", &[c], dtype)?, random("bias", &[c], dtype)?];
            let norm = |x: &[Tensor]| Ok(batch_norm(&x[0], &x[1], &x[2], EPS)?.ys);
            let (got, wanted) = (run_on(&gpu(), &norm, &inputs)?, run_on(&Device::Cpu, &norm, &inputs)?);
            let terms = size_of_input_gradient([&inputs[0], &inputs[1]], &random("upstream", shape, dtype)?)?;
            for (i, (got, wanted)) in got.iter().zip(&wanted).enumerate() {
                let size = if i == 1 { terms.clone() } else { (wanted.abs()? + 1e-3)? };
                assert_within(&format!("batch_norm of {shape:?}, {i}"), got, wanted, &size, bound);
            }
        }
        Ok(())
    })
}

/// All neurons whose spikes no rounding decides about, behind batch norm and behind a fixed map.
#[test]
#[ignore = "needs a GPU"]
fn gpu_norm_lif() -> Result<()> {
    for (dtype, reach, bound) in [(DType::F32, 1e-4, 1e-5), (DType::F64, 1e-9, 1e-11)] {
        for (i, &lif) in configs().iter().enumerate() {
            for (steps, items, map) in [(16, 5, &[33, 7, 7][..]), (4, 70, &[9]), (1, 2, &[3, 14, 14])] {
                let (constant, c) = (i % 3 == 2, map[0]);
                let sequence = Sequence { lif, steps, constant };
                let shape = [&[if constant { items } else { steps * items }], map].concat();
                let (weight, bias) = (random("weight", &[c], dtype)?, random("bias", &[c], dtype)?);
                let inputs = [random("xs", &shape, dtype)?, weight, (bias + 0.5)?];
                let [xs, weight, bias] = &inputs;
                let by_channel = [vec![1, c], vec![1; map.len() - 1]].concat();
                let mapped = xs.broadcast_mul(&weight.reshape(&by_channel[..])?)?;
                let mapped = mapped.broadcast_add(&bias.reshape(by_channel)?)?;
                let only = settled(&batch_norm(xs, weight, bias, 1e-5)?.ys, &sequence, reach)?;
                let norm = |x: &[Tensor]| {
                    let spikes = norm_lif(&x[0], [&x[1], &x[2]], 1e-5, &sequence, None)?.0.ys;
                    spikes.broadcast_mul(&only.to_device(x[0].device())?)
                };
                parity("norm_lif", norm, &inputs, true, bound)?;
                let only = settled(&mapped, &sequence, reach)?;
                let fixed = |x: &[Tensor]| {
                    let spikes = map_lif(&x[0], [&x[1], &x[2]], &sequence)?;
                    spikes.broadcast_mul(&only.to_device(x[0].device())?)
                };
                parity("map_lif", fixed, &inputs, true, bound)?;
            }
        }
    }
    Ok(())
}

/// Shards on one GPU, each on a thread of its own.
#[test]
#[ignore = "needs a GPU"]
fn gpu_batch_norm_in_shards() -> Result<()> {
    let device = gpu();
    check_shards(&device, DType::F32, 1e-5)?;
    check_shards(&device, DType::F64, 1e-11)
}

#[test]
#[ignore = "needs a GPU"]
fn gpu_nearest() -> Result<()> {
    for dtype in [DType::F32, DType::F64] {
        for (shape, number) in [([9, 16, 7, 7], 128), ([1, 1, 1, 1], 1), ([2, 600, 3, 3], 10)] {
            let (z, codes) = (random("z", &shape, dtype)?, random("codes", &[number, shape[1]], dtype)?);
            let got = nearest(&z.to_device(&gpu())?, &codes.to_device(&gpu())?)?.to_device(&Device::Cpu)?;
            assert_identical("nearest", &got, &nearest(&z, &codes)?);
        }
    }
    let bad = Tensor::new(&[[[[f32::NAN]]]], &gpu())?;
    let error = nearest(&bad, &Tensor::new(&[[1f32]], &gpu())?).expect_err("NaN").to_string();
    assert!(error.contains("item 0 has NaN in channel 0"), "{error}");
    Ok(())
}

#[test]
#[ignore = "needs a GPU"]
fn gpu_rows() -> Result<()> {
    both(|dtype, bound| {
        let table = random("table", &[70, 33], dtype)?;
        let indices: Vec<u32> = (0..5000).map(|i| i * i % 69).collect();
        let look_up = |x: &[Tensor]| embedding(&x[0], &Tensor::new(indices.as_slice(), x[0].device())?);
        parity("embedding", look_up, std::slice::from_ref(&table), true, bound)?;
        for places in [[3u32, 69, 0], [3, 69, 3]] {
            parity("pick_rows", |x| pick_rows(&x[0], &places), std::slice::from_ref(&table), true, bound)?;
        }
        Ok(())
    })
}

#[test]
#[ignore = "needs a GPU"]
fn gpu_convolutions() -> Result<()> {
    both(|dtype, bound| {
        for ([m, c, h, w], o, kernel, stride, padding) in [
            ([5, 1, 28, 28], 32, 3, 2, 1),
            ([40, 64, 7, 7], 128, 3, 1, 1),
            ([3, 5, 9, 6], 4, 4, 3, 2),
            ([1, 1, 1, 1], 1, 1, 1, 0),
        ] {
            let cfg = ConvConfig::new(kernel, stride, padding);
            let xs = random("xs", &[m, c, h, w], dtype)?;
            let weight = random("w", &[o, c, kernel, kernel], dtype)?;
            #[cfg(feature = "cudnn")]
            chain::channels_last(&xs, &weight, &cfg, bound)?;
            parity("conv2d", |x| conv2d(&x[0], &x[1], &cfg), &[xs.clone(), weight], false, bound)?;
            let weight = random("w", &[c, o, kernel, kernel], dtype)?;
            let cfg = cfg.with_output_padding(stride - 1);
            parity(
                "conv_transpose2d",
                |x| conv_transpose2d(&x[0], &x[1], &cfg),
                &[xs, weight],
                false,
                bound,
            )?;
        }
        Ok(())
    })
}

/// More parameters than a launch takes, of many sizes.
#[test]
#[ignore = "needs a GPU"]
fn gpu_adamw() -> Result<()> {
    for dtype in [DType::F32, DType::F64] {
        let run = |device: &Device| -> Result<Vec<Tensor>> {
            let shape = |i: usize| match i % 4 {
                0 => vec![],
                1 => vec![i],
                2 => vec![i, 3],
                _ => vec![100, i],
            };
            let params = (0..70).map(|i| {
                let start = random(&format!("param {i}"), &shape(i), dtype)?.to_device(device)?;
                Ok((i.to_string(), Var::from_tensor(&start)?))
            });
            let params = params.collect::<Result<Vec<_>>>()?;
            let mut optimiser = AdamW::new(params.clone(), AdamWConfig::default())?;
            for step in 0..3 {
                let grad =
                    |i: usize| random(&format!("grad {step} {i}"), &shape(i), dtype)?.to_device(device);
                let grads = (0..70).map(|i| Ok((i.to_string(), grad(i)?))).collect::<Result<_>>()?;
                optimiser.step(&grads, 1.)?;
            }
            let moments = optimiser.snapshot("")?.into_values();
            let all = params.into_iter().map(|(_, var)| var.as_tensor().clone()).chain(moments);
            all.map(|tensor| tensor.to_device(&Device::Cpu)).collect()
        };
        for (got, wanted) in run(&gpu())?.iter().zip(&run(&Device::Cpu)?) {
            assert_identical("adamw", got, wanted);
        }
    }
    Ok(())
}

/// A layer of each kind of neuron, in training and with running statistics: spikes, and the gradient of every parameter.
#[test]
#[ignore = "needs a GPU"]
fn gpu_layers() -> Result<()> {
    for (learn_tau, train) in [(false, true), (false, false), (true, true), (true, false)] {
        let step = |device: &Device| -> Result<Vec<Tensor>> {
            let params = ParamStore::new(Seed(3), DType::F64, device);
            let vb: VarBuilder<'_> = params.builder();
            let cfg = LayerConfig { learn_tau, ..LayerConfig::default() };
            let layer = SpikingLayer::conv(3, 5, ConvConfig::new(3, 2, 1), cfg, vb)?;
            let xs = random("xs", &[6, 4, 3, 9, 9], DType::F64)?.to_device(device)?;
            let spikes = layer.forward_t(&xs, train)?;
            let upstream = random("upstream", spikes.dims(), DType::F64)?.to_device(device)?;
            let grads = params.gradients(&(&spikes * upstream)?.sum_all()?.backward()?)?;
            std::iter::once(spikes)
                .chain(grads.into_values())
                .map(|tensor| tensor.detach().to_device(&Device::Cpu))
                .collect()
        };
        for (got, wanted) in step(&gpu())?.iter().zip(&step(&Device::Cpu)?) {
            let what = format!("learn_tau {learn_tau}, train {train}");
            assert_within(&what, got, wanted, &(wanted.abs()? + 1e-3)?, 1e-9);
        }
    }
    Ok(())
}
