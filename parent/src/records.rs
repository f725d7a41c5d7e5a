//! The records that the parent works with: from the store, and cached once the enclave has accepted
//! them. The cache saves reading, never judging: a record that the enclave refuses is never kept.

use std::sync::Arc;
use std::time::Duration;

use moka::sync::Cache;
use strongroom_protocol::{Generated, KeyId, PresentedRecord};
use time::OffsetDateTime;
use tokio::time::Instant;

use crate::config::Limits;
use crate::key_store::{Fetched, KeyStore, Page, Revision, StoreError, Wanted};
use crate::stored_record::StoredRecord;

/// The store with its cache.
#[derive(Debug, Clone)]
pub struct Records {
    store: KeyStore,
    cache: Cache<KeyId, Arc<KnownRecord>>,
}

/// A record and its encoded form, which is made once.
#[derive(Debug)]
pub struct KnownRecord {
    /// As it is stored.
    pub stored: StoredRecord,
    /// As it is presented to the enclave.
    pub presented: PresentedRecord,
    revision: Option<Revision>,
}

/// A record that was looked for.
#[derive(Debug, Clone)]
pub struct Found {
    /// The record.
    pub record: Arc<KnownRecord>,
    /// Whether it comes from the cache, so that the store may have another one by now.
    pub cached: bool,
}

impl Records {
    /// Works on `store`, with a cache of these limits.
    #[must_use]
    pub fn new(store: KeyStore, limits: &Limits) -> Self {
        let cache = Cache::builder()
            .max_capacity(limits.cache_records.into())
            .time_to_live(Duration::from_secs(limits.cache_seconds.into()))
            .build();
        Self { store, cache }
    }

    /// A key's record, from the cache if it is there and, where the store can tell, unchanged.
    ///
    /// # Errors
    /// The store's.
    pub async fn find(&self, key_id: &KeyId) -> Result<Found, StoreError> {
        if let Some(record) = self.cache.get(key_id) {
            let current = match record.revision {
                // While the store is away, what it last had is what there is, for as long as the cache lives.
                Some(revision) => self.store.is_current(key_id, revision).await.unwrap_or(true),
                None => true,
            };
            if current {
                return Ok(Found { record, cached: true });
            }
        }
        self.find_afresh(key_id).await
    }

    /// A key's record, as the store has it now. What the cache has of the key is dropped.
    ///
    /// # Errors
    /// The store's.
    pub async fn find_afresh(&self, key_id: &KeyId) -> Result<Found, StoreError> {
        self.cache.invalidate(key_id);
        let Fetched { stored, revision } = self.store.fetch(key_id).await?;
        let record = Arc::new(KnownRecord::new(stored, revision)?);
        Ok(Found { record, cached: false })
    }

    /// Keeps a record that the enclave has just accepted.
    pub fn accepted(&self, found: Found) {
        if !found.cached {
            self.cache.insert(found.record.stored.key_id().clone(), found.record);
        }
    }

    /// Whether something, readable or not, is stored under this name.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn exists(&self, key_id: &KeyId) -> Result<bool, StoreError> {
        match self.store.fetch(key_id).await {
            Ok(_) | Err(StoreError::Damaged(_)) => Ok(true),
            Err(StoreError::NotFound) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Stores a key that the enclave has just made and opened, unless its name was taken meanwhile, or it
    /// is so late that its caller has been told of a failure and would not expect the key.
    ///
    /// # Errors
    /// [`StoreError::Exists`], [`StoreError::TooLate`]: this key is lost, and was never used. Otherwise the
    /// store's.
    pub async fn create(&self, generated: Generated, deadline: Instant) -> Result<Arc<KnownRecord>, StoreError> {
        if Instant::now() >= deadline {
            return Err(StoreError::TooLate);
        }
        let Generated { record, addresses } = generated;
        let mut known = KnownRecord::new(StoredRecord::new(record, addresses, OffsetDateTime::now_utc()), None)?;
        known.revision = self.store.create(&known.stored).await?;
        let record = Arc::new(known);
        self.accepted(Found { record: Arc::clone(&record), cached: false });
        Ok(record)
    }

    /// At most `limit` wanted records from `cursor` on.
    ///
    /// # Errors
    /// The store's.
    pub async fn list(&self, cursor: Option<String>, limit: usize, wanted: &Wanted) -> Result<Page, StoreError> {
        self.store.list(cursor, limit, wanted).await
    }

    /// Whether the store answers.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn ready(&self) -> Result<(), StoreError> {
        self.store.ready().await
    }
}

impl KnownRecord {
    fn new(stored: StoredRecord, revision: Option<Revision>) -> Result<Self, StoreError> {
        let presented = stored.record.present().map_err(|_| StoreError::TooLarge)?;
        Ok(Self { stored, presented, revision })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    use crate::key_store::Directory;
    use crate::stored_record::tests::sample;

    fn records(folder: &std::path::Path) -> Records {
        Records::new(KeyStore::Directory(Directory::open(folder).expect("opens")), &Limits::default())
    }

    fn generated(key_id: &str) -> Generated {
        Generated { record: sample(key_id).record, addresses: BTreeMap::new() }
    }

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(10)
    }

    #[tokio::test]
    async fn a_key_that_comes_after_the_deadline_is_not_stored() {
        let folder = tempfile::tempdir().expect("folder");
        let records = records(folder.path());
        assert_eq!(records.create(generated("a"), Instant::now()).await.err(), Some(StoreError::TooLate));
        assert_eq!(std::fs::read_dir(folder.path()).expect("folder").count(), 0);
        assert_eq!(records.find(&"a".parse().expect("id")).await.err(), Some(StoreError::NotFound));
        assert!(records.create(generated("a"), soon()).await.is_ok(), "the name is free");
    }

    #[tokio::test]
    async fn only_what_the_enclave_accepted_is_cached() {
        let folder = tempfile::tempdir().expect("folder");
        records(folder.path()).create(generated("a"), soon()).await.expect("created");
        let records = records(folder.path());
        let id: KeyId = "a".parse().expect("id");
        let found = records.find(&id).await.expect("there");
        assert!(!found.cached);
        assert!(!records.find(&id).await.expect("there").cached, "finding is not accepting");
        records.accepted(found);
        assert!(records.find(&id).await.expect("there").cached);
    }

    #[tokio::test]
    async fn an_edited_or_removed_file_is_seen_at_once() {
        let folder = tempfile::tempdir().expect("folder");
        let records = records(folder.path());
        let id = records.create(generated("a"), soon()).await.expect("created").stored.key_id().clone();
        assert!(records.find(&id).await.expect("there").cached, "creation fills the cache");
        let mut changed = sample("a");
        changed.generation = 2;
        std::fs::write(folder.path().join("a.json"), changed.to_json().expect("encodes")).expect("written");
        assert_eq!(records.find(&id).await.expect("there").record.stored.generation, 2);
        std::fs::remove_file(folder.path().join("a.json")).expect("removed");
        assert_eq!(records.find(&id).await.err(), Some(StoreError::NotFound));
    }
}
