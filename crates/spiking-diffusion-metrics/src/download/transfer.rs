//! One file over HTTP, in as many pieces as it takes.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::time::Duration;

use ureq::http::{Response, StatusCode, header};
use ureq::{Agent, Body};

use super::{Problem, Progress};
use crate::Error;

/// How much patience a download has with a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// The longest time to connect.
    pub connect: Duration,
    /// The longest silence of a server that is connected.
    pub stall: Duration,
    /// The number of failures in a row, none of which brought a byte, after which the download is given up.
    pub attempts: u32,
}

impl Default for Limits {
    /// 20 seconds to connect, 30 seconds of silence, and four attempts.
    fn default() -> Self {
        Self { connect: Duration::from_secs(20), stall: Duration::from_secs(30), attempts: 4 }
    }
}

pub(super) struct Transfer<'a> {
    pub(super) limits: &'a Limits,
    pub(super) url: &'a str,
    pub(super) part: &'a Path,
    pub(super) file: &'a mut File,
    pub(super) progress: Progress<'a>,
}

/// How an attempt ended that was not the end of the file.
enum Stop {
    /// It may go better the next time.
    Broken(String),
    Final(Problem),
}

impl<T: Into<Problem>> From<T> for Stop {
    fn from(problem: T) -> Self {
        Self::Final(problem.into())
    }
}

impl Transfer<'_> {
    /// Appends to the file until it is whole.
    pub(super) fn run(mut self) -> Result<(), Problem> {
        let limits = self.limits;
        let config = Agent::config_builder()
            .timeout_connect(Some(limits.connect))
            .timeout_recv_response(Some(limits.stall))
            .timeout_per_read(Some(limits.stall))
            .http_status_as_error(false);
        let agent: Agent = config.build().into();
        let (mut failures, mut longest) = (0, self.len()?);
        loop {
            let have = self.len()?;
            match self.attempt(&agent, have) {
                Ok(()) => return Ok(()),
                Err(Stop::Final(problem)) => return Err(problem),
                Err(Stop::Broken(message)) => {
                    // A server that does not continue files may bring the same bytes again and again.
                    let brought = self.len()?;
                    failures = if brought > longest { 0 } else { failures + 1 };
                    longest = longest.max(brought);
                    if failures >= limits.attempts {
                        return Err(Problem::Remote(message));
                    }
                    std::thread::sleep(Duration::from_millis(100) * failures);
                }
            }
        }
    }

    fn len(&mut self) -> Result<u64, Error> {
        self.file.seek(SeekFrom::End(0)).map_err(Error::io(self.part))
    }

    /// One request, for what is behind the first `have` bytes.
    fn attempt(&mut self, agent: &Agent, have: u64) -> Result<(), Stop> {
        let mut request = agent.get(self.url);
        if have > 0 {
            request = request.header(header::RANGE, format!("bytes={have}-"));
        }
        let response = request.call().map_err(|e| Stop::Broken(e.to_string()))?;
        let start = match response.status() {
            StatusCode::PARTIAL_CONTENT if range_start(&response) == Some(have) => have,
            StatusCode::OK => 0,
            // It does not go on from here: from the start, then.
            StatusCode::RANGE_NOT_SATISFIABLE | StatusCode::PARTIAL_CONTENT if have > 0 => {
                self.file.set_len(0).map_err(Error::io(self.part))?;
                return Err(Stop::Broken("the server does not continue its file".to_owned()));
            }
            status if status.is_server_error() => {
                return Err(Stop::Broken(format!("the server answers {status}")));
            }
            status => return Err(Problem::Remote(format!("the server answers {status}")).into()),
        };
        if start < have {
            self.file.set_len(start).map_err(Error::io(self.part))?;
        }
        self.receive(response, start)
    }

    fn receive(&mut self, response: Response<Body>, start: u64) -> Result<(), Stop> {
        let mut body = response.into_body();
        let total = body.content_length().map(|len| start + len);
        let (mut reader, mut at, mut buffer) = (body.as_reader(), start, vec![0; 1 << 16]);
        self.file.seek(SeekFrom::Start(start)).map_err(Error::io(self.part))?;
        loop {
            let len = reader.read(&mut buffer).map_err(|e| Stop::Broken(e.to_string()))?;
            if len == 0 {
                break;
            }
            self.file.write_all(&buffer[..len]).map_err(Error::io(self.part))?;
            at += len as u64;
            if (self.progress)(at, total).is_break() {
                return Err(Problem::Stopped.into());
            }
        }
        match total {
            Some(total) if at < total => Err(Stop::Broken(format!("{at} of {total} bytes arrived"))),
            _ => Ok(()),
        }
    }
}

/// First byte of a `Content-Range: bytes 5-9/10`.
fn range_start(response: &Response<Body>) -> Option<u64> {
    let range = response.headers().get(header::CONTENT_RANGE)?.to_str().ok()?;
    range.strip_prefix("bytes ")?.split('-').next()?.trim().parse().ok()
}
