//! The five data sets of the paper's Table 1: their names, sizes and official files.

pub(super) const CIFAR_TRAIN: [&str; 5] =
    ["data_batch_1.bin", "data_batch_2.bin", "data_batch_3.bin", "data_batch_4.bin", "data_batch_5.bin"];
pub(super) const CIFAR_TEST: [&str; 1] = ["test_batch.bin"];

/// A data set that is known by name, with official files; its images in memory are a [`Dataset`](super::Dataset).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum KnownSet {
    /// MNIST: digits, 28x28.
    Mnist,
    /// Fashion-MNIST: clothes, 28x28.
    FashionMnist,
    /// KMNIST: cursive Japanese, 28x28.
    Kmnist,
    /// EMNIST Letters, upright, 28x28; label 0 is A (1 in the files), 25 is Z.
    Letters,
    /// CIFAR-10, RGB, 32x32.
    Cifar10,
}

impl KnownSet {
    /// All known sets.
    pub const ALL: [Self; 5] = [Self::Mnist, Self::FashionMnist, Self::Kmnist, Self::Letters, Self::Cifar10];

    /// Returns the official numbers of training and test images.
    #[must_use]
    pub fn counts(self) -> (usize, usize) {
        let [(_, train), (_, test)] = self.splits();
        (train, test)
    }

    /// Returns the name that the set has in reports, which is also that of its folder.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Mnist => "mnist",
            Self::FashionMnist => "fashion-mnist",
            Self::Kmnist => "kmnist",
            Self::Letters => "emnist-letters",
            Self::Cifar10 => "cifar-10",
        }
    }

    /// Finds the set of this [name](Self::name).
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|set| set.name() == name)
    }

    /// Returns the URL of the official files: of the archive that holds them, or, with a slash at its end, of their folder. MNIST's is a
    /// mirror, because its own server no longer serves everybody. The feature `download` takes them from there.
    #[must_use]
    pub fn source(self) -> &'static str {
        match self {
            Self::Mnist => "https://storage.googleapis.com/cvdf-datasets/mnist/",
            Self::FashionMnist => "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
            Self::Kmnist => "http://codh.rois.ac.jp/kmnist/dataset/kmnist/",
            Self::Letters => "https://biometrics.nist.gov/cs_links/EMNIST/gzip.zip",
            Self::Cifar10 => "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
        }
    }

    /// Lists the official files, without `.gz`.
    #[must_use]
    pub fn files(self) -> Vec<String> {
        if self == Self::Cifar10 {
            return CIFAR_TRAIN.iter().chain(&CIFAR_TEST).map(|&name| name.to_owned()).collect();
        }
        let kinds = ["images-idx3-ubyte", "labels-idx1-ubyte"];
        let prefixes = self.splits().into_iter();
        prefixes.flat_map(|(prefix, _)| kinds.map(|kind| format!("{prefix}-{kind}"))).collect()
    }

    /// Prefix (or name) and official number of images of the training and the test split.
    pub(super) fn splits(self) -> [(&'static str, usize); 2] {
        match self {
            Self::Letters => [("emnist-letters-train", 124_800), ("emnist-letters-test", 20_800)],
            Self::Cifar10 => [("train", 50_000), ("test", 10_000)],
            Self::Mnist | Self::FashionMnist | Self::Kmnist => [("train", 60_000), ("t10k", 10_000)],
        }
    }
}
