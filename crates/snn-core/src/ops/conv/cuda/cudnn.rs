//! The three products of a convolution by cuDNN, on `[M, C, H, W]`.
#![allow(unsafe_code)] // cuDNN is a C library.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;

use candle_core::cuda_backend::cudarc::cudnn::safe::{
    ConvBackwardData, ConvBackwardFilter, ConvForward, Cudnn,
};
use candle_core::cuda_backend::cudarc::cudnn::{CudnnDataType, sys};
use candle_core::cuda_backend::cudarc::driver::{CudaSlice, CudaView};
use candle_core::cuda_backend::{DeviceId, gemm_reduced_precision_f32};
use candle_core::{CudaDevice, CudaStorage, Result};

use crate::ops::conv::Kind;
use crate::ops::conv::cpu::Sizes;
use crate::ops::cuda::gpu::{Element, uninitialised};

thread_local! {
    // Handles can be neither sent nor shared.
    static HANDLES: RefCell<HashMap<DeviceId, Arc<Cudnn>>> = RefCell::default();
}

fn handle(device: &CudaDevice) -> Result<Arc<Cudnn>> {
    HANDLES.with_borrow_mut(|handles| match handles.get(&device.id()) {
        Some(handle) => Ok(handle.clone()),
        None => {
            let handle = Cudnn::new(device.cuda_stream())?;
            handles.insert(device.id(), handle.clone());
            Ok(handle)
        }
    })
}

/// One of the products; none where there are no images, which cuDNN refuses.
pub(super) fn product<F: Element + CudnnDataType>(
    kind: Kind,
    g: &Sizes,
    device: &CudaDevice,
    images: usize,
    a: &CudaView<'_, F>,
    b: &CudaView<'_, F>,
) -> Result<Option<CudaStorage>> {
    if images == 0 {
        return Ok(None);
    }
    let cudnn = handle(device)?;
    let [m, c_in, h, w, c_out, oh, ow, kh, kw] =
        [images, g.c_in, g.h, g.w, g.c_out, g.oh, g.ow, g.kh, g.kw].map(|n| n as i32);
    let (padding, stride) = (g.padding as i32, g.stride as i32);
    let cross = sys::cudnnConvolutionMode_t::CUDNN_CROSS_CORRELATION;
    let mut conv = cudnn.create_conv2d::<F>([padding; 2], [stride; 2], [1; 2], cross)?;
    // Without this, single precision is computed with mantissas of 10 bits.
    conv.set_math_type(if gemm_reduced_precision_f32() {
        sys::cudnnMathType_t::CUDNN_DEFAULT_MATH
    } else {
        sys::cudnnMathType_t::CUDNN_FMA_MATH
    })?;
    let format = sys::cudnnTensorFormat_t::CUDNN_TENSOR_NCHW;
    let image = cudnn.create_4d_tensor::<F>(format, [m, c_in, h, w])?;
    let map = cudnn.create_4d_tensor::<F>(format, [m, c_out, oh, ow])?;
    let kernel = cudnn.create_4d_filter::<F>(format, [c_out, c_in, kh, kw])?;
    let scale = (F::from_f64(1.), F::from_f64(0.));
    let made = match kind {
        Kind::Correlate => images * g.map_len(),
        Kind::ImageGradient => images * g.image_len(),
        Kind::KernelGradient => g.c_out * g.taps(),
    };
    let mut made = uninitialised::<F>(device, made)?;
    macro_rules! launch {
        ($op:expr, $a:expr, $b:expr, $c:expr) => {{
            let op = $op;
            let algorithm = op.pick_algorithm()?;
            let mut workspace: CudaSlice<u8> = uninitialised(device, op.get_workspace_size(algorithm)?)?;
            // SAFETY: operands and result are as large as their descriptors say: the same sizes made both.
            unsafe { op.launch(algorithm, Some(&mut workspace), scale, $a, $b, $c)? }
        }};
    }
    let (conv, image, map, kernel) = (&conv, &image, &map, &kernel);
    match kind {
        Kind::Correlate => launch!(ConvForward { conv, x: image, w: kernel, y: map }, a, b, &mut made),
        Kind::ImageGradient => {
            launch!(ConvBackwardData { conv, dx: image, w: kernel, dy: map }, &mut made, b, a)
        }
        Kind::KernelGradient => {
            launch!(ConvBackwardFilter { conv, x: image, dw: kernel, dy: map }, a, &mut made, b)
        }
    }
    Ok(Some(F::wrap_cuda_slice(made, device.clone())))
}
