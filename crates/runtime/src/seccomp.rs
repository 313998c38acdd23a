//! From the specification's seccomp section to a filter ready to install.

use std::io;
use std::os::fd::OwnedFd;

use oci_spec::runtime::{
    Arch as SpecArch, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompFilterFlag,
    LinuxSeccompOperator, LinuxSyscall,
};
use rorqual_sys::seccomp::{
    Action, Arch, Arg, Flag, Machine, Op, Profile, Program, Rule, compile, install,
};

use crate::Error;

/// A compiled filter.
#[derive(Debug)]
pub(crate) struct Filter(Program);

impl Filter {
    /// Compiles the section for this machine.
    pub(crate) fn compile(spec: &LinuxSeccomp) -> Result<Self, Error> {
        let profile = profile(spec)?;
        let program = compile(&profile, Machine::NATIVE)
            .map_err(|error| Error::InvalidSpec(error.to_string()))?;
        Ok(Self(program))
    }

    /// Installs the filter in the calling process; gives its listener back where calls are handed to an agent.
    pub(crate) fn install(&self) -> io::Result<Option<OwnedFd>> {
        install(&self.0)
    }
}

fn profile(spec: &LinuxSeccomp) -> Result<Profile, Error> {
    if spec.listener_metadata().is_some() && spec.listener_path().is_none() {
        let text = "seccomp.listenerMetadata is for an agent: it needs listenerPath";
        return Err(Error::InvalidSpec(text.into()));
    }
    let flags = spec.flags().as_ref().map(|flags| flags.iter().map(|one| flag(*one)).collect());
    let rules: Result<_, _> = spec.syscalls().iter().flatten().map(rule).collect();
    Ok(Profile {
        default_action: action(spec.default_action(), spec.default_errno_ret())?,
        architectures: spec.architectures().iter().flatten().filter_map(|a| arch(*a)).collect(),
        flags,
        listener_path: spec
            .listener_path()
            .as_ref()
            .map_or_else(String::new, |path| path.to_string_lossy().into_owned()),
        listener_metadata: spec.listener_metadata().clone().unwrap_or_default(),
        rules: rules?,
    })
}

fn rule(syscall: &LinuxSyscall) -> Result<Rule, Error> {
    let args: Result<_, _> = syscall.args().iter().flatten().map(argument).collect();
    Ok(Rule {
        names: syscall.names().clone(),
        action: action(syscall.action(), syscall.errno_ret())?,
        args: args?,
    })
}

fn argument(arg: &LinuxSeccompArg) -> Result<Arg, Error> {
    let index = u8::try_from(arg.index()).ok().filter(|index| *index < 6).ok_or_else(|| {
        Error::InvalidSpec(format!("seccomp argument index {} is not in 0..5", arg.index()))
    })?;
    let op = match arg.op() {
        LinuxSeccompOperator::ScmpCmpNe => Op::Ne,
        LinuxSeccompOperator::ScmpCmpLt => Op::Lt,
        LinuxSeccompOperator::ScmpCmpLe => Op::Le,
        LinuxSeccompOperator::ScmpCmpEq => Op::Eq,
        LinuxSeccompOperator::ScmpCmpGe => Op::Ge,
        LinuxSeccompOperator::ScmpCmpGt => Op::Gt,
        LinuxSeccompOperator::ScmpCmpMaskedEq => Op::MaskedEq,
    };
    Ok(Arg { index, value: arg.value(), value_two: arg.value_two().unwrap_or(0), op })
}

fn action(action: LinuxSeccompAction, number: Option<u32>) -> Result<Action, Error> {
    let numbered =
        matches!(action, LinuxSeccompAction::ScmpActErrno | LinuxSeccompAction::ScmpActTrace);
    if number.is_some() && !numbered {
        return Err(Error::InvalidSpec(format!("seccomp action {action} takes no error number")));
    }
    // EPERM unless told otherwise.
    let number = number.map_or(1, |number| u16::try_from(number).unwrap_or(u16::MAX));
    Ok(match action {
        LinuxSeccompAction::ScmpActKill | LinuxSeccompAction::ScmpActKillThread => {
            Action::KillThread
        }
        LinuxSeccompAction::ScmpActKillProcess => Action::KillProcess,
        LinuxSeccompAction::ScmpActTrap => Action::Trap,
        LinuxSeccompAction::ScmpActErrno => Action::Errno(number),
        LinuxSeccompAction::ScmpActTrace => Action::Trace(number),
        LinuxSeccompAction::ScmpActAllow => Action::Allow,
        LinuxSeccompAction::ScmpActLog => Action::Log,
        LinuxSeccompAction::ScmpActNotify => Action::Notify,
    })
}

fn flag(flag: LinuxSeccompFilterFlag) -> Flag {
    match flag {
        LinuxSeccompFilterFlag::SeccompFilterFlagLog => Flag::Log,
        LinuxSeccompFilterFlag::SeccompFilterFlagTsync => Flag::Tsync,
        LinuxSeccompFilterFlag::SeccompFilterFlagSpecAllow => Flag::SpecAllow,
        LinuxSeccompFilterFlag::SeccompFilterFlagWaitKillableRecv => Flag::WaitKillableRecv,
    }
}

fn arch(arch: SpecArch) -> Option<Arch> {
    Some(match arch {
        SpecArch::ScmpArchNative => return None,
        SpecArch::ScmpArchX86 => Arch::X86,
        SpecArch::ScmpArchX86_64 => Arch::X86_64,
        SpecArch::ScmpArchX32 => Arch::X32,
        SpecArch::ScmpArchArm => Arch::Arm,
        SpecArch::ScmpArchAarch64 => Arch::Aarch64,
        SpecArch::ScmpArchMips => Arch::Mips,
        SpecArch::ScmpArchMips64 => Arch::Mips64,
        SpecArch::ScmpArchMips64n32 => Arch::Mips64N32,
        SpecArch::ScmpArchMipsel => Arch::Mipsel,
        SpecArch::ScmpArchMipsel64 => Arch::Mipsel64,
        SpecArch::ScmpArchMipsel64n32 => Arch::Mipsel64N32,
        SpecArch::ScmpArchPpc => Arch::Ppc,
        SpecArch::ScmpArchPpc64 => Arch::Ppc64,
        SpecArch::ScmpArchPpc64le => Arch::Ppc64Le,
        SpecArch::ScmpArchS390 => Arch::S390,
        SpecArch::ScmpArchS390x => Arch::S390X,
        SpecArch::ScmpArchRiscv64 => Arch::Riscv64,
        _ => return None,
    })
}
