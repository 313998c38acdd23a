//! Processes: `clone3(2)`, pidfds, `execveat(2)`, descriptors at exec time, scheduling.
//!
//! Deliberately without policy: which namespaces, which signal and which limits is the callers' business.

use std::ffi::{CStr, CString, c_char};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use rustix::process::{DumpableBehavior, Pid, PidfdFlags, WaitId, WaitIdOptions};

use crate::namespace::Namespaces;

/// How a child ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// It called `exit(2)`.
    Exited(i32),
    /// A signal killed it.
    Killed(i32),
}

impl Ended {
    /// Returns the exit code that shells report: 128 + signal for a killed process.
    pub const fn code(self) -> i32 {
        match self {
            Self::Exited(code) => code,
            Self::Killed(signal) => 128 + signal,
        }
    }
}

/// Which side of [`clone_process`] this is.
#[derive(Debug)]
pub enum Cloned {
    /// The caller.
    Parent {
        /// The child's process id in the caller's pid namespace.
        pid: i32,
        /// Refers to the child whatever becomes of its number.
        pidfd: OwnedFd,
    },
    /// The new process.
    Child,
}

/// How [`clone_process`] makes the new process.
#[derive(Clone, Copy, Debug, Default)]
pub struct CloneOptions<'a> {
    /// Namespaces to create.
    pub namespaces: Namespaces,
    /// Makes the new process a sibling instead of a child.
    pub sibling: bool,
    /// Its end sends no signal; only who waits for it by its descriptor hears of it.
    pub quiet: bool,
    /// cgroup v2 directory in which the new process starts.
    pub cgroup: Option<BorrowedFd<'a>>,
}

const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// Duplicates the calling process like `fork(2)`, with new namespaces.
///
/// Only for single-threaded callers, or for a child that makes nothing but system calls: it goes on with a copy of all
/// locks as they were.
pub fn clone_process(options: &CloneOptions<'_>) -> io::Result<Cloned> {
    let mut pidfd: RawFd = -1;
    let mut flags = options.namespaces.bits() | libc::CLONE_PIDFD as u64;
    if options.sibling {
        flags |= libc::CLONE_PARENT as u64;
    }
    if options.cgroup.is_some() {
        flags |= CLONE_INTO_CGROUP;
    }
    // SAFETY: clone_args is plain data for which all zeroes is valid.
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    args.flags = flags;
    args.pidfd = &raw mut pidfd as u64;
    args.exit_signal = if options.sibling || options.quiet { 0 } else { libc::SIGCHLD as u64 };
    args.cgroup = options.cgroup.map_or(0, |fd| fd.as_raw_fd() as u64);
    // SAFETY: without CLONE_VM and a stack the call behaves like fork(2); the kernel writes only `pidfd`.
    let pid = unsafe {
        libc::syscall(libc::SYS_clone3, &raw mut args, std::mem::size_of::<libc::clone_args>())
    };
    match pid {
        -1 => Err(io::Error::last_os_error()),
        0 => Ok(Cloned::Child),
        pid => {
            // SAFETY: on success the kernel has stored a descriptor that nobody else owns.
            let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
            Ok(Cloned::Parent { pid: pid as i32, pidfd })
        }
    }
}

/// Ends the calling process at once: no destructors, no buffers.
pub fn exit_now(code: i32) -> ! {
    // SAFETY: always sound.
    unsafe { libc::_exit(code) }
}

/// Opens a descriptor for a process.
pub fn pidfd_open(pid: i32) -> io::Result<OwnedFd> {
    let pid = Pid::from_raw(pid).ok_or(io::ErrorKind::InvalidInput)?;
    Ok(rustix::process::pidfd_open(pid, PidfdFlags::empty())?)
}

/// Opens a descriptor of another process, by its number there.
///
/// The caller must be allowed to trace the process.
pub fn take_descriptor(pidfd: BorrowedFd<'_>, number: RawFd) -> io::Result<OwnedFd> {
    let flags = rustix::process::PidfdGetfdFlags::empty();
    Ok(rustix::process::pidfd_getfd(pidfd, number, flags)?)
}

/// Sends a signal by number; 0 only checks that the process exists.
pub fn pidfd_send_signal(pidfd: BorrowedFd<'_>, signal: i32) -> io::Result<()> {
    // SAFETY: plain integers and a null siginfo.
    let result = unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            pidfd.as_raw_fd(),
            signal,
            std::ptr::null::<u8>(),
            0,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Waits for a child to end and reaps it.
pub fn wait_pidfd(pidfd: BorrowedFd<'_>) -> io::Result<Ended> {
    loop {
        match wait_options(pidfd, WaitIdOptions::EXITED) {
            Ok(Some(ended)) => return Ok(ended),
            Ok(None) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Reaps a child if it has ended.
pub fn try_wait_pidfd(pidfd: BorrowedFd<'_>) -> io::Result<Option<Ended>> {
    wait_options(pidfd, WaitIdOptions::EXITED | WaitIdOptions::NOHANG)
}

fn wait_options(pidfd: BorrowedFd<'_>, options: WaitIdOptions) -> io::Result<Option<Ended>> {
    // __WALL also reaps children without an exit signal.
    let options = WaitIdOptions::from_bits_retain(options.bits() | libc::__WALL as u32);
    let status = rustix::process::waitid(WaitId::PidFd(pidfd), options)?;
    Ok(status.map(|status| match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => Ended::Exited(code),
        (None, signal) => Ended::Killed(signal.unwrap_or(0)),
    }))
}

/// Marks all descriptors from `first` on as close-on-exec.
pub fn close_on_exec_from(first: u32) -> io::Result<()> {
    const CLOSE_RANGE_CLOEXEC: u32 = 4;
    // SAFETY: only sets descriptor flags.
    let result =
        unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, CLOSE_RANGE_CLOEXEC) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Replaces the program of this process. Returns only on failure.
pub fn execute(path: &CStr, args: &[CString], env: &[CString]) -> io::Error {
    let (args, env) = (pointers(args), pointers(env));
    // SAFETY: both arrays end in null and point to strings that outlive the call.
    unsafe { libc::execve(path.as_ptr(), args.as_ptr(), env.as_ptr()) };
    io::Error::last_os_error()
}

/// Replaces the program of this process by an open file. Returns only on failure.
pub fn execute_fd(file: BorrowedFd<'_>, args: &[CString], env: &[CString]) -> io::Error {
    let (args, env) = (pointers(args), pointers(env));
    // SAFETY: both arrays end in null and point to strings that outlive the call.
    unsafe {
        libc::syscall(
            libc::SYS_execveat,
            file.as_raw_fd(),
            c"".as_ptr(),
            args.as_ptr(),
            env.as_ptr(),
            libc::AT_EMPTY_PATH,
        )
    };
    io::Error::last_os_error()
}

fn pointers(strings: &[CString]) -> Vec<*const c_char> {
    strings.iter().map(|s| s.as_ptr()).chain([std::ptr::null()]).collect()
}

/// Makes the calling process adopt orphaned descendants.
pub fn become_subreaper() -> io::Result<()> {
    Ok(rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?)
}

/// Hides the calling process from ptrace and its `/proc` files from other users until the next `execve(2)`.
pub fn forbid_dumping() -> io::Result<()> {
    Ok(rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)?)
}

/// Makes all children from now on vanish with `signal` when their parent ends; zero takes it back.
pub fn set_parent_death_signal(signal: i32) -> io::Result<()> {
    // SAFETY: plain integers.
    let result = unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, signal, 0, 0, 0) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Sets the name of the calling thread as `ps` shows it; only the first 15 bytes count.
pub fn set_name(name: &CStr) -> io::Result<()> {
    Ok(rustix::thread::set_name(name)?)
}

/// Restores the default action of every signal and unblocks them all.
pub fn reset_signals() {
    // SAFETY: SIG_DFL is a valid action for every signal; the kernel refuses KILL and STOP, which is fine.
    unsafe {
        for signal in 1..=64 {
            libc::signal(signal, libc::SIG_DFL);
        }
        let mut set = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const set, std::ptr::null_mut());
    }
}

/// Lets `command` start with every signal at its default action and none blocked, whatever its parent's are.
pub fn with_fresh_signals(command: &mut std::process::Command) -> &mut std::process::Command {
    let reset = || {
        reset_signals();
        Ok(())
    };
    // SAFETY: `reset_signals` makes system calls only, which is allowed between fork and exec.
    unsafe { std::os::unix::process::CommandExt::pre_exec(command, reset) }
}

/// Joins a new session keyring without a name, see `keyctl_join_session_keyring(3)`. A name would be looked for among those
/// of all other sessions first, and could be joined by others.
pub fn join_session_keyring() -> io::Result<()> {
    const KEYCTL_JOIN_SESSION_KEYRING: i32 = 1;
    let unnamed = std::ptr::null::<libc::c_char>();
    // SAFETY: no name is a valid one.
    let result = unsafe { libc::syscall(libc::SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, unnamed) };
    if result >= 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Lets go of the program's own code: pages that are needed again are mapped again from the file. What a process once ran
/// is not counted as its memory for ever, and the kernel can take it back without looking for who has it mapped.
pub fn release_code() {
    let mut code: Vec<(usize, usize)> = Vec::new();
    // SAFETY: `find_code` is what `dl_iterate_phdr(3)` calls, and is given this list.
    unsafe { libc::dl_iterate_phdr(Some(find_code), (&raw mut code).cast()) };
    let page = rustix::param::page_size();
    for (start, length) in code {
        let first = start / page * page;
        let length = (start + length).next_multiple_of(page) - first;
        // SAFETY: nothing writes to code, so what comes back from the file is what was there.
        unsafe { libc::madvise(first as *mut libc::c_void, length, libc::MADV_DONTNEED) };
    }
}

/// Notes the segments of the program itself, the first object, that are run and never written to.
extern "C" fn find_code(
    object: *mut libc::dl_phdr_info,
    _size: usize,
    code: *mut libc::c_void,
) -> libc::c_int {
    // SAFETY: the C library gives a valid object, and `release_code` its list.
    let (object, code) = unsafe { (&*object, &mut *code.cast::<Vec<(usize, usize)>>()) };
    // SAFETY: the object has that many headers there.
    let headers =
        unsafe { std::slice::from_raw_parts(object.dlpi_phdr, usize::from(object.dlpi_phnum)) };
    let is_code = |header: &&libc::Elf64_Phdr| {
        header.p_type == libc::PT_LOAD && header.p_flags & (libc::PF_X | libc::PF_W) == libc::PF_X
    };
    let place = |header: &libc::Elf64_Phdr| {
        ((object.dlpi_addr + header.p_vaddr) as usize, header.p_memsz as usize)
    };
    code.extend(headers.iter().filter(is_code).map(place));
    1
}

/// Sets the execution domain, see `personality(2)`.
pub fn set_personality(persona: u64) -> io::Result<()> {
    // SAFETY: plain integer.
    let result = unsafe { libc::personality(persona as libc::c_ulong) };
    if result >= 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Scheduling attributes as `sched_setattr(2)` takes them.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SchedulerAttributes {
    /// Size of this structure; filled in by [`set_scheduler`].
    pub size: u32,
    /// `SCHED_*`.
    pub policy: u32,
    /// `SCHED_FLAG_*`.
    pub flags: u64,
    /// Nice value of `SCHED_OTHER` and `SCHED_BATCH`.
    pub nice: i32,
    /// Static priority of `SCHED_FIFO` and `SCHED_RR`.
    pub priority: u32,
    /// `SCHED_DEADLINE`, ns.
    pub runtime: u64,
    /// `SCHED_DEADLINE`, ns.
    pub deadline: u64,
    /// `SCHED_DEADLINE`, ns.
    pub period: u64,
}

/// Sets scheduling policy and attributes of the calling thread.
pub fn set_scheduler(mut attributes: SchedulerAttributes) -> io::Result<()> {
    attributes.size = std::mem::size_of::<SchedulerAttributes>() as u32;
    // SAFETY: the structure carries its own size.
    let result = unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attributes, 0) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Sets the I/O priority of the calling process: `class << 13 | level`.
pub fn set_io_priority(priority: i32) -> io::Result<()> {
    const IOPRIO_WHO_PROCESS: i32 = 1;
    // SAFETY: plain integers.
    let result = unsafe { libc::syscall(libc::SYS_ioprio_set, IOPRIO_WHO_PROCESS, 0, priority) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Restricts the calling thread to these CPUs.
pub fn set_cpu_affinity(cpus: &[usize]) -> io::Result<()> {
    let mut set = rustix::thread::CpuSet::new();
    for cpu in cpus.iter().copied().filter(|cpu| *cpu < rustix::thread::CpuSet::MAX_CPU) {
        set.set(cpu);
    }
    Ok(rustix::thread::sched_setaffinity(None, &set)?)
}

/// Sets the NUMA memory policy of the calling thread.
pub fn set_memory_policy(mode: i32, nodes: &[usize]) -> io::Result<()> {
    let mut mask = [0u64; 16];
    for node in nodes.iter().copied().filter(|node| *node < 1024) {
        mask[node / 64] |= 1 << (node % 64);
    }
    let (pointer, bits) =
        if nodes.is_empty() { (std::ptr::null(), 0) } else { (mask.as_ptr(), 1024usize) };
    // SAFETY: the mask has as many bits as announced.
    let result = unsafe { libc::syscall(libc::SYS_set_mempolicy, mode, pointer, bits) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
