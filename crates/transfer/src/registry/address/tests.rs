//! Private addresses and networks.

use super::{Network, is_private};

#[test]
fn private_addresses_are_told() {
    for text in [
        "127.0.0.1",
        "10.1.2.3",
        "172.16.0.1",
        "192.168.1.1",
        "169.254.169.254",
        "0.0.0.0",
        "100.64.0.1",
        "198.18.0.1",
        "224.0.0.1",
        "255.255.255.255",
        "::1",
        "::",
        "fd00::1",
        "fe80::1",
        "::ffff:10.0.0.1",
        "64:ff9b::a9fe:a9fe",
    ] {
        assert!(is_private(text.parse().unwrap()), "{text}");
    }
    for text in ["1.1.1.1", "100.128.0.1", "172.32.0.1", "2606:4700::1", "::ffff:8.8.8.8"] {
        assert!(!is_private(text.parse().unwrap()), "{text}");
    }
}

#[test]
fn networks_contain_their_addresses() {
    let holds = |network: &str, address: &str| {
        Network::parse(network).unwrap().contains(address.parse().unwrap())
    };
    assert!(holds("10.0.0.0/8", "10.255.0.1"));
    assert!(!holds("10.0.0.0/8", "11.0.0.1"));
    assert!(holds("0.0.0.0/0", "11.0.0.1"));
    assert!(holds("fd00::/8", "fd12::1"));
    assert!(!holds("fd00::/8", "10.0.0.1"));
    assert_eq!(Network::parse("10.0.0.0/33"), None);
    assert_eq!(Network::parse("host"), None);
}
