//! What the number of records costs: the same questions to a parent whose store has 1,000 records and to
//! one whose store has 100,000, and beside them what the store itself takes for what the parent must ask.

#![allow(clippy::print_stdout, reason = "a run takes minutes, and people want to see that it goes on")]
#![allow(clippy::indexing_slicing, reason = "a JSON value indexed by a name it does not have is null")]

mod notes;
mod relay;
mod stock;

use std::io;
use std::time::{Duration, Instant};

use reqwest::StatusCode;
use serde_json::{Value, json};
use strongroom_parent::stored_record::StoredRecord;
use tokio::time::{sleep, timeout};

use super::report::{Column, Figure, Row, Section, Table, Unit};
use super::samples::Samples;
use super::{expect, memory_mib};
use crate::api::Api;
use crate::stack::{Plan, Stack, test_directory};
use notes::NOTES;
use stock::{Stock, read_names, scan};

/// The two stores that are compared with themselves.
#[derive(Clone, Copy)]
enum Kind {
    Directory,
    DynamoDb,
}

/// The keys that sign, made through REST; the others only have to be listed and shown.
const REAL_KEYS: usize = 32;

/// The keys on a page of the walk: one fewer than the items that one Scan of the parent reads, because the
/// parent looks for one more to know whether the list goes on.
const WALK_PAGE: usize = 249;

/// Measures both stores.
pub(super) async fn section() -> io::Result<Section> {
    let mut tables = Vec::new();
    for (kind, name, title) in
        [(Kind::Directory, "directory", "Directory"), (Kind::DynamoDb, "dynamodb", "DynamoDB (moto)")]
    {
        let (small, large) = (measure(kind, 1_000).await?, measure(kind, 100_000).await?);
        let columns = vec![
            Column { name: "1000", title: "1,000 records", unit: None },
            Column { name: "100000", title: "100,000 records", unit: None },
            Column { name: "ratio", title: "ratio", unit: Some(Unit::Ratio) },
        ];
        let row = |(small, large): (Figure, Figure)| {
            // No calls at either size are as many.
            let ratio = if small.value == large.value { 1.0 } else { large.value / small.value };
            let values = vec![small.value, large.value, ratio];
            Row { name: small.name, title: small.title, unit: small.unit, values }
        };
        let rows = small.into_iter().zip(large).map(row).collect();
        tables.push(Table { name, title, columns, rows });
    }
    Ok(Section { name: "records", title: "Records: 1,000 and 100,000", notes: NOTES, tables })
}

/// A stack on a store of `count` records.
struct Bench {
    count: usize,
    stock: Stock,
    api: Api,
    figures: Vec<Figure>,
    stack: Stack,
}

async fn measure(kind: Kind, count: usize) -> io::Result<Vec<Figure>> {
    let directory = test_directory()?;
    let mut plan = Plan::new(directory.path());
    let (stock, name) = match kind {
        Kind::Directory => (Stock::directory(&plan), "directory"),
        Kind::DynamoDb => (Stock::dynamodb(&mut plan).await?, "DynamoDB"),
    };
    let stack = plan.start().await?;
    let mut bench = Bench { count, stock, api: Api::new(&stack.url), figures: Vec::new(), stack };
    let started = Instant::now();
    bench.fill().await?;
    println!("{name}: {count} records stored in {} s", started.elapsed().as_secs());
    bench.start_up().await?;
    bench.pages().await?;
    bench.walk().await?;
    bench.show().await?;
    bench.sign().await?;
    bench.limits().await?;
    println!("{name}: {count} records measured in {} s", started.elapsed().as_secs());
    bench.stack.stop().await?;
    Ok(bench.figures)
}

impl Bench {
    /// Keys that sign, spread evenly over the names, and copies of one of them under all other names.
    async fn fill(&self) -> io::Result<()> {
        // Held once used, so that a signature need not have a call to KMS in it.
        let policy = json!({ "payloads": ["message"], "hold_seconds": 3600 });
        for n in 0..REAL_KEYS {
            let body = json!({ "key_id": self.real_name(n), "algorithm": "ed25519", "policy": policy });
            expect(StatusCode::CREATED, self.api.post("/v1/keys", body).await?)?;
        }
        let first = self.real_name(0);
        let json = self.stock.read(&first).await?;
        let key_id = first.parse().map_err(io::Error::other)?;
        let real = StoredRecord::from_json(&key_id, json.as_bytes()).map_err(io::Error::other)?;
        let mut names: Vec<Option<String>> = (0..self.count).map(|n| Some(name(n))).collect();
        for n in 0..REAL_KEYS {
            names[n * self.count / REAL_KEYS] = None;
        }
        let copy = |name: String| {
            let mut copy = real.clone();
            copy.record.key_id = name.parse().map_err(io::Error::other)?;
            Ok(copy)
        };
        self.stock.fill(names.into_iter().flatten().map(copy)).await?;
        // The parent keeps the names of a folder that has been left alone for a second.
        sleep(Duration::from_millis(1500)).await;
        Ok(())
    }

    /// From the start of the process to readiness, and the first list thereafter.
    async fn start_up(&mut self) -> io::Result<()> {
        let (mut starts, mut lists) = (Samples::default(), Samples::default());
        for _ in 0..9 {
            self.stack.stop_parent().await?;
            starts.time(self.restart_until_ready()).await?;
            lists.time(self.page("limit=100")).await?;
        }
        self.figure("start_up", "Start-up: process start to `/readyz` 200", Unit::Milliseconds, starts.median_ms());
        let first = lists.median_ms();
        self.figure("first_list", "First page of 100, first list after start-up", Unit::Milliseconds, first);
        Ok(())
    }

    async fn pages(&mut self) -> io::Result<()> {
        let scans = self.stock.calls("Scan");
        let mut first = Samples::default();
        for _ in 0..15 {
            first.time(self.page("limit=100")).await?;
        }
        let scans_first = f64::from(self.stock.calls("Scan") - scans) / 15.0;
        let mut middle = Samples::default();
        for n in 0..15 {
            let query = format!("limit=100&cursor={}", name(self.count / 2 + 7 * n));
            middle.time(self.page(&query)).await?;
        }
        let scans_middle = f64::from(self.stock.calls("Scan") - scans) / 15.0 - scans_first;
        self.figure("first_page", "First page of 100", Unit::Milliseconds, first.median_ms());
        self.figure("middle_page", "Page of 100 from the middle", Unit::Milliseconds, middle.median_ms());
        self.calls("first_page_scans", "Scans per first page of 100", scans_first);
        self.calls("middle_page_scans", "Scans per page of 100 from the middle", scans_middle);
        Ok(())
    }

    /// The whole list, page by page, and what the parent's memory is then.
    async fn walk(&mut self) -> io::Result<()> {
        let scans = self.stock.calls("Scan");
        let (mut pages, mut listed, mut count) = (Samples::default(), 0, 0_u32);
        let mut query = format!("limit={WALK_PAGE}");
        loop {
            let page = pages.time(self.page(&query)).await?;
            count += 1;
            listed += page["keys"].as_array().map_or(0, Vec::len);
            let Some(cursor) = page["next_cursor"].as_str() else { break };
            query = format!("limit={WALK_PAGE}&cursor={cursor}");
        }
        if listed != self.count {
            return Err(io::Error::other(format!("{listed} of {} keys were listed", self.count)));
        }
        let scans = f64::from(self.stock.calls("Scan") - scans) / f64::from(count);
        self.figure("walk_page", "Walk through the whole list, per page of 249", Unit::Milliseconds, pages.median_ms());
        self.calls("walk_scans", "Scans per page of the walk", scans);
        let [.., parent] = self.stack.process_ids();
        let memory = memory_mib(parent)?;
        self.figure("memory", "Memory of the parent (RSS) after the walk", Unit::Mebibytes, memory);
        Ok(())
    }

    async fn show(&mut self) -> io::Result<()> {
        let reads = self.stock.calls("GetItem");
        let mut shows = Samples::default();
        for n in 0..200 {
            let path = format!("/v1/keys/{}", self.scattered(n));
            expect(StatusCode::OK, shows.time(self.api.get(&path)).await?)?;
        }
        let reads = f64::from(self.stock.calls("GetItem") - reads) / 200.0;
        self.figure("show", "Show a random key", Unit::Milliseconds, shows.median_ms());
        self.calls("show_reads", "GetItems per show", reads);
        Ok(())
    }

    /// Each key signs: when nobody knows it, when only the enclave holds it, and when the parent has its
    /// record too.
    async fn sign(&mut self) -> io::Result<()> {
        self.stack.restart_enclave().await?;
        for (name, title, reads_name, reads_title) in [
            (
                "sign_cold",
                "Sign, nothing cached: read the record, unlock at mock-kms, sign",
                "sign_cold_reads",
                "GetItems per such signature",
            ),
            (
                "sign_held",
                "Sign, after a restart of the parent only: read the record, sign",
                "sign_held_reads",
                "GetItems per such signature",
            ),
        ] {
            self.stack.stop_parent().await?;
            self.restart_until_ready().await?;
            let reads = self.stock.calls("GetItem");
            let signing = self.sign_with_each().await?;
            let reads = f64::from(self.stock.calls("GetItem") - reads) / REAL_KEYS as f64;
            self.figure(name, title, Unit::Milliseconds, signing.median_ms());
            self.calls(reads_name, reads_title, reads);
        }
        let reads = self.stock.calls("GetItem");
        let mut signing = Samples::default();
        for _ in 0..5 {
            signing.extend(self.sign_with_each().await?);
        }
        let reads = f64::from(self.stock.calls("GetItem") - reads) / (5 * REAL_KEYS) as f64;
        self.figure("sign_warm", "Sign, record cached and key held", Unit::Milliseconds, signing.median_ms());
        self.calls("sign_warm_reads", "GetItems per such signature", reads);
        Ok(())
    }

    async fn sign_with_each(&self) -> io::Result<Samples> {
        // So that no signature has the making of a connection in it.
        expect(StatusCode::OK, self.api.get("/healthz").await?)?;
        let mut signing = Samples::default();
        for n in 0..REAL_KEYS {
            let key_id = self.real_name(n * 13 % REAL_KEYS);
            let body = json!({ "payload": { "type": "message", "message": "0x6869" } });
            expect(StatusCode::OK, signing.time(self.api.sign(&key_id, body)).await?)?;
        }
        Ok(signing)
    }

    /// What the store takes for the same without the parent.
    async fn limits(&mut self) -> io::Result<()> {
        let (mut reads, mut first, mut middle) = (Samples::default(), Samples::default(), Samples::default());
        for n in 0..200 {
            reads.time(self.stock.read(&self.scattered(n))).await?;
        }
        match &self.stock {
            Stock::Directory(folder) => {
                for _ in 0..9 {
                    first.time(async { read_names(folder) }).await?;
                }
                self.figure(
                    "raw_file",
                    "Without the parent: read a random file",
                    Unit::Milliseconds,
                    reads.median_ms(),
                );
                let names = first.median_ms();
                self.figure("raw_names", "Without the parent: read the folder's names", Unit::Milliseconds, names);
            }
            Stock::DynamoDb { client, .. } => {
                for n in 0..9 {
                    first.time(scan(client, None)).await?;
                    middle.time(scan(client, Some(&name(self.count / 2 + 7 * n)))).await?;
                }
                self.figure("raw_get", "moto alone: GetItem of a random item", Unit::Milliseconds, reads.median_ms());
                let (first, middle) = (first.median_ms(), middle.median_ms());
                self.figure("raw_first_scan", "moto alone: Scan of the first 250 items", Unit::Milliseconds, first);
                self.figure(
                    "raw_middle_scan",
                    "moto alone: Scan of 250 items in the middle",
                    Unit::Milliseconds,
                    middle,
                );
            }
        }
        Ok(())
    }

    async fn restart_until_ready(&mut self) -> io::Result<()> {
        self.stack.restart_parent().await?;
        let ready = async {
            while !self.api.get("/readyz").await.is_ok_and(|reply| reply.status.is_success()) {
                sleep(Duration::from_millis(1)).await;
            }
        };
        timeout(Duration::from_secs(60), ready).await.map_err(io::Error::other)
    }

    async fn page(&self, query: &str) -> io::Result<Value> {
        expect(StatusCode::OK, self.api.get(&format!("/v1/keys?{query}")).await?).map(|reply| reply.body)
    }

    fn figure(&mut self, name: &'static str, title: &'static str, unit: Unit, value: f64) {
        self.figures.push(Figure { name, title, unit, value });
    }

    /// Nobody counts the calls to a folder.
    fn calls(&mut self, name: &'static str, title: &'static str, value: f64) {
        if let Stock::DynamoDb { .. } = self.stock {
            self.figure(name, title, Unit::Calls, value);
        }
    }

    /// The name of one of the keys that sign.
    fn real_name(&self, n: usize) -> String {
        name(n * self.count / REAL_KEYS)
    }

    /// A name that is far from the one before; the same ones in each run.
    fn scattered(&self, n: usize) -> String {
        name((n * 7919 + 421) % self.count)
    }
}

fn name(n: usize) -> String {
    format!("key-{n:06}")
}
