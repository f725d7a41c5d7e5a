//! Where key records are kept: a folder, DynamoDB or Secrets Manager. A store changes a record only if
//! it still is the one that was read, and never believes what it reads back beyond its form; the enclave
//! decides about the rest.

#[cfg(test)]
pub(crate) mod aws_double;
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
pub use directory::{Directory, FileRevision};
pub use dynamodb::{DynamoDb, ItemRevision};
pub use secrets_manager::{SecretRevision, SecretsManager};

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
    /// What was read exactly.
    pub revision: Revision,
}

/// One writing of a record, told from every other, also from one of the same content: what a change
/// names to be made only if nobody else made one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Revision {
    /// In the directory.
    File(FileRevision),
    /// In DynamoDB.
    Item(ItemRevision),
    /// In Secrets Manager.
    Secret(SecretRevision),
}

/// Some of a store's records.
#[derive(Debug, Default)]
pub struct Page {
    /// In the store's order.
    pub records: Vec<StoredRecord>,
    /// Keys on this page whose records are damaged or cannot be read.
    pub damaged: Vec<KeyId>,
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
    /// The caller's, or a race that it lost: the record is not the one that was to be changed.
    #[error("the record was changed meanwhile")]
    GenerationLost,
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
    pub async fn create(&self, stored: &StoredRecord) -> Result<Revision, StoreError> {
        let json = stored.to_json().map_err(|_| StoreError::TooLarge)?;
        in_time(async {
            match self {
                Self::Directory(store) => store.create(stored.key_id(), json).await.map(Revision::File),
                Self::DynamoDb(store) => store.create(stored, json).await.map(Revision::Item),
                Self::SecretsManager(store) => store.create(stored.key_id(), json).await.map(Revision::Secret),
            }
        })
        .await
    }

    /// Stores `next` in place of exactly what was read at `revision`. Returns its revision.
    ///
    /// # Errors
    /// [`StoreError::GenerationLost`]: something else is stored by now, and stays. [`StoreError::Unavailable`]:
    /// whether the record was stored is not known; reading it tells.
    pub async fn replace(&self, revision: &Revision, next: &StoredRecord) -> Result<Revision, StoreError> {
        let json = next.to_json().map_err(|_| StoreError::TooLarge)?;
        in_time(async {
            match (self, revision) {
                (Self::Directory(store), Revision::File(old)) => {
                    store.replace(next.key_id(), old, json).await.map(Revision::File)
                }
                (Self::DynamoDb(store), Revision::Item(old)) => {
                    store.replace(old, next, json).await.map(Revision::Item)
                }
                (Self::SecretsManager(store), Revision::Secret(old)) => {
                    store.replace(next.key_id(), old, json).await.map(Revision::Secret)
                }
                // A revision of another store is none of this one's.
                _ => Err(StoreError::GenerationLost),
            }
        })
        .await
    }

    /// Deletes a key, if it still is exactly what was read at `revision`.
    ///
    /// # Errors
    /// As of [`KeyStore::replace`].
    pub async fn delete(&self, key_id: &KeyId, revision: &Revision) -> Result<(), StoreError> {
        in_time(async {
            match (self, revision) {
                (Self::Directory(store), Revision::File(old)) => store.delete(key_id, old).await,
                (Self::DynamoDb(store), Revision::Item(old)) => store.delete(key_id, old).await,
                (Self::SecretsManager(store), Revision::Secret(old)) => store.delete(key_id, old).await,
                _ => Err(StoreError::GenerationLost),
            }
        })
        .await
    }

    /// Finishes what a deletion left that was interrupted; nothing, if there is nothing.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn finish_deletion(&self, key_id: &KeyId) -> Result<(), StoreError> {
        match self {
            // Theirs is one step.
            Self::Directory(_) | Self::DynamoDb(_) => Ok(()),
            Self::SecretsManager(store) => in_time(store.finish_deletion(key_id)).await,
        }
    }

    /// Reads a key's record, as it is now.
    ///
    /// # Errors
    /// [`StoreError::NotFound`], [`StoreError::Damaged`] or [`StoreError::Unavailable`].
    pub async fn fetch(&self, key_id: &KeyId) -> Result<Fetched, StoreError> {
        in_time(async {
            match self {
                Self::Directory(store) => store.fetch(key_id).await,
                Self::DynamoDb(store) => store.fetch(key_id).await,
                Self::SecretsManager(store) => store.fetch(key_id).await,
            }
        })
        .await
    }

    /// Whether what was read at `revision` is still what is stored; `None` if asking would cost as much as
    /// reading it again.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn is_current(&self, key_id: &KeyId, revision: &Revision) -> Result<Option<bool>, StoreError> {
        match (self, revision) {
            (Self::Directory(store), Revision::File(revision)) => {
                in_time(store.is_current(key_id, revision)).await.map(Some)
            }
            _ => Ok(None),
        }
    }

    /// At most `limit` records that are `wanted`, from `cursor` on. What is damaged is named, and must not
    /// cost others the list.
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

impl Page {
    /// Whether `limit` keys are on the page.
    const fn is_full(&self, limit: usize) -> bool {
        self.records.len() + self.damaged.len() >= limit
    }

    /// Puts on the page what was read under a key's name, unless the key was removed meanwhile.
    fn push(&mut self, read: Result<StoredRecord, StoreError>) -> Result<(), StoreError> {
        match read {
            Ok(record) => self.records.push(record),
            Err(StoreError::Damaged(key_id)) => self.damaged.push(key_id),
            Err(StoreError::NotFound) => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }
}

async fn in_time<T>(answer: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
    timeout(DEADLINE, answer).await.unwrap_or_else(|_| {
        warn!("the key store did not answer in time");
        Err(StoreError::Unavailable)
    })
}

/// Reads what is stored under a key's name; what is wrong with it goes to the log only.
fn read(key_id: &KeyId, json: &[u8]) -> Result<StoredRecord, StoreError> {
    StoredRecord::from_json(key_id, json).map_err(|damage| {
        warn!(%key_id, %damage, "a stored record is damaged");
        StoreError::Damaged(key_id.clone())
    })
}

/// A name for one writing, by which its writer knows it again: the SDK repeats a write whose answer was
/// lost, and must not take its own for another's. 32 hex digits.
fn writing_token() -> Result<String, StoreError> {
    let mut random = [0; 16];
    getrandom::fill(&mut random).map_err(|_| StoreError::Unavailable)?;
    Ok(hex::encode(random))
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
