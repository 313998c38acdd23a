//! Builds that are going on. One call starts a build and waits for it; others, on the same connection or not, ask
//! about it and drive it by its name.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rorqual_build::Error;
use tokio::sync::{Notify, oneshot};
use tonic::Status;

use crate::backend::{Outcome, Scope, State};
use crate::progress::ProgressLog;

/// How long calls wait for the build that they name: they may overtake the one that starts it.
const PATIENCE: Duration = Duration::from_secs(6);
/// LIMIT: builds at a time.
const MOST_JOBS: usize = 512;
/// LIMIT: states that one build may hold by name.
const MOST_STATES: usize = 4096;

/// How a client's own front end ended.
pub(crate) type Returned = Result<Outcome, Status>;

/// One build.
pub(crate) struct Job {
    pub(crate) scope: Scope,
    pub(crate) log: Arc<ProgressLog>,
    states: Mutex<HashMap<String, Option<State>>>,
    returned: Mutex<Option<oneshot::Sender<Returned>>>,
}

impl Job {
    /// Makes a job; the receiver hears how the client's front end ended.
    pub(crate) fn new(scope: Scope, log: Arc<ProgressLog>) -> (Self, oneshot::Receiver<Returned>) {
        let (sender, receiver) = oneshot::channel();
        let job = Self { scope, log, states: Mutex::default(), returned: Mutex::new(Some(sender)) };
        (job, receiver)
    }

    /// Gives a state a name.
    pub(crate) fn keep(&self, state: Option<State>) -> Result<String, Error> {
        let mut states = self.states.lock().unwrap_or_else(PoisonError::into_inner);
        if states.len() >= MOST_STATES {
            let message = format!("the build holds more than {MOST_STATES} results");
            return Err(Error::Invalid { message, location: None });
        }
        let id = crate::random_id();
        states.insert(id.clone(), state);
        Ok(id)
    }

    /// Returns a state by its name; the empty name is the empty file system.
    pub(crate) fn state(&self, id: &str) -> Result<Option<State>, Status> {
        if id.is_empty() {
            return Ok(None);
        }
        let states = self.states.lock().unwrap_or_else(PoisonError::into_inner);
        states.get(id).cloned().ok_or_else(|| Status::not_found(format!("no such ref: {id}")))
    }

    /// Ends the client's front end; false when it has ended already.
    pub(crate) fn finish(&self, returned: Returned) -> bool {
        let sender = self.returned.lock().unwrap_or_else(PoisonError::into_inner).take();
        sender.is_some_and(|sender| sender.send(returned).is_ok())
    }
}

/// LIMIT: builds that are over and whose news can still be asked for: who asks may come late, as the question and the
/// build are calls side by side.
const MOST_ENDED: usize = 8;

/// All builds.
#[derive(Default)]
pub(crate) struct Jobs {
    going: Mutex<HashMap<String, Arc<Job>>>,
    ended: Mutex<VecDeque<Arc<Job>>>,
    began: Notify,
}

/// Forgets a build when dropped, and stops what still goes on of it.
pub(crate) struct Going {
    jobs: Arc<Jobs>,
    job: Arc<Job>,
}

impl Drop for Going {
    fn drop(&mut self) {
        self.job.scope.cancel.cancel();
        self.job.log.end();
        let mut ended = self.jobs.ended.lock().unwrap_or_else(PoisonError::into_inner);
        ended.push_back(Arc::clone(&self.job));
        if ended.len() > MOST_ENDED {
            ended.pop_front();
        }
        drop(ended);
        self.jobs.lock().remove(&self.job.scope.id);
    }
}

impl Jobs {
    /// Adds a build.
    pub(crate) fn begin(self: &Arc<Self>, job: Arc<Job>) -> Result<Going, Status> {
        let mut going = self.lock();
        let id = job.scope.id.clone();
        if going.contains_key(&id) {
            return Err(Status::already_exists(format!("job ID {id} exists")));
        }
        if going.len() >= MOST_JOBS {
            return Err(Status::unavailable(format!("{MOST_JOBS} builds are going on already")));
        }
        going.insert(id, Arc::clone(&job));
        drop(going);
        self.began.notify_waiters();
        Ok(Going { jobs: Arc::clone(self), job })
    }

    /// Returns a build that is going on, waiting a little for it to begin.
    pub(crate) async fn wait(&self, id: &str) -> Result<Arc<Job>, Status> {
        self.search(id, |id| self.lock().get(id).cloned()).await
    }

    /// Like [`Jobs::wait`], for one that may be over before anybody has looked.
    pub(crate) async fn wait_any(&self, id: &str) -> Result<Arc<Job>, Status> {
        self.search(id, |id| self.find(id)).await
    }

    async fn search(
        &self,
        id: &str,
        find: impl Fn(&str) -> Option<Arc<Job>>,
    ) -> Result<Arc<Job>, Status> {
        let search = async {
            loop {
                let began = self.began.notified();
                tokio::pin!(began);
                began.as_mut().enable();
                if let Some(job) = find(id) {
                    return job;
                }
                began.await;
            }
        };
        let found = tokio::time::timeout(PATIENCE, search).await;
        found.map_err(|_| Status::not_found(format!("no such job {id}")))
    }

    /// Returns a build that is going on now, or has just ended.
    pub(crate) fn find(&self, id: &str) -> Option<Arc<Job>> {
        let going = self.lock().get(id).cloned();
        going.or_else(|| {
            let ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
            ended.iter().find(|job| job.scope.id == id).cloned()
        })
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, Arc<Job>>> {
        self.going.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
