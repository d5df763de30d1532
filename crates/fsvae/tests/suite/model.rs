//! Steps against prefixes, what draws do, files.

use candle_core::{DType, Device, Tensor};
use fsvae::{Draws, Esvae, EsvaeConfig, EsvaeDraws, Fsvae, FsvaeConfig};
use snn_core::{DescribeLayers, LayerDescription, Model, Norm, ParamStore, Seed};

use crate::{Fixture, assert_relative, assert_same, both, flat, images, rejects, tiny, tiny_body};

fn draws(cfg: &FsvaeConfig, n: usize, seed: u64) -> Draws {
    Draws::new(cfg, n, 0.5, Seed(seed), "draws", &Device::Cpu).unwrap()
}

fn distinct(xs: &Tensor) -> bool {
    let values = flat(xs);
    values.iter().any(|x| *x != values[0])
}

/// What the latent spikes are at a time step depends on the image, on the picks so far and on nothing after.
#[test]
fn a_draw_sees_the_past_and_never_the_future() {
    for cfg in both() {
        let Fixture { model, .. } = Fixture::lively(&cfg, 1, DType::F64);
        let (images, picks) = (images(3, DType::F64), draws(&cfg, 3, 1).picks);
        let z = model.encode(&images, &picks).unwrap();
        assert!(distinct(&z), "nothing happens");
        let late = Tensor::cat(&[picks.narrow(0, 0, 5).unwrap(), picks.narrow(0, 0, 3).unwrap()], 0).unwrap();
        let other = model.encode(&images, &late).unwrap();
        assert_same("the first steps", &other.narrow(0, 0, 5).unwrap(), &z.narrow(0, 0, 5).unwrap());
        assert_ne!(flat(&other), flat(&z));
    }
}

/// Without a norm the passes of training are those of evaluation, whichever way their draws are made.
#[test]
fn training_without_norms_between_maps_draws_what_evaluation_draws() {
    let mut cfg = tiny(FsvaeConfig::table1());
    cfg.body.maps = cfg.body.maps.with_norm(Norm::None);
    let Fixture { model, .. } = Fixture::lively(&cfg, 2, DType::F64);
    let z = model.encode(&images(3, DType::F64), &draws(&cfg, 3, 2).picks).unwrap();
    let [trained, evaluated] = [true, false]
        .map(|train| model.forward_t(&images(3, DType::F64), &draws(&cfg, 3, 2), train).unwrap());
    assert_same("z", &evaluated.z, &z);
    for (what, [trained, evaluated]) in [
        ("z", [&trained.z, &evaluated.z]),
        ("q_z", [&trained.q_z, &evaluated.q_z]),
        ("p_z", [&trained.p_z, &evaluated.p_z]),
    ] {
        assert_same(what, trained, evaluated);
    }
    assert!(distinct(&evaluated.q_z) && distinct(&evaluated.p_z));
}

#[test]
fn latent_spikes_of_another_shape_and_configs_without_candidates_are_refused() {
    let cfg = tiny(FsvaeConfig::table1());
    let Fixture { model, .. } = Fixture::lively(&cfg, 2, DType::F32);
    let (steps, latent) = (cfg.body.time_steps, cfg.body.latent);
    for shape in [(steps - 1, 2, latent), (steps, 2, latent + 1)] {
        let z = Tensor::zeros(shape, DType::F32, &Device::Cpu).unwrap();
        rejects(model.decode(&z), &["latent spikes", &format!("{:?}", [shape.0, shape.1, shape.2])]);
    }
    for candidates in [0, 1 << 32] {
        let cfg = FsvaeConfig { candidates, ..cfg.clone() };
        rejects(Draws::picks(&cfg, 2, Seed(0), "draws", &Device::Cpu), &["candidates"]);
    }
}

#[test]
fn no_images_are_drawn_of_no_picks_and_none_of_a_pick_that_is_none() {
    for cfg in both() {
        let Fixture { model, .. } = Fixture::lively(&cfg, 2, DType::F32);
        let (steps, latent) = (cfg.body.time_steps, cfg.body.latent);
        let none = Tensor::zeros((steps, 0, latent), DType::U32, &Device::Cpu).unwrap();
        assert_eq!(model.sample(&none).unwrap().dim(0).unwrap(), 0);
        let empty = images(1, DType::F32).narrow(0, 0, 0).unwrap();
        assert_eq!(model.encode(&empty, &none).unwrap().dims(), [steps, 0, latent]);
        for pick in [cfg.candidates as u32, u32::MAX] {
            let picks = Tensor::full(pick, (steps, 1, latent), &Device::Cpu).unwrap();
            rejects(model.sample(&picks), &["pick", &pick.to_string(), &cfg.candidates.to_string()]);
        }
    }
}

#[test]
fn an_image_does_not_depend_on_its_batch_in_evaluation() {
    for cfg in both() {
        let Fixture { model, .. } = Fixture::lively(&cfg, 3, DType::F32);
        let picks = draws(&cfg, 3, 3).picks;
        let all = model.sample(&picks).unwrap();
        let one = model.sample(&picks.narrow(1, 1, 1).unwrap()).unwrap();
        assert_same("sample 1", &one, &all.narrow(0, 1, 1).unwrap());
        assert!(distinct(&all));
    }
}

#[test]
fn scheduled_draws_reach_the_prior_and_nothing_else() {
    let cfg = tiny(FsvaeConfig::original(1));
    let with = draws(&cfg, 4, 5);
    let scheduled: Vec<usize> = (0..8).filter(|t| with.scheduled[*t].is_some()).collect();
    assert!(!scheduled.is_empty() && scheduled.iter().all(|t| (5..7).contains(t)), "{scheduled:?}");
    let pass = |draws: &Draws, train| {
        Fixture::lively(&cfg, 5, DType::F64).model.forward_t(&images(4, DType::F64), draws, train).unwrap()
    };
    let without = Draws { scheduled: Vec::new(), ..with.clone() };
    for train in [true, false] {
        let (a, b) = (pass(&with, train), pass(&without, train));
        assert_same("z", &a.z, &b.z);
        assert_same("reconstruction", &a.reconstruction, &b.reconstruction);
        assert_eq!(flat(&a.p_z) != flat(&b.p_z), train);
    }
}

#[test]
fn draws_follow_from_seed_and_label() {
    let cfg = tiny(FsvaeConfig::original(1));
    let picks = |seed, label: &str| flat(&Draws::picks(&cfg, 50, Seed(seed), label, &Device::Cpu).unwrap());
    assert_eq!(picks(1, "a"), picks(1, "a"));
    assert_ne!(picks(1, "a"), picks(2, "a"));
    assert_ne!(picks(1, "a"), picks(1, "b"));
    let count = |k: f64| picks(1, "a").iter().filter(|pick| **pick == k).count();
    assert!((0..4).all(|k| (420..580).contains(&count(k.into()))) && count(4.) == 0);
    let never = Draws::new(&cfg, 2, 0., Seed(1), "a", &Device::Cpu).unwrap();
    let always = Draws::new(&cfg, 2, 1., Seed(1), "a", &Device::Cpu).unwrap();
    assert!(never.scheduled.iter().all(Option::is_none));
    assert_eq!(
        always.scheduled.iter().map(Option::is_some).collect::<Vec<_>>()[4..],
        [false, true, true, false]
    );
}

#[test]
fn a_model_is_saved_and_loaded() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("fsvae.safetensors");
    for cfg in both() {
        let Fixture { params, model } = Fixture::lively(&cfg, 4, DType::F32);
        model.checkpoint(&params).unwrap().save(&path).unwrap();
        let loaded = Fsvae::load(&path, &Device::Cpu).unwrap();
        assert_eq!(loaded.config(), &cfg);
        let picks = draws(&cfg, 2, 1).picks;
        assert_same("samples", &loaded.sample(&picks).unwrap(), &model.sample(&picks).unwrap());
    }
}

#[test]
fn what_does_not_fit_is_an_error() {
    let cfg = tiny(FsvaeConfig::table1());
    let Fixture { model, .. } = Fixture::lively(&cfg, 1, DType::F32);
    let (good, images) = (draws(&cfg, 2, 1), images(2, DType::F32));
    let wide = Tensor::zeros((2, 1, 8, 12), DType::F32, &Device::Cpu).unwrap();
    rejects(model.forward_t(&wide, &good, true), &["[2, 1, 8, 12]", "[1, 8, 8]"]);
    rejects(model.encode(&images, &draws(&cfg, 3, 1).picks), &["[8, 3, 5]", "[8, 2, 5]"]);
    rejects(model.sample(&good.picks.narrow(0, 0, 4).unwrap()), &["[4, 2, 5]", "[8, 2, 5]"]);
    rejects(model.sample(&good.picks.to_dtype(DType::F32).unwrap()), &["F32", "U32"]);
    let beyond = Tensor::full(4u32, (8, 2, 5), &Device::Cpu).unwrap();
    assert!(model.sample(&beyond).is_err());
}

/// The layers that are described are those that are seen, on maps of their sizes, and read what is seen.
fn check_described(layers: &[LayerDescription], seen: &[(String, Tensor)]) {
    let names: Vec<&str> = seen.iter().map(|(name, _)| name.as_str()).collect();
    let (head, layers) = layers.split_last().unwrap();
    assert_eq!(head.name, "head");
    let described: Vec<&str> = layers.iter().map(|layer| layer.name.as_str()).collect();
    assert_eq!(described, names.iter().copied().filter(|name| *name != "z").collect::<Vec<_>>());
    for layer in layers {
        let spikes = &seen.iter().find(|(name, _)| *name == layer.name).unwrap().1;
        let counted: usize = spikes.dims()[2..].iter().product();
        assert_eq!(counted, layer.connections.target().iter().product::<usize>(), "{}", layer.name);
        assert!(layer.reads.iter().all(|name| names.contains(&name.as_str())), "{layer:?}");
        assert_eq!(layer.reads.is_empty(), layer.name == "encoder.0");
        // All that it reads spiking once cost as much as multiplying.
        let everything = layer.reads.iter().map(|name| {
            let source = seen.iter().find(|(other, _)| other == name).unwrap().1.dims().to_vec();
            let positions = source[3..].iter().product::<usize>();
            layer.connections.accumulates(&vec![source[2] as f64; positions])
        });
        assert!(layer.reads.is_empty() || everything.sum::<f64>() == layer.connections.macs(), "{layer:?}");
    }
}

#[test]
fn what_is_observed_is_what_runs_and_what_is_described() {
    for cfg in both() {
        for train in [true, false] {
            let (seen, draws) = (std::cell::RefCell::new(Vec::new()), draws(&cfg, 3, 6));
            let images = images(3, DType::F32);
            let mut observe = |name: &str, spikes: &Tensor| {
                seen.borrow_mut().push((name.to_owned(), spikes.clone()));
                Ok(())
            };
            let model = Fixture::lively(&cfg, 6, DType::F32).model;
            let out = model.forward_observed(&images, &draws, train, &mut observe).unwrap();
            let plain = Fixture::lively(&cfg, 6, DType::F32).model.forward_t(&images, &draws, train).unwrap();
            assert_same("q_z", &out.q_z, &plain.q_z);
            assert_same("p_z", &out.p_z, &plain.p_z);
            assert_relative("reconstruction", &out.reconstruction, &plain.reconstruction, 1e-5);
            let seen = seen.into_inner();
            check_described(&model.describe_layers().unwrap(), &seen);
            let last = |part: &str| &seen.iter().rfind(|(name, _)| name.starts_with(part)).unwrap().1;
            assert_same("posterior", last("posterior"), &out.q_z.flatten_from(2).unwrap());
            assert_same("z", last("z"), &out.z);
        }
    }
    let cfg = EsvaeConfig::original(1);
    let cfg = EsvaeConfig { body: tiny_body(cfg.body), ..cfg };
    let params = ParamStore::new(Seed(0), DType::F32, &Device::Cpu);
    let model = Esvae::new(&cfg, params.builder()).unwrap();
    let (mut seen, draws) = (Vec::new(), EsvaeDraws::new(&cfg, 3, Seed(1), "a", &Device::Cpu).unwrap());
    let mut observe = |name: &str, spikes: &Tensor| {
        seen.push((name.to_owned(), spikes.clone()));
        Ok(())
    };
    let out = model.forward_observed(&images(3, DType::F32), &draws, false, &mut observe).unwrap();
    let plain = model.forward_t(&images(3, DType::F32), &draws, false).unwrap();
    assert_same("z", &out.z, &plain.z);
    assert_relative("reconstruction", &out.reconstruction, &plain.reconstruction, 1e-5);
    check_described(&model.describe_layers().unwrap(), &seen);
}
