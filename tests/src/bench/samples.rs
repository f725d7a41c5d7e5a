//! Repetitions of one measurement.

use std::time::{Duration, Instant};

/// How long each repetition took.
#[derive(Debug, Default)]
pub(super) struct Samples(Vec<Duration>);

impl Samples {
    /// Does `work` as one more repetition.
    pub(super) async fn time<T>(&mut self, work: impl Future<Output = T>) -> T {
        let started = Instant::now();
        let done = work.await;
        self.0.push(started.elapsed());
        done
    }

    /// The repetitions of `more` too.
    pub(super) fn extend(&mut self, more: Self) {
        self.0.extend(more.0);
    }

    /// The upper median, in milliseconds; 0 of nothing.
    pub(super) fn median_ms(mut self) -> f64 {
        self.0.sort_unstable();
        self.0.get(self.0.len() / 2).map_or(0.0, |median| median.as_secs_f64() * 1000.0)
    }
}
