//! The container's control group, from the specification's resources.

use std::os::fd::BorrowedFd;

use oci_spec::runtime::Spec;

use crate::Error;
use crate::plan::Hierarchy;

#[derive(Debug)]
pub(crate) struct Group;
#[derive(Debug)]
pub(crate) struct ForChild;
impl ForChild {
    pub(crate) fn directory(&self) -> Option<BorrowedFd<'_>> { None }
    pub(crate) fn enter(&self) -> std::io::Result<()> { Ok(()) }
}
impl Group {
    pub(crate) fn unified(&self) -> bool { false }
    pub(crate) fn hierarchies(&self) -> Vec<Hierarchy> { Vec::new() }
    pub(crate) fn description(&self) -> String { String::new() }
    pub(crate) fn for_child(&self) -> Option<ForChild> { None }
    pub(crate) fn remove(self) {}
}
pub(crate) fn create(_id: &str, _spec: &Spec, _w: &mut Vec<String>) -> Result<Group, Error> { Ok(Group) }
pub(crate) fn open(_text: &str) -> Result<Group, Error> { Ok(Group) }
