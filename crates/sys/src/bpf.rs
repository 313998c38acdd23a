//! Device access programs for cgroup v2: rules to instructions, loading, attaching. Version 1 does the
//! same by files, see [`crate::cgroup`].

use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

use crate::cgroup::{Access, DeviceKind, DeviceRule};

/// One instruction, laid out as `struct bpf_insn`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
struct Instruction {
    code: u8,
    /// Destination in the low half, source in the high half; both supported machines are
    /// little-endian.
    registers: u8,
    offset: i16,
    immediate: i32,
}

/// Registers: the result, the context, and what the context is unpacked to.
const RESULT: u8 = 0;
const CONTEXT: u8 = 1;
const KIND: u8 = 2;
const ACCESS: u8 = 3;
const MAJOR: u8 = 4;
const MINOR: u8 = 5;
const SCRATCH: u8 = 6;

const LOAD_WORD: u8 = 0x61;
const MOVE_REGISTER: u8 = 0xbc;
const MOVE: u8 = 0xb4;
const AND: u8 = 0x54;
const SHIFT_RIGHT: u8 = 0x74;
const JUMP_EQUAL: u8 = 0x16;
const JUMP_NOT_EQUAL: u8 = 0x56;
const EXIT: u8 = 0x95;

const fn with(code: u8, register: u8, immediate: i32) -> Instruction {
    Instruction { code, registers: register, offset: 0, immediate }
}

const fn jump(code: u8, register: u8, immediate: i32, offset: i16) -> Instruction {
    Instruction { code, registers: register, offset, immediate }
}

const fn load(register: u8, offset: i16) -> Instruction {
    Instruction { code: LOAD_WORD, registers: CONTEXT << 4 | register, offset, immediate: 0 }
}

/// Bits of the kernel's `BPF_DEVCG_ACC_…`.
fn bits(access: Access) -> i32 {
    i32::from(access.mknod) | i32::from(access.read) << 1 | i32::from(access.write) << 2
}

/// Translates rules to a program that answers 1 (may) or 0 (may not).
///
/// For each way of access the last rule that speaks about it decides; nothing is allowed without a
/// rule. The program walks through the rules from the last one and strikes out what is allowed.
fn assemble(rules: &[DeviceRule]) -> Vec<Instruction> {
    let mut program = vec![
        load(KIND, 0),
        Instruction { code: MOVE_REGISTER, registers: KIND << 4 | ACCESS, offset: 0, immediate: 0 },
        with(AND, KIND, 0xffff),
        with(SHIFT_RIGHT, ACCESS, 16),
        load(MAJOR, 4),
        load(MINOR, 8),
    ];
    for rule in rules.iter().rev() {
        let body = body(rule);
        let mut tests = Vec::with_capacity(3);
        match rule.kind {
            DeviceKind::All => {}
            DeviceKind::Block => tests.push((KIND, 1)),
            DeviceKind::Char => tests.push((KIND, 2)),
        }
        tests.extend(rule.major.map(|major| (MAJOR, major.cast_signed())));
        tests.extend(rule.minor.map(|minor| (MINOR, minor.cast_signed())));
        let everything = tests.is_empty() && bits(rule.access) == 7;
        let count = tests.len();
        for (at, (register, value)) in tests.into_iter().enumerate() {
            let offset = (count - at - 1 + body.len()) as i16;
            program.push(jump(JUMP_NOT_EQUAL, register, value, offset));
        }
        program.extend(body);
        if everything {
            // The verifier refuses what can never be reached.
            return program;
        }
    }
    program.extend([with(MOVE, RESULT, 0), with(EXIT, 0, 0)]);
    program
}

/// What a rule does once the device is the one it speaks about.
fn body(rule: &DeviceRule) -> Vec<Instruction> {
    let mask = bits(rule.access);
    let answer = [with(MOVE, RESULT, i32::from(rule.allow)), with(EXIT, 0, 0)];
    match (rule.allow, mask) {
        (_, 7) => answer.to_vec(),
        (true, _) => {
            let mut body = vec![with(AND, ACCESS, !mask), jump(JUMP_NOT_EQUAL, ACCESS, 0, 2)];
            body.extend(answer);
            body
        }
        (false, _) => {
            let copy = Instruction {
                code: MOVE_REGISTER,
                registers: ACCESS << 4 | SCRATCH,
                offset: 0,
                immediate: 0,
            };
            let mut body = vec![copy, with(AND, SCRATCH, mask), jump(JUMP_EQUAL, SCRATCH, 0, 2)];
            body.extend(answer);
            body
        }
    }
}

const BPF_PROG_LOAD: libc::c_int = 5;
const BPF_PROG_ATTACH: libc::c_int = 8;
const BPF_PROG_DETACH: libc::c_int = 9;
const BPF_PROG_GET_FD_BY_ID: libc::c_int = 13;
const BPF_PROG_QUERY: libc::c_int = 16;
const BPF_PROG_TYPE_CGROUP_DEVICE: u32 = 15;
const BPF_CGROUP_DEVICE: u32 = 6;
const BPF_F_ALLOW_MULTI: u32 = 2;
const BPF_F_REPLACE: u32 = 4;

/// The beginning of `union bpf_attr` for loading.
#[derive(Default)]
#[repr(C)]
struct LoadAttributes {
    kind: u32,
    count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
    kernel_version: u32,
    flags: u32,
    name: [u8; 16],
}

/// The beginning of `union bpf_attr` for attaching and detaching.
#[derive(Default)]
#[repr(C)]
struct AttachAttributes {
    target: u32,
    program: u32,
    kind: u32,
    flags: u32,
    replaced: u32,
}

/// The beginning of `union bpf_attr` for asking what is attached.
#[derive(Default)]
#[repr(C)]
struct QueryAttributes {
    target: u32,
    kind: u32,
    query_flags: u32,
    attach_flags: u32,
    ids: u64,
    count: u32,
    padding: u32,
}

/// The beginning of `union bpf_attr` for opening by id.
#[derive(Default)]
#[repr(C)]
struct IdAttributes {
    id: u32,
    next: u32,
    flags: u32,
}

/// Calls `bpf(2)`.
///
/// # Safety
///
/// `T` must be the beginning of `union bpf_attr` for `command`, without uninitialised bytes, and its
/// pointers must be good for what the command does with them.
unsafe fn bpf<T>(command: libc::c_int, attributes: &mut T) -> io::Result<i32> {
    // SAFETY: promised by the caller; the size is that of the object.
    let answer = unsafe {
        libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attributes), size_of::<T>())
    };
    if answer < 0 { Err(io::Error::last_os_error()) } else { Ok(answer as i32) }
}

fn load_program(program: &[Instruction]) -> io::Result<OwnedFd> {
    let mut attributes = LoadAttributes {
        kind: BPF_PROG_TYPE_CGROUP_DEVICE,
        count: u32::try_from(program.len())
            .map_err(|_| io::Error::from_raw_os_error(libc::E2BIG))?,
        instructions: program.as_ptr() as u64,
        license: c"Apache-2.0".as_ptr() as u64,
        name: *b"rorqual_devices\0",
        ..LoadAttributes::default()
    };
    // SAFETY: the structure is that of BPF_PROG_LOAD without padding; both pointers are alive during
    // the call and only read.
    let fd = unsafe { bpf(BPF_PROG_LOAD, &mut attributes)? };
    // SAFETY: a fresh descriptor nobody else owns; the kernel makes it close-on-exec.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Lists the device programs attached to the group itself.
fn attached(group: impl AsFd) -> io::Result<Vec<OwnedFd>> {
    // LIMIT: the kernel attaches at most 64 programs of one kind to a group.
    let mut ids = [0_u32; 64];
    let mut query = QueryAttributes {
        target: group.as_fd().as_raw_fd().cast_unsigned(),
        kind: BPF_CGROUP_DEVICE,
        ids: ids.as_mut_ptr() as u64,
        count: ids.len() as u32,
        ..QueryAttributes::default()
    };
    // SAFETY: the structure is that of BPF_PROG_QUERY; the kernel writes at most `count` ids.
    unsafe { bpf(BPF_PROG_QUERY, &mut query)? };
    let count = (query.count as usize).min(ids.len());
    ids[..count]
        .iter()
        .map(|&id| {
            let mut attributes = IdAttributes { id, ..IdAttributes::default() };
            // SAFETY: the structure is that of BPF_PROG_GET_FD_BY_ID and has no pointers.
            let fd = unsafe { bpf(BPF_PROG_GET_FD_BY_ID, &mut attributes)? };
            // SAFETY: a fresh descriptor nobody else owns.
            Ok(unsafe { OwnedFd::from_raw_fd(fd) })
        })
        .collect()
}

/// Makes `rules` the device rules of the version 2 group behind `group`, instead of earlier ones.
///
/// There is no moment without rules. Rules of the groups above hold besides.
pub fn attach_device_rules(group: impl AsFd, rules: &[DeviceRule]) -> io::Result<()> {
    let program = load_program(&assemble(rules))?;
    let earlier = attached(&group)?;
    let target = group.as_fd().as_raw_fd().cast_unsigned();
    let mut attributes = AttachAttributes {
        target,
        program: program.as_raw_fd().cast_unsigned(),
        kind: BPF_CGROUP_DEVICE,
        flags: BPF_F_ALLOW_MULTI,
        replaced: 0,
    };
    if let [only] = earlier.as_slice() {
        attributes.flags |= BPF_F_REPLACE;
        attributes.replaced = only.as_raw_fd().cast_unsigned();
    }
    // SAFETY: the structure is that of BPF_PROG_ATTACH and has no pointers.
    unsafe { bpf(BPF_PROG_ATTACH, &mut attributes)? };
    // ORDER: with several old ones the new one joins them before they go, so that it is never missing.
    if earlier.len() > 1 {
        for old in earlier {
            let mut attributes = AttachAttributes {
                target,
                program: old.as_raw_fd().cast_unsigned(),
                kind: BPF_CGROUP_DEVICE,
                ..AttachAttributes::default()
            };
            // SAFETY: the structure is that of BPF_PROG_DETACH and has no pointers.
            unsafe { bpf(BPF_PROG_DETACH, &mut attributes)? };
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
