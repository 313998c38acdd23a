//! What daemon, launcher and shim say to each other: JSON in sequenced packets, descriptors beside it.
//!
//! Both ends are the same binary or an older and a newer one: fields may be added, never given another meaning.
//! All of it travels between processes of root, yet sizes and counts are bounded.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use oci_spec::runtime::{Process, Spec};
use rorqual_core::mount::RootfsPlan;
use rorqual_core::{Classify, ContainerId, ErrorKind, ExecId, Timestamp, full_message};
use rorqual_runtime::StartFailure;
use rorqual_sys::seqpacket;
use rustix::fs::{MemfdFlags, SealFlags};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::log::LogTarget;
use crate::task::{Exit, TaskId, WindowSize};

/// LIMIT: larger documents travel in a memfd, so that a packet always fits into a default socket buffer.
const INLINE: usize = 48 * 1024;
/// LIMIT: no specification is larger; a user's environment is bounded by the kernel at 6 MiB.
const DOCUMENT: u64 = 16 * 1024 * 1024;

/// Which streams a client wants; its socket travels beside it.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Wanted {
    pub(crate) stdin: bool,
    pub(crate) stdout: bool,
    pub(crate) stderr: bool,
}

/// A launch without its descriptors.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct LaunchDocument {
    pub(crate) container: ContainerId,
    pub(crate) task: TaskId,
    pub(crate) spec: Spec,
    /// The compiled system call filter, see [`crate::filters`].
    #[serde(default)]
    pub(crate) filter: Option<String>,
    pub(crate) rootfs: RootfsPlan,
    pub(crate) user: String,
    pub(crate) groups: Vec<String>,
    /// Kinds of the namespaces that travel beside it, in their order.
    pub(crate) namespaces: Vec<String>,
    pub(crate) open_stdin: bool,
    pub(crate) stdin_once: bool,
    pub(crate) window: WindowSize,
    pub(crate) log: LogTarget,
    /// Clients whose sockets travel behind the namespaces, in their order.
    pub(crate) attachments: Vec<Wanted>,
}

/// An extra process without its descriptors.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct ExecDocument {
    pub(crate) id: ExecId,
    pub(crate) process: Process,
    pub(crate) user: String,
    pub(crate) groups: Vec<String>,
    pub(crate) window: WindowSize,
    pub(crate) attachment: Option<Wanted>,
}

/// What the daemon asks of a shim.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Request {
    /// Starts the container; once per shim.
    Launch(Box<LaunchDocument>),
    /// Tells who runs here; the answer brings init's pidfd.
    Hello,
    /// Adds the client whose socket travels beside it.
    Attach(Wanted),
    /// Gives a terminal a size: init's, or an exec's.
    Resize { exec: Option<ExecId>, window: WindowSize },
    /// Starts an extra process; the answer brings its pidfd.
    Exec(Box<ExecDocument>),
    /// Finds an extra process; the answer brings its pidfd while it runs.
    FindExec(ExecId),
    /// Drops the exit record; the shim ends.
    Release,
}

/// A numbered request.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Call {
    pub(crate) number: u32,
    pub(crate) request: Request,
}

/// What the shim tells about its container.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Running {
    pub(crate) task: TaskId,
    pub(crate) pid: i32,
    pub(crate) shim_pid: i32,
    pub(crate) started_at: Timestamp,
    pub(crate) cgroup: String,
    pub(crate) warnings: Vec<String>,
    /// Set once it has ended.
    pub(crate) exit: Option<Exit>,
}

/// A successful answer.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Answer {
    Done,
    Running(Running),
    Exec { pid: i32, exit: Option<Exit> },
}

/// A failed request, see [`crate::Error`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Failure {
    Start { message: String, exit_code: i32, kind: Kind },
    Ended,
    NoSuchExec,
    Refused { message: String, kind: Kind },
}

/// The kinds of failure that a shim knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Kind {
    NotFound,
    InvalidArgument,
    Conflict,
    Unsupported,
    Internal,
}

/// What a shim says of its own accord or as an answer.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Message {
    /// The first words of a new shim; its own pidfd travels beside them.
    Born,
    Reply {
        number: u32,
        result: Result<Answer, Failure>,
    },
    Exited(Exit),
    ExecExited {
        id: ExecId,
        exit: Exit,
    },
    /// So many lines of output could not be logged, and why.
    LogLost {
        lines: u64,
        cause: String,
    },
}

impl From<ErrorKind> for Kind {
    fn from(kind: ErrorKind) -> Self {
        match kind {
            ErrorKind::NotFound => Self::NotFound,
            ErrorKind::InvalidArgument => Self::InvalidArgument,
            ErrorKind::Conflict => Self::Conflict,
            ErrorKind::Unsupported => Self::Unsupported,
            _ => Self::Internal,
        }
    }
}

impl From<Kind> for ErrorKind {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::NotFound => Self::NotFound,
            Kind::InvalidArgument => Self::InvalidArgument,
            Kind::Conflict => Self::Conflict,
            Kind::Unsupported => Self::Unsupported,
            Kind::Internal => Self::Internal,
        }
    }
}

impl Failure {
    pub(crate) fn refused(message: impl Into<String>, kind: Kind) -> Self {
        Self::Refused { message: message.into(), kind }
    }
}

impl From<Failure> for crate::Error {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Start { message, exit_code, kind } => {
                Self::Start { message, exit_code, kind: kind.into() }
            }
            Failure::Ended => Self::Ended,
            Failure::NoSuchExec => Self::NoSuchExec,
            Failure::Refused { message, kind } => Self::Refused { message, kind: kind.into() },
        }
    }
}

/// What a failure of the runtime is to whoever asked for the start.
pub(crate) fn start_failure(error: &rorqual_runtime::Error) -> Failure {
    let exit_code = match error {
        rorqual_runtime::Error::Init { failure, .. } => failure.exit_code(),
        _ => StartFailure::Other.exit_code(),
    };
    Failure::Start { message: full_message(error), exit_code, kind: error.kind().into() }
}

/// A packet ready to be sent.
pub(crate) struct Outgoing {
    bytes: Vec<u8>,
    memfd: Option<OwnedFd>,
}

/// A packet taken apart.
pub(crate) struct Incoming<T> {
    pub(crate) body: T,
    pub(crate) descriptors: Vec<OwnedFd>,
    /// The sealed file the document came in, when it did not come inline.
    pub(crate) document: Option<File>,
}

impl Outgoing {
    /// Writes `body` inline where it fits.
    pub(crate) fn new<T: Serialize>(body: &T) -> io::Result<Self> {
        let json = serde_json::to_vec(body)?;
        if json.len() > INLINE {
            return Self::sealed(&json);
        }
        let mut bytes = Vec::with_capacity(json.len() + 1);
        bytes.push(b'i');
        bytes.extend_from_slice(&json);
        Ok(Self { bytes, memfd: None })
    }

    /// Writes `body` to a file that the receiver may keep.
    pub(crate) fn in_file<T: Serialize>(body: &T) -> io::Result<Self> {
        Self::sealed(&serde_json::to_vec(body)?)
    }

    fn sealed(json: &[u8]) -> io::Result<Self> {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let mut file = File::from(rustix::fs::memfd_create("rorqual-document", flags)?);
        file.write_all(json)?;
        let seals = SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE;
        rustix::fs::fcntl_add_seals(&file, seals)?;
        Ok(Self { bytes: vec![b'm'], memfd: Some(file.into()) })
    }

    /// Sends it with further descriptors.
    pub(crate) fn send(&self, socket: BorrowedFd<'_>, others: &[OwnedFd]) -> io::Result<()> {
        let descriptors: Vec<_> = self.memfd.iter().chain(others).map(AsFd::as_fd).collect();
        seqpacket::send(socket, &self.bytes, &descriptors)
    }
}

/// Receives one document; `None` when the peer is gone.
pub(crate) fn receive<T: DeserializeOwned>(
    socket: BorrowedFd<'_>,
) -> io::Result<Option<Incoming<T>>> {
    let Some(packet) = seqpacket::receive(socket, INLINE + 1)? else { return Ok(None) };
    let mut descriptors = packet.descriptors;
    let incoming = match packet.bytes.split_first() {
        Some((b'i', json)) => {
            Incoming { body: serde_json::from_slice(json)?, descriptors, document: None }
        }
        Some((b'm', _)) if !descriptors.is_empty() => {
            let file = File::from(descriptors.remove(0));
            let body = read_document(&file)?;
            Incoming { body, descriptors, document: Some(file) }
        }
        _ => return Err(io::ErrorKind::InvalidData.into()),
    };
    Ok(Some(incoming))
}

/// Reads a document from the beginning of its file.
pub(crate) fn read_document<T: DeserializeOwned>(file: &File) -> io::Result<T> {
    let size = file.metadata()?.len();
    if size > DOCUMENT {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "document too large"));
    }
    let mut bytes = Vec::with_capacity(size as usize);
    let mut file = file;
    io::Seek::rewind(&mut file)?;
    file.take(DOCUMENT).read_to_end(&mut bytes)?;
    Ok(serde_json::from_slice(&bytes)?)
}
