#![doc = include_str!("../README.md")]

mod builder;
mod classifier;
mod error;
mod features;
mod frechet;
mod input;
mod kernel;
mod npz;
mod pixel;
mod ssim;
mod stats;

pub use builder::FeatureStatsBuilder;
pub use classifier::{
    ClassScore, Classifier, ClassifierCard, ClassifierConfig, Labelled, TrainingStep, score_samples,
};
pub use error::{Error, Result};
pub use features::{FeatureExtractor, Pixels, extract_batches};
pub use frechet::frechet_distance;
pub use kernel::{KernelDistance, SubsetPair, kernel_distance, random_subsets};
pub use pixel::{mean, mse};
pub use ssim::{Padding, SsimConfig, ssim};
pub use stats::FeatureStats;
