//! How far a run is: a bar where somebody watches a terminal, a line now and then where a log is kept.

use std::fmt::Write;
use std::io::{IsTerminal as _, stderr};
use std::sync::Mutex;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};
use tokio::time::Instant;

use super::{Tally, locked};
use crate::cli::output;

#[derive(Debug)]
pub(super) struct Progress {
    bar: Option<ProgressBar>,
    done: &'static str,
    last_line: Mutex<Instant>,
}

/// Between two lines of a log.
const LINE_INTERVAL: Duration = Duration::from_secs(10);

const TEMPLATE: &str = "{bar:32} {pos}/{len}  {rate}/s  {eta} left  {msg}";

impl Progress {
    /// `done` is what happens to the keys: `created`.
    pub(super) fn new(done: &'static str, total: u64) -> Self {
        let bar = stderr().is_terminal().then(|| {
            let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr());
            bar.enable_steady_tick(Duration::from_millis(250));
            match ProgressStyle::with_template(TEMPLATE) {
                Ok(style) => bar.with_style(style.with_key("rate", per_second)),
                Err(_) => bar,
            }
        });
        Self { bar, done, last_line: Mutex::new(Instant::now()) }
    }

    /// How far the run is now.
    pub(super) fn show(&self, tally: &Tally) {
        let Tally { total, changed, already_there, failed, .. } = tally;
        let failed = failed.len();
        if let Some(bar) = &self.bar {
            bar.set_position(total - tally.left());
            bar.set_message(format!("{} {changed}, there already {already_there}, failed {failed}", self.done));
            return;
        }
        let mut last_line = locked(&self.last_line);
        if last_line.elapsed() >= LINE_INTERVAL {
            *last_line = Instant::now();
            let done = self.done;
            output::note(&format!("{done} {changed}, there already {already_there}, failed {failed}, of {total}"));
        }
    }

    /// Says something beside the bar.
    pub(super) fn note(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| output::note(text)),
            None => output::note(text),
        }
    }

    /// Takes the bar away; what there is to say at the end is said elsewhere.
    pub(super) fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

fn per_second(state: &ProgressState, f: &mut dyn Write) {
    let _ = write!(f, "{:.0}", state.per_sec());
}
