//! Putting the firewall back when somebody else has flushed it, and telling of programs that published ports hide.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex};

use rorqual_sys::nft::{Watch, WatchEvent};
use rustix::event::{EventfdFlags, PollFd, PollFlags};
use rustix::time::Timespec;

use super::{holding, lock};
use crate::Error;
use crate::firewall::Firewall;
use crate::ports::protocol_name;

/// LIMIT: how often ports that no socket holds are looked up, where there are any: one question to the kernel.
const LOOK_UP_EVERY: Timespec = Timespec { tv_sec: 30, tv_nsec: 0 };

/// A thread that watches the table and restores it.
#[derive(Debug)]
pub(super) struct Watchman {
    stop: Arc<OwnedFd>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Watchman {
    /// Starts it.
    pub(super) fn start(firewall: &Arc<Mutex<Firewall>>) -> Result<Self, Error> {
        let failed = |source: io::Error| Error::Os {
            action: "watch the firewall".to_owned(),
            source: source.into(),
        };
        let watch = lock(firewall).watch()?;
        let stop = rustix::event::eventfd(0, EventfdFlags::CLOEXEC)
            .map_err(|error| failed(error.into()))?;
        let stop = Arc::new(stop);
        let (stopped, firewall) = (Arc::clone(&stop), Arc::clone(firewall));
        let thread = std::thread::Builder::new()
            .name("net-watch".to_owned())
            .spawn(move || keep(watch, &stopped, &firewall))
            .map_err(failed)?;
        Ok(Self { stop, thread: Some(thread) })
    }
}

impl Drop for Watchman {
    fn drop(&mut self) {
        if rustix::io::write(&*self.stop, &1_u64.to_ne_bytes()).is_err() {
            // Cannot happen to an event counter at zero; then the thread is left to end with the process.
            return;
        }
        if let Some(thread) = self.thread.take() {
            // A thread that panicked has nothing left to stop.
            let _stopped = thread.join();
        }
    }
}

fn keep(mut watch: Watch, stop: &OwnedFd, firewall: &Mutex<Firewall>) {
    let mut told = BTreeSet::new();
    loop {
        // News of a port that is published wake this thread too, so it is never without a timeout for long.
        let unheld = lock(firewall).runs().into_iter().any(|(_, run)| holding::is_long(&run));
        let timeout = unheld.then_some(&LOOK_UP_EVERY);
        let mut ready = [PollFd::new(&watch, PollFlags::IN), PollFd::new(stop, PollFlags::IN)];
        let polled = rustix::event::poll(&mut ready, timeout);
        let stopping = !ready[1].revents().is_empty();
        match polled {
            Err(rustix::io::Errno::INTR) => continue,
            Err(_) => return,
            Ok(_) if stopping => return,
            Ok(0) => {
                tell_of_hidden(firewall, &mut told);
                continue;
            }
            Ok(_) => {}
        }
        match watch.wait() {
            Ok(WatchEvent::Nothing) => {}
            Ok(WatchEvent::Damaged) => match lock(firewall).restore() {
                Ok(()) => tracing::warn!("the firewall was changed by others and put back"),
                Err(error) => {
                    let error = rorqual_core::full_message(&error);
                    tracing::error!(
                        error,
                        "the firewall was changed by others and cannot be put back"
                    );
                }
            },
            Err(error) => {
                tracing::error!(%error, "the firewall is no longer watched");
                return;
            }
        }
    }
}

/// Warns once of each program that took a port which leads to a container before it.
fn tell_of_hidden(firewall: &Mutex<Firewall>, told: &mut BTreeSet<(String, u16)>) {
    let runs = lock(firewall).runs();
    for (container, run) in runs.iter().filter(|(_, run)| holding::is_long(run)) {
        let Some(port) = holding::shadowed(run) else { continue };
        if told.insert((container.to_string(), port)) {
            tracing::warn!(
                port,
                protocol = protocol_name(run.protocol),
                container = container.short(),
                "a program of this host has bound a port that is published: whoever asks for it reaches the container"
            );
        }
    }
    // LIMIT: those of containers that have gone are forgotten.
    told.retain(|(container, _)| runs.iter().any(|(id, _)| id.to_string() == *container));
}
