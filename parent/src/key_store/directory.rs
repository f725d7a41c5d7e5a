//! Records as files: `KEY_ID.json` in one folder. A record appears whole or not at all, survives a
//! power cut once it was acknowledged, and is never overwritten. For one machine.

use std::fs::{DirBuilder, File, Metadata, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use strongroom_protocol::KeyId;
use tokio::sync::Semaphore;
use tracing::warn;

use super::{Fetched, Page, Revision, StoreError, Wanted, listed, read};
use crate::stored_record::{MAX_STORED, StoredRecord};

/// A folder of records.
#[derive(Debug, Clone)]
pub struct Directory {
    folder: Arc<Path>,
    /// Bounds the threads that a stuck file system can hold.
    threads: Arc<Semaphore>,
}

/// File operations at one time.
const MAX_THREADS: usize = 32;

const SUFFIX: &str = ".json";

impl Directory {
    /// Opens the folder, and makes it, for its owner only, if it is missing.
    ///
    /// # Errors
    /// The operator's: it cannot be made or is not a folder.
    pub fn open(folder: &Path) -> io::Result<Self> {
        DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        let folder: PathBuf = folder.canonicalize()?;
        Ok(Self { folder: folder.into(), threads: Arc::new(Semaphore::new(MAX_THREADS)) })
    }

    pub(super) async fn create(&self, key_id: &KeyId, json: String) -> Result<Revision, StoreError> {
        let key_id = key_id.clone();
        self.blocking(move |folder| write_new(folder, &key_id, json.as_bytes())).await?.map_err(|error| {
            if error.kind() == io::ErrorKind::AlreadyExists { StoreError::Exists } else { unavailable(&error) }
        })
    }

    pub(super) async fn fetch(&self, key_id: &KeyId) -> Result<Fetched, StoreError> {
        let key_id = key_id.clone();
        self.blocking(move |folder| read_file(folder, &key_id)).await?
    }

    pub(super) async fn is_current(&self, key_id: &KeyId, revision: Revision) -> Result<bool, StoreError> {
        let key_id = key_id.clone();
        let look = move |folder: &Path| {
            let found = std::fs::metadata(path(folder, &key_id)).map_err(|error| failed(folder, &error));
            found.map(|metadata| Revision::of(&metadata) == revision)
        };
        match self.blocking(look).await? {
            Err(StoreError::NotFound) => Ok(false),
            looked => looked,
        }
    }

    pub(super) async fn list(&self, cursor: Option<String>, limit: usize, wanted: &Wanted) -> Result<Page, StoreError> {
        let after: Option<KeyId> = cursor.map(KeyId::try_from).transpose().map_err(|_| StoreError::Cursor)?;
        let names = self.blocking(names).await?.map_err(|error| unavailable(&error))?;
        let mut chosen: Vec<KeyId> =
            names.into_iter().filter(|id| after.as_ref().is_none_or(|after| id > after) && wanted(id)).collect();
        chosen.sort_unstable();
        let more = chosen.len() > limit;
        chosen.truncate(limit);
        let next = chosen.last().filter(|_| more).map(ToString::to_string);
        let records = self.blocking(move |folder| read_all(folder, &chosen)).await??;
        Ok(Page { records, next })
    }

    pub(super) async fn ready(&self) -> Result<(), StoreError> {
        match self.blocking(|folder| std::fs::metadata(folder)).await? {
            Ok(metadata) if metadata.is_dir() => Ok(()),
            Ok(_) => Err(StoreError::Unavailable),
            Err(error) => Err(unavailable(&error)),
        }
    }

    /// Runs file operations on a thread of their own, a bounded number at a time.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Path) -> T + Send + 'static,
    ) -> Result<T, StoreError> {
        let place = Arc::clone(&self.threads).acquire_owned().await.map_err(|_| StoreError::Unavailable)?;
        let folder = Arc::clone(&self.folder);
        let work = move || {
            let result = work(&folder);
            drop(place);
            result
        };
        tokio::task::spawn_blocking(work).await.map_err(|_| StoreError::Unavailable)
    }
}

impl Revision {
    fn of(metadata: &Metadata) -> Self {
        let modified_ns = i128::from(metadata.mtime()) * 1_000_000_000 + i128::from(metadata.mtime_nsec());
        Self { modified_ns, size: metadata.size(), inode: metadata.ino() }
    }
}

/// Writes a temporary file, makes it durable, and gives it its name by a hard link, which fails where
/// a rename would overwrite. The temporary name begins with a dot, so it is no key's.
fn write_new(folder: &Path, key_id: &KeyId, json: &[u8]) -> io::Result<Revision> {
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    let number = COUNTER.fetch_add(1, Ordering::Relaxed);
    let temporary = folder.join(format!(".{key_id}.{}.{number}.tmp", std::process::id()));
    // Left by a process of the same id that was killed half-way: nobody's any more.
    let _ = std::fs::remove_file(&temporary);
    let linked = write_durably(&temporary, json).and_then(|revision| {
        std::fs::hard_link(&temporary, path(folder, key_id))?;
        Ok(revision)
    });
    let _ = std::fs::remove_file(&temporary);
    let revision = linked?;
    File::open(folder)?.sync_all()?;
    Ok(revision)
}

fn write_durably(path: &Path, bytes: &[u8]) -> io::Result<Revision> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    Ok(Revision::of(&file.metadata()?))
}

fn read_file(folder: &Path, key_id: &KeyId) -> Result<Fetched, StoreError> {
    let contents = || -> io::Result<(Vec<u8>, Revision)> {
        let file = File::open(path(folder, key_id))?;
        // Of the open file, so that it is the revision of these bytes. If it changes while it is
        // read, it has another revision by the next look.
        let revision = Revision::of(&file.metadata()?);
        let mut bytes = Vec::new();
        // One byte beyond the limit tells that there are more.
        file.take(MAX_STORED as u64 + 1).read_to_end(&mut bytes)?;
        Ok((bytes, revision))
    };
    let (bytes, revision) = contents().map_err(|error| failed(folder, &error))?;
    Ok(Fetched { stored: read(key_id, &bytes)?, revision: Some(revision) })
}

fn read_all(folder: &Path, key_ids: &[KeyId]) -> Result<Vec<StoredRecord>, StoreError> {
    let record = |key_id| listed(read_file(folder, key_id).map(|fetched| fetched.stored)).transpose();
    key_ids.iter().filter_map(record).collect()
}

/// The ids of all keys in the folder. Other files are none of ours.
fn names(folder: &Path) -> io::Result<Vec<KeyId>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let name = entry?.file_name();
        let id = name.to_str().and_then(|name| name.strip_suffix(SUFFIX)).map(str::parse);
        if let Some(Ok(id)) = id {
            names.push(id);
        }
    }
    Ok(names)
}

fn path(folder: &Path, key_id: &KeyId) -> PathBuf {
    folder.join(format!("{key_id}{SUFFIX}"))
}

/// A file that is missing in the folder is no key. If the folder itself is missing, nothing is known of keys.
fn failed(folder: &Path, error: &io::Error) -> StoreError {
    if error.kind() == io::ErrorKind::NotFound && folder.is_dir() { StoreError::NotFound } else { unavailable(error) }
}

fn unavailable(error: &io::Error) -> StoreError {
    warn!(%error, "the directory store failed");
    StoreError::Unavailable
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stored_record::tests::sample;

    async fn create(store: &Directory, id: &str) -> Result<Revision, StoreError> {
        let stored = sample(id);
        store.create(stored.key_id(), stored.to_json().expect("encodes")).await
    }

    #[tokio::test]
    async fn a_key_is_never_overwritten_and_nothing_else_is_left() {
        let folder = tempfile::tempdir().expect("folder");
        let store = Directory::open(&folder.path().join("keys")).expect("opens");
        let revision = create(&store, "hot-1").await.expect("created");
        assert_eq!(create(&store, "hot-1").await, Err(StoreError::Exists));
        let id: KeyId = "hot-1".parse().expect("id");
        let fetched = store.fetch(&id).await.expect("there");
        assert_eq!(fetched.stored, sample("hot-1"));
        assert_eq!(fetched.revision, Some(revision));
        let files: Vec<_> = std::fs::read_dir(folder.path().join("keys")).expect("folder").flatten().collect();
        assert_eq!(files.len(), 1);
    }

    #[tokio::test]
    async fn of_many_creators_one_wins() {
        let folder = tempfile::tempdir().expect("folder");
        let store = Directory::open(folder.path()).expect("opens");
        let mut creators = tokio::task::JoinSet::new();
        for _ in 0..20 {
            let store = store.clone();
            creators.spawn(async move { create(&store, "hot-1").await });
        }
        let outcomes = creators.join_all().await;
        assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 1);
        assert!(outcomes.iter().flat_map(|outcome| outcome.as_ref().err()).all(|e| *e == StoreError::Exists));
    }

    #[tokio::test]
    async fn an_edited_file_is_seen_and_a_damaged_one_named() {
        let folder = tempfile::tempdir().expect("folder");
        let store = Directory::open(folder.path()).expect("opens");
        let revision = create(&store, "hot-1").await.expect("created");
        let id: KeyId = "hot-1".parse().expect("id");
        assert_eq!(store.is_current(&id, revision).await, Ok(true));
        std::fs::write(folder.path().join("hot-1.json"), "{}").expect("written");
        assert_eq!(store.is_current(&id, revision).await, Ok(false));
        assert_eq!(store.fetch(&id).await.err(), Some(StoreError::Damaged(id.clone())));
        std::fs::remove_file(folder.path().join("hot-1.json")).expect("removed");
        assert_eq!(store.fetch(&id).await.err(), Some(StoreError::NotFound));
    }

    #[tokio::test]
    async fn lists_go_page_by_page_over_wanted_keys_only() {
        let folder = tempfile::tempdir().expect("folder");
        let store = Directory::open(folder.path()).expect("opens");
        for id in ["b", "a", "c", "x"] {
            create(&store, id).await.expect("created");
        }
        std::fs::write(folder.path().join("README"), "not a key").expect("written");
        std::fs::write(folder.path().join("z.json"), "not read, because not wanted").expect("written");
        let wanted = |id: &KeyId| id.as_str() < "d";
        let ids = |page: &Page| page.records.iter().map(|r| r.key_id().to_string()).collect::<Vec<_>>();
        let first = store.list(None, 2, &wanted).await.expect("listed");
        assert_eq!(ids(&first), ["a", "b"]);
        let second = store.list(first.next, 2, &wanted).await.expect("listed");
        assert_eq!((ids(&second), second.next), (vec!["c".to_owned()], None));
        assert!(matches!(store.list(Some("../x".to_owned()), 2, &wanted).await, Err(StoreError::Cursor)));
    }
}
