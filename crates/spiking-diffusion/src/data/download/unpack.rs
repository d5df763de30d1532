//! Some files of an archive.

use std::fmt::Display;
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

use flate2::read::MultiGzDecoder;
use snn_core::write_atomically;

use crate::error::{Error, Result};

/// Takes a name in an archive and what there is under it.
type Visit<'a> = &'a mut dyn FnMut(&Path, &mut dyn Read) -> Result<()>;

/// Writes the files of these names, whichever folder of the archive (`.zip`, else `.tar.gz`) they are in, to `folder`.
///
/// # Errors
/// Returns an error if the archive lacks one of them or is damaged, or if a file cannot be written.
pub(super) fn unpack(archive: &Path, names: &[String], folder: &Path) -> Result<()> {
    let mut missing: Vec<&String> = names.iter().collect();
    let mut take = |path: &Path, content: &mut dyn Read| -> Result<()> {
        let file = path.file_name().unwrap_or_default();
        let Some(at) = missing.iter().position(|name| file == name.as_str()) else { return Ok(()) };
        let mut bytes = Vec::new();
        content.read_to_end(&mut bytes).map_err(damaged(archive))?;
        Ok(write_atomically(&folder.join(missing.swap_remove(at)), &bytes)?)
    };
    if archive.extension().is_some_and(|extension| extension == "zip") {
        visit_zip(archive, &mut take)?;
    } else {
        visit_tar_gz(archive, &mut take)?;
    }
    match missing.first() {
        None => Ok(()),
        Some(name) => Err(Error::data(archive, format!("holds no `{name}`"))),
    }
}

fn visit_zip(archive: &Path, visit: Visit<'_>) -> Result<()> {
    let mut entries = zip::ZipArchive::new(open(archive)?).map_err(damaged(archive))?;
    for i in 0..entries.len() {
        let mut entry = entries.by_index(i).map_err(damaged(archive))?;
        let name = entry.name().map_err(damaged(archive))?.into_owned();
        visit(Path::new(&name), &mut entry)?;
    }
    Ok(())
}

fn visit_tar_gz(archive: &Path, visit: Visit<'_>) -> Result<()> {
    let mut entries = tar::Archive::new(MultiGzDecoder::new(open(archive)?));
    for entry in entries.entries().map_err(damaged(archive))? {
        let mut entry = entry.map_err(damaged(archive))?;
        let name = entry.path().map_err(damaged(archive))?.into_owned();
        visit(&name, &mut entry)?;
    }
    Ok(())
}

fn open(archive: &Path) -> Result<BufReader<File>> {
    Ok(BufReader::new(File::open(archive).map_err(Error::io(archive))?))
}

fn damaged<E: Display>(archive: &Path) -> impl FnOnce(E) -> Error + '_ {
    move |e| Error::data(archive, format!("is damaged: {e}"))
}
