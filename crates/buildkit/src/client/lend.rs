//! What a client lends to its build, and the connection on which it does.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use rorqual_build::{Login, SecretValue};

use super::services::Services;
use crate::content;
use crate::session::{HEADER_ID, HEADER_METHOD, HEADER_SHARED_KEY};
use crate::transport::{self, Duplex};

/// Where a stream goes; called with what the builder says about it.
pub type StreamTarget =
    Box<dyn FnOnce(BTreeMap<String, String>) -> std::io::Result<Box<dyn Write + Send>> + Send>;

/// Where an output goes.
pub enum OutputTarget {
    /// Files, into a directory.
    Directory(PathBuf),
    /// Bytes.
    Stream(StreamTarget),
}

/// Knows logins of registries.
#[async_trait]
pub trait CredentialSource: Send + Sync + 'static {
    /// Returns the login for a registry, by its host.
    async fn credentials(&self, host: &str) -> Result<Option<Login>, String>;
}

/// What a client lends.
#[derive(Default)]
pub struct Lending {
    /// Directories, by name.
    pub directories: BTreeMap<String, PathBuf>,
    /// Secrets, by name.
    pub secrets: BTreeMap<String, SecretValue>,
    /// Sockets of ssh agents, by name.
    pub agents: BTreeMap<String, PathBuf>,
    /// Receivers of outputs, by number.
    pub outputs: BTreeMap<usize, OutputTarget>,
    /// Logins.
    pub credentials: Option<Arc<dyn CredentialSource>>,
    /// Directories of blobs, by the names that the builder asks for (`local:PATH`).
    pub stores: BTreeMap<String, PathBuf>,
}

/// A session that is not open yet.
pub(crate) struct Lent {
    pub(crate) directories: BTreeMap<String, PathBuf>,
    pub(crate) secrets: BTreeMap<String, SecretValue>,
    pub(crate) agents: BTreeMap<String, PathBuf>,
    pub(crate) outputs: Mutex<BTreeMap<usize, OutputTarget>>,
    pub(crate) credentials: Option<Arc<dyn CredentialSource>>,
    pub(crate) stores: BTreeMap<String, PathBuf>,
}

impl Lent {
    /// Takes an output; each is written once.
    pub(crate) fn output(&self, id: usize, wants_files: Option<bool>) -> Option<OutputTarget> {
        let mut outputs = self.outputs.lock().unwrap_or_else(PoisonError::into_inner);
        let is_files = matches!(outputs.get(&id)?, OutputTarget::Directory(_));
        match wants_files {
            Some(wants) if wants != is_files => None,
            _ => outputs.remove(&id),
        }
    }

    /// Tells whether an output takes files; `None` when there is none.
    pub(crate) fn takes_files(&self, id: usize) -> Option<bool> {
        let outputs = self.outputs.lock().unwrap_or_else(PoisonError::into_inner);
        outputs.get(&id).map(|output| matches!(output, OutputTarget::Directory(_)))
    }
}

impl Lending {
    /// The headers with which a session of this identity is opened (`POST /session`).
    pub fn headers(&self, id: &str, shared_key: &str) -> Vec<(&'static str, String)> {
        let mut headers = vec![
            (HEADER_ID, id.to_owned()),
            ("x-docker-expose-session-name", "rorqual".to_owned()),
            (HEADER_SHARED_KEY, shared_key.to_owned()),
        ];
        let mut methods = vec!["/grpc.health.v1.Health/Check"];
        if !self.directories.is_empty() {
            methods.push("/moby.filesync.v1.FileSync/DiffCopy");
        }
        if !self.outputs.is_empty() {
            methods.push("/moby.filesync.v1.FileSend/DiffCopy");
        }
        if !self.secrets.is_empty() {
            methods.push("/moby.buildkit.secrets.v1.Secrets/GetSecret");
        }
        if !self.agents.is_empty() {
            methods.push("/moby.sshforward.v1.SSH/CheckAgent");
            methods.push("/moby.sshforward.v1.SSH/ForwardAgent");
        }
        if self.credentials.is_some() {
            methods.push("/moby.filesync.v1.Auth/Credentials");
        }
        if !self.stores.is_empty() {
            let paths = [content::INFO, content::READ, content::WRITE];
            methods.extend(paths);
        }
        headers.extend(methods.into_iter().map(|method| (HEADER_METHOD, method.to_owned())));
        headers
    }

    /// Lends on a connection that the builder has taken over, until it ends.
    pub async fn serve(self, io: impl Duplex) {
        let lent = Lent {
            directories: self.directories,
            secrets: self.secrets,
            agents: self.agents,
            outputs: Mutex::new(self.outputs),
            credentials: self.credentials,
            stores: self.stores,
        };
        if let Err(error) = transport::serve(io, Services::new(lent)).await {
            tracing::debug!(%error, "the session ended");
        }
    }
}
