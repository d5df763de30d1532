//! Against a server on this machine.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use sha2::{Digest, Sha256};
use spiking_diffusion_metrics::download::{Limits, fetch_within};

use crate::message;

/// What a server does with each request.
#[derive(Clone, Copy, PartialEq)]
enum Manner {
    Good,
    /// Always sends the whole file.
    WithoutRange,
    /// Hangs up in the middle of what is left.
    Truncated,
    /// Sends the first half of what is left and is silent then.
    Stalls,
    /// Sends the first half of what is left and is silent, without knowing ranges.
    StallsWithoutRange,
    Status(&'static str),
}

/// Serves `content` at `url`; keeps the first byte of each request.
struct Server {
    url: String,
    starts: Arc<Mutex<Vec<usize>>>,
    _folder: tempfile::TempDir,
    target: PathBuf,
}

fn content() -> Vec<u8> {
    (0..100_000u32).flat_map(|i| i.wrapping_mul(2_654_435_761).to_le_bytes()).collect()
}

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

impl Server {
    fn start(manner: Manner) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/file", listener.local_addr().unwrap());
        let starts = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&starts);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                // A client that hangs up is part of the tests.
                let seen = Arc::clone(&seen);
                std::thread::spawn(move || answer(stream.unwrap(), manner, &seen));
            }
        });
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("deep/er/file");
        Self { url, starts, _folder: folder, target }
    }

    fn part(&self) -> PathBuf {
        self.target.with_extension("part")
    }

    fn fetch(&self, sha256: &str) -> spiking_diffusion_metrics::Result<PathBuf> {
        let limits = Limits { stall: Duration::from_millis(300), attempts: 2, ..Limits::default() };
        let mut seen = Vec::new();
        let fetched =
            fetch_within(&limits, &self.url, sha256, &self.target, &mut |got, of| seen.push((got, of)));
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
        self.starts.lock().unwrap().clone()
    }
}

fn answer(stream: TcpStream, manner: Manner, seen: &Mutex<Vec<usize>>) -> Option<()> {
    let mut start = 0;
    for line in BufReader::new(&stream).lines().map_while(Result::ok).take_while(|line| !line.is_empty()) {
        if let Some(range) = line.to_lowercase().strip_prefix("range: bytes=") {
            start = range.trim_end_matches('-').parse().unwrap();
        }
    }
    seen.lock().unwrap().push(start);
    let (all, mut stream) = (content(), stream);
    let send = |stream: &mut TcpStream, status: &str, headers: &str, body: &[u8]| {
        write!(stream, "HTTP/1.1 {status}\r\n{headers}Connection: close\r\n\r\n").ok()?;
        stream.write_all(body).ok()
    };
    if let Manner::Status(status) = manner {
        return send(&mut stream, status, "Content-Length: 0\r\n", &[]);
    }
    let ranged = !matches!(manner, Manner::WithoutRange | Manner::StallsWithoutRange);
    let start = if ranged { start } else { 0 };
    if start >= all.len() {
        return send(&mut stream, "416 Range Not Satisfiable", "Content-Length: 0\r\n", &[]);
    }
    let rest = &all[start..];
    let mut headers = format!("Content-Length: {}\r\n", rest.len());
    if start > 0 {
        headers += &format!("Content-Range: bytes {start}-{}/{}\r\n", all.len() - 1, all.len());
    }
    let whole = matches!(manner, Manner::Good | Manner::WithoutRange) || rest.len() < 1000;
    let sent = if whole { rest } else { &rest[..rest.len() / 2] };
    send(&mut stream, if start > 0 { "206 Partial Content" } else { "200 OK" }, &headers, sent)?;
    if !whole && manner != Manner::Truncated {
        std::thread::sleep(Duration::from_secs(3));
    }
    Some(())
}

#[test]
fn a_file_is_loaded_once() {
    let server = Server::start(Manner::Good);
    server.assert_fetched();
    server.assert_fetched();
    assert_eq!(server.starts(), [0]);
}

#[test]
fn a_file_that_was_changed_is_loaded_again() {
    let server = Server::start(Manner::Good);
    server.assert_fetched();
    fs::write(&server.target, "changed").unwrap();
    server.assert_fetched();
    assert_eq!(server.starts(), [0, 0]);
}

#[test]
fn a_download_goes_on_where_it_was_cut_off() {
    for manner in [Manner::Truncated, Manner::Stalls] {
        let server = Server::start(manner);
        server.assert_fetched();
        let starts = server.starts();
        assert!(starts.len() > 3 && starts.is_sorted() && starts[1] > 0, "{starts:?}");
    }
}

#[test]
fn an_earlier_call_s_part_is_used() {
    let server = Server::start(Manner::Good);
    fs::create_dir_all(server.target.parent().unwrap()).unwrap();
    fs::write(server.part(), &content()[..1234]).unwrap();
    server.assert_fetched();
    assert_eq!(server.starts(), [1234]);
}

#[test]
fn a_whole_part_needs_no_server() {
    let server = Server::start(Manner::Status("500 Internal Server Error"));
    fs::create_dir_all(server.target.parent().unwrap()).unwrap();
    fs::write(server.part(), content()).unwrap();
    server.assert_fetched();
    assert!(server.starts().is_empty());
}

#[test]
fn another_file_s_part_is_thrown_away() {
    for (len, starts) in [(5000, vec![5000, 0]), (500_000, vec![500_000, 0])] {
        let server = Server::start(Manner::Good);
        fs::create_dir_all(server.target.parent().unwrap()).unwrap();
        fs::write(server.part(), vec![7; len]).unwrap();
        server.assert_fetched();
        assert_eq!(server.starts(), starts);
    }
}

#[test]
fn a_server_without_ranges_starts_again() {
    let server = Server::start(Manner::WithoutRange);
    fs::create_dir_all(server.target.parent().unwrap()).unwrap();
    fs::write(server.part(), &content()[..1234]).unwrap();
    server.assert_fetched();
    assert_eq!(server.starts(), [1234]);
}

#[test]
fn a_server_that_never_ends_is_given_up() {
    let server = Server::start(Manner::StallsWithoutRange);
    let text = message(server.fetch(&sha256(&content())));
    assert!(text.starts_with(&server.url) && text.contains("timeout"), "{text}");
    assert!(!server.target.exists());
}

#[test]
fn another_content_is_refused_and_removed() {
    let server = Server::start(Manner::Good);
    let wanted = sha256(b"something else");
    let text = message(server.fetch(&wanted));
    assert!(text.contains(&sha256(&content())) && text.contains(&wanted), "{text}");
    assert!(!server.target.exists() && !server.part().exists());
}

#[test]
fn a_refusal_is_final_and_says_where_the_file_goes() {
    let server = Server::start(Manner::Status("404 Not Found"));
    let text = message(server.fetch(&sha256(&content())));
    assert!(text.contains("404 Not Found") && text.contains("deep/er/file"), "{text}");
    assert_eq!(server.starts().len(), 1);
    let server = Server::start(Manner::Status("503 Service Unavailable"));
    assert!(message(server.fetch(&sha256(&content()))).contains("503"));
    assert_eq!(server.starts().len(), 2);
}

#[test]
fn without_a_server_the_message_names_url_and_destination() {
    let mut server = Server::start(Manner::Good);
    let unused = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    server.url = format!("http://{unused}/file");
    let text = message(server.fetch(&sha256(&content())));
    assert!(text.starts_with(&server.url) && text.contains("deep/er/file"), "{text}");
    assert!(message(server.fetch("12ab")).starts_with("`sha256` = 12ab: "));
}

#[test]
fn two_at_once_load_one_file() {
    let server = Server::start(Manner::Good);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| server.assert_fetched());
        }
    });
    assert_eq!(server.starts(), [0]);
}
