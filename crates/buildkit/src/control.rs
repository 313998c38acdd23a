//! The control service: starting builds, watching them, the cache, the history.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::pin::Pin;
use std::sync::Arc;
use std::time::SystemTime;

use async_trait::async_trait;
use rorqual_build::Error;
use tokio_stream::Stream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

use crate::backend::{
    CacheEntry, CacheRecord, Export, ExportRequest, Outcome, PruneRequest, Scope, Worker,
};
use crate::frontend::{Question, answer};
use crate::jobs::Job;
use crate::llb;
use crate::progress::{ProgressLog, timestamp};
use crate::server::Server;
use crate::session::Greeting;
use crate::status::status;
use crate::tunnel;
use crate::wire::control::{self, BuildHistoryEventType, control_server::Control};
use crate::wire::{RpcStatus, types};

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// LIMIT: outputs and caches of one build.
const MOST_EXPORTS: usize = 64;

pub(crate) fn sorted<V>(map: HashMap<String, V>) -> BTreeMap<String, V> {
    map.into_iter().collect()
}

fn worker_record(worker: Worker) -> types::WorkerRecord {
    types::WorkerRecord {
        id: worker.id,
        labels: worker.labels.into_iter().collect(),
        platforms: worker.platforms.iter().map(llb::wire_platform).collect(),
        gc_policy: Vec::new(),
        buildkit_version: Some(version(worker.version)),
        cdi_devices: Vec::new(),
    }
}

fn version(version: String) -> types::BuildkitVersion {
    types::BuildkitVersion {
        package: "rorqual".to_owned(),
        version: format!("v{version}"),
        revision: String::new(),
    }
}

fn usage_record(record: CacheRecord) -> control::UsageRecord {
    let mut wire = control::UsageRecord {
        id: record.id,
        mutable: record.is_mutable,
        in_use: record.is_in_use,
        size: i64::try_from(record.size).unwrap_or(i64::MAX),
        created_at: record.created.map(timestamp),
        last_used_at: record.used.map(timestamp),
        usage_count: i64::try_from(record.uses).unwrap_or(i64::MAX),
        description: record.description,
        record_type: record.kind,
        shared: record.is_shared,
        ..control::UsageRecord::default()
    };
    wire.parents = record.parents;
    wire
}

fn failed(error: &Error) -> Status {
    status(error, &crate::status::Sources::new())
}

/// Brings requests of old clients into the form of new ones.
fn modernise(request: &mut control::SolveRequest) {
    if request.exporters.is_empty() && !request.exporter_deprecated.is_empty() {
        request.exporters.push(control::Exporter {
            r#type: std::mem::take(&mut request.exporter_deprecated),
            attrs: std::mem::take(&mut request.exporter_attrs_deprecated),
        });
    }
    let Some(cache) = &mut request.cache else { return };
    if !cache.export_ref_deprecated.is_empty() {
        let mut attrs = std::mem::take(&mut cache.export_attrs_deprecated);
        attrs.insert("ref".to_owned(), std::mem::take(&mut cache.export_ref_deprecated));
        cache.exports.push(control::CacheOptionsEntry { r#type: "registry".to_owned(), attrs });
    }
    for reference in std::mem::take(&mut cache.import_refs_deprecated) {
        let attrs = HashMap::from([("ref".to_owned(), reference)]);
        cache.imports.push(control::CacheOptionsEntry { r#type: "registry".to_owned(), attrs });
    }
}

fn cache_entries(entries: Vec<control::CacheOptionsEntry>) -> Vec<CacheEntry> {
    let entry = |entry: control::CacheOptionsEntry| CacheEntry {
        kind: entry.r#type,
        attrs: sorted(entry.attrs),
    };
    entries.into_iter().map(entry).collect()
}

impl Server {
    /// Runs a build as a client's call does; dropping the future stops it.
    ///
    /// # Errors
    ///
    /// What made it fail, as clients are told.
    pub(crate) async fn build(
        &self,
        mut request: control::SolveRequest,
    ) -> Result<BTreeMap<String, String>, Status> {
        modernise(&mut request);
        check(&request)?;
        let session = match request.session.as_str() {
            "" => None,
            id => Some(self.sessions().wait(id).await.map_err(|error| failed(&error))?),
        };
        let log = Arc::new(ProgressLog::new());
        let entitlements: BTreeSet<String> = request.entitlements.iter().cloned().collect();
        let mut scope = Scope::new(
            request.r#ref.clone(),
            session,
            Arc::clone(&log) as _,
            CancellationToken::new(),
            entitlements,
        );
        scope.explain = request.frontend_attrs.remove("rorqual.why").is_some();
        let keeps = request.frontend_attrs.remove("rorqual.keep-failed").is_some();
        scope.failed = keeps.then(Arc::default);
        let (job, returned) = Job::new(scope, Arc::clone(&log));
        let job = Arc::new(job);
        let going = self.jobs().begin(Arc::clone(&job))?;
        let is_recorded = !request.internal;
        if is_recorded {
            self.history().begin(Self::record(&request), Arc::clone(&log));
        }
        // When the client goes away this future is dropped: the guard writes the end of the record then.
        let record = Record { server: self, id: request.r#ref.clone(), log, is_recorded };
        let gone = job.scope.session.as_ref().map(|session| session.closed());
        let gone = async move {
            match gone {
                Some(gone) => gone.cancelled().await,
                None => std::future::pending().await,
            }
        };
        let result = tokio::select! {
            result = self.perform(&job, request, returned) => result,
            () = gone => Err(Status::cancelled("the client went away")),
        };
        record.end(&result);
        if let (Some(session), Some(slot)) = (&job.scope.session, &job.scope.failed)
            && result.is_err()
            && let Some(step) = slot.take()
        {
            session.keep_failed(step);
        }
        drop(going);
        result
    }

    async fn perform(
        &self,
        job: &Job,
        request: control::SolveRequest,
        returned: tokio::sync::oneshot::Receiver<crate::jobs::Returned>,
    ) -> Result<BTreeMap<String, String>, Status> {
        let options = sorted(request.frontend_attrs);
        let cache = request.cache.unwrap_or_default();
        let is_driven = request.frontend.is_empty() && request.definition.is_none();
        let outcome: Outcome = if is_driven {
            // The client runs its own front end and tells how it ended.
            returned.await.unwrap_or_else(|_| Err(Status::cancelled("the build was canceled")))?
        } else {
            let question = Question {
                frontend: request.frontend,
                definition: request.definition,
                options: options.clone(),
                inputs: sorted(request.frontend_inputs),
                cache_imports: cache_entries(cache.imports),
            };
            answer(&**self.backend(), question, &job.scope).await?
        };
        let exports = request.exporters.into_iter().enumerate().map(|(id, exporter)| Export {
            id,
            kind: exporter.r#type,
            attrs: sorted(exporter.attrs),
        });
        let request = ExportRequest {
            exports: exports.filter(|export| !export.kind.is_empty()).collect(),
            cache_exports: cache_entries(cache.exports),
            options,
        };
        let is_question = request.options.contains_key("requestid");
        let exported = self.backend().export(&outcome, request, &job.scope).await;
        let mut told = exported.map_err(|error| status(&error, &job.scope.sources()))?;
        if is_question && !is_driven {
            let facts = outcome
                .metadata
                .into_iter()
                .filter(|(name, _)| name == "version" || name.starts_with("result."));
            told.extend(
                facts.map(|(name, value)| (name, String::from_utf8_lossy(&value).into_owned())),
            );
        }
        Ok(told)
    }

    fn record(request: &control::SolveRequest) -> control::BuildHistoryRecord {
        control::BuildHistoryRecord {
            r#ref: request.r#ref.clone(),
            frontend: match request.frontend.as_str() {
                "" => "dockerfile.v0".to_owned(),
                frontend => frontend.to_owned(),
            },
            frontend_attrs: request.frontend_attrs.clone(),
            exporters: request.exporters.clone(),
            created_at: Some(timestamp(SystemTime::now())),
            ..control::BuildHistoryRecord::default()
        }
    }
}

fn check(request: &control::SolveRequest) -> Result<(), Status> {
    if request.r#ref.is_empty() || request.r#ref.len() > 256 {
        return Err(Status::invalid_argument("a build needs a name of at most 256 characters"));
    }
    let caches =
        request.cache.as_ref().map_or(0, |cache| cache.exports.len() + cache.imports.len());
    if request.exporters.len() > MOST_EXPORTS || caches > MOST_EXPORTS {
        return Err(Status::invalid_argument(format!(
            "a build has more than {MOST_EXPORTS} outputs or caches"
        )));
    }
    if request.source_policy.as_ref().is_some_and(|policy| !policy.rules.is_empty()) {
        return Err(Status::unimplemented("source policies are not supported by this builder"));
    }
    Ok(())
}

/// Writes the end of a build's record, however it ends.
struct Record<'a> {
    server: &'a Server,
    id: String,
    log: Arc<ProgressLog>,
    is_recorded: bool,
}

impl Record<'_> {
    fn end(mut self, result: &Result<BTreeMap<String, String>, Status>) {
        match result {
            Ok(response) => self.write(None, response.clone()),
            Err(status) => {
                let error = RpcStatus {
                    code: status.code() as i32,
                    message: status.message().to_owned(),
                    details: Vec::new(),
                };
                self.write(Some(error), BTreeMap::new());
            }
        }
    }

    fn write(&mut self, error: Option<RpcStatus>, response: BTreeMap<String, String>) {
        if !std::mem::take(&mut self.is_recorded) {
            return;
        }
        let counts = self.log.counts();
        self.server.history().update(&self.id, BuildHistoryEventType::Complete, |record| {
            record.error = error;
            record.exporter_response = response.into_iter().collect();
            record.completed_at = Some(timestamp(SystemTime::now()));
            record.num_cached_steps = counts.cached;
            record.num_total_steps = counts.total;
            record.num_completed_steps = counts.completed;
            record.num_warnings = counts.warnings;
        });
    }
}

impl Drop for Record<'_> {
    fn drop(&mut self) {
        let code = tonic::Code::Cancelled as i32;
        let message = "the build was canceled".to_owned();
        self.write(Some(RpcStatus { code, message, details: Vec::new() }), BTreeMap::new());
    }
}

#[async_trait]
impl Control for Server {
    type PruneStream = Answers<control::UsageRecord>;
    type StatusStream = Answers<control::StatusResponse>;
    type SessionStream = Answers<control::BytesMessage>;
    type ListenBuildHistoryStream = Answers<control::BuildHistoryEvent>;

    async fn disk_usage(
        &self,
        request: Request<control::DiskUsageRequest>,
    ) -> Result<Response<control::DiskUsageResponse>, Status> {
        let filters = request.into_inner().filter;
        let records = self.backend().usage().await.map_err(|error| failed(&error))?;
        let matches = crate::filter::compile(&filters)?;
        let record =
            records.into_iter().filter(|record| matches(record)).map(usage_record).collect();
        Ok(Response::new(control::DiskUsageResponse { record }))
    }

    async fn prune(
        &self,
        request: Request<control::PruneRequest>,
    ) -> Result<Response<Self::PruneStream>, Status> {
        let request = request.into_inner();
        let positive = |number: i64| u64::try_from(number).unwrap_or_default();
        let request = PruneRequest {
            filters: request.filter,
            all: request.all,
            // Nanoseconds on the wire.
            keep_seconds: positive(request.keep_duration) / 1_000_000_000,
            reserved: positive(request.reserved_space),
            max_used: positive(request.max_used_space),
            min_free: positive(request.min_free_space),
        };
        let removed = self.backend().prune(request).await.map_err(|error| failed(&error))?;
        let records = removed.into_iter().map(|record| Ok(usage_record(record)));
        Ok(Response::new(Box::pin(tokio_stream::iter(records))))
    }

    async fn solve(
        &self,
        request: Request<control::SolveRequest>,
    ) -> Result<Response<control::SolveResponse>, Status> {
        let response = self.build(request.into_inner()).await?;
        let exporter_response = response.into_iter().collect();
        Ok(Response::new(control::SolveResponse { exporter_response }))
    }

    async fn status(
        &self,
        request: Request<control::StatusRequest>,
    ) -> Result<Response<Self::StatusStream>, Status> {
        let id = request.into_inner().r#ref;
        Ok(Response::new(self.watch(&id).await?))
    }

    async fn session(
        &self,
        request: Request<Streaming<control::BytesMessage>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let headers = request.metadata().clone().into_headers();
        let greeting = Greeting::from_headers(&headers).map_err(|error| failed(&error))?;
        let (io, messages) = tunnel::open(request.into_inner());
        let sessions = self.sessions().clone();
        tokio::spawn(async move {
            if let Err(error) = sessions.run(io, greeting).await {
                tracing::debug!(%error, "cannot serve a session");
            }
        });
        Ok(Response::new(Box::pin(messages)))
    }

    async fn list_workers(
        &self,
        _: Request<control::ListWorkersRequest>,
    ) -> Result<Response<control::ListWorkersResponse>, Status> {
        let record = vec![worker_record(self.backend().worker())];
        Ok(Response::new(control::ListWorkersResponse { record }))
    }

    async fn info(
        &self,
        _: Request<control::InfoRequest>,
    ) -> Result<Response<control::InfoResponse>, Status> {
        let buildkit_version = Some(version(self.backend().worker().version));
        Ok(Response::new(control::InfoResponse { buildkit_version }))
    }

    async fn listen_build_history(
        &self,
        request: Request<control::BuildHistoryRequest>,
    ) -> Result<Response<Self::ListenBuildHistoryStream>, Status> {
        let request = request.into_inner();
        let (mut now, later) = self.history().listen(&request.r#ref, request.active_only);
        if request.limit > 0 {
            let surplus = now.len().saturating_sub(request.limit as usize);
            now.drain(..surplus);
        }
        let now = tokio_stream::iter(now.into_iter().map(Ok));
        if request.early_exit {
            return Ok(Response::new(Box::pin(now)));
        }
        let id = request.r#ref;
        let later = futures_util::stream::unfold(later, move |mut later| {
            let id = id.clone();
            async move {
                loop {
                    let event = later.recv().await.ok()?;
                    let record = event.record.as_ref();
                    if id.is_empty() || record.is_some_and(|record| record.r#ref == id) {
                        return Some((Ok(event), later));
                    }
                }
            }
        });
        Ok(Response::new(Box::pin(futures_util::StreamExt::chain(now, later))))
    }

    async fn update_build_history(
        &self,
        request: Request<control::UpdateBuildHistoryRequest>,
    ) -> Result<Response<control::UpdateBuildHistoryResponse>, Status> {
        let request = request.into_inner();
        let id = &request.r#ref;
        let found = if request.delete {
            self.history().remove(id)
        } else {
            // Finalizing writes traces, of which there are none.
            self.history().update(id, BuildHistoryEventType::Complete, |record| {
                if !request.finalize {
                    record.pinned = request.pinned;
                }
            })
        };
        if !found {
            return Err(Status::not_found(format!("no build record {id:?}: not found")));
        }
        Ok(Response::new(control::UpdateBuildHistoryResponse {}))
    }
}

impl Server {
    /// The news of a build that goes on or is over.
    pub(crate) async fn watch(&self, id: &str) -> Result<Answers<control::StatusResponse>, Status> {
        let known = self.jobs().find(id);
        let (log, scope) = match (known, self.history().log(id)) {
            (Some(job), _) => (Arc::clone(&job.log), Some(job.scope.clone())),
            (None, Some(log)) => (log, None),
            (None, None) => {
                let job = self.jobs().wait_any(id).await?;
                (Arc::clone(&job.log), Some(job.scope.clone()))
            }
        };
        let state = (log, scope, 0);
        Ok(Box::pin(futures_util::stream::unfold(state, |(log, scope, at)| async move {
            let sources = scope.as_ref().map(Scope::sources).unwrap_or_default();
            let (batch, next) = log.next(at, &sources).await?;
            Some((Ok(batch), (log, scope, next)))
        })))
    }
}
