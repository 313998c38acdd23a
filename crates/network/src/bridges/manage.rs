//! Making and removing networks.

use std::sync::{Arc, Mutex};

use rorqual_core::NetworkId;
use rorqual_sys::net::Socket;

use super::remote::{Addresses, Lease};
use super::{BridgeNetwork, Inner, State, lock, parents, policies, records, remote};
use crate::bridge::{self, BridgeOptions};
use crate::design::{self, Stacked, Surroundings};
use crate::firewall::{BridgePolicy, Router};
use crate::link::{LinkKind, Plan};
use crate::names::{Tag, random};
use crate::{Error, NetworkRecord, NetworkRequest};

/// Sets a network up, or takes over what is there of it.
pub(super) fn start_network(
    record: &NetworkRecord,
    options: &BridgeOptions,
    tag: &Tag,
    route: &mut Socket,
) -> Result<(BridgeNetwork, Router), Error> {
    let ipam = Addresses::of(record, options)?.map(Arc::new);
    let (network, router) = start_links(record, options, tag, route)?;
    Ok((BridgeNetwork { ipam, ..network }, router))
}

fn start_links(
    record: &NetworkRecord,
    options: &BridgeOptions,
    tag: &Tag,
    route: &mut Socket,
) -> Result<(BridgeNetwork, Router), Error> {
    if remote::is_remote(&record.driver) {
        return Ok((remote::start_network(record, options, tag)?, Router::AsItWas));
    }
    if let Some(kind) = Stacked::of(record)? {
        let network = parents::start_network(record, kind, tag, route)?;
        return Ok((network, Router::AsItWas));
    }
    let made = bridge::set_up_network(record, options, tag, route)?;
    let router = bridge::tune(&made, options.traffic, &options.run_dir)?;
    let switch = |key| design::switch(&record.options, key);
    let icc = switch(design::ICC)?.unwrap_or(true);
    let masquerade = switch(design::MASQUERADE)?.unwrap_or(options.traffic.ip_masq);
    let (mode4, mode6) = design::gateway_modes(&record.options)?;
    let out = |exists: bool| exists && !record.internal;
    let gateway = made.own.map(|own| own.address);
    let gateway6 = made.own6.map(|own| own.address);
    let plan = Plan {
        kind: LinkKind::Bridge { index: made.index, isolated: !icc },
        mtu: Some(design::mtu(&record.options)?.unwrap_or(options.mtu)),
        tag: tag.clone(),
        prefix: made.subnet.map_or(0, |subnet| subnet.prefix),
        gateway: gateway.unwrap_or(std::net::Ipv4Addr::UNSPECIFIED),
        addresses: Arc::new(Mutex::new(made.addresses)),
    };
    let policy = BridgePolicy {
        name: made.name,
        subnet: made.subnet,
        subnet6: made.subnet6,
        internal: record.internal,
        masquerade,
        leave_as: design::leave_as(&record.options)?,
        icc,
        mode4,
        mode6,
        trusted: design::trusted(&record.options)?,
    };
    let prefix = record.options.get(design::INTERFACE_PREFIX);
    let network = BridgeNetwork {
        plan,
        policy: Some(policy),
        direct: false,
        gateway: gateway.filter(|_| out(true)),
        gateway6: gateway6.filter(|_| out(true)),
        prefix: prefix.cloned().unwrap_or_else(|| "eth".to_owned()),
        publish_on: design::publish_on(&record.options)?.or(options.publish_on),
        pool: None,
        remote: None,
        ipam: None,
    };
    Ok((network, router))
}

impl Inner {
    /// Makes a network.
    pub(super) fn create(&self, request: NetworkRequest) -> Result<NetworkRecord, Error> {
        let mut request = {
            let state = lock(&self.state);
            state.book.check_name(&request.name)?;
            state.book.configured(request)?
        };
        if remote::is_remote(&request.driver) && !request.config_only {
            remote::check(&self.options, &request.driver)?;
        }
        let lease = Lease::get(&self.options, &mut request)?;
        let made = self.create_with(request);
        if made.is_err()
            && let Some(lease) = lease
        {
            lease.give_back();
        }
        made
    }

    /// Makes a network whose subnets a plugin has given away, where one does.
    fn create_with(&self, request: NetworkRequest) -> Result<NetworkRecord, Error> {
        let is_remote = remote::is_remote(&request.driver) && !request.config_only;
        let changing = lock(&self.changing);
        let routes = bridge::host_routes(&mut lock(&self.route))?;
        let record = {
            let state = lock(&self.state);
            state.book.check_name(&request.name)?;
            let pools = &self.options.pools;
            let plugins = self.options.plugins.is_some();
            let around = Surroundings { pools, networks: state.book.subnets(), routes, plugins };
            let id = NetworkId::from_random(random());
            design::network(request, id, records::now(), &around, random)?
        };
        self.check_interface(&record)?;
        // ORDER: the record comes first: what a killed daemon leaves, the next one finishes.
        self.records.save_network(&record)?;
        let made = if is_remote {
            lock(&self.state).book.networks.push(record.clone());
            // ORDER: the name is taken, and nobody waits for a plugin but who asked for it.
            drop(changing);
            self.make_remote(&record)
        } else {
            self.make(&record)
        };
        made.inspect_err(|_| {
            let policies = self.forget(&record);
            if let Err(error) = self.unmake(&record, policies) {
                let error = rorqual_core::full_message(&error);
                tracing::warn!(error, network = record.name, "not taken back whole");
            }
        })?;
        Ok(record)
    }

    /// Two networks must not share an interface.
    fn check_interface(&self, record: &NetworkRecord) -> Result<(), Error> {
        if record.config_only || remote::is_remote(&record.driver) {
            return Ok(());
        }
        if let Some(kind) = Stacked::of(record)? {
            return parents::check_parent(&lock(&self.state).book.networks, record, kind);
        }
        let wanted = bridge::interface_of(record);
        let state = lock(&self.state);
        let taken = state
            .bridges
            .iter()
            .find(|(_, bridge)| bridge.policy.as_ref().is_some_and(|policy| policy.name == wanted));
        if let Some((other, _)) = taken {
            // COMPAT: dockerd's words.
            return Err(Error::Forbidden(format!(
                "cannot create network {} ({wanted}): conflicts with network {other} ({wanted}): networks have same bridge name",
                record.id
            )));
        }
        Ok(())
    }

    fn make(&self, record: &NetworkRecord) -> Result<(), Error> {
        if record.config_only {
            lock(&self.state).book.networks.push(record.clone());
            return Ok(());
        }
        let (network, router) =
            start_network(record, &self.options, &self.tag, &mut lock(&self.route))?;
        let policies = {
            let mut state = lock(&self.state);
            state.bridges.insert(record.id, Arc::new(network));
            state.book.networks.push(record.clone());
            policies(&state)
        };
        self.firewall
            .as_ref()
            .map_or(Ok(()), |firewall| lock(firewall).set_bridges(policies, router))
    }

    /// Has nobody find a network any more; returns what the firewall does without it.
    fn forget(&self, record: &NetworkRecord) -> Vec<BridgePolicy> {
        forget(&mut lock(&self.state), record)
    }

    /// Takes a network away that nobody finds any more; goes on after a failure, and returns the first.
    fn unmake(&self, record: &NetworkRecord, policies: Vec<BridgePolicy>) -> Result<(), Error> {
        let is_remote = remote::is_remote(&record.driver);
        let gone = if record.config_only {
            Ok(())
        } else if is_remote {
            self.unmake_remote(record)
        } else if Stacked::of(record)?.is_some() {
            let others = lock(&self.state).book.networks.clone();
            parents::take_down(record, &others, &self.tag, &mut lock(&self.route))
        } else {
            bridge::take_down(&bridge::interface_of(record), &self.tag, &mut lock(&self.route))
        };
        // ORDER: the rules go when nothing can arrive any more. A plugin's network has none.
        let firewall = self.firewall.as_ref().filter(|_| !is_remote);
        let open = firewall
            .map_or(Ok(()), |firewall| lock(firewall).set_bridges(policies, Router::AsItWas));
        // ORDER: the record goes last, so that the next daemon can try again.
        gone.and(open).and_then(|()| self.records.remove_network(&record.id))
    }

    /// Removes a network that nobody uses.
    pub(super) fn remove(&self, network: &NetworkId) -> Result<(), Error> {
        let (record, ipam, policies, changing) = loop {
            self.wait_for_joiners(network);
            let changing = lock(&self.changing);
            let mut state = lock(&self.state);
            if state.joining.contains_key(network) {
                continue;
            }
            let record = state.book.check_removal(network)?.clone();
            let ipam = state.bridges.get(network).and_then(|bridge| bridge.ipam.clone());
            // ORDER: nobody can join from here on.
            let policies = forget(&mut state, &record);
            drop(state);
            break (record, ipam, policies, changing);
        };
        let gone = if remote::is_remote(&record.driver) {
            // ORDER: nobody else waits for a plugin.
            drop(changing);
            self.unmake(&record, policies)
        } else {
            let gone = self.unmake(&record, policies);
            drop(changing);
            gone
        };
        if let Some(ipam) = ipam {
            // ORDER: addresses are given back when links have gone, and pools after them.
            self.janitor.flush();
            ipam.end(&record);
        }
        gone
    }
}

fn forget(state: &mut State, record: &NetworkRecord) -> Vec<BridgePolicy> {
    state.bridges.remove(&record.id);
    state.book.networks.retain(|network| network.id != record.id);
    policies(state)
}
