//! Files that commands read and write: bounded, with `-` for standard input and output, and private where they hold a
//! secret.

use std::fs::{File, OpenOptions, Permissions};
use std::io::{ErrorKind, Read as _, Write as _, stdin, stdout};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

use zeroize::Zeroizing;

use super::exit::{Exit, Failure};

/// A file's content, of at most `limit` bytes; `-` is standard input.
///
/// # Errors
/// The caller's: it cannot be read, or is longer.
pub(super) fn read(path: &Path, limit: usize) -> Result<Zeroizing<Vec<u8>>, Failure> {
    // It may be a secret. A buffer that grows would leave copies behind.
    let mut content = Zeroizing::new(Vec::with_capacity(limit + 1));
    let most = limit as u64 + 1;
    let read = if is_standard(path) {
        stdin().lock().take(most).read_to_end(&mut content)
    } else {
        File::open(path).and_then(|file| file.take(most).read_to_end(&mut content))
    };
    read.map_err(|error| Failure::usage(format!("{}: {error}", path.display())))?;
    if content.len() > limit {
        return Err(Failure::usage(format!("{}: longer than {limit} bytes", path.display())));
    }
    Ok(content)
}

/// Writes a new file that only its owner can read; `-` is standard output. What is there is never overwritten.
///
/// # Errors
/// The machine's, or the caller's: there is such a file.
pub(super) fn write_private(path: &Path, content: &[u8]) -> Result<(), Failure> {
    let written = if is_standard(path) {
        stdout().write_all(content).and_then(|()| stdout().flush())
    } else {
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
        file.and_then(|mut file| {
            file.write_all(content).and_then(|()| file.sync_all()).inspect_err(|_| {
                // Half a secret is of no use, and in the way of the whole one.
                let _ = std::fs::remove_file(path);
            })
        })
    };
    written.map_err(|error| match error.kind() {
        ErrorKind::AlreadyExists => {
            Failure::usage(format!("{}: is there already; nothing was written", path.display()))
        }
        _ => not_written(path, &error),
    })
}

/// Writes a file that everybody may read, or replaces it: it is there as a whole, or the old one still is.
///
/// # Errors
/// The machine's, or the writer's own: nothing was changed then.
pub(super) fn replace<T>(path: &Path, write: impl FnOnce(&mut File) -> Result<T, Failure>) -> Result<T, Failure> {
    let failed = |error: std::io::Error| not_written(path, &error);
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    // The umask takes from this what it takes from any new file.
    let permissions = Permissions::from_mode(0o666);
    let mut new = tempfile::Builder::new().permissions(permissions).tempfile_in(folder).map_err(failed)?;
    let written = write(new.as_file_mut())?;
    new.as_file().sync_all().map_err(failed)?;
    new.persist(path).map_err(|error| failed(error.error))?;
    Ok(written)
}

/// The same, with a content that is there already.
///
/// # Errors
/// The machine's: nothing was changed then.
pub(super) fn publish(path: &Path, content: &[u8]) -> Result<(), Failure> {
    replace(path, |file| file.write_all(content).map_err(|error| not_written(path, &error)))
}

/// Why there is no new file.
pub(super) fn not_written(path: &Path, error: &std::io::Error) -> Failure {
    Failure::new(Exit::Failed, format!("{}: {error}", path.display()))
}

/// Whether the path stands for standard input or output.
pub(super) fn is_standard(path: &Path) -> bool {
    path == Path::new("-")
}
