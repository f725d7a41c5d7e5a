//! The records that the parent works with: from the store, and cached. The cache saves reading, never
//! judging: a record that the enclave refuses is not kept.
//!
//! A cached record is good for `cache_seconds`, or until the next look where it is a file; then the store is asked again. While the store is away
//! or gives nothing readable, what it last had is what there is, for `cache_stale_seconds`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use moka::ops::compute::Op;
use moka::sync::Cache;
use strongroom_protocol::{Created, KeyId, KeyRecord, PresentedRecord};
use time::OffsetDateTime;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout};
use tracing::warn;

use crate::config::Limits;
use crate::key_state::State;
use crate::key_store::{Fetched, KeyStore, Page, Revision, StoreError, Wanted};
use crate::stored_record::StoredRecord;

/// The store with its cache.
#[derive(Debug, Clone)]
pub struct Records {
    store: KeyStore,
    cache: Cache<KeyId, Arc<Cached>>,
    /// How long a cached record is used without asking.
    lifetime: Duration,
    /// How often in a row the store gave no answer.
    failures: Arc<AtomicU32>,
    /// Questions about cached records that are on their way.
    refreshes: Arc<Semaphore>,
    spare: Arc<SpareLooks>,
}

/// A generic cell rate algorithm (ITU-T I.371): when the next look would be due if all kept to the rate.
#[derive(Debug)]
struct SpareLooks {
    started: Instant,
    /// In microseconds after `started`.
    due: AtomicU64,
}

/// A record and its encoded form, which is made once.
#[derive(Debug)]
pub struct KnownRecord {
    /// As it is stored.
    pub stored: StoredRecord,
    /// As it is presented to the enclave.
    pub presented: PresentedRecord,
    revision: Revision,
}

/// A record that was looked for.
#[derive(Debug, Clone)]
pub struct Found {
    /// The record.
    pub record: Arc<KnownRecord>,
    /// Whether it is one that the enclave accepted before, so that the store may have another one by now.
    pub cached: bool,
    /// The store had it at this time, and perhaps no longer.
    as_of: Instant,
}

/// A record in the cache.
#[derive(Debug)]
struct Cached {
    record: Arc<KnownRecord>,
    as_of: Instant,
    /// Whether the enclave has seen these bytes and taken them. If not, it came in by a change or a
    /// refresh, and goes if the enclave refuses it.
    accepted: bool,
    /// It is not known whether the store has changed.
    doubtful: AtomicBool,
    /// When its file was last looked at, in milliseconds after `as_of`.
    looked_at: AtomicU64,
    /// When the store last had no answer about it. Held by whoever asks; others wait for the answer.
    refused_at: tokio::sync::Mutex<Option<Instant>>,
}

/// How long a look at a file counts at most. Each costs a hop to a thread that may wait for a disk.
const LOOK: Duration = Duration::from_secs(1);

/// Requests look more often, each of them, as long as there are not more than one in so many microseconds...
const SPARE_LOOK_US: u64 = 2_000;
/// ... for longer than this.
const SPARE_BURST_US: u64 = 500_000;

/// How long a request for a cached record waits for the store.
const PATIENCE: Duration = Duration::from_millis(500);

/// How long a store that had no answer about a record is not asked about it again.
const PAUSE: Duration = Duration::from_secs(1);

/// After so many failures in a row the store is taken to be away: it is still asked, but nobody waits.
const AWAY: u32 = 3;

/// Questions about cached records at one time, so that a store that hangs does not collect them.
const MAX_REFRESHES: usize = 64;

impl Records {
    /// Works on `store`, with a cache of these limits.
    #[must_use]
    pub fn new(store: KeyStore, limits: &Limits) -> Self {
        let lifetime = Duration::from_secs(limits.cache_seconds.into());
        // Without a lifetime there is no cache, and nothing that could be stale.
        let kept = if lifetime.is_zero() { lifetime } else { lifetime + limits.cache_stale() };
        let cache = Cache::builder().max_capacity(limits.cache_records.into()).time_to_live(kept).build();
        let refreshes = Arc::new(Semaphore::new(MAX_REFRESHES));
        let spare = Arc::new(SpareLooks { started: Instant::now(), due: AtomicU64::new(0) });
        Self { store, cache, lifetime, failures: Arc::default(), refreshes, spare }
    }

    /// A key's record to work with: from the cache while it is good, or while the store is away.
    ///
    /// # Errors
    /// The store's.
    pub async fn find(&self, key_id: &KeyId) -> Result<Found, StoreError> {
        let Some(cached) = self.cache.get(key_id) else { return self.find_afresh(key_id).await };
        let away = self.is_away();
        if self.is_good(key_id, &cached).await || away && cached.is_asked_about() {
            return Ok(cached.found());
        }
        // A task of its own: an answer that this request does not wait for is there for the next one.
        let asking = tokio::spawn(self.clone().refresh(Arc::clone(&cached)));
        if away {
            return Ok(cached.found());
        }
        match timeout(PATIENCE, asking).await {
            Ok(refreshed) => refreshed.unwrap_or(Err(StoreError::Unavailable)),
            Err(_) => {
                self.failed();
                Ok(cached.found())
            }
        }
    }

    /// A key's record, as the store has it now.
    ///
    /// # Errors
    /// The store's.
    pub async fn find_afresh(&self, key_id: &KeyId) -> Result<Found, StoreError> {
        let as_of = Instant::now();
        let fetched = self.store.fetch(key_id).await;
        match fetched {
            Err(StoreError::Unavailable) => self.failed(),
            _ => self.failures.store(0, Ordering::Relaxed),
        }
        let Fetched { stored, revision } = fetched?;
        let presented = present(&stored)?;
        Ok(Found { record: Arc::new(KnownRecord { stored, presented, revision }), cached: false, as_of })
    }

    /// A key's record to look at: as the store has it now, or, while the store is away, as it last had it.
    ///
    /// # Errors
    /// The store's.
    pub async fn show(&self, key_id: &KeyId) -> Result<Arc<KnownRecord>, StoreError> {
        let read = self.find_afresh(key_id).await.map(|found| self.noticed(found));
        match read {
            Err(StoreError::Unavailable) => {
                self.cache.get(key_id).map(|c| Arc::clone(&c.record)).ok_or(StoreError::Unavailable)
            }
            read => read,
        }
    }

    /// A key's record to be changed: as the store has it now.
    ///
    /// # Errors
    /// [`StoreError::GenerationLost`]: the caller means another generation. Otherwise the store's.
    pub async fn find_to_change(
        &self,
        key_id: &KeyId,
        generation: Option<u64>,
    ) -> Result<Arc<KnownRecord>, StoreError> {
        let record = self.noticed(self.find_afresh(key_id).await?);
        match generation {
            Some(generation) if generation != record.stored.generation => Err(StoreError::GenerationLost),
            _ => Ok(record),
        }
    }

    /// What was read for another reason also renews what is cached: whoever was told of it may rely on it.
    fn noticed(&self, found: Found) -> Arc<KnownRecord> {
        if self.cache.contains_key(found.record.stored.key_id()) {
            self.keep(Arc::clone(&found.record), found.as_of, self.has_accepted(&found.record));
        }
        found.record
    }

    /// Keeps a record that the enclave has just accepted.
    pub fn accepted(&self, found: Found) {
        if !found.cached {
            self.keep(found.record, found.as_of, true);
        }
    }

    /// Forgets a record that the enclave has just refused, unless it accepted the same before.
    pub fn refused(&self, found: &Found) {
        self.cache.entry(found.record.stored.key_id().clone()).and_compute_with(|there| match there {
            Some(there) if !there.value().accepted && there.value().record.presented == found.record.presented => {
                Op::Remove
            }
            _ => Op::Nop,
        });
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
    pub async fn create(&self, created: Created, deadline: Instant) -> Result<Arc<KnownRecord>, StoreError> {
        check_in_time(deadline)?;
        let Created { record, addresses } = created;
        let stored = StoredRecord::new(record, addresses, OffsetDateTime::now_utc());
        let presented = present(&stored)?;
        let revision = self.store.create(&stored).await?;
        let record = Arc::new(KnownRecord { stored, presented, revision });
        self.keep(Arc::clone(&record), Instant::now(), true);
        Ok(record)
    }

    /// Stores a key's next version, with another state.
    ///
    /// # Errors
    /// As of [`KeyStore::replace`].
    pub async fn change_state(&self, old: &KnownRecord, state: State) -> Result<Arc<KnownRecord>, StoreError> {
        let record = self.replace(old, old.stored.record.clone(), state).await?;
        self.keep(Arc::clone(&record), Instant::now(), self.has_accepted(&record));
        Ok(record)
    }

    /// Stores a key's next version, with a record that the enclave has just made of the old one and opened.
    ///
    /// # Errors
    /// [`StoreError::TooLate`]: the caller has been told of a failure; nothing is changed. Otherwise as of
    /// [`KeyStore::replace`].
    pub async fn change_record(
        &self,
        old: &KnownRecord,
        record: KeyRecord,
        deadline: Instant,
    ) -> Result<Arc<KnownRecord>, StoreError> {
        check_in_time(deadline)?;
        let record = self.replace(old, record, old.stored.state).await?;
        self.keep(Arc::clone(&record), Instant::now(), true);
        Ok(record)
    }

    /// Deletes a key.
    ///
    /// # Errors
    /// As of [`KeyStore::delete`].
    pub async fn delete(&self, old: &KnownRecord) -> Result<(), StoreError> {
        let key_id = old.stored.key_id();
        let deleted = self.store.delete(key_id, &old.revision).await;
        // Also if it is not known whether it was: the store will tell.
        self.cache.invalidate(key_id);
        deleted
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

    /// Finishes what a deletion left that was interrupted.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn finish_deletion(&self, key_id: &KeyId) -> Result<(), StoreError> {
        self.store.finish_deletion(key_id).await
    }

    async fn replace(
        &self,
        old: &KnownRecord,
        record: KeyRecord,
        state: State,
    ) -> Result<Arc<KnownRecord>, StoreError> {
        let stored = old.stored.next(record, state).ok_or(StoreError::TooLarge)?;
        let presented = present(&stored)?;
        let replaced = self.store.replace(&old.revision, &stored).await;
        if replaced.is_err()
            && let Some(cached) = self.cache.get(stored.key_id())
        {
            // It was changed by somebody else, or perhaps after all by us.
            cached.doubtful.store(true, Ordering::Relaxed);
        }
        Ok(Arc::new(KnownRecord { stored, presented, revision: replaced? }))
    }

    /// Asks the store again about a cached record, and keeps what it has.
    async fn refresh(self, cached: Arc<Cached>) -> Result<Found, StoreError> {
        let key_id = cached.record.stored.key_id();
        let mut refused_at = cached.refused_at.lock().await;
        match self.cache.get(key_id) {
            Some(newer) if !Arc::ptr_eq(&newer, &cached) => return Ok(newer.found()),
            _ if is_recent(*refused_at) => return Ok(cached.found()),
            _ => {}
        }
        let _place = self.refreshes.acquire().await.map_err(|_| StoreError::Unavailable)?;
        match self.find_afresh(key_id).await {
            Ok(found) => {
                let known = self.has_accepted(&found.record);
                self.keep(Arc::clone(&found.record), found.as_of, known);
                Ok(Found { cached: known, ..found })
            }
            Err(StoreError::NotFound) => {
                self.cache.invalidate(key_id);
                Err(StoreError::NotFound)
            }
            Err(error) => {
                *refused_at = Some(Instant::now());
                warn!(%key_id, %error, "a record cannot be read again; what the store last had is used");
                Ok(cached.found())
            }
        }
    }

    /// Whether a cached record can be used without reading it again. A file can be looked at instead, so that a
    /// change shows at once, and within [`LOOK`] where requests are too many for that.
    async fn is_good(&self, key_id: &KeyId, cached: &Cached) -> bool {
        if matches!(cached.record.revision, Revision::File(_)) && !cached.is_to_be_looked_at() && !self.spare.take() {
            return true;
        }
        match timeout(PATIENCE, self.store.is_current(key_id, &cached.record.revision)).await {
            Ok(Ok(Some(current))) => current,
            Ok(Ok(None)) => !cached.doubtful.load(Ordering::Relaxed) && cached.as_of.elapsed() < self.lifetime,
            Ok(Err(_)) | Err(_) => true,
        }
    }

    /// Whether the enclave accepted these very bytes, whatever the parent notes beside them.
    fn has_accepted(&self, record: &KnownRecord) -> bool {
        let cached = self.cache.get(record.stored.key_id());
        cached.is_some_and(|cached| cached.accepted && cached.record.presented == record.presented)
    }

    /// Caches a record, unless what is cached is newer: the store had it later, or it is a later generation
    /// and still good. (Of two writes, the answer to the first may come last; and a store may show for a
    /// moment what it had before.)
    fn keep(&self, record: Arc<KnownRecord>, as_of: Instant, accepted: bool) {
        let newer = |there: &Cached| {
            let (old, new) = (&there.record.stored, &record.stored);
            let later = old.created_at == new.created_at && old.generation > new.generation;
            there.as_of > as_of || later && there.as_of.elapsed() < self.lifetime
        };
        self.cache.entry(record.stored.key_id().clone()).and_compute_with(|there| match there {
            Some(there) if newer(there.value()) => Op::Nop,
            _ => Op::Put(Arc::new(Cached {
                record: Arc::clone(&record),
                as_of,
                accepted,
                doubtful: AtomicBool::new(false),
                looked_at: AtomicU64::new(0),
                refused_at: tokio::sync::Mutex::default(),
            })),
        });
    }

    fn is_away(&self) -> bool {
        self.failures.load(Ordering::Relaxed) >= AWAY
    }

    fn failed(&self) {
        let _ = self.failures.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| Some(n.saturating_add(1)));
    }
}

impl SpareLooks {
    fn take(&self) -> bool {
        let now = u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX);
        let next = |due: u64| {
            let due = due.max(now);
            (due - now <= SPARE_BURST_US).then_some(due + SPARE_LOOK_US)
        };
        self.due.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next).is_ok()
    }
}

impl Cached {
    /// Whether it is this request's turn to look at the file. Others use what there is meanwhile.
    fn is_to_be_looked_at(&self) -> bool {
        let now = u64::try_from(self.as_of.elapsed().as_millis()).unwrap_or(u64::MAX);
        let last = self.looked_at.load(Ordering::Relaxed);
        let due = Duration::from_millis(now - last.min(now)) >= LOOK || self.doubtful.load(Ordering::Relaxed);
        due && self.looked_at.compare_exchange(last, now, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }

    /// Whether the store is being asked about it, or was a moment ago and had no answer.
    fn is_asked_about(&self) -> bool {
        self.refused_at.try_lock().map_or(true, |refused_at| is_recent(*refused_at))
    }

    fn found(&self) -> Found {
        Found { record: Arc::clone(&self.record), cached: self.accepted, as_of: self.as_of }
    }
}

fn is_recent(refused_at: Option<Instant>) -> bool {
    refused_at.is_some_and(|at| at.elapsed() < PAUSE)
}

fn present(stored: &StoredRecord) -> Result<PresentedRecord, StoreError> {
    stored.record.present().map_err(|_| StoreError::TooLarge)
}

fn check_in_time(deadline: Instant) -> Result<(), StoreError> {
    if Instant::now() < deadline { Ok(()) } else { Err(StoreError::TooLate) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;
    use std::sync::Mutex;
    use std::sync::atomic::AtomicUsize;

    use serde_json::json;

    use crate::key_store::aws_double::{answering, refusal};
    use crate::key_store::{Directory, DynamoDb};
    use crate::stored_record::tests::sample;

    fn records(folder: &std::path::Path) -> Records {
        Records::new(KeyStore::Directory(Directory::open(folder).expect("opens")), &Limits::default())
    }

    fn generated(key_id: &str) -> Created {
        Created { record: sample(key_id).record, addresses: BTreeMap::new() }
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

    /// A table with the keys `a` to `z` in this state, until it is told to fail.
    async fn table(failing: Arc<AtomicBool>, state: Arc<Mutex<State>>) -> (Records, Arc<AtomicUsize>) {
        let reads = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&reads);
        let aws = answering(move |_, request| {
            counter.fetch_add(1, Ordering::SeqCst);
            if failing.load(Ordering::SeqCst) {
                return refusal("AccessDeniedException");
            }
            let id = request["Key"]["key_id"]["S"].as_str().expect("an id");
            let stored = StoredRecord { state: *state.lock().expect("unpoisoned"), ..sample(id) };
            let json = stored.to_json().expect("encodes");
            Ok(json!({ "Item": { "key_id": { "S": id }, "record": { "S": json } } }))
        })
        .await;
        (Records::new(KeyStore::DynamoDb(DynamoDb::new(&aws, "keys")), &Limits::default()), reads)
    }

    #[tokio::test]
    async fn a_record_is_read_again_when_its_time_is_over() {
        let state = Arc::new(Mutex::new(State::Enabled));
        let (mut records, reads) = table(Arc::default(), Arc::clone(&state)).await;
        let id: KeyId = "a".parse().expect("id");
        records.accepted(records.find(&id).await.expect("there"));
        *state.lock().expect("unpoisoned") = State::Disabled;
        assert_eq!(records.find(&id).await.expect("there").record.stored.state, State::Enabled, "not asked yet");
        assert_eq!(reads.load(Ordering::SeqCst), 1);
        records.lifetime = Duration::ZERO;
        let found = records.find(&id).await.expect("there");
        assert_eq!((found.record.stored.state, found.cached), (State::Disabled, true), "the enclave knows its bytes");
        records.lifetime = Duration::from_secs(60);
        assert_eq!(records.find(&id).await.expect("there").record.stored.state, State::Disabled);
        assert_eq!(reads.load(Ordering::SeqCst), 2, "and it is kept");
    }

    #[tokio::test]
    async fn what_is_read_to_be_shown_or_changed_counts_at_once() {
        let state = Arc::new(Mutex::new(State::Disabled));
        let (records, _) = table(Arc::default(), Arc::clone(&state)).await;
        let id: KeyId = "a".parse().expect("id");
        records.accepted(records.find(&id).await.expect("there"));
        // Another parent enables it, and a caller here finds that there is nothing to change.
        *state.lock().expect("unpoisoned") = State::Enabled;
        assert_eq!(records.find_to_change(&id, None).await.expect("there").stored.state, State::Enabled);
        assert_eq!(records.find(&id).await.expect("there").record.stored.state, State::Enabled);
        *state.lock().expect("unpoisoned") = State::Disabled;
        assert_eq!(records.show(&id).await.expect("there").stored.state, State::Disabled);
        assert_eq!(records.find(&id).await.expect("there").record.stored.state, State::Disabled);
    }

    #[tokio::test]
    async fn a_store_that_is_away_is_asked_about_a_cached_record_once_a_second() {
        let failing = Arc::new(AtomicBool::new(false));
        let (mut records, reads) = table(Arc::clone(&failing), Arc::new(Mutex::new(State::Enabled))).await;
        let id: KeyId = "a".parse().expect("id");
        records.accepted(records.find(&id).await.expect("there"));
        failing.store(true, Ordering::SeqCst);
        records.lifetime = Duration::ZERO;
        for _ in 0..50 {
            assert!(records.find(&id).await.expect("cached").cached);
        }
        let asked = reads.load(Ordering::SeqCst);
        assert!((2..=4).contains(&asked), "{asked} questions for 50 requests");
        assert!(records.show(&id).await.is_ok());
        let unknown = records.find(&"b".parse().expect("id")).await;
        assert_eq!(unknown.err(), Some(StoreError::Unavailable));
    }

    #[tokio::test]
    async fn a_key_that_cannot_be_read_does_not_keep_others_from_being_read_again() {
        let folder = tempfile::tempdir().expect("folder");
        let records = records(folder.path());
        let id = records.create(generated("a"), soon()).await.expect("created").stored.key_id().clone();
        for _ in 0..10 {
            records.failed();
        }
        assert!(records.is_away());
        let mut changed = sample("a");
        changed.generation = 2;
        std::fs::write(folder.path().join("a.json"), changed.to_json().expect("encodes")).expect("written");
        // The first answer may be the old one: nobody waits for a store that is away.
        let seen = async || records.find(&id).await.expect("there").record.stored.generation;
        while seen().await != 2 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert!(!records.is_away(), "it answered");
    }

    #[tokio::test]
    async fn a_key_that_is_disabled_while_it_is_being_opened_is_disabled_afterwards() {
        let folder = tempfile::tempdir().expect("folder");
        records(folder.path()).create(generated("a"), soon()).await.expect("created");
        let records = records(folder.path());
        let id: KeyId = "a".parse().expect("id");
        let opening = records.find(&id).await.expect("there");
        let disabled = records.change_state(&opening.record, State::Disabled).await.expect("changed");
        records.accepted(opening);
        let kept = records.cache.get(&id).expect("cached");
        assert_eq!(kept.record.stored, disabled.stored);
        assert!(!kept.accepted, "the enclave has the last word on it");
    }

    #[tokio::test]
    async fn a_record_that_the_enclave_refuses_is_not_kept() {
        let folder = tempfile::tempdir().expect("folder");
        let records = records(folder.path());
        let created = records.create(generated("a"), soon()).await.expect("created");
        let id = created.stored.key_id();
        let found = records.find(id).await.expect("there");
        records.refused(&found);
        assert!(records.cache.get(id).is_some(), "it was accepted before: KMS may have its reasons today");
        let mut record = created.stored.record.clone();
        record.ciphertext = strongroom_protocol::ByteString::try_from(vec![9; 60]).expect("short");
        let tampered = created.stored.next(record, State::Enabled).expect("a generation");
        std::fs::write(folder.path().join("a.json"), tampered.to_json().expect("encodes")).expect("written");
        let found = records.find(id).await.expect("there");
        assert!(!found.cached);
        records.refused(&found);
        assert!(records.cache.get(id).is_none());
    }

    #[tokio::test]
    async fn what_was_read_before_a_change_does_not_take_its_place() {
        let folder = tempfile::tempdir().expect("folder");
        let records = records(folder.path());
        let created = records.create(generated("a"), soon()).await.expect("created");
        let as_of = Instant::now();
        let changed = records.change_state(&created, State::Disabled).await.expect("changed");
        records.keep(created, as_of, true);
        let kept = records.cache.get(changed.stored.key_id()).expect("cached");
        assert_eq!(kept.record.stored.state, State::Disabled);
    }

    #[tokio::test]
    async fn a_change_of_what_is_not_stored_any_more_is_refused() {
        let folder = tempfile::tempdir().expect("folder");
        let records = records(folder.path());
        let first = records.create(generated("a"), soon()).await.expect("created");
        let id = first.stored.key_id();
        records.change_state(&first, State::Disabled).await.expect("changed");
        assert_eq!(records.change_state(&first, State::Disabled).await.err(), Some(StoreError::GenerationLost));
        assert_eq!(records.find_to_change(id, Some(1)).await.err(), Some(StoreError::GenerationLost));
        let second = records.find_to_change(id, Some(2)).await.expect("there");
        let late = records.change_record(&second, second.stored.record.clone(), Instant::now()).await;
        assert_eq!(late.err(), Some(StoreError::TooLate));
        assert_eq!(records.delete(&first).await, Err(StoreError::GenerationLost));
        assert_eq!(records.delete(&second).await, Ok(()));
        assert_eq!(records.find(id).await.err(), Some(StoreError::NotFound));
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
