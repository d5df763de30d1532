//! The numbers of a run.

use serde::{Deserialize, Serialize};

/// Holds the numbers of a run. Smaller is better but for `ssim` and the codebook's.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Metrics {
    /// Mean squared error of the test reconstructions, pixels in [-0.5, 0.5].
    pub mse: f64,
    /// Structural similarity of the test reconstructions, paper settings; the paper prints `1 - ssim`.
    pub ssim: f64,
    /// Eq. 14 on test codes, in bits per token: comparable only between runs on the same codes. Where the denoiser knows classes, an image's is
    /// told first, and its bits are counted. 0, on 0 images, where the model has no codes.
    pub bits_per_token: f64,
    /// Standard error of that estimate, without the classes' part.
    pub bits_per_token_standard_error: f64,
    /// Images it was estimated on.
    pub bits_per_token_images: usize,
    /// Codes that occur in the test images.
    pub codebook_used: usize,
    /// `exp(entropy)` of the codes of the test images.
    pub codebook_perplexity: f64,
    /// Distances of generated images to test images, if they were measured.
    #[serde(default)]
    pub distance: Option<Distance>,
    /// FAD of generated images, if it was measured.
    #[serde(default)]
    pub fad: Option<AutoencoderDistance>,
}

impl Metrics {
    /// Of a model that has no codes.
    pub(crate) fn without_codes(mse: f64, ssim: f64) -> Self {
        Self {
            mse,
            ssim,
            bits_per_token: 0.,
            bits_per_token_standard_error: 0.,
            bits_per_token_images: 0,
            codebook_used: 0,
            codebook_perplexity: 0.,
            distance: None,
            fad: None,
        }
    }

    /// Whether the model has codes.
    #[cfg(any(feature = "cli", feature = "report"))]
    pub(crate) fn has_codes(&self) -> bool {
        self.bits_per_token_images > 0
    }
}

/// Holds the Fréchet distances in the features of FSVAE's published autoencoder (FAD); smaller is better, and only distances of
/// equally many images can be compared.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AutoencoderDistance {
    /// Of generated images to all test images.
    pub fad: f64,
    /// Of the reconstructions of the first test images to the same.
    pub reconstruction_fad: f64,
    /// Generated images, rounded to 8 bits as in a PNG.
    pub generated_images: usize,
    /// Test images that were reconstructed: as many, or all that there are (0 in reports from before it was counted).
    #[serde(default)]
    pub reconstructed_images: usize,
    /// Network, batch size, and whose statistics of the test images.
    pub network: String,
}

/// Holds the distances of one run; smaller is better.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Distance {
    /// Fréchet distance between the features of generated and of test images; it is FID where [`extractor`](Self::extractor) is Inception.
    pub fid: f64,
    /// Kernel distance, mean over subsets.
    pub kid: f64,
    /// Its standard deviation over subsets.
    pub kid_std: f64,
    /// Fréchet distance of the same test images to their reconstructions: what the autoencoder alone costs. `None` in
    /// reports of older versions.
    #[serde(default)]
    pub reconstruction_fid: Option<f64>,
    /// Number of features.
    pub dims: usize,
    /// Test images, the first ones.
    pub real_images: usize,
    /// Generated images, rounded to 8 bits as in a PNG.
    pub generated_images: usize,
    /// Network, layer and preprocessing.
    pub extractor: String,
    /// Whose definitions.
    pub protocol: String,
    /// Seed of the subsets.
    pub seed: u64,
    /// What a reader should know.
    pub warnings: Vec<String>,
}
