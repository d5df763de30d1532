use std::f64::consts::LN_2;

use absorbing_diffusion::{AbsorbingProcess, Denoiser, Weighting, draw_noise, from_fn, loss};
use candle_core::{DType, Device, Tensor, Var};
use snn_core::Seed;

use crate::{maps, rejects};

const SHAPE: (usize, usize, usize) = (4, 2, 3);

fn process() -> AbsorbingProcess {
    AbsorbingProcess::new(3, 5).unwrap()
}

fn var(label: &str, shape: &[usize]) -> Var {
    Var::from_tensor(&Seed(3).normal(label, shape, (0., 1.), DType::F64, &Device::Cpu).unwrap()).unwrap()
}

/// `logits[n, :, i, j] = token[h_t(n, i, j)] + position[:, i, j] + time * t`.
fn linear<'a>(vars: &'a [Var; 3]) -> impl Denoiser + 'a {
    from_fn(|h_t, t, _| {
        let (n, h, w) = h_t.dims3()?;
        let tokens =
            vars[0].index_select(&h_t.flatten_all()?, 0)?.reshape((n, h, w, 3))?.permute((0, 3, 1, 2))?;
        let time =
            t.to_dtype(DType::F64)?.reshape((n, 1, 1, 1))?.broadcast_mul(&vars[2].reshape((1, 3, 1, 1))?)?;
        tokens.broadcast_add(&vars[1].unsqueeze(0)?)?.broadcast_add(&time)
    })
}

#[test]
fn gradients_are_those_of_finite_differences() {
    let vars = [var("token", &[4, 3]), var("position", &[3, 2, 3]), var("time", &[3])];
    let h0 = maps(SHAPE, |i, j| ((i * 5 + j * 2) % 3) as u32);
    let (t, u) = draw_noise(&process(), SHAPE, Seed(0), "loss/0").unwrap();
    for weighting in [Weighting::Elbo, Weighting::Released, Weighting::Uniform] {
        let value = || loss(&process(), &linear(&vars), &h0, &t, &u, weighting, true).unwrap();
        let number = || value().to_scalar::<f64>().unwrap();
        let grads = value().backward().unwrap();
        for var in &vars {
            let grad: Vec<f64> = grads.get(var).unwrap().flatten_all().unwrap().to_vec1().unwrap();
            let at: Vec<f64> = var.flatten_all().unwrap().to_vec1().unwrap();
            let moved = |i: usize, by: f64| {
                let mut values = at.clone();
                values[i] += by;
                var.set(&Tensor::from_vec(values, var.shape(), &Device::Cpu).unwrap()).unwrap();
                number()
            };
            for (i, grad) in grad.iter().enumerate() {
                let slope = (moved(i, 1e-5) - moved(i, -1e-5)) / 2e-5;
                assert!((grad - slope).abs() < 1e-8, "{weighting:?} [{i}]: {grad} {slope}");
            }
            moved(0, 0.);
        }
    }
}

/// The loss, and its gradient with respect to the logits, written out.
#[test]
fn value_and_gradient_are_the_closed_form() {
    let logits = var("logits", &[4, 3, 2, 3]);
    let h0 = maps(SHAPE, |i, j| ((i + j) % 3) as u32);
    let t = Tensor::new(&[1u32, 3, 4, 5], &Device::Cpu).unwrap();
    let u = Seed(9).uniform("u", SHAPE, (0., 1.), DType::F64, &Device::Cpu).unwrap();
    let denoiser = from_fn(|_, _, _| Ok(logits.as_tensor().clone()));
    let total = loss(&process(), &denoiser, &h0, &t, &u, Weighting::Elbo, true).unwrap();
    let grads = total.backward().unwrap();
    let grad: Vec<f64> = grads.get(&logits).unwrap().flatten_all().unwrap().to_vec1().unwrap();
    let xs: Vec<f64> = logits.flatten_all().unwrap().to_vec1().unwrap();
    let us: Vec<f64> = u.flatten_all().unwrap().to_vec1().unwrap();
    let (mut expected, mut masked) = (0., 0);
    for n in 0..4 {
        let t = [1., 3., 4., 5.][n];
        let scale = 5. / t / (4. * 6. * LN_2);
        for j in 0..6 {
            let at = |k: usize| (n * 3 + k) * 6 + j;
            let norm: f64 = (0..3).map(|k| xs[at(k)].exp()).sum();
            let truth = (n + j) % 3;
            if us[n * 6 + j] < t / 5. {
                masked += 1;
                expected += scale * (norm.ln() - xs[at(truth)]);
                for k in 0..3 {
                    let wanted = scale * (xs[at(k)].exp() / norm - f64::from(k == truth));
                    assert!((grad[at(k)] - wanted).abs() < 1e-14);
                }
            } else {
                (0..3).for_each(|k| assert_eq!(grad[at(k)], 0.));
            }
        }
    }
    assert!(masked > 6 && masked < 24);
    assert!((total.to_scalar::<f64>().unwrap() - expected).abs() < 1e-13);
}

/// One image, one masked token of two, by hand: `5/2 * log2(1 + 1 + 2) / 2`, and so on.
#[test]
fn weightings_are_what_they_say() {
    let h0 = maps((1, 1, 2), |_, j| j as u32);
    let t = Tensor::new(&[2u32], &Device::Cpu).unwrap();
    let u = Tensor::new(&[[[0.3, 0.5]]], &Device::Cpu).unwrap();
    let denoiser = from_fn(|_, _, _| {
        Tensor::new(&[0f32, 0., 0., 0., LN_2 as f32, 0.], &Device::Cpu)?.reshape((1, 3, 1, 2))
    });
    let bits = |weighting| {
        loss(&process(), &denoiser, &h0, &t, &u, weighting, false).unwrap().to_scalar::<f32>().unwrap()
    };
    assert_eq!(bits(Weighting::Uniform), 1.); // -log2(1/4), of two tokens
    assert_eq!(bits(Weighting::Elbo), 2.5);
    assert!((bits(Weighting::Released) - 0.6).abs() < 1e-6);
}

/// With the noise of many steps, the mean is the bound itself: `log2 K` for one who knows nothing.
#[test]
fn elbo_weighting_is_unbiased() {
    let shape = (20_000, 2, 3);
    let (t, u) = draw_noise(&process(), shape, Seed(5), "loss/0").unwrap();
    let times: Vec<u32> = t.to_vec1().unwrap();
    assert!((1..=5).all(|t| times.iter().filter(|&&x| x == t).count().abs_diff(4000) < 5 * 57));
    let bits =
        loss(&process(), &crate::uniform(3, (2, 3)), &maps(shape, |_, _| 0), &t, &u, Weighting::Elbo, true);
    let bits = bits.unwrap().to_scalar::<f32>().unwrap();
    assert!((bits - 3f32.log2()).abs() < 0.03, "{bits}");
}

#[test]
fn infinite_logits_where_nothing_is_masked_do_no_harm() {
    let h0 = maps((1, 1, 2), |_, _| 0);
    let t = Tensor::new(&[2u32], &Device::Cpu).unwrap();
    let u = Tensor::new(&[[[0.3, 0.5]]], &Device::Cpu).unwrap();
    let inf = f32::NEG_INFINITY;
    let logits = Var::new(&[0f32, inf, 0., 0., 0., 0.], &Device::Cpu).unwrap();
    let denoiser = from_fn(|_, _, _| logits.reshape((1, 3, 1, 2)));
    let total = loss(&process(), &denoiser, &h0, &t, &u, Weighting::Elbo, false).unwrap();
    assert!(total.to_scalar::<f32>().unwrap().is_finite());
    let grads = total.backward().unwrap();
    let grad: Vec<f32> = grads.get(&logits).unwrap().to_vec1().unwrap();
    assert!(grad.iter().all(|x| x.is_finite()) && grad[3] == 0. && grad[5] == 0., "{grad:?}");
}

/// Whatever the logits of a token are that is not masked: its gradient is exactly 0, the rest as if it were a number.
#[test]
fn a_logit_that_is_not_read_may_be_anything() {
    let h0 = maps(SHAPE, |i, j| ((i * 5 + j) % 3) as u32);
    let t = Tensor::new(&[1u32, 3, 4, 2], &Device::Cpu).unwrap();
    let u = Seed(9).uniform("u", SHAPE, (0., 1.), DType::F64, &Device::Cpu).unwrap();
    let masked: Vec<bool> = {
        let h_t: Vec<u32> =
            process().q_sample(&h0, &t, &u).unwrap().flatten_all().unwrap().to_vec1().unwrap();
        h_t.into_iter().map(|token| token == 3).collect()
    };
    assert!(masked.contains(&true) && masked.contains(&false));
    let clean: Vec<f64> = var("logits", &[4, 3, 2, 3]).flatten_all().unwrap().to_vec1().unwrap();
    // Token `i % 6` of image `i / 18`.
    let unread = |i: usize| !masked[i / 18 * 6 + i % 6];
    for dtype in [DType::F64, DType::F32, DType::BF16] {
        let outcome = |bad: Option<(f64, usize)>| {
            let put = |(i, &x): (usize, &f64)| match bad {
                Some((value, every)) if unread(i) && i % every == 0 => value,
                _ => x,
            };
            let values: Vec<f64> = clean.iter().enumerate().map(put).collect();
            let logits =
                Tensor::from_vec(values, (4, 3, 2, 3), &Device::Cpu).unwrap().to_dtype(dtype).unwrap();
            let logits = Var::from_tensor(&logits).unwrap();
            let denoiser = from_fn(|_, _, _| Ok(logits.as_tensor().clone()));
            let total = loss(&process(), &denoiser, &h0, &t, &u, Weighting::Elbo, true).unwrap();
            let grads = total.backward().unwrap();
            let grad = grads.get(&logits).unwrap().to_dtype(DType::F64).unwrap();
            let total = total.to_dtype(DType::F64).unwrap().to_scalar::<f64>().unwrap();
            (total, grad.flatten_all().unwrap().to_vec1::<f64>().unwrap())
        };
        let wanted = outcome(None);
        assert!(wanted.0.is_finite() && wanted.1.iter().any(|g| *g != 0.));
        assert!(wanted.1.iter().enumerate().all(|(i, g)| !unread(i) || *g == 0.));
        for bad in [f64::INFINITY, f64::NEG_INFINITY, f64::NAN, f64::MAX] {
            for every in [1, 2, 5] {
                assert_eq!(outcome(Some((bad, every))), wanted, "{bad}, {dtype:?}");
            }
        }
    }
}

#[test]
fn half_precision_logits_are_summed_in_single() {
    let h0 = maps((2, 1, 2), |_, _| 0);
    let (t, u) = draw_noise(&process(), (2, 1, 2), Seed(0), "loss/0").unwrap();
    let denoiser = from_fn(|_, _, _| Tensor::zeros((2, 3, 1, 2), DType::BF16, &Device::Cpu));
    let total = loss(&process(), &denoiser, &h0, &t, &u, Weighting::Elbo, false).unwrap();
    assert_eq!(total.dtype(), DType::F32);
}

#[test]
fn nonsense_is_rejected_by_name() {
    let (process, h0) = (process(), maps((2, 2, 3), |_, _| 0));
    let (_, u) = draw_noise(&process, (2, 2, 3), Seed(0), "loss/0").unwrap();
    let try_with = |times: [u32; 2], k: usize| {
        let t = Tensor::new(&times, &Device::Cpu).unwrap();
        loss(&process, &crate::uniform(k, (2, 3)), &h0, &t, &u, Weighting::Elbo, true)
    };
    rejects(try_with([1, 0], 3), &["diffusion time [1] is 0", "1..=5"]);
    rejects(try_with([6, 1], 3), &["diffusion time [0] is 6", "1..=5"]);
    rejects(try_with([1, 5], 4), &["denoiser", "[7, 4]", "[7, 3]"]);
    assert!(try_with([1, 5], 3).is_ok());
    let nan = from_fn(|h_t, _, _| Tensor::full(f32::NAN, (h_t.dim(0)?, 3, 2, 3), &Device::Cpu));
    let t = Tensor::new(&[5u32, 5], &Device::Cpu).unwrap();
    let total = loss(&process, &nan, &h0, &t, &u, Weighting::Elbo, true).unwrap();
    assert!(total.to_scalar::<f32>().unwrap().is_nan());
}
