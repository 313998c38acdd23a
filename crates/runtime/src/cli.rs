//! The runtime's command line, compatible with runc's: flags, files, exit codes, output.

mod arguments;
mod console;
mod document;
mod exec;
mod inspect;
mod lifecycle;
mod log;
mod seal;
mod spec;
mod state;
mod update;

use std::ffi::OsString;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::rc::Rc;

use clap::ArgMatches;
use rorqual_sys::cgroup::Driver;

use crate::Error;
use crate::cgroup::Maker;
use crate::create::Observer;
use state::Store;

/// A failure of a command: what to say and the exit code.
#[derive(Debug)]
struct Failure {
    message: String,
    code: u8,
}

type Outcome = Result<u8, Failure>;

impl Failure {
    fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), code: 1 }
    }

    fn with_code(mut self, code: u8) -> Self {
        self.code = code;
        self
    }

    fn io(action: &str, error: &std::io::Error) -> Self {
        Self::new(format!("{action}: {}", crate::text::reason(error)))
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::new(rorqual_core::full_message(&error))
    }
}

impl From<rorqual_sys::cgroup::Error> for Failure {
    fn from(error: rorqual_sys::cgroup::Error) -> Self {
        Self::new(rorqual_core::full_message(&error))
    }
}

/// What all commands share.
struct Context {
    store: Store,
    cgroup: Maker,
    log: Rc<log::Log>,
}

impl Context {
    /// Returns who hears every step, when the user wants to.
    fn observer(&self) -> Option<Observer> {
        let log = Rc::clone(&self.log);
        log.wants_debug().then(|| Observer(Box::new(move |message| log.debug(message))))
    }
}

/// Runs the command line; the first argument is the program's name.
///
/// Commands that enter containers start the whole process again, with its own arguments, from a sealed view of its file.
pub fn main(args: impl Iterator<Item = OsString>) -> ExitCode {
    let matches = match arguments::command().try_get_matches_from(args) {
        Ok(matches) => matches,
        Err(error) => {
            // Help is no failure; nobody is left to tell if the terminal is gone.
            let _ = error.print();
            return ExitCode::from(u8::from(error.use_stderr()));
        }
    };
    let log = match log::Log::new(&matches) {
        Ok(log) => Rc::new(log),
        Err(failure) => {
            // There is no place left to complain to.
            let _ = writeln!(std::io::stderr(), "{}", failure.message);
            return ExitCode::from(failure.code);
        }
    };
    if matches.contains_id("criu") {
        log.warning("--criu is without effect: this runtime makes no checkpoints");
    }
    let driver =
        if matches.get_flag("systemd-cgroup") { Driver::Systemd } else { Driver::Cgroupfs };
    let may_lack = is_rootless(text(&matches, "rootless"));
    let context =
        Context { store: Store::new(root(&matches)), cgroup: Maker { driver, may_lack }, log };
    match dispatch(&context, &matches) {
        Ok(code) => ExitCode::from(code),
        Err(failure) => {
            context.log.error(&failure.message);
            ExitCode::from(failure.code)
        }
    }
}

/// Tells whether the caller is somebody who may lack the right to make control groups.
fn is_rootless(flag: &str) -> bool {
    match flag {
        "true" => true,
        "false" => false,
        _ => !rustix::process::geteuid().is_root() || in_user_namespace(),
    }
}

fn in_user_namespace() -> bool {
    let map = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    map.split_whitespace().ne(["0", "0", "4294967295"])
}

fn root(matches: &ArgMatches) -> PathBuf {
    if let Some(root) = matches.get_one::<PathBuf>("root") {
        return root.clone();
    }
    let user_dir = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
    match user_dir {
        Some(directory) if !rustix::process::geteuid().is_root() => {
            directory.join("rorqual-runtime")
        }
        _ => PathBuf::from("/run/rorqual-runtime"),
    }
}

fn dispatch(context: &Context, matches: &ArgMatches) -> Outcome {
    let Some((name, matches)) = matches.subcommand() else { return Ok(0) };
    let id = matches.try_get_one::<String>("id").ok().flatten();
    context.log.debug(&format!("{name} {}", id.map_or("", String::as_str)));
    match name {
        "create" => lifecycle::create(context, matches),
        "run" => lifecycle::run(context, matches),
        "start" => lifecycle::start(context, matches),
        "kill" => lifecycle::kill(context, matches),
        "delete" => lifecycle::delete(context, matches),
        "exec" => exec::exec(context, matches),
        "state" => inspect::state(context, matches),
        "list" => inspect::list(context, matches),
        "ps" => inspect::ps(context, matches),
        "events" => inspect::events(context, matches),
        "features" => spec::features(),
        "spec" => spec::spec(matches),
        "update" => update::update(context, matches),
        "pause" => update::pause(context, matches),
        "resume" => update::resume(context, matches),
        "checkpoint" | "restore" => Err(Failure::new(format!(
            "{name} is not supported: this runtime makes no checkpoints of containers"
        ))),
        other => Err(Failure::new(format!("no such command {other:?}"))),
    }
}

/// Writes to standard output.
fn print(text: &str) -> Outcome {
    rustix_write(text).map(|()| 0).map_err(|error| Failure::io("cannot write", &error))
}

fn rustix_write(text: &str) -> std::io::Result<()> {
    let mut output = std::io::stdout().lock();
    output.write_all(text.as_bytes())?;
    output.flush()
}

/// Returns a required string argument.
fn text<'a>(matches: &'a ArgMatches, name: &str) -> &'a str {
    matches.get_one::<String>(name).map_or("", String::as_str)
}
