//! Images on their way into the network: checked, shifted, channels last.

use candle_core::{Device, Tensor};

use crate::input::{SLACK, check_finite};
use crate::resize::to_f32;
use crate::{Error, Result};

/// Images `[N, C, H, W]` on the host, all finite.
pub(super) struct Images {
    values: Vec<f32>,
    image: [usize; 3],
}

impl Images {
    /// Checks the shape and every pixel; `first` is the number of the first image in a message.
    pub(super) fn new(xs: &Tensor, image: [usize; 3], first: usize) -> Result<Self> {
        let what = "images";
        if xs.rank() != 4 || xs.dims()[1..] != image {
            let [c, h, w] = image;
            return Err(Error::Shape {
                what,
                expected: format!("[N, {c}, {h}, {w}]"),
                got: xs.dims().to_vec(),
            });
        }
        if !xs.dtype().is_float() {
            return Err(Error::DType { what, got: xs.dtype() });
        }
        let values = to_f32(xs)?;
        check_finite(&values, image.iter().product(), what, first)?;
        let far = values.iter().find(|x| x.abs() > 0.5 + SLACK as f32);
        if let Some(pixel) = far {
            return Err(Error::config("images", pixel, "is no pixel of [-0.5, 0.5]: shift or clamp them"));
        }
        Ok(Self { values, image })
    }

    pub(super) fn len(&self) -> usize {
        self.values.len() / self.size()
    }

    /// These images, moved by `(down, right)`, plus 0.5, so that black, and what comes in from outside, is 0
    /// -> `[n, H, W, C]`.
    pub(super) fn batch(&self, indices: &[u32], shifts: &[(isize, isize)]) -> candle_core::Result<Tensor> {
        let [channels, height, width] = self.image;
        let mut batch = vec![0f32; indices.len() * self.size()];
        for ((out, &index), &shift) in batch.chunks_exact_mut(self.size()).zip(indices).zip(shifts) {
            self.copy_shifted(index as usize, shift, out);
        }
        Tensor::from_vec(batch, (indices.len(), height, width, channels), &Device::Cpu)
    }

    /// All images as they are, as [`batch`](Self::batch).
    pub(super) fn all(&self) -> candle_core::Result<Tensor> {
        let indices: Vec<u32> = (0..self.len() as u32).collect();
        self.batch(&indices, &vec![(0, 0); indices.len()])
    }

    fn copy_shifted(&self, index: usize, (down, right): (isize, isize), out: &mut [f32]) {
        let [channels, height, width] = self.image;
        let source = &self.values[index * self.size()..(index + 1) * self.size()];
        for (at, pixel) in out.iter_mut().enumerate() {
            let (y, x, c) = (at / channels / width, at / channels % width, at % channels);
            let from = (y.checked_add_signed(-down), x.checked_add_signed(-right));
            if let (Some(y), Some(x)) = from
                && y < height
                && x < width
            {
                *pixel = source[(c * height + y) * width + x] + 0.5;
            }
        }
    }

    fn size(&self) -> usize {
        self.image.iter().product()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shifts_move_and_fill_with_black() {
        let xs = Tensor::new(&[[[[-0.5f32, -0.25], [0., 0.5]]]], &Device::Cpu).unwrap();
        let images = Images::new(&xs, [1, 2, 2], 0).unwrap();
        let moved = |shift| images.batch(&[0], &[shift]).unwrap().flatten_all().unwrap().to_vec1::<f32>();
        assert_eq!(moved((0, 0)).unwrap(), [0., 0.25, 0.5, 1.]);
        assert_eq!(moved((1, 0)).unwrap(), [0., 0., 0., 0.25]);
        assert_eq!(moved((0, -1)).unwrap(), [0.25, 0., 1., 0.]);
        // Pixels of [0, 1] are others.
        assert!(Images::new(&(xs + 0.5).unwrap(), [1, 2, 2], 0).is_err());
    }
}
