//! What the two published configs build: sizes, initial values, shapes.

use candle_core::DType;
use vq_svae::{ImageSpec, VqSvaeConfig};

use crate::{Fixture, flat, images, tiny};

#[test]
fn both_have_50_658_parameters() {
    for cfg in [VqSvaeConfig::paper, VqSvaeConfig::released_code] {
        let fixture = Fixture::new(&cfg(ImageSpec::MNIST), 0, DType::F32);
        assert_eq!(fixture.params.parameter_count(), 50_658);
    }
}

/// PyTorch's `fan_in` of each synapse; of a transposed one it is `C_out * k * k`.
const FAN_INS: [(&str, usize); 7] = [
    ("encoder.0.conv", 9),
    ("encoder.1.conv", 32 * 9),
    ("encoder.2.conv", 64),
    ("generator.conv", 16),
    ("decoder.0.conv", 64 * 9),
    ("decoder.1.conv", 32 * 9),
    ("head", 9),
];

fn moments(xs: &[f64]) -> (f64, f64) {
    let n = xs.len() as f64;
    let mean = xs.iter().sum::<f64>() / n;
    (mean, (xs.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / n).sqrt())
}

/// Four standard errors of the mean, and of the standard deviation as it is for a normal distribution (a uniform
/// one's is smaller).
#[track_caller]
fn assert_moments(name: &str, xs: &[f64], std: f64) {
    let (mean, found) = moments(xs);
    let error = std / (xs.len() as f64).sqrt();
    assert!(mean.abs() <= 4. * error, "{name}: mean {mean}");
    assert!((found - std).abs() <= 4. * error / 2f64.sqrt(), "{name}: std {found}, not {std}");
}

#[test]
fn synapses_start_as_pytorch_has_them() {
    for cfg in [VqSvaeConfig::paper, VqSvaeConfig::released_code] {
        let fixture = Fixture::new(&cfg(ImageSpec::MNIST), 3, DType::F64);
        for (layer, fan_in) in FAN_INS {
            let bound = 1. / (fan_in as f64).sqrt();
            for name in [format!("{layer}.weight"), format!("{layer}.bias")] {
                let xs = flat(fixture.var(&name).as_tensor());
                let largest = xs.iter().fold(0f64, |a, x| a.max(x.abs()));
                assert!(largest <= bound, "{name}: {largest} beyond {bound}");
                assert!(xs.len() < 64 || largest > 0.9 * bound, "{name}: {largest} well inside {bound}");
                if xs.len() >= 16 {
                    assert_moments(&name, &xs, bound / 3f64.sqrt());
                }
            }
        }
    }
}

#[test]
fn all_else_starts_as_pytorch_has_it() {
    let fixture = Fixture::new(&VqSvaeConfig::released_code(ImageSpec::MNIST), 3, DType::F64);
    assert_moments("codebook", &flat(fixture.var("codebook.weight").as_tensor()), 1.);
    let mut norms = 0;
    for (name, var) in fixture.params.vars() {
        let wanted = match name.rsplit_once('.') {
            Some((layer, "weight" | "running_var")) if layer.ends_with("bn") => 1.,
            Some((layer, "bias" | "running_mean")) if layer.ends_with("bn") => 0.,
            Some(("features", "k")) => 0.5,
            _ => continue,
        };
        assert!(flat(var.as_tensor()).iter().all(|&x| x == wanted), "{name}");
        norms += 1;
    }
    assert_eq!(norms, 6 * 4 + 1);
}

#[test]
fn initial_values_are_configurable() {
    let paper = tiny(VqSvaeConfig::paper);
    let codebook = |codebook_std| {
        let fixture = Fixture::new(&VqSvaeConfig { codebook_std, ..paper.clone() }, 3, DType::F64);
        flat(fixture.var("codebook.weight").as_tensor())
    };
    for (one, quarter) in codebook(1.).into_iter().zip(codebook(0.25)) {
        assert_eq!(one * 0.25, quarter);
    }
    let fixture = Fixture::new(&VqSvaeConfig { initial_k: -0.75, ..paper }, 3, DType::F64);
    assert_eq!(flat(fixture.var("features.k").as_tensor()), [-0.75]);
}

#[test]
fn images_of_any_fitting_shape_go_through_and_come_back() {
    let odd = ImageSpec { channels: 1, height: 12, width: 20 };
    let smallest = ImageSpec { channels: 3, height: 4, width: 4 };
    let cases = [(ImageSpec::MNIST, (7, 7)), (ImageSpec::CIFAR, (8, 8)), (odd, (3, 5)), (smallest, (1, 1))];
    for (image, (h, w)) in cases {
        assert_eq!(image.code_map(), (h, w));
        for cfg in [VqSvaeConfig::paper(image), VqSvaeConfig::released_code(image)] {
            let cfg = VqSvaeConfig { time_steps: 3, ..cfg };
            let Fixture { model, .. } = Fixture::new(&cfg, 0, DType::F32);
            let xs = images(&cfg, 2, DType::F32);
            for train in [true, false] {
                let out = model.forward_t(&xs, train).unwrap();
                assert_eq!(out.spikes_e.dims(), [3, 2, 16, h, w]);
                assert_eq!(out.z_e.dims(), [2, 16, h, w]);
                assert_eq!((out.codes.dims(), out.codes.dtype()), ([2, h, w].as_slice(), DType::U32));
                assert_eq!(out.z_q.dims(), [2, 16, h, w]);
                assert_eq!(out.spikes_q.dims(), [3, 2, 16, h, w]);
                assert_eq!(out.reconstruction.dims(), xs.dims());
                assert!(flat(&out.reconstruction).iter().all(|x| x.abs() <= 1.));
                assert!(model.losses(&xs, &out).unwrap().values().unwrap().iter().all(|x| x.is_finite()));
            }
            let codes = model.encode(&xs).unwrap();
            assert_eq!(codes.dims(), [2, h, w]);
            assert_eq!(model.decode(&codes).unwrap().dims(), xs.dims());
        }
    }
}
