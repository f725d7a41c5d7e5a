//! What a record seals, opened with what only mock-kms knows: the tests' way to a key's bytes, which no
//! interface of the appliance gives.

use std::collections::BTreeMap;
use std::fs;
use std::io;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use strongroom_protocol::KeyRecord;

use crate::stack::Stack;

/// A key's secret: a scalar, or a seed.
///
/// # Errors
/// The record is not one of this stack's first KMS key, or was changed.
pub fn secret(stack: &Stack, record: &KeyRecord) -> io::Result<Vec<u8>> {
    open(&data_key(stack, record)?, &record.ciphertext, record.binding().as_aad())
}

/// The data key under which the secret lies. What KMS does in a Decrypt, by mock-kms's own files: its blob is
/// version and key id, nonce, AES-256-GCM box; the additional data are those and the encryption context.
///
/// # Errors
/// As of [`secret`].
pub fn data_key(stack: &Stack, record: &KeyRecord) -> io::Result<Vec<u8>> {
    let keys: Vec<KmsKey> = serde_json::from_slice(&fs::read(stack.directory().join("kms/keys.json"))?)?;
    let first = keys.first().ok_or_else(|| io::Error::other("no KMS key"))?;
    let backing_key = STANDARD.decode(&first.backing_key).map_err(io::Error::other)?;
    let (header, sealed) = record.data_key.split_at_checked(17).ok_or_else(|| io::Error::other("a short blob"))?;
    let mut aad = header.to_vec();
    let context: BTreeMap<_, _> = record.binding().encryption_context(&record.key_id).into_iter().collect();
    for text in context.iter().flat_map(|(key, value)| [key, value]) {
        aad.extend((text.len() as u64).to_be_bytes());
        aad.extend(text.as_bytes());
    }
    open(&backing_key, sealed, &aad)
}

#[derive(Deserialize)]
struct KmsKey {
    /// Base64.
    backing_key: String,
}

/// Opens nonce ‖ AES-256-GCM box. That it opens shows that the key is the right one.
fn open(key: &[u8], sealed: &[u8], aad: &[u8]) -> io::Result<Vec<u8>> {
    let (nonce, sealed) = sealed.split_first_chunk::<12>().ok_or_else(|| io::Error::other("a short box"))?;
    let key = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, key).map_err(io::Error::other)?);
    let mut sealed = sealed.to_vec();
    let nonce = Nonce::assume_unique_for_key(*nonce);
    Ok(key.open_in_place(nonce, Aad::from(aad), &mut sealed).map_err(io::Error::other)?.to_vec())
}
