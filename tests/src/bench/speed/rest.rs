//! Signatures over REST, of held keys: one by one with more and more in flight, and in batches.

use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

use bytes::Bytes;

use super::enclave::Hop;
use super::raw::Raw;
use super::{Bench, column, digest, one_digest};
use crate::bench::load::{Http, closed};
use crate::bench::report::{Row, Table, Unit};

const TIME: Duration = Duration::from_millis(1_200);

/// Batches in flight: enough that the cores have work while the caller and the parent read and write.
const BATCHES_IN_FLIGHT: usize = 4;

/// One kind of load, and the best of its rounds.
pub(super) struct Load {
    pub(super) name: &'static str,
    pub(super) title: &'static str,
    http: Http,
    pub(super) in_flight: usize,
    pub(super) path: &'static str,
    pub(super) body: fn(u64) -> Bytes,
    /// Signatures in one request.
    pub(super) batch: usize,
    /// Place of the scheme in [`Raw`].
    scheme: usize,
    best: Best,
    /// Of each round, in microseconds.
    p99: Vec<f64>,
}

#[derive(Default)]
struct Best {
    /// Signatures per second.
    rate: f64,
    p50_us: f64,
    /// CPU per signature, in microseconds: of the enclave and of the parent, in the round in which both together had the
    /// least.
    cpu_us: [f64; 2],
}

/// All that is measured.
pub(super) fn loads() -> Vec<Load> {
    const SIGN: &str = "/v1/keys/ecdsa/sign";
    const BATCH: &str = "/v1/keys/ecdsa/sign-batch";
    let load = |name, title, http, in_flight, path, body, batch, scheme| Load {
        name,
        title,
        http,
        in_flight,
        path,
        body,
        batch,
        scheme,
        best: Best { p50_us: f64::INFINITY, cpu_us: [f64::INFINITY; 2], ..Best::default() },
        p99: Vec::new(),
    };
    vec![
        load("rest_1", "HTTP/1.1, 1 in flight", Http::One, 1, SIGN, one_digest, 1, 0),
        load("rest_16", "HTTP/1.1, 16 in flight", Http::One, 16, SIGN, one_digest, 1, 0),
        load("rest_64", "HTTP/1.1, 64 in flight", Http::One, 64, SIGN, one_digest, 1, 0),
        load("rest_256", "HTTP/1.1, 256 in flight", Http::One, 256, SIGN, one_digest, 1, 0),
        load("h2c_256", "HTTP/2, 16 connections, 256 streams", Http::Two(16), 256, SIGN, one_digest, 1, 0),
        load("h2c_64", "HTTP/2, one connection, 64 streams", Http::Two(1), 64, SIGN, one_digest, 1, 0),
        load(
            "ed25519_64",
            "Ed25519, HTTP/1.1, 64 in flight",
            Http::One,
            64,
            "/v1/keys/ed25519/sign",
            one_message,
            1,
            2,
        ),
        load("batch_10", "ECDSA, batches of 10", Http::One, BATCHES_IN_FLIGHT, BATCH, |n| batch(n, 10), 10, 0),
        load("batch_100", "ECDSA, batches of 100", Http::One, BATCHES_IN_FLIGHT, BATCH, |n| batch(n, 100), 100, 0),
        load("batch_1000", "ECDSA, batches of 1,000", Http::One, BATCHES_IN_FLIGHT, BATCH, |n| batch(n, 1000), 1000, 0),
        load(
            "batch_1000_bip340",
            "BIP-340, batches of 1,000 (nothing shared)",
            Http::One,
            BATCHES_IN_FLIGHT,
            BATCH,
            |n| bip340(n, 1000),
            1000,
            1,
        ),
    ]
}

impl Load {
    /// Signatures per second.
    pub(super) const fn rate(&self) -> f64 {
        self.best.rate
    }

    pub(super) async fn measure(&mut self, bench: &Bench) -> io::Result<()> {
        let question = bench.question([self.path.to_owned()], self.body);
        let before = bench.cpu()?;
        let run = closed(&question, self.http, self.in_flight, TIME).await?;
        let after = bench.cpu()?;
        let signatures = (run.latency.len() as usize * self.batch) as f64;
        let cpu_us = [0, 1].map(|at| (after[at] - before[at]).as_secs_f64() * 1e6 / signatures);
        let best = &mut self.best;
        best.rate = best.rate.max(signatures / run.elapsed.as_secs_f64());
        best.p50_us = best.p50_us.min(run.quantile(0.5));
        if cpu_us.iter().sum::<f64>() < best.cpu_us.iter().sum() {
            best.cpu_us = cpu_us;
        }
        self.p99.push(run.quantile(0.99));
        Ok(())
    }

    fn over_raw(&self, raw: &Raw) -> f64 {
        self.best.rate / raw.two_threads(self.scheme)
    }

    fn cpu_over_raw(&self, raw: &Raw) -> f64 {
        self.best.cpu_us.iter().sum::<f64>() / raw.one_us(self.scheme)
    }

    /// The median of the rounds.
    fn p99_us(&self) -> f64 {
        let mut rounds = self.p99.clone();
        rounds.sort_by(f64::total_cmp);
        rounds.get(rounds.len() / 2).copied().unwrap_or_default()
    }

    fn row(&self, raw: &Raw) -> Row {
        let [enclave, parent] = self.best.cpu_us;
        let (rate, p50) = (self.best.rate, self.best.p50_us);
        let values = vec![rate, self.over_raw(raw), p50, self.p99_us(), parent, enclave, self.cpu_over_raw(raw)];
        Row { name: self.name, title: self.title, unit: Unit::PerSecond, values }
    }
}

/// Signatures one by one.
pub(super) fn singles(loads: &[Load], raw: &Raw, hop: &Hop) -> Table {
    let mut rows: Vec<_> = loads.iter().filter(|load| load.batch == 1).map(|load| load.row(raw)).collect();
    let (hop, none) = (hop.median_us(), f64::NAN);
    let values = vec![1e6 / hop, 1e6 / hop / raw.two_threads(0), hop, none, none, none, none];
    rows.insert(0, Row { name: "hop", title: "Without HTTP, 1 in flight", unit: Unit::PerSecond, values });
    table("singles", "One signature per request, key held", rows)
}

/// Signatures in batches. Latencies are the batch's.
pub(super) fn batches(loads: &[Load], raw: &Raw) -> Table {
    let rows = loads.iter().filter(|load| load.batch > 1).map(|load| load.row(raw)).collect();
    table("batches", "Batches, 4 in flight", rows)
}

fn table(name: &'static str, title: &'static str, rows: Vec<Row>) -> Table {
    let columns = vec![
        column("rate", "signatures", Unit::PerSecond),
        column("over_raw", "of two threads of the bare loop", Unit::Ratio),
        column("p50", "p50", Unit::Microseconds),
        column("p99", "p99", Unit::Microseconds),
        column("cpu_parent", "CPU per signature, parent", Unit::Microseconds),
        column("cpu_enclave", "enclave", Unit::Microseconds),
        column("cpu_over_raw", "both, of a bare signature", Unit::Ratio),
    ];
    Table { name, title, columns, rows }
}

/// The ratios by which the design is judged.
pub(super) fn ratios(loads: &[Load], raw: &Raw, hop: &Hop, ratios: &mut BTreeMap<&'static str, f64>) {
    let one = raw.one_us(0);
    ratios.insert("hop_p50_us", hop.median_us() - one);
    for load in loads {
        match load.name {
            "rest_1" => drop(ratios.insert("p50_1_minus_raw_us", load.best.p50_us - one)),
            "rest_16" => drop(ratios.insert("p99_16_ms", load.p99_us() / 1000.0)),
            "rest_64" => {
                ratios.insert("rest_64_over_raw", load.over_raw(raw));
                ratios.insert("cpu_per_signature_over_raw", load.cpu_over_raw(raw));
            }
            "h2c_64" => drop(ratios.insert("h2c_64_over_raw", load.over_raw(raw))),
            "batch_1000" => {
                ratios.insert("batch_1000_shared_over_raw", load.over_raw(raw));
                ratios.insert("batch_1000_cpu_over_raw", load.cpu_over_raw(raw));
            }
            "batch_1000_bip340" => drop(ratios.insert("batch_1000_over_raw", load.over_raw(raw))),
            _ => {}
        }
    }
}

fn one_message(n: u64) -> Bytes {
    format!("{{\"payload\":{{\"type\":\"message\",\"message\":\"0x{n:064x}\"}}}}").into()
}

/// Digests that no other request has.
fn digests(n: u64, count: u64) -> String {
    (n * count..(n + 1) * count).map(digest).collect::<Vec<_>>().join(",")
}

/// A request for `count` ECDSA signatures.
pub(super) fn batch(n: u64, count: u64) -> Bytes {
    format!("{{\"payloads\":[{}]}}", digests(n, count)).into()
}

fn bip340(n: u64, count: u64) -> Bytes {
    format!("{{\"scheme\":\"bip340\",\"payloads\":[{}]}}", digests(n, count)).into()
}
