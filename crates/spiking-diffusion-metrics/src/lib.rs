#![doc = include_str!("../README.md")]

mod builder;
mod classifier;
#[cfg(feature = "download")]
pub mod download;
mod error;
mod fad;
mod features;
mod frechet;
mod inception;
mod inception_score;
mod input;
mod kernel;
mod manifold;
mod npy;
mod npz;
mod pixel;
mod protocol;
mod report;
mod resize;
mod source;
mod spread;
mod ssim;
mod stats;
mod weights;

pub use builder::FeatureStatsBuilder;
pub use classifier::{ClassScore, Classifier, ClassifierCard, ClassifierConfig, Labelled, score_samples};
pub use error::{Error, Result};
pub use fad::{FAD_BATCH, Fad, resize_bytes};
pub use features::{FeatureExtractor, Pixels, extract_batches};
pub use frechet::{frechet_distance, frechet_distance_of_features, frechet_distance_paper};
pub use inception::{
    Inception, InceptionConfig, InceptionLayer, InceptionVariant, InceptionWeights, PixelScaling,
};
pub use inception_score::{InceptionScore, inception_score};
pub use kernel::{KernelDistance, SubsetPair, kernel_distance, random_subsets};
pub use manifold::{Ball, Prdc, prdc};
pub use pixel::{mean, mse, psnr};
pub use protocol::{Protocol, Root, Settings};
pub use report::{Evaluation, EvaluationOptions, evaluate, evaluate_stats};
pub use resize::{Resize, resize};
#[cfg(feature = "images")]
pub use source::ImageFolder;
pub use source::{ImageSource, TensorFile, one_channel};
pub use ssim::{Padding, SsimConfig, Window, ssim};
pub use stats::FeatureStats;
pub use weights::WeightFile;

/// Trains the [`Classifier`], and shows its progress.
pub use snn_train;
