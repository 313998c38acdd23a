//! Failures of the engine. Texts that Docker's clients look for are kept word for word and pinned by tests.

use rorqual_core::{
    Classify, ContainerId, ErrorKind, InvalidFilter, InvalidName, InvalidReference, InvalidSignal,
};

/// A failure of an engine operation.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No such container.
    // COMPAT: clients look for this text.
    #[error("No such container: {0}")]
    NoSuchContainer(String),
    /// Several containers answer to the id prefix.
    // COMPAT: dockerd's text.
    #[error("Multiple IDs found with provided prefix: {0}")]
    AmbiguousPrefix(String),
    /// No such exec.
    // COMPAT: clients look for this text.
    #[error("No such exec instance: {0}")]
    NoSuchExec(String),
    /// No such volume.
    // COMPAT: clients look for this text.
    #[error("get {0}: no such volume")]
    NoSuchVolume(String),
    /// The name belongs to another container.
    // COMPAT: clients look for this text.
    #[error(
        "Conflict. The container name \"/{name}\" is already in use by container \"{owner}\". You have to remove (or \
         rename) that container to be able to reuse that name."
    )]
    NameTaken {
        /// The name.
        name: String,
        /// Who has it.
        owner: ContainerId,
    },
    /// The container is not in a state that allows it; words for the user.
    #[error("{0}")]
    Conflict(String),
    /// The request is malformed or impossible; words for the user.
    #[error("{0}")]
    Invalid(String),
    /// Not allowed.
    #[error("{0}")]
    Forbidden(String),
    /// Not there.
    #[error("{0}")]
    NotFound(String),
    /// This build or kernel cannot do it.
    #[error("{0}")]
    Unsupported(String),
    /// COMPAT: dockerd answers 500 where a conflict would be right (unpausing what is not paused).
    #[error("{0}")]
    Internal(String),
    /// A part does not answer at present, as while shutting down.
    #[error("{0}")]
    Unavailable(String),
    /// The program could not be started.
    // COMPAT: dockerd's text; tools look for parts of it.
    #[error(
        "failed to create task for container: failed to create shim task: OCI runtime create failed: runc create failed: \
         unable to start container process: error during container init"
    )]
    Start(#[source] rorqual_shim::Error),
    /// The image does not know the user or group.
    #[error("{0}")]
    NoSuchUser(String),
    /// The network could not be set up at the start.
    // COMPAT: dockerd's text.
    #[error("failed to set up container networking")]
    Attach(#[source] rorqual_network::Error),
    /// The program of an exec could not be started.
    // COMPAT: dockerd's text.
    #[error("OCI runtime exec failed: exec failed: unable to start container process")]
    ExecStart(#[source] rorqual_shim::Error),
    /// A running task failed.
    #[error("{message}")]
    Task {
        /// What was tried, on what.
        message: String,
        /// Why.
        source: rorqual_shim::Error,
    },
    /// Layers or files failed.
    #[error(transparent)]
    Snapshot(#[from] rorqual_snapshot::Error),
    /// Images or blobs failed.
    #[error(transparent)]
    Content(#[from] rorqual_content::Error),
    /// Networking failed.
    #[error(transparent)]
    Network(#[from] rorqual_network::Error),
    /// A volume's data.
    #[error(transparent)]
    Volume(#[from] rorqual_volume::Error),
    /// Moving an image failed.
    #[error(transparent)]
    Transfer(#[from] rorqual_transfer::Error),
    /// Durable state failed.
    #[error(transparent)]
    Store(#[from] rorqual_store::Error),
    /// Not a filter.
    #[error(transparent)]
    Filter(#[from] InvalidFilter),
    /// Not a name.
    #[error(transparent)]
    Name(#[from] InvalidName),
    /// Not a reference.
    #[error(transparent)]
    Reference(#[from] InvalidReference),
    /// Not a signal.
    #[error(transparent)]
    Signal(#[from] InvalidSignal),
    /// A file operation on our own directories failed.
    #[error("cannot {action}")]
    Io {
        /// What was tried, on what.
        action: String,
        /// Why.
        source: std::io::Error,
    },
}

/// Result of an engine operation.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Classify for Error {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::NoSuchContainer(_)
            | Self::NoSuchExec(_)
            | Self::NoSuchVolume(_)
            | Self::NotFound(_) => ErrorKind::NotFound,
            Self::NameTaken { .. } | Self::Conflict(_) => ErrorKind::Conflict,
            Self::AmbiguousPrefix(_)
            | Self::Invalid(_)
            | Self::NoSuchUser(_)
            | Self::Filter(_)
            | Self::Name(_)
            | Self::Reference(_)
            | Self::Signal(_) => ErrorKind::InvalidArgument,
            Self::Forbidden(_) => ErrorKind::Forbidden,
            Self::Unsupported(_) => ErrorKind::Unsupported,
            Self::Unavailable(_) => ErrorKind::Unavailable,
            Self::Start(source) | Self::ExecStart(source) | Self::Task { source, .. } => {
                source.kind()
            }
            Self::Snapshot(source) => source.kind(),
            Self::Content(source) => source.kind(),
            Self::Network(source) | Self::Attach(source) => source.kind(),
            Self::Volume(source) => source.kind(),
            Self::Transfer(source) => source.kind(),
            Self::Store(source) => source.kind(),
            Self::Internal(_) | Self::Io { .. } => ErrorKind::Internal,
        }
    }
}
