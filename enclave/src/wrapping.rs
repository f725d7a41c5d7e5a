//! A record's two layers, put on and taken off: the secret sealed under a data key, the data key
//! wrapped by KMS. Decides which KMS key is asked, and what of a record is believed once it is open; not
//! how long a key lives (`keyring`), nor what is done with it (`service`).

use std::collections::BTreeMap;
use std::sync::Arc;

use strongroom_protocol::{
    Algorithm, Binding, ByteString, Configuration, Created, ErrorCode, KeyDescription, KeyId, KeyRecord, KmsKeyArn,
    Origin, Policy, PresentedRecord, PublicKey,
};
use zeroize::Zeroizing;

use crate::derive::Seed;
use crate::kms::{DataKey, Kms};
use crate::seal;
use crate::secret::{KeyMaterial, Secret, on_wiped_stack};
use crate::sign::{NotAKey, SigningKey};

/// The measured configuration's KMS keys, at work.
pub(crate) struct Wrapping {
    kms: Kms,
    configuration: Arc<Configuration>,
}

/// An opened record: the key and what was authenticated with it.
pub(crate) struct OpenedKey {
    /// Signs, or derives what signs.
    pub(crate) secret: OpenedSecret,
    /// The bound policy.
    pub(crate) policy: Policy,
    /// All that is bound.
    pub(crate) binding: Binding,
}

/// What a record's secret bytes are.
pub(crate) enum OpenedSecret {
    /// A key that signs.
    Key(Arc<SigningKey>),
    /// A seed: the keys below it sign.
    Seed(Seed),
}

/// A key that the policy bound to it lets leave the enclave.
pub(crate) struct ExportableKey {
    pub(crate) key_id: KeyId,
    pub(crate) binding: Binding,
    pub(crate) material: KeyMaterial,
}

/// A record whose layers are off, and that proved to be what it claims.
struct Unwrapped {
    record: KeyRecord,
    binding: Binding,
    material: KeyMaterial,
    secret: OpenedSecret,
}

impl Wrapping {
    /// The KMS keys of `configuration`, which `kms` reaches.
    pub(crate) const fn new(kms: Kms, configuration: Arc<Configuration>) -> Self {
        Self { kms, configuration }
    }

    /// The KMS key that wraps new keys: the one that is named, or the configuration's first.
    fn kms_key(&self, named: Option<&KmsKeyArn>) -> Result<&KmsKeyArn, ErrorCode> {
        let found = match named {
            Some(named) => self.configuration.kms_key_for(named),
            None => self.configuration.kms_keys.first(),
        };
        found.ok_or(ErrorCode::KmsKeyNotConfigured)
    }

    /// Opens a record: one attested Decrypt.
    pub(crate) async fn open(&self, presented: &PresentedRecord) -> Result<OpenedKey, ErrorCode> {
        let Unwrapped { record, binding, secret, material: _ } = self.unwrap(presented).await?;
        Ok(OpenedKey { secret, policy: record.policy, binding })
    }

    /// Makes the record of a new key: two attested calls, see [`Self::wrap`].
    pub(crate) async fn create(
        &self,
        description: KeyDescription,
        origin: Origin,
        material: KeyMaterial,
    ) -> Result<Created, ErrorCode> {
        let KeyDescription { key_id, algorithm, policy, kms_key_arn } = description;
        let kms_key_arn = self.kms_key(kms_key_arn.as_ref())?.clone();
        policy.check_fit(algorithm).map_err(|_| ErrorCode::PolicyInvalid)?;
        let secret = OpenedSecret::new(algorithm, &material).map_err(|NotAKey| ErrorCode::KeyMaterialInvalid)?;
        let public_key = secret.public_key();
        drop(secret);
        let (data_key, ciphertext) = (ByteString::default(), ByteString::default());
        let record = KeyRecord { key_id, algorithm, public_key, origin, policy, kms_key_arn, data_key, ciphertext };
        let (record, opened) = self.wrap(record, material).await?;
        Ok(Created { addresses: opened.secret.addresses(), record })
    }

    /// Opens a record for export, which needs the secret itself: one attested Decrypt, also for a held key. Whether
    /// the key may leave is judged by the policy that was authenticated with it.
    pub(crate) async fn open_exportable(&self, presented: &PresentedRecord) -> Result<ExportableKey, ErrorCode> {
        let Unwrapped { record, binding, material, secret: _ } = self.unwrap(presented).await?;
        if !record.policy.is_exportable() {
            return Err(ErrorCode::NotExportable);
        }
        Ok(ExportableKey { key_id: record.key_id, binding, material })
    }

    /// What somebody encrypted under a KMS key that wraps no records, without encryption context: one attested
    /// Decrypt. Nothing vouches for what comes out.
    pub(crate) async fn decrypt_unbound(
        &self,
        kms_key: &KmsKeyArn,
        ciphertext: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, ErrorCode> {
        self.kms.decrypt_unbound(kms_key, ciphertext).await.map_err(|error| match error.into() {
            // KMS does not know the ciphertext, and there is no record that could be to blame.
            ErrorCode::RecordRefused => ErrorCode::AdoptionRefused,
            code => code,
        })
    }

    /// Completes `record`, whose data key and ciphertext are still to come, around `material` under the KMS
    /// key that it names: one attested `GenerateDataKey`. Then opens it once, as a later caller would, so
    /// that no record leaves that nobody can open.
    async fn wrap(&self, mut record: KeyRecord, material: KeyMaterial) -> Result<(KeyRecord, OpenedKey), ErrorCode> {
        let mut nonce = [0; 12];
        getrandom::fill(&mut nonce).map_err(|_| ErrorCode::Internal)?;
        let binding = record.binding();
        let context = binding.encryption_context(&record.key_id);
        let DataKey { key, blob } = self.kms.generate_data_key(&record.kms_key_arn, context).await?;
        let sealed = seal::seal(&key, nonce, &binding, &material).map_err(|_| ErrorCode::Internal)?;
        record.data_key = blob.try_into().map_err(|_| ErrorCode::KmsReplyRefused)?;
        record.ciphertext = sealed.try_into().map_err(|_| ErrorCode::Internal)?;
        drop((key, material));

        let opened = self.open(&record.present().map_err(|_| ErrorCode::Internal)?).await?;
        Ok((record, opened))
    }

    /// The same key under `kms_key_arn`. All that is bound stays as it was opened, so the new record is
    /// worth exactly what the old one is; nothing is held. Besides the two calls of [`Self::wrap`], one
    /// Decrypt, also for a key that is held: what is re-wrapped is what KMS still opens.
    pub(crate) async fn rewrap(
        &self,
        presented: &PresentedRecord,
        kms_key_arn: &KmsKeyArn,
    ) -> Result<KeyRecord, ErrorCode> {
        let kms_key_arn = self.kms_key(Some(kms_key_arn))?.clone();
        let Unwrapped { record, material, secret, .. } = self.unwrap(presented).await?;
        drop(secret);
        let (data_key, ciphertext) = (ByteString::default(), ByteString::default());
        let (record, _opened) = self.wrap(KeyRecord { kms_key_arn, data_key, ciphertext, ..record }, material).await?;
        Ok(record)
    }

    async fn unwrap(&self, presented: &PresentedRecord) -> Result<Unwrapped, ErrorCode> {
        let record = KeyRecord::read(presented).map_err(|_| ErrorCode::RecordRefused)?;
        let kms_key = self.kms_key(Some(&record.kms_key_arn))?;
        let binding = record.binding();
        let context = binding.encryption_context(&record.key_id);
        let data_key = self.kms.decrypt(kms_key, &record.data_key, context).await?;
        let material = seal::open(&data_key, &binding, &record.ciphertext).map_err(|_| ErrorCode::RecordRefused)?;
        let secret = OpenedSecret::new(record.algorithm, &material).map_err(|_| ErrorCode::RecordRefused)?;
        if secret.public_key() != record.public_key {
            return Err(ErrorCode::RecordRefused);
        }
        Ok(Unwrapped { record, binding, material, secret })
    }
}

impl OpenedSecret {
    /// What these bytes are to this algorithm.
    ///
    /// # Errors
    /// They have a length that is not of this algorithm, or are no key.
    pub(crate) fn new(algorithm: Algorithm, material: &KeyMaterial) -> Result<Self, NotAKey> {
        if !algorithm.secret_lengths().contains(&material.expose().len()) {
            return Err(NotAKey);
        }
        if algorithm.is_seed() {
            return Seed::new(algorithm.curve(), material).map(Self::Seed);
        }
        let secret: &[u8; 32] = material.expose().try_into().map_err(|_| NotAKey)?;
        let secret = Secret::from(secret);
        on_wiped_stack(|| SigningKey::new(algorithm.curve(), &secret)).map(|key| Self::Key(Arc::new(key)))
    }

    /// The public key as the record has it: of a seed, that of its master key.
    pub(crate) fn public_key(&self) -> PublicKey {
        match self {
            Self::Key(key) => key.public_key(),
            Self::Seed(seed) => seed.public_key().clone(),
        }
    }

    /// Addresses by chain, for reading. A seed has none of its own.
    pub(crate) fn addresses(&self) -> BTreeMap<String, String> {
        match self {
            Self::Key(key) => key.addresses(),
            Self::Seed(_) => BTreeMap::new(),
        }
    }
}
