//! `CiphertextForRecipient`: how KMS hands a data key to an enclave. A strict reader of the one form
//! of CMS EnvelopedData (RFC 5652) that KMS sends, in BER, and the RSA key that opens it.
//!
//! The content has no MAC (AES-256-CBC): nothing that comes out of here is trusted until the sealed
//! key opens under it. Every refusal is the same error.

use aws_lc_rs::cipher::{AES_256, DecryptionContext, PaddedBlockDecryptingKey, UnboundCipherKey};
use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
use aws_lc_rs::error::Unspecified;
use aws_lc_rs::iv::FixedLength;
use aws_lc_rs::rsa::{KeySize, OAEP_SHA256_MGF1SHA256, OaepPrivateDecryptingKey, PrivateDecryptingKey};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use crate::secret::on_wiped_stack;

/// Longest envelope: KMS's own limit for `CiphertextForRecipient`.
const MAX_ENVELOPE: usize = 6144;

/// RSA-2048.
const RSA_BYTES: usize = 256;

/// The RSA-2048 key whose public half stands in recipient documents. Short-lived.
pub(crate) struct RecipientKey {
    private: OaepPrivateDecryptingKey,
    public_der: Vec<u8>,
    key_identifier: [u8; 32],
}

/// The envelope was not KMS's form, not for this key, or did not open. One error for all: which it
/// was is nobody's business.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the envelope was refused")]
pub(crate) struct EnvelopeRefused;

impl From<Unspecified> for EnvelopeRefused {
    fn from(_: Unspecified) -> Self {
        Self
    }
}

impl RecipientKey {
    /// Makes a key. Takes 25 to 160 ms of a core: never in a request, never on the executor.
    pub(crate) fn generate() -> Result<Self, Unspecified> {
        Self::new(PrivateDecryptingKey::generate(KeySize::Rsa2048)?)
    }

    fn new(private: PrivateDecryptingKey) -> Result<Self, Unspecified> {
        let der: PublicKeyX509Der<'_> = private.public_key().as_der()?;
        let public_der = der.as_ref().to_vec();
        let key_identifier = Sha256::digest(&public_der).into();
        Ok(Self { private: OaepPrivateDecryptingKey::new(private)?, public_der, key_identifier })
    }

    /// DER SubjectPublicKeyInfo, for the attestation document.
    pub(crate) fn public_der(&self) -> &[u8] {
        &self.public_der
    }

    /// Opens an envelope. The content is not authenticated.
    pub(crate) fn open(&self, envelope: &[u8]) -> Result<Zeroizing<Vec<u8>>, EnvelopeRefused> {
        let envelope = Envelope::parse(envelope)?;
        if envelope.key_identifier != self.key_identifier {
            return Err(EnvelopeRefused);
        }
        on_wiped_stack(|| self.decrypt(&envelope))
    }

    fn decrypt(&self, envelope: &Envelope<'_>) -> Result<Zeroizing<Vec<u8>>, EnvelopeRefused> {
        let mut content_key = Zeroizing::new([0; RSA_BYTES]);
        let content_key =
            self.private.decrypt(&OAEP_SHA256_MGF1SHA256, envelope.encrypted_key, &mut *content_key, None)?;
        let cipher = PaddedBlockDecryptingKey::cbc_pkcs7(UnboundCipherKey::new(&AES_256, content_key)?)?;
        let mut content = Zeroizing::new(envelope.content.clone());
        let iv = DecryptionContext::Iv128(FixedLength::from(envelope.iv));
        let length = cipher.decrypt(&mut content, iv)?.len();
        content.truncate(length);
        Ok(content)
    }
}

/// The parts of an EnvelopedData that the wire form leaves open.
struct Envelope<'a> {
    key_identifier: &'a [u8],
    encrypted_key: &'a [u8],
    iv: [u8; 16],
    content: Vec<u8>,
}

const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const INTEGER: u8 = 0x02;
const OBJECT_IDENTIFIER: u8 = 0x06;
const OCTET_STRING: u8 = 0x04;
const CONTEXT_0: u8 = 0x80;
const CONTEXT_0_CONSTRUCTED: u8 = 0xa0;

/// 1.2.840.113549.1.7.3, RFC 5652 section 6.1.
const ID_ENVELOPED_DATA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 7, 3];
/// 1.2.840.113549.1.7.1, RFC 5652 section 4.
const ID_DATA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 7, 1];
/// id-RSAES-OAEP with SHA-256 and MGF1 with SHA-256, no label (RFC 4055 section 4.1): the content of
/// the AlgorithmIdentifier, whole, because every parameter of it is fixed.
const RSAES_OAEP_SHA256: &[u8] = &[
    0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 7, // id-RSAES-OAEP
    0x30, 0x2f, // parameters
    0xa0, 0x0f, 0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 1, 0x65, 3, 4, 2, 1, 5, 0, // hash: SHA-256
    0xa1, 0x1c, 0x30, 0x1a, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 8, // MGF1
    0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 1, 0x65, 3, 4, 2, 1, 5, 0, // with SHA-256
];
/// 2.16.840.1.101.3.4.1.42, aes256-CBC (RFC 3565).
const AES256_CBC: &[u8] = &[0x60, 0x86, 0x48, 1, 0x65, 3, 4, 1, 0x2a];

impl<'a> Envelope<'a> {
    fn parse(bytes: &'a [u8]) -> Result<Self, EnvelopeRefused> {
        if bytes.len() > MAX_ENVELOPE {
            return Err(EnvelopeRefused);
        }
        let mut ber = Ber { rest: bytes };
        let content_info = ber.open(SEQUENCE)?;
        ber.expect(OBJECT_IDENTIFIER, ID_ENVELOPED_DATA)?;
        let explicit = ber.open(CONTEXT_0_CONSTRUCTED)?;
        let enveloped_data = ber.open(SEQUENCE)?;
        ber.expect(INTEGER, &[2])?;

        let recipients = ber.open(SET)?;
        let recipient = ber.open(SEQUENCE)?;
        ber.expect(INTEGER, &[2])?;
        let key_identifier = ber.primitive(CONTEXT_0)?;
        ber.expect(SEQUENCE, RSAES_OAEP_SHA256)?;
        let encrypted_key = ber.primitive(OCTET_STRING)?;
        ber.close(recipient)?;
        ber.close(recipients)?;

        let encrypted_content = ber.open(SEQUENCE)?;
        ber.expect(OBJECT_IDENTIFIER, ID_DATA)?;
        let cipher = ber.open(SEQUENCE)?;
        ber.expect(OBJECT_IDENTIFIER, AES256_CBC)?;
        let iv = ber.primitive(OCTET_STRING)?;
        ber.close(cipher)?;
        let content = ber.content()?;
        ber.close(encrypted_content)?;
        ber.close(enveloped_data)?;
        ber.close(explicit)?;
        ber.close(content_info)?;

        let iv = iv.try_into().map_err(|_| EnvelopeRefused)?;
        let whole_blocks = !content.is_empty() && content.len().is_multiple_of(16);
        if !ber.rest.is_empty() || encrypted_key.len() != RSA_BYTES || !whole_blocks {
            return Err(EnvelopeRefused);
        }
        Ok(Self { key_identifier, encrypted_key, iv, content })
    }
}

/// A cursor over BER (X.690). Knows definite lengths of up to two bytes and, for constructed values,
/// the indefinite form; never recurses.
struct Ber<'a> {
    rest: &'a [u8],
}

/// Where an opened constructed value ends.
#[must_use]
enum End {
    /// When this many bytes are left.
    Definite(usize),
    /// At an end-of-contents marker.
    Indefinite,
}

impl<'a> Ber<'a> {
    fn open(&mut self, tag: u8) -> Result<End, EnvelopeRefused> {
        match self.header(tag)? {
            None => Ok(End::Indefinite),
            Some(length) => self.rest.len().checked_sub(length).map(End::Definite).ok_or(EnvelopeRefused),
        }
    }

    fn close(&mut self, end: End) -> Result<(), EnvelopeRefused> {
        match end {
            End::Definite(left) if left == self.rest.len() => Ok(()),
            End::Definite(_) => Err(EnvelopeRefused),
            End::Indefinite => self.take(2).and_then(|eoc| if eoc == [0, 0] { Ok(()) } else { Err(EnvelopeRefused) }),
        }
    }

    fn primitive(&mut self, tag: u8) -> Result<&'a [u8], EnvelopeRefused> {
        let length = self.header(tag)?.ok_or(EnvelopeRefused)?;
        self.take(length)
    }

    fn expect(&mut self, tag: u8, value: &[u8]) -> Result<(), EnvelopeRefused> {
        if self.primitive(tag)? == value { Ok(()) } else { Err(EnvelopeRefused) }
    }

    /// encryptedContent: one primitive value (form B), or a constructed one of OCTET STRINGs (form A).
    fn content(&mut self) -> Result<Vec<u8>, EnvelopeRefused> {
        if self.rest.first() == Some(&CONTEXT_0) {
            return self.primitive(CONTEXT_0).map(<[u8]>::to_vec);
        }
        let end = self.open(CONTEXT_0_CONSTRUCTED)?;
        let mut content = Vec::with_capacity(self.rest.len());
        while self.rest.first() == Some(&OCTET_STRING) {
            content.extend_from_slice(self.primitive(OCTET_STRING)?);
        }
        self.close(end)?;
        Ok(content)
    }

    /// The length behind `tag`; none if it is indefinite.
    fn header(&mut self, tag: u8) -> Result<Option<usize>, EnvelopeRefused> {
        let &[found, first] = self.take(2)? else { return Err(EnvelopeRefused) };
        if found != tag {
            return Err(EnvelopeRefused);
        }
        match first {
            0..=0x7f => Ok(Some(usize::from(first))),
            0x80 => Ok(None),
            0x81 | 0x82 => {
                let digits = self.take(usize::from(first & 0x7f))?;
                Ok(Some(digits.iter().fold(0, |sum, &digit| sum << 8 | usize::from(digit))))
            }
            _ => Err(EnvelopeRefused),
        }
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], EnvelopeRefused> {
        let (taken, rest) = self.rest.split_at_checked(count).ok_or(EnvelopeRefused)?;
        self.rest = rest;
        Ok(taken)
    }
}

#[cfg(test)]
mod tests;
