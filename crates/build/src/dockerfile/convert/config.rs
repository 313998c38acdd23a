//! Instructions that change the config of the image, and `WORKDIR`.

use rorqual_content::HealthConfig;
use rorqual_core::{Signal, units};

use super::Converter;
use super::dispatch::{NOT_ENVIRONMENT, Scope};
use super::env;
use super::label::{Layer, go_list, go_quoted_char, go_quoted_list, shell_of};
use super::stage::ArgRecord;
use crate::dockerfile::Dialect;
use crate::dockerfile::fault::invalid;
use crate::dockerfile::instruction::{ArgDefinition, CommandLine, Pair};
use crate::dockerfile::lint::{Rule, names_a_secret};
use crate::{Error, FileAction, FileOp, FileOwner, Location, Op, Vertex, gopath};

impl Converter<'_> {
    /// Expands names and values; all see the environment as it was before.
    fn pairs(&mut self, scope: &Scope, keyword: &str, pairs: &[Pair]) -> Result<Vec<Pair>, Error> {
        let mut expanded = Vec::with_capacity(pairs.len());
        for pair in pairs {
            expanded.push(Pair {
                name: self.expand(scope, &pair.name)?,
                value: self.expand(scope, &pair.value)?,
                legacy: pair.legacy,
            });
            if pair.legacy {
                let message = format!(
                    "\"{keyword} key=value\" should be used instead of legacy \"{keyword} key value\" format"
                );
                self.linter.report(&scope.lint, Rule::LegacyKeyValueFormat, &scope.place, message);
            }
        }
        Ok(expanded)
    }

    pub(super) fn env(&mut self, scope: &Scope, pairs: &[Pair]) -> Result<(), Error> {
        let mut text = "ENV".to_owned();
        for Pair { name, value, .. } in self.pairs(scope, "ENV", pairs)? {
            self.check_secret(scope, "ENV", &name);
            text.push_str(&format!(" {name}={value}"));
            let state = &mut self.stages[scope.number];
            state.env.set(&name, &value);
            env::set_line(state.image.config.env.get_or_insert_default(), &name, &value);
        }
        self.commit(scope.number, &text, Layer::None);
        Ok(())
    }

    fn check_secret(&mut self, scope: &Scope, keyword: &str, name: &str) {
        if names_a_secret(name) {
            let message = format!(
                "Do not use ARG or ENV instructions for sensitive data ({keyword} {name:?})"
            );
            self.linter.report(&scope.lint, Rule::SecretsUsedInArgOrEnv, &scope.place, message);
        }
    }

    pub(super) fn label(&mut self, scope: &Scope, pairs: &[Pair]) -> Result<(), Error> {
        let mut text = "LABEL".to_owned();
        for Pair { name, value, .. } in self.pairs(scope, "LABEL", pairs)? {
            text.push_str(&format!(" {name}={value}"));
            let labels = &mut self.stages[scope.number].image.config.labels;
            labels.get_or_insert_default().insert(name, value);
        }
        self.commit(scope.number, &text, Layer::None);
        Ok(())
    }

    pub(super) fn workdir(&mut self, scope: &Scope, path: &str, code: &str) -> Result<(), Error> {
        let number = scope.number;
        let path = self.expand(scope, path)?;
        if !self.stages[number].mark.workdir_set && !path.starts_with('/') {
            let message = format!(
                "Relative workdir {path:?} can have unexpected results if the base image changes"
            );
            self.linter.report(&scope.lint, Rule::WorkdirRelativePath, &scope.place, message);
        }
        let classic = self.request.options.dialect == Dialect::Classic;
        let state = &mut self.stages[number];
        state.mark.workdir_set = true;
        let directory = match path.starts_with('/') {
            true => gopath::clean(&path),
            false => gopath::join("/", &format!("{}/{path}", state.image.config.working_dir)),
        };
        state.image.config.working_dir.clone_from(&directory);
        state.directory.clone_from(&directory);
        if directory == "/" {
            self.commit(number, "WORKDIR /", Layer::None);
            return Ok(());
        }
        let owner = match &*state.image.config.user {
            // COMPAT: the classic builder makes directories as root whatever `USER` says.
            _ if classic => FileOwner::Keep,
            "" => FileOwner::Keep,
            user => FileOwner::Named(user.to_owned()),
        };
        let make =
            FileAction::MakeDir { path: directory.clone(), mode: 0o755, parents: true, owner };
        let op = Op::File(FileOp { base: state.output, actions: vec![make] });
        self.stages[number].output = self.step(scope, op, code, false)?;
        self.commit(number, &format!("WORKDIR {directory}"), Layer::Directory);
        Ok(())
    }

    /// Adds the vertex of an instruction, with its number and its text.
    pub(super) fn step(
        &mut self,
        scope: &Scope,
        op: Op,
        code: &str,
        may_ignore_cache: bool,
    ) -> Result<crate::Input, Error> {
        let state = &self.stages[scope.number];
        let platform = state.platform.clone().unwrap_or_else(|| self.target.clone());
        let env = state.env.clone();
        let ignore_cache = may_ignore_cache && state.mark.ignore_cache;
        let text = Self::shown(code, &env, self.lexer);
        let name = self.numbered(scope.number, &text, &platform, Some(&env));
        let location = Some(scope.place.clone());
        self.draft.add(Vertex { op, name, platform, ignore_cache, location })
    }

    /// Puts the shell before a text; remarks when it is the default one.
    fn with_shell(&mut self, scope: &Scope, line: &CommandLine, keyword: &str) -> Vec<String> {
        if !line.shell {
            return line.args.clone();
        }
        let image = &self.stages[scope.number].image;
        let mut args = shell_of(image);
        args.push(line.args.join(" "));
        if image.config.shell.as_ref().is_none_or(Vec::is_empty) {
            let message = format!(
                "JSON arguments recommended for {keyword} to prevent unintended behavior related to OS signals"
            );
            self.linter.report(&scope.lint, Rule::JSONArgsRecommended, &scope.place, message);
        }
        args
    }

    fn check_once(&mut self, scope: &Scope, earlier: Option<Location>, keyword: &str) {
        // The earlier one is the one without effect.
        if let Some(place) = earlier {
            let message = format!(
                "Multiple {keyword} instructions should not be used in the same stage because only the last one will be used"
            );
            self.linter.report(&scope.lint, Rule::MultipleInstructionsDisallowed, &place, message);
        }
    }

    pub(super) fn cmd(&mut self, scope: &Scope, line: &CommandLine, keyword: &str) {
        let earlier = self.stages[scope.number].last.cmd.replace(scope.place.clone());
        self.check_once(scope, earlier, keyword);
        let args = self.with_shell(scope, line, keyword);
        let text = format!("CMD {}", go_quoted_list(&args));
        let config = &mut self.stages[scope.number].image.config;
        config.cmd = Some(args);
        config.args_escaped = self.request.options.dialect == Dialect::BuildKit;
        self.commit(scope.number, &text, Layer::None);
    }

    pub(super) fn entrypoint(&mut self, scope: &Scope, line: &CommandLine, keyword: &str) {
        let earlier = self.stages[scope.number].last.entrypoint.replace(scope.place.clone());
        self.check_once(scope, earlier, keyword);
        let args = self.with_shell(scope, line, keyword);
        let text = format!("ENTRYPOINT {}", go_quoted_list(&args));
        let state = &mut self.stages[scope.number];
        state.image.config.entrypoint = (!args.is_empty()).then_some(args);
        if state.last.cmd.is_none() {
            state.image.config.cmd = None;
        }
        self.commit(scope.number, &text, Layer::None);
    }

    pub(super) fn healthcheck(&mut self, scope: &Scope, health: &HealthConfig, keyword: &str) {
        let earlier = self.stages[scope.number].last.healthcheck.replace(scope.place.clone());
        self.check_once(scope, earlier, keyword);
        let duration = |nanos: i64| {
            units::go_duration(std::time::Duration::from_nanos(u64::try_from(nanos).unwrap_or(0)))
        };
        let times = [health.interval, health.timeout, health.start_period, health.start_interval]
            .map(duration);
        // COMPAT: Go's `%q` of a pointer to the whole, numbers as characters; `%v` in the classic builder.
        let text = if self.request.options.dialect == Dialect::Classic {
            let (test, retries) = (go_list(&health.test), health.retries);
            format!("HEALTHCHECK &{{{test} {} {retries}}}", times.join(" "))
        } else {
            let (test, retries) = (go_quoted_list(&health.test), go_quoted_char(health.retries));
            format!(
                "HEALTHCHECK &{{{test} {} {retries}}}",
                times.map(|time| format!("{time:?}")).join(" ")
            )
        };
        self.stages[scope.number].image.config.healthcheck = Some(health.clone());
        self.commit(scope.number, &text, Layer::None);
    }

    pub(super) fn volume(&mut self, scope: &Scope, paths: &[String]) -> Result<(), Error> {
        let mut expanded = Vec::with_capacity(paths.len());
        for path in paths {
            let path = self.expand(scope, path)?;
            if path.is_empty() {
                return Err(invalid("VOLUME specified can not be an empty string"));
            }
            let volumes = &mut self.stages[scope.number].image.config.volumes;
            volumes.get_or_insert_default().insert(path.clone(), serde_json::Map::new());
            expanded.push(path);
        }
        self.commit(scope.number, &format!("VOLUME {}", go_list(&expanded)), Layer::None);
        Ok(())
    }

    pub(super) fn stop_signal(&mut self, scope: &Scope, signal: &str) -> Result<(), Error> {
        let signal = self.expand(scope, signal)?;
        if signal.parse::<Signal>().is_err() {
            return Err(invalid(format!("invalid signal: {signal}")));
        }
        self.stages[scope.number].image.config.stop_signal.clone_from(&signal);
        self.commit(scope.number, &format!("STOPSIGNAL {signal}"), Layer::None);
        Ok(())
    }

    pub(super) fn arg(&mut self, scope: &Scope, args: &[ArgDefinition]) -> Result<(), Error> {
        let mut texts = Vec::with_capacity(args.len());
        for arg in args {
            self.check_secret(scope, "ARG", &arg.name);
            let given = self.request.options.build_args.get(&arg.name).cloned();
            let inherited = match arg.value {
                None if given.is_none() => self.globals.env.get(&arg.name).map(str::to_owned),
                _ => None,
            };
            let takes_over = inherited.is_some();
            let classic = self.request.options.dialect == Dialect::Classic;
            // COMPAT: the classic builder's history tells what the instruction says, not what was given.
            let default = match &arg.value {
                Some(default) if classic || given.is_none() => Some(self.expand(scope, default)?),
                _ => None,
            };
            let value = given.or_else(|| default.clone()).or(inherited);
            let state = &mut self.stages[scope.number];
            if let Some(value) = &value {
                // COMPAT: in the classic builder `ENV` wins over `ARG` wherever it stands.
                let lines = state.image.config.env.iter().flatten();
                let is_env = lines.into_iter().any(|line| env::split(line).0 == arg.name);
                let hidden = NOT_ENVIRONMENT.contains(&&*arg.name) || (classic && is_env);
                if !hidden {
                    state.env.set(&arg.name, value);
                }
            }
            if !takes_over {
                let record = ArgRecord {
                    definition: arg.clone(),
                    value: value.clone().unwrap_or_default(),
                    needs: std::collections::BTreeSet::new(),
                    location: scope.place.clone(),
                };
                state.outline.args.insert(arg.name.clone(), record);
            }
            state.outline.used.insert(arg.name.clone());
            texts.push(match if classic { &default } else { &value } {
                Some(value) => format!("{}={value}", arg.name),
                None => arg.name.clone(),
            });
            state.args.push((arg.name.clone(), value));
        }
        self.commit(scope.number, &format!("ARG {}", texts.join(" ")), Layer::None);
        Ok(())
    }
}
