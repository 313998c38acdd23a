//! A container in memory: its definition, the cell that holds its state, and what dies with the daemon.
//!
//! INVARIANT: `cell` changes only through [`Container::apply`] and [`Container::change`]; each is one short critical
//! section, so phases never skip a step. Writing the state down follows; writes of one container never overtake each other.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use rorqual_core::{ContainerId, ExecId};
use rorqual_shim::{Attachment, Task, TaskId};
use rorqual_store::{Database, Durability};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::error::{Error, Result};
use crate::phase::{Happening, IllegalTransition, Phase};
use crate::records::{ContainerRecord, State, StateRecord};
use crate::restart::Backoff;
use crate::view::{ContainerView, HealthView, StateView};

/// A container.
pub(crate) struct Container {
    pub(crate) id: ContainerId,
    definition: RwLock<Arc<ContainerRecord>>,
    cell: watch::Sender<State>,
    live: Mutex<Live>,
    /// Turns true when the records were removed: nothing may be written after that.
    erased: tokio::sync::Mutex<bool>,
    /// True while a task runs; readers that follow the log end with it.
    pub(crate) running: watch::Sender<bool>,
    /// Held from the end of a run until its shim and exit record have let go: the next run needs their places.
    pub(crate) aftermath: Arc<tokio::sync::Mutex<()>>,
    /// Read while an extra process is started and written while the container is frozen: a half-started process that is
    /// frozen would hold up the shim that waits for it.
    pub(crate) freezing: tokio::sync::RwLock<()>,
}

/// What is not kept on disk.
#[derive(Default)]
pub(crate) struct Live {
    pub(crate) task: Option<Arc<dyn Task>>,
    /// Clients that attached before the start.
    pub(crate) waiting: Vec<Attachment>,
    pub(crate) execs: BTreeSet<ExecId>,
    pub(crate) health: Option<HealthView>,
    pub(crate) backoff: Backoff,
    /// Calls the pending restart off.
    pub(crate) restart: Option<CancellationToken>,
    /// Ends what accompanies the present run (health checks).
    pub(crate) company: Option<CancellationToken>,
    /// `stop` asked for the coming end.
    pub(crate) stopping: bool,
    /// `restart` asked for the coming end: neither the restart policy nor automatic removal applies to it.
    pub(crate) turning: bool,
    /// It runs, and its shim could not be reached yet.
    pub(crate) unreached: bool,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Container {
    pub(crate) fn new(definition: ContainerRecord, state: State) -> Arc<Self> {
        Arc::new(Self {
            id: definition.id,
            definition: RwLock::new(Arc::new(definition)),
            cell: watch::Sender::new(state),
            live: Mutex::default(),
            erased: tokio::sync::Mutex::new(false),
            running: watch::Sender::new(false),
            aftermath: Arc::default(),
            freezing: tokio::sync::RwLock::default(),
        })
    }

    pub(crate) fn definition(&self) -> Arc<ContainerRecord> {
        Arc::clone(&self.definition.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn live(&self) -> MutexGuard<'_, Live> {
        lock(&self.live)
    }

    pub(crate) fn state(&self) -> State {
        self.cell.borrow().clone()
    }

    pub(crate) fn phase(&self) -> Phase {
        self.cell.borrow().phase.clone()
    }

    pub(crate) fn subscribe(&self) -> watch::Receiver<State> {
        self.cell.subscribe()
    }

    /// Applies a happening, with `also` in the same step.
    pub(crate) fn apply(
        &self,
        happening: Happening,
        also: impl FnOnce(&mut State),
    ) -> Result<(), IllegalTransition> {
        let mut result = Ok(());
        self.cell.send_if_modified(|state| match state.phase.clone().after(happening) {
            Ok(next) => {
                state.phase = next;
                also(state);
                true
            }
            Err(illegal) => {
                result = Err(illegal);
                false
            }
        });
        result
    }

    /// Changes anything but the phase.
    pub(crate) fn change(&self, change: impl FnOnce(&mut State)) {
        self.cell.send_modify(change);
    }

    /// Writes the present state down.
    pub(crate) async fn persist(&self, database: &Database) -> Result<()> {
        let erased = self.erased.lock().await;
        if *erased {
            return Ok(());
        }
        let record = StateRecord { id: self.id, state: self.state() };
        Ok(database.put(Durability::Normal, record).await?)
    }

    /// Writes a new definition down and takes it over.
    pub(crate) async fn redefine(&self, database: &Database, new: ContainerRecord) -> Result<()> {
        let erased = self.erased.lock().await;
        if !*erased {
            database.put(Durability::Normal, new.clone()).await?;
        }
        *self.definition.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(new);
        Ok(())
    }

    /// Removes the records.
    pub(crate) async fn erase(&self, database: &Database) -> Result<()> {
        let mut erased = self.erased.lock().await;
        let id = self.id.to_string();
        let removal = database.write(Durability::Normal, move |records| {
            records.remove::<ContainerRecord>(&id)?;
            records.remove::<StateRecord>(&id)
        });
        removal.await?;
        *erased = true;
        Ok(())
    }

    /// Returns the task that runs.
    pub(crate) fn task(&self) -> Option<Arc<dyn Task>> {
        self.live().task.clone()
    }

    /// Refuses when the container runs without our being able to steer it.
    pub(crate) fn check_reached(&self) -> Result<()> {
        if !self.live().unreached {
            return Ok(());
        }
        Err(Error::Unavailable(format!(
            "the shim of container {} does not answer; the daemon goes on trying, try again later",
            self.id.short()
        )))
    }

    /// Returns the running task, or dockerd's refusal.
    pub(crate) fn running_task(&self) -> Result<Arc<dyn Task>> {
        self.check_reached()?;
        // COMPAT: clients look for this text.
        self.task().ok_or_else(|| Error::Conflict(format!("container {} is not running", self.id)))
    }

    /// Waits until this run has ended (or the container is gone).
    pub(crate) async fn ended(&self, task: TaskId) {
        let mut states = self.subscribe();
        // The sender lives as long as `self`, so an error cannot happen while we wait.
        states.wait_for(|state| state.gone || state.phase.task() != Some(task)).await.ok();
    }

    pub(crate) fn view(&self) -> ContainerView {
        let definition = self.definition();
        let state = self.state();
        let live = self.live();
        ContainerView {
            id: self.id,
            name: definition.name.clone(),
            created: definition.created,
            spec: Arc::new(definition.spec.clone()),
            effective: Arc::new(definition.effective.clone()),
            image: definition.image.clone(),
            manifest: definition.manifest.clone(),
            platform: definition.platform.clone(),
            mounts: definition.mounts.clone(),
            log: definition.log.clone(),
            files: state.files.clone(),
            restart_count: state.restart_count,
            execs: live.execs.iter().copied().collect(),
            endpoints: state.endpoints.clone(),
            ports: state.ports.clone(),
            size: None,
            rootfs: None,
            state: StateView {
                phase: state.phase,
                desired: state.desired,
                pid: state.pid,
                exit_code: state.exit_code,
                error: state.error,
                oom_killed: state.oom_killed,
                started_at: state.started_at,
                finished_at: state.finished_at,
                health: live.health.clone(),
            },
        }
    }
}
