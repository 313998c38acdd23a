//! What is known of a stage while it is connected, resolved and walked.

use std::collections::{BTreeMap, BTreeSet};

use rorqual_content::{ImageConfig, ImageDocument, RootFs};
use rorqual_core::Platform;

use super::env::Env;
use crate::dockerfile::instruction::{ArgDefinition, Command, Stage};
use crate::{Input, Location};

/// `PATH` of images that set none.
pub(super) const DEFAULT_PATH: &str =
    "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// An instruction with the stages that it takes files from.
#[derive(Clone, Debug)]
pub(super) struct Planned {
    pub(super) command: Command,
    /// One per mount of `RUN` (`None` for the context, or nothing), or the one of `COPY --from`.
    pub(super) sources: Vec<Option<usize>>,
    pub(super) on_build: bool,
}

/// A stage.
#[derive(Clone, Debug)]
pub(in crate::dockerfile) struct StageState {
    pub(in crate::dockerfile) stage: Stage,
    /// Name in the progress; empty when it is the only one.
    pub(super) label: String,
    /// Stage that this one starts from.
    pub(in crate::dockerfile) base: Option<usize>,
    /// Other stages that it needs, with where it does.
    pub(in crate::dockerfile) needs: Vec<(usize, Location)>,
    /// `--build-context` that replaces it: its name and what it is.
    pub(super) context: Option<(String, String)>,
    pub(super) commands: Vec<Planned>,
    /// It stands for an image that `COPY --from` or a mount names.
    pub(super) is_image: bool,
    pub(super) platform: Option<Platform>,
    pub(super) image: ImageDocument,
    pub(super) base_image: Option<ImageDocument>,
    pub(super) output: Input,
    pub(super) env: Env,
    pub(super) directory: String,
    pub(super) user: String,
    pub(super) progress: StepCount,
    pub(super) mark: Marks,
    /// Values of `ARG` so far, in order.
    pub(super) args: Vec<(String, Option<String>)>,
    /// Paths of the main context that it uses.
    pub(super) context_paths: BTreeSet<String>,
    /// Paths of its own (or of the chain of its bases) that are used; kept where the chain begins.
    pub(super) paths: BTreeSet<String>,
    /// The directory of the client that it is.
    pub(super) local: Option<usize>,
    pub(super) scan_stage: bool,
    pub(super) scan_context: bool,
    pub(super) last: LastSeen,
    pub(in crate::dockerfile) outline: Outline,
}

/// Numbers for `[stage 2/5]`.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct StepCount {
    pub(super) done: usize,
    pub(super) total: usize,
    pub(super) on_build: bool,
}

/// How far a stage is.
#[derive(Clone, Copy, Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "marks of a walk, each set once")]
pub(super) struct Marks {
    pub(super) dispatched: bool,
    pub(super) resolved: bool,
    pub(super) triggers_read: bool,
    pub(super) ignore_cache: bool,
    pub(super) workdir_set: bool,
}

/// Where an instruction that counts once stood last.
#[derive(Clone, Debug, Default)]
pub(super) struct LastSeen {
    pub(super) cmd: Option<Location>,
    pub(super) entrypoint: Option<Location>,
    pub(super) healthcheck: Option<Location>,
}

/// What a stage asks of who builds it.
#[derive(Clone, Debug, Default)]
pub(in crate::dockerfile) struct Outline {
    pub(in crate::dockerfile) args: BTreeMap<String, ArgRecord>,
    pub(in crate::dockerfile) used: BTreeSet<String>,
    pub(in crate::dockerfile) secrets: BTreeMap<String, Need>,
    pub(in crate::dockerfile) ssh: BTreeMap<String, Need>,
}

/// An argument that was defined.
#[derive(Clone, Debug)]
pub(in crate::dockerfile) struct ArgRecord {
    pub(in crate::dockerfile) definition: ArgDefinition,
    pub(in crate::dockerfile) value: String,
    /// Arguments that its default names.
    pub(in crate::dockerfile) needs: BTreeSet<String>,
    pub(in crate::dockerfile) location: Location,
}

/// A secret or an agent that a step uses.
#[derive(Clone, Debug)]
pub(in crate::dockerfile) struct Need {
    pub(in crate::dockerfile) required: bool,
    pub(in crate::dockerfile) location: Location,
}

impl StageState {
    pub(super) fn new(stage: Stage) -> Self {
        Self {
            label: stage.name.clone(),
            stage,
            base: None,
            needs: Vec::new(),
            context: None,
            commands: Vec::new(),
            is_image: false,
            platform: None,
            image: ImageDocument::default(),
            base_image: None,
            output: Input::Scratch,
            env: Env::default(),
            directory: String::new(),
            user: String::new(),
            progress: StepCount::default(),
            mark: Marks::default(),
            args: Vec::new(),
            context_paths: BTreeSet::new(),
            paths: BTreeSet::new(),
            local: None,
            scan_stage: false,
            scan_context: false,
            last: LastSeen::default(),
            outline: Outline::default(),
        }
    }

    /// A stage that stands for an image.
    pub(super) fn image(reference: &str, place: &Location) -> Self {
        let stage = Stage {
            name: String::new(),
            base: reference.to_owned(),
            platform: String::new(),
            keyword: "FROM".to_owned(),
            code: format!("FROM {reference}"),
            description: String::new(),
            comments: Vec::new(),
            location: place.clone(),
            commands: Vec::new(),
        };
        Self { is_image: true, ..Self::new(stage) }
    }
}

/// The config of an empty image.
pub(super) fn empty_image(platform: &Platform) -> ImageDocument {
    ImageDocument {
        architecture: platform.architecture.clone(),
        os: platform.os.clone(),
        variant: platform.variant.clone(),
        config: ImageConfig {
            env: Some(vec![format!("PATH={DEFAULT_PATH}")]),
            working_dir: "/".to_owned(),
            ..ImageConfig::default()
        },
        rootfs: RootFs { kind: "layers".to_owned(), diff_ids: Vec::new() },
        ..ImageDocument::default()
    }
}
