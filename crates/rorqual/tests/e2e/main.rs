//! End to end: the real binary as client and daemon, in namespaces of its own, with a leak check after each scenario.

mod build;
mod build_bake;
mod build_client;
mod build_reasons;
mod build_shell;
mod build_sources;
mod build_steps;
mod build_travel;
mod client;
mod compat;
mod crash;
mod credentials;
mod daemon;
mod execs;
mod exhaustion;
mod faults;
mod files;
mod hostile;
mod images;
mod isolation;
mod lifecycle;
mod limits;
mod logs;
mod mounts;
mod nested;
mod network_faults;
mod networks;
mod plugins;
mod ports;
mod power_cut;
mod registries;
mod registry_own;
mod remap;
mod remote;
mod run;
mod volumes;
mod volumes_data;

use rorqual_testkit::{Host, HostOptions, TestResult};

/// The binary under test.
const RORQUAL: &str = env!("CARGO_BIN_EXE_rorqual");

/// Runs `steps` on a host with the busybox image, then checks that nothing is left.
fn scenario(steps: impl FnOnce(&mut Host) -> TestResult) -> TestResult {
    scenario_with(HostOptions::default(), steps)
}

/// Like [`scenario`], with daemon options.
fn scenario_with(options: HostOptions, steps: impl FnOnce(&mut Host) -> TestResult) -> TestResult {
    let mut host = Host::start_with(RORQUAL, options)?;
    host.import_busybox()?;
    steps(&mut host)?;
    host.finish()
}

/// Reads one value from `inspect`.
fn inspect(host: &Host, container: &str, format: &str) -> TestResult<String> {
    host.cli(["inspect", "--format", format, container])?.ok()
}
