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
    Inotify(Directory, u64),
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
    pub(super) fn v2(directory: Directory) -> Result<Self, Error> {
        let watch = || -> rustix::io::Result<OwnedFd> {
            let fd = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)?;
            // By way of the descriptor, so that the path of the mount does not matter.
            let path = format!("/proc/self/fd/{}/{V2_FILE}", directory.fd.as_fd().as_raw_fd());
            inotify::add_watch(&fd, path, inotify::WatchFlags::MODIFY)?;
            Ok(fd)
        };
        let fd = watch().map_err(|source| directory.fault("watch", V2_FILE, source))?;
        let seen = counter(&directory);
        Ok(Self { fd, source: Source::Inotify(directory, seen) })
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
            Source::Inotify(directory, seen) => {
                let now = counter(directory);
                let more = now > *seen;
                *seen = now.max(*seen);
                more
            }
        })
    }
}

impl AsFd for OomEvents {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

fn counter(directory: &Directory) -> u64 {
    directory.read_raw(V2_FILE).ok().and_then(|text| pair(&text, "oom_kill")).unwrap_or(0)
}
