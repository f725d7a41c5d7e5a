//! In what company a payload is signed: what is asked for at one time is signed together, because a group costs
//! less than half of what its members cost alone, and long lists are signed on all cores. Whether a payload may
//! be signed is `policy`'s matter, how it is, `sign`'s.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use strongroom_protocol::{ErrorCode, Payload, Scheme, Signature};
use strongroom_runtime::{Workers, worker_number};
use tokio::sync::{Semaphore, oneshot};
use tokio::task::{spawn_blocking, yield_now};

use crate::policy::{Denied, Reached, authorize};
use crate::sign::{GROUP, SignError, sign};

/// What a payload's signing comes to.
type Outcome = Result<Signature, ErrorCode>;

/// The enclave's signing.
pub(crate) struct Signing {
    lists: Lists,
    singles: Arc<Singles>,
}

/// What long lists take turns for.
struct Lists {
    /// Parts that are signed at one time: one on each core, and one more, so that no core waits for its next.
    parts: Arc<Semaphore>,
    /// The list whose parts are next.
    turn: Semaphore,
    /// Parts of one turn: two for each core. If turns were of one part, lists that come together would end together,
    /// and the cores would idle until the next ones are there.
    parts_of_a_turn: usize,
}

/// Single payloads, of whatever keys and callers, and the tasks that sign them.
struct Singles {
    workers: Workers,
    queue: Mutex<Queue>,
}

struct Queue {
    waiting: VecDeque<Single>,
    /// Whether a task signs on the worker of this number.
    signing: Vec<bool>,
}

/// A payload whose caller waits.
struct Single {
    reached: Reached,
    scheme: Option<Scheme>,
    payload: Payload,
    outcome: oneshot::Sender<Outcome>,
}

impl Signing {
    /// Signing on these workers.
    pub(crate) fn new(workers: Workers) -> Self {
        let lists = Lists::on(workers.count());
        let queue = Mutex::new(Queue { waiting: VecDeque::new(), signing: vec![false; workers.count()] });
        Self { lists, singles: Arc::new(Singles { workers, queue }) }
    }

    /// Signs what the key's policy allows of `payloads`. Each result is where its payload was.
    pub(crate) async fn sign(&self, reached: Reached, scheme: Option<Scheme>, payloads: Vec<Payload>) -> Vec<Outcome> {
        match <[_; 1]>::try_from(payloads) {
            Ok([payload]) => vec![self.singles.sign(reached, scheme, payload).await],
            // Who asks for little waits for no thread.
            Err(few) if few.len() <= GROUP => sign_part(&reached, scheme, few),
            Err(many) => in_parts(&self.lists, many, move |part| sign_part(&reached, scheme, part)).await,
        }
    }
}

impl Lists {
    fn on(cores: usize) -> Self {
        Self { parts: Arc::new(Semaphore::new(cores + 1)), turn: Semaphore::new(1), parts_of_a_turn: 2 * cores }
    }
}

impl Singles {
    async fn sign(self: &Arc<Self>, reached: Reached, scheme: Option<Scheme>, payload: Payload) -> Outcome {
        let (outcome, signed) = oneshot::channel();
        self.add(Single { reached, scheme, payload, outcome });
        // Without an answer: the signer panicked.
        signed.await.unwrap_or(Err(ErrorCode::Internal))
    }

    fn add(self: &Arc<Self>, single: Single) {
        let mut queue = self.queue();
        queue.waiting.push_back(single);
        self.call_signer(&mut queue, worker_number());
    }

    /// Sees to it that what waits is signed on the worker of this number.
    fn call_signer(self: &Arc<Self>, queue: &mut Queue, number: usize) {
        if let Some(signing @ false) = queue.signing.get_mut(number)
            && !queue.waiting.is_empty()
        {
            *signing = true;
            self.workers.get(number).spawn(Signer { singles: Arc::clone(self), number }.run());
        }
    }

    /// Sees to it that one more worker signs what waits, if there is one that does not yet.
    fn call_another(self: &Arc<Self>, queue: &mut Queue) {
        if let Some(idle) = queue.signing.iter().position(|signing| !signing) {
            self.call_signer(queue, idle);
        }
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        // Whole between any two statements that hold the lock.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A task that signs, as [`Queue::signing`] has it.
struct Signer {
    singles: Arc<Singles>,
    number: usize,
}

impl Signer {
    async fn run(self) {
        loop {
            let group = self.take();
            if group.is_empty() {
                return;
            }
            sign_singles(group);
            // Requests that have arrived meanwhile come first, and then there are more to sign together.
            yield_now().await;
        }
    }

    /// This core's share of what waits. If anything is left, another core is called.
    fn take(&self) -> Vec<Single> {
        let mut queue = self.singles.queue();
        let share = queue.waiting.len().div_ceil(queue.signing.len().max(1)).min(GROUP);
        let group = queue.waiting.drain(..share).collect();
        self.singles.call_another(&mut queue);
        group
    }
}

impl Drop for Signer {
    fn drop(&mut self) {
        let mut queue = self.singles.queue();
        if let Some(signing) = queue.signing.get_mut(self.number) {
            *signing = false;
        }
        // What came since the last look, or is left by a panic.
        self.singles.call_signer(&mut queue, self.number);
    }
}

/// Signs payloads of whatever keys, each under the policy that was opened with its own.
fn sign_singles(group: Vec<Single>) {
    let mut asked = Vec::with_capacity(group.len());
    let keys: Vec<_> = group
        .into_iter()
        .map(|Single { reached, scheme, payload, outcome }| {
            asked.push((scheme, payload, outcome));
            reached
        })
        .collect();
    let (mut authorized, mut outcomes) = (Vec::with_capacity(keys.len()), Vec::with_capacity(keys.len()));
    for (reached, (scheme, payload, outcome)) in keys.iter().zip(asked) {
        match authorize(reached, scheme, payload) {
            Ok(payload) => {
                authorized.push(payload);
                outcomes.push(outcome);
            }
            Err(Denied) => drop(outcome.send(Err(ErrorCode::PayloadDenied))),
        }
    }
    for (outcome, signed) in outcomes.into_iter().zip(sign(authorized)) {
        // Whoever is gone meanwhile wants no signature.
        let _ = outcome.send(signed.map_err(not_signed));
    }
}

/// Does `work` on a long list in equal parts of at most [`GROUP`], on threads of their own and on all cores. Lists that
/// come at one time take turns, some parts each. The results are in the list's order; a part that panics has none but
/// `Internal`.
async fn in_parts<T: Send + 'static>(
    lists: &Lists,
    list: Vec<T>,
    work: impl Fn(Vec<T>) -> Vec<Result<Signature, ErrorCode>> + Clone + Send + 'static,
) -> Vec<Result<Signature, ErrorCode>> {
    let count = list.len();
    let length = count.div_ceil(count.div_ceil(GROUP).max(1));
    let (mut list, mut parts) = (list.into_iter(), Vec::new());
    while list.len() > 0 {
        let _turn = lists.turn.acquire().await;
        for _ in 0..lists.parts_of_a_turn {
            let part: Vec<_> = list.by_ref().take(length).collect();
            let core = Arc::clone(&lists.parts).acquire_owned().await;
            let (length, work) = (part.len(), work.clone());
            let results = spawn_blocking(move || {
                let _core = core;
                work(part)
            });
            parts.push((length, results));
            if list.len() == 0 {
                break;
            }
        }
    }
    let mut results = Vec::with_capacity(count);
    for (length, part) in parts {
        results.extend(part.await.unwrap_or_else(|_| vec![Err(ErrorCode::Internal); length]));
    }
    results
}

/// Signs what the key's policy allows of a part of a list. Each result is where its payload was.
fn sign_part(reached: &Reached, scheme: Option<Scheme>, payloads: Vec<Payload>) -> Vec<Result<Signature, ErrorCode>> {
    let mut authorized = Vec::with_capacity(payloads.len());
    let mut results: Vec<_> = Vec::with_capacity(payloads.len());
    for (place, payload) in payloads.into_iter().enumerate() {
        results.push(Err(match authorize(reached, scheme, payload) {
            Ok(payload) => {
                authorized.push((place, payload));
                // Until it is signed.
                ErrorCode::Internal
            }
            Err(Denied) => ErrorCode::PayloadDenied,
        }));
    }
    let (places, authorized): (Vec<_>, Vec<_>) = authorized.into_iter().unzip();
    for (place, signed) in places.into_iter().zip(sign(authorized)) {
        if let Some(result) = results.get_mut(place) {
            *result = signed.map_err(not_signed);
        }
    }
    results
}

fn not_signed(error: SignError) -> ErrorCode {
    match error {
        SignError::PayloadInvalid => ErrorCode::PayloadInvalid,
        SignError::CheckFailed => {
            tracing::error!("a signature failed its check and was not released");
            ErrorCode::Internal
        }
    }
}

#[cfg(test)]
mod tests;
