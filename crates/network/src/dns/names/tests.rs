//! Who sees which names.

use std::net::IpAddr;

use super::{Found, Names};
use crate::dns::message::{self, A, AAAA, Data, PTR};
use crate::dns::wire::{Guest, Place};

fn place(network: &str, names: &[&str], addresses: &[&str]) -> Place {
    Place {
        network: format!("id-{network}"),
        network_name: network.to_owned(),
        names: names.iter().map(ToString::to_string).collect(),
        addresses: addresses.iter().map(|address| address.parse().unwrap()).collect(),
        links: Vec::new(),
        subnets: vec!["10.1.0.0/24".to_owned()],
    }
}

fn guest(container: &str, places: Vec<Place>) -> Guest {
    Guest { container: container.to_owned(), places, upstream: Vec::new() }
}

fn find(names: &mut Names, guest: &Guest, name: &str, kind: u16) -> Found {
    let query = message::parse(&message::tests::query(name, kind, false)).unwrap();
    names.find(guest, &query)
}

fn addresses(texts: &[&str]) -> Found {
    let data = |text: &&str| Data::Address(text.parse::<IpAddr>().unwrap());
    Found::Records(texts.iter().map(data).collect())
}

#[test]
fn names_are_seen_in_the_networks_one_is_in() {
    let mut names = Names::default();
    let web = guest("w", vec![place("front", &["Web", "www"], &["10.1.0.2", "fd00::2"])]);
    let db = guest(
        "d",
        vec![place("front", &["db"], &["10.1.0.3"]), place("back", &["db"], &["10.2.0.3"])],
    );
    let stranger = guest("s", vec![place("other", &["s"], &["10.3.0.2"])]);
    for guest in [&web, &db, &stranger] {
        names.add(guest);
    }
    assert_eq!(find(&mut names, &db, "web", A), addresses(&["10.1.0.2"]));
    assert_eq!(find(&mut names, &db, "WWW", AAAA), addresses(&["fd00::2"]));
    assert_eq!(find(&mut names, &db, "web.front", A), addresses(&["10.1.0.2"]));
    assert_eq!(
        find(&mut names, &web, "db", AAAA),
        addresses(&[]),
        "there, without such an address"
    );
    assert_eq!(
        find(&mut names, &web, "db", A),
        addresses(&["10.1.0.3"]),
        "not its other network's"
    );
    assert_eq!(find(&mut names, &stranger, "web", A), Found::Nothing, "nobody else is asked");
    assert_eq!(
        find(&mut names, &web, "gone.front", A),
        Found::Nothing,
        "nor for one that has gone"
    );
    assert_eq!(find(&mut names, &web, "elsewhere", A), Found::Unknown);
    assert_eq!(find(&mut names, &web, "www.example.org", A), Found::Unknown);
    assert_eq!(find(&mut names, &web, "web.back", A), Found::Unknown);
    names.remove(&web);
    assert_eq!(find(&mut names, &db, "web", A), Found::Unknown);
}

#[test]
fn a_link_is_a_name_for_one_container_alone() {
    let mut names = Names::default();
    let db = guest("d", vec![place("front", &["db"], &["10.1.0.3"])]);
    let mut linked = place("front", &["web"], &["10.1.0.2"]);
    linked.links = vec![("Store".to_owned(), "DB".to_owned())];
    let web = guest("w", vec![linked]);
    names.add(&db);
    names.add(&web);
    assert_eq!(find(&mut names, &web, "store", A), addresses(&["10.1.0.3"]));
    assert_eq!(find(&mut names, &db, "store", A), Found::Unknown, "an alias is nobody's name");
}

#[test]
fn a_shared_alias_takes_turns() {
    let mut names = Names::default();
    let one = guest("1", vec![place("n", &["one", "app"], &["10.1.0.2"])]);
    let two = guest("2", vec![place("n", &["two", "app"], &["10.1.0.3"])]);
    names.add(&one);
    names.add(&two);
    let (first, second) = (find(&mut names, &one, "app", A), find(&mut names, &one, "app", A));
    assert_ne!(first, second);
    names.remove(&two);
    assert_eq!(find(&mut names, &one, "app", A), addresses(&["10.1.0.2"]));
}

#[test]
fn addresses_have_names_inside_and_nobody_else_is_asked() {
    let mut names = Names::default();
    let web = guest("w", vec![place("front", &["web", "alias"], &["10.1.0.2"])]);
    names.add(&web);
    let reverse = |names: &mut Names, name: &str| find(names, &web, name, PTR);
    let named = Found::Records(vec![Data::Name("web.front".to_owned())]);
    assert_eq!(reverse(&mut names, "2.0.1.10.in-addr.arpa"), named);
    assert_eq!(reverse(&mut names, "9.0.1.10.in-addr.arpa"), Found::Nothing);
    assert_eq!(reverse(&mut names, "8.8.8.8.in-addr.arpa"), Found::Unknown);
}
