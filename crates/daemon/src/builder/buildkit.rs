//! The builder as clients of BuildKit use it: front end, states, cache.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, OnceLock};
use std::time::SystemTime;

use async_trait::async_trait;
use rorqual_build::dockerfile::{
    ANSWER_VERSION, Answer, BuildContext, ContextKind, FileSource, FrontendInput,
    FrontendRequest as Question, FrontendResult, build_graph, context_kind, describe, lint,
    load_source, options_from_attributes, outline, remote_context, targets,
};
use rorqual_build::solver::{self, CacheEntry, Entitlement, Job};
use rorqual_build::{
    Error, GitReference, GitSource, HttpSource, ImageResolver, Input, Progress, ResolveMode,
    ResolvedImage, TreeEntry,
};
use rorqual_buildkit::{
    Backend, CacheRecord, ExportRequest, FrontendRequest, Outcome, PruneRequest, Refs, Scope,
    Sessions, State, Worker,
};
use rorqual_core::{Platform, Timestamp};
use rorqual_engine::Engine;
use rorqual_snapshot::TreeStat;
use serde_json::json;

use super::lookup::{Lookup, Task};
use super::{Builder, caches, outputs};
use crate::facts::Facts;

/// LIMIT: a file that a client reads from a state.
const LARGEST_FILE: u64 = 64 << 20;

/// Facts that go with an outcome, for our own exporters; clients hand them back as they are.
pub(super) const EPOCH: &str = "rorqual.source-date-epoch";
pub(super) const BASE_LAYERS: &str = "rorqual.base-layers";

/// The builder.
pub(crate) struct BuildKit {
    pub(super) builder: Builder,
    pub(super) engine: Engine,
    id: String,
    sessions: OnceLock<Sessions>,
}

/// A build as the solver knows it.
pub(super) fn job(scope: &Scope) -> Job {
    let known = |name: &String| match name.as_str() {
        "network.host" => Some(Entitlement::NetworkHost),
        "security.insecure" => Some(Entitlement::SecurityInsecure),
        _ => None,
    };
    Job {
        id: scope.id.clone(),
        session: scope.lender(),
        progress: Arc::clone(&scope.progress),
        cancel: scope.cancel.clone(),
        entitlements: scope.entitlements.iter().filter_map(known).collect::<BTreeSet<_>>(),
        explain: scope.explain,
        imports: scope.imports(),
        recorder: scope.recorder.clone(),
        failed: scope.failed.clone(),
    }
}

impl BuildKit {
    pub(crate) fn new(builder: Builder, engine: Engine, facts: &Facts) -> Self {
        Self { builder, engine, id: facts.id.clone(), sessions: OnceLock::new() }
    }

    /// Makes a state; `None` for the empty file system.
    pub(super) async fn solve(
        &self,
        state: &State,
        scope: &Scope,
    ) -> Result<Option<solver::State>, Error> {
        let Input::Output(output) = state.output else { return Ok(None) };
        let graph = Arc::clone(&state.graph);
        let made = self.builder.solver.solve(graph, &[output], &job(scope)).await?;
        Ok(made.into_iter().next())
    }

    async fn made(&self, state: &State, scope: &Scope) -> Result<solver::State, Error> {
        let made = self.solve(state, scope).await?;
        made.ok_or_else(|| Error::NotFound {
            message: "the empty file system has no files".to_owned(),
            location: None,
        })
    }

    /// Reads the Dockerfile and what else the front end is asked with.
    async fn question(
        &self,
        request: FrontendRequest,
        lookup: &Lookup<'_>,
    ) -> Result<Question, Error> {
        let attributes = &request.options;
        let get = |name: &str| attributes.get(name).map_or("", String::as_str);
        let or = |name: &'static str, default: &'static str| match attributes.get(name) {
            Some(value) if !value.is_empty() => value.clone(),
            _ => default.to_owned(),
        };
        let session = |name: &str| attributes.get(&format!("local-sessionid:{name}")).cloned();
        let mut context = context(get("context"), &or("contextkey", "context"))?;
        let key = or("dockerfilekey", "dockerfile");
        let is_remote =
            !matches!(context, BuildContext::Local { .. }) && get("dockerfilekey").is_empty();
        let from = if is_remote {
            FileSource::State(remote_context(&context)?)
        } else {
            FileSource::Local { session: session(&key), name: key }
        };
        let loaded = load_source(&or("filename", "Dockerfile"), from.clone(), lookup).await;
        let (source, ignore) = match loaded {
            // What is no archive is the Dockerfile itself.
            Err(missing @ Error::NotFound { .. })
                if is_remote && matches!(context, BuildContext::Archive(_)) =>
            {
                let lone = load_source("context", from, lookup).await.map_err(|_| missing)?;
                context = BuildContext::Empty;
                lone
            }
            loaded => loaded?,
        };
        lookup.scope.add_source(source.name.clone(), source.text.clone().into_bytes());
        let inputs = request.inputs.iter().map(|(name, state)| {
            let input = FrontendInput { graph: (*state.graph).clone(), output: state.output };
            (name.clone(), input)
        });
        let options = options_from_attributes(attributes)?;
        Ok(Question { source, options, context, ignore, inputs: inputs.collect() })
    }

    fn lookup<'a>(&'a self, scope: &'a Scope) -> Lookup<'a> {
        Lookup {
            scope,
            solver: &self.builder.solver,
            images: &self.builder.images,
            sessions: self.sessions.get(),
        }
    }

    /// Lets builds use directories of other sessions than their own.
    pub(crate) fn set_sessions(&self, sessions: Sessions) {
        self.sessions.set(sessions).ok();
    }
}

/// The main context by the text that names it.
fn context(text: &str, key: &str) -> Result<BuildContext, Error> {
    let local =
        |name: &str| BuildContext::Local { name: name.to_owned(), shared_key: name.to_owned() };
    if text.is_empty() {
        return Ok(local(key));
    }
    Ok(match context_kind(text)? {
        ContextKind::Local(name) => local(&name),
        ContextKind::Git(reference) => BuildContext::Git(git(reference)),
        ContextKind::Url(url) => BuildContext::Archive(HttpSource { url, ..HttpSource::default() }),
    })
}

fn answered(answer: Answer) -> Outcome {
    let mut metadata = BTreeMap::from([
        ("result.json".to_owned(), answer.json.into_bytes()),
        ("result.txt".to_owned(), answer.text.into_bytes()),
        ("version".to_owned(), ANSWER_VERSION.as_bytes().to_vec()),
    ]);
    if let Some(status) = answer.status {
        metadata.insert("result.statuscode".to_owned(), status.to_string().into_bytes());
    }
    Outcome { refs: Refs::One(None), metadata }
}

/// A result as clients get it: states, and facts about them by BuildKit's names.
fn outcome(result: FrontendResult) -> Result<Outcome, Error> {
    let graph = Arc::new(result.graph);
    let mut metadata = BTreeMap::new();
    let mut states = BTreeMap::new();
    let mut listed = Vec::new();
    let is_one = !result.multi_platform && result.platforms.len() == 1;
    let encode = |document: &rorqual_content::ImageDocument| {
        serde_json::to_vec(document).map_err(|error| Error::Other {
            action: "write the image config".to_owned(),
            kind: rorqual_core::ErrorKind::Internal,
            source: error.into(),
        })
    };
    for platform in result.platforms {
        let suffix = if is_one { String::new() } else { format!("/{}", platform.id) };
        let base = platform.base.as_ref().map_or(0, |base| base.rootfs.diff_ids.len());
        let config = encode(&platform.document)?;
        metadata.insert(format!("containerimage.config{suffix}"), config);
        metadata.insert(format!("{BASE_LAYERS}{suffix}"), base.to_string().into_bytes());
        if let Some(base) = &platform.base {
            metadata.insert(format!("containerimage.base.config{suffix}"), encode(base)?);
        }
        listed.push(json!({ "ID": platform.id, "Platform": platform.platform }));
        let state = match platform.output {
            Input::Scratch => None,
            output @ Input::Output(_) => Some(State { graph: Arc::clone(&graph), output }),
        };
        states.insert(platform.id, state);
    }
    let platforms = json!({ "Platforms": listed }).to_string().into_bytes();
    metadata.insert("refs.platforms".to_owned(), platforms);
    if let Some(epoch) = result.source_date_epoch {
        metadata.insert(EPOCH.to_owned(), epoch.to_string().into_bytes());
    }
    let refs = match is_one {
        true => Refs::One(states.into_values().next().flatten()),
        false => Refs::Many(states),
    };
    Ok(Outcome { refs, metadata })
}

fn git(reference: GitReference) -> GitSource {
    let is_ssh = reference.remote.starts_with("ssh://") || reference.remote.starts_with("git@");
    GitSource {
        remote: reference.remote,
        reference: reference.reference,
        subdir: reference.subdir,
        checksum: Some(reference.checksum).filter(|sum| !sum.is_empty()),
        keep_git_dir: reference.keep_git_dir.unwrap_or(false),
        skip_submodules: reference.submodules == Some(false),
        commit_times: reference.commit_times,
        // COMPAT: names under which clients lend what a repository needs.
        auth_header_secret: Some("GIT_AUTH_HEADER".to_owned()),
        auth_token_secret: Some("GIT_AUTH_TOKEN".to_owned()),
        ssh: is_ssh.then(|| "default".to_owned()),
    }
}

fn time(timestamp: Timestamp) -> SystemTime {
    SystemTime::UNIX_EPOCH + std::time::Duration::from_nanos(timestamp.nanos())
}

fn cache_record(entry: CacheEntry) -> CacheRecord {
    CacheRecord {
        id: entry.id,
        size: entry.size,
        parents: Vec::new(),
        kind: entry.kind.name().to_owned(),
        description: entry.description,
        is_mutable: entry.kind == solver::CacheKind::CacheMount,
        is_in_use: entry.in_use,
        is_shared: false,
        created: Some(time(entry.created)),
        used: Some(time(entry.used)),
        uses: entry.uses,
    }
}

fn tree_entry(stat: TreeStat) -> TreeEntry {
    TreeEntry {
        path: stat.name,
        mode: stat.mode,
        uid: stat.uid,
        gid: stat.gid,
        size: stat.size,
        mtime: stat.mtime,
        link: stat.link,
        device: (0, 0),
        xattrs: Vec::new(),
    }
}

/// What of a list of records a request means, as the solver takes it.
fn pruning(request: PruneRequest, all: &[CacheEntry]) -> Result<solver::PruneRequest, Error> {
    let mut until = (request.keep_seconds > 0).then(|| {
        let age = std::time::Duration::from_secs(request.keep_seconds);
        SystemTime::now().checked_sub(age).map(Timestamp::from)
    });
    let mut filters = request.filters;
    filters.retain(|filter| match filter.strip_prefix("until==") {
        Some(text) => {
            let age = rorqual_core::units::parse_duration(text).ok();
            let since = age.and_then(|age| SystemTime::now().checked_sub(age));
            until = Some(since.map(Timestamp::from));
            false
        }
        None => true,
    });
    let ids = match filters.is_empty() {
        true => Vec::new(),
        false => {
            let matches = rorqual_buildkit::cache_filter(&filters)?;
            let ids = all.iter().cloned().map(cache_record).filter(|record| matches(record));
            let ids: Vec<String> = ids.map(|record| record.id).collect();
            // No id would mean all.
            if ids.is_empty() { vec![String::new()] } else { ids }
        }
    };
    let keep = match (request.max_used, request.reserved) {
        (0, 0) => None,
        (0, reserved) => Some(reserved),
        (max_used, reserved) => Some(max_used.max(reserved)),
    };
    if request.min_free > 0 {
        return Err(Error::Unsupported(
            "min-free-space is not supported by this builder: use max-used-space".to_owned(),
        ));
    }
    Ok(solver::PruneRequest { ids, kinds: Vec::new(), until: until.flatten(), keep })
}

#[async_trait]
impl Backend for BuildKit {
    fn worker(&self) -> Worker {
        let label = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        Worker {
            id: self.id.clone(),
            labels: BTreeMap::from([
                label("org.mobyproject.buildkit.worker.executor", "rorqual"),
                // Tells clients that archives can be written and images pushed by the builder itself.
                label("org.mobyproject.buildkit.worker.snapshotter", "overlayfs"),
                label("org.mobyproject.buildkit.worker.moby.host-gateway-ip", "172.17.0.1"),
            ]),
            platforms: vec![Platform::host()],
            version: env!("CARGO_PKG_VERSION").to_owned(),
            caps: Vec::new(),
        }
    }

    async fn dockerfile(&self, request: FrontendRequest, scope: &Scope) -> Result<Outcome, Error> {
        let asked = request.options.get("requestid").cloned().unwrap_or_default();
        if asked == "frontend.subrequests.describe" {
            return Ok(answered(describe()));
        }
        for entry in request.cache_imports.iter().chain(&caches::listed(&request.options)) {
            caches::import(&self.builder, entry, scope).await?;
        }
        let lookup = self.lookup(scope);
        let question = self.question(request, &lookup).await?;
        match asked.as_str() {
            "" => {}
            "frontend.lint" => return Ok(answered(lint(&question, &lookup).await?)),
            "frontend.outline" => return Ok(answered(outline(&question, &lookup).await?)),
            "frontend.targets" => return Ok(answered(targets(&question.source)?)),
            other => return Err(Error::Unsupported(format!("unsupported request {other}"))),
        }
        let result = build_graph(&question, &lookup).await?;
        if !result.warnings.is_empty() {
            let name = format!("[internal] load build definition from {}", question.source.name);
            let vertex = Task::identity(scope, &name);
            for warning in &result.warnings {
                scope.progress.tell(Progress::Warning {
                    vertex: Some(vertex.clone()),
                    short: warning.short(),
                    detail: vec![warning.description.clone()],
                    url: warning.url.clone(),
                    location: warning.location.clone(),
                });
            }
        }
        outcome(result)
    }

    async fn evaluate(&self, state: &State, scope: &Scope) -> Result<(), Error> {
        self.solve(state, scope).await.map(drop)
    }

    async fn read_file(
        &self,
        state: &State,
        path: &str,
        range: Option<(u64, u64)>,
        scope: &Scope,
    ) -> Result<Vec<u8>, Error> {
        let made = self.made(state, scope).await?;
        let read = self.builder.solver.read_file(&made, path, LARGEST_FILE).await?;
        let bytes = read.ok_or_else(|| Error::NotFound {
            message: format!("open {path}: no such file or directory"),
            location: None,
        })?;
        let Some((offset, length)) = range else { return Ok(bytes) };
        let at = |number: u64| usize::try_from(number).unwrap_or(usize::MAX).min(bytes.len());
        Ok(bytes[at(offset)..at(offset.saturating_add(length))].to_vec())
    }

    async fn read_dir(
        &self,
        state: &State,
        path: &str,
        pattern: &str,
        scope: &Scope,
    ) -> Result<Vec<TreeEntry>, Error> {
        let made = self.made(state, scope).await?;
        let entries = self.builder.solver.read_dir(&made, path).await?;
        let is_wanted = |entry: &TreeStat| {
            pattern.is_empty()
                || rorqual_build::ignore::glob_matches(pattern, &entry.name).unwrap_or(false)
        };
        Ok(entries.into_iter().filter(is_wanted).map(tree_entry).collect())
    }

    async fn stat(&self, state: &State, path: &str, scope: &Scope) -> Result<TreeEntry, Error> {
        let made = self.made(state, scope).await?;
        let stat = self.builder.solver.stat(&made, path).await?;
        stat.map(tree_entry).ok_or_else(|| Error::NotFound {
            message: format!("lstat {path}: no such file or directory"),
            location: None,
        })
    }

    async fn resolve_image(
        &self,
        reference: &str,
        platform: &Platform,
        mode: ResolveMode,
        scope: &Scope,
    ) -> Result<ResolvedImage, Error> {
        self.builder.images.resolve(reference, platform, mode, scope.lender()).await
    }

    async fn export(
        &self,
        outcome: &Outcome,
        request: ExportRequest,
        scope: &Scope,
    ) -> Result<BTreeMap<String, String>, Error> {
        outputs::export(self, outcome, request, scope).await
    }

    async fn usage(&self) -> Result<Vec<CacheRecord>, Error> {
        let entries = self.builder.solver.usage().await?;
        Ok(entries.into_iter().map(cache_record).collect())
    }

    async fn prune(&self, request: PruneRequest) -> Result<Vec<CacheRecord>, Error> {
        let all = self.builder.solver.usage().await?;
        let pruned = self.builder.solver.prune(pruning(request, &all)?).await?;
        self.engine.images.collect().await.map_err(|error| Error::Other {
            action: "collect what nothing refers to".to_owned(),
            kind: rorqual_core::ErrorKind::Internal,
            source: error.into(),
        })?;
        let gone: BTreeSet<String> = pruned.ids.into_iter().collect();
        let removed = all.into_iter().filter(|entry| gone.contains(&entry.id));
        Ok(removed.map(cache_record).collect())
    }
}
