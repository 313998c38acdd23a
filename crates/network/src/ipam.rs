//! Address management: which subnet a network gets, and which address an endpoint gets. Pure; touches no interface.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::cidr::{Cidr, Cidr4, Cidr6};
use crate::{Error, NetworkRecord};

/// Address space that networks are cut from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SubnetPool {
    /// Where.
    pub base: Cidr4,
    /// Prefix length of one network.
    pub size: u8,
}

/// Returns the pools used when none are configured.
// COMPAT: 172.17/16 to 172.31/16, each one network, then 192.168/16 in networks of 4096 addresses.
pub fn default_pools() -> Vec<SubnetPool> {
    let wide = (17..=31).map(|second| SubnetPool {
        base: Cidr4::new(Ipv4Addr::new(172, second, 0, 0), 16),
        size: 16,
    });
    let narrow = SubnetPool { base: Cidr4::new(Ipv4Addr::new(192, 168, 0, 0), 16), size: 20 };
    wide.chain([narrow]).collect()
}

/// Makes up a subnet of unique local addresses from random bits, and tells them from those of `taken`.
pub(crate) fn free_subnet6(taken: &[Cidr6], mut random: impl FnMut() -> [u8; 7]) -> Cidr6 {
    loop {
        // Forty random bits of a site, sixteen of a subnet.
        let mut bytes = [0; 16];
        bytes[0] = 0xfd;
        bytes[1..8].copy_from_slice(&random());
        let subnet = Cidr6::new(Ipv6Addr::from(bytes), 64);
        if !taken.iter().any(|other| subnet.overlaps(*other)) {
            return subnet;
        }
    }
}

/// Picks the first subnet of `pools` that overlaps none of `taken`.
///
/// # Errors
/// `InvalidArgument` when nothing is left.
pub(crate) fn free_subnet(pools: &[SubnetPool], taken: &[Cidr4]) -> Result<Cidr4, Error> {
    pools
        .iter()
        .flat_map(|pool| pool.base.split(pool.size))
        .find(|subnet| !taken.iter().any(|other| subnet.overlaps(*other)))
        .ok_or_else(|| {
            // COMPAT: dockerd's words.
            Error::InvalidArgument(
                "all predefined address pools have been fully subnetted".to_owned(),
            )
        })
}

/// The addresses of one network: a bit for each.
///
/// An address is given out lowest first, as Docker does. INVARIANT: network, broadcast and gateway addresses are never
/// given out; [`AddressPool::new`] sets their bits and nothing clears them.
#[derive(Debug)]
pub(crate) struct AddressPool {
    range: Cidr4,
    subnet: Cidr4,
    reserved: Vec<Ipv4Addr>,
    used: Vec<u64>,
    /// Claimed addresses of the subnet that lie outside the range.
    outside: BTreeSet<Ipv4Addr>,
    /// No free bit lies before this word.
    hint: usize,
}

/// LIMIT: a /8 takes 2 MiB of bits, which is the largest private network there is.
const LARGEST: u8 = 8;

impl AddressPool {
    /// Makes a pool of `subnet` that gives out addresses of `range` only; `reserved` are never given out.
    ///
    /// # Errors
    /// `InvalidArgument` when `range` does not lie in `subnet`, or either is too large.
    pub(crate) fn new(subnet: Cidr4, range: Cidr4, reserved: &[Ipv4Addr]) -> Result<Self, Error> {
        let (subnet, range) = (subnet.subnet(), range.subnet());
        if !subnet.contains(range.first()) || range.prefix < subnet.prefix {
            return Err(outside_subnet(&range, &subnet));
        }
        if range.prefix < LARGEST {
            return Err(Error::InvalidArgument(format!("subnet {range} is too large")));
        }
        let size = 1_usize << (32 - range.prefix);
        let mut pool = Self {
            range,
            subnet,
            reserved: reserved.to_vec(),
            used: vec![0; size.div_ceil(64)],
            outside: BTreeSet::new(),
            hint: 0,
        };
        if size < 64 {
            pool.used[0] = u64::MAX << size;
        }
        // A /31 and a /32 have neither network nor broadcast address.
        if subnet.prefix < 31 {
            pool.reserved.extend([subnet.first(), subnet.last()]);
        }
        for address in pool.reserved.clone() {
            pool.mark(address);
        }
        Ok(pool)
    }

    fn bit(&self, address: Ipv4Addr) -> Option<(usize, u64)> {
        let offset = address.to_bits().checked_sub(self.range.first().to_bits())? as usize;
        let inside = self.range.contains(address);
        inside.then_some((offset / 64, 1 << (offset % 64)))
    }

    fn mark(&mut self, address: Ipv4Addr) {
        if let Some((word, bit)) = self.bit(address) {
            self.used[word] |= bit;
        }
    }

    /// Gives out the lowest free address.
    ///
    /// # Errors
    /// `Conflict` when all are taken.
    pub(crate) fn allocate(&mut self) -> Result<Ipv4Addr, Error> {
        let free = self.used[self.hint..].iter().position(|word| *word != u64::MAX);
        let Some(word) = free.map(|position| position + self.hint) else {
            // COMPAT: dockerd's words.
            return Err(Error::Conflict(
                "no available IPv4 addresses on this network's address pools".into(),
            ));
        };
        self.hint = word;
        let bit = self.used[word].trailing_ones();
        self.used[word] |= 1 << bit;
        Ok(Ipv4Addr::from_bits(self.range.first().to_bits() + word as u32 * 64 + bit))
    }

    /// Gives out `address` itself.
    ///
    /// # Errors
    /// `InvalidArgument` outside the subnet or when reserved; `Conflict` when taken.
    pub(crate) fn claim(&mut self, address: Ipv4Addr) -> Result<(), Error> {
        if !self.subnet.contains(address) {
            return Err(not_of_subnet(&address, &self.subnet));
        }
        let taken = address_taken;
        if self.reserved.contains(&address) {
            return Err(taken());
        }
        let Some((word, bit)) = self.bit(address) else {
            return if self.outside.insert(address) { Ok(()) } else { Err(taken()) };
        };
        if self.used[word] & bit != 0 {
            return Err(taken());
        }
        self.used[word] |= bit;
        Ok(())
    }

    /// Takes an address back; one that was never given out is left alone.
    pub(crate) fn release(&mut self, address: Ipv4Addr) {
        if self.reserved.contains(&address) {
            return;
        }
        if let Some((word, bit)) = self.bit(address) {
            self.used[word] &= !bit;
            self.hint = self.hint.min(word);
        } else {
            self.outside.remove(&address);
        }
    }
}

/// The IPv6 addresses of one network, given out lowest first.
///
/// LIMIT: takes memory for what is given out only, since a subnet has more addresses than there is memory.
#[derive(Debug)]
pub(crate) struct AddressPool6 {
    range: Cidr6,
    subnet: Cidr6,
    reserved: Vec<Ipv6Addr>,
    used: BTreeSet<Ipv6Addr>,
    /// Nothing before it is free.
    hint: Ipv6Addr,
}

impl AddressPool6 {
    /// Makes a pool of `subnet` that gives out addresses of `range` only; `reserved` are never given out.
    pub(crate) fn new(subnet: Cidr6, range: Cidr6, reserved: &[Ipv6Addr]) -> Result<Self, Error> {
        let (subnet, range) = (subnet.subnet(), range.subnet());
        if !subnet.contains(range.first()) || range.prefix < subnet.prefix {
            return Err(outside_subnet(&range, &subnet));
        }
        let mut reserved = reserved.to_vec();
        // All routers of a subnet listen to its first address.
        reserved.push(subnet.first());
        Ok(Self { range, subnet, reserved, used: BTreeSet::new(), hint: range.first() })
    }

    /// Gives out the lowest free address.
    pub(crate) fn allocate(&mut self) -> Result<Ipv6Addr, Error> {
        let mut address = self.hint;
        while self.range.contains(address) {
            if !self.used.contains(&address) && !self.reserved.contains(&address) {
                self.used.insert(address);
                self.hint = address;
                return Ok(address);
            }
            if address == self.range.last() {
                break;
            }
            address = Ipv6Addr::from_bits(address.to_bits() + 1);
        }
        Err(Error::Conflict(
            "no available IPv6 addresses on this network's address pools".to_owned(),
        ))
    }

    /// Gives out `address` itself.
    pub(crate) fn claim(&mut self, address: Ipv6Addr) -> Result<(), Error> {
        if !self.subnet.contains(address) {
            return Err(not_of_subnet(&address, &self.subnet));
        }
        if self.reserved.contains(&address) || !self.used.insert(address) {
            return Err(address_taken());
        }
        Ok(())
    }

    /// Takes an address back; one that was never given out is left alone.
    pub(crate) fn release(&mut self, address: Ipv6Addr) {
        if self.used.remove(&address) && self.range.contains(address) {
            self.hint = self.hint.min(address);
        }
    }
}

fn outside_subnet(range: &dyn std::fmt::Display, subnet: &dyn std::fmt::Display) -> Error {
    Error::InvalidArgument(format!("range {range} is not inside subnet {subnet}"))
}

fn not_of_subnet(address: &dyn std::fmt::Display, subnet: &dyn std::fmt::Display) -> Error {
    Error::InvalidArgument(format!(
        "invalid address {address}: it does not belong to subnet {subnet}"
    ))
}

fn address_taken() -> Error {
    // COMPAT: dockerd's words.
    Error::Conflict("Address already in use".to_owned())
}

/// The pools of a network: those of each family in the order of its subnets.
#[derive(Debug, Default)]
pub(crate) struct Pools {
    pub(crate) v4: Vec<AddressPool>,
    pub(crate) v6: Vec<AddressPool6>,
}

impl Pools {
    /// Makes the pools of a network as its record says.
    pub(crate) fn of(record: &NetworkRecord) -> Result<Self, Error> {
        let mut pools = Self::default();
        for subnet in &record.subnets {
            let whole = subnet.cidr()?;
            let range = subnet.range_cidr()?.unwrap_or(whole);
            let reserved = || subnet.gateway.into_iter().chain(subnet.auxiliary.values().copied());
            match (whole, range) {
                (Cidr::V4(whole), Cidr::V4(range)) => {
                    let reserved = reserved().filter_map(v4).collect::<Vec<_>>();
                    pools.v4.push(AddressPool::new(whole, range, &reserved)?);
                }
                (Cidr::V6(whole), Cidr::V6(range)) => {
                    let reserved = reserved().filter_map(v6).collect::<Vec<_>>();
                    pools.v6.push(AddressPool6::new(whole, range, &reserved)?);
                }
                _ => return Err(outside_subnet(&range, &whole)),
            }
        }
        Ok(pools)
    }

    /// Takes one address of each family, both or none: those asked for, else the lowest of the first subnet that has one.
    pub(crate) fn take(
        &mut self,
        ipv4: Option<Ipv4Addr>,
        ipv6: Option<Ipv6Addr>,
    ) -> Result<(Option<Ipv4Addr>, Option<Ipv6Addr>), Error> {
        let taken = match ipv4 {
            _ if self.v4.is_empty() => None,
            Some(address) => Some(self.claim4(address).map(|()| address)?),
            None => Some(first(self.v4.iter_mut().map(AddressPool::allocate))?),
        };
        let also = match ipv6 {
            _ if self.v6.is_empty() => Ok(None),
            Some(address) => self.claim6(address).map(|()| Some(address)),
            None => first(self.v6.iter_mut().map(AddressPool6::allocate)).map(Some),
        };
        match also {
            Ok(also) => Ok((taken, also)),
            Err(error) => {
                self.give_back(taken, None);
                Err(error)
            }
        }
    }

    /// Takes just these addresses again, as an earlier daemon gave them out.
    pub(crate) fn retake(
        &mut self,
        ipv4: Option<Ipv4Addr>,
        ipv6: Option<Ipv6Addr>,
    ) -> Result<(), Error> {
        let four = ipv4.filter(|_| !self.v4.is_empty()).map_or(Ok(()), |one| self.claim4(one));
        let six = ipv6.filter(|_| !self.v6.is_empty()).map_or(Ok(()), |one| self.claim6(one));
        four.and(six)
    }

    fn claim4(&mut self, address: Ipv4Addr) -> Result<(), Error> {
        // One that belongs to none is refused by the first.
        let at = self.v4.iter().position(|pool| pool.subnet.contains(address)).unwrap_or(0);
        self.v4[at].claim(address)
    }

    fn claim6(&mut self, address: Ipv6Addr) -> Result<(), Error> {
        let at = self.v6.iter().position(|pool| pool.subnet.contains(address)).unwrap_or(0);
        self.v6[at].claim(address)
    }

    /// Takes addresses back.
    pub(crate) fn give_back(&mut self, ipv4: Option<Ipv4Addr>, ipv6: Option<Ipv6Addr>) {
        if let Some(address) = ipv4 {
            let theirs = self.v4.iter_mut().filter(|pool| pool.subnet.contains(address));
            theirs.for_each(|pool| pool.release(address));
        }
        if let Some(address) = ipv6 {
            let theirs = self.v6.iter_mut().filter(|pool| pool.subnet.contains(address));
            theirs.for_each(|pool| pool.release(address));
        }
    }
}

/// Returns the first address there is, else the last refusal. Asks no further than it must.
// COMPAT: dockerd goes on with the next subnet when one is exhausted.
fn first<T>(tries: impl Iterator<Item = Result<T, Error>>) -> Result<T, Error> {
    let mut refusal = None;
    for tried in tries {
        match tried {
            Err(error @ Error::Conflict(_)) => refusal = Some(error),
            other => return other,
        }
    }
    Err(refusal.unwrap_or_else(|| Error::Conflict("the network has no addresses".to_owned())))
}

const fn v4(address: IpAddr) -> Option<Ipv4Addr> {
    match address {
        IpAddr::V4(address) => Some(address),
        IpAddr::V6(_) => None,
    }
}

const fn v6(address: IpAddr) -> Option<Ipv6Addr> {
    match address {
        IpAddr::V6(address) => Some(address),
        IpAddr::V4(_) => None,
    }
}

/// Derives a hardware address from an IPv4 address: locally administered, and stable as long as the address is.
pub(crate) fn mac_of(address: Ipv4Addr) -> [u8; 6] {
    let [a, b, c, d] = address.octets();
    [0x02, 0x42, a, b, c, d]
}

/// Writes a hardware address as `02:42:ac:11:00:02`.
pub(crate) fn mac_text(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

/// Reads a unicast hardware address.
///
/// # Errors
/// `InvalidArgument` for anything else.
pub(crate) fn parse_mac(text: &str) -> Result<[u8; 6], Error> {
    let invalid = || {
        // COMPAT: the words of Go's parser, which dockerd passes on.
        Error::InvalidArgument(format!("address {text}: invalid MAC address"))
    };
    let mut mac = [0; 6];
    let mut parts = text.split([':', '-']);
    for byte in &mut mac {
        let digits = |part: &&str| part.len() == 2 && !part.starts_with('+');
        let part = parts.next().filter(digits).ok_or_else(invalid)?;
        *byte = u8::from_str_radix(part, 16).map_err(|_| invalid())?;
    }
    let unicast = mac[0] & 1 == 0 && mac != [0; 6];
    if parts.next().is_some() || !unicast { Err(invalid()) } else { Ok(mac) }
}

#[cfg(test)]
mod tests;
