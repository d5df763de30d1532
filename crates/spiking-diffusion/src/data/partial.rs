//! Files that hold less than the official ones.

use std::path::Path;

use snn_core::Seed;

use crate::error::{Error, Result};

/// Says what to do with files that hold less than the official ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Partial {
    /// It is an error.
    Reject,
    /// Take what is there and say so in [`Dataset::partial`](super::Dataset::partial); a lone split is cut 90/10 by this seed.
    Allow(Seed),
}

/// What the files lack, while they are read.
pub(super) struct Notes {
    allow: bool,
    lines: Vec<String>,
}

impl Notes {
    pub(super) fn new(partial: Partial) -> Self {
        Self { allow: partial != Partial::Reject, lines: Vec::new() }
    }

    /// Whether anything may be lacking.
    pub(super) fn allow(&self) -> bool {
        self.allow
    }

    pub(super) fn add(&mut self, line: String) {
        self.lines.push(line);
    }

    /// Notes that a count is not the official one, or refuses it.
    pub(super) fn count(&mut self, path: &Path, found: usize, expected: usize) -> Result<()> {
        if found == expected {
            return Ok(());
        }
        if !self.allow {
            let message = format!(
                "holds {found} images, expected {expected}; `Partial::Allow` (--allow-partial) takes what is there"
            );
            return Err(Error::data(path, message));
        }
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        self.add(format!("{name} has {found} of {expected} images"));
        Ok(())
    }

    /// All of them in one line, if there are any.
    pub(super) fn joined(&self) -> Option<String> {
        (!self.lines.is_empty()).then(|| self.lines.join("; "))
    }
}
