//! Files: the same model bit for bit, or an error that names the file and the tensor. What holds for any model is tested in `snn-core`.

use std::path::{Path, PathBuf};

use candle_core::{DType, Device};
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
fn a_missing_tensor_is_named() {
    for name in ["head.weight", "encoder.1.bn.running_var", "features.k", "codebook.weight"] {
        let remove = |checkpoint: &mut Checkpoint| drop(checkpoint.tensors.remove(name).unwrap());
        refuses(remove, &[&format!("`{name}`"), "missing"]);
    }
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
