//! The client's end: starts builds, watches them, and lends them what they need.

mod blobs;
mod lend;
mod services;
mod shell;

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures_util::StreamExt as _;
use rorqual_build::Error;
use tokio_stream::Stream;
use tonic::Status;

pub use lend::{CredentialSource, Lending, OutputTarget, StreamTarget};
pub use shell::{ShellInput, ShellNews};

use crate::backend::{CacheEntry, CacheRecord, Export, PruneRequest};
use crate::status::Failure;
use crate::transport::{Caller, Duplex, LARGEST_MESSAGE};
use crate::wire::control::{self, control_client::ControlClient};
use crate::wire::gateway::llb_bridge_client::LlbBridgeClient;
use crate::wire::{Timestamp, pb};

/// A connection to a builder.
#[derive(Clone)]
pub struct Client {
    control: ControlClient<Caller>,
    gateway: LlbBridgeClient<Caller>,
}

/// A build that is asked for.
#[derive(Clone, Debug, Default)]
pub struct BuildRequest {
    /// Name of the build, drawn by the client.
    pub id: String,
    /// Identity of the session that lends to it.
    pub session: String,
    /// Options of the Dockerfile front end.
    pub options: BTreeMap<String, String>,
    /// Outputs.
    pub exports: Vec<Export>,
    /// Where results may be taken from.
    pub cache_imports: Vec<CacheEntry>,
    /// Where they go.
    pub cache_exports: Vec<CacheEntry>,
    /// What it may ask for beyond the usual.
    pub entitlements: Vec<String>,
    /// Not to be listed among past builds: a question, not a build.
    pub is_internal: bool,
}

/// A batch of news of a build.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct News {
    /// Steps that began, ended, or were found in the cache.
    pub vertices: Vec<VertexNews>,
    /// Work inside steps.
    pub statuses: Vec<StatusNews>,
    /// What steps wrote.
    pub logs: Vec<LogNews>,
    /// Remarks.
    pub warnings: Vec<WarningNews>,
}

/// How a step stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VertexNews {
    /// Identity.
    pub digest: String,
    /// Those of its inputs.
    pub inputs: Vec<String>,
    /// Label.
    pub name: String,
    /// Began.
    pub started: Option<SystemTime>,
    /// Ended.
    pub completed: Option<SystemTime>,
    /// Nothing had to be done.
    pub cached: bool,
    /// Why it failed.
    pub error: String,
}

/// How a piece of work inside a step stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StatusNews {
    /// What.
    pub id: String,
    /// Of which step.
    pub vertex: String,
    /// Label, may be empty.
    pub name: String,
    /// Done.
    pub current: u64,
    /// Of how much, zero when unknown.
    pub total: u64,
    /// Said at.
    pub at: Option<SystemTime>,
    /// Began.
    pub started: Option<SystemTime>,
    /// Ended.
    pub completed: Option<SystemTime>,
}

/// What a step wrote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogNews {
    /// Which step.
    pub vertex: String,
    /// 1 or 2.
    pub stream: u8,
    /// When.
    pub at: SystemTime,
    /// What.
    pub data: Vec<u8>,
}

/// A remark about the Dockerfile.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WarningNews {
    /// About which step, may be empty.
    pub vertex: String,
    /// In a line.
    pub short: String,
    /// More.
    pub detail: Vec<String>,
    /// Where to read on.
    pub url: String,
    /// File and its text, to show the lines of.
    pub file: Option<(String, String)>,
    /// First and last lines.
    pub ranges: Vec<(u32, u32)>,
}

/// A build that is over or going on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PastBuild {
    /// Name.
    pub id: String,
    /// Options of its front end.
    pub options: BTreeMap<String, String>,
    /// Began.
    pub created: Option<SystemTime>,
    /// Ended.
    pub completed: Option<SystemTime>,
    /// Why it failed.
    pub error: Option<String>,
    /// Steps: all, cached.
    pub steps: (u32, u32),
}

fn time(wire: Timestamp) -> SystemTime {
    let since = Duration::new(
        u64::try_from(wire.seconds).unwrap_or_default(),
        u32::try_from(wire.nanos).unwrap_or_default().min(999_999_999),
    );
    UNIX_EPOCH.checked_add(since).unwrap_or(UNIX_EPOCH)
}

impl From<control::StatusResponse> for News {
    fn from(wire: control::StatusResponse) -> Self {
        Self {
            vertices: wire.vertexes.into_iter().map(vertex).collect(),
            statuses: wire.statuses.into_iter().map(piece).collect(),
            logs: wire
                .logs
                .into_iter()
                .map(|log| LogNews {
                    vertex: log.vertex,
                    stream: u8::try_from(log.stream).unwrap_or(1),
                    at: log.timestamp.map_or(UNIX_EPOCH, time),
                    data: log.msg,
                })
                .collect(),
            warnings: wire.warnings.into_iter().map(warning).collect(),
        }
    }
}

fn vertex(wire: control::Vertex) -> VertexNews {
    VertexNews {
        digest: wire.digest,
        inputs: wire.inputs,
        name: wire.name,
        started: wire.started.map(time),
        completed: wire.completed.map(time),
        cached: wire.cached,
        error: wire.error,
    }
}

fn piece(wire: control::VertexStatus) -> StatusNews {
    StatusNews {
        id: wire.id,
        vertex: wire.vertex,
        name: wire.name,
        current: u64::try_from(wire.current).unwrap_or_default(),
        total: u64::try_from(wire.total).unwrap_or_default(),
        at: wire.timestamp.map(time),
        started: wire.started.map(time),
        completed: wire.completed.map(time),
    }
}

fn warning(wire: control::VertexWarning) -> WarningNews {
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    let line = |position: Option<pb::Position>| {
        position.and_then(|position| u32::try_from(position.line).ok()).unwrap_or_default()
    };
    let ranges = wire.ranges.iter().map(|range| (line(range.start), line(range.end)));
    WarningNews {
        vertex: wire.vertex,
        short: text(wire.short),
        detail: wire.detail.into_iter().map(text).collect(),
        url: wire.url,
        ranges: ranges.map(|(first, last)| (first, last.max(first))).collect(),
        file: wire.info.map(|info| (info.filename, text(info.data))),
    }
}

impl Client {
    /// Speaks to a builder on a connection that it has taken over (`POST /grpc`).
    ///
    /// # Errors
    ///
    /// When the other end does not speak HTTP/2.
    pub async fn new(io: impl Duplex) -> Result<Self, Error> {
        let (caller, connection) = Caller::new(io).await.map_err(|error| Error::Other {
            action: "speak to the builder".to_owned(),
            kind: rorqual_core::ErrorKind::Unavailable,
            source: error.into(),
        })?;
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "the connection to the builder ended");
            }
        });
        let gateway = LlbBridgeClient::new(caller.clone());
        let control = ControlClient::new(caller)
            .max_decoding_message_size(LARGEST_MESSAGE)
            .max_encoding_message_size(LARGEST_MESSAGE);
        Ok(Self { control, gateway })
    }

    /// Runs a build to its end; dropping the future stops it.
    ///
    /// # Errors
    ///
    /// What the builder says.
    pub async fn build(&self, build: BuildRequest) -> Result<BTreeMap<String, String>, Failure> {
        let entries = |entries: Vec<CacheEntry>| {
            let entry = |entry: CacheEntry| control::CacheOptionsEntry {
                r#type: entry.kind,
                attrs: entry.attrs.into_iter().collect(),
            };
            entries.into_iter().map(entry).collect()
        };
        let exporter = |export: Export| control::Exporter {
            r#type: export.kind,
            attrs: export.attrs.into_iter().collect(),
        };
        let request = control::SolveRequest {
            r#ref: build.id,
            session: build.session,
            frontend: "dockerfile.v0".to_owned(),
            frontend_attrs: build.options.into_iter().collect(),
            cache: Some(control::CacheOptions {
                exports: entries(build.cache_exports),
                imports: entries(build.cache_imports),
                ..control::CacheOptions::default()
            }),
            entitlements: build.entitlements,
            internal: build.is_internal,
            exporters: build.exports.into_iter().map(exporter).collect(),
            ..control::SolveRequest::default()
        };
        let answer = self.control.clone().solve(request).await;
        let answer = answer.map_err(|status| Failure::new(&status))?.into_inner();
        Ok(answer.exporter_response.into_iter().collect())
    }

    /// The news of a build.
    ///
    /// # Errors
    ///
    /// When the builder does not know it.
    pub async fn news(
        &self,
        id: &str,
    ) -> Result<impl Stream<Item = Result<News, Failure>> + Send + use<>, Failure> {
        let request = control::StatusRequest { r#ref: id.to_owned() };
        let answer = self.control.clone().status(request).await;
        let stream = answer.map_err(|status| Failure::new(&status))?.into_inner();
        let told = |batch: Result<control::StatusResponse, Status>| {
            batch.map(News::from).map_err(|status| Failure::new(&status))
        };
        Ok(stream.map(told))
    }

    /// Lists what is kept for later builds.
    ///
    /// # Errors
    ///
    /// When a filter is wrong.
    pub async fn usage(&self, filters: Vec<String>) -> Result<Vec<CacheRecord>, Failure> {
        let request =
            control::DiskUsageRequest { filter: filters, ..control::DiskUsageRequest::default() };
        let answer = self.control.clone().disk_usage(request).await;
        let answer = answer.map_err(|status| Failure::new(&status))?.into_inner();
        Ok(answer.record.into_iter().map(record).collect())
    }

    /// Removes from what is kept for later builds; returns what went.
    ///
    /// # Errors
    ///
    /// When a filter is wrong or something cannot be removed.
    pub async fn prune(&self, request: PruneRequest) -> Result<Vec<CacheRecord>, Failure> {
        let signed = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        let request = control::PruneRequest {
            filter: request.filters,
            all: request.all,
            keep_duration: signed(request.keep_seconds).saturating_mul(1_000_000_000),
            reserved_space: signed(request.reserved),
            max_used_space: signed(request.max_used),
            min_free_space: signed(request.min_free),
        };
        let answer = self.control.clone().prune(request).await;
        let mut stream = answer.map_err(|status| Failure::new(&status))?.into_inner();
        let mut removed = Vec::new();
        loop {
            match stream.message().await {
                Ok(Some(wire)) => removed.push(record(wire)),
                Ok(None) => return Ok(removed),
                Err(status) => return Err(Failure::new(&status)),
            }
        }
    }

    /// Lists builds, oldest first.
    ///
    /// # Errors
    ///
    /// When the builder has no history.
    pub async fn history(&self) -> Result<Vec<PastBuild>, Failure> {
        let request = control::BuildHistoryRequest {
            early_exit: true,
            ..control::BuildHistoryRequest::default()
        };
        let answer = self.control.clone().listen_build_history(request).await;
        let mut stream = answer.map_err(|status| Failure::new(&status))?.into_inner();
        let mut builds = Vec::new();
        while let Some(event) = stream.message().await.map_err(|status| Failure::new(&status))? {
            builds.extend(event.record.map(past_build));
        }
        Ok(builds)
    }
}

fn past_build(wire: control::BuildHistoryRecord) -> PastBuild {
    let count = |number: i32| u32::try_from(number).unwrap_or_default();
    PastBuild {
        id: wire.r#ref,
        options: wire.frontend_attrs.into_iter().collect(),
        created: wire.created_at.map(time),
        completed: wire.completed_at.map(time),
        error: wire.error.map(|error| error.message),
        steps: (count(wire.num_total_steps), count(wire.num_cached_steps)),
    }
}

fn record(wire: control::UsageRecord) -> CacheRecord {
    CacheRecord {
        id: wire.id,
        size: u64::try_from(wire.size).unwrap_or_default(),
        parents: wire.parents,
        kind: wire.record_type,
        description: wire.description,
        is_mutable: wire.mutable,
        is_in_use: wire.in_use,
        is_shared: wire.shared,
        created: wire.created_at.map(time),
        used: wire.last_used_at.map(time),
        uses: u64::try_from(wire.usage_count).unwrap_or_default(),
    }
}

/// Draws a name for a build or a session.
pub fn new_id() -> String {
    crate::random_id()
}
