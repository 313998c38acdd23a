//! Networks in memory, for tests of crates above. They follow every obligation of the contract but touch no kernel object:
//! the namespace they hand out is that of the caller.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use rorqual_core::{ContainerId, NetworkId, Timestamp};

use crate::book::{Attached, Book, bridge_record, plain_record};
use crate::cidr::Cidr4;
use crate::files::{self, HostSide};
use crate::ipam::{AddressPool, mac_of, mac_text, parse_mac};
use crate::ports::PortTable;
use crate::{
    Attach, Endpoint, EndpointRequest, Error, NetworkRecord, Networks, PublishedPort, Sandbox,
    SandboxKind,
};

const GATEWAY: Ipv4Addr = Ipv4Addr::new(172, 17, 0, 1);
const SUBNET: Cidr4 = Cidr4::new(Ipv4Addr::new(172, 17, 0, 0), 16);

#[derive(Debug)]
struct State {
    book: Book,
    addresses: AddressPool,
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
        Self(Arc::new(Mutex::new(State {
            book: Book { networks, attached: BTreeMap::new() },
            addresses: AddressPool::new(SUBNET, SUBNET, &[GATEWAY])
                .expect("a /16 holds its own range"),
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
        let address = match request.ipv4 {
            Some(address) => self.addresses.claim(address).map(|()| address)?,
            None => self.addresses.allocate()?,
        };
        self.drawn += 1;
        Ok(Endpoint {
            network: network.id,
            network_name: network.name.clone(),
            id: format!("{:064x}", self.drawn),
            interface: "eth0".to_owned(),
            mac: mac_text(wanted.unwrap_or_else(|| mac_of(address))),
            ipv4: Some((address, SUBNET.prefix)),
            gateway: Some(GATEWAY),
            ipv6: None,
            gateway6: None,
        })
    }

    fn publish(&mut self, wanted: &[PublishedPort]) -> Result<Vec<PublishedPort>, Error> {
        let mut ports = Vec::new();
        for port in wanted {
            match self.ports.acquire(port, |_| Ok(())) {
                Ok(port) => ports.push(port),
                Err(error) => {
                    self.ports.release(&ports);
                    return Err(error);
                }
            }
        }
        Ok(ports)
    }

    fn attach(&mut self, attach: &Attach) -> Result<Attached, Error> {
        let plan = self.book.plan(attach)?;
        let endpoint =
            plan.map(|(network, request)| self.endpoint(&network, request)).transpose()?;
        let endpoints = endpoint.into_iter().collect::<Vec<_>>();
        let wanted = if endpoints.is_empty() { &[][..] } else { &attach.ports };
        let ports = self.publish(wanted).inspect_err(|_| self.free(&endpoints))?;
        let attached = Attached {
            name: attach.name.clone(),
            kind: attach.kind.clone(),
            endpoints,
            ports,
            directory: attach.directory.clone(),
            links: Vec::new(),
        };
        self.book.attached.insert(attach.container, attached.clone());
        Ok(attached)
    }

    fn free(&mut self, endpoints: &[Endpoint]) {
        for (address, _) in endpoints.iter().filter_map(|endpoint| endpoint.ipv4) {
            self.addresses.release(address);
        }
    }

    fn detach(&mut self, container: &ContainerId) {
        if let Some(attached) = self.book.attached.remove(container) {
            self.ports.release(&attached.ports);
            self.free(&attached.endpoints);
            self.log.push(format!("detach {}", container.short()));
        }
    }
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
            Ok(Sandbox { namespace: namespace?, endpoints, ports, files, warnings: Vec::new() })
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
