//! Lines of a Dockerfile become instructions with their arguments, flags, heredocs and comments; what the instructions
//! mean is not looked at.

use std::iter::Peekable;

use super::directive::Directives;
use super::fault::{at, invalid};
use super::heredoc::{self, Heredoc};
use super::source::{MAX_LINE, discard_bom, line_location};
use super::{SourceFile, words};
use crate::{Error, Location};

/// Most instructions of a Dockerfile.
///
/// LIMIT: each costs a vertex; real files have tens.
const MAX_INSTRUCTIONS: usize = 10_000;

/// A Dockerfile as lines.
#[derive(Clone, Debug)]
pub(super) struct Parsed {
    pub(super) nodes: Vec<Node>,
    pub(super) escape: char,
    /// Last lines of instructions that have a blank line within.
    pub(super) empty_continuations: Vec<Location>,
}

/// An instruction.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Node {
    /// As written.
    pub(super) name: String,
    /// The whole line, continuations joined.
    pub(super) original: String,
    pub(super) flags: Vec<String>,
    /// Words; for `ENV` and `LABEL` triples of name, value and separator; for `ONBUILD` its instruction's name and words.
    pub(super) args: Vec<String>,
    /// Arguments were a JSON array.
    pub(super) json: bool,
    /// Instruction that may have heredocs: itself, or the one behind `ONBUILD`.
    takes_heredocs: bool,
    pub(super) heredocs: Vec<Heredoc>,
    /// Comments right above.
    pub(super) comments: Vec<String>,
    pub(super) location: Option<Location>,
}

impl Node {
    pub(super) fn place(&self) -> Location {
        self.location.clone().unwrap_or_else(|| line_location("", 0, 0))
    }
}

/// Takes a Dockerfile apart into instructions.
pub(super) fn parse(source: &SourceFile) -> Result<Parsed, Error> {
    let text = discard_bom(&source.text);
    let mut reader = Reader {
        file: &source.name,
        lines: text.split_inclusive('\n').peekable(),
        number: 0,
        escape: '\\',
        directives: Directives::new("#"),
        comments: Vec::new(),
        parsed: Parsed { nodes: Vec::new(), escape: '\\', empty_continuations: Vec::new() },
    };
    while reader.instruction()? {}
    if reader.parsed.nodes.is_empty() {
        return Err(at(invalid("file with no instructions"), &reader.place(reader.number)));
    }
    reader.parsed.escape = reader.escape;
    Ok(reader.parsed)
}

/// Reads the one instruction of a trigger (`ONBUILD`) of a base image.
pub(super) fn parse_trigger(text: &str, place: &Location) -> Result<Node, Error> {
    let source = SourceFile { name: place.file.clone(), text: text.to_owned() };
    let mut parsed = parse(&source).map_err(|error| at(error, place))?.nodes;
    match (parsed.pop(), parsed.is_empty()) {
        (Some(mut node), true) => {
            node.location = Some(place.clone());
            Ok(node)
        }
        _ => Err(at(invalid("onbuild trigger should be a single expression"), place)),
    }
}

struct Reader<'a> {
    file: &'a str,
    lines: Peekable<std::str::SplitInclusive<'a, char>>,
    /// Lines read so far.
    number: u32,
    escape: char,
    directives: Directives<'a>,
    comments: Vec<String>,
    parsed: Parsed,
}

impl<'a> Reader<'a> {
    fn place(&self, first: u32) -> Location {
        line_location(self.file, first, self.number)
    }

    fn next(&mut self) -> Result<Option<&'a str>, Error> {
        let Some(line) = self.lines.next() else { return Ok(None) };
        if line.len() > MAX_LINE {
            let message = format!("dockerfile line greater than max allowed size of {MAX_LINE}");
            return Err(at(invalid(message), &self.place(self.number + 1)));
        }
        self.number += 1;
        Ok(Some(line))
    }

    /// Reads up to the end of the next instruction; returns whether there was anything.
    fn instruction(&mut self) -> Result<bool, Error> {
        let Some(line) = self.next()? else { return Ok(false) };
        let first = self.number;
        let mut line = line.trim_end_matches(['\r', '\n']).trim_start();
        self.directive_or_comment(line)?;
        if is_comment(line) {
            line = "";
        }
        let (line, mut more) = self.continued(line);
        if !more && line.is_empty() {
            return Ok(true);
        }
        let mut text = line.to_owned();
        let mut blank_within = false;
        while more {
            let Some(raw) = self.next()? else { break };
            if is_comment(raw) {
                continue;
            }
            if raw.trim().is_empty() {
                blank_within = true;
                continue;
            }
            let (piece, goes_on) = self.continued(raw.trim_end_matches(['\r', '\n']));
            text.push_str(piece);
            more = goes_on;
        }
        if blank_within {
            let place = self.place(self.number);
            self.parsed.empty_continuations.push(place);
        }
        self.finish(first, &text)?;
        Ok(true)
    }

    fn directive_or_comment(&mut self, line: &str) -> Result<(), Error> {
        let place = self.place(self.number);
        let directive = self.directives.line(line).map_err(|why| at(invalid(why), &place))?;
        if let Some((name, value)) = directive {
            if name == "escape" {
                self.escape = match value {
                    "\\" => '\\',
                    "`" => '`',
                    other => {
                        let message =
                            format!("invalid escape token '{other}' does not match ` or \\");
                        return Err(at(invalid(message), &place));
                    }
                };
            }
        } else if let Some(comment) = line.strip_prefix('#') {
            match comment.trim() {
                "" => self.comments.clear(),
                comment => self.comments.push(comment.to_owned()),
            }
        }
        Ok(())
    }

    /// Cuts off the mark that a line goes on; a doubled escape is no mark.
    fn continued<'l>(&self, line: &'l str) -> (&'l str, bool) {
        let trimmed = line.trim_end_matches([' ', '\t']);
        match trimmed.strip_suffix(self.escape) {
            Some(body) if !body.ends_with(self.escape) => (body, true),
            _ => (line, false),
        }
    }

    fn finish(&mut self, first: u32, text: &str) -> Result<(), Error> {
        let place = self.place(first);
        let fail = |why: String| at(invalid(why), &place);
        let mut node = node(text, self.escape, true).map_err(fail)?;
        if node.takes_heredocs && text.contains("<<") {
            for mut heredoc in heredoc::announced(text) {
                self.body(&mut heredoc, first)?;
                node.heredocs.push(heredoc);
            }
        }
        node.location = Some(self.place(first));
        node.comments = std::mem::take(&mut self.comments);
        if self.parsed.nodes.len() >= MAX_INSTRUCTIONS {
            let message =
                format!("more than the {MAX_INSTRUCTIONS} instructions that a Dockerfile may have");
            return Err(at(invalid(message), &place));
        }
        self.parsed.nodes.push(node);
        Ok(())
    }

    fn body(&mut self, heredoc: &mut Heredoc, first: u32) -> Result<(), Error> {
        while let Some(line) = self.next()? {
            if heredoc.ends_at(line) {
                return Ok(());
            }
            heredoc.content.push_str(line);
        }
        Err(at(invalid("unterminated heredoc"), &self.place(first)))
    }
}

fn is_comment(line: &str) -> bool {
    line.trim_start().starts_with('#')
}

/// Reads the arguments of one instruction, each in its own way.
fn node(line: &str, escape: char, may_be_trigger: bool) -> Result<Node, String> {
    let split = words::split_line(line, escape);
    let (name, rest) = (split.name.to_ascii_lowercase(), split.rest);
    let mut json = false;
    let mut takes_heredocs = matches!(&*name, "add" | "copy" | "run");
    let args = match &*name {
        "env" => words::pairs(rest, "ENV", escape)?,
        "label" => words::pairs(rest, "LABEL", escape)?,
        "arg" => words::words(rest, escape),
        "expose" | "from" => words::blank_separated(rest),
        "maintainer" | "stopsignal" | "user" | "workdir" => whole(rest),
        "add" | "copy" | "volume" | "run" | "cmd" | "entrypoint" | "shell" => {
            match words::json_strings(rest)? {
                Some(strings) => {
                    json = true;
                    strings
                }
                None if matches!(&*name, "add" | "copy" | "volume") => words::blank_separated(rest),
                None => whole(rest),
            }
        }
        "healthcheck" => {
            let end = rest.find(char::is_whitespace).unwrap_or(rest.len());
            let (kind, command) = (&rest[..end], rest[end..].trim_start());
            let strings = words::json_strings(command)?;
            json = strings.is_some();
            let command = strings.unwrap_or_else(|| whole(command));
            whole(kind).into_iter().chain(command).collect()
        }
        // A trigger inside a trigger is refused later, by its name.
        "onbuild" if may_be_trigger && !rest.is_empty() => {
            let inner = node(rest, escape, false)?;
            takes_heredocs = inner.takes_heredocs;
            std::iter::once(inner.name).chain(inner.args).collect()
        }
        "onbuild" => whole(rest),
        _ => Vec::new(),
    };
    Ok(Node {
        name: split.name.to_owned(),
        original: line.to_owned(),
        flags: split.flags,
        args,
        json,
        takes_heredocs: takes_heredocs && !json,
        ..Node::default()
    })
}

fn whole(text: &str) -> Vec<String> {
    if text.is_empty() { Vec::new() } else { vec![text.to_owned()] }
}

#[cfg(test)]
mod tests;
