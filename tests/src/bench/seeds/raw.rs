//! The keys at the same paths, from libraries that the enclave does not derive with (libsecp256k1, and AWS-LC's
//! ed25519), by the cheapest way from the parent that all of them have.

use std::io;

use aws_lc_rs::hmac::{Context, HMAC_SHA512, Key};
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use secp256k1::{PublicKey, Scalar, SecretKey};
use strongroom_protocol::{Curve, HARDENED};

/// What all keys lie below.
pub(super) enum Raw {
    /// `m/44'/60'/0'/0`. Its children need no private key (BIP-32, CKDpub).
    Secp256k1 { point: PublicKey, chain_code: [u8; 32] },
    /// `m/44'/501'`
    Ed25519(Extended),
}

/// A private key and its chain code.
pub(super) struct Extended {
    key: [u8; 32],
    chain_code: [u8; 32],
}

impl Raw {
    pub(super) fn new(curve: Curve, seed: &[u8]) -> io::Result<Self> {
        match curve {
            Curve::Secp256k1 => {
                let mut level = Extended::split(b"Bitcoin seed", &[seed])?;
                for index in [44, 60, 0] {
                    let tweak = level.hardened(index)?;
                    level = Extended { key: add(level.key, tweak.key)?, ..tweak };
                }
                let tweak =
                    Extended::split(&level.chain_code, &[&point(level.key)?.serialize(), &0_u32.to_be_bytes()])?;
                Ok(Self::Secp256k1 { point: point(add(level.key, tweak.key)?)?, chain_code: tweak.chain_code })
            }
            Curve::Ed25519 => {
                let master = Extended::split(b"ed25519 seed", &[seed])?;
                Ok(Self::Ed25519(master.hardened(44)?.hardened(501)?))
            }
        }
    }

    /// The public key at `…/n`: one HMAC, one k·G and one addition; or at `…/n'/0'`: two HMACs and one k·G.
    pub(super) fn public_key(&self, n: u32) -> io::Result<Vec<u8>> {
        match self {
            Self::Secp256k1 { point, chain_code } => {
                let tweak = Extended::split(chain_code, &[&point.serialize(), &n.to_be_bytes()])?;
                let tweak = Scalar::from_be_bytes(tweak.key).map_err(io::Error::other)?;
                Ok(point.add_exp_tweak(&tweak).map_err(io::Error::other)?.serialize().to_vec())
            }
            Self::Ed25519(parent) => {
                let child = parent.hardened(n)?.hardened(0)?;
                let pair = Ed25519KeyPair::from_seed_unchecked(&child.key).map_err(io::Error::other)?;
                Ok(pair.public_key().as_ref().to_vec())
            }
        }
    }
}

impl Extended {
    /// The halves of an HMAC.
    fn split(key: &[u8], parts: &[&[u8]]) -> io::Result<Self> {
        let mut mac = Context::with_key(&Key::new(HMAC_SHA512, key));
        parts.iter().for_each(|part| mac.update(part));
        let mac = mac.sign();
        let ([key, chain_code], []) = mac.as_ref().as_chunks() else { return Err(io::Error::other("not two halves")) };
        Ok(Self { key: *key, chain_code: *chain_code })
    }

    /// SLIP-10's child for ed25519; BIP-32's before its key is added to the parent's.
    fn hardened(&self, index: u32) -> io::Result<Self> {
        Self::split(&self.chain_code, &[&[0], &self.key, &(HARDENED | index).to_be_bytes()])
    }
}

fn add(key: [u8; 32], tweak: [u8; 32]) -> io::Result<[u8; 32]> {
    let tweak = Scalar::from_be_bytes(tweak).map_err(io::Error::other)?;
    let key = SecretKey::from_secret_bytes(key).and_then(|key| key.add_tweak(&tweak)).map_err(io::Error::other)?;
    Ok(key.to_secret_bytes())
}

fn point(key: [u8; 32]) -> io::Result<PublicKey> {
    Ok(PublicKey::from_secret_key(&SecretKey::from_secret_bytes(key).map_err(io::Error::other)?))
}
