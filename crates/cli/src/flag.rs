//! The table of commands and flags, and everything that follows from it.
//!
//! Parser, help, shell completions and manual pages all read the same `Command` values.

mod complete;
mod help;
mod manual;
mod parse;
mod spec;

pub(crate) use complete::{Offer, candidates, script};
pub(crate) use help::{help, usage_line};
pub(crate) use manual::manual;
pub(crate) use parse::{Matches, UsageError, nano_cpus, parse, parse_bool};
pub(crate) use spec::{Args, Command, Completes, Flag, Kind};
