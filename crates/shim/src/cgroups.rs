//! What shim and daemon do with a container's control group. All of it blocks but [`next_oom`].

use std::os::fd::{AsFd, AsRawFd, RawFd};

use oci_spec::runtime::LinuxResources;
use rorqual_core::{Classify, Signal, full_message};
use rorqual_sys::cgroup::{BlockEntry, Cgroup, Driver, OomEvents, Version};
use rustix::process::Pid;
use tokio::io::unix::AsyncFd;

use crate::Error;
use crate::task::Stats;

fn failed(error: &rorqual_sys::cgroup::Error) -> Error {
    Error::Refused { message: full_message(error), kind: error.kind() }
}

fn open(cgroup: &str) -> Result<Cgroup, Error> {
    Cgroup::open(cgroup).map_err(|error| failed(&error))
}

/// Kills whoever is left in the group. What cannot be killed is not reported: the caller goes on anyway.
pub(crate) fn kill(cgroup: &str) {
    if let Ok(group) = Cgroup::open(cgroup) {
        let _ = group.kill_all();
    }
}

/// Removes the group, waiting a little for dying processes.
pub(crate) fn remove(cgroup: &str) {
    if let Ok(group) = Cgroup::open(cgroup) {
        let _ = group.delete();
    }
}

/// Kills and removes the group at a path of a specification.
pub(crate) fn remove_at(path: &str) {
    // As with `remove`: the caller goes on anyway.
    let _ = Cgroup::remove_at(path, Driver::of_path(path));
}

/// Tells whether a process of the group was killed for lack of memory.
pub(crate) fn oom_killed(cgroup: &str) -> bool {
    Cgroup::open(cgroup).and_then(|group| group.oom_kills()).is_ok_and(|kills| kills > 0)
}

/// Starts watching for kills in a group of systemd's, which does not outlive its last process.
pub(crate) fn watch_scope(cgroup: &str) -> Option<OomEvents> {
    let is_scope =
        cgroup.lines().any(|line| line.starts_with("0::") && line.strip_suffix(".scope").is_some());
    Cgroup::open(cgroup)
        .ok()
        .filter(|group| is_scope && group.version() == Version::V2)?
        .watch_oom()
        .ok()
}

pub(crate) fn freeze(cgroup: &str) -> Result<(), Error> {
    open(cgroup)?.freeze().map_err(|error| failed(&error))
}

pub(crate) fn thaw(cgroup: &str) -> Result<(), Error> {
    open(cgroup)?.thaw().map_err(|error| failed(&error))
}

pub(crate) fn signal_all(cgroup: &str, signal: Signal) -> Result<(), Error> {
    let group = open(cgroup)?;
    if signal == Signal::KILL {
        return group.kill_all().map_err(|error| failed(&error));
    }
    for pid in group.processes(true).map_err(|error| failed(&error))? {
        if let Some(pid) = Pid::from_raw(pid)
            && let Ok(pidfd) =
                rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty())
        {
            // A process that has ended meanwhile needs no signal.
            let _ = rorqual_sys::pidfd::send_signal(pidfd.as_fd(), signal.number());
        }
    }
    Ok(())
}

/// Changes the limits that are given. A limit that this host cannot keep is an error.
pub(crate) fn update(cgroup: &str, resources: &LinuxResources) -> Result<(), Error> {
    let group = open(cgroup)?;
    let resources = rorqual_runtime::cgroup_resources(resources)
        .map_err(|error| Error::Refused { message: full_message(&error), kind: error.kind() })?;
    let warnings = group.apply(&resources).map_err(|error| failed(&error))?;
    match warnings.into_iter().next() {
        Some(warning) => {
            Err(Error::Refused { message: warning.0, kind: rorqual_core::ErrorKind::Unsupported })
        }
        None => Ok(()),
    }
}

/// Lists the processes of the group.
pub(crate) fn processes(cgroup: &str) -> Result<Vec<i32>, Error> {
    open(cgroup)?.processes(true).map_err(|error| failed(&error))
}

/// Reads the counters of a container whose init is `pid`.
pub(crate) fn stats(cgroup: &str, pid: i32) -> Result<Stats, Error> {
    let group = open(cgroup)?;
    let read = group.stats().map_err(|error| failed(&error))?;
    let (cpu, memory) = (read.cpu, read.memory);
    // COMPAT: without a limit Docker shows the host's memory.
    let host = host_memory();
    let limit = memory.limit.map_or(host, |limit| limit.min(host));
    Ok(Stats {
        cpu: [cpu.total, cpu.user, cpu.system],
        cpu_per_core: cpu.per_cpu,
        throttling: [cpu.periods, cpu.throttled_periods, cpu.throttled_time],
        memory: [memory.usage, memory.max_usage, limit, memory.failures],
        memory_stat: memory.details.into_iter().collect(),
        pids: (read.pids.current, read.pids.limit),
        blkio_bytes: read.block_io.bytes.into_iter().map(block_entry).collect(),
        blkio_ops: read.block_io.requests.into_iter().map(block_entry).collect(),
        networks: std::fs::read_to_string(format!("/proc/{pid}/net/dev"))
            .map(|text| parse_net_dev(&text))
            .unwrap_or_default(),
        unified: group.version() == Version::V2,
    })
}

fn host_memory() -> u64 {
    let info = rustix::system::sysinfo();
    info.totalram * u64::from(info.mem_unit)
}

fn block_entry(entry: BlockEntry) -> (u64, u64, String, u64) {
    (entry.major, entry.minor, entry.operation, entry.value)
}

/// Reads `/proc/PID/net/dev`; the loopback interface is left out, as in Docker's statistics.
fn parse_net_dev(text: &str) -> Vec<(String, [u64; 8])> {
    let interfaces = text.lines().filter_map(|line| {
        let (name, counters) = line.split_once(':')?;
        let counters: Vec<u64> =
            counters.split_whitespace().map(str::parse).collect::<Result<_, _>>().ok()?;
        // Eight receive columns, eight transmit columns; bytes, packets, errors, drops lead each.
        let (received, sent) = (counters.get(..4)?, counters.get(8..12)?);
        let counters = <[u64; 8]>::try_from([received, sent].concat()).ok()?;
        Some((name.trim().to_owned(), counters))
    });
    interfaces.filter(|(name, _)| name != "lo").collect()
}

struct Watched(OomEvents);

impl AsRawFd for Watched {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

/// Waits for the next kill for lack of memory.
pub(crate) async fn next_oom(cgroup: &str) -> Result<(), Error> {
    let events = open(cgroup)?.watch_oom().map_err(|error| failed(&error))?;
    let watch = || {
        #[expect(
            deprecated,
            reason = "sound: the events own their descriptor until they are dropped"
        )]
        AsyncFd::new(Watched(events))
    };
    let broken =
        |error: std::io::Error| crate::running::io_refused("watch for lack of memory", &error);
    let mut events = watch().map_err(broken)?;
    loop {
        events.readable_mut().await.map_err(broken)?.clear_ready();
        if events.get_mut().0.take().map_err(broken)? {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interface_counters_are_read_without_loopback() {
        let text = "Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed
    lo:     100       2    0    0    0     0          0         0      100       2    0    0    0     0       0          0
  eth0:    1296      16    1    2    0     0          0         0      620       7    3    4    0     0       0          0
";
        assert_eq!(parse_net_dev(text), [("eth0".to_owned(), [1296, 16, 1, 2, 620, 7, 3, 4])]);
    }
}
