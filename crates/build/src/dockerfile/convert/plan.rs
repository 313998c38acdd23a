//! Connecting stages: which starts from which, which takes files from which.

use std::collections::BTreeSet;

use rorqual_core::Platform;

use super::Converter;
use super::stage::{Planned, StageState};
use crate::dockerfile::fault::{at, closest, did_you_mean, invalid};
use crate::dockerfile::instruction::{Command, Document, Instruction, Stage, mount_from};
use crate::dockerfile::lint::{LintConfig, Rule};
use crate::dockerfile::shell::Expanded;
use crate::dockerfile::{Dialect, NoCache};
use crate::{Error, Location};

impl Converter<'_> {
    /// Makes the stages, with the values of global arguments in their `FROM` lines.
    pub(super) fn connect_stages(&mut self, document: &Document) -> Result<(), Error> {
        for (number, stage) in document.stages.iter().enumerate() {
            let place = &stage.location;
            let state = self.stage(number, stage).map_err(|error| at(error, place))?;
            self.add_stage(state);
        }
        Ok(())
    }

    fn stage(&mut self, number: usize, stage: &Stage) -> Result<StageState, Error> {
        let scope = self.linter.config.scoped(&stage.comments);
        let base = self.expand_global(&stage.base)?;
        self.check_from_args(&base, &stage.location, &scope);
        if base.text.is_empty() {
            return Err(invalid(format!("base name ({}) should not be blank", stage.base)));
        }
        let mut used = base.used;
        let mut state = StageState::new(Stage { base: base.text, ..stage.clone() });
        if !stage.platform.is_empty() {
            let (platform, names) = self.platform_of_stage(stage, &scope)?;
            used.extend(names);
            state.platform = Some(platform);
        }
        state.outline.args.clone_from(&self.globals.records);
        if stage.name.is_empty() {
            state.label = format!("stage-{number}");
        } else if let Some(context) = self.named_context(&stage.name, state.platform.as_ref())? {
            state.context = Some(context);
            return Ok(state);
        }
        state.outline.used = used;
        state.progress.total = steps_of(&state.stage);
        state.mark.ignore_cache = match &self.request.options.no_cache {
            NoCache::Never => false,
            NoCache::Always => true,
            NoCache::Stages(names) => {
                names.iter().any(|name| name.eq_ignore_ascii_case(&stage.name))
            }
        };
        Ok(state)
    }

    /// Appends a stage and finds the earlier one that it starts from.
    fn add_stage(&mut self, mut state: StageState) -> usize {
        let found = self.stage_named(&state.stage.base).filter(|_| state.context.is_none());
        if let Some(base) = found {
            let used = std::mem::take(&mut state.outline.used);
            state.base = Some(base);
            state.outline = self.stages[base].outline.clone();
            state.outline.used.extend(used);
        } else if state.stage.base != "scratch" && state.context.is_none() && !state.is_image {
            state.progress.total += 1;
        }
        self.stages.push(state);
        self.stages.len() - 1
    }

    /// The latest stage of a name.
    fn stage_named(&self, name: &str) -> Option<usize> {
        let named = |state: &StageState| {
            !state.stage.name.is_empty() && state.stage.name.eq_ignore_ascii_case(name)
        };
        self.stages.iter().rposition(named)
    }

    pub(super) fn expand_global(&self, text: &str) -> Result<Expanded, Error> {
        let env = &self.globals.env;
        self.lexer.expand(text, &|name| env.get(name).map(str::to_owned)).map_err(invalid)
    }

    fn platform_of_stage(
        &mut self,
        stage: &Stage,
        scope: &LintConfig,
    ) -> Result<(Platform, BTreeSet<String>), Error> {
        let place = &stage.location;
        let expanded = self.expand_global(&stage.platform)?;
        self.check_from_args(&expanded, place, scope);
        let target = self.globals.env.get("TARGETPLATFORM");
        let redundant = expanded.used.len() == 1
            && expanded.unset.is_empty()
            && expanded.used.contains("TARGETPLATFORM")
            && target == Some(&*expanded.text);
        if redundant {
            let message = format!(
                "Setting platform to predefined {} in FROM is redundant as this is the default behavior",
                stage.platform
            );
            self.linter.report(scope, Rule::RedundantTargetPlatform, place, message);
        }
        let hint = || {
            let names = || self.globals.env.names();
            expanded
                .unset
                .iter()
                .map(|name| did_you_mean(name, names(), false))
                .find(|hint| !hint.is_empty())
        };
        if expanded.text.is_empty() {
            let hint = hint().unwrap_or_default();
            return Err(invalid(format!(
                "empty platform value from expression {}{hint}",
                stage.platform
            )));
        }
        let platform = Self::parse_platform(&expanded.text, &stage.platform)?;
        let constant = expanded.used.is_empty() && expanded.unset.is_empty();
        if constant
            && !stage.name.contains(&platform.os)
            && !stage.name.contains(&platform.architecture)
        {
            let message =
                format!("FROM --platform flag should not use constant value {:?}", expanded.text);
            self.linter.report(scope, Rule::FromPlatformFlagConstDisallowed, place, message);
        }
        Ok((platform, expanded.used))
    }

    fn check_from_args(&mut self, expanded: &Expanded, place: &Location, scope: &LintConfig) {
        let records = self.globals.records.keys().map(String::as_str);
        let known: BTreeSet<&str> = self.globals.env.names().chain(records).collect();
        let unset = expanded.unset.iter().filter(|name| !known.contains(&***name));
        let messages: Vec<String> = unset
            .map(|name| {
                let hint = did_you_mean(name, known.iter().copied(), false);
                format!("FROM argument '{name}' is not declared{hint}")
            })
            .collect();
        for message in messages {
            self.linter.report(scope, Rule::UndefinedArgInFrom, place, message);
        }
    }

    pub(super) fn find_target(&self) -> Result<usize, Error> {
        let target = &*self.request.options.target;
        if target.is_empty() {
            return Ok(self.stages.len() - 1);
        }
        // COMPAT: the classic builder also takes the number of a stage.
        let numbered = target.parse::<usize>().ok().filter(|number| {
            self.request.options.dialect == Dialect::Classic && *number < self.stages.len()
        });
        self.stage_named(target).or(numbered).ok_or_else(|| {
            let names = self.stages.iter().map(|state| &*state.label);
            let hint = did_you_mean(target, names, false);
            invalid(format!("target stage {target:?} could not be found{hint}"))
        })
    }

    /// Finds the stages that instructions take files from.
    pub(super) fn connect_commands(&mut self) -> Result<(), Error> {
        let declared = self.stages.len();
        for number in 0..declared {
            let commands = std::mem::take(&mut self.stages[number].stage.commands);
            for command in commands {
                let planned = self.connect_command(number, command, false)?;
                self.stages[number].commands.push(planned);
            }
        }
        self.refuse_cycles()?;
        if self.stages.len() == 1 {
            self.stages[0].label.clear();
        }
        Ok(())
    }

    /// Finds the stages that one instruction takes files from, and notes that its stage needs them.
    pub(super) fn connect_command(
        &mut self,
        number: usize,
        command: Command,
        on_build: bool,
    ) -> Result<Planned, Error> {
        let place = command.location.clone();
        let fail = |why: String| at(invalid(why), &place);
        let mut sources = Vec::new();
        match &command.instruction {
            Instruction::Copy(copy) if !copy.from.is_empty() => {
                let plain = self.lexer.expand(&copy.from, &|_| None).map_err(fail)?;
                if plain.text != copy.from {
                    return Err(fail(
                        "variable expansion is not supported for --from, define a new stage with FROM using ARG from global scope as a workaround"
                            .to_owned(),
                    ));
                }
                let from = match copy.from.parse::<usize>() {
                    Ok(index) if index < self.stages.len() => index,
                    Ok(index) => return Err(fail(format!("invalid stage index {index}"))),
                    Err(_) => self.stage_or_image(&copy.from, &place),
                };
                sources.push(Some(from));
            }
            Instruction::Run(run) => {
                for mount in &run.mounts {
                    let from = mount_from(mount).map_err(fail)?;
                    let from = match &*from {
                        "" | "scratch" => None,
                        name => Some(self.stage_or_image(name, &place)),
                    };
                    sources.push(from);
                }
            }
            _ => {}
        }
        let needs = sources.iter().flatten().map(|source| (*source, place.clone()));
        self.stages[number].needs.extend(needs);
        Ok(Planned { command, sources, on_build })
    }

    fn stage_or_image(&mut self, name: &str, place: &Location) -> usize {
        if let Some(stage) = self.stage_named(name) {
            return stage;
        }
        let same = |state: &StageState| state.is_image && state.stage.base == name;
        if let Some(image) = self.stages.iter().position(same) {
            return image;
        }
        self.add_stage(StageState::image(name, place))
    }

    fn refuse_cycles(&self) -> Result<(), Error> {
        // 0: not seen; 1: on the way; 2: done.
        let mut seen = vec![0_u8; self.stages.len()];
        for start in 0..self.stages.len() {
            let mut path = vec![(start, 0)];
            while let Some((number, next)) = path.pop() {
                if next == 0 && seen[number] != 0 {
                    continue;
                }
                seen[number] = 1;
                let Some((need, place)) = self.stages[number].needs.get(next) else {
                    seen[number] = 2;
                    continue;
                };
                path.push((number, next + 1));
                match seen[*need] {
                    1 => {
                        let name = &self.stages[start].label;
                        let message = format!("circular dependency detected on stage: {name}");
                        return Err(at(invalid(message), place));
                    }
                    0 => path.push((*need, 0)),
                    _ => {}
                }
            }
        }
        Ok(())
    }

    /// Lists what a stage needs, itself included.
    pub(super) fn reachable_from(&self, target: usize) -> BTreeSet<usize> {
        let mut reached = BTreeSet::new();
        let mut open = vec![target];
        // COMPAT: the classic builder builds all stages up to the target.
        if self.request.options.dialect == Dialect::Classic {
            open.extend(0..target);
        }
        while let Some(number) = open.pop() {
            if reached.insert(number) {
                let state = &self.stages[number];
                open.extend(state.base);
                open.extend(state.needs.iter().map(|(need, _)| *need));
            }
        }
        reached
    }

    /// The name closest to one that was not found, for hints.
    pub(super) fn similar_base(&self, name: &str) -> Option<String> {
        let common = ["alpine", "busybox", "centos", "debian", "golang", "ubuntu", "fedora"];
        let stages = self.stages.iter().map(|state| &*state.label);
        closest(name, stages.filter(|label| !label.is_empty()).chain(common), false)
    }
}

fn steps_of(stage: &Stage) -> usize {
    let counted = |command: &&Command| {
        matches!(
            command.instruction,
            Instruction::Add(_)
                | Instruction::Copy(_)
                | Instruction::Run(_)
                | Instruction::Workdir(_)
        )
    };
    stage.commands.iter().filter(counted).count()
}
