//! Many keys at once: in parallel and at a rate, patient while the parent or KMS has no time, stopped cleanly by
//! Ctrl-C. Nothing is remembered between runs: what is done shows in the store, so the same command goes on where
//! another one stopped, however it stopped. What is done with one key is `create`'s and `rewrap`'s matter.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use clap::Args;
use serde::Serialize;
use strongroom_protocol::KeyId;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval, sleep};

use self::progress::Progress;
use super::exit::Exit;
use super::output;
use crate::client::{AskError, Problem};

mod progress;

/// How fast, how wide and how patiently.
#[derive(Debug, Clone, Args)]
pub(super) struct Pace {
    /// Keys worked on at one time
    #[arg(long, help_heading = "Bulk", value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=256))]
    jobs: u16,
    /// Keys created or re-wrapped in a second, at most
    ///
    /// A new key costs two KMS calls (GenerateDataKey, Decrypt), a re-wrapped one three. They count against the
    /// account's quota of symmetric cryptographic operations in the Region (Service Quotas, AWS KMS), which
    /// everything else in the account shares; so does what is signed meanwhile.
    #[arg(long, verbatim_doc_comment, help_heading = "Bulk", value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u16).range(1..=1000))]
    rate: u16,
    /// Give up once the parent could do nothing for this long
    #[arg(long, help_heading = "Bulk", value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u32).range(0..=86_400))]
    patience: u32,
}

impl Pace {
    pub(super) fn patience(&self) -> Duration {
        Duration::from_secs(self.patience.into())
    }
}

/// What is done with each key.
pub(super) trait Work: Send + Sync + 'static {
    /// A key, and what is known of it.
    type Item: Send + Sync + 'static;

    /// What has happened to those that are done: `created`.
    const DONE: &'static str;

    fn key_id(item: &Self::Item) -> &KeyId;

    /// Does it once, asking the parent by way of `line`. May be done twice with the same key, by two runs.
    fn perform(&self, item: &Self::Item, line: &Line) -> impl Future<Output = Result<Done, Trouble>> + Send;
}

/// What was done with a key.
#[derive(Debug, Clone, Copy)]
pub(super) enum Done {
    /// What was asked.
    Changed,
    /// Nothing: it was as it should be.
    AlreadyThere,
}

/// Why nothing was done with a key.
#[derive(Debug)]
pub(super) enum Trouble {
    /// The run was stopped; the key is left for the next one.
    Stopped,
    /// The parent said no.
    Refused(AskError),
    /// It cannot be done with this key.
    Failed(String),
}

/// What became of all keys.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) total: u64,
    pub(super) changed: u64,
    pub(super) already_there: u64,
    pub(super) failed: Vec<FailedKey>,
    pub(super) stop: Option<Stop>,
}

/// A key with which it did not work.
#[derive(Debug, Serialize)]
pub(super) struct FailedKey {
    key_id: KeyId,
    reason: String,
}

/// Why a run ended before its keys did.
#[derive(Debug, Clone)]
pub(super) struct Stop {
    pub(super) exit: Exit,
    pub(super) reason: String,
}

/// Once so many keys have failed and none was done, the others would fail too.
const HOPELESS: usize = 20;

/// Between two attempts at the same call; doubled each time, and never more than the second.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

impl Tally {
    /// Keys with which nothing was tried, or nothing came of it.
    pub(super) const fn left(&self) -> u64 {
        self.total.saturating_sub(self.changed + self.already_there + self.failed.len() as u64)
    }

    pub(super) fn exit(&self) -> Exit {
        match &self.stop {
            Some(stop) => stop.exit,
            None if self.failed.is_empty() && self.left() == 0 => Exit::Done,
            None => Exit::Failed,
        }
    }

    /// Names what failed and says how to go on, for people.
    pub(super) fn complain(&self) {
        for FailedKey { key_id, reason } in &self.failed {
            output::note(&format!("failed: {key_id}: {reason}"));
        }
        if let Some(Stop { reason, .. }) = &self.stop {
            output::note(&format!("strongroom: stopped: {reason}"));
            output::note(&format!(
                "  {} of {} keys are left; the same command goes on from here",
                self.left(),
                self.total
            ));
        }
    }
}

/// Works on all items, or until it is stopped.
pub(super) async fn run<W: Work>(work: W, items: Vec<W::Item>, pace: &Pace) -> Tally {
    let tally = Tally { total: items.len() as u64, ..Tally::default() };
    let run = Arc::new(Run {
        work,
        items: Mutex::new(items.into_iter()),
        line: Line::new(pace, Progress::new(W::DONE, tally.total)),
        tally: Mutex::new(tally),
    });
    let signals = tokio::spawn({
        let run = Arc::clone(&run);
        async move { run.line.obey_signals().await }
    });
    let mut jobs = JoinSet::new();
    for _ in 0..pace.jobs {
        let run = Arc::clone(&run);
        jobs.spawn(async move { run.work_off().await });
    }
    while jobs.join_next().await.is_some() {}
    signals.abort();
    run.line.progress.finish();
    let mut tally = std::mem::take(&mut *locked(&run.tally));
    tally.failed.sort_by(|a, b| a.key_id.cmp(&b.key_id));
    tally.stop = run.line.stop.borrow().clone().filter(|_| tally.left() > 0);
    tally
}

struct Run<W: Work> {
    work: W,
    items: Mutex<std::vec::IntoIter<W::Item>>,
    tally: Mutex<Tally>,
    line: Line,
}

impl<W: Work> Run<W> {
    async fn work_off(&self) {
        while let Some(item) = self.next() {
            match self.work.perform(&item, &self.line).await {
                Ok(Done::Changed) => locked(&self.tally).changed += 1,
                Ok(Done::AlreadyThere) => locked(&self.tally).already_there += 1,
                Err(Trouble::Stopped) => return,
                Err(Trouble::Refused(error)) if concerns_all(&error) => {
                    return self.line.stop(Exit::of(&error), error.to_string());
                }
                Err(Trouble::Refused(error)) => self.fail(&item, Exit::of(&error), error.to_string()),
                Err(Trouble::Failed(reason)) => self.fail(&item, Exit::Failed, reason),
            }
            self.line.progress.show(&locked(&self.tally));
        }
    }

    fn next(&self) -> Option<W::Item> {
        if self.line.is_stopped() { None } else { locked(&self.items).next() }
    }

    fn fail(&self, item: &W::Item, exit: Exit, reason: String) {
        let mut tally = locked(&self.tally);
        tally.failed.push(FailedKey { key_id: W::key_id(item).clone(), reason });
        if tally.failed.len() >= HOPELESS && tally.changed + tally.already_there == 0 {
            self.line.stop(exit, format!("all of the first {HOPELESS} keys failed"));
        }
    }
}

/// Whether the parent would say the same of any other key.
fn concerns_all(error: &AskError) -> bool {
    match error {
        AskError::Problem(Problem { status: 400 | 401 | 405 | 413 | 415 | 422, .. }) => true,
        AskError::Problem(Problem { slug, .. }) => {
            matches!(slug.as_str(), "operation-not-configured" | "not-found" | "")
        }
        AskError::Malformed(_) | AskError::Unreachable(_) => false,
    }
}

/// The way to the parent that all jobs share: it keeps the rate, asks again what may pass, and ends for all at once.
#[derive(Debug)]
pub(super) struct Line {
    turns: tokio::sync::Mutex<Interval>,
    patience: Duration,
    last_answer: Mutex<Instant>,
    waits: AtomicBool,
    stop: watch::Sender<Option<Stop>>,
    progress: Progress,
}

impl Line {
    fn new(pace: &Pace, progress: Progress) -> Self {
        let mut turns = interval(Duration::from_secs(1) / u32::from(pace.rate));
        turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self {
            turns: turns.into(),
            patience: pace.patience(),
            last_answer: Mutex::new(Instant::now()),
            waits: AtomicBool::new(false),
            stop: watch::Sender::new(None),
            progress,
        }
    }

    /// Makes a call that changes something, when it is its turn.
    ///
    /// # Errors
    /// As [`Line::look`].
    pub(super) async fn change<T, F>(&self, call: impl Fn() -> F + Send + Sync) -> Result<T, Trouble>
    where
        F: Future<Output = Result<T, AskError>> + Send,
    {
        self.ask(true, call).await
    }

    /// Makes a call that only looks at something: it costs KMS nothing, so it waits for no turn.
    ///
    /// # Errors
    /// [`Trouble::Refused`] with what does not pass by waiting; [`Trouble::Stopped`].
    pub(super) async fn look<T, F>(&self, call: impl Fn() -> F + Send + Sync) -> Result<T, Trouble>
    where
        F: Future<Output = Result<T, AskError>> + Send,
    {
        self.ask(false, call).await
    }

    /// Makes a call, and again for as long as what came may pass and there is patience. It may have been carried
    /// out and its answer lost: asking again must be harmless.
    async fn ask<T, F>(&self, in_turn: bool, call: impl Fn() -> F + Send + Sync) -> Result<T, Trouble>
    where
        F: Future<Output = Result<T, AskError>> + Send,
    {
        let mut pause = FIRST_PAUSE;
        loop {
            if in_turn {
                self.unless_stopped(async { self.turns.lock().await.tick().await }).await?;
            }
            let error = match call().await {
                Err(error) if error.may_pass() => error,
                answer => {
                    *locked(&self.last_answer) = Instant::now();
                    self.waits.store(false, Ordering::Relaxed);
                    return answer.map_err(Trouble::Refused);
                }
            };
            if locked(&self.last_answer).elapsed() >= self.patience {
                let seconds = self.patience.as_secs();
                self.stop(Exit::Unavailable, format!("nothing was done for {seconds} s: {error}"));
                return Err(Trouble::Stopped);
            }
            // Said once, until something works again.
            if !self.waits.swap(true, Ordering::Relaxed) {
                self.progress.note(&format!("waiting: {error}"));
            }
            self.unless_stopped(sleep(pause.max(error.retry_after().unwrap_or_default()))).await?;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// The first reason stands.
    fn stop(&self, exit: Exit, reason: String) {
        self.stop.send_if_modified(|stop| {
            let first = stop.is_none();
            stop.get_or_insert(Stop { exit, reason });
            first
        });
    }

    fn is_stopped(&self) -> bool {
        self.stop.borrow().is_some()
    }

    async fn unless_stopped<T>(&self, future: impl Future<Output = T>) -> Result<T, Trouble> {
        let mut stop = self.stop.subscribe();
        tokio::select! {
            biased;
            _ = stop.wait_for(Option::is_some) => Err(Trouble::Stopped),
            value = future => Ok(value),
        }
    }

    /// Ctrl-C or SIGTERM lets the calls in flight come back and begins no others; once more, and nothing is waited for.
    async fn obey_signals(&self) {
        let (Ok(mut interrupt), Ok(mut terminate)) = (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
        else {
            return;
        };
        for again in [false, true] {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            if again {
                std::process::exit(i32::from(Exit::Failed as u8));
            }
            self.progress.note("stopping: the calls in flight are waited for; once more leaves at once");
            self.stop(Exit::Failed, "interrupted".to_owned());
        }
    }
}

/// Nothing panics while it holds one of these.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
