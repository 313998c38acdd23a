//! What a finished command left: exit code and both streams.

use std::process::Output;

use crate::TestResult;

/// A command that has ended.
#[derive(Clone, Debug)]
pub struct Finished {
    /// The command line, for messages.
    pub command: String,
    /// Exit code; 128 + signal for a killed one.
    pub code: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Finished {
    pub(crate) fn new(command: String, output: &Output) -> Self {
        use std::os::unix::process::ExitStatusExt;

        let signal = || output.status.signal().map_or(-1, |signal| 128 + signal);
        Self {
            command,
            code: output.status.code().unwrap_or_else(signal),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// Fails unless the command succeeded; returns its output without the last line feed.
    pub fn ok(self) -> TestResult<String> {
        self.exits_with(0).map(|finished| finished.stdout.trim_end_matches('\n').to_owned())
    }

    /// Fails unless the command ended with `code`.
    pub fn exits_with(self, code: i32) -> TestResult<Self> {
        if self.code == code {
            return Ok(self);
        }
        Err(format!("expected exit code {code}: {self:#?}").into())
    }

    /// Fails unless standard output is `text`, the last line feed aside.
    pub fn prints(self, text: &str) -> TestResult<Self> {
        if self.stdout.trim_end_matches('\n') == text {
            return Ok(self);
        }
        Err(format!("expected output {text:?}: {self:#?}").into())
    }

    /// Fails unless standard error holds `text`.
    pub fn complains(self, text: &str) -> TestResult<Self> {
        if self.stderr.contains(text) {
            return Ok(self);
        }
        Err(format!("expected a complaint with {text:?}: {self:#?}").into())
    }
}
