//! BuildKit's protocol, so that its clients work unchanged: `docker buildx`, `docker compose`, `buildctl`, and our own.
//!
//! The daemon's end is [`Server`]: a client hijacks a connection for calls (`POST /grpc`) and another one on which the
//! daemon calls back for files, secrets and logins (`POST /session`). What a build does is behind [`Backend`].

mod backend;
mod caps;
mod client;
mod content;
mod control;
mod files;
mod filter;
mod frontend;
mod gateway;
mod history;
mod jobs;
mod llb;
mod percent;
mod progress;
mod server;
mod session;
mod shell;
mod spool;
mod status;
mod transport;
mod tunnel;
mod wire;

pub use backend::{
    Backend, CacheEntry, CacheRecord, Export, ExportRequest, FrontendRequest, Outcome,
    PruneRequest, Refs, Scope, State, Worker,
};
pub use client::{
    BuildRequest, Client, CredentialSource, Lending, LogNews, News, OutputTarget, PastBuild,
    ShellInput, ShellNews, StatusNews, StreamTarget, VertexNews, WarningNews, new_id,
};
pub use files::{SourceFile, SourceTree};
pub use filter::cache_filter;
pub use server::{PlainBuild, Server};
pub use session::{
    ContentStore, Greeting, HEADER_ID, HEADER_METHOD, HEADER_SHARED_KEY, RemoteSession, Sessions,
};
pub use status::{Failure, Sources};
pub use transport::Duplex;

/// Draws a name that nobody can guess.
fn random_id() -> String {
    let mut bytes = [0; 16];
    // Without random numbers a build cannot be named safely; the kernel always has some.
    if getrandom::fill(&mut bytes).is_err() {
        tracing::error!("the kernel has no random numbers");
    }
    hex(&bytes)
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing to a string cannot fail.
        write!(text, "{byte:02x}").ok();
        text
    })
}
