//! What an attestation document is about: its `user_data`, a domain tag and a digest that the enclave computed. The one list
//! of tags; what stands behind each is computed where the thing itself is.

/// What a document says that it is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Subject {
    /// The enclave, and the SHA-384 of its configuration once it has one.
    Enclave {
        /// [`crate::Measurement::digest`].
        configuration: Option<[u8; 48]>,
    },
    /// A key that the enclave has opened.
    Key {
        /// [`crate::Binding::digest`].
        binding: [u8; 32],
    },
    /// A key that the enclave has sealed to a recipient.
    Export {
        /// SHA-256 of what was sealed, and for whom ([`crate::export_user_data`]).
        export: [u8; 32],
    },
    /// An import key, which stands in the document's `public_key`.
    ImportKey {
        /// Its name ([`crate::ImportKeyId`]).
        id: [u8; 32],
    },
    /// The RSA key to which KMS encrypts, which stands in the document's `public_key`.
    Recipient {
        /// SHA-256 of the key's SubjectPublicKeyInfo, DER.
        public_key: [u8; 32],
    },
}

impl Subject {
    /// Reads `user_data`; `None` if it is none of ours.
    #[must_use]
    pub fn parse(user_data: &[u8]) -> Option<Self> {
        // No tag is the beginning of another.
        let behind = |tag: &[u8]| user_data.strip_prefix(tag);
        if let Some(digest) = behind(ENCLAVE) {
            let configuration = if digest.is_empty() { None } else { Some(digest.try_into().ok()?) };
            return Some(Self::Enclave { configuration });
        }
        let digest = |tag: &[u8]| behind(tag).and_then(|digest| <[u8; 32]>::try_from(digest).ok());
        digest(KEY)
            .map(|binding| Self::Key { binding })
            .or_else(|| digest(EXPORT).map(|export| Self::Export { export }))
            .or_else(|| digest(IMPORT).map(|id| Self::ImportKey { id }))
            .or_else(|| digest(RECIPIENT).map(|public_key| Self::Recipient { public_key }))
    }

    /// The document's `user_data`.
    #[must_use]
    pub fn user_data(&self) -> Vec<u8> {
        let (tag, digest): (_, &[u8]) = match self {
            Self::Enclave { configuration } => (ENCLAVE, configuration.as_ref().map_or(&[], |digest| digest)),
            Self::Key { binding } => (KEY, binding),
            Self::Export { export } => (EXPORT, export),
            Self::ImportKey { id } => (IMPORT, id),
            Self::Recipient { public_key } => (RECIPIENT, public_key),
        };
        [tag, digest].concat()
    }
}

const ENCLAVE: &[u8] = b"strongroom-enclave-v1";
const KEY: &[u8] = b"strongroom-key-v1";
pub(crate) const EXPORT: &[u8] = b"strongroom-export-v1";
const IMPORT: &[u8] = b"strongroom-import-v1";
const RECIPIENT: &[u8] = b"strongroom-recipient-v1";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        for (subject, tag, length) in [
            (Subject::Enclave { configuration: None }, "strongroom-enclave-v1", 0),
            (Subject::Enclave { configuration: Some([1; 48]) }, "strongroom-enclave-v1", 48),
            (Subject::Key { binding: [2; 32] }, "strongroom-key-v1", 32),
            (Subject::Export { export: [3; 32] }, "strongroom-export-v1", 32),
            (Subject::ImportKey { id: [4; 32] }, "strongroom-import-v1", 32),
            (Subject::Recipient { public_key: [5; 32] }, "strongroom-recipient-v1", 32),
        ] {
            let user_data = subject.user_data();
            assert_eq!(Subject::parse(&user_data), Some(subject));
            assert_eq!((&user_data[..tag.len()], user_data.len()), (tag.as_bytes(), tag.len() + length));
            let longer = [&user_data[..], &[0]].concat();
            assert_eq!(Subject::parse(&longer), None, "{tag}");
        }
    }

    #[test]
    fn other_data_is_about_nothing_of_ours() {
        for other in [&b""[..], b"strongroom", b"strongroom-key-v1", b"strongroom-key-v2", &[0; 49]] {
            assert_eq!(Subject::parse(other), None);
        }
    }
}
