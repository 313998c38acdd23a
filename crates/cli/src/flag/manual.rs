//! Manual pages in roff, one per command, from the table of flags.

use std::fmt::Write as _;

use super::spec::{Command, Flag};

/// Returns the manual page of a command; `path` is its name in words.
pub(crate) fn manual(command: &Command, path: &str) -> String {
    let title = path.replace(' ', "-");
    let mut out = format!(".TH \"{}\" 1\n.SH NAME\n", escaped(&title.to_uppercase()));
    let _ = writeln!(out, "{} \\- {}", escaped(&title), escaped(command.about));
    let _ = writeln!(out, ".SH SYNOPSIS\n.B {}\n{}", escaped(path), escaped(command.usage));
    let _ = writeln!(out, ".SH DESCRIPTION\n{}", escaped(command.about));
    let mut flags: Vec<&Flag> = command.flags().filter(|flag| !flag.hidden).collect();
    flags.sort_by_key(|flag| flag.name);
    if !flags.is_empty() {
        out.push_str(".SH OPTIONS\n");
    }
    for flag in flags {
        let short = match flag.short {
            '\0' => String::new(),
            letter => format!("\\fB\\-{letter}\\fR, "),
        };
        let label = flag.kind.label();
        let value = if label.is_empty() { String::new() } else { format!("=\\fI{label}\\fR") };
        let _ = writeln!(out, ".TP\n{short}\\fB\\-\\-{}\\fR{value}", escaped(flag.name));
        let _ = writeln!(out, "{}", escaped(flag.help));
        if !flag.default.is_empty() {
            let _ = writeln!(out, "Default: {}.", escaped(flag.default));
        }
    }
    let children: Vec<_> = command.children.iter().filter(|child| !child.hidden).collect();
    if !children.is_empty() {
        out.push_str(".SH COMMANDS\n");
    }
    for child in children {
        let page = escaped(&format!("{title}-{}", child.name));
        let _ = writeln!(out, ".TP\n\\fB{page}\\fR(1)\n{}", escaped(child.about));
    }
    out
}

/// Protects what roff would take for a request or a hyphen.
fn escaped(text: &str) -> String {
    let line = |line: &str| {
        let line = line.replace('\\', "\\e").replace('-', "\\-");
        if line.starts_with(['.', '\'']) { format!("\\&{line}") } else { line }
    };
    text.lines().map(line).collect::<Vec<_>>().join("\n.br\n")
}
