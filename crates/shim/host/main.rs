//! The smallest program with the launcher's role: what tests hand to `Shims::start` as the binary.

use std::process::ExitCode;

fn main() -> ExitCode {
    let mut args = std::env::args_os().skip(1);
    if args.next().is_some_and(|role| role == rorqual_shim::launcher::ROLE) {
        return rorqual_shim::launcher::main(args);
    }
    ExitCode::from(2)
}
