//! The JSON form of the OCI runtime specification, and the names both forms of documents use.

use serde::{Deserialize, Serialize};

use super::document::InvalidProfile;
use super::{Action, Arch, Arg, Flag, Op, Profile, Rule};

/// `linux.seccomp`
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct LinuxSeccomp {
    default_action: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    default_errno_ret: Option<u32>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    architectures: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    flags: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    listener_path: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    listener_metadata: String,
    #[serde(default)]
    syscalls: Vec<LinuxSyscall>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct LinuxSyscall {
    names: Vec<String>,
    action: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    errno_ret: Option<u32>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    args: Vec<LinuxArg>,
}

/// One condition, alike in both kinds of documents.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct LinuxArg {
    pub(super) index: u32,
    #[serde(default)]
    pub(super) value: u64,
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(super) value_two: u64,
    pub(super) op: String,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands over references")]
fn is_zero(value: &u64) -> bool {
    *value == 0
}

impl TryFrom<LinuxSeccomp> for Profile {
    type Error = InvalidProfile;

    fn try_from(wire: LinuxSeccomp) -> Result<Self, InvalidProfile> {
        let rules = wire.syscalls.into_iter().map(Rule::try_from).collect::<Result<_, _>>()?;
        Ok(Self {
            default_action: action(&wire.default_action, wire.default_errno_ret)?,
            architectures: wire
                .architectures
                .iter()
                .map(|name| arch(name))
                .collect::<Result<_, _>>()?,
            flags: wire
                .flags
                .map(|all| all.iter().map(|name| flag(name)).collect::<Result<_, _>>())
                .transpose()?,
            listener_path: wire.listener_path,
            listener_metadata: wire.listener_metadata,
            rules,
        })
    }
}

impl TryFrom<LinuxSyscall> for Rule {
    type Error = InvalidProfile;

    fn try_from(wire: LinuxSyscall) -> Result<Self, InvalidProfile> {
        Ok(Self {
            action: action(&wire.action, wire.errno_ret)?,
            args: wire.args.iter().map(Arg::try_from).collect::<Result<_, _>>()?,
            names: wire.names,
        })
    }
}

impl TryFrom<&LinuxArg> for Arg {
    type Error = InvalidProfile;

    fn try_from(wire: &LinuxArg) -> Result<Self, InvalidProfile> {
        let index = u8::try_from(wire.index).ok().filter(|index| *index < 6);
        Ok(Self {
            index: index.ok_or(InvalidProfile::ArgIndex(wire.index))?,
            value: wire.value,
            value_two: wire.value_two,
            op: op(&wire.op)?,
        })
    }
}

impl From<Profile> for LinuxSeccomp {
    fn from(profile: Profile) -> Self {
        let (default_action, default_errno_ret) = action_name(profile.default_action);
        Self {
            default_action: default_action.to_owned(),
            default_errno_ret,
            architectures: profile
                .architectures
                .into_iter()
                .map(|arch| named(ARCHES, arch))
                .collect(),
            flags: profile
                .flags
                .map(|all| all.into_iter().map(|flag| named(FLAGS, flag)).collect()),
            listener_path: profile.listener_path,
            listener_metadata: profile.listener_metadata,
            syscalls: profile.rules.into_iter().map(LinuxSyscall::from).collect(),
        }
    }
}

impl From<Rule> for LinuxSyscall {
    fn from(rule: Rule) -> Self {
        let (action, errno_ret) = action_name(rule.action);
        let args = rule.args.into_iter().map(|arg| LinuxArg {
            index: u32::from(arg.index),
            value: arg.value,
            value_two: arg.value_two,
            op: named(OPS, arg.op),
        });
        Self { names: rule.names, action: action.to_owned(), errno_ret, args: args.collect() }
    }
}

/// `EPERM`, what a profile means that names no number.
const EPERM: u32 = 1;

/// Reads the name of an action with the number that may belong to it.
pub(super) fn action(name: &str, number: Option<u32>) -> Result<Action, InvalidProfile> {
    let data = || {
        let number = number.unwrap_or(EPERM);
        // LIMIT: the kernel's MAX_ERRNO; it would cut a larger number down to this.
        u16::try_from(number)
            .ok()
            .filter(|number| *number <= 4095)
            .ok_or(InvalidProfile::Errno(number))
    };
    let action = match name {
        "SCMP_ACT_KILL" | "SCMP_ACT_KILL_THREAD" => Action::KillThread,
        "SCMP_ACT_KILL_PROCESS" => Action::KillProcess,
        "SCMP_ACT_TRAP" => Action::Trap,
        "SCMP_ACT_ERRNO" => return data().map(Action::Errno),
        "SCMP_ACT_TRACE" => return data().map(Action::Trace),
        "SCMP_ACT_ALLOW" => Action::Allow,
        "SCMP_ACT_LOG" => Action::Log,
        "SCMP_ACT_NOTIFY" => Action::Notify,
        other => return Err(InvalidProfile::Action(other.to_owned())),
    };
    match number {
        // COMPAT: runtimes accept a zero here, which several tools write.
        None | Some(0) => Ok(action),
        Some(number) => Err(InvalidProfile::ErrnoWithoutUse { action: name.to_owned(), number }),
    }
}

fn action_name(action: Action) -> (&'static str, Option<u32>) {
    match action {
        Action::KillProcess => ("SCMP_ACT_KILL_PROCESS", None),
        Action::KillThread => ("SCMP_ACT_KILL_THREAD", None),
        Action::Trap => ("SCMP_ACT_TRAP", None),
        Action::Errno(number) => ("SCMP_ACT_ERRNO", Some(u32::from(number))),
        Action::Trace(number) => ("SCMP_ACT_TRACE", Some(u32::from(number))),
        Action::Allow => ("SCMP_ACT_ALLOW", None),
        Action::Log => ("SCMP_ACT_LOG", None),
        Action::Notify => ("SCMP_ACT_NOTIFY", None),
    }
}

const OPS: &[(&str, Op)] = &[
    ("SCMP_CMP_NE", Op::Ne),
    ("SCMP_CMP_LT", Op::Lt),
    ("SCMP_CMP_LE", Op::Le),
    ("SCMP_CMP_EQ", Op::Eq),
    ("SCMP_CMP_GE", Op::Ge),
    ("SCMP_CMP_GT", Op::Gt),
    ("SCMP_CMP_MASKED_EQ", Op::MaskedEq),
];

const FLAGS: &[(&str, Flag)] = &[
    ("SECCOMP_FILTER_FLAG_TSYNC", Flag::Tsync),
    ("SECCOMP_FILTER_FLAG_LOG", Flag::Log),
    ("SECCOMP_FILTER_FLAG_SPEC_ALLOW", Flag::SpecAllow),
    ("SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV", Flag::WaitKillableRecv),
];

const ARCHES: &[(&str, Arch)] = &[
    ("SCMP_ARCH_X86", Arch::X86),
    ("SCMP_ARCH_X86_64", Arch::X86_64),
    ("SCMP_ARCH_X32", Arch::X32),
    ("SCMP_ARCH_ARM", Arch::Arm),
    ("SCMP_ARCH_AARCH64", Arch::Aarch64),
    ("SCMP_ARCH_MIPS", Arch::Mips),
    ("SCMP_ARCH_MIPS64", Arch::Mips64),
    ("SCMP_ARCH_MIPS64N32", Arch::Mips64N32),
    ("SCMP_ARCH_MIPSEL", Arch::Mipsel),
    ("SCMP_ARCH_MIPSEL64", Arch::Mipsel64),
    ("SCMP_ARCH_MIPSEL64N32", Arch::Mipsel64N32),
    ("SCMP_ARCH_PPC", Arch::Ppc),
    ("SCMP_ARCH_PPC64", Arch::Ppc64),
    ("SCMP_ARCH_PPC64LE", Arch::Ppc64Le),
    ("SCMP_ARCH_S390", Arch::S390),
    ("SCMP_ARCH_S390X", Arch::S390X),
    ("SCMP_ARCH_PARISC", Arch::Parisc),
    ("SCMP_ARCH_PARISC64", Arch::Parisc64),
    ("SCMP_ARCH_RISCV64", Arch::Riscv64),
    ("SCMP_ARCH_LOONGARCH64", Arch::Loongarch64),
    ("SCMP_ARCH_M68K", Arch::M68k),
    ("SCMP_ARCH_SH", Arch::Sh),
    ("SCMP_ARCH_SHEB", Arch::Sheb),
];

#[expect(clippy::expect_used, reason = "the tables list every variant, a test walks through them")]
fn named<T: Copy + PartialEq>(table: &[(&'static str, T)], value: T) -> String {
    let found = table.iter().find(|(_, known)| *known == value);
    found.map(|(name, _)| (*name).to_owned()).expect("the table lists every variant")
}

fn value<T: Copy>(table: &[(&str, T)], name: &str) -> Option<T> {
    table.iter().find(|(known, _)| *known == name).map(|(_, value)| *value)
}

/// Reads the name of an architecture.
pub(super) fn arch(name: &str) -> Result<Arch, InvalidProfile> {
    value(ARCHES, name).ok_or_else(|| InvalidProfile::Arch(name.to_owned()))
}

/// Reads the name of a flag.
pub(super) fn flag(name: &str) -> Result<Flag, InvalidProfile> {
    value(FLAGS, name).ok_or_else(|| InvalidProfile::Flag(name.to_owned()))
}

fn op(name: &str) -> Result<Op, InvalidProfile> {
    value(OPS, name).ok_or_else(|| InvalidProfile::Op(name.to_owned()))
}
