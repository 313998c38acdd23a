//! The walk over the instructions of a stage.

use std::collections::BTreeSet;

use super::env::{self, Env};
use super::label::Layer;
use super::stage::{DEFAULT_PATH, Planned};
use super::{Converter, StepText};
use crate::dockerfile::Dialect;
use crate::dockerfile::fault::{at, did_you_mean, invalid};
use crate::dockerfile::instruction::{Command, Instruction};
use crate::dockerfile::lint::{LintConfig, Rule};
use crate::dockerfile::shell::Lexer;
use crate::git_reference::parse_bool;
use crate::{Error, Input, Location, gopath};

const SCAN_CONTEXT: &str = "BUILDKIT_SBOM_SCAN_CONTEXT";
const SCAN_STAGE: &str = "BUILDKIT_SBOM_SCAN_STAGE";

/// Arguments that steer the builder and never become environment.
pub(super) const NOT_ENVIRONMENT: [&str; 2] = [SCAN_CONTEXT, SCAN_STAGE];

/// What an instruction is expanded with: the environment before it, and where remarks go.
pub(super) struct Scope {
    pub(super) number: usize,
    pub(super) place: Location,
    pub(super) lint: LintConfig,
}

impl Converter<'_> {
    /// Walks all stages that are needed, in the order of the Dockerfile.
    pub(super) fn walk_stages(
        &mut self,
        reachable: &BTreeSet<usize>,
        target: usize,
    ) -> Result<(), Error> {
        for number in reachable.iter().copied() {
            if self.stages[number].mark.dispatched {
                continue;
            }
            self.begin_stage(number)?;
            let commands = std::mem::take(&mut self.stages[number].commands);
            for planned in &commands {
                let place = &planned.command.location;
                self.dispatch(number, planned).map_err(|error| at(error, place))?;
            }
            self.stages[number].commands = commands;
            self.end_stage(number);
        }
        let first = self.first_of_chain(target);
        self.stages[first].paths.insert("/".to_owned());
        for state in &self.stages {
            self.draft.use_context(&state.context_paths);
            if let Some(local) = state.local {
                self.draft.use_local(local, &state.paths);
            }
        }
        Ok(())
    }

    /// Takes over what the base leaves, and what its config says.
    fn begin_stage(&mut self, number: usize) -> Result<(), Error> {
        if let Some(base) = self.stages[number].base {
            let from = &self.stages[base];
            let (output, platform, image, base_image) =
                (from.output, from.platform.clone(), from.image.clone(), from.base_image.clone());
            let (args, workdir_set) = (from.args.clone(), from.mark.workdir_set);
            let (env, directory, user) =
                (from.env.clone(), from.directory.clone(), from.user.clone());
            let state = &mut self.stages[number];
            (state.output, state.platform, state.image, state.base_image) =
                (output, platform, image, base_image);
            (state.env, state.directory, state.user) = (env, directory, user);
            state.image.config.on_build = None;
            state.args = args;
            state.mark.workdir_set = workdir_set;
        }
        let target = self.target.clone();
        let state = &mut self.stages[number];
        state.mark.dispatched = true;
        state.platform.get_or_insert(target);
        // It tells of the base's own making.
        state.image.comment.clear();
        let classic = self.request.options.dialect == Dialect::Classic;
        if classic && state.stage.base == "scratch" {
            // COMPAT: an image that the classic builder makes of nothing has no directory.
            state.image.config.working_dir.clear();
        }
        let lines = state.image.config.env.get_or_insert_default();
        if !lines.iter().any(|line| env::split(line).0 == "PATH") {
            lines.push(format!("PATH={DEFAULT_PATH}"));
        }
        for line in lines.iter() {
            let (name, value) = env::split(line);
            state.env.set(name, value);
        }
        if !state.image.config.working_dir.is_empty() {
            let directory = gopath::join("/", &state.image.config.working_dir);
            state.image.config.working_dir.clone_from(&directory);
            state.directory = directory;
        }
        state.user.clone_from(&state.image.config.user);
        if self.request.options.dialect == Dialect::Classic {
            let text = self.stages[number].stage.code.clone();
            self.note_step(number, text, false);
        }
        Ok(())
    }

    fn end_stage(&mut self, number: usize) {
        let globals = &self.globals.env;
        let state = &mut self.stages[number];
        let enabled = |name: &str| {
            let own = state.args.iter().rev().find(|(arg, value)| arg == name && value.is_some());
            let value = own.and_then(|(_, value)| value.as_deref()).or_else(|| globals.get(name));
            let Some(value) = value else { return false };
            parse_bool(value).unwrap_or_else(|| value.split(',').any(|stage| stage == state.label))
        };
        let (context, stage) = (enabled(SCAN_CONTEXT), enabled(SCAN_STAGE));
        state.scan_context = context;
        state.scan_stage = stage;
    }

    fn dispatch(&mut self, number: usize, planned: &Planned) -> Result<(), Error> {
        let Command { instruction, comments, location, code, .. } = &planned.command;
        self.stages[number].progress.on_build = planned.on_build;
        let scope =
            Scope { number, place: location.clone(), lint: self.linter.config.scoped(comments) };
        match instruction {
            Instruction::Env(pairs) => self.env(&scope, pairs),
            Instruction::Label(pairs) => self.label(&scope, pairs),
            Instruction::Maintainer(author) => {
                self.stages[number].image.author.clone_from(author);
                self.commit(number, &format!("MAINTAINER {author}"), Layer::None);
                Ok(())
            }
            Instruction::Add(copy) | Instruction::Copy(copy) => {
                let adds = matches!(instruction, Instruction::Add(_));
                self.copy(&scope, copy, adds, planned)
            }
            Instruction::OnBuild(trigger) => {
                let list = &mut self.stages[number].image.config.on_build;
                list.get_or_insert_default().push(trigger.clone());
                // COMPAT: only the classic builder tells of it.
                if self.request.options.dialect == Dialect::Classic {
                    self.commit(number, &format!("ONBUILD {trigger}"), Layer::None);
                }
                Ok(())
            }
            Instruction::Workdir(path) => self.workdir(&scope, path, code),
            Instruction::Run(run) => self.run_step(&scope, run, planned),
            Instruction::Cmd(line) => {
                self.cmd(&scope, line, &planned.command.keyword);
                Ok(())
            }
            Instruction::Entrypoint(line) => {
                self.entrypoint(&scope, line, &planned.command.keyword);
                Ok(())
            }
            Instruction::Healthcheck(health) => {
                self.healthcheck(&scope, health, &planned.command.keyword);
                Ok(())
            }
            Instruction::Expose(ports) => self.expose(&scope, ports),
            Instruction::User(user) => {
                let user = self.expand(&scope, user)?;
                let state = &mut self.stages[number];
                state.user.clone_from(&user);
                state.image.config.user.clone_from(&user);
                self.commit(number, &format!("USER {user}"), Layer::None);
                Ok(())
            }
            Instruction::Volume(paths) => self.volume(&scope, paths),
            Instruction::StopSignal(signal) => self.stop_signal(&scope, signal),
            Instruction::Arg(args) => self.arg(&scope, args),
            Instruction::Shell(shell) => {
                self.stages[number].image.config.shell = Some(shell.clone());
                let text = format!("SHELL {}", super::label::go_list(shell));
                self.commit(number, &text, Layer::None);
                Ok(())
            }
        }?;
        if self.request.options.dialect == Dialect::Classic {
            self.note_step(number, code.clone(), planned.on_build);
        }
        Ok(())
    }

    fn note_step(&mut self, number: usize, text: String, on_build: bool) {
        let state = &self.stages[number];
        let (output, document) = (state.output, state.image.clone());
        self.steps.push(StepText { text, output, document, on_build });
    }

    /// Replaces variables with what they are before the instruction.
    pub(super) fn expand(&mut self, scope: &Scope, text: &str) -> Result<String, Error> {
        let lexer = self.lexer;
        self.expand_with(scope, lexer, text).map(|(text, _)| text)
    }

    /// Like [`Self::expand`]; returns the words as well.
    pub(super) fn expand_with(
        &mut self,
        scope: &Scope,
        lexer: Lexer,
        text: &str,
    ) -> Result<(String, Vec<String>), Error> {
        let state = &self.stages[scope.number];
        let env = &state.env;
        let done = lexer.expand(text, &|name| env.get(name).map(str::to_owned)).map_err(invalid)?;
        let is_arg = |name: &str| state.args.iter().any(|(arg, _)| arg == name);
        let messages: Vec<String> = done
            .unset
            .iter()
            .filter(|name| !is_arg(name) && !NOT_ENVIRONMENT.contains(&&***name))
            .map(|name| {
                let hint = did_you_mean(name, env.names(), false).replace("mean ", "mean $");
                format!("Usage of undefined variable '${name}'{hint}")
            })
            .collect();
        for message in messages {
            self.linter.report(&scope.lint, Rule::UndefinedVar, &scope.place, message);
        }
        Ok((done.text, done.words))
    }

    /// The text of an instruction as people see it: variables replaced, as far as that works.
    pub(super) fn shown(text: &str, env: &Env, lexer: Lexer) -> String {
        let done = lexer.expand(text, &|name| env.get(name).map(str::to_owned));
        super::label::upper_first(&done.map_or_else(|_| text.to_owned(), |done| done.text))
    }

    /// A path as an instruction means it: relative ones start at the working directory. A `/` at the end stays.
    pub(super) fn in_workdir(&self, number: usize, path: &str) -> String {
        let directory = match &*self.stages[number].directory {
            "" => "/",
            directory => directory,
        };
        let joined = match path {
            path if path.starts_with('/') => gopath::clean(path),
            path => gopath::join("/", &format!("{directory}/{path}")),
        };
        let is_directory = path.is_empty() || path == "." || path.ends_with('/');
        if is_directory && joined != "/" { format!("{joined}/") } else { joined }
    }

    /// Notes that paths of another stage are used.
    pub(super) fn use_paths(&mut self, stage: usize, paths: impl IntoIterator<Item = String>) {
        let first = self.first_of_chain(stage);
        self.stages[first].paths.extend(paths);
    }

    /// The state of a stage that files are taken from.
    pub(super) fn state_of(&self, stage: usize) -> Option<Input> {
        let state = &self.stages[stage];
        state.mark.dispatched.then_some(state.output)
    }
}

/// A path of a source as it is counted: absolute and clean.
pub(super) fn counted(path: &str) -> String {
    gopath::clean(&format!("/{path}"))
}
