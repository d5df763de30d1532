//! The loaded network.

use candle_core::{Device, Tensor};
use rayon::prelude::*;

use super::config::{InceptionConfig, InceptionLayer};
use super::conv::Conv;
use super::graph::{ConvSpec, Op, trunk, try_map_all};
use super::map::Map;
use super::pool;
use super::weights::InceptionWeights;
use crate::input::SLACK;
use crate::resize::{Resizer, checked_dims, to_f32};
use crate::{Error, FeatureExtractor, Resize, Result};

/// Side of the images that the network was trained on.
const SIDE: usize = 299;
/// The smallest image of which something is left for the last block.
const SMALLEST: usize = 75;

/// Extracts the features by which FID and KID are measured: Inception v3 up to one layer (Szegedy et al., 2015,
/// arXiv:1512.00567), in evaluation mode on the CPU.
///
/// Images are computed one by one, in parallel, each in a fixed order of summation, so that features depend neither on the
/// batch nor on the number of threads.
///
/// # Examples
/// ```no_run
/// use candle_core::{DType, Device, Tensor};
/// use spiking_diffusion_metrics::{FeatureExtractor, Inception, InceptionConfig, InceptionLayer, InceptionWeights};
///
/// let weights = InceptionWeights::open("pt_inception-2015-12-05-6726825d.pth")?;
/// let inception = Inception::new(InceptionConfig::pytorch_fid(InceptionLayer::Pool2048), &weights)?;
/// let images = Tensor::zeros((8, 1, 28, 28), DType::F32, &Device::Cpu)?; // [N, C, H, W] in [0, 1]
/// assert_eq!(inception.extract(&images)?.dims(), [8, 2048]);
/// # Ok::<(), spiking_diffusion_metrics::Error>(())
/// ```
pub struct Inception {
    config: InceptionConfig,
    trunk: Vec<Op<Conv>>,
    classifier: Option<Linear>,
}

/// `weights [outputs, 2048]`, row by row.
struct Linear {
    weights: Vec<f32>,
    bias: Vec<f32>,
}

impl Inception {
    /// Builds the network up to the layer of `config`, from weights of which the rest may be missing.
    ///
    /// # Errors
    /// Returns an error if a tensor is missing, misshapen or not finite (the error names the file and the first such
    /// tensor), if `range` is empty or not finite, or if `scaling` is not finite.
    pub fn new(config: InceptionConfig, weights: &InceptionWeights) -> Result<Self> {
        config.validate()?;
        let trunk = trunk(config.variant, config.layer);
        let trunk = try_map_all(trunk, &mut |spec| Conv::load(spec, weights))?;
        let classifier = match config.layer {
            InceptionLayer::LogitsUnbiased | InceptionLayer::Logits => Some(Linear::load(&config, weights)?),
            _ => None,
        };
        Ok(Self { config, trunk, classifier })
    }

    /// Lists the names and shapes of the tensors that the layer of `config` needs.
    ///
    /// # Examples
    /// ```
    /// use spiking_diffusion_metrics::{Inception, InceptionConfig, InceptionLayer};
    ///
    /// let needed = Inception::parameters(&InceptionConfig::pytorch_fid(InceptionLayer::Pool64));
    /// assert_eq!(needed.len(), 15);
    /// assert_eq!(needed[0], ("Conv2d_1a_3x3.conv.weight".to_owned(), vec![32, 3, 3, 3]));
    /// ```
    #[must_use]
    pub fn parameters(config: &InceptionConfig) -> Vec<(String, Vec<usize>)> {
        let mut needed = Vec::new();
        list(&trunk(config.variant, config.layer), &mut needed);
        let outputs = config.dims();
        if config.layer > InceptionLayer::Pool2048 {
            needed.push(("fc.weight".to_owned(), vec![outputs, Linear::INPUTS]));
        }
        if config.layer == InceptionLayer::Logits {
            needed.push(("fc.bias".to_owned(), vec![outputs]));
        }
        needed
    }

    /// The config that the network was built with.
    #[must_use]
    pub fn config(&self) -> &InceptionConfig {
        &self.config
    }

    /// Features of one image, given its `channels` planes of row-major pixels.
    fn features(&self, planes: &[f32], size: (usize, usize), resizer: Option<&Resizer>) -> Vec<f32> {
        let features = run(&self.trunk, &self.input(planes, size, resizer)).mean();
        match &self.classifier {
            None => features,
            Some(linear) => linear.forward(&features),
        }
    }

    /// Three channels, resized and scaled; a single channel is repeated.
    fn input(&self, planes: &[f32], size: (usize, usize), resizer: Option<&Resizer>) -> Map {
        let resized = |plane: &[f32]| self.prepare(plane, resizer);
        let planes: Vec<Vec<f32>> = planes.chunks_exact(size.0 * size.1).map(resized).collect();
        let (height, width) = if resizer.is_some() { (SIDE, SIDE) } else { size };
        let mut map = Map::zeros(height, width, 3);
        for channel in 0..3 {
            let (scale, offset) = self.config.scaling.affine(channel);
            let plane = &planes[channel.min(planes.len() - 1)];
            let pixels = map.values.iter_mut().skip(channel).step_by(3);
            pixels.zip(plane).for_each(|(out, u)| *out = u * scale + offset);
        }
        map
    }

    /// Pixels in `[0, 1]`, rounded and resized as configured.
    fn prepare(&self, plane: &[f32], resizer: Option<&Resizer>) -> Vec<f32> {
        let [black, white] = self.config.range;
        let unit = plane.iter().map(|x| (x - black) / (white - black));
        let unit: Vec<f32> = if self.config.quantize {
            unit.map(|u| (u * 255.0).round().clamp(0.0, 255.0) / 255.0).collect()
        } else {
            unit.collect()
        };
        let Some(resizer) = resizer else { return unit };
        let mut resized = resizer.plane(&unit);
        if self.config.resize == Some(Resize::Bicubic) {
            resized.iter_mut().for_each(|u| *u = u.clamp(0.0, 1.0));
        }
        resized
    }

    /// Rejects images of another range than the config's, whose features would mean nothing.
    fn check_range(&self, pixels: &[f32]) -> Result<()> {
        let [black, white] = self.config.range;
        let (low, high) = pixels.iter().fold((f32::MAX, f32::MIN), |(l, h), &x| (l.min(x), h.max(x)));
        // What becomes bytes is clamped, but pixels of another range, whose black lies half of it below, are refused.
        let share = if self.config.quantize { SLACK as f32 } else { 1e-3 };
        let (from, to, slack) = (black.min(white), black.max(white), share * (white - black).abs());
        if pixels.is_empty() || (low >= from - slack && high <= to + slack) {
            return Ok(());
        }
        let reason = format!("the images reach from {low} to {high}: set their range, or clamp them");
        Err(Error::config("range", format!("{:?}", self.config.range), reason))
    }

    /// `(N, C, H, W)` of images that the network can take.
    fn checked_dims(&self, images: &Tensor) -> Result<(usize, usize, usize, usize)> {
        let (n, c, h, w) = checked_dims(images)?;
        let too_small = self.config.resize.is_none() && h.min(w) < SMALLEST;
        if (c == 1 || c == 3) && !too_small {
            return Ok((n, c, h, w));
        }
        let side = if self.config.resize.is_none() { ", at least 75 x 75 pixels" } else { "" };
        let expected = format!("[N, 1 or 3, H, W]{side}");
        Err(Error::Shape { what: "images", expected, got: images.dims().to_vec() })
    }
}

impl FeatureExtractor for Inception {
    fn name(&self) -> String {
        self.config.to_string()
    }

    fn dims(&self) -> usize {
        self.config.dims()
    }

    fn extract(&self, images: &Tensor) -> Result<Tensor> {
        let (count, channels, height, width) = self.checked_dims(images)?;
        let resizer = match self.config.resize {
            Some(method) => Some(Resizer::new((height, width), (SIDE, SIDE), method)?),
            None => None,
        };
        let values = to_f32(images)?;
        crate::input::check_finite(&values, channels * height * width, "images", 0)?;
        self.check_range(&values)?;
        let each = values.par_chunks_exact(channels * height * width);
        let rows = each.map(|image| self.features(image, (height, width), resizer.as_ref()));
        let features: Vec<f32> = rows.collect::<Vec<_>>().concat();
        Ok(Tensor::from_vec(features, (count, self.dims()), &Device::Cpu)?)
    }

    fn takes_any_size(&self) -> bool {
        self.config.resize.is_some()
    }
}

impl std::fmt::Debug for Inception {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inception").field("config", &self.config).finish_non_exhaustive()
    }
}

fn run(ops: &[Op<Conv>], input: &Map) -> Map {
    let mut last = None;
    for op in ops {
        last = Some(apply(op, last.as_ref().unwrap_or(input)));
    }
    last.unwrap_or_else(|| input.clone())
}

fn apply(op: &Op<Conv>, input: &Map) -> Map {
    match op {
        Op::Conv(conv) => conv.forward(input),
        Op::AveragePool { count_padding } => pool::average(input, *count_padding),
        Op::MaxPool { stride, padding } => pool::max(input, *stride, *padding),
        Op::Concat(branches) => {
            let parts: Vec<Map> = branches.iter().map(|branch| run(branch, input)).collect();
            Map::concat(&parts)
        }
    }
}

fn list(ops: &[Op<ConvSpec>], needed: &mut Vec<(String, Vec<usize>)>) {
    for op in ops {
        match op {
            Op::Conv(spec) => {
                let [height, width] = spec.kernel;
                let name = &spec.name;
                needed.push((format!("{name}.conv.weight"), vec![spec.outputs, spec.inputs, height, width]));
                for field in ["weight", "bias", "running_mean", "running_var"] {
                    needed.push((format!("{name}.bn.{field}"), vec![spec.outputs]));
                }
            }
            Op::Concat(branches) => branches.iter().for_each(|branch| list(branch, needed)),
            Op::AveragePool { .. } | Op::MaxPool { .. } => (),
        }
    }
}

impl Linear {
    const INPUTS: usize = 2048;

    fn load(config: &InceptionConfig, weights: &InceptionWeights) -> Result<Self> {
        let outputs = config.dims();
        let bias = match config.layer {
            InceptionLayer::Logits => weights.get("fc.bias", &[outputs])?,
            _ => vec![0.0; outputs],
        };
        Ok(Self { weights: weights.get("fc.weight", &[outputs, Self::INPUTS])?, bias })
    }

    fn forward(&self, features: &[f32]) -> Vec<f32> {
        let dot =
            |row: &[f32]| row.iter().zip(features).map(|(w, x)| f64::from(*w) * f64::from(*x)).sum::<f64>();
        let rows = self.weights.chunks_exact(Self::INPUTS).zip(&self.bias);
        rows.map(|(row, bias)| (dot(row) + f64::from(*bias)) as f32).collect()
    }
}
