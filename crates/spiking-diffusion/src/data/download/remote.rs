//! Where the official files are on the network, how long they are, and what they hash to.
//!
//! Lengths and SHA-256 are those that TensorFlow Datasets records (`tensorflow_datasets/url_checksums/{mnist,
//! fashion_mnist,kmnist,emnist,cifar10}.txt`). Those of MNIST, of Fashion-MNIST and of KMNIST without its training images
//! were also computed from files with the MD5 that torchvision records (`torchvision/datasets/mnist.py`).

use crate::data::known::KnownSet;

/// What a data set is on the network.
#[derive(Clone, Debug)]
pub(super) struct Remote {
    /// URL of the folder, with a slash at its end.
    pub(super) folder: String,
    pub(super) files: Vec<RemoteFile>,
    /// Where the files are archives: what is needed of them.
    pub(super) members: Vec<String>,
}

#[derive(Clone, Debug)]
pub(super) struct RemoteFile {
    pub(super) name: String,
    pub(super) bytes: u64,
    pub(super) sha256: String,
}

/// Length and SHA-256 of the files of a set, in the order of [`KnownSet::files`].
type Sums = [(u64, &'static str); 4];

const MNIST: Sums = [
    (9_912_422, "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609"),
    (28_881, "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c"),
    (1_648_877, "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6"),
    (4_542, "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6"),
];

const FASHION_MNIST: Sums = [
    (26_421_880, "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84"),
    (29_515, "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845"),
    (4_422_102, "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073"),
    (5_148, "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5"),
];

const KMNIST: Sums = [
    (18_165_135, "51467d22d8cc72929e2a028a0428f2086b092bb31cfb79c69cc0a90ce135fde4"),
    (29_497, "e38f9ebcd0f3ebcdec7fc8eabdcdaef93bb0df8ea12bee65224341c8183d8e17"),
    (3_041_136, "edd7a857845ad6bb1d0ba43fe7e794d164fe2dce499a1694695a792adfac43c5"),
    (5_120, "20bb9a0ef54c7db3efc55a92eef5582c109615df22683c380526788f98e42a1c"),
];

const LETTERS: (u64, &str) =
    (561_753_746, "fb9bb67e33772a9cc0b895e4ecf36d2cf35be8b709693c3564cea2a019fcda8e");

const CIFAR10: (u64, &str) =
    (170_052_171, "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd");

impl Remote {
    /// The files at [`KnownSet::source`].
    pub(super) fn official(set: KnownSet) -> Self {
        match set {
            KnownSet::Mnist => four_files(set, &MNIST),
            KnownSet::FashionMnist => four_files(set, &FASHION_MNIST),
            KnownSet::Kmnist => four_files(set, &KMNIST),
            KnownSet::Letters => archive(set, LETTERS, gzipped(set)),
            KnownSet::Cifar10 => archive(set, CIFAR10, set.files()),
        }
    }
}

fn four_files(set: KnownSet, sums: &Sums) -> Remote {
    let file = |(name, &(bytes, sha256)): (String, &(u64, &str))| remote_file(&name, bytes, sha256);
    let files = gzipped(set).into_iter().zip(sums).map(file).collect();
    Remote { folder: set.source().to_owned(), files, members: Vec::new() }
}

fn archive(set: KnownSet, (bytes, sha256): (u64, &str), members: Vec<String>) -> Remote {
    let (folder, name) = set.source().split_at(set.source().rfind('/').map_or(0, |slash| slash + 1));
    Remote { folder: folder.to_owned(), files: vec![remote_file(name, bytes, sha256)], members }
}

fn remote_file(name: &str, bytes: u64, sha256: &str) -> RemoteFile {
    RemoteFile { name: name.to_owned(), bytes, sha256: sha256.to_owned() }
}

fn gzipped(set: KnownSet) -> Vec<String> {
    set.files().into_iter().map(|file| file + ".gz").collect()
}
