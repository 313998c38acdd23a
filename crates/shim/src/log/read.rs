//! Reading a log back while the shim may be writing it: tail, time window, and following across rotations.

use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::pin::Pin;

use futures_util::{Stream, stream};
use rorqual_core::Timestamp;
use rustix::fs::inotify;
use tokio::io::unix::AsyncFd;
use tokio::sync::watch;

use super::chain::{self, Cursor, Format, Found};
use super::{LogQuery, LogRecord, LogTarget};
use crate::Error;
use crate::connection::watched;
use crate::running::{blocking, io_refused};

/// LIMIT: records handed over at once.
const BATCH: usize = 256;

/// Records as they come.
pub type LogRecords = Pin<Box<dyn Stream<Item = Result<LogRecord, Error>> + Send>>;

/// Opens a log; `None` when this kind cannot be read back.
///
/// A following reader ends, after the last record, once `running` turns false or its sender is gone. A log that does
/// not exist (yet) is empty. Records that were torn by a crash are passed over.
///
/// # Cancellation
///
/// Dropping the stream frees everything.
pub fn read(
    target: &LogTarget,
    query: &LogQuery,
    running: watch::Receiver<bool>,
) -> Option<LogRecords> {
    let (log, format) = match target {
        LogTarget::JsonFile(log) => (log, Format::Json),
        LogTarget::Local(log) => (log, Format::Local),
        LogTarget::Journald { fields } => {
            return Some(super::journald_read::read(fields, query, running));
        }
        LogTarget::None | LogTarget::Syslog(_) => return None,
    };
    let reader = Reader {
        path: log.path.clone(),
        format,
        query: query.clone(),
        cursors: None,
        last: None,
        after: None,
        done: false,
    };
    let follower =
        Follower { reader: Some(reader), records: VecDeque::new(), watch: None, running };
    Some(Box::pin(stream::unfold(follower, async |mut follower| {
        follower.next().await.transpose().map(|item| (item, follower))
    })))
}

/// The part that blocks.
struct Reader {
    path: PathBuf,
    format: Format,
    query: LogQuery,
    /// Files yet to be read, the one being read first; `None` before the first look.
    cursors: Option<VecDeque<Cursor>>,
    /// When the last record read was written.
    last: Option<Timestamp>,
    /// Only records behind this one: set when files had to be found again by time.
    after: Option<Timestamp>,
    /// Beyond the end of the time window.
    done: bool,
}

impl Reader {
    /// Reads up to a batch of records; less than that means that there is no more at present.
    fn read(&mut self) -> io::Result<VecDeque<LogRecord>> {
        let mut records = VecDeque::new();
        if self.cursors.is_none() {
            self.cursors = Some(chain::cursors(&self.path, self.format, self.query.tail)?.into());
        }
        while records.len() < BATCH && !self.done {
            let Some(cursors) = &mut self.cursors else { break };
            let Some(cursor) = cursors.front_mut() else {
                if self.find_first()? {
                    continue;
                }
                break;
            };
            match cursor.next()? {
                Found::Record(record) => self.consider(record, &mut records),
                Found::Garbage => {}
                Found::End if cursors.len() > 1 => drop(cursors.pop_front()),
                Found::End => {
                    if !self.find_newer()? {
                        break;
                    }
                }
            }
        }
        Ok(records)
    }

    fn consider(&mut self, record: LogRecord, records: &mut VecDeque<LogRecord>) {
        if self.after.is_some_and(|after| record.at <= after) {
            return;
        }
        self.last = Some(record.at);
        if self.query.until.is_some_and(|until| record.at > until) {
            self.done = true;
        } else if self.query.since.is_none_or(|since| record.at >= since) {
            records.push_back(record);
        }
    }

    /// Looks for the first file of a log that did not exist.
    fn find_first(&mut self) -> io::Result<bool> {
        let handles = chain::open_all(&self.path)?;
        let cursors: VecDeque<_> = handles.into_iter().map(|h| h.cursor(self.format)).collect();
        let found = !cursors.is_empty();
        self.cursors = Some(cursors);
        Ok(found)
    }

    /// Looks, at the end of the current file, for newer ones; tells whether there is something to go on with.
    fn find_newer(&mut self) -> io::Result<bool> {
        let Some(cursor) = self.cursors.as_mut().and_then(VecDeque::front_mut) else {
            return Ok(false);
        };
        let ours = cursor.identity();
        match chain::current_identity(&self.path) {
            Some(current) if current != ours => {}
            // Not rotated, or just being rotated: the change will be reported.
            _ => {
                cursor.notice_truncation()?;
                return self.is_behind();
            }
        }
        // ORDER: what was written to our file before it was moved away comes first.
        if self.is_behind()? {
            return Ok(true);
        }
        let handles = chain::open_all(&self.path)?;
        let known = handles.iter().position(|handle| handle.identity == ours);
        if known.is_none() {
            // Ours was compressed or removed meanwhile: the time tells what is new.
            self.after = self.last;
        }
        let newer = handles.into_iter().skip(known.map_or(0, |at| at + 1));
        self.cursors = Some(newer.map(|handle| handle.cursor(self.format)).collect());
        Ok(true)
    }

    /// Tells whether the current file has a further record; takes it back.
    fn is_behind(&mut self) -> io::Result<bool> {
        let Some(cursor) = self.cursors.as_mut().and_then(VecDeque::front_mut) else {
            return Ok(false);
        };
        cursor.has_more()
    }
}

/// The part that waits.
struct Follower {
    /// `None` after a failure.
    reader: Option<Reader>,
    records: VecDeque<LogRecord>,
    watch: Option<AsyncFd<OwnedFd>>,
    running: watch::Receiver<bool>,
}

impl Follower {
    async fn next(&mut self) -> Result<Option<LogRecord>, Error> {
        loop {
            if let Some(record) = self.records.pop_front() {
                return Ok(Some(record));
            }
            let follows = self.reader.as_ref().is_some_and(|reader| reader.query.follow);
            // ORDER: whether it runs is asked before reading, so that the last records are not missed; and the watch is
            // set before reading, so that no change is.
            let runs = follows && *self.running.borrow() && self.running.has_changed().is_ok();
            if runs && self.watch.is_none() {
                self.watch = self.watch_directory()?;
            }
            if !self.read().await? {
                return Ok(None);
            }
            if !self.records.is_empty() {
                continue;
            }
            if !runs {
                return Ok(None);
            }
            self.wait().await?;
        }
    }

    /// Fills the records; tells whether there may be more some day.
    async fn read(&mut self) -> Result<bool, Error> {
        let Some(mut reader) = self.reader.take() else { return Ok(false) };
        if reader.done {
            return Ok(false);
        }
        let (reader, records) = blocking(move || {
            let records = reader.read().map_err(|error| io_refused("read the log", &error))?;
            Ok((reader, records))
        })
        .await?;
        self.reader = Some(reader);
        self.records = records;
        Ok(true)
    }

    fn watch_directory(&self) -> Result<Option<AsyncFd<OwnedFd>>, Error> {
        let Some(reader) = &self.reader else { return Ok(None) };
        let watch = || {
            let flags = inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK;
            let fd = inotify::init(flags)?;
            let events = inotify::WatchFlags::MODIFY
                | inotify::WatchFlags::CREATE
                | inotify::WatchFlags::MOVED_TO;
            inotify::add_watch(&fd, chain::directory(&reader.path), events)?;
            watched(fd)
        };
        watch().map(Some).map_err(|error| io_refused("watch the log", &error))
    }

    /// Waits until something was written or the container has ended.
    async fn wait(&mut self) -> Result<(), Error> {
        let Some(watch) = &self.watch else { return Ok(()) };
        tokio::select! {
            ready = watch.readable() => {
                let mut ready = ready.map_err(|error| io_refused("watch the log", &error))?;
                let mut events = [0_u8; 4096];
                while matches!(rustix::io::read(watch.get_ref(), &mut events[..]), Ok(1..)) {}
                ready.clear_ready();
            }
            // An error means that nobody will tell: it has ended as well.
            _ = self.running.wait_for(|running| !*running) => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
