//! Signals by number and name, as `kill -l` of Linux on x86-64 and arm64 lists them.

use std::fmt;
use std::str::FromStr;

/// A text that names no signal.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
// COMPAT: clients show this text of dockerd.
#[error("invalid signal: {0}")]
pub struct InvalidSignal(pub String);

/// A signal number from 1 to 64.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
)]
#[serde(transparent)]
pub struct Signal(u8);

const NAMES: [&str; 31] = [
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2",
    "PIPE", "ALRM", "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG",
    "XCPU", "XFSZ", "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
];

const ALIASES: [(&str, u8); 4] = [("IOT", 6), ("CLD", 17), ("POLL", 29), ("UNUSED", 31)];

impl Signal {
    /// `SIGKILL`
    pub const KILL: Self = Self(9);
    /// `SIGTERM`
    pub const TERM: Self = Self(15);

    /// Makes a signal from its number.
    pub fn from_number(number: i32) -> Option<Self> {
        u8::try_from(number).ok().filter(|number| (1..=64).contains(number)).map(Self)
    }

    /// Returns the number.
    pub const fn number(self) -> i32 {
        self.0 as i32
    }
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match NAMES.get(usize::from(self.0) - 1) {
            Some(name) => write!(f, "SIG{name}"),
            None if self.0 == 34 => f.write_str("SIGRTMIN"),
            None => write!(f, "SIGRTMIN+{}", i32::from(self.0) - 34),
        }
    }
}

impl FromStr for Signal {
    type Err = InvalidSignal;

    /// Reads a number, a name (`TERM`, `SIGTERM`, any case) or `RTMIN+n` / `RTMAX-n`.
    fn from_str(text: &str) -> Result<Self, InvalidSignal> {
        let invalid = || InvalidSignal(text.to_owned());
        if let Ok(number) = text.parse::<i32>() {
            return Self::from_number(number).ok_or_else(invalid);
        }
        let upper = text.to_ascii_uppercase();
        let name = upper.strip_prefix("SIG").unwrap_or(&upper);
        let plain = NAMES.iter().position(|known| *known == name).map(|at| at as i32 + 1);
        let alias = || ALIASES.iter().find(|(known, _)| *known == name).map(|(_, n)| i32::from(*n));
        plain
            .or_else(alias)
            .or_else(|| real_time(name))
            .and_then(Self::from_number)
            .ok_or_else(invalid)
    }
}

fn real_time(name: &str) -> Option<i32> {
    let number = if let Some(rest) = name.strip_prefix("RTMIN") {
        34 + if rest.is_empty() { 0 } else { rest.strip_prefix('+')?.parse::<i32>().ok()? }
    } else {
        let rest = name.strip_prefix("RTMAX")?;
        64 - if rest.is_empty() { 0 } else { rest.strip_prefix('-')?.parse::<i32>().ok()? }
    };
    (34..=64).contains(&number).then_some(number)
}

#[cfg(test)]
mod tests;
