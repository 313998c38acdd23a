//! What goes into the front end and what comes out of it.

use std::collections::BTreeMap;

use async_trait::async_trait;
use rorqual_content::ImageDocument;
use rorqual_core::{Digest, Platform};

use crate::{
    Error, ExecNetwork, GitSource, Graph, HttpSource, Input, Location, ResolveMode, ResolvedImage,
};

/// A Dockerfile to be turned into a graph.
#[derive(Clone, Debug, Default)]
pub struct FrontendRequest {
    /// The Dockerfile.
    pub source: SourceFile,
    /// How it is to be built.
    pub options: Options,
    /// Where files of `COPY` and `ADD` come from.
    pub context: BuildContext,
    /// The ignore file that lies beside the Dockerfile (`Dockerfile.dockerignore`), which goes before that of the context.
    pub ignore: Option<IgnoreFile>,
    /// States made by another graph, by name, for contexts of the form `input:NAME`.
    pub inputs: BTreeMap<String, FrontendInput>,
}

/// A file of source text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SourceFile {
    /// Name, as the user gave it; for messages.
    pub name: String,
    /// Content.
    pub text: String,
}

/// An ignore file that was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IgnoreFile {
    /// Name, for messages.
    pub name: String,
    /// Content.
    pub text: String,
}

/// Which builder's rules hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Dialect {
    /// BuildKit's.
    #[default]
    BuildKit,
    /// Those of the engine's classic builder: no heredocs, no mounts, no automatic platform arguments, history entries of
    /// the `#(nop)` form, and all stages up to the target are built.
    Classic,
}

/// Which stages are built anew although a result is cached.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum NoCache {
    /// None.
    #[default]
    Never,
    /// All.
    Always,
    /// Those of these names.
    Stages(Vec<String>),
}

/// How a Dockerfile is to be built; see [`super::options_from_attributes`] for their names in a build request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Whose rules.
    pub dialect: Dialect,
    /// Stage to build, the last one when empty.
    pub target: String,
    /// For which machines; the builder's own when empty.
    pub platforms: Vec<Platform>,
    /// On which machine it is built; [`Platform::host`] when `None`.
    pub build_platform: Option<Platform>,
    /// The result is to list platforms even when it is one.
    pub multi_platform: bool,
    /// Values of `--build-arg`.
    pub build_args: BTreeMap<String, String>,
    /// Labels added to the image.
    pub labels: BTreeMap<String, String>,
    /// `host:address` for the hosts files of steps.
    pub extra_hosts: Vec<(String, String)>,
    /// What steps reach when they do not say it.
    pub network: ExecNetwork,
    /// Size of `/dev/shm` of steps, in bytes.
    pub shm_size: Option<u64>,
    /// `name=soft:hard`
    pub ulimits: Vec<String>,
    /// Parent cgroup of steps.
    pub cgroup_parent: String,
    /// Host name of steps.
    pub hostname: String,
    /// What is built anew.
    pub no_cache: NoCache,
    /// How base images are looked for.
    pub resolve_mode: ResolveMode,
    /// Name space of cache mounts.
    pub cache_namespace: String,
    /// `--build-context`: by name (or `name::platform`), what it is: `docker-image://…`, `oci-layout://…`, `local:…`,
    /// `input:…`, or a URL.
    pub named_contexts: BTreeMap<String, String>,
    /// Image configs that come with inputs, by name of the input: the JSON of an image config.
    pub input_configs: BTreeMap<String, Vec<u8>>,
    /// Which session offers a local directory, where it is another than the build's own.
    pub local_sessions: BTreeMap<String, String>,
}

/// The main context of a build.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BuildContext {
    /// A directory of the client, by the name under which it offers it.
    Local {
        /// `context`
        name: String,
        /// Hint which directory it is; see [`crate::LocalSource::shared_key`].
        shared_key: String,
    },
    /// A git repository.
    Git(GitSource),
    /// An archive at a URL, which is unpacked.
    Archive(HttpSource),
    /// The state of an input of that name.
    Input(String),
    /// There is none: a lone Dockerfile came from a URL or from standard input.
    Empty,
}

impl Default for BuildContext {
    fn default() -> Self {
        Self::Local { name: "context".to_owned(), shared_key: "context".to_owned() }
    }
}

/// A state made by another graph.
#[derive(Clone, Debug)]
pub struct FrontendInput {
    /// The graph.
    pub graph: Graph,
    /// The state in it.
    pub output: Input,
}

/// Whence small files are read.
#[derive(Clone, Debug)]
pub enum FileSource {
    /// A directory of the client.
    Local {
        /// Name under which it is offered.
        name: String,
        /// Session that offers it, when it is another than the build's own.
        session: Option<String>,
    },
    /// A state: of a git context, of an input.
    State(FrontendInput),
}

/// Which image is looked for.
#[derive(Clone, Copy, Debug)]
pub struct ImageQuery<'a> {
    /// Complete reference: `docker.io/library/debian:sid`.
    pub reference: &'a str,
    /// Name of a client's OCI layout to look in, instead of a registry.
    pub layout: Option<&'a str>,
    /// For which machine.
    pub platform: &'a Platform,
    /// Where to look.
    pub mode: ResolveMode,
    /// What people are to see: `[internal] load metadata for docker.io/library/debian:sid`.
    pub label: &'a str,
}

/// What the front end has to ask while it makes a graph. Progress of the answers is the implementation's business.
#[async_trait]
pub trait Resolver: Send + Sync {
    /// Finds an image and reads its config.
    async fn image(&self, query: ImageQuery<'_>) -> Result<ResolvedImage, Error>;
    /// Reads small files; `None` for each that does not exist. `label` as for images: `[internal] load .dockerignore`.
    ///
    /// Implementations bound the sizes (a Dockerfile has at most [`super::MAX_SOURCE`] bytes).
    async fn read_files(
        &self,
        from: FileSource,
        names: &[&str],
        label: &str,
    ) -> Result<Vec<Option<Vec<u8>>>, Error>;
}

/// What a Dockerfile means.
#[derive(Clone, Debug, Default)]
pub struct FrontendResult {
    /// All that has to be done.
    pub graph: Graph,
    /// One per platform, in the order asked for.
    pub platforms: Vec<PlatformResult>,
    /// The result lists platforms even when it is one.
    pub multi_platform: bool,
    /// Remarks, those of all platforms once.
    pub warnings: Vec<Warning>,
    /// `SOURCE_DATE_EPOCH`, seconds since the epoch.
    pub source_date_epoch: Option<i64>,
    /// What is executed in the order of the Dockerfile, for the classic builder's `Step 1/5 : FROM …`; of the first platform.
    pub steps: Vec<StepText>,
}

/// The image for one platform.
#[derive(Clone, Debug)]
pub struct PlatformResult {
    /// For which machine.
    pub platform: Platform,
    /// `linux/amd64`, as results name it.
    pub id: String,
    /// Its root file system.
    pub output: Input,
    /// Its config with the history of base and build. Layers (`rootfs`) are those of the base image, or of none; the
    /// exporter replaces them and fills empty `created` fields: of a layer with the time it was made, of an entry without a
    /// layer with that of the one before.
    pub document: ImageDocument,
    /// The config of the image that the target's chain of stages starts from.
    pub base: Option<ImageDocument>,
    /// All images that are used, for provenance.
    pub resolved: Vec<ResolvedBase>,
    /// What an SBOM scanner looks at.
    pub sbom: SbomTargets,
}

/// An image that a build uses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResolvedBase {
    /// As it was resolved, with tag.
    pub reference: String,
    /// Digest of its manifest or index, where it has one.
    pub digest: Option<Digest>,
    /// For which machine.
    pub platform: Platform,
}

/// States that an SBOM scanner looks at besides the result: the context, or stages, as `BUILDKIT_SBOM_SCAN_*` say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SbomTargets {
    /// By name of the stage, or `context`.
    pub extras: BTreeMap<String, Input>,
}

/// A remark about a Dockerfile: a rule of [`super::Rule`] that fired.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    /// `UndefinedVar`
    pub rule: String,
    /// What the rule is about.
    pub description: String,
    /// Where to read on; empty when there is nothing.
    pub url: String,
    /// What was found.
    pub message: String,
    /// Where.
    pub location: Option<Location>,
}

impl Warning {
    /// The first line that clients show: `UndefinedVar: Usage of undefined variable '$x' (line 3)`.
    pub fn short(&self) -> String {
        let line =
            self.location.as_ref().map(|location| format!(" (line {})", location.first_line));
        format!("{}: {}{}", self.rule, self.message, line.unwrap_or_default())
    }
}

/// An executed instruction, as the classic builder announces it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StepText {
    /// `COPY a b`, as it stands in the Dockerfile.
    pub text: String,
    /// The state after it.
    pub output: Input,
    /// The config after it.
    pub document: ImageDocument,
    /// It is a trigger of a base image.
    pub on_build: bool,
}
