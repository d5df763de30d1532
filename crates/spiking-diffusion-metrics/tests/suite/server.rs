//! A web server on this machine that serves files as badly as it is told to. The tests of `spiking-diffusion` use it too.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// What a server does with each request.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Manner {
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

/// Serves files at `url`; keeps the name and the first byte of each request.
pub(crate) struct Server {
    /// With a slash at its end.
    pub(crate) url: String,
    requests: Arc<Mutex<Vec<(String, usize)>>>,
}

impl Server {
    pub(crate) fn start(manner: Manner, files: Vec<(String, Vec<u8>)>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let (requests, files) = (Arc::new(Mutex::new(Vec::new())), Arc::new(files));
        let seen = Arc::clone(&requests);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                // A client that hangs up is part of the tests.
                let (seen, files) = (Arc::clone(&seen), Arc::clone(&files));
                std::thread::spawn(move || answer(stream.unwrap(), manner, &files, &seen));
            }
        });
        Self { url, requests }
    }

    pub(crate) fn requests(&self) -> Vec<(String, usize)> {
        self.requests.lock().unwrap().clone()
    }
}

/// The URL of a server that is not there.
pub(crate) fn nowhere() -> String {
    format!("http://{}/", TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap())
}

fn answer(
    mut stream: TcpStream,
    manner: Manner,
    files: &[(String, Vec<u8>)],
    seen: &Mutex<Vec<(String, usize)>>,
) -> Option<()> {
    let (name, start) = request(&stream);
    seen.lock().unwrap().push((name.clone(), start));
    let Some((_, all)) = files.iter().find(|(file, _)| *file == name) else {
        return send(&mut stream, "404 Not Found", "Content-Length: 0\r\n", &[]);
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

/// The file that is asked for, and from which byte on.
fn request(stream: &TcpStream) -> (String, usize) {
    let (mut name, mut start) = (String::new(), 0);
    for line in BufReader::new(stream).lines().map_while(Result::ok).take_while(|line| !line.is_empty()) {
        if let Some(path) = line.strip_prefix("GET /") {
            name = path.split(' ').next().unwrap().to_owned();
        }
        if let Some(range) = line.to_lowercase().strip_prefix("range: bytes=") {
            start = range.trim_end_matches('-').parse().unwrap();
        }
    }
    (name, start)
}

fn send(stream: &mut TcpStream, status: &str, headers: &str, body: &[u8]) -> Option<()> {
    write!(stream, "HTTP/1.1 {status}\r\n{headers}Connection: close\r\n\r\n").ok()?;
    stream.write_all(body).ok()
}
