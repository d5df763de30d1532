//! What the compiler made of the kernels, kept in files from one run of a program to the next.

use std::path::{Path, PathBuf};

use candle_core::Result;
use sha2::{Digest, Sha256};

fn digest(parts: &[&str]) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    format!("{:x}", hash.finalize())
}

/// The folder of the compiled kernels: the one that is `named`, or else one in the user's `cache`. None if its name is empty or it is
/// unknown: then nothing is kept.
pub(crate) fn folder(named: Option<std::ffi::OsString>, cache: Option<PathBuf>) -> Option<PathBuf> {
    match named {
        Some(named) => Some(PathBuf::from(named)).filter(|folder| !folder.as_os_str().is_empty()),
        None => cache.map(|cache| cache.join("snn-core").join("cuda")),
    }
}

/// What `make` makes of `from`: out of its file, if that is whole, else made, and then put there. A folder that cannot be read
/// or written costs the time of making it again, nothing else.
pub(crate) fn kept(
    folder: Option<&Path>,
    from: &[&str],
    make: impl FnOnce() -> Result<String>,
) -> Result<String> {
    let path = folder.map(|folder| folder.join(format!("{}.ptx", digest(from))));
    if let Some(text) = path.as_deref().and_then(read) {
        return Ok(text);
    }
    let text = make()?;
    if let Some(path) = path {
        // Not worth an error: the text is there.
        let _ = write(&path, &text);
    }
    Ok(text)
}

/// The text of a file whose first line is `//` and the digest of what follows it.
fn read(path: &Path) -> Option<String> {
    let file = std::fs::read_to_string(path).ok()?;
    let (first, text) = file.split_once('\n')?;
    (first.strip_prefix("// ")? == digest(&[text])).then(|| text.to_owned())
}

/// Whole or not at all, whoever else writes it.
fn write(path: &Path, text: &str) -> std::io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new(""));
    std::fs::create_dir_all(folder)?;
    let part = path.with_extension(format!("{}.part", std::process::id()));
    std::fs::write(&part, format!("// {}\n{text}", digest(&[text])))?;
    std::fs::rename(&part, path).inspect_err(|_| drop(std::fs::remove_file(&part)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PTX: &str = ".version 9.0\n.visible .entry lif()\n";

    fn made(folder: Option<&Path>, from: &[&str]) -> (String, bool) {
        let mut anew = false;
        let text = kept(folder, from, || {
            anew = true;
            Ok(PTX.into())
        });
        (text.unwrap(), anew)
    }

    fn only_file(folder: &Path) -> PathBuf {
        let files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert_eq!(files.len(), 1, "{files:?}");
        files[0].clone()
    }

    #[test]
    fn what_was_made_is_not_made_again() {
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("a").join("b");
        assert_eq!(made(Some(&folder), &["source", "sm_90"]), (PTX.into(), true));
        assert_eq!(made(Some(&folder), &["source", "sm_90"]), (PTX.into(), false));
        // Another source, another device, and parts cut elsewhere.
        for from in [&["other", "sm_90"][..], &["source", "sm_80"], &["sources", "m_90"]] {
            assert_eq!(made(Some(&folder), from), (PTX.into(), true), "{from:?}");
        }
        assert!(made(None, &["source", "sm_90"]).1);
    }

    #[test]
    fn damage_is_made_good() {
        let folder = tempfile::tempdir().unwrap();
        let from = ["source"];
        made(Some(folder.path()), &from);
        let file = only_file(folder.path());
        let whole = std::fs::read(&file).unwrap();
        let mut turned = whole.clone();
        *turned.last_mut().unwrap() ^= 1;
        for damaged in [&whole[..whole.len() - 3], &turned, b"", b"// no digest", &[0xff, 0xfe]] {
            std::fs::write(&file, damaged).unwrap();
            assert_eq!(made(Some(folder.path()), &from), (PTX.into(), true));
            assert_eq!(std::fs::read(only_file(folder.path())).unwrap(), whole);
        }
    }

    #[test]
    fn a_folder_that_cannot_be_is_none() {
        let parent = tempfile::tempdir().unwrap();
        let file = parent.path().join("file");
        std::fs::write(&file, "").unwrap();
        assert_eq!(made(Some(&file.join("folder")), &["source"]), (PTX.into(), true));
    }

    #[test]
    fn the_folder_is_the_named_one_or_the_users() {
        let cache = || Some(PathBuf::from("cache"));
        assert_eq!(folder(Some("named".into()), cache()), Some("named".into()));
        assert_eq!(folder(Some("".into()), cache()), None);
        assert_eq!(folder(None, cache()), Some(Path::new("cache").join("snn-core").join("cuda")));
        assert_eq!(folder(None, None), None);
    }

    #[test]
    fn what_cannot_be_made_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        assert!(kept(Some(folder.path()), &["x"], || candle_core::bail!("no compiler")).is_err());
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
