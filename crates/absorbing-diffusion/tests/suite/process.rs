use absorbing_diffusion::AbsorbingProcess;
use candle_core::{DType, Device, Tensor};
use proptest::prelude::*;
use snn_core::Seed;

use crate::{maps, rejects};

/// `Q_t` of Eq. 11, rows from, columns to.
pub(crate) fn transition(process: &AbsorbingProcess, t: usize) -> Vec<Vec<f64>> {
    let k = process.codes();
    let mut q = vec![vec![0.; k + 1]; k + 1];
    for (i, row) in q.iter_mut().enumerate().take(k) {
        row[i] = 1. - process.gamma(t);
        row[k] = process.gamma(t);
    }
    q[k][k] = 1.;
    q
}

pub(crate) fn product(a: &[Vec<f64>], b: &[Vec<f64>]) -> Vec<Vec<f64>> {
    let entry = |row: &[f64], j: usize| row.iter().zip(b).map(|(x, b)| x * b[j]).sum();
    a.iter().map(|row| (0..b.len()).map(|j| entry(row, j)).collect()).collect()
}

#[test]
fn transition_matrices_multiply_to_the_closed_form() {
    let process = AbsorbingProcess::new(3, 49).unwrap();
    let mut cumulative = transition(&process, 1);
    for t in 1..=49 {
        if t > 1 {
            cumulative = product(&cumulative, &transition(&process, t));
        }
        let masked = process.mask_probability(t);
        for (i, row) in cumulative.iter().enumerate() {
            assert!((row.iter().sum::<f64>() - 1.).abs() < 1e-12);
            for (j, p) in row.iter().enumerate() {
                let expected = match (i, j) {
                    (3, 3) => 1.,
                    (_, 3) => masked,
                    _ if i == j => 1. - masked,
                    _ => 0.,
                };
                assert!((p - expected).abs() < 1e-12, "t = {t}, [{i}, {j}]: {p} {expected}");
            }
        }
    }
}

proptest! {
    #[test]
    fn survival_telescopes(steps in 1usize..2000, part in 0f64..=1.) {
        let process = AbsorbingProcess::new(2, steps).unwrap();
        let t = (part * steps as f64) as usize;
        let survival: f64 = (1..=t).map(|s| 1. - process.gamma(s)).product();
        prop_assert!((survival - (1. - process.mask_probability(t))).abs() < 1e-12);
    }
}

/// Where to be masked at `t` is to have been masked by one of the steps up to `t`.
#[test]
fn q_sample_masks_as_often_as_the_chain() {
    let (n, steps) = (2000, 7);
    let process = AbsorbingProcess::new(5, steps).unwrap();
    let h0 = maps((n, 3, 2), |i, j| ((i + j) % 5) as u32);
    let u = Seed(1).uniform("u", (n, 3, 2), (0., 1.), DType::F64, &Device::Cpu).unwrap();
    let mut before = h0.clone();
    for t in 1..=steps {
        let h_t = process.q_sample(&h0, &Tensor::full(t as u32, n, &Device::Cpu).unwrap(), &u).unwrap();
        let codes: Vec<u32> = h_t.flatten_all().unwrap().to_vec1().unwrap();
        let truth: Vec<u32> = h0.flatten_all().unwrap().to_vec1().unwrap();
        assert!(codes.iter().zip(&truth).all(|(code, truth)| code == truth || *code == 5));
        let masked = codes.iter().filter(|&&code| code == 5).count() as f64;
        let (tokens, p) = ((n * 6) as f64, process.mask_probability(t));
        assert!((masked - tokens * p).abs() <= 5. * (tokens * p * (1. - p)).sqrt(), "t = {t}: {masked}");
        // The same noise at a later time masks at least the same tokens.
        let before_codes: Vec<u32> = before.flatten_all().unwrap().to_vec1().unwrap();
        assert!(before_codes.iter().zip(&codes).all(|(before, code)| *before != 5 || *code == 5));
        before = h_t;
    }
}

#[test]
fn comparison_is_strict_and_ends_are_certain() {
    let process = AbsorbingProcess::new(2, 49).unwrap();
    let h0 = maps((1, 1, 4), |_, _| 1);
    let below = f32::from_bits(1f32.to_bits() - 1);
    let u = Tensor::new(&[[[0f32, 0.5, below, 1.]]], &Device::Cpu).unwrap();
    let at = |t: u32, u: &Tensor| {
        let t = Tensor::new(&[t], &Device::Cpu).unwrap();
        process.q_sample(&h0, &t, u).unwrap().flatten_all().unwrap().to_vec1::<u32>().unwrap()
    };
    assert_eq!(at(0, &u), [1, 1, 1, 1]);
    assert_eq!(at(49, &u), [2, 2, 2, 2]);
    assert_eq!(at(25, &u), [2, 2, 1, 1]);
    assert_eq!(at(25, &u.to_dtype(DType::F64).unwrap()), [2, 2, 1, 1]);
    let tie = AbsorbingProcess::new(2, 2).unwrap();
    let t = Tensor::new(&[1u32], &Device::Cpu).unwrap();
    let h_t = tie.q_sample(&h0, &t, &u).unwrap().flatten_all().unwrap().to_vec1::<u32>().unwrap();
    assert_eq!(h_t, [2, 1, 1, 1]); // u = t / T_d is not masked
}

#[test]
fn nonsense_is_rejected_by_name() {
    rejects(AbsorbingProcess::new(1, 4), &["process.codes", "1"]);
    rejects(AbsorbingProcess::new(2, 0), &["process.steps", "0"]);
    assert!(serde_json::from_str::<AbsorbingProcess>(r#"{"codes":1,"steps":4}"#).is_err());
    let process: AbsorbingProcess = serde_json::from_str(r#"{"codes":4,"steps":4}"#).unwrap();
    let (good, cpu) = (maps((2, 2, 3), |_, _| 3), &Device::Cpu);
    let t = Tensor::new(&[0u32, 4], cpu).unwrap();
    let u = Tensor::zeros((2, 2, 3), DType::F32, cpu).unwrap();
    assert!(process.q_sample(&good, &t, &u).is_ok());
    let bad = maps((2, 2, 3), |i, j| if (i, j) == (1, 5) { 4 } else { 0 });
    rejects(process.q_sample(&bad, &t, &u), &["code [1, 1, 2] is 4", "0..4"]);
    let late = Tensor::new(&[1u32, 5], cpu).unwrap();
    rejects(process.q_sample(&good, &late, &u), &["diffusion time [1] is 5", "0..=4"]);
    rejects(process.q_sample(&good, &late.narrow(0, 0, 1).unwrap(), &u), &["diffusion time", "[1]", "[2]"]);
    rejects(process.q_sample(&good, &t, &(&u - 0.5).unwrap()), &["noise [0, 0, 0] is -0.5"]);
    rejects(process.q_sample(&good, &t, &(&u * f64::NAN).unwrap()), &["noise", "NaN"]);
    rejects(process.q_sample(&good, &t, &u.transpose(1, 2).unwrap()), &["noise", "[2, 3, 2]", "[2, 2, 3]"]);
    rejects(process.q_sample(&good.to_dtype(DType::I64).unwrap(), &t, &u), &["U32"]);
}
