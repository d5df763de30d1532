//! What layers in a row refuse, before any of them has run.

use candle_core::{DType, Error, Result, Tensor, bail};

use super::drive::{Drive, Finish};
use crate::SpikingLayer;
use crate::ops::batch_norm::check_count;
use crate::ops::chain::Spec;
use crate::ops::room;
use crate::time::check_time_steps;

/// What layers are asked to run on.
#[derive(Clone, Copy)]
pub(crate) struct Sizes<'a> {
    /// One of the input's type.
    pub(super) like: &'a Tensor,
    pub(super) time_steps: usize,
    pub(super) items: usize,
}

impl<'a> Sizes<'a> {
    pub(crate) fn of(drive: Drive<'a>) -> Result<Self> {
        let (Drive::Spikes(like) | Drive::Constant(like, _)) = drive;
        Ok(Self { like, time_steps: drive.time_steps()?, items: drive.items()? })
    }
}

/// Refuses what some layer would refuse, before any of them has run.
pub(crate) fn check(
    layers: &[SpikingLayer],
    specs: &[Spec],
    Sizes { like: xs, time_steps, items }: Sizes<'_>,
    finish: Finish<'_>,
    train: bool,
) -> Result<()> {
    check_time_steps(time_steps)?;
    if let Finish::SumsOf(_, of) = finish {
        check_summed(of, specs)?;
    }
    for (i, (layer, spec)) in layers.iter().zip(specs).enumerate() {
        let name = if i == 0 { "its input" } else { "the input of the stack" };
        layer.synapse.check_type(&format!("spiking layer {i}"), name, xs)?;
        let [c, h, w] = spec.geometry.output();
        let values = [time_steps, items, h, w].into_iter().fold(1usize, usize::saturating_mul);
        if train && layer.norm.is_some() {
            let dims = format_args!("{:?} at each of {time_steps} time steps", [items, c, h, w]);
            check_count(values, &dims).map_err(|e| Error::msg(format!("spiking layer {i}: {e}")))?;
        }
        room("the spikes of a layer, of one item", &[time_steps, c, h, w], DType::U8)?;
        if i + 1 == layers.len() && finish == Finish::Spikes {
            room("the spikes of a stack", &[time_steps, items, c, h, w], xs.dtype())?;
        }
    }
    Ok(())
}

/// Whether these layers can be summed side by side.
fn check_summed(of: &[usize], specs: &[Spec]) -> Result<()> {
    let map = |i: &usize| specs.get(*i).map(|spec| spec.geometry.target);
    let last = specs.len().saturating_sub(1);
    if !of.contains(&last) || of.iter().any(|i| map(i) != map(&last)) {
        let maps: Vec<_> = specs.iter().map(|spec| spec.geometry.target).collect();
        bail!(
            "sums of the layers {of:?} of a stack whose maps are {maps:?}: wanted are the last, and others of its map"
        )
    }
    if (1..of.len()).any(|k| of[..k].contains(&of[k])) {
        bail!("sums of the layers {of:?}: one of them is named twice")
    }
    Ok(())
}
