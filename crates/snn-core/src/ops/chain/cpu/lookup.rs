//! The currents of a first layer that reads sums of looked-up vectors: since a convolution is linear, what it makes of each
//! vector is laid out once, and looked up too.

use candle_core::{Result, Tensor, bail};

use super::layer::Layer;
use super::memory::Buffer;
use crate::geometry::NOWHERE;
use crate::ops::gemm::{Matrix, matmul};
use crate::ops::simd::vectorised;

/// Numbers that tables have at most, 256 MiB of them.
const ROOM: usize = 1 << 26;

/// The vectors that an input is a sum of, each `[vectors, channels]`.
#[derive(Debug)]
pub(crate) struct Vectors {
    pub(crate) token: Vec<f32>,
    /// One for each position of the input.
    pub(crate) position: Vec<f32>,
    /// Those of which an item has one each, the same at all positions.
    pub(crate) of_item: Vec<Vec<f32>>,
}

/// What the layer makes of each of them.
#[derive(Debug)]
pub(crate) struct Tables {
    channels: usize,
    taps: usize,
    /// What reaches each target: sources, and the taps that they come through.
    places: Vec<Vec<(usize, usize)>>,
    /// Of each target, by number, the set of those taps.
    reach: Vec<usize>,
    reaches: usize,
    /// `[tokens, taps, channels]`
    token: Vec<f32>,
    /// `[targets, channels]`
    position: Vec<f32>,
    /// `[vectors, reaches, channels]`
    of_item: Vec<Vec<f32>>,
}

impl Tables {
    /// Of a layer with these weights; none if there is no [`ROOM`].
    pub(super) fn new(layer: &Layer, weights: &[f32], vectors: &Vectors) -> Option<Self> {
        let (links, (from, channels)) = (&layer.links, layer.channels);
        let Vectors { token, position, of_item } = vectors;
        let place = |target: usize| {
            let sources = links.source_of.iter().skip(target).step_by(links.targets).enumerate();
            let known = sources.filter(|(_, source)| **source != NOWHERE);
            known.map(|(tap, &source)| (source as usize, tap)).collect()
        };
        let places: Vec<_> = (0..links.targets).map(place).collect();
        let (reach, sets) = reaches(&places);
        let rows = |vectors: &Vec<f32>| vectors.len() / from;
        let of_items =
            of_item.iter().map(|vectors| rows(vectors) * sets.len().max(links.taps)).sum::<usize>();
        let all = rows(token) * links.taps + links.targets.max(rows(position) * links.taps) + of_items;
        if all.saturating_mul(channels) > ROOM {
            return None;
        }
        let taps = Taps::new(layer, weights);
        let everywhere = |vectors: &Vec<f32>| {
            let place = |i: usize| sets[i % sets.len()].iter().map(|&tap| (i / sets.len(), tap)).collect();
            let places: Vec<_> = (0..rows(vectors) * sets.len()).map(place).collect();
            taps.sums(&taps.of(vectors), &places)
        };
        Some(Self {
            channels,
            taps: links.taps,
            reach,
            reaches: sets.len(),
            token: taps.of(token),
            position: taps.sums(&taps.of(position), &places),
            of_item: of_item.iter().map(everywhere).collect(),
            places,
        })
    }
}

/// The weights of a layer, `[source channels, taps, target channels]`.
struct Taps {
    weights: Vec<f32>,
    from: usize,
    taps: usize,
    to: usize,
}

impl Taps {
    fn new(layer: &Layer, weights: &[f32]) -> Self {
        let ((from, to), taps) = (layer.channels, layer.links.taps);
        let weight = |i| weights[layer.weight_index(i / (taps * to), i / to % taps, i % to)];
        Self { weights: (0..from * taps * to).map(weight).collect(), from, taps, to }
    }

    /// Vectors through each tap, `[vectors, taps, target channels]`.
    fn of(&self, vectors: &[f32]) -> Vec<f32> {
        let (rows, width) = (vectors.len() / self.from, self.taps * self.to);
        let mut through = vec![0f32; rows * width];
        let vectors = Matrix::row_major(vectors, rows, self.from);
        matmul(&mut through, vectors, Matrix::row_major(&self.weights, self.from, width), false);
        through
    }

    /// What reaches each place: the sum of some vectors through some taps.
    fn sums(&self, through: &[f32], places: &[Vec<(usize, usize)>]) -> Vec<f32> {
        let mut sums = vec![0f32; places.len() * self.to];
        for (sum, place) in sums.chunks_exact_mut(self.to).zip(places) {
            for (vector, tap) in place {
                add(sum, &through[(vector * self.taps + tap) * self.to..][..self.to]);
            }
        }
        sums
    }
}

/// Of each target, which set of taps reaches it, and those sets.
fn reaches(places: &[Vec<(usize, usize)>]) -> (Vec<usize>, Vec<Vec<usize>>) {
    let mut sets: Vec<Vec<usize>> = Vec::new();
    let number = |place: &Vec<(usize, usize)>| {
        let set: Vec<_> = place.iter().map(|&(_, tap)| tap).collect();
        sets.iter().position(|known| *known == set).unwrap_or_else(|| {
            sets.push(set);
            sets.len() - 1
        })
    };
    (places.iter().map(number).collect(), sets)
}

/// What is looked up, on the CPU.
#[derive(Debug)]
pub(crate) struct Tokens {
    /// u32 `[N, H, W]`
    maps: Tensor,
    tokens: Vec<u32>,
    of_item: Vec<Vec<u32>>,
}

impl Tokens {
    /// Tokens `[N, H, W]`, and what each item has of every other table, `[N]`; all u32.
    pub(crate) fn new(maps: &Tensor, of_item: &[Tensor]) -> Result<Self> {
        let numbers = |tensor: &Tensor| tensor.flatten_all()?.to_vec1::<u32>();
        let of_item = of_item.iter().map(numbers).collect::<Result<_>>()?;
        Ok(Self { maps: maps.clone(), tokens: numbers(maps)?, of_item })
    }

    pub(super) fn maps(&self) -> &Tensor {
        &self.maps
    }

    /// Refuses numbers that tables of so many vectors do not have.
    pub(crate) fn check(&self, tokens: usize, of_item: &[usize]) -> Result<()> {
        let all =
            [(&self.tokens, tokens)].into_iter().chain(self.of_item.iter().zip(of_item.iter().copied()));
        for (numbers, vectors) in all {
            if let Some(number) = numbers.iter().find(|&&number| number as usize >= vectors) {
                bail!("embedding: vector {number} of a table of {vectors}")
            }
        }
        Ok(())
    }
}

/// Tokens with the tables where they are looked up.
pub(super) struct LookedUp<'a> {
    tokens: &'a Tokens,
    tables: &'a Tables,
}

impl<'a> LookedUp<'a> {
    pub(super) fn new(tokens: &'a Tokens, tables: &'a Tables) -> Self {
        Self { tokens, tables }
    }

    /// The currents of an item, at these targets or at all.
    pub(super) fn currents(&self, item: usize, targets: Option<&[u32]>) -> Buffer {
        let Self { tokens: Tokens { maps, tokens, of_item }, tables } = self;
        let each = tokens.len() / maps.dims()[0];
        let of_item: Vec<u32> = of_item.iter().map(|numbers| numbers[item]).collect();
        let all: Vec<u32>;
        let targets = match targets {
            Some(targets) => targets,
            None => {
                all = (0..tables.places.len() as u32).collect();
                &all
            }
        };
        let mut currents = Buffer::new(targets.len() * tables.channels);
        add_up(tables, (&tokens[item * each..][..each], &of_item), targets, &mut currents);
        currents
    }
}

#[inline(always)]
fn add(sum: &mut [f32], row: &[f32]) {
    sum.iter_mut().zip(row).for_each(|(sum, x)| *sum += x);
}

vectorised! {
    /// The currents at these targets, `[targets, channels]`.
    fn add_up(tables: &Tables, seen: (&[u32], &[u32]), targets: &[u32], out: &mut [f32]) {
        let (c, (tokens, of_item)) = (tables.channels, seen);
        for (row, &target) in out.chunks_exact_mut(c).zip(targets) {
            let target = target as usize;
            row.copy_from_slice(&tables.position[target * c..][..c]);
            for (table, &number) in tables.of_item.iter().zip(of_item) {
                let vector = number as usize * tables.reaches + tables.reach[target];
                add(row, &table[vector * c..][..c]);
            }
            for &(source, tap) in &tables.places[target] {
                add(row, &tables.token[(tokens[source] as usize * tables.taps + tap) * c..][..c]);
            }
        }
    }
}
