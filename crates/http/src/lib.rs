//! The server kit: listeners, connections, routing, bodies, taking over connections. It knows no route.

pub mod body;
mod connection;
mod listen;
mod percent;
mod query;
mod router;
mod server;
mod tls;
mod transport;

pub use body::{Body, RequestBody, TooLarge};
pub use listen::{Address, Bound, InvalidAddress, ListenError, UnixAccess, bind, inherited};
pub use query::Query;
pub use router::{Match, Router};
pub use server::{Answer, BoxFuture, Hijack, Limits, Protocol, Request, Server, Service};
pub use tls::{TlsError, TlsFiles, server_config};
pub use transport::{Peer, RawStream};
