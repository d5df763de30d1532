//! Against a server on this machine.

use std::fs;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::time::Duration;

use sha2::{Digest, Sha256};
use spiking_diffusion_metrics::download::{Limits, fetch_within};

use crate::message;
use crate::server::{Manner, Server, nowhere};

/// A server of one file, and where it is to go.
struct Download {
    server: Server,
    url: String,
    _folder: tempfile::TempDir,
    target: PathBuf,
}

fn content() -> Vec<u8> {
    (0..100_000u32).flat_map(|i| i.wrapping_mul(2_654_435_761).to_le_bytes()).collect()
}

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn limits() -> Limits {
    Limits { stall: Duration::from_millis(300), attempts: 2, ..Limits::default() }
}

impl Download {
    fn new(manner: Manner) -> Self {
        let server = Server::start(manner, vec![("file".to_owned(), content())]);
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("deep/er/file");
        Self { url: format!("{}file", server.url), server, _folder: folder, target }
    }

    fn part(&self) -> PathBuf {
        self.target.with_extension("part")
    }

    /// Puts what an earlier call would have left.
    fn leave_part(&self, bytes: &[u8]) {
        fs::create_dir_all(self.target.parent().unwrap()).unwrap();
        fs::write(self.part(), bytes).unwrap();
    }

    fn fetch(&self, sha256: &str) -> spiking_diffusion_metrics::Result<PathBuf> {
        let mut seen = Vec::new();
        let fetched = fetch_within(&limits(), &self.url, sha256, &self.target, &mut |got, of| {
            seen.push((got, of));
            ControlFlow::Continue(())
        });
        if let (Ok(_), Some(last)) = (&fetched, seen.last()) {
            assert_eq!(*last, (content().len() as u64, Some(content().len() as u64)));
        }
        fetched
    }

    #[track_caller]
    fn assert_fetched(&self) {
        assert_eq!(self.fetch(&sha256(&content())).unwrap(), self.target);
        assert!(fs::read(&self.target).unwrap() == content() && !self.part().exists());
    }

    fn starts(&self) -> Vec<usize> {
        self.server.requests().into_iter().map(|(_, start)| start).collect()
    }
}

#[test]
fn a_file_is_loaded_once() {
    let download = Download::new(Manner::Good);
    download.assert_fetched();
    download.assert_fetched();
    assert_eq!(download.starts(), [0]);
}

#[test]
fn a_file_that_was_changed_is_loaded_again() {
    let download = Download::new(Manner::Good);
    download.assert_fetched();
    fs::write(&download.target, "changed").unwrap();
    download.assert_fetched();
    assert_eq!(download.starts(), [0, 0]);
}

#[test]
fn a_download_goes_on_where_it_was_cut_off() {
    for manner in [Manner::Truncated, Manner::Stalls] {
        let download = Download::new(manner);
        download.assert_fetched();
        let starts = download.starts();
        assert!(starts.len() > 3 && starts.is_sorted() && starts[1] > 0, "{starts:?}");
    }
}

#[test]
fn an_earlier_call_s_part_is_used() {
    let download = Download::new(Manner::Good);
    download.leave_part(&content()[..1234]);
    download.assert_fetched();
    assert_eq!(download.starts(), [1234]);
}

#[test]
fn a_whole_part_needs_no_server() {
    let download = Download::new(Manner::Status("500 Internal Server Error"));
    download.leave_part(&content());
    download.assert_fetched();
    assert!(download.starts().is_empty());
}

#[test]
fn another_file_s_part_is_thrown_away() {
    for (len, starts) in [(5000, vec![5000, 0]), (500_000, vec![500_000, 0])] {
        let download = Download::new(Manner::Good);
        download.leave_part(&vec![7; len]);
        download.assert_fetched();
        assert_eq!(download.starts(), starts);
    }
}

#[test]
fn a_server_without_ranges_starts_again() {
    let download = Download::new(Manner::WithoutRange);
    download.leave_part(&content()[..1234]);
    download.assert_fetched();
    assert_eq!(download.starts(), [1234]);
}

#[test]
fn a_server_that_never_ends_is_given_up() {
    let download = Download::new(Manner::StallsWithoutRange);
    let text = message(download.fetch(&sha256(&content())));
    assert!(text.starts_with(&download.url) && text.contains("timeout"), "{text}");
    assert!(!download.target.exists());
}

#[test]
fn another_content_is_refused_and_removed() {
    let download = Download::new(Manner::Good);
    let wanted = sha256(b"something else");
    let text = message(download.fetch(&wanted));
    assert!(text.contains(&sha256(&content())) && text.contains(&wanted), "{text}");
    assert!(!download.target.exists() && !download.part().exists());
}

#[test]
fn a_refusal_is_final_and_says_where_the_file_goes() {
    let download = Download::new(Manner::Status("404 Not Found"));
    let text = message(download.fetch(&sha256(&content())));
    assert!(text.contains("404 Not Found") && text.contains("deep/er/file"), "{text}");
    assert_eq!(download.starts().len(), 1);
    let download = Download::new(Manner::Status("503 Service Unavailable"));
    assert!(message(download.fetch(&sha256(&content()))).contains("503"));
    assert_eq!(download.starts().len(), 2);
}

#[test]
fn without_a_server_the_message_names_url_and_destination() {
    let mut download = Download::new(Manner::Good);
    download.url = nowhere() + "file";
    let text = message(download.fetch(&sha256(&content())));
    assert!(text.starts_with(&download.url) && text.contains("deep/er/file"), "{text}");
    assert!(message(download.fetch("12ab")).starts_with("`sha256` = 12ab: "));
}

#[test]
fn two_at_once_load_one_file() {
    let download = Download::new(Manner::Good);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| download.assert_fetched());
        }
    });
    assert_eq!(download.starts(), [0]);
}

#[test]
fn a_download_that_was_stopped_goes_on_later() {
    let download = Download::new(Manner::Good);
    let mut stop_at_once = |_, _| ControlFlow::Break(());
    let wanted = sha256(&content());
    let text = message(fetch_within(&limits(), &download.url, &wanted, &download.target, &mut stop_at_once));
    assert!(text.starts_with("stopped") && text.contains(&download.url), "{text}");
    let kept = fs::metadata(download.part()).unwrap().len() as usize;
    assert!(kept > 0 && !download.target.exists());
    download.assert_fetched();
    assert_eq!(download.starts(), if kept < content().len() { vec![0, kept] } else { vec![0] });
}
