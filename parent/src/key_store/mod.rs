//! Where key records are kept: a folder, DynamoDB or Secrets Manager. A store never overwrites a key
//! and never believes what it reads back beyond its form; the enclave decides about the rest.

#[cfg(test)]
mod aws_double;
mod directory;
mod dynamodb;
mod secrets_manager;

use std::time::Duration;

use aws_config::SdkConfig;
use strongroom_protocol::KeyId;
use tokio::time::timeout;
use tracing::warn;

use crate::config::Store;
use crate::stored_record::StoredRecord;
pub use directory::Directory;
pub use dynamodb::DynamoDb;
pub use secrets_manager::SecretsManager;

/// One of the three stores.
#[derive(Debug, Clone)]
pub enum KeyStore {
    /// Files in a folder.
    Directory(Directory),
    /// Items of a table.
    DynamoDb(DynamoDb),
    /// Secrets under a prefix.
    SecretsManager(SecretsManager),
}

/// A record, as it is stored now.
#[derive(Debug, Clone)]
pub struct Fetched {
    /// The record.
    pub stored: StoredRecord,
    /// Which state of the store it is; `None` where asking would cost as much as fetching.
    pub revision: Option<Revision>,
}

/// What changes when a file does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Revision {
    modified_ns: i128,
    size: u64,
    inode: u64,
}

/// Some of a store's records.
#[derive(Debug)]
pub struct Page {
    /// In the store's order.
    pub records: Vec<StoredRecord>,
    /// Where to go on; `None` at the end.
    pub next: Option<String>,
}

/// Which records a list shows.
pub type Wanted = dyn Fn(&KeyId) -> bool + Send + Sync;

/// Why a store did not do what it was asked. Its log line says more than the caller learns.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// The caller's: no such key.
    #[error("no such key")]
    NotFound,
    /// The caller's: the key exists.
    #[error("the key exists")]
    Exists,
    /// The caller's: not a cursor of this store.
    #[error("not a cursor")]
    Cursor,
    /// Of whoever wrote there: what is stored is not a record of this key.
    #[error("the record of {0} is damaged")]
    Damaged(KeyId),
    /// The store's: not reachable, denied, or too slow.
    #[error("the store is not available")]
    Unavailable,
    /// The request's deadline passed before the record could be stored, so it was not.
    #[error("the deadline passed before the record was stored")]
    TooLate,
    /// Ours: the record does not fit its own encoding.
    #[error("the record is too large")]
    TooLarge,
}

/// How long a store may take for one answer.
const DEADLINE: Duration = Duration::from_secs(6);

impl KeyStore {
    /// Opens the configured store.
    ///
    /// # Errors
    /// The operator's: the folder cannot be made or read. The other two are first asked when needed.
    pub fn open(store: &Store, aws: &SdkConfig) -> std::io::Result<Self> {
        Ok(match store {
            Store::Directory { path } => Self::Directory(Directory::open(path)?),
            Store::DynamoDb { table } => Self::DynamoDb(DynamoDb::new(aws, table)),
            Store::SecretsManager { prefix } => Self::SecretsManager(SecretsManager::new(aws, prefix)),
        })
    }

    /// Stores a new key; an existing one stays as it is. Returns its revision.
    ///
    /// # Errors
    /// [`StoreError::Exists`]: someone created the key first. [`StoreError::Unavailable`]: whether the
    /// record was stored is not known; creating it again tells.
    pub async fn create(&self, stored: &StoredRecord) -> Result<Option<Revision>, StoreError> {
        let json = stored.to_json().map_err(|_| StoreError::TooLarge)?;
        in_time(async {
            match self {
                Self::Directory(store) => store.create(stored.key_id(), json).await.map(Some),
                Self::DynamoDb(store) => store.create(stored, json).await.map(|()| None),
                Self::SecretsManager(store) => store.create(stored.key_id(), json).await.map(|()| None),
            }
        })
        .await
    }

    /// Reads a key's record, as it is now.
    ///
    /// # Errors
    /// [`StoreError::NotFound`], [`StoreError::Damaged`] or [`StoreError::Unavailable`].
    pub async fn fetch(&self, key_id: &KeyId) -> Result<Fetched, StoreError> {
        in_time(async {
            match self {
                Self::Directory(store) => store.fetch(key_id).await,
                Self::DynamoDb(store) => store.fetch(key_id).await.map(without_revision),
                Self::SecretsManager(store) => store.fetch(key_id).await.map(without_revision),
            }
        })
        .await
    }

    /// Whether what was read at `revision` is still what is stored.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn is_current(&self, key_id: &KeyId, revision: Revision) -> Result<bool, StoreError> {
        match self {
            Self::Directory(store) => in_time(store.is_current(key_id, revision)).await,
            // Their records carry no revision; age alone takes them out of the cache.
            Self::DynamoDb(_) | Self::SecretsManager(_) => Ok(false),
        }
    }

    /// At most `limit` records that are `wanted`, from `cursor` on. What is damaged is left out, and named
    /// in the log: it must not cost others the list.
    ///
    /// # Errors
    /// [`StoreError::Cursor`] or [`StoreError::Unavailable`].
    pub async fn list(&self, cursor: Option<String>, limit: usize, wanted: &Wanted) -> Result<Page, StoreError> {
        in_time(async {
            match self {
                Self::Directory(store) => store.list(cursor, limit, wanted).await,
                Self::DynamoDb(store) => store.list(cursor, limit, wanted).await,
                Self::SecretsManager(store) => store.list(cursor, limit, wanted).await,
            }
        })
        .await
    }

    /// Whether the store answers; one cheap question.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn ready(&self) -> Result<(), StoreError> {
        in_time(async {
            match self {
                Self::Directory(store) => store.ready().await,
                Self::DynamoDb(store) => store.ready().await,
                Self::SecretsManager(store) => store.ready().await,
            }
        })
        .await
    }
}

async fn in_time<T>(answer: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
    timeout(DEADLINE, answer).await.unwrap_or_else(|_| {
        warn!("the key store did not answer in time");
        Err(StoreError::Unavailable)
    })
}

const fn without_revision(stored: StoredRecord) -> Fetched {
    Fetched { stored, revision: None }
}

/// Reads what is stored under a key's name; what is wrong with it goes to the log only.
fn read(key_id: &KeyId, json: &[u8]) -> Result<StoredRecord, StoreError> {
    StoredRecord::from_json(key_id, json).map_err(|damage| {
        warn!(%key_id, %damage, "a stored record is damaged");
        StoreError::Damaged(key_id.clone())
    })
}

/// A record for a list, unless it is damaged, which the log has by now, or was removed meanwhile.
fn listed(read: Result<StoredRecord, StoreError>) -> Result<Option<StoredRecord>, StoreError> {
    match read {
        Ok(record) => Ok(Some(record)),
        Err(StoreError::Damaged(_) | StoreError::NotFound) => Ok(None),
        Err(error) => Err(error),
    }
}

/// The code of an AWS error, for the log, and what it means for the caller. Messages stay out of the
/// log: AWS quotes requests in some.
fn unavailable<E, R>(what: &'static str, error: &aws_smithy_runtime_api::client::result::SdkError<E, R>) -> StoreError
where
    E: aws_smithy_types::error::metadata::ProvideErrorMetadata,
{
    let code = error.as_service_error().and_then(|e| e.code()).unwrap_or("not reached");
    warn!(code, "{what} failed");
    StoreError::Unavailable
}
