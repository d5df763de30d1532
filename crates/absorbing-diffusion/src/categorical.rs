//! One draw from a softmax, on the host.

/// Draws a code from `softmax(logits / temperature)`, by the inverse of its cumulative distribution at `u` in `[0, 1)`, and
/// returns it with its log-probability.
///
/// `None` if there is no such distribution: a NaN, or no finite largest logit. (`-inf` is a probability of 0.)
pub(crate) fn categorical(logits: &[f64], temperature: f64, u: f64) -> Option<(u32, f64)> {
    let max = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    if !max.is_finite() || logits.iter().any(|x| x.is_nan()) {
        return None;
    }
    let weights: Vec<f64> = logits.iter().map(|x| ((x - max) / temperature).exp()).collect();
    let total = weights.iter().sum::<f64>();
    let target = u * total;
    let mut cumulative = 0.;
    let drawn = weights.iter().position(|weight| {
        cumulative += weight;
        cumulative > target
    });
    // The cumulative sum ends at the very total, which `u < 1` keeps above the target; but for that, the last.
    let code = drawn.or_else(|| weights.iter().rposition(|&weight| weight > 0.))?;
    Some((code as u32, (logits[code] - max) / temperature - total.ln()))
}

#[cfg(test)]
mod tests {
    use super::categorical;

    #[test]
    fn inverts_the_cumulative_distribution() {
        let logits = [1f64, 2., 5.].map(f64::ln); // 1/8, 1/4, 5/8
        let at = |u| categorical(&logits, 1., u).map(|(code, _)| code);
        assert_eq!((at(0.), at(0.124), at(0.126)), (Some(0), Some(0), Some(1)));
        assert_eq!((at(0.374), at(0.376), at(1. - f64::EPSILON / 2.)), (Some(1), Some(2), Some(2)));
        // Squared weights at temperature 1/2: 1/30, 4/30, 25/30.
        for (u, code, p) in [(0.9, 0, 1f64), (1.1, 1, 4.), (5.1, 2, 25.)] {
            let (drawn, log_prob) = categorical(&logits, 0.5, u / 30.).unwrap();
            assert_eq!(drawn, code);
            assert!((log_prob - (p / 30.).ln()).abs() < 1e-12);
        }
    }

    #[test]
    fn extremes_are_drawn_or_refused() {
        const INF: f64 = f64::INFINITY;
        assert_eq!(categorical(&[-INF, 0., -INF], 1., 0.), Some((1, 0.)));
        assert_eq!(categorical(&[-INF, 0., -INF], 1., 0.999), Some((1, 0.)));
        assert_eq!(categorical(&[3e4, -3e4], 1e-300, 0.999), Some((0, 0.)));
        for bad in [[f64::NAN, 0.], [INF, 0.], [-INF, -INF]] {
            assert_eq!(categorical(&bad, 1., 0.5), None);
        }
    }
}
