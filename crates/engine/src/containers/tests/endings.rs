//! Ends, removals, restarts and daemons that die: at every fault point and after every await.

use std::collections::BTreeSet;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use rorqual_core::{Classify, ErrorKind};
use rorqual_shim::{Exit, Task};

use super::{CREATE_STEPS, START_STEPS, create, is_consistent, start};
use crate::request::{RemoveRequest, StopRequest, UpdateRequest, WaitCondition};
use crate::spec::{ContainerSpec, RestartPolicy, StopTimeout};
use crate::testing::{Host, LIVES_ON, eventually, phase, poll_and_drop, poll_some, spec};
use crate::{Engine, Phase};

/// What happens at an end, a removal and the start of a daemon; all of it may fail without anything being lost.
const LATER_STEPS: [&str; 6] =
    ["detach", "adopt network", "adopt task", "forget", "sweep", "remove snapshot"];
/// Kinds of records that are written on the way.
const RECORDS: [&str; 2] = ["container", "container-state"];
const FORCE: RemoveRequest = RemoveRequest { force: true, volumes: true };

/// A container that takes everything of its own along when it is removed.
fn plain() -> ContainerSpec {
    let mut spec = spec("web", &[]);
    spec.storage.anonymous = vec!["/data".to_owned()];
    spec
}

async fn made() -> (Host, Engine) {
    let host = Host::new().await;
    let engine = host.boot().await;
    engine.containers.create(plain()).await.unwrap();
    (host, engine)
}

#[test]
fn every_fault_point_is_on_a_list() {
    let source = include_str!("../../testing.rs");
    let points: BTreeSet<&str> =
        source.split("step(\"").skip(1).filter_map(|rest| rest.split('"').next()).collect();
    let listed = CREATE_STEPS.into_iter().chain(START_STEPS).chain(LATER_STEPS).collect();
    assert_eq!(points, listed);
}

#[tokio::test]
async fn every_fault_point_lies_on_the_way_of_a_life() {
    let (host, engine) = made().await;
    assert!(start(&engine).await);
    engine.shutdown(LIVES_ON).await;
    let engine = host.boot().await;
    let id = engine.containers.inspect("web", false).await.unwrap().id;
    engine.shutdown(LIVES_ON).await;
    host.tasks.end(id, 3);
    let engine = host.boot().await;
    engine.containers.remove("web", FORCE).await.unwrap();
    eventually("clean", async || host.is_clean().await).await;
    let listed: BTreeSet<_> =
        CREATE_STEPS.into_iter().chain(START_STEPS).chain(LATER_STEPS).collect();
    assert_eq!(host.sabotage.visited(), listed);
}

#[tokio::test]
async fn a_database_that_refuses_leaves_nothing_of_a_create() {
    for kind in RECORDS {
        let host = Host::new().await;
        let engine = host.boot().await;
        host.refuse_records(Some(kind));
        assert!(!create(&engine).await, "{kind}");
        host.refuse_records(None);
        assert_eq!(host.leftovers().await, Vec::<String>::new(), "{kind}");
        assert!(create(&engine).await, "{kind}");
    }
}

#[tokio::test]
async fn an_end_that_cannot_be_written_is_written_later() {
    let (host, engine) = made().await;
    assert!(start(&engine).await);
    let id = engine.containers.inspect("web", false).await.unwrap().id;
    host.refuse_records(Some("container-state"));
    host.tasks.end(id, 7);
    eventually("told", async || matches!(phase(&engine, "web").await, Phase::Exited(_))).await;
    assert!(host.tasks.has_record(id), "the shim's record is what is left of the exit");
    // Killed now, the next daemon learns of it from there.
    let next = host.boot().await;
    assert_eq!(next.containers.inspect("web", false).await.unwrap().state.exit_code, 7);
    host.refuse_records(None);
    eventually("released", async || !host.tasks.has_record(id)).await;
    assert_eq!(
        host.boot().await.containers.inspect("web", false).await.unwrap().state.exit_code,
        7
    );
}

#[tokio::test]
async fn a_removal_that_fails_can_be_done_again() {
    for kind in RECORDS {
        let (host, engine) = made().await;
        host.refuse_records(Some(kind));
        engine.containers.remove("web", FORCE).await.unwrap_err();
        assert_eq!(phase(&engine, "web").await.word(), "dead", "{kind}");
        host.refuse_records(None);
        engine.containers.remove("web", FORCE).await.unwrap();
        eventually("clean", async || host.is_clean().await).await;
    }
    let (host, engine) = made().await;
    host.sabotage.fail_at(Some("remove snapshot"));
    engine.containers.remove("web", FORCE).await.unwrap();
    host.sabotage.fail_at(None);
    // The next daemon sweeps what no record owns.
    host.boot().await;
    eventually("clean", async || host.is_clean().await).await;
}

/// A running container whose watcher is gone, as when the daemon was stopped in its tracks; and its run's end.
async fn ended_unwatched(automatic: bool) -> (Host, Engine, Arc<dyn Task>, Exit) {
    let host = Host::new().await;
    let engine = host.boot().await;
    let mut request = plain();
    request.auto_remove = automatic;
    engine.containers.create(request).await.unwrap();
    assert!(start(&engine).await);
    let world = &engine.containers.world;
    let task = world.index.find("web").unwrap().task().unwrap();
    world.closing.cancel();
    world.tracker.close();
    world.tracker.wait().await;
    world.tracker.reopen();
    host.tasks.end(world.index.find("web").unwrap().id, 4);
    let exit = task.exit().await;
    (host, engine, task, exit)
}

#[tokio::test]
async fn an_end_interrupted_by_death_is_told_by_the_next_daemon() {
    for automatic in [false, true] {
        for polls in 0.. {
            let (host, engine, task, exit) = ended_unwatched(automatic).await;
            let world = &engine.containers.world;
            let container = world.index.find("web").unwrap();
            let mut stopped =
                pin!(super::super::run::ended(world, &container, task.id(), exit, Some(&task)));
            let through = poll_some(&mut stopped, polls).await.is_some();
            let next = host.boot().await;
            if automatic {
                let clean = async || host.is_clean().await;
                eventually(&format!("removed after {polls} polls"), clean).await;
            } else {
                let view = next.containers.inspect("web", false).await.unwrap();
                assert_eq!(view.state.exit_code, 4, "after {polls} polls");
                let free = async || !host.tasks.has_record(view.id);
                eventually(&format!("released after {polls} polls"), free).await;
                assert!(is_consistent(&host, &next), "after {polls} polls");
                assert!(start(&next).await, "it starts after {polls} polls");
            }
            if through {
                break;
            }
        }
    }
}

#[tokio::test]
async fn a_removal_interrupted_by_death_is_whole_or_none() {
    for polls in 0.. {
        let (host, engine) = made().await;
        let world = &engine.containers.world;
        let container = world.index.find("web").unwrap();
        let mut stopped = pin!(super::super::remove::remove(world, &container, FORCE));
        let outcome = poll_some(&mut stopped, polls).await;
        let next = host.boot().await;
        if next.containers.world.index.find("web").is_ok() {
            assert!(outcome.is_none(), "removed, and there again after {polls} polls");
            next.containers.remove("web", FORCE).await.unwrap();
        }
        eventually(&format!("clean after {polls} polls"), async || host.is_clean().await).await;
        if outcome.is_some() {
            break;
        }
    }
}

#[tokio::test]
async fn a_change_goes_on_when_its_client_leaves() {
    for polls in 1..6 {
        let (host, engine) = made().await;
        let containers = &engine.containers;
        poll_and_drop(containers.start("web"), polls).await;
        eventually("runs", async || phase(&engine, "web").await.word() == "running").await;
        poll_and_drop(Box::pin(containers.restart("web", StopRequest::default())), polls).await;
        eventually("second run", async || {
            host.tasks.launches().len() == 2 && phase(&engine, "web").await.word() == "running"
        })
        .await;
        poll_and_drop(containers.stop("web", StopRequest::default()), polls).await;
        eventually("stopped", async || phase(&engine, "web").await.word() == "exited").await;
        poll_and_drop(containers.remove("web", FORCE), polls).await;
        eventually("clean", async || host.is_clean().await).await;
    }
}

#[tokio::test]
async fn a_restart_keeps_what_an_end_would_remove_or_start_again() {
    for policy in [RestartPolicy::No, RestartPolicy::Always] {
        let host = Host::new().await;
        let engine = host.boot().await;
        let mut request = plain();
        request.auto_remove = policy == RestartPolicy::No;
        request.restart = policy;
        let id = engine.containers.create(request).await.unwrap().id;
        assert!(start(&engine).await);
        for round in 1..20 {
            engine.containers.restart("web", StopRequest::default()).await.unwrap();
            let view = engine.containers.inspect("web", false).await.unwrap();
            assert!(matches!(view.state.phase, Phase::Running(_)), "{policy:?}, round {round}");
            assert_eq!((view.id, view.restart_count), (id, 0));
        }
        assert_eq!(host.tasks.launches().len(), 20, "{policy:?}");
        let waiting = engine.containers.wait("web", WaitCondition::Removed).await.unwrap();
        if policy == RestartPolicy::Always {
            engine.containers.remove("web", FORCE).await.unwrap();
        } else {
            engine.containers.stop("web", StopRequest::default()).await.unwrap();
        }
        waiting.outcome().await;
        let rest = engine.volumes.prune(rorqual_core::Filters::default()).await;
        assert!(rest.is_ok());
        eventually("clean", async || host.is_clean().await).await;
    }
}

#[tokio::test]
async fn nobody_waits_for_a_patient_stop() {
    let (host, engine) = made().await;
    host.tasks.on_launch(|_| rorqual_shim::fake::Program {
        stubborn: true,
        ..rorqual_shim::fake::Program::default()
    });
    assert!(start(&engine).await);
    let timeout = Some(StopTimeout::Never);
    let patient = {
        let engine = engine.clone();
        let request = StopRequest { signal: None, timeout };
        tokio::spawn(async move { engine.containers.stop("web", request).await })
    };
    let world = &engine.containers.world;
    let container = world.index.find("web").unwrap();
    eventually("asked", async || container.live().stopping).await;
    let others = async {
        engine.containers.rename("web", "other".parse().unwrap()).await.unwrap();
        engine.containers.update("other", UpdateRequest::default()).await.unwrap();
        engine.containers.commit("other", crate::CommitRequest::default()).await.unwrap();
        let hasty = StopRequest { signal: None, timeout: Some(StopTimeout::After(Duration::ZERO)) };
        engine.containers.stop("other", hasty).await.unwrap();
    };
    tokio::time::timeout(Duration::from_secs(10), Box::pin(others))
        .await
        .expect("they need not wait");
    patient.await.unwrap().unwrap();
    assert_eq!(engine.containers.inspect("other", false).await.unwrap().state.exit_code, 137);
}

#[tokio::test]
async fn a_shim_that_does_not_answer_is_not_given_up() {
    let (host, engine) = made().await;
    assert!(start(&engine).await);
    engine.shutdown(LIVES_ON).await;
    host.sabotage.fail_at(Some("adopt task"));
    let engine = host.boot().await;
    let view = engine.containers.inspect("web", false).await.unwrap();
    assert!(matches!(view.state.phase, Phase::Running(_)));
    assert!(host.tasks.running(view.id).is_some(), "what could not be asked was not swept");
    let refused = engine.containers.stop("web", StopRequest::default()).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Unavailable);
    host.sabotage.fail_at(None);
    eventually("reached", async || {
        engine.containers.inspect("web", false).await.unwrap().state.pid > 0
    })
    .await;
    host.tasks.end(view.id, 5);
    eventually("ended", async || phase(&engine, "web").await.word() == "exited").await;
    assert_eq!(engine.containers.inspect("web", false).await.unwrap().state.exit_code, 5);
}
