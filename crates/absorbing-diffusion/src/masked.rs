//! The masked tokens of some maps of codes: all that the loss and the bound read.

use candle_core::{DType, Tensor};
use snn_core::cross_entropy;

use crate::{Error, Result};

pub(crate) struct Masked {
    /// Where they are, map by map, counted row by row.
    pub(crate) positions: Vec<Vec<u32>>,
    /// Their codes.
    truth: Vec<u32>,
    /// Size of the codebook.
    codes: usize,
}

impl Masked {
    /// Those of `h_t`, maps of so many tokens one after the other, of which `h0` are the codes.
    pub(crate) fn of(h0: &[u32], h_t: &[u32], tokens: usize, codes: usize) -> Self {
        let masked = |map: &[u32]| {
            let tokens = map.iter().enumerate().filter(|(_, token)| **token as usize == codes);
            tokens.map(|(at, _)| at as u32).collect()
        };
        let positions: Vec<Vec<u32>> = h_t.chunks(tokens).map(masked).collect();
        let maps = h0.chunks(tokens).zip(&positions);
        let truth = maps.flat_map(|(map, at)| at.iter().map(|&p| map[p as usize])).collect();
        Self { positions, truth, codes }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.truth.is_empty()
    }

    /// Counts the first token among them, as one whose logits can be asked for.
    pub(crate) fn ask_for_the_first(&mut self, h0: &[u32]) {
        self.positions[0].push(0);
        self.truth.push(h0[0]);
    }

    /// A number of each map, for each of its masked tokens.
    pub(crate) fn spread<T: Copy>(&self, of_maps: &[T]) -> Vec<T> {
        let tokens = of_maps.iter().zip(&self.positions);
        tokens.flat_map(|(&x, at)| std::iter::repeat_n(x, at.len())).collect()
    }

    /// The sum of each map's numbers.
    pub(crate) fn sums(&self, of_tokens: &[f64]) -> Vec<f64> {
        let mut rest = of_tokens;
        let mut sum = |at: &Vec<u32>| {
            let (own, others) = rest.split_at(at.len());
            rest = others;
            own.iter().sum()
        };
        self.positions.iter().map(&mut sum).collect()
    }

    /// `-ln p(h_0(i, j) | h_t)` of each, from their logits `[all, K]` -> `[all]`.
    pub(crate) fn nats(&self, logits: &Tensor) -> Result<Tensor> {
        let shape = [self.truth.len(), self.codes];
        Error::check_shape("what the denoiser returned of masked tokens", logits.dims(), &shape)?;
        let logits = match logits.dtype() {
            DType::F32 | DType::F64 => logits.clone(),
            _ => logits.to_dtype(DType::F32)?,
        };
        Ok(cross_entropy(&logits, &self.truth)?)
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    #[test]
    fn where_nothing_is_masked_the_first_token_can_be_asked_for() {
        let h0 = [2, 1, 0, 1];
        let mut masked = Masked::of(&h0, &h0, 2, 3);
        assert!(masked.is_empty());
        masked.ask_for_the_first(&h0);
        assert!(!masked.is_empty() && masked.positions == [vec![0], vec![]]);
        assert_eq!(masked.spread(&[7, 8]), [7]);
        let logits = Tensor::new(&[[0f32, 0., 3f32.ln()]], &Device::Cpu).unwrap();
        let nats = masked.nats(&logits).unwrap().to_vec1::<f32>().unwrap();
        assert!((nats[0] - (5f32 / 3.).ln()).abs() < 1e-6);
    }
}
