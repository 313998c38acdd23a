//! Being told that a group ran out of memory. What to do about it belongs to the caller.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::event::{EventfdFlags, eventfd};
use rustix::fs::{OFlags, inotify};

use super::Error;
use super::file::{Directory, pair};

/// A descriptor that becomes readable when the group may have run out of memory.
#[derive(Debug)]
pub struct OomEvents {
    fd: OwnedFd,
    source: Source,
}

#[derive(Debug)]
enum Source {
    /// Counts by itself; the file tells whether the group still exists.
    EventFd(Directory),
    /// Tells that the file changed; the file has the counter.
    Inotify(Watched),
}

/// A group of version 2, with the group around it, which counts the kills of all below and outlives them.
#[derive(Debug)]
struct Watched {
    own: Directory,
    seen: u64,
    around: Option<Directory>,
    seen_around: u64,
}

impl Watched {
    /// Reads the counters; tells whether there is something new. `None`: the group is gone.
    fn news(&mut self) -> Option<bool> {
        let now = counter(&self.own)?;
        let more = now > self.seen;
        self.seen = now.max(self.seen);
        self.seen_around = self.kills_around();
        Some(more)
    }

    fn kills_around(&self) -> u64 {
        self.around.as_ref().and_then(counter).unwrap_or(0)
    }
}

const V1_FILE: &str = "memory.oom_control";
const V2_FILE: &str = "memory.events";

impl OomEvents {
    /// Registers with the memory controller of version 1.
    pub(super) fn v1(directory: Directory) -> Result<Self, Error> {
        let fault = |source: io::Error| directory.fault("watch", V1_FILE, source);
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
        let fd = eventfd(0, flags).map_err(|source| fault(source.into()))?;
        let control = directory.open_file(V1_FILE, OFlags::RDONLY).map_err(fault)?;
        let line = format!("{} {}", fd.as_raw_fd(), control.as_raw_fd());
        directory.write("cgroup.event_control", &line)?;
        Ok(Self { fd, source: Source::EventFd(directory) })
    }

    /// Watches the counters of version 2.
    pub(super) fn v2(directory: Directory, around: Option<Directory>) -> Result<Self, Error> {
        let watch = || -> rustix::io::Result<OwnedFd> {
            let fd = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)?;
            // By way of the descriptor, so that the path of the mount does not matter.
            let path = format!("/proc/self/fd/{}/{V2_FILE}", directory.fd.as_fd().as_raw_fd());
            inotify::add_watch(&fd, path, inotify::WatchFlags::MODIFY)?;
            Ok(fd)
        };
        let fd = watch().map_err(|source| directory.fault("watch", V2_FILE, source))?;
        let mut watched = Watched { own: directory, seen: 0, around, seen_around: 0 };
        watched.news();
        Ok(Self { fd, source: Source::Inotify(watched) })
    }

    /// Takes back the readiness; tells whether the group really ran out of memory since last asked.
    pub fn take(&mut self) -> io::Result<bool> {
        let mut buffer = [0_u8; 4096];
        let mut ready = false;
        loop {
            match rustix::io::read(&self.fd, &mut buffer) {
                Ok(0) | Err(rustix::io::Errno::AGAIN) => break,
                Ok(_) => ready = true,
                Err(rustix::io::Errno::INTR) => {}
                Err(fault) => return Err(fault.into()),
            }
        }
        Ok(match &mut self.source {
            // The removal of the group is signalled too.
            Source::EventFd(directory) => ready && directory.has(V1_FILE),
            Source::Inotify(watched) => watched.news().unwrap_or(false),
        })
    }

    /// Tells whether the group is gone and a kill for lack of memory was counted around it since it was last seen.
    ///
    /// That is no proof: another group beside it may have been meant.
    pub fn may_have_been(&self) -> bool {
        match &self.source {
            Source::EventFd(_) => false,
            Source::Inotify(watched) => {
                counter(&watched.own).is_none() && watched.kills_around() > watched.seen_around
            }
        }
    }
}

impl AsFd for OomEvents {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Reads how many processes were killed; `None` when the group is gone.
fn counter(directory: &Directory) -> Option<u64> {
    let text = directory.read_raw(V2_FILE).ok()?;
    Some(pair(&text, "oom_kill").unwrap_or(0))
}
