//! A call of the program: finds the command, the settings and the daemon, and ends with a code.

mod endpoint;
pub(crate) mod plugin;

use std::cell::OnceCell;
use std::io::{IsTerminal as _, Write as _};

use rorqual_client::Client;
use rorqual_client::config::Config;
use serde_json::Value as Json;

use crate::command;
use crate::failure::{Failure, Outcome};
use crate::flag::{self, Args, Command, Matches, UsageError};
use crate::terminal;

pub(crate) use endpoint::{config_directory, current_context, default_host, flag_tls};

/// Version of the Docker command line this one behaves as.
pub(crate) const COMPATIBLE: &str = "28.5.2";

/// What every command works with.
pub(crate) struct Cli {
    /// What the program was called as.
    pub(crate) program: String,
    /// The user's settings.
    pub(crate) config: Config,
    /// Flags in front of the command.
    pub(crate) root: Matches,
    client: OnceCell<Client>,
}

impl Cli {
    /// Makes one with the settings of a directory, for tests.
    #[cfg(test)]
    pub(crate) fn for_tests(root: Matches, directory: &std::path::Path) -> Self {
        let config = Config::empty(directory);
        Self { program: "docker".to_owned(), config, root, client: OnceCell::new() }
    }

    /// Returns the client of the chosen daemon; nothing is connected yet.
    pub(crate) fn client(&self) -> Result<&Client, Failure> {
        if let Some(client) = self.client.get() {
            return Ok(client);
        }
        let client = endpoint::client(self)?;
        Ok(self.client.get_or_init(|| client))
    }

    /// Asks the daemon for a document.
    pub(crate) async fn get(&self, path: impl Into<String>) -> Result<Json, Failure> {
        Ok(self.client()?.get(path).await?)
    }

    /// Posts a document, or nothing when it is null.
    pub(crate) async fn post(&self, path: impl Into<String>, body: Json) -> Result<Json, Failure> {
        Ok(self.client()?.post(path, body).await?)
    }

    /// Prints on standard output.
    #[expect(clippy::unused_self, reason = "what prints belongs to a command line")]
    pub(crate) fn print(&self, text: &str) -> Result<(), Failure> {
        let mut out = std::io::stdout().lock();
        out.write_all(text.as_bytes())?;
        Ok(out.flush()?)
    }

    /// Prints a line on standard output.
    pub(crate) fn line(&self, text: &str) -> Result<(), Failure> {
        self.print(&format!("{text}\n"))
    }

    /// Prints a line on standard error.
    #[expect(clippy::unused_self, reason = "what prints belongs to a command line")]
    pub(crate) fn complain(&self, text: &str) {
        complain(text);
    }

    /// Asks a question; only `y` and `yes` are consent.
    pub(crate) fn confirm(&self, question: &str) -> Result<bool, Failure> {
        self.print(&format!("{question} [y/N] "))?;
        let mut answer = String::new();
        std::io::stdin().read_line(&mut answer)?;
        if answer.is_empty() && std::io::stdout().is_terminal() {
            self.line("")?;
        }
        let answer = answer.trim().to_ascii_lowercase();
        Ok(answer == "y" || answer == "yes")
    }
}

/// Prints a line on standard error; there is nobody to tell when that fails.
pub(crate) fn complain(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}

/// Carries out a command line; returns the exit code.
pub(crate) fn run(program: &str, words: &[String]) -> u8 {
    match dispatch(program, words) {
        Ok(code) => code,
        Err(failure) => {
            if !failure.text.is_empty() {
                complain(&failure.text);
            }
            failure.code
        }
    }
}

fn dispatch(program: &str, words: &[String]) -> Outcome {
    let root = flag::parse(&command::ROOT, program.to_owned(), words)
        .or_else(|error| usage_failure(&command::ROOT, program, error))?;
    if root.on("version") {
        let line = format!("Docker version {COMPATIBLE}, build rorqual-{}\n", crate_version());
        std::io::stdout().lock().write_all(line.as_bytes())?;
        return Ok(0);
    }
    let all = words;
    let mut words = root.words.as_slice();
    let wants_help = words.first().is_some_and(|word| word == "help");
    if wants_help {
        words = &words[1..];
    }
    if let Some(plugin) = plugin_of(&root, words) {
        let plea = [plugin.name.clone(), "--help".to_owned()];
        return plugin.become_it(program, &root, if wants_help { &plea } else { all });
    }
    let (command, path, rest) = find(program, words, wants_help)?;
    if wants_help || command.run.is_none() && is_plea_for_help(rest) {
        return show_help(command, &path);
    }
    if command.run.is_none() && rest.is_empty() {
        // COMPAT: nobody asked for the help of a group that is called alone.
        complain(flag::help(command, &path, help_width()).trim_end());
        return Ok(0);
    }
    if command.run.is_none() {
        return Err(unknown_command(command, &path, rest));
    }
    let parsed = flag::parse(command, path.clone(), rest)
        .and_then(|matches| matches.check_count().map(|()| matches))
        .or_else(|error| usage_failure(command, &path, error))?;
    execute(program, root, &parsed)
}

/// Finds the plugin the first word names, unless it is a command of ours.
fn plugin_of(root: &Matches, words: &[String]) -> Option<plugin::Plugin> {
    let name = words.first().filter(|name| command::ROOT.child(name).is_none())?;
    plugin::find(&settings(root), name)
}

/// Reads the user's settings; without them when they cannot be read.
fn settings(root: &Matches) -> Config {
    let directory = config_directory(root);
    Config::load(&directory).unwrap_or_else(|error| {
        complain(&format!("WARNING: Error loading config file: {error}"));
        Config::empty(&directory)
    })
}

/// Finds the command the first words name.
fn find<'w>(
    program: &str,
    words: &'w [String],
    wants_help: bool,
) -> Result<(&'static Command, String, &'w [String]), Failure> {
    let mut command: &'static Command = &command::ROOT;
    let mut path = program.to_owned();
    let mut rest = words;
    while let Some((word, after)) = rest.split_first() {
        if command.children.is_empty() {
            break;
        }
        let Some(child) = command.child(word) else {
            if wants_help {
                return Err(Failure::new(format!("unknown help topic: {}", words.join(" "))));
            }
            break;
        };
        path = format!("{path} {word}");
        (command, rest) = (child, after);
    }
    Ok((command, path, rest))
}

/// COMPAT: docker's texts for a command or flag that does not exist.
fn unknown_command(command: &Command, path: &str, rest: &[String]) -> Failure {
    let program = path.split(' ').next().unwrap_or(path);
    let word = rest.first().map_or("", String::as_str);
    if word.starts_with('-') {
        let error = flag_text(word);
        return Failure {
            code: 125,
            text: format!(
                "{error}\n\n{}\n\nRun '{path} --help' for more information",
                flag::usage_line(command, path)
            ),
        };
    }
    let usage = if path == program { String::new() } else { format!("\n\nUsage:  {path}") };
    Failure::new(format!(
        "{program}: unknown command: {path} {word}{usage}\n\nRun '{path} --help' for more information"
    ))
}

fn flag_text(word: &str) -> String {
    match word.strip_prefix("--") {
        Some(long) => format!("unknown flag: --{}", long.split('=').next().unwrap_or(long)),
        None => {
            let letters = &word[1..];
            let letter = letters.chars().next().unwrap_or('-');
            format!("unknown shorthand flag: '{letter}' in -{letters}")
        }
    }
}

fn usage_failure(command: &Command, path: &str, error: UsageError) -> Result<Matches, Failure> {
    let usage = flag::usage_line(command, path);
    match error {
        UsageError::Help => {
            show_help(command, path)?;
            Err(Failure::silent(0))
        }
        UsageError::Flag(text) => Err(Failure {
            code: 125,
            text: format!("{text}\n\n{usage}\n\nRun '{path} --help' for more information"),
        }),
        UsageError::Count(text) => {
            let program = path.split(' ').next().unwrap_or(path);
            // COMPAT: docker says it in two ways.
            let hint = match command.args {
                Args::AtLeast(_) => "See",
                _ => "Run",
            };
            Err(Failure::new(format!(
                "{program}: {text}\n\n{usage}\n\n{hint} '{path} --help' for more information"
            )))
        }
    }
}

fn is_plea_for_help(words: &[String]) -> bool {
    !words.is_empty() && words.iter().all(|word| word == "--help" || word == "-h")
}

fn help_width() -> usize {
    terminal::width().unwrap_or(80).clamp(40, 200)
}

fn show_help(command: &Command, path: &str) -> Outcome {
    let text = flag::help(command, path, help_width());
    std::io::stdout().lock().write_all(text.as_bytes())?;
    Ok(0)
}

fn execute(program: &str, root: Matches, matches: &Matches) -> Outcome {
    for warning in &matches.warnings {
        complain(warning);
    }
    let config = settings(&root);
    let cli = Cli { program: program.to_owned(), config, root, client: OnceCell::new() };
    let run = matches.command.run.ok_or_else(|| Failure::new("nothing to carry out"))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let outcome = runtime.block_on(run(&cli, matches));
    // A read of standard input may still block in a thread: it must not hold up the end.
    runtime.shutdown_background();
    outcome
}

/// Returns this program's own version.
pub(crate) const fn crate_version() -> &'static str {
    env!("CARGO_PKG_VERSION")
}
