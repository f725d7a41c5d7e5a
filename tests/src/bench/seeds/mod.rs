//! What many addresses of one seed cost: 100,000 public keys below one sealed seed, asked over REST, then
//! signatures at some of their paths, and beside them what libraries take for the same keys in one thread.
//! A wrong key, an address twice or a second call of KMS ends it: then it is not what is to be measured.

#![allow(clippy::print_stdout, reason = "a run takes minutes, and people want to see that it goes on")]
#![allow(clippy::indexing_slicing, reason = "a JSON value indexed by a name it does not have is null")]

mod notes;
mod raw;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::ops::Range;
use std::time::{Duration, Instant};

use reqwest::StatusCode;
use serde_json::json;
use strongroom_parent::stored_record::StoredRecord;
use strongroom_protocol::Curve;
use tokio::task::JoinSet;

use super::report::{Column, Figure, Row, Section, Table, Unit};
use super::samples::Samples;
use super::{expect, memory_mib};
use crate::api::Api;
use crate::opened;
use crate::stack::{Plan, Stack, test_directory};
use notes::NOTES;
use raw::Raw;

/// The paths whose public keys are asked for.
const PATHS: u32 = 100_000;

/// The paths at which is signed.
const SIGNED_PATHS: u32 = 2_000;

/// Requests that are asked for comparison: nothing below the parent's HTTP is in them.
const GREETINGS: u32 = 20_000;

/// All of it is asked for in so many rounds, one part after the other, so that what else the machine does
/// meanwhile is in all figures alike.
const ROUNDS: u32 = 10;

/// Requests that are on their way at once, each on a connection of its own.
const IN_FLIGHT: usize = 32;

/// What a seed is of, and where the addresses lie (BIP-44; SLIP-44: 60 is Ethereum, 501 Solana).
#[derive(Clone, Copy)]
struct Wallet {
    curve: Curve,
    /// The seed's name too.
    algorithm: &'static str,
    chain: &'static str,
    /// What the policy allows.
    prefix: &'static str,
    path: fn(u32) -> String,
    hash: Option<&'static str>,
}

const ETHEREUM: Wallet = Wallet {
    curve: Curve::Secp256k1,
    algorithm: "bip32-secp256k1",
    chain: "ethereum",
    prefix: "m/44'/60'/0'",
    path: |n| format!("m/44'/60'/0'/0/{n}"),
    hash: Some("keccak256"),
};

const SOLANA: Wallet = Wallet {
    curve: Curve::Ed25519,
    algorithm: "slip10-ed25519",
    chain: "solana",
    prefix: "m/44'/501'",
    path: |n| format!("m/44'/501'/{n}'/0'"),
    hash: None,
};

/// Measures a seed of each curve, one after the other.
pub(super) async fn section() -> io::Result<Section> {
    let directory = test_directory()?;
    let stack = Plan::new(directory.path()).start().await?;
    let ethereum = measure(&stack, ETHEREUM).await?;
    let solana = measure(&stack, SOLANA).await?;
    stack.stop().await?;
    let columns = vec![
        Column { name: ETHEREUM.algorithm, title: "`bip32-secp256k1`", unit: None },
        Column { name: SOLANA.algorithm, title: "`slip10-ed25519`", unit: None },
    ];
    let row = |(ethereum, solana): (Figure, Figure)| Row {
        name: ethereum.name,
        title: ethereum.title,
        unit: ethereum.unit,
        values: vec![ethereum.value, solana.value],
    };
    let rows = ethereum.into_iter().zip(solana).map(row).collect();
    let tables = vec![Table { name: "addresses", title: "Below one seed", columns, rows }];
    Ok(Section { name: "seeds", title: "Seeds: 100,000 addresses of one seed", notes: NOTES, tables })
}

async fn measure(stack: &Stack, wallet: Wallet) -> io::Result<Vec<Figure>> {
    let started = Instant::now();
    let seed = Seed::create(stack, wallet).await?;
    let raw = Raw::new(wallet.curve, &opened::secret(stack, &seed.record(stack)?.record)?)?;
    let calls = stack.control.calls(0).await.map_err(io::Error::other)?.len();
    let [_, enclave, parent] = stack.process_ids();
    let before = [memory_mib(enclave)?, memory_mib(parent)?];

    let mut addresses = BTreeSet::new();
    let [mut asking, mut deriving, mut signing, mut greeting] = [Duration::ZERO; 4];
    for round in 0..ROUNDS {
        let part = |count: u32| round * (count / ROUNDS)..(round + 1) * (count / ROUNDS);
        let (shown, time) = seed.in_flight(part(PATHS), Seed::public_key).await?;
        asking += time;
        deriving += check(&shown, part(PATHS), &raw)?;
        addresses.extend(shown.into_values().map(|(_, address)| address));
        signing += seed.in_flight(part(SIGNED_PATHS), Seed::sign).await?.1;
        greeting += seed.in_flight(part(GREETINGS), Seed::greet).await?.1;
    }
    let latency = seed.one_by_one().await?;
    let after = [memory_mib(enclave)?, memory_mib(parent)?];

    let calls = stack.control.calls(calls as u64).await.map_err(io::Error::other)?;
    let calls: Vec<_> = calls.iter().map(|call| (call.action.as_deref(), call.outcome.as_str())).collect();
    if calls != [(Some("Decrypt"), "Success")] {
        return Err(io::Error::other(format!("one Decrypt was to be enough for {PATHS} addresses: {calls:?}")));
    }
    if addresses.len() != PATHS as usize {
        return Err(io::Error::other(format!("{} different addresses at {PATHS} paths", addresses.len())));
    }
    println!("{}: {PATHS} addresses measured in {} s", wallet.algorithm, started.elapsed().as_secs());

    let per_second = |count: u32, time: Duration| f64::from(count) / time.as_secs_f64();
    let (rate, raw_rate) = (per_second(PATHS, asking), per_second(PATHS, deriving));
    let (signatures, greetings) = (per_second(SIGNED_PATHS, signing), per_second(GREETINGS, greeting));
    let figure = |name, title, unit, value| Figure { name, title, unit, value };
    Ok(vec![
        figure("to_raw", "Rate of addresses to that of libraries, one thread", Unit::Ratio, rate / raw_rate),
        figure("to_healthz", "Rate of addresses to that of `GET /healthz`", Unit::Ratio, rate / greetings),
        figure("sign_to_addresses", "Rate of signatures to that of addresses", Unit::Ratio, signatures / rate),
        figure("kms_calls", "KMS calls for all of it (one Decrypt)", Unit::Calls, calls.len() as f64),
        figure("rate", "Addresses", Unit::PerSecond, rate),
        figure("wall", "All 100,000", Unit::Seconds, asking.as_secs_f64()),
        figure("latency", "One address, one request in flight", Unit::Milliseconds, latency.median_ms()),
        figure("sign_rate", "Signatures, at 2,000 paths", Unit::PerSecond, signatures),
        figure("enclave_before", "Memory of the enclave (RSS) before", Unit::Mebibytes, before[0]),
        figure("enclave_after", "Memory of the enclave after", Unit::Mebibytes, after[0]),
        figure("parent_before", "Memory of the parent before", Unit::Mebibytes, before[1]),
        figure("parent_after", "Memory of the parent after", Unit::Mebibytes, after[1]),
        figure("healthz_rate", "Without seed and enclave: `GET /healthz`", Unit::PerSecond, greetings),
        figure("raw_rate", "Without the appliance: libraries, one thread", Unit::PerSecond, raw_rate),
    ])
}

/// That these are the public keys that libraries derive. How long the libraries took.
fn check(shown: &BTreeMap<u32, Shown>, paths: Range<u32>, raw: &Raw) -> io::Result<Duration> {
    let started = Instant::now();
    let expected = paths.clone().map(|n| raw.public_key(n)).collect::<io::Result<Vec<_>>>()?;
    let time = started.elapsed();
    match paths.zip(&expected).find(|(n, expected)| shown.get(n).is_none_or(|(public_key, _)| public_key != *expected))
    {
        Some((n, _)) => Err(io::Error::other(format!("libraries derive another key with index {n}"))),
        None => Ok(time),
    }
}

/// A seed that the stack seals, and a caller.
#[derive(Clone)]
struct Seed {
    api: Api,
    wallet: Wallet,
}

/// A public key and its address.
type Shown = (Vec<u8>, String);

impl Seed {
    async fn create(stack: &Stack, wallet: Wallet) -> io::Result<Self> {
        let Wallet { algorithm, prefix, .. } = wallet;
        let api = Api::new(&stack.url);
        let policy = json!({ "payloads": ["message"], "paths": [prefix], "hold_seconds": 3600 });
        let body = json!({ "key_id": algorithm, "algorithm": algorithm, "policy": policy });
        expect(StatusCode::CREATED, api.post("/v1/keys", body).await?)?;
        Ok(Self { api, wallet })
    }

    fn record(&self, stack: &Stack) -> io::Result<StoredRecord> {
        let name = self.wallet.algorithm;
        let json = fs::read(stack.directory().join("keys").join(format!("{name}.json")))?;
        StoredRecord::from_json(&name.parse().map_err(io::Error::other)?, &json).map_err(io::Error::other)
    }

    async fn public_key(self, n: u32) -> io::Result<Shown> {
        let Wallet { algorithm, chain, path, .. } = self.wallet;
        let path = path(n).replace('\'', "%27");
        let reply = self.api.get(&format!("/v1/keys/{algorithm}/public-key?path={path}")).await?;
        let reply = expect(StatusCode::OK, reply)?;
        let address = reply.body["addresses"][chain].as_str();
        let address = address.ok_or_else(|| io::Error::other(format!("no address: {}", reply.body)))?.to_owned();
        Ok((reply.bytes("public_key")?, address))
    }

    /// How long a caller waits who asks for one address at a time; none has been asked for before.
    async fn one_by_one(&self) -> io::Result<Samples> {
        let mut samples = Samples::default();
        for n in PATHS..PATHS + 1_000 {
            samples.time(self.clone().public_key(n)).await?;
        }
        Ok(samples)
    }

    async fn sign(self, n: u32) -> io::Result<()> {
        let Wallet { algorithm, path, hash, .. } = self.wallet;
        let payload = json!({ "type": "message", "message": "0x6869", "hash": hash });
        let body = json!({ "path": path(n), "payload": payload });
        expect(StatusCode::OK, self.api.sign(algorithm, body).await?).map(|_| ())
    }

    /// A request that costs the parent nothing but the request.
    async fn greet(self, _: u32) -> io::Result<()> {
        expect(StatusCode::OK, self.api.get("/healthz").await?).map(|_| ())
    }

    /// Asks for each of `range`, [`IN_FLIGHT`] at a time. The answers, and how long it took.
    async fn in_flight<T, F>(
        &self,
        range: Range<u32>,
        ask: impl Fn(Self, u32) -> F + Copy + Send + 'static,
    ) -> io::Result<(BTreeMap<u32, T>, Duration)>
    where
        T: Send + 'static,
        F: Future<Output = io::Result<T>> + Send,
    {
        let started = Instant::now();
        let mut callers = JoinSet::new();
        for caller in 0..IN_FLIGHT {
            let (seed, mine) = (self.clone(), range.clone().skip(caller).step_by(IN_FLIGHT));
            callers.spawn(async move {
                let mut answers = Vec::new();
                for n in mine {
                    answers.push((n, ask(seed.clone(), n).await?));
                }
                Ok::<_, io::Error>(answers)
            });
        }
        let answers = callers.join_all().await;
        let time = started.elapsed();
        Ok((answers.into_iter().collect::<io::Result<Vec<_>>>()?.into_iter().flatten().collect(), time))
    }
}
