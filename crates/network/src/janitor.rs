//! Sees to it that links of ended containers go away, behind everybody's back: the kernel takes some 16 ms for one.
//!
//! Mostly there is nothing to do, because a namespace takes its links along. What is still there after a while is deleted.
//! An address is free again only when its link is gone, so that no frame for it goes the old way.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rorqual_sys::net::{self, Batch, Change, LinkRef, Protocol, Socket};

use crate::Error;

/// How long a namespace has to end by itself.
const GRACE: Duration = Duration::from_millis(300);
/// How often links are looked for.
const STEP: Duration = Duration::from_millis(30);
/// LIMIT: deletions hold the lock of all link changes; between two rounds others get their turn.
const AT_ONCE: usize = 32;

/// LIMIT: a link that cannot be deleted must not keep the rest waiting; the next start sweeps again.
const MAX_TRIES: u32 = 20;

type Then = Box<dyn FnOnce() + Send>;

struct Leftover {
    link: String,
    since: Instant,
    tries: u32,
    then: Then,
}

#[derive(Default)]
struct Queue {
    leftovers: VecDeque<Leftover>,
    /// Links with the aliases they are to get.
    labels: Vec<(String, String)>,
    busy: bool,
    urgent: bool,
    closed: bool,
}

impl Queue {
    fn is_done(&self) -> bool {
        !self.busy && self.leftovers.is_empty() && self.labels.is_empty()
    }
}

#[derive(Default)]
struct Shared {
    queue: Mutex<Queue>,
    changed: Condvar,
}

/// Deletes links in the background.
pub(crate) struct Janitor {
    shared: Arc<Shared>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl std::fmt::Debug for Janitor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Janitor")
    }
}

impl Janitor {
    /// Starts the thread.
    pub(crate) fn start() -> Result<Self, Error> {
        let failed = |source: std::io::Error| Error::Os {
            action: "start the clean-up of links".to_owned(),
            source: source.into(),
        };
        let socket = Socket::open(Protocol::Route).map_err(failed)?;
        let shared = Arc::new(Shared::default());
        let worker = Arc::clone(&shared);
        let builder = std::thread::Builder::new().name("net-janitor".to_owned());
        let thread = builder.spawn(move || worker.work(socket)).map_err(failed)?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// Sees to it that the link goes; calls `then` when it is gone.
    pub(crate) fn remove(&self, link: String, then: impl FnOnce() + Send + 'static) {
        let since = Instant::now();
        self.shared.lock().leftovers.push_back(Leftover {
            link,
            since,
            tries: 0,
            then: Box::new(then),
        });
        self.shared.changed.notify_all();
    }

    /// Sees to it that the link gets this alias, by which people and later daemons know whose it is.
    pub(crate) fn label(&self, link: String, alias: String) {
        self.shared.lock().labels.push((link, alias));
        self.shared.changed.notify_all();
    }

    /// Deletes what is left at once and returns when it is gone; tells whether there was anything.
    pub(crate) fn flush(&self) -> bool {
        let mut queue = self.shared.lock();
        let any = !queue.is_done();
        queue.urgent = true;
        self.shared.changed.notify_all();
        while !queue.is_done() {
            queue = self.shared.changed.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
        any
    }

    /// Tries again what met its like in the way: it may belong to a container that has ended and whose link is only gone
    /// after this.
    pub(crate) fn with_room<T>(
        &self,
        mut attempt: impl FnMut() -> Result<T, Error>,
    ) -> Result<T, Error> {
        match attempt() {
            // The link may also have gone since the attempt, so that nothing is left to wait for.
            Err(Error::Conflict(_)) => {
                self.flush();
                attempt()
            }
            // Plugins do not say why, and are not asked twice for nothing.
            Err(Error::Plugin(_)) if self.flush() => attempt(),
            other => other,
        }
    }
}

impl Drop for Janitor {
    /// Finishes what is left, so that a daemon that ends in order leaves no link behind.
    fn drop(&mut self) {
        self.flush();
        self.shared.lock().closed = true;
        self.shared.changed.notify_all();
        if let Some(thread) = self.thread.take() {
            // A thread that panicked has nothing left to stop.
            let _stopped = thread.join();
        }
    }
}

impl Shared {
    fn lock(&self) -> std::sync::MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn work(&self, mut socket: Socket) {
        let mut queue = self.lock();
        while !queue.closed {
            if queue.is_done() {
                queue.urgent = false;
                queue = self.changed.wait(queue).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            if !queue.urgent {
                let wait = self.changed.wait_timeout_while(queue, STEP, |queue| !queue.urgent);
                queue = wait.unwrap_or_else(PoisonError::into_inner).0;
            }
            let labels = std::mem::take(&mut queue.labels);
            let all = std::mem::take(&mut queue.leftovers);
            let grace = if queue.urgent { Duration::ZERO } else { GRACE };
            queue.busy = true;
            drop(queue);
            put_labels(&mut socket, &labels);
            let kept = round(&mut socket, all, grace);
            queue = self.lock();
            queue.busy = false;
            queue.leftovers.extend(kept);
            self.changed.notify_all();
        }
    }
}

fn put_labels(socket: &mut Socket, labels: &[(String, String)]) {
    for chunk in labels.chunks(AT_ONCE) {
        let mut batch = Batch::new();
        for (link, alias) in chunk {
            let change = Change { alias: Some(alias), ..Change::default() };
            net::change_link(&mut batch, LinkRef::Name(link), &change);
        }
        // A container may have ended already, and its link with it.
        if let Err(error) = socket.transact(&batch) {
            tracing::debug!(%error, "a link could not be labelled");
        }
    }
}

/// Returns what is still there.
fn round(socket: &mut Socket, all: VecDeque<Leftover>, grace: Duration) -> VecDeque<Leftover> {
    let mut kept = VecDeque::new();
    let mut batch = Batch::new();
    for mut leftover in all {
        match net::find_link(socket, &leftover.link) {
            Ok(None) => (leftover.then)(),
            Ok(Some(_)) | Err(_) if leftover.tries >= MAX_TRIES => {
                tracing::warn!(link = leftover.link, "given up deleting a link");
                (leftover.then)();
            }
            Ok(Some(_)) | Err(_) => {
                if leftover.since.elapsed() >= grace && batch.len() < AT_ONCE {
                    net::delete_link(&mut batch, LinkRef::Name(&leftover.link));
                    leftover.tries += 1;
                }
                kept.push_back(leftover);
            }
        }
    }
    if !batch.is_empty() {
        // A link that went by itself in between is refused, which is fine; the next round looks at each.
        if let Err(error) = socket.transact(&batch) {
            tracing::debug!(%error, "a link could not be deleted");
        }
    }
    kept
}
