//! The networks without spikes: one training step and an evaluation pass, as PyTorch makes them (`scripts/golden/analog.py`).

use candle_core::{DType, Tensor};
use snn_core::DescribeLayers;
use vq_svae::{ImageSpec, VqSvaeConfig};

use crate::golden::Golden;
use crate::{assert_relative, assert_same, assert_several, norm};

const IMAGE: ImageSpec = ImageSpec { channels: 1, height: 12, width: 8 };

fn small(cfg: VqSvaeConfig) -> VqSvaeConfig {
    let (encoder_channels, decoder_channels) = ([4, 6], [6, 4]);
    VqSvaeConfig { encoder_channels, decoder_channels, code_channels: 3, codes: 7, ..cfg }
}

fn cases() -> [(&'static str, VqSvaeConfig); 3] {
    let twins = [VqSvaeConfig::paper(IMAGE).twin(), VqSvaeConfig::released_code(IMAGE).twin()];
    let [paper, released] = twins.map(small);
    [("twin_paper", paper), ("twin_released", released), ("vq_vae", small(VqSvaeConfig::vq_vae(IMAGE)))]
}

/// A gradient that is 0 in exact arithmetic, and rounding noise in PyTorch: of a bias in front of a norm, and of `k` where both features
/// are the same.
fn is_zero(file: &str, name: &str) -> bool {
    (file != "vq_vae" && name.ends_with("conv.bias")) || (file == "twin_released" && name == "features.k")
}

fn check(file: &str, cfg: &VqSvaeConfig, dtype: DType, bound: f64) {
    let golden = Golden::load(file);
    let fixture = golden.fixture(cfg, dtype);
    let (model, images) = (&fixture.model, golden.images(dtype));
    let out = model.forward_t(&images, true).unwrap();
    let one_step = |name: &str| golden.get(name).unsqueeze(0).unwrap();
    assert_same("codes", &out.codes, golden.get("out.codes"));
    assert_several(&out.codes);
    assert_relative("encoder", &out.spikes_e, &one_step("out.spikes_e"), bound);
    assert_relative("z_E", &out.z_e, golden.get("out.z_e"), bound);
    assert_relative("generator", &out.spikes_q, &one_step("out.spikes_q"), bound);
    assert_relative("reconstruction", &out.reconstruction, golden.get("out.reconstruction"), bound);

    let losses = model.losses(&images, &out).unwrap();
    let names = ["reconstruction", "dense", "generator", "commitment"];
    let wanted = golden.under("loss.");
    assert_eq!(wanted.len(), if file == "vq_vae" { 2 } else { 4 });
    for (name, value) in names.into_iter().zip(losses.values().unwrap()) {
        let wanted: f64 = wanted.get(name).map_or(0., |loss| loss.to_scalar().unwrap());
        assert!((value - wanted).abs() <= bound * wanted, "{file}, {name}: {value}, not {wanted}");
    }
    let grads = fixture.params.gradients(&losses.total().unwrap().backward().unwrap()).unwrap();
    let wanted = golden.under("grad.");
    assert!(grads.keys().eq(wanted.keys()));
    for (name, grad) in &grads {
        if is_zero(file, name) {
            assert!(norm(grad) < bound && norm(&wanted[name]) < 1e-12, "{file}, {name}: not 0");
        } else {
            assert_relative(&format!("{file}, gradient of {name}"), grad, &wanted[name], bound);
        }
    }
    for (name, wanted) in golden.under("after.") {
        assert_relative(&name, fixture.var(&name).as_tensor(), &wanted, bound);
    }

    let encoded = model.encode(&images).unwrap();
    assert_same("codes in evaluation", &encoded, golden.get("eval.codes"));
    let (again, wanted) = (model.decode(&encoded).unwrap(), golden.get("eval.reconstruction"));
    assert_relative("decoded codes", &again, wanted, bound);
    let mut unseen = |layer: &str, _: &Tensor| candle_core::bail!("{layer} has no spikes");
    let out = model.forward_observed(&images, false, &mut unseen).unwrap();
    assert_relative("reconstruction in evaluation", &out.reconstruction, wanted, bound);
}

#[test]
fn networks_without_spikes_in_f64() {
    for (file, cfg) in cases() {
        check(file, &cfg, DType::F64, 1e-9);
    }
}

#[test]
fn networks_without_spikes_in_f32() {
    for (file, cfg) in cases() {
        check(file, &cfg, DType::F32, 1e-4);
    }
}

#[test]
fn all_their_layers_read_numbers() {
    for (file, cfg) in cases() {
        let layers = Golden::load(file).fixture(&cfg, DType::F32).model.describe_layers().unwrap();
        assert!(layers.iter().all(|layer| layer.reads_numbers));
        let names: Vec<&str> = layers.iter().map(|layer| layer.name.as_str()).collect();
        assert_eq!(names.contains(&"generator"), file != "vq_vae", "{names:?}");
        assert_eq!((names[0], names[names.len() - 1]), ("encoder.0", "head"));
    }
}
