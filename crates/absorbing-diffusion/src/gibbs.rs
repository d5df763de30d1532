//! Gibbs sampling between the steps that reveal.

use rand::RngCore;

use crate::Draft;
use crate::order::choose;

/// What [`Order::Gibbs`](crate::Order::Gibbs) does with the free tokens of one image.
pub(crate) struct Gibbs {
    /// How many a step of the loop draws, and masks again.
    redrawn: usize,
    /// The steps in front of the loop, each of which reveals a token.
    fill: usize,
    /// The steps of the loop.
    loops: usize,
}

impl Gibbs {
    /// The loop for `free` tokens: all steps that are not needed to reveal them one by one. None, if they all are.
    pub(crate) fn of(masked: f64, redrawn: f64, free: usize, steps: usize) -> Option<Self> {
        let loops = steps.saturating_sub(free);
        if loops == 0 || free < 2 {
            return None;
        }
        let share = |share: f64| (share * free as f64).round() as usize;
        let level = share(masked).clamp(1, free - 1);
        let redrawn = share(redrawn).clamp(1, level.min(free - level));
        Some(Self { redrawn, fill: free - level, loops })
    }

    fn loops_at(&self, draft: &Draft<'_>) -> bool {
        let done = draft.steps - draft.left;
        (self.fill..self.fill + self.loops).contains(&done)
    }

    /// Draws as many as a step of the loop redraws, or one.
    pub(crate) fn propose(&self, draft: &Draft<'_>, rng: &mut dyn RngCore) -> Vec<usize> {
        choose(draft.masked(), if self.loops_at(draft) { self.redrawn } else { 1 }, rng)
    }

    /// Masks as many again in the loop.
    pub(crate) fn remask(&self, draft: &Draft<'_>, rng: &mut dyn RngCore) -> Vec<usize> {
        if self.loops_at(draft) { choose(draft.revealed(), self.redrawn, rng) } else { Vec::new() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loop_has_tokens_to_draw_and_tokens_to_mask() {
        for (masked, redrawn) in [(0., 0.), (0., 1.), (0.4, 0.16), (0.5, 1.), (1., 0.1), (1., 1.)] {
            for free in 2..60 {
                let found = Gibbs::of(masked, redrawn, free, free + 3).unwrap();
                let (level, most) = (free - found.fill, found.fill.min(free - found.fill));
                assert!(level >= 1 && found.loops == 3, "{masked} {redrawn} {free}");
                assert!((1..=most).contains(&found.redrawn), "{masked} {redrawn} {free}");
            }
        }
        let found = Gibbs::of(0.4, 0.16, 49, 129).unwrap();
        assert_eq!((found.fill, found.redrawn, found.loops), (29, 8, 80));
        assert!(Gibbs::of(0.4, 0.16, 49, 49).is_none() && Gibbs::of(0.4, 0.16, 1, 9).is_none());
    }
}
