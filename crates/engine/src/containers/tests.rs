//! Sabotage: fail at every step, drop at every await, kill at every fault point. Afterwards the host must be clean.

mod endings;

use std::pin::pin;
use std::sync::Arc;

use crate::request::AttachRequest;
use crate::spec::{ContainerSpec, MountKind, MountSpec, VolumeOptions};
use crate::testing::{Host, eventually, poll_and_drop, poll_some, spec};
use crate::{Engine, Phase};

const CREATE_STEPS: [&str; 3] = ["view", "before prepare", "after prepare"];
const START_STEPS: [&str; 3] = ["attach", "rootfs", "launch"];

/// A container with an anonymous volume, so that creating it has many steps.
fn rich() -> ContainerSpec {
    let mut spec = spec("web", &[]);
    spec.storage.anonymous = vec!["/data".to_owned()];
    spec.storage.mounts = vec![mounted_volume("cache")];
    spec
}

/// A volume with options, so that it is mounted while somebody uses it.
fn mounted_volume(name: &str) -> MountSpec {
    let driver_options = [("type", "none"), ("device", "/srv"), ("o", "bind")]
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .into();
    let options = VolumeOptions { driver_options, ..VolumeOptions::default() };
    MountSpec {
        kind: MountKind::Volume { name: Some(name.parse().unwrap()), options },
        target: "/cache".to_owned(),
        read_only: false,
        mode: String::new(),
    }
}

/// The operation itself, without the task that runs it to its end.
async fn create(engine: &Engine) -> bool {
    super::create::create(Arc::clone(&engine.containers.world), rich()).await.is_ok()
}

async fn start(engine: &Engine) -> bool {
    let world = &engine.containers.world;
    let container = world.index.find("web").unwrap();
    super::start::start(world, &container).await.is_ok()
}

#[tokio::test]
async fn create_leaves_nothing_behind_when_a_step_fails() {
    for step in CREATE_STEPS {
        let host = Host::new().await;
        let engine = host.boot().await;
        host.sabotage.fail_at(Some(step));
        assert!(!create(&engine).await, "{step}");
        assert_eq!(host.leftovers().await, Vec::<String>::new(), "{step}");
        host.sabotage.fail_at(None);
        assert!(create(&engine).await, "the name is free again after {step}");
    }
}

#[tokio::test]
async fn create_leaves_nothing_behind_when_it_is_dropped() {
    for step in CREATE_STEPS.into_iter().map(Some).chain([None]) {
        for polls in 0.. {
            let host = Host::new().await;
            let engine = host.boot().await;
            host.sabotage.fail_at(step);
            let outcome = poll_and_drop(Box::pin(create(&engine)), polls).await;
            engine.containers.world.operations.drain().await;
            let there = engine.containers.world.index.find("web").is_ok();
            // Dropped after its commit point it is as good as done: nothing but the answer was missing.
            let clean = async || there || host.is_clean().await;
            eventually(&format!("clean at {step:?} after {polls} polls"), clean).await;
            assert!(outcome != Some(true) || there, "{step:?} after {polls} polls");
            if outcome.is_some() {
                break;
            }
        }
    }
}

#[tokio::test]
async fn create_leaves_nothing_behind_when_the_daemon_is_killed() {
    for polls in 0.. {
        let host = Host::new().await;
        let engine = host.boot().await;
        // The old daemon stops in its tracks: its future is neither polled nor dropped any more.
        let mut stopped = pin!(create(&engine));
        let outcome = poll_some(&mut stopped, polls).await;
        let next = host.boot().await;
        let there = next.containers.world.index.find("web").is_ok();
        let clean = async || there || host.is_clean().await;
        eventually(&format!("clean after {polls} polls"), clean).await;
        assert!(outcome != Some(true) || there, "lost after {polls} polls");
        if outcome.is_some() {
            break;
        }
    }
}

async fn created() -> (Host, Engine) {
    let host = Host::new().await;
    let engine = host.boot().await;
    assert!(create(&engine).await);
    (host, engine)
}

/// A container that does not run holds neither network nor task nor mount; one that runs holds them all.
fn is_consistent(host: &Host, engine: &Engine) -> bool {
    let container = engine.containers.world.index.find("web").unwrap();
    let attached = !host.nets.attached.lock().unwrap().is_empty();
    let runs = host.tasks.running(container.id).is_some();
    let said = matches!(container.phase(), Phase::Running(_));
    let mounted = !host.mounts.mounted().is_empty();
    attached == said && runs == said && mounted == said
}

#[tokio::test]
async fn a_failed_start_takes_everything_back() {
    for step in START_STEPS {
        let (host, engine) = created().await;
        host.sabotage.fail_at(Some(step));
        assert!(!start(&engine).await, "{step}");
        assert!(is_consistent(&host, &engine), "{step}");
        host.sabotage.fail_at(None);
        assert!(start(&engine).await, "it starts after {step} is repaired");
    }
}

#[tokio::test]
async fn a_dropped_start_takes_everything_back() {
    for polls in 0.. {
        let (host, engine) = created().await;
        let outcome = poll_and_drop(start(&engine), polls).await;
        engine.containers.world.operations.drain().await;
        let consistent = async || is_consistent(&host, &engine);
        eventually(&format!("consistent after {polls} polls"), consistent).await;
        if outcome.is_some() {
            break;
        }
    }
}

#[tokio::test]
async fn a_start_interrupted_by_death_is_taken_back_by_the_next_daemon() {
    for polls in 0.. {
        let (host, engine) = created().await;
        let mut stopped = pin!(start(&engine));
        let outcome = poll_some(&mut stopped, polls).await;
        let next = host.boot().await;
        let consistent = async || is_consistent(&host, &next);
        eventually(&format!("consistent after {polls} polls"), consistent).await;
        if outcome == Some(true) {
            let container = next.containers.world.index.find("web").unwrap();
            assert!(matches!(container.phase(), Phase::Running(_)));
            break;
        }
    }
}

#[tokio::test]
async fn who_attaches_while_a_container_starts_is_connected() {
    for polls in 0.. {
        let (host, engine) = created().await;
        let mut starting = pin!(start(&engine));
        let outcome = poll_some(&mut starting, polls).await;
        let request = AttachRequest { stream: true, stdout: true, ..AttachRequest::default() };
        let attached = engine.containers.attach("web", request).await.unwrap();
        assert!(attached.stream.is_some());
        if outcome.is_none() {
            assert!(starting.await, "after {polls} polls");
        }
        let container = engine.containers.world.index.find("web").unwrap();
        let task = host.tasks.running(container.id).unwrap();
        assert_eq!(task.attached(), 1, "after {polls} polls");
        if outcome.is_some() {
            break;
        }
    }
}

#[tokio::test]
async fn a_volume_is_mounted_while_a_container_runs() {
    let (host, engine) = created().await;
    assert_eq!(host.mounts.mounted(), Vec::<String>::new(), "filling it at creation is over");
    host.mounts.fail(true);
    assert!(!start(&engine).await);
    assert!(is_consistent(&host, &engine));
    host.mounts.fail(false);
    assert!(start(&engine).await);
    assert!(is_consistent(&host, &engine));

    let next = host.boot().await;
    assert!(is_consistent(&host, &next), "a next daemon takes the mount over");
    next.containers.kill("web", None).await.unwrap();
    eventually("unmounted", async || is_consistent(&host, &next)).await;
}
