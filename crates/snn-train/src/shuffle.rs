//! The order in which a training sees its items.

use rand::Rng;
use snn_core::Seed;

/// Shuffles the items for one epoch of a stage: a permutation of `0..items`, drawn from a random stream of its own,
/// `<stage>/shuffle/<epoch>`.
///
/// # Panics
/// Panics if there are 2^32 items or more.
/// # Examples
/// ```
/// use snn_core::Seed;
/// use snn_train::epoch_order;
///
/// let order = epoch_order(Seed(0), "classifier", 3, 1000);
/// assert_eq!(order, epoch_order(Seed(0), "classifier", 3, 1000));
/// assert_ne!(order, epoch_order(Seed(0), "classifier", 4, 1000));
/// ```
#[must_use]
pub fn epoch_order(seed: Seed, stage: &str, epoch: usize, items: usize) -> Vec<u32> {
    let mut rng = seed.rng(&format!("{stage}/shuffle/{epoch}"));
    let mut order: Vec<u32> = (0..items as u32).collect();
    for i in (1..items).rev() {
        order.swap(i, rng.random_range(0..=i));
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_epoch_visits_every_item_once_and_no_two_are_alike() {
        let order = |epoch| epoch_order(Seed(1), "vqsvae", epoch, 1000);
        let mut sorted = order(0);
        sorted.sort_unstable();
        assert!(sorted.iter().copied().eq(0..1000));
        assert_eq!(order(0), order(0));
        assert_ne!(order(0), order(1));
        assert_ne!(order(0), epoch_order(Seed(1), "sdid", 0, 1000));
    }
}
