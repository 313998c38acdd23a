//! Address pools by example and by property.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use proptest::prelude::*;

use super::{AddressPool, SubnetPool, default_pools, free_subnet, mac_of, mac_text, parse_mac};
use crate::cidr::Cidr4;

fn cidr(text: &str) -> Cidr4 {
    text.parse().unwrap()
}

fn pool(subnet: &str, range: &str, gateway: &str) -> AddressPool {
    AddressPool::new(cidr(subnet), cidr(range), &[gateway.parse().unwrap()]).unwrap()
}

#[test]
fn lowest_free_address_first() {
    let mut pool = pool("172.17.0.0/16", "172.17.0.0/16", "172.17.0.1");
    assert_eq!(pool.allocate().unwrap(), Ipv4Addr::new(172, 17, 0, 2));
    assert_eq!(pool.allocate().unwrap(), Ipv4Addr::new(172, 17, 0, 3));
    pool.release(Ipv4Addr::new(172, 17, 0, 2));
    assert_eq!(pool.allocate().unwrap(), Ipv4Addr::new(172, 17, 0, 2));
    for _ in 0..1000 {
        pool.allocate().unwrap();
    }
    pool.release(Ipv4Addr::new(172, 17, 0, 9));
    assert_eq!(pool.allocate().unwrap(), Ipv4Addr::new(172, 17, 0, 9));
}

#[test]
fn an_exhausted_pool_says_so() {
    let mut pool = pool("10.0.0.0/29", "10.0.0.0/29", "10.0.0.1");
    for host in 2..7 {
        assert_eq!(pool.allocate().unwrap(), Ipv4Addr::new(10, 0, 0, host));
    }
    assert!(pool.allocate().unwrap_err().to_string().starts_with("no available IPv4"));
}

#[test]
fn a_range_narrows_what_is_given_out_but_not_what_may_be_claimed() {
    let mut pool = pool("10.0.0.0/24", "10.0.0.128/30", "10.0.0.1");
    assert_eq!(pool.allocate().unwrap(), Ipv4Addr::new(10, 0, 0, 128));
    pool.claim(Ipv4Addr::new(10, 0, 0, 9)).unwrap();
    assert!(pool.claim(Ipv4Addr::new(10, 0, 0, 1)).is_err());
    assert!(pool.claim(Ipv4Addr::new(10, 0, 0, 128)).is_err());
    assert!(pool.claim(Ipv4Addr::new(10, 0, 1, 1)).is_err());
    assert!(AddressPool::new(cidr("10.0.0.0/24"), cidr("10.0.1.0/25"), &[]).is_err());
    assert!(AddressPool::new(cidr("10.0.0.0/24"), cidr("10.0.0.0/16"), &[]).is_err());
}

#[test]
fn subnets_avoid_what_is_taken() {
    let pools = default_pools();
    assert_eq!(free_subnet(&pools, &[]).unwrap().to_string(), "172.17.0.0/16");
    let taken = [cidr("172.17.0.0/16"), cidr("172.18.5.0/24")];
    assert_eq!(free_subnet(&pools, &taken).unwrap().to_string(), "172.19.0.0/16");
    let taken = [cidr("172.16.0.0/12"), cidr("192.168.0.0/24")];
    assert_eq!(free_subnet(&pools, &taken).unwrap().to_string(), "192.168.16.0/20");
    assert!(free_subnet(&pools, &[cidr("0.0.0.0/0")]).is_err());
    let own = [SubnetPool { base: cidr("10.9.0.0/16"), size: 24 }];
    assert_eq!(free_subnet(&own, &[cidr("10.9.0.0/23")]).unwrap().to_string(), "10.9.2.0/24");
}

#[test]
fn hardware_addresses() {
    assert_eq!(mac_text(mac_of(Ipv4Addr::new(172, 17, 0, 2))), "02:42:ac:11:00:02");
    assert_eq!(parse_mac("02:42:AC:11:00:02").unwrap(), [2, 0x42, 0xac, 0x11, 0, 2]);
    for bad in [
        "",
        "02:42:ac:11:00",
        "02:42:ac:11:00:02:03",
        "01:42:ac:11:00:02",
        "g2:42:ac:11:00:02",
        "00:00:00:00:00:00",
        "+2:42:ac:11:00:02",
    ] {
        assert!(parse_mac(bad).is_err(), "{bad}");
    }
}

proptest! {
    #[test]
    fn never_gives_an_address_twice(prefix in 22_u8..=30, steps in prop::collection::vec(any::<(bool, u8)>(), 1..200)) {
        let subnet = Cidr4::new(Ipv4Addr::new(10, 1, 0, 0), prefix);
        let gateway = Ipv4Addr::new(10, 1, 0, 1);
        let mut pool = AddressPool::new(subnet, subnet, &[gateway]).unwrap();
        let mut held = BTreeSet::new();
        for (take, pick) in steps {
            if take {
                if let Ok(address) = pool.allocate() {
                        prop_assert!(subnet.contains(address));
                        prop_assert!(address != gateway && address != subnet.first() && address != subnet.last());
                        prop_assert!(held.insert(address));
                } else {
                    prop_assert_eq!(held.len(), (1 << (32 - prefix)) - 3);
                }
            } else if let Some(address) = held.iter().nth(usize::from(pick) % held.len().max(1)).copied() {
                held.remove(&address);
                pool.release(address);
            }
        }
    }
}
