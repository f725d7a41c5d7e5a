//! How long a key lives in memory. Lets concurrent requests for one record share one unlock, holds
//! opened keys for as long as their bound policy and the configuration allow, wipes. How a record is
//! opened is `wrapping`'s matter.
//!
//! Everything is keyed by SHA-256 of the *whole presented record*, never by key id, and an entry
//! carries the policy that was authenticated with it: a changed record is another record.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sha2::{Digest, Sha256};
use strongroom_protocol::{ErrorCode, PresentedRecord};
use tokio::sync::{Notify, OnceCell};
use tokio::time::{Instant, sleep_until};

use crate::wrapping::{OpenedKey, Wrapping};

/// What a configuration allows the keyring.
pub(crate) struct Limits {
    /// Caps every policy's hold time.
    pub(crate) max_hold: Duration,
    /// Keys held at one time.
    pub(crate) max_held: usize,
}

/// The opened keys.
pub(crate) struct Keyring {
    wrapping: Arc<Wrapping>,
    limits: Limits,
    held: Mutex<Held>,
    unlocks: Mutex<HashMap<RecordHash, Arc<Unlock>>>,
    /// Wakes the sweeper when something with a nearer end is held.
    earlier: Notify,
}

type RecordHash = [u8; 32];
type Unlock = OnceCell<Result<Arc<OpenedKey>, ErrorCode>>;

impl Keyring {
    /// An empty ring, and the task that wipes what expires.
    pub(crate) fn start(wrapping: Arc<Wrapping>, limits: Limits) -> Arc<Self> {
        let (held, unlocks) = (Mutex::default(), Mutex::default());
        let keyring = Arc::new(Self { wrapping, limits, held, unlocks, earlier: Notify::new() });
        tokio::spawn(Arc::clone(&keyring).sweep());
        keyring
    }

    /// The key of a record: held, or opened by one attested Decrypt that everybody who asks for this
    /// record meanwhile shares. No lock is held across the call.
    pub(crate) async fn open(&self, presented: &PresentedRecord) -> Result<Arc<OpenedKey>, ErrorCode> {
        let hash: RecordHash = Sha256::digest(&**presented).into();
        if let Some(key) = lock(&self.held).find(&hash, Instant::now()) {
            return Ok(key);
        }
        let unlock = Arc::clone(lock(&self.unlocks).entry(hash).or_default());
        // If the request that opens is given up, `OnceCell` lets the next one take over.
        // In a box, for a request is as long as its longest way, and most keys are held.
        let opened = Box::pin(unlock.get_or_init(|| self.open_and_hold(hash, presented)));
        opened.await.clone()
    }

    /// Keys held now.
    pub(crate) fn held_keys(&self) -> u32 {
        u32::try_from(lock(&self.held).keys.len()).unwrap_or(u32::MAX)
    }

    async fn open_and_hold(&self, hash: RecordHash, presented: &PresentedRecord) -> Result<Arc<OpenedKey>, ErrorCode> {
        // Hold time runs from the Decrypt and use never extends it: a revocation in KMS takes effect
        // after at most that.
        let asked = Instant::now();
        // Somebody else's unlock may have ended between our look at the held keys and our turn.
        if let Some(key) = lock(&self.held).find(&hash, asked) {
            lock(&self.unlocks).remove(&hash);
            return Ok(key);
        }
        let key = self.wrapping.open(presented).await.map(Arc::new);
        if let Ok(key) = &key {
            let hold = Duration::from_secs(u64::from(key.policy.hold_seconds())).min(self.limits.max_hold);
            if !hold.is_zero() && lock(&self.held).insert(hash, Arc::clone(key), asked + hold, self.limits.max_held) {
                self.earlier.notify_one();
            }
        }
        // Whoever asks from here on finds it held, or opens it anew.
        lock(&self.unlocks).remove(&hash);
        key
    }

    /// Wipes each held key when its time is over, used or not.
    async fn sweep(self: Arc<Self>) {
        loop {
            let next = lock(&self.held).drop_expired(Instant::now());
            match next {
                None => self.earlier.notified().await,
                Some(end) => tokio::select! {
                    () = sleep_until(end) => {}
                    () = self.earlier.notified() => {}
                },
            }
        }
    }
}

/// Held keys by record, and by the time at which they end.
#[derive(Default)]
struct Held {
    keys: HashMap<RecordHash, (Arc<OpenedKey>, Instant)>,
    ends: BTreeSet<(Instant, RecordHash)>,
}

impl Held {
    fn find(&self, hash: &RecordHash, now: Instant) -> Option<Arc<OpenedKey>> {
        self.keys.get(hash).filter(|(_, end)| now < *end).map(|(key, _)| Arc::clone(key))
    }

    /// Whether this key's end is now the nearest. At capacity the key with the nearest end goes.
    fn insert(&mut self, hash: RecordHash, key: Arc<OpenedKey>, end: Instant, capacity: usize) -> bool {
        if capacity == 0 {
            return false;
        }
        self.remove(&hash);
        while self.keys.len() >= capacity {
            let Some((_, first)) = self.ends.first().copied() else { break };
            self.remove(&first);
        }
        self.keys.insert(hash, (key, end));
        self.ends.insert((end, hash));
        self.ends.first().is_some_and(|(_, first)| *first == hash)
    }

    fn remove(&mut self, hash: &RecordHash) {
        if let Some((_, end)) = self.keys.remove(hash) {
            self.ends.remove(&(end, *hash));
        }
    }

    /// Drops what is over; the next end.
    fn drop_expired(&mut self, now: Instant) -> Option<Instant> {
        while let Some((end, hash)) = self.ends.first().copied() {
            if now < end {
                return Some(end);
            }
            self.remove(&hash);
        }
        None
    }
}

/// A panic while a lock was held leaves maps of `Arc`s that are still maps of `Arc`s.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
