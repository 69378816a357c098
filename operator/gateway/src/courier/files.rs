//! Reading folders that a hostile program writes to: every step of a path is
//! opened without following links, so nothing outside them is ever read.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, openat, statat};

/// Deepest nesting that is looked into.
const DEPTH: usize = 8;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Path below the listed folder.
    pub name: String,
    pub size: u64,
    /// Changes whenever the file does: seconds and nanoseconds.
    pub changed: (i64, i64),
}

/// What is in the way of delivering a folder as it is.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{0}")]
    Unfit(String),
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl From<rustix::io::Errno> for Error {
    fn from(errno: rustix::io::Errno) -> Self {
        Self::Io(errno.into())
    }
}

/// A regular file below `root`.
pub fn open(root: &Path, relative: &str) -> io::Result<File> {
    let (folder, name) = relative.rsplit_once('/').unwrap_or(("", relative));
    let folder = folder_at(root, folder)?;
    // Without NONBLOCK, opening a pipe would wait for ever.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = File::from(openat(&folder, name, flags, Mode::empty())?);
    if file.metadata()?.is_file() { Ok(file) } else { Err(io::Error::other("not a regular file")) }
}

fn folder_at(root: &Path, relative: &str) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let mut folder = openat(CWD, root, flags, Mode::empty())?;
    for part in relative.split('/').filter(|part| !part.is_empty()) {
        if part == ".." {
            return Err(io::Error::other("a path that leaves its folder"));
        }
        folder = openat(&folder, part, flags | OFlags::NOFOLLOW, Mode::empty())?;
    }
    Ok(folder)
}

/// Regular files directly in a folder; whatever else is there is passed over.
pub fn list(root: &Path, folder: &str) -> io::Result<Vec<Entry>> {
    let fd = match folder_at(root, folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        opened => opened?,
    };
    let mut found = Vec::new();
    for item in Dir::read_from(&fd)? {
        let item = item?;
        let (Ok(name), Ok(stat)) =
            (item.file_name().to_str(), statat(&fd, item.file_name(), AtFlags::SYMLINK_NOFOLLOW))
        else {
            continue;
        };
        if FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile {
            found.push(entry(name.to_owned(), &stat));
        }
    }
    Ok(found)
}

/// Every file below a folder, sorted by name. Links, devices, odd names and
/// more than `most` files are refused: silently leaving something out would be worse.
pub fn walk(root: &Path, folder: &str, most: usize) -> Result<Vec<Entry>, Error> {
    let mut found = Vec::new();
    let mut pending = vec![(String::new(), 0)];
    while let Some((below, depth)) = pending.pop() {
        let path = [folder, below.as_str()].join("/");
        let fd = match folder_at(root, &path) {
            Err(error) if depth == 0 && error.kind() == io::ErrorKind::NotFound => break,
            opened => opened?,
        };
        for item in Dir::read_from(&fd)? {
            let item = item?;
            let unfit = |why: &str| {
                let shown: String = item.file_name().to_string_lossy().chars().filter(|c| !c.is_control()).collect();
                Error::Unfit(format!("/{folder}/{below}{shown} {why}"))
            };
            let name = item.file_name().to_str().map_err(|_| unfit("has a name that is not UTF-8"))?;
            if matches!(name, "." | "..") {
                continue;
            }
            let stat = statat(&fd, name, AtFlags::SYMLINK_NOFOLLOW)?;
            let full = format!("{below}{name}");
            match FileType::from_raw_mode(stat.st_mode) {
                FileType::RegularFile => found.push(entry(full, &stat)),
                FileType::Directory if depth < DEPTH => pending.push((format!("{full}/"), depth + 1)),
                FileType::Directory => return Err(unfit("lies too deep")),
                _ => return Err(unfit("is neither a file nor a folder")),
            }
            if found.len() > most || pending.len() > most {
                return Err(Error::Unfit(format!("/{folder} has more than {most} files: pack some into one")));
            }
        }
    }
    found.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(found)
}

fn entry(name: String, stat: &rustix::fs::Stat) -> Entry {
    Entry {
        name,
        size: u64::try_from(stat.st_size).unwrap_or_default(),
        changed: (stat.st_mtime, i64::try_from(stat.st_mtime_nsec).unwrap_or_default()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn links_are_not_followed_anywhere() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        std::fs::create_dir_all(root.join("out/sub")).unwrap();
        std::fs::write(dir.path().join("secret"), "token").unwrap();
        std::fs::write(root.join("out/sub/file"), "fine").unwrap();
        assert_eq!(io::read_to_string(open(&root, "out/sub/file").unwrap()).unwrap(), "fine");

        symlink(dir.path().join("secret"), root.join("out/link")).unwrap();
        assert!(open(&root, "out/link").is_err());
        assert!(open(&root, "out/../../secret").is_err());
        assert!(walk(&root, "out", 10).is_err());
        assert_eq!(list(&root, "out").unwrap(), Vec::new());

        std::fs::remove_file(root.join("out/link")).unwrap();
        symlink(dir.path(), root.join("elsewhere")).unwrap();
        assert!(open(&root, "elsewhere/secret").is_err());
        assert!(list(&root, "elsewhere").is_err());
        let names: Vec<String> = walk(&root, "out", 10).unwrap().into_iter().map(|e| e.name).collect();
        assert_eq!(names, ["sub/file"]);
    }

    #[test]
    fn absent_folders_are_empty_and_full_ones_refused() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(walk(dir.path(), "out", 1).unwrap(), Vec::new());
        assert_eq!(list(dir.path(), "checkpoints").unwrap(), Vec::new());
        std::fs::create_dir(dir.path().join("out")).unwrap();
        for name in ["b", "a"] {
            std::fs::write(dir.path().join("out").join(name), name).unwrap();
        }
        assert!(matches!(walk(dir.path(), "out", 1), Err(Error::Unfit(_))));
        let names: Vec<String> = walk(dir.path(), "out", 2).unwrap().into_iter().map(|e| e.name).collect();
        assert_eq!(names, ["a", "b"]);
    }
}
