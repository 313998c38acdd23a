//! Sessions: what clients lend to their builds. The client dials, the daemon calls.

mod agent;
mod content;
mod output;
mod remote;

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rorqual_build::Error;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

pub use content::ContentStore;
pub use remote::RemoteSession;

use crate::transport::{Caller, Duplex};

/// LIMIT: sessions at a time; a build has one or two.
const MOST_SESSIONS: usize = 1024;
/// LIMIT: services that a client may say it has.
const MOST_METHODS: usize = 256;
/// How long a build waits for its client to open the session that it named.
const PATIENCE: Duration = Duration::from_secs(10);

/// What a client says about its session when it opens it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Greeting {
    /// Identity that builds name.
    pub id: String,
    /// Directories of sessions with the same key are one.
    pub shared_key: String,
    /// The calls that it answers, as paths, in lower case.
    pub methods: BTreeSet<String>,
}

/// Names of the headers that a greeting consists of.
pub const HEADER_ID: &str = "x-docker-expose-session-uuid";
/// See [`HEADER_ID`].
pub const HEADER_SHARED_KEY: &str = "x-docker-expose-session-sharedkey";
/// See [`HEADER_ID`].
pub const HEADER_METHOD: &str = "x-docker-expose-session-grpc-method";

impl Greeting {
    /// Reads the headers of the request, or the metadata of the call, that opens a session.
    ///
    /// # Errors
    ///
    /// `Invalid` when there is no identity or too much.
    pub fn from_headers(headers: &http::HeaderMap) -> Result<Self, Error> {
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        let id = text(HEADER_ID).unwrap_or_default().to_owned();
        if id.is_empty() || id.len() > 256 {
            return Err(Error::Invalid {
                message: "a session needs an identity of at most 256 characters".to_owned(),
                location: None,
            });
        }
        let methods = headers.get_all(HEADER_METHOD).iter().take(MOST_METHODS);
        Ok(Self {
            id,
            shared_key: text(HEADER_SHARED_KEY).unwrap_or_default().to_owned(),
            methods: methods
                .filter_map(|method| method.to_str().ok().map(str::to_ascii_lowercase))
                .collect(),
        })
    }
}

/// All open sessions.
#[derive(Clone)]
pub struct Sessions {
    open: Arc<Mutex<HashMap<String, Arc<RemoteSession>>>>,
    opened: Arc<Notify>,
    spool: Arc<Path>,
}

impl Sessions {
    /// Makes an empty list. Trees for clients wait in `spool`, in files without names, until they are sent.
    pub fn new(spool: PathBuf) -> Self {
        Self { open: Arc::default(), opened: Arc::default(), spool: spool.into() }
    }

    /// Serves a session until its connection ends.
    ///
    /// # Errors
    ///
    /// When there are too many, or the client does not speak HTTP/2.
    pub async fn run(&self, io: impl Duplex, greeting: Greeting) -> Result<(), Error> {
        let (caller, connection) = Caller::new(io).await.map_err(|error| Error::Other {
            action: "open a session".to_owned(),
            kind: rorqual_core::ErrorKind::Unavailable,
            source: error.into(),
        })?;
        let id = greeting.id.clone();
        let closed = CancellationToken::new();
        let guard = closed.clone().drop_guard();
        let session =
            Arc::new(RemoteSession::new(greeting, caller, closed, Arc::clone(&self.spool)));
        self.insert(&id, &session)?;
        self.opened.notify_waiters();
        let forget = Forget { sessions: self.clone(), session };
        if let Err(error) = connection.await {
            tracing::debug!(%error, session = %id, "a session ended");
        }
        drop((guard, forget));
        Ok(())
    }

    fn insert(&self, id: &str, session: &Arc<RemoteSession>) -> Result<(), Error> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if open.len() >= MOST_SESSIONS {
            return Err(Error::Other {
                action: "open a session".to_owned(),
                kind: rorqual_core::ErrorKind::Unavailable,
                source: format!("{MOST_SESSIONS} are open already").into(),
            });
        }
        // A client that dials again under the same identity replaces what it had.
        open.insert(id.to_owned(), Arc::clone(session));
        Ok(())
    }

    /// Returns a session that is open.
    pub fn find(&self, id: &str) -> Option<Arc<RemoteSession>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).get(id).cloned()
    }

    /// Returns a session, waiting for a client that has named it and not opened it yet.
    ///
    /// # Errors
    ///
    /// When it does not come.
    pub async fn wait(&self, id: &str) -> Result<Arc<RemoteSession>, Error> {
        let search = async {
            loop {
                let opened = self.opened.notified();
                tokio::pin!(opened);
                // ORDER: enabled before looking, so that one that opens in between is noticed.
                opened.as_mut().enable();
                if let Some(session) = self.find(id) {
                    return session;
                }
                opened.await;
            }
        };
        tokio::time::timeout(PATIENCE, search).await.map_err(|_| Error::Other {
            action: "start the build".to_owned(),
            kind: rorqual_core::ErrorKind::NotFound,
            source: format!("no active session for {id}: context deadline exceeded").into(),
        })
    }
}

struct Forget {
    sessions: Sessions,
    session: Arc<RemoteSession>,
}

impl Drop for Forget {
    fn drop(&mut self) {
        self.session.forget_failed();
        let mut open = self.sessions.open.lock().unwrap_or_else(PoisonError::into_inner);
        let id = rorqual_build::Session::id(&*self.session);
        if open.get(id).is_some_and(|session| Arc::ptr_eq(session, &self.session)) {
            open.remove(id);
        }
    }
}

#[cfg(test)]
mod tests;
