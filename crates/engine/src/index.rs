//! Finding containers by id, id prefix and name, and who uses an image or a volume. Nothing here walks all containers.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, PoisonError, RwLock};

use rorqual_core::{ContainerId, ContainerName, ImageId, VolumeName};

use crate::container::Container;
use crate::error::{Error, Result};
use crate::view::MountPoint;

/// All containers of one daemon.
#[derive(Default)]
pub(crate) struct Index {
    tables: RwLock<Tables>,
}

#[derive(Default)]
struct Tables {
    containers: BTreeMap<ContainerId, Arc<Container>>,
    /// Also names reserved by a `create` under way.
    names: HashMap<ContainerName, ContainerId>,
    images: HashMap<ImageId, BTreeSet<ContainerId>>,
    volumes: HashMap<VolumeName, BTreeSet<ContainerId>>,
}

impl Index {
    fn read<T>(&self, look: impl FnOnce(&Tables) -> T) -> T {
        look(&self.tables.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn write<T>(&self, change: impl FnOnce(&mut Tables) -> T) -> T {
        change(&mut self.tables.write().unwrap_or_else(PoisonError::into_inner))
    }

    /// Reserves a name for `owner`.
    pub(crate) fn reserve_name(&self, name: &ContainerName, owner: ContainerId) -> Result<()> {
        self.write(|tables| match tables.names.get(name) {
            Some(other) if *other != owner => {
                Err(Error::NameTaken { name: name.to_string(), owner: *other })
            }
            _ => {
                tables.names.insert(name.clone(), owner);
                Ok(())
            }
        })
    }

    /// Frees a name, if `owner` has it.
    pub(crate) fn release_name(&self, name: &ContainerName, owner: ContainerId) {
        self.write(|tables| {
            if tables.names.get(name) == Some(&owner) {
                tables.names.remove(name);
            }
        });
    }

    /// Notes that `user` will use volumes, before its container is there.
    pub(crate) fn claim_volumes<'v>(
        &self,
        user: ContainerId,
        volumes: impl Iterator<Item = &'v VolumeName>,
    ) {
        self.write(|tables| {
            for volume in volumes {
                tables.volumes.entry(volume.clone()).or_default().insert(user);
            }
        });
    }

    /// Takes a claim back.
    pub(crate) fn release_volume(&self, user: ContainerId, volume: &VolumeName) {
        self.write(|tables| release(&mut tables.volumes, volume, user));
    }

    pub(crate) fn insert(&self, container: &Arc<Container>) {
        let definition = container.definition();
        self.write(|tables| {
            tables.names.insert(definition.name.clone(), container.id);
            tables.images.entry(definition.image.clone()).or_default().insert(container.id);
            for volume in volumes_of(&definition.mounts) {
                tables.volumes.entry(volume.clone()).or_default().insert(container.id);
            }
            tables.containers.insert(container.id, Arc::clone(container));
        });
    }

    pub(crate) fn remove(&self, id: &ContainerId) {
        self.write(|tables| {
            let Some(container) = tables.containers.remove(id) else { return };
            let definition = container.definition();
            if tables.names.get(&definition.name) == Some(id) {
                tables.names.remove(&definition.name);
            }
            release(&mut tables.images, &definition.image, *id);
            for volume in volumes_of(&definition.mounts) {
                release(&mut tables.volumes, volume, *id);
            }
        });
    }

    /// Finds a container by name, id or unambiguous id prefix.
    pub(crate) fn find(&self, text: &str) -> Result<Arc<Container>> {
        if text.is_empty() {
            // COMPAT: dockerd's text.
            return Err(Error::Invalid("invalid name or ID supplied: \"\"".to_owned()));
        }
        let missing = || Error::NoSuchContainer(text.to_owned());
        self.read(|tables| {
            if let Some(found) = text.parse().ok().and_then(|id| tables.containers.get(&id)) {
                return Ok(Arc::clone(found));
            }
            let named = text.parse::<ContainerName>().ok();
            let named = named.and_then(|name| tables.containers.get(tables.names.get(&name)?));
            if let Some(found) = named {
                return Ok(Arc::clone(found));
            }
            let first = first_with_prefix(text).ok_or_else(missing)?;
            let mut range = tables.containers.range(first..);
            let mut next =
                || range.next().filter(|(id, _)| id.to_string().starts_with(text)).map(|(_, c)| c);
            match (next(), next()) {
                (Some(found), None) => Ok(Arc::clone(found)),
                (Some(_), Some(_)) => Err(Error::AmbiguousPrefix(text.to_owned())),
                (None, _) => Err(missing()),
            }
        })
    }

    pub(crate) fn all(&self) -> Vec<Arc<Container>> {
        self.read(|tables| tables.containers.values().cloned().collect())
    }

    /// Returns who uses an image.
    pub(crate) fn users_of_image(&self, image: &ImageId) -> Vec<Arc<Container>> {
        self.read(|tables| {
            let ids = tables.images.get(image).into_iter().flatten();
            ids.filter_map(|id| tables.containers.get(id).cloned()).collect()
        })
    }

    /// Returns who uses a volume, containers under way included.
    pub(crate) fn users_of_volume(&self, volume: &VolumeName) -> Vec<ContainerId> {
        self.read(|tables| tables.volumes.get(volume).into_iter().flatten().copied().collect())
    }
}

fn release<K: std::hash::Hash + Eq>(
    table: &mut HashMap<K, BTreeSet<ContainerId>>,
    key: &K,
    user: ContainerId,
) {
    if let Some(users) = table.get_mut(key) {
        users.remove(&user);
        if users.is_empty() {
            table.remove(key);
        }
    }
}

/// Returns the volumes among mounts.
pub(crate) fn volumes_of(mounts: &[MountPoint]) -> impl Iterator<Item = &VolumeName> {
    mounts.iter().filter_map(|mount| mount.name.as_ref())
}

/// Returns the smallest id that begins with `text`; `None` when no id can.
fn first_with_prefix(text: &str) -> Option<ContainerId> {
    let hex = !text.is_empty() && text.len() < 64 && text.bytes().all(|b| b.is_ascii_hexdigit());
    if hex { format!("{text:0<64}").parse().ok() } else { None }
}
