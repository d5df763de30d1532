use std::sync::Mutex;

use absorbing_diffusion::{AbsorbingProcess, BitsPerToken, Denoiser, ElboConfig, bits_per_token, from_fn};
use candle_core::{Device, Result, Tensor};
use snn_core::Seed;

use crate::{maps, oracle, rejects, uniform};

#[test]
fn one_who_knows_nothing_needs_log2_k() {
    for steps in [1, 5, 49, 64] {
        let process = AbsorbingProcess::new(10, steps).unwrap();
        let h0 = maps((2000, 3, 4), |i, j| ((i + j) % 10) as u32);
        let bits =
            bits_per_token(&process, &uniform(10, (3, 4)), &h0, &ElboConfig::default(), Seed(1)).unwrap();
        let error = (bits.mean - 10f64.log2()).abs();
        assert!(error <= 4. * bits.standard_error + 1e-6, "T_d = {steps}: {bits:?}");
        assert!(bits.standard_error < 0.05 && bits.images == 2000);
    }
}

#[test]
fn one_who_knows_everything_needs_nothing() {
    let process = AbsorbingProcess::new(10, 12).unwrap();
    let map: Vec<u32> = (0..12).map(|i| i % 10).collect();
    let h0 = maps((20, 3, 4), |_, j| map[j]);
    let bits =
        bits_per_token(&process, &oracle(10, &map, (3, 4)), &h0, &ElboConfig::default(), Seed(1)).unwrap();
    assert!(bits.mean.abs() < 1e-6 && bits.standard_error < 1e-6, "{bits:?}");
}

/// Logits that depend on what is shown and on the time, in exact arithmetic.
fn dyadic(h_t: &Tensor, t: &Tensor, _: bool) -> Result<Tensor> {
    let (n, h, w) = h_t.dims3()?;
    let t = t.reshape((n, 1, 1, 1))?.broadcast_as((n, 1, h, w))?;
    let first = (h_t.unsqueeze(1)? + t)?.to_dtype(candle_core::DType::F32)?;
    Tensor::cat(&[&(&first * 0.25)?, &(&first * -0.125)?, &first.zeros_like()?], 1)
}

#[test]
fn batch_size_changes_nothing() {
    let process = AbsorbingProcess::new(3, 9).unwrap();
    let h0 = maps((23, 3, 2), |i, j| ((i * i + j) % 3) as u32);
    let bits = |batch_size, strata| {
        bits_per_token(&process, &from_fn(dyadic), &h0, &ElboConfig { strata, batch_size }, Seed(1)).unwrap()
    };
    let whole = bits(23, 8);
    assert_eq!((bits(1, 8), bits(7, 8), bits(100, 8)), (whole, whole, whole));
    assert_ne!(bits(23, 4).mean, whole.mean);
}

#[test]
fn logits_that_are_not_read_change_nothing() {
    let process = AbsorbingProcess::new(3, 9).unwrap();
    let h0 = maps((23, 3, 2), |i, j| ((i * i + j) % 3) as u32);
    let bits = |denoiser: &dyn Denoiser| {
        bits_per_token(&process, denoiser, &h0, &ElboConfig::default(), Seed(1)).unwrap()
    };
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let damaged = from_fn(|h_t, t, train| {
            let logits = dyadic(h_t, t, train)?;
            let masked = h_t.eq(3u32)?.unsqueeze(1)?.broadcast_as(logits.shape())?;
            masked.where_cond(&logits, &Tensor::full(bad, logits.shape(), &Device::Cpu)?)
        });
        assert_eq!(bits(&damaged), bits(&from_fn(dyadic)), "{bad}");
    }
}

#[test]
fn times_are_stratified() {
    let times = Mutex::new(Vec::new());
    let denoiser = from_fn(|h_t, t, train| {
        assert!(!train);
        times.lock().unwrap().push(t.to_vec1::<u32>()?);
        dyadic(h_t, t, train)
    });
    let process = AbsorbingProcess::new(3, 16).unwrap();
    let config = ElboConfig { strata: 8, batch_size: 50 };
    bits_per_token(&process, &denoiser, &maps((50, 1, 2), |_, _| 0), &config, Seed(1)).unwrap();
    let times = times.into_inner().unwrap();
    assert_eq!(times.len(), 8);
    for (k, times) in times.iter().enumerate() {
        assert!([2 * k + 1, 2 * k + 2].iter().all(|t| times.contains(&(*t as u32))));
        assert!(times.iter().all(|&t| (t as usize - 1) / 2 == k));
    }
}

#[test]
fn json_is_as_documented() {
    let bits = BitsPerToken { mean: 3.5, standard_error: 0.25, images: 10 };
    let text = serde_json::to_string(&bits).unwrap();
    assert_eq!(text, r#"{"mean":3.5,"standard_error":0.25,"images":10}"#);
}

#[test]
fn nonsense_is_rejected_by_name() {
    let process = AbsorbingProcess::new(3, 4).unwrap();
    let denoiser = uniform(3, (2, 2));
    let with = |h0: &Tensor, strata, batch_size| {
        bits_per_token(&process, &denoiser, h0, &ElboConfig { strata, batch_size }, Seed(1))
    };
    let h0 = maps((3, 2, 2), |_, _| 1);
    assert!(with(&h0, 1, 1).is_ok());
    rejects(with(&h0, 0, 1), &["bound.strata", "0"]);
    rejects(with(&h0, 65_537, 1), &["bound.strata", "65537", "at most 65536"]);
    rejects(with(&h0, 1, 0), &["bound.batch_size", "0"]);
    rejects(with(&maps((3, 2, 2), |i, _| i as u32 + 1), 1, 1), &["code [2, 0, 0] is 3"]);
    rejects(with(&maps((1, 2, 2), |_, _| 0), 1, 1), &["two images"]);
    let nan = from_fn(|h_t, _, _| Tensor::full(f32::NAN, (h_t.dim(0)?, 3, 2, 2), &Device::Cpu));
    rejects(
        bits_per_token(&process, &nan, &h0, &ElboConfig::default(), Seed(1)),
        &["cross entropy of image", "NaN"],
    );
}
