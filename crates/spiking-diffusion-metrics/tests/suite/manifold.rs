use candle_core::{Device, Tensor};
use spiking_diffusion_metrics::{Ball, Prdc, Result};

use crate::{message, normal, with_value};

fn prdc(real: &Tensor, generated: &Tensor, k: usize) -> Result<Prdc> {
    spiking_diffusion_metrics::prdc(real, generated, k, Ball::Open)
}

#[test]
fn identical_sets_cover_each_other() {
    let x = normal(&[60, 5], 0);
    let found = prdc(&x, &x, 3).unwrap();
    assert_eq!((found.precision, found.recall, found.coverage), (1.0, 1.0, 1.0));
}

#[test]
fn sets_far_apart_share_nothing() {
    let x = normal(&[300, 5], 0);
    let found = prdc(&x, &(&x + 1000.0).unwrap(), 3).unwrap();
    assert_eq!((found.precision, found.recall, found.density, found.coverage), (0.0, 0.0, 0.0, 0.0));
}

#[test]
fn equals_the_definition() {
    // More than one block of 256 rows.
    let (x, y) = (normal(&[300, 3], 1), normal(&[270, 3], 2));
    let rows = |t: &Tensor| t.to_vec2::<f64>().unwrap();
    let (a, b, k) = (rows(&x), rows(&y), 4);
    let distance = |p: &[f64], q: &[f64]| p.iter().zip(q).map(|(p, q)| (p - q) * (p - q)).sum::<f64>().sqrt();
    let radii = |set: &[Vec<f64>]| -> Vec<f64> {
        let radius = |p: &Vec<f64>| {
            let mut all: Vec<f64> = set.iter().map(|q| distance(p, q)).collect();
            all.sort_by(f64::total_cmp);
            all[k]
        };
        set.iter().map(radius).collect()
    };
    let (r, s) = (radii(&a), radii(&b));
    let hits = |q: &Vec<f64>| a.iter().zip(&r).filter(|(p, r)| distance(p, q) < **r).count();
    let (n, m) = (a.len() as f64, b.len() as f64);
    let precision = b.iter().filter(|q| hits(q) > 0).count() as f64 / m;
    let density = b.iter().map(hits).sum::<usize>() as f64 / (k as f64 * m);
    let recalled = |p: &&Vec<f64>| b.iter().zip(&s).any(|(q, s)| distance(p, q) < *s);
    let recall = a.iter().filter(recalled).count() as f64 / n;
    let covered = a.iter().zip(&r).filter(|(p, r)| b.iter().any(|q| distance(p, q) < **r)).count();
    let found = prdc(&x, &y, k).unwrap();
    assert_eq!((found.precision, found.recall), (precision, recall));
    assert_eq!((found.density, found.coverage), (density, covered as f64 / n));
}

#[test]
fn rejects_what_has_no_neighbours() {
    let x = normal(&[4, 2], 0);
    assert_eq!(message(prdc(&x, &x, 0)), "`k` = 0: must be at least 1");
    assert_eq!(message(prdc(&x, &x, 4)), "real samples: got 4, need at least 5");
    let most = usize::MAX;
    assert_eq!(message(prdc(&x, &x, most)), format!("real samples: got 4, need at least {most}"));
    let huge = (&x * 1e200).unwrap();
    let text = message(prdc(&huge, &x, 1));
    assert_eq!(text, "squared lengths of real features: row 0, column 0 is inf");
    let other = Tensor::zeros((4, 3), candle_core::DType::F64, &Device::Cpu).unwrap();
    assert_eq!(message(prdc(&x, &other, 1)), "feature dimensions differ: [2] and [3]");
    let text = message(prdc(&x, &with_value(&x, 3, f64::NAN), 1));
    assert_eq!(text, "generated features: row 1, column 1 is NaN");
}

#[test]
fn only_closed_balls_hold_copies() {
    // Every sample thrice: the second nearest other one is a copy.
    let x = Tensor::arange(0f64, 8.0, &Device::Cpu).unwrap().reshape((8, 1)).unwrap().repeat((3, 1)).unwrap();
    let shares = |ball| {
        let found = spiking_diffusion_metrics::prdc(&x, &x, 2, ball).unwrap();
        (found.precision, found.recall, found.density, found.coverage)
    };
    assert_eq!(shares(Ball::Open), (0.0, 0.0, 0.0, 0.0));
    assert_eq!(shares(Ball::Closed), (1.0, 1.0, 1.5, 1.0));
}
