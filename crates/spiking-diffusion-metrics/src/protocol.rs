//! What a published number was measured with.

use serde::{Deserialize, Serialize};

use crate::{Ball, InceptionConfig, InceptionLayer, PixelScaling};

/// The way in which published numbers were measured, so that yours can stand beside them; [`Protocol::settings`] spells it
/// out.
///
/// Numbers of different protocols cannot be compared.
///
/// # Examples
/// ```
/// use spiking_diffusion_metrics::{InceptionLayer, Protocol, Resize};
///
/// let settings = Protocol::CleanFid.settings(InceptionLayer::Mixed768);
/// let inception = settings.inception.ok_or("FAD alone has none")?;
/// assert_eq!((inception.resize, inception.dims()), (Some(Resize::Bicubic), 768));
/// assert_eq!(settings.kernel_inception, settings.inception); // only the paper takes two networks
/// # Ok::<(), &str>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Protocol {
    /// The Spiking-Diffusion paper's own protocol: torchvision's ImageNet network, and a matrix "root" that is none.
    Paper,
    /// That of the package `pytorch-fid`.
    PytorchFid,
    /// That of the package `torch-fidelity`.
    TorchFidelity,
    /// That of the package `clean-fid` in its mode `clean`.
    CleanFid,
    /// FAD, as FSVAE's authors measure it: with the features of [`Fad`](crate::Fad), not of an Inception network.
    Fad,
}

/// What stands for the square root of `S_a S_b` in the Fréchet distance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Root {
    /// The matrix square root, as in [`frechet_distance`](crate::frechet_distance).
    Principal,
    /// The paper's `U s^(1/2) V^T`, as in [`frechet_distance_paper`](crate::frechet_distance_paper).
    SingularVectors,
}

/// Everything that a [`Protocol`] implies.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Settings {
    /// The network of the Fréchet distance, and what happens to the pixels before it; `None` for [`Protocol::Fad`].
    pub inception: Option<InceptionConfig>,
    /// The network of the kernel distance. In the paper it differs from that of the Fréchet distance, so that the two distances
    /// are not of the same features.
    pub kernel_inception: Option<InceptionConfig>,
    /// The root in the Fréchet distance.
    pub root: Root,
    /// The number of subsets of the kernel distance.
    pub kid_subsets: usize,
    /// The rows of a subset, if the smaller set has as many.
    pub kid_subset_size: usize,
    /// The number of neighbours `k` of precision, recall, density and coverage.
    pub neighbours: usize,
    /// Whether a sample on the surface of a ball counts.
    pub ball: Ball,
}

impl Protocol {
    /// All protocols.
    pub const ALL: [Self; 5] =
        [Self::Paper, Self::PytorchFid, Self::TorchFidelity, Self::CleanFid, Self::Fad];

    /// The name that stands beside a number: `paper`, `pytorch-fid`, `torch-fidelity`, `clean-fid` or `fad`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Paper => "paper",
            Self::PytorchFid => "pytorch-fid",
            Self::TorchFidelity => "torch-fidelity",
            Self::CleanFid => "clean-fid",
            Self::Fad => "fad",
        }
    }

    /// Spells out what the protocol implies, with features of `layer`; published numbers are of [`InceptionLayer::Pool2048`].
    ///
    /// What a package does not compute itself (pytorch-fid has no KID) is taken from torch-fidelity; precision, recall, density and coverage
    /// are those of the `prdc` package, with open balls, but for torch-fidelity, which has closed ones. The paper's kernel distance is torchmetrics' default:
    /// torch-fidelity's network and resizing, 100 subsets of 1,000.
    #[must_use]
    pub fn settings(self, layer: InceptionLayer) -> Settings {
        let (inception, kernel_inception) = self.networks(layer).unzip();
        let paper = self == Self::Paper;
        Settings {
            inception,
            kernel_inception,
            root: if paper { Root::SingularVectors } else { Root::Principal },
            kid_subsets: 100,
            kid_subset_size: 1000,
            neighbours: 3,
            ball: if self == Self::TorchFidelity { Ball::Closed } else { Ball::Open },
        }
    }

    /// The networks of the Fréchet and of the kernel distance.
    fn networks(self, layer: InceptionLayer) -> Option<(InceptionConfig, InceptionConfig)> {
        let fidelity = InceptionConfig::torch_fidelity(layer);
        let both = match self {
            Self::Paper => return Some((paper_inception(layer), fidelity)),
            Self::Fad => return None,
            Self::PytorchFid => InceptionConfig::pytorch_fid(layer),
            Self::TorchFidelity => fidelity,
            Self::CleanFid => InceptionConfig::clean_fid(layer),
        };
        Some((both, both))
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
