//! Shares of caches and of memory bandwidth: classes of service and monitoring groups of the `resctrl` file system.
//! See the kernel's `Documentation/filesystems/resctrl.rst`. Which container belongs to which class is decided elsewhere.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// A failure of the resource control.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The processor or the kernel has none.
    #[error(
        "neither this processor nor this kernel can control caches or memory bandwidth (no resctrl)"
    )]
    Absent,
    /// It could be there.
    #[error("resctrl is not mounted here (mount -t resctrl resctrl /sys/fs/resctrl)")]
    NotMounted,
    /// A name that is none of a directory of its own.
    #[error("invalid name of a resctrl group {0:?}")]
    Name(String),
    /// The kernel refused.
    #[error("cannot {action}{}", told(.status))]
    Io {
        /// What was tried.
        action: String,
        /// What the file system says of its last command; empty for nothing.
        status: String,
        /// What the kernel said.
        source: io::Error,
    },
}

fn told(status: &str) -> String {
    if status.is_empty() { String::new() } else { format!(" ({status})") }
}

type Result<T> = std::result::Result<T, Error>;

/// The mounted file system.
#[derive(Clone, Debug)]
pub struct Resctrl {
    root: PathBuf,
    /// Whether bandwidth is in MB/s, not in percent.
    in_megabytes: bool,
}

impl Resctrl {
    /// Looks where it is mounted.
    pub fn find() -> Result<Self> {
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let kinds = fs::read_to_string("/proc/filesystems").unwrap_or_default();
        Self::among(&mounts, &kinds)
    }

    fn among(mountinfo: &str, filesystems: &str) -> Result<Self> {
        for line in mountinfo.lines() {
            let Some((before, after)) = line.split_once(" - resctrl ") else { continue };
            if let Some(root) = before.split(' ').nth(4) {
                let mut options = after.rsplit(' ').next().unwrap_or("").split(',');
                let in_megabytes = options.any(|option| option == "mba_MBps");
                return Ok(Self { root: root.into(), in_megabytes });
            }
        }
        let is_known = filesystems.lines().any(|line| line.trim_end().ends_with("\tresctrl"));
        Err(if is_known { Error::NotMounted } else { Error::Absent })
    }

    /// Uses the one at a place.
    pub fn at(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into(), in_megabytes: false }
    }

    /// Returns the class that everything belongs to that belongs to no other.
    pub fn default_class(&self) -> Group {
        Group { root: self.root.clone(), directory: self.root.clone() }
    }

    /// Names a class of service, which need not be there.
    pub fn class(&self, name: &str) -> Result<Group> {
        Ok(Group { root: self.root.clone(), directory: self.root.join(checked(name)?) })
    }

    /// Takes up a group where [`Group::directory`] said it is.
    pub fn group(&self, directory: &Path) -> Group {
        Group { root: self.root.clone(), directory: directory.to_owned() }
    }

    /// Returns the numbers of a file below `info`; those that are bit masks are hexadecimal there, and stay text.
    pub fn info(&self, resource: &str, name: &str) -> Option<String> {
        let text = fs::read_to_string(self.root.join("info").join(resource).join(name)).ok()?;
        Some(text.trim().to_owned())
    }

    /// Reads lines as the kernel does, so that two that mean the same are equal: by resource and cache the value.
    ///
    /// `None` for a line that is no schema.
    pub fn normalise(&self, line: &str) -> Option<(String, BTreeMap<u32, u64>)> {
        let (resource, domains) = line.trim().split_once(':')?;
        let is_bandwidth = resource.ends_with("MB");
        let mut values = BTreeMap::new();
        for domain in domains.split(';').filter(|domain| !domain.trim().is_empty()) {
            let (id, value) = domain.trim().split_once('=')?;
            let value = value.trim();
            let value = if is_bandwidth {
                self.rounded(value.parse().ok()?)
            } else {
                u64::from_str_radix(value.trim_start_matches("0x"), 16).ok()?
            };
            values.insert(id.trim().parse().ok()?, value);
        }
        Some((resource.trim().to_owned(), values))
    }

    /// The kernel rounds percentages up to what the processor can do.
    fn rounded(&self, percent: u64) -> u64 {
        let number = |name| self.info("MB", name).and_then(|text| text.parse::<u64>().ok());
        if self.in_megabytes {
            return percent;
        }
        let percent = percent.max(number("min_bandwidth").unwrap_or(0));
        number("bandwidth_gran")
            .filter(|step| *step > 0)
            .map_or(percent, |step| percent.div_ceil(step).saturating_mul(step))
    }
}

/// The file system has these beside its classes.
const RESERVED: [&str; 3] = ["info", "mon_groups", "mon_data"];

fn checked(name: &str) -> Result<&str> {
    let is_bad = name.is_empty()
        || name.len() > 255
        || matches!(name, "." | "..")
        || RESERVED.contains(&name)
        || name.chars().any(|letter| letter == '/' || letter.is_control());
    if is_bad { Err(Error::Name(name.to_owned())) } else { Ok(name) }
}

/// A directory of the file system: a class of service, or a monitoring group within one.
#[derive(Clone, Debug)]
pub struct Group {
    root: PathBuf,
    directory: PathBuf,
}

impl Group {
    /// Returns where it is.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Tells whether it is there.
    pub fn exists(&self) -> bool {
        self.directory.is_dir()
    }

    /// Names a monitoring group of this class.
    pub fn monitor(&self, name: &str) -> Result<Self> {
        let directory = self.directory.join("mon_groups").join(checked(name)?);
        Ok(Self { root: self.root.clone(), directory })
    }

    /// Makes it; tells whether it had to.
    pub fn make(&self) -> Result<bool> {
        match fs::create_dir(&self.directory) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
            Err(error) => Err(self.failed("make", &self.directory, error)),
        }
    }

    /// Returns the lines of its schemata.
    pub fn schemata(&self) -> Result<Vec<String>> {
        let file = self.directory.join("schemata");
        let text = fs::read_to_string(&file).map_err(|error| self.failed("read", &file, error))?;
        Ok(text.lines().map(|line| line.trim().to_owned()).collect())
    }

    /// Writes schemata, of which a later line has precedence.
    pub fn set_schemata<'a>(&self, lines: impl IntoIterator<Item = &'a str>) -> Result<()> {
        let text: String = lines.into_iter().flat_map(|line| [line.trim(), "\n"]).collect();
        self.write("schemata", &text)
    }

    /// Moves a process of one thread into it.
    pub fn assign(&self, pid: i32) -> Result<()> {
        self.write("tasks", &pid.to_string())
    }

    /// Tells whether nothing runs in it.
    pub fn is_empty(&self) -> bool {
        fs::read_to_string(self.directory.join("tasks")).is_ok_and(|text| text.trim().is_empty())
    }

    /// Removes it; what still runs in it returns to the class above. One that is gone is no failure.
    pub fn remove(&self) -> Result<()> {
        match fs::remove_dir(&self.directory) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(self.failed("remove", &self.directory, error))
            }
            _ => Ok(()),
        }
    }

    /// Returns what a monitoring file says for each cache of the third level, in their order.
    pub fn counts(&self, name: &str) -> Vec<u64> {
        let entries = fs::read_dir(self.directory.join("mon_data"));
        let mut caches: Vec<PathBuf> = entries
            .into_iter()
            .flatten()
            .filter_map(|entry| Some(entry.ok()?.path()))
            .filter(|path| {
                path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"mon_L3_"))
            })
            .collect();
        caches.sort();
        let read = |cache: PathBuf| fs::read_to_string(cache.join(name)).ok()?.trim().parse().ok();
        caches.into_iter().filter_map(read).collect()
    }

    fn write(&self, name: &str, text: &str) -> Result<()> {
        let file = self.directory.join(name);
        fs::write(&file, text)
            .map_err(|error| self.failed(&format!("write {:?} to", text.trim_end()), &file, error))
    }

    fn failed(&self, action: &str, path: &Path, source: io::Error) -> Error {
        let status = fs::read_to_string(self.root.join("info/last_cmd_status")).unwrap_or_default();
        let status = Some(status.trim()).filter(|status| *status != "ok").unwrap_or_default();
        let status = status.replace('\n', "; ");
        Error::Io { action: format!("{action} {}", path.display()), status, source }
    }
}

#[cfg(test)]
mod tests;
