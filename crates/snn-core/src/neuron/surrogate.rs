//! Surrogate gradients: smooth stand-ins for the derivative of the Heaviside step.

use candle_core::{Result, Tensor};
use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::ops::Real;

/// A smooth function `g` whose derivative replaces that of the firing step `Theta` in the backward pass.
///
/// | variant | `g(x)` | `g'(x)` |
/// | --- | --- | --- |
/// | `Atan { alpha }` | `atan(pi/2 alpha x)/pi + 1/2` | `(alpha/2) / (1 + (pi/2 alpha x)^2)` |
/// | `Sigmoid { alpha }` | `1/(1 + exp(-alpha x))` | `alpha g (1 - g)` |
/// | `Rectangle { width }` | `clamp(x/width + 1/2, 0, 1)` | `1/width` where `\|x\| < width/2`, else 0 |
/// | `Triangle { width }` | integral of `g'` | `max(0, 1 - \|x\|/width) / width` |
/// | `Gaussian { sigma }` | normal distribution function | `exp(-(x/sigma)^2 / 2) / (sigma sqrt(2 pi))` |
/// | `Window { centre, width, height }` | integral of `g'` | `height` where `\|H - centre\| < width/2`, else 0 |
///
/// `x = H - V_th`, in units of the membrane potential. The window alone lies where it is put, on the axis of the potential `H`
/// itself and not of `x`: `centre: 0., width: 1., height: 1.` is the derivative of the original FSVAE, 1 where `|H| < 1/2` whatever
/// the threshold. The functions here, which know of no threshold, take it as 0, so that `H = x`. Section 3.2 of the paper prints `Atan` with
/// slips; this is the corrected form, equal to SpikingJelly's (see `docs/deviations.md`).
///
/// At plus and minus infinity `g` is 1 (the window's `height * width`) and 0, and `g'` is 0. Both are NaN where `x` is; a neuron whose potential is NaN does
/// not fire, and passes no gradient through its spike.
///
/// # Examples
/// ```
/// use snn_core::Surrogate;
/// let atan = Surrogate::Atan { alpha: 2. };
/// assert_eq!((atan.value(0.), atan.derivative(0.)), (0.5, 1.));
/// ```
/// A surrogate of your own is a function `g` that you differentiate through, in a [`NeuronModel`](crate::NeuronModel):
/// ```
/// use candle_core::{Device, Result, Tensor, Var};
/// use snn_core::straight_through;
///
/// /// `Theta(x)` forward, the derivative of the softsign `x / (1 + |x|)` backward.
/// fn fire(x: &Tensor) -> Result<Tensor> {
///     let spikes = x.ge(0.)?.to_dtype(x.dtype())?;
///     straight_through(&spikes, &(x / (x.abs()? + 1.)?)?)
/// }
///
/// # fn main() -> Result<()> {
/// let x = Var::new(&[-1f32, 1.], &Device::Cpu)?;
/// let spikes = fire(&x)?;
/// assert_eq!(spikes.to_vec1::<f32>()?, [0., 1.]);
/// let gradient = spikes.sum_all()?.backward()?.get(&x).unwrap().to_vec1::<f32>()?;
/// assert_eq!(gradient, [0.25, 0.25]);
/// # Ok(()) }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
#[non_exhaustive]
pub enum Surrogate {
    /// Arc tangent, the paper's choice with `alpha = 2`.
    Atan {
        /// Slope.
        alpha: f64,
    },
    /// Logistic function.
    Sigmoid {
        /// Slope.
        alpha: f64,
    },
    /// Constant derivative in a window.
    Rectangle {
        /// Full width of the window.
        width: f64,
    },
    /// Triangular derivative.
    Triangle {
        /// Half width of the base.
        width: f64,
    },
    /// A normal density as derivative.
    Gaussian {
        /// Its standard deviation.
        sigma: f64,
    },
    /// Constant derivative in a window of the membrane potential.
    Window {
        /// The potential in its middle.
        centre: f64,
        /// Full width.
        width: f64,
        /// The derivative inside.
        height: f64,
    },
}

/// Runs `$body` with `$slope` the derivative of `$surrogate`: one copy of the body for each variant, so that loops in it
/// do not ask which it is.
macro_rules! by_surrogate {
    ($surrogate:expr, $F:ty, $slope:ident => $body:expr) => {
        by_surrogate!(@ $surrogate, $F, $slope => $body; Atan { alpha }, Sigmoid { alpha }, Rectangle { width }, Triangle { width },
            Gaussian { sigma }, Window { centre, width, height })
    };
    (@ $surrogate:expr, $F:ty, $slope:ident => $body:expr; $($variant:ident { $($field:ident),+ }),+) => {
        match $surrogate {
            $(crate::Surrogate::$variant { $($field),+ } => {
                let known = crate::Surrogate::$variant { $($field),+ };
                let $slope = |x: $F| known.derivative_of(x);
                $body
            })+
        }
    };
}
pub(crate) use by_surrogate;

impl Surrogate {
    /// `g(x)`.
    #[must_use]
    pub fn value(&self, x: f64) -> f64 {
        self.value_of(x - self.origin(0.))
    }

    /// `g'(x)`.
    #[must_use]
    pub fn derivative(&self, x: f64) -> f64 {
        self.derivative_of(x - self.origin(0.))
    }

    /// The potential at which the argument of [`derivative_of`](Self::derivative_of) is 0.
    pub(crate) fn origin(&self, v_threshold: f64) -> f64 {
        match *self {
            Self::Window { centre, .. } => centre,
            _ => v_threshold,
        }
    }

    /// Checks the numbers of the surrogate.
    ///
    /// # Errors
    /// Returns an error if a slope, a width, a height or a deviation is not positive and finite, or if a centre is not finite.
    pub fn validate(&self) -> crate::error::Result<()> {
        let (field, value) = match *self {
            Self::Atan { alpha } => ("surrogate.atan.alpha", alpha),
            Self::Sigmoid { alpha } => ("surrogate.sigmoid.alpha", alpha),
            Self::Rectangle { width } => ("surrogate.rectangle.width", width),
            Self::Triangle { width } => ("surrogate.triangle.width", width),
            Self::Gaussian { sigma } => ("surrogate.gaussian.sigma", sigma),
            Self::Window { centre, .. } if !centre.is_finite() => {
                return Err(Error::config("surrogate.window.centre", centre, "must be finite"));
            }
            Self::Window { width, height, .. } if width.is_finite() && width > 0. => {
                ("surrogate.window.height", height)
            }
            Self::Window { width, .. } => ("surrogate.window.width", width),
        };
        if value.is_finite() && value > 0. {
            return Ok(());
        }
        Err(Error::config(field, value, "must be positive and finite"))
    }

    #[inline(always)]
    pub(crate) fn value_of<F: Real>(&self, x: F) -> F {
        let c = F::from_f64;
        let (zero, half, one) = (c(0.), c(0.5), c(1.));
        match *self {
            Self::Atan { alpha } => {
                (c(std::f64::consts::FRAC_PI_2 * alpha) * x).atan() / c(std::f64::consts::PI) + half
            }
            Self::Sigmoid { alpha } => one / (one + (c(-alpha) * x).exp()),
            Self::Rectangle { width } => (x / c(width) + half).at_least(zero).at_most(one),
            Self::Triangle { width } => {
                let u = (x / c(width)).at_least(-one).at_most(one);
                if u < zero { (u + one) * (u + one) * half } else { one - (one - u) * (one - u) * half }
            }
            Self::Gaussian { sigma } => half * (one + (x / c(sigma * std::f64::consts::SQRT_2)).erf()),
            Self::Window { width, height, .. } => {
                c(height) * (x + c(width / 2.)).at_least(zero).at_most(c(width))
            }
        }
    }

    #[inline(always)]
    pub(crate) fn derivative_of<F: Real>(&self, x: F) -> F {
        let c = F::from_f64;
        let (zero, one) = (c(0.), c(1.));
        match *self {
            Self::Atan { alpha } => {
                let u = c(std::f64::consts::FRAC_PI_2 * alpha) * x;
                c(alpha / 2.) / (one + u * u)
            }
            Self::Sigmoid { alpha } => {
                let g = one / (one + (c(-alpha) * x).exp());
                c(alpha) * g * (one - g)
            }
            Self::Rectangle { width } => within(x, c(width / 2.), c(1. / width)),
            Self::Triangle { width } => (one - x.abs() / c(width)).at_least(zero) / c(width),
            Self::Gaussian { sigma } => {
                let u = x / c(sigma);
                (c(-0.5) * u * u).exp() * c(1. / (sigma * std::f64::consts::TAU.sqrt()))
            }
            Self::Window { width, height, .. } => within(x, c(width / 2.), c(height)),
        }
    }

    /// `g'` of every element, with Candle's own operations (any device).
    fn derivative_tensor(&self, x: &Tensor) -> Result<Tensor> {
        match *self {
            Self::Atan { alpha } => {
                let u = (x * (std::f64::consts::FRAC_PI_2 * alpha))?;
                (u.sqr()? + 1.)?.recip()? * (alpha / 2.)
            }
            Self::Sigmoid { alpha } => {
                let g = ((x * -alpha)?.exp()? + 1.)?.recip()?;
                (&g * (1. - &g)?)? * alpha
            }
            Self::Rectangle { width } => x.abs()?.lt(width / 2.)?.to_dtype(x.dtype())? / width,
            Self::Triangle { width } => (1. - (x.abs()? / width)?)?.relu()? / width,
            Self::Gaussian { sigma } => {
                ((x / sigma)?.sqr()? * -0.5)?.exp()? * (1. / (sigma * std::f64::consts::TAU.sqrt()))
            }
            Self::Window { width, height, .. } => x.abs()?.lt(width / 2.)?.to_dtype(x.dtype())? * height,
        }
    }

    /// Firing: `Theta(x)` forward (1 where `x >= 0`), `g'(x)` backward. Any device.
    ///
    /// Plus infinity fires, minus infinity and NaN do not; the gradient of all three is 0.
    ///
    /// # Shapes
    /// `x` of any shape, floating point -> the same shape, each 0 or 1.
    /// # Errors
    /// None of its own: what the device reports.
    /// # Examples
    /// ```
    /// # use candle_core::{Device, Tensor, Var};
    /// # fn main() -> candle_core::Result<()> {
    /// let x = Var::new(&[-1f32, 0., 1.], &Device::Cpu)?;
    /// let spikes = snn_core::Surrogate::Atan { alpha: 2. }.fire(&x)?;
    /// assert_eq!(spikes.to_vec1::<f32>()?, [0., 1., 1.]);
    /// let grads = spikes.sum_all()?.backward()?;
    /// assert_eq!(grads.get(&x).unwrap().to_vec1::<f32>()?[1], 1.);
    /// # Ok(()) }
    /// ```
    pub fn fire(&self, x: &Tensor) -> Result<Tensor> {
        self.carry(&x.ge(0.)?, &(x - self.origin(0.))?)
    }

    /// These spikes, with `g'(x)` for a derivative; `x` is taken from the [`origin`](Self::origin).
    pub(crate) fn carry(&self, spikes: &Tensor, x: &Tensor) -> Result<Tensor> {
        let (fixed, spikes) = (x.detach(), spikes.to_dtype(x.dtype())?);
        let slope = self.derivative_tensor(&fixed)?;
        // Chosen, not multiplied by a slope of zero: infinities less themselves are NaN, and so is NaN's slope.
        let (sloped, zeros) = (slope.gt(0.)?, fixed.zeros_like()?);
        // Zero in value, `g'(x)` in derivative.
        let carrier = ((x - &fixed)? * sloped.where_cond(&slope, &zeros)?)?;
        spikes + sloped.where_cond(&carrier, &zeros)?
    }
}

#[cfg(test)]
impl Surrogate {
    /// One of each, in the order of [`place`](Self::place): the tests of the operation `lif` and of the fused chain go through all.
    /// `tests/suite/config.rs` lists them once more, with the names of their fields.
    pub(crate) const EACH: [Self; 6] = [
        Self::Atan { alpha: 2. },
        Self::Sigmoid { alpha: 4. },
        Self::Rectangle { width: 1.5 },
        Self::Triangle { width: 0.8 },
        Self::Gaussian { sigma: 0.6 },
        Self::Window { centre: 0.3, width: 1.25, height: 0.8 },
    ];

    /// The place of the variant in [`EACH`](Self::EACH). It is a match so that the compiler leads a new variant to that list.
    fn place(self) -> usize {
        match self {
            Self::Atan { .. } => 0,
            Self::Sigmoid { .. } => 1,
            Self::Rectangle { .. } => 2,
            Self::Triangle { .. } => 3,
            Self::Gaussian { .. } => 4,
            Self::Window { .. } => 5,
        }
    }
}

/// `height` within this distance of 0, NaN where `x` is.
#[inline(always)]
fn within<F: Real>(x: F, distance: F, height: F) -> F {
    if x.abs() < distance {
        height
    } else if x.abs() >= distance {
        F::from_f64(0.)
    } else {
        x
    }
}

#[test]
fn each_variant_is_in_its_place() {
    assert!(Surrogate::EACH.into_iter().map(Surrogate::place).eq(0..Surrogate::EACH.len()));
}
