//! Registries, seen as a client: which endpoints a name has, how to reach them, and who we are to them.
//!
//! Moves documents and blobs as bytes; what they mean is the business of `pull` and `push`.

mod address;
mod challenge;
mod connect;
mod endpoint;
mod failure;
mod growing;
mod options;
mod redirect;
mod remote;
mod search;
mod session;
mod tls;
mod token;
mod upload;
mod wire;

use std::io::Read;
use std::sync::{Arc, PoisonError, RwLock};

use rorqual_core::Repository;

use crate::{Error, RegistryAuth};

pub(crate) use failure::{Failure, Reason};
pub(crate) use growing::{Growing, Progressed, Sending};
pub use options::{Proxies, RegistryOptions, RegistryRule};
pub use remote::{RemoteAnswer, RemoteError, RemoteFile};
pub(crate) use session::{Document, Session, Stream};
pub(crate) use upload::{Content, Sent, Source};

use endpoint::Purpose;
use token::Scope;
use wire::Wire;

/// The way to all registries; clones share it.
#[derive(Clone)]
pub(crate) struct Registries(Arc<RwLock<Arc<Wire>>>);

impl Registries {
    pub(crate) fn new(options: RegistryOptions) -> Self {
        Self(Arc::new(RwLock::new(Arc::new(Wire::new(options)))))
    }

    /// Uses other settings from the next operation on.
    pub(crate) fn configure(&self, options: RegistryOptions) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(Wire::new(options));
    }

    pub(crate) fn options(&self) -> RegistryOptions {
        self.wire().options.clone()
    }

    fn wire(&self) -> Arc<Wire> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Opens sessions for reading from a repository: mirrors first, then the registry itself.
    pub(crate) async fn readers(
        &self,
        repository: &Repository,
        auth: &RegistryAuth,
    ) -> Result<Vec<Arc<Session>>, Error> {
        let wire = self.wire();
        let endpoints = wire.endpoints(repository, Purpose::Read).await?;
        let session = |endpoint: endpoint::Endpoint| {
            // Credentials belong to the registry that was named, not to its mirrors.
            let auth = if endpoint.mirror { RegistryAuth::default() } else { auth.clone() };
            let scope = Scope::pull(&endpoint.path(repository.path()));
            Arc::new(Session::new(Arc::clone(&wire), endpoint, repository.path(), auth, scope))
        };
        Ok(endpoints.into_iter().map(session).collect())
    }

    /// Opens sessions for writing to a repository; `from` are repositories of the same registry that blobs may be mounted from.
    pub(crate) async fn writers(
        &self,
        repository: &Repository,
        from: &[Repository],
        auth: &RegistryAuth,
    ) -> Result<Vec<Arc<Session>>, Error> {
        let wire = self.wire();
        let endpoints = wire.endpoints(repository, Purpose::Write).await?;
        let session = |endpoint: endpoint::Endpoint| {
            let mut scope = Scope::push(repository.path());
            scope.extend(from.iter().map(|other| Scope::pull(other.path())));
            let auth = auth.clone();
            Arc::new(Session::new(Arc::clone(&wire), endpoint, repository.path(), auth, scope))
        };
        Ok(endpoints.into_iter().map(session).collect())
    }

    /// Checks credentials with a registry.
    pub(crate) async fn login(
        &self,
        server: &str,
        auth: &RegistryAuth,
    ) -> Result<Option<String>, Error> {
        session::login(&self.wire(), server, auth).await
    }

    /// Opens the file at an address.
    pub(crate) async fn open(&self, url: &str) -> Result<Box<dyn Read + Send>, RemoteError> {
        remote::open(&self.wire(), url).await
    }

    /// Asks for the file at an address, unless it is still what had this tag.
    pub(crate) async fn fetch(
        &self,
        url: &str,
        etag: Option<&str>,
    ) -> Result<RemoteAnswer, RemoteError> {
        remote::fetch(&self.wire(), url, etag).await
    }

    /// Looks for repositories.
    pub(crate) async fn search(
        &self,
        request: crate::SearchRequest,
    ) -> Result<Vec<crate::SearchResult>, Error> {
        search::search(&self.wire(), request).await
    }
}
