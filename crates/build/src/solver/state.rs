//! States of file systems, as vertices make them.

use std::path::PathBuf;
use std::sync::Arc;

use rorqual_core::DiffId;
use rorqual_snapshot::{FileTree, TreeStat};

use super::keeper::LayersHeld;
use super::mirror::Lease;
use super::{Solver, files};
use crate::Error;

/// A file system. Its layers are kept from collection while a copy of it lives.
#[derive(Clone, Debug)]
pub struct State(Arc<Content>);

#[derive(Debug)]
enum Content {
    Layers {
        layers: Vec<DiffId>,
        _held: LayersHeld,
    },
    /// A directory that lies on the host, as the client's session has it.
    Directory {
        path: PathBuf,
    },
    /// Our copy of a directory of the client.
    Mirror(Lease),
}

impl State {
    pub(crate) fn layers_held(layers: Vec<DiffId>, held: LayersHeld) -> Self {
        Self(Arc::new(Content::Layers { layers, _held: held }))
    }

    pub(crate) fn directory(path: PathBuf) -> Self {
        Self(Arc::new(Content::Directory { path }))
    }

    pub(crate) fn mirror(lease: Lease) -> Self {
        Self(Arc::new(Content::Mirror(lease)))
    }

    /// Returns its layers, bottom first; none for the empty file system, and none for a directory of the client.
    pub fn layers(&self) -> &[DiffId] {
        match &*self.0 {
            Content::Layers { layers, .. } => layers,
            Content::Directory { .. } | Content::Mirror(_) => &[],
        }
    }

    /// Tells whether it is made of layers, and so can become an image.
    pub fn is_layered(&self) -> bool {
        matches!(&*self.0, Content::Layers { .. })
    }

    pub(crate) fn lease(&self) -> Option<&Lease> {
        match &*self.0 {
            Content::Mirror(lease) => Some(lease),
            _ => None,
        }
    }

    /// Returns where its files are.
    pub(crate) fn tree(&self) -> FileTree {
        match &*self.0 {
            Content::Layers { layers, .. } => FileTree::Layers(layers.clone()),
            Content::Directory { path } => FileTree::Directory(path.clone()),
            Content::Mirror(lease) => FileTree::Directory(lease.files()),
        }
    }
}

impl Solver {
    /// Reads a file of a state; `None` when it is missing; fails beyond `limit` bytes.
    pub async fn read_file(
        &self,
        state: &State,
        path: &str,
        limit: u64,
    ) -> Result<Option<Vec<u8>>, Error> {
        let read = self.0.parts.workbench.read(&state.tree(), path, limit).await;
        read.map_err(|error| files::failed(&format!("read {path:?}"), error))
    }

    /// Lists a directory of a state.
    pub async fn read_dir(&self, state: &State, path: &str) -> Result<Vec<TreeStat>, Error> {
        let read = self.0.parts.workbench.list(&state.tree(), path).await;
        read.map_err(|error| files::failed(&format!("list {path:?}"), error))
    }

    /// Describes a path of a state, without following a final link.
    pub async fn stat(&self, state: &State, path: &str) -> Result<Option<TreeStat>, Error> {
        let read = self.0.parts.workbench.stat(&state.tree(), path).await;
        read.map_err(|error| files::failed(&format!("look at {path:?}"), error))
    }
}
