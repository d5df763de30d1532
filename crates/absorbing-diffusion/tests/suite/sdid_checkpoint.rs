//! Checkpoints of the spiking denoiser: whole, or an error that names the file and what is wrong with it. What holds for any
//! model is tested in `snn-core`.

use std::path::Path;

use absorbing_diffusion::{Sdid, SdidConfig, TokenInput};
use candle_core::Device;
use snn_core::{Checkpoint, Model};

use crate::rejects;
use crate::sdid::{INPUTS, bits, inputs, narrow, settled};

/// A good checkpoint, changed, and the error that loading it gives: it names the file and `parts`.
#[track_caller]
fn rejects_changed(change: impl Fn(&mut Checkpoint), parts: &[&str]) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("changed.safetensors");
    let (params, sdid) = settled(&narrow(TokenInput::Embedding { dim: 6 }));
    let mut checkpoint = sdid.checkpoint(&params).unwrap();
    checkpoint.save(&path).unwrap();
    Sdid::load(&path, &Device::Cpu).unwrap();
    change(&mut checkpoint);
    checkpoint.save(&path).unwrap();
    rejects_file(&path, parts);
}

#[track_caller]
fn rejects_file(path: &Path, parts: &[&str]) {
    let path_text = path.display().to_string();
    rejects(Sdid::load(path, &Device::Cpu), &[&[path_text.as_str()], parts].concat());
}

#[test]
fn a_loaded_model_gives_the_same_bits() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("sdid.safetensors");
    for token_input in INPUTS {
        let cfg = narrow(token_input);
        let (params, sdid) = settled(&cfg);
        let (h_t, t) = inputs(&cfg, 9);
        let logits = |model: &Sdid, train| bits(&model.forward_t(&h_t, &t, train).unwrap());
        sdid.checkpoint(&params).unwrap().save(&path).unwrap();
        let loaded = Sdid::load(&path, &Device::Cpu).unwrap();
        assert_eq!(loaded.config(), &cfg);
        assert!(logits(&loaded, false) == logits(&sdid, false), "{token_input:?}, evaluation");
        assert!(logits(&loaded, true) == logits(&sdid, true), "{token_input:?}, training");
        assert!(logits(&loaded, false) == logits(&sdid, false), "{token_input:?}, statistics");
    }
}

#[test]
fn a_missing_tensor_is_rejected() {
    for name in ["layers.3.conv.weight", "layers.4.bn.running_var", "head.bias", "time.weight"] {
        let remove = |checkpoint: &mut Checkpoint| drop(checkpoint.tensors.remove(name).unwrap());
        rejects_changed(remove, &[&format!("tensor `{name}` is missing")]);
    }
}

/// A config that is not one, and one that does not validate.
#[test]
fn a_bad_config_is_rejected() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("config.safetensors");
    Checkpoint::new(Sdid::KIND, &[1, 2]).unwrap().save(&path).unwrap();
    rejects_file(&path, &["config: "]);
    let cfg = SdidConfig { time_steps: 0, ..narrow(TokenInput::Raw) };
    Checkpoint::new(Sdid::KIND, &cfg).unwrap().save(&path).unwrap();
    rejects_file(&path, &["`sdid.time_steps` = 0: "]);
}
