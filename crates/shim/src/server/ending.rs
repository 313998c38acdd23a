//! How a container ends: reap, drain, write the exit down, report it, clean up. In this order.

use std::io;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, WaitOptions, WaitStatus};

use super::{EndedExec, REMEMBERED, Shim, now};
use crate::cgroups;
use crate::record::ExitRecord;
use crate::task::Exit;
use crate::wire::Message;

/// LIMIT: how long to wait for the last output when somebody outside of the container still holds its streams.
const LAST_OUTPUT: Duration = Duration::from_millis(500);

/// How far the end has come.
#[derive(Clone, Copy, Debug)]
pub(super) enum Ending {
    /// Init runs.
    NotYet,
    /// Init has ended; its output is being read to the end.
    Draining { exit: Exit, until: Instant },
    /// The exit is on disk.
    Recorded,
    /// The daemon has let go.
    Released,
}

/// Takes down a container whose launch failed in its last steps.
pub(super) fn abandon(pid: i32, cgroup: &str) {
    kill(pid);
    cgroups::kill(cgroup);
    if let Some(pid) = Pid::from_raw(pid) {
        let _ = rustix::process::waitpid(Some(pid), WaitOptions::empty());
    }
    cgroups::remove(cgroup);
}

/// Kills a child that was not reaped yet, so that its number is still its own.
pub(super) fn kill(pid: i32) {
    if let Some(pid) = Pid::from_raw(pid) {
        let _ = rustix::process::kill_process(pid, Signal::KILL);
    }
}

fn exit_code(status: WaitStatus) -> i32 {
    match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => code,
        (None, Some(signal)) => 128 + signal,
        (None, None) => 255,
    }
}

/// What `SIGKILL` makes of a process: the kernel ends those that need too much memory so.
const KILLED: i32 = 137;

impl Shim {
    /// Reaps whoever ended: init, execs, and orphans of theirs.
    pub(super) fn on_signal(&mut self) -> io::Result<()> {
        while self.signals.take()?.is_some() {}
        while let Ok(Some((pid, status))) = rustix::process::wait(WaitOptions::NOHANG) {
            let pid = pid.as_raw_nonzero().get();
            let slot = self
                .children
                .iter()
                .position(|child| child.as_ref().is_some_and(|c| c.pid == pid && !c.ended));
            match slot {
                Some(0) => self.init_ended(exit_code(status))?,
                Some(slot) => self.exec_ended(slot, exit_code(status)),
                None => {}
            }
        }
        Ok(())
    }

    fn exec_ended(&mut self, slot: usize, code: i32) {
        let Some(child) = self.children[slot].as_mut() else { return };
        let Some(id) = child.id else { return };
        child.ended = true;
        child.streams.drain(&mut self.buffer);
        // Others in the container may have inherited its streams and live on.
        child.streams.turn_deaf();
        let exit = Exit { code, oom_killed: false, at: now(), witnessed: true };
        if self.ended_execs.len() == REMEMBERED {
            self.ended_execs.pop_front();
        }
        self.ended_execs.push_back(EndedExec { id, pid: child.pid, exit });
        if let Some(daemon) = &mut self.daemon {
            daemon.say(&Message::ExecExited { id, exit }, None);
        }
    }

    fn init_ended(&mut self, code: i32) -> io::Result<()> {
        let at = now();
        // ORDER: asked first, because systemd removes a group soon after its last process has ended.
        let oom_killed = self.oom.killed(&self.running.cgroup, code == KILLED);
        // With a pid namespace everybody else is dead by now; without one they end here.
        cgroups::kill(&self.running.cgroup);
        let exit = Exit { code, oom_killed, at, witnessed: true };
        if let Some(init) = self.children[0].as_mut() {
            init.ended = true;
            init.streams.drain(&mut self.buffer);
        }
        self.ending = Ending::Draining { exit, until: Instant::now() + LAST_OUTPUT };
        self.timer.set(Some(LAST_OUTPUT))
    }

    pub(super) fn on_timer(&mut self) -> io::Result<()> {
        self.timer.take().map(drop)
    }

    /// Goes on once the output has ended or was waited for long enough.
    pub(super) fn advance_ending(&mut self) -> io::Result<()> {
        let Ending::Draining { exit, until } = self.ending else { return Ok(()) };
        let drained = self.init().is_none_or(|init| init.streams.ended());
        if !drained && Instant::now() < until {
            return Ok(());
        }
        if let Some(init) = self.children[0].as_mut() {
            init.streams.close();
            init.streams.settle(&self.poller, &mut self.buffer)?;
        }
        for slot in 1..self.children.len() {
            if self.children[slot].as_ref().is_some_and(|child| !child.ended) {
                self.exec_ended(slot, 137);
            }
        }
        let record = ExitRecord { task: self.running.task, exit };
        // ORDER: on disk before anybody hears of it, so that a daemon killed in between finds it.
        // A full run directory must not keep the end a secret from the daemon that is here; without a record, one
        // that comes later assumes the worst.
        let _ = self.directory.write_exit(&record);
        self.running.exit = Some(exit);
        self.ended_at = Some(Instant::now());
        if let Some(daemon) = &mut self.daemon {
            daemon.say(&Message::Exited(exit), None);
        }
        self.ending = Ending::Recorded;
        cgroups::remove(&self.running.cgroup);
        rorqual_sys::fork::trim_heap();
        Ok(())
    }
}
