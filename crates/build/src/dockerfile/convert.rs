//! From instructions to vertices: the walk over a Dockerfile, once per platform.
//!
//! Stages are connected first, base images resolved together, then every stage that is needed is walked instruction by
//! instruction. All platforms share one graph.

mod args;
mod config;
mod copy;
mod dispatch;
mod draft;
mod env;
mod expose;
mod label;
mod plan;
mod resolve;
mod run;
mod stage;

use rorqual_content::ImageDocument;
use rorqual_core::Platform;

use super::directive::{check_of, refuse_other};
use super::fault::{at, invalid};
use super::instruction::{Document, read_all};
use super::lines::Parsed;
use super::lint::{LintConfig, Linter, Rule};
use super::shell::Lexer;
use super::source::{MAX_SOURCE, ignore_file};
use super::{
    BuildContext, Dialect, FileSource, FrontendRequest, FrontendResult, PlatformResult, Resolver,
    SbomTargets, StepText, lines, platform,
};
use crate::ignore::{PatternMatcher, read_ignore_file};
use crate::{Error, Graph, Input};

use args::Globals;
use draft::Draft;
pub use draft::remote_context;
pub(super) use stage::{ArgRecord, Need, StageState};

/// Which stages are walked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reach {
    /// Those that the target needs.
    Target,
    /// All, for checks.
    All,
}

/// Turns a Dockerfile into a graph.
///
/// # Errors
///
/// `Invalid` with a place for what is wrong in the Dockerfile; whatever the resolver fails with.
pub async fn build_graph(
    request: &FrontendRequest,
    resolver: &dyn Resolver,
) -> Result<FrontendResult, Error> {
    let mut linter = Linter::default();
    let walked = walk(request, resolver, Reach::Target, &mut linter).await?;
    linter.verdict().map_err(invalid)?;
    walked.finish(request, linter)
}

/// What a walk over all platforms made.
pub(super) struct Walked {
    draft: Draft,
    pub(super) platforms: Vec<Walk>,
    epoch: Option<i64>,
}

/// What a walk for one platform made.
pub(super) struct Walk {
    pub(super) stages: Vec<StageState>,
    pub(super) target: usize,
    platform: Platform,
    resolved: Vec<super::ResolvedBase>,
    steps: Vec<StepText>,
    context: Option<Input>,
}

/// Walks a Dockerfile for all its platforms.
pub(super) async fn walk(
    request: &FrontendRequest,
    resolver: &dyn Resolver,
    reach: Reach,
    linter: &mut Linter,
) -> Result<Walked, Error> {
    let (parsed, document) = read(request, linter)?;
    let ignore = ignore_patterns(request, resolver).await?;
    let mut walked =
        Walked { draft: Draft::new(request, &ignore)?, platforms: Vec::new(), epoch: None };
    let matcher = PatternMatcher::new(&ignore).map_err(|refused| invalid(refused.to_string()))?;
    let build = request.options.build_platform.clone().unwrap_or_else(Platform::host);
    let build = platform::normal(build);
    let wanted = &request.options.platforms;
    let platforms: Vec<Option<&Platform>> =
        if wanted.is_empty() { vec![None] } else { wanted.iter().map(Some).collect() };
    for target in platforms {
        let converter = Converter {
            request,
            resolver,
            draft: &mut walked.draft,
            linter,
            lexer: Lexer::new(parsed.escape),
            build: build.clone(),
            target: target.map_or_else(|| build.clone(), |target| platform::normal(target.clone())),
            implicit_target: target.is_none(),
            globals: Globals::default(),
            stages: Vec::new(),
            ignore: &matcher,
            epoch: None,
            resolved: Vec::new(),
            steps: Vec::new(),
        };
        let (walk, epoch) = converter.run(&document, reach).await?;
        walked.epoch = epoch;
        walked.platforms.push(walk);
    }
    Ok(walked)
}

/// Reads the text: directives, lines, instructions.
fn read(request: &FrontendRequest, linter: &mut Linter) -> Result<(Parsed, Document), Error> {
    let source = &request.source;
    if source.text.is_empty() {
        return Err(invalid("the Dockerfile cannot be empty"));
    }
    if source.text.len() > MAX_SOURCE {
        let size = source.text.len();
        return Err(invalid(format!(
            "a Dockerfile may have {MAX_SOURCE} bytes, this one has {size}"
        )));
    }
    let args = &request.options.build_args;
    let arg = |name: &str| args.get(name).map(String::as_str);
    refuse_other(&source.name, &source.text, arg("BUILDKIT_SYNTAX"))?;
    let check = arg("BUILDKIT_DOCKERFILE_CHECK").or_else(|| check_of(&source.text));
    linter.config = LintConfig::parse(check.unwrap_or_default())
        .map_err(|why| invalid(format!("failed to parse check options: {why}")))?;
    let parsed = lines::parse(source)?;
    let config = linter.config.clone();
    for place in &parsed.empty_continuations {
        let message = "Empty continuation line".to_owned();
        linter.report(&config, Rule::NoEmptyContinuation, place, message);
    }
    if request.options.dialect == Dialect::Classic {
        refuse_for_classic(&parsed)?;
    }
    let document = read_all(&parsed.nodes, linter)?;
    Ok((parsed, document))
}

/// The classic builder knows few flags and no heredocs. COMPAT: its words.
fn refuse_for_classic(parsed: &Parsed) -> Result<(), Error> {
    let more = "Refer to https://docs.docker.com/go/buildkit/ to learn how to build images with BuildKit enabled";
    for node in &parsed.nodes {
        let known: &[&str] = match &*node.name.to_ascii_lowercase() {
            "from" => &["platform"],
            "add" => &["chown"],
            "copy" => &["chown", "from"],
            "healthcheck" => &["interval", "timeout", "start-period", "start-interval", "retries"],
            _ => &[],
        };
        let newer = [
            "mount",
            "network",
            "security",
            "device",
            "chmod",
            "link",
            "parents",
            "exclude",
            "checksum",
            "keep-git-dir",
            "unpack",
        ];
        for flag in &node.flags {
            let name = flag.trim_start_matches("--").split('=').next().unwrap_or_default();
            if newer.contains(&name) && !known.contains(&name) {
                let message = format!("the --{name} option requires BuildKit. {more}");
                return Err(at(invalid(message), &node.place()));
            }
        }
        if !node.heredocs.is_empty() {
            let message = format!("the heredoc syntax requires BuildKit. {more}");
            return Err(at(invalid(message), &node.place()));
        }
    }
    Ok(())
}

/// Finds the patterns of what the context leaves out.
async fn ignore_patterns(
    request: &FrontendRequest,
    resolver: &dyn Resolver,
) -> Result<Vec<String>, Error> {
    let BuildContext::Local { name, .. } = &request.context else { return Ok(Vec::new()) };
    if let Some(file) = &request.ignore {
        return Ok(read_ignore_file(&file.text));
    }
    let session = request.options.local_sessions.get(name).cloned();
    let from = FileSource::Local { name: name.clone(), session };
    let file = ".dockerignore";
    let label = format!("[internal] load {file}");
    let found = resolver.read_files(from, &[file], &label).await?.into_iter().next().flatten();
    match found {
        Some(bytes) => Ok(read_ignore_file(&ignore_file(file.to_owned(), bytes)?.text)),
        None => Ok(Vec::new()),
    }
}

/// State of the walk for one platform.
pub(super) struct Converter<'a> {
    request: &'a FrontendRequest,
    resolver: &'a dyn Resolver,
    draft: &'a mut Draft,
    linter: &'a mut Linter,
    lexer: Lexer,
    build: Platform,
    target: Platform,
    /// No platform was asked for.
    implicit_target: bool,
    globals: Globals,
    stages: Vec<StageState>,
    ignore: &'a PatternMatcher,
    epoch: Option<i64>,
    resolved: Vec<super::ResolvedBase>,
    steps: Vec<StepText>,
}

impl Converter<'_> {
    async fn run(
        mut self,
        document: &Document,
        reach: Reach,
    ) -> Result<(Walk, Option<i64>), Error> {
        self.read_globals(document)?;
        self.connect_stages(document)?;
        let target = self.find_target()?;
        self.connect_commands()?;
        let reachable = self.resolve_stages(target, reach).await?;
        self.walk_stages(&reachable, target)?;
        self.complete_image(target);
        let context = self.stages.iter().any(|stage| stage.scan_context);
        let context = if context { Some(self.draft.context(&self.target)?) } else { None };
        let walk = Walk {
            stages: self.stages,
            target,
            platform: self.target,
            resolved: self.resolved,
            steps: self.steps,
            context,
        };
        Ok((walk, self.epoch))
    }

    /// Gives the image its labels and its platform.
    fn complete_image(&mut self, target: usize) {
        let image = &mut self.stages[target].image;
        if !self.request.options.labels.is_empty() {
            let labels = self.request.options.labels.clone();
            image.config.labels.get_or_insert_default().extend(labels);
        }
        if !self.implicit_target {
            let wanted = &self.target;
            let same = wanted.os == image.os && wanted.architecture == image.architecture;
            image.os.clone_from(&wanted.os);
            image.architecture.clone_from(&wanted.architecture);
            if !wanted.variant.is_empty() || !same {
                image.variant.clone_from(&wanted.variant);
            }
        }
        let normal = platform::normal(platform_of(image));
        image.variant = normal.variant;
    }
}

fn platform_of(image: &ImageDocument) -> Platform {
    Platform {
        os: image.os.clone(),
        architecture: image.architecture.clone(),
        variant: image.variant.clone(),
    }
}

impl Walked {
    /// Leaves out what is not needed and numbers the rest.
    fn finish(self, request: &FrontendRequest, linter: Linter) -> Result<FrontendResult, Error> {
        let drafted = self.draft.finish();
        let mut states = Vec::new();
        for walk in &self.platforms {
            states.push(walk.stages[walk.target].output);
            states.extend(walk.steps.iter().map(|step| step.output));
            states.extend(walk.scanned().map(|(_, state)| state));
        }
        let mut graph = Graph::default();
        let mut renamed = graph.import(&drafted, &states)?.into_iter();
        let mut next = || renamed.next().unwrap_or(Input::Scratch);
        let mut steps = Vec::new();
        let mut platforms = Vec::new();
        for mut walk in self.platforms {
            let output = next();
            for step in &mut walk.steps {
                step.output = next();
            }
            let names: Vec<String> = walk.scanned().map(|(name, _)| name.to_owned()).collect();
            let extras = names.into_iter().map(|name| (name, next())).collect();
            if steps.is_empty() {
                steps = std::mem::take(&mut walk.steps);
            }
            let target = walk.stages.swap_remove(walk.target);
            let platform = match request.options.platforms.is_empty() {
                true => platform::normal(platform_of(&target.image)),
                false => walk.platform,
            };
            platforms.push(PlatformResult {
                id: platform.to_string(),
                platform,
                output,
                document: target.image,
                base: target.base_image,
                resolved: walk.resolved,
                sbom: SbomTargets { extras },
            });
        }
        Ok(FrontendResult {
            graph,
            platforms,
            multi_platform: request.options.multi_platform || request.options.platforms.len() > 1,
            warnings: linter.found,
            source_date_epoch: self.epoch,
            steps,
        })
    }
}

impl Walk {
    /// States that an SBOM scanner looks at besides the target.
    fn scanned(&self) -> impl Iterator<Item = (&str, Input)> {
        let stages = self.stages.iter().enumerate();
        let stages = stages.filter(|(number, stage)| *number != self.target && stage.scan_stage);
        let stages = stages.map(|(_, stage)| (&*stage.label, stage.output));
        self.context.map(|context| ("context", context)).into_iter().chain(stages)
    }
}
