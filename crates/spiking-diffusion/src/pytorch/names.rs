//! What is called what, in both directions.

use absorbing_diffusion::SdidConfig;
use snn_core::Readout;
use vq_svae::VqSvaeConfig;

/// One entry of a state dict of the released code.
pub(super) struct Entry {
    pub(super) theirs: String,
    pub(super) what: What,
}

pub(super) enum What {
    /// A parameter or running statistic: our name, and the shape that PyTorch has it in.
    Parameter { ours: String, shape: Vec<usize> },
    /// Weights `[T, 1, 1, 1, 1]` of a sum over time, which the released code keeps as a buffer.
    Coefficients(Readout),
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

/// A spiking layer: places `first` and `first + 1` of a `Sequential`, behind which the neuron has one without parameters.
fn layer(ours: &str, theirs: &str, first: usize, kernel: [usize; 4], c_out: usize) -> Vec<Entry> {
    let mut entries = Vec::from(conv(&format!("{ours}.conv"), &format!("{theirs}.{first}"), kernel, c_out));
    let norm = format!("{theirs}.{}", first + 1);
    for name in ["weight", "bias", "running_mean", "running_var"] {
        entries.push(parameter(format!("{ours}.bn.{name}"), format!("{norm}.{name}"), &[c_out]));
    }
    entries.push(Entry { theirs: format!("{norm}.num_batches_tracked"), what: What::BatchesTracked });
    entries
}

/// The sums over time of the autoencoder, as buffers: of its features and of its image.
pub(super) const COEFFICIENTS: [&str; 2] = ["vq_layer.memout.coef", "memout.coef"];
/// The tensors whose shapes tell the sizes of the autoencoder, with the axis that does.
pub(super) const EMBEDDINGS: &str = "vq_layer.embeddings.weight";
pub(super) const ENCODER: [(&str, usize); 2] =
    [("encoder.snn_convs.0.weight", 0), ("encoder.snn_convs.3.weight", 0)];
pub(super) const DECODER: [(&str, usize); 2] =
    [("decoder.snn_convs.0.weight", 1), ("decoder.snn_convs.3.weight", 1)];

/// The state dict of the autoencoder, in the order of the released code's.
pub(super) fn vqsvae(cfg: &VqSvaeConfig) -> Vec<Entry> {
    let (images, codes, [e1, e2], [d1, d2]) =
        (cfg.image.channels, cfg.code_channels, cfg.encoder_channels, cfg.decoder_channels);
    let coefficients =
        |theirs: &str, readout| Entry { theirs: theirs.into(), what: What::Coefficients(readout) };
    let [features, image] = COEFFICIENTS;
    let (encoder, decoder) = ("encoder.snn_convs", "decoder.snn_convs");
    let mut entries = layer("encoder.0", encoder, 0, [e1, images, 3, 3], e1);
    entries.extend(layer("encoder.1", encoder, 3, [e2, e1, 3, 3], e2));
    entries.extend(layer("encoder.2", encoder, 6, [codes, e2, 1, 1], codes));
    entries.push(parameter("features.k", "vq_layer.alpha", &[]));
    entries.push(coefficients(features, cfg.features));
    entries.push(parameter("codebook.weight", EMBEDDINGS, &[cfg.codes, codes]));
    entries.extend(layer("generator", "vq_layer.poisson", 0, [codes, codes, 1, 1], codes));
    // Kernels of transposed convolutions have their inputs first.
    entries.extend(layer("decoder.0", decoder, 0, [codes, d1, 3, 3], d1));
    entries.extend(layer("decoder.1", decoder, 3, [d1, d2, 3, 3], d2));
    entries.extend(conv("head", "decoder.snn_convs.6", [d2, images, 3, 3], images));
    entries.push(coefficients(image, cfg.readout));
    entries
}

/// The name of the kernel of layer `i` of the SDID, counted from 0; the head comes after the last.
pub(super) fn sdid_kernel(i: usize) -> String {
    format!("conv{}.0.weight", i + 1)
}

/// The state dict of the SDID, in the order of the released code's.
pub(super) fn sdid(cfg: &SdidConfig) -> Vec<Entry> {
    let (mut entries, mut c_in) = (Vec::new(), 2);
    for (i, &c_out) in cfg.channels.iter().enumerate() {
        let names = (format!("layers.{i}"), format!("conv{}", i + 1));
        entries.extend(layer(&names.0, &names.1, 0, [c_out, c_in, 3, 3], c_out));
        c_in = c_out;
    }
    let joined = c_in + cfg.channels.first().copied().unwrap_or(0);
    let head = format!("conv{}.0", cfg.channels.len() + 1);
    entries.extend(conv("head", &head, [cfg.codes, joined, 3, 3], cfg.codes));
    entries
}
