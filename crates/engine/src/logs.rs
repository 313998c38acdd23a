//! Logs of containers: where they are kept and how they are read back.
//!
//! Writing them is the shim's business; how files are read is behind [`LogSource`].

use std::pin::Pin;

use futures_util::Stream;
use rorqual_core::BoxError;
use rorqual_shim::log::{LogQuery, LogRecord, LogTarget};
use tokio::sync::watch;

/// Records of a log as they come.
pub type LogRecords = Pin<Box<dyn Stream<Item = Result<LogRecord, BoxError>> + Send>>;

/// Reads logs back.
pub trait LogSource: Send + Sync + 'static {
    /// Opens a log; `None` when this kind cannot be read back. A following reader ends, after the last record, once
    /// `running` turns false or its sender is gone.
    fn open(
        &self,
        target: &LogTarget,
        query: &LogQuery,
        running: watch::Receiver<bool>,
    ) -> Option<LogRecords>;
}

/// What a client wants of a log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogRequest {
    /// Standard output.
    pub stdout: bool,
    /// Standard error.
    pub stderr: bool,
    /// Which records.
    pub query: LogQuery,
}

/// A log being read.
pub struct LogView {
    /// Whether the container has a terminal: its log is one raw stream then.
    pub tty: bool,
    /// Records of the streams asked for.
    pub records: LogRecords,
}
