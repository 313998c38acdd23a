//! What is seen of a build: lines, a picture that moves, JSON, or nothing.
//!
//! The forms are pure functions of news and times; only [`Screen`] writes.

mod frame;
mod model;
mod plain;

use std::io::Write as _;
use std::time::SystemTime;

use rorqual_buildkit::{Failure as BuildFailure, News};
use serde_json::json;

use crate::failure::Failure;
use crate::flag::Matches;
use crate::terminal;

use model::Model;
use plain::Plain;

/// A form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// Nothing but failures.
    Quiet,
    /// Lines.
    Plain,
    /// A picture that moves.
    Tty,
    /// One document a line.
    RawJson,
}

impl Mode {
    /// Chooses by flags, environment and terminal.
    pub(super) fn choose(matches: &Matches) -> Result<Self, Failure> {
        if matches.on("quiet") {
            return Ok(Self::Quiet);
        }
        Self::of_progress(matches)
    }

    /// Chooses for a command without `--quiet`.
    pub(super) fn of_progress(matches: &Matches) -> Result<Self, Failure> {
        let wanted = match (matches.given("progress"), std::env::var("BUILDKIT_PROGRESS")) {
            (false, Ok(wanted)) if !wanted.is_empty() => wanted,
            _ => matches.text("progress").to_owned(),
        };
        let is_terminal = rustix::termios::isatty(rustix::stdio::stderr());
        match wanted.as_str() {
            "auto" | "" => Ok(if is_terminal { Self::Tty } else { Self::Plain }),
            "plain" => Ok(Self::Plain),
            "tty" if is_terminal => Ok(Self::Tty),
            "tty" => {
                Err(Failure::new("ERROR: failed to get console: standard error is no terminal"))
            }
            "rawjson" => Ok(Self::RawJson),
            "quiet" | "none" => Ok(Self::Quiet),
            other => Err(Failure::new(format!(
                "ERROR: invalid progress mode {other:?}: auto, quiet, plain, tty, rawjson"
            ))),
        }
    }
}

/// Where progress is shown: standard error.
pub(super) struct Screen {
    mode: Mode,
    model: Model,
    plain: Plain,
    /// Lines of the picture on the terminal now.
    drawn: usize,
    is_dirty: bool,
}

impl Screen {
    pub(super) fn new(mode: Mode) -> Self {
        Self { mode, model: Model::default(), plain: Plain::default(), drawn: 0, is_dirty: true }
    }

    /// Shows what comes before everything.
    pub(super) fn begin(&mut self) -> Result<(), Failure> {
        self.model.began = Some(SystemTime::now());
        if self.mode == Mode::Plain {
            write("#0 building with \"default\" instance using docker driver\n\n")?;
        }
        Ok(())
    }

    /// Takes news and shows them.
    pub(super) fn take(&mut self, news: &News) -> Result<(), Failure> {
        self.model.take(news);
        self.is_dirty = true;
        match self.mode {
            Mode::Plain => write(&self.plain.take(&self.model, news)),
            Mode::RawJson => write(&raw(news)),
            Mode::Tty | Mode::Quiet => Ok(()),
        }
    }

    /// Shows that time has passed.
    pub(super) fn tick(&mut self) -> Result<(), Failure> {
        if self.mode == Mode::Tty { self.draw() } else { Ok(()) }
    }

    /// Shows the end of it.
    pub(super) fn end(&mut self) -> Result<(), Failure> {
        self.model.ended = Some(SystemTime::now());
        match self.mode {
            Mode::Plain => write(&self.plain.end(&self.model)),
            Mode::Tty => self.draw(),
            Mode::RawJson | Mode::Quiet => Ok(()),
        }
    }

    fn draw(&mut self) -> Result<(), Failure> {
        if !self.is_dirty && self.model.is_idle() {
            return Ok(());
        }
        self.is_dirty = false;
        let (width, height) = terminal::size().unwrap_or((80, 24));
        let has_colour = std::env::var_os("NO_COLOR").is_none();
        let room = frame::Room { width: width.into(), height: height.into(), has_colour };
        let lines = frame::frame(&self.model, room, SystemTime::now());
        let mut text = String::new();
        if self.drawn > 0 {
            text.push_str(&format!("\x1b[{}A", self.drawn));
        }
        for line in &lines {
            text.push_str(&format!("\x1b[2K{line}\n"));
        }
        // What was longer before is wiped.
        text.push_str("\x1b[J");
        self.drawn = lines.len();
        write(&text)
    }

    /// Shows what is known about a failure: the step's last output, the piece of the Dockerfile.
    pub(super) fn fail(&mut self, failure: &BuildFailure, is_debug: bool) -> Result<(), Failure> {
        self.warnings(is_debug)?;
        if self.mode == Mode::RawJson {
            return Ok(());
        }
        let mut text = String::new();
        if let Some(vertex) = self.model.failed() {
            text.push_str(&format!("------\n > {}:\n", vertex.name));
            for line in &vertex.tail {
                text.push_str(line);
                text.push('\n');
            }
            text.push_str("------\n");
        }
        for (name, source, first, last) in &failure.sources {
            text.push_str(&excerpt(name, source, &[(*first, *last)]));
        }
        write(&text)
    }

    /// Names the step that failed, with a space in front; nothing when no step did.
    pub(super) fn failed_step(&self) -> String {
        self.model.failed().map_or_else(String::new, |vertex| format!(" {}", vertex.name))
    }

    /// Shows the remarks about the Dockerfile, all of each when asked to.
    pub(super) fn warnings(&mut self, is_debug: bool) -> Result<(), Failure> {
        let warnings = std::mem::take(&mut self.model.warnings);
        if warnings.is_empty() || matches!(self.mode, Mode::Quiet | Mode::RawJson) {
            return Ok(());
        }
        let hint = if is_debug { "" } else { " (use docker --debug to expand)" };
        let plural = if warnings.len() == 1 { "warning" } else { "warnings" };
        let mut text = format!("\n {} {plural} found{hint}:\n", warnings.len());
        for warning in warnings {
            text.push_str(&format!(" - {}\n", warning.short));
            if !is_debug {
                continue;
            }
            for line in &warning.detail {
                text.push_str(&format!("{line}\n"));
            }
            if !warning.url.is_empty() {
                text.push_str(&format!("More info: {}\n", warning.url));
            }
            if let Some((name, source)) = &warning.file {
                text.push_str(&excerpt(name, source, &warning.ranges));
            }
            text.push('\n');
        }
        write(&text)
    }
}

fn write(text: &str) -> Result<(), Failure> {
    if text.is_empty() {
        return Ok(());
    }
    let mut out = std::io::stderr().lock();
    out.write_all(text.as_bytes())?;
    Ok(out.flush()?)
}

/// The lines of a file around ranges, as builders show them.
pub(super) fn excerpt(name: &str, source: &str, ranges: &[(u32, u32)]) -> String {
    let lines: Vec<&str> = source.split('\n').collect();
    let first = ranges.iter().map(|(first, _)| *first as usize).min().unwrap_or_default();
    let last = ranges.iter().map(|(_, last)| *last as usize).max().unwrap_or_default();
    if first == 0 || first > lines.len() {
        return String::new();
    }
    let (mut start, mut end) = (first, last.clamp(first, lines.len()));
    let pad = if start == end { 4 } else { 2 };
    let mut added = 0;
    while added < pad {
        if start > 1 {
            start -= 1;
            added += 1;
        }
        if end != lines.len() {
            end += 1;
            added += 1;
        }
        added += 1;
    }
    let rule = "--------------------\n";
    let mut text = format!("{name}:{first}\n{rule}");
    for number in start..=end {
        let hit = |(first, last): &(u32, u32)| (*first as usize..=*last as usize).contains(&number);
        let mark = if ranges.iter().any(hit) { ">>>" } else { "   " };
        text.push_str(&format!(" {number:3} | {mark} {}\n", lines[number - 1]));
    }
    text + rule
}

/// News as a document, by BuildKit's names.
fn raw(news: &News) -> String {
    use base64_text as encoded;
    let at = |time: &SystemTime| {
        jiff::Timestamp::try_from(*time).map(|time| time.to_string()).unwrap_or_default()
    };
    let times = |started: &Option<SystemTime>, completed: &Option<SystemTime>| {
        (started.as_ref().map(at), completed.as_ref().map(at))
    };
    let mut document = serde_json::Map::new();
    let vertices = news.vertices.iter().map(|vertex| {
        let (started, completed) = times(&vertex.started, &vertex.completed);
        compact(json!({
            "digest": vertex.digest, "inputs": vertex.inputs, "name": vertex.name, "started": started,
            "completed": completed, "cached": vertex.cached.then_some(true), "error": vertex.error,
        }))
    });
    let statuses = news.statuses.iter().map(|status| {
        let (started, completed) = times(&status.started, &status.completed);
        let mut shown = compact(json!({
            "id": status.id, "vertex": status.vertex, "name": status.name, "total": status.total,
            "timestamp": status.at.as_ref().map(at), "started": started, "completed": completed,
        }));
        shown["current"] = json!(status.current);
        shown
    });
    let logs = news.logs.iter().map(|log| {
        json!({
            "vertex": log.vertex, "stream": log.stream, "data": encoded(&log.data), "timestamp": at(&log.at),
        })
    });
    let warnings = news.warnings.iter().map(|warning| {
        compact(json!({
            "vertex": warning.vertex, "level": 1, "short": encoded(warning.short.as_bytes()),
            "detail": warning.detail.iter().map(|line| encoded(line.as_bytes())).collect::<Vec<_>>(),
            "url": warning.url,
        }))
    });
    let parts: [(&str, Vec<serde_json::Value>); 4] = [
        ("vertexes", vertices.collect()),
        ("statuses", statuses.collect()),
        ("logs", logs.collect()),
        ("warnings", warnings.collect()),
    ];
    for (name, part) in parts.into_iter().filter(|(_, part)| !part.is_empty()) {
        document.insert(name.to_owned(), part.into());
    }
    format!("{}\n", serde_json::Value::from(document))
}

/// Leaves out what is empty.
fn compact(mut value: serde_json::Value) -> serde_json::Value {
    if let Some(map) = value.as_object_mut() {
        map.retain(|_, value| match value {
            serde_json::Value::Null => false,
            serde_json::Value::String(text) => !text.is_empty(),
            serde_json::Value::Array(list) => !list.is_empty(),
            serde_json::Value::Number(number) => number.as_u64() != Some(0),
            _ => true,
        });
    }
    value
}

fn base64_text(bytes: &[u8]) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

#[cfg(test)]
mod tests;
