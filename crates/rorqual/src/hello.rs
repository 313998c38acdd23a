//! What the built-in image `rorqual/hello` says. It runs this very binary, so it needs no registry.
#![expect(clippy::print_stdout, reason = "printing is its purpose")]

use std::process::ExitCode;

const GREETING: &str = "
Hello from Rorqual!

This text comes out of a container:
 1. The client asked the daemon to create one from the image rorqual/hello, which the daemon makes of its own binary.
 2. The launcher forked a shim, and the shim cloned this process into namespaces of its own.
 3. The shim kept what you read in the container's log and streamed it to your terminal.

A shell in an image of your own:
 tar -C ROOTFS -c . | rorqual import - mine
 rorqual run -it --rm mine sh
";

pub(crate) fn main() -> ExitCode {
    println!("{}", GREETING.trim_end());
    ExitCode::SUCCESS
}
