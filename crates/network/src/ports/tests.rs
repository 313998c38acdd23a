//! Conflicts and choices of host ports.

use std::io;
use std::net::IpAddr;

use super::{PortTable, Refusal};
use crate::{PortProtocol, PublishedPort};

fn port(ip: &str, first: u16, last: u16) -> PublishedPort {
    let host_ip = (!ip.is_empty()).then(|| ip.parse::<IpAddr>().unwrap());
    PublishedPort { container: 80, protocol: PortProtocol::Tcp, host_ip, host: (first, last) }
}

#[expect(clippy::unnecessary_wraps, reason = "the shape the table asks for")]
fn free(_: &PublishedPort) -> Result<(), Refusal> {
    Ok(())
}

#[test]
fn an_address_conflicts_with_itself_and_with_all() {
    for (first, second, fine) in [
        ("", "", false),
        ("", "127.0.0.1", false),
        ("127.0.0.1", "", false),
        ("127.0.0.1", "0.0.0.0", false),
        ("127.0.0.1", "127.0.0.1", false),
        ("127.0.0.1", "127.0.0.2", true),
    ] {
        let mut table = PortTable::default();
        table.acquire(&port(first, 80, 80), free).unwrap();
        assert_eq!(table.acquire(&port(second, 80, 80), free).is_ok(), fine, "{first} {second}");
    }
}

#[test]
fn texts_are_those_of_docker() {
    let mut table = PortTable::default();
    table.acquire(&port("", 8080, 8080), free).unwrap();
    assert_eq!(
        table.acquire(&port("", 8080, 8080), free).unwrap_err().to_string(),
        "Bind for 0.0.0.0:8080 failed: port is already allocated"
    );
    let busy = |_: &PublishedPort| -> Result<(), Refusal> {
        Err(Refusal::Busy(io::Error::from_raw_os_error(98)))
    };
    assert_eq!(
        table.acquire(&port("127.0.0.1", 81, 81), busy).unwrap_err().to_string(),
        "failed to bind host port 127.0.0.1:81/tcp: address already in use"
    );
}

#[test]
fn a_range_gives_its_first_free_port() {
    let mut table = PortTable::default();
    table.acquire(&port("", 9000, 9000), free).unwrap();
    let not_9001 = |candidate: &PublishedPort| {
        if candidate.host.0 == 9001 {
            return Err(Refusal::Busy(io::Error::from_raw_os_error(98)));
        }
        Ok(())
    };
    assert_eq!(table.acquire(&port("", 9000, 9005), not_9001).unwrap().host, (9002, 9002));
    assert!(table.acquire(&port("", 9000, 9000), free).is_err());
    table.release(&[port("", 9000, 9000)]);
    assert_eq!(table.acquire(&port("", 9000, 9005), free).unwrap().host, (9000, 9000));
}

#[test]
fn open_choice_goes_upwards_and_around() {
    let mut table = PortTable::default();
    assert_eq!(table.acquire(&port("", 0, 0), free).unwrap().host.0, 32768);
    assert_eq!(table.acquire(&port("", 0, 0), free).unwrap().host.0, 32769);
    table.next_dynamic = 60999;
    assert_eq!(table.acquire(&port("", 0, 0), free).unwrap().host.0, 60999);
    assert_eq!(table.acquire(&port("", 0, 0), free).unwrap().host.0, 32770);
}

#[test]
fn nonsense_is_refused() {
    let mut table = PortTable::default();
    assert!(table.acquire(&port("", 9, 8), free).is_err());
    assert!(table.acquire(&port("", 0, 8), free).is_err());
    let zero = PublishedPort { container: 0, ..port("", 9, 9) };
    assert!(table.acquire(&zero, free).is_err());
}
