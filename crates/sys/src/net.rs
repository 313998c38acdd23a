//! Links, addresses and routes by rtnetlink, and network namespaces.
//!
//! Requests are encoded into a [`Batch`] by the functions here and sent with one system call by a [`Socket`], which reads all
//! acknowledgements. A socket belongs to the network namespace it was opened in for as long as it lives, so one thread
//! can serve many namespaces. Decides nothing about names, addresses or who gets what.

mod address;
mod diagnosis;
mod link;
mod message;
mod namespace;
mod reserve;
mod socket;

pub use address::{
    Address, Neighbour, Route, add_address, add_neighbour, add_route, addresses, delete_address,
    delete_route, lasting_addresses, routes,
};
pub use diagnosis::{Bound, bound_ports};
pub use link::{
    Change, Link, LinkRef, Stacked, StackedLink, Veth, add_bridge, add_dummy, add_stacked,
    add_veth, change_link, delete_link, find_link, links,
};
pub use message::Batch;
pub(crate) use message::{attributes, text};
pub use namespace::{
    new_namespace, own_namespace, process_namespace, read_sysctl, run_in_namespace, set_sysctl,
};
pub use reserve::{Transport, connect_later, open_port, reserve_port};
pub(crate) use socket::Answers;
pub use socket::{NetlinkError, Protocol, Socket};

#[cfg(test)]
mod tests;
