//! Putting the firewall back when somebody else has flushed it.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex};

use rorqual_sys::nft::{Watch, WatchEvent};
use rustix::event::{EventfdFlags, PollFd, PollFlags};

use super::lock;
use crate::Error;
use crate::firewall::Firewall;

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
    loop {
        let mut ready = [PollFd::new(&watch, PollFlags::IN), PollFd::new(stop, PollFlags::IN)];
        let polled = rustix::event::poll(&mut ready, None);
        let stopping = !ready[1].revents().is_empty();
        match polled {
            Err(rustix::io::Errno::INTR) => continue,
            Err(_) => return,
            Ok(_) if stopping => return,
            Ok(_) => {}
        }
        match watch.wait() {
            Ok(WatchEvent::Nothing) => {}
            Ok(WatchEvent::Damaged) => match lock(firewall).restore() {
                Ok(()) => tracing::info!("the firewall was changed by others and put back"),
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
