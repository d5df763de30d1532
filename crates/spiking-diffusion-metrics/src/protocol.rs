//! What a published number was measured with.

use serde::{Deserialize, Serialize};

use crate::Resize;

/// A way of measuring that other people's numbers were made with; [`Protocol::settings`] spells it out.
///
/// Numbers of different protocols cannot be compared.
///
/// # Examples
/// ```
/// use spiking_diffusion_metrics::{Protocol, Resize};
///
/// let settings = Protocol::CleanFid.settings();
/// assert_eq!((settings.resize, settings.dims), (Resize::Bicubic, 2048));
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

/// Which Inception v3, and what it is fed with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Network {
    /// The TensorFlow network of 2015-12-05 with the pooling quirks of its graph; pixels in `[-1, 1]`: `2 x - 1`
    /// of `x` in `[0, 1]`.
    Fid,
    /// The same network; pixels `(v - 128) / 128` of `v` in `0..=255`.
    FidBytes,
    /// torchvision's ImageNet network; `2 x - 1`, and then torchvision's own ImageNet normalisation on top.
    TorchvisionDoublyNormalised,
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
    /// How images are resized for the Fréchet distance.
    pub resize: Resize,
    /// How images are resized for the kernel distance.
    pub kernel_resize: Resize,
    /// Network of the Fréchet distance.
    pub network: Network,
    /// Network of the kernel distance; another one than `network` in the paper only.
    pub kernel_network: Network,
    /// Number of features of the default layer.
    pub dims: usize,
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
}

impl Protocol {
    /// All protocols.
    pub const ALL: [Self; 4] = [Self::Paper, Self::PytorchFid, Self::TorchFidelity, Self::CleanFid];

    /// The name that stands beside a number: `paper`, `pytorch-fid`, `torch-fidelity` or `clean-fid`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Paper => "paper",
            Self::PytorchFid => "pytorch-fid",
            Self::TorchFidelity => "torch-fidelity",
            Self::CleanFid => "clean-fid",
        }
    }

    /// What the protocol implies.
    ///
    /// What a package does not compute itself (pytorch-fid has no KID) is torch-fidelity's. The paper's kernel
    /// distance is torchmetrics' default: torch-fidelity's network and resizing, 100 subsets of 1,000.
    pub fn settings(self) -> Settings {
        let usual = Settings {
            resize: Resize::Bilinear,
            kernel_resize: Resize::Bilinear,
            network: Network::Fid,
            kernel_network: Network::Fid,
            dims: 2048,
            ddof: 1,
            root: Root::Principal,
            kid_subsets: 100,
            kid_subset_size: 1000,
            inception_splits: 10,
            neighbours: 3,
        };
        match self {
            Self::PytorchFid => usual,
            Self::TorchFidelity => Settings {
                resize: Resize::BilinearCorner,
                kernel_resize: Resize::BilinearCorner,
                network: Network::FidBytes,
                kernel_network: Network::FidBytes,
                ..usual
            },
            Self::CleanFid => Settings {
                resize: Resize::Bicubic,
                kernel_resize: Resize::Bicubic,
                network: Network::FidBytes,
                kernel_network: Network::FidBytes,
                ..usual
            },
            Self::Paper => Settings {
                network: Network::TorchvisionDoublyNormalised,
                kernel_network: Network::FidBytes,
                kernel_resize: Resize::BilinearCorner,
                root: Root::SingularVectors,
                inception_splits: 4,
                ..usual
            },
        }
    }
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
