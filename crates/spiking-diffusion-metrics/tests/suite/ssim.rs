use candle_core::{DType, Device, Tensor};
use proptest::prelude::*;
use spiking_diffusion_metrics::{Padding, SsimConfig, ssim};

use crate::{assert_close, message, normal, with_value};

fn configs() -> [SsimConfig; 2] {
    [SsimConfig::paper(), SsimConfig::standard()]
}

/// The definition: one window at a time, the two-dimensional weights, two-pass moments.
fn naive(a: &[Vec<f64>], b: &[Vec<f64>], cfg: &SsimConfig) -> f64 {
    let (h, w, r) = (a.len() as isize, a[0].len() as isize, (cfg.window / 2) as isize);
    let margin = if cfg.padding == Padding::Zero { 0 } else { r };
    let at = |x: &[Vec<f64>], i: isize, j: isize| {
        if (0..h).contains(&i) && (0..w).contains(&j) { x[i as usize][j as usize] } else { 0.0 }
    };
    let weight = |i: isize, j: isize| (-((i * i + j * j) as f64) / (2.0 * cfg.sigma.powi(2))).exp();
    let offsets: Vec<(isize, isize)> = (-r..=r).flat_map(|i| (-r..=r).map(move |j| (i, j))).collect();
    let total: f64 = offsets.iter().map(|(i, j)| weight(*i, *j)).sum();
    let (c1, c2) = ((cfg.k1 * cfg.data_range).powi(2), (cfg.k2 * cfg.data_range).powi(2));
    let (mut sum, mut count) = (0.0, 0.0);
    for y in margin..h - margin {
        for x in margin..w - margin {
            let window: Vec<_> = offsets
                .iter()
                .map(|(i, j)| (weight(*i, *j) / total, at(a, y + i, x + j), at(b, y + i, x + j)))
                .collect();
            let mean =
                |f: &dyn Fn(f64, f64) -> f64| window.iter().map(|(g, p, q)| g * f(*p, *q)).sum::<f64>();
            let (ma, mb) = (mean(&|p, _| p), mean(&|_, q| q));
            let (va, vb) = (mean(&|p, _| (p - ma).powi(2)), mean(&|_, q| (q - mb).powi(2)));
            let cov = mean(&|p, q| (p - ma) * (q - mb));
            sum += (2.0 * ma * mb + c1) * (2.0 * cov + c2) / ((ma * ma + mb * mb + c1) * (va + vb + c2));
            count += 1.0;
        }
    }
    sum / count
}

#[test]
fn equals_the_naive_twin() {
    let (a, b) = (normal(&[2, 3, 13, 16], 0), normal(&[2, 3, 13, 16], 1));
    let plane = |x: &Tensor, n: usize, c: usize| x.get(n).unwrap().get(c).unwrap().to_vec2::<f64>().unwrap();
    let small = SsimConfig {
        window: 3,
        sigma: 0.8,
        k1: 0.02,
        k2: 0.05,
        data_range: 2.0,
        padding: Padding::Zero,
        ..SsimConfig::paper()
    };
    for cfg in configs().into_iter().chain([small]) {
        for (n, got) in ssim(&a, &b, &cfg).unwrap().into_iter().enumerate() {
            let want = (0..3).map(|c| naive(&plane(&a, n, c), &plane(&b, n, c), &cfg)).sum::<f64>() / 3.0;
            assert_close(got, want, 1e-13);
        }
    }
}

#[test]
fn one_for_equal_images() {
    let x = normal(&[2, 3, 12, 15], 0);
    for cfg in configs() {
        ssim(&x, &x, &cfg).unwrap().into_iter().for_each(|value| assert_close(value, 1.0, 1e-12));
    }
}

#[test]
fn constant_images_compare_by_their_means() {
    let full = |v: f64| Tensor::full(v, (1, 1, 14, 14), &Device::Cpu).unwrap();
    let c1 = 0.01f64.powi(2);
    let want = (2.0 * 0.2 * 0.5 + c1) / (0.2f64.powi(2) + 0.5f64.powi(2) + c1);
    let got = ssim(&full(0.2), &full(0.5), &SsimConfig::standard()).unwrap()[0];
    assert_close(got, want, 1e-12);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    #[test]
    fn bounded_and_symmetric(seed in any::<u64>(), h in 11usize..20, w in 11usize..20, scale in -2.0f64..2.0) {
        let (a, noise) = (normal(&[2, 1, h, w], seed), normal(&[2, 1, h, w], seed ^ 1));
        let b = ((&a * scale).unwrap() + noise).unwrap();
        for cfg in configs() {
            let (there, back) = (ssim(&a, &b, &cfg).unwrap(), ssim(&b, &a, &cfg).unwrap());
            for (there, back) in there.into_iter().zip(back) {
                prop_assert!((-1.0..=1.0).contains(&there));
                prop_assert!((there - back).abs() < 1e-13);
            }
        }
    }
}

#[test]
fn independent_of_the_batch() {
    let (a, b) = (normal(&[5, 2, 12, 12], 0), normal(&[5, 2, 12, 12], 1));
    for cfg in configs() {
        let whole = ssim(&a, &b, &cfg).unwrap();
        let one = |n| ssim(&a.narrow(0, n, 1).unwrap(), &b.narrow(0, n, 1).unwrap(), &cfg).unwrap()[0];
        assert_eq!(whole, (0..5).map(one).collect::<Vec<_>>());
    }
}

#[test]
fn zero_padding_takes_images_smaller_than_the_window() {
    let x = normal(&[1, 1, 4, 4], 0).to_dtype(DType::F32).unwrap();
    assert_close(ssim(&x, &x, &SsimConfig::paper()).unwrap()[0], 1.0, 1e-12);
    let text = message(ssim(&x, &x, &SsimConfig::standard()));
    assert_eq!(text, "`window` = 11: with this padding an image needs 11 pixels a side, got 4x4");
}

#[test]
fn rejects_each_bad_parameter() {
    let paper = SsimConfig::paper;
    for (cfg, want) in [
        (SsimConfig { window: 10, ..paper() }, "`window` = 10: must be odd"),
        (SsimConfig { window: 0, ..paper() }, "`window` = 0: must be odd"),
        (SsimConfig { sigma: 0.0, ..paper() }, "`sigma` = 0: must be a positive number"),
        (SsimConfig { k1: -1.0, ..paper() }, "`k1` = -1: must be a positive number"),
        (SsimConfig { k2: f64::NAN, ..paper() }, "`k2` = NaN: must be a positive number"),
        (SsimConfig { data_range: 0.0, ..paper() }, "`data_range` = 0: must be a positive number"),
    ] {
        let x = normal(&[1, 1, 12, 12], 0);
        assert_eq!(message(ssim(&x, &x, &cfg)), want);
    }
}

#[test]
fn rejects_what_would_give_no_number() {
    let paper = SsimConfig::paper;
    let square = "its square must be a positive number too";
    let product = |field: &str| format!("the square of `{field} data_range` must be a positive number");
    let positive = "must be a positive number";
    let memory = "needs more memory than there is";
    let x = normal(&[1, 1, 12, 12], 0);
    for (cfg, field, want) in [
        (SsimConfig { sigma: 1e-300, ..paper() }, "`sigma` = 1e-300", square),
        (SsimConfig { sigma: 1e-160, ..paper() }, "`sigma`", square),
        (SsimConfig { sigma: 1e300, ..paper() }, "`sigma` = 1e300", square),
        (SsimConfig { sigma: f64::INFINITY, ..paper() }, "`sigma` = inf", positive),
        (SsimConfig { sigma: f64::NAN, ..paper() }, "`sigma` = NaN", positive),
        (SsimConfig { data_range: 1e-200, ..paper() }, "`data_range` = 1e-200", square),
        (SsimConfig { data_range: 1e200, ..paper() }, "`data_range` = 1e200", square),
        (SsimConfig { data_range: f64::INFINITY, ..paper() }, "`data_range` = inf", positive),
        (SsimConfig { data_range: -1.0, ..paper() }, "`data_range` = -1", positive),
        (SsimConfig { k1: 1e-200, ..paper() }, "`k1` = 1e-200", square),
        (SsimConfig { k2: 1e-100, data_range: 1e-100, ..paper() }, "`k2` = 1e-100", &product("k2")),
        (SsimConfig { k1: 1e100, data_range: 1e100, ..paper() }, "`k1` = 1e100", &product("k1")),
        (SsimConfig { window: usize::MAX, ..paper() }, "`window` = 18446744073709551615", memory),
        (SsimConfig { window: (1 << 62) + 1, ..paper() }, "`window` = 4611686018427387905", memory),
        (SsimConfig { window: usize::MAX, ..SsimConfig::standard() }, "`window`", "pixels a side"),
        (SsimConfig { window: usize::MAX, ..SsimConfig::torchmetrics() }, "`window`", "pixels a side"),
        (SsimConfig { window: 1, ..SsimConfig::uniform() }, "`window` = 1", "at least 3"),
    ] {
        let text = message(ssim(&x, &x, &cfg));
        assert!(text.starts_with(field) && text.contains(want), "{text}");
    }
    // The limits of the Gaussian are right: one pixel, and all of them alike.
    let y = normal(&[1, 1, 12, 12], 1);
    let value = |cfg: SsimConfig| ssim(&x, &y, &cfg).unwrap()[0];
    let narrow = value(SsimConfig { sigma: 1e-150, ..paper() });
    assert_close(narrow, value(SsimConfig { window: 1, ..paper() }), 1e-12);
    let wide = value(SsimConfig { sigma: 1e150, ..SsimConfig::standard() });
    let uniform = SsimConfig { window: 11, sample_covariance: false, ..SsimConfig::uniform() };
    assert_close(wide, value(uniform), 1e-12);
    let huge = (&x * 1e200).unwrap();
    assert_eq!(message(ssim(&huge, &x, &paper())), "SSIM: row 0, column 0 is NaN");
}

#[test]
fn rejects_bad_images() {
    let x = normal(&[1, 1, 12, 12], 0);
    let text = message(ssim(&x, &normal(&[1, 1, 12, 13], 0), &SsimConfig::paper()));
    assert_eq!(text, "image shapes differ: [1, 1, 12, 12] and [1, 1, 12, 13]");
    let text = message(ssim(&with_value(&x, 3, f64::INFINITY), &x, &SsimConfig::paper()));
    assert_eq!(text, "first images: row 0, column 3 is inf");
    assert!(message(ssim(&normal(&[4], 0), &normal(&[4], 0), &SsimConfig::paper())).contains("[N, C, H, W]"));
}

#[test]
fn config_is_strict_plain_data() {
    let text = serde_json::to_string(&SsimConfig::paper()).unwrap();
    assert_eq!(serde_json::from_str::<SsimConfig>(&text).unwrap(), SsimConfig::paper());
    assert!(serde_json::from_str::<SsimConfig>(&text.replace("sigma", "sgima")).is_err());
}
