//! Layers in a row as one operation, which on a GPU has channels last inside.

use candle_core::{DType, Device, Result, Tensor};

use super::gpu;
use crate::ops::testing::{assert_within, random};
use crate::{ConvConfig, Drive, LayerConfig, ParamStore, Readout, Seed, SpikingLayer, SpikingStack};

/// The three products of a convolution, with channels as the last axis.
#[cfg(feature = "cudnn")]
pub(super) fn channels_last(xs: &Tensor, weight: &Tensor, cfg: &ConvConfig, bound: f64) -> Result<()> {
    use crate::ops::conv::{Kind, Product, sizes};

    if xs.dtype() != DType::F32 {
        return Ok(());
    }
    let g = sizes(xs, weight, cfg)?;
    let ys = crate::conv2d(xs, weight, cfg)?;
    let upstream = random("upstream", ys.dims(), DType::F32)?;
    let wanted =
        super::run_on(&Device::Cpu, &|x| crate::conv2d(&x[0], &x[1], cfg), &[xs.clone(), weight.clone()])?;
    let turned = |t: &Tensor| t.to_device(&gpu())?.permute((0, 2, 3, 1))?.contiguous();
    let operands = [turned(xs)?, turned(weight)?, turned(&upstream)?];
    for ((kind, a, b), wanted) in
        [(Kind::Correlate, 0, 1), (Kind::ImageGradient, 2, 1), (Kind::KernelGradient, 0, 2)]
            .into_iter()
            .zip(&wanted)
    {
        let got = Product { kind, g, last: true }.apply(&operands[a], &operands[b])?;
        let got = got.permute((0, 3, 1, 2))?.contiguous()?.to_device(&Device::Cpu)?;
        assert_within("channels last", &got, wanted, &(wanted.abs()? + 1e-3)?, bound);
    }
    Ok(())
}

/// The output of a stack and the gradients of its input and of every parameter.
fn step(device: &Device, dtype: DType, constant: bool, train: bool) -> Result<Vec<Tensor>> {
    let params = ParamStore::new(Seed(3), DType::F64, &Device::Cpu);
    let vb = params.builder();
    let (cfg, half) = (LayerConfig::default(), ConvConfig::new(3, 2, 1));
    let layers = |vb: &candle_nn::VarBuilder<'_>| -> Result<SpikingStack> {
        Ok(SpikingStack::new(vec![
            SpikingLayer::conv(3, 16, half, cfg, vb.pp(0))?,
            SpikingLayer::conv(16, 33, ConvConfig::new(3, 1, 1), cfg, vb.pp(1))?,
            SpikingLayer::conv_transpose(33, 16, half.with_output_padding(1), cfg, vb.pp(2))?,
            SpikingLayer::conv(16, 8, half, cfg, vb.pp(3))?,
        ]))
    };
    layers(&vb)?;
    // The same numbers, in the type and on the device that are asked for.
    let there = ParamStore::new(Seed(3), dtype, device);
    let stack = layers(&there.builder())?;
    for (name, var) in there.trainable() {
        let value =
            &params.trainable().into_iter().find(|(other, _)| *other == name).expect("the same names").1;
        var.set(&value.as_tensor().to_dtype(dtype)?.to_device(device)?)?;
    }
    let shape = if constant { vec![5, 3, 10, 10] } else { vec![6, 5, 3, 10, 10] };
    let xs = random("xs", &shape, DType::F64)?.to_dtype(dtype)?.to_device(device)?;
    let xs = candle_core::Var::from_tensor(&(xs * 3.)?)?;
    let drive = if constant { Drive::Constant(&xs, 6) } else { Drive::Spikes(&xs) };
    let sums = stack.readout_of(drive, Readout::ExponentialSum { decay: 0.8 }, &[3, 0], train)?;
    // Easier to excite, for none fires by the running statistics of a network that has not been trained.
    let spikes = stack.with_threshold_scale(0.05)?.forward(drive, false)?;
    let weigh = |name: &str, ys: &Tensor| {
        let upstream = random(name, ys.dims(), DType::F64)?.to_dtype(dtype)?.to_device(device)?;
        (ys * upstream)?.sum_all()
    };
    assert!(spikes.sum_all()?.to_dtype(DType::F64)?.to_scalar::<f64>()? > 100., "nothing fires");
    let grads = (weigh("sums", &sums)? + weigh("spikes", &spikes)?)?.backward()?;
    let of_input = grads.get(&xs).expect("the input's").clone();
    let all = [sums, spikes, of_input].into_iter().chain(there.gradients(&grads)?.into_values());
    all.map(|tensor| tensor.detach().to_device(&Device::Cpu)?.to_dtype(DType::F64)).collect()
}

/// Two linear layers of odd sizes: their sums, and the gradients of all parameters, twice.
fn linear_step(device: &Device, dtype: DType) -> Result<Vec<Tensor>> {
    let params = ParamStore::new(Seed(5), dtype, device);
    let (vb, cfg) = (params.builder(), LayerConfig::default());
    let layers =
        vec![SpikingLayer::linear(17, 33, cfg, vb.pp(0))?, SpikingLayer::linear(33, 5, cfg, vb.pp(1))?];
    let xs = (random("xs", &[6, 40, 17], DType::F64)? * 3.)?.to_dtype(dtype)?.to_device(device)?;
    let sums = SpikingStack::new(layers).readout(Drive::Spikes(&xs), Readout::Mean, true)?;
    let upstream = random("upstream", sums.dims(), DType::F64)?.to_dtype(dtype)?.to_device(device)?;
    let loss = (&sums * upstream)?.sum_all()?;
    let mut all = vec![sums];
    for _ in 0..2 {
        all.extend(params.gradients(&loss.backward()?)?.into_values());
    }
    all.iter().map(|tensor| tensor.detach().to_device(&Device::Cpu)?.to_dtype(DType::F64)).collect()
}

#[test]
#[ignore = "needs a GPU"]
fn gpu_chain_of_linear_layers() -> Result<()> {
    let wanted = linear_step(&Device::Cpu, DType::F64)?;
    let got = linear_step(&gpu(), DType::F64)?;
    assert_eq!(got.len(), wanted.len());
    for (i, (got, wanted)) in got.iter().zip(&wanted).enumerate() {
        assert_within(&format!("linear, {i}"), got, wanted, &(wanted.abs()? + 1e-3)?, 1e-9);
    }
    Ok(())
}

/// A stack laid out once, at some positions and at all.
#[test]
#[ignore = "needs a GPU"]
fn gpu_prepared_stack() -> Result<()> {
    let run = |device: &Device| -> Result<Vec<Tensor>> {
        let params = ParamStore::new(Seed(7), DType::F64, device);
        let (vb, cfg) = (params.builder(), LayerConfig::default());
        let conv = |from, to, i| SpikingLayer::conv(from, to, ConvConfig::new(3, 1, 1), cfg, vb.pp(i));
        let stack = SpikingStack::new(vec![conv(2, 7, 0)?, conv(7, 9, 1)?]).with_threshold_scale(0.05)?;
        let prepared = stack.prepare(&[2, 7, 7])?;
        let images = random("images", &[3, 2, 7, 7], DType::F64)?.to_device(device)?;
        let (drive, at) = (Drive::Constant(&images, 5), [vec![0, 48], vec![], vec![24]]);
        let some = prepared.readout_of_at(drive, Readout::Mean, &[1, 0], &at)?;
        let all = [some, prepared.readout(drive, Readout::Mean)?, prepared.forward(drive)?];
        all.iter().map(|tensor| tensor.to_device(&Device::Cpu)).collect()
    };
    for (i, (got, wanted)) in run(&gpu())?.iter().zip(&run(&Device::Cpu)?).enumerate() {
        assert!(wanted.sum_all()?.to_scalar::<f64>()? > 0., "{i}: nothing fires");
        assert_within(&format!("prepared, {i}"), got, wanted, &(wanted.abs()? + 1e-3)?, 1e-9);
    }
    Ok(())
}

/// In double precision the CPU's layers one by one; in single precision close to them, but for neurons at their thresholds.
#[test]
#[ignore = "needs a GPU"]
fn gpu_chain() -> Result<()> {
    for (constant, train) in [(false, true), (true, true), (false, false)] {
        let wanted = step(&Device::Cpu, DType::F64, constant, train)?;
        for (i, (got, wanted)) in step(&gpu(), DType::F64, constant, train)?.iter().zip(&wanted).enumerate() {
            let what = format!("f64, constant {constant}, train {train}, {i}");
            assert_within(&what, got, wanted, &(wanted.abs()? + 1e-3)?, 1e-9);
        }
        for (i, (got, wanted)) in step(&gpu(), DType::F32, constant, train)?.iter().zip(&wanted).enumerate() {
            let norm = |t: &Tensor| t.sqr()?.sum_all()?.to_scalar::<f64>();
            let (error, size) = (norm(&(got - wanted)?)?.sqrt(), norm(wanted)?.sqrt());
            println!("f32, constant {constant}, train {train}, {i}: {error:e} of {size:e}");
            assert!(
                error <= 2e-2 * size + 1e-6,
                "f32, constant {constant}, train {train}, {i}: {error} of {size}"
            );
        }
    }
    Ok(())
}
