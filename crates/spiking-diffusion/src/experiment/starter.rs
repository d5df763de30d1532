//! How a training was started.

use crate::data::KnownSet;

/// Which of our programs a person started, so that reports name the same again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Starter {
    /// `cargo run --release --example mnist`, in the repository.
    Example,
    /// `spiking-diffusion train mnist`, installed.
    #[cfg_attr(not(feature = "cli"), allow(dead_code, reason = "that is the program"))]
    Program,
}

impl Starter {
    /// The words that train on a data set, on a GPU or on the CPU; flags go behind them.
    pub(crate) fn train(self, set: KnownSet, on_gpu: bool) -> String {
        let features = match on_gpu {
            false => "",
            true if cfg!(feature = "cudnn") => "--features cudnn ",
            true => "--features cuda ",
        };
        match self {
            Self::Example => format!("cargo run --release {features}--example {} --", Self::example(set)),
            Self::Program => format!("spiking-diffusion train {}", set.name()),
        }
    }

    /// Name of a data set's example.
    pub(crate) fn example(set: KnownSet) -> &'static str {
        match set {
            KnownSet::Mnist => "mnist",
            KnownSet::FashionMnist => "fashion_mnist",
            KnownSet::Kmnist => "kmnist",
            KnownSet::Letters => "letters",
            KnownSet::Cifar10 => "cifar10",
        }
    }
}
