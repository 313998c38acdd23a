//! The binary: picks the role by the name it is called by, then by its first argument. No logic of its own.

use std::ffi::{OsStr, OsString};
use std::process::ExitCode;

mod hello;

fn main() -> ExitCode {
    let mut args = std::env::args_os();
    let called = args.next().unwrap_or_else(|| OsString::from("rorqual"));
    let name = base_name(&called);
    match name.as_str() {
        "docker-init" => return rorqual_runtime::pid1::main(args),
        "rorqual-runtime" => {
            return rorqual_runtime::cli::main(std::iter::once(called).chain(args));
        }
        "dockerd" => return rorqual_daemon::main(args),
        "hello" => return hello::main(),
        _ => {}
    }
    let rest: Vec<OsString> = args.collect();
    match rest.first().and_then(|first| first.to_str()) {
        Some("daemon") => rorqual_daemon::main(rest.into_iter().skip(1)),
        Some("registry") => rorqual_registry::main(rest.into_iter().skip(1)),
        Some("runtime") => rorqual_runtime::cli::main(rest.into_iter()),
        Some(rorqual_shim::launcher::ROLE) => {
            rorqual_shim::launcher::main(rest.into_iter().skip(1))
        }
        Some(rorqual_network::RESOLVER_ROLE) => {
            rorqual_network::resolver_main(rest.into_iter().skip(1))
        }
        _ => rorqual_cli::main(rest, &name),
    }
}

fn base_name(path: &OsStr) -> String {
    let path = std::path::Path::new(path);
    path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
}
