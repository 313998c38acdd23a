//! The registry server: OCI distribution 1.1 over a storage on disk or in an object store.
//!
//! It is a server only: clients of registries live in `transfer`, and nothing here unpacks a layer.

mod api;
mod app;
mod auth;
mod cli;
mod config;
mod document;
mod error;
mod gc;
mod limit;
mod metrics;
mod name;
mod notify;
mod proxy;
mod quota;
mod repository;
mod route;
mod serve;
mod storage;
mod web;

pub use cli::main;
pub use config::{
    Auth, Config, Endpoint, Gc, Limits, Log, Proxy, Quota, Retention, Size, Span, Tls, Token,
};
pub use error::{Code, Error};
pub use serve::{Running, start};
