//! SELinux: contexts as text, and which a container gets. Pure; where the kernel has it is for others to find out.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A security context, `user:role:type[:level]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Context {
    user: String,
    role: String,
    kind: String,
    /// Sensitivity and categories; empty where the policy has none.
    level: String,
}

/// What is no security context.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid SELinux context {0:?}")]
pub struct InvalidContext(String);

impl FromStr for Context {
    type Err = InvalidContext;

    fn from_str(text: &str) -> Result<Self, InvalidContext> {
        let invalid = || InvalidContext(text.to_owned());
        // The level has colons of its own.
        let mut parts = text.splitn(4, ':').map(str::to_owned);
        let mut part = || parts.next().filter(|part| is_word(part)).ok_or_else(invalid);
        let (user, role, kind) = (part()?, part()?, part()?);
        let level = parts.next().unwrap_or_default();
        if level.chars().any(|letter| letter.is_control() || letter == '"') {
            return Err(invalid());
        }
        Ok(Self { user, role, kind, level })
    }
}

fn is_word(text: &str) -> bool {
    let allowed = |letter: char| letter.is_ascii_alphanumeric() || "_-.".contains(letter);
    !text.is_empty() && text.chars().all(allowed)
}

impl fmt::Display for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.user, self.role, self.kind)?;
        if self.level.is_empty() { Ok(()) } else { write!(f, ":{}", self.level) }
    }
}

/// The contexts that a policy has for containers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contexts {
    process: Context,
    file: Context,
}

impl Contexts {
    /// Reads a policy's `lxc_contexts`: lines of the form `key = "context"`.
    ///
    /// `None` when it does not name both.
    pub fn parse(text: &str) -> Option<Self> {
        let find = |wanted: &str| {
            text.lines().find_map(|line| {
                let (key, value) = line.split_once('=')?;
                let value = value.trim().trim_matches('"');
                (key.trim() == wanted).then(|| value.parse().ok())?
            })
        };
        Some(Self { process: find("process")?, file: find("file")? })
    }

    /// Tells whether the policy tells containers apart by categories.
    pub const fn has_levels(&self) -> bool {
        !self.process.level.is_empty()
    }
}

/// What a container's processes and files are labelled with; empty for nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Labels {
    /// Of its processes.
    pub process: String,
    /// Of its files.
    pub mount: String,
}

impl Labels {
    /// Tells whether there is nothing to label with.
    pub const fn is_empty(&self) -> bool {
        self.process.is_empty() && self.mount.is_empty()
    }

    /// Returns the label of files that several containers use: without categories.
    pub fn shared(&self) -> String {
        self.mount.parse().map_or_else(
            |_| self.mount.clone(),
            |context: Context| {
                let level = if context.level.is_empty() { "" } else { "s0" };
                Context { level: level.to_owned(), ..context }.to_string()
            },
        )
    }

    /// Returns the options that give another container the same label.
    pub fn options(&self) -> Vec<String> {
        let Ok(context) = self.process.parse::<Context>() else { return Vec::new() };
        let Context { user, role, kind, level } = context;
        let mut options =
            vec![format!("user:{user}"), format!("role:{role}"), format!("type:{kind}")];
        if !level.is_empty() {
            options.push(format!("level:{level}"));
        }
        options
    }

    /// Returns the level of its processes; empty for none.
    pub fn level(&self) -> String {
        self.process.parse().map_or_else(|_| String::new(), |context: Context| context.level)
    }
}

/// Categories that no container gets: files of containers that are not confined have them.
const HIGHEST: &str = "s0:c1022,c1023";
/// Number of categories that pairs are made of, as every targeted policy has them.
const CATEGORIES: u32 = 1024;

/// Returns a level of two categories out of a number; equal numbers give equal levels.
pub fn level(seed: u64) -> String {
    // All pairs but those with the highest two: c0,c1 to c1020,c1021.
    let usable = u64::from(CATEGORIES - 2);
    let mut index = seed % (usable * (usable - 1) / 2);
    let mut low = 0;
    while index >= usable - 1 - low {
        index -= usable - 1 - low;
        low += 1;
    }
    format!("s0:c{low},c{}", low + 1 + index)
}

/// Checks the value of a `--security-opt label=…`.
pub fn check_option(option: &str) -> Result<(), String> {
    let known = match option.split_once(':') {
        None => option == "disable",
        Some(("level", value)) => {
            !value.is_empty() && !value.chars().any(|letter| letter.is_control() || letter == '"')
        }
        Some(("user" | "role" | "type" | "filetype", value)) => is_word(value),
        Some(_) => false,
    };
    if known {
        return Ok(());
    }
    // COMPAT: dockerd's text.
    Err(format!(
        "bad label option {option:?}, valid options 'disable' or \n'user, role, level, type, filetype' followed by ':' and a value"
    ))
}

/// Labels a container by its options, of which later ones have precedence; `level` is its own.
pub fn choose(contexts: &Contexts, options: &[String], level: &str) -> Result<Labels, String> {
    let (mut process, mut mount) = (contexts.process.clone(), contexts.file.clone());
    if contexts.has_levels() {
        level.clone_into(&mut process.level);
        level.clone_into(&mut mount.level);
    }
    for option in options {
        check_option(option)?;
        let Some((key, value)) = option.split_once(':') else {
            HIGHEST.clone_into(&mut mount.level);
            return Ok(Labels { process: String::new(), mount: mount.to_string() });
        };
        let value = value.to_owned();
        match key {
            "filetype" => mount.kind = value,
            "type" => process.kind = value,
            "role" => process.role = value,
            "user" => (process.user, mount.user) = (value.clone(), value),
            _ => (process.level, mount.level) = (value.clone(), value),
        }
    }
    Ok(Labels { process: process.to_string(), mount: mount.to_string() })
}

#[cfg(test)]
mod tests;
