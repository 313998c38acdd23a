//! From what was asked to mount points: volumes are found or made, and filled from the image at their first use.

use std::path::PathBuf;

use rorqual_core::{ContainerId, DiffId, VolumeName};
use rorqual_store::{Operation, blocking};

use crate::error::{Error, Result};
use crate::events::EventKind;
use crate::request::VolumeSpec;
use crate::spec::{ContainerSpec, MountKind, MountSpec, Propagation, VolumeOptions};
use crate::undo::{Undo, Undoing};
use crate::validate::normal;
use crate::view::{Effective, MountPoint, MountPointKind};
use crate::volumes;
use crate::world::World;

type Owner<'a> = (ContainerId, &'a [DiffId]);

/// Makes the mount points of a container that is being created.
pub(super) async fn resolve(
    world: &World,
    operation: &mut Operation<Undoing>,
    spec: &mut ContainerSpec,
    effective: &Effective,
    owner: Owner<'_>,
) -> Result<Vec<MountPoint>> {
    let mut points: Vec<MountPoint> = Vec::new();
    for mount in &spec.storage.mounts {
        let point = point(world, operation, mount, owner).await?;
        points.push(point);
    }
    take_over(world, operation, spec, owner, &mut points)?;
    for path in &effective.volumes {
        if points.iter().any(|point| normal(&point.target) == normal(path)) {
            continue;
        }
        let options = VolumeOptions::default();
        let anonymous = volume(world, operation, (None, &options), path, owner).await?;
        points.push(anonymous);
    }
    Ok(points)
}

/// Adds the mounts of `--volumes-from` containers where nothing else is mounted.
fn take_over(
    world: &World,
    operation: &mut Operation<Undoing>,
    spec: &ContainerSpec,
    (owner, _): Owner<'_>,
    points: &mut Vec<MountPoint>,
) -> Result<()> {
    for from in &spec.storage.volumes_from {
        // COMPAT: not 404, which clients take for a missing image.
        let other = world.index.find(&from.container);
        let other = other.map_err(|error| Error::Invalid(error.to_string()))?.definition();
        for mount in &other.mounts {
            if mount.kind == MountPointKind::Tmpfs
                || points.iter().any(|point| normal(&point.target) == normal(&mount.target))
            {
                continue;
            }
            let mut point = mount.clone();
            if let Some(read_only) = from.read_only {
                point.writable = !read_only;
            }
            point.mode.clear();
            // It belongs to the other container, whose removal takes it along.
            point.anonymous = false;
            if let Some(name) = &point.name {
                let (name, made) = (name.clone(), false);
                operation.will_need(Undo::ReleaseVolume { name: name.clone(), owner, made })?;
                world.index.claim_volumes(owner, std::iter::once(&name));
            }
            points.push(point);
        }
    }
    Ok(())
}

async fn point(
    world: &World,
    operation: &mut Operation<Undoing>,
    mount: &MountSpec,
    owner: Owner<'_>,
) -> Result<MountPoint> {
    let blank = MountPoint {
        kind: MountPointKind::Tmpfs,
        name: None,
        source: PathBuf::new(),
        target: mount.target.clone(),
        driver: String::new(),
        mode: mount.mode.clone(),
        writable: !mount.read_only,
        propagation: None,
        anonymous: false,
        subpath: None,
    };
    match &mount.kind {
        MountKind::Tmpfs(_) => Ok(blank),
        MountKind::Bind { source, options } => {
            bind_source(source, options.create_source).await?;
            Ok(MountPoint {
                kind: MountPointKind::Bind,
                source: PathBuf::from(source),
                propagation: Some(options.propagation.unwrap_or(Propagation::Rprivate)),
                ..blank
            })
        }
        MountKind::Volume { name, options } => {
            let asked = (name.as_ref(), options);
            let made = volume(world, operation, asked, &mount.target, owner).await?;
            // COMPAT: volumes that were named or mounted by the request say `z`, anonymous ones say nothing.
            let mode = if blank.mode.is_empty() { "z".to_owned() } else { blank.mode };
            Ok(MountPoint { mode, writable: blank.writable, ..made })
        }
    }
}

async fn bind_source(source: &str, create: bool) -> Result<()> {
    let path = PathBuf::from(source);
    let shown = source.to_owned();
    blocking(move || {
        if path.symlink_metadata().is_ok() {
            return Ok(());
        }
        if !create {
            // COMPAT: clients look for this text.
            return Err(Error::Invalid(format!(
                "invalid mount config for type \"bind\": bind source path does not exist: {shown}"
            )));
        }
        std::fs::create_dir_all(&path)
            .map_err(|source| Error::Io { action: format!("make the bind source {shown}"), source })
    })
    .await
}

async fn volume(
    world: &World,
    operation: &mut Operation<Undoing>,
    (name, options): (Option<&VolumeName>, &VolumeOptions),
    target: &str,
    (owner, layers): Owner<'_>,
) -> Result<MountPoint> {
    let wanted = VolumeSpec {
        name: name.cloned(),
        driver: options.driver.clone(),
        options: options.driver_options.clone(),
        labels: options.labels.clone(),
    };
    let wanted = volumes::record(&*world.volumes.driver, wanted, world.options.clock.now())?;
    let known = world.volumes.find(&wanted.name).is_some();
    let undo = Undo::ReleaseVolume { name: wanted.name.clone(), owner, made: !known };
    operation.will_need(undo)?;
    world.index.claim_volumes(owner, std::iter::once(&wanted.name));
    let (record, made) = world.volumes.ensure(wanted).await?;
    if made {
        let driver = [("driver", "local".to_owned())];
        world.event(EventKind::Volume, "create", record.name.as_str(), driver);
    }
    let data = world.volumes.data(&record.name);
    if !options.no_copy && options.subpath.is_none() {
        let user = Undo::UnmountVolume { name: record.name.clone(), user: owner };
        operation.will_need(user)?;
        world.volumes.mount(&record.name, owner).await?;
        if is_empty(data.clone()).await {
            let view = world.parts.snapshots.view(layers).await?;
            view.copy_out(target, data.clone()).await?;
        }
        world.volumes.driver.unmount(&record.name, owner).await?;
    }
    if let Some(path) = &options.subpath {
        check_subpath(path)?;
    }
    Ok(MountPoint {
        kind: MountPointKind::Volume,
        name: Some(record.name.clone()),
        source: data,
        target: target.to_owned(),
        driver: "local".to_owned(),
        mode: String::new(),
        writable: true,
        propagation: None,
        anonymous: name.is_none(),
        subpath: options.subpath.clone(),
    })
}

/// Who writes to a volume may plant links there, so the path is resolved inside it when it is mounted; here it is only
/// checked that it can lead nowhere else by its words.
fn check_subpath(path: &str) -> Result<()> {
    // COMPAT: dockerd's text.
    if path.starts_with('/') || path.split('/').any(|part| part == "..") {
        return Err(Error::Invalid("subpath must be a relative path within the volume".to_owned()));
    }
    Ok(())
}

async fn is_empty(directory: PathBuf) -> bool {
    blocking(move || std::fs::read_dir(directory).is_ok_and(|mut all| all.next().is_none())).await
}
