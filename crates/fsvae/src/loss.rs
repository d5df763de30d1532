//! The loss, term by term.

use candle_core::{DType, Result, Tensor};
use snn_core::psp_distance;

use crate::{Divergence, FsvaeConfig, Output};

/// What the training of an FSVAE or ESVAE minimises: two scalars with gradients, whose sum is the loss.
#[derive(Clone, Debug)]
pub struct Losses {
    /// The mean squared error of the reconstruction.
    pub reconstruction: Tensor,
    /// How far posterior and prior are apart, its weight included (see [`Divergence`]; of an ESVAE, their rates).
    pub divergence: Tensor,
}

impl Losses {
    /// The loss itself, the sum of both terms.
    ///
    /// # Shapes
    /// -> a scalar, with gradients.
    /// # Errors
    /// Returns an error if the terms differ in element type or device; those of one pass never do.
    pub fn total(&self) -> Result<Tensor> {
        &self.reconstruction + &self.divergence
    }

    /// Returns both terms, in the order of the fields.
    #[must_use]
    pub fn terms(&self) -> [Tensor; 2] {
        [&self.reconstruction, &self.divergence].map(Tensor::clone)
    }

    /// The values of both terms, in the order of the fields.
    ///
    /// # Errors
    /// Returns an error if a term is not a scalar.
    pub fn values(&self) -> Result<[f64; 2]> {
        let value = |t: &Tensor| t.to_dtype(DType::F64)?.to_scalar::<f64>();
        Ok([value(&self.reconstruction)?, value(&self.divergence)?])
    }

    pub(crate) fn new(cfg: &FsvaeConfig, images: &Tensor, out: &Output) -> Result<Self> {
        let (q, p) = (out.q_z.mean(3)?, out.p_z.mean(3)?);
        let divergence = match cfg.divergence {
            Divergence::Mmd { tau } => (psp_distance(&q, &p, tau)? / q.elem_count() as f64)?,
            Divergence::Kld { weight, floor } => (kld(&q, &p, floor)? * (weight / images.dim(0)? as f64))?,
        };
        Self::of(images, &out.reconstruction, divergence)
    }

    pub(crate) fn of(images: &Tensor, reconstruction: &Tensor, divergence: Tensor) -> Result<Self> {
        Ok(Self { reconstruction: (images - reconstruction)?.sqr()?.mean_all()?, divergence })
    }
}

/// `sum q ln((q + floor) / (p + floor)) + (1 - q) ln((1 - q + floor) / (1 - p + floor))`.
fn kld(q: &Tensor, p: &Tensor, floor: f64) -> Result<Tensor> {
    let term = |q: &Tensor, p: &Tensor| q * ((q + floor)?.log()? - (p + floor)?.log()?)?;
    let not = |rate: &Tensor| rate.affine(-1., 1.);
    (term(q, p)? + term(&not(q)?, &not(p)?)?)?.sum_all()
}
