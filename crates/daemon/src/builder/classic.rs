//! The classic builder's protocol: one request with the whole context, one stream of lines back.
//!
//! The same front end and solver as for every build, told in the classic builder's words.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use rorqual_api::message::{ErrorDetail, Message};
use rorqual_build::dockerfile::{
    BuildContext, FileSource, FrontendRequest, FrontendResult, ImageQuery, Options, Resolver,
    StepText, build_graph, load_source,
};
use rorqual_build::solver::{Building, Entitlement, ImageExport, Job, State, vertex_digests};
use rorqual_build::{
    Error, Graph, ImageResolver, Input, Progress, ProgressSink, ResolvedImage, Session,
};
use rorqual_core::{ContainerId, Digest, ErrorKind, ImageId, Reference, full_message};
use rorqual_snapshot::FileTree;
use serde_json::json;
use sha2::{Digest as _, Sha256};
use tokio_util::sync::CancellationToken;

use super::Builder;
use super::context::ClassicSession;
use super::logins::Logins;
use super::outbox::Outbox;
use super::remote::Origin;

/// LIMIT: a Dockerfile or ignore file of a context.
const MAX_FILE: u64 = 8 << 20;

/// A build as the classic protocol asks for it.
pub(crate) struct ClassicRequest {
    /// Where the context comes from.
    pub(crate) origin: Origin,
    /// Path of the Dockerfile in it.
    pub(crate) dockerfile: String,
    /// How it is to be built.
    pub(crate) options: Options,
    /// Names that the image gets.
    pub(crate) names: Vec<Reference>,
    /// Tell nothing but the image's id.
    pub(crate) quiet: bool,
    /// Name by which the client may cancel it.
    pub(crate) id: String,
    /// Who the client is to registries.
    pub(crate) logins: Logins,
}

/// A build that is understood and can begin.
pub(crate) struct Prepared {
    builder: Builder,
    session: Arc<ClassicSession>,
    result: FrontendResult,
    names: Vec<Reference>,
    quiet: bool,
    token: CancellationToken,
    _registered: super::Registered,
}

/// Answers what the front end asks.
struct Questions<'b> {
    builder: &'b Builder,
    session: Arc<ClassicSession>,
    tree: FileTree,
}

#[async_trait]
impl Resolver for Questions<'_> {
    async fn image(&self, query: ImageQuery<'_>) -> Result<ResolvedImage, Error> {
        let session = Some(Arc::clone(&self.session) as Arc<dyn Session>);
        self.builder.images.resolve(query.reference, query.platform, query.mode, session).await
    }

    async fn read_files(
        &self,
        _from: FileSource,
        names: &[&str],
        _label: &str,
    ) -> Result<Vec<Option<Vec<u8>>>, Error> {
        let mut all = Vec::new();
        for name in names {
            let read = self.builder.workbench.read(&self.tree, name, MAX_FILE).await;
            all.push(read.map_err(|error| Error::Other {
                action: format!("read {name} of the build context"),
                kind: ErrorKind::InvalidArgument,
                source: error.into(),
            })?);
        }
        Ok(all)
    }
}

/// Takes the context and reads the Dockerfile; what fails here is the request's own error.
pub(crate) async fn build(builder: &Builder, request: ClassicRequest) -> Result<Prepared, Error> {
    let mut bits = [0; 32];
    getrandom::fill(&mut bits).map_err(|error| Error::Other {
        action: "draw a random number".to_owned(),
        kind: ErrorKind::Internal,
        source: error.into(),
    })?;
    let id = ContainerId::from_random(bits).to_string();
    let token = CancellationToken::new();
    let registered = builder.register(&request.id, &token);
    let (context, lone) = super::remote::bring(builder, &id, request.origin, &token).await?;
    let dockerfile = lone.unwrap_or(request.dockerfile);
    let tree = FileTree::Directory(context.path().to_owned());
    let session =
        Arc::new(ClassicSession { id, context: Arc::new(context), logins: request.logins });
    let questions = Questions { builder, session: Arc::clone(&session), tree };
    let from = FileSource::Local { name: "context".to_owned(), session: None };
    let loaded = load_source(&dockerfile, from, &questions).await;
    let (source, ignore) = loaded.map_err(|error| match error {
        Error::NotFound { .. } => {
            // COMPAT: the classic builder's text.
            let message = format!("Cannot locate specified Dockerfile: {dockerfile}");
            Error::Invalid { message, location: None }
        }
        error => error,
    })?;
    let frontend = FrontendRequest {
        source,
        options: request.options,
        context: BuildContext::default(),
        ignore,
        inputs: BTreeMap::new(),
    };
    let result = build_graph(&frontend, &questions).await.map_err(classic_words)?;
    Ok(Prepared {
        builder: builder.clone(),
        session,
        result,
        names: request.names,
        quiet: request.quiet,
        token,
        _registered: registered,
    })
}

/// COMPAT: the classic builder puts words before what is wrong in a Dockerfile.
fn classic_words(error: Error) -> Error {
    match error {
        Error::Invalid { message, location: Some(location) } => {
            let message = if message.starts_with("dockerfile parse error") {
                message
            } else {
                format!("dockerfile parse error on line {}: {message}", location.first_line)
            };
            Error::Invalid { message, location: Some(location) }
        }
        error => error,
    }
}

/// Hears of a build and tells its client.
struct Teller {
    out: Arc<Outbox>,
    quiet: bool,
    /// What ran, and so was not taken from the cache.
    ran: Mutex<BTreeSet<Digest>>,
    clipped: AtomicBool,
    /// Said before the first output of a step.
    before: Mutex<Option<String>>,
}

impl Teller {
    fn say(&self, text: impl Into<String>) {
        if !self.quiet {
            self.send(&Message { stream: text.into(), ..Message::default() });
        }
    }

    fn send(&self, message: &Message) {
        self.out.push(message.line());
    }

    /// Prepares what is said before the first output of the next step.
    fn expect(&self, before: String) {
        *self.before.lock().unwrap_or_else(PoisonError::into_inner) = Some(before);
    }

    /// Says it, unless it was said.
    fn begin(&self) {
        let before = self.before.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(before) = before {
            self.say(before);
        }
    }

    fn ran(&self, vertex: &Digest) -> bool {
        self.ran.lock().unwrap_or_else(PoisonError::into_inner).contains(vertex)
    }
}

impl ProgressSink for Teller {
    fn tell(&self, progress: Progress) {
        match progress {
            Progress::Log { data, .. } => {
                self.begin();
                self.say(String::from_utf8_lossy(&data).into_owned());
                if self.out.clipped() && !self.clipped.swap(true, Ordering::AcqRel) {
                    tracing::info!("a client of a build does not keep up, output is left out");
                }
            }
            Progress::Vertex(update) if update.completed.is_some() && !update.cached => {
                self.ran.lock().unwrap_or_else(PoisonError::into_inner).insert(update.digest);
            }
            Progress::Warning { short, .. } => self.say(format!("[Warning] {short}\n")),
            Progress::Vertex(_) | Progress::Status(_) => {}
        }
    }
}

impl Prepared {
    /// Builds; each line of the answer goes to `line`. The build ends when the future is dropped.
    pub(crate) async fn run<F>(self, mut line: impl FnMut(Vec<u8>) -> F)
    where
        F: Future<Output = bool>,
    {
        let out = Arc::new(Outbox::default());
        let teller = Arc::new(Teller {
            out: Arc::clone(&out),
            quiet: self.quiet,
            ran: Mutex::default(),
            clipped: AtomicBool::new(false),
            before: Mutex::default(),
        });
        let building = self.go(Arc::clone(&teller));
        tokio::pin!(building);
        let outcome = loop {
            tokio::select! {
                outcome = &mut building => break outcome,
                next = out.next() => if !line(next).await { return },
            }
        };
        while let Some(next) = out.try_next() {
            if !line(next).await {
                return;
            }
        }
        if let Err(error) = outcome {
            line(failure(error).line()).await;
        }
    }

    async fn go(self, teller: Arc<Teller>) -> Result<(), Error> {
        let FrontendResult { graph, platforms, steps, source_date_epoch, warnings, .. } =
            self.result;
        for warning in &warnings {
            teller.say(format!("[Warning] {}\n", warning.short()));
        }
        let graph = Arc::new(graph);
        let job = Job {
            id: self.session.id.clone(),
            session: Some(self.session),
            progress: Arc::clone(&teller) as Arc<dyn ProgressSink>,
            cancel: self.token.clone(),
            // COMPAT: the classic builder lets whoever reaches it use the host's network.
            entitlements: BTreeSet::from([Entitlement::NetworkHost]),
            explain: false,
            imports: Vec::new(),
            recorder: None,
            failed: None,
        };
        let building = self.builder.solver.begin(Arc::clone(&graph), &job);
        walk(&building, &graph, &steps, &teller).await?;
        let Some(platform) = platforms.into_iter().next() else { return Ok(()) };
        let state = building.state(platform.output).await?;
        let export = ImageExport {
            document: platform.document,
            names: self.names.clone(),
            epoch: source_date_epoch,
            ..ImageExport::default()
        };
        let id = self.builder.solver.export_image(&state, export).await?;
        told(&id, &self.names, &teller);
        Ok(())
    }
}

/// Makes one state after the other, as the Dockerfile has them, and tells of each.
async fn walk(
    building: &Building,
    graph: &Graph,
    steps: &[StepText],
    teller: &Teller,
) -> Result<(), Error> {
    let digests = vertex_digests(graph);
    let mut cached = true;
    let mut before: Option<Input> = None;
    for (number, step) in steps.iter().enumerate() {
        teller.say(format!("Step {}/{} : {}\n", number + 1, steps.len(), step.text));
        let first = step.text.get(..4).is_some_and(|word| word.eq_ignore_ascii_case("from"));
        // COMPAT: clients show a container that makes the step; a number of the step stands for it.
        let container = container_of(step);
        teller.expect(format!(" ---> Running in {container}\n"));
        let state = building.state(step.output).await.map_err(|error| in_step(error, step))?;
        let digest = match step.output {
            Input::Output(output) => digests.get(output.vertex.0 as usize),
            Input::Scratch => None,
        };
        let changes = before.as_ref() != Some(&step.output);
        if changes && !first && digest.is_some_and(|digest| teller.ran(digest)) {
            cached = false;
        }
        if first {
            cached = true;
        } else if cached {
            teller.say(" ---> Using cache\n");
        } else {
            teller.begin();
            teller.say(format!(" ---> Removed intermediate container {container}\n"));
        }
        // The last one is the image itself.
        if number + 1 < steps.len() {
            teller.say(format!(" ---> {}\n", image_of(step, &state).short()));
        }
        before = Some(step.output);
    }
    Ok(())
}

fn container_of(step: &StepText) -> String {
    let bytes = format!("{:?} {}", step.output, step.text);
    Digest::sha256(Sha256::digest(bytes).into()).short().to_owned()
}

/// Returns the id that the image of a step would have.
fn image_of(step: &StepText, state: &State) -> Digest {
    let mut document = step.document.clone();
    document.rootfs.diff_ids = state.layers().to_vec();
    let bytes = serde_json::to_vec(&document).unwrap_or_default();
    Digest::sha256(Sha256::digest(bytes).into())
}

/// COMPAT: the classic builder's words for what went wrong in a step.
fn in_step(error: Error, step: &StepText) -> Error {
    match error {
        Error::NotFound { message, location } if message.contains("checksum of ref") => {
            let word = step.text.split_whitespace().next().unwrap_or("COPY").to_uppercase();
            let path =
                message.split('"').nth(1).unwrap_or_default().trim_start_matches('/').to_owned();
            let message = format!(
                "{word} failed: file not found in build context or excluded by .dockerignore: stat {path}: file does not exist"
            );
            Error::NotFound { message, location }
        }
        error => error,
    }
}

fn failure(error: Error) -> Message {
    match &error {
        Error::Step { command, code, .. } => {
            // COMPAT: the classic builder's text.
            let text = format!("The command '{command}' returned a non-zero code: {code}");
            let detail = ErrorDetail { code: i64::from(*code), message: text.clone() };
            Message { error_detail: Some(detail), error: text, ..Message::default() }
        }
        error => Message::error(&full_message(error)),
    }
}

fn told(id: &ImageId, names: &[Reference], teller: &Teller) {
    let aux = Message { aux: Some(json!({ "ID": id.to_string() })), ..Message::default() };
    if teller.quiet {
        teller.send(&Message { stream: format!("{id}\n"), ..Message::default() });
        return;
    }
    teller.say(format!(" ---> {}\n", id.0.short()));
    teller.send(&aux);
    teller.say(format!("Successfully built {}\n", id.0.short()));
    for name in names {
        teller.say(format!("Successfully tagged {}\n", name.familiar()));
    }
}
