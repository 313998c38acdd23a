//! Health checks: one task per run of a container that has a check.

use std::sync::Arc;
use std::time::Duration;

use rorqual_core::{Timestamp, full_message};
use rorqual_shim::Task;
use tokio::io::AsyncReadExt;
use tokio_util::sync::CancellationToken;

use crate::container::Container;
use crate::execs;
use crate::phase::Phase;
use crate::request::ExecSpec;
use crate::spec::HealthTest;
use crate::view::{HealthPlan, HealthProbe, HealthStatus, HealthView};
use crate::world::World;

// LIMIT: Docker keeps as many results, and as much of each one's output.
const KEPT: usize = 5;
const OUTPUT: usize = 4096;

/// Begins to check a container, if it has a check; `over` ends that.
pub(crate) fn watch(
    world: &Arc<World>,
    container: &Arc<Container>,
    task: &Arc<dyn Task>,
    over: CancellationToken,
) {
    let definition = container.definition();
    let Some(plan) = definition.effective.health.clone() else { return };
    container.live().health = Some(HealthView::default());
    let started = task.started_at();
    let (world, container) = (Arc::clone(world), Arc::clone(container));
    world.tracker.clone().spawn(async move {
        let checks = checks(&world, &container, &plan, started);
        tokio::select! {
            biased;
            () = over.cancelled() => {}
            () = world.closing.cancelled() => {}
            () = checks => {}
        }
    });
}

async fn checks(
    world: &Arc<World>,
    container: &Arc<Container>,
    plan: &HealthPlan,
    started: Timestamp,
) {
    let began = tokio::time::Instant::now();
    loop {
        tokio::time::sleep(pause(container, plan, began.elapsed())).await;
        // Frozen processes cannot answer; the check goes on with the container.
        let mut states = container.subscribe();
        if states.wait_for(|state| !matches!(state.phase, Phase::Paused(_))).await.is_err() {
            return;
        }
        let probe = probe(world, container, plan).await;
        let grace = probe.start.since(started) < plan.start_period;
        let changed = {
            let mut live = container.live();
            let Some(health) = live.health.as_mut() else { return };
            let before = health.status;
            note(health, probe, plan.retries, grace);
            Some(health.status).filter(|status| *status != before)
        };
        if let Some(status) = changed {
            world.container_event(container, format!("health_status: {}", status.word()), []);
        }
    }
}

/// Within the grace, checks come in shorter intervals until the first success.
fn pause(container: &Container, plan: &HealthPlan, since_start: Duration) -> Duration {
    let starting = container
        .live()
        .health
        .as_ref()
        .is_some_and(|health| health.status == HealthStatus::Starting);
    if starting && since_start < plan.start_period { plan.start_interval } else { plan.interval }
}

/// Takes a result in: the pure rule of health.
fn note(health: &mut HealthView, probe: HealthProbe, retries: u32, grace: bool) {
    if probe.exit_code == 0 {
        health.failing_streak = 0;
        health.status = HealthStatus::Healthy;
    } else if !(grace && health.status == HealthStatus::Starting) {
        health.failing_streak += 1;
        if health.failing_streak >= retries {
            health.status = HealthStatus::Unhealthy;
        }
    }
    if health.log.len() == KEPT {
        health.log.remove(0);
    }
    health.log.push(probe);
}

/// Runs the check once.
async fn probe(world: &Arc<World>, container: &Arc<Container>, plan: &HealthPlan) -> HealthProbe {
    let start = world.options.clock.now();
    let command = match &plan.test {
        HealthTest::Command(words) => words.clone(),
        HealthTest::Shell(line) => {
            let shell = container.definition().effective.shell.clone();
            let mut words = shell.unwrap_or_else(|| vec!["/bin/sh".to_owned(), "-c".to_owned()]);
            words.push(line.clone());
            words
        }
    };
    let spec = ExecSpec { command, stdout: true, stderr: true, ..ExecSpec::default() };
    let (exit_code, output) = match execs::probe(world, container, spec).await {
        Ok((stream, exec, id)) => {
            let mut output = Vec::new();
            let run = async {
                let (exit, ()) = tokio::join!(exec.exit(), read_bounded(stream, &mut output));
                exit.code
            };
            let ended = tokio::time::timeout(plan.timeout, run).await;
            let code = if let Ok(code) = ended {
                code
            } else {
                exec.signal(rorqual_core::Signal::KILL).await.ok();
                let seconds = rorqual_core::units::go_duration(plan.timeout);
                let text = format!("Health check exceeded timeout ({seconds})");
                output = match unframed(&output) {
                    said if said.is_empty() => framed(&text),
                    said => framed(&format!("{text}: {}", String::from_utf8_lossy(&said))),
                };
                -1
            };
            let attributes = [("execID", id.to_string()), ("exitCode", code.to_string())];
            world.container_event(container, "exec_die", attributes);
            (code, String::from_utf8_lossy(&unframed(&output)).into_owned())
        }
        Err(error) => (-1, full_message(&error)),
    };
    HealthProbe { start, end: world.options.clock.now(), exit_code, output: cut(output) }
}

fn cut(mut output: String) -> String {
    if output.len() > OUTPUT {
        let mut end = OUTPUT;
        while !output.is_char_boundary(end) {
            end -= 1;
        }
        output.truncate(end);
        output.push_str("...");
    }
    output
}

/// Reads everything and keeps the first part; the rest must be read too, or the process would stall.
async fn read_bounded(mut stream: tokio::net::UnixStream, output: &mut Vec<u8>) {
    let mut buffer = [0; 4096];
    while let Ok(count @ 1..) = stream.read(&mut buffer).await {
        let room = (2 * OUTPUT).saturating_sub(output.len());
        output.extend_from_slice(&buffer[..count.min(room)]);
    }
}

/// Takes Docker's eight-byte headers out.
fn unframed(mut bytes: &[u8]) -> Vec<u8> {
    let mut all = Vec::new();
    while let Some((header, rest)) = bytes.split_first_chunk::<8>() {
        let length = u32::from_be_bytes([header[4], header[5], header[6], header[7]]) as usize;
        let (part, tail) = rest.split_at(length.min(rest.len()));
        all.extend_from_slice(part);
        bytes = tail;
    }
    all
}

fn framed(text: &str) -> Vec<u8> {
    let mut all = vec![1, 0, 0, 0];
    all.extend_from_slice(&(text.len() as u32).to_be_bytes());
    all.extend_from_slice(text.as_bytes());
    all
}

#[cfg(test)]
mod tests;
