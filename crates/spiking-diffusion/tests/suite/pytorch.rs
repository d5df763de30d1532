//! State dicts of the released code's networks, as PyTorch writes them (`scripts/golden/pytorch.py`): in, out, and what is wrong with some.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use candle_core::{DType, Device, Tensor};
use proptest::prelude::*;
use spiking_diffusion::absorbing_diffusion::{HeadReads, SdidConfig, TokenInput};
use spiking_diffusion::data::{Dataset, Split};
use spiking_diffusion::metrics::WeightFile;
use spiking_diffusion::snn_core::{LifConfig, Model, ParamStore, Readout, Seed};
use spiking_diffusion::vq_svae::{Activation, ImageSpec, VqSvae, VqSvaeConfig};
use spiking_diffusion::{Silent, Trained, pytorch};

use crate::rejects;

const FILES: [&str; 2] = ["model.pth", "diff_model.pth"];

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

fn golden() -> HashMap<String, Tensor> {
    candle_core::safetensors::load(folder().join("pytorch.safetensors"), &Device::Cpu).unwrap()
}

/// The images that the codes are of, as training and test images.
fn images() -> Dataset {
    let bytes = golden()["pixels"].flatten_all().unwrap().to_vec1::<f64>().unwrap();
    let split = Split::new(bytes.iter().map(|byte| *byte as u8).collect(), vec![0; 3], (1, 28, 28)).unwrap();
    Dataset::new("strokes", split.clone(), split).unwrap()
}

fn imported(out: &Path) -> Trained {
    let [vqsvae, sdid] = FILES.map(|name| folder().join(name));
    pytorch::import(&vqsvae, &sdid, &images(), out).unwrap()
}

#[track_caller]
fn assert_relative(what: &str, got: &Tensor, wanted: &Tensor) {
    let values =
        |xs: &Tensor| xs.flatten_all().unwrap().to_dtype(DType::F64).unwrap().to_vec1::<f64>().unwrap();
    assert_eq!(got.dims(), wanted.dims(), "{what}");
    let norm = |xs: &mut dyn Iterator<Item = f64>| xs.map(|x| x * x).sum::<f64>().sqrt();
    let wanted = values(wanted);
    let off = norm(&mut values(got).into_iter().zip(&wanted).map(|(a, b)| a - b));
    let off = off / norm(&mut wanted.iter().copied());
    assert!(off <= 1e-5, "{what}: off by {off:e}");
}

#[test]
fn codes_reconstructions_and_logits_are_those_of_pytorch() {
    let (out, golden) = (tempfile::tempdir().unwrap(), golden());
    let Trained { cfg, autoencoder: vqsvae, denoiser: sdid, .. } = imported(out.path());
    assert_eq!((cfg.vqsvae.codes, cfg.sdid.codes, cfg.vqsvae.time_steps), (64, 64, 16));
    assert_eq!(cfg.sdid.channels[..], [8, 12, 16, 12, 8]);
    let released = VqSvaeConfig { codes: 64, ..VqSvaeConfig::released_code(ImageSpec::MNIST) };
    assert_eq!(VqSvaeConfig { reconstruction: released.reconstruction, ..cfg.vqsvae }, released);

    let tokens = |name: &str| golden[name].to_dtype(DType::U32).unwrap();
    let codes = vqsvae.encode(&images().test.range(0..3, &Device::Cpu).unwrap()).unwrap();
    let all = |codes: &Tensor| codes.flatten_all().unwrap().to_vec1::<u32>().unwrap();
    assert_eq!(all(&codes), all(&tokens("codes")));
    assert_relative("reconstruction", &vqsvae.decode(&codes).unwrap(), &golden["reconstruction"]);
    let logits = sdid.forward_t(&tokens("h"), &tokens("t"), false).unwrap();
    assert_relative("logits", &logits, &golden["logits"]);

    // The very numbers, in the run's files.
    let theirs = WeightFile::open(folder().join("model.pth")).unwrap();
    let ours = WeightFile::open(out.path().join("vqsvae.safetensors")).unwrap();
    assert_eq!(ours.values("features.k", &[1]).unwrap(), theirs.values("vq_layer.alpha", &[]).unwrap());
    let kernel = [64, 32, 3, 3];
    assert_eq!(
        ours.values("encoder.1.conv.weight", &kernel).unwrap(),
        theirs.values("encoder.snn_convs.3.weight", &kernel).unwrap()
    );
}

#[test]
fn a_run_goes_out_and_comes_back_as_it_was() {
    let folder_of_all = tempfile::tempdir().unwrap();
    let at = |name: &str| folder_of_all.path().join(name);
    imported(&at("in"));
    let written = pytorch::export(&at("in"), &at("out")).unwrap();
    for (path, name) in written.iter().zip(FILES) {
        assert_eq!(*path, at("out").join(name));
        let (theirs, ours) =
            (WeightFile::open(folder().join(name)).unwrap(), WeightFile::open(path).unwrap());
        assert_eq!(theirs.names(), ours.names());
        for tensor in theirs.names().iter().filter(|name| !name.ends_with("num_batches_tracked")) {
            let dims = theirs.dims(tensor).unwrap();
            let (theirs, ours) = (theirs.values(tensor, &dims).unwrap(), ours.values(tensor, &dims).unwrap());
            assert!(theirs.iter().zip(&ours).all(|(a, b)| (a - b).abs() <= 1e-7 * a.abs()), "{tensor}");
            assert!(theirs == ours || tensor.ends_with("coef"), "{tensor}");
        }
    }
    pytorch::import(&written[0], &written[1], &images(), &at("again")).unwrap();
    pytorch::export(&at("again"), &at("out again")).unwrap();
    let same = |a: &str, b: &str| assert!(fs::read(at(a)).unwrap() == fs::read(at(b)).unwrap(), "{a}, {b}");
    for name in ["config.json", "vqsvae.safetensors", "sdid.safetensors"] {
        same(&format!("in/{name}"), &format!("again/{name}"));
    }
    FILES.iter().for_each(|name| same(&format!("out/{name}"), &format!("out again/{name}")));
}

#[test]
fn the_first_codes_are_written_and_their_error_is_measured() {
    let out = tempfile::tempdir().unwrap();
    let (trained, data, path) = (imported(out.path()), images(), out.path().join("codes.safetensors"));
    let mse = pytorch::encode(&trained, &data, 2, &path, &mut Silent).unwrap();
    let codes = candle_core::safetensors::load(&path, &Device::Cpu).unwrap()["codes"].clone();
    assert_eq!((codes.dims(), codes.dtype()), (&[2, 7, 7][..], DType::U32));
    let golden = golden();
    let two = |name: &str| golden[name].narrow(0, 0, 2).unwrap();
    let difference = (two("reconstruction") - ((two("pixels") / 255.).unwrap() - 0.5).unwrap()).unwrap();
    let wanted = difference.sqr().unwrap().mean_all().unwrap().to_scalar::<f64>().unwrap();
    assert!((mse - wanted).abs() <= 1e-5 * wanted, "{mse}, not {wanted}");
    for count in [0, 4] {
        let encoded = pytorch::encode(&trained, &data, count, &path, &mut Silent);
        rejects(encoded, &["`encode`", &count.to_string(), "at most 3"]);
    }
}

/// A state dict.
type Tensors = Vec<(String, Tensor)>;

/// The entries of a golden file, to be changed and written again.
fn entries(name: &str) -> Tensors {
    let file = WeightFile::open(folder().join(name)).unwrap();
    let tensor = |name: String| {
        let dims = file.dims(&name).unwrap();
        let values = Tensor::from_vec(file.values(&name, &dims).unwrap(), dims, &Device::Cpu).unwrap();
        (name, values)
    };
    file.names().into_iter().map(tensor).collect()
}

#[test]
fn what_does_not_belong_is_named() {
    let out = tempfile::tempdir().unwrap();
    let changed = out.path().join("changed.pth");
    let sdid = folder().join("diff_model.pth");
    let reject = |change: &dyn Fn(&mut Tensors), parts: &[&str]| {
        let mut tensors = entries("model.pth");
        change(&mut tensors);
        pytorch::write_pth(&changed, &tensors).unwrap();
        let run = out.path().join("run");
        let parts = [&["changed.pth"], parts].concat();
        rejects(pytorch::import(&changed, &sdid, &images(), &run), &parts);
        assert!(!run.exists());
    };
    let set = |name: &'static str, values: &'static [f32], dims: &'static [usize]| {
        move |tensors: &mut Tensors| {
            let tensor = Tensor::from_slice(values, dims, &Device::Cpu).unwrap();
            tensors.retain(|(there, _)| there != name);
            tensors.push((name.to_owned(), tensor));
        }
    };
    reject(
        &|tensors| tensors.iter_mut().filter(|it| it.0.starts_with("vq_layer.po")).for_each(|it| it.0 += "_"),
        &[
            "is no VQ-SVAE",
            "missing: `vq_layer.poisson.0.weight`, `vq_layer.poisson.0.bias`, `vq_layer.poisson.1.weight`",
            "not known: `vq_layer.poisson.0.bias_`, `vq_layer.poisson.0.weight_`, `vq_layer.poisson.1.bias_`",
        ],
    );
    reject(&|tensors| drop(tensors.remove(0)), &["missing: `decoder.snn_convs.0.bias`"]);
    reject(
        &set("decoder.snn_convs.1.bias", &[0.; 3], &[3]),
        &["`decoder.snn_convs.1.bias`", "[64], got [3]"],
    );
    reject(
        &set("vq_layer.embeddings.weight", &[0.; 64], &[64]),
        &["embeddings.weight`", "without an axis 1"],
    );
    reject(&set("memout.coef", &[0.7; 16], &[16, 1, 1, 1, 1]), &["`memout.coef`", "0.7, 0.7", "no read-out"]);
    reject(&set("memout.coef", &[0.8, 1.], &[2, 1, 1, 1, 1]), &["vq_layer.memout.coef", "[2, 1, 1, 1, 1]"]);
    reject(&set("vq_layer.alpha", &[f32::NAN], &[]), &["`vq_layer.alpha`", "NaN"]);
    reject(&set("vq_layer.alpha", &[0.5, 0.5], &[2]), &["`vq_layer.alpha`", "[], got [2]"]);
    let tracked = "encoder.snn_convs.1.num_batches_tracked";
    reject(&set(tracked, &[-1.], &[]), &[tracked, "is -1, no number of batches"]);
    let [vqsvae, sdid] = FILES.map(|name| folder().join(name));
    let swapped = pytorch::import(&sdid, &vqsvae, &images(), &out.path().join("run"));
    rejects(
        swapped,
        &["diff_model.pth", "is no VQ-SVAE", "missing: `encoder.snn_convs.0.weight`", "not known: `conv1.0"],
    );
    rejects(
        pytorch::import(&vqsvae, &vqsvae, &images(), &out.path().join("run")),
        &["is no SDID", "`conv6.0.bias`"],
    );
}

/// Whatever shape a tensor has, it is refused, and nothing is built of it.
#[test]
fn tensors_of_odd_shapes_are_errors() {
    let out = tempfile::tempdir().unwrap();
    let (changed, run, data) = (out.path().join("changed.pth"), out.path().join("run"), images());
    for (i, name) in FILES.into_iter().enumerate() {
        for at in 0..entries(name).len() {
            for odd in [&[0][..], &[0, 0], &[7, 1, 1, 1, 1], &[3, 400]] {
                let mut tensors = entries(name);
                tensors[at].1 = Tensor::zeros(odd, DType::F32, &Device::Cpu).unwrap();
                pytorch::write_pth(&changed, &tensors).unwrap();
                let mut paths = FILES.map(|name| folder().join(name));
                paths[i] = changed.clone();
                rejects(pytorch::import(&paths[0], &paths[1], &data, &run), &[""]);
                assert!(!run.exists(), "{}: {odd:?}", tensors[at].0);
            }
        }
    }
}

#[test]
fn constants_may_be_missing() {
    let out = tempfile::tempdir().unwrap();
    let bare = FILES.map(|name| {
        let mut tensors = entries(name);
        tensors.retain(|(name, _)| !name.ends_with("coef") && !name.ends_with("num_batches_tracked"));
        let path = out.path().join(name);
        pytorch::write_pth(&path, &tensors).unwrap();
        path
    });
    let trained = pytorch::import(&bare[0], &bare[1], &images(), &out.path().join("run")).unwrap();
    assert_eq!(trained.sha256, imported(&out.path().join("whole")).sha256);
}

/// A small VQ-SVAE of this config instead of a run's.
fn replace(run: &Path, cfg: &VqSvaeConfig) {
    let params = ParamStore::new(Seed(3), DType::F32, &Device::Cpu);
    let model = VqSvae::build(cfg, params.builder()).unwrap();
    model.checkpoint(&params).unwrap().save(&run.join("vqsvae.safetensors")).unwrap();
}

#[test]
fn the_papers_features_go_out_as_coefficients() {
    let folder_of_all = tempfile::tempdir().unwrap();
    let at = |name: &str| folder_of_all.path().join(name);
    imported(&at("run"));
    let paper = VqSvaeConfig { codes: 64, ..VqSvaeConfig::paper(ImageSpec::MNIST) };
    replace(&at("run"), &paper);
    let [vqsvae, sdid] = pytorch::export(&at("run"), &at("out")).unwrap();
    let coefficients =
        WeightFile::open(&vqsvae).unwrap().values("vq_layer.memout.coef", &[16, 1, 1, 1, 1]).unwrap();
    assert_eq!(coefficients[13..], [0.125, 0.25, 0.5]);
    let back = pytorch::import(&vqsvae, &sdid, &images(), &at("back")).unwrap();
    assert_eq!(back.cfg.vqsvae.features, Readout::Psp { tau: 2. });
    let images = images().test.range(0..3, &Device::Cpu).unwrap();
    let ours = VqSvae::load(&at("run").join("vqsvae.safetensors"), &Device::Cpu).unwrap();
    let codes =
        |model: &VqSvae| model.encode(&images).unwrap().flatten_all().unwrap().to_vec1::<u32>().unwrap();
    assert_eq!(codes(&back.autoencoder), codes(&ours));
}

#[test]
fn what_the_released_code_cannot_compute_is_not_exported() {
    let folder_of_all = tempfile::tempdir().unwrap();
    let run = folder_of_all.path().join("run");
    let trained = imported(&run);
    let out = folder_of_all.path().join("out");
    let released = trained.cfg.vqsvae.clone();
    let lif = LifConfig { tau: Some(4.), ..released.lif };
    for (cfg, field) in [
        (VqSvaeConfig { output: Activation::ClampedTanh, ..released.clone() }, "vqsvae.output"),
        (VqSvaeConfig { lif, ..released.clone() }, "vqsvae.lif"),
        (VqSvaeConfig { time_steps: 4, ..released.clone() }, "sdid.time_steps"),
    ] {
        replace(&run, &cfg);
        rejects(pytorch::export(&run, &out), &[field]);
    }
    replace(&run, &released);
    let sdid = trained.cfg.sdid;
    for (cfg, parts) in [
        (
            SdidConfig { token_input: TokenInput::Embedding { dim: 4 }, ..sdid.clone() },
            ["sdid.token_input", "raw numbers"],
        ),
        (SdidConfig { head_kernel: 1, ..sdid.clone() }, ["sdid.head_kernel", "has 3"]),
        (SdidConfig { head_reads: HeadReads::All, ..sdid }, ["sdid.head_reads", "last layer and the first"]),
    ] {
        let params = ParamStore::new(Seed(0), DType::F32, &Device::Cpu);
        let sdid = spiking_diffusion::absorbing_diffusion::Sdid::build(&cfg, params.builder()).unwrap();
        sdid.checkpoint(&params).unwrap().save(&run.join("sdid.safetensors")).unwrap();
        rejects(pytorch::export(&run, &out), &parts);
    }
    assert!(!out.exists());
    let path = folder_of_all.path().join("x.pth");
    let doubles = Tensor::zeros(2, DType::F64, &Device::Cpu).unwrap();
    rejects(pytorch::write_pth(&path, &[("x".into(), doubles)]), &["x.pth", "`x`", "F64"]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_damaged_file_is_an_error_and_no_panic(file in 0usize..2, at: u32, byte: u8, cut: u32) {
        let out = tempfile::tempdir().unwrap();
        let mut paths = FILES.map(|name| folder().join(name));
        let mut bytes = fs::read(&paths[file]).unwrap();
        paths[file] = out.path().join("damaged.pth");
        // Most of the file is numbers; the directory at its end is where damage does most.
        let at = bytes.len() - 1 - (at as usize % bytes.len().min(if at % 2 == 0 { 20_000 } else { usize::MAX }));
        bytes[at] = byte;
        fs::write(&paths[file], &bytes).unwrap();
        let _ = pytorch::import(&paths[0], &paths[1], &images(), &out.path().join("run"));
        bytes.truncate(cut as usize % bytes.len());
        fs::write(&paths[file], &bytes).unwrap();
        prop_assert!(pytorch::import(&paths[0], &paths[1], &images(), &out.path().join("again")).is_err());
    }
}

/// A Python with PyTorch and SpikingJelly: `$PYTHON`, that of the scripts, or the system's.
#[allow(clippy::print_stderr, reason = "says that it was skipped")]
fn python(repository: &Path) -> Option<Command> {
    let chosen = std::env::var_os("PYTHON").map(PathBuf::from);
    let candidates = [chosen, Some(repository.join("scripts/.venv/bin/python")), Some("python3".into())];
    let works = |python: &PathBuf| {
        let output = Command::new(python).args(["-c", "import torch, spikingjelly"]).output();
        output.is_ok_and(|output| output.status.success())
    };
    let found = candidates.into_iter().flatten().find(works);
    if found.is_none() {
        eprintln!("skipped: no Python with torch and spikingjelly; PYTHON may name one");
    }
    found.map(Command::new)
}

#[test]
fn pytorch_loads_strictly_what_is_exported() {
    let repository = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..");
    let Some(mut python) = python(&repository) else { return };
    let out = tempfile::tempdir().unwrap();
    imported(&out.path().join("run"));
    pytorch::export(&out.path().join("run"), &out.path().join("out")).unwrap();
    let script = "
import sys, torch
scripts, golden, out = sys.argv[1:]
sys.path.insert(0, scripts)
from released import Sdid, VqSvae
for name, model in [('model', VqSvae(codes=64)), ('diff_model', Sdid(64, (8, 12, 16, 12, 8)))]:
    state = torch.load(f'{out}/{name}.pth')
    assert not model.load_state_dict(state, strict=True).missing_keys
    wanted = torch.load(f'{golden}/{name}.pth')
    assert list(state) == list(wanted), [*zip(state, wanted)]
    for key, value in wanted.items():
        got = state[key]
        assert (got.dtype, got.shape) == (value.dtype, value.shape), key
        close = torch.allclose(got, value, rtol=1e-6, atol=0) if key.endswith('coef') else torch.equal(got, value)
        assert close or key.endswith('num_batches_tracked'), key
";
    let arguments = [repository.join("scripts/golden"), folder(), out.path().join("out")];
    let output =
        python.env("PYTHONDONTWRITEBYTECODE", "1").args(["-c", script]).args(arguments).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
