//! Networks of this host: [`Networks`] over a Linux bridge, warm namespaces and an nf_tables table.
//!
//! The order of an attachment: decide and reserve (address, ports) under one short lock, note it on disk, then tell the
//! kernel. Whatever fails takes everything back. What is on disk is enough for the next daemon to take over.

mod addresses;
mod attach;
mod attend;
mod holding;
mod join;
mod keeping;
mod manage;
mod parents;
mod records;
mod recover;
mod relays;
mod remote;
mod resolve;
mod steady;
mod watch;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use rorqual_core::{ContainerId, NetworkId};
use rorqual_sys::net::{Protocol, Socket};

use crate::book::Book;
use crate::bridge::{self, Bridge, BridgeOptions, DefaultBridge};
use crate::design::GatewayMode;
use crate::firewall::{BridgePolicy, Firewall, Router};
use crate::janitor::Janitor;
use crate::link::{LinkKind, Plan};
use crate::names::Tag;
use crate::ports::PortTable;
use crate::warm::WarmPool;
use crate::{
    Attach, Endpoint, EndpointRequest, Error, NetworkRecord, NetworkRequest, Networks, Sandbox,
};

use records::Records;
pub use remote::NetworkPlugins;
use watch::Watchman;

/// What may change, under one lock that is never held across a kernel call that waits.
#[derive(Debug)]
struct State {
    book: Book,
    /// The socket keeps the port from others; without one, another program had it when the daemon came back.
    ports: PortTable<holding::Held>,
    /// Bridges by network.
    bridges: BTreeMap<NetworkId, Arc<BridgeNetwork>>,
    /// How many are just joining or leaving a network.
    joining: BTreeMap<NetworkId, usize>,
}

/// A bridge's fixed facts, and its pools.
#[derive(Debug)]
struct BridgeNetwork {
    plan: Plan,
    /// What the firewall does for it; nothing without a bridge.
    policy: Option<BridgePolicy>,
    /// The way out is the link itself.
    direct: bool,
    /// The containers' way out, where there is one.
    gateway: Option<Ipv4Addr>,
    gateway6: Option<Ipv6Addr>,
    /// How interfaces inside are called, without their number.
    prefix: String,
    /// Address that ports are published on unless the user says otherwise.
    publish_on: Option<IpAddr>,
    /// Namespaces made in advance; for the default bridge only.
    pool: Option<WarmPool>,
    /// The plugin that makes the links.
    remote: Option<remote::Driver>,
    /// The plugin that gives addresses away.
    ipam: Option<Arc<remote::Addresses>>,
}

#[derive(Debug)]
struct Inner {
    options: BridgeOptions,
    tag: Tag,
    records: Records,
    /// The default bridge.
    bridge: Option<Arc<BridgeNetwork>>,
    /// Held while a network comes or goes; never while a plugin is asked.
    changing: Mutex<()>,
    state: Mutex<State>,
    /// Somebody has joined or left a network.
    joined: Condvar,
    route: Mutex<Socket>,
    /// Links of containers that were there at the start, until all who were there have been adopted.
    found_links: Mutex<Option<BTreeSet<String>>>,
    firewall: Option<Arc<Mutex<Firewall>>>,
    relays: relays::Relaying,
    resolver: Mutex<resolve::Resolver>,
    bell: attend::Bell,
    kept: keeping::Kept,
    // Ends before the pool and the firewall it uses are dropped.
    _watchman: Option<Watchman>,
    janitor: Janitor,
}

/// The networks of a daemon on this host.
///
/// Belongs to the network namespace of the thread that opens it.
#[derive(Clone, Debug)]
pub struct Bridges(Arc<Inner>);

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Bridges {
    /// Sets up the default bridge and the firewall, and takes over what an earlier daemon with the same state left: its
    /// addresses and ports stay taken until [`Networks::sweep`] says otherwise. Blocks for some milliseconds.
    ///
    /// # Errors
    /// `InvalidArgument` for a configuration that cannot be, `Os` when the kernel refuses.
    pub fn open(options: BridgeOptions) -> Result<Self, Error> {
        let tag = Tag::of(&options.state);
        let records = Records::open(&options.run_dir, &options.state)?;
        let mut route = Socket::open(Protocol::Route)
            .map_err(|error| bridge::failed("open a netlink socket")(error.into()))?;
        let attached = records.load()?;
        let found_links = recover::delete_unclaimed(&mut route, &tag, &attached)?;

        let (made, mut router) = match &options.bridge {
            DefaultBridge::Off => (None, Router::AsItWas),
            DefaultBridge::Named(name) => {
                let made = bridge::set_up(name, &options, &tag, &mut route)?;
                let router = bridge::tune(&made, options.traffic, &options.run_dir)?;
                (Some(made), router)
            }
        };
        let mut networks = records.predefined(made.as_ref(), &options)?;
        let users = records.networks()?;
        networks.extend(users.iter().cloned());
        let mut state = State {
            book: Book { networks, attached },
            ports: PortTable::default(),
            bridges: BTreeMap::new(),
            joining: BTreeMap::new(),
        };
        let default = state.book.find("bridge").ok().map(|record| record.id);
        let bridge = made
            .zip(default)
            .map(|(made, id)| start_default(made, id, &options, &tag, &state).map(Arc::new))
            .transpose()?;
        state.bridges.extend(default.zip(bridge.clone()));
        for record in users.iter().filter(|record| !record.config_only) {
            match manage::start_network(record, &options, &tag, &mut route) {
                Ok((started, found)) => {
                    recover::retake_addresses(&state.book, &record.id, &started.plan.addresses);
                    if found == Router::OnlyBridges {
                        router = found;
                    }
                    state.bridges.insert(record.id, Arc::new(started));
                }
                Err(error) => {
                    let error = rorqual_core::full_message(&error);
                    tracing::error!(network = record.name, error, "a network cannot be set up");
                }
            }
        }
        let relays = relays::Relaying::new(options.traffic);
        recover::retake_ports(&mut state, relays);

        let bell = attend::Bell::new()?;
        let mut resolver = resolve::Resolver::new(&options.run_dir, bell.rope());
        let firewall = if options.traffic.firewall {
            // ORDER: nobody can change the table while another socket owns it.
            if let Err(error) = resolver.let_go_firewall() {
                let error = rorqual_core::full_message(&error);
                tracing::warn!(error, "the firewall may still be kept for an earlier daemon");
            }
            let mut firewall =
                Firewall::open(tag.table(), router, relays != relays::Relaying::Off)?;
            firewall.expect(policies(&state), recover::published(&state, relays));
            firewall.restore()?;
            Some(Arc::new(Mutex::new(firewall)))
        } else {
            None
        };
        let watchman = firewall.as_ref().map(Watchman::start).transpose()?;
        let inner = Arc::new(Inner {
            options,
            tag,
            records,
            bridge,
            changing: Mutex::new(()),
            state: Mutex::new(state),
            joined: Condvar::new(),
            route: Mutex::new(route),
            found_links: Mutex::new(Some(found_links)),
            firewall,
            relays,
            resolver: Mutex::new(resolver),
            bell,
            kept: keeping::Kept::default(),
            _watchman: watchman,
            janitor: Janitor::start()?,
        });
        attend::start(&inner)?;
        inner.keep_firewall_soon();
        inner.relay_again();
        remote::replay(&inner)?;
        Ok(Self(inner))
    }

    /// Runs blocking work where it does not hold up others; it runs to its end even if the caller goes away.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Inner) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let inner = Arc::clone(&self.0);
        let finished = tokio::task::spawn_blocking(move || work(&inner)).await;
        finished.unwrap_or_else(|source| {
            Err(Error::Os { action: "run network work".to_owned(), source: source.into() })
        })
    }

    /// Waits until links of detached containers are gone from the host. Blocks.
    pub fn settle(&self) {
        self.0.janitor.flush();
    }

    /// Removes the firewall table, for a daemon that is taken off the host. Blocks.
    ///
    /// # Errors
    /// `Os` when the kernel refuses.
    pub fn remove_firewall(&self) -> Result<(), Error> {
        self.0.firewall.as_ref().map_or(Ok(()), |firewall| lock(firewall).remove())
    }
}

fn policies(state: &State) -> Vec<BridgePolicy> {
    state.bridges.values().filter_map(|bridge| bridge.policy.clone()).collect()
}

/// Starts the default bridge, whose namespaces are made in advance.
fn start_default(
    made: Bridge,
    id: NetworkId,
    options: &BridgeOptions,
    tag: &Tag,
    state: &State,
) -> Result<BridgeNetwork, Error> {
    let Some(own) = made.own else {
        return Err(Error::InvalidArgument("the default bridge has no IPv4 address".to_owned()));
    };
    let addresses = Arc::new(Mutex::new(made.addresses));
    // ORDER: before the pool draws its own.
    recover::retake_addresses(&state.book, &id, &addresses);
    let plan = Plan {
        kind: LinkKind::Bridge { index: made.index, isolated: !options.traffic.icc },
        mtu: Some(options.mtu),
        tag: tag.clone(),
        prefix: own.prefix,
        gateway: own.address,
        addresses,
    };
    let pool = WarmPool::start(plan.clone(), options.warm, options.owner.clone())?;
    let policy = BridgePolicy {
        name: made.name,
        subnet: Some(own.subnet()),
        subnet6: None,
        internal: false,
        masquerade: options.traffic.ip_masq,
        leave_as: (None, None),
        icc: options.traffic.icc,
        mode4: GatewayMode::Nat,
        mode6: GatewayMode::Nat,
        trusted: Vec::new(),
    };
    Ok(BridgeNetwork {
        plan,
        policy: Some(policy),
        direct: false,
        gateway: Some(own.address),
        gateway6: None,
        prefix: "eth".to_owned(),
        publish_on: options.publish_on,
        pool: Some(pool),
        remote: None,
        ipam: None,
    })
}

#[async_trait]
impl Networks for Bridges {
    async fn list(&self) -> Result<Vec<NetworkRecord>, Error> {
        Ok(lock(&self.0.state).book.networks.clone())
    }

    async fn find(&self, text: &str) -> Result<NetworkRecord, Error> {
        lock(&self.0.state).book.find(text).cloned()
    }

    async fn create(&self, request: NetworkRequest) -> Result<NetworkRecord, Error> {
        self.blocking(move |inner| inner.create(request)).await
    }

    async fn remove(&self, network: &NetworkId) -> Result<(), Error> {
        let network = *network;
        self.blocking(move |inner| inner.remove(&network)).await
    }

    async fn connect(
        &self,
        container: &ContainerId,
        pid: i32,
        request: EndpointRequest,
    ) -> Result<Vec<Endpoint>, Error> {
        let container = *container;
        self.blocking(move |inner| inner.connect_running(&container, pid, &request)).await
    }

    async fn rename(&self, container: &ContainerId, name: &str) -> Result<(), Error> {
        let (container, name) = (*container, name.to_owned());
        self.blocking(move |inner| inner.rename(&container, name)).await
    }

    async fn disconnect(
        &self,
        container: &ContainerId,
        pid: i32,
        network: &NetworkId,
    ) -> Result<Vec<Endpoint>, Error> {
        let (container, network) = (*container, *network);
        self.blocking(move |inner| inner.disconnect_running(&container, pid, &network)).await
    }

    async fn endpoints(
        &self,
        network: &NetworkId,
    ) -> Result<Vec<(ContainerId, String, Endpoint)>, Error> {
        lock(&self.0.state).book.endpoints(network)
    }

    async fn attach(&self, attach: Attach) -> Result<Sandbox, Error> {
        self.blocking(move |inner| inner.attach(&attach)).await
    }

    async fn detach(&self, container: &ContainerId) -> Result<(), Error> {
        let container = *container;
        self.blocking(move |inner| inner.detach(&container)).await
    }

    async fn adopt(&self, container: &ContainerId, pid: i32) -> Result<Vec<Endpoint>, Error> {
        let container = *container;
        self.blocking(move |inner| inner.adopt(&container, pid)).await
    }

    async fn sweep(&self, known: &[ContainerId]) -> Result<(), Error> {
        let known = known.iter().copied().collect();
        self.blocking(move |inner| inner.sweep(&known)).await
    }
}

#[cfg(test)]
mod tests;
