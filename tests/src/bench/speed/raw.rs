//! The bare loop: the library's signature and the product's check, one thread and two.

use std::hint::black_box;
use std::io;
use std::thread;
use std::time::{Duration, Instant};

use strongroom_enclave::RawKey;
use strongroom_protocol::{ByteArray, Curve, Payload, Scheme};

use super::column;
use crate::bench::report::{Row, Table, Unit};

const TIME: Duration = Duration::from_millis(600);

/// The schemes, by their place in [`Raw`].
pub(super) const SCHEMES: [(Scheme, &str, &str); 3] = [
    (Scheme::Ecdsa, "ecdsa", "ECDSA, secp256k1"),
    (Scheme::Bip340, "bip340", "BIP-340, secp256k1"),
    (Scheme::Ed25519, "ed25519", "Ed25519"),
];

/// The best rates so far, per second, by scheme: of one thread and of two.
#[derive(Default)]
pub(super) struct Raw([[f64; 2]; 3]);

impl Raw {
    pub(super) fn measure(&mut self) -> io::Result<()> {
        for ((scheme, ..), best) in SCHEMES.into_iter().zip(&mut self.0) {
            for (threads, best) in (1..).zip(best) {
                *best = best.max(rate(scheme, threads)?);
            }
        }
        Ok(())
    }

    /// One signature, in microseconds.
    pub(super) fn one_us(&self, scheme: usize) -> f64 {
        1e6 / self.0[scheme][0]
    }

    /// Signatures of two threads, per second.
    pub(super) fn two_threads(&self, scheme: usize) -> f64 {
        self.0[scheme][1]
    }

    pub(super) fn table(&self) -> Table {
        let rows = SCHEMES.into_iter().enumerate().map(|(at, (_, name, title))| Row {
            name,
            title,
            unit: Unit::PerSecond,
            values: vec![self.one_us(at), self.two_threads(at)],
        });
        let columns = vec![
            column("one_thread", "one signature", Unit::Microseconds),
            column("two_threads", "two threads", Unit::PerSecond),
        ];
        Table { name: "raw", title: "The bare loop", columns, rows: rows.collect() }
    }
}

fn rate(scheme: Scheme, threads: usize) -> io::Result<f64> {
    let workers: Vec<_> = (0..threads).map(|_| thread::spawn(move || sign_for(scheme))).collect();
    workers.into_iter().map(|worker| worker.join().map_err(|_| io::Error::other("a thread died"))?).sum()
}

fn sign_for(scheme: Scheme) -> io::Result<f64> {
    let curve = if scheme == Scheme::Ed25519 { Curve::Ed25519 } else { Curve::Secp256k1 };
    let failed = || io::Error::other("the bare loop does not sign");
    let key = RawKey::new(curve, &[7; 32]).ok_or_else(failed)?;
    let (started, mut count) = (Instant::now(), 0_u64);
    while started.elapsed() < TIME {
        for _ in 0..16 {
            count += 1;
            let mut digest = [0; 32];
            digest[..8].copy_from_slice(&count.to_be_bytes());
            let payload = match curve {
                Curve::Secp256k1 => Payload::Digest(ByteArray(digest)),
                Curve::Ed25519 => {
                    Payload::Message { message: digest.as_slice().try_into().map_err(io::Error::other)?, hash: None }
                }
            };
            black_box(key.sign(scheme, &payload)).ok_or_else(failed)?;
        }
    }
    Ok(count as f64 / started.elapsed().as_secs_f64())
}
