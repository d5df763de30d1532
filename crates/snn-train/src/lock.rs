//! A file that one process at a time holds.

use std::fs::{File, TryLockError};
use std::io;
use std::path::Path;

/// Lets one process at a time do something: an empty file that is held while this value lives. The system lets go of it when the
/// process ends, however it ends.
///
/// The file is not removed, because two that wait for it could then each hold a file of its own.
///
/// # Examples
/// ```
/// use snn_train::Lock;
///
/// let folder = tempfile::tempdir()?;
/// let path = folder.path().join("data.lock");
/// let held = Lock::wait(&path)?;
/// assert!(Lock::at_once(&path)?.is_none());
/// drop(held);
/// assert!(Lock::at_once(&path)?.is_some());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Lock(File);

impl Lock {
    /// Waits until nobody else holds the file. Some network file systems have no locks: there it does not wait.
    ///
    /// # Errors
    /// Returns an error if the file cannot be created.
    pub fn wait(path: &Path) -> io::Result<Self> {
        let file = File::create(path)?;
        file.lock().ok();
        Ok(Self(file))
    }

    /// Takes the file, or returns `None` if somebody else holds it.
    ///
    /// # Errors
    /// Returns an error if the file cannot be created, or if its file system has no locks.
    pub fn at_once(path: &Path) -> io::Result<Option<Self>> {
        let file = File::create(path)?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Self(file))),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(source)) => Err(source),
        }
    }
}

impl Drop for Lock {
    /// Closing the file is not enough: a child process that another thread has just forked keeps a copy until it starts its program.
    fn drop(&mut self) {
        self.0.unlock().ok();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_ends_though_a_forked_process_has_a_copy() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        let held = Lock::wait(&path).unwrap();
        let of_a_child = held.0.try_clone().unwrap();
        assert!(Lock::at_once(&path).unwrap().is_none());
        drop(held);
        assert!(Lock::at_once(&path).unwrap().is_some());
        drop(of_a_child);
    }
}
