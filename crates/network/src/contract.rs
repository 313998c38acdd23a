//! The contract between the engine and networks.
//!
//! Before a container starts, the engine calls [`Networks::attach`] and gets a namespace that is ready: interfaces,
//! addresses, routes and firewall are in place. When the container has ended it calls [`Networks::detach`]. A daemon that
//! starts calls [`Networks::adopt`] for running containers and [`Networks::sweep`] for what nobody owns.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use async_trait::async_trait;
use rorqual_core::idmap::IdMaps;
use rorqual_core::{BoxError, Classify, ContainerId, ErrorKind, NetworkId, Timestamp};
use serde::{Deserialize, Serialize};

use crate::cidr::{Cidr, InvalidCidr};

/// A failure of networking.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No such network.
    // COMPAT: clients look for this text.
    #[error("network {0} not found")]
    NoSuchNetwork(String),
    /// No such configuration of networks.
    // COMPAT: dockerd's words.
    #[error("configuration network {0:?} does not exist")]
    NoSuchConfiguration(String),
    /// No such driver.
    // COMPAT: dockerd's words.
    #[error("plugin {0:?} not found")]
    NoSuchDriver(String),
    /// The request asks for something impossible.
    #[error("{0}")]
    InvalidArgument(String),
    /// The request contradicts the present state.
    #[error("{0}")]
    Conflict(String),
    /// Not allowed, as removing a predefined network.
    #[error("{0}")]
    Forbidden(String),
    /// A host port is in use.
    // COMPAT: dockerd answers 500 with its own words, not 409.
    #[error("{0}")]
    PortTaken(String),
    /// The kernel lacks it, or it is not built yet.
    #[error("{0}")]
    Unsupported(String),
    /// A plugin failed, or does not do what it is asked.
    #[error("{0}")]
    Plugin(String),
    /// A kernel call failed.
    #[error("cannot {action}")]
    Os {
        /// What was tried, on what.
        action: String,
        /// Why.
        source: BoxError,
    },
}

impl Classify for Error {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::NoSuchNetwork(_) | Self::NoSuchDriver(_) | Self::NoSuchConfiguration(_) => {
                ErrorKind::NotFound
            }
            Self::InvalidArgument(_) => ErrorKind::InvalidArgument,
            Self::Conflict(_) => ErrorKind::Conflict,
            Self::Forbidden(_) => ErrorKind::Forbidden,
            Self::Unsupported(_) => ErrorKind::Unsupported,
            Self::PortTaken(_) | Self::Plugin(_) | Self::Os { .. } => ErrorKind::Internal,
        }
    }
}

/// A subnet of a network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subnet {
    /// In CIDR form.
    pub subnet: String,
    /// Part of it that addresses are given out from, in CIDR form; empty: all.
    pub range: String,
    /// The host's address in it, and the containers' way out.
    pub gateway: Option<IpAddr>,
    /// Addresses that are never given out, by what they are for.
    pub auxiliary: BTreeMap<String, IpAddr>,
    /// The user chose it, and may choose addresses in it.
    pub configured: bool,
    /// What the plugin that gives its addresses away calls it; empty without one.
    #[serde(default)]
    pub pool: String,
    /// The gateway follows from the subnet that the user chose.
    // COMPAT: it is not shown then.
    #[serde(default)]
    pub implied: bool,
}

impl Subnet {
    /// Reads the subnet.
    pub(crate) fn cidr(&self) -> Result<Cidr, Error> {
        self.subnet.parse().map_err(|error: InvalidCidr| Error::InvalidArgument(error.to_string()))
    }

    /// Reads the range.
    pub(crate) fn range_cidr(&self) -> Result<Option<Cidr>, Error> {
        let parse = |text: &str| text.parse();
        let range = (!self.range.is_empty()).then(|| parse(&self.range)).transpose();
        range.map_err(|error: InvalidCidr| Error::InvalidArgument(error.to_string()))
    }
}

/// A network to be made, as the user describes it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of its own that users see")]
pub struct NetworkRequest {
    /// Name.
    pub name: String,
    /// Driver; empty: `bridge`.
    pub driver: String,
    /// Give IPv4 addresses away.
    pub ipv4: bool,
    /// Give IPv6 addresses away.
    pub ipv6: bool,
    /// No way out.
    pub internal: bool,
    /// Said to be open to containers of others; without a meaning for networks of one host.
    pub attachable: bool,
    /// Subnets; for a family without one, a free one is chosen.
    pub subnets: Vec<SubnetRequest>,
    /// Who gives addresses away.
    pub ipam: AddressDriver,
    /// Driver options.
    pub options: BTreeMap<String, String>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Only a configuration, for others to be made from.
    pub config_only: bool,
    /// The configuration it is made from; empty: none.
    pub config_from: String,
}

/// Who gives the addresses of a network away.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddressDriver {
    /// A plugin's name; empty or `default`: this crate.
    pub name: String,
    /// Options of it. Those of this crate are kept and shown, and mean nothing.
    // COMPAT: dockerd does so.
    pub options: BTreeMap<String, String>,
}

impl AddressDriver {
    /// Tells whether a plugin gives them away.
    pub fn is_remote(&self) -> bool {
        !matches!(self.name.as_str(), "" | "default")
    }
}

/// A subnet as the user describes it; empty texts leave the choice open.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SubnetRequest {
    /// In CIDR form.
    pub subnet: String,
    /// Part of it that addresses are given out from, in CIDR form.
    pub range: String,
    /// Address of the gateway.
    pub gateway: String,
    /// Addresses that are never given out, by what they are for.
    pub auxiliary: BTreeMap<String, String>,
    /// What the plugin that gives its addresses away calls it.
    pub pool: String,
}

/// A network as `inspect` shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of its own that users see")]
pub struct NetworkRecord {
    /// Identity.
    pub id: NetworkId,
    /// `bridge`, `host`, `none`, or a user's name.
    pub name: String,
    /// `bridge`, `macvlan`, `ipvlan`, `host`, `null`
    pub driver: String,
    /// When it was made.
    pub created: Timestamp,
    /// Subnets; those of a bridge at most one of each family.
    pub subnets: Vec<Subnet>,
    /// Subnets of a family that is off: kept and shown, and never used.
    // COMPAT: dockerd takes them.
    #[serde(default)]
    pub unused: Vec<Subnet>,
    /// Who gives addresses away.
    #[serde(default)]
    pub ipam: AddressDriver,
    /// Driver options as shown.
    pub options: BTreeMap<String, String>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// IPv4 is on.
    pub ipv4: bool,
    /// IPv6 is on.
    pub ipv6: bool,
    /// No way out.
    pub internal: bool,
    /// As asked for.
    pub attachable: bool,
    /// Only a configuration, which no container joins.
    #[serde(default)]
    pub config_only: bool,
    /// The configuration it was made from; empty: none.
    #[serde(default)]
    pub config_from: String,
}

impl NetworkRecord {
    /// Checks what a container asks of the network before it is made.
    ///
    /// # Errors
    /// `InvalidArgument` with all that is wrong.
    pub fn check(&self, request: &EndpointRequest) -> Result<(), Error> {
        crate::book::check_request(self, request)
    }

    /// Tells whether it is there without anybody having made it.
    pub fn is_predefined(&self) -> bool {
        matches!(self.name.as_str(), "bridge" | "host" | "none")
    }
}

/// `tcp`, `udp`, `sctp`
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PortProtocol {
    /// TCP
    Tcp,
    /// UDP
    Udp,
    /// SCTP
    Sctp,
}

/// A container port reachable through the host.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PublishedPort {
    /// Port inside.
    pub container: u16,
    /// Protocol.
    pub protocol: PortProtocol,
    /// Host address; `None`: all.
    pub host_ip: Option<IpAddr>,
    /// First and last host port to choose from; zero: any.
    pub host: (u16, u16),
}

/// One network that a container joins.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointRequest {
    /// Name or id of the network.
    pub network: String,
    /// Asked for, else chosen.
    pub ipv4: Option<Ipv4Addr>,
    /// Asked for, else chosen.
    pub ipv6: Option<Ipv6Addr>,
    /// Asked for as `02:42:ac:11:00:02`, else made up.
    pub mac: Option<String>,
    /// Further names on this network.
    pub aliases: Vec<String>,
    /// The network of the highest number has the default gateway.
    #[serde(default)]
    pub gateway_priority: i64,
    /// Options of the network's driver.
    #[serde(default)]
    pub options: BTreeMap<String, String>,
    /// Further addresses, which are known on the link only.
    #[serde(default)]
    pub link_local: Vec<IpAddr>,
    /// `(container, alias)`: names that this container alone has for others of the network.
    #[serde(default)]
    pub links: Vec<(String, String)>,
}

/// Which network namespace the container gets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SandboxKind {
    /// Its own, with these networks (none: only loopback).
    Own(Vec<EndpointRequest>),
    /// The host's.
    Host,
    /// That of another container, whose init has this process id; files are shared too.
    Container(ContainerId, i32),
}

/// Who owns the namespaces of a container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum NamespaceOwner {
    /// The host's user namespace.
    #[default]
    Host,
    /// A new user namespace with these maps.
    New(IdMaps),
    /// The user namespace of the process with this id, which is not the host's.
    Of(i32),
}

/// A user namespace.
#[derive(Debug)]
pub struct UserNamespace {
    /// To be joined by the runtime.
    pub fd: OwnedFd,
    /// Who its ids are on the host.
    pub maps: IdMaps,
}

/// A container to connect.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attach {
    /// Which.
    pub container: ContainerId,
    /// Its namespace.
    pub kind: SandboxKind,
    /// Who owns it.
    #[serde(default)]
    pub owner: NamespaceOwner,
    /// Its name in DNS and events.
    pub name: String,
    /// Host name inside.
    pub hostname: String,
    /// Domain name inside.
    pub domainname: String,
    /// `name:address` lines for the hosts file; `host-gateway` is resolved.
    pub extra_hosts: Vec<String>,
    /// Name servers; empty: the host's.
    pub dns: Vec<IpAddr>,
    /// Search domains; empty: the host's.
    pub dns_search: Vec<String>,
    /// Resolver options.
    pub dns_options: Vec<String>,
    /// Ports to publish.
    pub ports: Vec<PublishedPort>,
    /// Where `hosts`, `hostname` and `resolv.conf` are written.
    pub directory: PathBuf,
}

/// A container's place in one network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    /// Network.
    pub network: NetworkId,
    /// Its name.
    pub network_name: String,
    /// Identity of the endpoint, 64 hex digits.
    pub id: String,
    /// Interface inside.
    pub interface: String,
    /// Hardware address.
    pub mac: String,
    /// Address and prefix length.
    pub ipv4: Option<(Ipv4Addr, u8)>,
    /// Gateway.
    pub gateway: Option<Ipv4Addr>,
    /// Address and prefix length.
    pub ipv6: Option<(Ipv6Addr, u8)>,
    /// Gateway.
    pub gateway6: Option<Ipv6Addr>,
    /// Further names on this network.
    #[serde(default)]
    pub aliases: Vec<String>,
    /// The network of the highest number has the default gateway.
    #[serde(default)]
    pub gateway_priority: i64,
    /// The way out is the link itself, without a gateway.
    #[serde(default)]
    pub direct: bool,
    /// `(container, alias)`: names that this container alone has for others of the network.
    #[serde(default)]
    pub links: Vec<(String, String)>,
}

/// Files to bind into the container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostFiles {
    /// `/etc/hosts`
    pub hosts: PathBuf,
    /// `/etc/hostname`
    pub hostname: PathBuf,
    /// `/etc/resolv.conf`
    pub resolv_conf: PathBuf,
}

/// A namespace that is ready for use.
#[derive(Debug)]
pub struct Sandbox {
    /// To be joined by the runtime; `None` for the host's.
    pub namespace: Option<OwnedFd>,
    /// To be joined by the runtime, too; `None` where it is the host's.
    pub user: Option<UserNamespace>,
    /// Where the container is reachable.
    pub endpoints: Vec<Endpoint>,
    /// Ports as they were published, with single host ports.
    pub ports: Vec<PublishedPort>,
    /// Files to bind.
    pub files: HostFiles,
    /// Words for the user.
    pub warnings: Vec<String>,
}

/// The networks of one daemon.
#[async_trait]
pub trait Networks: Send + Sync + 'static {
    /// Lists networks.
    async fn list(&self) -> Result<Vec<NetworkRecord>, Error>;
    /// Finds a network by name, id or unambiguous id prefix.
    async fn find(&self, text: &str) -> Result<NetworkRecord, Error>;
    /// Makes a network, which outlives the daemon; all of it or, on failure, none of it.
    async fn create(&self, request: NetworkRequest) -> Result<NetworkRecord, Error>;
    /// Removes a network that nobody is attached to.
    async fn remove(&self, network: &NetworkId) -> Result<(), Error>;
    /// Lists endpoints of a network with their containers.
    async fn endpoints(
        &self,
        network: &NetworkId,
    ) -> Result<Vec<(ContainerId, String, Endpoint)>, Error>;
    /// Makes a namespace ready; all of it or, on failure, none of it.
    async fn attach(&self, attach: Attach) -> Result<Sandbox, Error>;
    /// Connects a container that is attached, and whose init has this process id, to one more network.
    ///
    /// Returns its endpoints. All of it or, on failure, nothing changes.
    async fn connect(
        &self,
        container: &ContainerId,
        pid: i32,
        request: EndpointRequest,
    ) -> Result<Vec<Endpoint>, Error>;
    /// Calls a container by another name from now on; one that is not attached has none here.
    async fn rename(&self, container: &ContainerId, name: &str) -> Result<(), Error>;
    /// Takes one endpoint of an attached container back; returns those that remain.
    async fn disconnect(
        &self,
        container: &ContainerId,
        pid: i32,
        network: &NetworkId,
    ) -> Result<Vec<Endpoint>, Error>;
    /// Takes a container's endpoints, addresses, ports and rules back. Idempotent. Returns before the kernel has finished.
    async fn detach(&self, container: &ContainerId) -> Result<(), Error>;
    /// Takes over the endpoints of a container that runs already.
    async fn adopt(&self, container: &ContainerId, pid: i32) -> Result<Vec<Endpoint>, Error>;
    /// Removes whatever belongs to containers that are not listed.
    async fn sweep(&self, known: &[ContainerId]) -> Result<(), Error>;
}
