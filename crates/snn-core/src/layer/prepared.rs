//! Spiking layers with fixed parameters, laid out once for many evaluations.

use candle_core::{Result, Tensor, bail};

use super::check::{Sizes, check as check_layers};
use super::drive::Finish;
use super::run::{has_events, make_as, specs, supported, without_map};
use crate::ops::chain::{Prepared, Spec, Tables, Tokens, Vectors};
use crate::ops::conv::check;
use crate::{Drive, Readout, SpikingLayer, SpikingStack};

/// A [`SpikingStack`] for many evaluations: running statistics are folded in, and weights laid out for the kernels, once.
///
/// It borrows nothing: the stack may go, and it may be sent to another thread. Its parameters must not change as long as it
/// lives. Sampling asks a denoiser hundreds of times, and each time only for a few positions: see
/// [`readout_at`](Self::readout_at).
///
/// # Examples
/// ```
/// # use candle_core::{DType, Device, Tensor};
/// # use snn_core::{ConvConfig, Drive, LifConfig, ParamStore, Readout, Seed, SpikingLayer, SpikingStack};
/// # fn main() -> candle_core::Result<()> {
/// let store = ParamStore::new(Seed(0), DType::F32, &Device::Cpu);
/// let layer = SpikingLayer::conv(1, 8, ConvConfig::new(3, 1, 1), LifConfig::default(), store.builder())?;
/// let stack = SpikingStack::new(vec![layer]);
/// let prepared = stack.prepare(&[1, 7, 7])?;
/// let images = Tensor::ones((2, 1, 7, 7), DType::F32, &Device::Cpu)?;
/// let (drive, wanted) = (Drive::Constant(&images, 4), [vec![0, 24], vec![]]);
/// let some = prepared.readout_at(drive, Readout::Mean, &wanted)?; // zero but at two positions of the first image
/// let all = stack.readout(drive, Readout::Mean, false)?;
/// assert_eq!(some.get(0)?.flatten_from(1)?.get_on_dim(1, 24)?.to_vec1::<f32>()?,
///            all.get(0)?.flatten_from(1)?.get_on_dim(1, 24)?.to_vec1::<f32>()?);
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct PreparedStack {
    layers: Vec<SpikingLayer>,
    specs: Vec<Spec>,
    pub(super) map: Vec<usize>,
    /// Positions of the output.
    positions: usize,
    /// Where there is a kernel.
    chain: Option<Prepared>,
}

impl SpikingStack {
    /// Prepares the stack for inputs whose items are `[C, H, W]` (or `[C]` in front of linear layers).
    ///
    /// # Errors
    /// Returns an error if the map does not fit or has more positions than memory, or if there are no layers.
    pub fn prepare(&self, map: &[usize]) -> Result<PreparedStack> {
        PreparedStack::new(self.layers().to_vec(), specs(self.layers(), map)?, map)
    }
}

impl PreparedStack {
    /// Of layers with these specs on this map.
    pub(super) fn new(layers: Vec<SpikingLayer>, specs: Vec<Spec>, map: &[usize]) -> Result<Self> {
        specs.iter().try_for_each(|spec| spec.geometry.room())?;
        let positions = specs.last().map_or(0, |last| last.geometry.target.0 * last.geometry.target.1);
        let chain = if layers.iter().all(|layer| layer.neurons.lif().is_some()) {
            let weights: Vec<_> = layers.iter().map(|layer| layer.synapse.weight.detach()).collect();
            let affines = layers.iter().map(|layer| Ok(Tensor::cat(&layer.affines(false)?, 0)?.detach()));
            Prepared::new(&specs, &weights, &affines.collect::<Result<Vec<_>>>()?)?
        } else {
            None
        };
        Ok(Self { layers, specs, map: map.to_vec(), positions, chain })
    }

    /// Computes [`SpikingStack::forward`] with running statistics, without gradient.
    ///
    /// # Shapes
    /// -> `[T, N, C, H, W]`; of linear layers `[T, N, C]`.
    /// # Errors
    /// Returns an error if items are not those that the stack was prepared for.
    pub fn forward(&self, drive: Drive<'_>) -> Result<Tensor> {
        self.run(drive, Finish::Spikes, None)
    }

    /// Computes [`SpikingStack::readout`] with running statistics, without gradient.
    ///
    /// # Errors
    /// Returns an error if the input has other items than the stack was prepared for.
    pub fn readout(&self, drive: Drive<'_>, readout: Readout) -> Result<Tensor> {
        self.run(drive, Finish::Sums(&[readout]), None)?.squeeze(0)
    }

    /// Computes the same at some positions only, those of item `n` being `positions[n]`, counted row by row; zero elsewhere.
    ///
    /// On the CPU in f32 each layer computes what these positions depend on, and nothing else, and the values, which are those of
    /// [`readout`](Self::readout), do not depend on the rest of the batch. Elsewhere all positions are computed, and the others dropped.
    ///
    /// # Errors
    /// Returns the errors of [`readout`](Self::readout), and an error if there is not one list for each item or if a position lies outside the
    /// map.
    pub fn readout_at(&self, drive: Drive<'_>, readout: Readout, positions: &[Vec<u32>]) -> Result<Tensor> {
        self.run(drive, Finish::Sums(&[readout]), Some(&ascending(positions)))?.squeeze(0)
    }

    /// Computes [`SpikingStack::readout_of`] at some positions only, as [`readout_at`](Self::readout_at) does.
    ///
    /// # Errors
    /// Returns the errors of both.
    pub fn readout_of_at(
        &self,
        drive: Drive<'_>,
        readout: Readout,
        layers: &[usize],
        positions: &[Vec<u32>],
    ) -> Result<Tensor> {
        self.run(drive, Finish::SumsOf(readout, layers), Some(&ascending(positions)))?.squeeze(0)
    }

    /// The positions `at` are those of a sum.
    pub(super) fn run(
        &self,
        drive: Drive<'_>,
        finish: Finish<'_>,
        at: Option<&[Vec<u32>]>,
    ) -> Result<Tensor> {
        if drive.map() != self.map {
            bail!("a stack prepared for items of {:?}, not {:?}", self.map, drive.map())
        }
        self.check(Sizes::of(drive)?, finish, at)?;
        let (ys, heeds) = match &self.chain {
            Some(chain) if supported(&self.layers, drive)? => {
                let end = finish.end(drive.time_steps()?, self.layers.len())?;
                let ys = chain.run(drive.tensor(), drive.constant(), end, at)?;
                (without_map(&self.layers, ys)?, chain.heeds_positions())
            }
            _ => (make_as(&self.layers, &self.specs, drive, finish, false)?.0.detach(), false),
        };
        match at {
            Some(at) if !heeds => masked(&ys, at),
            _ => Ok(ys),
        }
    }

    fn check(&self, sizes: Sizes<'_>, finish: Finish<'_>, at: Option<&[Vec<u32>]>) -> Result<()> {
        if let Some(at) = at {
            check(at, sizes.items, self.positions, 1)?;
        }
        check_layers(&self.layers, &self.specs, sizes, finish, false)
    }

    /// What the first layer makes of each of these vectors, where a kernel has use for it.
    pub(super) fn tables(&self, vectors: impl FnOnce() -> Result<Vectors>) -> Result<Option<Tables>> {
        match &self.chain {
            Some(Prepared::Cpu(chain)) if self.layers.iter().all(has_events) => Ok(chain.tables(&vectors()?)),
            _ => Ok(None),
        }
    }

    /// [`run`](Self::run) on an input that is looked up in [`tables`](Self::tables).
    pub(super) fn run_on_tokens(
        &self,
        looked_up: (&Tokens, &Tables),
        sizes: Sizes<'_>,
        finish: Finish<'_>,
        at: Option<&[Vec<u32>]>,
    ) -> Result<Tensor> {
        self.check(sizes, finish, at)?;
        let Some(Prepared::Cpu(chain)) = &self.chain else { bail!("tables of another stack") };
        chain.run_on_tokens(looked_up, sizes.time_steps, finish.end(sizes.time_steps, self.layers.len())?, at)
    }
}

pub(super) fn ascending(positions: &[Vec<u32>]) -> Vec<Vec<u32>> {
    let sorted = |positions: &Vec<u32>| {
        let mut positions = positions.clone();
        positions.sort_unstable();
        positions.dedup();
        positions
    };
    positions.iter().map(sorted).collect()
}

/// The twin of computing only these positions: all but they become zero. `ys: [rows, N, C, ...]`.
fn masked(ys: &Tensor, at: &[Vec<u32>]) -> Result<Tensor> {
    let map: usize = ys.dims()[3..].iter().product();
    let mut mask = vec![0u8; at.len() * map];
    for (mask, at) in mask.chunks_exact_mut(map).zip(at) {
        at.iter().for_each(|&p| mask[p as usize] = 1);
    }
    let shape = [&[1, at.len(), 1], &ys.dims()[3..]].concat();
    ys.broadcast_mul(&Tensor::from_vec(mask, shape, ys.device())?.to_dtype(ys.dtype())?)
}
