//! What each action does, in the order in which KMS checks: the request's shape, the key, the
//! recipient's document, the key policy, the key's state, then the work.

use std::collections::BTreeMap;
use std::fmt;
use std::time::SystemTime;

use aws_lc_rs::rand;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Value, json};

use strongroom_parent::kms_policy::{Caller, Decision, Facts};

use super::Kms;
use super::envelope::{self, Defect, Form};
use super::error::KmsError;
use super::faults::FaultKind;
use super::keys::{Blob, KeyState, KmsKey};
use super::log::{Attested, Call};
use super::recipient::{Recipient, WrittenRecipient};

/// An action of KMS that is spoken here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    Decrypt,
    DescribeKey,
    Encrypt,
    GenerateDataKey,
    GenerateRandom,
}

impl Action {
    /// The action of an `X-Amz-Target`.
    pub(super) fn of_target(target: &str) -> Result<Self, KmsError> {
        match target.strip_prefix("TrentService.") {
            Some("Decrypt") => Ok(Self::Decrypt),
            Some("DescribeKey") => Ok(Self::DescribeKey),
            Some("Encrypt") => Ok(Self::Encrypt),
            Some("GenerateDataKey") => Ok(Self::GenerateDataKey),
            Some("GenerateRandom") => Ok(Self::GenerateRandom),
            _ => Err(KmsError::UnknownOperation),
        }
    }

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Decrypt => "Decrypt",
            Self::DescribeKey => "DescribeKey",
            Self::Encrypt => "Encrypt",
            Self::GenerateDataKey => "GenerateDataKey",
            Self::GenerateRandom => "GenerateRandom",
        }
    }
}

/// A call whose caller is known.
pub(super) struct Authenticated<'a> {
    pub(super) action: Action,
    pub(super) caller: &'a Caller,
    pub(super) body: &'a [u8],
    pub(super) faults: &'a [FaultKind],
}

/// Carries a call out, and notes in `trail` what became known of it.
///
/// # Errors
/// As KMS.
pub(super) fn perform(kms: &Kms, call: &Authenticated<'_>, trail: &mut Call) -> Result<Reply, KmsError> {
    let mut reply = match call.action {
        Action::Decrypt => decrypt(kms, call, trail),
        Action::DescribeKey => describe_key(kms, call, trail),
        Action::Encrypt => encrypt(kms, call, trail),
        Action::GenerateDataKey => generate_data_key(kms, call, trail),
        Action::GenerateRandom => generate_random(kms, call, trail),
    }?;
    for fault in call.faults {
        if let FaultKind::WrongKeyId(arn) = fault {
            reply.key_id = Some(arn.clone());
        }
    }
    Ok(reply)
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DecryptRequest {
    ciphertext_blob: Option<Blob64>,
    key_id: Option<String>,
    #[serde(default)]
    encryption_context: BTreeMap<String, String>,
    encryption_algorithm: Option<String>,
    recipient: Option<WrittenRecipient>,
    #[serde(default)]
    grant_tokens: Vec<String>,
    #[serde(default)]
    dry_run: bool,
}

fn decrypt(kms: &Kms, call: &Authenticated<'_>, trail: &mut Call) -> Result<Reply, KmsError> {
    let request: DecryptRequest = read(call.body)?;
    trail.encryption_context.clone_from(&request.encryption_context);
    check_context(&request.encryption_context)?;
    check_algorithm(request.encryption_algorithm.as_deref())?;
    let ciphertext = member("ciphertextBlob", request.ciphertext_blob.as_ref(), 1..=6144)?;
    let recipient = judge(kms, request.recipient.as_ref(), trail)?;
    let blob = Blob::read(ciphertext);
    let key = match (&request.key_id, &blob) {
        (Some(name), _) => kms.keys().find(name).cloned(),
        (None, Ok(blob)) => kms.keys().of_blob(blob).cloned(),
        (None, Err(_)) => Err(KmsError::InvalidCiphertext),
    }?;
    let check = Check { dry_run: request.dry_run, grant_tokens: &request.grant_tokens };
    check.admit(&key, call, &request.encryption_context, recipient.as_ref(), trail)?;
    let plaintext = key.open(&blob?, &request.encryption_context)?;
    let reply = Reply { encryption_algorithm: Some(SYMMETRIC_DEFAULT), ..Reply::of(&key) };
    release(reply, plaintext, recipient.as_ref(), call.faults)
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct GenerateDataKeyRequest {
    key_id: Option<String>,
    #[serde(default)]
    encryption_context: BTreeMap<String, String>,
    key_spec: Option<String>,
    number_of_bytes: Option<u32>,
    recipient: Option<WrittenRecipient>,
    #[serde(default)]
    grant_tokens: Vec<String>,
    #[serde(default)]
    dry_run: bool,
}

fn generate_data_key(kms: &Kms, call: &Authenticated<'_>, trail: &mut Call) -> Result<Reply, KmsError> {
    let request: GenerateDataKeyRequest = read(call.body)?;
    trail.encryption_context.clone_from(&request.encryption_context);
    check_context(&request.encryption_context)?;
    let length = match (request.key_spec.as_deref(), request.number_of_bytes) {
        (Some("AES_256"), None) => 32,
        (Some("AES_128"), None) => 16,
        (None, Some(length)) => number_of_bytes(length)?,
        (Some(_), None) => return Err(constraint("keySpec", "satisfy enum value set: [AES_256, AES_128]")),
        _ => return Err(KmsError::Validation("Please specify either number of bytes or key spec.".to_owned())),
    };
    let recipient = judge(kms, request.recipient.as_ref(), trail)?;
    let key = kms.keys().find(name(request.key_id.as_deref())?)?.clone();
    let check = Check { dry_run: request.dry_run, grant_tokens: &request.grant_tokens };
    check.admit(&key, call, &request.encryption_context, recipient.as_ref(), trail)?;
    let plaintext = random(length)?;
    let blob = key.seal(&plaintext, &request.encryption_context).map_err(|_| KmsError::Internal)?;
    let reply = Reply { ciphertext_blob: Some(Blob64(blob)), ..Reply::of(&key) };
    release(reply, plaintext, recipient.as_ref(), call.faults)
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct GenerateRandomRequest {
    number_of_bytes: Option<u32>,
    custom_key_store_id: Option<String>,
    recipient: Option<WrittenRecipient>,
}

/// No key, hence no key policy; identity policies are taken to allow it.
fn generate_random(kms: &Kms, call: &Authenticated<'_>, trail: &mut Call) -> Result<Reply, KmsError> {
    let request: GenerateRandomRequest = read(call.body)?;
    if let Some(store) = request.custom_key_store_id {
        return Err(KmsError::Validation(format!("There is no custom key store {store} here.")));
    }
    let length = number_of_bytes(request.number_of_bytes.unwrap_or_default())?;
    let recipient = judge(kms, request.recipient.as_ref(), trail)?;
    release(Reply::default(), random(length)?, recipient.as_ref(), call.faults)
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct EncryptRequest {
    key_id: Option<String>,
    plaintext: Option<Blob64>,
    #[serde(default)]
    encryption_context: BTreeMap<String, String>,
    encryption_algorithm: Option<String>,
    #[serde(default)]
    grant_tokens: Vec<String>,
    #[serde(default)]
    dry_run: bool,
}

fn encrypt(kms: &Kms, call: &Authenticated<'_>, trail: &mut Call) -> Result<Reply, KmsError> {
    let request: EncryptRequest = read(call.body)?;
    trail.encryption_context.clone_from(&request.encryption_context);
    check_context(&request.encryption_context)?;
    check_algorithm(request.encryption_algorithm.as_deref())?;
    let plaintext = member("plaintext", request.plaintext.as_ref(), 1..=4096)?;
    let key = kms.keys().find(name(request.key_id.as_deref())?)?.clone();
    let check = Check { dry_run: request.dry_run, grant_tokens: &request.grant_tokens };
    check.admit(&key, call, &request.encryption_context, None, trail)?;
    let blob = key.seal(plaintext, &request.encryption_context).map_err(|_| KmsError::Internal)?;
    Ok(Reply { ciphertext_blob: Some(Blob64(blob)), encryption_algorithm: Some(SYMMETRIC_DEFAULT), ..Reply::of(&key) })
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DescribeKeyRequest {
    key_id: Option<String>,
}

fn describe_key(kms: &Kms, call: &Authenticated<'_>, trail: &mut Call) -> Result<Reply, KmsError> {
    let request: DescribeKeyRequest = read(call.body)?;
    let key = kms.keys().find(name(request.key_id.as_deref())?)?.clone();
    authorize(&key, call, &BTreeMap::new(), None, trail)?;
    let metadata = json!({
        "AWSAccountId": kms.account, "KeyId": key.id.to_string(), "Arn": key.arn,
        "CreationDate": key.created_at, "Enabled": key.state == KeyState::Enabled, "KeyState": key.state,
        "Description": "", "KeyUsage": "ENCRYPT_DECRYPT", "KeySpec": SYMMETRIC_DEFAULT,
        "CustomerMasterKeySpec": SYMMETRIC_DEFAULT, "EncryptionAlgorithms": [SYMMETRIC_DEFAULT],
        "Origin": "AWS_KMS", "KeyManager": "CUSTOMER", "MultiRegion": key.id.multi_region,
    });
    Ok(Reply { key_metadata: Some(metadata), ..Reply::default() })
}

/// What every use of a key is checked for.
struct Check<'a> {
    dry_run: bool,
    grant_tokens: &'a [String],
}

impl Check<'_> {
    fn admit(
        &self,
        key: &KmsKey,
        call: &Authenticated<'_>,
        encryption_context: &BTreeMap<String, String>,
        recipient: Option<&Recipient>,
        trail: &mut Call,
    ) -> Result<(), KmsError> {
        if !self.grant_tokens.is_empty() {
            return Err(KmsError::InvalidGrantToken);
        }
        authorize(key, call, encryption_context, recipient, trail)?;
        key.check_usable()?;
        if self.dry_run { Err(KmsError::DryRunOperation) } else { Ok(()) }
    }
}

/// The texts are KMS's.
fn authorize(
    key: &KmsKey,
    call: &Authenticated<'_>,
    encryption_context: &BTreeMap<String, String>,
    recipient: Option<&Recipient>,
    trail: &mut Call,
) -> Result<(), KmsError> {
    trail.key_arn = Some(key.arn.clone());
    let registers = recipient.and_then(Recipient::document).map(|document| &document.pcrs);
    let facts = Facts { caller: call.caller, encryption_context, registers };
    let action = format!("kms:{}", call.action.name());
    let reason = match key.policy.decide(&action, &key.arn, &facts) {
        Decision::Allowed => return Ok(()),
        Decision::ImplicitlyDenied => format!("because no resource-based policy allows the {action} action"),
        Decision::ExplicitlyDenied => "with an explicit deny in a resource-based policy".to_owned(),
    };
    let (caller, resource) = (&call.caller.arn, &key.arn);
    Err(KmsError::AccessDenied(format!(
        "User: {caller} is not authorized to perform: {action} on resource: {resource} {reason}"
    )))
}

fn judge(kms: &Kms, written: Option<&WrittenRecipient>, trail: &mut Call) -> Result<Option<Recipient>, KmsError> {
    let Some(written) = written else { return Ok(None) };
    let recipient = Recipient::judge(written, kms, SystemTime::now())?;
    trail.attested = recipient.document().map(Attested::from);
    Ok(Some(recipient))
}

/// The only place from which a plaintext leaves: in the open to a caller who named no recipient, else
/// in an envelope to the attested key, and (but for faults) in nothing else.
fn release(
    mut reply: Reply,
    plaintext: Vec<u8>,
    recipient: Option<&Recipient>,
    faults: &[FaultKind],
) -> Result<Reply, KmsError> {
    match recipient {
        None => reply.plaintext = Some(Blob64(plaintext)),
        Some(Recipient::Unbelievable(error)) => return Err(error.clone()),
        Some(Recipient::Attested(_, key)) => {
            let form = Form::random().map_err(|_| KmsError::Internal)?;
            let envelope = envelope::seal(&plaintext, key, form, defect(faults)).map_err(|_| KmsError::Internal)?;
            if !faults.contains(&FaultKind::PlaintextInstead) {
                reply.ciphertext_for_recipient = Some(Blob64(envelope));
            }
            let exposed = faults.contains(&FaultKind::PlaintextBeside) || faults.contains(&FaultKind::PlaintextInstead);
            reply.plaintext = exposed.then_some(Blob64(plaintext));
        }
    }
    Ok(reply)
}

fn defect(faults: &[FaultKind]) -> Option<Defect> {
    faults.iter().find_map(|fault| match fault {
        FaultKind::Envelope(defect) => Some(*defect),
        _ => None,
    })
}

fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, KmsError> {
    serde_json::from_slice(body).map_err(|error| KmsError::Serialization(error.to_string()))
}

fn name(key_id: Option<&str>) -> Result<&str, KmsError> {
    key_id
        .filter(|name| (1..=2048).contains(&name.len()))
        .ok_or_else(|| constraint("keyId", "not be null and have a length between 1 and 2048"))
}

fn member<'a>(
    name: &str,
    value: Option<&'a Blob64>,
    lengths: std::ops::RangeInclusive<usize>,
) -> Result<&'a [u8], KmsError> {
    let bytes = value.map(Blob64::bytes).ok_or_else(|| constraint(name, "not be null"))?;
    if lengths.contains(&bytes.len()) {
        Ok(bytes)
    } else {
        Err(constraint(name, &format!("have length between {} and {}", lengths.start(), lengths.end())))
    }
}

fn number_of_bytes(length: u32) -> Result<usize, KmsError> {
    match usize::try_from(length) {
        Ok(length) if (1..=1024).contains(&length) => Ok(length),
        _ => Err(constraint("numberOfBytes", "have value between 1 and 1024")),
    }
}

/// KMS developer guide, "Encryption context": at most 8192 characters together.
fn check_context(context: &BTreeMap<String, String>) -> Result<(), KmsError> {
    let length: usize = context.iter().map(|(key, value)| key.chars().count() + value.chars().count()).sum();
    if length > 8192 {
        return Err(KmsError::Validation("The encryption context is longer than 8192 characters.".to_owned()));
    }
    if context.keys().any(String::is_empty) {
        return Err(KmsError::Validation("A key of the encryption context is empty.".to_owned()));
    }
    Ok(())
}

fn check_algorithm(algorithm: Option<&str>) -> Result<(), KmsError> {
    match algorithm {
        None | Some(SYMMETRIC_DEFAULT) => Ok(()),
        Some(_) => Err(KmsError::Validation("The key supports SYMMETRIC_DEFAULT only.".to_owned())),
    }
}

fn constraint(member: &str, must: &str) -> KmsError {
    KmsError::Validation(format!(
        "1 validation error detected: Value at '{member}' failed to satisfy constraint: Member must {must}"
    ))
}

fn random(length: usize) -> Result<Vec<u8>, KmsError> {
    let mut bytes = vec![0; length];
    rand::fill(&mut bytes).map_err(|_| KmsError::Internal)?;
    Ok(bytes)
}

const SYMMETRIC_DEFAULT: &str = "SYMMETRIC_DEFAULT";

/// What KMS answers. Absent members are left out.
#[derive(Default, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Reply {
    #[serde(skip_serializing_if = "Option::is_none")]
    key_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    plaintext: Option<Blob64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ciphertext_blob: Option<Blob64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ciphertext_for_recipient: Option<Blob64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    encryption_algorithm: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key_metadata: Option<Value>,
}

impl Reply {
    fn of(key: &KmsKey) -> Self {
        Self { key_id: Some(key.arn.clone()), ..Self::default() }
    }
}

/// Bytes, standard base64 in JSON.
pub(super) struct Blob64(Vec<u8>);

impl Blob64 {
    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Blob64 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{} bytes]", self.0.len())
    }
}

impl Serialize for Blob64 {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&BASE64_STANDARD.encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for Blob64 {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        BASE64_STANDARD.decode(text).map(Self).map_err(D::Error::custom)
    }
}
