//! Cursors of lists that ended for want of time, behind a key that the caller may not know of: its name is
//! sealed, under a key that all parents of the table share, so that each goes on where another stopped.

use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};

use crate::key_store::StoreError;

/// Seals and opens cursors.
#[derive(Debug)]
pub(super) struct CursorKey(RandomizedNonceKey);

/// What these cursors begin with, and no key's id does.
const MARK: char = '.';

const DOMAIN: &[u8] = b"strongroom-cursor-v1";

/// Longest cursor read, in characters: a partition key has at most 2048 bytes.
const MAX_CURSOR: usize = 2 * (2048 + NONCE_LEN + 16) + 1;

impl CursorKey {
    /// Its length in bytes.
    pub(super) const LENGTH: usize = 32;

    /// `None`: not [`CursorKey::LENGTH`] bytes.
    pub(super) fn new(bytes: &[u8]) -> Option<Self> {
        RandomizedNonceKey::new(&AES_256_GCM, bytes).ok().map(Self)
    }

    /// Whether this is a cursor that such a key sealed, as far as one can see.
    pub(super) fn is_sealed(cursor: &str) -> bool {
        cursor.starts_with(MARK)
    }

    /// A cursor behind `name`.
    pub(super) fn seal(&self, name: &str) -> Result<String, StoreError> {
        let mut sealed = name.as_bytes().to_vec();
        let nonce = self.0.seal_in_place_append_tag(Aad::from(DOMAIN), &mut sealed);
        let nonce = nonce.map_err(|_| StoreError::Unavailable)?;
        Ok(format!("{MARK}{}{}", hex::encode(nonce.as_ref()), hex::encode(sealed)))
    }

    /// The name behind which a list goes on.
    ///
    /// # Errors
    /// [`StoreError::Cursor`]: the caller's; no parent of this table gave it out.
    pub(super) fn open(&self, cursor: &str) -> Result<String, StoreError> {
        let opened = || {
            let digits = cursor.strip_prefix(MARK).filter(|_| cursor.len() <= MAX_CURSOR)?;
            let bytes = hex::decode(digits).ok()?;
            let (nonce, sealed) = bytes.split_at_checked(NONCE_LEN)?;
            let mut sealed = sealed.to_vec();
            let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
            let name = self.0.open_in_place(nonce, Aad::from(DOMAIN), &mut sealed).ok()?;
            String::from_utf8(name.to_vec()).ok()
        };
        opened().ok_or(StoreError::Cursor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_unchanged_cursor_of_the_same_key_opens_and_none_shows_its_name() {
        let key = CursorKey::new(&[1; 32]).expect("32 bytes");
        let cursor = key.seal("cold-1").expect("sealed");
        assert!(CursorKey::is_sealed(&cursor) && !cursor.contains(&hex::encode("cold-1")));
        assert_eq!(key.open(&cursor).as_deref(), Ok("cold-1"));
        let flipped = cursor.replacen(|c: char| c != MARK, "x", 1);
        let long = format!(".{}", "00".repeat(5000));
        for other in [".", ".00", &flipped, &cursor[..cursor.len() - 2], &long, "cold-1"] {
            assert_eq!(key.open(other), Err(StoreError::Cursor), "{other}");
        }
        assert_eq!(CursorKey::new(&[2; 32]).expect("32 bytes").open(&cursor), Err(StoreError::Cursor));
    }
}
