//! The log that callers of a runtime read: lines of text or JSON, in a file or on standard error.

use std::fs::File;
use std::io::Write as _;
use std::path::PathBuf;
use std::time::SystemTime;

use clap::ArgMatches;
use rorqual_core::Timestamp;

use super::Failure;

/// Where and how to log.
pub(super) struct Log {
    file: Option<File>,
    json: bool,
    debug: bool,
}

impl Log {
    pub(super) fn new(matches: &ArgMatches) -> Result<Self, Failure> {
        let open = |path: &PathBuf| {
            let file = File::options().append(true).create(true).open(path);
            file.map_err(|error| Failure::io(&format!("cannot open the log file {path:?}"), &error))
        };
        Ok(Self {
            file: matches.get_one::<PathBuf>("log").map(open).transpose()?,
            json: super::text(matches, "log-format") == "json",
            debug: matches.get_flag("debug"),
        })
    }

    pub(super) fn wants_debug(&self) -> bool {
        self.debug
    }

    pub(super) fn debug(&self, message: &str) {
        if self.debug {
            self.line("debug", message);
        }
    }

    pub(super) fn error(&self, message: &str) {
        self.line("error", message);
        if self.file.is_some() {
            // COMPAT: callers show standard error to users and parse the file.
            let _ = writeln!(std::io::stderr(), "{message}");
        }
    }

    pub(super) fn warnings(&self, messages: &[String]) {
        for message in messages {
            self.warning(message);
        }
    }

    pub(super) fn warning(&self, message: &str) {
        self.line("warning", message);
    }

    fn line(&self, level: &str, message: &str) {
        let time = Timestamp::from(SystemTime::now());
        let line = if self.json {
            serde_json::json!({"level": level, "msg": message, "time": time.to_string()})
                .to_string()
        } else {
            format!("time={:?} level={level} msg={message:?}", time.to_string())
        };
        // There is no place left to complain to.
        let _ = match &self.file {
            Some(file) => {
                let mut file = file;
                writeln!(file, "{line}")
            }
            None => writeln!(std::io::stderr(), "{line}"),
        };
    }
}
