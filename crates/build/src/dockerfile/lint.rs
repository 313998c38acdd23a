//! Build checks: the rules, and which of them are on.
//!
//! Names, descriptions and texts are those of Docker's: tools know them.

use super::Warning;
use super::directive::Directives;
use crate::Location;
use crate::git_reference::parse_bool;

macro_rules! rules {
    ($($name:ident $slug:literal $description:literal,)*) => {
        /// A rule of the build checks.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Rule {
            $(#[doc = $description] $name,)*
        }

        impl Rule {
            /// All rules.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// Its name.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$name => stringify!($name),)* }
            }

            /// What it is about.
            pub const fn description(self) -> &'static str {
                match self { $(Self::$name => $description,)* }
            }

            const fn slug(self) -> &'static str {
                match self { $(Self::$name => $slug,)* }
            }
        }
    };
}

rules! {
    StageNameCasing "stage-name-casing" "Stage names should be lowercase",
    FromAsCasing "from-as-casing" "The 'as' keyword should match the case of the 'from' keyword",
    NoEmptyContinuation "no-empty-continuation" "Empty continuation lines will become errors in a future release",
    ConsistentInstructionCasing "consistent-instruction-casing" "All commands within the Dockerfile should use the same casing (either upper or lower)",
    DuplicateStageName "duplicate-stage-name" "Stage names should be unique",
    ReservedStageName "reserved-stage-name" "Reserved words should not be used as stage names",
    JSONArgsRecommended "json-args-recommended" "JSON arguments recommended for ENTRYPOINT/CMD to prevent unintended behavior related to OS signals",
    MaintainerDeprecated "maintainer-deprecated" "The MAINTAINER instruction is deprecated, use a label instead to define an image author",
    UndefinedArgInFrom "undefined-arg-in-from" "FROM command must use declared ARGs",
    WorkdirRelativePath "workdir-relative-path" "Relative workdir without an absolute workdir declared within the build can have unexpected results if the base image changes",
    UndefinedVar "undefined-var" "Variables should be defined before their use",
    MultipleInstructionsDisallowed "multiple-instructions-disallowed" "Multiple instructions of the same type should not be used in the same stage",
    LegacyKeyValueFormat "legacy-key-value-format" "Legacy key/value format with whitespace separator should not be used",
    InvalidBaseImagePlatform "" "Base image platform does not match expected target platform",
    RedundantTargetPlatform "redundant-target-platform" "Setting platform to predefined $TARGETPLATFORM in FROM is redundant as this is the default behavior",
    SecretsUsedInArgOrEnv "secrets-used-in-arg-or-env" "Sensitive data should not be used in the ARG or ENV commands",
    InvalidDefaultArgInFrom "invalid-default-arg-in-from" "Default value for global ARG results in an empty or invalid base image name",
    FromPlatformFlagConstDisallowed "from-platform-flag-const-disallowed" "FROM --platform flag should not use a constant value",
    CopyIgnoredFile "copy-ignored-file" "Attempting to Copy file that is excluded by .dockerignore",
    InvalidDefinitionDescription "invalid-definition-description" "Comment for build stage or argument should follow the format: `# <arg/stage name> <description>`. If this is not intended to be a description comment, add an empty line or comment between the instruction and the comment.",
    ExposeProtoCasing "expose-proto-casing" "Protocol in EXPOSE instruction should be lowercase",
    ExposeInvalidFormat "expose-invalid-format" "IP address and host-port mapping should not be used in EXPOSE instruction. This will become an error in a future release",
}

impl Rule {
    /// Where to read on; empty when there is nothing.
    pub fn url(self) -> String {
        match self.slug() {
            "" => String::new(),
            slug => format!("https://docs.docker.com/go/dockerfile/rule/{slug}/"),
        }
    }

    /// Only checked when it is asked for.
    pub const fn is_experimental(self) -> bool {
        matches!(self, Self::InvalidDefinitionDescription)
    }
}

/// Which rules are on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct LintConfig {
    skip_all: bool,
    skip: Vec<String>,
    experimental_all: bool,
    experimental: Vec<String>,
    /// A rule that fires fails the build.
    error: bool,
}

impl LintConfig {
    /// Reads `skip=A,B;error=true;experimental=all`.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let mut config = Self::default();
        if text.trim().is_empty() {
            return Ok(config);
        }
        let list = |value: &str| value.split(',').map(|rule| rule.trim().to_owned()).collect();
        for part in text.trim().splitn(3, ';') {
            let (key, value) =
                part.split_once('=').ok_or_else(|| format!("invalid check option {part:?}"))?;
            match (key.trim(), value.trim()) {
                ("skip", "all") => config.skip_all = true,
                ("skip", rules) => config.skip = list(rules),
                ("experimental", "all") => config.experimental_all = true,
                ("experimental", rules) => config.experimental = list(rules),
                ("error", value) => {
                    config.error = parse_bool(value).ok_or_else(|| {
                        format!("failed to parse check option {part:?}: invalid syntax")
                    })?;
                }
                (key, _) => return Err(format!("invalid check option {key:?}")),
            }
        }
        Ok(config)
    }

    /// Adds what a `# check=` comment right above an instruction says.
    pub(super) fn scoped(&self, comments: &[String]) -> Self {
        let mut scoped = self.clone();
        let found = comments.iter().find_map(|comment| match Directives::new("").line(comment) {
            Ok(Some(("check", value))) => Some(value.split(' ').next().unwrap_or_default()),
            _ => None,
        });
        if let Some(Ok(more)) = found.map(Self::parse) {
            scoped.skip_all |= more.skip_all;
            scoped.experimental_all |= more.experimental_all;
            scoped.skip.extend(more.skip);
            scoped.experimental.extend(more.experimental);
        }
        scoped
    }

    fn is_on(&self, rule: Rule) -> bool {
        let named = |list: &[String]| list.iter().any(|name| name == rule.name());
        match rule.is_experimental() {
            true => self.experimental_all || named(&self.experimental),
            false => !self.skip_all && !named(&self.skip),
        }
    }
}

/// Collects what was found.
#[derive(Clone, Debug, Default)]
pub(super) struct Linter {
    pub(super) config: LintConfig,
    pub(super) found: Vec<Warning>,
}

impl Linter {
    /// Notes that a rule fired, when `scope` has it on. What was found before at the same place is not repeated: a
    /// Dockerfile is walked once per platform.
    pub(super) fn report(
        &mut self,
        scope: &LintConfig,
        rule: Rule,
        place: &Location,
        message: String,
    ) {
        let warning = Warning {
            rule: rule.name().to_owned(),
            description: rule.description().to_owned(),
            url: rule.url(),
            message,
            location: Some(place.clone()),
        };
        if scope.is_on(rule) && !self.found.contains(&warning) {
            self.found.push(warning);
        }
    }

    /// Fails when rules fired and the Dockerfile wants that to be an error.
    pub(super) fn verdict(&self) -> Result<(), String> {
        if !self.config.error || self.found.is_empty() {
            return Ok(());
        }
        let mut rules: Vec<&str> = self.found.iter().map(|warning| &*warning.rule).collect();
        rules.sort_unstable();
        rules.dedup();
        Err(format!("lint violation found for rules: {}", rules.join(", ")))
    }
}

/// Tells whether a variable's name says that it holds a secret.
pub(super) fn names_a_secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    let has = |words: &[&str]| name.split('_').any(|part| words.contains(&part));
    has(&[
        "apikey",
        "auth",
        "credential",
        "credentials",
        "key",
        "password",
        "pword",
        "passwd",
        "secret",
        "token",
    ]) && !has(&["public", "file", "version"])
}

#[cfg(test)]
mod tests;
