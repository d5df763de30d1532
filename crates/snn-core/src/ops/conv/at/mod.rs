//! A convolution at some positions of its output only.

mod cpu;

use candle_core::{CpuStorage, CustomOp2, Layout, Result, Shape, Tensor, bail};

use super::conv2d;
use crate::ConvConfig;
use crate::geometry::{Axis, conv2d_map};
use crate::ops::backend::Backend;
use crate::ops::{Real, by_dtype, operand, room, same_type};

/// [`conv2d`] where only some positions of each item's output are needed, without gradient.
///
/// # Shapes
/// `xs: [N, C_in, H, W]`, `weight: [C_out, C_in, kh, kw]`, and in `positions[n]` the positions of item `n`, counted row by
/// row -> `[all positions, C_out]`, item by item. An item's values do not depend on the other items.
/// # Errors
/// Returns the errors of [`conv2d`], and an error if there is not one list of positions for each item or a position lies
/// outside the output.
/// # Examples
/// ```
/// # use candle_core::{DType, Device, Tensor};
/// # use snn_core::{ConvConfig, conv2d_at};
/// # fn main() -> candle_core::Result<()> {
/// let xs = Tensor::ones((2, 1, 4, 4), DType::F32, &Device::Cpu)?;
/// let weight = Tensor::ones((1, 1, 3, 3), DType::F32, &Device::Cpu)?;
/// let ys = conv2d_at(&xs, &weight, &ConvConfig::new(3, 1, 1), &[vec![0, 5], vec![]])?; // a corner, an inner position
/// assert_eq!(ys.to_vec2::<f32>()?, [[4.], [9.]]);
/// # Ok(()) }
/// ```
pub fn conv2d_at(xs: &Tensor, weight: &Tensor, cfg: &ConvConfig, positions: &[Vec<u32>]) -> Result<Tensor> {
    let ((n, c_in, h, w), (c_out, _, kh, kw)) = (xs.dims4()?, weight.dims4()?);
    let (oh, ow) = conv2d_map(&[c_in, h, w], weight, cfg)?;
    same_type("conv2d_at", &[("xs", xs), ("weight", weight)])?;
    let (xs, weight) = (xs.detach(), weight.detach());
    if Backend::of(&xs) != Backend::Cpu {
        return select(&conv2d(&xs, &weight, cfg)?, positions);
    }
    check(positions, n, oh, ow)?;
    let rows = positions.iter().map(Vec::len).sum();
    room("conv2d_at", &[rows, c_out.max(c_in * kh * kw)], xs.dtype())?;
    let axis = |image, map, kernel| Axis { image, map, kernel, stride: cfg.stride, padding: cfg.padding };
    let op = At { axes: [axis(h, oh, kh), axis(w, ow, kw)], positions };
    xs.contiguous()?.apply_op2_no_bwd(&weight.contiguous()?, &op)
}

/// Picks the channels at these positions of maps `[N, C, H, W]`, or of features `[N, C]`, which have one position ->
/// `[all positions, C]`, item by item.
pub(crate) fn select(ys: &Tensor, positions: &[Vec<u32>]) -> Result<Tensor> {
    let (n, c, map) = (ys.dim(0)?, ys.dim(1)?, ys.dims()[2..].iter().product::<usize>());
    check(positions, n, map, 1)?;
    let rows = ys.reshape((n, c, map))?.transpose(1, 2)?.contiguous()?.reshape((n * map, c))?;
    let place = |(item, at): (usize, &Vec<u32>)| {
        at.iter().map(move |&p| (item * map + p as usize) as i64).collect::<Vec<_>>()
    };
    let places: Vec<i64> = positions.iter().enumerate().flat_map(place).collect();
    rows.index_select(&Tensor::new(places, ys.device())?, 0)
}

/// Checks that there is one list for each item, of positions inside a map of these rows and columns.
pub(crate) fn check(positions: &[Vec<u32>], items: usize, rows: usize, columns: usize) -> Result<()> {
    if positions.len() != items {
        bail!("positions of {} items for {items}", positions.len())
    }
    // A map of more positions than can be counted has all of these.
    let map = rows.saturating_mul(columns);
    match positions.iter().flatten().find(|&&p| p as usize >= map) {
        Some(p) => bail!("position {p} of a map of {map}"),
        None => Ok(()),
    }
}

struct At<'a> {
    /// Rows and columns.
    axes: [Axis; 2],
    positions: &'a [Vec<u32>],
}

impl CustomOp2 for At<'_> {
    fn name(&self) -> &'static str {
        "conv2d_at"
    }

    fn cpu_fwd(
        &self,
        s1: &CpuStorage,
        l1: &Layout,
        s2: &CpuStorage,
        l2: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (c_out, rows) = (l2.dims()[0], self.positions.iter().map(Vec::len).sum::<usize>());
        let ys = by_dtype!(s1, "conv2d_at", F => {
            F::storage(self.forward::<F>(operand(s1, l1)?, operand(s2, l2)?, (c_out, rows)))
        });
        Ok((ys, (rows, c_out).into()))
    }
}

#[cfg(test)]
mod tests {
    use candle_core::DType;

    use super::*;
    use crate::ops::testing::{assert_identical, assert_relative, check_threads, random};

    #[test]
    fn equals_the_whole_convolution() -> Result<()> {
        for (kernel, stride, padding, (h, w)) in
            [(3, 1, 1, (7, 7)), (3, 2, 1, (8, 5)), (1, 2, 1, (4, 4)), (5, 1, 0, (6, 7))]
        {
            for (dtype, bound) in [(DType::F64, 1e-13), (DType::F32, 1e-5)] {
                let (xs, weight) =
                    (random("xs", &[3, 6, h, w], dtype)?, random("w", &[9, 6, kernel, kernel], dtype)?);
                let cfg = ConvConfig::new(kernel, stride, padding);
                let all = conv2d(&xs, &weight, &cfg)?;
                let last = (all.dim(2)? * all.dim(3)? - 1) as u32;
                let positions = [vec![0, last, last / 2], vec![], vec![last]];
                let some = conv2d_at(&xs, &weight, &cfg, &positions)?;
                assert_relative("at", &some, &select(&all, &positions)?, bound);
                // An item's values do not depend on the others.
                let alone = conv2d_at(&xs.narrow(0, 2, 1)?, &weight, &cfg, &positions[2..])?;
                assert_identical("alone", &alone, &some.narrow(0, 3, 1)?);
            }
        }
        Ok(())
    }

    #[test]
    fn threads_do_not_matter() -> Result<()> {
        let (xs, weight) =
            (random("xs", &[8, 16, 7, 7], DType::F32)?, random("w", &[32, 16, 3, 3], DType::F32)?);
        let positions: Vec<Vec<u32>> = (0..8).map(|n| (0..n).collect()).collect();
        check_threads(|| Ok(vec![conv2d_at(&xs, &weight, &ConvConfig::new(3, 1, 1), &positions)?]))
    }

    #[test]
    fn unfit_positions_are_errors() -> Result<()> {
        let (xs, weight) =
            (random("xs", &[2, 1, 3, 3], DType::F32)?, random("w", &[1, 1, 3, 3], DType::F32)?);
        let at = |positions: &[Vec<u32>]| conv2d_at(&xs, &weight, &ConvConfig::new(3, 1, 1), positions);
        assert!(at(&[vec![0]]).is_err(), "one list for two items");
        assert!(at(&[vec![9], vec![]]).is_err(), "outside");
        assert_eq!(at(&[vec![], vec![]])?.dims(), [0, 1]);
        Ok(())
    }
}
