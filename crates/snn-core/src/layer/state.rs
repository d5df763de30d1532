//! Layers one time step, or one chunk of them, at a time: the state is a value.

use candle_core::{Result, Tensor, bail};

use super::check::{Sizes, check};
use super::drive::{Drive, Finish};
use super::run::{currents, specs};
use crate::time::{merge_time, split_time};
use crate::{Readout, SpikingLayer, SpikingStack};

/// Holds what spiking layers keep from one time step to the next, for networks that see their input as it comes.
///
/// It starts empty ([`Default`]), grows when the first step is made, and belongs to the batch that it was made with: another
/// batch wants another state. A clone is another course of events from here on. It holds no gradients. A step that returns an
/// error leaves it as it was.
///
/// # Examples
/// ```
/// # use candle_core::{DType, Device, Tensor};
/// # use snn_core::{Drive, LifConfig, ParamStore, Seed, SpikingLayer, SpikingState};
/// # fn main() -> candle_core::Result<()> {
/// let store = ParamStore::new(Seed(0), DType::F32, &Device::Cpu);
/// let layer = SpikingLayer::linear(2, 3, LifConfig::default(), store.builder())?;
/// let mut state = SpikingState::default();
/// for _ in 0..4 {
///     let x = Tensor::ones((1, 2), DType::F32, &Device::Cpu)?; // one time step of one item
///     assert_eq!(layer.step(&x, &mut state)?.dims(), [1, 3]);
/// }
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, Default)]
pub struct SpikingState {
    /// What the neurons of every layer keep, in the order in which spikes pass: of LIF neurons, their membranes.
    neurons: Vec<Vec<Tensor>>,
    /// What the head has summed, and of how many time steps.
    summed: Option<(Tensor, usize)>,
}

/// What the neurons of a network keep, while it makes a step.
pub(super) struct Course<'a> {
    before: &'a [Vec<Tensor>],
    after: Vec<Vec<Tensor>>,
}

impl SpikingState {
    /// Lets so many layers make a step, and keeps what their neurons keep if all of it succeeds.
    pub(super) fn advance<T>(
        &mut self,
        layers: usize,
        step: impl FnOnce(&mut Course<'_>) -> Result<T>,
    ) -> Result<T> {
        let count = self.neurons.len();
        if count != 0 && count != layers {
            bail!(
                "a state of {count} spiking layers, given to {layers}: each network wants a state of its own"
            )
        }
        let mut course = Course { before: &self.neurons, after: Vec::with_capacity(layers) };
        let made = step(&mut course)?;
        self.neurons = course.after;
        Ok(made)
    }

    /// Adds a chunk `[t, N, ...]` to what a read-out has summed.
    pub(super) fn add(&mut self, readout: Readout, spikes: &Tensor) -> Result<()> {
        let chunk = spikes.dim(0)?;
        let kept = |decay: f64| decay.powf(chunk as f64);
        let (part, kept) = match readout {
            // Counted, and divided when it is asked for.
            Readout::Mean => (Readout::ExponentialSum { decay: 1. }, 1.),
            Readout::Psp { tau } => (readout, kept(1. - 1. / tau)),
            Readout::ExponentialSum { decay } => (readout, kept(decay)),
        };
        let sum = part.apply(spikes)?.detach();
        self.summed = Some(match &self.summed {
            Some((before, steps)) => (((before * kept)? + sum)?, steps + chunk),
            None => (sum, chunk),
        });
        Ok(())
    }

    /// The read-out of all chunks so far, and their time steps.
    pub(super) fn so_far(&self, readout: Readout) -> Result<(Tensor, usize)> {
        match (&self.summed, readout) {
            (None, _) => bail!("a state that no read-out has seen a time step of"),
            (Some((sum, steps)), Readout::Mean) => Ok(((sum / *steps as f64)?, *steps)),
            (Some((sum, steps)), _) => Ok((sum.clone(), *steps)),
        }
    }
}

/// Runs layers in a row on a chunk `[t, N, ...]`, with running statistics and without gradient.
pub(super) fn step_layers(
    layers: &[SpikingLayer],
    xs: &Tensor,
    name: &dyn Fn(usize) -> String,
    course: &mut Course<'_>,
) -> Result<Tensor> {
    let drive = Drive::Spikes(xs);
    check(layers, &specs(layers, drive.map())?, Sizes::of(drive)?, Finish::Spikes, false)?;
    let mut spikes = xs.detach();
    for (i, layer) in layers.iter().enumerate() {
        let time_steps = spikes.dim(0)?;
        let (currents, _) = currents(layer, &merge_time(&spikes)?, false, 1)?;
        let currents = split_time(&currents, time_steps)?.detach();
        spikes = course.step(layer, &currents, &|| name(i))?;
    }
    Ok(spikes)
}

impl Course<'_> {
    /// The next layer's neurons under currents `[t, N, ...]`.
    fn step(&mut self, layer: &SpikingLayer, currents: &Tensor, name: &dyn Fn() -> String) -> Result<Tensor> {
        let time_steps = currents.dim(0)?;
        if time_steps == 0 {
            bail!("spiking layer {}: a chunk of no time steps", name())
        }
        let mut state = self.before.get(self.after.len()).cloned().unwrap_or_default();
        // What a model of the user's own keeps may have any shape.
        if let ([v], Some(_)) = (state.as_slice(), layer.neurons.lif())
            && v.dims() != &currents.dims()[1..]
        {
            bail!(
                "spiking layer {}: its state is {:?}, this step wants {:?}: another batch wants a new state",
                name(),
                v.dims(),
                &currents.dims()[1..]
            )
        }
        let mut spikes = Vec::with_capacity(time_steps);
        for t in 0..time_steps {
            let (fired, next) = layer.neurons.step(&currents.get(t)?, &state)?;
            spikes.push(fired.detach());
            state = next.iter().map(Tensor::detach).collect();
        }
        self.after.push(state);
        Tensor::stack(&spikes, 0)
    }
}

/// One time step as a chunk of one.
pub(super) fn one_step(x: &Tensor, chunk: impl FnOnce(&Tensor) -> Result<Tensor>) -> Result<Tensor> {
    chunk(&x.unsqueeze(0)?)?.squeeze(0)
}

impl SpikingLayer {
    /// Takes one time step, with running statistics and without gradient: after `T` of them, the spikes of
    /// [`forward_t`](Self::forward_t) with `train` off.
    ///
    /// # Shapes
    /// `x: [N, C_in, H, W]` -> `[N, C_out, H', W']`; for linear layers `[N, C_in]` -> `[N, C_out]`.
    /// # Errors
    /// Returns an error if shapes or element types do not fit, or if the state is of a batch or a network of other sizes (of two
    /// with equal ones nothing tells the states apart). The state stays as it was.
    pub fn step(&self, x: &Tensor, state: &mut SpikingState) -> Result<Tensor> {
        one_step(x, |xs| self.step_chunk(xs, state))
    }

    /// Takes several time steps: see [`step`](Self::step).
    ///
    /// # Shapes
    /// `xs: [t, N, C_in, H, W]` -> `[t, N, C_out, H', W']`; for linear layers `[t, N, C_in]` -> `[t, N, C_out]`.
    /// # Errors
    /// Returns the errors of [`step`](Self::step), and an error if the chunk has no time steps.
    pub fn step_chunk(&self, xs: &Tensor, state: &mut SpikingState) -> Result<Tensor> {
        step_all(std::slice::from_ref(self), xs, state)
    }
}

impl SpikingStack {
    /// Takes one time step, with running statistics and without gradient: after `T` of them, the spikes of
    /// [`forward`](Self::forward) with `train` off.
    ///
    /// # Shapes
    /// `x: [N, C, H, W]` -> the same of the last layer; for linear layers `[N, C]`.
    /// # Errors
    /// Returns the errors of [`SpikingLayer::step`], with the layer's number.
    pub fn step(&self, x: &Tensor, state: &mut SpikingState) -> Result<Tensor> {
        one_step(x, |xs| self.step_chunk(xs, state))
    }

    /// Takes several time steps: see [`step`](Self::step).
    ///
    /// # Shapes
    /// `xs: [t, N, C, H, W]` -> the same of the last layer; for linear layers `[t, N, C]`.
    /// # Errors
    /// Returns the errors of [`step`](Self::step), and an error if the chunk has no time steps.
    pub fn step_chunk(&self, xs: &Tensor, state: &mut SpikingState) -> Result<Tensor> {
        step_all(self.layers(), xs, state)
    }
}

fn step_all(layers: &[SpikingLayer], xs: &Tensor, state: &mut SpikingState) -> Result<Tensor> {
    state.advance(layers.len(), |course| step_layers(layers, xs, &|i| i.to_string(), course))
}
