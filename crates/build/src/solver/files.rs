//! File operations: what they copy, make and remove, as edits of a snapshot.

use std::sync::Arc;

use rorqual_core::{Classify, ErrorKind};
use rorqual_snapshot::{
    Contents, CopyEdit, Edit, Error as FilesError, FileTree, Owner, PathFilter, Selection,
    SnapshotRequest,
};

use super::State;
use super::explain::BASE;
use super::key::Keyed;
use super::walk::{Identity, Walk};
use crate::Error;
use crate::contract::new_snapshot_id;
use crate::graph::{CopyAction, FileAction, FileOp, FileOwner};
use crate::ignore::{DirState, TreeFilter, Verdict};

/// Turns a failure of the workbench into the build's.
pub(crate) fn failed(action: &str, error: FilesError) -> Error {
    match error {
        FilesError::NoSuchSource(_) => {
            // COMPAT: BuildKit's words around the path.
            let message = format!("failed to calculate checksum of ref: {error}");
            Error::NotFound { message, location: None }
        }
        FilesError::InvalidArgument(message) => Error::Invalid { message, location: None },
        error => {
            let kind = match error.kind() {
                ErrorKind::Unsupported => ErrorKind::Unsupported,
                ErrorKind::InvalidArgument => ErrorKind::InvalidArgument,
                _ => ErrorKind::Internal,
            };
            Error::Other { action: action.to_owned(), kind, source: error.into() }
        }
    }
}

/// Includes and excludes of a copy.
struct Filter(TreeFilter);

impl PathFilter for Filter {
    fn wants(&self, path: &str) -> bool {
        self.0.decide(path, false, &DirState::default()).0 == Verdict::Take
    }

    fn may_want_below(&self, directory: &str) -> bool {
        self.0.decide(directory, true, &DirState::default()).0 != Verdict::Skip
    }
}

fn selection(copy: &CopyAction) -> Result<Selection, Error> {
    let filter = if copy.include.is_empty() && copy.exclude.is_empty() {
        None
    } else {
        let filter = TreeFilter::new(&copy.include, &copy.exclude)
            .map_err(|error| Error::Invalid { message: error.to_string(), location: None })?;
        Some(Arc::new(Filter(filter)) as Arc<dyn PathFilter>)
    };
    Ok(Selection {
        source: copy.source.clone(),
        wildcard: copy.wildcard,
        allow_empty: copy.allow_empty_wildcard,
        follow: copy.follow_link,
        parents: copy.parents,
        filter,
        owners: copy.owner == FileOwner::Keep,
    })
}

/// Takes the digest of what a selection picks of a state.
pub(crate) async fn contents(
    walk: &Walk,
    state: &State,
    selection: Selection,
) -> Result<Contents, Error> {
    let action = format!("read {:?}", selection.source);
    let taken = match state.lease() {
        Some(lease) => lease.contents(selection).await,
        None => walk.inner.parts.workbench.contents(&state.tree(), selection).await,
    };
    taken.map_err(|error| failed(&action, error))
}

/// Tells what the inputs of a file operation are: the base by its layers, sources by what is copied of them.
pub(crate) async fn identities(
    walk: &Walk,
    file: &FileOp,
    inputs: &[State],
) -> Result<Vec<Identity>, Error> {
    let mut all = Vec::new();
    let copies = file.actions.iter().filter_map(|action| match action {
        FileAction::Copy(copy) => Some(copy),
        _ => None,
    });
    let Some((base, sources)) = inputs.split_first() else { return Ok(all) };
    all.push(whole(BASE, base));
    for (copy, source) in copies.zip(sources) {
        let contents = contents(walk, source, selection(copy)?).await?;
        all.push(Identity {
            name: copy.source.clone(),
            quick: source.is_layered().then(|| layers_key(source)),
            content: contents.digest.hex().to_owned(),
            entries: contents.entries,
        });
    }
    Ok(all)
}

/// An input that a step sees whole.
pub(crate) fn whole(name: &str, state: &State) -> Identity {
    let key = layers_key(state);
    Identity { name: name.to_owned(), quick: Some(key.clone()), content: key, entries: Vec::new() }
}

fn layers_key(state: &State) -> String {
    Keyed::new("layers").layers(state.layers()).digest().hex().to_owned()
}

fn owner(owner: &FileOwner) -> Owner {
    match owner {
        FileOwner::Keep => Owner::Keep,
        FileOwner::Named(text) => Owner::Named(text.clone()),
        FileOwner::Ids(user, group) => Owner::Ids(*user, *group),
    }
}

fn edit(action: &FileAction, source: Option<FileTree>) -> Result<Edit, Error> {
    Ok(match action {
        FileAction::Copy(copy) => Edit::Copy(Box::new(CopyEdit {
            from: source.unwrap_or(FileTree::Layers(Vec::new())),
            selection: selection(copy)?,
            target: copy.target.clone(),
            owner: owner(&copy.owner),
            mode: copy.mode.clone(),
            contents_only: copy.contents_only,
            unpack: copy.unpack,
            make_parents: copy.make_parents,
            replace: copy.replace,
            created: copy.created,
        })),
        FileAction::MakeFile { path, data, mode, owner: of } => Edit::MakeFile {
            path: path.clone(),
            data: data.clone(),
            mode: *mode,
            owner: owner(of),
            created: None,
        },
        FileAction::MakeDir { path, mode, parents, owner: of } => Edit::MakeDir {
            path: path.clone(),
            mode: *mode,
            parents: *parents,
            owner: owner(of),
            created: None,
        },
        FileAction::Symlink { old, new, owner: of } => {
            Edit::Symlink { old: old.clone(), new: new.clone(), owner: owner(of), created: None }
        }
        FileAction::Remove { path, allow_missing, wildcard } => {
            Edit::Remove { path: path.clone(), allow_missing: *allow_missing, wildcard: *wildcard }
        }
    })
}

/// Performs a file operation.
pub(crate) async fn run(walk: &Walk, file: &FileOp, inputs: &[State]) -> Result<State, Error> {
    let Some((base, sources)) = inputs.split_first() else { return Ok(walk.scratch()) };
    if !base.is_layered() {
        let text = "a directory of the client cannot be changed; copy it into a state first";
        return Err(Error::Unsupported(text.to_owned()));
    }
    let mut sources = sources.iter();
    let edits = file.actions.iter().map(|action| {
        let source = match action {
            FileAction::Copy(_) => sources.next().map(State::tree),
            _ => None,
        };
        edit(action, source)
    });
    let edits = edits.collect::<Result<Vec<_>, _>>()?;
    let scratch = Scratch::new(walk, base.layers()).await?;
    let workbench = &walk.inner.parts.workbench;
    workbench.edit(&scratch.id, edits).await.map_err(|error| failed("change files", error))?;
    scratch.commit(walk, base.layers()).await
}

/// A snapshot that a step writes to; it goes when this does.
pub(crate) struct Scratch {
    pub(crate) id: rorqual_core::ContainerId,
    snapshots: Arc<dyn rorqual_snapshot::Snapshotter>,
    _held: super::keeper::SnapshotHeld,
}

impl Scratch {
    pub(crate) async fn new(walk: &Walk, layers: &[rorqual_core::DiffId]) -> Result<Self, Error> {
        let parts = &walk.inner.parts;
        let id = new_snapshot_id()?;
        let held = parts.cache.hold_snapshot(id);
        let snapshots = Arc::clone(&parts.snapshots);
        let scratch = Self { id, snapshots, _held: held };
        let request = SnapshotRequest { container: id, layers: layers.to_vec(), size: None };
        parts
            .snapshots
            .prepare(request)
            .await
            .map_err(|error| failed("prepare the files of a step", error))?;
        Ok(scratch)
    }

    /// Makes a layer of what was written, on top of `base`.
    pub(crate) async fn commit(
        self,
        walk: &Walk,
        base: &[rorqual_core::DiffId],
    ) -> Result<State, Error> {
        let parts = &walk.inner.parts;
        // ORDER: no collection between the layer's making and the note that it is needed.
        let hold = parts.transfer.hold().await;
        let made = parts.workbench.commit(&self.id).await;
        let info = made.map_err(|error| failed("make a layer", error))?;
        let state = walk.state([base, &[info.diff_id]].concat());
        drop(hold);
        Ok(state)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let (snapshots, id) = (Arc::clone(&self.snapshots), self.id);
        // A rename in the end; without a runtime the next collection does it.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move { snapshots.remove(&id).await.ok() });
        }
    }
}
