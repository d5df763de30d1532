//! One draw from a softmax, on the host.

use snn_core::softmax_weights;

/// How far a draw prefers what is likely.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sharpening {
    /// Divides the logits.
    pub(crate) temperature: f64,
    /// The most codes that can be drawn.
    pub(crate) top_k: Option<usize>,
    /// The share of the probability whose codes can be drawn.
    pub(crate) top_p: Option<f64>,
}

impl Sharpening {
    /// Sets the weights of the codes that can not be drawn to 0, and returns whether there can be such.
    fn cut(self, weights: &mut [f64]) -> bool {
        let top_k = self.top_k.filter(|&k| k < weights.len());
        let top_p = self.top_p.filter(|&p| p < 1.);
        if top_k.is_none() && top_p.is_none() {
            return false;
        }
        // The sort is stable: of equally likely codes the lower one comes first.
        let mut codes: Vec<usize> = (0..weights.len()).collect();
        codes.sort_by(|&a, &b| weights[b].total_cmp(&weights[a]));
        let mut keep = top_k.unwrap_or(codes.len());
        if let Some(p) = top_p {
            let total: f64 = codes[..keep].iter().map(|&code| weights[code]).sum();
            let mut cumulative = 0.;
            let enough = codes[..keep].iter().position(|&code| {
                cumulative += weights[code];
                cumulative >= p * total
            });
            keep = enough.map_or(keep, |last| last + 1);
        }
        codes[keep..].iter().for_each(|&code| weights[code] = 0.);
        true
    }
}

/// Draws a code from `softmax(logits / temperature)`, cut to the codes that top-k and top-p leave, by the inverse of its
/// cumulative distribution at `u` in `[0, 1)`, and returns it with its log-probability before the cut.
///
/// `None` if there is no such distribution: a NaN, or no finite largest logit. (`-inf` is a probability of 0.) `weights` is memory that a
/// thread uses again for its next row.
pub(crate) fn categorical<F: Copy + Into<f64>>(
    logits: &[F],
    sharpening: Sharpening,
    u: f64,
    weights: &mut Vec<f64>,
) -> Option<(u32, f64)> {
    weights.clear();
    weights.extend(logits.iter().map(|&x| x.into()));
    let (max, all) = softmax_weights(weights, sharpening.temperature)?;
    let left = if sharpening.cut(weights) { weights.iter().sum() } else { all };
    let (target, mut cumulative) = (u * left, 0.);
    let drawn = weights.iter().position(|weight| {
        cumulative += weight;
        cumulative > target
    });
    // Summed in another order the weights may end below the target, if `u` is nearly 1: then it is the last of them.
    let code = drawn.or_else(|| weights.iter().rposition(|&weight| weight > 0.))?;
    Some((code as u32, (logits[code].into() - max) / sharpening.temperature - all.ln()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(temperature: f64) -> Sharpening {
        Sharpening { temperature, top_k: None, top_p: None }
    }

    #[test]
    fn inverts_the_cumulative_distribution() {
        let logits = [1f64, 2., 5.].map(f64::ln); // 1/8, 1/4, 5/8
        let draw = |u| categorical(&logits, at(1.), u, &mut Vec::new()).map(|(code, _)| code);
        assert_eq!((draw(0.), draw(0.124), draw(0.126)), (Some(0), Some(0), Some(1)));
        assert_eq!((draw(0.374), draw(0.376), draw(1. - f64::EPSILON / 2.)), (Some(1), Some(2), Some(2)));
        // Squared weights at temperature 1/2: 1/30, 4/30, 25/30.
        for (u, code, p) in [(0.9, 0, 1f64), (1.1, 1, 4.), (5.1, 2, 25.)] {
            let (drawn, log_prob) = categorical(&logits, at(0.5), u / 30., &mut Vec::new()).unwrap();
            assert_eq!(drawn, code);
            assert!((log_prob - (p / 30.).ln()).abs() < 1e-12);
        }
    }

    #[test]
    fn extremes_are_drawn_or_refused() {
        const INF: f64 = f64::INFINITY;
        let draw = |logits: &[f64], temperature, u| categorical(logits, at(temperature), u, &mut Vec::new());
        assert_eq!(draw(&[-INF, 0., -INF], 1., 0.), Some((1, 0.)));
        assert_eq!(draw(&[-INF, 0., -INF], 1., 0.999), Some((1, 0.)));
        assert_eq!(draw(&[3e4, -3e4], 1e-300, 0.999), Some((0, 0.)));
        for bad in [[f64::NAN, 0.], [INF, 0.], [-INF, -INF]] {
            assert_eq!(draw(&bad, 1., 0.5), None);
        }
        // A row of f32 is the same row, whatever the memory was used for before.
        let single = categorical(&[0.25f32, 1.5], at(0.7), 0.3, &mut vec![7.; 9]);
        assert_eq!(single, draw(&[0.25, 1.5], 0.7, 0.3));
    }

    /// The codes that can be drawn, each with its share, on a grid of `u` so fine that none is missed.
    fn shares(logits: &[f64], sharpening: Sharpening) -> Vec<f64> {
        const GRID: usize = 8000;
        let powers: Vec<f64> = logits.iter().map(|x| (x / sharpening.temperature).exp()).collect();
        let total: f64 = powers.iter().sum();
        let mut shares = vec![0.; logits.len()];
        for i in 0..GRID {
            let u = (i as f64 + 0.5) / GRID as f64;
            let (code, log_prob) = categorical(logits, sharpening, u, &mut Vec::new()).unwrap();
            shares[code as usize] += 1. / GRID as f64;
            // The log-probability is that of the whole distribution.
            assert!((log_prob - (powers[code as usize] / total).ln()).abs() < 1e-12);
        }
        shares
    }

    #[test]
    fn cuts_keep_the_most_likely_and_their_proportions() {
        let p = [0.1f64, 0.3, 0.05, 0.3, 0.25];
        let logits = p.map(f64::ln);
        let close = |shares: Vec<f64>, wanted: [f64; 5]| {
            let total: f64 = wanted.iter().sum();
            shares.iter().zip(wanted).all(|(share, wanted)| (share - wanted / total).abs() < 1e-3)
        };
        let cut = |top_k, top_p| Sharpening { temperature: 1., top_k, top_p };
        for (top_k, top_p, wanted) in [
            (Some(1), None, [0., 1., 0., 0., 0.]),
            (Some(2), None, [0., 0.3, 0., 0.3, 0.]),
            (Some(3), None, [0., 0.3, 0., 0.3, 0.25]),
            (Some(9), None, p),
            (None, Some(1.), p),
            (None, Some(0.96), p),
            (None, Some(0.94), [0.1, 0.3, 0., 0.3, 0.25]),
            (None, Some(0.61), [0., 0.3, 0., 0.3, 0.25]),
            (None, Some(0.59), [0., 0.3, 0., 0.3, 0.]),
            (None, Some(0.01), [0., 1., 0., 0., 0.]),
            // Of the 0.85 that top-k leaves, half are 0.425.
            (Some(3), Some(0.5), [0., 0.3, 0., 0.3, 0.]),
            (Some(2), Some(0.99), [0., 0.3, 0., 0.3, 0.]),
        ] {
            let shares = shares(&logits, cut(top_k, top_p));
            assert!(close(shares.clone(), wanted), "{top_k:?} {top_p:?}: {shares:?}");
            assert!(shares.iter().zip(wanted).all(|(share, wanted)| (*share > 0.) == (wanted > 0.)));
        }
    }

    /// The temperature comes first: at 1/2 the squares count, of which the largest is half.
    #[test]
    fn cuts_see_the_tempered_distribution() {
        let logits = [4f64, 3., 2., 2., 1.].map(f64::ln); // squares 16, 9, 4, 4, 1 of 34
        let sharpening = Sharpening { temperature: 0.5, top_k: None, top_p: Some(0.7) };
        let shares = shares(&logits, sharpening);
        assert!((shares[0] - 16. / 25.).abs() < 1e-3 && shares[2..] == [0.; 3], "{shares:?}");
    }
}
