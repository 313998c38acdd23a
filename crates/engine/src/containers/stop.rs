//! `stop`, `kill`, `restart`, `pause`, `unpause`.

use std::sync::Arc;
use std::time::Duration;

use rorqual_core::{Signal, full_message};
use rorqual_shim::{KillReach, Task};

use super::start;
use crate::container::Container;
use crate::error::{Error, Result};
use crate::phase::{Desired, Happening, Phase};
use crate::request::{Changed, StopRequest};
use crate::spec::StopTimeout;
use crate::world::World;

// LIMIT: a killed process that has not ended by then hangs in the kernel.
pub(super) const AFTER_KILL: Duration = Duration::from_secs(10);

fn task_failed(message: String) -> impl FnOnce(rorqual_shim::Error) -> Error {
    move |source| Error::Task { message, source }
}

/// A run that was asked to end, and for how long it may take its time.
pub(super) struct Asked {
    task: Arc<dyn Task>,
    patience: StopTimeout,
    /// False when the signal did not get through.
    heard: bool,
}

/// Asks a container to stop, for a user; `Err` tells what is to be answered when there is nothing to wait for.
/// The caller holds its operation lock, and lets go of it for the wait: nobody else has to wait for a slow program.
pub(super) async fn ask_to_stop(
    world: &Arc<World>,
    container: &Arc<Container>,
    request: StopRequest,
) -> Result<Result<Asked, Changed>> {
    container.check_reached()?;
    container.change(|state| state.desired = Desired::Stopped);
    if call_restart_off(world, container).await? {
        return Ok(Err(Changed::Yes));
    }
    let Some(task) = container.task() else {
        container.persist(&world.parts.database).await?;
        return Ok(Err(Changed::Already));
    };
    note_wish(world, container).await;
    Ok(Ok(ask(world, container, task, request).await?))
}

/// Writes down that a user wants it stopped, before it is: a daemon that dies in between would start it again.
async fn note_wish(world: &World, container: &Container) {
    if let Err(error) = container.persist(&world.parts.database).await {
        // What cannot be written must not keep anything from being stopped.
        tracing::warn!(container = %container.id.short(), error = full_message(&error), "cannot write down the wish to stop");
    }
}

/// Calls a pending restart off; returns whether there was one.
pub(super) async fn call_restart_off(world: &World, container: &Container) -> Result<bool> {
    if let Some(pending) = container.live().restart.take() {
        pending.cancel();
    }
    let off = container.apply(Happening::RestartCalledOff, |_| {}).is_ok();
    if off {
        container.persist(&world.parts.database).await?;
    }
    Ok(off)
}

/// Sends a run the signal to stop.
async fn ask(
    world: &Arc<World>,
    container: &Arc<Container>,
    task: Arc<dyn Task>,
    request: StopRequest,
) -> Result<Asked> {
    let definition = container.definition();
    let effective = &definition.effective;
    let signal = request.signal.or(effective.stop_signal).unwrap_or(Signal::TERM);
    let patience = request
        .timeout
        .or(effective.stop_timeout)
        .unwrap_or(StopTimeout::After(world.options.stop_timeout));
    container.live().stopping = true;
    thaw(container, &task).await?;
    let sent = send(world, container, &task, signal).await;
    if let Err(error) = &sent {
        tracing::warn!(container = %container.id.short(), error = full_message(error), "cannot signal, killing");
    }
    Ok(Asked { task, patience, heard: sent.is_ok() })
}

/// Waits for the end of a run that was asked to stop, and kills it when its time is over. Needs no operation lock.
pub(super) async fn see_it_end(
    world: &Arc<World>,
    container: &Arc<Container>,
    Asked { task, patience, heard }: Asked,
) -> Result<()> {
    if !heard {
        return kill_and_wait(world, container, &task).await;
    }
    let ended = container.ended(task.id());
    match patience {
        StopTimeout::Never => ended.await,
        StopTimeout::After(patience) => {
            if tokio::time::timeout(patience, ended).await.is_err() {
                return kill_and_wait(world, container, &task).await;
            }
        }
    }
    Ok(())
}

/// Kills a run and waits for its end.
pub(super) async fn kill_and_wait(
    world: &Arc<World>,
    container: &Arc<Container>,
    task: &Arc<dyn Task>,
) -> Result<()> {
    send(world, container, task, Signal::KILL).await?;
    thaw(container, task).await?;
    let ended = || tokio::time::timeout(AFTER_KILL, container.ended(task.id()));
    if ended().await.is_ok() {
        return Ok(());
    }
    // Either the kernel does not let it go, or its shim hangs and tells nobody.
    if let Err(error) = world.parts.tasks.put_down(container.id, Some(task.pid())).await {
        tracing::warn!(container = %container.id.short(), error = full_message(&error), "cannot end the shim");
    }
    if ended().await.is_err() {
        // COMPAT: dockerd's text.
        return Err(Error::Internal(format!(
            "container {} PID {} is zombie and can not be killed. Use the --init option when creating containers to run an init inside the container that forwards signals and reaps processes",
            container.id.short(),
            task.pid()
        )));
    }
    Ok(())
}

async fn send(
    world: &World,
    container: &Container,
    task: &Arc<dyn Task>,
    signal: Signal,
) -> Result<()> {
    // A process in a shared pid namespace does not take its children along.
    let reach = if signal == Signal::KILL { KillReach::All } else { KillReach::Init };
    match task.signal(signal, reach).await {
        Ok(()) => {
            let number = [("signal", signal.number().to_string())];
            world.container_event(container, "kill", number);
            Ok(())
        }
        // It ended by itself: what was wanted has happened.
        Err(rorqual_shim::Error::Ended) => Ok(()),
        // A dead shim takes its container along, and that end will be heard.
        Err(rorqual_shim::Error::Unreachable { .. }) if signal == Signal::KILL => Ok(()),
        Err(source) => Err(task_failed(format!("cannot kill container: {}", container.id))(source)),
    }
}

async fn thaw(container: &Container, task: &Arc<dyn Task>) -> Result<()> {
    if matches!(container.phase(), Phase::Paused(_)) {
        task.unpause()
            .await
            .map_err(task_failed(format!("cannot unpause container {}", container.id)))?;
        // It may have ended meanwhile: then there is nothing to thaw.
        container.apply(Happening::Thawed, |_| {}).ok();
    }
    Ok(())
}

/// Sends a signal for a user; takes no operation lock, so that a stubborn `stop` can be cut short.
pub(super) async fn kill(
    world: &Arc<World>,
    container: &Arc<Container>,
    signal: Option<Signal>,
) -> Result<()> {
    let signal = signal.unwrap_or(Signal::KILL);
    let stops = signal == Signal::KILL
        || signal == container.definition().effective.stop_signal.unwrap_or(Signal::TERM);
    if matches!(container.phase(), Phase::Restarting(_)) && stops {
        container.change(|state| state.desired = Desired::Stopped);
        call_restart_off(world, container).await?;
        return Ok(());
    }
    // COMPAT: clients look for this text.
    let task = container.running_task().map_err(|_| {
        Error::Conflict(format!(
            "cannot kill container: {}: container {} is not running",
            container.definition().name,
            container.id
        ))
    })?;
    if stops {
        container.change(|state| state.desired = Desired::Stopped);
        note_wish(world, container).await;
    }
    if signal == Signal::KILL {
        kill_and_wait(world, container, &task).await
    } else {
        send(world, container, &task, signal).await
    }
}

/// Asks a container to stop because it is to be started again; `None` when it does not run. The caller holds the
/// operation lock for this and for [`restart`], but not in between.
pub(super) async fn ask_to_turn(
    world: &Arc<World>,
    container: &Arc<Container>,
    request: StopRequest,
) -> Result<Option<Asked>> {
    container.check_reached()?;
    if matches!(container.phase(), Phase::Removing | Phase::Dead { .. }) {
        return Err(Error::Conflict(
            "container is marked for removal and cannot be started".to_owned(),
        ));
    }
    call_restart_off(world, container).await?;
    let Some(task) = container.task() else { return Ok(None) };
    container.live().turning = true;
    Ok(Some(ask(world, container, task, request).await?))
}

/// Starts a container that was stopped for it.
pub(super) async fn restart(world: &Arc<World>, container: &Arc<Container>) -> Result<()> {
    start::start(world, container).await?;
    world.container_event(container, "restart", []);
    Ok(())
}

/// Freezes. The caller holds the operation lock.
pub(super) async fn pause(world: &World, container: &Container) -> Result<()> {
    let task = match container.phase() {
        Phase::Running(_) => container.running_task()?,
        // COMPAT: dockerd's texts.
        Phase::Paused(_) => {
            return Err(Error::Conflict(format!("Container {} is already paused", container.id)));
        }
        Phase::Restarting(_) => {
            return Err(Error::Conflict(format!(
                "Container {} is restarting, wait until the container is running",
                container.id
            )));
        }
        _ => return container.running_task().map(|_| ()),
    };
    // An extra process that is being started is waited for, see `Container::freezing`.
    let paused = {
        let _alone = container.freezing.write().await;
        task.pause().await
    };
    paused.map_err(task_failed(format!("cannot pause container {}", container.id)))?;
    if container.apply(Happening::Frozen, |_| {}).is_err() {
        return container.running_task().map(|_| ());
    }
    container.persist(&world.parts.database).await?;
    world.container_event(container, "pause", []);
    Ok(())
}

/// Thaws. The caller holds the operation lock.
pub(super) async fn unpause(world: &World, container: &Container) -> Result<()> {
    if !matches!(container.phase(), Phase::Paused(_)) {
        // COMPAT: dockerd answers 500 here.
        return Err(Error::Internal(format!("Container {} is not paused", container.id)));
    }
    let task = container.running_task()?;
    thaw(container, &task).await?;
    container.persist(&world.parts.database).await?;
    world.container_event(container, "unpause", []);
    Ok(())
}
