//! How many requests are served at one time: of everybody together, and of one caller, so that who asks too much
//! leaves room for the others. What is beyond is refused at once and for the price of a header: a caller who may
//! come back is better off than one who waits in a queue until its deadline.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use tracing::warn;

use crate::auth::{Caller, Identities};
use crate::config::Limits;
use crate::problem::{Kind, Problem};

/// How often the log says that requests are refused.
const REMINDER: Duration = Duration::from_secs(1);

/// The places of requests.
#[derive(Debug)]
pub struct Admission {
    all: Arc<Semaphore>,
    /// By the identity's name. Whoever is not configured has no places, or all of them.
    each: HashMap<String, Arc<Semaphore>>,
    refusals: Refusals,
}

/// A request's place, and its caller's once that is known. Clones share it.
#[derive(Debug, Clone)]
pub(super) struct Place {
    _of_all: Arc<OwnedSemaphorePermit>,
    of_caller: Arc<OnceLock<OwnedSemaphorePermit>>,
}

#[derive(Debug)]
struct Refusals {
    started: Instant,
    count: AtomicU64,
    /// In milliseconds after `started`.
    told: AtomicU64,
}

impl Admission {
    /// Places for these callers.
    #[must_use]
    pub fn new(limits: &Limits, identities: &Identities) -> Self {
        let places = |count: u32| Arc::new(Semaphore::new(usize::try_from(count).unwrap_or(usize::MAX)));
        let known = match identities {
            Identities::AnyLocalCaller => &[],
            Identities::Known(known) => known.as_slice(),
        };
        let each = known.iter().map(|identity| (identity.name.clone(), places(limits.requests_per_identity))).collect();
        let refusals = Refusals { started: Instant::now(), count: AtomicU64::new(0), told: AtomicU64::new(0) };
        Self { all: places(limits.requests), each, refusals }
    }

    /// A place for a request of nobody knows whom.
    ///
    /// # Errors
    /// 503: everybody's places are taken.
    pub(super) fn admit(&self) -> Result<Place, Problem> {
        match Arc::clone(&self.all).try_acquire_owned() {
            Ok(place) => Ok(Place { _of_all: Arc::new(place), of_caller: Arc::default() }),
            Err(_) => Err(self.refuse(Kind::Overloaded)),
        }
    }

    /// A place of the caller's own, kept with the request's.
    ///
    /// # Errors
    /// 429: the caller's places are taken.
    pub(super) fn admit_caller(&self, caller: &Caller, place: &Place) -> Result<(), Problem> {
        let Some(places) = self.each.get(caller.name()) else { return Ok(()) };
        let own = Arc::clone(places).try_acquire_owned().map_err(|_| self.refuse(Kind::TooManyRequests))?;
        // A request has one caller.
        let _ = place.of_caller.set(own);
        Ok(())
    }

    /// Refusals are as many as callers like: the log counts them.
    fn refuse(&self, kind: Kind) -> Problem {
        let Refusals { started, count, told } = &self.refusals;
        count.fetch_add(1, Ordering::Relaxed);
        let now = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
        let last = told.load(Ordering::Relaxed);
        if (last == 0 || Duration::from_millis(now.saturating_sub(last)) >= REMINDER)
            && told.compare_exchange(last, now.max(1), Ordering::Relaxed, Ordering::Relaxed).is_ok()
        {
            let requests = count.swap(0, Ordering::Relaxed);
            warn!(requests, problem = kind.slug(), "requests were refused: too many are in flight");
        }
        kind.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caller(identities: &Identities, at: usize) -> Caller {
        match identities {
            Identities::Known(known) => Caller::Known(Arc::clone(&known[at])),
            Identities::AnyLocalCaller => Caller::Local,
        }
    }

    fn identities() -> Identities {
        let identity = |name: &str| {
            let token = crate::auth::TokenHash::of(name.as_bytes());
            let toml = format!("name = \"{name}\"\ntoken_sha256 = \"{token}\"\n");
            Arc::new(toml::from_str(&toml).expect("valid"))
        };
        Identities::Known(vec![identity("greedy"), identity("modest")])
    }

    #[test]
    fn who_asks_too_much_leaves_room_for_the_others() {
        let identities = identities();
        let limits = Limits { requests: 4, requests_per_identity: 3, ..Limits::default() };
        let admission = Admission::new(&limits, &identities);
        let ask = |at| {
            let place = admission.admit()?;
            admission.admit_caller(&caller(&identities, at), &place).map(|()| place)
        };
        let kind = |outcome: Result<Place, Problem>| outcome.map(|_| ()).map_err(|problem| problem.kind);
        let mut taken: Vec<_> = (0..3).map(|_| ask(0).expect("room")).collect();
        assert_eq!(kind(ask(0)), Err(Kind::TooManyRequests));
        taken.push(ask(1).expect("room for another"));
        assert_eq!(kind(ask(1)), Err(Kind::Overloaded));
        taken.pop();
        assert_eq!(kind(ask(1)), Ok(()));
        taken.clear();
        assert_eq!(kind(ask(0)), Ok(()), "what was taken is given back");
    }

    #[test]
    fn without_identities_there_is_one_limit() {
        let limits = Limits { requests: 2, requests_per_identity: 1, ..Limits::default() };
        let admission = Admission::new(&limits, &Identities::AnyLocalCaller);
        let places: Vec<_> = (0..2).map(|_| admission.admit().expect("room")).collect();
        assert!(places.iter().all(|place| admission.admit_caller(&Caller::Local, place).is_ok()));
        assert!(admission.admit().is_err());
    }
}
