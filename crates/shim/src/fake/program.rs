//! Programs that the fake understands.

use rorqual_core::ErrorKind;

use crate::Error;
use crate::log::LogStream;

/// What a fake program does.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Program {
    /// Written to the attachments and the log as soon as it starts.
    pub output: Vec<(LogStream, Vec<u8>)>,
    /// Copies standard input to standard output and ends with 0 when that ends.
    pub echoes: bool,
    /// Ends at once with this code; `None`: runs until ended.
    pub ends: Option<i32>,
    /// Only `SIGKILL` ends it.
    pub stubborn: bool,
}

/// Understands the few programs that the fake knows.
pub(super) fn known_program(args: &[String]) -> Result<Program, Error> {
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    let name = words.first().map_or("", |word| word.rsplit('/').next().unwrap_or(word));
    let program = match (name, words.get(1..).unwrap_or_default()) {
        ("true", _) => Program { ends: Some(0), ..Program::default() },
        ("false", _) => Program { ends: Some(1), ..Program::default() },
        ("echo", rest) => Program {
            output: vec![(LogStream::Stdout, format!("{}\n", rest.join(" ")).into_bytes())],
            ends: Some(0),
            ..Program::default()
        },
        ("cat", []) => Program { echoes: true, ..Program::default() },
        ("sh", ["-c", script]) if script.starts_with("exit ") => {
            Program { ends: script[5..].trim().parse().ok(), ..Program::default() }
        }
        ("nosuchprogram", _) => {
            return Err(Error::Start {
                message: format!("exec: {:?}: executable file not found in $PATH", words[0]),
                exit_code: 127,
                kind: ErrorKind::InvalidArgument,
            });
        }
        _ => Program::default(),
    };
    Ok(program)
}
