//! One axis of a convolution: which positions of the image and of the map a tap joins.

use std::ops::Range;

/// Says which positions a convolution joins on one axis: tap `k` joins position `o` of the map with position
/// `o * stride + k - padding` of the image, if there is one.
///
/// [`conv2d_map`](super::conv2d_map) and its adjoint have checked the lengths, so that none of these sums overflows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Axis {
    pub(crate) image: usize,
    pub(crate) map: usize,
    pub(crate) kernel: usize,
    pub(crate) stride: usize,
    pub(crate) padding: usize,
}

impl Axis {
    /// The positions of the map that tap `k` joins with a position of the image.
    pub(crate) fn joined(&self, k: usize) -> Range<usize> {
        let first = self.padding.saturating_sub(k).div_ceil(self.stride);
        let end = (self.image + self.padding).saturating_sub(k).div_ceil(self.stride).min(self.map);
        first.min(end)..end
    }

    /// The image's position that tap `k` joins with position `o` of the map.
    pub(crate) fn image_at(&self, o: usize, k: usize) -> Option<usize> {
        (o * self.stride + k).checked_sub(self.padding).filter(|&i| i < self.image)
    }

    /// The map's position that tap `k` joins with position `i` of the image.
    pub(crate) fn map_at(&self, i: usize, k: usize) -> Option<usize> {
        let steps = (i + self.padding).checked_sub(k)?;
        (steps % self.stride == 0).then_some(steps / self.stride).filter(|&o| o < self.map)
    }
}
