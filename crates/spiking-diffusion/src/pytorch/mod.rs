//! The way in from PyTorch, and the way out: state dicts of the released code as runs, and runs as state dicts.
//!
//! [`import`] makes a run's folder of the two files that the released code saves, `model.pth` (its VQ-SVAE) and `diff_model.pth` (its
//! SDID); everything that a finished run can do then follows: `generate`, `sweep`, `classify`. [`export`] writes the networks of
//! a run as two such files, which `load_state_dict` takes strictly. Codes, reconstructions and logits are those of PyTorch.
//!
//! A `.pth` file is a pickle; nothing in it is ever executed (see [`WeightFile`](crate::metrics::WeightFile)).
//!
//! | ours | the released code's |
//! | --- | --- |
//! | `encoder.{i}.conv`, `.bn` | `encoder.snn_convs.{3i}`, `.{3i + 1}` |
//! | `features.k`, `codebook.weight` | `vq_layer.alpha`, `vq_layer.embeddings.weight` |
//! | `generator.conv`, `.bn` | `vq_layer.poisson.0`, `.1` |
//! | `decoder.{i}.conv`, `.bn`; `head` | `decoder.snn_convs.{3i}`, `.{3i + 1}`; `.6` |
//! | the read-outs of features and image, as constants | `vq_layer.memout.coef`, `memout.coef` |
//! | SDID: `layers.{i}.conv`, `.bn`; `head` | `conv{i + 1}.0`, `.1`; `conv6.0` |
//!
//! [`import_fsvae`] and [`export_fsvae`] do the same with the FSVAEs of the released code and of the FSVAE paper's code.
//!
//! Sizes are the file's. Not in a file, and therefore taken from the released code: the neurons, the time steps of the SDID (those of the
//! autoencoder) and its diffusion steps (one a token).

mod export;
mod fsvae;
mod import;
mod names;
mod pth;

pub use export::export;
pub use fsvae::{export_fsvae, import_fsvae};
pub use import::{encode, import};
pub use pth::write_pth;
