//! Commands on the daemon itself.

mod events;
mod info;
mod usage;
mod version;

pub(super) use events::EVENTS;
pub(super) use info::INFO;
pub(super) use version::VERSION;

use crate::flag::Command;

/// `system`
pub(super) static GROUP: Command = Command {
    name: "system",
    usage: "COMMAND",
    about: "Manage the daemon",
    children: &[&usage::DF, &usage::DIAL, &EVENTS, &INFO, &usage::PRUNE],
    ..Command::EMPTY
};
