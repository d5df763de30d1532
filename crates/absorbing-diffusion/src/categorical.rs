//! One draw from a softmax, on the host.

/// The code drawn from `softmax(logits / temperature)` by the inverse of its cumulative distribution at `u` in `[0, 1)`.
///
/// `None` if there is no such distribution: a NaN, or no finite largest logit. (`-inf` is a probability of 0.)
pub(crate) fn categorical(logits: &[f64], temperature: f64, u: f64) -> Option<u32> {
    let max = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    if !max.is_finite() || logits.iter().any(|x| x.is_nan()) {
        return None;
    }
    let weights: Vec<f64> = logits.iter().map(|x| ((x - max) / temperature).exp()).collect();
    let target = u * weights.iter().sum::<f64>();
    let mut cumulative = 0.;
    let drawn = weights.iter().position(|weight| {
        cumulative += weight;
        cumulative > target
    });
    // The cumulative sum ends at the very total, which `u < 1` keeps above the target; but for that, the last.
    drawn.or_else(|| weights.iter().rposition(|&weight| weight > 0.)).map(|code| code as u32)
}

#[cfg(test)]
mod tests {
    use super::categorical;

    #[test]
    fn inverts_the_cumulative_distribution() {
        let logits = [1f64, 2., 5.].map(f64::ln); // 1/8, 1/4, 5/8
        let at = |u| categorical(&logits, 1., u);
        assert_eq!((at(0.), at(0.124), at(0.126)), (Some(0), Some(0), Some(1)));
        assert_eq!((at(0.374), at(0.376), at(1. - f64::EPSILON / 2.)), (Some(1), Some(2), Some(2)));
        // Squared weights at temperature 1/2: 1/30, 4/30, 25/30.
        assert_eq!(categorical(&logits, 0.5, 0.9 / 30.), Some(0));
        assert_eq!(categorical(&logits, 0.5, 1.1 / 30.), Some(1));
        assert_eq!(categorical(&logits, 0.5, 5.1 / 30.), Some(2));
    }

    #[test]
    fn extremes_are_drawn_or_refused() {
        const INF: f64 = f64::INFINITY;
        assert_eq!(categorical(&[-INF, 0., -INF], 1., 0.), Some(1));
        assert_eq!(categorical(&[-INF, 0., -INF], 1., 0.999), Some(1));
        assert_eq!(categorical(&[3e4, -3e4], 1e-300, 0.999), Some(0));
        for bad in [[f64::NAN, 0.], [INF, 0.], [-INF, -INF]] {
            assert_eq!(categorical(&bad, 1., 0.5), None);
        }
    }
}
