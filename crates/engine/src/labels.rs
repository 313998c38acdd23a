//! SELinux labels of containers: which they get, that none are given twice, and which files bear them.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rorqual_core::mount::RootfsPlan;
use rorqual_core::selinux::{self, Labels};
use rorqual_core::{ContainerId, full_message};
use rorqual_network::HostFiles;
use rorqual_store::blocking;

use crate::error::{Error, Result};
use crate::options::SeLinux;
use crate::records::ContainerRecord;
use crate::spec::{ContainerSpec, IpcMode, PidMode};
use crate::view::{MountPoint, MountPointKind};
use crate::world::World;

/// The levels of all containers, which tell them apart.
#[derive(Debug, Default)]
pub(crate) struct Levels(Mutex<HashMap<ContainerId, String>>);

impl Levels {
    fn table(&self) -> MutexGuard<'_, HashMap<ContainerId, String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes the level of a container that is there.
    pub(crate) fn note(&self, id: ContainerId, labels: &Labels) {
        let level = labels.level();
        if !level.is_empty() {
            self.table().insert(id, level);
        }
    }

    /// The container is gone.
    pub(crate) fn release(&self, id: &ContainerId) {
        self.table().remove(id);
    }

    /// Finds one that no other container has. With all taken, which takes half a million containers, two share one.
    fn reserve(&self, id: ContainerId) -> String {
        let mut table = self.table();
        // The id is random, and so is its beginning.
        let seed = id.to_string().get(..16).and_then(|text| u64::from_str_radix(text, 16).ok());
        let seed = seed.unwrap_or_default();
        // LIMIT: so many are taken in a row by accident only when nearly all are.
        let mut tries = (0..4096).map(|offset| selinux::level(seed.wrapping_add(offset)));
        let taken: std::collections::HashSet<&String> = table.values().collect();
        let level = tries.find(|level| !taken.contains(level));
        let level = level.unwrap_or_else(|| selinux::level(seed));
        table.insert(id, level.clone());
        level
    }
}

/// Gives a level back unless the container comes to be.
pub(crate) struct Reservation<'a>(Option<(&'a Levels, ContainerId)>);

impl Reservation<'_> {
    /// The container has come to be.
    pub(crate) fn keep(mut self) {
        self.0 = None;
    }
}

impl Drop for Reservation<'_> {
    fn drop(&mut self) {
        if let Some((levels, id)) = self.0.take() {
            levels.release(&id);
        }
    }
}

/// Chooses the labels of a container; none where the host has no SELinux.
pub(crate) fn choose<'a>(
    world: &'a World,
    spec: &ContainerSpec,
    id: ContainerId,
) -> Result<(Labels, Reservation<'a>)> {
    let Some(SeLinux { contexts, .. }) = &world.options.selinux else {
        return Ok((Labels::default(), Reservation(None)));
    };
    let mut options = asked(spec);
    options.extend(implied(spec, |other| {
        let other = world.index.find(other).map_err(|error| Error::Invalid(error.to_string()))?;
        Ok(other.definition().effective.labels.clone())
    })?);
    let reservation = Reservation(Some((&world.levels, id)));
    let level = world.levels.reserve(id);
    let labels = selinux::choose(contexts, &options, &level).map_err(Error::Invalid)?;
    // What was asked for instead is as taken as any.
    world.levels.release(&id);
    world.levels.note(id, &labels);
    Ok((labels, reservation))
}

/// The options that a request names.
fn asked(spec: &ContainerSpec) -> Vec<String> {
    let options = spec.security.options.iter().filter_map(|option| option.split_once(['=', ':']));
    options.filter(|(key, _)| *key == "label").map(|(_, value)| value.to_owned()).collect()
}

/// Labels would keep a container from what it shares: with the host it has none, with another container the other's.
fn implied(
    spec: &ContainerSpec,
    labels_of: impl Fn(&str) -> Result<Labels>,
) -> Result<Vec<String>> {
    let namespaces = &spec.namespaces;
    if spec.security.privileged
        || namespaces.pid == PidMode::Host
        || namespaces.ipc == IpcMode::Host
    {
        return Ok(vec!["disable".to_owned()]);
    }
    let options_of = |other: &str| -> Result<Vec<String>> {
        let labels = labels_of(other)?;
        let options = labels.options();
        // One that is not confined shares that, too.
        Ok(if options.is_empty() { vec!["disable".to_owned()] } else { options })
    };
    let pid = match &namespaces.pid {
        PidMode::Container(other) => Some(options_of(other)?),
        _ => None,
    };
    let ipc = match &namespaces.ipc {
        IpcMode::Container(other) => Some(options_of(other)?),
        _ => None,
    };
    match (pid, ipc) {
        (Some(pid), Some(ipc)) if pid != ipc => {
            // COMPAT: dockerd's text.
            Err(Error::Invalid(
                "--ipc and --pid containers SELinux labels aren't the same".to_owned(),
            ))
        }
        (pid, ipc) => Ok(pid.or(ipc).unwrap_or_default()),
    }
}

/// Shows all files of a root by the container's label, whatever lies on the disk.
pub(crate) fn label_root(mut rootfs: RootfsPlan, labels: &Labels) -> RootfsPlan {
    if let RootfsPlan::Overlay(plan) = &mut rootfs
        && !labels.mount.is_empty()
    {
        plan.options.push(format!("context={}", labels.mount));
    }
    rootfs
}

/// Labels the files of the host that a container is to use: those made for it, its volumes, and binds that ask for it.
pub(crate) async fn relabel(
    world: &World,
    definition: &ContainerRecord,
    files: &HostFiles,
) -> Result<()> {
    let labels = &definition.effective.labels;
    let Some(SeLinux { relabel, .. }) =
        world.options.selinux.as_ref().filter(|_| !labels.mount.is_empty())
    else {
        return Ok(());
    };
    let (relabel, work) = (*relabel, tasks(labels, &definition.mounts, files));
    blocking(move || {
        for Task { path, label, unless_done } in work {
            relabel(&path, &label, unless_done).map_err(|error| {
                Error::Invalid(format!(
                    "cannot label {}: {}",
                    path.display(),
                    full_message(&*error)
                ))
            })?;
        }
        Ok(())
    })
    .await
}

/// One thing to label.
#[derive(Debug, PartialEq, Eq)]
struct Task {
    path: PathBuf,
    label: String,
    /// Whether the label at the top means that all below has it.
    unless_done: bool,
}

fn tasks(labels: &Labels, mounts: &[MountPoint], files: &HostFiles) -> Vec<Task> {
    let own = |path: &Path| Task {
        path: path.to_owned(),
        label: labels.mount.clone(),
        unless_done: false,
    };
    let mut tasks: Vec<Task> = [&files.hosts, &files.hostname, &files.resolv_conf]
        .into_iter()
        .filter(|path| !path.as_os_str().is_empty())
        .map(|path| own(path))
        .collect();
    for mount in mounts {
        let letter = mount.mode.split(',').find(|word| matches!(*word, "z" | "Z"));
        let is_volume = mount.kind == MountPointKind::Volume;
        let label = match (letter, &mount.kind) {
            (Some("Z"), MountPointKind::Bind | MountPointKind::Volume) => labels.mount.clone(),
            (Some(_), MountPointKind::Bind) | (_, MountPointKind::Volume) => labels.shared(),
            _ => continue,
        };
        tasks.push(Task { path: mount.source.clone(), label, unless_done: is_volume });
    }
    tasks
}

#[cfg(test)]
mod tests;
