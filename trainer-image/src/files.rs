//! Files that are either complete or absent, whenever the process ends.

use std::fs::{File, Permissions};
use std::io::{BufWriter, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::error::{Error, Result};

/// Name under which a file grows; hidden, so that nothing uploads it half written.
fn temporary(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.tmp"))
}

/// Lets `fill` write a temporary file, makes it durable and moves it to `path`.
pub fn write_atomically(path: &Path, fill: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    let growing = temporary(path);
    fill(&growing)?;
    // The courier reads it, perhaps as another user.
    std::fs::set_permissions(&growing, Permissions::from_mode(0o644)).map_err(Error::io("make readable", &growing))?;
    File::open(&growing).and_then(|file| file.sync_all()).map_err(Error::io("sync", &growing))?;
    std::fs::rename(&growing, path).map_err(Error::io("rename to", path))?;
    let folder = path.parent().unwrap_or(Path::new("."));
    File::open(folder).and_then(|dir| dir.sync_all()).map_err(Error::io("sync", folder))
}

/// The same for a file written as a stream.
pub fn write_stream(path: &Path, fill: impl FnOnce(&mut dyn Write) -> std::io::Result<()>) -> Result<()> {
    write_atomically(path, |growing| {
        let file = File::create(growing).map_err(Error::io("create", growing))?;
        let mut writer = BufWriter::new(file);
        fill(&mut writer).and_then(|()| writer.flush()).map_err(Error::io("write", growing))
    })
}

/// Removes what a killed process left half written.
pub fn remove_temporaries(folder: &Path) -> Result<()> {
    for entry in std::fs::read_dir(folder).map_err(Error::io("list", folder))? {
        let path = entry.map_err(Error::io("list", folder))?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if name.starts_with('.') && name.ends_with(".tmp") {
            std::fs::remove_file(&path).map_err(Error::io("remove", &path))?;
        }
    }
    Ok(())
}

pub fn create_folder(path: &Path) -> Result<()> {
    std::fs::create_dir_all(path).map_err(Error::io("create", path))
}

/// Size and SHA-256 of a file.
pub fn measure(path: &Path) -> Result<(u64, String)> {
    let mut file = File::open(path).map_err(Error::io("read", path))?;
    let mut hasher = Sha256::new();
    let size = std::io::copy(&mut file, &mut hasher).map_err(Error::io("read", path))?;
    Ok((size, hex(&hasher.finalize())))
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
