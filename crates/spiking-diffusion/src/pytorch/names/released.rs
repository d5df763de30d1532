//! The VQ-SVAE and the SDID of the released Spiking-Diffusion code.

use absorbing_diffusion::SdidConfig;
use vq_svae::VqSvaeConfig;

use super::{Entry, What, conv, layer, parameter};

/// The sums over time of the autoencoder, as buffers: of its features and of its image.
pub(in crate::pytorch) const COEFFICIENTS: [&str; 2] = ["vq_layer.memout.coef", "memout.coef"];
/// The tensors whose shapes tell the sizes of the autoencoder, with the axis that does.
pub(in crate::pytorch) const EMBEDDINGS: &str = "vq_layer.embeddings.weight";
pub(in crate::pytorch) const ENCODER: [(&str, usize); 2] =
    [("encoder.snn_convs.0.weight", 0), ("encoder.snn_convs.3.weight", 0)];
pub(in crate::pytorch) const DECODER: [(&str, usize); 2] =
    [("decoder.snn_convs.0.weight", 1), ("decoder.snn_convs.3.weight", 1)];

/// The state dict of the autoencoder, in the order of the released code's.
pub(in crate::pytorch) fn vqsvae(cfg: &VqSvaeConfig) -> Vec<Entry> {
    let (images, codes, [e1, e2], [d1, d2]) =
        (cfg.image.channels, cfg.code_channels, cfg.encoder_channels, cfg.decoder_channels);
    let coefficients = |theirs: &str, readout| Entry {
        theirs: theirs.into(),
        what: What::Coefficients { readout, axis: 0 },
    };
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
pub(in crate::pytorch) fn sdid_kernel(i: usize) -> String {
    format!("conv{}.0.weight", i + 1)
}

/// The state dict of the SDID, in the order of the released code's.
pub(in crate::pytorch) fn sdid(cfg: &SdidConfig) -> Vec<Entry> {
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
