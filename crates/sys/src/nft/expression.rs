//! What rules are made of. Registers are the caller's: 1 to 4 hold 16 bytes each, 8 to 23 are the same in parts of four.

use crate::net::Batch;

/// Facts about a packet beside its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meta {
    /// Name of the interface it came in by.
    InputName = 6,
    /// Name of the interface it leaves by.
    OutputName = 7,
    /// Network protocol: 2 for IPv4, 10 for IPv6; one byte.
    NetworkProtocol = 15,
    /// Transport protocol; one byte.
    TransportProtocol = 16,
    /// Kind of the interface it came in by, such as `bridge`.
    InputKind = 26,
    /// Kind of the interface it leaves by.
    OutputKind = 27,
}

/// Which header an offset counts from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PayloadBase {
    /// IP
    Network = 1,
    /// TCP, UDP
    Transport = 2,
}

/// Comparisons.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compare {
    /// Equal
    Equal = 0,
    /// Not equal
    NotEqual = 1,
}

/// What becomes of a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Dropped.
    Drop,
    /// Passed on to the next base chain.
    Accept,
    /// Looked at by a chain, then here again.
    Jump(String),
    /// Back to the calling chain.
    Return,
}

impl Verdict {
    pub(super) fn put(&self, batch: &mut Batch) {
        let (code, chain) = match self {
            Self::Drop => (0, None),
            Self::Accept => (1, None),
            Self::Jump(chain) => (-3, Some(chain)),
            Self::Return => (-5, None),
        };
        batch.nest(2, |batch| {
            batch.attr_be32(1, i32::cast_unsigned(code));
            if let Some(chain) = chain {
                batch.attr_str(2, chain);
            }
        });
    }
}

/// Address translation from registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Nat {
    /// Register of the new destination address.
    pub address: u32,
    /// The address is an IPv6 one.
    pub ipv6: bool,
    /// Register of the new destination port; `None` keeps the port.
    pub port: Option<u32>,
}

/// One step of a rule; a rule ends at the first step that does not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expression<'a> {
    /// Loads a fact into a register.
    Meta(Meta, u32),
    /// Loads `(base, offset, length)` into a register.
    Payload(PayloadBase, u32, u32, u32),
    /// Writes two bytes from a register to an offset of the transport header, its checksum kept right.
    ///
    /// The checksum is where UDP (`true`) or TCP has it.
    SetTransport(u32, u32, bool),
    /// Loads the state of the connection, as a bit set in host order.
    ConnectionState(u32),
    /// Loads the status of the connection, as a bit set in host order.
    ConnectionStatus(u32),
    /// Loads the kind of the destination address, as a number in host order; 2 is one of this host.
    DestinationKind(u32),
    /// Keeps the bits of a four-byte register that are in a mask in host order.
    Mask(u32, u32),
    /// Holds if a register compares so with a value.
    Compare(u32, Compare, Vec<u8>),
    /// Holds if a register is in a set; with a second register, loads what a map has for it.
    Lookup(&'a str, u32, Option<u32>),
    /// Holds if a register is not in a set.
    LookupNot(&'a str, u32),
    /// Follows the verdict that a map has for a register.
    VerdictMap(&'a str, u32),
    /// Sends the packet to another destination.
    DestinationNat(Nat),
    /// Gives the packet the address in a register as its source.
    SourceNat {
        /// The register.
        address: u32,
        /// The address is an IPv6 one.
        ipv6: bool,
    },
    /// Gives the packet the address of the interface it leaves by as its source.
    Masquerade,
    /// Tells the sender that nobody is there: by a reset (`true`, TCP only) or by ICMP.
    Refuse(bool),
    /// Loads a value into a register.
    Load(u32, Vec<u8>),
    /// Decides.
    Verdict(Verdict),
}

impl Expression<'_> {
    pub(super) fn put(&self, batch: &mut Batch) {
        let name = match self {
            Self::Meta(..) => "meta",
            Self::Payload(..) | Self::SetTransport(..) => "payload",
            Self::ConnectionState(_) | Self::ConnectionStatus(_) => "ct",
            Self::DestinationKind(_) => "fib",
            Self::Mask(..) => "bitwise",
            Self::Compare(..) => "cmp",
            Self::Lookup(..) | Self::LookupNot(..) | Self::VerdictMap(..) => "lookup",
            Self::DestinationNat(_) | Self::SourceNat { .. } => "nat",
            Self::Masquerade => "masq",
            Self::Refuse(_) => "reject",
            Self::Load(..) | Self::Verdict(_) => "immediate",
        };
        batch.attr_str(1, name);
        batch.nest(2, |batch| self.put_body(batch));
    }

    fn put_body(&self, batch: &mut Batch) {
        match self {
            Self::Meta(key, register) => put_numbers(batch, &[(1, *register), (2, *key as u32)]),
            Self::Payload(base, offset, length, register) => {
                put_numbers(
                    batch,
                    &[(1, *register), (2, *base as u32), (3, *offset), (4, *length)],
                );
            }
            Self::SetTransport(register, offset, udp) => {
                let checksum = if *udp { 6 } else { 16 };
                // Base, offset, length; source register, kind of checksum (that of the internet) and its offset.
                let numbers = [(2, 2), (3, *offset), (4, 2), (5, *register), (6, 1), (7, checksum)];
                put_numbers(batch, &numbers);
            }
            Self::ConnectionState(register) => put_numbers(batch, &[(1, *register), (2, 0)]),
            Self::ConnectionStatus(register) => put_numbers(batch, &[(1, *register), (2, 2)]),
            // Result: kind of address; by destination.
            Self::DestinationKind(register) => {
                put_numbers(batch, &[(1, *register), (2, 3), (3, 2)]);
            }
            Self::Mask(register, mask) => {
                put_numbers(batch, &[(1, *register), (2, *register), (3, 4)]);
                batch.nest(4, |batch| batch.attr(1, &mask.to_ne_bytes()));
                batch.nest(5, |batch| batch.attr(1, &[0; 4]));
            }
            Self::Compare(register, how, value) => {
                put_numbers(batch, &[(1, *register), (2, *how as u32)]);
                batch.nest(3, |batch| batch.attr(1, value));
            }
            Self::Lookup(set, register, into) => {
                put_lookup(batch, set, *register);
                if let Some(into) = into {
                    batch.attr_be32(3, *into);
                }
            }
            Self::LookupNot(set, register) => {
                put_lookup(batch, set, *register);
                batch.attr_be32(5, 1);
            }
            Self::VerdictMap(set, register) => {
                put_lookup(batch, set, *register);
                batch.attr_be32(3, 0);
            }
            // To a destination, of the address's family.
            Self::DestinationNat(nat) => {
                let family = if nat.ipv6 { 10 } else { 2 };
                put_numbers(batch, &[(1, 1), (2, family), (3, nat.address)]);
                if let Some(port) = nat.port {
                    batch.attr_be32(5, port);
                }
            }
            Self::SourceNat { address, ipv6 } => {
                let family = if *ipv6 { 10 } else { 2 };
                put_numbers(batch, &[(1, 0), (2, family), (3, *address)]);
            }
            Self::Masquerade => {}
            Self::Refuse(true) => put_numbers(batch, &[(1, 1)]),
            Self::Refuse(false) => {
                // The code of either family that says: no such port.
                put_numbers(batch, &[(1, 2)]);
                batch.attr(2, &[1]);
            }
            Self::Load(register, value) => {
                batch.attr_be32(1, *register);
                batch.nest(2, |batch| batch.attr(1, value));
            }
            Self::Verdict(verdict) => {
                batch.attr_be32(1, 0);
                batch.nest(2, |batch| verdict.put(batch));
            }
        }
    }
}

fn put_numbers(batch: &mut Batch, numbers: &[(u16, u32)]) {
    for (kind, number) in numbers {
        batch.attr_be32(*kind, *number);
    }
}

fn put_lookup(batch: &mut Batch, set: &str, register: u32) {
    batch.attr_str(1, set);
    batch.attr_be32(2, register);
}
