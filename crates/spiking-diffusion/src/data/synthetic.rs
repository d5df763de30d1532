//! The built-in data set: digits drawn by a program, so that a first run needs no download.
//!
//! Each digit is a handful of strokes; each image moves, turns, slants and stretches them, wobbles their points and
//! draws them with a pen of its own thickness. It looks like MNIST from afar and is no substitute for it: every
//! report says so.

use rand::Rng;
use rand::seq::SliceRandom;
use snn_core::{Seed, standard_normal};

use super::dataset::Dataset;
use super::split::Split;
use crate::error::Result;

const SIDE: usize = 28;
pub(crate) const NAME: &str = "synthetic-digits";
pub(crate) const TRAIN: usize = 6000;
const TEST: usize = 1000;
/// Not the run's seed: the data are the same for every run.
const SEED: Seed = Seed(28);

type Point = (f64, f64);

/// Draws 6,000 + 1,000 digits, 28x28, ten classes of equal size in random order; always the same.
///
/// # Errors
/// Returns no error in practice.
pub fn synthetic_digits() -> Result<Dataset> {
    let data = Dataset::new(NAME, draw("train", TRAIN)?, draw("test", TEST)?)?;
    Ok(Dataset { synthetic: true, ..data })
}

fn draw(split: &str, n: usize) -> Result<Split> {
    let mut labels: Vec<u8> = (0..n).map(|i| (i % 10) as u8).collect();
    labels.shuffle(&mut SEED.rng(&format!("{split}/labels")));
    let mut pixels = Vec::with_capacity(n * SIDE * SIDE);
    for (i, &label) in labels.iter().enumerate() {
        pixels.extend(digit(label, &mut SEED.rng(&format!("{split}/{i}"))));
    }
    Split::new(pixels, labels, (1, SIDE, SIDE))
}

/// One image of a digit.
fn digit(label: u8, rng: &mut impl Rng) -> Vec<u8> {
    let hand = Hand::new(rng);
    let strokes: Vec<Vec<Point>> =
        strokes(label).iter().map(|stroke| stroke.iter().map(|&p| hand.place(p, rng)).collect()).collect();
    let pixel = |i: usize| {
        let at = ((i % SIDE) as f64 + 0.5, (i / SIDE) as f64 + 0.5);
        let segments = strokes.iter().flat_map(|stroke| stroke.windows(2));
        let distance = segments.map(|s| distance(at, s[0], s[1])).fold(f64::INFINITY, f64::min);
        // Full ink inside the pen, none a pixel further out.
        (255. * (hand.pen + 0.5 - distance).clamp(0., 1.)).round() as u8
    };
    (0..SIDE * SIDE).map(pixel).collect()
}

/// How one image is drawn.
struct Hand {
    /// Unit square to pixels: `pixel = centre + map (p - 1/2)`.
    map: [f64; 4],
    centre: Point,
    /// Half the thickness of the pen, in pixels.
    pen: f64,
}

impl Hand {
    fn new(rng: &mut impl Rng) -> Self {
        let (turn, slant) = (normal(0.12, rng), normal(0.15, rng));
        let (wide, high) = (rng.random_range(20. ..27.), rng.random_range(24. ..30.));
        let (sin, cos) = f64::sin_cos(turn);
        Self {
            map: [wide * cos, high * (slant * cos - sin), wide * sin, high * (slant * sin + cos)],
            centre: (14. + normal(0.7, rng), 14. + normal(0.7, rng)),
            pen: rng.random_range(0.7..1.5),
        }
    }

    /// A point of the unit square in pixels, a little beside where it should be.
    fn place(&self, (x, y): Point, rng: &mut impl Rng) -> Point {
        let (x, y, [a, b, c, d]) = (x - 0.5, y - 0.5, self.map);
        let (dx, dy) = (normal(0.25, rng), normal(0.25, rng));
        (self.centre.0 + a * x + b * y + dx, self.centre.1 + c * x + d * y + dy)
    }
}

fn normal(std: f64, rng: &mut impl Rng) -> f64 {
    std * standard_normal(rng)
}

/// The strokes of a digit in the unit square, `y` down.
fn strokes(label: u8) -> Vec<Vec<Point>> {
    match label {
        0 => vec![arc((0.5, 0.5), (0.21, 0.31), 0., 360.)],
        1 => vec![vec![(0.41, 0.3), (0.53, 0.18), (0.52, 0.5), (0.51, 0.82)]],
        2 => vec![[arc((0.49, 0.36), (0.19, 0.17), 190., 385.), vec![(0.3, 0.8), (0.72, 0.8)]].concat()],
        3 => vec![arc((0.47, 0.34), (0.19, 0.15), 200., 450.), arc((0.47, 0.65), (0.21, 0.16), 270., 515.)],
        4 => {
            vec![vec![(0.5, 0.19), (0.28, 0.58), (0.5, 0.58), (0.75, 0.57)], vec![(0.62, 0.38), (0.6, 0.82)]]
        }
        5 => vec![
            [vec![(0.69, 0.2), (0.37, 0.21), (0.35, 0.45)], arc((0.48, 0.62), (0.21, 0.19), 235., 500.)]
                .concat(),
        ],
        6 => vec![
            [arc((0.68, 0.62), (0.38, 0.44), 265., 190.), arc((0.5, 0.65), (0.19, 0.16), 180., 540.)]
                .concat(),
        ],
        7 => vec![vec![(0.29, 0.21), (0.5, 0.2), (0.71, 0.2), (0.56, 0.5), (0.45, 0.82)]],
        8 => vec![arc((0.5, 0.34), (0.16, 0.14), 90., 450.), arc((0.5, 0.65), (0.19, 0.17), 270., 630.)],
        _ => vec![arc((0.49, 0.36), (0.18, 0.16), 0., 360.), vec![(0.67, 0.36), (0.65, 0.6), (0.58, 0.82)]],
    }
}

/// Part of an ellipse, from one angle to another in degrees: 0 is right, 90 down.
fn arc(centre: Point, radius: Point, from: f64, to: f64) -> Vec<Point> {
    let pieces = ((to - from).abs() / 30.).ceil().max(1.);
    let at = |i: usize| {
        let angle = (from + (to - from) * i as f64 / pieces).to_radians();
        (centre.0 + radius.0 * angle.cos(), centre.1 + radius.1 * angle.sin())
    };
    (0..=pieces as usize).map(at).collect()
}

/// From a point to a segment.
fn distance(p: Point, a: Point, b: Point) -> f64 {
    let (dx, dy) = (b.0 - a.0, b.1 - a.1);
    let length = (dx * dx + dy * dy).max(1e-12);
    let along = (((p.0 - a.0) * dx + (p.1 - a.1) * dy) / length).clamp(0., 1.);
    (p.0 - a.0 - along * dx).hypot(p.1 - a.1 - along * dy)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_classes_of_equal_size_and_no_image_twice() {
        let split = draw("test", 200).unwrap();
        let mut counts = [0; 10];
        split.labels().iter().for_each(|&label| counts[usize::from(label)] += 1);
        assert_eq!(counts, [20; 10]);
        let images: std::collections::BTreeSet<_> = (0..200).map(|i| split.bytes(i).unwrap()).collect();
        assert_eq!(images.len(), 200);
        assert_eq!(split, draw("test", 200).unwrap());
        assert_ne!(split, draw("train", 200).unwrap());
    }

    #[test]
    fn classes_are_told_apart_by_their_mean_image() {
        // A nearest-mean classifier on MNIST gets about 82 %; these digits must be about as separable.
        let (train, test) = (draw("train", 1000).unwrap(), draw("test", 200).unwrap());
        let mut means = vec![[0f64; SIDE * SIDE]; 10];
        for (i, &label) in train.labels().iter().enumerate() {
            let mean = &mut means[usize::from(label)];
            mean.iter_mut().zip(train.bytes(i).unwrap()).for_each(|(m, &byte)| *m += f64::from(byte) / 100.);
        }
        let nearest = |image: &[u8]| {
            let squares = |mean: &[f64]| -> f64 {
                mean.iter().zip(image).map(|(m, &b)| (m - f64::from(b)).powi(2)).sum()
            };
            (0..10).min_by(|&a, &b| squares(&means[a]).total_cmp(&squares(&means[b]))).unwrap()
        };
        let right =
            (0..200).filter(|&i| nearest(test.bytes(i).unwrap()) == usize::from(test.labels()[i])).count();
        assert!(right >= 150, "{right} of 200");
    }

    #[test]
    fn ink_is_about_as_much_as_in_mnist() {
        let split = draw("train", 300).unwrap();
        let mean = (0..300).flat_map(|i| split.bytes(i).unwrap()).map(|&b| f64::from(b) / 255.).sum::<f64>()
            / (300. * 784.);
        assert!((0.09..0.2).contains(&mean), "{mean}"); // MNIST: 0.131
    }
}
