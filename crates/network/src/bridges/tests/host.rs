//! A host with a neighbour, made of namespaces.

use std::future::Future;
use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use rorqual_sys::net::{self, Address, Batch, Change, LinkRef, Protocol, Route, Socket, Veth};

use crate::{
    Attach, BridgeOptions, Bridges, Networks as _, PortProtocol, PublishedPort, Sandbox, testing,
};

/// The host's address on the wire to its neighbour.
pub(super) const HOST: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
/// The neighbour's.
pub(super) const NEIGHBOUR: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
const PATIENCE: Duration = Duration::from_secs(10);

/// What a test has to work with; its thread is in the host's namespace.
pub(super) struct Host {
    pub(super) neighbour: OwnedFd,
    pub(super) own: OwnedFd,
    runtime: tokio::runtime::Runtime,
    directory: tempfile::TempDir,
}

/// Runs a test on a host of its own.
pub(super) fn on_a_host(test: impl FnOnce(&Host) + Send) {
    net::new_namespace(|_| {
        let host = Host::new().unwrap();
        test(&host);
        Ok(())
    })
    .unwrap();
}

fn other(error: net::NetlinkError) -> io::Error {
    io::Error::other(error)
}

fn up(batch: &mut Batch, name: &str) {
    net::change_link(batch, LinkRef::Name(name), &Change { up: Some(true), ..Change::default() });
}

fn number(socket: &mut Socket, name: &str) -> io::Result<u32> {
    Ok(net::find_link(socket, name).map_err(other)?.ok_or(io::ErrorKind::NotFound)?.index)
}

impl Host {
    fn new() -> io::Result<Self> {
        let mut socket = Socket::open(Protocol::Route)?;
        let (neighbour, ()) = net::new_namespace(|neighbour| {
            let mut batch = Batch::new();
            up(&mut batch, "lo");
            let veth = Veth {
                name: "wire0",
                master: 0,
                mtu: 1500,
                peer_name: "wire0",
                peer_namespace: neighbour,
            };
            net::add_veth(&mut batch, &veth);
            socket.transact(&batch).map_err(other)?;
            let mut batch = Batch::new();
            let link = number(&mut socket, "wire0")?;
            net::add_address(&mut batch, &Address { link, address: HOST.into(), prefix: 24 });
            socket.transact(&batch).map_err(other)?;

            let mut socket = Socket::open(Protocol::Route)?;
            let link = number(&mut socket, "wire0")?;
            let mut batch = Batch::new();
            up(&mut batch, "lo");
            up(&mut batch, "wire0");
            net::add_address(&mut batch, &Address { link, address: NEIGHBOUR.into(), prefix: 24 });
            // A neighbour that knows where containers are tries to reach them directly.
            let route = Route { destination: None, gateway: Some(HOST.into()), link };
            net::add_route(&mut batch, &route);
            socket.transact(&batch).map_err(other)
        })?;
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        let directory = tempfile::tempdir()?;
        Ok(Self { neighbour, own: net::own_namespace()?, runtime, directory })
    }

    pub(super) fn directory(&self) -> &Path {
        self.directory.path()
    }

    pub(super) fn options(&self) -> BridgeOptions {
        let state = self.directory().join("state");
        let mut options = BridgeOptions::new(state, self.directory().join("run"));
        options.warm = 2;
        options
    }

    pub(super) fn open(&self) -> Bridges {
        Bridges::open(self.options()).unwrap()
    }

    pub(super) fn runtime(&self) -> tokio::runtime::Handle {
        self.runtime.handle().clone()
    }

    pub(super) fn block_on<T>(&self, future: impl Future<Output = T>) -> T {
        self.runtime.block_on(future)
    }

    /// A request for a container with a directory, publishing `(host address, host port, container port)`.
    pub(super) fn request(&self, ports: &[(&str, u16, u16)]) -> Attach {
        let mut attach = testing::attach("bridge", self.directory());
        attach.directory = self.directory().join(attach.container.short());
        std::fs::create_dir(&attach.directory).unwrap();
        let port = |(ip, host, container): &(&str, u16, u16)| PublishedPort {
            container: *container,
            protocol: PortProtocol::Tcp,
            host_ip: (!ip.is_empty()).then(|| ip.parse().unwrap()),
            host: (*host, *host),
        };
        attach.ports = ports.iter().map(port).collect();
        attach
    }

    pub(super) fn attach(&self, networks: &Bridges, ports: &[(&str, u16, u16)]) -> (Attach, Guest) {
        let attach = self.request(ports);
        let sandbox = self.block_on(networks.attach(attach.clone())).unwrap();
        (attach, Guest::new(sandbox))
    }

    /// Fails if the namespace of the host holds more than a host without containers has.
    pub(super) fn assert_clean(&self) {
        let mut socket = Socket::open(Protocol::Route).unwrap();
        let deadline = Instant::now() + PATIENCE;
        loop {
            let mut names = net::links(&mut socket).unwrap();
            names.retain(|link| !matches!(link.name.as_str(), "lo" | "wire0" | "docker0"));
            if names.is_empty() {
                break;
            }
            assert!(Instant::now() < deadline, "left over: {names:?}");
            std::thread::yield_now();
        }
        let records = self.directory().join("run/endpoints");
        assert_eq!(std::fs::read_dir(records).unwrap().count(), 0);
    }
}

/// A container's namespace.
pub(super) struct Guest {
    pub(super) sandbox: Sandbox,
    pub(super) address: Ipv4Addr,
}

impl Guest {
    pub(super) fn new(sandbox: Sandbox) -> Self {
        let address = sandbox.endpoints[0].ipv4.unwrap().0;
        Self { sandbox, address }
    }

    pub(super) fn namespace(&self) -> BorrowedFd<'_> {
        self.sandbox.namespace.as_ref().unwrap().as_fd()
    }
}

/// Starts a server in a namespace that tells every client its address; it ends with the process.
pub(super) fn serve(namespace: BorrowedFd<'_>, port: u16) {
    let listener = net::run_in_namespace(namespace, || {
        TcpListener::bind(SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)))
    });
    let listener = listener.unwrap();
    std::thread::spawn(move || {
        while let Ok((mut client, address)) = listener.accept() {
            // A client that went away is no failure of the server.
            let _gone = client.write_all(address.ip().to_string().as_bytes());
        }
    });
}

/// Connects from a namespace and returns the address that the server saw.
pub(super) fn ask(namespace: BorrowedFd<'_>, to: Ipv4Addr, port: u16) -> io::Result<IpAddr> {
    ask_within(namespace, to, port, PATIENCE)
}

pub(super) fn ask_within(
    namespace: BorrowedFd<'_>,
    to: Ipv4Addr,
    port: u16,
    patience: Duration,
) -> io::Result<IpAddr> {
    let mut client = net::run_in_namespace(namespace, || {
        TcpStream::connect_timeout(&SocketAddr::from((to, port)), patience)
    })?;
    client.set_read_timeout(Some(patience))?;
    let mut text = String::new();
    client.read_to_string(&mut text)?;
    text.parse().map_err(io::Error::other)
}

/// Fails if an answer comes.
pub(super) fn assert_unreachable(namespace: BorrowedFd<'_>, to: Ipv4Addr, port: u16) {
    // A dropped packet shows only by silence; this is how long silence counts.
    let answer = ask_within(namespace, to, port, Duration::from_millis(250));
    assert!(answer.is_err(), "{to}:{port} answered {answer:?}");
}
