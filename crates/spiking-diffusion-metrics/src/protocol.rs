//! What a published number was measured with.

use serde::{Deserialize, Serialize};

use crate::{Ball, InceptionConfig, InceptionLayer, PixelScaling};

/// A way of measuring that other people's numbers were made with; [`Protocol::settings`] spells it out.
///
/// Numbers of different protocols cannot be compared.
///
/// # Examples
/// ```
/// use spiking_diffusion_metrics::{InceptionLayer, Protocol, Resize};
///
/// let settings = Protocol::CleanFid.settings(InceptionLayer::Mixed768);
/// assert_eq!((settings.inception.resize, settings.inception.dims()), (Some(Resize::Bicubic), 768));
/// assert_eq!(settings.kernel_inception, settings.inception); // only the paper takes two networks
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Protocol {
    /// The Spiking-Diffusion paper's own: torchvision's ImageNet network, and a matrix "root" that is none.
    Paper,
    /// `pytorch-fid`.
    PytorchFid,
    /// `torch-fidelity`.
    TorchFidelity,
    /// `clean-fid`, mode `clean`.
    CleanFid,
}

/// What stands for the square root of `S_a S_b` in the Fréchet distance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Root {
    /// The matrix square root: [`frechet_distance`](crate::frechet_distance).
    Principal,
    /// The paper's `U s^(1/2) V^T`: [`frechet_distance_paper`](crate::frechet_distance_paper).
    SingularVectors,
}

/// Everything that a [`Protocol`] implies.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Settings {
    /// Network of the Fréchet distance, and the way of the pixels to it.
    pub inception: InceptionConfig,
    /// The same for the kernel distance. In the paper it is another network, so that its two distances are not of
    /// the same features.
    pub kernel_inception: InceptionConfig,
    /// Covariances are divided by `N - ddof`.
    pub ddof: u32,
    /// Root in the Fréchet distance.
    pub root: Root,
    /// Number of subsets of the kernel distance.
    pub kid_subsets: usize,
    /// Rows of a subset; no more than the smaller set has.
    pub kid_subset_size: usize,
    /// Splits of the Inception score.
    pub inception_splits: usize,
    /// Neighbours `k` of precision, recall, density and coverage.
    pub neighbours: usize,
    /// Whether a sample on the surface of a ball counts.
    pub ball: Ball,
}

impl Protocol {
    /// All protocols.
    pub const ALL: [Self; 4] = [Self::Paper, Self::PytorchFid, Self::TorchFidelity, Self::CleanFid];

    /// The name that stands beside a number: `paper`, `pytorch-fid`, `torch-fidelity` or `clean-fid`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Paper => "paper",
            Self::PytorchFid => "pytorch-fid",
            Self::TorchFidelity => "torch-fidelity",
            Self::CleanFid => "clean-fid",
        }
    }

    /// What the protocol implies, with features of `layer`; published numbers are of [`InceptionLayer::Pool2048`].
    ///
    /// What a package does not compute itself (pytorch-fid has no KID) is torch-fidelity's; density and coverage are
    /// then those of the `prdc` package, with open balls. The paper's kernel distance is torchmetrics' default:
    /// torch-fidelity's network and resizing, 100 subsets of 1,000.
    #[must_use]
    pub fn settings(self, layer: InceptionLayer) -> Settings {
        let (inception, kernel_inception) = self.networks(layer);
        let paper = self == Self::Paper;
        Settings {
            inception,
            kernel_inception,
            ddof: 1,
            root: if paper { Root::SingularVectors } else { Root::Principal },
            kid_subsets: 100,
            kid_subset_size: 1000,
            inception_splits: if paper { 4 } else { 10 },
            neighbours: 3,
            ball: if self == Self::TorchFidelity { Ball::Closed } else { Ball::Open },
        }
    }

    /// Of the Fréchet and of the kernel distance.
    fn networks(self, layer: InceptionLayer) -> (InceptionConfig, InceptionConfig) {
        let fidelity = InceptionConfig::torch_fidelity(layer);
        let both = match self {
            Self::Paper => return (paper_inception(layer), fidelity),
            Self::PytorchFid => InceptionConfig::pytorch_fid(layer),
            Self::TorchFidelity => fidelity,
            Self::CleanFid => InceptionConfig::clean_fid(layer),
        };
        (both, both)
    }
}

/// torchvision's network, with its `transform_input` on top of pixels that already are `2 u - 1`.
fn paper_inception(layer: InceptionLayer) -> InceptionConfig {
    let scaling = PixelScaling::TransformOnly { of: [-1.0, 1.0] };
    InceptionConfig { scaling, ..InceptionConfig::torchvision(layer) }
}

impl std::fmt::Display for Protocol {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

impl std::str::FromStr for Protocol {
    type Err = crate::Error;

    fn from_str(name: &str) -> crate::Result<Self> {
        let found = Self::ALL.into_iter().find(|p| p.name() == name);
        let names = Self::ALL.map(Self::name).join(", ");
        found.ok_or_else(|| crate::Error::config("protocol", name, format!("must be one of {names}")))
    }
}
