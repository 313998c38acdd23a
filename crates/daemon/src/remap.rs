//! `userns-remap`: whose ranges of `/etc/subuid` and `/etc/subgid` the users of containers are.

use std::path::{Path, PathBuf};
use std::process::Command;

use rorqual_core::idmap::{IdMap, IdMaps, IdRange, InvalidIdMap};

/// The user of `default`.
const DEFAULT_USER: &str = "dockremap";
/// Where ranges begin that we choose, and how long they are.
const FIRST: u32 = 100_000;
const LENGTH: u32 = 65536;

/// Why users cannot be mapped.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RemapError {
    /// More than user and group.
    // COMPAT: dockerd's text.
    #[error("invalid user/group specification in --userns-remap: {0:?}")]
    Specification(String),
    /// Nobody of that name or number.
    #[error("userns-remap: {kind} {name:?} is not in {}", path.display())]
    Unknown {
        /// `user` or `group`.
        kind: &'static str,
        /// As written.
        name: String,
        /// Where it was looked for.
        path: PathBuf,
    },
    /// No ranges.
    #[error("userns-remap: no ranges of {0:?} in {path}: add a line such as {0}:100000:65536", path = .1.display())]
    NoRanges(String, PathBuf),
    /// Ranges that are no map.
    #[error("userns-remap: the ranges in {} cannot be used", .0.display())]
    Ranges(PathBuf, #[source] InvalidIdMap),
    /// A file cannot be read.
    #[error("userns-remap: cannot read {}", .0.display())]
    Read(PathBuf, #[source] std::io::Error),
    /// A program failed.
    #[error(
        "userns-remap: cannot make the user {DEFAULT_USER} and its ranges: {0}; make it yourself, or name another user"
    )]
    Program(String),
}

/// The files of users and of their ranges, and who changes them.
pub(crate) struct Accounts<'a> {
    pub(crate) etc: &'a Path,
    /// Runs a program of the host.
    pub(crate) run: &'a dyn Fn(&[&str]) -> Result<(), String>,
}

/// Runs a program that administrates accounts.
pub(crate) fn run_on_host(words: &[&str]) -> Result<(), String> {
    let [program, arguments @ ..] = words else { return Ok(()) };
    let output = Command::new(program)
        .args(arguments)
        .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
        .output()
        .map_err(|error| format!("{program}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{program}: {}", String::from_utf8_lossy(&output.stderr).trim()))
}

impl Accounts<'_> {
    /// Returns the maps that a setting asks for; `None` where root would be mapped to itself.
    pub(crate) fn maps(&self, setting: &str) -> Result<Option<IdMaps>, RemapError> {
        let mut parts = setting.split(':');
        let (user, group) = (parts.next().unwrap_or_default(), parts.next());
        if parts.next().is_some() || user.is_empty() || group == Some("") {
            return Err(RemapError::Specification(setting.to_owned()));
        }
        let name =
            if user == "default" { self.default_user()? } else { self.find("passwd", user)? };
        // COMPAT: a lone number stands for the group of that number, a lone name for the group of that name.
        let group = group.unwrap_or(if user == "default" { DEFAULT_USER } else { user });
        self.find("group", group)?;
        if name == "root" {
            tracing::warn!("userns-remap: root cannot be mapped to itself; users are not mapped");
            return Ok(None);
        }
        let uid = self.entry("passwd", &name)?.map(|(_, uid)| uid).unwrap_or_default();
        // COMPAT: the ranges of groups are those of the user, too.
        let map = |file: &str| {
            let path = self.etc.join(file);
            let ranges = ranges_of(&self.read(file)?, &name, &uid);
            if ranges.is_empty() {
                return Err(RemapError::NoRanges(name.clone(), path));
            }
            IdMap::new(ranges).map_err(|error| RemapError::Ranges(path, error))
        };
        Ok(Some(IdMaps { users: map("subuid")?, groups: map("subgid")? }))
    }

    fn read(&self, file: &str) -> Result<String, RemapError> {
        let path = self.etc.join(file);
        match std::fs::read_to_string(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(String::new()),
            result => result.map_err(|error| RemapError::Read(path, error)),
        }
    }

    /// Finds a line by name or number; returns both.
    fn entry(&self, file: &str, wanted: &str) -> Result<Option<(String, String)>, RemapError> {
        let text = self.read(file)?;
        let mut lines = text.lines().filter_map(|line| {
            let mut fields = line.split(':');
            let (name, _, number) = (fields.next()?, fields.next()?, fields.next()?);
            Some((name.to_owned(), number.to_owned()))
        });
        let is_number = wanted.parse::<u32>().is_ok();
        Ok(lines.find(|(name, number)| if is_number { number == wanted } else { name == wanted }))
    }

    fn find(&self, file: &'static str, wanted: &str) -> Result<String, RemapError> {
        let found = self.entry(file, wanted)?.map(|(name, _)| name);
        found.ok_or_else(|| RemapError::Unknown {
            kind: if file == "group" { "group" } else { "user" },
            name: wanted.to_owned(),
            path: self.etc.join(file),
        })
    }

    /// COMPAT: the user of `default` and its ranges are made where they are missing.
    fn default_user(&self) -> Result<String, RemapError> {
        let run = |words: &[&str]| (self.run)(words).map_err(RemapError::Program);
        if self.entry("passwd", DEFAULT_USER)?.is_none() {
            run(&["useradd", "--system", "--user-group", "--shell", "/bin/false", DEFAULT_USER])?;
            tracing::info!(user = DEFAULT_USER, "made the user whose ranges containers get");
        }
        for (file, flag) in [("subuid", "--add-subuids"), ("subgid", "--add-subgids")] {
            let text = self.read(file)?;
            let uid = self.entry("passwd", DEFAULT_USER)?.map(|(_, uid)| uid).unwrap_or_default();
            if ranges_of(&text, DEFAULT_USER, &uid).is_empty() {
                let first = free_range(&text);
                let range = format!("{first}-{}", u64::from(first) + u64::from(LENGTH) - 1);
                run(&["usermod", flag, &range, DEFAULT_USER])?;
            }
        }
        Ok(DEFAULT_USER.to_owned())
    }
}

/// Reads `owner:first:count` lines.
fn lines(text: &str) -> impl Iterator<Item = (&str, u32, u32)> {
    text.lines().filter_map(|line| {
        let mut fields = line.trim().split(':');
        let (owner, first, count) = (fields.next()?, fields.next()?, fields.next()?);
        Some((owner, first.parse().ok()?, count.parse().ok()?))
    })
}

/// Puts the ranges of a user, who is called by name or number, one behind the other.
fn ranges_of(text: &str, name: &str, uid: &str) -> Vec<IdRange> {
    let mut inside = 0_u32;
    let mut ranges = Vec::new();
    for (_, outside, count) in lines(text).filter(|(owner, ..)| *owner == name || *owner == uid) {
        ranges.push(IdRange { inside, outside, count });
        inside = inside.saturating_add(count);
    }
    ranges
}

/// Finds where a range begins that nobody has.
fn free_range(text: &str) -> u32 {
    let mut taken = lines(text).map(|(_, first, count)| (first, count)).collect::<Vec<_>>();
    taken.sort_unstable();
    taken.into_iter().fold(FIRST, |free, (first, count)| {
        let end = u64::from(first) + u64::from(count);
        let overlaps = u64::from(first) < u64::from(free) + u64::from(LENGTH) && end > free.into();
        if overlaps { u32::try_from(end).unwrap_or(u32::MAX) } else { free }
    })
}

#[cfg(test)]
mod tests;
