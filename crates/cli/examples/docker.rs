//! The command line alone, without the other roles of the program.

use std::process::ExitCode;

fn main() -> ExitCode {
    let mut words = std::env::args_os();
    let name = words.next().unwrap_or_default();
    rorqual_cli::main(words, &name.to_string_lossy())
}
