//! The nearest code (Eq. 7), codes back to images, and the use of the codebook.

use candle_core::{DType, Device, Tensor};
use snn_core::Seed;
use vq_svae::{CodeUsage, VqSvaeConfig};

use crate::{Fixture, assert_same, assert_several, flat, images, rejects, tiny};

fn rows(xs: &Tensor) -> Vec<Vec<f64>> {
    xs.to_dtype(DType::F64).unwrap().to_vec2().unwrap()
}

fn codes_of(xs: &Tensor) -> Vec<u32> {
    xs.flatten_all().unwrap().to_vec1().unwrap()
}

/// Squared distances of each feature vector to each code, in f64.
fn distances(z: &Tensor, codebook: &Tensor) -> Vec<Vec<f64>> {
    let channels = z.dim(1).unwrap();
    let z = rows(&z.permute((0, 2, 3, 1)).unwrap().reshape(((), channels)).unwrap());
    let distance = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| (a - b).powi(2)).sum();
    let codebook = rows(codebook);
    z.iter().map(|z| codebook.iter().map(|code| distance(z, code)).collect()).collect()
}

#[test]
fn codes_are_the_nearest() {
    for cfg in [tiny(VqSvaeConfig::paper), tiny(VqSvaeConfig::released_code)] {
        for (seed, dtype, slack) in (0..10).flat_map(|i| [(i, DType::F64, 1e-13), (i, DType::F32, 1e-5)]) {
            let fixture = Fixture::lively(&cfg, seed, dtype);
            let out = fixture.model.forward_t(&images(&cfg, 8, dtype), true).unwrap();
            let codes = codes_of(&out.codes);
            let distances = distances(&out.z_e, fixture.var("codebook.weight").as_tensor());
            assert_eq!(codes.len(), 8 * 2 * 3);
            for (code, distances) in codes.iter().zip(distances) {
                let nearest = distances.iter().copied().fold(f64::INFINITY, f64::min);
                assert!(distances[*code as usize] <= nearest + slack, "{code} of {distances:?}");
            }
            assert_several(&out.codes);
        }
    }
}

#[test]
fn embeddings_are_the_codes_rows() {
    let cfg = tiny(VqSvaeConfig::paper);
    let fixture = Fixture::lively(&cfg, 2, DType::F32);
    let out = fixture.model.forward_t(&images(&cfg, 4, DType::F32), true).unwrap();
    let found = rows(&out.z_q.permute((0, 2, 3, 1)).unwrap().reshape(((), 4)).unwrap());
    let codebook = rows(fixture.var("codebook.weight").as_tensor());
    assert_several(&out.codes);
    for (z, code) in found.iter().zip(codes_of(&out.codes)) {
        assert_eq!(z, &codebook[code as usize]);
    }
}

#[test]
fn of_equal_codes_the_first_is_taken() {
    // Sizes around the widths of matrix kernels.
    for (codes, dtype) in [2, 7, 9, 17, 128].into_iter().flat_map(|k| [(k, DType::F32), (k, DType::F64)]) {
        let cfg = VqSvaeConfig { codes, ..tiny(VqSvaeConfig::paper) };
        let fixture = Fixture::lively(&cfg, 1, dtype);
        let var = fixture.var("codebook.weight");
        let distinct = codes.div_ceil(2) as u32;
        let twice: Vec<u32> = (0..codes as u32).map(|k| k % distinct).collect();
        let twins = var.index_select(&Tensor::new(twice, &Device::Cpu).unwrap(), 0).unwrap();
        var.set(&twins.detach()).unwrap();
        let out = fixture.model.forward_t(&images(&cfg, 8, dtype), true).unwrap();
        if codes > 2 {
            assert_several(&out.codes);
        }
        for code in codes_of(&out.codes) {
            assert!(code < distinct, "K = {codes}, {dtype:?}: {code} instead of {}", code % distinct);
        }
    }
}

#[test]
fn codes_do_not_depend_on_the_batch() {
    for cfg in [VqSvaeConfig::paper, VqSvaeConfig::released_code] {
        let cfg = VqSvaeConfig { time_steps: 6, ..cfg(vq_svae::ImageSpec::MNIST) };
        let fixture = Fixture::lively(&cfg, 3, DType::F32);
        let xs = images(&cfg, 4, DType::F32);
        fixture.settle(&xs);
        let model = fixture.model;
        let one_by_one: Vec<_> =
            (0..4).map(|i| model.encode(&xs.narrow(0, i, 1).unwrap()).unwrap()).collect();
        let codes = model.encode(&xs).unwrap();
        assert_several(&codes);
        assert_same("codes", &Tensor::cat(&one_by_one, 0).unwrap(), &codes);
        let one_by_one: Vec<_> = one_by_one.iter().map(|codes| model.decode(codes).unwrap()).collect();
        assert_same("images", &Tensor::cat(&one_by_one, 0).unwrap(), &model.decode(&codes).unwrap());
    }
}

#[test]
fn codes_outside_the_codebook_are_not_decoded() {
    let Fixture { model, .. } = Fixture::new(&tiny(VqSvaeConfig::paper), 0, DType::F32);
    let map = |code: u32| Tensor::new(&[[[0, 8, 3], [code, 1, 0]]], &Device::Cpu).unwrap();
    assert_eq!(model.decode(&map(8)).unwrap().dims(), [1, 1, 8, 12]);
    // The mask token of a diffusion over these codes is 9.
    rejects(model.decode(&map(9)), &["code 9", "codebook of 9"]);
    rejects(model.decode(&map(u32::MAX)), &["code 4294967295", "codebook of 9"]);
}

#[test]
fn codes_of_another_type_are_not_decoded() {
    let Fixture { model, .. } = Fixture::new(&tiny(VqSvaeConfig::paper), 0, DType::F32);
    for dtype in [DType::F32, DType::I64] {
        rejects(model.decode(&Tensor::zeros((1, 2, 3), dtype, &Device::Cpu).unwrap()), &["U32"]);
    }
    rejects(model.decode(&Tensor::zeros((2, 3), DType::U32, &Device::Cpu).unwrap()), &["rank"]);
}

#[test]
fn usage_counts() {
    let mut usage = CodeUsage::new(5);
    assert_eq!((usage.counts(), usage.used()), ([0; 5].as_slice(), 0));
    usage.record(&Tensor::new(&[[[4u32, 1], [1, 1]]], &Device::Cpu).unwrap()).unwrap();
    usage.record(&Tensor::new(&[1u32, 4, 4, 4], &Device::Cpu).unwrap()).unwrap();
    assert_eq!((usage.counts(), usage.used()), ([0, 4, 0, 0, 4].as_slice(), 2));
    rejects(usage.record(&Tensor::new(&[5u32], &Device::Cpu).unwrap()), &["code 5", "codebook of 5"]);
    assert!(usage.record(&Tensor::new(&[1i64], &Device::Cpu).unwrap()).is_err());
    assert_eq!(usage.counts(), [0, 4, 0, 0, 4], "what was refused counts");
}

#[test]
fn perplexity_is_the_number_of_codes_used_alike() {
    let perplexity = |codes: &[u32]| {
        let mut usage = CodeUsage::new(128);
        usage.record(&Tensor::new(codes, &Device::Cpu).unwrap()).unwrap();
        usage.perplexity()
    };
    let close =
        |got: f64, wanted: f64| assert!((got - wanted).abs() <= 1e-12 * wanted, "{got}, not {wanted}");
    close(perplexity(&[7; 100]), 1.);
    close(perplexity(&(0..128).collect::<Vec<u32>>()), 128.);
    close(perplexity(&[3, 3, 99, 99, 0, 0]), 3.);
    // exp of the entropy of (3/4, 1/4)
    close(perplexity(&[2, 2, 5, 2]), 4. / 3f64.powf(0.75));
    close(CodeUsage::new(128).perplexity(), 1.);
}

#[test]
fn features_mix_rate_and_potential_by_k() {
    for cfg in [tiny(VqSvaeConfig::paper), tiny(VqSvaeConfig::released_code)] {
        let fixture = Fixture::new(&cfg, 4, DType::F64);
        let xs = images(&cfg, 3, DType::F64);
        for k in [0., 1., 0.3, -2.] {
            fixture.var("features.k").set(&Tensor::new(&[k], &Device::Cpu).unwrap()).unwrap();
            let out = fixture.model.forward_t(&xs, true).unwrap();
            let rate = flat(&snn_core::rate(&out.spikes_e).unwrap());
            let second = flat(&cfg.features.apply(&out.spikes_e).unwrap());
            assert!(rate != second);
            for ((z, rate), second) in flat(&out.z_e).iter().zip(rate).zip(second) {
                assert!((z - (k * rate + (1. - k) * second)).abs() <= 1e-14, "k = {k}");
            }
        }
    }
}

#[test]
fn dead_codes_are_moved_onto_features_and_the_others_stay() {
    let cfg = tiny(VqSvaeConfig::paper);
    let fixture = Fixture::lively(&cfg, 1, DType::F32);
    let images = images(&cfg, 40, DType::F32);
    fixture.settle(&images);
    let weight = || rows(fixture.var("codebook.weight").as_tensor());
    // Far from every feature: the nearest of nothing.
    let mut codebook = weight();
    codebook[1] = vec![50.; cfg.code_channels];
    let flat_codes: Vec<f32> = codebook.concat().into_iter().map(|x| x as f32).collect();
    let shape = (cfg.codes, cfg.code_channels);
    let set = || {
        let codes = Tensor::from_slice(&flat_codes, shape, &Device::Cpu).unwrap();
        fixture.var("codebook.weight").set(&codes).unwrap();
    };
    set();
    let mut usage = CodeUsage::new(cfg.codes);
    usage.record(&fixture.model.encode(&images).unwrap()).unwrap();
    let dead: Vec<usize> = (0..cfg.codes).filter(|&k| usage.counts()[k] < 1).collect();
    assert!(dead.contains(&1) && dead.len() < cfg.codes);
    let before = weight();
    assert_eq!(fixture.model.revive_codes(&images, Seed(4), "revival/0").unwrap(), dead.len());
    let after = weight();
    let z = fixture.model.forward_t(&images, false).unwrap().z_e;
    let features = rows(&z.permute((0, 2, 3, 1)).unwrap().reshape(((), cfg.code_channels)).unwrap());
    for k in 0..cfg.codes {
        if dead.contains(&k) {
            let near = |f: &Vec<f64>| f.iter().zip(&after[k]).all(|(a, b)| (a - b).abs() < 1e-5);
            assert!(features.iter().any(near), "code {k} is no feature");
        } else {
            assert_eq!(before[k], after[k], "code {k} was alive");
        }
    }
    // The same again, from the same stream; and nothing where nothing is dead.
    set();
    fixture.model.revive_codes(&images, Seed(4), "revival/0").unwrap();
    assert_eq!(weight(), after);
}
