//! Plugins of the command line: programs `docker-NAME` in well-known directories, each one more command.

use std::ffi::OsString;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command as Process, Stdio};

use rorqual_client::config::Config;
use serde_json::{Map, Value as Json};

use super::endpoint;
use crate::command;
use crate::failure::{Failure, Outcome, system_text};
use crate::flag::Matches;

const PREFIX: &str = "docker-";
const SYSTEM_DIRECTORIES: [&str; 4] = [
    "/usr/local/lib/docker/cli-plugins",
    "/usr/local/libexec/docker/cli-plugins",
    "/usr/lib/docker/cli-plugins",
    "/usr/libexec/docker/cli-plugins",
];
/// What a plugin is asked to describe itself.
const METADATA: &str = "docker-cli-plugin-metadata";

/// A plugin that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Plugin {
    /// Name of its command.
    pub(crate) name: String,
    /// The program.
    pub(crate) path: PathBuf,
}

/// Returns the directories in which plugins are searched, the first one first.
fn directories(config: &Config) -> Vec<PathBuf> {
    let mut all: Vec<PathBuf> = config.texts("cliPluginsExtraDirs").map(PathBuf::from).collect();
    all.push(config.directory().join("cli-plugins"));
    all.extend(SYSTEM_DIRECTORIES.map(PathBuf::from));
    all
}

fn is_valid_name(name: &str) -> bool {
    name.starts_with(|first: char| first.is_ascii_lowercase())
        && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
}

fn is_program(path: &Path) -> bool {
    std::fs::metadata(path)
        .is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
}

/// Finds the plugin of a name that no built-in command has.
pub(crate) fn find(config: &Config, name: &str) -> Option<Plugin> {
    if !is_valid_name(name) || command::ROOT.child(name).is_some() {
        return None;
    }
    let paths = directories(config).into_iter().map(|folder| folder.join(PREFIX.to_owned() + name));
    let path = paths.into_iter().find(|path| is_program(path))?;
    Some(Plugin { name: name.to_owned(), path })
}

/// Lists all plugins by name.
pub(crate) fn all(config: &Config) -> Vec<Plugin> {
    let mut names: Vec<String> = directories(config)
        .iter()
        .filter_map(|folder| std::fs::read_dir(folder).ok())
        .flat_map(Iterator::flatten)
        .filter_map(|entry| entry.file_name().to_str()?.strip_prefix(PREFIX).map(str::to_owned))
        .collect();
    names.sort();
    names.dedup();
    names.iter().filter_map(|name| find(config, name)).collect()
}

impl Plugin {
    /// Asks the plugin what it is.
    ///
    /// # Errors
    /// A text for the user when it is no plugin.
    pub(crate) fn metadata(&self) -> Result<Map<String, Json>, String> {
        let invalid = |why: String| format!("plugin {} is invalid: {why}", self.path.display());
        let asked = Process::new(&self.path).arg(METADATA).stdin(Stdio::null()).output();
        let output = asked.map_err(|error| invalid(system_text(&error)))?;
        if !output.status.success() {
            return Err(invalid(format!("it does not describe itself ({})", output.status)));
        }
        let described: Map<String, Json> =
            serde_json::from_slice(&output.stdout).map_err(|error| invalid(error.to_string()))?;
        let text = |key: &str| described.get(key).and_then(Json::as_str).unwrap_or_default();
        // COMPAT: any version of the description below 2.
        let major = text("SchemaVersion").split('.').next().and_then(|major| major.parse().ok());
        if major.is_none_or(|major: u32| major >= 2) {
            return Err(invalid(format!("unknown SchemaVersion {:?}", text("SchemaVersion"))));
        }
        if text("Vendor").is_empty() {
            return Err(invalid("it names no vendor".to_owned()));
        }
        Ok(described)
    }

    /// Becomes the plugin: it gets the whole command line and ends with its own code.
    pub(crate) fn become_it(&self, program: &str, root: &Matches, words: &[String]) -> Outcome {
        self.metadata().map_err(Failure::new)?;
        let mut process = Process::new(&self.path);
        process.args(words);
        process.env("DOCKER_CLI_PLUGIN_ORIGINAL_CLI_COMMAND", called_as(program));
        if let Some(host) = endpoint::host_for_plugins(root, program) {
            process.env("DOCKER_HOST", host);
        }
        let error = process.exec();
        Err(Failure::new(format!("cannot run {}: {}", self.path.display(), system_text(&error))))
    }

    /// Asks the plugin what may follow `words`; candidates with descriptions, and whether files may follow instead.
    pub(crate) fn candidates(&self, words: &[String]) -> (Vec<(String, String)>, bool) {
        let mut process = Process::new(&self.path);
        process.arg("__complete").args(words).stdin(Stdio::null()).stderr(Stdio::null());
        let answer = process.output().map(|output| output.stdout).unwrap_or_default();
        read_candidates(&String::from_utf8_lossy(&answer))
    }
}

fn called_as(program: &str) -> OsString {
    std::env::args_os().next().unwrap_or_else(|| program.into())
}

/// Reads lines of `word<tab>description` up to `:N`, whose bit 4 says that no files may follow.
fn read_candidates(text: &str) -> (Vec<(String, String)>, bool) {
    const NO_FILES: u32 = 4;
    let mut words = Vec::new();
    for line in text.lines() {
        if let Some(directive) = line.strip_prefix(':') {
            let no_files = directive.parse::<u32>().is_ok_and(|bits| bits & NO_FILES != 0);
            return (words, !no_files);
        }
        let (word, description) = line.split_once('\t').unwrap_or((line, ""));
        words.push((word.to_owned(), description.to_owned()));
    }
    (words, false)
}

#[cfg(test)]
mod tests;
