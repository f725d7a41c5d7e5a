//! Twice as many requests as can be served, for a minute.

use std::io;
use std::time::Duration;

use super::{Bench, list, one_digest};
use crate::bench::load::open;
use crate::bench::report::{Table, Unit};

const TIME: Duration = Duration::from_secs(60);

/// Connections of the callers, and requests that they leave unanswered at one time.
const CONNECTIONS: usize = 16;
const UNANSWERED: usize = 4_000;

/// `best` is the best rate of callers of the same kind who wait for their answers.
pub(super) async fn table(bench: &Bench, best: f64) -> io::Result<Table> {
    let question = bench.question(["/v1/keys/ecdsa/sign".to_owned()], one_digest);
    let run = open(&question, CONNECTIONS, 2.0 * best, UNANSWERED, TIME).await?;
    let refusals = |quantile| run.refusal.value_at_quantile(quantile) as f64;
    let seconds = run.elapsed.as_secs_f64();
    Ok(list(
        "overload",
        "Twice the best rate, for a minute, HTTP/2",
        vec![
            ("best", "Best rate with 256 in flight", Unit::PerSecond, best),
            ("offered", "Requests sent", Unit::PerSecond, (run.latency.len() + run.refusal.len()) as f64 / seconds),
            (
                "held_back",
                "Requests that the caller's core could not send",
                Unit::PerSecond,
                run.held_back as f64 / seconds,
            ),
            ("rate", "Signatures", Unit::PerSecond, run.rate()),
            ("over_best", "of the best rate", Unit::Ratio, run.rate() / best),
            ("p99", "Signatures, p99", Unit::Microseconds, run.quantile(0.99)),
            ("refused", "Refusals (429, 503)", Unit::PerSecond, run.refusal.len() as f64 / seconds),
            ("refusal_p50", "Refusals, p50", Unit::Microseconds, refusals(0.5)),
            ("refusal_p99", "Refusals, p99", Unit::Microseconds, refusals(0.99)),
        ],
    ))
}
