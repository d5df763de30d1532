//! The arithmetic of one neuron and one time step, without branches.

use crate::ops::Real;
use crate::{LifConfig, Reset};

/// Runs `$body` with the constant `$DIVIDES` that `$neuron` wants: one copy of the body for each, so that loops do not ask.
///
/// Division is what rounds right: 41 / 41 is 1, 41 (1 / 41) is not. The reciprocal of a power of two is exact, and a product
/// several times as fast. So it is where the input is not divided and the leak itself is a power of two: with `tau` = 4/3,
/// `H = V/4 + X`.
macro_rules! by_division {
    ($neuron:expr, $DIVIDES:ident => $body:expr) => {
        if $neuron.divides {
            const $DIVIDES: bool = true;
            $body
        } else {
            const $DIVIDES: bool = false;
            $body
        }
    };
}
pub(crate) use by_division;

/// Of a positive, finite number.
fn is_power_of_two(x: f64) -> bool {
    let fraction = x.to_bits() << 12;
    fraction == 0
}

/// What the kernels need of a [`LifConfig`], in the element type.
#[derive(Clone, Copy)]
pub(crate) struct Neuron<F> {
    /// `H = leak V + drive X + rest`.
    pub(super) leak: F,
    pub(super) drive: F,
    pub(super) rest: F,
    /// Whether `tau` divides, because a product with its reciprocal could be another number: see [`by_division!`].
    pub(crate) divides: bool,
    pub(super) tau: F,
    pub(super) decay_input: bool,
    pub(super) threshold: F,
    /// The least potential that fires: the threshold, or the number behind it.
    pub(super) fires_from: F,
    /// Where the surrogate's argument is 0.
    pub(super) origin: F,
    /// Whether a spike clears the membrane, or takes the threshold off.
    pub(super) hard: bool,
    /// `V = H (1 - clears S) + jump S`: (1, `V_reset`) for the hard reset, (0, `-V_th`) for the soft one.
    pub(super) clears: F,
    pub(super) jump: F,
    /// Where the membrane starts.
    pub(crate) v_reset: F,
    /// 1 if the gradient passes through the spike in the reset, 0 if it stops there.
    pub(super) through_reset: F,
}

impl<F: Real> Neuron<F> {
    pub(crate) fn new(cfg: &LifConfig) -> Self {
        let v_reset = cfg.v_reset.potential();
        let (leak, drive, rest) = cfg.coefficients();
        let scales = !cfg.decay_input && leak > 0. && is_power_of_two(leak);
        let (clears, jump) = match cfg.v_reset {
            Reset::Hard(potential) => (1., potential),
            Reset::Soft => (0., -cfg.v_threshold),
        };
        let c = F::from_f64;
        let threshold = c(cfg.v_threshold);
        Self {
            leak: c(leak),
            drive: c(drive),
            rest: c(rest),
            divides: cfg.tau.is_some_and(|tau| !is_power_of_two(tau)) && !scales,
            tau: c(cfg.tau.unwrap_or(1.)),
            decay_input: cfg.decay_input,
            threshold,
            fires_from: if cfg.strict_threshold { threshold.next_up() } else { threshold },
            origin: c(cfg.surrogate.origin(cfg.v_threshold)),
            hard: clears != 0.,
            clears: c(clears),
            jump: c(jump),
            v_reset: c(v_reset),
            through_reset: c(if cfg.detach_reset { 0. } else { 1. }),
        }
    }

    /// The same with this `1/tau`, which multiplies.
    pub(crate) fn with_rate(self, rate: F) -> Self {
        let one = F::from_f64(1.);
        let drive = if self.decay_input { rate } else { one };
        Self { leak: one - rate, drive, rest: rate * self.v_reset, divides: false, ..self }
    }

    /// What `1/tau` multiplies, `X - (V - V_reset)`, or without its input: the derivative of `H` in it.
    #[inline(always)]
    pub(crate) fn flow(&self, v: F, x: F) -> F {
        let inside = if self.decay_input { x } else { F::from_f64(0.) };
        inside - (v - self.v_reset)
    }

    /// `H[t]` of `V[t-1]` and `X[t]`; `DIVIDES` is [`divides`](Self::divides).
    #[inline(always)]
    pub(crate) fn charge<const DIVIDES: bool>(&self, v: F, x: F) -> F {
        let scaled = self.leak * v + self.drive * x + self.rest;
        if !DIVIDES {
            return scaled;
        }
        let zero = F::from_f64(0.);
        let (inside, outside) = if self.decay_input { (x, zero) } else { (zero, x) };
        let flow = inside - (v - self.v_reset);
        let h = v + flow / self.tau + outside;
        // From what is infinite nothing can be taken.
        if flow.abs() < F::from_f64(f64::INFINITY) { h } else { scaled }
    }

    /// Gradients of `X[t]` and `V[t-1]`, given that of `H[t]`.
    #[inline(always)]
    pub(crate) fn discharge<const DIVIDES: bool>(&self, gh: F) -> (F, F) {
        if !DIVIDES {
            return (self.drive * gh, self.leak * gh);
        }
        let share = gh / self.tau;
        (if self.decay_input { share } else { gh }, gh - share)
    }

    /// The surrogate's argument, `H - V_th` for all but the window.
    #[inline(always)]
    pub(crate) fn excess(&self, h: F) -> F {
        h - self.origin
    }

    #[inline(always)]
    pub(crate) fn fire(&self, h: F) -> F {
        if h >= self.fires_from { F::from_f64(1.) } else { F::from_f64(0.) }
    }

    /// The potential behind a spike, or none. Chosen, not weighted: zero times an infinite potential is NaN.
    #[inline(always)]
    pub(crate) fn reset(&self, h: F, s: F) -> F {
        let behind = if self.hard { self.v_reset } else { h - self.threshold };
        if s > F::from_f64(0.) { behind } else { h }
    }

    /// [`reset`](Self::reset) by a part of a spike, where `g` stands for `Theta`.
    #[inline(always)]
    pub(crate) fn reset_in_part(&self, h: F, s: F) -> F {
        h * (F::from_f64(1.) - self.clears * s) + self.jump * s
    }

    /// Gradient of `H[t]`, given those of `S[t]` and `V[t]`; `slope` is the surrogate's at [`excess`](Self::excess).
    #[inline(always)]
    pub(crate) fn charge_gradient(&self, h: F, s: F, slope: F, gs: F, gv: F) -> F {
        let through_h = F::from_f64(1.) - self.clears * s;
        let through_s = self.jump - self.clears * h;
        let spike = (gs + self.through_reset * (gv * through_s)) * slope;
        // Without a slope (NaN is none) nothing passes, whatever `h`.
        let spike = if slope > F::from_f64(0.) { spike } else { F::from_f64(0.) };
        spike + gv * through_h
    }
}
