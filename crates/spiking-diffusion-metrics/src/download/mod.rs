//! Files from the network, into the user's cache.

mod transfer;

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

pub use transfer::Limits;
use transfer::Transfer;

use snn_train::Lock;

use crate::{Error, Result};

/// Follows a download: a function that is called with the number of bytes so far, and of all bytes if the server says it.
/// `Break` stops the download; a later one goes on from there.
pub type Progress<'a> = &'a mut dyn FnMut(u64, Option<u64>) -> ControlFlow<()>;

/// The folder in which downloads are kept: this project's in the user's cache (`$XDG_CACHE_HOME`, `~/Library/Caches`,
/// `%LOCALAPPDATA%`).
///
/// # Errors
/// Returns an error if the system names no such folder.
///
/// # Examples
/// ```
/// assert!(spiking_diffusion_metrics::download::cache_dir()?.ends_with("spiking-diffusion"));
/// # Ok::<(), spiking_diffusion_metrics::Error>(())
/// ```
pub fn cache_dir() -> Result<PathBuf> {
    let cache = dirs::cache_dir();
    let cache = cache.ok_or_else(|| Error::config("destination", "", "this user has no cache folder"))?;
    Ok(cache.join("spiking-diffusion"))
}

/// Gets a file whose SHA-256 is `sha256`, and returns its path: the file at `destination` if it is that file already, or else
/// one loaded from `url`.
///
/// A relative `destination` lies in [`cache_dir`]. What arrives goes to `destination` with `.part` appended. A
/// download that was cut off, in this call or an earlier one, goes on where it stopped if the server can do that
/// (HTTP `Range`). The file is renamed when its checksum is right and removed when it is wrong, so that there is never half a
/// file under `destination`. If two processes ask for the same file, one of them waits for the other.
///
/// # Errors
/// Returns an error if `sha256` is not 64 hexadecimal digits; if the server cannot be reached, refuses, stalls or breaks
/// off too often ([`Limits`]); if the content has another checksum; if `progress` stops it; or if a file cannot be written.
///
/// # Examples
/// ```no_run
/// use std::{ops::ControlFlow, path::Path};
///
/// use spiking_diffusion_metrics::download::fetch;
///
/// let sha256 = "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609";
/// let url = "https://example.org/train-images-idx3-ubyte.gz";
/// let path = fetch(url, sha256, Path::new("mnist/train-images-idx3-ubyte.gz"), &mut |got, of| {
///     eprintln!("{got} of {of:?} bytes");
///     ControlFlow::Continue(())
/// })?;
/// # Ok::<(), spiking_diffusion_metrics::Error>(())
/// ```
pub fn fetch(url: &str, sha256: &str, destination: &Path, progress: Progress<'_>) -> Result<PathBuf> {
    fetch_within(&Limits::default(), url, sha256, destination, progress)
}

/// [`fetch`] with more or less patience with the server.
///
/// # Errors
/// Returns the errors of [`fetch`].
///
/// # Examples
/// ```
/// use std::{ops::ControlFlow, path::Path, time::Duration};
///
/// use spiking_diffusion_metrics::download::{Limits, fetch_within};
///
/// let limits = Limits { stall: Duration::from_secs(1), attempts: 1, ..Limits::default() };
/// let sha256 = "00".repeat(32);
/// let destination = std::env::temp_dir().join("never");
/// let mut silent = |_, _| ControlFlow::Continue(());
/// let error = fetch_within(&limits, "http://127.0.0.1:9/x", &sha256, &destination, &mut silent).unwrap_err();
/// assert!(error.to_string().starts_with("http://127.0.0.1:9/x: "));
/// ```
pub fn fetch_within(
    limits: &Limits,
    url: &str,
    sha256: &str,
    destination: &Path,
    progress: Progress<'_>,
) -> Result<PathBuf> {
    if sha256.len() != 64 || !sha256.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Err(Error::config("sha256", sha256, "must be 64 hexadecimal digits"));
    }
    let target =
        if destination.is_absolute() { destination.to_owned() } else { cache_dir()?.join(destination) };
    if is_there(&target, sha256)? {
        return Ok(target);
    }
    let part = beside(&target, ".part");
    if let Some(folder) = target.parent() {
        fs::create_dir_all(folder).map_err(Error::io(folder))?;
    }
    let lock = beside(&target, ".lock");
    let held = Lock::wait(&lock).map_err(Error::io(&lock))?;
    // Whoever held the lock may have brought it.
    if !is_there(&target, sha256)? {
        load(limits, url, sha256, &part, progress).map_err(|problem| problem.explain(url, &target))?;
        fs::rename(&part, &target).map_err(Error::io(&target))?;
    }
    drop(held);
    Ok(target)
}

/// What went wrong on the way to a `.part` file.
enum Problem {
    Local(Error),
    Remote(String),
    /// The caller asked for it.
    Stopped,
}

impl Problem {
    fn explain(self, url: &str, target: &Path) -> Error {
        match self {
            Self::Local(error) => error,
            Self::Stopped => {
                let what = format!("{url}; what has arrived is kept beside {}", target.display());
                Error::Stopped { what }
            }
            Self::Remote(message) => {
                Error::Download { url: url.to_owned(), destination: target.to_owned(), message }
            }
        }
    }
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        Self::Local(error)
    }
}

/// Brings a file whose checksum is right to `part`.
fn load(
    limits: &Limits,
    url: &str,
    sha256: &str,
    part: &Path,
    progress: Progress<'_>,
) -> std::result::Result<(), Problem> {
    let options = OpenOptions::new().create(true).truncate(false).read(true).write(true).open(part);
    let mut file = options.map_err(Error::io(part))?;
    let mut kept = file.seek(SeekFrom::End(0)).map_err(Error::io(part))?;
    loop {
        if kept == 0 || checksum(&mut file, part)? != sha256.to_lowercase() {
            Transfer { limits, url, part, file: &mut file, progress: &mut *progress }.run()?;
        }
        file.sync_all().map_err(Error::io(part))?;
        let found = checksum(&mut file, part)?;
        if found == sha256.to_lowercase() {
            return Ok(());
        }
        file.set_len(0).map_err(Error::io(part))?;
        if kept == 0 {
            fs::remove_file(part).map_err(Error::io(part))?;
            return Err(Problem::Remote(format!("its SHA-256 is {found}, not {sha256}")));
        }
        // What an earlier call left was of another file: once more, from the start.
        kept = 0;
    }
}

fn is_there(path: &Path, sha256: &str) -> Result<bool> {
    match File::open(path) {
        Ok(mut file) => Ok(checksum(&mut file, path)? == sha256.to_lowercase()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(Error::io(path)(error)),
    }
}

/// SHA-256 of the whole file.
fn checksum(file: &mut File, path: &Path) -> Result<String> {
    file.rewind().map_err(Error::io(path))?;
    let (mut hash, mut buffer) = (Sha256::new(), vec![0; 1 << 16]);
    loop {
        match file.read(&mut buffer).map_err(Error::io(path))? {
            0 => return Ok(format!("{:x}", hash.finalize())),
            len => hash.update(&buffer[..len]),
        }
    }
}

fn beside(target: &Path, suffix: &str) -> PathBuf {
    let mut name = target.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}
