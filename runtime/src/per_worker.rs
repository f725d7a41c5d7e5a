//! What each worker has for itself.

use std::iter::once;
use std::sync::Arc;

use crate::workers::worker_number;

/// One thing for each worker, by its number. Clones share all but the first.
#[derive(Debug, Clone)]
pub struct PerWorker<T> {
    first: T,
    more: Arc<[T]>,
}

impl<T> PerWorker<T> {
    /// In the order of the workers' numbers; `None` if there is nothing.
    pub fn of(all: impl IntoIterator<Item = T>) -> Option<Self> {
        let mut all = all.into_iter();
        Some(Self { first: all.next()?, more: all.collect() })
    }

    /// Made for so many, one at least, each by its number.
    pub fn make(count: usize, mut make: impl FnMut(usize) -> T) -> Self {
        Self { first: make(0), more: (1..count).map(make).collect() }
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.more.len() + 1
    }

    /// That of the worker of this number; of a number that none has, the first.
    pub fn get(&self, number: usize) -> &T {
        number.checked_sub(1).and_then(|number| self.more.get(number)).unwrap_or(&self.first)
    }

    /// That of the worker that this runs on; elsewhere the first.
    pub fn here(&self) -> &T {
        self.get(worker_number())
    }

    /// All of them, in the order of the workers' numbers.
    pub fn all(&self) -> impl Iterator<Item = &T> {
        once(&self.first).chain(self.more.iter())
    }
}
