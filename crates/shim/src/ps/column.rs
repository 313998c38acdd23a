//! The columns that `ps` knows: names, titles and how a cell is written.

use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::process::{Host, Process};

/// A column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Column {
    Addr,
    Args,
    BsdTime,
    C,
    Cmd,
    Comm,
    Elapsed,
    ElapsedSeconds,
    Flags,
    Gid,
    Group,
    LongStart,
    Nice,
    Nlwp,
    PercentCpu,
    PercentMemory,
    Pgid,
    Pid,
    Ppid,
    Priority,
    LongPriority,
    Psr,
    RealUser,
    RealUid,
    Rss,
    Sid,
    Size,
    Start,
    StartTime,
    Stat,
    State,
    Stime,
    Time,
    Tty,
    TtyShort,
    UCmd,
    Uid,
    UidName,
    User,
    Vsz,
    Wchan,
}

/// Names, title, column. The names are procps' own, but for `uid_name` and `pri_long`, which it has inside only.
const COLUMNS: &[(&[&str], &str, Column)] = &[
    (&["addr"], "ADDR", Column::Addr),
    (&["args", "command"], "COMMAND", Column::Args),
    (&["bsdtime"], "TIME", Column::BsdTime),
    (&["c"], "C", Column::C),
    (&["cmd"], "CMD", Column::Cmd),
    (&["comm", "ucomm"], "COMMAND", Column::Comm),
    (&["ucmd"], "CMD", Column::UCmd),
    (&["etime"], "ELAPSED", Column::Elapsed),
    (&["etimes"], "ELAPSED", Column::ElapsedSeconds),
    (&["f", "flag", "flags"], "F", Column::Flags),
    (&["gid", "egid"], "GID", Column::Gid),
    (&["group", "egroup"], "GROUP", Column::Group),
    (&["lstart"], "STARTED", Column::LongStart),
    (&["ni", "nice"], "NI", Column::Nice),
    (&["nlwp"], "NLWP", Column::Nlwp),
    (&["thcount"], "THCNT", Column::Nlwp),
    (&["pcpu", "%cpu"], "%CPU", Column::PercentCpu),
    (&["pmem", "%mem"], "%MEM", Column::PercentMemory),
    (&["pgid", "pgrp"], "PGID", Column::Pgid),
    (&["pid", "tgid"], "PID", Column::Pid),
    (&["ppid"], "PPID", Column::Ppid),
    (&["pri"], "PRI", Column::Priority),
    (&["pri_long"], "PRI", Column::LongPriority),
    (&["psr"], "PSR", Column::Psr),
    (&["ruser"], "RUSER", Column::RealUser),
    (&["ruid"], "RUID", Column::RealUid),
    (&["rss", "rssize", "rsz"], "RSS", Column::Rss),
    (&["sid"], "SID", Column::Sid),
    (&["sess", "session"], "SESS", Column::Sid),
    (&["sz"], "SZ", Column::Size),
    (&["start"], "STARTED", Column::Start),
    (&["start_time"], "START", Column::StartTime),
    (&["stat"], "STAT", Column::Stat),
    (&["s", "state"], "S", Column::State),
    (&["stime"], "STIME", Column::Stime),
    (&["time", "cputime"], "TIME", Column::Time),
    (&["tname", "tty"], "TTY", Column::Tty),
    (&["tt"], "TT", Column::TtyShort),
    (&["uid", "euid"], "UID", Column::Uid),
    (&["uid_name"], "UID", Column::UidName),
    (&["user", "uname"], "USER", Column::User),
    (&["euser"], "EUSER", Column::User),
    (&["vsz", "vsize"], "VSZ", Column::Vsz),
    (&["wchan"], "WCHAN", Column::Wchan),
];

impl Column {
    /// Finds a column by one of its names.
    pub(crate) fn find(name: &str) -> Option<Self> {
        let name = name.to_ascii_lowercase();
        COLUMNS
            .iter()
            .find(|(names, ..)| names.contains(&name.as_str()))
            .map(|(.., column)| *column)
    }

    /// Returns the title that procps prints above it.
    pub(crate) fn title(self) -> &'static str {
        COLUMNS.iter().find(|(.., column)| *column == self).map_or("", |(_, title, _)| title)
    }

    /// Writes a cell.
    pub(crate) fn render(self, process: &Process, host: &Host) -> String {
        let field = |number| process.field(number).to_string();
        match self {
            Self::Addr | Self::Wchan => "-".to_owned(),
            Self::Args | Self::Cmd => arguments(process),
            Self::Comm | Self::UCmd => name_of(process),
            Self::BsdTime => {
                let seconds = process.cpu_seconds(host);
                format!("{}:{:02}", seconds / 60, seconds % 60)
            }
            Self::C => (process.cpu_permille(host) / 10).min(99).to_string(),
            Self::Elapsed => elapsed(process.elapsed(host)),
            Self::ElapsedSeconds => process.elapsed(host).to_string(),
            Self::Flags => format!("{:o}", process.field(9) >> 6 & 7),
            Self::Gid => process.gid[1].to_string(),
            Self::Group => named(&host.groups, process.gid[1]),
            Self::Nice => field(19),
            Self::Nlwp => field(20),
            Self::PercentCpu => tenths(process.cpu_permille(host)),
            Self::PercentMemory => tenths(rss_kib(process, host) * 1000 / host.memory_kib),
            Self::Pgid => field(5),
            Self::Pid => process.pid.to_string(),
            Self::Ppid => field(4),
            Self::Priority => (39 - process.field(18)).to_string(),
            Self::LongPriority => (process.field(18) + 60).to_string(),
            Self::Psr => field(39),
            Self::RealUser => named(&host.users, process.uid[0]),
            Self::RealUid => process.uid[0].to_string(),
            Self::Rss => rss_kib(process, host).to_string(),
            Self::Sid => field(6),
            Self::Size => (process.field(23).max(0) as u64 / host.page).to_string(),
            Self::Vsz => (process.field(23).max(0) / 1024).to_string(),
            Self::Start => start(process, host, "%H:%M:%S", 24 * 3600),
            Self::StartTime | Self::Stime => start_time(process, host),
            Self::LongStart => local(process.started(host), "%a %b %e %H:%M:%S %Y"),
            Self::Stat => stat(process),
            Self::State => process.state.to_string(),
            Self::Time => cpu_time(process.cpu_seconds(host)),
            Self::Tty | Self::TtyShort => terminal(process.field(7)),
            Self::Uid => process.uid[1].to_string(),
            Self::UidName | Self::User => named(&host.users, process.uid[1]),
        }
    }
}

fn name_of(process: &Process) -> String {
    if process.state == 'Z' { format!("{} <defunct>", process.comm) } else { process.comm.clone() }
}

fn arguments(process: &Process) -> String {
    match (process.args.is_empty(), process.state) {
        (_, 'Z') => format!("[{}] <defunct>", process.comm),
        (true, _) => format!("[{}]", process.comm),
        (false, _) => process.args.clone(),
    }
}

fn rss_kib(process: &Process, host: &Host) -> u64 {
    process.field(24).max(0) as u64 * host.page / 1024
}

fn tenths(value: u64) -> String {
    format!("{}.{}", value / 10, value % 10)
}

/// Returns the name of an id; too long ones are cut as procps does.
fn named(names: &std::collections::HashMap<u32, String>, id: u32) -> String {
    match names.get(&id) {
        Some(name) if name.chars().count() <= 8 => name.clone(),
        Some(name) => name.chars().take(7).chain(['+']).collect(),
        None => id.to_string(),
    }
}

fn cpu_time(seconds: u64) -> String {
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    let clock = format!("{:02}:{:02}:{:02}", rest / 3600, rest / 60 % 60, rest % 60);
    if days > 0 { format!("{days}-{clock}") } else { clock }
}

fn elapsed(seconds: u64) -> String {
    let (days, hours) = (seconds / 86_400, seconds / 3600 % 24);
    let clock = format!("{:02}:{:02}", seconds / 60 % 60, seconds % 60);
    match (days, hours) {
        (0, 0) => clock,
        (0, _) => format!("{hours:02}:{clock}"),
        _ => format!("{days}-{hours:02}:{clock}"),
    }
}

fn local(seconds: u64, format: &str) -> String {
    let time = i64::try_from(seconds).ok().and_then(|seconds| Timestamp::from_second(seconds).ok());
    let time = time.unwrap_or_default().to_zoned(TimeZone::system());
    time.strftime(format).to_string()
}

/// The clock for what started lately, else the day.
fn start(process: &Process, host: &Host, clock: &str, lately: u64) -> String {
    let started = process.started(host);
    let format = if host.now.saturating_sub(started) < lately { clock } else { "%b %d" };
    local(started, format)
}

/// The clock on the same day, the day in the same year, else the year.
fn start_time(process: &Process, host: &Host) -> String {
    let started = process.started(host);
    let same = |format| local(started, format) == local(host.now, format);
    let format = match (same("%Y"), same("%Y %j")) {
        (_, true) => "%H:%M",
        (true, false) => "%b%d",
        (false, false) => "%Y",
    };
    local(started, format)
}

fn stat(process: &Process) -> String {
    let mut text = process.state.to_string();
    let nice = process.field(19);
    let marks = [
        (nice < 0, '<'),
        (nice > 0, 'N'),
        (process.locked, 'L'),
        (process.field(6) == i64::from(process.pid), 's'),
        (process.field(20) > 1, 'l'),
        (process.field(8) == process.field(5), '+'),
    ];
    text.extend(marks.iter().filter(|(holds, _)| *holds).map(|(_, mark)| mark));
    text
}

/// Names a terminal by its device number.
fn terminal(device: i64) -> String {
    let (major, minor) = (device >> 8 & 0xfff, device & 0xff | (device >> 12 & 0xfff00));
    match major {
        0 => "?".to_owned(),
        4 if minor < 64 => format!("tty{minor}"),
        4 => format!("ttyS{}", minor - 64),
        136..=143 => format!("pts/{}", minor + (major - 136) * 256),
        _ => "?".to_owned(),
    }
}
