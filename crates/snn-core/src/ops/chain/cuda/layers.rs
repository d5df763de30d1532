//! The layers of a chain, whatever their input, and their parameters as its kernels want them.

use candle_core::{DType, Result, Tensor, bail};

use crate::geometry::{self, Geometry};
use crate::ops::batch_norm::cuda::run::Normalise;
use crate::ops::chain::spec::Spec;
use crate::ops::conv::{Kind, Product, Sizes};

/// A layer: its convolution, and where its weights lie among those of all layers.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) spec: Spec,
    pub(super) product: Product,
    pub(super) weights: usize,
}

impl Link {
    pub(super) fn new(spec: Spec, weights: usize, last: bool) -> Self {
        let Geometry { kind, conv, channels, .. } = spec.geometry;
        // Of a transposed convolution the output is the image and the input is the map.
        let (kind, (c_in, c_out)) = match kind {
            geometry::Kind::Conv => (Kind::Correlate, channels),
            geometry::Kind::Transposed => (Kind::ImageGradient, (channels.1, channels.0)),
        };
        let [rows, columns] = spec.geometry.axes();
        let g = Sizes {
            c_in,
            h: rows.image,
            w: columns.image,
            c_out,
            oh: rows.map,
            ow: columns.map,
            kh: rows.kernel,
            kw: columns.kernel,
            stride: conv.stride,
            padding: conv.padding,
        };
        Self { spec, product: Product { kind, g, last }, weights }
    }

    pub(super) fn kernel(&self) -> [usize; 4] {
        let g = &self.product.g;
        [g.c_out, g.c_in, g.kh, g.kw]
    }
}

/// A layer's parameters as its kernels want them.
#[derive(Clone, Debug)]
pub(super) struct Parameters {
    pub(super) kernel: Tensor,
    pub(super) weight: Tensor,
    pub(super) bias: Tensor,
    /// The fixed map that these are, where it is made already.
    pub(super) map: Option<Normalise>,
}

/// The layers of a chain, whatever their input.
#[derive(Debug)]
pub(super) struct Layers {
    pub(super) links: Vec<Link>,
    /// Whether channels are the last axis inside.
    pub(super) last: bool,
}

impl Layers {
    /// Of these specs, with so many weights in all.
    pub(super) fn new(specs: &[Spec], dtype: DType, number: usize) -> Result<Self> {
        if specs.iter().any(|spec| spec.learns || spec.flattened != 1) {
            bail!(
                "spiking_chain: no kernel on a GPU for time constants that are learned, or for linear layers on maps"
            )
        }
        let last = cfg!(feature = "cudnn") && dtype == DType::F32;
        let mut weights = 0;
        let link = |spec: &Spec| {
            let link = Link::new(*spec, weights, last);
            weights += link.kernel().iter().product::<usize>();
            link
        };
        let links = specs.iter().map(link).collect();
        if weights != number {
            bail!("spiking_chain: layers of {weights} weights, of which there are {number}")
        }
        Ok(Self { links, last })
    }

    /// `[M, C, H, W]` as it lies inside.
    pub(super) fn inward(&self, xs: &Tensor) -> Result<Tensor> {
        if self.last { xs.permute((0, 2, 3, 1))?.contiguous() } else { xs.contiguous() }
    }

    /// What lies inside as `[M, C, H, W]`.
    pub(super) fn outward(&self, xs: &Tensor) -> Result<Tensor> {
        if self.last { xs.permute((0, 3, 1, 2))?.contiguous() } else { Ok(xs.clone()) }
    }

    /// The shape inside of so many maps.
    pub(super) fn inside(
        &self,
        maps: usize,
        c: usize,
        (h, w): (usize, usize),
    ) -> (usize, usize, usize, usize) {
        if self.last { (maps, h, w, c) } else { (maps, c, h, w) }
    }

    /// The parameters of each layer, of the weights of all of them and of their affines.
    pub(super) fn lay_out(&self, weights: &Tensor, affines: &Tensor) -> Result<Vec<Parameters>> {
        let mut from = 0;
        let of_layer = |link: &Link| {
            let (kernel, c) = (link.kernel(), link.spec.geometry.channels.1);
            let kernel = weights.narrow(0, link.weights, kernel.iter().product())?.reshape(&kernel[..])?;
            let (weight, bias) = (affines.narrow(0, from, c)?, affines.narrow(0, from + c, c)?);
            from += 2 * c;
            // In memory of its own: tensor cores may want it to begin at a multiple of 16 bytes.
            let kernel = match self.last {
                true => kernel.permute((0, 2, 3, 1))?.force_contiguous()?,
                false => kernel,
            };
            Ok(Parameters { kernel, weight, bias, map: None })
        };
        self.links.iter().map(of_layer).collect()
    }
}
