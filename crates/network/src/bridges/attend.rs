//! Noticing the end of the resolver, so that another takes its place while containers wait for an answer, and giving it the
//! firewall's socket to keep.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, PollFd, PollFlags};

use super::{Inner, lock};
use crate::Error;

/// LIMIT: a resolver that ends again and again is not started more often than this.
const NOT_SOONER: Duration = Duration::from_secs(1);

/// How long there have to be containers before the firewall's socket is given away: one that ends at once is not worth a
/// process, and the daemon, which owns the table, is there meanwhile.
const SETTLED: Duration = Duration::from_secs(1);

/// Wakes the thread that attends to the resolver; when it is dropped, that thread ends.
#[derive(Debug)]
pub(super) struct Bell(Arc<OwnedFd>);

impl Bell {
    pub(super) fn new() -> Result<Self, Error> {
        let bell = rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK);
        bell.map(|bell| Self(Arc::new(bell))).map_err(|error| failed(error.into()))
    }

    /// Wakes the thread.
    pub(super) fn ring(&self) {
        // A counter that is full has been rung already.
        rustix::io::write(&*self.0, &1_u64.to_ne_bytes()).ok();
    }

    /// What rings it.
    pub(super) fn rope(&self) -> Arc<OwnedFd> {
        Arc::clone(&self.0)
    }
}

impl Drop for Bell {
    fn drop(&mut self) {
        self.ring();
    }
}

fn failed(source: io::Error) -> Error {
    Error::Os { action: "attend to the resolver".to_owned(), source: source.into() }
}

/// Starts the thread. It holds nothing that would keep the networks open.
pub(super) fn start(inner: &Arc<Inner>) -> Result<(), Error> {
    let (bell, inner) = (inner.bell.rope(), Arc::downgrade(inner));
    let thread = std::thread::Builder::new().name("net-attend".to_owned());
    thread.spawn(move || attend(&inner, &bell)).map(drop).map_err(failed)
}

fn attend(inner: &Weak<Inner>, bell: &OwnedFd) {
    let mut connection: Option<OwnedFd> = None;
    let mut replaced: Option<Instant> = None;
    let mut keep_at: Option<Instant> = None;
    loop {
        let mut ready = vec![PollFd::new(bell, PollFlags::IN)];
        ready.extend(connection.as_ref().map(|one| PollFd::new(one, PollFlags::RDHUP)));
        let left = keep_at.map(|at| at.saturating_duration_since(Instant::now()));
        let left = left.and_then(|left| left.try_into().ok());
        match rustix::event::poll(&mut ready, left.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(_) => return,
        }
        let ended = ready.get(1).is_some_and(|polled| !polled.revents().is_empty());
        // Whoever rang did so before the connection is looked at again below.
        rustix::io::read(bell, &mut [0; 8]).ok();
        if ended {
            let since = replaced.map_or(NOT_SOONER, |at| at.elapsed());
            std::thread::sleep(NOT_SOONER.saturating_sub(since));
            replaced = Some(Instant::now());
        }
        let Some(inner) = inner.upgrade() else { return };
        if ended {
            inner.replace_lost(&mut lock(&inner.resolver));
        }
        if ended || keep_at.is_some_and(|at| at <= Instant::now()) {
            keep_at = None;
            inner.keep_firewall();
        } else if keep_at.is_none() && inner.wants_to_keep() {
            keep_at = Some(Instant::now() + SETTLED);
        }
        connection = lock(&inner.resolver).connection();
    }
}
