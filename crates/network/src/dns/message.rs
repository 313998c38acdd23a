//! The parts of DNS messages (RFC 1035, 3596, 6891) that a forwarder needs: the question, answers with addresses and
//! names, and where the times to live are. Everything else passes through as bytes.
//!
//! A general library would parse, own and write again every record of every answer that only passes through.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Types of records.
pub(super) const A: u16 = 1;
const SOA: u16 = 6;
pub(super) const PTR: u16 = 12;
pub(super) const AAAA: u16 = 28;
const OPT: u16 = 41;
const ANY: u16 = 255;
const IN: u16 = 1;
/// DO
const SIGNED: u16 = 0x8000;
/// The upper bits of BADVERS.
const BAD_VERSION: u8 = 1;

/// LIMIT: what a client without EDNS takes over UDP.
const PLAIN_UDP: usize = 512;
/// LIMIT: the largest answer over UDP, whatever a client says.
pub(super) const LARGEST_UDP: usize = 4096;
/// LIMIT: labels of a name; it has 255 bytes at most.
const MOST_LABELS: usize = 128;
/// LIMIT: answers hold no more addresses than this; the rest gets its turn by rotation.
const MOST_ANSWERS: usize = 64;
/// Bytes of what the resolver says of itself.
const OPT_LENGTH: usize = 11;
// COMPAT: the time Docker gives its answers.
const TIME_TO_LIVE: u32 = 600;

/// How an answer ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Code {
    /// There is an answer, or nothing of that type.
    Ok = 0,
    /// The query makes no sense.
    FormatError = 1,
    /// No server answered.
    Failed = 2,
    /// There is no such name.
    NoSuchName = 3,
    /// Not this kind of query.
    NotImplemented = 4,
}

/// A query that makes sense.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Query {
    /// Number that its answer carries.
    pub(super) id: u16,
    /// Name in lower case, without the last dot.
    pub(super) name: String,
    /// Type of record.
    pub(super) kind: u16,
    /// Of the internet.
    pub(super) internet: bool,
    recursion: bool,
    /// End of the question within the message.
    question_end: usize,
    /// What the client says by EDNS, where it speaks that.
    edns: Option<Edns>,
}

/// What a client says of itself (RFC 6891, 3225).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Edns {
    /// Its bound on answers over UDP.
    size: u16,
    version: u8,
    /// It understands signatures.
    signed: bool,
}

impl Query {
    /// Bytes that an answer over UDP may have.
    pub(super) fn room(&self) -> usize {
        self.edns.map_or(PLAIN_UDP, |edns| usize::from(edns.size).clamp(PLAIN_UDP, LARGEST_UDP))
    }

    /// Tells whether the client speaks a version of EDNS that nobody here does.
    pub(super) fn is_too_new(&self) -> bool {
        self.edns.is_some_and(|edns| edns.version > 0)
    }

    /// Tells whether all types of records are asked for.
    pub(super) const fn wants(&self, kind: u16) -> bool {
        self.kind == kind || self.kind == ANY
    }
}

/// What came instead of a query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unusable {
    /// Nothing to answer to.
    Noise,
    /// To be answered with this code.
    Refuse(Code),
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(bytes.get(at..at.checked_add(2)?)?.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(bytes.get(at..at.checked_add(4)?)?.try_into().ok()?))
}

/// Reads the name of a question, which cannot be compressed; returns it with its end.
fn question_name(bytes: &[u8], mut at: usize) -> Option<(String, usize)> {
    let mut name = String::new();
    for _ in 0..MOST_LABELS {
        let length = usize::from(*bytes.get(at)?);
        at += 1;
        if length == 0 {
            return (name.len() <= 253).then_some((name, at));
        }
        if length > 63 {
            return None;
        }
        let label = bytes.get(at..at + length)?;
        at += length;
        if !name.is_empty() {
            name.push('.');
        }
        for byte in label {
            // A dot within a label would read as two labels, so it is written as no name of ours can be.
            let shown = if *byte == b'.' || !byte.is_ascii_graphic() {
                '\u{fffd}'
            } else {
                char::from(*byte)
            };
            name.push(shown.to_ascii_lowercase());
        }
    }
    None
}

/// Finds the end of a name that may be compressed.
fn skip_name(bytes: &[u8], mut at: usize) -> Option<usize> {
    for _ in 0..MOST_LABELS {
        let length = *bytes.get(at)?;
        match length {
            0 => return Some(at + 1),
            0xc0.. => return Some(at + 2),
            64.. => return None,
            _ => at += 1 + usize::from(length),
        }
    }
    None
}

/// Reads a query.
pub(super) fn parse(bytes: &[u8]) -> Result<Query, Unusable> {
    let (Some(id), Some(flags)) = (u16_at(bytes, 0), u16_at(bytes, 2)) else {
        return Err(Unusable::Noise);
    };
    // An answer is never answered, or two resolvers could talk for ever.
    if bytes.len() < 12 || flags & 0x8000 != 0 {
        return Err(Unusable::Noise);
    }
    if flags & 0x7800 != 0 {
        return Err(Unusable::Refuse(Code::NotImplemented));
    }
    let parsed = || {
        let one_question = u16_at(bytes, 4)? == 1 && u16_at(bytes, 6)? == 0;
        let (name, end) = question_name(bytes, 12).filter(|_| one_question)?;
        let (kind, class) = (u16_at(bytes, end)?, u16_at(bytes, end + 2)?);
        let edns = edns_of(bytes, end + 4)?;
        Some(Query {
            id,
            name,
            kind,
            internet: class == IN,
            recursion: flags & 0x0100 != 0,
            question_end: end + 4,
            edns,
        })
    };
    parsed().ok_or(Unusable::Refuse(Code::FormatError))
}

/// Looks for EDNS among what follows the question.
#[expect(clippy::option_option, reason = "the outer one says that the message makes no sense")]
fn edns_of(bytes: &[u8], mut at: usize) -> Option<Option<Edns>> {
    let records = u32::from(u16_at(bytes, 8)?) + u32::from(u16_at(bytes, 10)?);
    for _ in 0..records {
        let end = skip_name(bytes, at)?;
        let (kind, size) = (u16_at(bytes, end)?, u16_at(bytes, end + 2)?);
        if kind == OPT {
            let (version, flags) = (*bytes.get(end + 5)?, u16_at(bytes, end + 6)?);
            return Some(Some(Edns { size, version, signed: flags & SIGNED != 0 }));
        }
        at = end + 10 + usize::from(u16_at(bytes, end + 8)?);
    }
    Some(None)
}

/// A record of an answer of our own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Data {
    /// An address.
    Address(IpAddr),
    /// A name.
    Name(String),
}

/// Writes an answer; what does not fit into `room` is left out, and the client told to ask over TCP.
pub(super) fn answer(
    message: &[u8],
    query: &Query,
    code: Code,
    records: &[Data],
    room: usize,
) -> Vec<u8> {
    let mut out = header(message, query.recursion, code);
    out.extend(message.get(12..query.question_end).unwrap_or_default());
    let reserved = if query.edns.is_some() { OPT_LENGTH } else { 0 };
    let mut count = 0_u16;
    for record in records.iter().take(MOST_ANSWERS) {
        let before = out.len();
        put_record(&mut out, record);
        if out.len() + reserved > room {
            out.truncate(before);
            // TC
            out[2] |= 0x02;
            break;
        }
        count += 1;
    }
    out[4..6].copy_from_slice(&1_u16.to_be_bytes());
    out[6..8].copy_from_slice(&count.to_be_bytes());
    put_edns(&mut out, query);
    out
}

/// Adds what the resolver says of itself, where the client has.
fn put_edns(out: &mut Vec<u8>, query: &Query) {
    let Some(edns) = query.edns else { return };
    out[10..12].copy_from_slice(&1_u16.to_be_bytes());
    out.push(0);
    out.extend(OPT.to_be_bytes());
    out.extend((LARGEST_UDP as u16).to_be_bytes());
    out.extend([if edns.version > 0 { BAD_VERSION } else { 0 }, 0]);
    out.extend(if edns.signed { SIGNED } else { 0 }.to_be_bytes());
    out.extend([0; 2]);
}

/// Makes an answer that has no room into one that tells the client to ask over TCP.
pub(super) fn cut_short(answer: &[u8], message: &[u8], query: &Query) -> Vec<u8> {
    let mut out = answer.get(..12).unwrap_or_default().to_vec();
    // TC
    out[2] |= 0x02;
    out[6..12].fill(0);
    out.extend(message.get(12..query.question_end).unwrap_or_default());
    put_edns(&mut out, query);
    out
}

/// Writes an answer to something that is no query.
pub(super) fn refusal(message: &[u8], code: Code) -> Vec<u8> {
    header(message, false, code)
}

fn header(message: &[u8], recursion: bool, code: Code) -> Vec<u8> {
    let mut out = vec![0; 12];
    out[..2].copy_from_slice(message.get(..2).unwrap_or(&[0; 2]));
    // QR, the query's RD, RA.
    out[2] = 0x80 | u8::from(recursion);
    out[3] = 0x80 | code as u8;
    out
}

fn put_record(out: &mut Vec<u8>, record: &Data) {
    let (kind, data) = match record {
        Data::Address(IpAddr::V4(address)) => (A, address.octets().to_vec()),
        Data::Address(IpAddr::V6(address)) => (AAAA, address.octets().to_vec()),
        Data::Name(name) => (PTR, encoded(name)),
    };
    // The name is the question's, right behind the header.
    out.extend([0xc0, 12]);
    out.extend(kind.to_be_bytes());
    out.extend(IN.to_be_bytes());
    out.extend(TIME_TO_LIVE.to_be_bytes());
    out.extend((data.len() as u16).to_be_bytes());
    out.extend(data);
}

fn encoded(name: &str) -> Vec<u8> {
    let mut out = Vec::new();
    for label in name.split('.').filter(|label| !label.is_empty()) {
        // LIMIT: a label has 63 bytes at most.
        let label = &label.as_bytes()[..label.len().min(63)];
        out.push(label.len() as u8);
        out.extend(label);
    }
    out.push(0);
    out
}

/// Reads an address from the name of a reverse question.
pub(super) fn reverse(name: &str) -> Option<IpAddr> {
    if let Some(labels) = name.strip_suffix(".in-addr.arpa") {
        let mut octets = [0; 4];
        let mut parts = labels.split('.');
        for octet in octets.iter_mut().rev() {
            *octet = parts.next()?.parse().ok()?;
        }
        return parts.next().is_none().then(|| IpAddr::V4(Ipv4Addr::from(octets)));
    }
    let labels = name.strip_suffix(".ip6.arpa")?;
    let mut bits = 0_u128;
    let mut count = 0;
    for (place, label) in labels.split('.').enumerate() {
        let digit = label.chars().next().filter(|_| label.len() == 1)?.to_digit(16)?;
        bits |= u128::from(digit) << (4 * u32::try_from(place).ok().filter(|place| *place < 32)?);
        count = place + 1;
    }
    (count == 32).then(|| IpAddr::V6(Ipv6Addr::from_bits(bits)))
}

/// Tells whether an answer belongs to a query: same number, same question.
pub(super) fn answers(answer: &[u8], id: u16, query: &[u8], question_end: usize) -> bool {
    u16_at(answer, 0) == Some(id)
        && answer.get(2).is_some_and(|flags| flags & 0x80 != 0)
        && u16_at(answer, 4) == Some(1)
        && answer
            .get(12..question_end)
            .zip(query.get(12..question_end))
            .is_some_and(|(answer, query)| answer.eq_ignore_ascii_case(query))
}

impl Query {
    /// End of the question within the message.
    pub(super) const fn question_end(&self) -> usize {
        self.question_end
    }
}

/// Returns the code of an answer.
pub(super) fn code(answer: &[u8]) -> u8 {
    answer.get(3).map_or(0, |byte| byte & 0x0f)
}

/// Tells whether an answer was cut short.
pub(super) fn is_truncated(answer: &[u8]) -> bool {
    answer.get(2).is_some_and(|byte| byte & 0x02 != 0)
}

/// Finds where the times to live are, and how long the answer as a whole may be kept.
pub(super) fn lifetimes(answer: &[u8]) -> Option<(Vec<usize>, u32)> {
    let mut at = 12;
    for _ in 0..u16_at(answer, 4)? {
        at = skip_name(answer, at)? + 4;
    }
    let counts = [u16_at(answer, 6)?, u16_at(answer, 8)?, u16_at(answer, 10)?];
    let (mut places, mut shortest) = (Vec::new(), u32::MAX);
    for section in counts {
        for _ in 0..section {
            let end = skip_name(answer, at)?;
            let kind = u16_at(answer, end)?;
            let length = usize::from(u16_at(answer, end + 8)?);
            let next = end + 10 + length;
            if kind != OPT {
                places.push(end + 4);
                shortest = shortest.min(u32_at(answer, end + 4)?);
            }
            if kind == SOA && next >= 4 {
                // What is not there may be kept as long as its zone says.
                shortest = shortest.min(u32_at(answer, next - 4)?);
            }
            at = next;
        }
    }
    (at <= answer.len()).then_some((places, shortest))
}

#[cfg(test)]
pub(super) mod tests;
