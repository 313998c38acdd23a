//! Answers to the front end's questions, for clients that lend a session: small files of theirs, images.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use async_trait::async_trait;
use rorqual_build::dockerfile::{FileSource, ImageQuery, MAX_SOURCE, Resolver};
use rorqual_build::solver::Solver;
use rorqual_build::{
    Error, ImageResolver, Input, LocalSource, Progress, ResolvedImage, Session, StatusUpdate,
    TreeEntry, TreeSink, VertexUpdate,
};
use rorqual_buildkit::{Scope, Sessions};
use rorqual_core::{Digest, full_message};
use sha2::{Digest as _, Sha256};

use super::buildkit::job;
use super::images::LocalImages;

/// A piece of work that clients see as a step of its own.
pub(super) struct Task<'a> {
    scope: &'a Scope,
    update: VertexUpdate,
}

impl<'a> Task<'a> {
    /// Begins it.
    pub(super) fn begin(scope: &'a Scope, name: &str) -> Self {
        let update = VertexUpdate {
            digest: Self::identity(scope, name),
            inputs: Vec::new(),
            name: name.to_owned(),
            started: Some(SystemTime::now()),
            completed: None,
            cached: false,
            error: String::new(),
        };
        scope.progress.tell(Progress::Vertex(update.clone()));
        Self { scope, update }
    }

    /// Identity of a task of that name.
    pub(super) fn identity(scope: &Scope, name: &str) -> Digest {
        Digest::sha256(Sha256::digest(format!("{}\0{name}", scope.id)).into())
    }

    /// Tells of a part that is done.
    pub(super) fn part(&self, id: &str, bytes: u64, started: SystemTime) {
        self.scope.progress.tell(Progress::Status(StatusUpdate {
            vertex: self.update.digest.clone(),
            id: id.to_owned(),
            name: String::new(),
            current: bytes,
            total: 0,
            started: Some(started),
            completed: Some(SystemTime::now()),
        }));
    }

    /// Ends it.
    pub(super) fn end<T>(mut self, result: Result<T, Error>) -> Result<T, Error> {
        if let Err(error) = &result {
            self.update.error = full_message(error);
        }
        self.update.completed = Some(SystemTime::now());
        self.scope.progress.tell(Progress::Vertex(self.update));
        result
    }
}

/// Answers questions of one build.
pub(super) struct Lookup<'a> {
    pub(super) scope: &'a Scope,
    pub(super) solver: &'a Solver,
    pub(super) images: &'a LocalImages,
    pub(super) sessions: Option<&'a Sessions>,
}

type Files = Arc<Mutex<BTreeMap<String, Vec<u8>>>>;

/// Takes small files into memory.
struct Small {
    files: Files,
}

/// LIMIT: what one file may have: a Dockerfile has less, an ignore file as much.
const LARGEST: usize = if MAX_SOURCE > (8 << 20) { MAX_SOURCE } else { 8 << 20 };

impl TreeSink for Small {
    fn entry(&mut self, entry: TreeEntry) -> Result<bool, Error> {
        let is_file = entry.mode & 0o170_000 == 0o100_000;
        if is_file {
            let mut files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
            files.insert(entry.path, Vec::new());
        }
        Ok(is_file)
    }

    fn data(&mut self, path: &str, bytes: &[u8]) -> Result<(), Error> {
        let mut files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        let file = files.entry(path.to_owned()).or_default();
        if file.len() + bytes.len() > LARGEST {
            let message = format!("{path} has more than {LARGEST} bytes");
            return Err(Error::Invalid { message, location: None });
        }
        file.extend_from_slice(bytes);
        Ok(())
    }

    fn end(&mut self, _: &str) -> Result<(), Error> {
        Ok(())
    }

    fn finish(self: Box<Self>) -> Result<(), Error> {
        Ok(())
    }
}

impl Lookup<'_> {
    async fn local(
        &self,
        name: &str,
        session: Option<&str>,
        names: &[&str],
    ) -> Result<Vec<Option<Vec<u8>>>, Error> {
        let lender = match (session, self.sessions) {
            (Some(id), Some(sessions)) => sessions.wait(id).await? as Arc<dyn Session>,
            _ => self.scope.lender().ok_or_else(|| Error::Invalid {
                message: format!(
                    "the build needs the directory {name:?} of its client, and has no session"
                ),
                location: None,
            })?,
        };
        let names: Vec<&str> = names.iter().map(|name| clean(name)).collect();
        let wanted: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let request = LocalSource {
            name: name.to_owned(),
            include: wanted.clone(),
            follow: wanted,
            ..LocalSource::default()
        };
        let files = Files::default();
        lender.sync(request, Box::new(Small { files: Arc::clone(&files) })).await?;
        let mut files = files.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(names.iter().map(|name| files.remove(*name)).collect())
    }

    async fn state(
        &self,
        input: rorqual_build::dockerfile::FrontendInput,
        names: &[&str],
    ) -> Result<Vec<Option<Vec<u8>>>, Error> {
        let Input::Output(output) = input.output else { return Ok(vec![None; names.len()]) };
        let graph = Arc::new(input.graph);
        let states = self.solver.solve(graph, &[output], &job(self.scope)).await?;
        let mut found = Vec::new();
        for name in names {
            let read = match states.first() {
                Some(state) => self.solver.read_file(state, name, LARGEST as u64).await?,
                None => None,
            };
            found.push(read);
        }
        Ok(found)
    }
}

/// `./x` and `/x` are `x`.
fn clean(name: &str) -> &str {
    name.trim_start_matches("./").trim_start_matches('/')
}

#[async_trait]
impl Resolver for Lookup<'_> {
    async fn image(&self, query: ImageQuery<'_>) -> Result<ResolvedImage, Error> {
        let task = Task::begin(self.scope, query.label);
        let (images, session) = (self.images, self.scope.lender());
        if let Some(store) = query.layout {
            let (reference, platform) = (query.reference, query.platform);
            return task.end(images.resolve_layout(store, reference, platform, session).await);
        }
        task.end(images.resolve(query.reference, query.platform, query.mode, session).await)
    }

    async fn read_files(
        &self,
        from: FileSource,
        names: &[&str],
        label: &str,
    ) -> Result<Vec<Option<Vec<u8>>>, Error> {
        let task = Task::begin(self.scope, label);
        let started = SystemTime::now();
        let found = match from {
            FileSource::Local { name, session } => {
                self.local(&name, session.as_deref(), names).await
            }
            FileSource::State(input) => self.state(input, names).await,
        };
        if let Ok(found) = &found {
            let bytes: usize = found.iter().flatten().map(Vec::len).sum();
            let what = if label.contains("dockerignore") { "context" } else { "dockerfile" };
            task.part(&format!("transferring {what}:"), bytes as u64, started);
            // Remarks about the Dockerfile and failures show pieces of it.
            for (name, text) in names.iter().zip(found) {
                if let Some(text) = text.as_ref().filter(|text| text.len() <= MAX_SOURCE) {
                    self.scope.add_source((*name).to_owned(), text.clone());
                }
            }
        }
        task.end(found)
    }
}
