//! Conflicts and choices of host ports.

use std::io;
use std::net::IpAddr;

use rorqual_core::ContainerId;

use super::{PortTable, Refusal, Run, attached, recorded, recorded_exposed, runs};
use crate::{Error, PortProtocol, PublishedPort};

fn port(ip: &str, first: u16, last: u16) -> PublishedPort {
    let host_ip = (!ip.is_empty()).then(|| ip.parse::<IpAddr>().unwrap());
    PublishedPort { container: 80, protocol: PortProtocol::Tcp, host_ip, host: (first, last) }
}

fn owner(number: u8) -> ContainerId {
    ContainerId::from_random([number; 32])
}

/// Takes one port that nobody else has.
fn take(table: &mut PortTable<()>, wanted: PublishedPort) -> Result<PublishedPort, Error> {
    table.acquire(owner(1), &[wanted], |_| Ok(())).map(|mut ports| ports.remove(0))
}

fn busy(run: &Run) -> Result<(), Refusal> {
    Err(Refusal::Busy(run.host, io::Error::from_raw_os_error(98)))
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
        take(&mut table, port(first, 80, 80)).unwrap();
        assert_eq!(take(&mut table, port(second, 80, 80)).is_ok(), fine, "{first} {second}");
    }
}

#[test]
fn texts_are_those_of_docker() {
    let mut table = PortTable::default();
    take(&mut table, port("", 8080, 8080)).unwrap();
    assert_eq!(
        take(&mut table, port("", 8080, 8080)).unwrap_err().to_string(),
        "Bind for 0.0.0.0:8080 failed: port is already allocated"
    );
    let refused = table.acquire(owner(1), &[port("127.0.0.1", 81, 81)], busy).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "failed to bind host port 127.0.0.1:81/tcp: address already in use"
    );
}

#[test]
fn a_range_gives_its_first_free_port() {
    let mut table = PortTable::default();
    take(&mut table, port("", 9000, 9000)).unwrap();
    let not_9001 = |run: &Run| if run.host == 9001 { busy(run) } else { Ok(()) };
    let chosen = table.acquire(owner(2), &[port("", 9000, 9005)], not_9001).unwrap();
    assert_eq!(chosen[0].host, (9002, 9002));
    assert!(take(&mut table, port("", 9000, 9000)).is_err());
    table.release(&owner(1));
    assert_eq!(take(&mut table, port("", 9000, 9005)).unwrap().host, (9000, 9000));
}

#[test]
fn open_choice_goes_upwards_and_around() {
    let mut table = PortTable::default();
    assert_eq!(take(&mut table, port("", 0, 0)).unwrap().host.0, 32768);
    assert_eq!(take(&mut table, port("", 0, 0)).unwrap().host.0, 32769);
    table.next_dynamic = 60999;
    assert_eq!(take(&mut table, port("", 0, 0)).unwrap().host.0, 60999);
    assert_eq!(take(&mut table, port("", 0, 0)).unwrap().host.0, 32770);
}

#[test]
fn nonsense_is_refused() {
    let mut table = PortTable::default();
    assert!(take(&mut table, port("", 9, 8)).is_err());
    assert!(take(&mut table, port("", 0, 8)).is_err());
    let zero = PublishedPort { container: 0, ..port("", 9, 9) };
    assert!(take(&mut table, zero).is_err());
}

fn range(ip: &str, host: u16, container: u16, count: u16) -> Vec<PublishedPort> {
    let each = (0..count)
        .map(|at| PublishedPort { container: container + at, ..port(ip, host + at, host + at) });
    each.collect()
}

#[test]
fn ports_side_by_side_are_one_run() {
    let shape = |ports: &[PublishedPort]| {
        let each = runs(ports.iter()).into_iter();
        each.map(|run| (run.host, run.last, run.container)).collect::<Vec<_>>()
    };
    let mut all = range("", 8000, 8000, 10_000);
    all.reverse();
    assert_eq!(shape(&all), [(8000, 17_999, 8000)]);
    assert_eq!(shape(&range("", 65_530, 65_530, 6)), [(65_530, 65_535, 65_530)]);
    assert_eq!(shape(&range("", 8000, 80, 3)), [(8000, 8002, 80)]);
    let two = [range("", 8000, 80, 2), range("", 8002, 90, 2)].concat();
    assert_eq!(shape(&two), [(8000, 8001, 80), (8002, 8003, 90)]);
    let same = [port("", 8000, 8000), port("", 8001, 8001)];
    assert_eq!(shape(&same), [(8000, 8000, 80), (8001, 8001, 80)]);
    let apart = [range("", 8000, 8000, 2), range("127.0.0.1", 8002, 8002, 2)].concat();
    assert_eq!(shape(&apart).len(), 2);
}

#[test]
fn a_run_is_held_once_and_taken_whole() {
    let mut table = PortTable::default();
    let mut asked = 0;
    let all = range("", 8000, 8000, 1000);
    let taken = table.acquire(owner(1), &all, |_| {
        asked += 1;
        Ok(())
    });
    assert_eq!((taken.unwrap(), asked), (all, 1));
    let into = table.acquire(owner(2), &range("", 8999, 80, 2), |_| Ok(())).unwrap_err();
    assert_eq!(into.to_string(), "Bind for 0.0.0.0:8999 failed: port is already allocated");
    take(&mut table, port("", 9000, 9000)).unwrap();
    let wanted = [range("", 7000, 7000, 10), range("", 9000, 1, 1)].concat();
    assert!(table.acquire(owner(2), &wanted, |_| Ok(())).is_err());
    table.acquire(owner(3), &range("", 7000, 7000, 10), |_| Ok(())).unwrap();
}

#[test]
fn records_of_attachments_keep_runs_and_read_single_ports() {
    #[derive(serde::Serialize, serde::Deserialize)]
    struct Record(#[serde(with = "attached")] Vec<PublishedPort>);
    let all = [range("", 8000, 8000, 1000), range("127.0.0.1", 53, 5353, 1)].concat();
    let text = serde_json::to_string(&Record(all.clone())).unwrap();
    assert!(text.len() < 250, "{text}");
    assert_eq!(serde_json::from_str::<Record>(&text).unwrap().0, all);
    let single = serde_json::to_string(&[port("", 7, 7)]).unwrap();
    assert_eq!(serde_json::from_str::<Record>(&single).unwrap().0, [port("", 7, 7)]);
    let damaged = r#"[{"container":65535,"protocol":"tcp","host_ip":null,"host":[1,65535]}]"#;
    assert_eq!(serde_json::from_str::<Record>(damaged).unwrap().0.len(), 1);
}

fn through_a_record(ports: &[PublishedPort]) -> (usize, Vec<PublishedPort>) {
    #[derive(serde::Serialize, serde::Deserialize)]
    struct Record(#[serde(with = "recorded")] Vec<PublishedPort>);
    let text = serde_json::to_string(&Record(ports.to_vec())).unwrap();
    (text.len(), serde_json::from_str::<Record>(&text).unwrap().0)
}

#[test]
fn records_keep_what_lies_side_by_side_as_one_entry() {
    let whole = range("", 20_000, 20_000, 10_000);
    let (size, read) = through_a_record(&whole);
    assert!(size < 120, "{size}");
    assert_eq!(read, whole);

    // Two addresses each, as clients see them: those of one address come together.
    let twice = whole.iter().flat_map(|one| {
        let on = |ip: &str| PublishedPort { host_ip: Some(ip.parse().unwrap()), ..one.clone() };
        [on("0.0.0.0"), on("::")]
    });
    let twice = twice.collect::<Vec<_>>();
    let (size, mut read) = through_a_record(&twice);
    assert!(size < 240, "{size}");
    read.sort_by_key(|one| (one.container, one.host_ip));
    assert_eq!(read, twice);
}

#[test]
fn records_keep_ports_that_leave_a_choice_or_lie_apart() {
    let choice = |container, host| PublishedPort { host, ..port("", 1, container) };
    let cases = [
        vec![choice(80, (0, 0)), choice(81, (0, 0)), choice(82, (0, 0))],
        vec![choice(80, (8000, 8010)), choice(81, (8001, 8011))],
        vec![choice(80, (8000, 8000)), choice(81, (8001, 8003))],
        vec![port("", 8000, 80), port("", 8002, 81), port("", 8001, 82)],
        vec![port("", 8000, 80), port("127.0.0.1", 8001, 81)],
        vec![port("", 65_535, 65_535), port("", 1, 1)],
        vec![port("", 8000, 80), port("", 8000, 80)],
        Vec::new(),
    ];
    for ports in cases {
        assert_eq!(through_a_record(&ports).1, ports);
    }
}

#[test]
fn records_of_single_ports_are_read_and_damaged_ones_bounded() {
    #[derive(serde::Deserialize)]
    struct Record(#[serde(with = "recorded")] Vec<PublishedPort>);
    let read = |text: &str| serde_json::from_str::<Record>(text).unwrap().0;
    let old = [port("", 7, 7), PublishedPort { host: (0, 0), ..port("", 1, 8) }];
    assert_eq!(read(&serde_json::to_string(&old).unwrap()), old);
    let damaged = |host| {
        format!(
            r#"[{{"container":65534,"protocol":"tcp","host_ip":null,"host":{host},"more":65535}}]"#
        )
    };
    assert_eq!(read(&damaged("[1,1]")).len(), 2);
    assert_eq!(read(&damaged("[1,9]")).len(), 1);
}

#[test]
fn exposed_ports_that_lie_side_by_side_are_one_entry() {
    use PortProtocol::{Tcp, Udp};
    #[derive(serde::Serialize, serde::Deserialize)]
    struct Record(#[serde(with = "recorded_exposed")] Vec<(u16, PortProtocol)>);
    let many = (1..=65_535).map(|port| (port, Tcp)).collect::<Vec<_>>();
    let cases = [
        (many, r#"[[1,"tcp",65535]]"#),
        (vec![(80, Tcp)], r#"[[80,"tcp"]]"#),
        (vec![(53, Tcp), (54, Udp), (55, Udp)], r#"[[53,"tcp"],[54,"udp",55]]"#),
        (vec![(81, Tcp), (80, Tcp)], r#"[[81,"tcp"],[80,"tcp"]]"#),
        (Vec::new(), "[]"),
    ];
    for (ports, text) in cases {
        assert_eq!(serde_json::to_string(&Record(ports.clone())).unwrap(), text);
        assert_eq!(serde_json::from_str::<Record>(text).unwrap().0, ports);
    }
}
