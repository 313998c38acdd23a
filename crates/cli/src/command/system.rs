//! Commands on the daemon itself.

mod version;

pub(super) use version::VERSION;
