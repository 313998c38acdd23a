//! The Dockerfile front end: the text of a Dockerfile and its options become a build graph, one image config per
//! platform, and remarks.
//!
//! [`build_graph`] is the whole journey: directives and lines are read, instructions typed, stages connected, base images
//! resolved through [`Resolver`], and what is reachable from the target becomes vertices. [`outline`], [`targets`] and
//! [`lint`] answer questions about a Dockerfile without building. Nothing here executes anything or keeps state.

mod convert;
mod directive;
mod fault;
mod flags;
mod heredoc;
mod instruction;
mod lines;
mod lint;
mod options;
mod platform;
mod request;
mod shell;
mod source;
mod subrequest;
mod words;

pub use convert::{build_graph, remote_context};
pub use directive::{Syntax, answers_for, syntax_of};
pub use lint::Rule;
pub use options::{ContextKind, context_kind, options_from_attributes};
pub use request::{
    BuildContext, Dialect, FileSource, FrontendInput, FrontendRequest, FrontendResult, IgnoreFile,
    ImageQuery, NoCache, Options, PlatformResult, ResolvedBase, Resolver, SbomTargets, SourceFile,
    StepText, Warning,
};
pub use source::{MAX_SOURCE, excerpt, load_source};
pub use subrequest::{ANSWER_VERSION, Answer, describe, lint, outline, targets};

#[cfg(test)]
mod tests;
