//! The server kit: listeners, connections, routing, bodies, taking over connections. It knows no route.

pub mod body;
mod connection;
mod file;
mod listen;
mod percent;
mod query;
mod router;
mod server;
mod tls;
mod transport;

pub use body::{Body, RequestBody, TooLarge};
pub use file::FileAnswer;
pub use listen::{Address, Bound, InvalidAddress, ListenError, UnixAccess, bind, inherited};
pub use query::Query;
pub use router::{Match, Router};
pub use server::{Answer, BoxFuture, Hijack, Limits, Protocol, Request, Server, Service};
pub use tls::{Certificate, TlsError, TlsFiles, reloadable_config, server_config};
pub use transport::{Peer, PeerCertificates, RawStream};
