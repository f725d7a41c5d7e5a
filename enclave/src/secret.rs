//! Raw key bytes. Boxed, filled in place, wiped on drop, silent: no `Clone`, no `Serialize`, no
//! `Debug`, and `expose` as the one greppable way to look inside.
//!
//! What the box cannot cover: copies that signing and cipher crates leave on the stack
//! ([`wipe_stack`]) and in freed heap memory (the zeroing allocator of `lib.rs`).

use std::hint::black_box;

use zeroize::Zeroize;

/// `N` secret bytes at one place in memory for all their life.
pub(crate) struct Secret<const N: usize>(Box<[u8; N]>);

impl<const N: usize> Secret<N> {
    /// Lets `fill` write the secret straight to where it will stay.
    ///
    /// # Errors
    /// Those of `fill`; what it had written is wiped.
    pub(crate) fn fill<E>(fill: impl FnOnce(&mut [u8; N]) -> Result<(), E>) -> Result<Self, E> {
        let mut secret = Self(Box::new([0; N]));
        fill(&mut secret.0)?;
        Ok(secret)
    }

    /// The one way to look inside. The caller must not copy what it sees.
    pub(crate) fn expose(&self) -> &[u8; N] {
        &self.0
    }
}

impl<const N: usize> From<&[u8; N]> for Secret<N> {
    /// A copy. The original's place is the caller's to wipe.
    fn from(bytes: &[u8; N]) -> Self {
        let mut secret = Self(Box::new([0; N]));
        secret.0.copy_from_slice(bytes);
        secret
    }
}

impl<const N: usize> Drop for Secret<N> {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

/// What a record seals: a plain key's 32 bytes, or a seed of other length. How many there may be is the
/// algorithm's matter and checked where they become a key (`OpenedSecret::new`).
pub(crate) struct KeyMaterial(Box<[u8]>);

impl KeyMaterial {
    /// Lets `fill` write `length` bytes straight to where they will stay. The caller has bounded `length`.
    ///
    /// # Errors
    /// Those of `fill`; what it had written is wiped.
    pub(crate) fn fill<E>(length: usize, fill: impl FnOnce(&mut [u8]) -> Result<(), E>) -> Result<Self, E> {
        let mut material = Self(vec![0; length].into_boxed_slice());
        fill(&mut material.0)?;
        Ok(material)
    }

    /// The one way to look inside. The caller must not copy what it sees.
    pub(crate) fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl From<&Secret<32>> for KeyMaterial {
    fn from(secret: &Secret<32>) -> Self {
        let mut material = Self(vec![0; 32].into_boxed_slice());
        material.0.copy_from_slice(secret.expose());
        material
    }
}

impl Drop for KeyMaterial {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

/// Runs `work` and then overwrites the dead stack below, where signing and cipher crates leave nonces
/// and key copies (k256 reaches about 33 KB deep).
pub(crate) fn on_wiped_stack<T>(work: impl FnOnce() -> T) -> T {
    let result = call(work);
    wipe_stack();
    result
}

/// A frame of its own, so that all that `work` used lies below the caller's.
#[inline(never)]
fn call<T>(work: impl FnOnce() -> T) -> T {
    work()
}

/// Zeroes 64 KiB below the caller's frame. In words: `zeroize` writes one element at a time, and in bytes it
/// would take a quarter of a signature's time.
#[inline(never)]
fn wipe_stack() {
    let mut dead = [0_u64; 8 * 1024];
    dead.zeroize();
    black_box(&dead);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_fill_leaves_no_secret() {
        let refused = Secret::<32>::fill(|bytes| {
            bytes.fill(7);
            Err("refused")
        });
        assert_eq!(refused.err(), Some("refused"));
    }

    #[test]
    fn the_result_survives_the_wipe() {
        let result = on_wiped_stack(|| {
            let local = [3_u8; 4096];
            black_box(&local).iter().map(|&b| u64::from(b)).sum::<u64>()
        });
        assert_eq!(result, 3 * 4096);
    }
}
