//! Numbers of system calls by name, for the machines a host's kernel can run.

use syscalls::{aarch64, arm, x86, x86_64};

use super::Arch;

/// A machine the compiler has numbers for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Machine {
    /// 32-bit x86.
    X86,
    /// 64-bit x86.
    X86_64,
    /// 64-bit x86 with 32-bit pointers.
    X32,
    /// 32-bit ARM.
    Arm,
    /// 64-bit ARM.
    Aarch64,
}

/// Marks a call of x32.
pub(super) const X32_BIT: u32 = 0x4000_0000;

/// Where the numbers of ARM's private calls begin.
pub(super) const ARM_PRIVATE: u32 = 0xf_0000;

/// The calls x32 numbers for itself, from 512 on.
const X32_OWN: [&str; 36] = [
    "rt_sigaction",
    "rt_sigreturn",
    "ioctl",
    "readv",
    "writev",
    "recvfrom",
    "sendmsg",
    "recvmsg",
    "execve",
    "ptrace",
    "rt_sigpending",
    "rt_sigtimedwait",
    "rt_sigqueueinfo",
    "sigaltstack",
    "timer_create",
    "mq_notify",
    "kexec_load",
    "waitid",
    "set_robust_list",
    "get_robust_list",
    "vmsplice",
    "move_pages",
    "preadv",
    "pwritev",
    "rt_tgsigqueueinfo",
    "recvmmsg",
    "sendmmsg",
    "process_vm_readv",
    "process_vm_writev",
    "setsockopt",
    "getsockopt",
    "io_setup",
    "io_submit",
    "execveat",
    "preadv2",
    "pwritev2",
];

/// Calls of 64-bit x86 that x32 lacks.
const X32_LACKS: [&str; 11] = [
    "uselib",
    "_sysctl",
    "create_module",
    "get_kernel_syms",
    "query_module",
    "nfsservctl",
    "set_thread_area",
    "get_thread_area",
    "epoll_ctl_old",
    "epoll_wait_old",
    "vserver",
];

/// ARM's private calls, from [`ARM_PRIVATE`] + 1 on.
const ARM_OWN: [&str; 5] = ["breakpoint", "cacheflush", "usr26", "usr32", "set_tls"];

impl Machine {
    /// The machine this binary runs on.
    #[cfg(target_arch = "x86_64")]
    pub const NATIVE: Self = Self::X86_64;
    /// The machine this binary runs on.
    #[cfg(target_arch = "aarch64")]
    pub const NATIVE: Self = Self::Aarch64;

    /// Returns the machine of a profile's architecture, `None` without numbers for it.
    pub fn of(arch: Arch) -> Option<Self> {
        Some(match arch {
            Arch::X86 => Self::X86,
            Arch::X86_64 => Self::X86_64,
            Arch::X32 => Self::X32,
            Arch::Arm => Self::Arm,
            Arch::Aarch64 => Self::Aarch64,
            _ => return None,
        })
    }

    /// Returns the machines whose programs a kernel for `self` runs.
    pub(super) fn family(self) -> &'static [Self] {
        match self {
            Self::X86 | Self::X86_64 | Self::X32 => &[Self::X86_64, Self::X86, Self::X32],
            Self::Arm | Self::Aarch64 => &[Self::Aarch64, Self::Arm],
        }
    }

    /// Returns the kernel's `AUDIT_ARCH_…`; x32 shares that of 64-bit x86.
    pub fn audit(self) -> u32 {
        match self {
            Self::X86 => 0x4000_0003,
            Self::X86_64 | Self::X32 => 0xc000_003e,
            Self::Arm => 0x4000_0028,
            Self::Aarch64 => 0xc000_00b7,
        }
    }

    /// Tells whether arguments have 32 bits; those of x32 come in 64-bit registers.
    pub(super) fn is_32_bit(self) -> bool {
        matches!(self, Self::X86 | Self::Arm)
    }

    /// Returns the number of a call, `None` if the machine has none of that name.
    pub fn number(self, name: &str) -> Option<u32> {
        let number = match self {
            Self::X86_64 => name.parse::<x86_64::Sysno>().ok()?.id(),
            Self::X86 => name.parse::<x86::Sysno>().ok()?.id(),
            Self::Aarch64 => name.parse::<aarch64::Sysno>().ok()?.id(),
            Self::Arm => return arm_number(name),
            Self::X32 => return x32_number(name),
        };
        u32::try_from(number).ok()
    }
}

fn arm_number(name: &str) -> Option<u32> {
    let private = ARM_OWN.iter().position(|known| *known == name);
    // The kernel's table calls it `arm_sync_file_range`, other machines `sync_file_range2`.
    let name = if name == "sync_file_range2" { "arm_sync_file_range" } else { name };
    match private {
        Some(at) => Some(ARM_PRIVATE + 1 + at as u32),
        None => u32::try_from(name.parse::<arm::Sysno>().ok()?.id()).ok(),
    }
}

fn x32_number(name: &str) -> Option<u32> {
    let own = X32_OWN.iter().position(|known| *known == name);
    let number = match own {
        Some(at) => 512 + at as u32,
        None if X32_LACKS.contains(&name) => return None,
        None => u32::try_from(name.parse::<x86_64::Sysno>().ok()?.id()).ok()?,
    };
    Some(number | X32_BIT)
}
