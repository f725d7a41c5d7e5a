//! Keys that custodians bring, take over, and take home: imports, adoptions and exports. Decides what a key must be
//! to come in and what must be bound to it to go out; `service` has asked before whether the measured
//! configuration lists the operation, and `wrapping` makes and opens the records.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use strongroom_protocol::{
    Configuration, Created, ErrorCode, ExpectedKey, ImportKeyId, KeyDescription, KmsKeyArn, Nonce, Origin,
    PresentedRecord, RecipientName, SealedKey, export_info,
};
use tokio::time::{Instant, sleep};

use crate::attest::Nsm;
use crate::hpke::{self, InvalidRecipient, KeyPair};
use crate::secret::KeyMaterial;
use crate::wrapping::{OpenedSecret, Wrapping};

/// The ways in and out, under one measured configuration.
pub(crate) struct Custody {
    nsm: Nsm,
    configuration: Arc<Configuration>,
    wrapping: Arc<Wrapping>,
    waiting: Arc<Mutex<ImportKeys>>,
}

impl Custody {
    /// No import key waits yet. Starts the task that wipes those that nobody uses.
    pub(crate) fn start(nsm: Nsm, configuration: Arc<Configuration>, wrapping: Arc<Wrapping>) -> Self {
        let waiting = Arc::default();
        tokio::spawn(wipe_expired(Arc::clone(&waiting)));
        Self { nsm, configuration, wrapping, waiting }
    }

    /// Makes an import key and the document that shows it to be this enclave's.
    pub(crate) async fn offer(&self, nonce: Nonce) -> Result<Vec<u8>, ErrorCode> {
        // Asked first, so that who is refused has not kept the secure module busy.
        if !self.import_keys(|keys| keys.has_room(Instant::now())) {
            return Err(ErrorCode::ImportKeysExhausted);
        }
        let key_pair = KeyPair::new(self.nsm.new_secret().await?);
        let public_key = key_pair.public_key();
        let id = ImportKeyId::of(&public_key);
        let document = self.nsm.import_document(&public_key, &id, nonce.clone()).await?;
        let waiting = ImportKey { key_pair, nonce };
        let admitted = self.import_keys(|keys| keys.insert(id, waiting, Instant::now()));
        if admitted { Ok(document) } else { Err(ErrorCode::ImportKeysExhausted) }
    }

    /// Opens a key that was sealed to an import key of ours and makes its record. Everything that is bound to it is
    /// what the custodian sealed it for. Whatever comes of it, the import key has served.
    pub(crate) async fn import(
        &self,
        import_key: &ImportKeyId,
        description: KeyDescription,
        sealed: &SealedKey,
    ) -> Result<Created, ErrorCode> {
        let waited = self.import_keys(|keys| keys.take(import_key, Instant::now()));
        let ImportKey { key_pair, nonce } = waited.ok_or(ErrorCode::ImportKeyUnknown)?;
        let info = description.import_info(import_key, &nonce);
        let material = key_pair.open(&info, sealed).map_err(|_| ErrorCode::ImportRefused)?;
        drop(key_pair);
        let created = self.wrapping.create(description, Origin::Imported, material).await?;
        tracing::info!(key_id = %created.record.key_id, "a key is imported");
        Ok(created)
    }

    /// Opens a ciphertext that nobody bound to anything, and binds what comes out if it is the expected key. Its old
    /// exposure it keeps, so it may do the least that a key can: sign messages.
    pub(crate) async fn adopt(
        &self,
        description: KeyDescription,
        adopt_kms_key_arn: Option<&KmsKeyArn>,
        ciphertext: &[u8],
        expected: &ExpectedKey,
    ) -> Result<Created, ErrorCode> {
        description.check_adoptable().map_err(|_| ErrorCode::PolicyInvalid)?;
        let adopt_kms_key = match adopt_kms_key_arn {
            Some(named) => self.configuration.adopt_kms_keys.iter().find(|key| *key == named),
            None => self.configuration.adopt_kms_keys.first(),
        };
        let adopt_kms_key = adopt_kms_key.ok_or(ErrorCode::KmsKeyNotConfigured)?;
        let text = self.wrapping.decrypt_unbound(adopt_kms_key, ciphertext).await?;
        let material = from_hex(&text).ok_or(ErrorCode::AdoptionRefused)?;
        drop(text);
        let secret = OpenedSecret::new(description.algorithm, &material).map_err(|_| ErrorCode::KeyMaterialInvalid)?;
        if !expected.is(&secret.public_key(), &secret.addresses()) {
            return Err(ErrorCode::KeyMismatch);
        }
        drop(secret);
        let created = self.wrapping.create(description, Origin::Adopted, material).await?;
        tracing::info!(key_id = %created.record.key_id, %adopt_kms_key, "a key is adopted");
        Ok(created)
    }

    /// Seals a key to a recipient, and says so in a document, if the policy that was bound to it at its creation
    /// lets it leave. It is opened for this alone, also if it is held.
    pub(crate) async fn export(
        &self,
        presented: &PresentedRecord,
        recipient: &RecipientName,
        nonce: Nonce,
    ) -> Result<(SealedKey, Vec<u8>), ErrorCode> {
        let recipient = self.configuration.export_recipient(recipient).ok_or(ErrorCode::RecipientUnknown)?;
        let exportable = self.wrapping.open_exportable(presented).await?;
        let info = export_info(&exportable.binding, &recipient.name);
        let entropy = self.nsm.new_secret().await?;
        let sealed = hpke::seal(&recipient.public_key, &info, &exportable.material, entropy)
            .map_err(|InvalidRecipient| ErrorCode::Internal)?;
        let document = self.nsm.export_evidence(&info, &sealed, nonce).await?;
        let (key_id, recipient) = (&exportable.key_id, &recipient.name);
        tracing::warn!(%key_id, %recipient, "a key is exported: its recipient has it from now on");
        Ok((sealed, document))
    }

    fn import_keys<T>(&self, work: impl FnOnce(&mut ImportKeys) -> T) -> T {
        work(&mut lock(&self.waiting))
    }
}

/// Whether something can be sealed to each recipient of a configuration.
pub(crate) fn check_recipients(configuration: &Configuration) -> Result<(), InvalidRecipient> {
    configuration.export_recipients.iter().try_for_each(|recipient| hpke::check_recipient(&recipient.public_key))
}

/// A private key as AWS's samples encrypt it: 32 bytes in hex, `0x` and white space around it optional.
fn from_hex(text: &[u8]) -> Option<KeyMaterial> {
    let text = text.trim_ascii();
    let digits = text.strip_prefix(b"0x").unwrap_or(text);
    KeyMaterial::fill(32, |material| hex::decode_to_slice(digits, material)).ok()
}

/// Import keys that wait for what is sealed to them. Each serves once, and not for long.
#[derive(Default)]
struct ImportKeys(HashMap<ImportKeyId, (ImportKey, Instant)>);

struct ImportKey {
    key_pair: KeyPair,
    nonce: Nonce,
}

/// How long an import key waits. Sealing a key takes no time, fetching it before that may.
const LIFETIME: Duration = Duration::from_secs(300);

/// Import keys that wait at one time. More are refused: those that wait are somebody's.
const MAX_WAITING: usize = 256;

/// How long after its end an import key that nobody used can still be in memory. It serves nobody then.
const SWEEP: Duration = Duration::from_secs(30);

async fn wipe_expired(waiting: Arc<Mutex<ImportKeys>>) {
    loop {
        sleep(SWEEP).await;
        lock(&waiting).drop_expired(Instant::now());
    }
}

impl ImportKeys {
    fn has_room(&mut self, now: Instant) -> bool {
        self.drop_expired(now);
        self.0.len() < MAX_WAITING
    }

    /// Whether there was room.
    fn insert(&mut self, id: ImportKeyId, key: ImportKey, now: Instant) -> bool {
        let has_room = self.has_room(now);
        if has_room {
            self.0.insert(id, (key, now + LIFETIME));
        }
        has_room
    }

    fn drop_expired(&mut self, now: Instant) {
        self.0.retain(|_, (_, end)| now < *end);
    }

    fn take(&mut self, id: &ImportKeyId, now: Instant) -> Option<ImportKey> {
        self.0.remove(id).filter(|(_, end)| now < *end).map(|(key, _)| key)
    }
}

/// A panic while the lock was held leaves a map that is still a map.
fn lock(waiting: &Mutex<ImportKeys>) -> MutexGuard<'_, ImportKeys> {
    waiting.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use strongroom_protocol::ByteArray;

    use super::*;
    use crate::secret::Secret;

    fn id(n: u16) -> ImportKeyId {
        let mut bytes = [0; 32];
        bytes[..2].copy_from_slice(&n.to_be_bytes());
        ImportKeyId(ByteArray(bytes))
    }

    fn key() -> ImportKey {
        ImportKey { key_pair: KeyPair::new(Secret::from(&[1; 32])), nonce: Nonce::default() }
    }

    #[test]
    fn an_import_key_serves_once() {
        let (mut keys, now) = (ImportKeys::default(), Instant::now());
        assert!(keys.insert(id(1), key(), now));
        assert!(keys.take(&id(2), now).is_none(), "another's");
        assert!(keys.take(&id(1), now).is_some());
        assert!(keys.take(&id(1), now).is_none(), "replayed");
    }

    #[test]
    fn an_import_key_expires() {
        let (mut keys, now) = (ImportKeys::default(), Instant::now());
        assert!(keys.insert(id(1), key(), now));
        assert!(keys.insert(id(2), key(), now + Duration::from_secs(1)));
        assert!(keys.take(&id(1), now + LIFETIME).is_none());
        assert!(keys.take(&id(2), now + LIFETIME).is_some());
    }

    #[test]
    fn waiting_import_keys_are_bounded_and_those_that_expire_make_room() {
        let (mut keys, now) = (ImportKeys::default(), Instant::now());
        for n in 0..MAX_WAITING {
            assert!(keys.insert(id(u16::try_from(n).expect("small")), key(), now));
        }
        assert!(!keys.insert(id(9999), key(), now));
        assert!(keys.take(&id(7), now).is_some(), "whoever waits is not driven out");
        assert!(keys.insert(id(9999), key(), now));
        assert!(keys.insert(id(9998), key(), now + LIFETIME));
        assert_eq!(keys.0.len(), 1, "what is over is gone, and wiped");
    }

    #[test]
    fn a_private_key_in_hex_is_adopted_and_nothing_else() {
        let digits = "ab".repeat(32);
        for text in [digits.clone(), format!("0x{digits}"), format!(" {}\n", digits.to_uppercase())] {
            assert_eq!(from_hex(text.as_bytes()).expect(&text).expose(), [0xab; 32]);
        }
        for (name, text) in [
            ("empty", String::new()),
            ("short", "ab".repeat(31)),
            ("long", "ab".repeat(33)),
            ("odd", "a".repeat(63)),
            ("no_hex", "xy".repeat(32)),
            ("raw_bytes", String::from_utf8(vec![1; 32]).expect("text")),
            ("white_space_inside", format!("{} {}", "ab".repeat(16), "ab".repeat(16))),
        ] {
            assert!(from_hex(text.as_bytes()).is_none(), "{name}");
        }
    }
}
