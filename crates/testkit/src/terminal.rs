//! A program on a terminal, as a person has it before them. Knows nothing of what terminals can draw.

use std::fs::File;
use std::io::{Read, Write};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt};
use rustix::termios::Winsize;

use crate::wait::eventually;
use crate::{Host, TestResult};

/// A program and the terminal it runs on.
pub struct Terminal {
    child: Child,
    keys: File,
    shown: Arc<Mutex<Vec<u8>>>,
}

impl Host {
    /// Starts our own client on a terminal of 33 rows and 77 columns.
    pub fn on_terminal(&self, args: &[&str]) -> TestResult<Terminal> {
        let mut command = self.command(&self.binary);
        command.args(args).env("TERM", "xterm");
        Terminal::start(command)
    }
}

impl Terminal {
    fn start(mut command: Command) -> TestResult<Self> {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let master = openpt(flags)?;
        grantpt(&master)?;
        unlockpt(&master)?;
        let peer = ioctl_tiocgptpeer(&master, flags)?;
        let size = Winsize { ws_row: 33, ws_col: 77, ws_xpixel: 0, ws_ypixel: 0 };
        rustix::termios::tcsetwinsize(&peer, size)?;
        command.stdin(Stdio::from(peer.try_clone()?)).stdout(Stdio::from(peer.try_clone()?));
        let child = command.stderr(Stdio::from(peer)).spawn()?;
        // Our own copies of its end would keep the terminal from ending.
        drop(command);
        let keys = File::from(master);
        let mut screen = keys.try_clone()?;
        let shown = Arc::new(Mutex::new(Vec::new()));
        let into = Arc::clone(&shown);
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            // It fails once nobody has the other end any more.
            while let Ok(count @ 1..) = screen.read(&mut buffer) {
                into.lock().unwrap_or_else(PoisonError::into_inner).extend(&buffer[..count]);
            }
        });
        Ok(Self { child, keys, shown })
    }

    /// Types something.
    pub fn types(&mut self, text: &str) -> TestResult {
        Ok(self.keys.write_all(text.as_bytes())?)
    }

    /// Returns what has been shown so far.
    pub fn shown(&self) -> String {
        let shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&shown).into_owned()
    }

    /// Waits until something has been shown.
    pub fn shows(&self, text: &str) -> TestResult {
        let seen =
            eventually("the terminal shows it", || self.shown().contains(text).then_some(()));
        seen.map_err(|error| format!("{error}: no {text:?} in {}", self.shown()).into())
    }

    /// Waits for the end of the program; returns its exit code.
    pub fn ends(mut self) -> TestResult<i32> {
        let ended = eventually("the program ends", || self.child.try_wait().ok().flatten());
        let ended = ended.map_err(|error| format!("{error}: {}", self.shown()))?;
        Ok(ended.code().unwrap_or(-1))
    }

    /// Kills the program.
    pub fn kill(mut self) -> TestResult {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // It has ended, unless a scenario failed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
