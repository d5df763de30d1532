//! How fast each kernel moves bytes.

use candle_core::{CustomOp1, DType, Device, Result, Tensor, Var};

use super::gpu;
use crate::ops::batch_norm::cuda::run::Normalise;
use crate::ops::lif::Lif;
use crate::ops::norm_lif::Sequence;
use crate::ops::norm_lif::cuda::run::NormLif;
use crate::ops::testing::{flat, random};
use crate::{AdamW, AdamWConfig, LifConfig, Readout, batch_norm, psp_distances};

const STEPS: usize = 16;
const NEURONS: usize = 1 << 21;

/// One JSON object a line, for `scripts/gpu-suite`.
fn time(device: &Device, what: &str, bytes: f64, f: &dyn Fn() -> Result<()>) -> Result<()> {
    let repeats = 20;
    f()?;
    device.synchronize()?;
    let start = std::time::Instant::now();
    (0..repeats).try_for_each(|_| f())?;
    device.synchronize()?;
    let seconds = start.elapsed().as_secs_f64() / f64::from(repeats);
    let rate = bytes / seconds;
    println!("{{\"kernel\": \"{what}\", \"seconds\": {seconds:e}, \"bytes_per_second\": {rate:e}}}");
    Ok(())
}

/// Bytes a second of each kernel, beside a copy on the device.
#[test]
#[ignore = "needs a GPU"]
fn gpu_bandwidth() -> Result<()> {
    let device = gpu();
    let time = |what: &str, bytes: f64, f: &dyn Fn() -> Result<()>| time(&device, what, bytes, f);
    let xs = random("xs", &[STEPS, 1 << 12], DType::F32)?.to_device(&device)?.repeat((1, NEURONS >> 12))?;
    let all = (STEPS * NEURONS * 4) as f64;
    time("copy", 2. * all, &|| xs.copy().map(drop))?;
    let lif = Lif { cfg: LifConfig::default(), smooth: false, constant: None };
    time("lif_forward", 2. * all, &|| xs.apply_op1_no_bwd(&lif).map(drop))?;
    // Currents and the gradients of spikes in, those of currents out.
    let grad = (&xs * 0.5)?;
    time("lif_backward", 3. * all, &|| lif.bwd(&xs, &xs, &grad).map(drop))?;
    time("weighted_sums", all * (1. + 1. / STEPS as f64), &|| Readout::Mean.apply(&xs).map(drop))?;
    time("psp_distances", 2. * all, &|| psp_distances(&xs, &xs, 2.).map(drop))?;
    let maps = xs.flatten_all()?.narrow(0, 0, 4992 * 128 * 49)?;
    // Channels in front of maps, and last: of [M H W, C] as of linear layers.
    for (order, shape) in [("", &[4992, 128, 7, 7][..]), ("_channels_last", &[4992 * 49, 128])] {
        layers(&maps.reshape(shape)?, order, &time)?;
    }
    let params: Vec<_> = vec![("p".to_owned(), Var::from_tensor(&xs)?)];
    let optimiser = std::cell::RefCell::new(AdamW::new(params, AdamWConfig::default())?);
    let grads = [("p".to_owned(), xs.clone())].into_iter().collect();
    time("adamw", 7. * all, &|| optimiser.borrow_mut().step(&grads, 1.))?;
    assert!(flat(&xs.narrow(1, 0, 1)?.to_device(&Device::Cpu)?)?.iter().all(|x| x.is_finite()));
    Ok(())
}

type Timer<'a> = &'a dyn Fn(&str, f64, &dyn Fn() -> Result<()>) -> Result<()>;

/// Batch norm, and batch norm or a map with LIF.
fn layers(maps: &Tensor, order: &str, time: Timer<'_>) -> Result<()> {
    let (c, device, bytes) = (maps.dim(1)?, maps.device(), (maps.elem_count() * 4) as f64);
    let (weight, bias) = (Tensor::ones(c, DType::F32, device)?, Tensor::zeros(c, DType::F32, device)?);
    let time = |what: &str, passes: f64, f: &dyn Fn() -> Result<()>| {
        time(&format!("{what}{order}"), passes * bytes, f)
    };
    // Currents for the statistics, and once more for what becomes of them.
    time("batch_norm", 3., &|| batch_norm(maps, &weight, &bias, 1e-5).map(drop))?;
    let sequence = Sequence { lif: LifConfig::default(), steps: STEPS, constant: false };
    let op = |fixed: bool| -> Result<NormLif> {
        let norm = match fixed {
            true => Normalise::by_map(&weight, &bias)?,
            false => Normalise::of_batch(maps, &weight, &bias, 1e-5, None)?,
        };
        Ok(NormLif { norm, fixed, sequence })
    };
    let (by_batch, by_map) = (op(false)?, op(true)?);
    let forward = |op: &NormLif| maps.apply_op3_no_bwd(&weight, &bias, op);
    time("norm_lif", 3., &|| forward(&op(false)?).map(drop))?;
    time("map_lif", 2., &|| forward(&by_map).map(drop))?;
    // Currents and the gradients of spikes in, those of currents out; by the batch's statistics currents and gradients once more.
    let grad = forward(&by_map)?;
    time("map_lif_backward", 3., &|| by_map.gradients(maps, &weight, &grad, true).map(drop))?;
    time("norm_lif_backward", 6., &|| by_batch.gradients(maps, &weight, &grad, true).map(drop))
}
