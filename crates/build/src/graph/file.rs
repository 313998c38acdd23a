//! Changes of files: copies between states, new files, removals.

use super::Input;

/// Files that are copied, made or removed, one action after the other; the last action's state is the output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileOp {
    /// What is changed first.
    pub base: Input,
    /// In order.
    pub actions: Vec<FileAction>,
}

impl FileOp {
    pub(super) fn inputs(&self) -> Vec<Input> {
        let copied = self.actions.iter().filter_map(|action| match action {
            FileAction::Copy(copy) => Some(copy.from),
            _ => None,
        });
        std::iter::once(self.base).chain(copied).collect()
    }
}

/// Whose a new file is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum FileOwner {
    /// As in the source; root for new files.
    #[default]
    Keep,
    /// `user[:group]`, names resolved inside the state that is changed.
    Named(String),
    /// Numbers.
    Ids(u32, u32),
}

/// A change of files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FileAction {
    /// Copies from another state.
    Copy(Box<CopyAction>),
    /// Writes a file.
    MakeFile {
        /// Absolute path.
        path: String,
        /// Content.
        data: Vec<u8>,
        /// Permission bits.
        mode: u32,
        /// Whose.
        owner: FileOwner,
    },
    /// Makes a directory.
    MakeDir {
        /// Absolute path.
        path: String,
        /// Permission bits.
        mode: u32,
        /// Its parents too.
        parents: bool,
        /// Whose.
        owner: FileOwner,
    },
    /// Makes a symbolic link.
    Symlink {
        /// What it says.
        old: String,
        /// Absolute path of the link.
        new: String,
        /// Whose.
        owner: FileOwner,
    },
    /// Removes.
    Remove {
        /// Absolute path, perhaps with wildcards.
        path: String,
        /// It may be missing.
        allow_missing: bool,
        /// `*`, `?`, `[…]` mean something.
        wildcard: bool,
    },
}

/// A copy between states.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a switch of its own, as build definitions have them"
)]
pub struct CopyAction {
    /// From where.
    pub from: Input,
    /// Absolute path in `from`, perhaps with wildcards.
    pub source: String,
    /// Absolute path; a `/` at the end means a directory.
    pub target: String,
    /// Whose.
    pub owner: FileOwner,
    /// Permissions: octal, or symbolic as chmod(1) takes them.
    pub mode: Option<String>,
    /// Follow a symbolic link that `source` itself is.
    pub follow_link: bool,
    /// Copy what a directory holds, not the directory.
    pub contents_only: bool,
    /// Unpack archives (told by their content).
    pub unpack: bool,
    /// Make the target's missing parents.
    pub make_parents: bool,
    /// `source` has wildcards.
    pub wildcard: bool,
    /// A wildcard may match nothing.
    pub allow_empty_wildcard: bool,
    /// Only what matches, as in `.dockerignore`; empty for all.
    pub include: Vec<String>,
    /// Not what matches.
    pub exclude: Vec<String>,
    /// Keep the source's directories, from `/./` or its root on.
    pub parents: bool,
    /// Absolute paths in `from` that must exist, although a pattern that matches nothing is no error.
    pub required: Vec<String>,
    /// A name in the way of another kind is replaced.
    pub replace: bool,
    /// Time of what is made, for reproducible copies; seconds since the epoch.
    pub created: Option<i64>,
}
