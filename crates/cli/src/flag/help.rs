//! The help of a command, laid out as Docker's.

use std::fmt::Write as _;

use super::spec::{Command, Flag, Kind};

/// `Usage:  docker ps [OPTIONS]`
pub(crate) fn usage_line(command: &Command, path: &str) -> String {
    let usage = if command.usage.is_empty() { "" } else { " " };
    format!("Usage:  {path}{usage}{}", command.usage)
}

/// Returns the whole help of a command; `path` is how it was called.
pub(crate) fn help(command: &Command, path: &str, width: usize) -> String {
    let program = path.split(' ').next().unwrap_or(path);
    let mut out = format!("{}\n\n{}\n", usage_line(command, path), command.about);
    if command.paths.len() > 1 {
        let all: Vec<String> =
            command.paths.iter().map(|path| format!("{program} {path}")).collect();
        let _ = write!(out, "\nAliases:\n  {}\n", all.join(", "));
    }
    for (title, children) in sections(command, path == program) {
        if children.is_empty() {
            continue;
        }
        let _ = write!(out, "\n{title}:\n");
        let longest = command.children.iter().map(|child| child.name.len()).max().unwrap_or(0);
        // COMPAT: cobra pads names of commands to at least 11.
        let room = longest.max(11);
        for child in children {
            let _ = writeln!(out, "  {:<room$} {}", child.name, child.about);
        }
    }
    let options = options(command, width);
    if !options.is_empty() {
        let title = if path == program { "Global Options" } else { "Options" };
        let _ = write!(out, "\n{title}:\n{options}");
    }
    if !command.children.is_empty() {
        let _ = write!(out, "\nRun '{path} COMMAND --help' for more information on a command.\n");
    }
    out
}

const COMMON: [&str; 7] = ["run", "exec", "ps", "pull", "push", "images", "version"];

fn sections(command: &Command, is_root: bool) -> Vec<(&'static str, Vec<&'static Command>)> {
    let shown = || command.children.iter().copied().filter(|child| !child.hidden);
    if !is_root {
        return vec![("Commands", shown().collect())];
    }
    let is_common = |child: &&Command| COMMON.contains(&child.name) || child.name == "info";
    let mut common: Vec<_> = shown().filter(|child| is_common(child)).collect();
    common.sort_by_key(|child| COMMON.iter().position(|name| *name == child.name).unwrap_or(9));
    let groups = shown().filter(|child| !child.children.is_empty()).collect();
    let rest = shown().filter(|child| child.children.is_empty() && !is_common(child)).collect();
    vec![("Common Commands", common), ("Management Commands", groups), ("Commands", rest)]
}

fn options(command: &Command, width: usize) -> String {
    let mut flags: Vec<&Flag> = command.flags().filter(|flag| !flag.hidden).collect();
    flags.sort_by_key(|flag| flag.name);
    let heads: Vec<String> = flags.iter().map(|flag| head(flag)).collect();
    let longest = heads.iter().map(String::len).max().unwrap_or(0);
    let indent = longest + 3;
    let room = width.saturating_sub(indent).max(24);
    let mut out = String::new();
    for (flag, head) in flags.iter().zip(&heads) {
        for (index, line) in wrapped(&described(flag), room).iter().enumerate() {
            let left = if index == 0 { head.as_str() } else { "" };
            out.push_str(format!("{left:<indent$}{line}").trim_end());
            out.push('\n');
        }
    }
    out
}

fn head(flag: &Flag) -> String {
    let label = flag.kind.label();
    let gap = if label.is_empty() { "" } else { " " };
    match flag.short {
        '\0' => format!("      --{}{gap}{label}", flag.name),
        letter => format!("  -{letter}, --{}{gap}{label}", flag.name),
    }
}

fn described(flag: &Flag) -> String {
    let help = flag.help;
    match (flag.kind, flag.default) {
        (_, "") | (Kind::Bool, "false") => help.to_owned(),
        (Kind::Text(_) | Kind::List(_), default) => format!("{help} (default {default:?})"),
        (_, default) => format!("{help} (default {default})"),
    }
}

fn wrapped(text: &str, room: usize) -> Vec<String> {
    let mut lines = Vec::new();
    for paragraph in text.split('\n') {
        let mut line = String::new();
        for word in paragraph.split(' ') {
            let longer = line.chars().count() + 1 + word.chars().count();
            if !line.trim().is_empty() && longer > room {
                lines.push(std::mem::take(&mut line));
                line.push_str(word);
            } else {
                if !line.is_empty() || (word.is_empty() && !lines.is_empty()) {
                    line.push(' ');
                }
                line.push_str(word);
            }
        }
        lines.push(line);
    }
    lines
}
