//! A few bytes that worker 0 leaves in a file for the others, before they can speak.

use std::path::Path;
use std::time::{Duration, Instant};

use snn_core::write_atomically;

use crate::error::{Error, Result};

/// How long a worker sleeps before it looks again.
const PAUSE: Duration = Duration::from_millis(20);

/// Leaves the bytes, whole or not at all. A file that is there already is another job's.
pub(super) fn leave(file: &Path, bytes: &[u8]) -> Result<()> {
    if file.exists() {
        return Err(Error::run(
            file,
            "is there already, of another job: name a file that is not, or remove it",
        ));
    }
    Ok(write_atomically(file, bytes)?)
}

/// Waits until `N` bytes are there.
pub(super) fn find<const N: usize>(file: &Path, limit: Duration) -> Result<[u8; N]> {
    let start = Instant::now();
    loop {
        match std::fs::read(file) {
            Ok(bytes) => {
                let wrong = |bytes: Vec<u8>| format!("has {} bytes and not the {N} of an id", bytes.len());
                return bytes.try_into().map_err(|bytes| Error::run(file, wrong(bytes)));
            }
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(Error::io(file)(e)),
            Err(_) if start.elapsed() >= limit => {
                let message = format!("worker 0 has not written it in {} s", limit.as_secs_f64());
                return Err(Error::run(file, message));
            }
            Err(_) => std::thread::sleep(PAUSE),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_millis(50);

    #[test]
    fn what_is_left_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("id");
        std::thread::scope(|scope| {
            let found = scope.spawn(|| find::<3>(&file, Duration::from_secs(60)).unwrap());
            std::thread::sleep(SOON);
            leave(&file, &[1, 2, 3]).unwrap();
            assert_eq!(found.join().unwrap(), [1, 2, 3]);
        });
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn errors_name_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("id");
        let says = |error: Error, part: &str| {
            let error = error.to_string();
            assert!(error.contains(file.to_str().unwrap()) && error.contains(part), "{error}");
        };
        says(find::<3>(&file, SOON).unwrap_err(), "not written it in 0.05 s");
        leave(&file, &[1, 2]).unwrap();
        says(find::<3>(&file, SOON).unwrap_err(), "2 bytes and not the 3");
        says(leave(&file, &[1, 2, 3]).unwrap_err(), "already");
        let nowhere = folder.path().join("id/id");
        assert!(leave(&nowhere, &[]).unwrap_err().to_string().contains("id/id"));
    }
}
