//! The texts, as tables.

use std::net::{IpAddr, Ipv4Addr};

use super::{HOSTS_BASE, Resolver, hosts_text};
use crate::testing;

fn resolver(text: &str, ipv6: bool) -> String {
    Resolver::parse(text)
        .for_container(ipv6)
        .text()
        .lines()
        .filter(|line| !line.starts_with('#') && !line.is_empty())
        .collect::<Vec<_>>()
        .join("|")
}

#[test]
fn resolvers_a_container_cannot_reach_are_left_out() {
    for (text, ipv6, expected) in [
        ("nameserver 10.0.0.1\n", false, "nameserver 10.0.0.1"),
        ("nameserver 127.0.0.1\nnameserver 10.0.0.1", false, "nameserver 10.0.0.1"),
        ("nameserver 127.0.0.53", false, "nameserver 8.8.8.8|nameserver 8.8.4.4"),
        ("nameserver ::1\nnameserver fd00::1", false, "nameserver 8.8.8.8|nameserver 8.8.4.4"),
        ("nameserver ::1\nnameserver fd00::1", true, "nameserver fd00::1"),
        ("", false, "nameserver 8.8.8.8|nameserver 8.8.4.4"),
        (
            "search a b # c\noptions ndots:2\nnameserver 1.1.1.1 ; x",
            false,
            "nameserver 1.1.1.1|search a b|options ndots:2",
        ),
        (
            "nameserver nonsense\nnameserver fe80::1%eth0\n",
            true,
            "nameserver 8.8.8.8|nameserver 8.8.4.4",
        ),
    ] {
        assert_eq!(resolver(text, ipv6), expected, "{text:?}");
    }
}

#[test]
fn what_the_user_asks_for_wins() {
    let mut attach = testing::attach("bridge", std::path::Path::new("/nonexistent"));
    attach.dns = vec!["127.0.0.1".parse().unwrap()];
    attach.dns_search = vec![".".to_owned()];
    attach.dns_options = vec!["ndots:1".to_owned()];
    let text = Resolver::parse("search a\nnameserver 9.9.9.9").overridden_by(&attach).text();
    assert!(text.ends_with("\n\nnameserver 127.0.0.1\noptions ndots:1\n"), "{text}");
}

#[test]
fn hosts_lists_extra_names_and_the_container() {
    let mut attach = testing::attach("bridge", std::path::Path::new("/nonexistent"));
    attach.hostname = "web".to_owned();
    attach.domainname = "example.org".to_owned();
    attach.extra_hosts =
        vec!["up:host-gateway".to_owned(), "six:[fd00::1]".to_owned(), "bare:fd00::2".to_owned()];
    let endpoint = testing::endpoint(Ipv4Addr::new(172, 17, 0, 2));
    let gateway = Some(IpAddr::V4(Ipv4Addr::new(172, 17, 0, 1)));
    let text = hosts_text(HOSTS_BASE, &attach, &[endpoint], gateway).unwrap();
    let own = text.strip_prefix(HOSTS_BASE).unwrap();
    assert_eq!(
        own,
        "172.17.0.1\tup\nfd00::1\tsix\nfd00::2\tbare\n172.17.0.2\tweb.example.org web\n"
    );
    let endpoint = testing::endpoint(Ipv4Addr::new(172, 17, 0, 2));
    (attach.hostname, attach.domainname) = ("a.b.c".to_owned(), String::new());
    attach.extra_hosts.clear();
    let text = hosts_text("", &attach, &[endpoint], None).unwrap();
    assert_eq!(text, "172.17.0.2\ta.b.c a\n");
}

#[test]
fn hostile_extra_hosts_are_refused() {
    for line in ["", "a", ":1.1.1.1", "a b:1.1.1.1", "a\n6.6.6.6 b:1.1.1.1", "a:nope", "#:1.1.1.1"]
    {
        let mut attach = testing::attach("bridge", std::path::Path::new("/nonexistent"));
        attach.extra_hosts = vec![line.to_owned()];
        assert!(hosts_text("", &attach, &[], None).is_err(), "{line:?}");
    }
    let mut attach = testing::attach("bridge", std::path::Path::new("/nonexistent"));
    attach.extra_hosts = vec!["a:host-gateway".to_owned()];
    assert!(hosts_text("", &attach, &[], None).is_err());
}
