//! The whole model: what it shows, what it refuses, and that it is deterministic.

use std::collections::BTreeSet;

use candle_core::{DType, Device, Tensor, bail};
use snn_core::{AdamW, AdamWConfig, DescribeLayers, ParamStore};
use vq_svae::{Activation, ImageSpec, VqSvaeConfig};

use crate::{Fixture, assert_relative, assert_same, assert_several, flat, images, rejects, tiny};

#[test]
fn observers_see_every_layer_in_order() {
    for cfg in [tiny(VqSvaeConfig::paper), tiny(VqSvaeConfig::released_code)] {
        let Fixture { model, .. } = Fixture::lively(&cfg, 0, DType::F32);
        let mut seen = Vec::new();
        let mut observe = |layer: &str, spikes: &Tensor| {
            seen.push((layer.to_owned(), spikes.clone()));
            Ok(())
        };
        let out = model.forward_observed(&images(&cfg, 3, DType::F32), true, &mut observe).unwrap();
        let shapes: Vec<_> = seen.iter().map(|(layer, spikes)| (layer.as_str(), spikes.dims())).collect();
        let wanted: [(&str, &[usize]); 6] = [
            ("encoder.0", &[4, 3, 5, 4, 6]),
            ("encoder.1", &[4, 3, 6, 2, 3]),
            ("encoder.2", &[4, 3, 4, 2, 3]),
            ("generator", &[4, 3, 4, 2, 3]),
            ("decoder.0", &[4, 3, 6, 4, 6]),
            ("decoder.1", &[4, 3, 5, 8, 12]),
        ];
        assert_eq!(shapes, wanted);
        // The model describes the layers that are seen, and its head.
        let layers = model.describe_layers().unwrap();
        let names: Vec<_> = layers.iter().map(|layer| layer.name.as_str()).collect();
        assert_eq!(names, [&wanted.map(|(name, _)| name)[..], &["head"]].concat());
        let reads: Vec<_> = layers.iter().map(|layer| layer.reads.concat()).collect();
        assert_eq!(reads, ["", "encoder.0", "encoder.1", "", "generator", "decoder.0", "decoder.1"]);
        for (layer, (_, shape)) in layers.iter().zip(wanted) {
            assert_eq!(layer.connections.target(), shape[2..]);
        }
        for (layer, spikes) in &seen {
            let values = flat(spikes);
            assert!(values.iter().all(|&s| s == 0. || s == 1.), "{layer}");
            assert!(values.contains(&1.), "{layer} is silent");
        }
        assert_same("encoder.2", &seen[2].1, &out.spikes_e);
        assert_same("generator", &seen[3].1, &out.spikes_q);
    }
}

#[test]
fn errors_of_observers_come_through() {
    let cfg = tiny(VqSvaeConfig::paper);
    let Fixture { model, .. } = Fixture::new(&cfg, 0, DType::F32);
    for layer in ["encoder.0", "encoder.2", "generator", "decoder.1"] {
        let mut observe =
            |seen: &str, _: &Tensor| if seen == layer { bail!("stop at {seen}") } else { Ok(()) };
        rejects(
            model.forward_observed(&images(&cfg, 1, DType::F32), true, &mut observe),
            &["stop at", layer],
        );
    }
}

#[test]
fn a_clamped_output_is_the_other_one_within_the_pixels_range() {
    let wide = tiny(VqSvaeConfig::paper);
    let clamped = VqSvaeConfig { output: Activation::ClampedTanh, ..wide };
    let [wide, clamped] = [wide, clamped].map(|cfg| (Fixture::lively(&cfg, 1, DType::F32), cfg));
    for train in [true, false] {
        let image = |(fixture, cfg): &(Fixture, VqSvaeConfig)| {
            fixture.model.forward_t(&images(cfg, 3, DType::F32), train).unwrap().reconstruction
        };
        let (wide, clamped) = (flat(&image(&wide)), flat(&image(&clamped)));
        assert!(clamped.iter().zip(&wide).all(|(c, w)| *c == w.clamp(-0.5, 0.5)));
        assert!(wide.iter().any(|w| w.abs() > 0.5));
    }
    // What is not a number stays so, and does not pass for black.
    let (fixture, cfg) = &clamped;
    fixture.var("head.bias").set(&Tensor::new(&[f32::NAN], &Device::Cpu).unwrap()).unwrap();
    let out = fixture.model.forward_t(&images(cfg, 3, DType::F32), true).unwrap();
    assert!(flat(&out.reconstruction).iter().all(|x| x.is_nan()));
}

#[test]
fn images_of_another_shape_are_refused() {
    let Fixture { model, .. } = Fixture::new(&tiny(VqSvaeConfig::paper), 0, DType::F32);
    let zeros = |shape: &[usize]| Tensor::zeros(shape, DType::F32, &Device::Cpu).unwrap();
    for (shape, found) in [
        ([2, 3, 8, 12], "[N, 3, 8, 12]"),
        ([2, 1, 12, 12], "[N, 1, 12, 12]"),
        ([2, 1, 8, 8], "[N, 1, 8, 8]"),
        ([2, 1, 12, 8], "[N, 1, 12, 8]"),
    ] {
        rejects(model.forward_t(&zeros(&shape), true), &[found, "(1, 8, 12)"]);
        rejects(model.encode(&zeros(&shape)), &[found, "(1, 8, 12)"]);
    }
    rejects(model.encode(&zeros(&[1, 8, 12])), &["rank"]);
}

#[test]
fn images_of_another_type_are_refused() {
    let cfg = tiny(VqSvaeConfig::paper);
    let Fixture { model, .. } = Fixture::new(&cfg, 0, DType::F32);
    assert!(model.encode(&images(&cfg, 1, DType::F64)).is_err());
}

#[test]
fn empty_batches_are_refused() {
    let cfg = tiny(VqSvaeConfig::paper);
    let Fixture { model, params } = Fixture::new(&cfg, 0, DType::F32);
    let none = images(&cfg, 0, DType::F32);
    rejects(model.forward_t(&none, true), &["batch_norm", "[0, "]);
    rejects(model.encode(&none), &["empty tensor"]);
    rejects(model.decode(&Tensor::zeros((0, 2, 3), DType::U32, &Device::Cpu).unwrap()), &["empty tensor"]);
    for (name, value) in params.snapshot("").unwrap() {
        assert!(flat(&value).iter().all(|x| x.is_finite()), "{name}: a statistic of nothing");
    }
}

fn statistics(params: &ParamStore) -> Vec<(String, Tensor)> {
    let copies = params.snapshot("").unwrap();
    copies.into_iter().filter(|(name, _)| name.contains("running")).collect()
}

#[test]
fn evaluation_moves_nothing() {
    for cfg in [tiny(VqSvaeConfig::paper), tiny(VqSvaeConfig::released_code)] {
        let Fixture { model, params } = Fixture::new(&cfg, 0, DType::F32);
        let xs = images(&cfg, 3, DType::F32);
        let before = params.snapshot("").unwrap();
        let first = model.forward_t(&xs, false).unwrap();
        let second = model.forward_t(&xs, false).unwrap();
        model.decode(&model.encode(&xs).unwrap()).unwrap();
        for (name, value) in params.snapshot("").unwrap() {
            assert_same(&name, &value, &before[&name]);
        }
        assert_same("reconstruction", &second.reconstruction, &first.reconstruction);
    }
}

#[test]
fn training_moves_every_statistic_and_nothing_else() {
    let cfg = tiny(VqSvaeConfig::paper);
    let Fixture { model, params } = Fixture::new(&cfg, 0, DType::F32);
    let before = params.snapshot("").unwrap();
    model.forward_t(&images(&cfg, 3, DType::F32), true).unwrap();
    let moved: BTreeSet<_> = params
        .snapshot("")
        .unwrap()
        .into_iter()
        .filter(|(name, value)| flat(value) != flat(&before[name]))
        .map(|(name, _)| name)
        .collect();
    let wanted: BTreeSet<_> = statistics(&params).into_iter().map(|(name, _)| name).collect();
    assert_eq!(wanted.len(), 12);
    assert_eq!(moved, wanted);
}

/// No state is left in the neurons: the second of two passes is as if there had been no first.
#[test]
fn passes_do_not_depend_on_the_passes_before() {
    let cfg = tiny(VqSvaeConfig::paper);
    let xs = images(&cfg, 3, DType::F32);
    let Fixture { model, .. } = Fixture::new(&cfg, 0, DType::F32);
    model.forward_t(&(&xs * 0.5).unwrap(), true).unwrap();
    let second = model.forward_t(&xs, true).unwrap();
    let fresh = Fixture::new(&cfg, 0, DType::F32).model.forward_t(&xs, true).unwrap();
    assert_same("encoder spikes", &second.spikes_e, &fresh.spikes_e);
    assert_same("reconstruction", &second.reconstruction, &fresh.reconstruction);
}

/// `decode(encode(x))` is the pass itself. Through the embedding that holds but for rounding, since
/// `z_E + (z_Q - z_E)` is not quite `z_Q`.
#[test]
fn encoder_and_decoder_are_the_halves_of_a_pass() {
    for (cfg, bound) in [(VqSvaeConfig::paper as fn(_) -> _, 0.), (VqSvaeConfig::released_code, 1e-12)] {
        let cfg = tiny(cfg);
        let fixture = Fixture::lively(&cfg, 0, DType::F64);
        let xs = images(&cfg, 3, DType::F64);
        fixture.settle(&xs);
        let model = fixture.model;
        let out = model.forward_t(&xs, false).unwrap();
        let codes = model.encode(&xs).unwrap();
        assert_several(&codes);
        assert_same("codes", &codes, &out.codes);
        assert_relative("image", &model.decode(&codes).unwrap(), &out.reconstruction, bound);
    }
}

/// Two steps of training, then every parameter and statistic and some codes and images, as bits.
fn trained(cfg: &VqSvaeConfig) -> Vec<u64> {
    let Fixture { model, params } = Fixture::new(cfg, 11, DType::F32);
    let mut optimiser = AdamW::new(params.trainable(), AdamWConfig::default()).unwrap();
    let xs = images(cfg, 5, DType::F32);
    for _ in 0..2 {
        let out = model.forward_t(&xs, true).unwrap();
        let loss = model.losses(&xs, &out).unwrap().total().unwrap();
        optimiser.step(&params.gradients(&loss.backward().unwrap()).unwrap(), 1.).unwrap();
    }
    let codes = model.encode(&xs).unwrap();
    let results = [model.decode(&codes).unwrap(), codes];
    let all = params.snapshot("").unwrap().into_values().chain(results);
    all.flat_map(|xs| flat(&xs)).map(f64::to_bits).collect()
}

#[test]
fn trainings_do_not_depend_on_the_number_of_threads() {
    for cfg in [VqSvaeConfig::paper, VqSvaeConfig::released_code] {
        let cfg = VqSvaeConfig { time_steps: 6, ..cfg(ImageSpec::MNIST) };
        let with = |n| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(n).build().unwrap();
            pool.install(|| trained(&cfg))
        };
        let one = with(1);
        assert!(one == with(2), "one thread and two");
        assert!(one == with(2), "two threads, once more");
        assert!(one == trained(&cfg), "one thread and all");
    }
}

#[test]
fn seeds_make_different_models() {
    let cfg = tiny(VqSvaeConfig::paper);
    let weight = |seed| flat(Fixture::new(&cfg, seed, DType::F32).var("encoder.0.conv.weight").as_tensor());
    assert_eq!(weight(1), weight(1));
    assert_ne!(weight(1), weight(2));
}

#[test]
fn training_lowers_the_loss() {
    for cfg in [tiny(VqSvaeConfig::paper), tiny(VqSvaeConfig::released_code)] {
        let Fixture { model, params } = Fixture::new(&cfg, 1, DType::F32);
        let optimiser = AdamWConfig { lr: 1e-2, ..AdamWConfig::default() };
        let mut optimiser = AdamW::new(params.trainable(), optimiser).unwrap();
        let xs = images(&cfg, 8, DType::F32);
        let mut totals = Vec::new();
        for _ in 0..60 {
            let out = model.forward_t(&xs, true).unwrap();
            let loss = model.losses(&xs, &out).unwrap().total().unwrap();
            optimiser.step(&params.gradients(&loss.backward().unwrap()).unwrap(), 1.).unwrap();
            totals.push(loss.to_scalar::<f32>().unwrap());
        }
        let mean = |totals: &[f32]| totals.iter().sum::<f32>() / totals.len() as f32;
        let (first, last) = (mean(&totals[..5]), mean(&totals[55..]));
        assert!(last < 0.7 * first, "{first} to {last}");
    }
}
