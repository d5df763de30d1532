//! Sums over the shards of a batch, of which each worker forms a piece: what the tree sums, for as few bytes a worker as there
//! can be.
//!
//! A tree sends whole sums up and down again, `2 ceil(log2 W)` times their bytes one after the other for `W` workers. Here each
//! worker is sent its own piece of all, adds it up in the order of the tree, and sends it to all: `2 (W - 1)` messages of a
//! `W`th part.

use std::collections::VecDeque;
use std::ops::Range;

use crate::error::Result;
use crate::tree::{Part, Tree, middle};

/// What can be summed piece by piece.
pub(crate) trait Pieces: Part {
    /// How many bytes are to be summed, the same in all workers.
    fn bytes(&self) -> usize;
    /// Cuts it into so many pieces, whose sums are those of the whole.
    fn cut(&self, pieces: usize) -> Result<Vec<Self>>;
    /// Puts the pieces together again.
    fn joined(pieces: &[Self]) -> Result<Self>;
}

/// A message takes as long as so many more bytes in one: 30 microseconds of 10 Gbit/s.
const MESSAGE: usize = 32 << 10;

impl Tree<'_> {
    /// [`sum`](Self::sum), in pieces where that is faster.
    pub(crate) fn sum_pieces<P: Pieces>(&self, own: Vec<P>) -> Result<P> {
        if self.pays(self.first(&own)?.bytes()) { self.in_pieces(own) } else { self.sum(own) }
    }

    /// Whether `2 (W - 1)` messages of a `W`th part take less time than `2 ceil(log2 W)` of the whole.
    fn pays(&self, bytes: usize) -> bool {
        let workers = self.workers.size();
        let levels = workers.next_power_of_two().ilog2() as usize;
        let pieces = (workers - 1) * (MESSAGE + bytes / workers);
        workers > 1 && bytes > MESSAGE && pieces < levels * (MESSAGE + bytes)
    }

    fn in_pieces<P: Pieces>(&self, own: Vec<P>) -> Result<P> {
        let mut own: VecDeque<_> = self.own().map(|shard| shard..shard + 1).zip(own).collect();
        let alone = self.stretches_of(self.workers.rank());
        let cut = |shards| sum_of(shards, &mut own)?.cut(self.workers.size());
        let mut cut = alone.into_iter().map(cut).collect::<Result<Vec<_>>>()?;
        let sum = self.sum_of_piece(&cut)?;
        let message = sum.pack()?;
        let mut whole = cut.swap_remove(0);
        whole[self.workers.rank()] = sum;
        for other in self.rounds() {
            whole[other] = whole[other].unpack(&self.workers.exchange(other, &message)?)?;
        }
        P::joined(&whole)
    }

    /// This worker's piece of the sum of all shards. `cut` is what it can sum alone, each cut into a piece for each worker.
    fn sum_of_piece<P: Pieces>(&self, cut: &[Vec<P>]) -> Result<P> {
        let rank = self.workers.rank();
        let own = cut.iter().map(|pieces| pieces[rank].clone());
        let mut parts: Vec<_> = self.stretches_of(rank).into_iter().zip(own).collect();
        for other in self.rounds() {
            let packed = cut.iter().map(|pieces| pieces[other].pack()).collect::<Result<Vec<_>>>()?;
            let (message, stretches) =
                (self.workers.exchange(other, &packed.concat())?, self.stretches_of(other));
            let length = (message.len() / stretches.len().max(1)).max(1);
            for (sent, shards) in message.chunks(length).zip(stretches) {
                parts.push((shards, cut[0][rank].unpack(sent)?));
            }
        }
        parts.sort_by_key(|(shards, _)| shards.start);
        sum_of(0..self.shards, &mut parts.into())
    }

    /// The branches of the tree that a worker holds by itself, in order.
    fn stretches_of(&self, rank: usize) -> Vec<Range<usize>> {
        let mut all = self.stretches(0..self.shards);
        all.retain(|shards| self.owner(shards.start) == rank);
        all
    }

    /// The branches of the tree that one worker holds, of all workers, in order.
    fn stretches(&self, shards: Range<usize>) -> Vec<Range<usize>> {
        if self.owner(shards.start) == self.owner(shards.end - 1) {
            return vec![shards];
        }
        let middle = middle(&shards);
        [self.stretches(shards.start..middle), self.stretches(middle..shards.end)].concat()
    }

    /// With whom to exchange, one after the other: a tournament, in whose rounds all workers are in pairs, but for one of an odd number.
    fn rounds(&self) -> impl Iterator<Item = usize> + use<> {
        let (rank, size) = (self.workers.rank(), self.workers.size());
        let last = size.next_multiple_of(2) - 1;
        let other = move |round: usize| match (round + last - rank) % last {
            _ if rank == last => round * size.div_ceil(2) % last,
            itself if itself == rank => last,
            other => other,
        };
        (0..last).map(other).filter(move |&other| other < size)
    }
}

/// The sum of a branch of the tree, from the sums of the branches in it that come next.
fn sum_of<P: Part>(shards: Range<usize>, parts: &mut VecDeque<(Range<usize>, P)>) -> Result<P> {
    match parts.pop_front() {
        Some((of, part)) if of == shards => return Ok(part),
        Some(part) if shards.len() > 1 => parts.push_front(part),
        _ => {
            let message = format!("the sum of shards {shards:?} of a batch has not come");
            return Err(candle_core::Error::msg(message).into());
        }
    }
    let middle = middle(&shards);
    let left = sum_of(shards.start..middle, parts)?;
    left.plus(&sum_of(middle..shards.end, parts)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::in_threads;

    /// Sums of letters that say in which order they were formed.
    #[derive(Clone)]
    struct Words(Vec<String>);

    impl Part for Words {
        fn plus(mut self, next: &Self) -> Result<Self> {
            self.0.iter_mut().zip(&next.0).for_each(|(sum, next)| *sum = format!("({sum}{next})"));
            Ok(self)
        }
        fn pack(&self) -> Result<Vec<u8>> {
            // All as long as each other, as numbers are.
            Ok(self.0.iter().flat_map(|word| format!("{word:200}").into_bytes()).collect())
        }
        fn unpack(&self, message: &[u8]) -> Result<Self> {
            assert_eq!(message.len(), 200 * self.0.len());
            Ok(Self(
                message.chunks(200).map(|word| String::from_utf8_lossy(word).trim().to_owned()).collect(),
            ))
        }
    }

    impl Pieces for Words {
        fn bytes(&self) -> usize {
            200 * self.0.len()
        }
        fn cut(&self, pieces: usize) -> Result<Vec<Self>> {
            let from = |i: usize| i * self.0.len() / pieces;
            Ok((0..pieces).map(|i| Self(self.0[from(i)..from(i + 1)].to_vec())).collect())
        }
        fn joined(pieces: &[Self]) -> Result<Self> {
            Ok(Self(pieces.iter().flat_map(|piece| piece.0.clone()).collect()))
        }
    }

    #[test]
    fn pieces_are_summed_in_the_order_of_the_tree_whatever_the_workers() {
        for shards in 1..=9 {
            for workers in 1..=shards {
                let same = in_threads(workers, |workers| {
                    let tree = Tree { workers, shards };
                    let word = |shard, i| format!("{shard}{}", (b'a' + i) as char);
                    let own: Vec<_> =
                        tree.own().map(|s| Words((0..13).map(|i| word(s, i)).collect())).collect();
                    (tree.in_pieces(own.clone()).unwrap().0, tree.sum(own).unwrap().0)
                });
                assert!(same.iter().all(|(pieces, whole)| pieces == whole), "{workers} workers: {same:?}");
            }
        }
    }

    #[test]
    fn each_meets_each_in_as_few_rounds_as_there_can_be() {
        for size in 1..=9 {
            let all = in_threads(size, |workers| Tree { workers, shards: size }.rounds().collect::<Vec<_>>());
            for (rank, others) in all.iter().enumerate() {
                let mut sorted = others.clone();
                sorted.sort();
                assert_eq!(sorted, (0..size).filter(|&other| other != rank).collect::<Vec<_>>());
                // An odd number has one that waits, and so all meet in the same order but not at the same place.
                assert!(
                    size % 2 == 1 || (0..others.len()).all(|round| all[others[round]][round] == rank),
                    "{all:?}"
                );
            }
        }
    }

    #[test]
    fn few_bytes_go_up_the_tree_and_many_in_pieces() {
        let pays = |size, bytes| in_threads(size, |workers| Tree { workers, shards: size }.pays(bytes))[0];
        assert!(!pays(1, 1 << 24));
        assert!(!pays(2, 1000) && pays(2, 200_000));
        assert!(!pays(8, 40_000) && pays(8, 200_000));
        assert!(!pays(64, 200_000) && pays(64, 12_000_000));
    }
}
