//! What the daemon says at a terminal before its log begins.

use std::io::Write;
use std::process::ExitCode;

use crate::config;

fn print(mut to: impl Write, text: &str) {
    // A closed terminal is no reason to fail.
    writeln!(to, "{text}").ok();
}

/// Says something on standard output.
pub(crate) fn say(text: &str) -> ExitCode {
    print(std::io::stdout(), text);
    ExitCode::SUCCESS
}

/// Says something on standard error and succeeds, as `--validate` does.
pub(crate) fn approve(text: &str) -> ExitCode {
    print(std::io::stderr(), text);
    ExitCode::SUCCESS
}

/// Says why the daemon does not run.
pub(crate) fn complain(text: &str) -> ExitCode {
    print(std::io::stderr(), text);
    ExitCode::FAILURE
}

/// Prints the flags.
pub(crate) fn help() -> ExitCode {
    let mut text = String::from(
        "Usage:  rorqual daemon [OPTIONS]\n\nThe daemon of Rorqual: serves the Engine API and keeps containers.\n\nOptions:\n",
    );
    for line in config::describe() {
        text.push_str(&line);
        text.push('\n');
    }
    say(text.trim_end())
}
