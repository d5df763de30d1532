//! Pillow's bilinear resizing of bytes: weights in fixed point, and bytes between the two passes.

use crate::{Error, Result};

/// Bits behind the point of a weight.
const BITS: u32 = 32 - 8 - 2;

/// Resizes bytes as Pillow's `BILINEAR` does it: row-major planes of `from` rows and columns, one after the other, become planes of `to`.
///
/// # Errors
/// Returns an error if a side is 0, or if the bytes are no whole number of planes.
/// # Examples
/// ```
/// let twice = spiking_diffusion_metrics::resize_bytes(&[0, 200], (1, 2), (1, 4))?;
/// assert_eq!(twice, [0, 50, 150, 200]);
/// # Ok::<(), spiking_diffusion_metrics::Error>(())
/// ```
pub fn resize_bytes(bytes: &[u8], from: (usize, usize), to: (usize, usize)) -> Result<Vec<u8>> {
    let plane = from.0.saturating_mul(from.1);
    if [plane, to.0, to.1].contains(&0) || !bytes.len().is_multiple_of(plane) {
        let reason = format!("{} bytes cannot be resized from {from:?} to {to:?}", bytes.len());
        return Err(Error::config("resize_bytes", format!("{from:?}"), reason));
    }
    let planes = bytes.len() / plane;
    let size = to.0.checked_mul(to.1).and_then(|size| size.checked_mul(planes));
    crate::input::check_memory("resize_bytes", to.0.max(to.1), size)?;
    let resizer = Bilinear::new(from, to);
    Ok(bytes.chunks_exact(plane).flat_map(|plane| resizer.plane(plane)).collect())
}

/// The weights of both axes.
struct Bilinear {
    rows: Vec<Taps>,
    columns: Vec<Taps>,
    width: usize,
}

/// `y = round(sum_k weights[k] x[start + k] / 2^BITS)`.
struct Taps {
    start: usize,
    weights: Vec<i32>,
}

impl Taps {
    fn apply(&self, x: impl Fn(usize) -> u8) -> u8 {
        let terms = (self.start..).zip(&self.weights).map(|(i, &weight)| i32::from(x(i)) * weight);
        let sum = (1 << (BITS - 1)) + terms.sum::<i32>();
        (sum >> BITS).clamp(0, 255) as u8
    }
}

impl Bilinear {
    /// From rows and columns to rows and columns, none of them 0.
    fn new(from: (usize, usize), to: (usize, usize)) -> Self {
        Self { rows: axis(from.0, to.0), columns: axis(from.1, to.1), width: from.1 }
    }

    /// Resizes the row-major bytes of one channel: along the rows, then along the columns.
    fn plane(&self, plane: &[u8]) -> Vec<u8> {
        let wide: Vec<Vec<u8>> = plane
            .chunks_exact(self.width)
            .map(|line| self.columns.iter().map(|taps| taps.apply(|i| line[i])).collect())
            .collect();
        let columns = 0..self.columns.len();
        self.rows.iter().flat_map(|taps| columns.clone().map(|x| taps.apply(|i| wide[i][x]))).collect()
    }
}

/// A triangle around the centre of each output pixel, widened where the image shrinks, cut off at the edges and normalised.
fn axis(from: usize, to: usize) -> Vec<Taps> {
    let scale = from as f64 / to as f64;
    let widen = scale.max(1.);
    let taps = |i: usize| {
        let centre = (i as f64 + 0.5) * scale;
        let start = (centre - widen + 0.5).max(0.) as usize;
        let end = ((centre + widen + 0.5) as usize).min(from);
        let weight = |j: usize| (1. - ((j as f64 - centre + 0.5) / widen).abs()).max(0.);
        let weights: Vec<f64> = (start..end).map(weight).collect();
        let total: f64 = weights.iter().sum();
        let fixed = |w: &f64| (w / total * f64::from(1 << BITS)).round() as i32;
        Taps { start, weights: weights.iter().map(fixed).collect() }
    };
    (0..to).map(taps).collect()
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device, safetensors};

    use super::*;

    /// Larger, and smaller along one axis more than along the other.
    #[test]
    fn bytes_are_pillows() {
        let golden = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/fad.safetensors");
        let golden = safetensors::load(golden, &Device::Cpu).unwrap();
        let bytes = |name: &str| {
            golden[name].to_dtype(DType::U8).unwrap().flatten_all().unwrap().to_vec1::<u8>().unwrap()
        };
        for (name, to, count) in [("resized", (32, 32), 11), ("shrunk", (13, 20), 2)] {
            let resizer = Bilinear::new((28, 28), to);
            let images = bytes("images");
            let got: Vec<u8> =
                images.chunks_exact(784).take(count).flat_map(|plane| resizer.plane(plane)).collect();
            assert!(got == bytes(name), "{name}");
        }
    }
}
