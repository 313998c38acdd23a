//! A process whose users are not the host's: what it needs done while somebody still has the host's rights.

use std::os::fd::{AsFd as _, OwnedFd};

use rorqual_core::idmap::IdMap;
use rorqual_sys::rlimit::{self, Rlimit};
use rustix::fs::{FileType, Gid, Uid};

use crate::plan::{IdmapPlan, Step};
use crate::request::Stdio;

/// Who user and group 0 of a map are on the host.
pub(crate) fn root_of(map: &IdmapPlan) -> Option<(u32, u32)> {
    let outside = |text: &str| IdMap::parse(text).ok()?.outside(0);
    outside(&map.uids).zip(outside(&map.gids))
}

/// Reads the maps of a process.
pub(crate) fn maps_of(pid: i32) -> Option<IdmapPlan> {
    let read = |name: &str| std::fs::read_to_string(format!("/proc/{pid}/{name}")).ok();
    Some(IdmapPlan { uids: read("uid_map")?, gids: read("gid_map")?, recursive: false })
}

/// Gives pipes to the container's root: only who is known inside can be given them later, and only an owner may open
/// `/dev/stdout` again.
pub(crate) fn give_pipes(stdio: &Stdio, (uid, gid): (u32, u32)) {
    let Stdio::Pipes(pipes) = stdio else { return };
    let is_pipe = |fd: &&OwnedFd| {
        let stat = rustix::fs::fstat(fd);
        stat.is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Fifo)
    };
    for pipe in pipes.iter().filter(is_pipe) {
        // The stream works without.
        let _ =
            rustix::fs::fchown(pipe.as_fd(), Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
    }
}

/// Raises limits that are to be higher than here, and sets the score of the OOM killer: of a process, or of this one
/// before it gives up the host's rights. What fails is tried again by the steps themselves, which say so.
pub(crate) fn raise(steps: &[Step], pid: Option<i32>) {
    for step in steps {
        match step {
            Step::Rlimit { resource, limit } => {
                let of = pid.unwrap_or(0);
                if let Ok(now) = rlimit::get_of(of, *resource)
                    && limit.hard > now.hard
                {
                    let raised = Rlimit { soft: now.soft, hard: limit.hard };
                    let _ = rlimit::set_of(of, *resource, raised);
                }
            }
            Step::OomScore(score) => {
                let of = pid.map_or_else(|| "self".to_owned(), |pid| pid.to_string());
                let _ = std::fs::write(format!("/proc/{of}/oom_score_adj"), score.to_string());
            }
            _ => {}
        }
    }
}
