//! Records as files: `KEY_ID.json` in one folder. A record appears whole or not at all, survives a
//! power cut once it was acknowledged, and is changed by one process at a time. For one machine.

mod files;
mod names;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use strongroom_protocol::KeyId;
use tokio::sync::Semaphore;
use tracing::warn;

use super::{Fetched, Page, Revision, StoreError, Wanted, read};
pub use files::FileRevision;
use names::Names;

/// A folder of records.
#[derive(Debug, Clone)]
pub struct Directory {
    folder: Arc<Path>,
    names: Arc<Names>,
    /// Bound the threads that a stuck file system can hold. Writers wait for one another, so they have
    /// threads of their own: readers do not wait for them.
    readers: Arc<Semaphore>,
    writers: Arc<Semaphore>,
}

/// File operations at one time.
const MAX_READERS: usize = 32;
const MAX_WRITERS: usize = 16;

impl Directory {
    /// Opens the folder, and makes it, for its owner only, if it is missing.
    ///
    /// # Errors
    /// The operator's: it cannot be made or is not a folder.
    pub fn open(folder: &Path) -> io::Result<Self> {
        files::make(folder)?;
        let folder: PathBuf = folder.canonicalize()?;
        files::sweep(&folder);
        let readers = Arc::new(Semaphore::new(MAX_READERS));
        let writers = Arc::new(Semaphore::new(MAX_WRITERS));
        Ok(Self { folder: folder.into(), names: Arc::default(), readers, writers })
    }

    pub(super) async fn create(&self, key_id: &KeyId, json: String) -> Result<FileRevision, StoreError> {
        let key_id = key_id.clone();
        self.blocking(&self.writers, move |folder| files::create(folder, &key_id, json.as_bytes())).await?.map_err(
            |error| {
                if error.kind() == io::ErrorKind::AlreadyExists { StoreError::Exists } else { unavailable(&error) }
            },
        )
    }

    pub(super) async fn replace(
        &self,
        key_id: &KeyId,
        old: &FileRevision,
        json: String,
    ) -> Result<FileRevision, StoreError> {
        let (key_id, old) = (key_id.clone(), old.clone());
        let replaced =
            self.blocking(&self.writers, move |folder| files::replace(folder, &key_id, &old, json.as_bytes())).await?;
        replaced.map_err(|error| unavailable(&error))?.ok_or(StoreError::GenerationLost)
    }

    pub(super) async fn delete(&self, key_id: &KeyId, old: &FileRevision) -> Result<(), StoreError> {
        let (key_id, old) = (key_id.clone(), old.clone());
        match self.blocking(&self.writers, move |folder| files::remove(folder, &key_id, &old)).await? {
            Ok(true) => Ok(()),
            Ok(false) => Err(StoreError::GenerationLost),
            Err(error) => Err(unavailable(&error)),
        }
    }

    pub(super) async fn fetch(&self, key_id: &KeyId) -> Result<Fetched, StoreError> {
        let key_id = key_id.clone();
        self.blocking(&self.readers, move |folder| read_file(folder, &key_id)).await?
    }

    pub(super) async fn is_current(&self, key_id: &KeyId, revision: &FileRevision) -> Result<bool, StoreError> {
        let (key_id, revision) = (key_id.clone(), revision.clone());
        let look =
            move |folder: &Path| files::looks_like(folder, &key_id, &revision).map_err(|error| failed(folder, &error));
        match self.blocking(&self.readers, look).await? {
            Err(StoreError::NotFound) => Ok(false),
            looked => looked,
        }
    }

    pub(super) async fn list(&self, cursor: Option<String>, limit: usize, wanted: &Wanted) -> Result<Page, StoreError> {
        let after: Option<KeyId> = cursor.map(KeyId::try_from).transpose().map_err(|_| StoreError::Cursor)?;
        let names = Arc::clone(&self.names);
        let sorted =
            self.blocking(&self.readers, move |folder| names.of(folder)).await?.map_err(|error| unavailable(&error))?;
        let start = after.map_or(0, |after| sorted.partition_point(|id| *id <= after));
        let mut rest = sorted.iter().skip(start).filter(|id| wanted(id)).cloned();
        let chosen: Vec<KeyId> = rest.by_ref().take(limit).collect();
        let next = rest.next().and(chosen.last()).map(ToString::to_string);
        let page = self.blocking(&self.readers, move |folder| read_all(folder, &chosen)).await??;
        Ok(Page { next, ..page })
    }

    pub(super) async fn ready(&self) -> Result<(), StoreError> {
        match self.blocking(&self.readers, |folder| std::fs::metadata(folder)).await? {
            Ok(metadata) if metadata.is_dir() => Ok(()),
            Ok(_) => Err(StoreError::Unavailable),
            Err(error) => Err(unavailable(&error)),
        }
    }

    /// Runs file operations on a thread of their own, a bounded number at a time.
    async fn blocking<T: Send + 'static>(
        &self,
        places: &Arc<Semaphore>,
        work: impl FnOnce(&Path) -> T + Send + 'static,
    ) -> Result<T, StoreError> {
        let place = Arc::clone(places).acquire_owned().await.map_err(|_| StoreError::Unavailable)?;
        let folder = Arc::clone(&self.folder);
        let work = move || {
            let result = work(&folder);
            drop(place);
            result
        };
        tokio::task::spawn_blocking(work).await.map_err(|_| StoreError::Unavailable)
    }
}

fn read_file(folder: &Path, key_id: &KeyId) -> Result<Fetched, StoreError> {
    let (bytes, revision) = files::read(folder, key_id).map_err(|error| match error.kind() {
        // The file's own fault, as far as one can tell: no other key's.
        io::ErrorKind::PermissionDenied | io::ErrorKind::IsADirectory => {
            warn!(%key_id, %error, "a stored record cannot be read");
            StoreError::Damaged(key_id.clone())
        }
        _ => failed(folder, &error),
    })?;
    Ok(Fetched { stored: read(key_id, &bytes)?, revision: Revision::File(revision) })
}

fn read_all(folder: &Path, key_ids: &[KeyId]) -> Result<Page, StoreError> {
    let mut page = Page::default();
    for key_id in key_ids {
        page.push(read_file(folder, key_id).map(|Fetched { stored, .. }| stored))?;
    }
    Ok(page)
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
    use crate::stored_record::StoredRecord;
    use crate::stored_record::tests::sample;

    async fn create(store: &Directory, id: &str) -> Result<FileRevision, StoreError> {
        let stored = sample(id);
        store.create(stored.key_id(), stored.to_json().expect("encodes")).await
    }

    fn names(folder: &Path) -> Vec<String> {
        let entries = std::fs::read_dir(folder).expect("folder").flatten();
        let mut names: Vec<String> = entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    /// The next version of a sample, in the state that it has.
    fn next(stored: &StoredRecord) -> StoredRecord {
        stored.next(stored.record.clone(), stored.state).expect("a generation")
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
        assert_eq!(fetched.revision, Revision::File(revision));
        assert_eq!(names(&folder.path().join("keys")), [".tmp", "hot-1.json"]);
        assert_eq!(names(&folder.path().join("keys/.tmp")), [""; 0]);
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
        assert_eq!(store.is_current(&id, &revision).await, Ok(true));
        std::fs::write(folder.path().join("hot-1.json"), "{}").expect("written");
        assert_eq!(store.is_current(&id, &revision).await, Ok(false));
        assert_eq!(store.fetch(&id).await.err(), Some(StoreError::Damaged(id.clone())));
        std::fs::remove_file(folder.path().join("hot-1.json")).expect("removed");
        assert_eq!(store.fetch(&id).await.err(), Some(StoreError::NotFound));
    }

    #[tokio::test]
    async fn a_name_that_cannot_be_read_is_named_and_costs_nobody_else_the_list() {
        let folder = tempfile::tempdir().expect("folder");
        let store = Directory::open(folder.path()).expect("opens");
        create(&store, "a").await.expect("created");
        std::fs::create_dir(folder.path().join("b.json")).expect("made");
        let b: KeyId = "b".parse().expect("id");
        assert_eq!(store.fetch(&b).await.err(), Some(StoreError::Damaged(b.clone())));
        let page = store.list(None, 10, &|_: &KeyId| true).await.expect("listed");
        assert_eq!((page.records, page.damaged), (vec![sample("a")], vec![b]));
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

    #[tokio::test]
    async fn only_what_was_read_is_replaced_or_deleted() {
        let folder = tempfile::tempdir().expect("folder");
        let store = Directory::open(folder.path()).expect("opens");
        let first = create(&store, "hot-1").await.expect("created");
        let id: KeyId = "hot-1".parse().expect("id");
        let changed = next(&sample("hot-1"));
        let json = || changed.to_json().expect("encodes");
        let second = store.replace(&id, &first, json()).await.expect("replaced");
        assert_eq!(store.replace(&id, &first, json()).await, Err(StoreError::GenerationLost));
        assert_eq!(store.delete(&id, &first).await, Err(StoreError::GenerationLost));
        let fetched = store.fetch(&id).await.expect("there");
        assert_eq!((fetched.stored, fetched.revision), (changed.clone(), Revision::File(second.clone())));
        assert_eq!(store.delete(&id, &second).await, Ok(()));
        assert_eq!(store.replace(&id, &second, json()).await, Err(StoreError::GenerationLost), "it does not come back");
        assert_eq!(store.fetch(&id).await.err(), Some(StoreError::NotFound));
        assert_eq!(names(folder.path()), [".lock", ".tmp"]);
    }

    #[tokio::test]
    async fn of_racing_writers_none_loses_an_update_unnoticed() {
        let folder = tempfile::tempdir().expect("folder");
        create(&Directory::open(folder.path()).expect("opens"), "hot-1").await.expect("created");
        let mut writers = tokio::task::JoinSet::new();
        for _ in 0..4 {
            // Each with a semaphore and a lock file of its own, as processes have them.
            let store = Directory::open(folder.path()).expect("opens");
            writers.spawn(async move {
                let id: KeyId = "hot-1".parse().expect("id");
                let mut accepted = 0;
                for _ in 0..50 {
                    let Fetched { stored, revision: Revision::File(revision) } = store.fetch(&id).await.expect("there")
                    else {
                        panic!("a file")
                    };
                    match store.replace(&id, &revision, next(&stored).to_json().expect("encodes")).await {
                        Ok(_) => accepted += 1,
                        Err(error) => assert_eq!(error, StoreError::GenerationLost),
                    }
                }
                accepted
            });
        }
        let accepted: u64 = writers.join_all().await.into_iter().sum();
        let store = Directory::open(folder.path()).expect("opens");
        assert_eq!(store.fetch(&"hot-1".parse().expect("id")).await.expect("there").stored.generation, 1 + accepted);
    }

    #[tokio::test]
    async fn a_settled_folder_is_read_once_and_a_new_name_is_seen() {
        let folder = tempfile::tempdir().expect("folder");
        let store = Directory::open(folder.path()).expect("opens");
        let list = async || store.list(None, 10, &|_: &KeyId| true).await.expect("listed").records.len();
        create(&store, "a").await.expect("created");
        assert_eq!(list().await, 1);
        create(&store, "b").await.expect("created");
        assert_eq!(list().await, 2, "a folder that has just changed is read again");
        let long_ago = std::time::SystemTime::now() - std::time::Duration::from_secs(60);
        std::fs::File::open(folder.path()).and_then(|f| f.set_modified(long_ago)).expect("set");
        let names = || store.names.of(&store.folder).expect("read");
        assert!(Arc::ptr_eq(&names(), &names()), "a settled folder is not");
        create(&store, "c").await.expect("created");
        assert_eq!(list().await, 3);
    }

    #[test]
    fn what_a_killed_process_left_is_swept_once_it_is_old() {
        let folder = tempfile::tempdir().expect("folder");
        std::fs::create_dir(folder.path().join(".tmp")).expect("made");
        let (old, young) = (folder.path().join(".tmp/old.1.0"), folder.path().join(".tmp/young.1.0"));
        for path in [&old, &young] {
            std::fs::write(path, "{").expect("written");
        }
        let yesterday = std::time::SystemTime::now() - std::time::Duration::from_secs(86_400);
        std::fs::File::open(&old).and_then(|file| file.set_modified(yesterday)).expect("set");
        Directory::open(folder.path()).expect("opens");
        assert!(!old.exists() && young.exists());
    }
}
