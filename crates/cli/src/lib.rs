//! The command line: commands, flags, templates, progress, terminal.
//!
//! Everything is asked of a daemon through `rorqual-client`; nothing here needs privileges.

mod cli;
mod command;
mod credential_helper;
mod failure;
mod flag;
mod output;
mod progress;
mod stream;
mod template;
mod terminal;

use std::ffi::OsString;
use std::process::ExitCode;

/// Carries out a command line; `argv0` is what the program was called as.
///
/// The default daemon is the one at `/var/run/docker.sock` when called as `docker`; under other
/// names the one at `/run/rorqual/rorqual.sock` comes first where that socket exists.
pub fn main(args: impl IntoIterator<Item = OsString>, argv0: &str) -> ExitCode {
    let words: Vec<String> =
        args.into_iter().map(|word| word.to_string_lossy().into_owned()).collect();
    let program = argv0.rsplit('/').next().filter(|name| !name.is_empty()).unwrap_or("rorqual");
    ExitCode::from(cli::run(program, &words))
}

/// Plays the credential helper: our sealed store of credentials for other programs.
pub fn credential_helper(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let words: Vec<String> =
        args.into_iter().map(|word| word.to_string_lossy().into_owned()).collect();
    ExitCode::from(credential_helper::run(&words))
}

/// Returns the manual pages of all commands: file name and roff text.
pub fn manual_pages(program: &str) -> Vec<(String, String)> {
    let mut pages = Vec::new();
    collect_pages(&command::ROOT, program.to_owned(), &mut pages);
    pages
}

fn collect_pages(command: &'static flag::Command, path: String, pages: &mut Vec<(String, String)>) {
    pages.push((format!("{}.1", path.replace(' ', "-")), flag::manual(command, &path)));
    for child in command.children.iter().filter(|child| !child.hidden) {
        collect_pages(child, format!("{path} {}", child.name), pages);
    }
}
