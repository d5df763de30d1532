//! Sums over the shards of a batch in a fixed order, whoever holds which shard.

use std::ops::Range;

use crate::Collective;
use crate::error::Result;

/// What is summed over shards.
pub(crate) trait Part: Sized + Clone {
    /// The sum of this and of later shards'.
    fn plus(self, next: &Self) -> Result<Self>;
    /// As a message.
    fn pack(&self) -> Result<Vec<u8>>;
    /// From a message of another worker, whose parts are like this one.
    fn unpack(&self, message: &[u8]) -> Result<Self>;
}

/// The shards of a batch, and the workers that hold stretches of them: worker `r` of `W` those from `r S / W` on, rounded down.
#[derive(Clone, Copy)]
pub(crate) struct Tree<'a> {
    pub(crate) workers: &'a dyn Collective,
    pub(crate) shards: usize,
}

impl Tree<'_> {
    /// The shards of this worker.
    pub(crate) fn own(&self) -> Range<usize> {
        self.of(self.workers.rank())
    }

    /// The shards of a worker.
    pub(crate) fn of(&self, rank: usize) -> Range<usize> {
        let from = |rank: usize| rank * self.shards / self.workers.size();
        from(rank)..from(rank + 1)
    }

    pub(crate) fn owner(&self, shard: usize) -> usize {
        ((shard + 1) * self.workers.size()).div_ceil(self.shards) - 1
    }

    /// Sums parts, one of each shard of this worker, with those of all other workers: in the binary tree whose left branches hold
    /// the largest power of two of shards that leaves a right one. All workers get the sum.
    pub(crate) fn sum<P: Part>(&self, own: Vec<P>) -> Result<P> {
        let like = self.first(&own)?.clone();
        let mut leaves: Vec<Option<P>> = own.into_iter().map(Some).collect();
        let root = self.branch(0..self.shards, &mut leaves, &like)?;
        if self.workers.size() == 1 {
            return Ok(root.unwrap_or(like));
        }
        let message = root.as_ref().map_or(Ok(Vec::new()), Part::pack)?;
        let message = self.workers.broadcast(message)?;
        root.map_or_else(|| like.unpack(&message), Ok)
    }

    /// The first of this worker's parts.
    pub(crate) fn first<'p, P>(&self, own: &'p [P]) -> Result<&'p P> {
        own.first().ok_or_else(|| {
            let message = format!("has none of {} shards: there are more workers", self.shards);
            crate::Error::worker(self.workers, message)
        })
    }

    /// The sum of a stretch of shards, at the worker that holds its first.
    fn branch<P: Part>(&self, shards: Range<usize>, leaves: &mut [Option<P>], like: &P) -> Result<Option<P>> {
        let own = self.own();
        if shards.end <= own.start || own.end <= shards.start {
            return Ok(None);
        }
        if shards.len() == 1 {
            return Ok(leaves[shards.start - own.start].take());
        }
        let middle = middle(&shards);
        let left = self.branch(shards.start..middle, leaves, like)?;
        let right = self.branch(middle..shards.end, leaves, like)?;
        let (here, there) = (self.owner(shards.start), self.owner(middle));
        match (left, right) {
            (Some(left), Some(right)) => left.plus(&right).map(Some),
            (Some(left), None) => {
                let message = self.workers.receive(there)?;
                left.plus(&like.unpack(&message)?).map(Some)
            }
            (None, Some(right)) => self.workers.send(here, &right.pack()?).map(|()| None),
            (None, None) => Ok(None),
        }
    }
}

/// Where the right branch of a stretch of shards begins.
pub(crate) fn middle(shards: &Range<usize>) -> usize {
    shards.start + shards.len().next_power_of_two() / 2
}

/// Numbers as they lie in memory everywhere.
pub(crate) fn to_bytes<T: Copy, const N: usize>(numbers: &[T], of: impl Fn(T) -> [u8; N]) -> Vec<u8> {
    let mut bytes = vec![0; numbers.len() * N];
    let (places, _) = bytes.as_chunks_mut::<N>();
    places.iter_mut().zip(numbers).for_each(|(place, &number)| *place = of(number));
    bytes
}

pub(crate) fn from_bytes(bytes: &[u8]) -> Vec<f64> {
    let (numbers, _) = bytes.as_chunks::<8>();
    numbers.iter().map(|number| f64::from_le_bytes(*number)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Alone, in_threads};

    impl Part for String {
        fn plus(self, next: &Self) -> Result<Self> {
            Ok(format!("({self}{next})"))
        }
        fn pack(&self) -> Result<Vec<u8>> {
            Ok(self.clone().into_bytes())
        }
        fn unpack(&self, message: &[u8]) -> Result<Self> {
            Ok(String::from_utf8_lossy(message).into_owned())
        }
    }

    fn sum(workers: &dyn Collective, shards: usize) -> Result<String> {
        let tree = Tree { workers, shards };
        tree.sum(tree.own().map(|shard| shard.to_string()).collect())
    }

    #[test]
    fn the_order_is_that_of_the_tree_whatever_the_workers() {
        let wanted = [
            "0",
            "(01)",
            "((01)2)",
            "((01)(23))",
            "(((01)(23))4)",
            "(((01)(23))(45))",
            "(((01)(23))((45)6))",
        ];
        for (shards, wanted) in (1..).zip(wanted) {
            assert_eq!(sum(&Alone, shards).unwrap(), wanted);
            for workers in 1..=shards {
                let found = in_threads(workers, |workers| sum(workers, shards).unwrap());
                assert!(found.iter().all(|found| found == wanted), "{workers} workers: {found:?}");
            }
        }
    }

    #[test]
    fn every_shard_has_one_owner() {
        for (workers, shards) in [(1, 5), (3, 8), (4, 6), (7, 7), (5, 64)] {
            let owned = in_threads(workers, |workers| {
                let tree = Tree { workers, shards };
                let own = tree.own();
                assert!(own.clone().all(|shard| tree.owner(shard) == workers.rank()));
                own.collect::<Vec<_>>()
            });
            assert_eq!(owned.concat(), (0..shards).collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_worker_without_a_shard_is_refused() {
        let message = in_threads(3, |workers| sum(workers, 2).err().map(|e| e.to_string())).swap_remove(0);
        assert!(message.unwrap().contains("worker 0 of 3: has none of 2 shards"));
    }
}
