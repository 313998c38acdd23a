//! Networks in memory, for tests of crates above. They follow every obligation of the contract but touch no kernel object:
//! the namespace they hand out is that of the caller.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use rorqual_core::{ContainerId, NetworkId, Timestamp};

use crate::book::{Attached, Book, bridge_record, plain_record};
use crate::cidr::{Cidr, Cidr4};
use crate::design::{self, Surroundings};
use crate::files::{self, HostSide};
use crate::ipam::{Pools, default_pools, mac_of, mac_text, parse_mac};
use crate::ports::PortTable;
use crate::{
    Attach, Endpoint, EndpointRequest, Error, NetworkRecord, NetworkRequest, Networks, Sandbox,
    SandboxKind,
};

const GATEWAY: Ipv4Addr = Ipv4Addr::new(172, 17, 0, 1);
const SUBNET: Cidr4 = Cidr4::new(Ipv4Addr::new(172, 17, 0, 0), 16);

#[derive(Debug)]
struct State {
    book: Book,
    pools: BTreeMap<NetworkId, Pools>,
    ports: PortTable<()>,
    /// What happened, in order.
    log: Vec<String>,
    failure: Option<Error>,
    drawn: u64,
}

/// Networks in memory; clones share their state.
#[derive(Clone, Debug)]
pub struct FakeNetworks(Arc<Mutex<State>>);

impl Default for FakeNetworks {
    fn default() -> Self {
        Self::new()
    }
}

impl FakeNetworks {
    /// Makes the three predefined networks.
    ///
    /// # Panics
    /// Never: the subnet is a constant.
    #[expect(clippy::expect_used, reason = "the subnet is a constant")]
    pub fn new() -> Self {
        let record = |n: u8| (NetworkId::from_random([n; 32]), Timestamp::from_nanos(u64::from(n)));
        let (bridge, host, none) = (record(1), record(2), record(3));
        let subnet = (SUBNET.to_string(), GATEWAY);
        let networks = vec![
            bridge_record(bridge.0, bridge.1, subnet, BTreeMap::new()),
            plain_record(host.0, host.1, "host", "host"),
            plain_record(none.0, none.1, "none", "null"),
        ];
        let pools = Pools::of(&networks[0]).expect("a /16 holds its own range");
        Self(Arc::new(Mutex::new(State {
            book: Book { networks, attached: BTreeMap::new() },
            pools: BTreeMap::from([(bridge.0, pools)]),
            ports: PortTable::default(),
            log: Vec::new(),
            failure: None,
            drawn: 0,
        })))
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets the next `attach` fail with `error`, nothing being changed.
    pub fn fail_next_attach(&self, error: Error) {
        self.state().failure = Some(error);
    }

    /// Returns which containers are attached.
    pub fn attached(&self) -> Vec<ContainerId> {
        self.state().book.attached.keys().copied().collect()
    }

    /// Returns the calls that changed something so far, as `attach <short id>`, in order.
    pub fn log(&self) -> Vec<String> {
        self.state().log.clone()
    }
}

impl State {
    fn endpoint(
        &mut self,
        network: &NetworkRecord,
        request: &EndpointRequest,
    ) -> Result<Endpoint, Error> {
        let wanted = request.mac.as_deref().map(parse_mac).transpose()?;
        let missing = || Error::NoSuchNetwork(network.name.clone());
        let pools = self.pools.get_mut(&network.id).ok_or_else(missing)?;
        let (ipv4, ipv6) = pools.take(request.ipv4, request.ipv6)?;
        self.drawn += 1;
        let mut endpoint = Endpoint {
            network: network.id,
            network_name: network.name.clone(),
            id: format!("{:064x}", self.drawn),
            interface: String::new(),
            mac: mac_text(wanted.or(ipv4.map(mac_of)).unwrap_or_default()),
            ipv4: None,
            gateway: None,
            ipv6: None,
            gateway6: None,
            aliases: request.aliases.clone(),
            gateway_priority: request.gateway_priority,
            direct: false,
            links: request.links.clone(),
        };
        for subnet in &network.subnets {
            let gateway = subnet.gateway.filter(|_| !network.internal);
            match (subnet.cidr()?, gateway) {
                (Cidr::V4(cidr), gateway) => {
                    endpoint.ipv4 = ipv4.map(|address| (address, cidr.prefix));
                    endpoint.gateway = gateway.and_then(|gateway| gateway.to_string().parse().ok());
                }
                (Cidr::V6(cidr), gateway) => {
                    endpoint.ipv6 = ipv6.map(|address| (address, cidr.prefix));
                    endpoint.gateway6 =
                        gateway.and_then(|gateway| gateway.to_string().parse().ok());
                }
            }
        }
        Ok(endpoint)
    }

    fn attach(&mut self, attach: &Attach) -> Result<Attached, Error> {
        let plan = self.book.plan(attach)?;
        let mut endpoints = Vec::new();
        for (number, (network, request)) in plan.iter().enumerate() {
            match self.endpoint(network, request) {
                Ok(endpoint) => {
                    let interface = format!("eth{number}");
                    endpoints.push(Endpoint { interface, ..endpoint });
                }
                Err(error) => {
                    self.free(&endpoints);
                    return Err(error);
                }
            }
        }
        let wanted = if endpoints.is_empty() { &[][..] } else { &attach.ports };
        let ports = self.ports.acquire(attach.container, wanted, |_| Ok(()));
        let ports = ports.inspect_err(|_| self.free(&endpoints))?;
        let attached = Attached {
            name: attach.name.clone(),
            kind: attach.kind.clone(),
            endpoints,
            ports,
            opened: Vec::new(),
            directory: attach.directory.clone(),
            links: Vec::new(),
            request: Some(attach.clone()),
            resolver: false,
            remote: BTreeMap::new(),
        };
        self.book.attached.insert(attach.container, attached.clone());
        Ok(attached)
    }

    fn free(&mut self, endpoints: &[Endpoint]) {
        for endpoint in endpoints {
            if let Some(pools) = self.pools.get_mut(&endpoint.network) {
                pools.give_back(endpoint.ipv4.map(|(ip, _)| ip), endpoint.ipv6.map(|(ip, _)| ip));
            }
        }
    }

    fn create(&mut self, request: NetworkRequest) -> Result<NetworkRecord, Error> {
        self.book.check_name(&request.name)?;
        if request.ipam.is_remote() && !request.config_only {
            return Err(Error::NoSuchDriver(request.ipam.name));
        }
        let request = self.book.configured(request)?;
        self.drawn += 1;
        let drawn = self.drawn;
        let mut bits = [0xee; 32];
        bits[..8].copy_from_slice(&drawn.to_le_bytes());
        let around = Surroundings {
            pools: &default_pools(),
            networks: self.book.subnets(),
            routes: Vec::new(),
            plugins: false,
        };
        let (id, created) = (NetworkId::from_random(bits), Timestamp::from_nanos(drawn));
        let random = || [1, 2, 3, 4, 5, 6, 7];
        let record = design::network(request, id, created, &around, random)?;
        self.pools.insert(record.id, Pools::of(&record)?);
        self.book.networks.push(record.clone());
        self.log.push(format!("create {}", record.name));
        Ok(record)
    }

    fn remove(&mut self, network: &NetworkId) -> Result<(), Error> {
        let name = self.book.check_removal(network)?.name.clone();
        self.book.networks.retain(|record| record.id != *network);
        self.pools.remove(network);
        self.log.push(format!("remove {name}"));
        Ok(())
    }

    fn connect(
        &mut self,
        container: &ContainerId,
        request: &EndpointRequest,
    ) -> Result<Vec<Endpoint>, Error> {
        let network = self.book.plan_connection(container, request)?;
        let endpoint = self.endpoint(&network, request)?;
        let endpoints = self.endpoints_of(container);
        let number = free_number(&endpoints);
        let interface = format!("eth{number}");
        self.log.push(format!("connect {} {}", container.short(), network.name));
        let endpoints = self.endpoints_mut(container);
        endpoints.push(Endpoint { interface, ..endpoint });
        Ok(endpoints.clone())
    }

    fn endpoints_of(&self, container: &ContainerId) -> Vec<Endpoint> {
        let attached = self.book.attached.get(container);
        attached.map(|attached| attached.endpoints.clone()).unwrap_or_default()
    }

    #[expect(clippy::expect_used, reason = "the callers have checked that it is attached")]
    fn endpoints_mut(&mut self, container: &ContainerId) -> &mut Vec<Endpoint> {
        &mut self.book.attached.get_mut(container).expect("it is attached").endpoints
    }

    fn disconnect(
        &mut self,
        container: &ContainerId,
        network: &NetworkId,
    ) -> Result<Vec<Endpoint>, Error> {
        self.book.attached(container)?;
        let endpoints = self.endpoints_mut(container);
        let Some(at) = endpoints.iter().position(|one| one.network == *network) else {
            return Err(Error::Forbidden(format!(
                "container {container} is not connected to network {network}"
            )));
        };
        let gone = endpoints.remove(at);
        let left = endpoints.clone();
        self.log.push(format!("disconnect {} {}", container.short(), gone.network_name));
        self.free(&[gone]);
        Ok(left)
    }

    fn detach(&mut self, container: &ContainerId) {
        if let Some(attached) = self.book.attached.remove(container) {
            self.ports.release(container);
            self.free(&attached.endpoints);
            self.log.push(format!("detach {}", container.short()));
        }
    }
}

/// Finds the first number that no interface of these has.
fn free_number(endpoints: &[Endpoint]) -> usize {
    let taken = |number: usize| endpoints.iter().any(|one| one.interface == format!("eth{number}"));
    (0..endpoints.len()).find(|number| !taken(*number)).unwrap_or(endpoints.len())
}

fn own_namespace() -> Result<OwnedFd, Error> {
    let file = std::fs::File::open("/proc/self/ns/net").map_err(|source| Error::Os {
        action: "open the network namespace".to_owned(),
        source: source.into(),
    })?;
    Ok(file.into())
}

#[async_trait]
impl Networks for FakeNetworks {
    async fn list(&self) -> Result<Vec<NetworkRecord>, Error> {
        Ok(self.state().book.networks.clone())
    }

    async fn find(&self, text: &str) -> Result<NetworkRecord, Error> {
        self.state().book.find(text).cloned()
    }

    async fn create(&self, request: NetworkRequest) -> Result<NetworkRecord, Error> {
        self.state().create(request)
    }

    async fn remove(&self, network: &NetworkId) -> Result<(), Error> {
        self.state().remove(network)
    }

    async fn connect(
        &self,
        container: &ContainerId,
        _pid: i32,
        request: EndpointRequest,
    ) -> Result<Vec<Endpoint>, Error> {
        self.state().connect(container, &request)
    }

    async fn rename(&self, container: &ContainerId, name: &str) -> Result<(), Error> {
        if let Some(attached) = self.state().book.attached.get_mut(container) {
            name.clone_into(&mut attached.name);
        }
        Ok(())
    }

    async fn disconnect(
        &self,
        container: &ContainerId,
        _pid: i32,
        network: &NetworkId,
    ) -> Result<Vec<Endpoint>, Error> {
        self.state().disconnect(container, network)
    }

    async fn endpoints(
        &self,
        network: &NetworkId,
    ) -> Result<Vec<(ContainerId, String, Endpoint)>, Error> {
        self.state().book.endpoints(network)
    }

    async fn attach(&self, attach: Attach) -> Result<Sandbox, Error> {
        let mut state = self.state();
        if let Some(error) = state.failure.take() {
            return Err(error);
        }
        let attached = state.attach(&attach)?;
        let owner = match &attach.kind {
            SandboxKind::Container(owner, _) => state.book.attached.get(owner),
            SandboxKind::Own(_) | SandboxKind::Host => None,
        };
        let files = match owner {
            Some(owner) => Ok(files::paths(&owner.directory)),
            None if attach.directory.is_dir() => {
                let host = HostSide { gateway: Some(GATEWAY.into()), ..HostSide::default() };
                files::write(&attach, &attached.endpoints, &host)
            }
            None => Ok(files::paths(&attach.directory)),
        };
        let namespace = match &attach.kind {
            SandboxKind::Host => Ok(None),
            SandboxKind::Own(_) | SandboxKind::Container(..) => own_namespace().map(Some),
        };
        let result = files.and_then(|files| {
            let (endpoints, ports) = (attached.endpoints, attached.ports);
            let (namespace, user) = (namespace?, attach.owner.user()?);
            Ok(Sandbox { namespace, user, endpoints, ports, files, warnings: Vec::new() })
        });
        match &result {
            Ok(_) => state.log.push(format!("attach {}", attach.container.short())),
            Err(_) => state.detach(&attach.container),
        }
        result
    }

    async fn detach(&self, container: &ContainerId) -> Result<(), Error> {
        self.state().detach(container);
        Ok(())
    }

    async fn adopt(&self, container: &ContainerId, _pid: i32) -> Result<Vec<Endpoint>, Error> {
        let mut state = self.state();
        state.log.push(format!("adopt {}", container.short()));
        let attached = state.book.attached.get(container);
        Ok(attached.map(|attached| attached.endpoints.clone()).unwrap_or_default())
    }

    async fn sweep(&self, known: &[ContainerId]) -> Result<(), Error> {
        let mut state = self.state();
        let gone = state.book.attached.keys().filter(|id| !known.contains(id)).copied();
        for id in gone.collect::<Vec<_>>() {
            state.detach(&id);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
