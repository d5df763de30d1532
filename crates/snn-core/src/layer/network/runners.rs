//! Who runs the spiking layers of a network: all time steps at once, or a chunk of them.

use candle_core::{Result, Tensor};

use super::flow::{Runner, one_by_one};
use super::{Layers, step_layers};
use crate::layer::drive::Finish;
use crate::layer::norm::Batch;
use crate::layer::run::{flattening_specs, make, make_as, observe};
use crate::layer::stack::make_observed;
use crate::layer::state::Course;
use crate::{Drive, Observer, Readout, SpikingLayer};

/// All time steps at once, differentiable.
pub(super) struct Pass<'a, 'o> {
    train: bool,
    observe: Option<&'o mut Observer<'o>>,
    /// What will move the running statistics.
    ran: Vec<(&'a SpikingLayer, Option<Batch>)>,
}

impl<'a, 'o> Pass<'a, 'o> {
    pub(super) fn new(train: bool, observe: Option<&'o mut Observer<'o>>) -> Self {
        Self { train, observe, ran: Vec::new() }
    }

    /// Moves the running statistics, now that all layers have run.
    pub(super) fn settle(self) -> Result<()> {
        self.ran.iter().try_for_each(|(layer, batch)| observe(layer, batch.as_ref()))
    }
}

impl<'a> Runner<'a, Layers> for Pass<'a, '_> {
    fn run(
        &mut self,
        name: &str,
        layers: &'a Layers,
        drive: Drive<'_>,
        finish: Finish<'_>,
    ) -> Result<Tensor> {
        let made = match &mut self.observe {
            None => make(layers.layers(), drive, finish, self.train),
            Some(observe) => {
                let mut named = |i: usize, spikes: &Tensor| observe(&format!("{name}.{i}"), spikes);
                make_observed(layers.layers(), drive, self.train, &mut named)
            }
        };
        let (ys, batches) = made.map_err(|error| of_part(error, name))?;
        self.ran.extend(layers.layers().iter().zip(batches));
        match finish {
            // Who observes wants spikes, and sums them afterwards.
            Finish::Sums(readouts) if self.observe.is_some() => Readout::apply_all(readouts, &ys),
            Finish::Spikes | Finish::Sums(_) | Finish::SumsOf(..) => Ok(ys),
        }
    }

    fn run_flattening(
        &mut self,
        parts: [(&str, &'a Layers); 2],
        drive: Drive<'_>,
        finish: Finish<'_>,
    ) -> Result<Tensor> {
        let layers = parts.map(|(_, part)| part.layers());
        let all = layers.concat();
        let fused = || make_as(&all, &flattening_specs(&all, drive.map())?, drive, finish, self.train);
        if self.observe.is_none()
            && let Ok((ys, batches)) = fused()
        {
            self.ran.extend(layers.into_iter().flatten().zip(batches));
            return Ok(ys);
        }
        // What an observer is told, and what an error says, come of one part after the other.
        one_by_one(self, parts, drive, finish)
    }

    fn made(&mut self, name: &str, spikes: &Tensor) -> Result<()> {
        match &mut self.observe {
            Some(observe) => observe(name, spikes),
            None => Ok(()),
        }
    }
}

/// A chunk of time steps, without gradient.
pub(super) struct Steps<'a, 'b> {
    pub(super) course: &'a mut Course<'b>,
}

impl Runner<'_, Layers> for Steps<'_, '_> {
    fn run(&mut self, name: &str, layers: &Layers, drive: Drive<'_>, _: Finish<'_>) -> Result<Tensor> {
        let layer = |i: usize| format!("{name}.{i}");
        step_layers(layers.layers(), drive.tensor(), &layer, self.course)
            .map_err(|error| of_part(error, name))
    }
}

/// An error of the layers of a part.
pub(super) fn of_part(error: candle_core::Error, name: &str) -> candle_core::Error {
    error.context(format!("part {name} of a spiking network"))
}
