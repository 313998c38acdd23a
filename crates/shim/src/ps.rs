//! Lists processes as `ps` does.
use crate::Error;
use crate::task::ProcessTable;
pub(crate) struct Format;
impl Format {
    pub(crate) fn parse(_args: &str) -> Result<Self, Error> {
        Ok(Self)
    }
}
pub(crate) fn table(_format: &Format, _pids: &[i32]) -> ProcessTable {
    ProcessTable::default()
}
