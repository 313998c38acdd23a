//! Plugins that give addresses away: the methods of Docker's protocol, and the subnets and addresses had from them.
//!
//! A plugin chooses subnets and addresses; whether they are free of those of other networks is still looked at here.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::{Arc, Condvar, Mutex, OnceLock};

use serde::Deserialize;
use serde_json::{Value, json};

use super::super::lock;
use super::call::Caller;
use crate::bridge::BridgeOptions;
use crate::cidr::Cidr;
use crate::ipam::{mac_text, parse_mac};
use crate::names::random;
use crate::{Endpoint, Error, NetworkRecord, NetworkRequest, SubnetRequest};

const SUBSYSTEM: &str = "IpamDriver";
const GATEWAY: &str = "com.docker.network.gateway";
const KIND: &str = "RequestAddressType";
const MAC: &str = "com.docker.network.endpoint.macaddress";
/// LIMIT: what a plugin calls a pool is kept in the network's record.
const LONGEST_POOL: usize = 4096;

#[derive(Deserialize, Clone, Copy, Debug, Default)]
#[serde(default)]
struct Capabilities {
    #[serde(rename = "RequiresMACAddress")]
    mac: bool,
    #[serde(rename = "RequiresRequestReplay")]
    replay: bool,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "PascalCase", default)]
struct Spaces {
    local_default_address_space: String,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct PoolAnswer {
    #[serde(rename = "PoolID")]
    id: String,
    #[serde(rename = "Pool")]
    pool: String,
    #[serde(rename = "Data")]
    data: Option<BTreeMap<String, String>>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "PascalCase", default)]
struct AddressAnswer {
    address: String,
}

/// A plugin as the driver of addresses.
#[derive(Clone, Debug)]
struct Ipam(Caller);

impl Ipam {
    fn new(options: &BridgeOptions, name: &str) -> Result<Self, Error> {
        Caller::new(options, name, SUBSYSTEM).map(Self)
    }

    // COMPAT: a plugin need not know this method.
    fn capabilities(&self) -> Result<Capabilities, Error> {
        Ok(self.0.optional("GetCapabilities", &json!({}))?.unwrap_or_default())
    }

    fn address_space(&self) -> Result<String, Error> {
        let spaces: Spaces = self.0.call("GetDefaultAddressSpaces", &json!({}))?;
        Ok(spaces.local_default_address_space)
    }

    fn request_pool(
        &self,
        space: &str,
        (pool, range): (&str, &str),
        options: &BTreeMap<String, String>,
        v6: bool,
    ) -> Result<PoolAnswer, Error> {
        let question = json!({
            "AddressSpace": space, "Pool": pool, "SubPool": range, "Options": options, "V6": v6,
        });
        let answer: PoolAnswer = self.0.call("RequestPool", &question)?;
        if answer.id.is_empty() || answer.id.len() > LONGEST_POOL {
            return Err(self.0.wrong("does not say what it calls its pool"));
        }
        Ok(answer)
    }

    fn release_pool(&self, pool: &str) -> Result<(), Error> {
        self.0.tell("ReleasePool", &json!({ "PoolID": pool }))
    }

    /// Asks for an address of a subnet: this one, or any.
    fn request_address(
        &self,
        (pool, subnet): (&str, Cidr),
        address: Option<IpAddr>,
        options: &Value,
    ) -> Result<IpAddr, Error> {
        let wanted = address.map(|address| address.to_string()).unwrap_or_default();
        let question = json!({ "PoolID": pool, "Address": wanted, "Options": options });
        let AddressAnswer { address: text } = self.0.call("RequestAddress", &question)?;
        let bare = text.split('/').next().unwrap_or_default();
        let given = bare.parse::<IpAddr>().ok();
        let fits = |given: &IpAddr| {
            subnet.contains(*given) && address.is_none_or(|address| address == *given)
        };
        given.filter(fits).ok_or_else(|| {
            if let Some(given) = given {
                self.release_address(pool, given);
            }
            self.0.wrong(&format!("gives the address {text:?} away where one of {subnet} is due"))
        })
    }

    /// Gives an address back that nobody has used yet.
    fn release_address(&self, pool: &str, address: IpAddr) {
        told(self, "take an address back", self.0.tell("ReleaseAddress", &release(pool, address)));
    }
}

fn release(pool: &str, address: IpAddr) -> Value {
    json!({ "PoolID": pool, "Address": address.to_string() })
}

/// Whoever handles a failure that changes nothing any more logs it.
fn told(ipam: &Ipam, what: &str, result: Result<(), Error>) {
    if let Err(error) = result {
        let error = rorqual_core::full_message(&error);
        tracing::warn!(plugin = ipam.0.name(), error, "an address plugin did not {what}");
    }
}

/// Subnets that a plugin gave away for a network that is not made yet.
#[derive(Debug)]
pub(in crate::bridges) struct Lease {
    ipam: Ipam,
    /// Pools, and the addresses taken of each.
    pools: Vec<(String, Vec<IpAddr>)>,
}

impl Lease {
    /// Gets the subnets of a network to be from its plugin, if it has one, and writes them into the request. All or none.
    pub(in crate::bridges) fn get(
        options: &BridgeOptions,
        request: &mut NetworkRequest,
    ) -> Result<Option<Self>, Error> {
        if !request.ipam.is_remote() || request.config_only {
            return Ok(None);
        }
        let ipam = Ipam::new(options, &request.ipam.name)?;
        let space = ipam.address_space()?;
        let mut lease = Self { ipam, pools: Vec::new() };
        match lease.fill(request, &space) {
            Ok(subnets) => {
                request.subnets = subnets;
                Ok(Some(lease))
            }
            Err(error) => {
                lease.give_back();
                Err(error)
            }
        }
    }

    fn fill(&mut self, request: &NetworkRequest, space: &str) -> Result<Vec<SubnetRequest>, Error> {
        let is_v6 = |subnet: &SubnetRequest| subnet.subnet.contains(':');
        let (mut v6, mut v4): (Vec<_>, Vec<_>) = request.subnets.iter().cloned().partition(is_v6);
        for (on, subnets) in [(request.ipv4, &mut v4), (request.ipv6, &mut v6)] {
            if on && subnets.is_empty() {
                subnets.push(SubnetRequest::default());
            }
        }
        let all =
            v4.into_iter().map(|one| (one, false)).chain(v6.into_iter().map(|one| (one, true)));
        all.map(|(subnet, v6)| self.subnet(subnet, (space, v6), &request.ipam.options)).collect()
    }

    fn subnet(
        &mut self,
        asked: SubnetRequest,
        (space, v6): (&str, bool),
        options: &BTreeMap<String, String>,
    ) -> Result<SubnetRequest, Error> {
        let SubnetRequest { subnet, range, gateway, auxiliary, pool: _ } = asked;
        let PoolAnswer { id, pool, data } =
            self.ipam.request_pool(space, (&subnet, &range), options, v6)?;
        self.pools.push((id.clone(), Vec::new()));
        let given = pool.parse::<Cidr>().ok().map(Cidr::subnet);
        let given = given
            .filter(|given| matches!(given, Cidr::V6(_)) == v6)
            .ok_or_else(|| self.ipam.0.wrong(&format!("gives the subnet {pool:?} away")))?;
        if !subnet.is_empty() && subnet.parse() != Ok(given) {
            let text = format!("gives the subnet {pool} away where {subnet} was asked for");
            return Err(self.ipam.0.wrong(&text));
        }
        let bare = |text: &str| text.split('/').next().unwrap_or_default().parse::<IpAddr>();
        let invalid = |text: &str| Error::InvalidArgument(format!("invalid address {text}"));
        // COMPAT: the plugin may name the gateway with the pool, unless the user does.
        let named = data.unwrap_or_default().remove(GATEWAY);
        let gateway = match (gateway.as_str(), named) {
            ("", Some(named)) => {
                let read = bare(&named).ok().filter(|address| given.contains(*address));
                read.ok_or_else(|| self.ipam.0.wrong(&format!("names the gateway {named:?}")))?
            }
            (text, _) => {
                let wanted = if text.is_empty() { None } else { bare(text).ok() };
                if !text.is_empty() && wanted.is_none() {
                    return Err(invalid(text));
                }
                self.address((&id, given), wanted, &json!({ KIND: GATEWAY }))?
            }
        };
        for text in auxiliary.values() {
            let wanted = text.parse().map_err(|_| invalid(text))?;
            self.address((&id, given), Some(wanted), &json!({}))?;
        }
        let subnet = given.to_string();
        Ok(SubnetRequest { subnet, range, gateway: gateway.to_string(), auxiliary, pool: id })
    }

    fn address(
        &mut self,
        place: (&str, Cidr),
        wanted: Option<IpAddr>,
        options: &Value,
    ) -> Result<IpAddr, Error> {
        let address = self.ipam.request_address(place, wanted, options)?;
        if let Some((_, taken)) = self.pools.last_mut() {
            taken.push(address);
        }
        Ok(address)
    }

    /// Gives all of it back.
    pub(in crate::bridges) fn give_back(self) {
        for (pool, addresses) in self.pools {
            for address in addresses {
                self.ipam.release_address(&pool, address);
            }
            told(&self.ipam, "take a pool back", self.ipam.release_pool(&pool));
        }
    }
}

/// What a plugin gives away for one network.
#[derive(Debug)]
pub(in crate::bridges) struct Addresses {
    ipam: Ipam,
    pools: Vec<(Cidr, String)>,
    capabilities: OnceLock<Capabilities>,
    /// Addresses that are on their way back.
    returning: Arc<(Mutex<usize>, Condvar)>,
}

/// Addresses of an endpoint, and the hardware address that they were given away for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::bridges) struct Given {
    pub(in crate::bridges) ipv4: Option<Ipv4Addr>,
    pub(in crate::bridges) ipv6: Option<Ipv6Addr>,
    pub(in crate::bridges) mac: Option<[u8; 6]>,
}

impl Addresses {
    /// Finds the pools of a network again; `None` without a plugin.
    pub(in crate::bridges) fn of(
        record: &NetworkRecord,
        options: &BridgeOptions,
    ) -> Result<Option<Self>, Error> {
        if !record.ipam.is_remote() {
            return Ok(None);
        }
        let pools = record.subnets.iter().map(|subnet| Ok((subnet.cidr()?, subnet.pool.clone())));
        Ok(Some(Self {
            ipam: Ipam::new(options, &record.ipam.name)?,
            pools: pools.collect::<Result<_, Error>>()?,
            capabilities: OnceLock::new(),
            returning: Arc::default(),
        }))
    }

    fn capabilities(&self) -> Result<Capabilities, Error> {
        if let Some(known) = self.capabilities.get() {
            return Ok(*known);
        }
        let asked = self.ipam.capabilities()?;
        Ok(*self.capabilities.get_or_init(|| asked))
    }

    fn request(
        &self,
        v6: bool,
        wanted: Option<IpAddr>,
        options: &Value,
    ) -> Result<Option<IpAddr>, Error> {
        let mut theirs =
            self.pools.iter().filter(|(cidr, _)| matches!(cidr, Cidr::V6(_)) == v6).peekable();
        if theirs.peek().is_none() {
            return Ok(None);
        }
        let holds = |cidr: &Cidr| wanted.is_none_or(|address| cidr.contains(address));
        let mut last = None;
        for (cidr, pool) in theirs.filter(|(cidr, _)| holds(cidr)) {
            match self.ipam.request_address((pool, *cidr), wanted, options) {
                Ok(address) => return Ok(Some(address)),
                Err(error) => last = Some(error),
            }
        }
        let nowhere = || Error::InvalidArgument("the address is in none of the subnets".to_owned());
        Err(last.unwrap_or_else(nowhere))
    }

    /// Takes an address of each family, both or none; waits for the plugin.
    pub(in crate::bridges) fn take(
        &self,
        (ipv4, ipv6): (Option<Ipv4Addr>, Option<Ipv6Addr>),
        mac: Option<&str>,
        may_have_mac: bool,
    ) -> Result<Given, Error> {
        self.settle();
        let mut given = Given { mac: mac.map(parse_mac).transpose()?, ..Given::default() };
        let options = if self.capabilities()?.mac && may_have_mac {
            let [a, b, c, d] = random();
            let mac = *given.mac.get_or_insert([0x02, 0x42, a, b, c, d]);
            json!({ MAC: mac_text(mac) })
        } else {
            json!({})
        };
        given.ipv4 = match self.request(false, ipv4.map(IpAddr::V4), &options)? {
            Some(IpAddr::V4(address)) => Some(address),
            _ => None,
        };
        let six = self.request(true, ipv6.map(IpAddr::V6), &options);
        given.ipv6 = match six.inspect_err(|_| self.give_back(given.ipv4, None))? {
            Some(IpAddr::V6(address)) => Some(address),
            _ => None,
        };
        Ok(given)
    }

    /// Gives addresses back; waits for nobody.
    pub(in crate::bridges) fn give_back(&self, ipv4: Option<Ipv4Addr>, ipv6: Option<Ipv6Addr>) {
        let both = ipv4.map(IpAddr::V4).into_iter().chain(ipv6.map(IpAddr::V6));
        for address in both {
            let Some((_, pool)) = self.pools.iter().find(|(cidr, _)| cidr.contains(address)) else {
                continue;
            };
            *lock(&self.returning.0) += 1;
            let (returning, ipam) = (Arc::clone(&self.returning), self.ipam.clone());
            self.ipam.0.tell_later("ReleaseAddress", release(pool, address), move |result| {
                told(&ipam, "take an address back", result);
                *lock(&returning.0) -= 1;
                returning.1.notify_all();
            });
        }
    }

    /// Waits until the plugin has what was given back; calls have deadlines.
    fn settle(&self) {
        let waited = self.returning.1.wait_while(lock(&self.returning.0), |count| *count > 0);
        drop(waited);
    }

    /// Gives the pools of a network back that is no more; waits for the plugin.
    pub(in crate::bridges) fn end(&self, record: &NetworkRecord) {
        self.settle();
        for subnet in &record.subnets {
            let taken = subnet.gateway.iter().chain(subnet.auxiliary.values());
            for address in taken {
                self.ipam.release_address(&subnet.pool, *address);
            }
            told(&self.ipam, "take a pool back", self.ipam.release_pool(&subnet.pool));
        }
    }

    /// Asks for all again that a network and these endpoints have, from a plugin that keeps nothing itself.
    pub(in crate::bridges) fn replay(&self, record: &NetworkRecord, endpoints: &[Endpoint]) {
        let all = || -> Result<(), Error> {
            if !self.capabilities()?.replay {
                return Ok(());
            }
            let space = self.ipam.address_space()?;
            for subnet in &record.subnets {
                let cidr = subnet.cidr()?;
                let v6 = matches!(cidr, Cidr::V6(_));
                let asked = (subnet.subnet.as_str(), subnet.range.as_str());
                let pool = self.ipam.request_pool(&space, asked, &record.ipam.options, v6)?;
                if pool.id != subnet.pool {
                    return Err(self.ipam.0.wrong("calls its pool by another name than before"));
                }
                if let Some(gateway) = subnet.gateway {
                    let options = json!({ KIND: GATEWAY });
                    let place = (subnet.pool.as_str(), cidr);
                    self.ipam.request_address(place, Some(gateway), &options)?;
                }
                for address in subnet.auxiliary.values() {
                    let place = (subnet.pool.as_str(), cidr);
                    self.ipam.request_address(place, Some(*address), &json!({}))?;
                }
            }
            for endpoint in endpoints {
                let options = json!({ MAC: endpoint.mac });
                let v4 = endpoint.ipv4.map(|(ip, _)| IpAddr::V4(ip));
                let v6 = endpoint.ipv6.map(|(ip, _)| IpAddr::V6(ip));
                for address in v4.into_iter().chain(v6) {
                    self.request(address.is_ipv6(), Some(address), &options)?;
                }
            }
            Ok(())
        };
        told(&self.ipam, "get its addresses again", all());
    }
}
