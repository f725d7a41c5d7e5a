//! Many records, and many signatures.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::time::Duration;

use strongroom_parent::stored_record::StoredRecord;

use super::rest::batch;
use super::{Bench, list, one_digest};
use crate::bench::load::{Http, closed};
use crate::bench::memory_mib;
use crate::bench::report::{Table, Unit};
use crate::stack::{Plan, test_directory};

/// Signatures over which the enclave's memory is watched.
const SIGNATURES: u64 = 1_000_000;

const RECORDS: usize = 100_000;
const HELD_KEYS: usize = 1_000;
const ROUNDS: usize = 5;
const TIME: Duration = Duration::from_millis(1_500);

/// The enclave's memory over a million signatures.
pub(super) async fn memory(bench: &Bench) -> io::Result<Table> {
    let [_, enclave, _] = bench.stack.process_ids();
    let question = bench.question(["/v1/keys/ecdsa/sign-batch".to_owned()], |n| batch(n, 1000));
    let mut signed = 0;
    let before = memory_mib(enclave)?;
    let mut most = before;
    while signed < SIGNATURES {
        let run = closed(&question, Http::One, 4, Duration::from_secs(1)).await?;
        signed += run.latency.len() * 1000;
        most = memory_mib(enclave)?.max(most);
    }
    Ok(list(
        "memory",
        "The enclave over 1,000,000 signatures",
        vec![
            ("before", "Memory (RSS) before", Unit::Mebibytes, before),
            ("most", "Most, looked at every second", Unit::Mebibytes, most),
            ("after", "After", Unit::Mebibytes, memory_mib(enclave)?),
        ],
    ))
}

/// 100,000 records, of which 1,000 sign in turn, against one of them.
pub(super) async fn records(ratios: &mut BTreeMap<&'static str, f64>) -> io::Result<Table> {
    let directory = test_directory()?;
    let bench = Bench::of(Plan::new(directory.path())).await?;
    let name = |n: usize| format!("key-{:06}", n * (RECORDS / HELD_KEYS));
    for n in 0..HELD_KEYS {
        bench.create(&name(n), "secp256k1", 86_400).await?;
    }
    let folder = bench.stack.directory().join("keys");
    let first = name(0).parse().map_err(io::Error::other)?;
    let real = StoredRecord::from_json(&first, &fs::read(folder.join("key-000000.json"))?).map_err(io::Error::other)?;
    for n in (0..RECORDS).filter(|n| n % (RECORDS / HELD_KEYS) != 0) {
        let mut copy = real.clone();
        copy.record.key_id = format!("key-{n:06}").parse().map_err(io::Error::other)?;
        fs::write(folder.join(format!("key-{n:06}.json")), copy.to_json()?)?;
    }
    for n in 0..HELD_KEYS {
        bench.sign(&name(n)).await?;
    }
    let path = |n: usize| format!("/v1/keys/{}/sign", name(n));
    let (one, many) = (bench.question([path(0)], one_digest), bench.question((0..HELD_KEYS).map(path), one_digest));
    let (mut one_best, mut many_best) = (0.0_f64, 0.0_f64);
    for _ in 0..ROUNDS {
        one_best = one_best.max(closed(&one, Http::One, 64, TIME).await?.rate());
        many_best = many_best.max(closed(&many, Http::One, 64, TIME).await?.rate());
    }
    bench.stack.stop().await?;
    ratios.insert("keys_100000_over_1", many_best / one_best);
    Ok(list(
        "keys",
        "100,000 records, 64 in flight",
        vec![
            ("one", "One held key", Unit::PerSecond, one_best),
            ("many", "1,000 held keys in turn", Unit::PerSecond, many_best),
            ("ratio", "ratio", Unit::Ratio, many_best / one_best),
        ],
    ))
}
