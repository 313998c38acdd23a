//! What attaching costs. Numbers are printed on demand; the stress looks for leaks.

use std::os::fd::AsFd as _;
use std::time::{Duration, Instant};

use super::host::{Host, ask, on_a_host, serve};
use crate::{Bridges, Networks as _};

fn micros(mut times: Vec<Duration>) -> (u128, u128) {
    times.sort_unstable();
    (times[times.len() / 2].as_micros(), times[times.len() * 9 / 10].as_micros())
}

/// Attaches and detaches one container; returns how long both took.
fn cycle(host: &Host, networks: &Bridges, ports: &[(&str, u16, u16)]) -> (Duration, Duration) {
    let attach = host.request(ports);
    let start = Instant::now();
    let sandbox = host.block_on(networks.attach(attach.clone())).unwrap();
    let attached = start.elapsed();
    drop(sandbox);
    let start = Instant::now();
    host.block_on(networks.detach(&attach.container)).unwrap();
    (attached, start.elapsed())
}

fn wait_until(condition: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !condition() {
        assert!(Instant::now() < deadline);
        std::thread::yield_now();
    }
}

#[test]
fn two_hundred_cycles_leave_nothing() {
    on_a_host(|host| {
        let networks = host.open();
        for _ in 0..200 {
            cycle(host, &networks, &[("", 8080, 80)]);
        }
        networks.settle();
        drop(networks);
        host.assert_clean();
    });
}

#[test]
fn the_first_packet_of_a_cold_container_is_not_lost() {
    on_a_host(|host| {
        let mut options = host.options();
        options.warm = 0;
        let networks = Bridges::open(options).unwrap();
        let (_, guest) = host.attach(&networks, &[]);
        serve(guest.namespace(), 80);
        let start = Instant::now();
        ask(host.own.as_fd(), guest.address, 80).unwrap();
        // A lost packet is sent again after a second.
        assert!(start.elapsed() < Duration::from_millis(500), "{:?}", start.elapsed());
    });
}

#[test]
#[ignore = "measures; run alone"]
#[expect(clippy::print_stderr, reason = "the numbers are what this is for")]
fn measure() {
    on_a_host(|host| {
        let mut options = host.options();
        options.warm = 0;
        let cold = Bridges::open(options).unwrap();
        let (attach, detach): (Vec<_>, Vec<_>) = (0..100).map(|_| cycle(host, &cold, &[])).unzip();
        eprintln!("cold attach {:?} detach {:?} (median, p90 µs)", micros(attach), micros(detach));
        drop(cold);
        let networks = host.open();
        host.block_on(networks.sweep(&[])).unwrap();
        for ports in [&[][..], &[("", 8080, 80)]] {
            let warm = (0..100).map(|_| {
                let pool = networks.0.bridge.as_ref().unwrap().pool.as_ref().unwrap();
                wait_until(|| pool.ready() == 2);
                cycle(host, &networks, ports)
            });
            let (attach, detach): (Vec<_>, Vec<_>) = warm.unzip();
            let (attach, detach) = (micros(attach), micros(detach));
            eprintln!("warm attach {attach:?} detach {detach:?} with {} ports", ports.len());
        }
    });
}

#[test]
#[ignore = "takes a minute; run alone"]
#[expect(clippy::print_stderr, reason = "the numbers are what this is for")]
fn a_thousand_containers() {
    on_a_host(|host| {
        let networks = host.open();
        host.block_on(networks.sweep(&[])).unwrap();
        let mut held = Vec::new();
        let mut times = Vec::new();
        for _ in 0..1000 {
            let pool = networks.0.bridge.as_ref().unwrap().pool.as_ref().unwrap();
            wait_until(|| pool.ready() == 2);
            let attach = host.request(&[]);
            let start = Instant::now();
            let sandbox = host.block_on(networks.attach(attach.clone())).unwrap();
            times.push(start.elapsed());
            held.push((attach.container, sandbox));
        }
        let (first, last) = (micros(times[..100].to_vec()), micros(times[900..].to_vec()));
        eprintln!("first hundred {first:?}, last hundred {last:?} (median, p90 µs)");
        let start = Instant::now();
        for (container, sandbox) in held {
            drop(sandbox);
            host.block_on(networks.detach(&container)).unwrap();
        }
        eprintln!("a thousand detached in {:?}", start.elapsed());
        networks.settle();
        eprintln!("and gone after {:?}", start.elapsed());
        drop(networks);
        host.assert_clean();
    });
}
