//! Messages as clients and servers write them.

use std::net::IpAddr;

use proptest::prelude::*;

use super::{A, AAAA, Code, Data, PTR, Unusable, answer, answers, lifetimes, parse, reverse};

/// Writes a query as a client would.
pub(in crate::dns) fn query(name: &str, kind: u16, edns: bool) -> Vec<u8> {
    let mut out = vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, u8::from(edns)];
    out.extend(super::encoded(name));
    out.extend(kind.to_be_bytes());
    out.extend([0, 1]);
    if edns {
        out.extend([0, 0, 41, 0x04, 0xd0, 0, 0, 0, 0, 0, 0]);
    }
    out
}

#[test]
fn a_query_is_read() {
    let read = parse(&query("Web.Example", A, false)).unwrap();
    assert_eq!((read.id, read.name.as_str(), read.kind), (0x1234, "web.example", A));
    assert_eq!(read.room(), 512);
    assert_eq!(parse(&query("web", AAAA, true)).unwrap().room(), 1232);
}

#[test]
fn what_is_no_query_is_refused_or_ignored() {
    assert_eq!(parse(b"short"), Err(Unusable::Noise));
    let mut reply = query("web", A, false);
    reply[2] |= 0x80;
    assert_eq!(parse(&reply), Err(Unusable::Noise));
    let mut notify = query("web", A, false);
    notify[2] |= 0x20;
    assert_eq!(parse(&notify), Err(Unusable::Refuse(Code::NotImplemented)));
    let mut two = query("web", A, false);
    two[5] = 2;
    assert_eq!(parse(&two), Err(Unusable::Refuse(Code::FormatError)));
}

#[test]
fn an_answer_repeats_the_question_and_bears_its_records() {
    let message = query("web", A, true);
    let read = parse(&message).unwrap();
    let records = [Data::Address([10, 0, 0, 2].into()), Data::Address([10, 0, 0, 3].into())];
    let written = answer(&message, &read, Code::Ok, &records, read.room());
    assert!(answers(&written, 0x1234, &message, read.question_end()));
    assert_eq!(&written[..12], [0x12, 0x34, 0x81, 0x80, 0, 1, 0, 2, 0, 0, 0, 1]);
    let (places, shortest) = lifetimes(&written).unwrap();
    assert_eq!((places.len(), shortest), (2, 600));
    assert!(written.windows(4).any(|four| four == [10, 0, 0, 3]));
}

#[test]
fn a_long_answer_is_cut_and_marked() {
    let message = query("web", A, false);
    let read = parse(&message).unwrap();
    let records = (0..64).map(|n| Data::Address([10, 0, 0, n].into())).collect::<Vec<_>>();
    let cut = answer(&message, &read, Code::Ok, &records, read.room());
    assert!(cut.len() <= 512 && super::is_truncated(&cut));
    let whole = answer(&message, &read, Code::Ok, &records, 65535);
    assert!(!super::is_truncated(&whole));
    assert_eq!(whole[7], 64);
}

#[test]
fn reverse_names_are_addresses() {
    let ip = |text: &str| text.parse::<IpAddr>().unwrap();
    assert_eq!(reverse("2.0.18.172.in-addr.arpa"), Some(ip("172.18.0.2")));
    let digits = "2.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.d.f.ip6.arpa";
    assert_eq!(reverse(digits), Some(ip("fd00::2")));
    for other in
        ["18.172.in-addr.arpa", "1.2.3.4.5.in-addr.arpa", "x.in-addr.arpa", "d.f.ip6.arpa", "web"]
    {
        assert_eq!(reverse(other), None, "{other}");
    }
}

proptest! {
    #[test]
    fn any_bytes_are_read_without_harm(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        let _read = parse(&bytes);
        let _lives = lifetimes(&bytes);
    }

    #[test]
    fn an_answer_never_exceeds_its_room(count in 0_usize..80, kind in prop_oneof![Just(A), Just(AAAA), Just(PTR)]) {
        let message = query("some.name", kind, count % 2 == 0);
        let read = parse(&message).unwrap();
        let records = vec![Data::Name("a-name.some-network".to_owned()); count];
        prop_assert!(answer(&message, &read, Code::Ok, &records, read.room()).len() <= read.room());
    }
}

/// A query whose client understands signatures, of a version of EDNS.
pub(in crate::dns) fn signed(name: &str, version: u8) -> Vec<u8> {
    let mut out = query(name, A, true);
    let at = out.len();
    out[at - 5] = version;
    out[at - 4] = 0x80;
    out
}

#[test]
fn what_a_client_says_by_edns_is_answered() {
    let message = signed("web", 0);
    let read = parse(&message).unwrap();
    assert!(!read.is_too_new());
    let written = answer(&message, &read, Code::Ok, &[], read.room());
    // No record, and the resolver's own size with the client's flag.
    assert_eq!(written[written.len() - 11..], [0, 0, 41, 0x10, 0, 0, 0, 0x80, 0, 0, 0]);
    let message = signed("web", 1);
    let read = parse(&message).unwrap();
    assert!(read.is_too_new());
    let written = answer(&message, &read, Code::Ok, &[], read.room());
    assert_eq!(written[written.len() - 11..], [0, 0, 41, 0x10, 0, 1, 0, 0x80, 0, 0, 0]);
}

#[test]
fn an_answer_without_room_is_cut_to_its_question() {
    let message = query("web", A, false);
    let read = parse(&message).unwrap();
    let records = (0..64).map(|n| Data::Address([10, 0, 0, n].into())).collect::<Vec<_>>();
    let long = answer(&message, &read, Code::Ok, &records, 4096);
    let short = super::cut_short(&long, &message, &read);
    assert!(super::is_truncated(&short) && answers(&short, 0x1234, &message, read.question_end()));
    assert_eq!((short.len(), &short[6..12]), (read.question_end(), &[0; 6][..]));
}
