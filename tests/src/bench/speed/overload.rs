//! Twice as much as can be served, over HTTP/2.

use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

use super::rest::Load;
use super::{Bench, column};
use crate::bench::load::open;
use crate::bench::report::{Row, Table, Unit};

/// Connections of the callers, and requests that they leave unanswered at one time.
const CONNECTIONS: usize = 16;
const UNANSWERED: usize = 4_000;

/// A minute of batches, where signing is what there is too much of; and for comparison single requests, where callers
/// and refusals take as much of the same cores as signing does.
pub(super) async fn table(
    bench: &Bench,
    loads: &[Load],
    ratios: &mut BTreeMap<&'static str, f64>,
) -> io::Result<Table> {
    let mut rows = Vec::new();
    for (name, seconds) in [("batch_100", 60), ("h2c_256", 20)] {
        let best = loads.iter().find(|load| load.name == name).ok_or_else(|| io::Error::other("no such load"))?;
        let (batch, best_rate) = (best.batch as f64, best.rate());
        let question = bench.question([best.path.to_owned()], best.body);
        let run =
            open(&question, CONNECTIONS, 2.0 * best_rate / batch, UNANSWERED, Duration::from_secs(seconds)).await?;
        let elapsed = run.elapsed.as_secs_f64();
        let answered = (run.latency.len() + run.refusal.len()) as f64 / elapsed;
        let (over_best, refusals) =
            (run.rate() * batch / best_rate, |quantile| run.refusal.value_at_quantile(quantile));
        if name == "batch_100" {
            ratios.insert("overload_over_best", over_best);
            ratios.insert("overload_refusal_p99_ms", refusals(0.99) as f64 / 1000.0);
        }
        let values = vec![
            answered * batch,
            run.held_back as f64 * batch / elapsed,
            run.rate() * batch,
            over_best,
            run.quantile(0.99),
            refusals(0.5) as f64,
            refusals(0.99) as f64,
        ];
        rows.push(Row { name, title: best.title, unit: Unit::PerSecond, values });
    }
    let columns = vec![
        column("offered", "payloads sent", Unit::PerSecond),
        column("held_back", "that the caller could not send", Unit::PerSecond),
        column("rate", "signatures", Unit::PerSecond),
        column("over_best", "of the best rate", Unit::Ratio),
        column("p99", "p99", Unit::Microseconds),
        column("refusal_p50", "refusals, p50", Unit::Microseconds),
        column("refusal_p99", "p99", Unit::Microseconds),
    ];
    Ok(Table { name: "overload", title: "Twice the best rate, HTTP/2, 16 connections", columns, rows })
}
