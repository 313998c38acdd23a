//! The daemon: configuration, wiring, routes, conversion, shutdown. It decides nothing about containers.

mod authz;
mod builder;
mod builtin;
mod config;
mod context;
mod convert;
mod detach;
mod error;
mod facts;
mod host;
mod logging;
mod remap;
mod request;
mod rest;
mod routes;
mod run;
mod service;
mod usage;
mod websocket;
mod wiring;

use std::ffi::OsString;
use std::process::ExitCode;
use std::time::Duration;

use rorqual_core::full_message;

/// Runs the daemon with dockerd's flags (`args` without the program's name) until it is told to end.
pub fn main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let args = args.into_iter().map(|arg| arg.to_string_lossy().into_owned());
    let line = match config::parse_flags(args) {
        Ok(line) => line,
        Err(error) => return usage::complain(&error.to_string()),
    };
    if line.help {
        return usage::help();
    }
    if line.version {
        return usage::say(&format!("Rorqual daemon version {}", env!("CARGO_PKG_VERSION")));
    }
    let config = match config::load(&line) {
        Ok(config) => config,
        Err(error) => return usage::complain(&full_message(&error)),
    };
    if line.validate {
        return usage::approve("configuration OK");
    }
    let filter = logging::start(config.logging);
    // What systemd or a shell handed over must not reach the launcher, and with it every shim.
    if let Err(error) = rorqual_sys::process::close_on_exec_from(3) {
        tracing::warn!(%error, "inherited descriptors may reach other processes");
    }
    // LIMIT: two workers serve requests; more would only add memory, because work that blocks has its own threads.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        // LIMIT: above what all archives on the move can hold, because each may wait for its client for hours and a
        // database call must find a thread; threads exist only while they work.
        .max_blocking_threads(512)
        .thread_keep_alive(IDLE_THREAD)
        .enable_all()
        .build();
    let ended = match runtime {
        Ok(runtime) => {
            runtime.spawn(keep_a_thread());
            runtime.block_on(run::run(line, config, filter))
        }
        Err(error) => Err(error.into()),
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            usage::complain(&format!("failed to start daemon: {}", full_message(&*error)))
        }
    }
}

// LIMIT: how long an idle thread for blocking work stays, and how often one of them is given something to do.
const IDLE_THREAD: Duration = Duration::from_secs(10);
const ERRAND: Duration = Duration::from_secs(4);

/// Keeps one thread for blocking work alive: when there are none and no more can be made, tokio panics, and whatever
/// needed one, the end of a container say, would be lost. With one, work waits for it.
async fn keep_a_thread() {
    loop {
        let _ = tokio::task::spawn_blocking(|| ()).await;
        tokio::time::sleep(ERRAND).await;
    }
}
