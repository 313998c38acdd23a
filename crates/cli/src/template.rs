//! Go's text/template language, as `--format` uses it.
//!
//! Parsing, evaluation and the functions Docker adds; no output layout (see `output`).

mod eval;
mod functions;
mod lexer;
mod node;
mod parser;
mod print;
mod printf;
mod value;

pub(crate) use print::html_escaped_json;
pub(crate) use value::{Record, Value};

use node::Node;

/// A template that cannot be read or carried out; the text is Go's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct TemplateError(pub(crate) String);

/// What a missing key of a map becomes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MissingKey {
    /// `<no value>`
    NoValue,
    /// An error.
    Error,
}

/// Which functions transform and which pass their input through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Data.
    Rows,
    /// Names of columns: text functions leave them as they are.
    Header,
}

/// A parsed template.
#[derive(Debug)]
pub(crate) struct Template {
    name: &'static str,
    text: String,
    body: Vec<Node>,
    /// What missing keys become.
    pub(crate) missing: MissingKey,
}

impl Template {
    /// Parses `text`; `name` appears in error texts.
    pub(crate) fn parse(name: &'static str, text: &str) -> Result<Self, TemplateError> {
        let body = parser::parse(name, text)?;
        Ok(Self { name, text: text.to_owned(), body, missing: MissingKey::NoValue })
    }

    /// Evaluates the template for `data`.
    pub(crate) fn render(&self, data: &Value, mode: Mode) -> Result<String, TemplateError> {
        eval::render(self, data, mode)
    }
}

#[cfg(test)]
mod tests;
