//! What an unlock costs beside KMS, and what many at one time do to it.

use std::collections::BTreeMap;
use std::io;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use super::{Bench, list, one_digest};
use crate::bench::load::{Http, Run, closed};
use crate::bench::report::{Table, Unit};
use crate::mock_kms::{Fault, FaultKind};

const TIME: Duration = Duration::from_secs(2);

/// Requests at one time for one cold key, and cold keys at one time.
const MANY: usize = 1_000;

/// Calls to KMS in flight with which [`MANY`] keys are opened.
const IN_FLIGHT: usize = 64;

/// KMS's answer takes this long, in milliseconds: about what it takes in the same Region.
const KMS_MS: u64 = 10;

pub(super) async fn table(bench: &Bench, ratios: &mut BTreeMap<&'static str, f64>) -> io::Result<Table> {
    let control = &bench.stack.control;
    let (instant, handled_us) = unlocks(bench).await?;
    let own_us = instant.quantile(0.5) - handled_us;
    control.set_fault(&Fault::always(FaultKind::Latency(KMS_MS))).await.map_err(io::Error::other)?;
    let (slow, _) = unlocks(bench).await?;
    let (shared, decrypts) = one_cold_key(bench).await?;
    let cold = many_cold_keys(bench).await?;
    control.clear_faults().await.map_err(io::Error::other)?;
    let floor = MANY as f64 / IN_FLIGHT as f64 * KMS_MS as f64 / 1000.0;
    ratios.insert("unlock_own_cost_p50_us", own_us);
    ratios.insert("cold_1000_over_kms_time", cold.as_secs_f64() / floor);
    ratios.insert("cold_key_decrypts", decrypts as f64);
    Ok(list(
        "unlock",
        "Unlocks",
        vec![
            ("p50", "Unlock and sign, 1 in flight, p50", Unit::Microseconds, instant.quantile(0.5)),
            ("mock_p50", "of which mock-kms takes", Unit::Microseconds, handled_us),
            ("own_p50", "of which is our own", Unit::Microseconds, own_us),
            ("p50_10_ms", "The same where KMS takes 10 ms", Unit::Microseconds, slow.quantile(0.5)),
            (
                "shared",
                "1,000 requests at one time for one cold key: all answered after",
                Unit::Seconds,
                shared.as_secs_f64(),
            ),
            ("shared_decrypts", "Decrypts of those", Unit::Calls, decrypts as f64),
            ("cold", "1,000 cold keys, 64 in flight, KMS takes 10 ms", Unit::Seconds, cold.as_secs_f64()),
            ("cold_over_kms", "of the time that KMS takes for them", Unit::Ratio, cold.as_secs_f64() / floor),
        ],
    ))
}

/// One unlock after another, and the median of what mock-kms says each took there.
async fn unlocks(bench: &Bench) -> io::Result<(Run, f64)> {
    let since = sequence(bench).await?;
    let question = bench.question(["/v1/keys/unheld/sign".to_owned()], one_digest);
    let run = closed(&question, Http::One, 1, TIME).await?;
    let calls = bench.stack.control.calls(since).await.map_err(io::Error::other)?;
    if calls.len() as u64 != run.latency.len() {
        return Err(io::Error::other(format!("{} calls to KMS for {} unlocks", calls.len(), run.latency.len())));
    }
    let mut handled: Vec<u64> = calls.iter().map(|call| call.handled_us).collect();
    handled.sort_unstable();
    Ok((run, handled[handled.len() / 2] as f64))
}

async fn one_cold_key(bench: &Bench) -> io::Result<(Duration, usize)> {
    let since = sequence(bench).await?;
    bench.create("cold", "secp256k1", 600).await?;
    let made = bench.stack.control.calls(since).await.map_err(io::Error::other)?.len();
    let question = bench.question(["/v1/keys/cold/sign".to_owned()], one_digest);
    let started = Instant::now();
    // One request of each caller; whoever is answered asks again until all are, but then the key is held.
    closed(&question, Http::Two(8), MANY, Duration::from_millis(1)).await?;
    let elapsed = started.elapsed();
    let calls = bench.stack.control.calls(since).await.map_err(io::Error::other)?.len();
    Ok((elapsed, calls - made))
}

async fn many_cold_keys(bench: &Bench) -> io::Result<Duration> {
    let name = |n: usize| format!("cold-{n:04}");
    let mut making = JoinSet::new();
    for chunk in 0..IN_FLIGHT {
        let (api, names) = (bench.api.clone(), (chunk..MANY).step_by(IN_FLIGHT).map(name).collect::<Vec<_>>());
        making.spawn(async move {
            for key_id in names {
                let policy = serde_json::json!({ "payloads": ["digest"], "hold_seconds": 600 });
                let body = serde_json::json!({ "key_id": key_id, "algorithm": "secp256k1", "policy": policy });
                super::expect(reqwest::StatusCode::CREATED, api.post("/v1/keys", body).await?)?;
            }
            Ok::<_, io::Error>(())
        });
    }
    while let Some(made) = making.join_next().await {
        made.map_err(io::Error::other)??;
    }
    let started = Instant::now();
    let mut signing = JoinSet::new();
    for chunk in 0..IN_FLIGHT {
        let paths = (chunk..MANY).step_by(IN_FLIGHT).map(|n| format!("/v1/keys/{}/sign", name(n)));
        let question = bench.question(paths, one_digest);
        signing.spawn(async move { crate::bench::load::each(&question).await });
    }
    while let Some(signed) = signing.join_next().await {
        signed.map_err(io::Error::other)??;
    }
    Ok(started.elapsed())
}

async fn sequence(bench: &Bench) -> io::Result<u64> {
    let calls = bench.stack.control.calls(0).await.map_err(io::Error::other)?;
    Ok(calls.last().map_or(0, |call| call.sequence))
}
