//! Networks, address management, endpoints, network namespaces, firewall.
//!
//! Knows nothing of a container's life cycle: it attaches and detaches what it is told to.

mod contract;

pub use contract::{
    Attach, Endpoint, EndpointRequest, Error, HostFiles, NetworkRecord, Networks, PortProtocol,
    PublishedPort, Sandbox, SandboxKind,
};
