//! The firewall by nf_tables netlink: tables, chains, rules, sets and maps, changed in atomic transactions.
//!
//! Everything is of the `inet` family. Which rules there are is up to the caller.

mod expression;
mod watch;

use crate::net::{Answers, Batch, NetlinkError, Socket};

pub use expression::{Compare, Expression, Meta, Nat, PayloadBase, Verdict};
pub use watch::{Watch, WatchEvent};

const SUBSYSTEM: u16 = 10 << 8;
const NEW_TABLE: u16 = SUBSYSTEM;
const DEL_TABLE: u16 = SUBSYSTEM | 2;
const NEW_CHAIN: u16 = SUBSYSTEM | 0x3;
const NEW_RULE: u16 = SUBSYSTEM | 6;
const NEW_SET: u16 = SUBSYSTEM | 0x09;
const NEW_ELEMENT: u16 = SUBSYSTEM | 0x0c;
const DEL_ELEMENT: u16 = SUBSYSTEM | 0x0e;
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;

const REQUEST: u16 = libc::NLM_F_REQUEST as u16;
const CREATE: u16 = (libc::NLM_F_REQUEST | libc::NLM_F_CREATE) as u16;
const APPEND: u16 = (libc::NLM_F_REQUEST | libc::NLM_F_CREATE | libc::NLM_F_APPEND) as u16;

/// `nfgenmsg` of the `inet` family.
const INET: [u8; 4] = [1, 0, 0, 0];
/// `nfgenmsg` that opens and closes a transaction of nf_tables.
const FRAME: [u8; 4] = [0, 0, 0, 10];

/// LIMIT: a message of set elements is one attribute, which ends at 64 KiB.
const ELEMENTS_PER_MESSAGE: usize = 400;

/// Where packets pass a base chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// Arrived, not routed yet.
    Prerouting = 0,
    /// For this host.
    Input = 1,
    /// Passing through.
    Forward = 2,
    /// From this host.
    Output = 3,
    /// About to leave.
    Postrouting = 4,
}

/// What makes a chain a base chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Base {
    /// `filter` or `nat`.
    pub kind: &'static str,
    /// Where.
    pub hook: Hook,
    /// Order among the chains of this hook; smaller comes first.
    pub priority: i32,
}

/// Data types of set keys and map values, as the `nft` tool numbers them; the kernel only keeps them for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DataType {
    /// IPv4 address
    Ipv4 = 7,
    /// IPv6 address
    Ipv6 = 8,
    /// Transport protocol
    Protocol = 12,
    /// Port
    Port = 13,
    /// Interface name
    InterfaceName = 41,
}

impl DataType {
    /// Bytes without padding.
    const fn bytes(self) -> u32 {
        match self {
            Self::Protocol => 1,
            Self::Port => 2,
            other => other.length(),
        }
    }

    const fn length(self) -> u32 {
        match self {
            Self::Ipv4 => 4,
            Self::Protocol | Self::Port => 4, // padded to a register
            Self::Ipv6 | Self::InterfaceName => 16,
        }
    }
}

/// What a map's elements lead to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MapTo {
    /// Verdicts
    Verdict,
    /// Values
    Values(&'static [DataType]),
}

/// A set or map to be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Set<'a> {
    /// Name within its table.
    pub name: &'a str,
    /// The key's parts.
    pub key: &'static [DataType],
    /// What elements lead to; `None` for a plain set.
    pub to: Option<MapTo>,
    /// Elements are ranges: of a key with one part, a start and an [`Element::end`]; of several, one element with its
    /// [`Element::last`].
    pub interval: bool,
}

/// What an element leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ElementData {
    /// Nothing.
    None,
    /// A value.
    Value(Vec<u8>),
    /// A verdict.
    Verdict(Verdict),
    /// This key is the first one behind a range.
    End,
}

/// An element of a set or map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Element {
    /// Key; each part is padded to a multiple of four bytes.
    pub key: Vec<u8>,
    /// Of a set of ranges with keys of several parts: the last values of all parts.
    pub last: Option<Vec<u8>>,
    /// What it leads to.
    pub data: ElementData,
}

impl Element {
    /// Makes the mark behind a range.
    pub const fn end(key: Vec<u8>) -> Self {
        Self::new(key, ElementData::End)
    }

    /// Makes an element of a single key.
    pub const fn new(key: Vec<u8>, data: ElementData) -> Self {
        Self { key, last: None, data }
    }
}

fn type_number(types: &[DataType]) -> u32 {
    types.iter().fold(0, |number, part| number << 6 | *part as u32)
}

fn total_length(types: &[DataType]) -> u32 {
    match types {
        // A single short value is not padded.
        [DataType::Protocol] => 1,
        [DataType::Port] => 2,
        parts => parts.iter().map(|part| part.length()).sum(),
    }
}

/// Changes that happen together or not at all.
#[derive(Clone, Debug)]
pub struct Transaction {
    batch: Batch,
}

impl Default for Transaction {
    fn default() -> Self {
        Self::new()
    }
}

impl Transaction {
    /// Starts one.
    pub fn new() -> Self {
        let mut batch = Batch::new();
        batch.message(BATCH_BEGIN, REQUEST, &FRAME, |_| {});
        Self { batch }
    }

    /// Makes a table; one that exists stays as it is.
    pub fn add_table(&mut self, name: &str) {
        self.batch.message(NEW_TABLE, CREATE, &INET, |batch| batch.attr_str(1, name));
    }

    /// Makes a table that only the socket which commits this may change, as long as it is open, and that stays when it
    /// is closed; or takes over one that was left so. A flush of everything by others passes it over.
    ///
    /// Needs Linux 6.9; older kernels refuse the transaction.
    pub fn add_owned_table(&mut self, name: &str) {
        const OWNER: u32 = 2;
        const PERSIST: u32 = 4;
        self.batch.message(NEW_TABLE, CREATE, &INET, |batch| {
            batch.attr_str(1, name);
            batch.attr_be32(2, OWNER | PERSIST);
        });
    }

    /// Deletes a table that is known to be there.
    pub fn delete_present_table(&mut self, name: &str) {
        self.batch.message(DEL_TABLE, REQUEST, &INET, |batch| batch.attr_str(1, name));
    }

    /// Deletes every table of every family that others may delete, as `nft flush ruleset` does.
    pub fn delete_all_tables(&mut self) {
        self.batch.message(DEL_TABLE, REQUEST, &[0; 4], |_| {});
    }

    /// Deletes a table with all that is in it, whether it exists or not.
    pub fn delete_table(&mut self, name: &str) {
        // Deleting what does not exist fails, so it is made first; nobody sees that.
        self.add_table(name);
        self.delete_present_table(name);
    }

    /// Makes a chain; a base chain accepts what no rule decides.
    pub fn add_chain(&mut self, table: &str, name: &str, base: Option<Base>) {
        self.batch.message(NEW_CHAIN, CREATE, &INET, |batch| {
            batch.attr_str(1, table);
            batch.attr_str(3, name);
            let Some(base) = base else { return };
            batch.nest(4, |batch| {
                batch.attr_be32(1, base.hook as u32);
                batch.attr_be32(2, base.priority.cast_unsigned());
            });
            batch.attr_be32(5, 1);
            batch.attr_str(7, base.kind);
        });
    }

    /// Appends a rule to a chain.
    pub fn add_rule(&mut self, table: &str, chain: &str, expressions: &[Expression<'_>]) {
        self.batch.message(NEW_RULE, APPEND, &INET, |batch| {
            batch.attr_str(1, table);
            batch.attr_str(2, chain);
            batch.nest(4, |batch| {
                for expression in expressions {
                    batch.nest(1, |batch| expression.put(batch));
                }
            });
        });
    }

    /// Makes a set or map.
    pub fn add_set(&mut self, table: &str, set: &Set<'_>) {
        const INTERVAL: u32 = 4;
        const MAP: u32 = 8;
        const CONCATENATED: u32 = 0x80;
        const VERDICTS: u32 = 0xffff_ff00;
        let interval = if set.interval { INTERVAL } else { 0 };
        let map = if set.to.is_some() { MAP } else { 0 };
        let ranges_of_parts = set.interval && set.key.len() > 1;
        let parts = if ranges_of_parts { CONCATENATED } else { 0 };
        self.batch.message(NEW_SET, CREATE, &INET, |batch| {
            batch.attr_str(1, table);
            batch.attr_str(2, set.name);
            batch.attr_be32(3, interval | map | parts);
            batch.attr_be32(4, type_number(set.key));
            batch.attr_be32(5, total_length(set.key));
            match set.to {
                None => {}
                Some(MapTo::Verdict) => batch.attr_be32(6, VERDICTS),
                Some(MapTo::Values(types)) => {
                    batch.attr_be32(6, type_number(types));
                    batch.attr_be32(7, total_length(types));
                }
            }
            if ranges_of_parts {
                // The kernel compares part by part, so it has to know how long each is.
                batch.nest(9, |batch| {
                    batch.nest(2, |batch| {
                        for part in set.key {
                            batch.nest(1, |batch| batch.attr_be32(1, part.bytes()));
                        }
                    });
                });
            }
            // The number would name the set within the transaction; its name does as well, but the kernel asks for one.
            batch.attr_be32(10, 1);
        });
    }

    /// Adds elements; equal ones may exist.
    pub fn add_elements(&mut self, table: &str, set: &str, elements: &[Element]) {
        self.elements(NEW_ELEMENT, CREATE, (table, set), elements);
    }

    /// Deletes elements, which must exist.
    pub fn delete_elements(&mut self, table: &str, set: &str, elements: &[Element]) {
        self.elements(DEL_ELEMENT, REQUEST, (table, set), elements);
    }

    fn elements(&mut self, kind: u16, flags: u16, set: (&str, &str), elements: &[Element]) {
        for chunk in elements.chunks(ELEMENTS_PER_MESSAGE) {
            self.batch.message(kind, flags, &INET, |batch| {
                batch.attr_str(1, set.0);
                batch.attr_str(2, set.1);
                batch.nest(3, |batch| {
                    for element in chunk {
                        batch.nest(1, |batch| put_element(batch, element));
                    }
                });
            });
        }
    }

    /// Carries the changes out.
    ///
    /// # Errors
    /// The first refusal; then nothing has changed.
    pub fn commit(mut self, socket: &mut Socket) -> Result<(), NetlinkError> {
        self.batch.message(BATCH_END, REQUEST, &FRAME, |_| {});
        socket.exchange(&self.batch, Answers::Transaction)
    }
}

fn put_element(batch: &mut Batch, element: &Element) {
    batch.nest(1, |batch| batch.attr(1, &element.key));
    if let Some(last) = &element.last {
        batch.nest(10, |batch| batch.attr(1, last));
    }
    match &element.data {
        ElementData::None => {}
        ElementData::Value(value) => batch.nest(2, |batch| batch.attr(1, value)),
        ElementData::Verdict(verdict) => batch.nest(2, |batch| verdict.put(batch)),
        ElementData::End => batch.attr_be32(3, 1),
    }
}

#[cfg(test)]
mod tests;
