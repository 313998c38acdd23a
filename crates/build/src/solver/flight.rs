//! Work that several builds want at a time: done once, told to all of them, ended when the last one goes.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared, WeakShared};

use rorqual_core::Digest;

use super::Job;
use super::failed::{FailedSlot, FailedStep};
use crate::Error;
use crate::contract::{LogStream, Progress, ProgressSink, StatusUpdate};

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A build that listens.
#[derive(Clone)]
pub(crate) struct Listener {
    sink: Arc<dyn ProgressSink>,
    /// Its name for the work.
    vertex: Digest,
    failed: Option<Arc<FailedSlot>>,
}

impl Listener {
    pub(crate) fn new(job: &Job, vertex: Digest) -> Self {
        Self { sink: Arc::clone(&job.progress), vertex, failed: job.failed.clone() }
    }
}

/// Who listens to a piece of work: each build with its own name for it.
#[derive(Clone, Default)]
pub(crate) struct Audience(Arc<Mutex<Vec<Listener>>>);

impl Audience {
    /// Tells one build.
    pub(crate) fn of(listener: Listener) -> Self {
        let audience = Self::default();
        audience.join(listener);
        audience
    }

    fn join(&self, listener: Listener) {
        lock(&self.0).push(listener);
    }

    /// Gives a step that failed to the first build that wants it; without one it goes.
    pub(crate) fn keep(&self, mut step: FailedStep) {
        for slot in self.all().into_iter().filter_map(|listener| listener.failed) {
            match slot.offer(step) {
                None => return,
                Some(back) => step = back,
            }
        }
    }

    fn all(&self) -> Vec<Listener> {
        lock(&self.0).clone()
    }

    /// Hands on what a step wrote.
    pub(crate) fn log(&self, stream: LogStream, data: &[u8]) {
        let at = SystemTime::now();
        for Listener { sink, vertex, .. } in self.all() {
            sink.tell(Progress::Log { vertex, stream, data: data.to_vec(), at });
        }
    }

    /// Tells how a piece of work inside the vertex stands.
    pub(crate) fn status(&self, id: &str, current: u64, total: u64, done: bool) {
        let now = SystemTime::now();
        for Listener { sink, vertex, .. } in self.all() {
            sink.tell(Progress::Status(StatusUpdate {
                vertex,
                id: id.to_owned(),
                name: String::new(),
                current,
                total,
                started: Some(now),
                completed: done.then_some(now),
            }));
        }
    }
}

/// The outcome of shared work.
pub(crate) type Outcome<T> = Result<T, Arc<Error>>;

type Work<T> = BoxFuture<'static, Outcome<T>>;

struct Flight<T: Clone> {
    work: WeakShared<Work<T>>,
    audience: Audience,
}

/// Work under way, by key.
pub(crate) struct Flights<T: Clone = Arc<Vec<super::State>>>(Mutex<HashMap<String, Flight<T>>>);

impl<T: Clone> Default for Flights<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T: Clone + Send + Sync + 'static> Flights<T> {
    /// Counts those who wait for work that is under way.
    pub(crate) fn waiting(&self) -> usize {
        let flights = lock(&self.0);
        let going = flights.values().filter(|flight| flight.work.upgrade().is_some());
        going.map(|flight| flight.audience.all().len()).sum()
    }

    /// Joins the work of a key, or starts it.
    ///
    /// # Cancellation
    ///
    /// The work goes on while somebody waits for it.
    pub(crate) fn join(
        &self,
        key: &str,
        listener: Listener,
        start: impl FnOnce(Audience) -> Work<T>,
    ) -> Shared<Work<T>> {
        let mut flights = lock(&self.0);
        if let Some(flight) = flights.get(key)
            && let Some(work) = flight.work.upgrade()
            // What has ended may have been removed from the cache since.
            && work.peek().is_none()
        {
            flight.audience.join(listener);
            return work;
        }
        flights.retain(|_, flight| flight.work.upgrade().is_some());
        let audience = Audience::default();
        audience.join(listener);
        let work = start(audience.clone()).shared();
        if let Some(weak) = work.downgrade() {
            flights.insert(key.to_owned(), Flight { work: weak, audience });
        }
        work
    }
}
