//! Everything that defines an SDID, as plain data.

use serde::{Deserialize, Serialize};
use snn_core::{Analog, LayerConfig, LifConfig};

use crate::Result;

/// How tokens and diffusion time become the network's input current.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum TokenInput {
    /// Two channels of raw numbers: the token `0..=K`, and `t` (the released code).
    Raw,
    /// `token[h] + position[i, j] + time[t]`, each a learned vector (ours).
    Embedding {
        /// Length of the vectors, the number of input channels.
        dim: usize,
    },
}

/// The layers whose spikes the read-out sees.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HeadReads {
    /// The last, joined by the first (the released code).
    #[default]
    LastAndFirst,
    /// All, from the first to the last (ours).
    All,
}

impl HeadReads {
    /// Their numbers, of so many.
    pub(crate) fn of(self, layers: usize) -> Vec<usize> {
        match self {
            Self::LastAndFirst => vec![layers - 1, 0],
            Self::All => (0..layers).collect(),
        }
    }

    fn is_released(&self) -> bool {
        *self == Self::default()
    }
}

/// Describes an [`Sdid`](crate::Sdid): its sizes, its neurons and its input. [`released_code`](Self::released_code) has the values of the
/// released code; the paper gives no architecture.
///
/// # Examples
/// ```
/// use absorbing_diffusion::SdidConfig;
/// let cfg = SdidConfig { time_steps: 4, ..SdidConfig::released_code(128, (7, 7)) };
/// cfg.validate().unwrap();
/// assert_eq!(cfg.steps, 49);
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SdidConfig {
    /// Codebook size `K`; the mask is token `K`.
    pub codes: usize,
    /// Rows of the code map.
    pub height: usize,
    /// Columns of the code map.
    pub width: usize,
    /// Diffusion steps `T_d`.
    pub steps: usize,
    /// Spiking time steps `T_s`.
    pub time_steps: usize,
    /// The neurons of all spiking layers.
    pub lif: LifConfig,
    /// Output channels of the spiking 3x3 convolutions: five in the released code, at least two here.
    pub channels: Vec<usize>,
    /// Side of the read-out's kernel, an odd number: 3 in the released code. With many codes most of the work is in the read-out, and
    /// 1 is a ninth of that.
    #[serde(default = "released_head", skip_serializing_if = "is_released_head")]
    pub head_kernel: usize,
    /// The layers that the read-out sees.
    #[serde(default, skip_serializing_if = "HeadReads::is_released")]
    pub head_reads: HeadReads,
    /// How tokens and the diffusion time become the current of the first layer.
    pub token_input: TokenInput,
    /// Classes `C` that images can have. Each is one more learned vector in the input's sum, as is no class, and so they need
    /// [`TokenInput::Embedding`]. `None` (the paper, the released code) knows nothing of classes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub classes: Option<usize>,
    /// Whether it is the same network without spikes (ours): ReLU instead of neurons, and one time step.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub without_spikes: bool,
}

fn released_head() -> usize {
    3
}

fn is_released_head(side: &usize) -> bool {
    *side == released_head()
}

/// Most codes, and diffusion steps.
const LARGEST: usize = 1 << 24;
const LARGEST_KERNEL: usize = 15;

impl SdidConfig {
    /// The released code: raw numbers in, 64-128-256-512-256 channels, `T_s = 16`, one diffusion step a token.
    #[must_use]
    pub fn released_code(codes: usize, (height, width): (usize, usize)) -> Self {
        Self {
            codes,
            height,
            width,
            steps: height * width,
            time_steps: 16,
            lif: LifConfig::default(),
            channels: vec![64, 128, 256, 512, 256],
            head_kernel: released_head(),
            head_reads: HeadReads::default(),
            token_input: TokenInput::Raw,
            classes: None,
            without_spikes: false,
        }
    }

    /// Returns the twin without spikes of this network, with one time step.
    #[must_use]
    pub fn twin(self) -> Self {
        Self { time_steps: 1, without_spikes: true, ..self }
    }

    /// Norm and neurons of all layers.
    pub(crate) fn layer(&self) -> LayerConfig {
        let layer = LayerConfig::from(self.lif);
        if self.without_spikes { layer.with_analog(Analog::Relu) } else { layer }
    }

    /// Checks that a network can be built of these numbers.
    ///
    /// # Errors
    /// Returns an error, with the field, its value and the reason, if there are fewer than two codes or layers, if any size is
    /// 0, if the side of the read-out's kernel is even or above 15, if there are classes without an embedding or several time steps without spikes, and if there are more codes, classes or diffusion steps than 2^24: as the
    /// network's input they are f32 numbers, which do not tell larger ones apart.
    pub fn validate(&self) -> Result<()> {
        for (field, value, least) in [("codes", self.codes, 2), ("steps", self.steps, 1)] {
            if !(least..=LARGEST).contains(&value) {
                let reason = format!("must be at least {least} and at most 2^24, to which f32 counts");
                return Err(snn_core::Error::config(format!("sdid.{field}"), value, reason).into());
            }
        }
        if let Some(classes) = self.classes {
            if !(1..=LARGEST).contains(&classes) {
                let reason = "must be at least 1 and at most 2^24";
                return Err(snn_core::Error::config("sdid.classes", classes, reason).into());
            }
            if self.token_input == TokenInput::Raw {
                let reason = "a class is a learned vector: needs `token_input` to be `embedding`";
                return Err(snn_core::Error::config("sdid.classes", classes, reason).into());
            }
        }
        if self.without_spikes && self.time_steps != 1 {
            let reason = "must be 1 without spikes";
            return Err(snn_core::Error::config("sdid.time_steps", self.time_steps, reason).into());
        }
        if !(1..=LARGEST_KERNEL).contains(&self.head_kernel) || self.head_kernel.is_multiple_of(2) {
            let reason = format!("must be odd, at most {LARGEST_KERNEL}");
            return Err(snn_core::Error::config("sdid.head_kernel", self.head_kernel, reason).into());
        }
        if self.channels.len() < 2 {
            let (value, reason) =
                (format!("{:?}", self.channels), "needs at least two layers, a first and a last");
            return Err(snn_core::Error::config("sdid.channels", value, reason).into());
        }
        let mut sizes = vec![("height", self.height), ("width", self.width), ("time_steps", self.time_steps)];
        sizes.extend(self.channels.iter().map(|&c| ("channels", c)));
        if let TokenInput::Embedding { dim } = self.token_input {
            sizes.push(("token_input.embedding.dim", dim));
        }
        match sizes.into_iter().find(|(_, size)| *size == 0) {
            Some((field, size)) => {
                Err(snn_core::Error::config(format!("sdid.{field}"), size, "must be at least 1").into())
            }
            None => Ok(self.lif.validate().map_err(|e| e.within("sdid"))?),
        }
    }
}
