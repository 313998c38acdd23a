//! Reading a log back out of the journal, by way of `journalctl`: the journal's files may be compressed, sealed and of
//! any age, and only its own tool knows all of them.
//!
//! A reader that follows ends only after the journal has taken in everything that was sent to it.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::path::Path;
use std::process::Stdio;

use futures_util::stream;
use rorqual_core::{ErrorKind, Timestamp};
use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, BufReader};
use tokio::process::{Child, ChildStdout, Command};
use tokio::sync::watch;

use super::read::LogRecords;
use super::{LogQuery, LogRecord, LogStream};
use crate::Error;
use crate::running::io_refused;

const TOOLS: [&str; 2] = ["/usr/bin/journalctl", "/bin/journalctl"];

/// LIMIT: lines are 16 KiB at most; labels and variables sent with them can be larger.
const MAX_FIELD: u64 = 1 << 20;

/// Reads what was sent with these fields.
pub(super) fn read(
    fields: &BTreeMap<String, String>,
    query: &LogQuery,
    running: watch::Receiver<bool>,
) -> LogRecords {
    let reader = Reader {
        container: fields.get("CONTAINER_ID_FULL").cloned().unwrap_or_default(),
        attrs: attributes(fields),
        query: query.clone(),
        running,
        stage: Stage::Begin,
        cursor: None,
        held: VecDeque::new(),
    };
    Box::pin(stream::unfold(reader, async |mut reader| {
        let item = reader.next().await.transpose();
        if matches!(item, Some(Err(_))) {
            reader.stage = Stage::Done;
        }
        item.map(|item| (item, reader))
    }))
}

/// What the user asked to be sent with each message.
fn attributes(fields: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let own = |name: &str| {
        name.starts_with("CONTAINER_") || matches!(name, "SYSLOG_IDENTIFIER" | "IMAGE_NAME")
    };
    let asked = fields.iter().filter(|(name, _)| !own(name));
    asked.map(|(name, value)| (name.clone(), value.clone())).collect()
}

struct Reader {
    container: String,
    attrs: BTreeMap<String, String>,
    query: LogQuery,
    running: watch::Receiver<bool>,
    stage: Stage,
    /// Of the last entry read.
    cursor: Option<String>,
    /// Records of a tail that only now is known to be one.
    held: VecDeque<LogRecord>,
}

enum Stage {
    Begin,
    /// What is there.
    Past(Journal),
    /// What comes, while the container runs.
    Following(Journal),
    /// What came between the last look and the container's end.
    Rest(Journal),
    Done,
}

enum Next {
    Record(LogRecord),
    /// Something that is not of the time asked for.
    Skip,
    End,
}

impl Reader {
    async fn next(&mut self) -> Result<Option<LogRecord>, Error> {
        loop {
            if let Some(record) = self.held.pop_front() {
                return Ok(Some(record));
            }
            let next = match &mut self.stage {
                Stage::Done => return Ok(None),
                Stage::Begin => {
                    self.begin().await?;
                    continue;
                }
                Stage::Following(journal) => {
                    // A change of the other end also means that nobody will tell: it has ended as well.
                    tokio::select! {
                        biased;
                        entry = journal.entry() => entry?,
                        _ = self.running.wait_for(|running| !*running) => None,
                    }
                }
                Stage::Past(journal) | Stage::Rest(journal) => journal.entry().await?,
            };
            match self.consider(next) {
                Next::Record(record) => return Ok(Some(record)),
                Next::Skip => {}
                Next::End => self.turn().await?,
            }
        }
    }

    /// Opens the first stage; a tail within a window of time is looked for here, in all of the window.
    async fn begin(&mut self) -> Result<(), Error> {
        sync().await?;
        let windowed = self.query.since.is_some() || self.query.until.is_some();
        let mut words = Vec::new();
        match self.query.tail {
            Some(tail) if !windowed => words.push(format!("--lines={tail}")),
            _ => {}
        }
        if let Some(since) = self.query.since {
            // Entries are received after they were written, and this is about when they were received.
            words.push(format!("--since=@{}", since.nanos() / 1_000_000_000));
        }
        let journal = Journal::open(&self.container, &words)?;
        let Some(tail) = self.query.tail.filter(|_| windowed) else {
            self.stage = Stage::Past(journal);
            return Ok(());
        };
        let tail = usize::try_from(tail).unwrap_or(usize::MAX);
        let (mut journal, mut last) = (journal, VecDeque::new());
        loop {
            let entry = journal.entry().await?;
            match self.consider(entry) {
                Next::Record(record) => {
                    last.push_back(record);
                    if last.len() > tail {
                        last.pop_front();
                    }
                }
                Next::Skip => {}
                Next::End => break,
            }
        }
        self.held = last;
        self.stage = Stage::Past(journal);
        Ok(())
    }

    /// Goes on after the end of a stage.
    async fn turn(&mut self) -> Result<(), Error> {
        let runs = *self.running.borrow() && self.running.has_changed().is_ok();
        self.stage = match std::mem::replace(&mut self.stage, Stage::Done) {
            Stage::Past(_) if self.query.follow && runs => {
                let mut words = self.behind();
                words.push("--follow".to_owned());
                Stage::Following(Journal::open(&self.container, &words)?)
            }
            Stage::Past(_) if self.query.follow => self.rest().await?,
            // `journalctl` itself may have ended; then there is nothing more to come.
            Stage::Following(_) => self.rest().await?,
            _ => Stage::Done,
        };
        Ok(())
    }

    async fn rest(&self) -> Result<Stage, Error> {
        sync().await?;
        Ok(Stage::Rest(Journal::open(&self.container, &self.behind())?))
    }

    fn behind(&self) -> Vec<String> {
        let mut words = vec!["--no-tail".to_owned()];
        words.extend(self.cursor.as_ref().map(|cursor| format!("--after-cursor={cursor}")));
        words
    }

    fn consider(&mut self, entry: Option<Entry>) -> Next {
        let Some(entry) = entry else { return Next::End };
        if let Some(cursor) = entry.text("__CURSOR") {
            self.cursor = Some(cursor.to_owned());
        }
        let Some(record) = entry.record(&self.attrs) else { return Next::Skip };
        if self.query.until.is_some_and(|until| record.at > until) {
            self.query.follow = false;
            return Next::End;
        }
        if self.query.since.is_some_and(|since| record.at < since) {
            return Next::Skip;
        }
        Next::Record(record)
    }
}

/// A running `journalctl`; ends when it is dropped.
struct Journal {
    child: Child,
    output: BufReader<ChildStdout>,
    /// What was read of the next entry: reading it may be given up at any time and taken up again.
    partial: Partial,
}

#[derive(Default)]
struct Partial {
    entry: Entry,
    line: Vec<u8>,
    /// Name of a field in binary form, and what was read of it.
    binary: Option<(String, Vec<u8>)>,
}

/// Returns the tool, with nothing of our environment.
fn tool() -> Result<Command, Error> {
    let Some(path) = TOOLS.into_iter().find(|path| Path::new(path).exists()) else {
        return Err(Error::Refused {
            message: "cannot read the journal: journalctl is not installed".to_owned(),
            kind: ErrorKind::Unsupported,
        });
    };
    let mut command = Command::new(path);
    command.env_clear().current_dir("/").stdin(Stdio::null()).stderr(Stdio::null());
    command.kill_on_drop(true);
    Ok(command)
}

/// Waits until the journal has taken in what was sent to it.
async fn sync() -> Result<(), Error> {
    let status = tool()?.arg("--sync").stdout(Stdio::null()).status().await;
    match status {
        Ok(status) if status.success() => Ok(()),
        // Without it the last lines may be missing, which is better than none.
        Ok(status) => {
            tracing::warn!(%status, "the journal was not asked to take in its messages");
            Ok(())
        }
        Err(error) => Err(io_refused("run journalctl", &error)),
    }
}

impl Journal {
    fn open(container: &str, words: &[String]) -> Result<Self, Error> {
        let mut child = tool()?
            .args(["--output=export", "--quiet", "--all"])
            .args(words)
            .arg(format!("CONTAINER_ID_FULL={container}"))
            // Anybody may write to the journal and say that it comes from a container, but for a shim.
            .arg("_UID=0")
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| io_refused("run journalctl", &error))?;
        let output = child.stdout.take().ok_or_else(|| {
            io_refused("run journalctl", &io::Error::from(io::ErrorKind::BrokenPipe))
        })?;
        Ok(Self { child, output: BufReader::new(output), partial: Partial::default() })
    }

    /// Reads the next entry; `None` at the end. Loses nothing when it is dropped while it waits.
    async fn entry(&mut self) -> Result<Option<Entry>, Error> {
        let entry = self.partial.read(&mut self.output).await;
        let entry = entry.map_err(|error| io_refused("read the journal", &error))?;
        if entry.is_none() {
            // A tool that failed has said nothing, and that is not an empty log.
            let status = self.child.wait().await;
            let status = status.map_err(|error| io_refused("run journalctl", &error))?;
            if !status.success() {
                return Err(Error::Refused {
                    message: format!("cannot read the journal: journalctl ended with {status}"),
                    kind: ErrorKind::Internal,
                });
            }
        }
        Ok(entry)
    }
}

impl Partial {
    /// Reads the next entry in the journal's export format; `None` at the end.
    async fn read<R: AsyncRead + Unpin>(
        &mut self,
        output: &mut BufReader<R>,
    ) -> io::Result<Option<Entry>> {
        let Self { entry, line, binary } = self;
        loop {
            if let Some((name, bytes)) = binary {
                read_binary(output, bytes).await?;
                let value = &bytes[8..bytes.len() - 1];
                entry.0.insert(std::mem::take(name), value.to_vec());
                *binary = None;
            }
            let ended = read_line(output, line).await?;
            if ended || line.is_empty() {
                // A line without anything stands between entries; several of them, or none at the end, mean the same.
                if ended || !entry.0.is_empty() {
                    return Ok((!entry.0.is_empty()).then(|| std::mem::take(entry)));
                }
                continue;
            }
            let text = std::mem::take(line);
            let name = |name: &[u8]| String::from_utf8_lossy(name).into_owned();
            match text.iter().position(|byte| *byte == b'=') {
                Some(at) => drop(entry.0.insert(name(&text[..at]), text[at + 1..].to_vec())),
                None => *binary = Some((name(&text), Vec::new())),
            }
        }
    }
}

/// Reads a line, without its line feed; tells whether there is none because everything has been read.
///
/// What was read before a wait that was given up is in `line` and is gone on from.
async fn read_line<R: AsyncRead + Unpin>(
    output: &mut BufReader<R>,
    line: &mut Vec<u8>,
) -> io::Result<bool> {
    let room = MAX_FIELD.saturating_sub(line.len() as u64);
    let count = output.take(room).read_until(b'\n', line).await?;
    if line.pop_if(|last| *last == b'\n').is_some() {
        return Ok(false);
    }
    let ended = count == 0 && line.is_empty();
    if ended { Ok(true) } else { Err(io::ErrorKind::InvalidData.into()) }
}

/// Reads a value in binary form: its length in eight bytes, itself, a line feed. Given up and taken up as [`read_line`].
async fn read_binary<R: AsyncRead + Unpin>(
    output: &mut BufReader<R>,
    bytes: &mut Vec<u8>,
) -> io::Result<()> {
    loop {
        let size = bytes.first_chunk::<8>().map(|size| u64::from_le_bytes(*size));
        let whole = match size {
            None => 8,
            Some(size) if size <= MAX_FIELD => 8 + size + 1,
            Some(_) => return Err(io::ErrorKind::InvalidData.into()),
        };
        let missing = whole.saturating_sub(bytes.len() as u64);
        if missing == 0 {
            return Ok(());
        }
        if output.take(missing).read_buf(bytes).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}

/// Fields of an entry by name.
#[derive(Debug, Default)]
struct Entry(BTreeMap<String, Vec<u8>>);

impl Entry {
    fn text(&self, name: &str) -> Option<&str> {
        std::str::from_utf8(self.0.get(name)?).ok()
    }

    /// Returns the record, `None` when this is not one of ours.
    fn record(mut self, attrs: &BTreeMap<String, String>) -> Option<LogRecord> {
        let micros = self.text("__REALTIME_TIMESTAMP").and_then(|text| text.parse::<u64>().ok());
        let received = micros.map(|micros| Timestamp::from_nanos(micros.saturating_mul(1000)));
        // The time at which the line was written, which is that of other drivers too.
        let written = self.text("SYSLOG_TIMESTAMP").and_then(|text| text.parse().ok());
        let at = written.or(received)?;
        let stderr = self.text("PRIORITY") == Some("3");
        let whole = self.text("CONTAINER_PARTIAL_MESSAGE") != Some("true");
        let mut line = self.0.remove("MESSAGE")?;
        if whole {
            line.push(b'\n');
        }
        let stream = if stderr { LogStream::Stderr } else { LogStream::Stdout };
        Some(LogRecord { at, stream, line, attrs: attrs.clone() })
    }
}

#[cfg(test)]
mod tests;
