//! The first process of a container that was asked for one (`--init`): starts the program, hands signals on, reaps orphans.
//!
//! Does nothing else, so that it can run in any image: this binary is static, and nothing is read from the image.

use std::ffi::OsString;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Command, ExitCode};

use rorqual_sys::poll::{Interest, Poller, Signals};
use rorqual_sys::process::with_fresh_signals;
use rustix::process::{Pid, Signal, WaitOptions, kill_process, kill_process_group, wait};

/// Signals that concern the process that gets them and are not handed on.
const OWN: [i32; 8] = [
    libc::SIGCHLD,
    libc::SIGSEGV,
    libc::SIGBUS,
    libc::SIGFPE,
    libc::SIGILL,
    libc::SIGTRAP,
    libc::SIGTTIN,
    libc::SIGTTOU,
];

/// Runs `docker-init [-s] [--] PROGRAM ARGUMENT…`; ends with the program's exit code, 128 + n after signal n.
pub fn main(args: impl Iterator<Item = OsString>) -> ExitCode {
    let mut args = args.skip_while(|arg| arg.as_encoded_bytes().starts_with(b"-"));
    let Some(program) = args.next() else {
        return ExitCode::from(1);
    };
    let mut command = Command::new(&program);
    command.args(args).process_group(0);
    match supervise(command) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            // The kind decides between Docker's codes for "not found" and "cannot be run".
            ExitCode::from(if error.kind() == io::ErrorKind::NotFound { 127 } else { 126 })
        }
    }
}

fn supervise(mut command: Command) -> io::Result<u8> {
    // ORDER: signals are blocked before the child exists, so that none is lost in between.
    let all: Vec<i32> = (1..=64)
        .filter(|signal| !matches!(*signal, libc::SIGKILL | libc::SIGSTOP | 32 | 33))
        .collect();
    let signals = Signals::block(&all)?;
    let child = with_fresh_signals(&mut command).spawn()?;
    let pid =
        i32::try_from(child.id()).ok().and_then(Pid::from_raw).ok_or(io::ErrorKind::InvalidData)?;
    if rustix::termios::isatty(io::stdin()) {
        // The program becomes the terminal's foreground job; it may have been stopped for reading before that.
        let _ = rustix::termios::tcsetpgrp(io::stdin(), pid);
        let _ = kill_process_group(pid, Signal::CONT);
    }
    let poller = Poller::new()?;
    poller.add(signals.as_fd(), 0, Interest::READ)?;
    let mut ready = Vec::new();
    loop {
        if let Some(code) = reap(pid)? {
            return Ok(code);
        }
        poller.wait(&mut ready, None)?;
        while let Some(number) = signals.take()? {
            if let Some(signal) = Signal::from_named_raw(number).filter(|_| !OWN.contains(&number))
            {
                // The program may have ended already; then the next round says so.
                let _ = kill_process(pid, signal);
            }
        }
    }
}

/// Reaps whatever has ended; returns the program's exit code once it is among them.
fn reap(program: Pid) -> io::Result<Option<u8>> {
    let mut outcome = None;
    loop {
        match wait(WaitOptions::NOHANG) {
            Ok(Some((pid, status))) if pid == program => {
                let status = std::process::ExitStatus::from_raw(status.as_raw());
                let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal));
                outcome = code.and_then(|code| u8::try_from(code).ok()).or(outcome);
            }
            Ok(Some(_)) => {}
            Ok(None) => return Ok(outcome),
            Err(rustix::io::Errno::CHILD) => return Ok(outcome.or(Some(1))),
            Err(error) => return Err(error.into()),
        }
    }
}
