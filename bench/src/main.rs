//! Paired measurements: the same job by us and by each peer that is installed, in turn, in one run.
//!
//! Absolute times drift on shared machines, so what counts is the ratio of medians. `rorqual-bench BINARY [JOB…]`
//! prints a table and leaves it in `bench/results/`. A peer tree (`BENCH_PEER_ROOT=/path/to/debian/root`) may hold a
//! Docker that is newer than the host's.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a command line program")]

mod images;
mod jobs;
mod measure;
mod memory;
mod network;
mod oci;
mod peers;
mod report;

use std::path::PathBuf;
use std::process::ExitCode;

fn main() -> ExitCode {
    let mut args = std::env::args_os().skip(1);
    let Some(binary) = args.next().map(PathBuf::from) else {
        eprintln!("usage: rorqual-bench BINARY [JOB…]; jobs: {}", jobs::NAMES.join(" "));
        return ExitCode::from(2);
    };
    let alone = if binary.as_os_str() == network::ASK {
        let name = args.next().unwrap_or_default();
        Some(network::ask(&name.to_string_lossy()))
    } else if binary.as_os_str() == oci::HERE {
        let binary = args.next().unwrap_or_default();
        let rounds = args.next().and_then(|rounds| rounds.to_str()?.parse().ok()).unwrap_or(1);
        Some(oci::here(binary.as_ref(), rounds))
    } else {
        None
    };
    match alone {
        Some(Ok(figures)) => {
            println!("{figures}");
            return ExitCode::SUCCESS;
        }
        Some(Err(error)) => {
            eprintln!("rorqual-bench: {error}");
            return ExitCode::FAILURE;
        }
        None => {}
    }
    let wanted: Vec<String> = args.map(|arg| arg.to_string_lossy().into_owned()).collect();
    let outcome =
        binary.canonicalize().map_err(Into::into).and_then(|binary| jobs::run(&binary, &wanted));
    match outcome {
        Ok(rows) => {
            let text = report::table(&rows);
            println!("{text}");
            match report::keep(&text) {
                Ok(path) => println!("written to {}", path.display()),
                Err(error) => eprintln!("cannot keep the table: {error}"),
            }
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("rorqual-bench: {error}");
            ExitCode::FAILURE
        }
    }
}
