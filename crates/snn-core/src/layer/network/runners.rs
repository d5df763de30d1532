//! Who runs the spiking layers of a network: all time steps at once, or a chunk of them.

use candle_core::{Result, Tensor};

use super::flow::Runner;
use super::{Layers, step_layers};
use crate::layer::drive::Finish;
use crate::layer::run::{Made, make, settle};
use crate::layer::stack::make_observed;
use crate::layer::state::Course;
use crate::{Drive, Observer, Readout, SpikingLayer};

/// All time steps at once, differentiable.
pub(super) struct Pass<'a, 'o> {
    train: bool,
    observe: Option<&'o mut Observer<'o>>,
    /// What will move the running statistics.
    ran: Vec<(&'a [SpikingLayer], Made)>,
}

impl<'a, 'o> Pass<'a, 'o> {
    pub(super) fn new(train: bool, observe: Option<&'o mut Observer<'o>>) -> Self {
        Self { train, observe, ran: Vec::new() }
    }

    /// Moves the running statistics, now that all layers have run.
    pub(super) fn settle(self) -> Result<()> {
        self.ran.into_iter().try_for_each(|(layers, made)| settle(layers, made).map(drop))
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
        if self.train {
            self.ran.push((layers.layers(), (ys.clone(), batches)));
        }
        match finish {
            // Who observes wants spikes, and sums them afterwards.
            Finish::Sums(readouts) if self.observe.is_some() => Readout::apply_all(readouts, &ys),
            _ => Ok(ys),
        }
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
