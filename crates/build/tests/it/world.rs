//! A solver on a data root of its own, whose steps write files as their arguments say.

use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use rorqual_build::solver::{Cache, Job, Options, Parts, Solver};
use rorqual_build::{
    Error, ExecMount, ExecNetwork, ExecOp, ExecSecurity, Fetching, Graph, ImageResolver, Input,
    Log, LogStream, MountKind, Op, Progress, ProgressSink, ResolveMode, ResolvedImage, Session,
    Step, StepExit, StepRunner, Vertex,
};
use rorqual_content::{ImageDocument, fake::FakeImages};
use rorqual_core::Platform;
use rorqual_core::mount::{RootfsPlan, StepMountSource};
use rorqual_snapshot::{Options as LayerOptions, Overlay};
use rorqual_store::Database;
use rorqual_transfer::fake::FakeTransfer;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

/// Runs `write PATH TEXT`, `fail CODE`, `wait` (until it is let go), `say TEXT`, `keep TEXT` (in the first mount) and `look`.
#[derive(Default)]
pub(crate) struct Programs {
    pub(crate) ran: Mutex<Vec<String>>,
    pub(crate) dropped: Arc<AtomicUsize>,
    pub(crate) gate: Option<Arc<Semaphore>>,
    pub(crate) highest: AtomicUsize,
    pub(crate) now: Arc<AtomicUsize>,
    /// What the last `look` found.
    pub(crate) found: Mutex<Option<String>>,
}

struct Running(Arc<AtomicUsize>, Arc<AtomicUsize>, bool);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
        if !self.2 {
            self.1.fetch_add(1, Ordering::SeqCst);
        }
    }
}

#[async_trait]
impl StepRunner for Programs {
    async fn run(
        &self,
        step: Step,
        log: Log,
        _cancel: CancellationToken,
    ) -> Result<StepExit, Error> {
        self.ran.lock().unwrap().push(step.args.join(" "));
        let now = self.now.fetch_add(1, Ordering::SeqCst) + 1;
        self.highest.fetch_max(now, Ordering::SeqCst);
        let mut running = Running(Arc::clone(&self.now), Arc::clone(&self.dropped), false);
        if let Some(gate) = &self.gate {
            gate.acquire().await.unwrap().forget();
        }
        running.2 = true;
        let RootfsPlan::Overlay(plan) = &step.rootfs else { panic!("no overlay") };
        let upper = plan.upper.as_ref().unwrap().upper.clone();
        let mut code = 0;
        match step.args.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
            ["write", path, text] => std::fs::write(upper.join(path), text).unwrap(),
            ["fail", text] => code = text.parse().unwrap(),
            ["keep", text] => std::fs::write(first_mount(&step).join("file"), text).unwrap(),
            ["look"] => {
                let found = std::fs::read_to_string(first_mount(&step).join("file")).ok();
                *self.found.lock().unwrap() = found;
            }
            ["say", text] => log(LogStream::Stdout, text.as_bytes()),
            other => panic!("{other:?}"),
        }
        Ok(StepExit { code, oom_killed: false })
    }
}

fn first_mount(step: &Step) -> PathBuf {
    match &step.mounts[0].source {
        StepMountSource::Path(path) => path.clone(),
        other => panic!("{other:?}"),
    }
}

struct NoImages;

#[async_trait]
impl ImageResolver for NoImages {
    async fn resolve(
        &self,
        reference: &str,
        _platform: &Platform,
        _mode: ResolveMode,
        _session: Option<Arc<dyn Session>>,
    ) -> Result<ResolvedImage, Error> {
        Err(Error::NotFound { message: reference.to_owned(), location: None })
    }

    async fn fetch(
        &self,
        reference: &str,
        _platform: &Platform,
        _session: Option<Arc<dyn Session>>,
        _progress: Fetching,
    ) -> Result<ImageDocument, Error> {
        Err(Error::NotFound { message: reference.to_owned(), location: None })
    }
}

/// Keeps what it hears.
#[derive(Default)]
pub(crate) struct Heard(pub(crate) Mutex<Vec<Progress>>);

impl ProgressSink for Heard {
    fn tell(&self, progress: Progress) {
        self.0.lock().unwrap().push(progress);
    }
}

impl Heard {
    /// Names of vertices that ended, with `*` behind those from the cache and `!` behind those that failed.
    pub(crate) fn ended(&self) -> Vec<String> {
        let all = self.0.lock().unwrap();
        let ended = all.iter().filter_map(|one| match one {
            Progress::Vertex(update) if update.completed.is_some() => Some(format!(
                "{}{}{}",
                update.name,
                if update.cached { "*" } else { "" },
                if update.error.is_empty() { "" } else { "!" }
            )),
            _ => None,
        });
        ended.collect()
    }

    pub(crate) fn logs(&self) -> String {
        let all = self.0.lock().unwrap();
        let logs = all.iter().filter_map(|one| match one {
            Progress::Log { data, .. } => Some(String::from_utf8_lossy(data).into_owned()),
            _ => None,
        });
        logs.collect()
    }
}

pub(crate) struct World {
    pub(crate) folder: tempfile::TempDir,
    pub(crate) programs: Arc<Programs>,
    pub(crate) solver: Solver,
    pub(crate) overlay: Arc<Overlay>,
}

impl World {
    pub(crate) async fn new(programs: Programs) -> Self {
        let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        Self::open(folder, programs).await
    }

    /// Ends this solver and opens another one on the same data root, as the next daemon does.
    pub(crate) async fn again(self, programs: Programs) -> Self {
        let Self { folder, solver, programs: old, overlay } = self;
        drop((solver, old, overlay));
        Self::open(folder, programs).await
    }

    async fn open(folder: tempfile::TempDir, programs: Programs) -> Self {
        let root = folder.path().to_owned();
        let overlay = Arc::new(
            Overlay::open(&root, LayerOptions { durable: false, ..LayerOptions::default() })
                .unwrap(),
        );
        let database = Database::open(&root.join("state.db")).unwrap();
        let programs = Arc::new(programs);
        let parts = Parts {
            snapshots: Arc::clone(&overlay) as _,
            workbench: Arc::clone(&overlay) as _,
            steps: Arc::clone(&programs) as _,
            images: Arc::new(NoImages),
            transfer: Arc::new(FakeTransfer::new(Arc::new(FakeImages::default()))),
            cache: Arc::new(Cache::open(database).await.unwrap()),
            directory: root.join("build"),
            memory: None,
        };
        let options = Options { parallel: 4, ..Options::default() };
        let solver = Solver::open(parts, options).unwrap();
        Self { folder, programs, solver, overlay }
    }

    pub(crate) fn ran(&self) -> Vec<String> {
        self.programs.ran.lock().unwrap().clone()
    }

    /// Snapshots that are there.
    pub(crate) fn snapshots(&self) -> usize {
        std::fs::read_dir(self.folder.path().join("containers")).unwrap().count()
    }

    pub(crate) fn layer_count(&self) -> usize {
        let names = std::fs::read_dir(self.folder.path().join("layers")).unwrap();
        names.filter(|name| name.as_ref().unwrap().file_name().len() == 64).count()
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.folder.path().to_owned()
    }
}

pub(crate) fn job(heard: &Arc<Heard>) -> Job {
    Job {
        id: "job".to_owned(),
        session: None,
        progress: Arc::clone(heard) as _,
        cancel: CancellationToken::new(),
        entitlements: std::collections::BTreeSet::new(),
        explain: false,
        imports: Vec::new(),
        recorder: None,
        failed: None,
    }
}

pub(crate) fn exec(args: &[&str], base: Input) -> Op {
    Op::Exec(Box::new(ExecOp {
        args: args.iter().map(|arg| (*arg).to_owned()).collect(),
        env: Vec::new(),
        cwd: "/".to_owned(),
        user: String::new(),
        hostname: String::new(),
        mounts: vec![ExecMount {
            target: "/".to_owned(),
            input: Some(base),
            selector: "/".to_owned(),
            output: Some(0),
            readonly: false,
            kind: MountKind::Bind,
        }],
        network: ExecNetwork::Sandbox,
        security: ExecSecurity::Sandbox,
        extra_hosts: Vec::new(),
        proxy_env: Vec::new(),
        secret_env: Vec::new(),
        shm_size: None,
        ulimits: Vec::new(),
        cgroup_parent: String::new(),
        devices: Vec::new(),
        valid_exit_codes: Vec::new(),
    }))
}

/// Adds a vertex and returns its first output.
pub(crate) fn add(graph: &mut Graph, name: &str, op: Op) -> Input {
    let vertex = Vertex {
        op,
        name: name.to_owned(),
        platform: Platform::host(),
        ignore_cache: false,
        location: None,
    };
    let vertex = graph.add(vertex).unwrap();
    Input::Output(rorqual_build::OutputRef { vertex, index: 0 })
}
