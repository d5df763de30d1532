//! Checkpoints of the spiking denoiser: whole, or an error that names the file and what is wrong with it.

use std::path::Path;

use absorbing_diffusion::{Sdid, SdidConfig, TokenInput};
use candle_core::{DType, Device, Tensor};
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

/// What is in the checkpoint stays as it was when the model is trained on.
#[test]
fn a_checkpoint_is_a_copy() {
    let cfg = narrow(TokenInput::Raw);
    let (params, sdid) = settled(&cfg);
    let checkpoint = sdid.checkpoint(&params).unwrap();
    let name = "layers.0.bn.running_mean";
    let before = bits(&checkpoint.tensors[name]);
    let (h_t, t) = inputs(&cfg, 9);
    sdid.forward_t(&h_t, &t, true).unwrap();
    assert_eq!(bits(&checkpoint.tensors[name]), before);
    assert_ne!(bits(&sdid.checkpoint(&params).unwrap().tensors[name]), before);
}

#[test]
fn another_model_is_rejected() {
    rejects_changed(|checkpoint| checkpoint.kind = "vq-svae".into(), &["holds a `vq-svae`, not a `sdid`"]);
}

#[test]
fn a_missing_tensor_is_rejected() {
    for name in ["layers.3.conv.weight", "layers.4.bn.running_var", "head.bias", "time.weight"] {
        let remove = |checkpoint: &mut Checkpoint| drop(checkpoint.tensors.remove(name).unwrap());
        rejects_changed(remove, &[&format!("tensor `{name}` is missing")]);
    }
}

#[test]
fn an_extra_tensor_is_rejected() {
    let extra = Tensor::zeros(3, DType::F32, &Device::Cpu).unwrap();
    let insert = |checkpoint: &mut Checkpoint| {
        checkpoint.tensors.insert("layers.5.conv.bias".into(), extra.clone());
    };
    rejects_changed(insert, &["unexpected tensor `layers.5.conv.bias`"]);
}

#[test]
fn a_tensor_of_another_shape_is_rejected() {
    let name = "layers.1.conv.weight";
    let transpose = |checkpoint: &mut Checkpoint| {
        let weight = checkpoint.tensors[name].transpose(0, 1).unwrap().contiguous().unwrap();
        checkpoint.tensors.insert(name.into(), weight);
    };
    rejects_changed(transpose, &[&format!("tensor `{name}` has shape [6, 5, 3, 3], expected [5, 6, 3, 3]")]);
}

#[test]
fn damaged_and_missing_files_are_rejected() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cut.safetensors");
    rejects_file(&path, &["No such file"]);
    let (params, sdid) = settled(&narrow(TokenInput::Raw));
    sdid.checkpoint(&params).unwrap().save(&path).unwrap();
    let whole = std::fs::read(&path).unwrap();
    for end in [0, 7, 200, whole.len() / 2, whole.len() - 1] {
        std::fs::write(&path, &whole[..end]).unwrap();
        rejects_file(&path, &["not a readable safetensors file"]);
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
