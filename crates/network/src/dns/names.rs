//! Who is called what: the names of all containers the resolver serves, by network. In memory, and pure.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

use crate::Cidr;

use super::message::{self, AAAA, Data, PTR, Query};
use super::wire::Guest;

/// What a name comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// These records; none: the name is there, but nothing of that type.
    Records(Vec<Data>),
    /// No such name, and nobody else may be asked for it.
    Nothing,
    /// Not one of ours.
    Unknown,
}

/// Addresses behind one name, by container.
type Entry = BTreeMap<String, Vec<IpAddr>>;

/// The names of one network.
#[derive(Debug, Default)]
struct Zone {
    names: HashMap<String, Entry>,
    /// Main names by address.
    reverse: HashMap<IpAddr, String>,
}

/// All names.
#[derive(Debug, Default)]
pub(super) struct Names {
    networks: HashMap<String, Zone>,
    turn: usize,
}

impl Names {
    /// Adds a container's names.
    pub(super) fn add(&mut self, guest: &Guest) {
        for place in &guest.places {
            let zone = self.networks.entry(place.network.clone()).or_default();
            if let Some(main) = place.names.first() {
                let each = place.addresses.iter().map(|address| (*address, main.clone()));
                zone.reverse.extend(each);
            }
            for name in &place.names {
                let entry = zone.names.entry(name.to_ascii_lowercase()).or_default();
                entry.insert(guest.container.clone(), place.addresses.clone());
            }
        }
    }

    /// Takes a container's names away.
    pub(super) fn remove(&mut self, guest: &Guest) {
        for place in &guest.places {
            let Some(zone) = self.networks.get_mut(&place.network) else { continue };
            for address in &place.addresses {
                zone.reverse.remove(address);
            }
            let names = &mut zone.names;
            for name in &place.names {
                let name = name.to_ascii_lowercase();
                if let Some(entry) = names.get_mut(&name) {
                    entry.remove(&guest.container);
                    if entry.is_empty() {
                        names.remove(&name);
                    }
                }
            }
            if names.is_empty() {
                self.networks.remove(&place.network);
            }
        }
    }

    /// Looks a question up as `guest` may see it.
    pub(super) fn find(&mut self, guest: &Guest, query: &Query) -> Found {
        if !query.internet {
            return Found::Unknown;
        }
        if query.kind == PTR
            && let Some(address) = message::reverse(&query.name)
        {
            return self.name_of(guest, address);
        }
        let Some(mut addresses) = self.addresses(guest, &query.name) else {
            return if self.is_internal(guest, &query.name) {
                Found::Nothing
            } else {
                Found::Unknown
            };
        };
        addresses.retain(|address| query.wants(if address.is_ipv4() { message::A } else { AAAA }));
        if !addresses.is_empty() {
            // Everybody gets a turn at being first.
            self.turn = self.turn.wrapping_add(1);
            let by = self.turn % addresses.len();
            addresses.rotate_left(by);
        }
        Found::Records(addresses.into_iter().map(Data::Address).collect())
    }

    /// Finds the addresses of `name`, or of `name.network`.
    fn addresses(&self, guest: &Guest, name: &str) -> Option<Vec<IpAddr>> {
        let in_network = |network: &str, name: &str| {
            let entry = self.networks.get(network)?.names.get(name)?;
            Some(entry.values().flatten().copied().collect::<Vec<_>>())
        };
        let mut all: Option<Vec<IpAddr>> = None;
        for place in &guest.places {
            let suffixed = || {
                let network = place.network_name.to_ascii_lowercase();
                let bare = name.strip_suffix(&network)?.strip_suffix('.')?;
                in_network(&place.network, bare)
            };
            let linked = || {
                let link =
                    place.links.iter().find(|(alias, _)| alias.eq_ignore_ascii_case(name))?;
                in_network(&place.network, &link.1.to_ascii_lowercase())
            };
            let found = in_network(&place.network, name).or_else(suffixed).or_else(linked);
            if let Some(found) = found {
                all.get_or_insert_default().extend(found);
            }
        }
        all
    }

    /// Tells whether a name can only mean a container, though none that `guest` may know: nobody outside is to learn
    /// of it.
    fn is_internal(&self, guest: &Guest, name: &str) -> bool {
        let (first, rest) = name.split_once('.').unwrap_or((name, ""));
        let known = |zone: &Zone| zone.names.contains_key(first);
        if rest.is_empty() {
            return self.networks.values().any(known);
        }
        // A network may be called like a domain of the outside, which is then asked for as before.
        let own = |network: &str| !network.contains('.') && network.eq_ignore_ascii_case(rest);
        guest.places.iter().any(|place| own(&place.network_name))
    }

    fn name_of(&self, guest: &Guest, address: IpAddr) -> Found {
        let ours =
            |subnet: &String| subnet.parse::<Cidr>().is_ok_and(|subnet| subnet.contains(address));
        let mut inside = false;
        for place in &guest.places {
            if !place.subnets.iter().any(ours) {
                continue;
            }
            inside = true;
            let main =
                self.networks.get(&place.network).and_then(|zone| zone.reverse.get(&address));
            if let Some(name) = main {
                let full = format!("{name}.{}", place.network_name);
                return Found::Records(vec![Data::Name(full)]);
            }
        }
        // What is inside of this or another network is nobody else's business.
        let known = |zone: &Zone| zone.reverse.contains_key(&address);
        let inside = inside || self.networks.values().any(known);
        if inside { Found::Nothing } else { Found::Unknown }
    }
}

#[cfg(test)]
mod tests;
