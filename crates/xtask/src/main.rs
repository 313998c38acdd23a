//! Repository chores: `cargo xtask sizes` prints what the calm of the code is measured by.
#![expect(clippy::print_stdout, reason = "a command line program for developers")]

use rorqual_xtask::source_files;

fn main() {
    for file in source_files() {
        let lines = std::fs::read_to_string(&file).map_or(0, |text| text.lines().count());
        println!("{lines:6} {}", file.display());
    }
}
