//! Seccomp profiles as data: the resolved form the runtime compiles, Docker's profile documents, and
//! Docker's default. Nothing here makes machine code or talks to the kernel.

mod document;
mod table;
mod wire;

pub use document::{Document, Environment, InvalidProfile, KernelVersion};

/// What happens to a system call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// The process ends as if by `SIGSYS`.
    KillProcess,
    /// The calling thread ends.
    KillThread,
    /// The thread gets `SIGSYS`.
    Trap,
    /// The call fails with this number.
    Errno(u16),
    /// A tracer decides, told this number.
    Trace(u16),
    /// The call happens.
    Allow,
    /// The call happens and is logged.
    Log,
    /// A listener decides.
    Notify,
}

/// Comparison of one argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Op {
    /// Not equal.
    Ne,
    /// Less.
    Lt,
    /// Less or equal.
    Le,
    /// Equal.
    Eq,
    /// Greater or equal.
    Ge,
    /// Greater.
    Gt,
    /// Equal to [`Arg::value_two`] after masking with [`Arg::value`].
    MaskedEq,
}

/// A condition on one argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Arg {
    /// Which argument, from 0 to 5.
    pub index: u8,
    /// What to compare with; the mask for [`Op::MaskedEq`].
    pub value: u64,
    /// The expected value for [`Op::MaskedEq`].
    pub value_two: u64,
    /// How to compare.
    pub op: Op,
}

/// What happens to some system calls.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Rule {
    /// Names of the calls; names no table knows are passed over.
    pub names: Vec<String>,
    /// What happens when all of `args` hold.
    pub action: Action,
    /// The conditions; none means always.
    pub args: Vec<Arg>,
}

/// A machine whose calls a profile speaks about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Arch {
    X86,
    X86_64,
    X32,
    Arm,
    Aarch64,
    Mips,
    Mips64,
    Mips64N32,
    Mipsel,
    Mipsel64,
    Mipsel64N32,
    Ppc,
    Ppc64,
    Ppc64Le,
    S390,
    S390X,
    Parisc,
    Parisc64,
    Riscv64,
    Loongarch64,
    M68k,
    Sh,
    Sheb,
}

/// A flag of `seccomp(2)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Flag {
    /// All threads of the process get the filter.
    Tsync,
    /// Every action but allow is logged.
    Log,
    /// Speculative store bypass stays allowed.
    SpecAllow,
    /// A caller that waits for the listener ignores signals other than fatal ones.
    WaitKillableRecv,
}

/// A profile in its resolved form. As JSON it is the `linux.seccomp` object of the OCI runtime
/// specification.
#[derive(Clone, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(try_from = "wire::LinuxSeccomp", into = "wire::LinuxSeccomp")]
pub struct Profile {
    /// What happens to calls no rule speaks about.
    pub default_action: Action,
    /// Machines besides the native one.
    pub architectures: Vec<Arch>,
    /// Flags for the kernel; `None` leaves the choice to the runtime.
    pub flags: Option<Vec<Flag>>,
    /// Socket that gets the listener of [`Action::Notify`]; empty for none.
    pub listener_path: String,
    /// Opaque text for that listener.
    pub listener_metadata: String,
    /// The rules. One without conditions wins over those with; otherwise the first that holds wins.
    pub rules: Vec<Rule>,
}

impl Profile {
    /// Returns Docker's default profile for a container on this host.
    #[expect(clippy::expect_used, clippy::missing_panics_doc, reason = "a test resolves it")]
    pub fn docker_default(environment: &Environment) -> Self {
        Document::docker_default()
            .resolve(environment)
            .expect("the built-in profile is well-formed, a test resolves it")
    }
}

#[cfg(test)]
mod tests;
