//! Reaping as pid 1: in a container of its own, the daemon inherits every orphan.

use rustix::process::{Pid, WaitId, WaitIdOptions, WaitOptions};
use tokio::signal::unix::{SignalKind, signal};

/// Starts reaping orphans when this process is the first of its pid namespace; elsewhere somebody else does.
///
/// Children started through tokio are left to it: their number is asked for first.
pub(crate) fn reap_if_first() {
    if std::process::id() != 1 {
        return;
    }
    let Ok(mut children) = signal(SignalKind::child()) else { return };
    tokio::spawn(async move {
        while children.recv().await.is_some() {
            reap();
        }
    });
}

/// Reaps orphans: children whose session is not ours. The launcher, our only own child, stays in our session.
fn reap() {
    let flags = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    // LIMIT: a foreign zombie that hides behind one of our own waits for the next signal.
    while let Ok(Some(_)) = rustix::process::waitid(WaitId::All, flags) {
        let Some(pid) = first_foreign_zombie() else { return };
        let _ = rustix::process::waitpid(Some(pid), WaitOptions::NOHANG);
    }
}

/// Finds an ended child that is a session leader or belongs to another session than ours.
fn first_foreign_zombie() -> Option<Pid> {
    let own = rustix::process::getsid(None).ok();
    let children = std::fs::read_dir("/proc").ok()?;
    children
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok())
        .filter_map(Pid::from_raw)
        .find(|pid| {
            let Ok(text) = std::fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero()))
            else {
                return false;
            };
            let mut fields = text.rsplit(')').next().unwrap_or("").split_whitespace();
            let zombie = fields.next() == Some("Z") && fields.next() == Some("1");
            zombie && rustix::process::getsid(Some(*pid)).ok() != own
        })
}
