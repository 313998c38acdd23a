//! Building images: the Dockerfile front end, the build graph, and the solver that executes it.
//!
//! Knows neither the engine nor HTTP: steps run through [`StepRunner`], what a client gives (files, secrets, credentials)
//! comes through [`Session`], and what happens is told to a [`ProgressSink`].

mod contract;
pub mod dockerfile;
mod error;
mod git_reference;
mod gopath;
mod graph;
pub mod ignore;
pub mod sbom;
pub mod solver;

pub use contract::{
    AgentStream, BlobSource, Fetching, ImageResolver, KeepLayers, Log, LogStream, Login,
    OutputSink, Progress, ProgressSink, ResolveMode, ResolvedImage, SecretValue, Session,
    StatusUpdate, Step, StepExit, StepRunner, SyncRequest, Terminal, TreeEntry, TreeSink, Upload,
    VertexUpdate,
};
pub use error::{Error, Location};
pub use git_reference::{GitReference, InvalidGitReference};
pub use graph::{
    CacheSharing, CopyAction, ExecMount, ExecNetwork, ExecOp, ExecSecurity, FileAction, FileOp,
    FileOwner, GitSource, Graph, HttpSource, ImageSource, Input, LocalSource, MountKind, Op,
    OutputRef, SecretSpec, Vertex, VertexId,
};
