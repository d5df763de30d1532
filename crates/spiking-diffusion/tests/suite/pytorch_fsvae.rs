//! State dicts of FSVAEs under their authors' names (`scripts/golden/fsvae.py`), in and out. What PyTorch computes with them is in the
//! golden files of the crate `fsvae`.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor};
use spiking_diffusion::fsvae::{Divergence, Fsvae, FsvaeConfig};
use spiking_diffusion::metrics::WeightFile;
use spiking_diffusion::pytorch;
use spiking_diffusion::snn_core::{LayerConfig, LifConfig, Model, Norm, ParamStore, Seed};

use crate::rejects;

const BOTH: [&str; 2] = ["table1", "original"];

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/golden/fsvae_{name}.pth"))
}

fn golden(name: &str) -> HashMap<String, Tensor> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fsvae/tests/golden");
    candle_core::safetensors::load(folder.join(format!("{name}.safetensors")), &Device::Cpu).unwrap()
}

fn flat(xs: &Tensor) -> Vec<f64> {
    xs.flatten_all().unwrap().to_dtype(DType::F64).unwrap().to_vec1().unwrap()
}

#[track_caller]
fn assert_relative(what: &str, got: &Tensor, wanted: &Tensor) {
    assert_eq!(got.dims(), wanted.dims(), "{what}");
    let norm = |xs: &mut dyn Iterator<Item = f64>| xs.map(|x| x * x).sum::<f64>().sqrt();
    let wanted = flat(wanted);
    let off = norm(&mut flat(got).into_iter().zip(&wanted).map(|(a, b)| a - b));
    let off = off / norm(&mut wanted.iter().copied());
    assert!(off <= 1e-5, "{what}: off by {off:e}");
}

#[test]
fn spikes_and_images_are_those_of_pytorch() {
    let folder = tempfile::tempdir().unwrap();
    for name in BOTH {
        let (golden, path) = (golden(name), folder.path().join(name).join("fsvae.safetensors"));
        let model = pytorch::import_fsvae(&file(name), &path).unwrap();
        let cfg = model.config();
        let sizes = (cfg.body.image, cfg.body.time_steps, cfg.body.latent, cfg.candidates, &cfg.hidden[..]);
        assert_eq!(sizes, ([1, 8, 8], 8, 5, 4, &[10, 12][..]), "{name}");
        let picks = golden["in.picks"].to_dtype(DType::U32).unwrap();
        let images = golden["in.images"].to_dtype(DType::F32).unwrap();
        let z = model.encode(&images, &picks).unwrap();
        assert_eq!(flat(&z), flat(&golden["eval.z"]), "{name}");
        assert_relative(name, &model.decode(&z).unwrap(), &golden["eval.reconstruction"]);
        assert_relative(name, &model.sample(&picks).unwrap(), &golden["sample.images"]);
        rejects(pytorch::import_fsvae(&file(name), &path), &["fsvae.safetensors", "is there already"]);
    }
}

#[test]
fn an_fsvae_goes_out_and_comes_back_as_it_was() {
    let folder = tempfile::tempdir().unwrap();
    for name in BOTH {
        let at = |end: &str| folder.path().join(format!("{name}{end}"));
        pytorch::import_fsvae(&file(name), &at(".safetensors")).unwrap();
        pytorch::export_fsvae(&at(".safetensors"), &at(".pth")).unwrap();
        let (theirs, ours) = (WeightFile::open(file(name)).unwrap(), WeightFile::open(at(".pth")).unwrap());
        assert_eq!(theirs.names(), ours.names());
        for tensor in theirs.names().iter().filter(|name| !name.ends_with("num_batches_tracked")) {
            let dims = theirs.dims(tensor).unwrap();
            let (theirs, ours) = (theirs.values(tensor, &dims).unwrap(), ours.values(tensor, &dims).unwrap());
            assert!(theirs.iter().zip(&ours).all(|(a, b)| (a - b).abs() <= 1e-7 * a.abs()), "{tensor}");
        }
        pytorch::import_fsvae(&at(".pth"), &at(" again.safetensors")).unwrap();
        assert!(
            std::fs::read(at(".safetensors")).unwrap() == std::fs::read(at(" again.safetensors")).unwrap()
        );
    }
}

#[test]
fn the_published_sizes_have_their_names() {
    let folder = tempfile::tempdir().unwrap();
    let (path, out) = (folder.path().join("fsvae.safetensors"), folder.path().join("fsvae.pth"));
    for (cfg, counted) in [
        (FsvaeConfig::table1(), 56),
        (FsvaeConfig::original(3), 89 + 4 * 7),
        (FsvaeConfig::original_large(1), 89 + 6 * 7),
    ] {
        let params = ParamStore::new(Seed(0), DType::F32, &Device::Cpu);
        Fsvae::build(&cfg, params.builder()).unwrap().checkpoint(&params).unwrap().save(&path).unwrap();
        pytorch::export_fsvae(&path, &out).unwrap();
        assert_eq!(WeightFile::open(&out).unwrap().names().len(), counted);
        crate::rejects(pytorch::export_fsvae(&path, &out), &["fsvae.pth", "is there already"]);
        std::fs::remove_file(&path).unwrap();
        assert_eq!(
            pytorch::import_fsvae(&out, &path).unwrap().config(),
            &FsvaeConfig { scheduled: cfg.scheduled, ..cfg }
        );
        std::fs::remove_file(&out).unwrap();
    }
}

#[test]
fn what_is_no_fsvae_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let (changed, out) = (folder.path().join("changed.pth"), folder.path().join("out.safetensors"));
    let reject = |name: &str, change: &dyn Fn(&mut BTreeMap<String, Tensor>), parts: &[&str]| {
        let theirs = WeightFile::open(file(name)).unwrap();
        let tensor = |name: String| {
            let dims = theirs.dims(&name).unwrap();
            let values = Tensor::from_vec(theirs.values(&name, &dims).unwrap(), dims, &Device::Cpu).unwrap();
            (name, values)
        };
        let mut tensors = theirs.names().into_iter().map(tensor).collect();
        change(&mut tensors);
        pytorch::write_pth(&changed, &tensors.into_iter().collect::<Vec<_>>()).unwrap();
        rejects(pytorch::import_fsvae(&changed, &out), &[&["changed.pth"], parts].concat());
        assert!(!out.exists());
    };
    let ones = |dims: &[usize]| Tensor::ones(dims, DType::F32, &Device::Cpu).unwrap();
    reject(
        "table1",
        &|it| drop(it.remove("prior.layers.2.bias")),
        &["is no FSVAE", "missing: `prior.layers.2.bias`"],
    );
    reject(
        "original",
        &|it| drop(it.remove("encoder.0.weight")),
        &["is no FSVAE", "missing: `encoder.0.weight`"],
    );
    reject("table1", &|it| drop(it.insert("psp.x".into(), ones(&[1]))), &["not known: `psp.x`"]);
    let zeros =
        |it: &mut BTreeMap<String, Tensor>| drop(it.insert("prior.initial_input".into(), ones(&[1, 5, 1])));
    reject("original", &zeros, &["`prior.initial_input`", "holds 1, where all is 0"]);
    let flat =
        |it: &mut BTreeMap<String, Tensor>| drop(it.insert("encoder.1.weight".into(), ones(&[6, 4, 3, 3])));
    reject("original", &flat, &["`encoder.1.weight`", "[6, 4, 3, 3, 1]"]);
    let coefficients = |it: &mut BTreeMap<String, Tensor>| {
        it.insert("membrane_output_layer.coef".into(), ones(&[8, 1, 1, 1, 1]));
    };
    reject("table1", &coefficients, &["membrane_output_layer.coef", "no read-out"]);
    rejects(
        pytorch::import_fsvae(&file("table1").with_file_name("model.pth"), &out),
        &["is no FSVAE", "vq_layer.alpha"],
    );
}

/// Whatever shape a tensor has, it is refused, and nothing is built of it.
#[test]
fn tensors_of_odd_shapes_are_errors() {
    let folder = tempfile::tempdir().unwrap();
    let (changed, out) = (folder.path().join("changed.pth"), folder.path().join("out.safetensors"));
    for name in BOTH {
        let theirs = WeightFile::open(file(name)).unwrap();
        let zeros = |dims: &[usize]| Tensor::zeros(dims, DType::F32, &Device::Cpu).unwrap();
        for at in theirs.names() {
            for odd in [&[0][..], &[0, 0], &[7, 1, 1, 1, 1], &[1, 2, 3, 1, 0], &[3, 400]] {
                let tensor = |name: String| {
                    let dims = if name == at { odd.to_vec() } else { theirs.dims(&name).unwrap() };
                    (name, zeros(&dims))
                };
                let tensors: Vec<_> = theirs.names().into_iter().map(tensor).collect();
                pytorch::write_pth(&changed, &tensors).unwrap();
                rejects(pytorch::import_fsvae(&changed, &out), &[""]);
                assert!(!out.exists(), "{at}: {odd:?}");
            }
        }
    }
}

#[test]
fn other_layers_are_not_exported() {
    let folder = tempfile::tempdir().unwrap();
    let (path, out) = (folder.path().join("fsvae.safetensors"), folder.path().join("fsvae.pth"));
    let reject = |cfg: &FsvaeConfig, part: &str| {
        let params = ParamStore::new(Seed(0), DType::F32, &Device::Cpu);
        Fsvae::build(cfg, params.builder()).unwrap().checkpoint(&params).unwrap().save(&path).unwrap();
        rejects(pytorch::export_fsvae(&path, &out), &[part]);
    };
    let mut cfg = FsvaeConfig::table1();
    cfg.body.linear =
        LayerConfig::from(LifConfig { tau: Some(4.), ..LifConfig::default() }).with_norm(Norm::None);
    reject(&cfg, "fsvae.linear");
    reject(&FsvaeConfig { hidden: vec![8], ..FsvaeConfig::table1() }, "fsvae.body");
    let mut cfg = FsvaeConfig::table1();
    (cfg.body.encoder, cfg.body.decoder) = (vec![8], vec![8]);
    reject(&cfg, "fsvae.body");
    assert!(!out.exists());
    // The loss is no part of a state dict.
    let cfg =
        FsvaeConfig { divergence: Divergence::Kld { weight: 1e-4, floor: 1e-2 }, ..FsvaeConfig::table1() };
    let params = ParamStore::new(Seed(0), DType::F32, &Device::Cpu);
    Fsvae::build(&cfg, params.builder()).unwrap().checkpoint(&params).unwrap().save(&path).unwrap();
    pytorch::export_fsvae(&path, &out).unwrap();
}
