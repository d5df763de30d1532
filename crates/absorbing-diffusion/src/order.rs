//! Which tokens a reverse step reveals.

use rand::Rng;
use serde::{Deserialize, Serialize};

/// How the reverse step from `t` to `t - 1` picks the tokens to reveal. Neither looks at the logits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Order {
    /// The posterior `q(h_{t-1} | h_t, h_0)` (Eq. 13), as in the released code: each masked token with probability
    /// `1 / t`. At `T_d = H' W' = 49`, 36 % of the steps reveal nothing.
    #[default]
    Posterior,
    /// Ours: as many, uniformly at random, as leave exactly `round(H' W' (t - 1) / T_d)` masked, the mean of the
    /// posterior. At `T_d = H' W'`, one a step, so that no two tokens are ever drawn without sight of each other.
    ExactK,
}

impl Order {
    /// The mean number of steps that reveal something, and so of passes of the denoiser, for an image of `length` tokens
    /// in `steps` steps.
    ///
    /// # Examples
    /// ```
    /// use absorbing_diffusion::Order;
    /// assert_eq!(Order::ExactK.mean_passes(49, 49), 49.);
    /// assert_eq!(Order::ExactK.mean_passes(49, 100), 49.);
    /// assert!((Order::Posterior.mean_passes(1, 10) - 1.).abs() < 1e-12);
    /// assert!((Order::Posterior.mean_passes(49, 49) - 31.16).abs() < 0.01);
    /// ```
    pub fn mean_passes(self, length: usize, steps: usize) -> f64 {
        match self {
            // Each token is revealed at one of the steps, all alike.
            Self::Posterior => {
                let steps = steps.max(1) as f64;
                steps * (1. - (1. - 1. / steps).powf(length as f64))
            }
            Self::ExactK => {
                let reveals = |t: &usize| remaining(length, *t, steps) > remaining(length, t - 1, steps);
                (1..=steps).filter(reveals).count() as f64
            }
        }
    }

    /// Picks from the masked positions, in ascending order, of a map of `length` tokens.
    pub(crate) fn pick(
        self,
        masked: Vec<usize>,
        length: usize,
        (t, steps): (usize, usize),
        rng: &mut impl Rng,
    ) -> Vec<usize> {
        match self {
            Self::Posterior => masked.into_iter().filter(|_| rng.random::<f64>() * (t as f64) < 1.).collect(),
            Self::ExactK => {
                let keep = remaining(length, t - 1, steps);
                let count = masked.len().saturating_sub(keep);
                choose(masked, count, rng)
            }
        }
    }
}

/// `length * t / steps`, rounded, halves up.
fn remaining(length: usize, t: usize, steps: usize) -> usize {
    let (length, t, steps) = (length as u128, t as u128, steps as u128);
    ((2 * length * t + steps) / (2 * steps)) as usize
}

/// `count` of the `items`, uniformly at random, in ascending order (a partial Fisher-Yates shuffle).
fn choose(mut items: Vec<usize>, count: usize, rng: &mut impl Rng) -> Vec<usize> {
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
}
