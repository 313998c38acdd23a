//! `cp`, `export` and `commit`.

use std::sync::Arc;

use rorqual_content::ImageConfig;
use rorqual_core::ImageId;
use rorqual_network::PortProtocol;
use rorqual_snapshot::{Archive, ArchiveStat, Extract, LayerBlob, Tree};
use rorqual_transfer::CommitRequest as ImageCommit;

use crate::changes;
use crate::container::Container;
use crate::error::{Error, Result};
use crate::events::EventKind;
use crate::phase::Phase;
use crate::records::ContainerRecord;
use crate::request::CommitRequest;
use crate::spec::{HealthSpec, HealthTest, StopTimeout};
use crate::validate::normal;
use crate::view::MountPointKind;
use crate::world::World;

/// COMPAT: what is missing is told with the container's name as it was given.
pub(super) fn named(error: Error, name: &str) -> Error {
    match error {
        Error::Snapshot(rorqual_snapshot::Error::NoSuchPath { path, .. }) => {
            Error::Snapshot(rorqual_snapshot::Error::NoSuchPath {
                path,
                container: name.to_owned(),
            })
        }
        error => error,
    }
}

async fn tree(world: &World, container: &Container) -> Result<Arc<dyn Tree>> {
    let pid = Some(container.state().pid).filter(|pid| *pid != 0);
    Ok(world.parts.snapshots.open(&container.id, pid).await?)
}

pub(super) async fn stat(
    world: &World,
    container: &Arc<Container>,
    path: &str,
) -> Result<ArchiveStat> {
    let stat = tree(world, container).await?.stat(path).await?;
    check_slash(path, &stat)?;
    Ok(stat)
}

/// COMPAT: a path that ends with a slash means a directory.
fn check_slash(path: &str, stat: &ArchiveStat) -> Result<()> {
    const FORMAT: u32 = 0o170_000;
    const FILE: u32 = 0o100_000;
    if path.ends_with('/') && stat.mode & FORMAT == FILE {
        return Err(Error::Invalid(format!("lstat {path}: not a directory")));
    }
    Ok(())
}

pub(super) async fn archive(
    world: &World,
    container: &Arc<Container>,
    path: &str,
) -> Result<(ArchiveStat, Archive)> {
    let tree = tree(world, container).await?;
    let stat = tree.stat(path).await?;
    check_slash(path, &stat)?;
    let archive = tree.archive(path).await?;
    world.container_event(container, "archive-path", []);
    Ok((stat, archive))
}

pub(super) async fn extract(
    world: &World,
    container: &Arc<Container>,
    path: &str,
    (archive, how): (LayerBlob, Extract),
) -> Result<()> {
    let definition = container.definition();
    let how = Extract { read_only: is_read_only(&definition, path), ..how };
    if how.read_only {
        // COMPAT: dockerd's text.
        return Err(Error::Invalid("container rootfs is marked read-only".to_owned()));
    }
    tree(world, container).await?.extract(path, archive, how).await?;
    world.container_event(container, "extract-to-dir", []);
    Ok(())
}

/// Tells whether the mount that holds `path` is read-only.
fn is_read_only(definition: &ContainerRecord, path: &str) -> bool {
    let path = normal(path);
    let holds = |target: &str| {
        let target = normal(target);
        path == target || path.starts_with(&format!("{target}/"))
    };
    let mounts = definition.mounts.iter().filter(|mount| holds(&mount.target));
    match mounts.max_by_key(|mount| mount.target.len()) {
        Some(mount) => !mount.writable && mount.kind != MountPointKind::Tmpfs,
        None => definition.spec.storage.read_only,
    }
}

pub(super) async fn export(world: &World, container: &Arc<Container>) -> Result<Archive> {
    if matches!(container.phase(), Phase::Dead { .. } | Phase::Removing) {
        return Err(Error::Conflict(format!(
            "You cannot export container {} which is being removed",
            container.id
        )));
    }
    let archive = tree(world, container).await?.export().await?;
    world.container_event(container, "export", []);
    Ok(archive)
}

/// Makes an image. The caller holds the operation lock.
pub(super) async fn commit(
    world: &Arc<World>,
    container: &Arc<Container>,
    request: CommitRequest,
) -> Result<ImageId> {
    if matches!(container.phase(), Phase::Dead { .. } | Phase::Removing) {
        return Err(Error::Conflict(format!(
            "You cannot commit container {} which is being removed",
            container.id
        )));
    }
    let definition = container.definition();
    let image = world.parts.images.image(&definition.image).await.ok();
    let mut config = config_of(&definition);
    config.on_build = image.as_ref().and_then(|image| image.document.config.on_build.clone());
    if let Some(over) = request.config {
        overlay(&mut config, over);
    }
    changes::apply(&mut config, &request.changes)?;

    let frozen = request.pause && matches!(container.phase(), Phase::Running(_));
    if frozen {
        super::stop::pause(world, container).await?;
    }
    let name = request.name.map(rorqual_core::Reference::or_latest);
    let commit = ImageCommit {
        container: container.id,
        parent: image.map(|image| image.id),
        config,
        author: request.author,
        comment: request.comment.clone(),
        created_by: definition.effective.command.join(" "),
        created: world.options.clock.now(),
        platform: definition.platform.clone(),
        name: name.clone(),
    };
    let content = world.content.read().await;
    let result = world.parts.transfer.commit(commit).await;
    drop(content);
    let result = result.map_err(Error::from);
    if let Ok(id) = &result {
        announce(world, container, id, (name, request.comment));
    }
    // It may have ended while it was frozen; there is nothing to thaw then.
    if frozen && matches!(container.phase(), Phase::Paused(_)) {
        super::stop::unpause(world, container).await?;
    }
    result
}

fn announce(
    world: &World,
    container: &Container,
    id: &ImageId,
    (name, comment): (Option<rorqual_core::Reference>, String),
) {
    let named = [("name", id.to_string())];
    world.event(EventKind::Image, "create", &id.to_string(), named);
    let reference = name.map(|name| name.familiar()).unwrap_or_default();
    if !reference.is_empty() {
        let named = [("name", reference.clone())];
        world.event(EventKind::Image, "tag", &id.to_string(), named);
    }
    let attributes = [("comment", comment), ("imageID", id.to_string()), ("imageRef", reference)];
    world.container_event(container, "commit", attributes);
}

fn given(words: &str) -> Option<String> {
    Some(words.to_owned()).filter(|words| !words.is_empty())
}

/// Returns the container's configuration as an image's defaults.
fn config_of(definition: &ContainerRecord) -> ImageConfig {
    let (spec, effective) = (&definition.spec, &definition.effective);
    let set = |keys: Vec<String>| {
        let map = keys.into_iter().map(|key| (key, serde_json::Map::new()));
        Some(map.collect::<std::collections::BTreeMap<_, _>>()).filter(|map| !map.is_empty())
    };
    let ports = spec.network.exposed.iter().map(|(port, protocol)| {
        let protocol = match protocol {
            PortProtocol::Tcp => "tcp",
            PortProtocol::Udp => "udp",
            PortProtocol::Sctp => "sctp",
        };
        format!("{port}/{protocol}")
    });
    let variables = effective.env.iter().filter(|variable| variable.contains('=')).cloned();
    ImageConfig {
        user: effective.user.clone(),
        exposed_ports: set(ports.collect()),
        env: Some(variables.collect()),
        cmd: effective.cmd.clone(),
        healthcheck: health_of(spec.healthcheck.as_ref(), effective.health.as_ref()),
        volumes: set(effective.volumes.clone()),
        working_dir: effective.working_dir.clone(),
        entrypoint: effective.entrypoint.clone(),
        labels: Some(spec.labels.clone()).filter(|labels| !labels.is_empty()),
        stop_signal: effective.stop_signal.map(|signal| signal.to_string()).unwrap_or_default(),
        stop_timeout: match effective.stop_timeout {
            Some(StopTimeout::After(time)) => Some(time.as_secs() as i64),
            Some(StopTimeout::Never) => Some(-1),
            None => None,
        },
        shell: effective.shell.clone(),
        ..ImageConfig::default()
    }
}

fn health_of(
    own: Option<&HealthSpec>,
    plan: Option<&crate::view::HealthPlan>,
) -> Option<rorqual_content::HealthConfig> {
    if own == Some(&HealthSpec::Disabled) {
        let test = vec!["NONE".to_owned()];
        return Some(rorqual_content::HealthConfig { test, ..Default::default() });
    }
    let plan = plan?;
    let nanos = |time: std::time::Duration| time.as_nanos() as i64;
    let test = match &plan.test {
        HealthTest::Shell(line) => vec!["CMD-SHELL".to_owned(), line.clone()],
        HealthTest::Command(words) => {
            std::iter::once("CMD".to_owned()).chain(words.iter().cloned()).collect()
        }
    };
    Some(rorqual_content::HealthConfig {
        test,
        interval: nanos(plan.interval),
        timeout: nanos(plan.timeout),
        start_period: nanos(plan.start_period),
        start_interval: nanos(plan.start_interval),
        retries: i64::from(plan.retries),
    })
}

/// Lays the config of a request's body over the container's own.
fn overlay(config: &mut ImageConfig, over: ImageConfig) {
    if let Some(user) = given(&over.user) {
        config.user = user;
    }
    if let Some(directory) = given(&over.working_dir) {
        config.working_dir = directory;
    }
    if let Some(signal) = given(&over.stop_signal) {
        config.stop_signal = signal;
    }
    for (key, value) in over.labels.into_iter().flatten() {
        config.labels.get_or_insert_default().insert(key, value);
    }
    for (key, value) in over.exposed_ports.into_iter().flatten() {
        config.exposed_ports.get_or_insert_default().insert(key, value);
    }
    for (key, value) in over.volumes.into_iter().flatten() {
        config.volumes.get_or_insert_default().insert(key, value);
    }
    if let Some(env) = over.env {
        crate::effective::overlay_env(config.env.get_or_insert_default(), &env);
    }
    if over.entrypoint.is_some() {
        config.entrypoint = over.entrypoint;
        config.cmd = None;
    }
    config.cmd = over.cmd.or_else(|| config.cmd.take());
    config.healthcheck = over.healthcheck.or_else(|| config.healthcheck.take());
    config.on_build = over.on_build.or_else(|| config.on_build.take());
    config.shell = over.shell.or_else(|| config.shell.take());
}
