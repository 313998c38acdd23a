//! What happens in a build, kept for those who ask late and told to those who listen.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use rorqual_build::{LogStream, Progress, ProgressSink, StatusUpdate, VertexUpdate};
use tokio::sync::Notify;

use crate::status::{Sources, wire_location};
use crate::wire::{Timestamp, control, pb};

/// LIMIT: news that are kept of one build, in entries and in bytes of output. Who listens from the start gets all;
/// who comes late, or is slower than that, misses the oldest output, never the state of a vertex.
const MOST_NEWS: usize = 65_536;
const MOST_BYTES: usize = 4 << 20;
/// LIMIT: what one message to a client has.
const BATCH_NEWS: usize = 512;
const BATCH_BYTES: usize = 1 << 20;

struct Feed {
    first: u64,
    news: VecDeque<Progress>,
    bytes: usize,
    /// The last of each vertex that was dropped from `news`.
    settled: BTreeMap<String, VertexUpdate>,
    is_ended: bool,
}

/// The progress of one build.
pub(crate) struct ProgressLog {
    feed: Mutex<Feed>,
    changed: Notify,
}

/// How a build went, in numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) total: i32,
    pub(crate) completed: i32,
    pub(crate) cached: i32,
    pub(crate) warnings: i32,
}

impl ProgressLog {
    pub(crate) fn new() -> Self {
        let feed = Feed {
            first: 0,
            news: VecDeque::new(),
            bytes: 0,
            settled: BTreeMap::new(),
            is_ended: false,
        };
        Self { feed: Mutex::new(feed), changed: Notify::new() }
    }

    /// Says that nothing more will come.
    pub(crate) fn end(&self) {
        self.lock().is_ended = true;
        self.changed.notify_waiters();
    }

    /// Waits for news after `at`; `None` when there will be none. The second value is where to go on.
    pub(crate) async fn next(
        &self,
        at: u64,
        sources: &Sources,
    ) -> Option<(control::StatusResponse, u64)> {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            {
                let feed = self.lock();
                if let Some(found) = feed.batch(at, sources) {
                    return Some(found);
                }
                if feed.is_ended {
                    return None;
                }
            }
            changed.await;
        }
    }

    /// Counts vertices and warnings.
    pub(crate) fn counts(&self) -> Counts {
        let feed = self.lock();
        let mut vertices: BTreeMap<String, &VertexUpdate> =
            feed.settled.iter().map(|(digest, vertex)| (digest.clone(), vertex)).collect();
        let mut counts = Counts::default();
        for news in &feed.news {
            match news {
                Progress::Vertex(vertex) => {
                    vertices.insert(vertex.digest.to_string(), vertex);
                }
                Progress::Warning { .. } => counts.warnings += 1,
                _ => {}
            }
        }
        counts.total = vertices.len() as i32;
        let done = vertices.values().filter(|vertex| vertex.completed.is_some());
        counts.completed = done.count() as i32;
        counts.cached = vertices.values().filter(|vertex| vertex.cached).count() as i32;
        counts
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Feed> {
        self.feed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ProgressSink for ProgressLog {
    fn tell(&self, progress: Progress) {
        self.lock().push(progress);
        self.changed.notify_waiters();
    }
}

impl Feed {
    fn push(&mut self, progress: Progress) {
        self.bytes += weight(&progress);
        self.news.push_back(progress);
        while self.news.len() > MOST_NEWS || self.bytes > MOST_BYTES {
            let Some(dropped) = self.news.pop_front() else { break };
            self.bytes -= weight(&dropped);
            self.first += 1;
            if let Progress::Vertex(vertex) = dropped {
                self.settled.insert(vertex.digest.to_string(), vertex);
            }
        }
    }

    fn batch(&self, at: u64, sources: &Sources) -> Option<(control::StatusResponse, u64)> {
        let mut batch = control::StatusResponse::default();
        let missed = at < self.first;
        if missed {
            batch.vertexes.extend(self.settled.values().map(wire_vertex));
        }
        let start = usize::try_from(at.max(self.first) - self.first).ok()?;
        let (mut count, mut bytes) = (0, 0);
        for news in self.news.iter().skip(start) {
            if count >= BATCH_NEWS || bytes >= BATCH_BYTES {
                break;
            }
            bytes += weight(news);
            count += 1;
            add(&mut batch, news, sources);
        }
        (missed || count > 0).then(|| (batch, at.max(self.first) + count as u64))
    }
}

/// Bytes that count against the bound.
fn weight(progress: &Progress) -> usize {
    match progress {
        Progress::Log { data, .. } => data.len(),
        _ => 0,
    }
}

fn add(batch: &mut control::StatusResponse, news: &Progress, sources: &Sources) {
    match news {
        Progress::Vertex(vertex) => batch.vertexes.push(wire_vertex(vertex)),
        Progress::Status(status) => batch.statuses.push(wire_status(status)),
        Progress::Log { vertex, stream, data, at } => batch.logs.push(control::VertexLog {
            vertex: vertex.to_string(),
            timestamp: Some(timestamp(*at)),
            stream: match stream {
                LogStream::Stdout => 1,
                LogStream::Stderr => 2,
            },
            msg: data.clone(),
        }),
        Progress::Warning { vertex, short, detail, url, location } => {
            let (info, ranges) = location
                .as_ref()
                .map_or_else(|| (None, Vec::new()), |location| wire_location(location, sources));
            batch.warnings.push(control::VertexWarning {
                vertex: vertex.as_ref().map(ToString::to_string).unwrap_or_default(),
                level: 1,
                short: short.clone().into_bytes(),
                detail: detail.iter().map(|line| line.clone().into_bytes()).collect(),
                url: url.clone(),
                info,
                ranges,
            });
        }
    }
}

fn wire_vertex(vertex: &VertexUpdate) -> control::Vertex {
    control::Vertex {
        digest: vertex.digest.to_string(),
        inputs: vertex.inputs.iter().map(ToString::to_string).collect(),
        name: vertex.name.clone(),
        cached: vertex.cached,
        started: vertex.started.map(timestamp),
        completed: vertex.completed.map(timestamp),
        error: vertex.error.clone(),
        progress_group: None::<pb::ProgressGroup>,
    }
}

fn wire_status(status: &StatusUpdate) -> control::VertexStatus {
    control::VertexStatus {
        id: status.id.clone(),
        vertex: status.vertex.to_string(),
        name: status.name.clone(),
        current: i64::try_from(status.current).unwrap_or(i64::MAX),
        total: i64::try_from(status.total).unwrap_or(i64::MAX),
        timestamp: Some(timestamp(SystemTime::now())),
        started: status.started.map(timestamp),
        completed: status.completed.map(timestamp),
    }
}

/// A point in time on the wire.
pub(crate) fn timestamp(time: SystemTime) -> Timestamp {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp {
        seconds: i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
        nanos: since.subsec_nanos() as i32,
    }
}

#[cfg(test)]
mod tests;
