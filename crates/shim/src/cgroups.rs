//! What shim and daemon do with a container's control group.

use crate::Error;
use crate::task::Stats;
use oci_spec::runtime::LinuxResources;
use rorqual_core::Signal;

pub(crate) fn kill(_cgroup: &str) {}
pub(crate) fn remove(_cgroup: &str) {}
pub(crate) fn oom_killed(_cgroup: &str) -> bool {
    false
}
pub(crate) fn freeze(_cgroup: &str) -> Result<(), Error> {
    Ok(())
}
pub(crate) fn thaw(_cgroup: &str) -> Result<(), Error> {
    Ok(())
}
pub(crate) fn signal_all(_cgroup: &str, _signal: Signal) -> Result<(), Error> {
    Ok(())
}
pub(crate) fn update(_cgroup: &str, _resources: &LinuxResources) -> Result<(), Error> {
    Ok(())
}
pub(crate) fn stats(_cgroup: &str, _pid: i32) -> Result<Stats, Error> {
    Ok(Stats::default())
}
pub(crate) fn processes(_cgroup: &str) -> Result<Vec<i32>, Error> {
    Ok(Vec::new())
}
pub(crate) async fn next_oom(_cgroup: &str) -> Result<(), Error> {
    std::future::pending().await
}
