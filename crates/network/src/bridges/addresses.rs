//! Where the addresses of a network's containers come from: from here, or from a plugin.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::{Arc, Mutex};

use super::remote::{Addresses, Given};
use super::{BridgeNetwork, lock};
use crate::design::Stacked;
use crate::ipam::Pools;
use crate::janitor::Janitor;
use crate::link::LinkKind;
use crate::{Endpoint, EndpointRequest, Error, NetworkRecord};

/// The source of addresses.
#[derive(Clone, Debug)]
pub(super) enum Source {
    Own(Arc<Mutex<Pools>>),
    Plugin(Arc<Addresses>),
}

impl BridgeNetwork {
    /// Returns where its addresses come from.
    pub(super) fn source(&self) -> Source {
        match &self.ipam {
            Some(plugin) => Source::Plugin(Arc::clone(plugin)),
            None => Source::Own(Arc::clone(&self.plan.addresses)),
        }
    }

    /// Takes the addresses of an endpoint, both families or none; a plugin is waited for.
    pub(super) fn take_addresses(
        &self,
        network: &NetworkRecord,
        request: &EndpointRequest,
        janitor: &Janitor,
    ) -> Result<Given, Error> {
        let wanted = (request.ipv4, request.ipv6);
        let source = self.source();
        let may_have_mac = !matches!(self.plan.kind, LinkKind::Stacked(Stacked::Ipvlan(..), _));
        let take = || match &source {
            Source::Own(pools) => {
                let (ipv4, ipv6) = lock(pools).take(wanted.0, wanted.1)?;
                Ok(Given { ipv4, ipv6, mac: None })
            }
            Source::Plugin(plugin) => plugin.take(wanted, request.mac.as_deref(), may_have_mac),
        };
        janitor.with_room(take).map_err(|error| match error {
            // COMPAT: dockerd says so which network it is.
            Error::Conflict(text) if text.starts_with("no available") => {
                Error::Conflict(format!("{text}: {} ({})", network.name, network.id))
            }
            other => other,
        })
    }
}

impl Source {
    /// Gives addresses back; waits for nobody.
    pub(super) fn give_back(&self, ipv4: Option<Ipv4Addr>, ipv6: Option<Ipv6Addr>) {
        match self {
            Self::Own(pools) => lock(pools).give_back(ipv4, ipv6),
            Self::Plugin(plugin) => plugin.give_back(ipv4, ipv6),
        }
    }

    /// Gives an endpoint's addresses back.
    pub(super) fn free(&self, endpoint: &Endpoint) {
        let (ipv4, ipv6) = (endpoint.ipv4, endpoint.ipv6);
        self.give_back(ipv4.map(|(ip, _)| ip), ipv6.map(|(ip, _)| ip));
    }
}
