//! The bytes of netlink messages, see `netlink(7)`. Knows no message type.

const HEADER: usize = 16;
const NLA_F_NESTED: u16 = 1 << 15;
/// The upper two bits of an attribute's type are flags.
const TYPE_MASK: u16 = 0x3fff;

const fn aligned(length: usize) -> usize {
    length.next_multiple_of(4)
}

/// Messages to be sent together.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    bytes: Vec<u8>,
    /// Where each message starts.
    starts: Vec<usize>,
}

impl Batch {
    /// Makes an empty one.
    pub fn new() -> Self {
        Self::default()
    }

    /// Returns the number of messages.
    pub fn len(&self) -> usize {
        self.starts.len()
    }

    /// Tells whether there is no message.
    pub fn is_empty(&self) -> bool {
        self.starts.is_empty()
    }

    /// Adds a message with its fixed part; `body` adds the attributes.
    pub(crate) fn message(
        &mut self,
        kind: u16,
        flags: u16,
        fixed: &[u8],
        body: impl FnOnce(&mut Self),
    ) {
        let start = self.bytes.len();
        self.starts.push(start);
        self.bytes.extend([0; 4]);
        self.bytes.extend(kind.to_ne_bytes());
        self.bytes.extend(flags.to_ne_bytes());
        self.bytes.extend([0; 8]);
        self.bytes.extend(fixed);
        self.pad();
        body(self);
        let length = u32::try_from(self.bytes.len() - start).unwrap_or(u32::MAX);
        self.bytes[start..start + 4].copy_from_slice(&length.to_ne_bytes());
    }

    fn pad(&mut self) {
        self.bytes.resize(aligned(self.bytes.len()), 0);
    }

    /// Adds an attribute.
    pub(crate) fn attr(&mut self, kind: u16, value: &[u8]) {
        // Values come from bounded names and fixed-size fields; one that does not fit would be refused by the kernel.
        let length = u16::try_from(value.len() + 4).unwrap_or(u16::MAX);
        self.bytes.extend(length.to_ne_bytes());
        self.bytes.extend(kind.to_ne_bytes());
        self.bytes.extend(value);
        self.pad();
    }

    /// Adds a number in the host's byte order.
    pub(crate) fn attr_u32(&mut self, kind: u16, value: u32) {
        self.attr(kind, &value.to_ne_bytes());
    }

    /// Adds a number in network byte order.
    pub(crate) fn attr_be32(&mut self, kind: u16, value: u32) {
        self.attr(kind, &value.to_be_bytes());
    }

    /// Adds a text with its final zero byte.
    pub(crate) fn attr_str(&mut self, kind: u16, value: &str) {
        let mut bytes = value.as_bytes().to_vec();
        bytes.push(0);
        self.attr(kind, &bytes);
    }

    /// Adds an attribute made of attributes.
    pub(crate) fn nest(&mut self, kind: u16, body: impl FnOnce(&mut Self)) {
        let start = self.bytes.len();
        self.bytes.extend([0; 2]);
        self.bytes.extend((kind | NLA_F_NESTED).to_ne_bytes());
        body(self);
        let length = u16::try_from(self.bytes.len() - start).unwrap_or(u16::MAX);
        self.bytes[start..start + 2].copy_from_slice(&length.to_ne_bytes());
    }

    /// Adds bytes as they are: the fixed part inside some nested attributes.
    pub(crate) fn raw(&mut self, bytes: &[u8]) {
        self.bytes.extend(bytes);
        self.pad();
    }

    /// Appends the messages of another batch.
    pub fn append(&mut self, other: &Self) {
        let offset = self.bytes.len();
        self.starts.extend(other.starts.iter().map(|start| start + offset));
        self.bytes.extend(&other.bytes);
    }

    /// Returns the bytes, numbered from `first`, and asks for an acknowledgement of the messages that `ack` selects.
    pub(crate) fn numbered(&self, first: u32, ack: impl Fn(usize) -> bool) -> Vec<u8> {
        let mut bytes = self.bytes.clone();
        for (index, start) in self.starts.iter().enumerate() {
            let number = first.wrapping_add(index as u32);
            bytes[start + 8..start + 12].copy_from_slice(&number.to_ne_bytes());
            if ack(index) {
                let flags = u16::from_ne_bytes([bytes[start + 6], bytes[start + 7]]);
                let flags = flags | libc::NLM_F_ACK as u16;
                bytes[start + 6..start + 8].copy_from_slice(&flags.to_ne_bytes());
            }
        }
        bytes
    }
}

/// A received message.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Received<'a> {
    pub(crate) kind: u16,
    pub(crate) flags: u16,
    pub(crate) sequence: u32,
    /// The socket whose request this answers or tells of.
    pub(crate) port: u32,
    pub(crate) payload: &'a [u8],
}

/// Cuts a datagram into messages; stops at the first malformed one.
pub(crate) fn messages(mut bytes: &[u8]) -> impl Iterator<Item = Received<'_>> {
    std::iter::from_fn(move || {
        let header = bytes.get(..HEADER)?;
        let length = u32_at(header, 0) as usize;
        let message = bytes.get(..length).filter(|message| message.len() >= HEADER)?;
        bytes = bytes.get(aligned(length)..).unwrap_or_default();
        Some(Received {
            kind: u16_at(header, 4),
            flags: u16_at(header, 6),
            sequence: u32_at(header, 8),
            port: u32_at(header, 12),
            payload: &message[HEADER..],
        })
    })
}

/// Cuts bytes into attributes `(type, value)`; stops at the first malformed one.
pub(crate) fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let header = bytes.get(..4)?;
        let length = usize::from(u16_at(header, 0));
        let attribute = bytes.get(..length).filter(|attribute| attribute.len() >= 4)?;
        bytes = bytes.get(aligned(length)..).unwrap_or_default();
        Some((u16_at(header, 2) & TYPE_MASK, &attribute[4..]))
    })
}

/// Reads a number at `offset`; zero beyond the end.
pub(crate) fn u16_at(bytes: &[u8], offset: usize) -> u16 {
    let part = bytes.get(offset..offset + 2).and_then(|part| part.try_into().ok());
    u16::from_ne_bytes(part.unwrap_or_default())
}

/// Reads a number at `offset`; zero beyond the end.
pub(crate) fn u32_at(bytes: &[u8], offset: usize) -> u32 {
    let part = bytes.get(offset..offset + 4).and_then(|part| part.try_into().ok());
    u32::from_ne_bytes(part.unwrap_or_default())
}

/// Reads a text up to its final zero byte.
pub(crate) fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}
