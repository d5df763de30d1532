//! The loss of Eq. 9, term by term.

use candle_core::{Result, Tensor};
use snn_core::psp_distances;

use crate::choices::{DenseTerm, Reconstruction, Reduction};
use crate::{Output, VqSvaeConfig};

/// What the training of a VQ-SVAE minimises, as the four terms of Eq. 9: scalars with gradients, whose sum is the loss.
///
/// `sg` stops the gradient; the adaptive spike generator (ASG) makes the spikes of `z^Q`.
#[derive(Clone, Debug)]
pub struct Losses {
    /// How far the reconstruction is from the image, `|x - x^|`: the squared error, or the norm (see [`Reduction`]).
    pub reconstruction: Tensor,
    /// How far the encoder's features are from their codes, `|z^E - z^Q|^2` (see [`DenseTerm`]).
    pub dense: Tensor,
    /// What the ASG learns from, `sum_t |PSP(sg z^E) - PSP(z^Q)|^2`; 0 in a VQ-VAE, which has none.
    pub generator: Tensor,
    /// What commits the encoder to its codes, `beta sum_t |PSP(sg z^Q) - PSP(z^E)|^2`, with `beta` included;
    /// 0 in a VQ-VAE.
    pub commitment: Tensor,
}

impl Losses {
    /// The loss itself, Eq. 9: the sum of the four terms.
    ///
    /// # Shapes
    /// -> a scalar, with gradients.
    /// # Errors
    /// Returns an error if the terms differ in shape, element type or device; those of one pass never do.
    pub fn total(&self) -> Result<Tensor> {
        ((&self.reconstruction + &self.dense)? + &self.generator)? + &self.commitment
    }

    /// Returns the four terms, in the order of the fields.
    #[must_use]
    pub fn terms(&self) -> [Tensor; 4] {
        [&self.reconstruction, &self.dense, &self.generator, &self.commitment].map(Tensor::clone)
    }

    /// The values of the four terms, in the order of the fields.
    ///
    /// # Errors
    /// Returns an error if a term is not a scalar.
    pub fn values(&self) -> Result<[f64; 4]> {
        let value = |t: &Tensor| t.to_dtype(candle_core::DType::F64)?.to_scalar::<f64>();
        Ok([
            value(&self.reconstruction)?,
            value(&self.dense)?,
            value(&self.generator)?,
            value(&self.commitment)?,
        ])
    }

    pub(crate) fn new(cfg: &VqSvaeConfig, images: &Tensor, out: &Output) -> Result<Self> {
        let square = |difference: Tensor, images: usize| -> Result<Tensor> {
            match cfg.reduction {
                Reduction::Mean => difference.sqr()?.mean_all(),
                Reduction::Sum => difference.sqr()?.sum_all()? / images as f64,
            }
        };
        let n = images.dim(0)?;
        let count = if cfg.reduction == Reduction::Mean { out.spikes_e.elem_count() } else { n } as f64;
        let (commitment, generator) = match cfg.is_vq_vae() {
            true => {
                let zero = out.z_e.zeros_like()?.sum_all()?;
                (zero.clone(), zero)
            }
            false => psp_distances(&out.spikes_e, &out.spikes_q, cfg.tau_syn)?,
        };
        let dense = match cfg.dense {
            DenseTerm::Unbalanced => square((&out.z_e - &out.z_q)?, n)?,
            DenseTerm::Balanced { commitment } => {
                let codebook = square((&out.z_q - out.z_e.detach())?, n)?;
                (codebook + (square((&out.z_e - out.z_q.detach())?, n)? * commitment)?)?
            }
        };
        Ok(Self {
            reconstruction: reconstruction(cfg, images, &out.reconstruction)?,
            dense,
            generator: (generator / count)?,
            commitment: (commitment * (cfg.beta / count))?,
        })
    }
}

/// Where the pixels of a training pass are to go: black and white ones, by the margin, beyond what they are.
fn targets(images: &Tensor, margin: f64) -> Result<Tensor> {
    if margin == 0. {
        return Ok(images.clone());
    }
    let [white, black] = [images.ge(0.5)?, images.le(-0.5)?].map(|is| is.to_dtype(images.dtype()));
    images + ((white? - black?)? * margin)?
}

fn reconstruction(cfg: &VqSvaeConfig, images: &Tensor, reconstruction: &Tensor) -> Result<Tensor> {
    let squares = (targets(images, cfg.margin)? - reconstruction)?.sqr()?;
    let value = match cfg.reduction {
        Reduction::Mean => squares.mean_all()?,
        Reduction::Sum => squares.flatten_from(1)?.sum(1)?.sqrt()?.mean_all()?,
    };
    match cfg.reconstruction {
        Reconstruction::Plain => Ok(value),
        Reconstruction::OverVariance { variance } => value / variance,
    }
}
