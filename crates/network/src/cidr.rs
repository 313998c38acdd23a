//! Subnets in CIDR form. Does not know who uses which.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// A text that is not `address/prefix length`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid CIDR address: {0}")]
pub struct InvalidCidr(pub String);

/// An address with the length of its network's prefix, such as `172.17.0.1/16`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cidr4 {
    /// The address; host bits may be set.
    pub address: Ipv4Addr,
    /// 0 to 32.
    pub prefix: u8,
}

impl Cidr4 {
    /// Makes one; a prefix beyond 32 counts as 32.
    pub const fn new(address: Ipv4Addr, prefix: u8) -> Self {
        Self { address, prefix: if prefix > 32 { 32 } else { prefix } }
    }

    const fn mask(self) -> u32 {
        if self.prefix == 0 { 0 } else { u32::MAX << (32 - self.prefix) }
    }

    /// Returns the first address, which names the network.
    pub const fn first(self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.address.to_bits() & self.mask())
    }

    /// Returns the last address: the broadcast address of larger networks.
    pub const fn last(self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.address.to_bits() | !self.mask())
    }

    /// Returns the subnet without host bits.
    #[must_use]
    pub const fn subnet(self) -> Self {
        Self { address: self.first(), prefix: self.prefix }
    }

    /// Tells whether `address` lies inside.
    pub const fn contains(self, address: Ipv4Addr) -> bool {
        address.to_bits() & self.mask() == self.address.to_bits() & self.mask()
    }

    /// Tells whether some address lies in both.
    pub const fn overlaps(self, other: Self) -> bool {
        let mask = self.mask() & other.mask();
        self.address.to_bits() & mask == other.address.to_bits() & mask
    }

    /// Iterates over the subnets of `prefix` bits inside.
    pub fn split(self, prefix: u8) -> impl Iterator<Item = Self> {
        let first = u64::from(self.first().to_bits());
        let last = u64::from(self.last().to_bits());
        let step = 1_u64 << (32 - prefix.clamp(self.prefix, 32));
        (first..=last)
            .step_by(usize::try_from(step).unwrap_or(usize::MAX))
            .map(move |address| Self::new(Ipv4Addr::from_bits(address as u32), prefix))
    }
}

impl fmt::Display for Cidr4 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

impl FromStr for Cidr4 {
    type Err = InvalidCidr;

    fn from_str(text: &str) -> Result<Self, InvalidCidr> {
        let parse = || {
            let (address, prefix) = text.split_once('/')?;
            let prefix = prefix.parse().ok().filter(|prefix| *prefix <= 32)?;
            Some(Self { address: address.parse().ok()?, prefix })
        };
        parse().ok_or_else(|| InvalidCidr(text.to_owned()))
    }
}

/// An IPv6 address with the length of its network's prefix, such as `fd00::1/64`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cidr6 {
    /// The address; host bits may be set.
    pub address: Ipv6Addr,
    /// 0 to 128.
    pub prefix: u8,
}

impl Cidr6 {
    /// Makes one; a prefix beyond 128 counts as 128.
    pub const fn new(address: Ipv6Addr, prefix: u8) -> Self {
        Self { address, prefix: if prefix > 128 { 128 } else { prefix } }
    }

    const fn mask(self) -> u128 {
        if self.prefix == 0 { 0 } else { u128::MAX << (128 - self.prefix) }
    }

    /// Returns the first address.
    pub const fn first(self) -> Ipv6Addr {
        Ipv6Addr::from_bits(self.address.to_bits() & self.mask())
    }

    /// Returns the last address.
    pub const fn last(self) -> Ipv6Addr {
        Ipv6Addr::from_bits(self.address.to_bits() | !self.mask())
    }

    /// Returns the subnet without host bits.
    #[must_use]
    pub const fn subnet(self) -> Self {
        Self { address: self.first(), prefix: self.prefix }
    }

    /// Tells whether `address` lies inside.
    pub const fn contains(self, address: Ipv6Addr) -> bool {
        address.to_bits() & self.mask() == self.address.to_bits() & self.mask()
    }

    /// Tells whether some address lies in both.
    pub const fn overlaps(self, other: Self) -> bool {
        let mask = self.mask() & other.mask();
        self.address.to_bits() & mask == other.address.to_bits() & mask
    }
}

impl fmt::Display for Cidr6 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

/// A subnet of either family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Cidr {
    /// IPv4
    V4(Cidr4),
    /// IPv6
    V6(Cidr6),
}

impl Cidr {
    /// Makes one; a prefix beyond the family's length counts as that.
    pub const fn new(address: IpAddr, prefix: u8) -> Self {
        match address {
            IpAddr::V4(address) => Self::V4(Cidr4::new(address, prefix)),
            IpAddr::V6(address) => Self::V6(Cidr6::new(address, prefix)),
        }
    }

    /// Tells whether `address` lies inside.
    pub const fn contains(self, address: IpAddr) -> bool {
        match (self, address) {
            (Self::V4(subnet), IpAddr::V4(address)) => subnet.contains(address),
            (Self::V6(subnet), IpAddr::V6(address)) => subnet.contains(address),
            _ => false,
        }
    }

    /// Tells whether some address lies in both.
    pub const fn overlaps(self, other: Self) -> bool {
        match (self, other) {
            (Self::V4(one), Self::V4(other)) => one.overlaps(other),
            (Self::V6(one), Self::V6(other)) => one.overlaps(other),
            _ => false,
        }
    }

    /// Returns the subnet without host bits.
    #[must_use]
    pub const fn subnet(self) -> Self {
        match self {
            Self::V4(subnet) => Self::V4(subnet.subnet()),
            Self::V6(subnet) => Self::V6(subnet.subnet()),
        }
    }

    /// Returns the length of the prefix.
    pub const fn prefix(self) -> u8 {
        match self {
            Self::V4(subnet) => subnet.prefix,
            Self::V6(subnet) => subnet.prefix,
        }
    }

    /// Returns the address behind the first one, as gateways have it.
    pub const fn second(self) -> IpAddr {
        match self {
            Self::V4(subnet) => {
                IpAddr::V4(Ipv4Addr::from_bits(subnet.first().to_bits().wrapping_add(1)))
            }
            Self::V6(subnet) => {
                IpAddr::V6(Ipv6Addr::from_bits(subnet.first().to_bits().wrapping_add(1)))
            }
        }
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::V4(subnet) => subnet.fmt(f),
            Self::V6(subnet) => subnet.fmt(f),
        }
    }
}

impl FromStr for Cidr {
    type Err = InvalidCidr;

    fn from_str(text: &str) -> Result<Self, InvalidCidr> {
        let parse = || {
            let (address, prefix) = text.split_once('/')?;
            let address = address.parse::<IpAddr>().ok()?;
            let longest = if address.is_ipv4() { 32 } else { 128 };
            let digits = prefix.bytes().all(|byte| byte.is_ascii_digit());
            let prefix = prefix.parse().ok().filter(|prefix| digits && *prefix <= longest)?;
            Some(Self::new(address, prefix))
        };
        parse().ok_or_else(|| InvalidCidr(text.to_owned()))
    }
}

#[cfg(test)]
mod tests;
