//! What is called what, in both directions.

mod fsvae;
mod released;

use snn_core::Readout;

pub(super) use fsvae::{Fsvae, is_table1};
pub(super) use released::{COEFFICIENTS, DECODER, EMBEDDINGS, ENCODER, sdid, sdid_kernel, vqsvae};

/// One entry of a state dict.
pub(in crate::pytorch) struct Entry {
    pub(in crate::pytorch) theirs: String,
    pub(in crate::pytorch) what: What,
}

pub(in crate::pytorch) enum What {
    /// A parameter or running statistic: our name, and the shape that it has there.
    Parameter { ours: String, shape: Vec<usize> },
    /// Weights of a sum over time, kept as a buffer of five axes, of which this one is `T` long.
    Coefficients { readout: Readout, axis: usize },
    /// Zeros of this shape.
    Zeros(Vec<usize>),
    /// A counter that PyTorch's batch norm keeps and, with a momentum, never reads.
    BatchesTracked,
}

fn parameter(ours: impl Into<String>, theirs: impl Into<String>, shape: &[usize]) -> Entry {
    Entry { theirs: theirs.into(), what: What::Parameter { ours: ours.into(), shape: shape.to_vec() } }
}

/// Kernel and bias of a convolution.
fn conv(ours: &str, theirs: &str, kernel: [usize; 4], c_out: usize) -> [Entry; 2] {
    [
        parameter(format!("{ours}.weight"), format!("{theirs}.weight"), &kernel),
        parameter(format!("{ours}.bias"), format!("{theirs}.bias"), &[c_out]),
    ]
}

/// Batch norm, tdBN or not.
fn norm(ours: &str, theirs: &str, channels: usize) -> Vec<Entry> {
    let names = ["weight", "bias", "running_mean", "running_var"];
    let same = |name: &str| parameter(format!("{ours}.{name}"), format!("{theirs}.{name}"), &[channels]);
    let mut entries: Vec<Entry> = names.into_iter().map(same).collect();
    entries.push(Entry { theirs: format!("{theirs}.num_batches_tracked"), what: What::BatchesTracked });
    entries
}

/// A spiking layer: places `first` and `first + 1` of a `Sequential`, behind which the neuron has one without parameters.
fn layer(ours: &str, theirs: &str, first: usize, kernel: [usize; 4], c_out: usize) -> Vec<Entry> {
    let mut entries = Vec::from(conv(&format!("{ours}.conv"), &format!("{theirs}.{first}"), kernel, c_out));
    entries.extend(norm(&format!("{ours}.bn"), &format!("{theirs}.{}", first + 1), c_out));
    entries
}

/// The shape that we have a parameter in: a number of PyTorch's is a vector of one here, and the FSVAE paper's kernels have a last axis of 1.
pub(super) fn ours(shape: &[usize]) -> &[usize] {
    match shape {
        [] => &[1],
        [map @ .., 1] if map.len() == 4 => map,
        shape => shape,
    }
}

/// The shape of the weights of a sum over time.
pub(super) fn coefficients(time_steps: usize, axis: usize) -> [usize; 5] {
    std::array::from_fn(|i| if i == axis { time_steps } else { 1 })
}
