//! Extra processes in running containers: Created, then Running, then Ended.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rorqual_core::{ContainerId, ExecId, Timestamp, full_message};
use rorqual_shim::{Attachment, Error as TaskError, Exec, ExecLaunch, Task, WindowSize};
use rorqual_store::Durability;
use tokio_util::sync::CancellationToken;

use crate::container::Container;
use crate::containers::connection;
use crate::error::{Error, Result};
use crate::ocispec;
use crate::phase::Phase;
use crate::records::ExecRecord;
use crate::request::{Attached, ExecSpec, ExecStart, ExecView};
use crate::validate;
use crate::world::World;

// LIMIT: an ended exec can be inspected for as long; Docker drops them after a few minutes too.
const KEPT: Duration = Duration::from_secs(300);

// LIMIT: between the end of an exec's output and the news of its exit lie microseconds, unless it has closed its output.
const SETTLING: Duration = Duration::from_secs(2);

/// Where an exec stands.
enum Stage {
    Created,
    Starting,
    Running(Arc<dyn Exec>),
    Ended { code: i32, at: Timestamp },
}

/// An exec.
pub(crate) struct ExecCell {
    pub(crate) id: ExecId,
    pub(crate) container: Arc<Container>,
    pub(crate) spec: ExecSpec,
    stage: Mutex<Stage>,
    /// Cancelled once the stage is [`Stage::Ended`].
    over: CancellationToken,
}

impl ExecCell {
    fn stage(&self) -> MutexGuard<'_, Stage> {
        self.stage.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn record(&self, ended: Option<(i32, Timestamp)>) -> ExecRecord {
        let (id, container) = (self.id, self.container.id);
        ExecRecord { id, container, spec: self.spec.clone(), ended }
    }

    fn command(&self) -> String {
        // COMPAT: a command without arguments keeps its trailing blank.
        let mut words = self.spec.command.iter();
        let first = words.next().cloned().unwrap_or_default();
        format!("{first} {}", words.cloned().collect::<Vec<_>>().join(" "))
    }
}

/// The execs of one daemon.
#[derive(Clone)]
pub struct Execs {
    pub(crate) world: Arc<World>,
}

#[expect(
    clippy::unused_async,
    reason = "callers await every method alike, whether it waits today or not"
)]
impl Execs {
    fn find(&self, text: &str) -> Result<Arc<ExecCell>> {
        let id = text.parse::<ExecId>().ok();
        let execs = self.world.execs.lock().unwrap_or_else(PoisonError::into_inner);
        let found = id.and_then(|id| execs.get(&id).cloned());
        found.ok_or_else(|| Error::NoSuchExec(text.to_owned()))
    }

    /// Makes an exec; nothing runs yet.
    pub async fn create(&self, container: &str, spec: ExecSpec) -> Result<ExecId> {
        let text = container;
        let container = self.world.index.find(text)?;
        if spec.command.first().is_none_or(String::is_empty) {
            // COMPAT: dockerd's text.
            return Err(Error::Invalid("no exec command specified".to_owned()));
        }
        match container.phase() {
            Phase::Paused(_) => {
                // COMPAT: dockerd's texts, with the name as it was given.
                return Err(Error::Conflict(format!(
                    "Container {text} is paused, unpause the container before exec"
                )));
            }
            Phase::Restarting(_) => {
                return Err(Error::Conflict(format!(
                    "Container {text} is restarting, wait until the container is running"
                )));
            }
            _ => container.running_task()?,
        };
        check_user(&self.world, &container, &spec.user).await?;
        let id = ExecId::from_random(World::random_bits()?);
        let stage = Mutex::new(Stage::Created);
        let over = CancellationToken::new();
        let cell = Arc::new(ExecCell { id, container, spec, stage, over });
        let now = self.world.options.clock.now();
        forget(&self.world, |exec| match *exec.stage() {
            Stage::Ended { at, .. } => now.since(at) >= KEPT,
            _ => false,
        });
        insert(&self.world, &cell);
        cell.container.live().execs.insert(id);
        let (action, attributes) = labelled("exec_create", &cell);
        self.world.container_event(&cell.container, action, attributes);
        Ok(id)
    }

    /// Starts an exec; `None` when detached. The process runs on when the client goes away.
    pub async fn start(&self, exec: &str, how: ExecStart) -> Result<Option<Attached>> {
        let cell = self.find(exec)?;
        let world = Arc::clone(&self.world);
        self.world.to_its_end(async move { start(&world, &cell, how).await }).await
    }

    /// Shows an exec.
    pub async fn inspect(&self, exec: &str) -> Result<ExecView> {
        let cell = self.find(exec)?;
        let (running, exit_code, pid) = match &*cell.stage() {
            Stage::Created | Stage::Starting => (false, None, 0),
            Stage::Running(exec) => (true, None, exec.pid()),
            Stage::Ended { code, .. } => (false, Some(*code), 0),
        };
        let container = cell.container.id;
        Ok(ExecView { id: cell.id, container, spec: cell.spec.clone(), running, exit_code, pid })
    }

    /// Waits until an exec's exit code is known, but not for ever: its process may live on without its streams.
    pub async fn settled(&self, exec: &str) {
        if let Ok(cell) = self.find(exec) {
            tokio::time::timeout(SETTLING, cell.over.cancelled()).await.ok();
        }
    }

    /// Tells an exec's terminal the size.
    pub async fn resize(&self, exec: &str, window: WindowSize) -> Result<()> {
        let cell = self.find(exec)?;
        let running = match &*cell.stage() {
            Stage::Running(exec) => Arc::clone(exec),
            _ => return Err(Error::Conflict(format!("exec {} is not running", cell.id))),
        };
        let message = format!("cannot resize the terminal of exec {}", cell.id);
        running.resize(window).await.map_err(|source| Error::Task { message, source })
    }

    /// Notes that a client left with the detach keys.
    pub async fn note_detach(&self, exec: &str) -> Result<()> {
        let cell = self.find(exec)?;
        let id = [("execID", cell.id.to_string())];
        self.world.container_event(&cell.container, "exec_detach", id);
        Ok(())
    }
}

// LIMIT: as much of a container's own files is read to look a name up.
const LARGEST_PASSWD: u64 = 1 << 20;

/// COMPAT: an unknown user is refused when the exec is made. The process itself looks the user up again.
async fn check_user(world: &World, container: &Container, user: &str) -> Result<()> {
    let (user, group) = user.split_once(':').unwrap_or((user, ""));
    for (name, file, kind) in [(user, "/etc/passwd", "user"), (group, "/etc/group", "group")] {
        if name.is_empty() || name.parse::<u32>().is_ok() {
            continue;
        }
        let pid = Some(container.state().pid).filter(|pid| *pid != 0);
        let tree = world.parts.snapshots.open(&container.id, pid).await?;
        let text = tree.read(file, LARGEST_PASSWD).await?.unwrap_or_default();
        let known = text.split(|byte| *byte == b'\n').any(|line| {
            line.split(|byte| *byte == b':').next().is_some_and(|first| first == name.as_bytes())
        });
        if !known {
            let table = file.trim_start_matches("/etc/");
            return Err(Error::NoSuchUser(format!(
                "unable to find {kind} {name}: no matching entries in {table} file"
            )));
        }
    }
    Ok(())
}

fn labelled(action: &str, cell: &ExecCell) -> (String, [(&'static str, String); 1]) {
    (format!("{action}: {}", cell.command()), [("execID", cell.id.to_string())])
}

async fn start(
    world: &Arc<World>,
    cell: &Arc<ExecCell>,
    how: ExecStart,
) -> Result<Option<Attached>> {
    {
        let mut stage = cell.stage();
        match *stage {
            Stage::Created => *stage = Stage::Starting,
            Stage::Starting | Stage::Running(_) => {
                return Err(Error::Conflict(format!("exec {} is already running", cell.id)));
            }
            // COMPAT: dockerd's text.
            Stage::Ended { .. } => {
                return Err(Error::Conflict(format!("exec command {} has already run", cell.id)));
            }
        }
    }
    let spec = &cell.spec;
    let (near, attachment) = if how.detach {
        (None, None)
    } else {
        match connection() {
            Ok((near, far)) => {
                let attachment = Attachment {
                    socket: far,
                    stdin: spec.stdin,
                    stdout: spec.stdout,
                    stderr: spec.stderr,
                };
                (Some(near), Some(attachment))
            }
            Err(error) => {
                *cell.stage() = Stage::Created;
                return Err(error);
            }
        }
    };
    let (action, attributes) = labelled("exec_start", cell);
    world.container_event(&cell.container, action, attributes);
    // Written down meanwhile, so that the next daemon finds it again.
    let noted = world.parts.database.put(Durability::Normal, cell.record(None));
    let (launched, noted) = tokio::join!(launch(world, cell, attachment, how.window), noted);
    if let Err(error) = noted {
        tracing::warn!(exec = %cell.id, error = full_message(&error), "cannot write the exec down");
    }
    let exec = match launched {
        Ok(exec) => exec,
        Err(error) => {
            let code = match &error {
                Error::ExecStart(TaskError::Start { exit_code, .. }) => *exit_code,
                Error::Invalid(_) => 128,
                _ => 126,
            };
            finish(world, cell, code);
            return Err(error);
        }
    };
    *cell.stage() = Stage::Running(Arc::clone(&exec));
    watch(world, cell, exec);
    Ok(near.map(|near| Attached { tty: spec.tty, logs: None, stream: Some(near) }))
}

async fn launch(
    world: &World,
    cell: &ExecCell,
    attachment: Option<Attachment>,
    window: Option<WindowSize>,
) -> Result<Arc<dyn Exec>> {
    let task = cell.container.running_task()?;
    let launch = launch_of(world, cell, attachment, window)?;
    run(&cell.container, &task, launch).await
}

fn launch_of(
    world: &World,
    cell: &ExecCell,
    attachment: Option<Attachment>,
    window: Option<WindowSize>,
) -> Result<ExecLaunch> {
    let definition = cell.container.definition();
    let spec = &cell.spec;
    if !spec.working_dir.is_empty() && !spec.working_dir.starts_with('/') {
        // COMPAT: dockerd's text.
        return Err(Error::Invalid(
            "OCI runtime exec failed: exec failed: Cwd must be an absolute path".to_owned(),
        ));
    }
    let capabilities = if spec.privileged {
        world.capabilities
    } else {
        validate::capabilities(&definition.spec, world.capabilities)?
    };
    let container = (&definition.spec, &definition.effective);
    let process = ocispec::build_exec(container, spec, capabilities, &world.facts)?;
    let own = spec.user.is_empty();
    Ok(ExecLaunch {
        id: cell.id,
        process,
        user: if own { definition.effective.user.clone() } else { spec.user.clone() },
        groups: if own { definition.spec.process.groups.clone() } else { Vec::new() },
        window: window.unwrap_or(spec.window),
        attachment,
    })
}

async fn run(
    container: &Container,
    task: &Arc<dyn Task>,
    launch: ExecLaunch,
) -> Result<Arc<dyn Exec>> {
    let _thawed = container.freezing.read().await;
    task.exec(launch).await.map_err(|source| match source {
        TaskError::Start { .. } => Error::ExecStart(source),
        source => Error::Task { message: "cannot exec in a stopped container".to_owned(), source },
    })
}

fn finish(world: &World, cell: &ExecCell, code: i32) {
    let at = world.options.clock.now();
    *cell.stage() = Stage::Ended { code, at };
    cell.over.cancel();
    cell.container.live().execs.remove(&cell.id);
    let (database, record) = (world.parts.database.clone(), cell.record(Some((code, at))));
    world.tracker.spawn(async move {
        if let Err(error) = database.put(Durability::Normal, record).await {
            tracing::warn!(error = full_message(&error), "cannot write the end of an exec");
        }
    });
}

fn insert(world: &World, cell: &Arc<ExecCell>) {
    let mut execs = world.execs.lock().unwrap_or_else(PoisonError::into_inner);
    execs.insert(cell.id, Arc::clone(cell));
}

/// Forgets the execs of which `over` is true, and their records in the background.
pub(crate) fn forget(world: &World, over: impl Fn(&ExecCell) -> bool) {
    let mut gone = Vec::new();
    {
        let mut execs = world.execs.lock().unwrap_or_else(PoisonError::into_inner);
        execs.retain(|_, exec| {
            let over = over(exec);
            if over {
                gone.push(exec.id);
            }
            !over
        });
    }
    forget_records(world, gone);
}

fn forget_records(world: &World, gone: Vec<ExecId>) {
    if gone.is_empty() {
        return;
    }
    let database = world.parts.database.clone();
    world.tracker.spawn(async move {
        let removal = database.write(Durability::Normal, move |records| {
            gone.iter().try_for_each(|id| records.remove::<ExecRecord>(&id.to_string()).map(drop))
        });
        if let Err(error) = removal.await {
            tracing::warn!(error = full_message(&error), "cannot remove the records of execs");
        }
    });
}

/// Reads what earlier daemons started, by container; forgets what nobody can ask for any more.
pub(crate) async fn read_records(world: &World) -> Result<HashMap<ContainerId, Vec<ExecRecord>>> {
    let records: Vec<ExecRecord> = world.parts.database.list().await?;
    let now = world.options.clock.now();
    let mut kept: HashMap<_, Vec<_>> = HashMap::new();
    let mut gone = Vec::new();
    for record in records {
        let late = record.ended.is_some_and(|(_, at)| now.since(at) >= KEPT);
        if late || world.index.find(&record.container.to_string()).is_err() {
            gone.push(record.id);
        } else {
            kept.entry(record.container).or_default().push(record);
        }
    }
    forget_records(world, gone);
    Ok(kept)
}

/// Takes the execs of a container over; `task` is `None` when it does not run any more.
pub(crate) async fn adopt(
    world: &Arc<World>,
    container: &Arc<Container>,
    task: Option<&Arc<dyn Task>>,
    records: Vec<ExecRecord>,
) {
    for ExecRecord { id, spec, ended, .. } in records {
        let (stage, running) = match (ended, task) {
            (Some((code, at)), _) => (Stage::Ended { code, at }, None),
            (None, Some(task)) => match task.find_exec(id).await {
                Ok(exec) => (Stage::Running(Arc::clone(&exec)), Some(exec)),
                Err(error) => {
                    // It ended so long ago that the shim does not know it any more, or it never started.
                    tracing::debug!(%id, error = full_message(&error), "an exec is not there any more");
                    forget_records(world, vec![id]);
                    continue;
                }
            },
            // The container went down, and the exec with it.
            (None, None) => (Stage::Ended { code: 137, at: world.options.clock.now() }, None),
        };
        let stage = Mutex::new(stage);
        let over = CancellationToken::new();
        if running.is_none() {
            over.cancel();
        }
        let cell = Arc::new(ExecCell { id, container: Arc::clone(container), spec, stage, over });
        insert(world, &cell);
        if let Some(exec) = running {
            container.live().execs.insert(id);
            watch(world, &cell, exec);
        }
    }
}

/// Waits for the end of an exec in the background.
fn watch(world: &Arc<World>, cell: &Arc<ExecCell>, exec: Arc<dyn Exec>) {
    let (world, cell) = (Arc::clone(world), Arc::clone(cell));
    world.tracker.clone().spawn(async move {
        let exit = tokio::select! {
            biased;
            exit = exec.exit() => exit,
            () = world.closing.cancelled() => return,
        };
        finish(&world, &cell, exit.code);
        let attributes = [("execID", cell.id.to_string()), ("exitCode", exit.code.to_string())];
        world.container_event(&cell.container, "exec_die", attributes);
    });
}

/// Runs a health check's process: announced like an exec, but not kept for `inspect`.
pub(crate) async fn probe(
    world: &Arc<World>,
    container: &Arc<Container>,
    spec: ExecSpec,
) -> Result<(tokio::net::UnixStream, Arc<dyn Exec>, ExecId)> {
    let id = ExecId::from_random(World::random_bits()?);
    let stage = Mutex::new(Stage::Starting);
    let over = CancellationToken::new();
    let cell = ExecCell { id, container: Arc::clone(container), spec, stage, over };
    let task = container.running_task()?;
    let (near, far) = connection()?;
    let attachment = Attachment { socket: far, stdin: false, stdout: true, stderr: true };
    let launch = launch_of(world, &cell, Some(attachment), None)?;
    let (action, attributes) = labelled("exec_create", &cell);
    world.container_event(container, action, attributes);
    let (action, attributes) = labelled("exec_start", &cell);
    world.container_event(container, action, attributes);
    let exec = run(container, &task, launch).await.inspect_err(|error| {
        tracing::debug!(container = %container.id.short(), error = full_message(error), "health check");
    })?;
    Ok((near, exec, id))
}
