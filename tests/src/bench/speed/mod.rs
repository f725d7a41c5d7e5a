//! How fast the appliance signs, held against what a signature and its check cost in a bare loop in the same run:
//! what comes out are ratios. The caller runs on the same cores.

#![allow(clippy::print_stdout, reason = "a run takes minutes, and people want to see that it goes on")]
#![allow(clippy::indexing_slicing, reason = "a JSON value indexed by a name it does not have is null")]

mod enclave;
mod notes;
mod overload;
mod plot;
mod raw;
mod rest;
mod scale;
mod unlock;

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use bytes::Bytes;
use reqwest::StatusCode;
use serde_json::{Value, json};

use super::expect;
use super::load::Question;
use super::report::{Column, Row, Section, Table, Unit};
use crate::api::Api;
use crate::stack::{Plan, Stack, test_directory};
use raw::Raw;

/// Everything is measured so many times in turn, so that what else the machine does is in all figures alike. The best
/// of the rounds counts, of the bare loop too.
const ROUNDS: usize = 7;

/// Measures all of it.
pub(super) async fn section(directory: &Path, ratios: &mut BTreeMap<&'static str, f64>) -> io::Result<Section> {
    let started = Instant::now();
    let progress = |what: &str| println!("speed: {what} measured after {} s", started.elapsed().as_secs());
    let bench = Bench::start().await?;
    let mut raw = Raw::default();
    let mut loads = rest::loads();
    let mut hop = enclave::Hop::connect(&bench.stack).await?;
    for _ in 0..ROUNDS {
        raw.measure()?;
        hop.measure().await?;
        for load in &mut loads {
            load.measure(&bench).await?;
        }
    }
    progress("loads");
    let mut tables = vec![raw.table(), rest::singles(&loads, &raw, &hop), rest::batches(&loads, &raw)];
    rest::ratios(&loads, &raw, &hop, ratios);
    tables.push(unlock::table(&bench, ratios).await?);
    progress("unlocks");
    tables.push(scale::memory(&bench).await?);
    progress("memory");
    tables.push(overload::table(&bench, &loads, ratios).await?);
    progress("overload");
    bench.stack.stop().await?;
    tables.push(scale::records(ratios).await?);
    progress("records");
    fs::create_dir_all(directory)?;
    plot::write(&directory.join("report.svg"), &loads, &raw)?;
    Ok(Section { name: "speed", title: "Speed: signatures, against a bare loop", notes: notes::NOTES, tables })
}

/// A stack with keys.
struct Bench {
    stack: Stack,
    api: Api,
    address: SocketAddr,
}

impl Bench {
    async fn start() -> io::Result<Self> {
        let directory = test_directory()?;
        let bench = Self::of(Plan::new(directory.keep())).await?;
        bench.create("ecdsa", "secp256k1", 86_400).await?;
        bench.create("ed25519", "ed25519", 86_400).await?;
        bench.create("unheld", "secp256k1", 0).await?;
        Ok(bench)
    }

    async fn of(plan: Plan) -> io::Result<Self> {
        let configuration = json!({ "max_hold_seconds": 86_400, "max_held_keys": 10_000 });
        let configuration = configuration.as_object().cloned().unwrap_or_default();
        let stack = Plan { configuration, ..plan }.start().await?;
        let address = stack.url.trim_start_matches("http://").parse().map_err(io::Error::other)?;
        Ok(Self { api: Api::new(&stack.url), address, stack })
    }

    async fn create(&self, key_id: &str, algorithm: &str, hold_seconds: u32) -> io::Result<()> {
        let kinds = if algorithm == "ed25519" { json!(["message"]) } else { json!(["message", "digest"]) };
        let policy = json!({ "payloads": kinds, "hold_seconds": hold_seconds });
        let body = json!({ "key_id": key_id, "algorithm": algorithm, "policy": policy });
        expect(StatusCode::CREATED, self.api.post("/v1/keys", body).await?).map(|_| ())
    }

    fn question(&self, paths: impl IntoIterator<Item = String>, body: fn(u64) -> Bytes) -> Question {
        Question { address: self.address, paths: paths.into_iter().collect(), body }
    }

    /// CPU time of enclave and parent so far.
    fn cpu(&self) -> io::Result<[Duration; 2]> {
        let [_, enclave, parent] = self.stack.process_ids();
        Ok([cpu_time(enclave)?, cpu_time(parent)?])
    }

    async fn sign(&self, key_id: &str) -> io::Result<Value> {
        let body = json!({ "payload": { "type": "digest", "digest": format!("0x{}", "11".repeat(32)) } });
        expect(StatusCode::OK, self.api.sign(key_id, body).await?).map(|reply| reply.body)
    }
}

/// The n-th digest, as a payload.
fn digest(n: u64) -> String {
    format!("{{\"type\":\"digest\",\"digest\":\"0x{n:064x}\"}}")
}

/// A request for one ECDSA signature.
fn one_digest(n: u64) -> Bytes {
    format!("{{\"payload\":{}}}", digest(n)).into()
}

/// User and system time of a process, in the kernel's ticks of 10 ms.
fn cpu_time(process: Option<u32>) -> io::Result<Duration> {
    let stat = fs::read_to_string(format!("/proc/{}/stat", process.unwrap_or_default()))?;
    // Behind the name, which may have anything in it: state is the third field, utime and stime the 14th and 15th.
    let fields = stat.rsplit(") ").next().unwrap_or_default().split(' ');
    let ticks: Option<Vec<u64>> = fields.skip(11).take(2).map(|ticks| ticks.parse().ok()).collect();
    let ticks: u64 = ticks.ok_or_else(|| io::Error::other("no CPU time"))?.iter().sum();
    Ok(Duration::from_millis(ticks * 10))
}

fn column(name: &'static str, title: &'static str, unit: Unit) -> Column {
    Column { name, title, unit: Some(unit) }
}

/// A table of single values.
fn list(name: &'static str, title: &'static str, rows: Vec<(&'static str, &'static str, Unit, f64)>) -> Table {
    let rows =
        rows.into_iter().map(|(name, title, unit, value)| Row { name, title, unit, values: vec![value] }).collect();
    Table { name, title, columns: vec![Column { name: "value", title: "", unit: None }], rows }
}
