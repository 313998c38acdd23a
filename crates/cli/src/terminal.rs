//! The terminal the program runs in: raw mode, size, and what is one at all.

use std::os::fd::BorrowedFd;

use rustix::termios::{self, OptionalActions, Termios};

/// Raw mode of standard input; the terminal is as before when this is dropped.
pub(crate) struct RawMode {
    before: Termios,
}

impl RawMode {
    /// Sets the terminal on standard input to raw mode; `None` where there is none.
    pub(crate) fn enter() -> Option<Self> {
        let stdin = rustix::stdio::stdin();
        let before = termios::tcgetattr(stdin).ok()?;
        let mut raw = before.clone();
        raw.make_raw();
        termios::tcsetattr(stdin, OptionalActions::Now, &raw).ok()?;
        Some(Self { before })
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        let _ = termios::tcsetattr(rustix::stdio::stdin(), OptionalActions::Now, &self.before);
    }
}

/// Reads a line from the terminal without showing it.
pub(crate) fn read_hidden() -> std::io::Result<String> {
    let stdin = rustix::stdio::stdin();
    let before = termios::tcgetattr(stdin)?;
    let mut hidden = before.clone();
    hidden.local_modes -= termios::LocalModes::ECHO;
    termios::tcsetattr(stdin, OptionalActions::Now, &hidden)?;
    let mut line = String::new();
    let read = std::io::stdin().read_line(&mut line);
    termios::tcsetattr(stdin, OptionalActions::Now, &before)?;
    read?;
    Ok(line.trim_end_matches(['\n', '\r']).to_owned())
}

/// Tells whether standard input is a terminal.
pub(crate) fn input_is_terminal() -> bool {
    termios::isatty(rustix::stdio::stdin())
}

/// Tells whether standard output is a terminal.
pub(crate) fn output_is_terminal() -> bool {
    termios::isatty(rustix::stdio::stdout())
}

/// Returns rows and columns of the terminal on standard output.
pub(crate) fn size() -> Option<(u16, u16)> {
    sized(rustix::stdio::stdout()).or_else(|| sized(rustix::stdio::stdin()))
}

fn sized(fd: BorrowedFd<'_>) -> Option<(u16, u16)> {
    let size = termios::tcgetwinsize(fd).ok()?;
    (size.ws_row > 0 && size.ws_col > 0).then_some((size.ws_row, size.ws_col))
}

/// Returns the columns of the terminal on standard output.
pub(crate) fn width() -> Option<usize> {
    let columns = |fd| termios::tcgetwinsize(fd).ok().map(|size| usize::from(size.ws_col));
    let mut known =
        [rustix::stdio::stdout(), rustix::stdio::stdin()].into_iter().filter_map(columns);
    known.find(|columns| *columns > 0)
}
