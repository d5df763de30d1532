//! The leaky integrate-and-fire neuron (paper Eq. 1-3).

mod cpu;
#[cfg(any(test, feature = "cuda"))]
pub(super) mod cuda;
mod neuron;
#[cfg(feature = "cuda")]
mod plif;
#[cfg(test)]
mod tests;

#[cfg(feature = "cuda")]
use candle_core::CudaStorage;
use candle_core::{CpuStorage, CustomOp1, CustomOp2, DType, Layout, Result, Shape, Tensor, bail};

use super::backend::Backend;
#[cfg(feature = "cuda")]
use super::cuda::gpu::by_element;
use super::{by_dtype, operand, room, same_type};
use crate::time::check_time_steps;
use crate::{LifConfig, Reset};
pub(crate) use neuron::{Neuron, by_division};

/// Computes the spikes of LIF neurons over all time steps (paper Eq. 1-3), with a surrogate gradient: SpikingJelly's
/// `LIFNode(step_mode="m")` after a reset, since every call starts from rest.
///
/// ```text
/// H[t] = V[t-1] + (X[t] - (V[t-1] - V_reset)) / tau      charge; V[-1] = V_reset
/// S[t] = Theta(H[t] - V_th)                              fire
/// V[t] = H[t] (1 - S[t]) + V_reset S[t]                  reset
/// ```
///
/// [`LifConfig`] has the variants of each line. Backward, the derivative of [`Surrogate`](crate::Surrogate) stands for that of `Theta`. It is one
/// fused pass forward and one backward, in which membranes are computed again instead of being stored.
///
/// # Shapes
/// `xs: [T, N, ...]` input currents -> spikes `[T, N, ...]`, each 0 or 1. f32 or f64.
/// # Errors
/// Returns an error if the tensor has no time axis or another element type.
/// # Examples
/// ```
/// # use candle_core::{Device, Tensor};
/// # fn main() -> candle_core::Result<()> {
/// let current = Tensor::new(&[[1.5f32], [1.5], [1.5], [1.5]], &Device::Cpu)?; // [T = 4, N = 1]
/// let spikes = snn_core::lif(&current, &snn_core::LifConfig::default())?;
/// assert_eq!(spikes.to_vec2::<f32>()?.concat(), [0., 1., 0., 1.]);
/// # Ok(()) }
/// ```
pub fn lif(xs: &Tensor, cfg: &LifConfig) -> Result<Tensor> {
    if xs.rank() == 0 {
        bail!("lif: wants [T, ...], got a scalar")
    }
    if !has_kernel(xs, xs.dim(0)?) {
        return lif_reference(xs, cfg);
    }
    xs.contiguous()?.apply_op1(Lif { cfg: *cfg, smooth: false, constant: None })
}

/// Whether there is a kernel for so many time steps of such a current.
fn has_kernel(xs: &Tensor, time_steps: usize) -> bool {
    match Backend::of(xs) {
        Backend::Cpu => true,
        Backend::Cuda => fits_shared(xs.dtype(), time_steps),
        Backend::Candle => false,
    }
}

/// Numbers that a neuron keeps of each time step backward on a GPU, in shared memory: its potential, and the gradient of its spike.
pub(crate) const COLUMNS: usize = 2;

/// Whether what 32 neurons, the least of a CUDA block, keep of so many steps lies in 48 KiB, with 32 sums in double precision.
pub(crate) fn fits_shared(dtype: DType, time_steps: usize) -> bool {
    time_steps.saturating_mul(COLUMNS * dtype.size_in_bytes()) <= (48 << 10) / 32 - size_of::<f64>()
}

/// Runs [`lif`] under a current that does not change: equal to `lif(direct_encode(x, T))`, without the copies.
///
/// # Shapes
/// `x: [N, ...]` -> spikes `[T, N, ...]`.
/// # Errors
/// Returns an error if, on the CPU, the element type is another than f32 and f64, the errors of [`lif_reference`] elsewhere, and an error if
/// there are more time steps than [`direct_encode`](crate::direct_encode) takes.
pub fn lif_constant(x: &Tensor, time_steps: usize, cfg: &LifConfig) -> Result<Tensor> {
    check_time_steps(time_steps)?;
    room("lif_constant", &[&[time_steps], x.dims()].concat(), x.dtype())?;
    if !has_kernel(x, time_steps) {
        return lif_reference(&crate::direct_encode(x, time_steps)?, cfg);
    }
    x.contiguous()?.apply_op1(Lif { cfg: *cfg, smooth: false, constant: Some(time_steps) })
}

/// Runs the twin of [`lif`]: [`lif_step`] in a loop, with Candle's own operations. Any device; slow.
///
/// # Shapes
/// `xs: [T, N, ...]` -> spikes `[T, N, ...]`, as [`lif`].
/// # Errors
/// Returns an error if the tensor has no time axis or no time steps.
pub fn lif_reference(xs: &Tensor, cfg: &LifConfig) -> Result<Tensor> {
    let time_steps = xs.dim(0)?;
    let mut v = (xs.get(0)?.zeros_like()? + cfg.v_reset.potential())?;
    let mut spikes = Vec::with_capacity(time_steps);
    for t in 0..time_steps {
        let (s, next) = lif_step(&xs.get(t)?, &v, cfg)?;
        spikes.push(s);
        v = next;
    }
    Tensor::stack(&spikes, 0)
}

/// Takes one time step, for streaming: `(X[t], V[t-1]) -> (S[t], V[t])`. The state is a value; nothing is kept.
///
/// # Shapes
/// `x, v: [N, ...]` -> spikes and potentials `[N, ...]`; any shape, the same for all.
/// # Errors
/// Returns an error if shapes or element types differ.
/// # Examples
/// ```
/// # use candle_core::{Device, Tensor};
/// # fn main() -> candle_core::Result<()> {
/// let cfg = snn_core::LifConfig::default();
/// let (x, v) = (Tensor::new(&[1.5f32], &Device::Cpu)?, Tensor::new(&[0.5f32], &Device::Cpu)?);
/// let (spike, v) = snn_core::lif_step(&x, &v, &cfg)?;
/// assert_eq!((spike.to_vec1::<f32>()?[0], v.to_vec1::<f32>()?[0]), (1., 0.));
/// # Ok(()) }
/// ```
pub fn lif_step(x: &Tensor, v: &Tensor, cfg: &LifConfig) -> Result<(Tensor, Tensor)> {
    same_type("lif_step", &[("x", x), ("v", v)])?;
    spike(&charge(x, v, cfg)?, cfg)
}

/// Takes [`lif_step`] of a parametric LIF neuron: `1/tau = sigmoid(w)`, with `w` a scalar that learns, in place of the config's `tau`.
///
/// # Shapes
/// `x, v: [N, ...]`, `w: []` -> spikes and potentials `[N, ...]`.
/// # Errors
/// Returns an error if shapes or element types differ, or if `w` has more than one element.
/// # Examples
/// ```
/// # use candle_core::{Device, Tensor};
/// # fn main() -> candle_core::Result<()> {
/// let (x, v) = (Tensor::new(&[1.5f32], &Device::Cpu)?, Tensor::new(&[0.5f32], &Device::Cpu)?);
/// let w = Tensor::new(0f32, &Device::Cpu)?; // tau = 2
/// let (spike, v) = snn_core::plif_step(&x, &v, &w, &snn_core::LifConfig::default())?;
/// assert_eq!((spike.to_vec1::<f32>()?[0], v.to_vec1::<f32>()?[0]), (1., 0.));
/// # Ok(()) }
/// ```
pub fn plif_step(x: &Tensor, v: &Tensor, w: &Tensor, cfg: &LifConfig) -> Result<(Tensor, Tensor)> {
    same_type("plif_step", &[("x", x), ("v", v), ("w", w)])?;
    let rate = candle_nn::ops::sigmoid(w)?.reshape(())?;
    let leaked = v.broadcast_mul(&(1. - &rate)?)?;
    let driven = if cfg.decay_input { x.broadcast_mul(&rate)? } else { x.clone() };
    spike(&(leaked + driven)?.broadcast_add(&(rate * cfg.v_reset.potential())?)?, cfg)
}

/// All time steps of parametric LIF neurons, `xs: [T, N, ...]`, as one operation; none where there is no kernel for that.
pub(crate) fn plif(xs: &Tensor, w: &Tensor, cfg: &LifConfig) -> Option<Result<Tensor>> {
    #[cfg(feature = "cuda")]
    if Backend::of(xs) == Backend::Cuda && fits_shared(xs.dtype(), xs.dims().first().copied().unwrap_or(0)) {
        return Some(plif::plif(xs, w, cfg));
    }
    let _ = (xs, w, cfg);
    None
}

/// Eq. 2 and 3: `H[t] -> (S[t], V[t])`.
fn spike(h: &Tensor, cfg: &LifConfig) -> Result<(Tensor, Tensor)> {
    let s = cfg.fire(h)?;
    let reset_by = if cfg.detach_reset { s.detach() } else { s.clone() };
    let v = match cfg.v_reset {
        Reset::Hard(v_reset) => hard_reset(h, &reset_by, v_reset)?,
        Reset::Soft => (h - (reset_by * cfg.v_threshold)?)?,
    };
    Ok((s, v))
}

/// Eq. 1: `(X[t], V[t-1]) -> H[t]`.
fn charge(x: &Tensor, v: &Tensor, cfg: &LifConfig) -> Result<Tensor> {
    let Some(tau) = cfg.tau else { return v + x };
    let held = (v - cfg.v_reset.potential())?;
    let flow = if cfg.decay_input { (x - held)? } else { held.neg()? };
    // Candle divides by a number by multiplying with its reciprocal, which is another one; by a tensor it divides.
    let tau = (Tensor::ones((), x.dtype(), x.device())? * tau)?;
    let h = (v + flow.broadcast_div(&tau)?)?;
    let h = if cfg.decay_input { h } else { (h + x)? };
    // What is infinite leaks nothing that could be taken off.
    let (leak, drive, rest) = cfg.coefficients();
    let scaled = (((v * leak)? + (x * drive)?)? + rest)?;
    flow.abs()?.lt(f64::INFINITY)?.where_cond(&h, &scaled)
}

/// `H (1 - S) + V_reset S`, and its gradients, without the product of an infinite `H` and zero.
fn hard_reset(h: &Tensor, s: &Tensor, v_reset: f64) -> Result<Tensor> {
    let fixed = h.detach();
    let (zeros, finite) = (fixed.zeros_like()?, fixed.abs()?.lt(f64::INFINITY)?);
    let v = s.detach().gt(0.)?.where_cond(&(&zeros + v_reset)?, h)?;
    // Zero in value, `V_reset - H` in derivative.
    let through_s = (v_reset - finite.where_cond(&fixed, &zeros)?)?;
    v + ((s - s.detach())? * through_s)?
}

/// [`lif`] with `g` in place of `Theta`: smooth, so that finite differences can check the backward pass.
#[cfg(test)]
fn lif_smooth(xs: &Tensor, cfg: &LifConfig, constant: Option<usize>) -> Result<Tensor> {
    xs.contiguous()?.apply_op1(Lif { cfg: *cfg, smooth: true, constant })
}

#[derive(Clone, Copy)]
pub(crate) struct Lif {
    pub(crate) cfg: LifConfig,
    /// With `g` in place of `Theta`, for finite differences.
    pub(crate) smooth: bool,
    /// Time steps, where the input has no time axis.
    pub(crate) constant: Option<usize>,
}

impl Lif {
    fn input<'a, F>(&self, xs: &'a [F], shape: &Shape) -> cpu::Input<'a, F> {
        let time_steps = self.constant.unwrap_or_else(|| shape.dims().first().copied().unwrap_or(0));
        let copies = if self.constant.is_some() { 1 } else { time_steps.max(1) };
        cpu::Input { xs, neurons: xs.len() / copies, time_steps, constant: self.constant.is_some() }
    }

    fn forward<F: super::Real>(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let input = self.input(operand::<F>(storage, layout)?, layout.shape());
        Ok((F::storage(cpu::forward(&self.cfg, self.smooth, input)), self.spikes(layout.dims()).into()))
    }

    /// The shape of the spikes.
    fn spikes(&self, current: &[usize]) -> Vec<usize> {
        let time: Vec<usize> = self.constant.into_iter().collect();
        [&time, current].concat()
    }

    #[cfg(feature = "cuda")]
    fn current<'a>(&self, layout: &'a Layout) -> cuda::Current<'a> {
        cuda::Current { layout, constant: self.constant, learned: false }
    }
}

impl CustomOp1 for Lif {
    fn name(&self) -> &'static str {
        "lif"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        by_dtype!(storage, "lif", F => self.forward::<F>(storage, layout))
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(&self, xs: &CudaStorage, layout: &Layout) -> Result<(CudaStorage, Shape)> {
        let current = self.current(layout);
        let spikes = by_element!(xs, "lif", F => cuda::run::spikes::<F>(&self.cfg, xs, current)?);
        Ok((spikes, self.spikes(layout.dims()).into()))
    }

    fn bwd(&self, xs: &Tensor, _spikes: &Tensor, grad_spikes: &Tensor) -> Result<Option<Tensor>> {
        let grad = xs.apply_op2_no_bwd(&grad_spikes.contiguous()?, &LifBackward(*self))?;
        Ok(Some(grad))
    }
}

struct LifBackward(Lif);

impl LifBackward {
    fn forward<F: super::Real>(
        &self,
        s1: &CpuStorage,
        l1: &Layout,
        s2: &CpuStorage,
        l2: &Layout,
    ) -> Result<CpuStorage> {
        let input = self.0.input(operand::<F>(s1, l1)?, l1.shape());
        let grad_spikes = operand::<F>(s2, l2)?;
        Ok(F::storage(cpu::backward(&self.0.cfg, self.0.smooth, input, grad_spikes)))
    }
}

impl CustomOp2 for LifBackward {
    fn name(&self) -> &'static str {
        "lif_backward"
    }

    fn cpu_fwd(
        &self,
        s1: &CpuStorage,
        l1: &Layout,
        s2: &CpuStorage,
        l2: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        by_dtype!(s1, "lif_backward", F => Ok((self.forward::<F>(s1, l1, s2, l2)?, l1.shape().clone())))
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        s1: &CudaStorage,
        l1: &Layout,
        s2: &CudaStorage,
        l2: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        let current = self.0.current(l1);
        let grad = by_element!(s1, "lif_backward", F => {
            cuda::run::gradient::<F>(&self.0.cfg, s1, current, (s2, l2))?
        });
        Ok((grad, l1.shape().clone()))
    }
}
