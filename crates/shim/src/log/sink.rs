//! From bytes to log records: splits output into lines and hands them to a driver, whatever happens to the driver.
//!
//! Nothing here blocks or fails: records that cannot be kept are counted, and the count is reported once.

use std::io;

use rorqual_core::Timestamp;

use super::chain::Format;
use super::file::RotatedFile;
use super::{LogStream, LogTarget};

/// LIMIT: Docker splits longer lines into parts of this size.
pub(crate) const PART: usize = 16 * 1024;

/// Where a part stands in a line that was too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Part {
    /// Names the line.
    pub(crate) id: u64,
    /// Counts from 1.
    pub(crate) ordinal: u32,
    /// Whether the line ends here.
    pub(crate) last: bool,
}

/// A line to be kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Record<'r> {
    pub(crate) at: Timestamp,
    pub(crate) stream: LogStream,
    /// Without the line feed.
    pub(crate) line: &'r [u8],
    /// `None` for a whole line.
    pub(crate) part: Option<Part>,
}

impl Record<'_> {
    /// Tells whether a line feed followed.
    pub(crate) fn ends_line(&self) -> bool {
        self.part.is_none_or(|part| part.last)
    }
}

/// Keeps records somewhere.
pub(crate) trait Driver {
    /// Takes a record; may only collect it.
    fn write(&mut self, record: &Record<'_>) -> io::Result<()>;
    /// Writes what was collected; returns how many records of it were lost, with the cause.
    fn flush(&mut self) -> Result<(), (u64, io::Error)>;
    /// Tells whether something waits to be flushed again.
    fn waits(&self) -> bool {
        false
    }
}

/// Splits one stream into lines.
#[derive(Debug, Default)]
struct Lines {
    held: Vec<u8>,
    part: Option<(Part, Timestamp)>,
}

impl Lines {
    /// Hands the whole lines and full parts of `bytes` to `emit`, and keeps the rest.
    fn push(
        &mut self,
        stream: LogStream,
        mut bytes: &[u8],
        now: Timestamp,
        emit: &mut dyn FnMut(&Record<'_>),
    ) {
        while !bytes.is_empty() {
            let room = PART - self.held.len();
            let window = &bytes[..bytes.len().min(room)];
            let feed = window.iter().position(|byte| *byte == b'\n');
            let taken = feed.unwrap_or(window.len());
            let complete = feed.is_some();
            if !complete && self.held.len() + taken < PART {
                self.held.extend_from_slice(window);
                return;
            }
            let (part, at) = self.next_part(complete, now);
            if self.held.is_empty() {
                emit(&Record { at, stream, line: &window[..taken], part });
            } else {
                self.held.extend_from_slice(&window[..taken]);
                emit(&Record { at, stream, line: &self.held, part });
                // Lines are mostly short: do not hold on to the memory of a long one.
                self.held = Vec::new();
            }
            bytes = &bytes[taken + usize::from(complete)..];
        }
    }

    /// Decides what part of a line comes next; all parts carry the time of the first.
    fn next_part(&mut self, last: bool, now: Timestamp) -> (Option<Part>, Timestamp) {
        match self.part.take() {
            None if last => (None, now),
            before => {
                let part = before
                    .map_or((Part { id: now.nanos(), ordinal: 1, last }, now), |(part, at)| {
                        (Part { ordinal: part.ordinal + 1, last, ..part }, at)
                    });
                if !last {
                    self.part = Some(part);
                }
                (Some(part.0), part.1)
            }
        }
    }

    /// Emits what is left at the end of the stream, as a part without an end.
    fn finish(&mut self, stream: LogStream, now: Timestamp, emit: &mut dyn FnMut(&Record<'_>)) {
        if !self.held.is_empty() {
            let (part, at) = self.next_part(false, now);
            emit(&Record { at, stream, line: &self.held, part });
        }
        *self = Self::default();
    }
}

/// A container's log, seen from the writing side.
pub(crate) struct Sink {
    driver: Option<Box<dyn Driver>>,
    lines: [Lines; 2],
    lost: u64,
    cause: Option<String>,
}

impl Sink {
    /// Opens the log.
    ///
    /// # Errors
    ///
    /// When the file cannot be made or the target makes no sense: the container must not start then.
    pub(crate) fn open(target: &LogTarget) -> io::Result<Self> {
        let driver: Option<Box<dyn Driver>> = match target {
            LogTarget::None => None,
            LogTarget::JsonFile(file) => Some(Box::new(super::json::JsonFile {
                attrs: super::json::attrs(file),
                file: RotatedFile::open(file, Format::Json)?,
            })),
            LogTarget::Local(file) => Some(Box::new(super::local::Local {
                file: RotatedFile::open(file, Format::Local)?,
            })),
            LogTarget::Journald { fields } => {
                let epoch = Timestamp::from(std::time::SystemTime::now()).nanos();
                Some(Box::new(super::journald::Journald::open(fields, epoch)?))
            }
            LogTarget::Syslog(target) => Some(Box::new(super::syslog::Syslog::open(target)?)),
        };
        Ok(Self { driver, lines: Default::default(), lost: 0, cause: None })
    }

    /// Keeps what a process wrote.
    pub(crate) fn write(&mut self, stream: LogStream, bytes: &[u8], now: Timestamp) {
        self.with_lines(stream, |lines, emit| lines.push(stream, bytes, now, emit));
    }

    /// Keeps an unfinished last line: the stream has ended.
    pub(crate) fn finish(&mut self, stream: LogStream, now: Timestamp) {
        self.with_lines(stream, |lines, emit| lines.finish(stream, now, emit));
    }

    fn with_lines(
        &mut self,
        stream: LogStream,
        act: impl FnOnce(&mut Lines, &mut dyn FnMut(&Record<'_>)),
    ) {
        let Some(driver) = self.driver.as_mut() else { return };
        let lines = &mut self.lines[usize::from(stream == LogStream::Stderr)];
        let (mut lost, mut cause) = (0, None);
        act(lines, &mut |record| {
            if let Err(error) = driver.write(record) {
                lost += 1;
                cause = Some(error);
            }
        });
        if let Err((count, error)) = driver.flush() {
            lost += count;
            cause = Some(error);
        }
        self.lost += lost;
        if let Some(cause) = cause {
            self.cause = Some(cause.to_string());
        }
    }

    /// Tells whether a log server did not take everything yet.
    pub(crate) fn waits(&self) -> bool {
        self.driver.as_ref().is_some_and(|driver| driver.waits())
    }

    /// Tries again to hand over what a slow log server did not take; tells whether something still waits.
    pub(crate) fn retry(&mut self) -> bool {
        let Some(driver) = self.driver.as_mut().filter(|driver| driver.waits()) else {
            return false;
        };
        if let Err((count, error)) = driver.flush() {
            self.lost += count;
            self.cause = Some(error.to_string());
        }
        driver.waits()
    }

    /// Takes the number of lost records and the last cause, once the first was lost.
    pub(crate) fn take_lost(&mut self) -> Option<(u64, String)> {
        let cause = self.cause.take()?;
        Some((std::mem::take(&mut self.lost), cause))
    }
}

#[cfg(test)]
mod tests;
