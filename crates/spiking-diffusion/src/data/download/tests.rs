//! Against a server on this machine; the network is never asked.

use std::io::Write;
use std::time::Duration;

use flate2::Compression;
use flate2::write::GzEncoder;
use sha2::{Digest, Sha256};
use snn_core::Seed;

use super::*;
use crate::Silent;
use server::{Manner, Server, nowhere};

#[path = "../../../../spiking-diffusion-metrics/tests/suite/server.rs"]
#[allow(dead_code, reason = "some manners are of interest to the tests of `fetch` alone")]
mod server;

type Files = Vec<(String, Vec<u8>)>;

fn bytes(seed: u32, len: u32) -> Vec<u8> {
    (0..len).map(|i| (i.wrapping_add(seed).wrapping_mul(2_654_435_761) >> 24) as u8).collect()
}

fn named(names: &[&str]) -> Files {
    names.iter().zip(1..).map(|(name, i)| ((*name).to_owned(), bytes(i, 5000 * i))).collect()
}

fn tar_gz(files: &Files) -> Vec<u8> {
    let mut tar = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::fast()));
    for (name, content) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, Path::new("cifar-10-batches-bin").join(name), content.as_slice())
            .unwrap();
    }
    tar.into_inner().unwrap().finish().unwrap()
}

fn zip(files: &Files) -> Vec<u8> {
    let mut zip = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    for (name, content) in files {
        zip.start_file(format!("gzip/{name}"), zip::write::SimpleFileOptions::default()).unwrap();
        zip.write_all(content).unwrap();
    }
    zip.finish().unwrap().into_inner()
}

/// A store whose files are those of a server, and what that saw.
struct Place {
    server: Server,
    store: Store,
    _folder: tempfile::TempDir,
}

impl Place {
    fn new(manner: Manner, files: Files, members: &[&str]) -> Self {
        let remote_file = |(name, content): &(String, Vec<u8>)| RemoteFile {
            name: name.clone(),
            bytes: content.len() as u64,
            sha256: Sha256::digest(content).iter().map(|byte| format!("{byte:02x}")).collect(),
        };
        let remote_files = files.iter().map(remote_file).collect();
        let server = Server::start(manner, files);
        let remote = Remote {
            folder: server.url.clone(),
            files: remote_files,
            members: members.iter().map(|&name| name.to_owned()).collect(),
        };
        Self::of(server, remote)
    }

    fn of(server: Server, remote: Remote) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let limits = Limits { stall: Duration::from_millis(300), attempts: 2, ..Limits::default() };
        Self { server, store: Store { remote, folder: folder.path().join("a/set"), limits }, _folder: folder }
    }

    fn read(&self, name: &str) -> Option<Vec<u8>> {
        fs::read(self.store.folder.join(name)).ok()
    }

    #[track_caller]
    fn assert_filled(&self, files: &Files) {
        self.store.fill(&mut Silent).unwrap();
        assert!(files.iter().all(|(name, content)| self.read(name).as_ref() == Some(content)));
        assert_eq!(self.leftovers(), Vec::<String>::new());
    }

    /// Parts of downloads and of files.
    fn leftovers(&self) -> Vec<String> {
        let names = fs::read_dir(&self.store.folder).unwrap();
        let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name.ends_with(".part") || name.ends_with(".tmp")).collect()
    }

    /// What is said when this set cannot be filled.
    #[track_caller]
    fn failure(&self, set: KnownSet) -> String {
        set.explain(self.store.fill(&mut Silent).unwrap_err()).to_string()
    }
}

#[track_caller]
fn assert_says(text: &str, parts: &[&str]) {
    assert!(parts.iter().all(|part| text.contains(part)), "{text:?} lacks one of {parts:?}");
}

/// Keeps what it hears, and may ask to stop.
#[derive(Default)]
struct Listener {
    stages: Vec<(String, usize)>,
    done: usize,
    ended: usize,
    messages: Vec<String>,
    stop: bool,
}

impl Progress for Listener {
    fn begin(&mut self, stage: &str, total: usize, _: usize) {
        self.stages.push((stage.to_owned(), total));
    }

    fn advance(&mut self, done: usize, _: Option<f64>) {
        self.done = done;
    }

    fn end(&mut self) {
        self.ended += 1;
    }

    fn message(&mut self, text: &str) {
        self.messages.push(text.to_owned());
    }

    fn stop_requested(&self) -> bool {
        self.stop
    }
}

#[test]
fn files_are_loaded_once_and_said_to_be() {
    let files = named(&["images.gz", "labels.gz"]);
    let place = Place::new(Manner::Good, files.clone(), &[]);
    let mut listener = Listener::default();
    place.store.fill(&mut listener).unwrap();
    let stages = [("images.gz, kB".to_owned(), 5), ("labels.gz, kB".to_owned(), 10)];
    assert_eq!((&listener.stages[..], listener.done, listener.ended), (&stages[..], 10, 2));
    assert_says(&listener.messages.concat(), &[&place.server.url, "images.gz", "labels.gz", "a/set"]);
    place.assert_filled(&files);
    assert_eq!(place.server.requests(), [("images.gz".to_owned(), 0), ("labels.gz".to_owned(), 0)]);
}

#[test]
fn what_is_there_unpacked_is_not_loaded() {
    let place = Place::new(Manner::Good, named(&["images.gz", "labels.gz"]), &[]);
    fs::create_dir_all(&place.store.folder).unwrap();
    fs::write(place.store.folder.join("images"), "as the Hugging Face hub has it").unwrap();
    place.store.fill(&mut Silent).unwrap();
    assert_eq!(place.server.requests(), [("labels.gz".to_owned(), 0)]);
}

#[test]
fn what_was_cut_off_goes_on() {
    for manner in [Manner::Truncated, Manner::Stalls] {
        let files = named(&["images.gz"]);
        let place = Place::new(manner, files.clone(), &[]);
        place.assert_filled(&files);
        let requests = place.server.requests();
        assert!(requests.len() > 2 && requests[1].1 > 0, "{requests:?}");
    }
}

#[test]
fn a_stop_is_heard_and_the_next_time_goes_on() {
    let files = named(&["images.gz"]);
    let place = Place::new(Manner::Good, files.clone(), &[]);
    let error = place.store.fill(&mut Listener { stop: true, ..Listener::default() }).unwrap_err();
    assert!(
        matches!(&error, Error::Training(snn_train::Error::Stopped { stage, total: 5, .. }) if stage == "images.gz, kB"),
        "{error}"
    );
    assert_eq!(place.leftovers(), ["images.gz.part"]);
    place.assert_filled(&files);
}

#[test]
fn another_file_is_refused() {
    let mut place = Place::new(Manner::Good, named(&["images.gz"]), &[]);
    place.store.remote.files[0].sha256 = "00".repeat(32);
    let text = place.failure(KnownSet::Kmnist);
    assert_says(
        &text,
        &["kmnist: http://127.0.0.1", "images.gz", "SHA-256", "t10k-labels-idx1", "--data-dir"],
    );
    assert!(place.read("images.gz").is_none() && place.leftovers().is_empty());
}

#[test]
fn without_a_network_it_says_what_to_put_where() {
    for set in KnownSet::ALL {
        let mut place = Place::of(Server::start(Manner::Good, Vec::new()), Remote::official(set));
        place.store.remote.folder = nowhere();
        let file = &place.store.remote.files[0].name;
        let wanted = [set.name(), &place.store.remote.folder, file, "a/set", set.source(), "--data-dir"];
        assert_says(&place.failure(set), &wanted);
        assert_says(&place.failure(set), &set.files().iter().map(String::as_str).collect::<Vec<_>>());
    }
    let refused = Place::new(Manner::Status("403 Forbidden"), named(&["images.gz"]), &[]);
    assert_says(&refused.failure(KnownSet::Mnist), &["403 Forbidden", "put train-images-idx3-ubyte"]);
}

#[test]
fn of_an_archive_only_the_members_are_kept() {
    let inside = named(&["other.bin", "a.bin", "b.bin"]);
    for (name, archive) in [("x.zip", zip(&inside)), ("x.tar.gz", tar_gz(&inside))] {
        let place = Place::new(Manner::Good, vec![(name.to_owned(), archive)], &["b.bin", "a.bin"]);
        place.assert_filled(&inside[1..].to_vec());
        assert!(place.read("other.bin").is_none() && place.read(name).is_none());
        place.assert_filled(&inside[1..].to_vec());
        assert_eq!(place.server.requests().len(), 1);
        fs::remove_file(place.store.folder.join("a.bin")).unwrap();
        place.assert_filled(&inside[1..].to_vec());
        assert_eq!(place.server.requests().len(), 2);
    }
}

#[test]
fn an_archive_without_a_member_is_named() {
    let inside = named(&["a.bin"]);
    for (name, archive) in [("x.zip", zip(&inside)), ("x.tar.gz", tar_gz(&inside))] {
        let place = Place::new(Manner::Good, vec![(name.to_owned(), archive)], &["a.bin", "b.bin"]);
        assert_says(&place.failure(KnownSet::Cifar10), &[name, "holds no `b.bin`"]);
        let place = Place::new(Manner::Good, vec![(name.to_owned(), bytes(1, 5000))], &["a.bin"]);
        assert_says(&place.failure(KnownSet::Cifar10), &[name, "is damaged"]);
        assert!(place.read("a.bin").is_none());
    }
}

#[test]
fn two_at_once_load_one_archive() {
    let inside = named(&["a.bin", "b.bin"]);
    let place = Place::new(Manner::Good, vec![("x.zip".to_owned(), zip(&inside))], &["a.bin", "b.bin"]);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| place.assert_filled(&inside));
        }
    });
    assert_eq!(place.server.requests().len(), 1);
}

/// CIFAR-10 of one image a batch.
fn little_cifar() -> Files {
    let record = |label: u8| [vec![label], bytes(label.into(), 3072)].concat();
    KnownSet::Cifar10.files().into_iter().zip(0..).map(|(name, label)| (name, record(label))).collect()
}

#[test]
fn a_folder_with_files_comes_before_the_cache() {
    let partial = Partial::Allow(Seed(0));
    let named = tempfile::tempdir().unwrap();
    let archive = vec![("c.tar.gz".to_owned(), tar_gz(&little_cifar()))];
    let members = KnownSet::Cifar10.files();
    let members: Vec<&str> = members.iter().map(String::as_str).collect();
    let place = Place::new(Manner::Good, archive, &members);
    let load = |folder: Option<&Path>| {
        let download = || place.store.fill(&mut Silent).map(|()| place.store.folder.clone());
        KnownSet::Cifar10.load_or(folder, partial, download)
    };
    let own = named.path().join("cifar-10");
    fs::create_dir(&own).unwrap();
    fs::write(own.join("test_batch.bin"), bytes(1, 10)).unwrap();
    assert_says(&load(Some(named.path())).unwrap_err().to_string(), &["test_batch.bin: has 10 bytes"]);
    assert!(place.server.requests().is_empty());

    fs::remove_file(own.join("test_batch.bin")).unwrap();
    for folder in [Some(named.path()), None] {
        let data = load(folder).unwrap();
        assert_eq!((data.train.len(), data.test.len(), data.test.labels()), (5, 1, &[5][..]));
        assert!(!data.synthetic && data.name == "cifar-10");
    }
    assert_eq!(place.server.requests().len(), 1);
}

#[test]
fn the_official_files_are_those_that_are_read() {
    for set in KnownSet::ALL {
        let remote = Remote::official(set);
        assert!(remote.folder.starts_with("http") && remote.folder.ends_with('/'));
        let archive = if remote.members.is_empty() { "" } else { &remote.files[0].name };
        assert_eq!(set.source(), format!("{}{archive}", remote.folder));
        let kept: Vec<String> = if remote.members.is_empty() {
            remote.files.iter().map(|file| file.name.clone()).collect()
        } else {
            assert_eq!(remote.files.len(), 1);
            remote.members.clone()
        };
        let kept: Vec<String> = kept.iter().map(|name| name.trim_end_matches(".gz").to_owned()).collect();
        assert_eq!(kept, set.files());
        for file in &remote.files {
            assert!(file.sha256.len() == 64 && file.sha256.bytes().all(|b| b.is_ascii_hexdigit()));
        }
    }
}

#[test]
fn the_real_files_have_the_recorded_sums() {
    let root = std::env::var_os("SPIKING_DATA_DIR").map(PathBuf::from).unwrap_or_default();
    for set in [KnownSet::Mnist, KnownSet::FashionMnist, KnownSet::Kmnist] {
        let official = Remote::official(set);
        let read = |file: &RemoteFile| fs::read(root.join(set.name()).join(&file.name)).ok();
        let real = |file: &RemoteFile| Some((file.name.clone(), read(file)?));
        let files: Files = official.files.iter().filter_map(real).collect();
        if files.is_empty() {
            eprintln!("skipped: SPIKING_DATA_DIR does not name a folder with {}", set.name());
            continue;
        }
        let there = |file: &RemoteFile| files.iter().any(|(name, _)| *name == file.name);
        let chosen: Vec<RemoteFile> = official.files.iter().filter(|file| there(file)).cloned().collect();
        let lengths = files.iter().map(|(_, content)| content.len() as u64);
        assert!(chosen.iter().map(|file| file.bytes).eq(lengths));
        let server = Server::start(Manner::Good, files.clone());
        let remote = Remote { folder: server.url.clone(), files: chosen, ..official };
        let place = Place::of(server, remote);
        place.assert_filled(&files);
        if files.len() == 4 {
            let data = set.load(Some(&place.store.folder), Partial::Reject).unwrap();
            assert_eq!((data.train.len(), data.test.len()), set.counts());
        }
    }
}
