//! Container logs: where the shim writes them and how the daemon reads them back.

pub(crate) mod chain;
pub(crate) mod file;
mod journald;
mod journald_read;
pub(crate) mod json;
pub(crate) mod json_read;
pub(crate) mod local;
mod outbox;
mod read;
pub(crate) mod sink;
mod syslog;

pub use read::{LogRecords, read};

use std::collections::BTreeMap;
use std::path::PathBuf;

use rorqual_core::Timestamp;
use serde::{Deserialize, Serialize};

/// Where a container's output is kept. Written by the shim, never blocking the container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "driver", rename_all = "kebab-case")]
pub enum LogTarget {
    /// Nothing is kept.
    None,
    /// Lines of JSON in `path`, rotated to `path.1`, `path.2.gz` …
    JsonFile(FileLog),
    /// Length-prefixed binary records, same rotation.
    Local(FileLog),
    /// Native journal protocol over `/run/systemd/journal/socket`.
    Journald {
        /// Fields sent with each message.
        fields: BTreeMap<String, String>,
    },
    /// RFC 3164 or 5424 messages.
    Syslog(SyslogTarget),
}

/// A log in files of our own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileLog {
    /// Absolute path of the current file.
    pub path: PathBuf,
    /// Size in bytes at which a file is rotated; `None`: never.
    pub max_size: Option<u64>,
    /// Number of files kept, the current one included.
    pub max_files: u32,
    /// Whether rotated files are compressed with gzip.
    pub compress: bool,
    /// Attributes written with each record (labels, environment, tag).
    pub attrs: BTreeMap<String, String>,
}

/// Where syslog messages go.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SyslogTarget {
    /// `unix:///dev/log`, `unixgram://…`, `udp://host:port`, `tcp://host:port`; empty: the local socket.
    pub address: String,
    /// Facility number, 3 for `daemon`.
    pub facility: u8,
    /// `""`/`rfc3164`, `rfc5424`, `rfc5424micro`
    pub format: String,
    /// The tag of each message.
    pub tag: String,
}

/// Which of the two output streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LogStream {
    /// Standard output, and everything of a terminal.
    Stdout,
    /// Standard error.
    Stderr,
}

/// A record read back. Docker splits lines at 16 KiB; the parts but the last have no line feed at their end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogRecord {
    /// When it was written.
    pub at: Timestamp,
    /// From where.
    pub stream: LogStream,
    /// The bytes, with the line feed if there was one.
    pub line: Vec<u8>,
    /// Attributes.
    pub attrs: BTreeMap<String, String>,
}

/// What to read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogQuery {
    /// Only records from here on.
    pub since: Option<Timestamp>,
    /// Only records up to here.
    pub until: Option<Timestamp>,
    /// Only the last so many.
    pub tail: Option<u64>,
    /// Go on until the container ends.
    pub follow: bool,
}
