//! Docker's profile documents: the JSON a user writes, and what it means on a given host. Resolving is
//! pure; the caller says what the host and the container are like.

use std::fmt;
use std::str::FromStr;

use serde::Deserialize;

use super::wire::{self, LinuxArg};
use super::{Action, Arg, Profile, Rule, table};
use crate::capability::{Capabilities, Capability};
use crate::{Classify, ErrorKind};

/// A profile document that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum InvalidProfile {
    /// Not the JSON of a profile.
    // COMPAT: clients show this text of dockerd.
    #[error("Decoding seccomp profile failed")]
    Json(#[from] serde_json::Error),
    /// Two ways of naming architectures at once.
    // COMPAT: clients show this text of dockerd.
    #[error(
        "both 'architectures' and 'archMap' are specified in the seccomp profile, use either 'architectures' or 'archMap'"
    )]
    ArchitecturesTwice,
    /// Two ways of naming calls at once.
    // COMPAT: clients show this text of dockerd.
    #[error(
        "both 'name' and 'names' are specified in the seccomp profile, use either 'name' or 'names'"
    )]
    NamesTwice,
    /// No such action.
    #[error("unknown seccomp action {0:?}")]
    Action(String),
    /// No such comparison.
    #[error("unknown seccomp operator {0:?}")]
    Op(String),
    /// No such machine.
    #[error("unknown seccomp architecture {0:?}")]
    Arch(String),
    /// No such flag.
    #[error("unknown seccomp flag {0:?}")]
    Flag(String),
    /// A call has six arguments.
    #[error("seccomp argument index {0} is not from 0 to 5")]
    ArgIndex(u32),
    /// Larger than any error number.
    #[error("seccomp error number {0} is larger than 4095")]
    Errno(u32),
    /// A number where none has a meaning.
    #[error("seccomp action {action} takes no error number, got {number}")]
    ErrnoWithoutUse {
        /// The action.
        action: String,
        /// The number.
        number: u32,
    },
    /// Not a version.
    #[error("invalid kernel version {0:?} in the seccomp profile: need MAJOR.MINOR")]
    KernelVersion(String),
}

impl Classify for InvalidProfile {
    fn kind(&self) -> ErrorKind {
        ErrorKind::InvalidArgument
    }
}

/// The first two numbers of a kernel's release.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KernelVersion {
    /// The 6 of 6.1.
    pub major: u32,
    /// The 1 of 6.1.
    pub minor: u32,
}

impl FromStr for KernelVersion {
    type Err = InvalidProfile;

    /// Reads `6.1` and also a whole release as `6.1.0-13-amd64`.
    fn from_str(text: &str) -> Result<Self, InvalidProfile> {
        let mut numbers = text.splitn(2, '.').map(|part| {
            let end = part.find(|c: char| !c.is_ascii_digit()).unwrap_or(part.len());
            part[..end].parse().ok()
        });
        match (numbers.next().flatten(), numbers.next().flatten()) {
            (Some(major), Some(minor)) => Ok(Self { major, minor }),
            _ => Err(InvalidProfile::KernelVersion(text.to_owned())),
        }
    }
}

impl fmt::Display for KernelVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// Where a profile will be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Environment {
    /// The container's bounding set.
    pub capabilities: Capabilities,
    /// The host's machine in Go's words: `amd64`, `arm64`, …
    pub architecture: String,
    /// The host's kernel.
    pub kernel: KernelVersion,
}

/// A profile document as users write it.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Document {
    default_action: String,
    default_errno_ret: Option<u32>,
    #[serde(deserialize_with = "nullable")]
    architectures: Vec<String>,
    #[serde(deserialize_with = "nullable")]
    arch_map: Vec<ArchEntry>,
    flags: Option<Vec<String>>,
    listener_path: String,
    listener_metadata: String,
    #[serde(deserialize_with = "nullable")]
    syscalls: Vec<Entry>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ArchEntry {
    architecture: String,
    #[serde(deserialize_with = "nullable")]
    sub_architectures: Vec<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Entry {
    name: String,
    #[serde(deserialize_with = "nullable")]
    names: Vec<String>,
    action: String,
    errno_ret: Option<u32>,
    #[serde(deserialize_with = "nullable")]
    args: Vec<LinuxArg>,
    #[serde(deserialize_with = "nullable")]
    includes: Condition,
    #[serde(deserialize_with = "nullable")]
    excludes: Condition,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Condition {
    #[serde(deserialize_with = "nullable")]
    caps: Vec<String>,
    #[serde(deserialize_with = "nullable")]
    arches: Vec<String>,
    min_kernel: String,
}

/// Reads `null` as nothing: Go writes empty lists and structures so.
fn nullable<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Option::<T>::deserialize(deserializer).map(Option::unwrap_or_default)
}

impl Document {
    /// Reads the JSON of a profile.
    pub fn parse(json: &str) -> Result<Self, InvalidProfile> {
        Ok(serde_json::from_str(json)?)
    }

    /// Returns the rules that hold in `environment`.
    pub fn resolve(&self, environment: &Environment) -> Result<Profile, InvalidProfile> {
        let mut rules = Vec::with_capacity(self.syscalls.len());
        for entry in &self.syscalls {
            if entry.holds(environment)? {
                rules.push(entry.rule()?);
            }
        }
        let flags = self.flags.as_ref();
        Ok(Profile {
            default_action: wire::action(&self.default_action, self.default_errno_ret)?,
            architectures: self
                .architectures_for(&environment.architecture)?
                .iter()
                .map(|name| wire::arch(name))
                .collect::<Result<_, _>>()?,
            flags: flags
                .map(|all| all.iter().map(|name| wire::flag(name)).collect::<Result<_, _>>())
                .transpose()?,
            listener_path: self.listener_path.clone(),
            listener_metadata: self.listener_metadata.clone(),
            rules,
        })
    }

    fn architectures_for(&self, architecture: &str) -> Result<Vec<&str>, InvalidProfile> {
        if self.arch_map.is_empty() {
            return Ok(self.architectures.iter().map(String::as_str).collect());
        }
        if !self.architectures.is_empty() {
            return Err(InvalidProfile::ArchitecturesTwice);
        }
        let native = native_name(architecture);
        let found = self.arch_map.iter().find(|entry| Some(entry.architecture.as_str()) == native);
        Ok(found.map_or_else(Vec::new, |entry| {
            let all = std::iter::once(&entry.architecture).chain(&entry.sub_architectures);
            all.map(String::as_str).collect()
        }))
    }

    /// Returns Docker's default profile.
    pub fn docker_default() -> Self {
        let arch_map = table::ARCHITECTURES.iter().map(|(native, others)| ArchEntry {
            architecture: (*native).to_owned(),
            sub_architectures: others.iter().map(|&name| name.to_owned()).collect(),
        });
        Self {
            default_action: "SCMP_ACT_ERRNO".to_owned(),
            default_errno_ret: Some(1),
            arch_map: arch_map.collect(),
            syscalls: default_entries(),
            ..Self::default()
        }
    }
}

fn default_entries() -> Vec<Entry> {
    let mut entries = vec![Entry::allow(table::ALWAYS)];
    let (since, names) = table::BY_KERNEL;
    entries.push(Entry {
        includes: Condition { min_kernel: since.to_owned(), ..Condition::default() },
        ..Entry::allow(names)
    });
    let families = [("SCMP_CMP_LT", 38), ("SCMP_CMP_EQ", 39), ("SCMP_CMP_GT", 40)];
    entries.extend(families.map(|(op, value)| Entry::allow_if("socket", argument(0, value, op))));
    let personalities = table::PERSONALITIES.iter();
    entries.extend(
        personalities
            .map(|value| Entry::allow_if("personality", argument(0, *value, "SCMP_CMP_EQ"))),
    );
    entries.extend(table::BY_ARCHITECTURE.iter().map(|(arches, names)| Entry {
        includes: Condition { arches: owned(arches), ..Condition::default() },
        ..Entry::allow(names)
    }));
    entries.extend(table::BY_CAPABILITY.iter().map(|(capability, names)| Entry {
        includes: Condition { caps: owned(&[capability]), ..Condition::default() },
        ..Entry::allow(names)
    }));
    entries.extend(clone_entries());
    entries
}

/// Without `CAP_SYS_ADMIN` a process may clone, but not into new namespaces; `clone3(2)`, whose flags
/// no filter can see, answers as if the kernel did not have it, so that libraries fall back.
fn clone_entries() -> [Entry; 3] {
    const ENOSYS: u32 = 38;
    let admin = || owned(&["CAP_SYS_ADMIN"]);
    let s390 = || owned(&["s390", "s390x"]);
    let clone = |index| {
        Entry::allow_if("clone", argument(index, table::NAMESPACE_FLAGS, "SCMP_CMP_MASKED_EQ"))
    };
    [
        Entry {
            excludes: Condition { caps: admin(), arches: s390(), ..Condition::default() },
            ..clone(0)
        },
        Entry {
            includes: Condition { arches: s390(), ..Condition::default() },
            excludes: Condition { caps: admin(), ..Condition::default() },
            ..clone(1)
        },
        Entry {
            action: "SCMP_ACT_ERRNO".to_owned(),
            errno_ret: Some(ENOSYS),
            excludes: Condition { caps: admin(), ..Condition::default() },
            ..Entry::allow("clone3")
        },
    ]
}

fn argument(index: u32, value: u64, op: &str) -> LinuxArg {
    LinuxArg { index, value, value_two: 0, op: op.to_owned() }
}

fn owned(names: &[&str]) -> Vec<String> {
    names.iter().map(|&name| name.to_owned()).collect()
}

impl Entry {
    fn allow(names: &str) -> Self {
        Self {
            names: names.split_ascii_whitespace().map(str::to_owned).collect(),
            action: "SCMP_ACT_ALLOW".to_owned(),
            ..Self::default()
        }
    }

    fn allow_if(name: &str, arg: LinuxArg) -> Self {
        Self { args: vec![arg], ..Self::allow(name) }
    }

    fn holds(&self, environment: &Environment) -> Result<bool, InvalidProfile> {
        Ok(!self.excludes.matches_any(environment)? && self.includes.matches_all(environment)?)
    }

    fn rule(&self) -> Result<Rule, InvalidProfile> {
        let names = match (self.name.as_str(), self.names.as_slice()) {
            ("", names) => names.to_vec(),
            (name, []) => vec![name.to_owned()],
            _ => return Err(InvalidProfile::NamesTwice),
        };
        let action: Action = wire::action(&self.action, self.errno_ret)?;
        let args = self.args.iter().map(Arg::try_from).collect::<Result<_, _>>()?;
        Ok(Rule { names, action, args })
    }
}

impl Condition {
    fn matches_any(&self, environment: &Environment) -> Result<bool, InvalidProfile> {
        Ok(self.arches.contains(&environment.architecture)
            || self.caps.iter().any(|name| has(environment, name))
            || self.since()?.is_some_and(|since| environment.kernel >= since))
    }

    fn matches_all(&self, environment: &Environment) -> Result<bool, InvalidProfile> {
        Ok((self.arches.is_empty() || self.arches.contains(&environment.architecture))
            && self.caps.iter().all(|name| has(environment, name))
            && self.since()?.is_none_or(|since| environment.kernel >= since))
    }

    fn since(&self) -> Result<Option<KernelVersion>, InvalidProfile> {
        if self.min_kernel.is_empty() { Ok(None) } else { self.min_kernel.parse().map(Some) }
    }
}

/// A name no kernel knows is a capability the container does not have.
fn has(environment: &Environment, name: &str) -> bool {
    name.parse::<Capability>().is_ok_and(|one| environment.capabilities.contains(one))
}

/// The profile's name for a machine in Go's words.
fn native_name(architecture: &str) -> Option<&'static str> {
    Some(match architecture {
        "386" => "SCMP_ARCH_X86",
        "amd64" => "SCMP_ARCH_X86_64",
        "arm" => "SCMP_ARCH_ARM",
        "arm64" => "SCMP_ARCH_AARCH64",
        "mips64" => "SCMP_ARCH_MIPS64",
        "mips64n32" => "SCMP_ARCH_MIPS64N32",
        "mips64le" | "mipsel64" => "SCMP_ARCH_MIPSEL64",
        "mipsel64n32" => "SCMP_ARCH_MIPSEL64N32",
        "ppc64le" => "SCMP_ARCH_PPC64LE",
        "s390x" => "SCMP_ARCH_S390X",
        "riscv64" => "SCMP_ARCH_RISCV64",
        "loong64" | "loongarch64" => "SCMP_ARCH_LOONGARCH64",
        _ => return None,
    })
}
