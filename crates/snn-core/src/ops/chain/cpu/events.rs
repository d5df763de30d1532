//! Spikes as lists: for every time step and position, the channels that fire.

use crate::ops::simd::vectorised;

/// The input of a layer for one item of a batch, channels last.
#[derive(Debug)]
pub(super) enum Signal {
    /// Zeros and ones.
    Events(Events),
    /// Anything: `[time steps, positions, channels]`.
    Dense(Vec<f32>),
}

/// `[time steps, positions]` lists of channels, ascending, one after the other.
#[derive(Debug)]
pub(super) struct Events {
    pub(super) positions: usize,
    pub(super) channels: usize,
    /// Where each list begins; one more at the end.
    offsets: Vec<u32>,
    fired: Vec<u16>,
}

vectorised! {
    /// Lists the ones of each row of channels, and where each list ends.
    fn list(spikes: &[u8], channels: usize, ends: &mut [u32]) -> Vec<u16> {
        let count: usize = spikes.chunks(128).map(|part| usize::from(part.iter().sum::<u8>())).sum();
        let mut fired = vec![0; count + AT_ONCE];
        let mut next = 0;
        for (row, end) in spikes.chunks_exact(channels).zip(ends) {
            for (i, part) in row.chunks(64).enumerate() {
                let mut bits = bits(part);
                let mut at = next;
                next += bits.count_ones() as usize;
                // So many without a look whether there are as many, which would be a guess, and wrong in most rows. What is written too
                // much lies where the next list comes.
                loop {
                    for place in &mut fired[at..at + AT_ONCE] {
                        *place = ((i * 64) as u16).wrapping_add(bits.trailing_zeros() as u16);
                        bits &= bits.wrapping_sub(1);
                    }
                    if bits == 0 {
                        break;
                    }
                    at += AT_ONCE;
                }
            }
            *end = next as u32;
        }
        fired.truncate(count);
        fired
    }
}

/// Ones that are listed at once.
const AT_ONCE: usize = 4;

/// At most 64 bytes, each 0 or 1, as bits.
#[inline(always)]
fn bits(bytes: &[u8]) -> u64 {
    // The usual numbers of channels, without loops.
    #[cfg(target_arch = "x86_64")]
    match bytes.len() {
        64 => return bits_of::<4>(bytes),
        32 => return bits_of::<2>(bytes),
        _ => {}
    }
    let (words, rest) = bytes.as_chunks::<8>();
    let mut bits = 0;
    for (i, word) in words.iter().enumerate() {
        // The product's uppermost byte holds the lowest bits of the eight bytes, in order.
        bits |= (u64::from_le_bytes(*word).wrapping_mul(0x0102_0408_1020_4080) >> 56) << (8 * i);
    }
    for (i, &byte) in rest.iter().enumerate() {
        bits |= u64::from(byte) << (8 * words.len() + i);
    }
    bits
}

/// [`bits`] of so many vectors of 16 bytes, in instructions that every x86-64 has.
#[cfg(target_arch = "x86_64")]
#[allow(unsafe_code)]
#[inline(always)]
fn bits_of<const VECTORS: usize>(bytes: &[u8]) -> u64 {
    use std::arch::x86_64::{__m128i, _mm_loadu_si128, _mm_movemask_epi8, _mm_slli_epi16};
    let mut bits = 0;
    for (i, part) in bytes.as_chunks::<16>().0[..VECTORS].iter().enumerate() {
        // The lowest bit of each byte becomes its highest, which is what a mask is made of.
        // SAFETY: SSE2 is part of x86-64, and `part` has the 16 bytes that are loaded.
        let mask = unsafe {
            _mm_movemask_epi8(_mm_slli_epi16::<7>(_mm_loadu_si128(part.as_ptr().cast::<__m128i>())))
        };
        bits |= u64::from(mask as u32) << (16 * i);
    }
    bits
}

impl Events {
    /// From bytes `[time steps, positions, channels]`, each 0 or 1.
    pub(super) fn pack(spikes: &[u8], positions: usize, channels: usize) -> Self {
        let mut offsets = vec![0; spikes.len() / channels.max(1) + 1];
        let fired = list(spikes, channels, &mut offsets[1..]);
        Self { positions, channels, offsets, fired }
    }

    /// The channels that fire at time step `t`, position `q`.
    #[inline(always)]
    pub(super) fn at(&self, t: usize, q: usize) -> &[u16] {
        let i = t * self.positions + q;
        &self.fired[self.offsets[i] as usize..self.offsets[i + 1] as usize]
    }

    pub(super) fn time_steps(&self) -> usize {
        (self.offsets.len() - 1) / self.positions.max(1)
    }

    /// The fraction of ones.
    pub(super) fn density(&self) -> f64 {
        self.fired.len() as f64 / ((self.offsets.len() - 1) * self.channels).max(1) as f64
    }

    /// The time steps `times` as numbers, `[times, positions, channels]`.
    pub(super) fn densify(&self, times: std::ops::Range<usize>, out: &mut Vec<f32>) {
        out.clear();
        out.resize(times.len() * self.positions * self.channels, 0.);
        let rows = times.flat_map(|t| (0..self.positions).map(move |q| (t, q)));
        for (row, (t, q)) in out.chunks_exact_mut(self.channels).zip(rows) {
            self.at(t, q).iter().for_each(|&c| row[usize::from(c)] = 1.);
        }
    }

    /// The same spikes at a single position, where channel `c` of position `q` is channel `c * positions + q`.
    pub(super) fn flattened(&self) -> Self {
        let (steps, positions) = (self.time_steps(), self.positions);
        let (mut offsets, mut fired) = (vec![0; steps + 1], vec![0; self.fired.len()]);
        let mut next = vec![0; self.channels + 1];
        for t in 0..steps {
            let [start, end] = [t, t + 1].map(|t| self.offsets[t * positions]);
            next.fill(0);
            self.fired[start as usize..end as usize].iter().for_each(|&c| next[usize::from(c) + 1] += 1);
            next[0] = start;
            for c in 0..self.channels {
                next[c + 1] += next[c];
            }
            for q in 0..positions {
                for &c in self.at(t, q) {
                    let next = &mut next[usize::from(c)];
                    fired[*next as usize] = c * positions as u16 + q as u16;
                    *next += 1;
                }
            }
            offsets[t + 1] = end;
        }
        Self { positions: 1, channels: positions * self.channels, offsets, fired }
    }

    /// The spikes of these time steps by channel instead: `(time - times.start) * positions + position`, ascending.
    pub(super) fn by_channel(&self, times: std::ops::Range<usize>, out: &mut ByChannel) {
        let all = &self.fired[self.offsets[times.start * self.positions] as usize
            ..self.offsets[times.end * self.positions] as usize];
        out.offsets.clear();
        out.offsets.resize(self.channels + 2, 0);
        all.iter().for_each(|&c| out.offsets[usize::from(c) + 2] += 1);
        for c in 2..out.offsets.len() {
            out.offsets[c] += out.offsets[c - 1];
        }
        out.places.resize(all.len(), 0);
        let rows = times.flat_map(|t| (0..self.positions).map(move |q| (t, q)));
        for (place, (t, q)) in rows.enumerate() {
            for &c in self.at(t, q) {
                let next = &mut out.offsets[usize::from(c) + 1];
                out.places[*next as usize] = place as u32;
                *next += 1;
            }
        }
    }
}

/// The spikes of each channel: where they happened, ascending. See [`Events::by_channel`].
#[derive(Default)]
pub(super) struct ByChannel {
    offsets: Vec<u32>,
    places: Vec<u32>,
}

impl ByChannel {
    /// The spikes of items that have one position: `item * time steps + time`.
    pub(super) fn collect(&mut self, items: &[&Events]) {
        let channels = items.first().map_or(0, |events| events.channels);
        self.offsets.clear();
        self.offsets.resize(channels + 2, 0);
        let all = || items.iter().flat_map(|events| &events.fired);
        all().for_each(|&c| self.offsets[usize::from(c) + 2] += 1);
        for c in 2..self.offsets.len() {
            self.offsets[c] += self.offsets[c - 1];
        }
        self.places.resize(self.offsets.last().map_or(0, |&end| end as usize), 0);
        let rows = items.iter().flat_map(|events| (0..events.time_steps()).map(|t| events.at(t, 0)));
        for (row, fired) in rows.enumerate() {
            for &c in fired {
                let next = &mut self.offsets[usize::from(c) + 1];
                self.places[*next as usize] = row as u32;
                *next += 1;
            }
        }
    }

    #[inline(always)]
    pub(super) fn at(&self, channel: usize) -> &[u32] {
        &self.places[self.offsets[channel] as usize..self.offsets[channel + 1] as usize]
    }
}

impl Signal {
    /// From values `[channels, positions]` of each time step; events where all of them are 0 or 1.
    pub(super) fn new<'a>(
        steps: impl Iterator<Item = &'a [f32]> + Clone,
        positions: usize,
        channels: usize,
    ) -> Self {
        let size = positions * channels;
        if steps.clone().all(is_binary) {
            let mut bytes = vec![0; steps.clone().count() * size];
            for (step, bytes) in steps.zip(bytes.chunks_exact_mut(size)) {
                channels_last(step, positions, bytes, |x| u8::from(x == 1.));
            }
            return Self::Events(Events::pack(&bytes, positions, channels));
        }
        let mut values = vec![0.; steps.clone().count() * size];
        for (step, values) in steps.zip(values.chunks_exact_mut(size)) {
            channels_last(step, positions, values, |x| x);
        }
        Self::Dense(values)
    }
}

vectorised! {
    /// Whether all values are 0 or 1.
    fn is_binary(values: &[f32]) -> bool {
        values.chunks(256).all(|part| part.iter().fold(true, |all, &x| all & ((x == 0.) | (x == 1.))))
    }
}

/// `[channels, positions]` -> `[positions, channels]`.
pub(super) fn channels_last<A: Copy, B>(from: &[A], positions: usize, to: &mut [B], f: impl Fn(A) -> B) {
    if positions == 1 {
        return to.iter_mut().zip(from).for_each(|(to, &x)| *to = f(x));
    }
    let channels = from.len() / positions.max(1);
    for (c, plane) in from.chunks_exact(positions).enumerate() {
        for (p, &x) in plane.iter().enumerate() {
            to[p * channels + c] = f(x);
        }
    }
}

/// `[positions, channels]` -> `[channels, positions]`.
pub(super) fn channels_first<A: Copy, B>(from: &[A], channels: usize, to: &mut [B], f: impl Fn(A) -> B) {
    let positions = from.len() / channels.max(1);
    if positions == 1 {
        return to.iter_mut().zip(from).for_each(|(to, &x)| *to = f(x));
    }
    // In tiles, so that a line of either side is in the cache until all of it is used.
    for (tile, rows) in from.chunks(TILE * channels).enumerate() {
        for c in 0..channels {
            let to = &mut to[c * positions + tile * TILE..][..rows.len() / channels];
            to.iter_mut().zip(rows.chunks_exact(channels)).for_each(|(to, row)| *to = f(row[c]));
        }
    }
}

/// Positions that are turned round at once.
const TILE: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    fn spikes() -> Vec<u8> {
        (0..3 * 4 * 19).map(|i| u8::from(i * 7 % 11 < 3)).collect()
    }

    #[test]
    fn lists_hold_exactly_the_ones() {
        let (spikes, (positions, channels)) = (spikes(), (4, 19));
        let events = Events::pack(&spikes, positions, channels);
        assert_eq!(events.time_steps(), 3);
        let mut values = Vec::new();
        events.densify(0..3, &mut values);
        assert!(values.iter().zip(&spikes).all(|(v, &s)| *v == f32::from(s)));
        let mut by_channel = ByChannel::default();
        events.by_channel(1..3, &mut by_channel);
        for c in 0..channels {
            let wanted = (0..2 * positions).filter(|i| spikes[(positions + i) * channels + c] == 1);
            assert!(by_channel.at(c).iter().map(|&i| i as usize).eq(wanted), "channel {c}");
        }
        let ones = spikes.iter().filter(|&&s| s == 1).count() as f64;
        assert_eq!(events.density(), ones / spikes.len() as f64);
    }

    #[test]
    fn flattened_lists_are_those_of_planes() {
        let (spikes, (positions, channels)) = (spikes(), (4, 19));
        let mut planes = vec![0; spikes.len()];
        let steps = spikes.chunks_exact(positions * channels);
        for (step, planes) in steps.zip(planes.chunks_exact_mut(positions * channels)) {
            channels_first(step, channels, planes, |x| x);
        }
        let wanted = Events::pack(&planes, 1, positions * channels);
        let got = Events::pack(&spikes, positions, channels).flattened();
        assert_eq!((got.positions, got.channels), (wanted.positions, wanted.channels));
        assert_eq!((got.offsets, got.fired), (wanted.offsets, wanted.fired));
    }

    #[test]
    fn bits_are_those_of_the_bytes() {
        for len in [1, 7, 8, 16, 19, 32, 45, 63, 64] {
            let bytes: Vec<u8> = (0..len).map(|i: usize| u8::from(i * 7 % 5 < 2)).collect();
            let wanted = bytes.iter().enumerate().map(|(i, &byte)| u64::from(byte) << i).sum::<u64>();
            assert_eq!(bits(&bytes), wanted, "{len}");
        }
    }

    #[test]
    fn only_zeros_and_ones_become_events() {
        let binary = [1f32, 0., 0., 1., 1., 0.];
        assert!(matches!(Signal::new([&binary[..]].into_iter(), 3, 2), Signal::Events(_)));
        let mut other = binary;
        other[4] = 0.5;
        let Signal::Dense(values) = Signal::new([&other[..]].into_iter(), 3, 2) else { panic!("binary") };
        assert_eq!(values, [1., 1., 0., 0.5, 0., 0.]);
    }
}
