//! The three products of a convolution on a GPU: columns by our kernels, matrix products by cuBLAS.

use candle_core::backend::BackendStorage;
use candle_core::cuda_backend::cudarc::driver::CudaView;
use candle_core::{CudaDevice, CudaStorage, Layout, Result, bail};

use super::add;
use crate::ops::conv::Kind;
use crate::ops::conv::cpu::Sizes;
use crate::ops::cuda::gpu::{Call, Element, elements, uninitialised};

/// Bytes of the columns, or of the map, of a block of images, where an image has no more.
const COLUMNS: usize = 256 << 20;

/// Images that a launch works on.
fn images_a_launch<F: Element>(g: &Sizes) -> usize {
    let image = g.taps().max(g.c_out) * g.positions() * F::DTYPE.size_in_bytes();
    (COLUMNS / image.max(1)).max(1)
}

/// One of the products: its operands are those of [`Kind`].
pub(in crate::ops::conv) fn product<F: Element>(
    kind: Kind,
    g: &Sizes,
    last: bool,
    (a, l1): (&CudaStorage, &Layout),
    (b, l2): (&CudaStorage, &Layout),
) -> Result<CudaStorage> {
    #[cfg(feature = "cudnn")]
    if let Some(made) = super::cudnn::product::<F>(kind, g, last, (a, l1), (b, l2))? {
        return Ok(made);
    }
    if last {
        bail!("conv2d: with channels as the last axis it wants cuDNN, and images")
    }
    let (device, images) = (a.device(), l1.dims()[0]);
    let blocks = Blocks { g, device, images, a: elements::<F>(a, l1)?, b: elements::<F>(b, l2)? };
    match kind {
        Kind::Correlate => blocks.correlate((b, l2)),
        Kind::ImageGradient => blocks.image_gradient((b, l2)),
        Kind::KernelGradient => blocks.kernel_gradient(),
    }
}

struct Blocks<'a, F> {
    g: &'a Sizes,
    device: &'a CudaDevice,
    images: usize,
    a: CudaView<'a, F>,
    b: CudaView<'a, F>,
}

impl<F: Element> Blocks<'_, F> {
    /// First image and number of each block.
    fn each(&self) -> impl Iterator<Item = (usize, usize)> + use<F> {
        let (images, block) = (self.images, images_a_launch::<F>(self.g));
        (0..images).step_by(block).map(move |from| (from, block.min(images - from)))
    }

    fn columns(&self, images: &CudaView<'_, F>, (from, n): (usize, usize)) -> Result<CudaStorage> {
        let size = self.g.image_len();
        let call = Call::new(self.device, self.g.columns_of_image::<F>(n)?)
            .view(&images.slice(from * size..(from + n) * size))?;
        call.fill::<F>(self.g.columns(n))
    }

    /// `[O, M, positions]` of the maps of a block.
    fn gathered(&self, maps: &CudaView<'_, F>, (from, n): (usize, usize)) -> Result<CudaStorage> {
        let size = self.g.map_len();
        let call = Call::new(self.device, self.g.exchange::<F>(n, false)?)
            .view(&maps.slice(from * size..(from + n) * size))?;
        call.fill::<F>(n * size)
    }

    fn correlate(&self, (kernel, layout): (&CudaStorage, &Layout)) -> Result<CudaStorage> {
        let g = self.g;
        let mut maps = uninitialised::<F>(self.device, self.images * g.map_len())?;
        let kernel_l = matrix(g.c_out, g.taps(), layout.start_offset());
        for (from, n) in self.each() {
            let (columns, width) = (self.columns(&self.a, (from, n))?, n * g.positions());
            let sizes = (1, g.c_out, width, g.taps());
            let product = kernel.matmul(&columns, sizes, &kernel_l, &matrix(g.taps(), width, 0))?;
            let call = Call::new(self.device, g.exchange::<F>(n, true)?);
            let call = call.view(&product.as_cuda_slice::<F>()?.slice(..n * g.map_len()))?;
            call.write(&mut maps.slice_mut(from * g.map_len()..(from + n) * g.map_len()))?.run()?;
        }
        Ok(F::wrap_cuda_slice(maps, self.device.clone()))
    }

    fn image_gradient(&self, (kernel, layout): (&CudaStorage, &Layout)) -> Result<CudaStorage> {
        let g = self.g;
        let mut images = uninitialised::<F>(self.device, self.images * g.image_len())?;
        let kernel_l = matrix(g.c_out, g.taps(), layout.start_offset()).transpose(0, 1)?;
        for (from, n) in self.each() {
            let (gathered, width) = (self.gathered(&self.a, (from, n))?, n * g.positions());
            let sizes = (1, g.taps(), width, g.c_out);
            let columns = kernel.matmul(&gathered, sizes, &kernel_l, &matrix(g.c_out, width, 0))?;
            let call = Call::new(self.device, g.image_of_columns::<F>(n)?);
            let call = call.view(&columns.as_cuda_slice::<F>()?.slice(..g.columns(n)))?;
            call.write(&mut images.slice_mut(from * g.image_len()..(from + n) * g.image_len()))?.run()?;
        }
        Ok(F::wrap_cuda_slice(images, self.device.clone()))
    }

    fn kernel_gradient(&self) -> Result<CudaStorage> {
        let g = self.g;
        let elements = g.c_out * g.taps();
        let mut sum: Option<CudaStorage> = None;
        for (from, n) in self.each() {
            let (columns, gathered) = (self.columns(&self.a, (from, n))?, self.gathered(&self.b, (from, n))?);
            let width = n * g.positions();
            let turned = matrix(g.taps(), width, 0).transpose(0, 1)?;
            let sizes = (1, g.c_out, g.taps(), width);
            let part = gathered.matmul(&columns, sizes, &matrix(g.c_out, width, 0), &turned)?;
            sum = Some(match sum {
                None => part,
                Some(mut sum) => {
                    let mut into = sum.as_cuda_slice_mut::<F>()?.slice_mut(..elements);
                    let call = Call::new(self.device, add::<F>(elements)?).write(&mut into)?;
                    call.view(&part.as_cuda_slice::<F>()?.slice(..elements))?.run()?;
                    sum
                }
            });
        }
        match sum {
            Some(sum) => Ok(sum),
            // No images.
            None => Ok(F::wrap_cuda_slice(self.device.alloc_zeros::<F>(elements)?, self.device.clone())),
        }
    }
}

/// A matrix, row by row.
fn matrix(rows: usize, columns: usize, offset: usize) -> Layout {
    Layout::contiguous_with_offset((rows, columns), offset)
}
