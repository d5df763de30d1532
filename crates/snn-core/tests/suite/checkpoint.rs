//! Checkpoint files: same bytes, whole or not at all, and clear errors.

use std::collections::HashMap;
use std::path::Path;

use candle_core::{DType, Device, Tensor};
use snn_core::{Checkpoint, Error, Seed, write_atomically};

use crate::common::{Result, flat};

fn names_in(folder: &Path) -> Result<Vec<String>> {
    let mut names = std::fs::read_dir(folder)?
        .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
        .collect::<Result<Vec<_>>>()?;
    names.sort();
    Ok(names)
}

fn example(reversed: bool) -> Result<Checkpoint> {
    let mut checkpoint = Checkpoint::new("model", &HashMap::from([("width", 3.), ("alpha", 0.1)]))?;
    let mut names: Vec<String> = (0..20).map(|i| format!("layer.{i}.weight")).collect();
    if reversed {
        names.reverse();
    }
    for name in &names {
        let tensor = Seed(1).normal(name, (2, 3), (0., 1.), DType::F32, &Device::Cpu)?;
        checkpoint.tensors.insert(name.clone(), tensor);
    }
    checkpoint.tensors.insert("codes".into(), Tensor::new(&[3u32, 1, 4], &Device::Cpu)?);
    checkpoint.tensors.insert("double".into(), Tensor::new(&[0.1f64, f64::MIN_POSITIVE], &Device::Cpu)?);
    checkpoint.tensors.insert("empty".into(), Tensor::zeros((0, 4), DType::F32, &Device::Cpu)?);
    let view = Tensor::arange(0f32, 6., &Device::Cpu)?.reshape((2, 3))?.t()?;
    checkpoint.tensors.insert("view".into(), view);
    Ok(checkpoint)
}

fn load_error(path: &Path) -> String {
    let error = Checkpoint::load(path, "model", &Device::Cpu).expect_err("loads");
    let message = error.to_string();
    assert!(message.contains(&path.display().to_string()), "does not name the file: {message}");
    message
}

#[test]
fn saves_give_the_same_bytes() -> Result {
    let folder = tempfile::tempdir()?;
    let paths = ["a", "b", "c"].map(|name| folder.path().join(name));
    example(false)?.save(&paths[0])?;
    example(true)?.save(&paths[1])?;
    Checkpoint::load(&paths[0], "model", &Device::Cpu)?.save(&paths[2])?;
    let bytes = std::fs::read(&paths[0])?;
    assert!(bytes == std::fs::read(&paths[1])?, "order of insertion");
    assert!(bytes == std::fs::read(&paths[2])?, "load and save");
    example(false)?.save(&paths[0])?;
    assert!(bytes == std::fs::read(&paths[0])?, "a second time, over the first");
    assert_eq!(names_in(folder.path())?, ["a", "b", "c"], "a temporary file is left");
    Ok(())
}

#[test]
fn everything_comes_back() -> Result {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("model.safetensors");
    let saved = example(false)?;
    saved.save(&path)?;
    let loaded = Checkpoint::load(&path, "model", &Device::Cpu)?;
    assert_eq!(loaded.config::<HashMap<String, f64>>()?["alpha"], 0.1);
    assert_eq!(loaded.kind, "model");
    assert!(loaded.tensors.keys().eq(saved.tensors.keys()));
    for (name, tensor) in &saved.tensors {
        let other = &loaded.tensors[name];
        assert_eq!((other.dims(), other.dtype()), (tensor.dims(), tensor.dtype()), "{name}");
        assert_eq!(flat(other)?, flat(tensor)?, "{name}");
    }
    let error = loaded.config::<u32>().unwrap_err().to_string();
    assert!(error.contains("config") && error.contains("model.safetensors"), "{error}");
    Ok(())
}

#[test]
fn wrong_kind_names_both() -> Result {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("x");
    Checkpoint::new("sdid", &1)?.save(&path)?;
    let message = load_error(&path);
    assert!(message.contains("`sdid`") && message.contains("`model`"), "{message}");
    Ok(())
}

#[test]
fn damaged_files_are_told_apart_from_foreign_ones() -> Result {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("x.safetensors");
    example(false)?.save(&path)?;
    let good = std::fs::read(&path)?;
    // Nothing, half a length, half a header, all but one byte; a longer file; another format.
    let cuts = [0, 4, 100, good.len() / 2, good.len() - 1].map(|end| good[..end].to_vec());
    let longer = [good, vec![0]].concat();
    for bytes in cuts.into_iter().chain([longer, b"PK\x03\x04 not a safetensors file".to_vec()]) {
        std::fs::write(&path, bytes)?;
        let message = load_error(&path);
        assert!(message.contains("not a readable safetensors file"), "{message}");
    }

    let tensors = HashMap::from([("w", Tensor::new(&[1f32], &Device::Cpu)?)]);
    candle_core::safetensors::save(&tensors, &path)?;
    let message = load_error(&path);
    assert!(message.contains("`spiking-diffusion` metadata"), "{message}");

    for header in ["{", "{}", r#"{"config": 1}"#, r#"{"kind": 3, "config": 1}"#] {
        let metadata = HashMap::from([("spiking-diffusion".to_owned(), header.to_owned())]);
        std::fs::write(&path, safetensors::serialize(&tensors, Some(metadata))?)?;
        load_error(&path);
    }
    Ok(())
}

#[test]
fn missing_files_and_bad_places_are_io_errors() -> Result {
    let folder = tempfile::tempdir()?;
    let missing = folder.path().join("none.safetensors");
    assert!(load_error(&missing).contains("No such file"));
    assert!(matches!(Checkpoint::load(&missing, "model", &Device::Cpu), Err(Error::Io { .. })));

    let directory = folder.path().join("taken");
    std::fs::create_dir(&directory)?;
    for path in [folder.path().join("no/such/folder/x"), directory] {
        let error = example(false)?.save(&path).unwrap_err();
        assert!(matches!(&error, Error::Io { path: p, .. } if *p == path), "{error}");
    }
    assert_eq!(names_in(folder.path())?, ["taken"], "a temporary file is left");
    Ok(())
}

#[test]
fn a_failed_write_leaves_the_old_file() -> Result {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("x");
    write_atomically(&path, b"old")?;
    // The temporary name is taken by a folder, so the new file cannot be begun.
    std::fs::create_dir(folder.path().join("x.tmp"))?;
    assert!(write_atomically(&path, b"new").is_err());
    assert_eq!(std::fs::read(&path)?, b"old");
    std::fs::remove_dir(folder.path().join("x.tmp"))?;
    write_atomically(&path, b"new")?;
    assert_eq!(std::fs::read(&path)?, b"new");
    assert_eq!(names_in(folder.path())?, ["x"]);
    Ok(())
}

#[test]
fn a_flipped_bit_anywhere_is_noticed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("flipped.safetensors");
    let mut checkpoint = Checkpoint::new("thing", &7).unwrap();
    checkpoint.tensors.insert("x".into(), Tensor::new(&[1f32, 2., 3., 4.], &Device::Cpu).unwrap());
    checkpoint.save(&path).unwrap();
    let whole = std::fs::read(&path).unwrap();
    // Spaces that pad the header mean nothing.
    for at in (0..whole.len()).filter(|&at| whole[at] != b' ') {
        let mut bytes = whole.clone();
        bytes[at] ^= 1;
        std::fs::write(&path, bytes).unwrap();
        let loaded = Checkpoint::load(&path, "thing", &Device::Cpu);
        // A name or a shape in the file's own header is no part of the digest; it is missed by whoever asks for it.
        if let Ok(loaded) = loaded {
            assert!(!loaded.tensors.contains_key("x"), "byte {at}");
        }
    }
    std::fs::write(&path, &whole).unwrap();
    assert!(Checkpoint::load(&path, "thing", &Device::Cpu).is_ok());
}
