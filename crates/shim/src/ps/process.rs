//! One process out of `/proc`, and what of the host is needed to describe it.

use std::collections::HashMap;
use std::fs;
use std::time::{SystemTime, UNIX_EPOCH};

/// LIMIT: more users than any host has.
const USERS: usize = 100_000;

/// What is the same for all processes.
pub(crate) struct Host {
    pub(crate) users: HashMap<u32, String>,
    pub(crate) groups: HashMap<u32, String>,
    /// Seconds since 1970.
    pub(crate) now: u64,
    pub(crate) boot: u64,
    pub(crate) ticks: u64,
    pub(crate) memory_kib: u64,
    pub(crate) page: u64,
}

impl Host {
    pub(crate) fn read() -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let info = rustix::system::sysinfo();
        Self {
            users: names("/etc/passwd"),
            groups: names("/etc/group"),
            now,
            boot: boot_time().unwrap_or(now),
            ticks: rustix::param::clock_ticks_per_second().max(1),
            memory_kib: (info.totalram * u64::from(info.mem_unit) / 1024).max(1),
            page: rustix::param::page_size() as u64,
        }
    }
}

fn boot_time() -> Option<u64> {
    let stat = fs::read_to_string("/proc/stat").ok()?;
    stat.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()
}

/// Reads ids and names of `passwd(5)` or `group(5)`.
fn names(path: &str) -> HashMap<u32, String> {
    let text = fs::read_to_string(path).unwrap_or_default();
    let entries = text.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        Some((fields.nth(1)?.parse().ok()?, name.to_owned()))
    });
    let mut names = HashMap::new();
    for (id, name) in entries.take(USERS) {
        // The first entry of an id is the one that names it.
        names.entry(id).or_insert(name);
    }
    names
}

/// A process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Process {
    pub(crate) pid: i32,
    pub(crate) comm: String,
    pub(crate) state: char,
    pub(crate) args: String,
    /// Fields of `/proc/PID/stat` behind the state, see `proc_pid_stat(5)`: index 0 is field 4.
    pub(crate) stat: Vec<i64>,
    /// Real, effective.
    pub(crate) uid: [u32; 2],
    pub(crate) gid: [u32; 2],
    pub(crate) locked: bool,
}

impl Process {
    pub(crate) fn read(pid: i32) -> Option<Self> {
        let stat = fs::read(format!("/proc/{pid}/stat")).ok()?;
        let mut process = Self::parse_stat(&String::from_utf8_lossy(&stat))?;
        process.parse_status(&fs::read_to_string(format!("/proc/{pid}/status")).ok()?);
        let args = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        process.args = printable(&args);
        Some(process)
    }

    pub(crate) fn parse_stat(text: &str) -> Option<Self> {
        let (pid, rest) = text.split_once(" (")?;
        // The name may hold anything, parentheses included.
        let (comm, rest) = rest.rsplit_once(") ")?;
        let mut fields = rest.split_whitespace();
        let state = fields.next()?.chars().next()?;
        // Large addresses do not matter here.
        let stat = fields.map(|field| field.parse().unwrap_or(i64::MAX)).collect();
        Some(Self { pid: pid.parse().ok()?, comm: comm.to_owned(), state, stat, ..Self::default() })
    }

    fn parse_status(&mut self, text: &str) {
        for line in text.lines() {
            let Some((key, value)) = line.split_once(':') else { continue };
            let mut numbers = value.split_whitespace().map(|word| word.parse::<u32>().ok());
            let mut pair = || Some([numbers.next()??, numbers.next()??]);
            match key {
                "Uid" => self.uid = pair().unwrap_or_default(),
                "Gid" => self.gid = pair().unwrap_or_default(),
                "VmLck" => self.locked = numbers.next().flatten().is_some_and(|kib| kib > 0),
                _ => {}
            }
        }
    }

    /// Returns a field of `/proc/PID/stat` by its number in the manual, from 4 on.
    pub(crate) fn field(&self, number: usize) -> i64 {
        number.checked_sub(4).and_then(|at| self.stat.get(at)).copied().unwrap_or(0)
    }

    /// Returns processor time in seconds.
    pub(crate) fn cpu_seconds(&self, host: &Host) -> u64 {
        (self.field(14).max(0) + self.field(15).max(0)) as u64 / host.ticks
    }

    /// Returns when it started, in seconds since 1970.
    pub(crate) fn started(&self, host: &Host) -> u64 {
        host.boot + self.field(22).max(0) as u64 / host.ticks
    }

    /// Returns for how many seconds it has run.
    pub(crate) fn elapsed(&self, host: &Host) -> u64 {
        host.now.saturating_sub(self.started(host))
    }

    /// Returns processor time in tenths of a per cent of the time it has run.
    pub(crate) fn cpu_permille(&self, host: &Host) -> u64 {
        let used = (self.field(14).max(0) + self.field(15).max(0)) as u64 * 1000 / host.ticks;
        used / self.elapsed(host).max(1)
    }
}

/// Joins arguments with blanks; what would disturb a terminal or a table becomes `?`.
fn printable(args: &[u8]) -> String {
    let args = args.strip_suffix(b"\0").unwrap_or(args);
    let text = String::from_utf8_lossy(args);
    text.chars()
        .map(|c| match c {
            '\0' => ' ',
            c if c.is_control() => '?',
            c => c,
        })
        .collect()
}
