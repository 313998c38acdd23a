//! Arguments outside stages: those that every build has, and those before the first `FROM`.

use std::collections::{BTreeMap, BTreeSet};

use super::Converter;
use super::env::Env;
use super::stage::ArgRecord;
use crate::Error;
use crate::dockerfile::fault::{at, invalid};
use crate::dockerfile::instruction::Document;
use crate::dockerfile::lint::Rule;
use crate::dockerfile::{Dialect, platform};

/// Values that `FROM` lines see, and that `ARG` brings into a stage.
#[derive(Clone, Debug, Default)]
pub(super) struct Globals {
    pub(super) env: Env,
    pub(super) records: BTreeMap<String, ArgRecord>,
}

impl Converter<'_> {
    /// Reads the arguments before the first stage, and checks what base images would be with their defaults alone.
    pub(super) fn read_globals(&mut self, document: &Document) -> Result<(), Error> {
        let defaults = self.default_args(document);
        if let Ok(plain) = self.global_args(document, defaults.clone(), &BTreeMap::new()) {
            self.check_default_bases(document, &plain.env);
        }
        let given = &self.request.options.build_args;
        self.globals = self.global_args(document, defaults, given)?;
        let given = given.get("SOURCE_DATE_EPOCH").map(String::as_str);
        let text = given.or_else(|| self.globals.env.get("SOURCE_DATE_EPOCH")).unwrap_or_default();
        if !text.is_empty() {
            let seconds = text.parse::<i64>();
            let seconds =
                seconds.map_err(|_| invalid(format!("invalid SOURCE_DATE_EPOCH: {text}")))?;
            self.epoch = Some(seconds);
        }
        Ok(())
    }

    /// Platform arguments. The classic builder has none.
    fn default_args(&self, document: &Document) -> Env {
        let mut env = Env::default();
        if self.request.options.dialect == Dialect::Classic {
            return env;
        }
        let asked = &*self.request.options.target;
        let last = document.stages.last().map_or("", |stage| &*stage.name);
        let stage = if asked.is_empty() { last } else { asked };
        let short = |platform: &rorqual_core::Platform| platform.to_string();
        let (build, target) = (&self.build, &self.target);
        for (name, value) in [
            ("BUILDPLATFORM", short(build)),
            ("BUILDOS", build.os.clone()),
            ("BUILDOSVERSION", String::new()),
            ("BUILDARCH", build.architecture.clone()),
            ("BUILDVARIANT", build.variant.clone()),
            ("TARGETPLATFORM", short(target)),
            ("TARGETOS", target.os.clone()),
            ("TARGETOSVERSION", String::new()),
            ("TARGETARCH", target.architecture.clone()),
            ("TARGETVARIANT", target.variant.clone()),
            ("TARGETSTAGE", if stage.is_empty() { "default" } else { stage }.to_owned()),
        ] {
            env.set(name, self.request.options.build_args.get(name).unwrap_or(&value));
        }
        env
    }

    fn global_args(
        &self,
        document: &Document,
        env: Env,
        given: &BTreeMap<String, String>,
    ) -> Result<Globals, Error> {
        let mut globals = Globals { env, records: BTreeMap::new() };
        for (args, place) in &document.global_args {
            for arg in args {
                let mut record = ArgRecord {
                    definition: arg.clone(),
                    value: String::new(),
                    needs: BTreeSet::new(),
                    location: place.clone(),
                };
                let value = match (given.get(&arg.name), &arg.value) {
                    (Some(given), _) => Some(given.clone()),
                    (None, None) => None,
                    (None, Some(default)) => {
                        let env = &globals.env;
                        let known = |name: &str| env.get(name).map(str::to_owned);
                        let expanded = self.lexer.expand(default, &known);
                        let expanded = expanded.map_err(|why| at(invalid(why), place))?;
                        record.needs = expanded.used;
                        // A default that names itself needs what the earlier one needed.
                        if record.needs.remove(&arg.name)
                            && let Some(earlier) = globals.records.get(&arg.name)
                        {
                            record.needs.extend(earlier.needs.iter().cloned());
                        }
                        Some(expanded.text)
                    }
                };
                if let Some(value) = value {
                    globals.env.set(&arg.name, &value);
                    record.value = value;
                }
                globals.records.insert(arg.name.clone(), record);
            }
        }
        Ok(globals)
    }

    fn check_default_bases(&mut self, document: &Document, env: &Env) {
        let known = |name: &str| env.get(name).map(str::to_owned);
        let scope = self.linter.config.clone();
        for stage in &document.stages {
            let Ok(base) = self.lexer.expand(&stage.base, &known) else { return };
            let valid =
                base.text == "scratch" || base.text.parse::<rorqual_core::Reference>().is_ok();
            if !valid {
                let message = format!(
                    "Default value for ARG {} results in empty or invalid base image name",
                    stage.base
                );
                self.linter.report(&scope, Rule::InvalidDefaultArgInFrom, &stage.location, message);
            }
        }
    }

    /// Reads the platform of a `FROM` line.
    pub(super) fn parse_platform(text: &str, shown: &str) -> Result<rorqual_core::Platform, Error> {
        let parsed = text.parse::<rorqual_core::Platform>();
        parsed
            .map(platform::normal)
            .map_err(|why| invalid(format!("failed to parse platform {shown}: {why}")))
    }
}
