//! From what was asked to mount points: volumes are found or made, and filled from the image at their first use.

use std::path::{Path, PathBuf};

use rorqual_core::{Classify as _, ContainerId, DiffId, ErrorKind, VolumeName};
use rorqual_store::{Operation, blocking};
use rorqual_volume::LOCAL;

use crate::error::{Error, Result};
use crate::ocispec;
use crate::records::VolumeRecord;
use crate::request::VolumeSpec;
use crate::spec::{ContainerSpec, IdMap, MountKind, MountSpec, Propagation, VolumeOptions};
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
    let driver = spec.storage.volume_driver.as_deref();
    for mount in &spec.storage.mounts {
        let mut point = point(world, operation, (mount, driver), owner).await?;
        if let Some(map) = &mut point.idmap {
            map.container = Some(user_of(map, &effective.user, &point.target)?);
        }
        points.push(point);
    }
    take_over(world, operation, spec, owner, &mut points)?;
    for path in &effective.volumes {
        if points.iter().any(|point| normal(&point.target) == normal(path)) {
            continue;
        }
        let options = VolumeOptions::default();
        let driver = spec.storage.volume_driver.as_deref();
        let asked = Asked { name: None, options: &options, target: path, read_only: false, driver };
        let anonymous = volume(world, operation, asked, owner).await?;
        points.push(anonymous);
    }
    Ok(points)
}

/// Tells which ids of the container an id-mapped bind is about: the image's names are known to nobody but its own init.
fn user_of(map: &IdMap, user: &str, target: &str) -> Result<(u32, u32)> {
    map.container.or_else(|| ocispec::numeric(user)).ok_or_else(|| {
        Error::Invalid(format!(
            "cannot map ids of the bind at {target}: the container's user {user:?} is a name; say its ids, as in idmap=999.999"
        ))
    })
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
            if matches!(mount.kind, MountPointKind::Tmpfs | MountPointKind::Image)
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
            if let Some(record) = point.name.as_ref().and_then(|name| world.volumes.find(name)) {
                refuse_writing(&record, point.writable)?;
            }
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
    (mount, driver): (&MountSpec, Option<&str>),
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
        layers: Vec::new(),
        image: String::new(),
        idmap: None,
    };
    match &mount.kind {
        MountKind::Tmpfs(_) => Ok(blank),
        MountKind::Image { reference, subpath } => {
            image(world, blank, reference, subpath.as_ref()).await
        }
        MountKind::Bind { source, options } => {
            let propagation =
                propagation_of(source, options.propagation, &world.options.data_root)?;
            let owner = options.idmap.map(|map| map.host);
            bind_source(source, options.create_source, owner).await?;
            Ok(MountPoint {
                kind: MountPointKind::Bind,
                source: PathBuf::from(source),
                propagation: Some(propagation),
                idmap: options.idmap,
                ..blank
            })
        }
        MountKind::Volume { name, options } => {
            let (target, read_only) = (mount.target.as_str(), mount.read_only);
            let asked = Asked { name: name.as_ref(), options, target, read_only, driver };
            let made = volume(world, operation, asked, owner).await?;
            // COMPAT: volumes that were named or mounted by the request say `z`, anonymous ones say nothing.
            let mode = if blank.mode.is_empty() { "z".to_owned() } else { blank.mode };
            Ok(MountPoint { mode, writable: blank.writable, ..made })
        }
    }
}

/// Mounts come and go below the daemon's data: a container that sees them follows, or it would hold on to what the host
/// has unmounted.
fn propagation_of(
    source: &str,
    wanted: Option<Propagation>,
    data_root: &Path,
) -> Result<Propagation> {
    let path = Path::new(source);
    let holds_root = !data_root.as_os_str().is_empty()
        && (path.starts_with(data_root) || data_root.starts_with(path));
    match wanted {
        Some(Propagation::Rslave | Propagation::Rshared) | None if holds_root => {
            Ok(wanted.unwrap_or(Propagation::Rslave))
        }
        Some(other) if holds_root => Err(Error::Invalid(format!(
            // COMPAT: dockerd's text.
            "invalid mount config: must use either propagation mode \"rslave\" or \"rshared\" when mount source is within the daemon root, daemon root: {:?}, bind mount source: {source:?}, propagation: {:?}",
            data_root.to_string_lossy(),
            other.word()
        ))),
        wanted => Ok(wanted.unwrap_or(Propagation::Rprivate)),
    }
}

/// Finds the image whose files are mounted; they stay as long as the container.
async fn image(
    world: &World,
    blank: MountPoint,
    reference: &str,
    subpath: Option<&String>,
) -> Result<MountPoint> {
    let image = world.parts.images.resolve(reference).await?;
    if let Some(path) = subpath {
        check_subpath(path)?;
    }
    Ok(MountPoint {
        kind: MountPointKind::Image,
        image: reference.to_owned(),
        // COMPAT: whoever wants to write to an image makes a container of it.
        writable: false,
        propagation: Some(Propagation::Rprivate),
        layers: image.document.rootfs.diff_ids.clone(),
        subpath: subpath.cloned(),
        ..blank
    })
}

/// Looks for what is bound and makes it where that is asked for, as a directory of `owner`.
async fn bind_source(source: &str, create: bool, owner: Option<(u32, u32)>) -> Result<()> {
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
        let made = std::fs::create_dir_all(&path).and_then(|()| match owner {
            Some((user, group)) => std::os::unix::fs::chown(&path, Some(user), Some(group)),
            None => Ok(()),
        });
        made.map_err(|source| Error::Io { action: format!("make the bind source {shown}"), source })
    })
    .await
}

/// A volume that a container asks for.
struct Asked<'a> {
    name: Option<&'a VolumeName>,
    options: &'a VolumeOptions,
    target: &'a str,
    read_only: bool,
    /// Of the container, for volumes whose mount names none.
    driver: Option<&'a str>,
}

async fn volume(
    world: &World,
    operation: &mut Operation<Undoing>,
    asked: Asked<'_>,
    (owner, layers): Owner<'_>,
) -> Result<MountPoint> {
    let Asked { name, options, target, read_only, driver } = asked;
    let wanted = VolumeSpec {
        name: name.cloned(),
        driver: options.driver.clone().or_else(|| driver.map(str::to_owned)),
        options: options.driver_options.clone(),
        labels: options.labels.clone(),
    };
    let wanted = volumes::record(world, wanted).await?;
    if let Some(path) = &options.subpath {
        check_subpath(path)?;
    }
    let known = world.volumes.find(&wanted.name).is_some();
    let undo = Undo::ReleaseVolume { name: wanted.name.clone(), owner, made: !known };
    operation.will_need(undo)?;
    world.index.claim_volumes(owner, std::iter::once(&wanted.name));
    let (record, made) = world.volumes.ensure(wanted).await?;
    if made {
        volumes::announce(world, "create", &record);
    }
    refuse_writing(&record, !read_only)?;
    if !options.no_copy && options.subpath.is_none() && record.snapshot_of.is_none() {
        fill(world, operation, &record, target, (owner, layers)).await?;
    }
    Ok(MountPoint {
        kind: MountPointKind::Volume,
        source: source(world, &record).await?,
        name: Some(record.name),
        target: target.to_owned(),
        driver: record.driver,
        mode: String::new(),
        writable: true,
        propagation: None,
        anonymous: name.is_none(),
        subpath: options.subpath.clone(),
        layers: Vec::new(),
        image: String::new(),
        idmap: None,
    })
}

/// A snapshot shows what was, and shall go on to do so.
fn refuse_writing(record: &VolumeRecord, writable: bool) -> Result<()> {
    match &record.snapshot_of {
        Some(origin) if writable => Err(Error::Invalid(format!(
            "volume {} is a snapshot of {origin} and can only be mounted read-only; to write, clone it first",
            record.name
        ))),
        _ => Ok(()),
    }
}

/// Where a volume's data are, as far as that is known before it is mounted.
async fn source(world: &World, record: &VolumeRecord) -> Result<PathBuf> {
    let driver = world.volumes.drivers.named(&record.driver);
    let described = driver.describe(&record.name).await?;
    Ok(described.map(|described| described.mountpoint).unwrap_or_default())
}

/// Copies what the image has at `target` into a volume that is empty.
async fn fill(
    world: &World,
    operation: &mut Operation<Undoing>,
    record: &VolumeRecord,
    target: &str,
    (owner, layers): Owner<'_>,
) -> Result<()> {
    let name = &record.name;
    let is_mounted = !record.options.is_empty() || record.driver != LOCAL;
    if is_mounted {
        // COMPAT: one that cannot be mounted fails the start then, not the making of the container.
        let view = world.parts.snapshots.view(layers).await?;
        match view.stat(target).await {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            other => other.map(drop)?,
        }
    }
    let _turn = world.volumes.filling(name).await;
    operation.will_need(Undo::UnmountVolume { name: name.clone(), user: owner })?;
    let data = world.volumes.mount(name, owner).await?;
    if is_empty(data.clone()).await {
        let view = world.parts.snapshots.view(layers).await?;
        let local = world.volumes.drivers.local();
        let ours = data == local.mountpoint(name);
        match if ours { local.begin_fill(name).await? } else { None } {
            Some(beside) => {
                let copied = view.copy_out(target, beside).await;
                if let Err(error) = copied {
                    local.call_fill_off(name).await;
                    return Err(error.into());
                }
                local.end_fill(name).await?;
            }
            None => view.copy_out(target, data).await?,
        }
    }
    Ok(world.volumes.unmount(name, owner).await?)
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

#[cfg(test)]
mod tests;
