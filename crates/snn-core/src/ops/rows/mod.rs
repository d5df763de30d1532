//! Rows of a matrix, picked by number, and what becomes of their gradients.
//!
//! Candle adds the gradients of picked rows one after the other, on a GPU in few threads: with codes of a batch of 256 images that took a
//! third of a training step. There they are a product here, or rows that are picked back.

#[cfg(test)]
mod tests;

#[cfg(feature = "cuda")]
use candle_core::CudaStorage;
use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CustomOp2, DType, Layout, Result, Shape, Tensor, bail};

use super::backend::Backend;

/// Elements of the ones and zeros of a product, which are 8 bytes each.
const BLOCK: usize = 1 << 24;

/// Looks vectors up, as `torch.nn.functional.embedding` does: `y[m] = table[indices[m]]`, differentiable in the table.
///
/// On a GPU the gradients of a vector that is looked up several times are added in double precision, as a product with a matrix of ones and
/// zeros: `2 K M C` operations, and 128 MiB for a part of that matrix.
///
/// # Shapes
/// `table: [K, C]`, `indices: u32 [M]`, below `K` -> `[M, C]`.
/// # Errors
/// Returns an error if the shapes or the type of the indices do not fit; on the CPU also if an index is `K` or more, which on a GPU
/// nobody looks at: what is read there is undefined.
/// # Examples
/// ```
/// # use candle_core::{Device, Tensor};
/// # fn main() -> candle_core::Result<()> {
/// let table = Tensor::new(&[[1f32, 2.], [3., 4.]], &Device::Cpu)?;
/// let ys = snn_core::embedding(&table, &Tensor::new(&[1u32, 1, 0], &Device::Cpu)?)?;
/// assert_eq!(ys.to_vec2::<f32>()?, [[3., 4.], [3., 4.], [1., 2.]]);
/// # Ok(()) }
/// ```
pub fn embedding(table: &Tensor, indices: &Tensor) -> Result<Tensor> {
    check(table, indices)?;
    if Backend::of(table) != Backend::Cuda {
        // Candle takes the largest number for "none", and has a row of zeros for it.
        if indices.to_vec1::<u32>()?.contains(&u32::MAX) {
            bail!("embedding: index {} of a table of {} vectors", u32::MAX, table.dim(0)?)
        }
        return table.contiguous()?.index_select(&indices.contiguous()?, 0)?.contiguous();
    }
    table.contiguous()?.apply_op2(&indices.contiguous()?, Pick { back: None })
}

/// Picks rows, `y[i] = xs[places[i]]`, of `xs: [M, C]`; differentiable. On a GPU it is fastest backward where no row is picked twice.
pub(crate) fn pick_rows(xs: &Tensor, places: &[u32]) -> Result<Tensor> {
    let rows = xs.dims2()?.0;
    if let Some(place) = places.iter().find(|&&place| place as usize >= rows) {
        bail!("pick_rows: row {place} of {rows}")
    }
    let numbers = Tensor::new(places, xs.device())?;
    if Backend::of(xs) != Backend::Cuda || places.is_empty() {
        return xs.index_select(&numbers, 0)?.contiguous();
    }
    xs.contiguous()?.apply_op2(&numbers, Pick { back: places_back(places, rows) })
}

fn check(table: &Tensor, indices: &Tensor) -> Result<()> {
    if table.rank() == 2 && indices.rank() == 1 && indices.dtype() == DType::U32 {
        return Ok(());
    }
    bail!(
        "embedding: table {:?} and indices {:?} {:?}, wants [K, C] and u32 [M]",
        table.dims(),
        indices.dtype(),
        indices.dims()
    )
}

/// Of each of so many rows, its number among those picked, or the number of those; none where a row is picked twice.
fn places_back(places: &[u32], rows: usize) -> Option<Vec<u32>> {
    let nowhere = places.len() as u32;
    let mut back = vec![nowhere; rows];
    for (i, &place) in places.iter().enumerate() {
        let row = &mut back[place as usize];
        if std::mem::replace(row, i as u32) != nowhere {
            return None;
        }
    }
    Some(back)
}

/// `(rows, indices) -> ys`
struct Pick {
    /// See [`places_back`]: where each row is picked once at most.
    back: Option<Vec<u32>>,
}

impl CustomOp2 for Pick {
    fn name(&self) -> &'static str {
        "pick_rows"
    }

    fn cpu_fwd(
        &self,
        xs: &CpuStorage,
        l1: &Layout,
        indices: &CpuStorage,
        l2: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        Ok((xs.index_select(indices, l1, l2, 0)?, shape(l1, l2)))
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        xs: &CudaStorage,
        l1: &Layout,
        indices: &CudaStorage,
        l2: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        Ok((xs.index_select(indices, l1, l2, 0)?, shape(l1, l2)))
    }

    fn bwd(
        &self,
        xs: &Tensor,
        indices: &Tensor,
        _ys: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let grad = grad.detach();
        let of_rows = match &self.back {
            Some(back) => put_back(&grad, back)?,
            None => sums_by_index(&grad, indices, xs.dim(0)?)?,
        };
        Ok((Some(of_rows), None))
    }
}

fn shape(rows: &Layout, indices: &Layout) -> Shape {
    (indices.dims()[0], rows.dims()[1]).into()
}

/// The rows where they were, and zeros elsewhere.
fn put_back(rows: &Tensor, back: &[u32]) -> Result<Tensor> {
    let none = Tensor::zeros((1, rows.dim(1)?), rows.dtype(), rows.device())?;
    Tensor::cat(&[rows, &none], 0)?.index_select(&Tensor::new(back, rows.device())?, 0)
}

/// The sum of the rows of each index, as a product with ones and zeros in double precision, which no setting rounds.
fn sums_by_index(rows: &Tensor, indices: &Tensor, number: usize) -> Result<Tensor> {
    let (m, c) = rows.dims2()?;
    let numbers = Tensor::arange(0, number as u32, rows.device())?.unsqueeze(1)?;
    let mut sum = Tensor::zeros((number, c), DType::F64, rows.device())?;
    let block = (BLOCK / number.max(1)).max(1);
    for from in (0..m).step_by(block) {
        let n = block.min(m - from);
        let ones = numbers.broadcast_eq(&indices.narrow(0, from, n)?.unsqueeze(0)?)?.to_dtype(DType::F64)?;
        sum = (sum + ones.matmul(&rows.narrow(0, from, n)?.to_dtype(DType::F64)?)?)?;
    }
    sum.to_dtype(rows.dtype())
}
