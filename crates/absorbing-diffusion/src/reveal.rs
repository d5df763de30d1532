//! What a sampler asks of an order: which tokens to draw, and which of the drawn ones to keep.

use rand::RngCore;

/// Decides, step by step, which tokens of an image are revealed, and may look at the drawn codes before it decides.
///
/// Each of the `steps` steps of the reverse process goes like this, for every image by itself:
///
/// 1. [`propose`](Self::propose) names masked positions before the network is asked. An image without any costs nothing in
///    this step, and a denoiser that [prepares](crate::Denoiser::prepare) computes nothing else.
/// 2. The sampler draws a code at each of them from the network's distribution.
/// 3. [`settle`](Self::settle) sees the drawn codes with their log-probabilities and says which of them stay; the others are
///    masked still. It may also mask tokens again that earlier steps have revealed. It is asked even where nothing was proposed.
///
/// [`Order`](crate::Order) has the built-in orders. An order must leave no mask after its last step. An order that is made around another
/// one hands on all three methods, or the inner one does not know what became of its proposals, and the network is told other times.
///
/// # Examples
/// One token a step, the most certain first:
/// ```
/// use absorbing_diffusion::{AbsorbingProcess, Draft, Drawn, RevealOrder, RngCore, Sampler, SamplingConfig, Settled, from_fn};
/// use candle_core::{DType, Device, Tensor};
/// use snn_core::Seed;
///
/// #[derive(Debug)]
/// struct MostCertainFirst;
///
/// impl RevealOrder for MostCertainFirst {
///     fn propose(&self, draft: &Draft<'_>, _: &mut dyn RngCore) -> Vec<usize> {
///         draft.masked()
///     }
///     fn settle(&self, _: &Draft<'_>, drawn: &[Drawn], _: &mut dyn RngCore) -> Settled {
///         let best = (0..drawn.len()).max_by(|&a, &b| drawn[a].log_prob.total_cmp(&drawn[b].log_prob));
///         Settled { keep: best.into_iter().collect(), remask: Vec::new() }
///     }
/// }
///
/// # fn main() -> absorbing_diffusion::Result<()> {
/// let process = AbsorbingProcess::new(16, 9)?;
/// let uniform = from_fn(|h_t, _t, _train| {
///     let (n, h, w) = h_t.dims3()?;
///     Tensor::zeros((n, 16, h, w), DType::F32, h_t.device())
/// });
/// let config = SamplingConfig::default();
/// let sampler = Sampler::new(&process, &uniform, &config)?.with_order(&MostCertainFirst);
/// let codes = sampler.sample(0..4, (3, 3), Seed(0), &Device::Cpu, &mut |_, _| ())?;
/// assert_eq!(codes.dims(), [4, 3, 3]);
/// # Ok(()) }
/// ```
pub trait RevealOrder {
    /// Names the masked positions at which codes are to be drawn, in ascending order.
    fn propose(&self, draft: &Draft<'_>, rng: &mut dyn RngCore) -> Vec<usize>;

    /// Decides which of the drawn codes stay, and which older ones are masked again. By default all stay.
    fn settle(&self, draft: &Draft<'_>, drawn: &[Drawn], rng: &mut dyn RngCore) -> Settled {
        let _ = (draft, rng);
        Settled::all(drawn)
    }

    /// The share of tokens that is masked before this step, as a numerator and a denominator: the network is told the diffusion time of
    /// this share, `t = ceil(T_d share)`. By default it is `left / steps` of the tokens that were not given.
    fn share_masked(&self, draft: &Draft<'_>) -> (usize, usize) {
        draft.share_by_steps()
    }
}

/// Hands the methods of an order on to what is borrowed or boxed.
macro_rules! hand_on {
    ($($pointer:ty),*) => {$(
        impl<O: RevealOrder + ?Sized> RevealOrder for $pointer {
            fn propose(&self, draft: &Draft<'_>, rng: &mut dyn RngCore) -> Vec<usize> {
                (**self).propose(draft, rng)
            }

            fn settle(&self, draft: &Draft<'_>, drawn: &[Drawn], rng: &mut dyn RngCore) -> Settled {
                (**self).settle(draft, drawn, rng)
            }

            fn share_masked(&self, draft: &Draft<'_>) -> (usize, usize) {
                (**self).share_masked(draft)
            }
        }
    )*};
}

hand_on!(&O, Box<O>, std::sync::Arc<O>);

/// One image in the making, as an order sees it.
#[derive(Clone, Copy, Debug)]
pub struct Draft<'a> {
    /// Rows and columns of its map.
    pub map: (usize, usize),
    /// The tokens, row by row, with the mask where nothing is revealed.
    pub codes: &'a [u32],
    /// The mask token, `K`.
    pub mask: u32,
    /// Whether each token was given from outside; such tokens can be neither drawn nor masked again.
    pub given: &'a [bool],
    /// The log-probability with which each revealed token was drawn, in nats; 0 for tokens that are masked or were given.
    pub log_probs: &'a [f64],
    /// The number of steps that are left, this one included: from `steps` down to 1.
    pub left: usize,
    /// The number of all steps of this sampling.
    pub steps: usize,
}

impl Draft<'_> {
    /// The positions that are masked, in ascending order.
    #[must_use]
    pub fn masked(&self) -> Vec<usize> {
        (0..self.codes.len()).filter(|&i| self.codes[i] == self.mask).collect()
    }

    /// The positions that earlier steps have revealed, in ascending order.
    #[must_use]
    pub fn revealed(&self) -> Vec<usize> {
        (0..self.codes.len()).filter(|&i| self.codes[i] != self.mask && !self.given[i]).collect()
    }

    /// The number of tokens that were not given.
    #[must_use]
    pub fn free(&self) -> usize {
        self.given.iter().filter(|given| !**given).count()
    }

    /// `left / steps` of the tokens that were not given, as a share of all: a numerator and a denominator.
    #[must_use]
    pub fn share_by_steps(&self) -> (usize, usize) {
        (self.left.saturating_mul(self.free()), self.steps.saturating_mul(self.codes.len()))
    }

    /// How many masked tokens this step has to reveal, if tokens are revealed evenly over the steps, so that
    /// `round(free * (left - 1) / steps)` of the `free` tokens that were not given are masked after it.
    ///
    /// It is 0 in some steps where there are more steps than tokens. An order that keeps as many as are due then proposes none, which
    /// saves the network a pass.
    #[must_use]
    pub fn due(&self) -> usize {
        let masked = self.codes.iter().filter(|code| **code == self.mask).count();
        masked.saturating_sub(remaining(self.free(), self.left - 1, self.steps))
    }
}

/// A code that was drawn at a proposed position.
///
/// Of the network's distribution an order sees the log-probability of this code and of no other, and so neither the entropy nor the
/// margin between the two likeliest codes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Drawn {
    /// The position, counted row by row.
    pub position: usize,
    /// The code that was drawn.
    pub code: u32,
    /// The log-probability of the code in `softmax(logits / temperature)`, in nats. Where `top_k` or `top_p` cut the
    /// distribution it is that of before the cut, which still tells the certain from the doubtful.
    pub log_prob: f64,
}

/// An order's decision about the drawn codes. By default none stays; [`all`](Self::all) keeps them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settled {
    /// Indices of the drawn codes that stay.
    pub keep: Vec<usize>,
    /// Positions, revealed by earlier steps, that are masked again.
    pub remask: Vec<usize>,
}

impl Settled {
    /// All drawn codes stay, and nothing is masked again.
    #[must_use]
    pub fn all(drawn: &[Drawn]) -> Self {
        Self { keep: (0..drawn.len()).collect(), remask: Vec::new() }
    }
}

/// `length * t / steps`, rounded, halves up.
pub(crate) fn remaining(length: usize, t: usize, steps: usize) -> usize {
    let (length, t, steps) = (length as u128, t as u128, steps as u128);
    ((2 * length * t + steps) / (2 * steps)) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remaining_goes_from_all_to_none_in_even_steps() {
        for (length, steps) in [(49, 49), (49, 1), (49, 20), (49, 100), (4, 3)] {
            let left: Vec<_> = (0..=steps).map(|t| remaining(length, t, steps)).collect();
            assert_eq!((left[0], left[steps]), (0, length));
            let most = length.div_ceil(steps);
            assert!(left.windows(2).all(|w| w[0] <= w[1] && w[1] - w[0] <= most), "{left:?}");
        }
        assert_eq!(remaining(3, 1, 2), 2); // 1.5
    }

    #[test]
    fn given_tokens_are_neither_masked_nor_revealed() {
        let draft = Draft {
            map: (1, 5),
            codes: &[9, 3, 9, 4, 9],
            mask: 9,
            given: &[false, true, false, false, false],
            log_probs: &[0.; 5],
            left: 2,
            steps: 4,
        };
        assert_eq!((draft.masked(), draft.revealed()), (vec![0, 2, 4], vec![3]));
        // Four free tokens, one of them left masked after this step.
        assert_eq!(draft.due(), 2);
    }
}
