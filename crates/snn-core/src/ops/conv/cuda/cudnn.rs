//! The three products of a convolution by cuDNN, on `[M, C, H, W]`.
#![allow(unsafe_code)] // cuDNN is a C library.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;

use candle_core::backend::BackendStorage;
use candle_core::cuda_backend::cudarc::cudnn::safe::{
    ConvBackwardData, ConvBackwardFilter, ConvForward, Cudnn,
};
use candle_core::cuda_backend::cudarc::cudnn::{CudnnDataType, sys};
use candle_core::cuda_backend::cudarc::driver::{CudaSlice, CudaView, DeviceRepr};
use candle_core::cuda_backend::{CudaDType, DeviceId, gemm_reduced_precision_f32};
use candle_core::{CudaDevice, CudaStorage, DType, Layout, Result, WithDType};
use half::bf16;

use crate::ops::conv::Kind;
use crate::ops::conv::cpu::Sizes;
use crate::ops::cuda::gpu::{Element, elements, uninitialised};
use crate::ops::precision::Precision;

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

/// One of the products, in the precision in use; none where there are no images, which cuDNN refuses.
pub(super) fn product<F: Element>(
    kind: Kind,
    g: &Sizes,
    (a, l1): (&CudaStorage, &Layout),
    (b, l2): (&CudaStorage, &Layout),
) -> Result<Option<CudaStorage>> {
    let (device, images) = (a.device(), l1.dims()[0]);
    if images == 0 {
        return Ok(None);
    }
    if F::DTYPE != DType::F32 || Precision::in_use() != Precision::Bf16 {
        return run::<F, F>(kind, g, device, images, &elements(a, l1)?, &elements(b, l2)?).map(Some);
    }
    let rounded = |operand: &CudaStorage, layout| operand.to_dtype(layout, DType::BF16);
    let (a, b) = (rounded(a, l1)?, rounded(b, l2)?);
    let [l1, l2] = [l1, l2].map(|layout| Layout::contiguous(layout.shape()));
    let made = run::<bf16, f32>(kind, g, device, images, &elements(&a, &l1)?, &elements(&b, &l2)?)?;
    let elements = made.as_cuda_slice::<bf16>()?.len();
    made.to_dtype(&Layout::contiguous(elements), DType::F32).map(Some)
}

/// The product of operands and a result of type `T`, with sums of type `S`.
fn run<T: CudaDType + WithDType + CudnnDataType + DeviceRepr, S: CudnnDataType>(
    kind: Kind,
    g: &Sizes,
    device: &CudaDevice,
    images: usize,
    a: &CudaView<'_, T>,
    b: &CudaView<'_, T>,
) -> Result<CudaStorage> {
    let cudnn = handle(device)?;
    let [m, c_in, h, w, c_out, oh, ow, kh, kw] =
        [images, g.c_in, g.h, g.w, g.c_out, g.oh, g.ow, g.kh, g.kw].map(|n| n as i32);
    let (padding, stride) = (g.padding as i32, g.stride as i32);
    let cross = sys::cudnnConvolutionMode_t::CUDNN_CROSS_CORRELATION;
    let mut conv = cudnn.create_conv2d::<S>([padding; 2], [stride; 2], [1; 2], cross)?;
    // Without this, single precision is computed with mantissas of 11 bits.
    conv.set_math_type(if gemm_reduced_precision_f32() {
        sys::cudnnMathType_t::CUDNN_DEFAULT_MATH
    } else {
        sys::cudnnMathType_t::CUDNN_FMA_MATH
    })?;
    let format = sys::cudnnTensorFormat_t::CUDNN_TENSOR_NCHW;
    let image = cudnn.create_4d_tensor::<T>(format, [m, c_in, h, w])?;
    let map = cudnn.create_4d_tensor::<T>(format, [m, c_out, oh, ow])?;
    let kernel = cudnn.create_4d_filter::<T>(format, [c_out, c_in, kh, kw])?;
    let scale = (T::from_f64(1.), T::from_f64(0.));
    let made = match kind {
        Kind::Correlate => images * g.map_len(),
        Kind::ImageGradient => images * g.image_len(),
        Kind::KernelGradient => g.c_out * g.taps(),
    };
    let mut made = uninitialised::<T>(device, made)?;
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
    Ok(T::wrap_cuda_slice(made, device.clone()))
}
