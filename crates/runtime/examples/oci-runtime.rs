//! The runtime's command line as a program of its own, for trying it out.

fn main() -> std::process::ExitCode {
    rorqual_runtime::cli::main(std::env::args_os())
}
