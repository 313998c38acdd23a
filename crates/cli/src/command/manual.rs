//! `__manual`: writes the manual pages, for who packages the program.

use std::path::Path;

use super::task;
use crate::cli::Cli;
use crate::failure::{Failure, Outcome, open_failure, system_text};
use crate::flag::{Args, Command, Matches};

/// `__manual`
pub(super) static MANUAL: Command = Command {
    name: "__manual",
    usage: "DIRECTORY",
    about: "Write the manual pages of all commands into a directory",
    args: Args::Exactly(1),
    hidden: true,
    run: task!(manual),
    ..Command::EMPTY
};

async fn manual(cli: &Cli, matches: &Matches) -> Outcome {
    let folder = Path::new(matches.word(0));
    std::fs::create_dir_all(folder).map_err(|error| {
        Failure::new(format!("cannot make {}: {}", folder.display(), system_text(&error)))
    })?;
    for (name, text) in crate::manual_pages(&cli.program) {
        let path = folder.join(name);
        std::fs::write(&path, text)
            .map_err(|error| open_failure(&path.display().to_string(), &error))?;
    }
    Ok(0)
}
