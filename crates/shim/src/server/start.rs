//! Starting init and execs through the runtime: streams before, answers after.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;

use oci_spec::runtime::Spec;
use rorqual_core::{Classify, full_message};
use rorqual_runtime::{
    Barrier, ContainerRequest, Created, ExecRequest, Executed, Joined, Namespace, ProcessUser,
    StartFailure, Stdio,
};
use rustix::pipe::{PipeFlags, pipe_with};
use serde::Deserialize;

use super::streams::{AtInputEnd, Ends};
use crate::record::ShimDirectory;
use crate::task::WindowSize;
use crate::wire::{self, ExecDocument, Failure, Kind, LaunchDocument};

/// The part of a launch call that execs need again.
#[derive(Deserialize)]
struct LaunchCall {
    request: LaunchRequest,
}

#[derive(Deserialize)]
enum LaunchRequest {
    Launch(SpecOnly),
}

#[derive(Deserialize)]
struct SpecOnly {
    spec: Spec,
}

/// Reads the specification out of the document that started the container.
pub(super) fn spec_of(launch: &File) -> io::Result<Spec> {
    let LaunchCall { request: LaunchRequest::Launch(SpecOnly { spec }) } =
        wire::read_document(launch)?;
    Ok(spec)
}

/// The container's ends of new streams, and ours but for a terminal's master.
struct Plumbing {
    stdio: Stdio,
    ours: Option<(Option<OwnedFd>, OwnedFd, OwnedFd)>,
}

/// What kind of streams a process gets.
#[derive(Clone, Copy)]
struct Wish {
    /// The terminal's first size, if it gets one.
    terminal: Option<WindowSize>,
    stdin: bool,
}

fn plumb(wish: Wish) -> io::Result<Plumbing> {
    if let Some(WindowSize { width, height }) = wish.terminal {
        return Ok(Plumbing { stdio: Stdio::Terminal { size: (width, height) }, ours: None });
    }
    let (in_reader, in_writer) = if wish.stdin {
        let (reader, writer) = pipe_with(PipeFlags::CLOEXEC)?;
        (reader, Some(writer))
    } else {
        (File::open("/dev/null")?.into(), None)
    };
    let (out_reader, out_writer) = pipe_with(PipeFlags::CLOEXEC)?;
    let (err_reader, err_writer) = pipe_with(PipeFlags::CLOEXEC)?;
    Ok(Plumbing {
        stdio: Stdio::Pipes([in_reader, out_writer, err_writer]),
        ours: Some((in_writer, out_reader, err_reader)),
    })
}

impl Plumbing {
    fn ends(
        ours: Option<(Option<OwnedFd>, OwnedFd, OwnedFd)>,
        master: Option<OwnedFd>,
        stdin: bool,
        at_input_end: AtInputEnd,
    ) -> io::Result<Ends> {
        match (ours, master) {
            (Some((stdin, stdout, stderr)), _) => {
                Ok(Ends { stdin, stdout, stderr: Some(stderr), raw: false, at_input_end })
            }
            (None, Some(master)) => {
                let stdin = if stdin { Some(master.try_clone()?) } else { None };
                Ok(Ends { stdin, stdout: master, stderr: None, raw: true, at_input_end })
            }
            (None, None) => Err(io::Error::other("the runtime gave no terminal")),
        }
    }
}

/// Starts the container's init.
pub(super) fn launch(
    document: LaunchDocument,
    directory: &ShimDirectory,
    namespaces: Vec<OwnedFd>,
) -> Result<(Created, Ends), Failure> {
    let process = document.spec.process().as_ref();
    let terminal = process.and_then(oci_spec::runtime::Process::terminal).unwrap_or(false);
    let joined = document.namespaces.iter().zip(namespaces).map(|(kind, fd)| {
        let kind = namespace(kind).ok_or_else(|| {
            Failure::refused(format!("unknown namespace {kind:?}"), Kind::InvalidArgument)
        })?;
        Ok(Joined { kind, fd })
    });
    let joined = joined.collect::<Result<Vec<_>, Failure>>()?;
    let wish = Wish { terminal: terminal.then_some(document.window), stdin: document.open_stdin };
    let plumbing = plumb(wish).map_err(internal)?;
    let request = ContainerRequest {
        id: document.container.to_string(),
        bundle: directory.path().to_owned(),
        spec: document.spec,
        rootfs: document.rootfs,
        joined,
        stdio: plumbing.stdio,
        user: ProcessUser::Lookup { user: document.user, groups: document.groups },
        barrier: Barrier::Pass,
    };
    let mut created = rorqual_runtime::create(request).map_err(|error| start_failure(&error))?;
    let at_input_end =
        if document.stdin_once && !terminal { AtInputEnd::CloseInput } else { AtInputEnd::LetGo };
    let master = created.terminal.take();
    let ends = Plumbing::ends(plumbing.ours, master, document.open_stdin, at_input_end)
        .map_err(internal)?;
    Ok((created, ends))
}

/// Starts an extra process.
pub(super) fn exec(
    document: ExecDocument,
    spec: Spec,
    directory: &ShimDirectory,
    cgroup: String,
    (target_pid, target): (i32, OwnedFd),
) -> Result<(Executed, Ends), Failure> {
    let terminal = document.process.terminal().unwrap_or(false);
    let stdin = document.attachment.is_some_and(|wanted| wanted.stdin);
    let wish = Wish { terminal: terminal.then_some(document.window), stdin };
    let plumbing = plumb(wish).map_err(internal)?;
    let bundle = directory.path().to_owned();
    let request = ExecRequest {
        // The directory has the container's id for a name.
        id: bundle.file_name().unwrap_or_default().to_string_lossy().into_owned(),
        bundle,
        target_pid,
        target,
        process: document.process,
        spec,
        cgroup,
        stdio: plumbing.stdio,
        user: ProcessUser::Lookup { user: document.user, groups: document.groups },
    };
    let mut executed = rorqual_runtime::exec(request).map_err(|error| start_failure(&error))?;
    let at_input_end = if terminal { AtInputEnd::LetGo } else { AtInputEnd::CloseInput };
    let master = executed.terminal.take();
    let ends = Plumbing::ends(plumbing.ours, master, stdin, at_input_end).map_err(internal)?;
    Ok((executed, ends))
}

fn namespace(kind: &str) -> Option<Namespace> {
    Some(match kind {
        "cgroup" => Namespace::Cgroup,
        "ipc" => Namespace::Ipc,
        "mount" => Namespace::Mount,
        "network" => Namespace::Network,
        "pid" => Namespace::Pid,
        "time" => Namespace::Time,
        "user" => Namespace::User,
        "uts" => Namespace::Uts,
        _ => return None,
    })
}

fn start_failure(error: &rorqual_runtime::Error) -> Failure {
    let exit_code = match error {
        rorqual_runtime::Error::Init { failure, .. } => failure.exit_code(),
        _ => StartFailure::Other.exit_code(),
    };
    Failure::Start { message: full_message(error), exit_code, kind: error.kind().into() }
}

/// A failure of the shim's own.
pub(super) fn internal(error: impl std::fmt::Display) -> Failure {
    Failure::refused(error.to_string(), Kind::Internal)
}
