//! Convolution and transposed convolution, forward and both gradients on matrix products.
//!
//! Candle's own backward pass of a convolution is a scalar loop on the CPU and a slow kernel on GPUs; these replace it for training.

mod at;
mod cpu;
#[cfg(any(test, feature = "cuda"))]
pub(super) mod cuda;
#[cfg(test)]
mod tests;

#[cfg(feature = "cuda")]
use candle_core::CudaStorage;
use candle_core::{CpuStorage, CustomOp2, Layout, Result, Shape, Tensor, bail};

use super::backend::Backend;
#[cfg(feature = "cuda")]
use super::cuda::gpu::by_element;
use super::{Real, by_dtype, operand, room, same_type};
pub(crate) use at::check;
pub use at::{conv2d_at, pick_positions};
pub(crate) use cpu::Sizes;

use crate::ConvConfig;
use crate::geometry::{conv_transpose2d_map, conv2d_map};

/// Two-dimensional convolution (cross-correlation, as PyTorch's), differentiable in both arguments.
///
/// `y[m, o, i, j] = sum_{c, u, v} w[o, c, u, v] x[m, c, i s + u - p, j s + v - p]`
///
/// # Shapes
/// `xs: [M, C_in, H, W]`, `weight: [C_out, C_in, kh, kw]` -> `[M, C_out, (H + 2p - kh)/s + 1, ...]`. f32 or f64.
/// # Errors
/// Returns an error, which names the field or the operand, if shapes or element types do not fit, if an axis other than `M`
/// has length 0, if the stride is 0, if the kernel is larger than the padded image, or if the output cannot be counted or does
/// not fit into memory.
/// # Examples
/// ```
/// # use candle_core::{DType, Device, Tensor};
/// # use snn_core::{ConvConfig, conv2d};
/// # fn main() -> candle_core::Result<()> {
/// let xs = Tensor::ones((2, 1, 28, 28), DType::F32, &Device::Cpu)?;
/// let weight = Tensor::ones((32, 1, 3, 3), DType::F32, &Device::Cpu)?;
/// assert_eq!(conv2d(&xs, &weight, &ConvConfig::new(3, 2, 1))?.dims(), [2, 32, 14, 14]);
/// # Ok(()) }
/// ```
pub fn conv2d(xs: &Tensor, weight: &Tensor, cfg: &ConvConfig) -> Result<Tensor> {
    let [oh, ow] = conv2d_output(xs, weight, cfg)?;
    if Backend::of(xs) == Backend::Candle {
        return conv2d_reference(xs, weight, cfg);
    }
    let g = sizes_of(xs, weight, cfg, [oh, ow])?;
    g.room("conv2d", xs.dtype())?;
    xs.contiguous()?.apply_op2(&weight.contiguous()?, Product { kind: Kind::Correlate, g, last: false })
}

/// Two-dimensional transposed convolution, as PyTorch's: the adjoint of [`conv2d`], differentiable in both arguments.
///
/// # Shapes
/// `xs: [M, C_in, H, W]`, `weight: [C_in, C_out, kh, kw]` (PyTorch's order)
/// -> `[M, C_out, (H - 1) s - 2p + kh + output_padding, ...]`. f32 or f64.
/// # Errors
/// Returns the errors of [`conv2d`], and an error if the output padding is not less than the stride or the output is empty.
/// # Examples
/// ```
/// # use candle_core::{DType, Device, Tensor};
/// # use snn_core::{ConvConfig, conv_transpose2d};
/// # fn main() -> candle_core::Result<()> {
/// let xs = Tensor::ones((2, 16, 7, 7), DType::F32, &Device::Cpu)?;
/// let weight = Tensor::ones((16, 64, 3, 3), DType::F32, &Device::Cpu)?;
/// let cfg = ConvConfig::new(3, 2, 1).with_output_padding(1);
/// assert_eq!(conv_transpose2d(&xs, &weight, &cfg)?.dims(), [2, 64, 14, 14]);
/// # Ok(()) }
/// ```
pub fn conv_transpose2d(xs: &Tensor, weight: &Tensor, cfg: &ConvConfig) -> Result<Tensor> {
    let [oh, ow] = conv_transpose2d_output(xs, weight, cfg)?;
    if Backend::of(xs) == Backend::Candle {
        return conv_transpose2d_reference(xs, weight, cfg);
    }
    let ((_, c_in, h, w), (_, c_out, kh, kw)) = (xs.dims4()?, weight.dims4()?);
    // Seen from the convolution that this is the adjoint of, the output is the image and the input is the map.
    let g = Sizes {
        c_in: c_out,
        h: oh,
        w: ow,
        c_out: c_in,
        oh: h,
        ow: w,
        kh,
        kw,
        stride: cfg.stride,
        padding: cfg.padding,
    };
    g.room("conv_transpose2d", xs.dtype())?;
    xs.contiguous()?.apply_op2(&weight.contiguous()?, Product { kind: Kind::ImageGradient, g, last: false })
}

/// The twin that [`conv2d`] is tested against: Candle's own convolution. It runs on any device.
///
/// # Shapes
/// The shapes are those of [`conv2d`].
/// # Errors
/// Returns the errors of [`conv2d`].
pub fn conv2d_reference(xs: &Tensor, weight: &Tensor, cfg: &ConvConfig) -> Result<Tensor> {
    conv2d_output(xs, weight, cfg)?;
    xs.conv2d(weight, cfg.padding, cfg.stride, 1, 1)
}

/// The twin that [`conv_transpose2d`] is tested against: Candle's own transposed convolution. It runs on any device.
///
/// # Shapes
/// The shapes are those of [`conv_transpose2d`].
/// # Errors
/// Returns the errors of [`conv_transpose2d`].
pub fn conv_transpose2d_reference(xs: &Tensor, weight: &Tensor, cfg: &ConvConfig) -> Result<Tensor> {
    conv_transpose2d_output(xs, weight, cfg)?;
    xs.conv_transpose2d(weight, cfg.padding, cfg.output_padding, cfg.stride, 1)
}

fn sizes_of(xs: &Tensor, weight: &Tensor, cfg: &ConvConfig, [oh, ow]: [usize; 2]) -> Result<Sizes> {
    let ((_, c_in, h, w), (c_out, _, kh, kw)) = (xs.dims4()?, weight.dims4()?);
    Ok(Sizes { c_in, h, w, c_out, oh, ow, kh, kw, stride: cfg.stride, padding: cfg.padding })
}

/// The sizes of a convolution, for the tests of the CUDA kernels.
#[cfg(test)]
pub(crate) fn sizes(xs: &Tensor, weight: &Tensor, cfg: &ConvConfig) -> Result<Sizes> {
    sizes_of(xs, weight, cfg, conv2d_output(xs, weight, cfg)?)
}

/// The rows and columns of [`conv2d`]'s output, if its operands fit and there is memory for it.
fn conv2d_output(xs: &Tensor, weight: &Tensor, cfg: &ConvConfig) -> Result<[usize; 2]> {
    let (m, c_in, h, w) = xs.dims4()?;
    let (oh, ow) = conv2d_map(&[c_in, h, w], weight, cfg)?;
    same_type("conv2d", &[("xs", xs), ("weight", weight)])?;
    room("conv2d", &[m, weight.dim(0)?, oh, ow], xs.dtype())?;
    Ok([oh, ow])
}

/// The rows and columns of [`conv_transpose2d`]'s output, if its operands fit and there is memory for it.
fn conv_transpose2d_output(xs: &Tensor, weight: &Tensor, cfg: &ConvConfig) -> Result<[usize; 2]> {
    let (m, c_in, h, w) = xs.dims4()?;
    let (oh, ow) = conv_transpose2d_map(&[c_in, h, w], weight, cfg)?;
    same_type("conv_transpose2d", &[("xs", xs), ("weight", weight)])?;
    room("conv_transpose2d", &[m, weight.dim(1)?, oh, ow], xs.dtype())?;
    Ok([oh, ow])
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Kind {
    /// `(image, kernel) -> map`
    Correlate,
    /// `(map, kernel) -> image`
    ImageGradient,
    /// `(image, map) -> kernel`
    KernelGradient,
}

/// One of the three products; the adjoints of each are the other two.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Product {
    pub(crate) kind: Kind,
    pub(crate) g: Sizes,
    /// Whether channels are the last axis of all three tensors, and not the second; on a GPU with cuDNN only.
    pub(crate) last: bool,
}

impl Product {
    fn run<F: Real>(
        &self,
        s1: &CpuStorage,
        l1: &Layout,
        s2: &CpuStorage,
        l2: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (a, b, g) = (operand::<F>(s1, l1)?, operand::<F>(s2, l2)?, &self.g);
        let values = match self.kind {
            Kind::Correlate => cpu::correlate(g, a, b),
            Kind::ImageGradient => cpu::image_gradient(g, a, b),
            Kind::KernelGradient => cpu::kernel_gradient(g, a, b),
        };
        Ok((F::storage(values), self.shape(l1.dims()[0]).into()))
    }

    /// The shape of the result, of so many images.
    fn shape(&self, images: usize) -> (usize, usize, usize, usize) {
        let g = &self.g;
        let (n, c, h, w) = match self.kind {
            Kind::Correlate => (images, g.c_out, g.oh, g.ow),
            Kind::ImageGradient => (images, g.c_in, g.h, g.w),
            Kind::KernelGradient => (g.c_out, g.c_in, g.kh, g.kw),
        };
        if self.last { (n, h, w, c) } else { (n, c, h, w) }
    }

    /// The product without a gradient.
    pub(crate) fn apply(&self, a: &Tensor, b: &Tensor) -> Result<Tensor> {
        a.contiguous()?.apply_op2_no_bwd(&b.contiguous()?, self)
    }

    /// The gradients of `a` and of the kernel, those that are wanted.
    pub(crate) fn gradients(
        &self,
        [a, kernel, grad]: [&Tensor; 3],
        (of_a, of_kernel): (bool, bool),
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let (input_kind, image, map) = match self.kind {
            Kind::Correlate => (Kind::ImageGradient, a, grad),
            Kind::ImageGradient => (Kind::Correlate, grad, a),
            Kind::KernelGradient => bail!("the kernel gradient is not differentiable"),
        };
        let other = |kind| Self { kind, ..*self };
        let input = of_a.then(|| other(input_kind).apply(grad, kernel)).transpose()?;
        let weight = of_kernel.then(|| other(Kind::KernelGradient).apply(image, map)).transpose()?;
        Ok((input, weight))
    }
}

impl CustomOp2 for Product {
    fn name(&self) -> &'static str {
        match self.kind {
            Kind::Correlate => "conv2d",
            Kind::ImageGradient => "conv_transpose2d",
            Kind::KernelGradient => "conv2d_kernel_gradient",
        }
    }

    fn cpu_fwd(
        &self,
        s1: &CpuStorage,
        l1: &Layout,
        s2: &CpuStorage,
        l2: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        by_dtype!(s1, self.name(), F => self.run::<F>(s1, l1, s2, l2))
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        s1: &CudaStorage,
        l1: &Layout,
        s2: &CudaStorage,
        l2: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        let made = by_element!(s1, self.name(), F => {
            cuda::run::product::<F>(self.kind, &self.g, self.last, (s1, l1), (s2, l2))?
        });
        Ok((made, self.shape(l1.dims()[0]).into()))
    }

    fn bwd(
        &self,
        a: &Tensor,
        kernel: &Tensor,
        _res: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        self.gradients([a, kernel, grad], (a.track_op(), kernel.track_op()))
    }
}
