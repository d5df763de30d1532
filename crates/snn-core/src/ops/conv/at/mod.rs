//! A convolution at some positions of its output only.

mod cpu;

use std::sync::Arc;

use candle_core::{CpuStorage, CustomOp2, Error, Layout, Result, Shape, Tensor, bail};

use super::{Kind, conv2d};
use crate::ConvConfig;
use crate::geometry::{Axis, conv2d_map};
use crate::ops::backend::Backend;
use crate::ops::rows::pick_rows;
use crate::ops::{Real, by_dtype, operand, room, same_type};

/// [`conv2d`] where only some positions of each item's output are needed, differentiable in both arguments.
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
    if Backend::of(xs) != Backend::Cpu {
        return pick_positions(&conv2d(xs, weight, cfg)?, positions);
    }
    check(positions, n, oh, ow)?;
    let rows = positions.iter().map(Vec::len).sum();
    room("conv2d_at", &[rows, c_out.max(c_in * kh * kw)], xs.dtype())?;
    let axis = |image, map, kernel| Axis { image, map, kernel, stride: cfg.stride, padding: cfg.padding };
    let (axes, channels) = ([axis(h, oh, kh), axis(w, ow, kw)], [c_in, c_out]);
    let op = At { kind: Kind::Correlate, axes, channels, positions: positions.into() };
    xs.contiguous()?.apply_op2(&weight.contiguous()?, op)
}

/// Picks the channels at some positions of each item's map, differentiable.
///
/// # Shapes
/// `ys: [N, C, H, W]`, or features `[N, C]`, which have one position, and in `positions[n]` the positions of item `n`, counted row by
/// row -> `[all positions, C]`, item by item.
/// # Errors
/// Returns an error if there is not one list of positions for each item, if a position lies outside the map, or if there are more
/// positions than 32 bits count.
/// # Examples
/// ```
/// # use candle_core::{Device, Tensor};
/// # fn main() -> candle_core::Result<()> {
/// let maps = Tensor::new(&[[[[1f32, 2.]], [[3., 4.]]]], &Device::Cpu)?; // one map of two channels and two positions
/// assert_eq!(snn_core::pick_positions(&maps, &[vec![1]])?.to_vec2::<f32>()?, [[2., 4.]]);
/// # Ok(()) }
/// ```
pub fn pick_positions(ys: &Tensor, positions: &[Vec<u32>]) -> Result<Tensor> {
    let (n, c, map) = (ys.dim(0)?, ys.dim(1)?, ys.dims()[2..].iter().product::<usize>());
    check(positions, n, map, 1)?;
    let rows = ys.reshape((n, c, map))?.transpose(1, 2)?.contiguous()?.reshape((n * map, c))?;
    pick_rows(&rows, &places(positions, map)?)
}

/// The positions counted over all items, of maps of so many.
fn places(positions: &[Vec<u32>], map: usize) -> Result<Vec<u32>> {
    let place = |item: usize, p: u32| u32::try_from(item * map + p as usize);
    let of_item =
        |(item, at): (usize, &Vec<u32>)| at.iter().map(move |&p| place(item, p)).collect::<Vec<_>>();
    let places = positions.iter().enumerate().flat_map(of_item).collect::<std::result::Result<_, _>>();
    places.map_err(|_| Error::Msg("positions of more items than 32 bits count".into()).bt())
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

/// One of the three products, as of the whole convolution; the adjoints of the first are the other two.
#[derive(Clone)]
struct At {
    kind: Kind,
    /// Rows and columns.
    axes: [Axis; 2],
    /// In and out.
    channels: [usize; 2],
    positions: Arc<[Vec<u32>]>,
}

impl At {
    /// All positions.
    fn rows(&self) -> usize {
        self.positions.iter().map(Vec::len).sum()
    }

    /// Numbers that a position sees.
    fn width(&self) -> usize {
        self.channels[0] * self.axes[0].kernel * self.axes[1].kernel
    }

    /// Numbers of an image.
    fn image_len(&self) -> usize {
        self.channels[0] * self.axes[0].image * self.axes[1].image
    }

    fn shape(&self) -> Shape {
        let ([rows, columns], [c_in, c_out]) = (self.axes, self.channels);
        match self.kind {
            Kind::Correlate => (self.rows(), c_out).into(),
            Kind::ImageGradient => (self.positions.len(), c_in, rows.image, columns.image).into(),
            Kind::KernelGradient => (c_out, c_in, rows.kernel, columns.kernel).into(),
        }
    }
}

impl CustomOp2 for At {
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
        let ys = by_dtype!(s1, "conv2d_at", F => {
            let (a, b) = (operand::<F>(s1, l1)?, operand::<F>(s2, l2)?);
            F::storage(match self.kind {
                Kind::Correlate => self.correlate(a, b),
                Kind::ImageGradient => self.image_gradient(a, b),
                Kind::KernelGradient => self.kernel_gradient(a, b),
            })
        });
        Ok((ys, self.shape()))
    }

    fn bwd(
        &self,
        xs: &Tensor,
        weight: &Tensor,
        _: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let grad = grad.contiguous()?;
        let product = |kind, a: &Tensor, b: &Tensor| {
            a.contiguous()?.apply_op2_no_bwd(&b.contiguous()?, &Self { kind, ..self.clone() }).map(Some)
        };
        let image = if xs.track_op() { product(Kind::ImageGradient, &grad, weight)? } else { None };
        let kernel = if weight.track_op() { product(Kind::KernelGradient, xs, &grad)? } else { None };
        Ok((image, kernel))
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Var};

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
                assert_relative("at", &some, &pick_positions(&all, &positions)?, bound);
                // An item's values do not depend on the others.
                for (n, at, start) in [(0, 0..1, 0), (2, 2..3, 3)] {
                    let rows = positions[at.clone()].iter().map(Vec::len).sum();
                    let alone = conv2d_at(&xs.narrow(0, n, 1)?, &weight, &cfg, &positions[at])?;
                    assert_identical("alone", &alone, &some.narrow(0, start, rows)?);
                }
            }
        }
        Ok(())
    }

    /// Sums of more terms than a product forms at once, of rows in groups of every size.
    #[test]
    fn an_item_does_not_depend_on_its_group() -> Result<()> {
        for (c_in, c_out) in [(1300, 70), (1300, 1024), (1300, 5), (20, 60), (600, 64)] {
            let (xs, weight) = (
                random("xs", &[20, c_in, 3, 3], DType::F32)?,
                random("w", &[c_out, c_in, 1, 1], DType::F32)?,
            );
            let positions: Vec<Vec<u32>> =
                (0..20).map(|n| (0..n % 9).map(|i| (i * 5 + n) % 9).collect()).collect();
            let all = conv2d_at(&xs, &weight, &ConvConfig::new(1, 1, 0), &positions)?;
            let mut start = 0;
            for (n, at) in positions.iter().enumerate() {
                let one = xs.narrow(0, n, 1)?;
                let alone = conv2d_at(&one, &weight, &ConvConfig::new(1, 1, 0), std::slice::from_ref(at))?;
                assert_identical(
                    &format!("{c_in} to {c_out}, item {n}"),
                    &alone,
                    &all.narrow(0, start, at.len())?,
                );
                start += at.len();
            }
        }
        Ok(())
    }

    /// `sum(ys * random)` and its gradients, `ys` made of these by `f`.
    fn gradients(
        xs: &Tensor,
        weight: &Tensor,
        f: &dyn Fn(&Tensor, &Tensor) -> Result<Tensor>,
    ) -> Result<Vec<Tensor>> {
        let (xs, weight) = (Var::from_tensor(xs)?, Var::from_tensor(weight)?);
        let ys = f(&xs, &weight)?;
        let grads = (&ys * random("upstream", ys.dims(), ys.dtype())?)?.sum_all()?.backward()?;
        let of = |var: &Var| grads.get(var).cloned().map_or_else(|| var.zeros_like(), Ok);
        Ok(vec![of(&xs)?, of(&weight)?])
    }

    #[test]
    fn gradients_are_those_of_the_whole_convolution() -> Result<()> {
        for (kernel, stride, padding, (h, w)) in
            [(1, 1, 0, (7, 7)), (3, 1, 1, (7, 7)), (3, 2, 1, (8, 5)), (5, 1, 0, (6, 7))]
        {
            for (dtype, bound) in [(DType::F64, 1e-13), (DType::F32, 1e-5)] {
                let xs = random("xs", &[3, 6, h, w], dtype)?;
                let weight = random("w", &[70, 6, kernel, kernel], dtype)?;
                let cfg = ConvConfig::new(kernel, stride, padding);
                // One position twice: its gradient counts twice.
                let at = [vec![0, 3, 1, 3], vec![], vec![2]];
                let some = gradients(&xs, &weight, &|xs, weight| conv2d_at(xs, weight, &cfg, &at))?;
                let all =
                    gradients(&xs, &weight, &|xs, weight| pick_positions(&conv2d(xs, weight, &cfg)?, &at))?;
                for (name, (some, all)) in ["xs", "weight"].iter().zip(some.iter().zip(&all)) {
                    assert_relative(&format!("{name}, {kernel}x{kernel} {dtype:?}"), some, all, bound);
                }
            }
        }
        Ok(())
    }

    #[test]
    fn threads_do_not_matter() -> Result<()> {
        let (xs, weight) =
            (random("xs", &[8, 16, 7, 7], DType::F32)?, random("w", &[100, 16, 3, 3], DType::F32)?);
        let (positions, cfg): (Vec<Vec<u32>>, _) =
            ((0..8).map(|n| (0..n).collect()).collect(), ConvConfig::new(3, 1, 1));
        check_threads(|| gradients(&xs, &weight, &|xs, weight| conv2d_at(xs, weight, &cfg, &positions)))?;
        // So many items that threads make the groups larger or smaller, few and many positions, sums of more than one stretch.
        let positions: Vec<Vec<u32>> = (0..150).map(|n| (0..n * n % 11).collect()).collect();
        for (c_in, c_out) in [(60, 5), (60, 64), (60, 70), (16, 100)] {
            for dtype in [DType::F32, DType::F64] {
                let xs = random("xs", &[150, c_in, 4, 4], dtype)?;
                let weight = random("w", &[c_out, c_in, 3, 3], dtype)?;
                check_threads(|| Ok(vec![conv2d_at(&xs, &weight, &cfg, &positions)?]))?;
            }
        }
        Ok(())
    }

    #[test]
    fn unfit_positions_are_errors() -> Result<()> {
        let (xs, weight) =
            (random("xs", &[2, 1, 3, 3], DType::F32)?, random("w", &[1, 1, 3, 3], DType::F32)?);
        let at = |positions: &[Vec<u32>]| conv2d_at(&xs, &weight, &ConvConfig::new(3, 1, 1), positions);
        assert!(at(&[vec![0]]).is_err(), "one list for two items");
        assert!(at(&[vec![9], vec![]]).is_err(), "outside");
        assert_eq!(at(&[vec![], vec![]])?.dims(), [0, 1]);
        let none = gradients(&xs, &weight, &|xs, weight| {
            conv2d_at(xs, weight, &ConvConfig::new(3, 1, 1), &[vec![], vec![]])
        })?;
        assert!(
            none.iter().all(|grad| grad.sqr().unwrap().sum_all().unwrap().to_scalar::<f32>().unwrap() == 0.)
        );
        Ok(())
    }
}
