//! The folder's files: how one is written so that it appears whole or not at all and survives a power
//! cut, and how processes keep out of each other's way. Blocking; knows nothing of what is in them.

use std::fs::{DirBuilder, File, Metadata, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use sha2::{Digest, Sha256};
use strongroom_protocol::KeyId;

use crate::stored_record::MAX_STORED;

/// What a file was when it was read or written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileRevision {
    stamp: Stamp,
    /// SHA-256 of the contents.
    digest: [u8; 32],
}

/// What changes when a file is replaced or edited: quick to ask for, and good enough for a cache. Two
/// replacements within a tick of the clock could look alike, so no change rests on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    modified_ns: i128,
    size: u64,
    inode: u64,
}

/// Where files are written before they get their names. Its name begins with a dot, so it is no key's.
const TEMPORARY_FOLDER: &str = ".tmp";

/// Held while a record is compared and replaced or removed.
const LOCK_FILE: &str = ".lock";

/// A temporary file this old was left by a process that was killed.
const ABANDONED: Duration = Duration::from_secs(3600);

const SUFFIX: &str = ".json";

/// The file of a key.
pub(super) fn path(folder: &Path, key_id: &KeyId) -> PathBuf {
    folder.join(format!("{key_id}{SUFFIX}"))
}

/// The key of a file, if it is one's.
pub(super) fn key_id(name: &std::ffi::OsStr) -> Option<KeyId> {
    name.to_str()?.strip_suffix(SUFFIX)?.parse().ok()
}

/// Makes the folder, for its owner only, if it is missing, so that it survives a power cut.
pub(super) fn make(folder: &Path) -> io::Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    match folder.parent() {
        Some(parent) if parent.as_os_str().is_empty() => make_durable(Path::new(".")),
        Some(parent) => make_durable(parent),
        None => Ok(()),
    }
}

/// Removes what killed processes left half-written.
pub(super) fn sweep(folder: &Path) {
    let Ok(entries) = std::fs::read_dir(folder.join(TEMPORARY_FOLDER)) else { return };
    for entry in entries.flatten() {
        let age = entry.metadata().and_then(|metadata| metadata.modified()).ok().and_then(|at| at.elapsed().ok());
        if age.is_some_and(|age| age > ABANDONED) {
            let _ = std::fs::remove_file(entry.path());
        }
    }
}

/// Reads a key's file; at most one byte more than a record may have, which tells that there are more.
pub(super) fn read(folder: &Path, key_id: &KeyId) -> io::Result<(Vec<u8>, FileRevision)> {
    let file = File::open(path(folder, key_id))?;
    // Of the open file, so that it is the stamp of these bytes. If it changes while it is read, it has
    // another stamp by the next look.
    let stamp = Stamp::of(&file.metadata()?);
    let mut bytes = Vec::new();
    file.take(MAX_STORED as u64 + 1).read_to_end(&mut bytes)?;
    let digest = Sha256::digest(&bytes).into();
    Ok((bytes, FileRevision { stamp, digest }))
}

/// Whether the file still looks as it did; one question to the file system.
pub(super) fn looks_like(folder: &Path, key_id: &KeyId, revision: &FileRevision) -> io::Result<bool> {
    Ok(Stamp::of(&std::fs::metadata(path(folder, key_id))?) == revision.stamp)
}

/// Creates a key's file. The hard link fails where a rename would overwrite.
pub(super) fn create(folder: &Path, key_id: &KeyId, json: &[u8]) -> io::Result<FileRevision> {
    let new = Temporary::write(folder, key_id, json)?;
    std::fs::hard_link(&new.path, path(folder, key_id))?;
    make_durable(folder)?;
    Ok(new.revision.clone())
}

/// Replaces a key's file, if it still is the one that was read. `None`: it is not.
pub(super) fn replace(
    folder: &Path,
    key_id: &KeyId,
    old: &FileRevision,
    json: &[u8],
) -> io::Result<Option<FileRevision>> {
    let new = Temporary::write(folder, key_id, json)?;
    let turn = lock(folder)?;
    if !is(folder, key_id, old)? {
        return Ok(None);
    }
    std::fs::rename(&new.path, path(folder, key_id))?;
    drop(turn);
    make_durable(folder)?;
    Ok(Some(new.revision.clone()))
}

/// Removes a key's file, if it still is the one that was read; otherwise `false`.
pub(super) fn remove(folder: &Path, key_id: &KeyId, old: &FileRevision) -> io::Result<bool> {
    let turn = lock(folder)?;
    if !is(folder, key_id, old)? {
        return Ok(false);
    }
    std::fs::remove_file(path(folder, key_id))?;
    drop(turn);
    make_durable(folder)?;
    Ok(true)
}

/// Whether the file has exactly the contents that were read.
fn is(folder: &Path, key_id: &KeyId, old: &FileRevision) -> io::Result<bool> {
    match read(folder, key_id) {
        Ok((_, now)) => Ok(now.digest == old.digest),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Waits until no other thread or process replaces or removes anything here. Ends with the file's closing,
/// so also with the process that holds it.
fn lock(folder: &Path) -> io::Result<File> {
    let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(folder.join(LOCK_FILE))?;
    file.lock()?;
    Ok(file)
}

/// Names are in the folder, and the folder is a file of its own.
fn make_durable(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// A file that is written whole and durable and has no name of a key yet. Dropped, it is gone; under the
/// name that it got meanwhile it stays.
struct Temporary {
    path: PathBuf,
    revision: FileRevision,
}

impl Temporary {
    fn write(folder: &Path, key_id: &KeyId, bytes: &[u8]) -> io::Result<Self> {
        let temporary = folder.join(TEMPORARY_FOLDER);
        make(&temporary)?;
        // Random: in containers, process ids are not unique among the parents of one folder.
        let mut random = [0; 16];
        getrandom::fill(&mut random).map_err(io::Error::other)?;
        let path = temporary.join(format!("{key_id}.{}", hex::encode(random)));
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
        let written = file.write_all(bytes).and_then(|()| file.sync_all()).and_then(|()| file.metadata());
        match written {
            Ok(metadata) => {
                let revision = FileRevision { stamp: Stamp::of(&metadata), digest: Sha256::digest(bytes).into() };
                Ok(Self { path, revision })
            }
            Err(error) => {
                let _ = std::fs::remove_file(&path);
                Err(error)
            }
        }
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

impl Stamp {
    fn of(metadata: &Metadata) -> Self {
        Self { modified_ns: modified_ns(metadata), size: metadata.size(), inode: metadata.ino() }
    }
}

/// When a file, or a folder's list of names, was changed, in nanoseconds since 1970.
pub(super) fn modified_ns(metadata: &Metadata) -> i128 {
    i128::from(metadata.mtime()) * 1_000_000_000 + i128::from(metadata.mtime_nsec())
}
