//! Restarts, with and without what the earlier daemon wrote down.

use std::net::Ipv4Addr;
use std::os::fd::AsFd as _;
use std::sync::mpsc;

use rorqual_sys::net;

use super::host::{HOST, ask, on_a_host, serve};
use crate::Networks as _;

#[test]
fn a_new_daemon_takes_over() {
    on_a_host(|host| {
        let networks = host.open();
        let bridge = host.block_on(networks.find("bridge")).unwrap();
        let (attach, guest) = host.attach(&networks, &[("", 8080, 80)]);
        serve(guest.namespace(), 80);
        drop(networks);
        ask(host.neighbour.as_fd(), HOST, 8080).unwrap();

        let networks = host.open();
        ask(host.neighbour.as_fd(), HOST, 8080).unwrap();
        assert_eq!(host.block_on(networks.find("bridge")).unwrap(), bridge);
        let own = std::process::id().cast_signed();
        let adopted = host.block_on(networks.adopt(&attach.container, own)).unwrap();
        assert_eq!(adopted, guest.sandbox.endpoints);
        host.block_on(networks.sweep(&[attach.container])).unwrap();
        let listed = host.block_on(networks.endpoints(&bridge.id)).unwrap();
        assert_eq!(listed, [(attach.container, attach.name.clone(), adopted[0].clone())]);

        let refused = host.block_on(networks.attach(host.request(&[("", 8080, 80)]))).unwrap_err();
        assert!(refused.to_string().contains("port is already allocated"), "{refused}");
        let (_, second) = host.attach(&networks, &[]);
        assert_eq!(second.address, Ipv4Addr::new(172, 17, 0, 3));
        ask(second.namespace(), guest.address, 80).unwrap();
    });
}

#[test]
fn what_nobody_knows_is_swept() {
    on_a_host(|host| {
        let networks = host.open();
        let (_, guest) = host.attach(&networks, &[("", 8080, 80)]);
        serve(guest.namespace(), 80);
        drop(networks);
        // Leftovers of every kind: a record, a link without a record, and a link given to nobody.
        let networks = host.open();
        let (forgotten, _kept) = host.attach(&networks, &[]);
        drop(networks);
        let record = format!("run/endpoints/{}.json", forgotten.container);
        std::fs::remove_file(host.directory().join(record)).unwrap();

        let networks = host.open();
        host.block_on(networks.sweep(&[])).unwrap();
        networks.settle();
        assert!(ask(host.own.as_fd(), guest.address, 80).is_err());
        let (_, next) = host.attach(&networks, &[("", 8080, 80)]);
        assert!(!next.sandbox.ports.is_empty());
        host.block_on(networks.sweep(&[])).unwrap();
        drop(networks);
        host.assert_clean();
    });
}

#[test]
fn an_endpoint_without_a_record_is_learnt_from_its_namespace() {
    on_a_host(|host| {
        let networks = host.open();
        let (attach, guest) = host.attach(&networks, &[]);
        networks.settle();
        drop(networks);
        let record = format!("run/endpoints/{}.json", attach.container);
        std::fs::remove_file(host.directory().join(record)).unwrap();

        let networks = host.open();
        let (tell, told) = mpsc::channel();
        let (end, ended) = mpsc::channel::<()>();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                net::run_in_namespace(guest.namespace(), move || {
                    tell.send(rustix::thread::gettid().as_raw_nonzero().get()).unwrap();
                    let _closed = ended.recv();
                    Ok(())
                })
            });
            let thread = told.recv().unwrap();
            let adopted = host.block_on(networks.adopt(&attach.container, thread)).unwrap();
            let (old, new) = (&guest.sandbox.endpoints[0], &adopted[0]);
            assert_eq!((old.ipv4, &old.mac, old.gateway), (new.ipv4, &new.mac, new.gateway));
            drop(end);
        });
        let (_, second) = host.attach(&networks, &[]);
        assert_eq!(second.address, Ipv4Addr::new(172, 17, 0, 3));
        host.block_on(networks.sweep(&[])).unwrap();
        drop(networks);
        host.assert_clean();
    });
}
