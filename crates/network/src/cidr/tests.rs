//! Tables of subnets.

use super::Cidr4;

fn cidr(text: &str) -> Cidr4 {
    text.parse().unwrap()
}

#[test]
fn bounds_and_membership() {
    let net = cidr("172.17.0.1/16");
    assert_eq!(net.first().to_string(), "172.17.0.0");
    assert_eq!(net.last().to_string(), "172.17.255.255");
    assert_eq!(net.subnet().to_string(), "172.17.0.0/16");
    assert!(net.contains("172.17.3.4".parse().unwrap()));
    assert!(!net.contains("172.18.0.0".parse().unwrap()));
    assert!(cidr("0.0.0.0/0").contains("8.8.8.8".parse().unwrap()));
}

#[test]
fn overlap_is_symmetric() {
    for (a, b, expected) in [
        ("10.0.0.0/8", "10.1.0.0/16", true),
        ("10.0.0.0/16", "10.1.0.0/16", false),
        ("0.0.0.0/0", "10.1.0.0/16", true),
        ("192.168.1.7/32", "192.168.1.0/24", true),
    ] {
        assert_eq!(cidr(a).overlaps(cidr(b)), expected, "{a} {b}");
        assert_eq!(cidr(b).overlaps(cidr(a)), expected, "{b} {a}");
    }
}

#[test]
fn refuses_what_is_no_subnet() {
    for text in ["", "10.0.0.0", "10.0.0.0/33", "10.0.0/8", "10.0.0.0/-1", "::/0", "10.0.0.0/8/8"] {
        assert!(text.parse::<Cidr4>().is_err(), "{text}");
    }
}

#[test]
fn splits_into_equal_parts() {
    let parts = cidr("192.168.0.0/16").split(20).collect::<Vec<_>>();
    assert_eq!(parts.len(), 16);
    assert_eq!(parts[1].to_string(), "192.168.16.0/20");
    assert_eq!(cidr("10.0.0.0/24").split(24).count(), 1);
    assert_eq!(cidr("255.255.255.0/24").split(32).count(), 256);
}
