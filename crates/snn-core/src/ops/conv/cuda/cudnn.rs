//! The three products of a convolution by cuDNN, on `[M, C, H, W]` or with channels as the last axis.
#![allow(unsafe_code)] // cuDNN is a C library.

use std::cell::RefCell;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
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

/// What a product is: its kind, images and sizes, and how it goes about: padding, stride, the bytes of an element, whether products may
/// be rounded, and whether channels are last.
type Key = (i32, [i32; 9], [i32; 5]);

/// How cuDNN computes products, with the bytes that it needs for that.
type Chosen<A> = HashMap<Key, (A, usize)>;

/// A handle, and what has been asked of it: to choose takes longer than to launch.
struct Handle {
    cudnn: Arc<Cudnn>,
    forward: Chosen<sys::cudnnConvolutionFwdAlgo_t>,
    image: Chosen<sys::cudnnConvolutionBwdDataAlgo_t>,
    kernel: Chosen<sys::cudnnConvolutionBwdFilterAlgo_t>,
}

thread_local! {
    // Handles can be neither sent nor shared.
    static HANDLES: RefCell<HashMap<DeviceId, Handle>> = RefCell::default();
}

fn with_handle<R>(device: &CudaDevice, then: impl FnOnce(&mut Handle) -> Result<R>) -> Result<R> {
    HANDLES.with_borrow_mut(|handles| match handles.entry(device.id()) {
        Entry::Occupied(entry) => then(entry.into_mut()),
        Entry::Vacant(entry) => then(entry.insert(Handle {
            cudnn: Cudnn::new(device.cuda_stream())?,
            forward: HashMap::new(),
            image: HashMap::new(),
            kernel: HashMap::new(),
        })),
    })
}

/// One of the products, in the precision in use; none where there are no images, which cuDNN refuses.
pub(super) fn product<F: Element>(
    kind: Kind,
    g: &Sizes,
    last: bool,
    (a, l1): (&CudaStorage, &Layout),
    (b, l2): (&CudaStorage, &Layout),
) -> Result<Option<CudaStorage>> {
    let (device, images) = (a.device(), l1.dims()[0]);
    if images == 0 {
        return Ok(None);
    }
    let job = Job { kind, g, images, last };
    if F::DTYPE != DType::F32 || Precision::in_use() != Precision::Bf16 {
        let (a, b) = (elements(a, l1)?, elements(b, l2)?);
        return with_handle(device, |handle| run::<F, F>(handle, &job, device, &a, &b)).map(Some);
    }
    let rounded = |operand: &CudaStorage, layout| operand.to_dtype(layout, DType::BF16);
    let (a, b) = (rounded(a, l1)?, rounded(b, l2)?);
    let [l1, l2] = [l1, l2].map(|layout| Layout::contiguous(layout.shape()));
    let (a, b) = (elements(&a, &l1)?, elements(&b, &l2)?);
    let made = with_handle(device, |handle| run::<bf16, f32>(handle, &job, device, &a, &b))?;
    let elements = made.as_cuda_slice::<bf16>()?.len();
    made.to_dtype(&Layout::contiguous(elements), DType::F32).map(Some)
}

/// What is to be computed: of so many images, with channels as the last axis or the second.
struct Job<'a> {
    kind: Kind,
    g: &'a Sizes,
    images: usize,
    last: bool,
}

/// The product of operands and a result of type `T`, with sums of type `S`.
fn run<T: CudaDType + WithDType + CudnnDataType + DeviceRepr, S: CudnnDataType>(
    handle: &mut Handle,
    &Job { kind, g, images, last }: &Job<'_>,
    device: &CudaDevice,
    a: &CudaView<'_, T>,
    b: &CudaView<'_, T>,
) -> Result<CudaStorage> {
    let cudnn = &handle.cudnn;
    let [m, c_in, h, w, c_out, oh, ow, kh, kw] =
        [images, g.c_in, g.h, g.w, g.c_out, g.oh, g.ow, g.kh, g.kw].map(|n| n as i32);
    let (padding, stride) = (g.padding as i32, g.stride as i32);
    let cross = sys::cudnnConvolutionMode_t::CUDNN_CROSS_CORRELATION;
    let mut conv = cudnn.create_conv2d::<S>([padding; 2], [stride; 2], [1; 2], cross)?;
    let reduced = gemm_reduced_precision_f32();
    conv.set_math_type(match T::DTYPE {
        DType::BF16 => sys::cudnnMathType_t::CUDNN_TENSOR_OP_MATH,
        _ if reduced => sys::cudnnMathType_t::CUDNN_DEFAULT_MATH,
        // Else single precision is computed with mantissas of 11 bits.
        _ => sys::cudnnMathType_t::CUDNN_FMA_MATH,
    })?;
    let format = match last {
        true => sys::cudnnTensorFormat_t::CUDNN_TENSOR_NHWC,
        false => sys::cudnnTensorFormat_t::CUDNN_TENSOR_NCHW,
    };
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
    let how = [padding, stride, size_of::<T>() as i32, i32::from(reduced), i32::from(last)];
    let key: Key = (kind as i32, [m, c_in, h, w, c_out, oh, ow, kh, kw], how);
    macro_rules! launch {
        ($op:expr, $chosen:ident, $repeats:expr, $a:expr, $b:expr, $c:expr) => {{
            let op = $op;
            let (algorithm, bytes) = match handle.$chosen.entry(key) {
                Entry::Occupied(entry) => *entry.get(),
                Entry::Vacant(entry) => {
                    let picked = op.pick_algorithm()?;
                    // Where that is none for this product, what was picked.
                    let steady = $repeats(picked);
                    let chosen = match op.get_workspace_size(steady) {
                        Ok(bytes) => (steady, bytes),
                        Err(_) => (picked, op.get_workspace_size(picked)?),
                    };
                    *entry.insert(chosen)
                }
            };
            let mut workspace: CudaSlice<u8> = uninitialised(device, bytes)?;
            // SAFETY: operands and result are as large as their descriptors say: the same sizes made both.
            unsafe { op.launch(algorithm, Some(&mut workspace), scale, $a, $b, $c)? }
        }};
    }
    let (conv, image, map, kernel) = (&conv, &image, &map, &kernel);
    match kind {
        Kind::Correlate => {
            launch!(ConvForward { conv, x: image, w: kernel, y: map }, forward, |a| a, a, b, &mut made)
        }
        Kind::ImageGradient => {
            let op = ConvBackwardData { conv, dx: image, w: kernel, dy: map };
            launch!(op, image, repeatable_image, &mut made, b, a)
        }
        Kind::KernelGradient => {
            let op = ConvBackwardFilter { conv, x: image, dw: kernel, dy: map };
            launch!(op, kernel, repeatable_kernel, a, &mut made, b)
        }
    }
    Ok(T::wrap_cuda_slice(made, device.clone()))
}

/// The algorithm, or where it adds in whatever order its blocks end, one that adds in the same order each time.
fn repeatable_image(algorithm: sys::cudnnConvolutionBwdDataAlgo_t) -> sys::cudnnConvolutionBwdDataAlgo_t {
    use sys::cudnnConvolutionBwdDataAlgo_t as Algorithm;
    match algorithm {
        Algorithm::CUDNN_CONVOLUTION_BWD_DATA_ALGO_0 => Algorithm::CUDNN_CONVOLUTION_BWD_DATA_ALGO_1,
        other => other,
    }
}

/// As [`repeatable_image`].
fn repeatable_kernel(
    algorithm: sys::cudnnConvolutionBwdFilterAlgo_t,
) -> sys::cudnnConvolutionBwdFilterAlgo_t {
    use sys::cudnnConvolutionBwdFilterAlgo_t as Algorithm;
    match algorithm {
        Algorithm::CUDNN_CONVOLUTION_BWD_FILTER_ALGO_0 | Algorithm::CUDNN_CONVOLUTION_BWD_FILTER_ALGO_3 => {
            Algorithm::CUDNN_CONVOLUTION_BWD_FILTER_ALGO_1
        }
        other => other,
    }
}
