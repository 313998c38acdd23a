//! The steps of a build and how they stand.

use std::collections::{BTreeMap, VecDeque};
use std::time::SystemTime;

use rorqual_buildkit::{LogNews, News, StatusNews, VertexNews, WarningNews};

/// LIMIT: lines of a step that are kept to be shown when it fails.
const TAIL: usize = 20;
/// LIMIT: a line of output; longer ones are cut.
const LONGEST_LINE: usize = 4096;

/// A step.
#[derive(Clone, Debug, Default)]
pub(super) struct Vertex {
    pub(super) name: String,
    /// When its work began; a step may be told of several times.
    pub(super) started: Option<SystemTime>,
    pub(super) completed: Option<SystemTime>,
    pub(super) cached: bool,
    pub(super) error: String,
    pub(super) statuses: Vec<StatusNews>,
    /// Its last lines.
    pub(super) tail: VecDeque<String>,
    partial: String,
}

impl Vertex {
    fn log(&mut self, data: &[u8]) {
        self.partial.push_str(&String::from_utf8_lossy(data));
        while let Some(at) = self.partial.find('\n') {
            let rest = self.partial.split_off(at + 1);
            let mut line = std::mem::replace(&mut self.partial, rest);
            line.truncate(line.trim_end_matches(['\n', '\r']).len());
            self.line(line);
        }
        if self.partial.len() > LONGEST_LINE {
            let line = std::mem::take(&mut self.partial);
            self.line(line);
        }
    }

    fn line(&mut self, line: String) {
        if self.tail.len() == TAIL {
            self.tail.pop_front();
        }
        self.tail.push_back(line);
    }
}

/// All steps, numbered as they were first heard of.
#[derive(Clone, Debug, Default)]
pub(super) struct Model {
    pub(super) began: Option<SystemTime>,
    pub(super) ended: Option<SystemTime>,
    pub(super) vertices: Vec<Vertex>,
    pub(super) warnings: Vec<WarningNews>,
    numbers: BTreeMap<String, usize>,
}

impl Model {
    /// Takes news in.
    pub(super) fn take(&mut self, news: &News) {
        for vertex in &news.vertices {
            self.vertex(vertex);
        }
        for status in &news.statuses {
            self.status(status);
        }
        for log in &news.logs {
            self.log(log);
        }
        self.warnings.extend(news.warnings.iter().cloned());
    }

    /// The number of a step, by its identity.
    pub(super) fn number(&self, digest: &str) -> Option<usize> {
        self.numbers.get(digest).copied()
    }

    /// The first step that failed on its own.
    pub(super) fn failed(&self) -> Option<&Vertex> {
        let failed = |vertex: &&Vertex| !vertex.error.is_empty() && !is_cancelled(&vertex.error);
        self.vertices.iter().find(failed)
    }

    /// Steps that ended, and all that were heard of.
    pub(super) fn counts(&self) -> (usize, usize) {
        let done = self.vertices.iter().filter(|vertex| vertex.completed.is_some()).count();
        (done, self.vertices.len())
    }

    /// Nothing goes on whose time would have to be shown.
    pub(super) fn is_idle(&self) -> bool {
        self.ended.is_some()
    }

    fn vertex(&mut self, news: &VertexNews) {
        let next = self.vertices.len();
        let number = *self.numbers.entry(news.digest.clone()).or_insert(next);
        if number == next {
            self.vertices.push(Vertex::default());
        }
        let vertex = &mut self.vertices[number];
        vertex.name.clone_from(&news.name);
        vertex.started = news.started.or(vertex.started);
        // Told of anew without an end: it goes on.
        vertex.completed = news.completed;
        vertex.cached = news.cached;
        vertex.error.clone_from(&news.error);
    }

    fn status(&mut self, news: &StatusNews) {
        let Some(vertex) = self.of(&news.vertex) else { return };
        match vertex.statuses.iter_mut().find(|status| status.id == news.id) {
            Some(status) => *status = news.clone(),
            None => vertex.statuses.push(news.clone()),
        }
    }

    fn log(&mut self, news: &LogNews) {
        if let Some(vertex) = self.of(&news.vertex) {
            vertex.log(&news.data);
        }
    }

    fn of(&mut self, digest: &str) -> Option<&mut Vertex> {
        let number = self.number(digest)?;
        self.vertices.get_mut(number)
    }
}

/// A step that was stopped because another one failed.
pub(super) fn is_cancelled(error: &str) -> bool {
    error.contains("context canceled") || error.contains("was canceled")
}

/// Seconds between two points, never negative.
pub(super) fn seconds(from: SystemTime, to: SystemTime) -> f64 {
    to.duration_since(from).unwrap_or_default().as_secs_f64()
}

/// `extracting sha256:… 1.2MB / 3MB`
pub(super) fn describe(status: &StatusNews) -> String {
    let size = |bytes| super::super::size(bytes);
    let name = if status.name.is_empty() { &status.id } else { &status.name };
    match (status.current, status.total) {
        (0, 0) => name.clone(),
        (current, 0) => format!("{name} {}", size(current)),
        (current, total) => format!("{name} {} / {}", size(current), size(total)),
    }
}
