//! What accompanies a run: its end is processed exactly once, by one task per run, whoever asks for it and however late.
//!
//! It takes no operation lock, so `stop` may hold that and wait for the end it causes.

use std::sync::Arc;
use std::time::Duration;

use rorqual_core::full_message;
use rorqual_shim::{Exit, Task, TaskId};
use tokio::sync::OwnedMutexGuard;
use tokio_util::sync::CancellationToken;

use super::{remove, start};
use crate::container::Container;
use crate::events::EventKind;
use crate::health;
use crate::phase::{Desired, Happening, Phase};
use crate::restart::{Ended, Verdict, verdict};
use crate::view::MountPointKind;
use crate::world::{self, World};

// LIMIT: how soon a state that could not be written is written again.
const WRITE_AGAIN: Duration = Duration::from_secs(1);

/// Begins to watch a run.
pub(crate) fn accompany(world: &Arc<World>, container: &Arc<Container>, task: &Arc<dyn Task>) {
    container.running.send_replace(true);
    let company = CancellationToken::new();
    container.live().company = Some(company.clone());
    health::watch(world, container, task, company.clone());
    let (world, container, task) = (Arc::clone(world), Arc::clone(container), Arc::clone(task));
    world.tracker.clone().spawn(async move {
        let exit = loop {
            tokio::select! {
                biased;
                exit = task.exit() => break exit,
                () = task.out_of_memory() => world.container_event(&container, "oom", []),
                // The container goes on without us; the next daemon takes it over.
                () = world.closing.cancelled() => return,
            }
        };
        company.cancel();
        ended(&world, &container, task.id(), exit, Some(&task)).await;
    });
}

/// Processes the end of a run. `task` is `None` when only an exit record was found.
pub(crate) async fn ended(
    world: &Arc<World>,
    container: &Arc<Container>,
    id: TaskId,
    exit: Exit,
    task: Option<&Arc<dyn Task>>,
) {
    if container.phase().task() != Some(id) {
        return;
    }
    let definition = container.definition();
    let aftermath = Arc::clone(&container.aftermath).lock_owned().await;
    let detached = world::in_time("detach the network", world.parts.networks.detach(&container.id));
    if let Err(error) = detached.await {
        tracing::warn!(container = %container.id.short(), error = full_message(&error), "cannot detach the network");
    }
    world.volumes.unmount_all(container).await;
    let state = container.state();
    let ran = exit.at.since(state.started_at.unwrap_or(exit.at));
    let (verdict, stopping, turning) = {
        let mut live = container.live();
        live.task = None;
        live.health = None;
        let (stopping, turning) = (std::mem::take(&mut live.stopping), live.turning);
        let desired = if turning { Desired::Stopped } else { state.desired };
        let restarts = state.restart_count;
        let policy = definition.spec.restart;
        let ended = Ended { exit: &exit, ran, restarts };
        (verdict(policy, desired, ended, &mut live.backoff), stopping, turning)
    };
    container.running.send_replace(false);
    announce(world, container, &exit, stopping, ran);
    let restart = verdict != Verdict::Stay;
    let happening = Happening::TaskEnded { task: id, exit, restart };
    let applied = container.apply(happening, |state| {
        state.exit_code = exit.code;
        state.oom_killed = exit.oom_killed;
        state.finished_at = Some(exit.at);
        state.pid = 0;
        state.exits += 1;
        state.endpoints.clear();
        state.ports.clear();
    });
    if applied.is_err() {
        return;
    }
    if definition.spec.auto_remove && !restart && !turning {
        // Not worth writing down: should we die here, the next daemon removes it all the same. The removal waits for
        // its turn, and who has it may wait for the release.
        let let_go = async {
            release(world, container, task).await;
            drop(aftermath);
        };
        tokio::join!(let_go, remove::auto(world, container));
        return;
    }
    match container.persist(&world.parts.database).await {
        Ok(()) => settle(world, container, task, verdict, aftermath).await,
        Err(error) => {
            // The shim keeps its exit record until then, so that no daemon misses the end.
            tracing::error!(container = %container.id.short(), error = full_message(&error), "cannot write the exit");
            let (world, container, task) =
                (Arc::clone(world), Arc::clone(container), task.cloned());
            world.tracker.clone().spawn(async move {
                if write_at_last(&world, &container).await {
                    settle(&world, &container, task.as_ref(), verdict, aftermath).await;
                }
            });
        }
    }
}

/// Tries to write the state until that works; false when the daemon ends first.
async fn write_at_last(world: &World, container: &Container) -> bool {
    loop {
        tokio::select! {
            biased;
            () = world.closing.cancelled() => return false,
            () = tokio::time::sleep(WRITE_AGAIN) => {}
        }
        if container.persist(&world.parts.database).await.is_ok() {
            tracing::info!(container = %container.id.short(), "the exit is written now");
            return true;
        }
    }
}

/// What follows once the end of a run is written down.
async fn settle(
    world: &Arc<World>,
    container: &Arc<Container>,
    task: Option<&Arc<dyn Task>>,
    verdict: Verdict,
    aftermath: OwnedMutexGuard<()>,
) {
    release(world, container, task).await;
    drop(aftermath);
    if let Verdict::Restart(pause) = verdict {
        restart_after(world, container, pause);
    }
}

async fn release(world: &World, container: &Container, task: Option<&Arc<dyn Task>>) {
    let result = match task {
        Some(task) => task.release().await,
        None => world.parts.tasks.forget(container.id).await,
    };
    if let Err(error) = result {
        tracing::warn!(container = %container.id.short(), error = full_message(&error), "cannot release the task");
    }
}

/// Tells everybody, in Docker's order: disconnect, unmount, (stop,) die.
fn announce(world: &World, container: &Container, exit: &Exit, stopping: bool, ran: Duration) {
    let id = container.id.to_string();
    for endpoint in container.state().endpoints {
        let attributes = [
            ("container", id.clone()),
            ("name", endpoint.network_name.clone()),
            ("type", start::network_type(&endpoint.network_name)),
        ];
        world.event(EventKind::Network, "disconnect", &endpoint.network.to_string(), attributes);
    }
    for mount in &container.definition().mounts {
        if mount.kind == MountPointKind::Volume {
            let name = mount.name.as_ref().map(ToString::to_string).unwrap_or_default();
            let attributes = [("container", id.clone()), ("driver", mount.driver.clone())];
            world.event(EventKind::Volume, "unmount", &name, attributes);
        }
    }
    if stopping {
        world.container_event(container, "stop", []);
    }
    let seconds = ran.as_secs().to_string();
    let attributes = [("exitCode", exit.code.to_string()), ("execDuration", seconds)];
    world.container_event(container, "die", attributes);
}

/// Starts a container again after a pause, unless that is called off.
pub(crate) fn restart_after(world: &Arc<World>, container: &Arc<Container>, pause: Duration) {
    let off = CancellationToken::new();
    container.live().restart = Some(off.clone());
    let (world, container) = (Arc::clone(world), Arc::clone(container));
    world.tracker.clone().spawn(async move {
        tokio::select! {
            biased;
            () = off.cancelled() => return,
            () = world.closing.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
        let _turn = world.locks.lock(container.id).await;
        // Whoever had the lock before may have called it off.
        if !off.is_cancelled() && matches!(container.phase(), Phase::Restarting(_)) {
            start::launch_again(&world, &container).await;
        }
    });
}
