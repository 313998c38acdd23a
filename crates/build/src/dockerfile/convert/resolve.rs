//! Finding what stages start from: images, named contexts, triggers of base images.

use std::collections::BTreeSet;

use rorqual_content::ImageDocument;
use rorqual_core::{Platform, Reference};

use super::stage::empty_image;
use super::{Converter, Reach, platform_of};
use crate::dockerfile::fault::{at, invalid};
use crate::dockerfile::instruction::{Instruction, read_one};
use crate::dockerfile::lint::Rule;
use crate::dockerfile::{FileSource, ImageQuery, ResolvedBase, lines, platform, source};
use crate::ignore::read_ignore_file;
use crate::{Error, GitReference, HttpSource, ImageSource, Input, LocalSource, Op, Vertex};

/// What a named context is once it was looked at.
struct Loaded {
    output: Input,
    image: Option<ImageDocument>,
    local: Option<usize>,
}

impl Converter<'_> {
    /// Resolves what the target needs, until triggers of base images ask for nothing new.
    pub(super) async fn resolve_stages(
        &mut self,
        target: usize,
        reach: Reach,
    ) -> Result<BTreeSet<usize>, Error> {
        loop {
            let mut reachable = self.reachable_from(target);
            if reach == Reach::All {
                reachable = (0..self.stages.len()).collect();
            }
            for number in reachable.iter().copied() {
                self.resolve_stage(number).await?;
            }
            let mut again = false;
            for number in reachable.iter().copied() {
                again |= self.read_triggers(number)?;
            }
            if !again {
                return Ok(reachable);
            }
        }
    }

    async fn resolve_stage(&mut self, number: usize) -> Result<(), Error> {
        let state = &mut self.stages[number];
        if state.base.is_some() || state.mark.resolved {
            return Ok(());
        }
        state.mark.resolved = true;
        if state.stage.base == "scratch" && state.context.is_none() {
            state.image = empty_image(&self.target);
            state.platform = Some(self.target.clone());
            state.mark.dispatched = state.is_image;
            return Ok(());
        }
        let place = state.stage.location.clone();
        let resolved = self.resolve_base(number).await;
        let state = &mut self.stages[number];
        state.mark.dispatched |= state.is_image;
        resolved.map_err(|error| at(error, &place))
    }

    async fn resolve_base(&mut self, number: usize) -> Result<(), Error> {
        let state = &self.stages[number];
        let wanted = state.platform.clone().unwrap_or_else(|| self.target.clone());
        if let Some(context) = state.context.clone() {
            let loaded = self.load_context(&context, state.platform.clone()).await?;
            let state = &mut self.stages[number];
            state.mark.dispatched = true;
            state.output = loaded.output;
            state.local = loaded.local;
            if let Some(mut image) = loaded.image {
                image.created.clear();
                if !image.architecture.is_empty() && !image.os.is_empty() {
                    state.platform = Some(platform_of(&image));
                }
                state.base_image = Some(image.clone());
                state.image = image;
            } else {
                state.image = empty_image(&wanted);
                state.platform.get_or_insert(wanted);
            }
            return Ok(());
        }
        let name = state.stage.base.clone();
        if let Some(context) = self.named_context(&name, Some(&wanted))? {
            let loaded = self.load_context(&context, Some(wanted.clone())).await?;
            let state = &mut self.stages[number];
            let mut image = loaded.image.unwrap_or_else(|| empty_image(&wanted));
            state.base_image = Some(image.clone());
            image.created.clear();
            state.image = image;
            state.output = loaded.output;
            state.local = loaded.local;
            state.platform = Some(wanted);
            return Ok(());
        }
        self.resolve_image(number, &name, wanted).await
    }

    async fn resolve_image(
        &mut self,
        number: usize,
        name: &str,
        wanted: Platform,
    ) -> Result<(), Error> {
        let reference = name.parse::<Reference>();
        let reference = reference
            .map_err(|why| invalid(format!("failed to parse stage name {name:?}: {why}")))?
            .or_latest();
        let (found, reference) = self.query_image(name, &reference, &wanted).await?;
        let mut platform = wanted;
        let mut image = found;
        let explicit = self.stages[number].platform.is_some();
        let same = platform.os == image.os && platform.architecture == image.architecture;
        if !explicit && self.implicit_target && !same && self.build.runs(&platform_of(&image)) {
            platform = self.build.clone();
        }
        let state = &mut self.stages[number];
        state.base_image = Some(image.clone());
        image.created.clear();
        let scratch =
            image.rootfs.diff_ids.is_empty() && image.history.iter().all(|step| step.empty_layer);
        state.image = image;
        state.platform = Some(platform.clone());
        if scratch {
            return Ok(());
        }
        let place = state.stage.location.clone();
        self.check_base_platform(number, name, &platform);
        let name = self.numbered(number, &format!("FROM {reference}"), &platform, None);
        let output = self.draft.add(Vertex {
            op: Op::Image(ImageSource { reference, layout: None }),
            name,
            platform,
            ignore_cache: false,
            location: Some(place),
        })?;
        self.stages[number].output = output;
        Ok(())
    }

    /// Asks for an image; returns its config, and its reference with the digest it leads to.
    async fn query_image(
        &mut self,
        name: &str,
        reference: &Reference,
        platform: &Platform,
    ) -> Result<(ImageDocument, String), Error> {
        let full = reference.to_string();
        let prefix =
            match self.request.options.multi_platform || self.request.options.platforms.len() > 1 {
                true => format!("[{platform} internal]"),
                false => "[internal]".to_owned(),
            };
        let label = format!("{prefix} load metadata for {full}");
        let found = self.resolver.image(ImageQuery {
            reference: &full,
            layout: None,
            platform,
            mode: self.request.options.resolve_mode,
            label: &label,
        });
        let found = found.await.map_err(|error| self.image_error(name, error))?;
        self.note_resolved(full, found.digest.as_ref(), platform);
        Ok((found.document, found.reference))
    }

    fn image_error(&self, name: &str, error: Error) -> Error {
        let hint = self.similar_base(name).map(|near| format!(" (did you mean {near}?)"));
        let hint = hint.unwrap_or_default();
        match error {
            Error::NotFound { message, location } => {
                Error::NotFound { message: format!("{name}: {message}{hint}"), location }
            }
            Error::Invalid { message, location } => {
                Error::Invalid { message: format!("{name}: {message}{hint}"), location }
            }
            other => other,
        }
    }

    fn note_resolved(
        &mut self,
        reference: String,
        digest: Option<&rorqual_core::Digest>,
        platform: &Platform,
    ) {
        let base = ResolvedBase { reference, digest: digest.cloned(), platform: platform.clone() };
        if !self.resolved.contains(&base) {
            self.resolved.push(base);
        }
    }

    fn check_base_platform(&mut self, number: usize, name: &str, expected: &Platform) {
        let state = &self.stages[number];
        let actual = platform_of(&state.image);
        if expected.os == actual.os && expected.architecture == actual.architecture {
            return;
        }
        let message = format!(
            "Base image {name} was pulled with platform {:?}, expected {:?} for current build",
            platform::normal(actual).to_string(),
            expected.to_string()
        );
        let place = state.stage.location.clone();
        let scope = self.linter.config.clone();
        self.linter.report(&scope, Rule::InvalidBaseImagePlatform, &place, message);
    }

    /// Adds the triggers of a stage's base to its instructions; returns whether they need further stages.
    fn read_triggers(&mut self, number: usize) -> Result<bool, Error> {
        let state = &mut self.stages[number];
        if state.mark.triggers_read || state.is_image {
            return Ok(false);
        }
        state.mark.triggers_read = true;
        let mut triggers = state.image.config.on_build.take().unwrap_or_default();
        if let Some(base) = self.stages[number].base {
            for planned in &self.stages[base].commands {
                if let Instruction::OnBuild(text) = &planned.command.instruction {
                    triggers.push(text.clone());
                }
            }
        }
        let place = self.stages[number].stage.location.clone();
        let mut planned = Vec::with_capacity(triggers.len());
        let known = self.stages.len();
        let mut needs = false;
        for trigger in triggers {
            let node = lines::parse_trigger(&trigger, &place)?;
            let command = read_one(&node, self.linter)?;
            let trigger = self.connect_command(number, command, true)?;
            needs |= trigger.sources.iter().any(Option::is_some);
            planned.push(trigger);
        }
        let state = &mut self.stages[number];
        state.progress.total += planned.len();
        planned.append(&mut state.commands);
        state.commands = planned;
        Ok(needs || self.stages.len() > known)
    }

    /// Finds the `--build-context` of a name; for a platform first, then for all.
    pub(super) fn named_context(
        &self,
        name: &str,
        platform: Option<&Platform>,
    ) -> Result<Option<(String, String)>, Error> {
        let contexts = &self.request.options.named_contexts;
        if contexts.is_empty() || ["scratch", "context"].contains(&&*name.to_lowercase()) {
            return Ok(None);
        }
        let reference = name.parse::<Reference>();
        let reference =
            reference.map_err(|why| invalid(format!("invalid context name {name}: {why}")))?;
        let familiar = reference.familiar();
        let name = familiar.strip_suffix(":latest").unwrap_or(&familiar);
        let platform = platform.unwrap_or(&self.target);
        let keys = [format!("{name}::{platform}"), name.to_owned()];
        let found = keys.into_iter().find_map(|key| {
            let input = contexts.get(&key)?.clone();
            Some((key, input))
        });
        Ok(found)
    }

    /// Makes a named context's state.
    async fn load_context(
        &mut self,
        (name, input): &(String, String),
        platform: Option<Platform>,
    ) -> Result<Loaded, Error> {
        let platform = platform.unwrap_or_else(|| self.target.clone());
        let Some((kind, rest)) = input.split_once(':') else {
            return Err(invalid(format!("invalid context specifier {input} for {name}")));
        };
        let plain = |output| Ok(Loaded { output, image: None, local: None });
        let vertex = |op, label| Vertex {
            op,
            name: label,
            platform: platform.clone(),
            ignore_cache: false,
            location: None,
        };
        match kind {
            "docker-image" => {
                let reference = rest.trim_start_matches("//");
                if reference == "scratch" {
                    return plain(Input::Scratch);
                }
                self.load_image_context(name, reference, &platform).await
            }
            "oci-layout" => {
                self.load_layout_context(name, rest.trim_start_matches("//"), &platform).await
            }
            "git" | "http" | "https" | "ssh" => match GitReference::parse(input) {
                Ok(Some(reference)) => {
                    let label = format!("[internal] load git source {input}");
                    plain(self.draft.add(vertex(Op::Git(reference.source(None)), label))?)
                }
                Ok(None) if kind.starts_with("http") => {
                    let source = HttpSource {
                        url: input.clone(),
                        filename: Some("context".to_owned()),
                        ..HttpSource::default()
                    };
                    let label = format!("[context {name}] {input}");
                    plain(self.draft.add(vertex(Op::Http(source), label))?)
                }
                Ok(None) => Err(invalid(format!("invalid git context {input}"))),
                Err(refused) => Err(invalid(refused.to_string())),
            },
            kind if kind.starts_with("git@") => match GitReference::parse(input) {
                Ok(Some(reference)) => {
                    let label = format!("[internal] load git source {input}");
                    plain(self.draft.add(vertex(Op::Git(reference.source(None)), label))?)
                }
                _ => Err(invalid(format!("invalid git context {input}"))),
            },
            "local" => self.load_local_context(name, rest, &platform).await,
            "input" => self.load_input(name, rest),
            kind => Err(invalid(format!("unsupported context source {kind} for {name}"))),
        }
    }

    async fn load_image_context(
        &mut self,
        name: &str,
        reference: &str,
        platform: &Platform,
    ) -> Result<Loaded, Error> {
        let parsed = reference.parse::<Reference>();
        let full = parsed.map_err(|why| invalid(why.to_string()))?.or_latest().to_string();
        let label = format!("[context {name}] load metadata for {reference}");
        let found = self
            .resolver
            .image(ImageQuery {
                reference: &full,
                layout: None,
                platform,
                mode: self.request.options.resolve_mode,
                label: &label,
            })
            .await?;
        self.note_resolved(full, found.digest.as_ref(), platform);
        let output = self.draft.add(Vertex {
            op: Op::Image(ImageSource { reference: found.reference, layout: None }),
            name: format!("[context {name}] {reference}"),
            platform: platform.clone(),
            ignore_cache: false,
            location: None,
        })?;
        Ok(Loaded { output, image: Some(found.document), local: None })
    }

    /// `oci-layout://STORE@DIGEST`: the store is a name under which the client offers a layout.
    async fn load_layout_context(
        &mut self,
        name: &str,
        text: &str,
        platform: &Platform,
    ) -> Result<Loaded, Error> {
        let Some((store, digest)) = text.split_once('@') else {
            return Err(invalid(format!("oci-layout reference {text:?} has no digest")));
        };
        // A tag before the digest says nothing more.
        let store = store.split(':').next().unwrap_or(store);
        let plain = name.split("::").next().unwrap_or(name);
        let reference = format!("{plain}@{digest}").parse::<Reference>();
        let full = reference
            .map_err(|why| {
                invalid(format!("could not parse oci-layout reference {text:?}: {why}"))
            })?
            .to_string();
        let label = format!("[context {name}] load metadata for {full}");
        let found = self
            .resolver
            .image(ImageQuery {
                reference: &full,
                layout: Some(store),
                platform,
                mode: self.request.options.resolve_mode,
                label: &label,
            })
            .await?;
        self.note_resolved(full.clone(), found.digest.as_ref(), platform);
        let output = self.draft.add(Vertex {
            op: Op::Image(ImageSource { reference: full, layout: Some(store.to_owned()) }),
            name: format!("[context {name}] OCI load from client"),
            platform: platform.clone(),
            ignore_cache: false,
            location: None,
        })?;
        Ok(Loaded { output, image: Some(found.document), local: None })
    }

    async fn load_local_context(
        &mut self,
        name: &str,
        local: &str,
        platform: &Platform,
    ) -> Result<Loaded, Error> {
        let session = self.request.options.local_sessions.get(local).cloned();
        let from = FileSource::Local { name: local.to_owned(), session: session.clone() };
        let file = ".dockerignore";
        let label = format!("[context {name}] load {file}");
        let found = self.resolver.read_files(from, &[file], &label).await?;
        let exclude = match found.into_iter().next().flatten() {
            Some(bytes) => read_ignore_file(&source::ignore_file(file.to_owned(), bytes)?.text),
            None => Vec::new(),
        };
        let source = LocalSource {
            name: local.to_owned(),
            session,
            exclude,
            shared_key: format!("context:{name}-{local}"),
            ..LocalSource::default()
        };
        let label = format!("[context {name}] load from client");
        let (output, local) = self.draft.local(source, label, platform)?;
        Ok(Loaded { output, image: None, local: Some(local) })
    }

    fn load_input(&mut self, name: &str, input: &str) -> Result<Loaded, Error> {
        let Some(found) = self.request.inputs.get(input) else {
            return Err(invalid(format!("invalid input {input} for {name}")));
        };
        let output = self.draft.import(&found.graph, found.output)?;
        let config = self.request.options.input_configs.get(input);
        let image = config.map(|bytes| serde_json::from_slice(bytes)).transpose();
        let image = image
            .map_err(|why| invalid(format!("failed to parse image config for {name}: {why}")))?;
        Ok(Loaded { output, image, local: None })
    }

    /// The stage where a chain of bases begins: it keeps which paths are used.
    pub(super) fn first_of_chain(&self, mut number: usize) -> usize {
        while let Some(base) = self.stages[number].base {
            number = base;
        }
        number
    }
}
