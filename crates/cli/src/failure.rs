//! How a command ends: its exit code, and the text on standard error when it failed.

use rorqual_client::config::ConfigError;
use rorqual_client::context::ContextError;

use crate::template::TemplateError;

/// A command that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    /// Exit code.
    pub(crate) code: u8,
    /// What to print on standard error; nothing when empty.
    pub(crate) text: String,
}

/// Exit code, or failure.
pub(crate) type Outcome = Result<u8, Failure>;

impl Failure {
    /// Fails with exit code 1 and a text.
    pub(crate) fn new(text: impl Into<String>) -> Self {
        Self { code: 1, text: text.into() }
    }

    /// Fails with an exit code; everything was said already.
    pub(crate) const fn silent(code: u8) -> Self {
        Self { code, text: String::new() }
    }
}

/// Ends a command that tried several objects: 1 and all texts when one failed.
pub(crate) fn joined(errors: &[String]) -> Outcome {
    if errors.is_empty() { Ok(0) } else { Err(Failure::new(errors.join("\n"))) }
}

impl From<rorqual_client::Error> for Failure {
    fn from(error: rorqual_client::Error) -> Self {
        Self::new(error.to_string())
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        // The reader of our output went away: nothing to say.
        if error.kind() == std::io::ErrorKind::BrokenPipe {
            return Self::silent(1);
        }
        Self::new(system_text(&error))
    }
}

impl From<TemplateError> for Failure {
    fn from(error: TemplateError) -> Self {
        Self::new(format!("template parsing error: {error}"))
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Self::new(error.to_string())
    }
}

impl From<ContextError> for Failure {
    fn from(error: ContextError) -> Self {
        Self::new(error.to_string())
    }
}

/// Returns what the system says about an error as other programs write it: in lower case, no number.
pub(crate) fn system_text(error: &std::io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or(&text);
    let mut chars = text.chars();
    match (error.raw_os_error(), chars.next()) {
        (Some(_), Some(first)) => first.to_lowercase().chain(chars).collect(),
        _ => text.to_owned(),
    }
}

/// `open /x: no such file or directory`
pub(crate) fn open_failure(path: &str, error: &std::io::Error) -> Failure {
    Failure::new(format!("open {path}: {}", system_text(error)))
}
