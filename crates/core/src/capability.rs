//! Names and numbers of Linux capabilities, and Docker's rule for adding and dropping them.
//! Asking the kernel which ones exist is left to the caller.

use std::fmt;
use std::str::FromStr;

use crate::{Classify, ErrorKind};

/// In the order of their numbers, see `capabilities(7)`.
const NAMES: [&str; 41] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETPCAP",
    "CAP_LINUX_IMMUTABLE",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST",
    "CAP_NET_ADMIN",
    "CAP_NET_RAW",
    "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",
    "CAP_SYS_MODULE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_CHROOT",
    "CAP_SYS_PTRACE",
    "CAP_SYS_PACCT",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_NICE",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG",
    "CAP_MKNOD",
    "CAP_LEASE",
    "CAP_AUDIT_WRITE",
    "CAP_AUDIT_CONTROL",
    "CAP_SETFCAP",
    "CAP_MAC_OVERRIDE",
    "CAP_MAC_ADMIN",
    "CAP_SYSLOG",
    "CAP_WAKE_ALARM",
    "CAP_BLOCK_SUSPEND",
    "CAP_AUDIT_READ",
    "CAP_PERFMON",
    "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
];

/// A name that is no capability, or none that can be had here.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidCapability {
    /// No kernel knows it.
    // COMPAT: clients show this text of dockerd.
    #[error("unknown capability: {0:?}")]
    Unknown(String),
    /// Known, but the kernel or the daemon itself lacks it.
    // COMPAT: clients show this text of dockerd.
    #[error(
        "capability not supported by your kernel or not available in the current environment: {0:?}"
    )]
    Unavailable(String),
}

impl Classify for InvalidCapability {
    fn kind(&self) -> ErrorKind {
        ErrorKind::InvalidArgument
    }
}

/// One capability.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Capability(u8);

impl Capability {
    /// `CAP_DAC_READ_SEARCH`
    pub const DAC_READ_SEARCH: Self = Self(2);
    /// `CAP_SETGID`
    pub const SETGID: Self = Self(6);
    /// `CAP_SETUID`
    pub const SETUID: Self = Self(7);
    /// `CAP_SETPCAP`
    pub const SETPCAP: Self = Self(8);
    /// `CAP_NET_ADMIN`
    pub const NET_ADMIN: Self = Self(12);
    /// `CAP_SYS_ADMIN`
    pub const SYS_ADMIN: Self = Self(21);
    /// `CAP_SYS_RESOURCE`
    pub const SYS_RESOURCE: Self = Self(24);
    /// `CAP_MKNOD`
    pub const MKNOD: Self = Self(27);

    /// Makes a capability from its number.
    pub fn from_number(number: u8) -> Option<Self> {
        (usize::from(number) < NAMES.len()).then_some(Self(number))
    }

    /// Returns the kernel's number.
    pub const fn number(self) -> u8 {
        self.0
    }

    /// Returns the name with its prefix, as `CAP_CHOWN`.
    pub fn name(self) -> &'static str {
        NAMES[usize::from(self.0)]
    }
}

impl fmt::Display for Capability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Capability {
    type Err = InvalidCapability;

    /// Reads a name in any case, with or without `CAP_`.
    fn from_str(text: &str) -> Result<Self, InvalidCapability> {
        let name = normal_name(text);
        match NAMES.iter().position(|known| *known == name) {
            Some(number) => Ok(Self(number as u8)),
            None => Err(InvalidCapability::Unknown(name)),
        }
    }
}

fn normal_name(text: &str) -> String {
    let upper = text.trim().to_ascii_uppercase();
    if upper.starts_with("CAP_") { upper } else { format!("CAP_{upper}") }
}

/// A set of capabilities, as one mask.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Capabilities(u64);

impl Capabilities {
    /// None at all.
    pub const EMPTY: Self = Self(0);
    /// Every one this table knows.
    pub const ALL: Self = Self((1 << NAMES.len()) - 1);
    /// What a plain container has: the 14 of Docker.
    pub const DOCKER_DEFAULT: Self = Self(0xa804_25fb);

    /// Makes a set from a mask; bits without a name are dropped.
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits & Self::ALL.0)
    }

    /// Returns the mask, bit `n` for capability number `n`.
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// Tells whether there is none.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Tells whether `one` is in the set.
    pub const fn contains(self, one: Capability) -> bool {
        self.0 & (1 << one.0) != 0
    }

    /// Returns the set with `one` in it.
    #[must_use]
    pub const fn with(self, one: Capability) -> Self {
        Self(self.0 | 1 << one.0)
    }

    /// Returns the set with `one` not in it.
    #[must_use]
    pub const fn without(self, one: Capability) -> Self {
        Self(self.0 & !(1 << one.0))
    }

    /// Returns what is in both.
    #[must_use]
    pub const fn intersection(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// Returns what is in either.
    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Returns what is here and not in `other`.
    #[must_use]
    pub const fn difference(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Walks through the set in the order of the numbers.
    pub fn iter(self) -> impl Iterator<Item = Capability> {
        (0..NAMES.len() as u8).map(Capability).filter(move |one| self.contains(*one))
    }

    /// Returns the names in the order of the numbers, as OCI documents list them.
    pub fn names(self) -> Vec<&'static str> {
        self.iter().map(Capability::name).collect()
    }
}

impl FromIterator<Capability> for Capabilities {
    fn from_iter<I: IntoIterator<Item = Capability>>(all: I) -> Self {
        all.into_iter().fold(Self::EMPTY, Self::with)
    }
}

impl serde::Serialize for Capabilities {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.iter().map(Capability::name))
    }
}

impl<'de> serde::Deserialize<'de> for Capabilities {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let names = Vec::<String>::deserialize(deserializer)?;
        names
            .iter()
            .map(|name| name.parse::<Capability>())
            .collect::<Result<_, _>>()
            .map_err(serde::de::Error::custom)
    }
}

/// One entry of `CapAdd` or `CapDrop`.
enum Wish {
    All,
    One(Capability),
}

fn wishes(
    names: &[String],
    available: Capabilities,
) -> Result<(bool, Capabilities), InvalidCapability> {
    let mut all = false;
    let mut set = Capabilities::EMPTY;
    for name in names {
        match wish(name, available)? {
            Wish::All => all = true,
            Wish::One(one) => set = set.with(one),
        }
    }
    Ok((all, set))
}

fn wish(name: &str, available: Capabilities) -> Result<Wish, InvalidCapability> {
    if name.trim().eq_ignore_ascii_case("all") {
        return Ok(Wish::All);
    }
    let one: Capability = name.parse()?;
    if available.contains(one) {
        Ok(Wish::One(one))
    } else {
        Err(InvalidCapability::Unavailable(one.name().to_owned()))
    }
}

/// Checks the names of one list (`CapAdd` or `CapDrop`) without applying it.
///
/// dockerd prefixes the error with `invalid CapAdd: ` or `invalid CapDrop: `.
pub fn check(names: &[String], available: Capabilities) -> Result<(), InvalidCapability> {
    wishes(names, available).map(|_| ())
}

/// Returns what a container has whose user asked to `add` and to `drop`.
///
/// `available` is what the kernel and the daemon have. Adding `ALL` gives everything but what is
/// dropped by name; dropping `ALL` leaves only what is added by name; else the default set is changed.
pub fn container_set(
    add: &[String],
    drop: &[String],
    available: Capabilities,
) -> Result<Capabilities, InvalidCapability> {
    let (add_all, added) = wishes(add, available)?;
    let (drop_all, dropped) = wishes(drop, available)?;
    Ok(if add_all {
        available.difference(dropped)
    } else if drop_all {
        added
    } else {
        Capabilities::DOCKER_DEFAULT.intersection(available).difference(dropped).union(added)
    })
}

#[cfg(test)]
mod tests;
