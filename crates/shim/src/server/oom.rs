//! Noticing that the kernel kills for lack of memory in a group that systemd removes as soon as it is empty: by the
//! time the end of init is known, its counters are gone.

use std::io;
use std::os::fd::AsFd as _;

use rorqual_sys::cgroup::OomEvents;
use rorqual_sys::poll::{Interest, Poller};

use super::token::Token;
use crate::cgroups;

/// What is known about kills.
pub(super) struct OomWatch {
    /// `None` for groups that are there until we remove them.
    events: Option<OomEvents>,
    seen: bool,
}

impl OomWatch {
    /// Starts watching where that is needed.
    pub(super) fn start(cgroup: &str, poller: &Poller) -> io::Result<Self> {
        // A group that cannot be watched is asked at the end, with luck.
        let events = cgroups::watch_scope(cgroup);
        if let Some(events) = &events {
            poller.add(events.as_fd(), Token::Memory.number(), Interest::READ)?;
        }
        // What happened before is not told.
        let seen = events.is_some() && cgroups::oom_killed(cgroup);
        Ok(Self { events, seen })
    }

    /// Takes note of what the kernel tells.
    pub(super) fn on_ready(&mut self) -> io::Result<()> {
        if let Some(events) = &mut self.events {
            self.seen |= events.take()?;
        }
        Ok(())
    }

    /// Tells whether a process was killed; `by_kill`: init has ended by `SIGKILL`.
    pub(super) fn killed(&mut self, cgroup: &str, by_kill: bool) -> bool {
        // A failure means that there is nothing more to be known.
        let _ = self.on_ready();
        self.seen || cgroups::oom_killed(cgroup) || by_kill && self.may_have_been()
    }

    fn may_have_been(&self) -> bool {
        self.events.as_ref().is_some_and(OomEvents::may_have_been)
    }
}
