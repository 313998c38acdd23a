//! Instructions with their meaning: what a line of a Dockerfile asks for, before variables have values.

mod mount;
mod read;

pub(super) use mount::{Mount, MountType, mount_from, parse_mount};
pub(super) use read::{read_all, read_one};

use rorqual_content::HealthConfig;

use super::heredoc::Heredoc;
use crate::Location;

/// A Dockerfile: arguments before the first stage, and stages.
#[derive(Clone, Debug, Default)]
pub(super) struct Document {
    pub(super) global_args: Vec<(Vec<ArgDefinition>, Location)>,
    pub(super) stages: Vec<Stage>,
}

/// A build stage.
#[derive(Clone, Debug)]
pub(super) struct Stage {
    /// Lower case; empty when it has none.
    pub(super) name: String,
    /// Image or stage, with variables.
    pub(super) base: String,
    /// `--platform`, with variables.
    pub(super) platform: String,
    /// `FROM`, as written.
    pub(super) keyword: String,
    /// The whole `FROM` line.
    pub(super) code: String,
    /// What the comment above says of it.
    pub(super) description: String,
    pub(super) comments: Vec<String>,
    pub(super) location: Location,
    pub(super) commands: Vec<Command>,
}

/// An instruction of a stage.
#[derive(Clone, Debug)]
pub(super) struct Command {
    /// Keyword, as written.
    pub(super) keyword: String,
    /// The whole line.
    pub(super) code: String,
    pub(super) comments: Vec<String>,
    pub(super) location: Location,
    pub(super) instruction: Instruction,
}

/// What an instruction asks for.
#[derive(Clone, Debug)]
pub(super) enum Instruction {
    Env(Vec<Pair>),
    Label(Vec<Pair>),
    Maintainer(String),
    Add(CopyInstruction),
    Copy(CopyInstruction),
    OnBuild(String),
    Workdir(String),
    Run(RunInstruction),
    Cmd(CommandLine),
    Entrypoint(CommandLine),
    Healthcheck(HealthConfig),
    Expose(Vec<String>),
    User(String),
    Volume(Vec<String>),
    StopSignal(String),
    Arg(Vec<ArgDefinition>),
    Shell(Vec<String>),
}

/// `name=value`, or the old `name value`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Pair {
    pub(super) name: String,
    pub(super) value: String,
    pub(super) legacy: bool,
}

/// An argument.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ArgDefinition {
    pub(super) name: String,
    pub(super) value: Option<String>,
    /// What the comment above says of it.
    pub(super) description: String,
}

/// A command line: JSON, or text for the shell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct CommandLine {
    pub(super) args: Vec<String>,
    /// The shell is put before it.
    pub(super) shell: bool,
}

/// `RUN`
#[derive(Clone, Debug)]
pub(super) struct RunInstruction {
    pub(super) line: CommandLine,
    pub(super) heredocs: Vec<Heredoc>,
    /// Values of `--mount`, with variables.
    pub(super) mounts: Vec<String>,
    pub(super) network: String,
    pub(super) security: String,
    /// Values of `--device`.
    pub(super) devices: Vec<String>,
}

/// `ADD` and `COPY`
#[derive(Clone, Debug, Default)]
pub(super) struct CopyInstruction {
    pub(super) sources: Vec<String>,
    /// Sources that are heredocs.
    pub(super) contents: Vec<Heredoc>,
    pub(super) target: String,
    pub(super) from: String,
    pub(super) chown: String,
    pub(super) chmod: String,
    pub(super) link: bool,
    pub(super) parents: bool,
    pub(super) exclude: Vec<String>,
    pub(super) keep_git_dir: Option<bool>,
    pub(super) checksum: String,
    pub(super) unpack: Option<bool>,
}

/// Keywords of all instructions.
pub(super) const KEYWORDS: [&str; 18] = [
    "ADD",
    "ARG",
    "CMD",
    "COPY",
    "ENTRYPOINT",
    "ENV",
    "EXPOSE",
    "FROM",
    "HEALTHCHECK",
    "LABEL",
    "MAINTAINER",
    "ONBUILD",
    "RUN",
    "SHELL",
    "STOPSIGNAL",
    "USER",
    "VOLUME",
    "WORKDIR",
];
