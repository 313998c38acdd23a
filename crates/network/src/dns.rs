//! The resolver that containers of user-made networks ask, at 127.0.0.11.
//!
//! It is a process of its own, one per daemon, and goes on when the daemon is killed or replaced: a query is answered
//! whether or not there is a daemon at that moment. The daemon tells it, per container, the names it may know and the
//! name servers to ask for all others; the sockets it answers on were opened in the container's namespace by the daemon.

mod cache;
mod guest;
mod message;
mod names;
mod resolver;
mod service;
mod wire;

pub(crate) use guest::{ADDRESS, open_sockets};
pub use service::{ROLE, main};
pub(crate) use wire::{Client, Guest, Place, Upstream};
