//! Memory that outlives a call.
//!
//! A training step needs the same few hundred buffers as the step before it. Fresh ones cost an eighth of its time: the kernel
//! clears their pages, and `vec![0.; n]` clears them again. So buffers return to a pool when they are dropped.

use std::cell::Cell;
use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::{Mutex, PoisonError};

use super::events::ByChannel;
use super::scratch::Scratch;

/// Floats that the pool keeps at most; the oldest are freed first.
const LIMIT: usize = 1 << 27;

static POOL: Mutex<Pool> = Mutex::new(Pool::new());

/// Free buffers. A layer has one for each group of items, so that there may be tens of thousands.
struct Pool {
    /// By room, of equal ones the last used first.
    free: BTreeMap<(usize, Reverse<u64>), Vec<f32>>,
    /// Room by age.
    ages: BTreeMap<u64, usize>,
    floats: usize,
    now: u64,
}

impl Pool {
    const fn new() -> Self {
        Self { free: BTreeMap::new(), ages: BTreeMap::new(), floats: 0, now: 0 }
    }

    /// The smallest that has room, if it is not much too large; of several the last used, which caches may still hold.
    fn take(&mut self, len: usize) -> Option<Vec<f32>> {
        let mut fitting = self.free.range((len, Reverse(u64::MAX))..=(2 * len, Reverse(0)));
        let &(room, age) = fitting.next()?.0;
        self.ages.remove(&age.0);
        self.floats -= room;
        self.free.remove(&(room, age))
    }

    fn give(&mut self, values: Vec<f32>) {
        let room = values.capacity();
        self.now += 1;
        self.ages.insert(self.now, room);
        self.free.insert((room, Reverse(self.now)), values);
        self.floats += room;
        while self.floats > LIMIT {
            let Some((age, room)) = self.ages.pop_first() else { return };
            self.free.remove(&(room, Reverse(age)));
            self.floats -= room;
        }
    }
}

/// So many floats, from the pool and back to it.
pub(super) struct Buffer(Vec<f32>);

impl Buffer {
    /// Its contents are whatever they were; tests get NaN, so that nothing relies on them.
    pub(super) fn new(len: usize) -> Self {
        let mut values = POOL.lock().unwrap_or_else(PoisonError::into_inner).take(len).unwrap_or_default();
        values.resize(len, 0.);
        if cfg!(test) {
            values.fill(f32::NAN);
        }
        Self(values)
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let values = std::mem::take(&mut self.0);
        if values.capacity() > 0 {
            POOL.lock().unwrap_or_else(PoisonError::into_inner).give(values);
        }
    }
}

impl Deref for Buffer {
    type Target = [f32];
    fn deref(&self) -> &[f32] {
        &self.0
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [f32] {
        &mut self.0
    }
}

impl fmt::Debug for Buffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Buffer({})", self.0.len())
    }
}

/// What kernels write to before they write their result; a thread has one.
#[derive(Default)]
pub(super) struct Workspace {
    pub(super) rows: Vec<f32>,
    pub(super) values: Vec<f32>,
    pub(super) spikes: Vec<u8>,
    pub(super) dense: Scratch,
    pub(super) by_channel: ByChannel,
}

thread_local! {
    static WORKSPACE: Cell<Option<Box<Workspace>>> = const { Cell::new(None) };
}

impl Workspace {
    /// Lends this thread's. A call within a call gets a fresh one.
    pub(super) fn with<R>(f: impl FnOnce(&mut Self) -> R) -> R {
        let mut workspace = WORKSPACE.take().unwrap_or_default();
        let result = f(&mut workspace);
        WORKSPACE.set(Some(workspace));
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pool_lends_what_fits_and_frees_the_oldest() {
        let mut pool = Pool::new();
        [100, 40, 60].into_iter().for_each(|len| pool.give(Vec::with_capacity(len)));
        assert_eq!(pool.take(50).map(|v| v.capacity()), Some(60));
        assert!(pool.take(10).is_none(), "40 floats for 10 would waste most of them");
        assert!(pool.take(41).is_none(), "so would 100 for 41");
        assert_eq!(pool.floats, 140);
        let last = Vec::with_capacity(40);
        let where_it_lies = last.as_ptr();
        pool.give(last);
        assert_eq!(pool.take(40).map(|v| v.as_ptr()), Some(where_it_lies));
        pool.give(Vec::with_capacity(LIMIT));
        assert!(pool.floats <= LIMIT && pool.free.len() == 1 && pool.ages.len() == 1);
    }

    #[test]
    fn a_workspace_can_be_asked_for_within_another() {
        let inner = Workspace::with(|outer| {
            outer.values.push(1.);
            Workspace::with(|inner| inner.values.len())
        });
        assert_eq!(inner, 0);
    }
}
