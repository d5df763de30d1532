//! The built-in orders.

use rand::{Rng, RngCore};
use serde::{Deserialize, Serialize};

use crate::gibbs::Gibbs;
use crate::halton;
use crate::reveal::remaining;
use crate::{Draft, Drawn, Error, Result, RevealOrder, Settled};

/// How a reverse step picks the tokens to reveal: the built-in orders. Others implement [`RevealOrder`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
#[non_exhaustive]
pub enum Order {
    /// The paper's reverse process, as in the released code: with `left` steps left, each masked token is revealed with probability
    /// `1 / left`. With `T_d` steps that is the posterior `q(h_{t-1} != K | h_t = K, h_0) = 1 / t` of Eq. 10-12. At `steps = H' W' = 49`,
    /// 36 % of the steps reveal nothing.
    #[default]
    Posterior,
    /// Our own: tokens are revealed uniformly at random, as many as leave exactly `round(H' W' (left - 1) / steps)` masked, the
    /// mean of the posterior. At `steps = H' W'` that is one token a step, so that no two are ever drawn without sight of each
    /// other.
    ExactK,
    /// The most certain tokens first (MaskGIT, Chang et al. 2022), as many as in [`ExactK`](Self::ExactK): codes are drawn at
    /// every masked position, and those stay whose `log p + noise * (left - 1) / steps * g` is largest, where `g` is a standard
    /// Gumbel number.
    Confidence {
        /// Weight of the Gumbel noise at the start, from which it falls to 0 with the steps left.
        noise: f64,
    },
    /// As many tokens as in [`ExactK`](Self::ExactK), always in the same order: that of a two-dimensional Halton sequence
    /// (Besnier et al. 2025), whose next points lie far from each other and from those before. Tokens of one step then know
    /// little of each other, which costs less where steps are few.
    Halton,
    /// The posterior of a process that also masks tokens again (ReMDM, Wang et al. 2025), so that what was drawn early and
    /// blindly can be drawn again. A step masks each token that earlier steps have revealed with probability
    /// `sigma = min(cap, (1 - a) / b)`, and reveals each masked one with probability `(a - (1 - sigma) b) / (1 - b)`, where
    /// `b = 1 - left / steps` and `a = b + 1 / steps` are the shares of tokens revealed before and after it: the share
    /// stays that of the posterior.
    Remasking {
        /// Largest probability of being masked again in one step; 0 is [`Posterior`](Self::Posterior).
        cap: f64,
    },
    /// One token a step, and in between a loop (ours; ReMDM has one too). As soon as no more than `round(masked F)` of the `F = H' W'`
    /// tokens (of those that were not given) are masked, all `steps - F` steps that are not needed to reveal one token each draw
    /// `round(redrawn F)` of the masked tokens and mask as many of the others again, at random. Then the rest is revealed.
    ///
    /// That is blocked Gibbs sampling of the network's own conditionals, at a share of masks at which they are good: it mends what was
    /// drawn when little was known, and if the conditionals fit together and one token is redrawn at a time, it leaves their
    /// distribution as it is. The network is told the time at which that share is masked. In `F` steps or fewer there is no
    /// loop, as with [`ExactK`](Self::ExactK).
    Gibbs {
        /// The share of tokens that is masked during the loop; at least one token is, and one is not.
        masked: f64,
        /// The share of tokens that a step of the loop draws; at least one token, and at most as many as are masked, or are not.
        redrawn: f64,
    },
}

impl Order {
    /// Checks the numbers of the order.
    ///
    /// # Errors
    /// Returns an error if `noise` is negative or not finite, or `cap`, `masked` or `redrawn` is not in `0..=1`.
    pub fn validate(self) -> Result<()> {
        match self {
            Self::Confidence { noise } if !(noise.is_finite() && noise >= 0.) => Err(Error::config(
                "sampling.order.confidence.noise",
                noise,
                "must be finite and not negative",
            )),
            Self::Remasking { cap } if !(0. ..=1.).contains(&cap) => {
                Err(Error::config("sampling.order.remasking.cap", cap, "must lie in [0, 1]"))
            }
            Self::Gibbs { masked, .. } if !(0. ..=1.).contains(&masked) => {
                Err(Error::config("sampling.order.gibbs.masked", masked, "must lie in [0, 1]"))
            }
            Self::Gibbs { redrawn, .. } if !(0. ..=1.).contains(&redrawn) => {
                Err(Error::config("sampling.order.gibbs.redrawn", redrawn, "must lie in [0, 1]"))
            }
            _ => Ok(()),
        }
    }

    /// What sampling costs: the mean number of steps that reveal something, and so of passes of the denoiser, for an image of
    /// `length` tokens in `steps` steps.
    ///
    /// # Examples
    /// ```
    /// use absorbing_diffusion::Order;
    /// assert_eq!(Order::ExactK.mean_passes(49, 49), 49.);
    /// assert_eq!(Order::ExactK.mean_passes(49, 100), 49.);
    /// assert!((Order::Posterior.mean_passes(1, 10) - 1.).abs() < 1e-12);
    /// assert!((Order::Posterior.mean_passes(49, 49) - 31.16).abs() < 0.01);
    /// ```
    #[must_use]
    pub fn mean_passes(self, length: usize, steps: usize) -> f64 {
        match self {
            // Each token is revealed at one of the steps, all alike.
            Self::Posterior => {
                let steps = steps.max(1) as f64;
                steps * (1. - (1. - 1. / steps).powf(length as f64))
            }
            Self::Gibbs { masked, redrawn } if Gibbs::of(masked, redrawn, length, steps).is_some() => {
                steps as f64
            }
            Self::ExactK | Self::Confidence { .. } | Self::Halton | Self::Gibbs { .. } => {
                let reveals = |t: &usize| remaining(length, *t, steps) > remaining(length, t - 1, steps);
                (1..=steps).filter(reveals).count() as f64
            }
            // A token is masked before a step with probability `left / steps`, whatever the others are.
            Self::Remasking { cap } => (1..=steps)
                .map(|left| {
                    let (_, reveal) = remasking(cap, left, steps);
                    1. - (1. - left as f64 / steps as f64 * reveal).powf(length as f64)
                })
                .sum(),
        }
    }
}

impl RevealOrder for Order {
    fn propose(&self, draft: &Draft<'_>, rng: &mut dyn RngCore) -> Vec<usize> {
        let masked = draft.masked();
        match self {
            Self::Posterior => {
                let left = draft.left as f64;
                masked.into_iter().filter(|_| rng.random::<f64>() * left < 1.).collect()
            }
            Self::ExactK => choose(masked, draft.due(), rng),
            Self::Confidence { .. } if draft.due() == 0 => Vec::new(),
            Self::Confidence { .. } => masked,
            Self::Halton => {
                let free = |at: usize| draft.codes.get(at) == Some(&draft.mask);
                let mut positions = halton::visit(draft.map, free, draft.due());
                positions.sort_unstable();
                positions
            }
            Self::Remasking { cap } => {
                let (_, reveal) = remasking(*cap, draft.left, draft.steps);
                masked.into_iter().filter(|_| rng.random::<f64>() < reveal).collect()
            }
            Self::Gibbs { .. } => match self.gibbs(draft) {
                Some(gibbs) => gibbs.propose(draft, rng),
                None => choose(masked, draft.due(), rng),
            },
        }
    }

    fn settle(&self, draft: &Draft<'_>, drawn: &[Drawn], rng: &mut dyn RngCore) -> Settled {
        let mut settled = Settled::all(drawn);
        match self {
            Self::Posterior | Self::ExactK | Self::Halton => {}
            Self::Confidence { noise } => {
                let noise = noise * (draft.left - 1) as f64 / draft.steps as f64;
                let gumbel = |rng: &mut dyn RngCore| -(-(1. - rng.random::<f64>()).ln()).ln();
                let scores: Vec<f64> = drawn
                    .iter()
                    .map(|d| d.log_prob + if noise > 0. { noise * gumbel(rng) } else { 0. })
                    .collect();
                settled.keep.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]));
                settled.keep.truncate(draft.due());
            }
            Self::Remasking { cap } => {
                let (sigma, _) = remasking(*cap, draft.left, draft.steps);
                settled.remask = draft.revealed();
                settled.remask.retain(|_| rng.random::<f64>() < sigma);
            }
            Self::Gibbs { .. } => {
                if let Some(gibbs) = self.gibbs(draft) {
                    settled.remask = gibbs.remask(draft, rng);
                }
            }
        }
        settled
    }

    fn share_masked(&self, draft: &Draft<'_>) -> (usize, usize) {
        match self.gibbs(draft) {
            Some(_) => (draft.masked().len(), draft.codes.len()),
            None => draft.share_by_steps(),
        }
    }
}

impl Order {
    /// The loop of an image, if this order and these steps have one.
    fn gibbs(&self, draft: &Draft<'_>) -> Option<Gibbs> {
        match *self {
            Self::Gibbs { masked, redrawn } => Gibbs::of(masked, redrawn, draft.free(), draft.steps),
            _ => None,
        }
    }
}

/// The probabilities of a revealed token to be masked again, and of a masked one to be revealed.
fn remasking(cap: f64, left: usize, steps: usize) -> (f64, f64) {
    let (left, steps) = (left as f64, steps as f64);
    let (before, after) = ((steps - left) / steps, (steps - left + 1.) / steps);
    let sigma = if before > 0. { cap.min((1. - after) / before) } else { 0. };
    (sigma, ((after - (1. - sigma) * before) / (1. - before)).min(1.))
}

/// `count` of the `items`, or all, uniformly at random, in ascending order (a partial Fisher-Yates shuffle).
pub(crate) fn choose(mut items: Vec<usize>, count: usize, rng: &mut dyn RngCore) -> Vec<usize> {
    let count = count.min(items.len());
    for i in 0..count {
        let j = rng.random_range(i..items.len());
        items.swap(i, j);
    }
    items.truncate(count);
    items.sort_unstable();
    items
}

#[cfg(test)]
mod tests {
    use super::*;
    use snn_core::Seed;

    #[test]
    fn choices_are_distinct_sorted_and_even() {
        let mut rng = Seed(1).rng("choose");
        let mut counts = [0; 10];
        for _ in 0..10_000 {
            let chosen = choose((0..10).collect(), 3, &mut rng);
            assert!(chosen.len() == 3 && chosen.windows(2).all(|w| w[0] < w[1]));
            chosen.iter().for_each(|&i| counts[i] += 1);
        }
        // Binomial(10000, 0.3): standard deviation 46.
        assert!(counts.iter().all(|&c| (c - 3000i32).abs() < 5 * 46), "{counts:?}");
    }

    /// `revealed' = revealed (1 - sigma) + masked reveal` is the share of the posterior, and at the end nothing is masked.
    #[test]
    fn remasking_keeps_the_share_of_revealed_tokens() {
        for (cap, steps) in [(0., 10), (0.1, 10), (1., 7), (0.02, 200)] {
            for left in (1..=steps).rev() {
                let (sigma, reveal) = remasking(cap, left, steps);
                let masked = left as f64 / steps as f64;
                let after = (1. - masked) * (1. - sigma) + masked * reveal;
                assert!((after - (1. - (left - 1) as f64 / steps as f64)).abs() < 1e-12);
                assert!((0. ..=cap).contains(&sigma) && (0. ..=1.).contains(&reveal));
            }
            assert_eq!(remasking(cap, 1, steps), (0., 1.));
        }
        let passes = Order::Remasking { cap: 0. }.mean_passes(49, 49);
        assert!((passes - Order::Posterior.mean_passes(49, 49)).abs() < 1e-9);
        assert!(Order::Remasking { cap: 0.5 }.mean_passes(49, 49) > passes);
    }
}
