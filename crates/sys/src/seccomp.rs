//! Seccomp filters: profiles compiled to classic BPF, and their installation. What a profile should
//! say is decided elsewhere, see `rorqual_core::seccomp`.

mod assembler;
mod compile;
mod install;
mod numbers;
#[cfg(test)]
mod oracle;

pub use compile::{CompileError, compile};
pub use install::{install, supported};
pub use numbers::Machine;
pub use rorqual_core::seccomp::{Action, Arch, Arg, Flag, Op, Profile, Rule};

/// One instruction of classic BPF, laid out as `struct sock_filter`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Instruction {
    /// What to do.
    pub code: u16,
    /// How many instructions to skip when a comparison holds.
    pub jt: u8,
    /// How many to skip when it does not.
    pub jf: u8,
    /// The constant operand.
    pub k: u32,
}

/// A compiled filter with the flags to install it by. Valid on the machine it was compiled for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    instructions: Vec<Instruction>,
    flags: u32,
}

impl Program {
    /// Returns the instructions.
    pub fn instructions(&self) -> &[Instruction] {
        &self.instructions
    }

    /// Tells whether [`install()`] hands back a listener, which somebody must serve.
    pub fn has_listener(&self) -> bool {
        self.flags & libc::SECCOMP_FILTER_FLAG_NEW_LISTENER as u32 != 0
    }

    /// Returns the bytes [`Program::from_bytes`] reads: for caches and for handing to a child.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(4 + self.instructions.len() * 8);
        bytes.extend(self.flags.to_ne_bytes());
        for one in &self.instructions {
            bytes.extend(one.code.to_ne_bytes());
            bytes.extend([one.jt, one.jf]);
            bytes.extend(one.k.to_ne_bytes());
        }
        bytes
    }

    /// Reads the bytes of [`Program::to_bytes`]; `None` if they are not such bytes.
    ///
    /// The kernel verifies the instructions when they are installed.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (flags, rest) = bytes.split_first_chunk::<4>()?;
        let (instructions, left) = rest.as_chunks::<8>();
        if instructions.is_empty() || instructions.len() > compile::MAX_LEN || !left.is_empty() {
            return None;
        }
        let instructions = instructions
            .iter()
            .map(|&[c0, c1, jt, jf, k0, k1, k2, k3]| Instruction {
                code: u16::from_ne_bytes([c0, c1]),
                jt,
                jf,
                k: u32::from_ne_bytes([k0, k1, k2, k3]),
            })
            .collect();
        Some(Self { instructions, flags: u32::from_ne_bytes(*flags) })
    }
}

#[cfg(test)]
mod tests;
