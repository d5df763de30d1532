//! The activations of one image, channels last.

/// `values[(y width + x) channels + c]`.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Map {
    pub(crate) height: usize,
    pub(crate) width: usize,
    pub(crate) channels: usize,
    pub(crate) values: Vec<f32>,
}

impl Map {
    pub(crate) fn zeros(height: usize, width: usize, channels: usize) -> Self {
        Self { height, width, channels, values: vec![0.0; height * width * channels] }
    }

    /// Channels of one pixel.
    pub(crate) fn pixel(&self, y: usize, x: usize) -> &[f32] {
        let start = (y * self.width + x) * self.channels;
        &self.values[start..start + self.channels]
    }

    /// Channels of all parts, one after the other; the parts have the same height and width.
    pub(crate) fn concat(parts: &[Self]) -> Self {
        let channels = parts.iter().map(|part| part.channels).sum();
        let (height, width) = parts.first().map_or((0, 0), |part| (part.height, part.width));
        let mut values = Vec::with_capacity(height * width * channels);
        for at in 0..height * width {
            for part in parts {
                values.extend_from_slice(&part.values[at * part.channels..(at + 1) * part.channels]);
            }
        }
        Self { height, width, channels, values }
    }

    /// Mean over height and width, summed in row-major order.
    pub(crate) fn mean(&self) -> Vec<f32> {
        let mut sums = vec![0f64; self.channels];
        for pixel in self.values.chunks_exact(self.channels.max(1)) {
            sums.iter_mut().zip(pixel).for_each(|(sum, value)| *sum += f64::from(*value));
        }
        let count = (self.height * self.width) as f64;
        sums.iter().map(|sum| (sum / count) as f32).collect()
    }
}
