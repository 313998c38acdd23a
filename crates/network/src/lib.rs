//! Networks, address management, endpoints, network namespaces, firewall.
//!
//! Knows nothing of a container's life cycle: it attaches and detaches what it is told to.

mod book;
mod bridge;
mod bridges;
mod cidr;
mod contract;
mod design;
mod dns;
#[cfg(any(test, feature = "fake"))]
pub mod fake;
mod files;
mod firewall;
mod ipam;
mod janitor;
mod link;
mod names;
mod owned;
mod ports;
mod relay;
#[cfg(any(test, feature = "fake"))]
pub mod suite;
#[cfg(test)]
mod testing;
mod warm;

pub use bridge::{BridgeOptions, DefaultBridge, Relay, Traffic};
pub use bridges::{Bridges, NetworkPlugins};
pub use cidr::{Cidr, Cidr4, Cidr6, InvalidCidr};
pub use contract::{
    AddressDriver, Attach, Endpoint, EndpointRequest, Error, HostFiles, NamespaceOwner,
    NetworkRecord, NetworkRequest, Networks, PortProtocol, PublishedPort, Sandbox, SandboxKind,
    Subnet, SubnetRequest, UserNamespace,
};
pub use dns::{ROLE as RESOLVER_ROLE, main as resolver_main};
pub use files::HostSide;
pub use ipam::{SubnetPool, default_pools};
pub use ports::{recorded as recorded_ports, recorded_exposed as recorded_exposed_ports};
