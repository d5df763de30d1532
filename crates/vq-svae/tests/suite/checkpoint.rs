//! Files: the same model bit for bit, or an error that names the file and the tensor.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor};
use snn_core::{Checkpoint, Model};
use tempfile::TempDir;
use vq_svae::{VqSvae, VqSvaeConfig};

use crate::{Fixture, assert_same, assert_several, images, rejects, tiny};

/// A folder, a file in it that is yet to be written, and a model whose statistics have moved.
fn setting() -> (TempDir, PathBuf, VqSvaeConfig, Fixture) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("vqsvae.safetensors");
    let cfg = tiny(VqSvaeConfig::released_code);
    let fixture = Fixture::lively(&cfg, 5, DType::F32);
    fixture.settle(&images(&cfg, 4, DType::F32));
    (folder, path, cfg, fixture)
}

/// Saves the model's checkpoint after a change to it, and loads it again.
fn reload(change: impl FnOnce(&mut Checkpoint)) -> (PathBuf, vq_svae::Result<VqSvae>) {
    let (_folder, path, _, Fixture { params, model }) = setting();
    let mut checkpoint = model.checkpoint(&params).unwrap();
    change(&mut checkpoint);
    checkpoint.save(&path).unwrap();
    let result = VqSvae::load(&path, &Device::Cpu);
    (path, result)
}

/// Asserts an error that names the file and all of this.
#[track_caller]
fn refuses(change: impl FnOnce(&mut Checkpoint), parts: &[&str]) {
    let (path, result) = reload(change);
    let file = path.display().to_string();
    rejects(result, &[&[file.as_str()], parts].concat());
}

#[test]
fn a_loaded_model_is_the_saved_one_bit_for_bit() {
    let (_folder, path, cfg, Fixture { params, model }) = setting();
    model.checkpoint(&params).unwrap().save(&path).unwrap();
    let loaded = VqSvae::load(&path, &Device::Cpu).unwrap();
    assert_eq!(loaded.config(), &cfg);
    let xs = images(&cfg, 4, DType::F32);
    let codes = model.encode(&xs).unwrap();
    assert_several(&codes);
    assert_same("codes", &loaded.encode(&xs).unwrap(), &codes);
    assert_same("images", &loaded.decode(&codes).unwrap(), &model.decode(&codes).unwrap());
}

/// A checkpoint is a copy: training on does not change it.
#[test]
fn a_checkpoint_does_not_follow_the_model() {
    let (_folder, _, cfg, Fixture { params, model }) = setting();
    let checkpoint = model.checkpoint(&params).unwrap();
    let name = "decoder.1.bn.running_mean";
    let before = checkpoint.tensors[name].copy().unwrap();
    model.forward_t(&images(&cfg, 6, DType::F32), true).unwrap();
    assert_same(name, &checkpoint.tensors[name], &before);
}

#[test]
fn the_same_model_makes_the_same_bytes() {
    let bytes = || {
        let (_folder, path, _, Fixture { params, model }) = setting();
        model.checkpoint(&params).unwrap().save(&path).unwrap();
        std::fs::read(&path).unwrap()
    };
    assert!(bytes() == bytes());
}

/// Loading rounds an f64 model to f32.
#[test]
fn a_model_in_f64_loads_in_f32() {
    let (_folder, path, cfg, _) = setting();
    let wide = Fixture::lively(&cfg, 5, DType::F64);
    wide.settle(&images(&cfg, 4, DType::F64));
    let checkpoint = wide.model.checkpoint(&wide.params).unwrap();
    checkpoint.save(&path).unwrap();
    let loaded = VqSvae::load(&path, &Device::Cpu).unwrap();
    let narrow = Fixture::new(&cfg, 0, DType::F32);
    narrow.params.restore(&checkpoint, "").unwrap();
    let xs = images(&cfg, 4, DType::F32);
    let codes = narrow.model.encode(&xs).unwrap();
    assert_several(&codes);
    assert_same("codes", &loaded.encode(&xs).unwrap(), &codes);
    assert_same("images", &loaded.decode(&codes).unwrap(), &narrow.model.decode(&codes).unwrap());
}

#[test]
fn another_kind_is_refused() {
    refuses(|checkpoint| checkpoint.kind = "sdid".into(), &["`sdid`", "`vq-svae`"]);
}

#[test]
fn a_missing_tensor_is_named() {
    for name in ["head.weight", "encoder.1.bn.running_var", "features.k", "codebook.weight"] {
        let remove = |checkpoint: &mut Checkpoint| drop(checkpoint.tensors.remove(name).unwrap());
        refuses(remove, &[&format!("`{name}`"), "missing"]);
    }
}

#[test]
fn an_extra_tensor_is_named() {
    let extra = |checkpoint: &mut Checkpoint| {
        let tensor = checkpoint.tensors["head.weight"].clone();
        checkpoint.tensors.insert("heed.weight".into(), tensor);
    };
    refuses(extra, &["`heed.weight`", "unexpected"]);
}

#[test]
fn a_tensor_of_another_shape_is_named_with_both_shapes() {
    let reshape = |checkpoint: &mut Checkpoint| {
        let codebook = checkpoint.tensors["codebook.weight"].t().unwrap().contiguous().unwrap();
        checkpoint.tensors.insert("codebook.weight".into(), codebook);
    };
    refuses(reshape, &["`codebook.weight`", "[4, 9]", "[9, 4]"]);
}

fn write_config(path: &Path, cfg: &serde_json::Value) -> vq_svae::Result<VqSvae> {
    Checkpoint::new(VqSvae::KIND, cfg).unwrap().save(path).unwrap();
    VqSvae::load(path, &Device::Cpu)
}

#[test]
fn a_config_that_does_not_fit_is_refused() {
    let (_folder, path, cfg, _) = setting();
    let file = path.display().to_string();
    rejects(write_config(&path, &serde_json::json!(42)), &[&file, "config"]);
    let mut value = serde_json::to_value(&cfg).unwrap();
    value["betaa"] = 1.into();
    rejects(write_config(&path, &value), &[&file, "config", "`betaa`"]);
}

#[test]
fn a_config_that_cannot_work_is_refused() {
    let (_folder, path, cfg, _) = setting();
    let value = serde_json::to_value(VqSvaeConfig { time_steps: 0, ..cfg }).unwrap();
    rejects(write_config(&path, &value), &[&path.display().to_string(), "`vqsvae.time_steps` = 0"]);
}

#[test]
fn a_file_cut_short_anywhere_is_refused() {
    let (_folder, path, _, Fixture { params, model }) = setting();
    model.checkpoint(&params).unwrap().save(&path).unwrap();
    let whole = std::fs::read(&path).unwrap();
    let file = path.display().to_string();
    for len in [0, 7, 8, 100, whole.len() / 2, whole.len() - 1] {
        std::fs::write(&path, &whole[..len]).unwrap();
        rejects(VqSvae::load(&path, &Device::Cpu), &[&file, "not a readable safetensors file"]);
    }
}

#[test]
fn files_of_others_are_refused() {
    let (_folder, path, ..) = setting();
    let file = path.display().to_string();
    std::fs::write(&path, b"\x89PNG\r\n\x1a\n and so on, for longer than a header").unwrap();
    rejects(VqSvae::load(&path, &Device::Cpu), &[&file, "not a readable safetensors file"]);
    let tensors = HashMap::from([("head.weight", Tensor::new(&[1f32], &Device::Cpu).unwrap())]);
    candle_core::safetensors::save(&tensors, &path).unwrap();
    rejects(VqSvae::load(&path, &Device::Cpu), &[&file, "not written by this project"]);
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let (_folder, path, ..) = setting();
    rejects(VqSvae::load(&path, &Device::Cpu), &[&path.display().to_string(), "No such file"]);
}
