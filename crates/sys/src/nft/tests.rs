//! In network namespaces of their own; need root.

use std::io;

use super::*;
use crate::net::{self, Protocol};

const TABLE: &str = "rorqual-test";

#[expect(clippy::needless_pass_by_value, reason = "the shape of `map_err`")]
fn other(error: NetlinkError) -> io::Error {
    io::Error::other(format!("{error}: {}", error.source))
}

const PUBLISHED: Set<'_> = Set {
    name: "published",
    key: &[DataType::Protocol, DataType::Port],
    to: Some(MapTo::Values(&[DataType::Ipv4, DataType::Port])),
    interval: false,
};
const SUBNETS: Set<'_> =
    Set { name: "subnets", key: &[DataType::Ipv4], to: Some(MapTo::Verdict), interval: true };

fn element() -> Element {
    Element::new(
        vec![6, 0, 0, 0, 0x1f, 0x90, 0, 0],
        ElementData::Value(vec![172, 17, 0, 2, 0, 80, 0, 0]),
    )
}

const RANGES: Set<'_> = Set {
    name: "ranges",
    key: &[DataType::Ipv4, DataType::Protocol, DataType::Port],
    to: Some(MapTo::Values(&[DataType::Ipv4])),
    interval: true,
};

#[test]
fn a_range_of_several_parts_is_one_element() {
    let key = |port: u16| [&[127, 0, 0, 1, 6, 0, 0, 0][..], &port.to_be_bytes(), &[0; 2]].concat();
    let range = |first: u16, last: u16| Element {
        key: key(first),
        last: Some(key(last)),
        data: ElementData::Value(vec![172, 17, 0, 2]),
    };
    net::new_namespace(|_| {
        let mut socket = Socket::open(Protocol::Netfilter)?;
        let mut all = Transaction::new();
        all.add_table(TABLE);
        all.add_set(TABLE, &RANGES);
        all.add_elements(TABLE, "ranges", &[range(8000, 17999)]);
        all.commit(&mut socket).map_err(other)?;
        let mut overlapping = Transaction::new();
        let elsewhere = ElementData::Value(vec![172, 17, 0, 3]);
        let inside = Element { data: elsewhere, ..range(9000, 9001) };
        overlapping.add_elements(TABLE, "ranges", &[inside]);
        assert!(overlapping.commit(&mut socket).is_err(), "two ranges share a port");
        let mut gone = Transaction::new();
        gone.delete_elements(TABLE, "ranges", &[range(8000, 17999)]);
        gone.commit(&mut socket).map_err(other)
    })
    .unwrap();
}

fn whole() -> Transaction {
    let mut all = Transaction::new();
    all.delete_table(TABLE);
    all.add_table(TABLE);
    all.add_set(TABLE, &PUBLISHED);
    all.add_set(TABLE, &SUBNETS);
    all.add_chain(TABLE, "guard", None);
    let base = Base { kind: "nat", hook: Hook::Prerouting, priority: -100 };
    all.add_chain(TABLE, "prerouting", Some(base));
    all.add_rule(
        TABLE,
        "prerouting",
        &[
            Expression::Meta(Meta::NetworkProtocol, 1),
            Expression::Compare(1, Compare::Equal, vec![2]),
            Expression::DestinationKind(1),
            Expression::Compare(1, Compare::Equal, 2_u32.to_ne_bytes().to_vec()),
            Expression::Meta(Meta::TransportProtocol, 8),
            Expression::Payload(PayloadBase::Transport, 2, 2, 9),
            Expression::Lookup("published", 1, Some(1)),
            Expression::DestinationNat(Nat { address: 1, port: Some(9), ipv6: false }),
        ],
    );
    let start =
        Element::new(vec![172, 17, 0, 0], ElementData::Verdict(Verdict::Jump("guard".to_owned())));
    all.add_elements(TABLE, "subnets", &[start, Element::end(vec![172, 18, 0, 0])]);
    all.add_elements(TABLE, "published", &[element()]);
    all
}

#[test]
fn a_transaction_is_all_or_nothing() {
    net::new_namespace(|_| {
        let mut socket = Socket::open(Protocol::Netfilter)?;
        whole().commit(&mut socket).map_err(other)?;
        whole().commit(&mut socket).map_err(other)?;

        let mut remove = Transaction::new();
        remove.delete_elements(TABLE, "published", &[element()]);
        remove.clone().commit(&mut socket).map_err(other)?;
        let gone = remove.commit(&mut socket).unwrap_err();
        assert!(gone.is(rustix::io::Errno::NOENT), "{gone:?}");

        let mut half = Transaction::new();
        half.add_elements(TABLE, "published", &[element()]);
        half.add_rule(TABLE, "nowhere", &[Expression::Verdict(Verdict::Drop)]);
        half.add_table(TABLE);
        assert!(half.commit(&mut socket).is_err());
        let mut remove = Transaction::new();
        remove.delete_elements(TABLE, "published", &[element()]);
        assert!(
            remove.commit(&mut socket).is_err(),
            "the element of the failed transaction is there"
        );
        Transaction::new().commit(&mut socket).map_err(other)
    })
    .unwrap();
}

#[test]
fn damage_by_others_is_noticed_and_own_changes_are_not() {
    net::new_namespace(|_| {
        let mut own = Socket::open(Protocol::Netfilter)?;
        let mut watch = Watch::new(TABLE, &own)?;
        whole().commit(&mut own).map_err(other)?;
        whole().commit(&mut own).map_err(other)?;
        let mut stranger = Socket::open(Protocol::Netfilter)?;
        let mut flush = Transaction::new();
        flush.delete_table(TABLE);
        flush.commit(&mut stranger).map_err(other)?;
        let mut events = 0;
        while watch.wait()? == WatchEvent::Nothing {
            events += 1;
            assert!(events < 100);
        }
        assert!(events > 0, "own changes count as damage");
        Ok(())
    })
    .unwrap();
}
