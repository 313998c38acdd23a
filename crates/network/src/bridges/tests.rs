//! The real networks, in namespaces standing for the host and a neighbour of it. Need root.

mod addresses;
mod capacity;
mod host;
mod modes;
mod names;
mod recovery;
mod relayed;
mod remote;
mod resolver;
mod speed;
mod traffic;

use crate::suite;

#[test]
fn passes_the_suite() {
    host::on_a_host(|host| {
        let networks = host.open();
        host.block_on(suite::all(&networks, host.directory()));
        networks.settle();
        drop(networks);
        host.assert_clean();
    });
}

#[test]
fn passes_the_suite_without_a_warm_pool() {
    host::on_a_host(|host| {
        let mut options = host.options();
        options.warm = 0;
        let networks = crate::Bridges::open(options).unwrap();
        host.block_on(suite::all(&networks, host.directory()));
    });
}
