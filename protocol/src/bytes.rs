//! Byte strings whose length is part of their type, so that a message cannot carry more than its
//! field allows. On the wire they are CBOR byte strings (RFC 8949, major type 2).

use std::fmt;

use serde::de::{Error, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// At most `MAX` bytes.
#[derive(Clone, PartialEq, Eq, Hash, Default)]
pub struct ByteString<const MAX: usize>(Vec<u8>);

/// A byte string was longer than its field allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{length} bytes where at most {limit} are allowed")]
pub struct TooLong {
    /// The length that was offered, in bytes.
    pub length: usize,
    /// The most that the field takes, in bytes.
    pub limit: usize,
}

impl<const MAX: usize> ByteString<MAX> {
    /// The bytes, taken out.
    #[must_use]
    pub fn into_vec(self) -> Vec<u8> {
        self.0
    }
}

impl<const MAX: usize> TryFrom<Vec<u8>> for ByteString<MAX> {
    type Error = TooLong;

    fn try_from(bytes: Vec<u8>) -> Result<Self, TooLong> {
        check_length(bytes.len(), MAX).map(|()| Self(bytes))
    }
}

impl<const MAX: usize> TryFrom<&[u8]> for ByteString<MAX> {
    type Error = TooLong;

    fn try_from(bytes: &[u8]) -> Result<Self, TooLong> {
        check_length(bytes.len(), MAX).map(|()| Self(bytes.to_vec()))
    }
}

impl<const MAX: usize> std::ops::Deref for ByteString<MAX> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl<const MAX: usize> fmt::Debug for ByteString<MAX> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{} bytes]", self.0.len())
    }
}

impl<const MAX: usize> Serialize for ByteString<MAX> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de, const MAX: usize> Deserialize<'de> for ByteString<MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Bounded<const MAX: usize>;

        impl<const MAX: usize> Visitor<'_> for Bounded<MAX> {
            type Value = ByteString<MAX>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "a byte string of at most {MAX} bytes")
            }

            fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<Self::Value, E> {
                ByteString::try_from(bytes).map_err(E::custom)
            }

            fn visit_byte_buf<E: Error>(self, bytes: Vec<u8>) -> Result<Self::Value, E> {
                ByteString::try_from(bytes).map_err(E::custom)
            }
        }

        deserializer.deserialize_bytes(Bounded::<MAX>)
    }
}

/// Exactly `N` bytes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ByteArray<const N: usize>(pub [u8; N]);

impl<const N: usize> std::ops::Deref for ByteArray<N> {
    type Target = [u8; N];

    fn deref(&self) -> &[u8; N] {
        &self.0
    }
}

impl<const N: usize> fmt::Debug for ByteArray<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl<const N: usize> Serialize for ByteArray<N> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de, const N: usize> Deserialize<'de> for ByteArray<N> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let bytes = ByteString::<N>::deserialize(deserializer)?;
        let length = bytes.len();
        <[u8; N]>::try_from(bytes.into_vec())
            .map(Self)
            .map_err(|_| D::Error::invalid_length(length, &"the exact length of the field"))
    }
}

fn check_length(length: usize, limit: usize) -> Result<(), TooLong> {
    if length <= limit { Ok(()) } else { Err(TooLong { length, limit }) }
}
