//! The receiving end: packets in, calls of a [`TreeSink`] and requests for content out. Knows no transport.

use std::collections::HashMap;

use rorqual_build::{Error, TreeSink};

use super::entry_of;
use super::order::Order;
use crate::wire::{Packet, PacketType, Stat};

/// LIMIT: how much longer than announced a file may turn out to be; logs grow while they are read.
const GROWTH: u64 = 64 << 20;
/// LIMIT: extended attributes of one entry, as the kernel bounds them.
const LARGEST_XATTRS: usize = 64 << 10;

/// What a packet led to.
pub(crate) enum Received {
    /// Nothing to say.
    Nothing,
    /// This has to be sent.
    Reply(Packet),
    /// The other side confirmed the end.
    Finished,
}

struct Open {
    path: String,
    left: u64,
}

/// The state of one transfer. Blocking, as the sink is.
pub(crate) struct Receiver {
    sink: Option<Box<dyn TreeSink>>,
    order: Order,
    next: u32,
    open: HashMap<u32, Open>,
    is_walked: bool,
    is_told: bool,
}

impl Receiver {
    pub(crate) fn new(sink: Box<dyn TreeSink>) -> Self {
        Self {
            sink: Some(sink),
            order: Order::default(),
            next: 0,
            open: HashMap::new(),
            is_walked: false,
            is_told: false,
        }
    }

    /// Takes a packet.
    pub(crate) fn take(&mut self, packet: Packet) -> Result<Received, Error> {
        match PacketType::try_from(packet.r#type) {
            Ok(PacketType::PacketStat) => match packet.stat {
                Some(stat) => self.announced(stat),
                None => {
                    self.is_walked = true;
                    self.settle()
                }
            },
            Ok(PacketType::PacketData) => self.content(packet.id, &packet.data),
            Ok(PacketType::PacketFin) if self.is_told => Ok(Received::Finished),
            Ok(PacketType::PacketErr) => {
                let text = String::from_utf8_lossy(&packet.data);
                Err(invalid(format!("error from sender: {text}")))
            }
            _ => Err(invalid("the client broke the protocol of file transfer".to_owned())),
        }
    }

    fn announced(&mut self, stat: Stat) -> Result<Received, Error> {
        if self.is_walked {
            return Err(invalid("the client announced a file after the last one".to_owned()));
        }
        let xattrs: usize = stat.xattrs.iter().map(|(name, value)| name.len() + value.len()).sum();
        if xattrs > LARGEST_XATTRS {
            let path = stat.path;
            return Err(invalid(format!("{path:?} has too many extended attributes")));
        }
        let id = self.next;
        self.next += 1;
        let entry = entry_of(stat);
        self.order.check(&entry)?;
        let has_content = entry.mode & 0o170_000 == 0o100_000 && entry.link.is_empty();
        let (path, size) = (entry.path.clone(), entry.size);
        let Some(sink) = self.sink.as_mut() else { return Err(Error::Cancelled) };
        if !sink.entry(entry)? || !has_content {
            return Ok(Received::Nothing);
        }
        self.open.insert(id, Open { path, left: size.saturating_add(GROWTH) });
        Ok(Received::Reply(Packet {
            r#type: PacketType::PacketReq as i32,
            id,
            ..Packet::default()
        }))
    }

    fn content(&mut self, id: u32, bytes: &[u8]) -> Result<Received, Error> {
        let Some(open) = self.open.get_mut(&id) else {
            return Err(invalid(format!(
                "the client sent content of file {id}, which nobody wanted"
            )));
        };
        let Some(sink) = self.sink.as_mut() else { return Err(Error::Cancelled) };
        if bytes.is_empty() {
            sink.end(&open.path)?;
            self.open.remove(&id);
            return self.settle();
        }
        let path = &open.path;
        open.left = open.left.checked_sub(bytes.len() as u64).ok_or_else(|| {
            invalid(format!("{path:?} grew by more than {} MiB while it was read", GROWTH >> 20))
        })?;
        sink.data(&open.path, bytes)?;
        Ok(Received::Nothing)
    }

    /// Ends the transfer once everything has come.
    fn settle(&mut self) -> Result<Received, Error> {
        if !self.is_walked || !self.open.is_empty() || self.is_told {
            return Ok(Received::Nothing);
        }
        if let Some(sink) = self.sink.take() {
            sink.finish()?;
        }
        self.is_told = true;
        Ok(Received::Reply(Packet { r#type: PacketType::PacketFin as i32, ..Packet::default() }))
    }
}

fn invalid(message: String) -> Error {
    Error::Invalid { message, location: None }
}

#[cfg(test)]
mod tests;
