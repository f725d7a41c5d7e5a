//! The recipient: an RSA key and a document that names it, made ahead of need and replaced regularly.
//! Neither RSA generation (25-160 ms) nor the NSM is ever in the path of an unlock.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::task::spawn_blocking;

use crate::attest::{Nsm, NsmError};
use crate::cms::RecipientKey;

/// A document serves this long. KMS's own limit is not documented; reports say five minutes or none.
const DOCUMENT_LIFE: Duration = Duration::from_secs(60);
/// A key serves this many documents.
const DOCUMENTS_PER_KEY: u32 = 15;
/// A document younger than this counts as just made: its leaf certificate was valid a moment ago.
const JUST_MADE: Duration = Duration::from_secs(5);

/// A key and a fresh document about it.
pub(super) struct Recipient {
    key: Arc<RecipientKey>,
    document: Vec<u8>,
    made: Instant,
}

/// The recipient in service.
pub(super) struct Recipients {
    nsm: Nsm,
    current: Mutex<Option<Arc<Recipient>>>,
    /// Taken while a new one is made, so that many who need it make one.
    renewing: tokio::sync::Mutex<()>,
}

impl Recipient {
    pub(super) fn key(&self) -> &RecipientKey {
        &self.key
    }

    pub(super) fn document(&self) -> &[u8] {
        &self.document
    }

    /// Whether the document was made for an earlier call.
    pub(super) fn is_reused(&self) -> bool {
        self.made.elapsed() > JUST_MADE
    }

    fn is_fresh(&self) -> bool {
        self.made.elapsed() < 2 * DOCUMENT_LIFE
    }
}

impl Recipients {
    /// None is ready yet.
    pub(super) fn new(nsm: Nsm) -> Arc<Self> {
        Arc::new(Self { nsm, current: Mutex::default(), renewing: tokio::sync::Mutex::default() })
    }

    /// The recipient in service. Waits only where none is ready: just after Configure, or after the
    /// whole machine stood still.
    pub(super) async fn current(&self) -> Result<Arc<Recipient>, NsmError> {
        if let Some(recipient) = self.ready() {
            return Ok(recipient);
        }
        let _renewing = self.renewing.lock().await;
        match self.ready() {
            Some(recipient) => Ok(recipient),
            None => self.renew(None).await,
        }
    }

    /// A recipient with a document made after that of `old`.
    pub(super) async fn newer_than(&self, old: &Arc<Recipient>) -> Result<Arc<Recipient>, NsmError> {
        let _renewing = self.renewing.lock().await;
        match self.ready() {
            Some(recipient) if !Arc::ptr_eq(&recipient, old) => Ok(recipient),
            _ => self.renew(Some(&old.key)).await,
        }
    }

    /// Replaces the document before it ages, and the key with every fifteenth.
    pub(super) async fn keep_ready(self: Arc<Self>) {
        loop {
            let mut key = None;
            for _ in 0..DOCUMENTS_PER_KEY {
                let outcome = {
                    let _renewing = self.renewing.lock().await;
                    self.renew(key.as_ref()).await
                };
                match outcome {
                    Ok(recipient) => key = Some(Arc::clone(&recipient.key)),
                    Err(error) => tracing::error!(%error, "no recipient document"),
                }
                tokio::time::sleep(DOCUMENT_LIFE).await;
            }
        }
    }

    /// Makes a document, about `key` or about a new one.
    async fn renew(&self, key: Option<&Arc<RecipientKey>>) -> Result<Arc<Recipient>, NsmError> {
        let key = match key {
            Some(key) => Arc::clone(key),
            None => {
                let generated = spawn_blocking(RecipientKey::generate).await;
                Arc::new(generated.ok().and_then(Result::ok).ok_or(NsmError::OutOfPlace)?)
            }
        };
        let made = Instant::now();
        let document = self.nsm.recipient_document(key.public_der()).await?;
        let recipient = Arc::new(Recipient { key, document, made });
        *self.slot() = Some(Arc::clone(&recipient));
        Ok(recipient)
    }

    fn ready(&self) -> Option<Arc<Recipient>> {
        self.slot().as_ref().filter(|recipient| recipient.is_fresh()).map(Arc::clone)
    }

    fn slot(&self) -> MutexGuard<'_, Option<Arc<Recipient>>> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
