//! The context of a classic build: an archive that came with the request, unpacked into a directory of ours.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use rorqual_build::{
    AgentStream, Error, Login, OutputSink, SecretValue, Session, SyncRequest, TreeSink,
};
use rorqual_core::Classify;
use rorqual_snapshot::Workbench;

use super::logins::Logins;

/// A directory that goes when this does.
pub(super) struct Unpacked(PathBuf);

fn failed(error: std::io::Error) -> Error {
    Error::Other {
        action: "make a place for the build context".to_owned(),
        kind: rorqual_core::ErrorKind::Internal,
        source: error.into(),
    }
}

impl Unpacked {
    /// Unpacks an archive below `home`.
    pub(super) async fn new(
        home: &Path,
        id: &str,
        archive: Box<dyn Read + Send>,
        workbench: &Arc<dyn Workbench>,
    ) -> Result<Self, Error> {
        let context = Self::empty(home, id).map_err(failed)?;
        workbench.unpack(context.0.clone(), archive).await.map_err(|error| Error::Other {
            action: "read the build context".to_owned(),
            kind: error.kind(),
            source: error.into(),
        })?;
        Ok(context)
    }

    /// Makes a context of a Dockerfile alone.
    pub(super) fn lone(home: &Path, id: &str, name: &str, text: &[u8]) -> Result<Self, Error> {
        let context = Self::empty(home, id).map_err(failed)?;
        std::fs::write(context.0.join(name), text).map_err(failed)?;
        Ok(context)
    }

    fn empty(home: &Path, id: &str) -> std::io::Result<Self> {
        let path = home.join(id);
        std::os::unix::fs::DirBuilderExt::mode(&mut std::fs::DirBuilder::new(), 0o700)
            .create(&path)?;
        Ok(Self(path))
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Unpacked {
    fn drop(&mut self) {
        let path = self.0.clone();
        let remove = move || {
            if let Err(error) = std::fs::remove_dir_all(&path) {
                tracing::warn!(%error, path = %path.display(), "cannot remove a build context");
            }
        };
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn_blocking(remove)),
            Err(_) => remove(),
        }
    }
}

/// A session without a client that could be asked: its directory and its logins came with the request.
pub(super) struct ClassicSession {
    pub(super) id: String,
    pub(super) context: Arc<Unpacked>,
    pub(super) logins: Logins,
}

fn nobody(what: &str) -> Error {
    Error::Unsupported(format!("the classic build protocol has no {what}; build with BuildKit"))
}

#[async_trait]
impl Session for ClassicSession {
    fn id(&self) -> &str {
        &self.id
    }

    fn local_directory(&self, _name: &str) -> Option<PathBuf> {
        Some(self.context.path().to_owned())
    }

    async fn sync(&self, _request: SyncRequest, _sink: Box<dyn TreeSink>) -> Result<(), Error> {
        Err(nobody("directories besides the context"))
    }

    async fn secret(&self, _id: &str) -> Result<Option<SecretValue>, Error> {
        Ok(None)
    }

    async fn login(&self, host: &str) -> Result<Option<Login>, Error> {
        Ok(self.logins.find(host))
    }

    async fn agent(&self, _id: &str) -> Result<Option<Box<dyn AgentStream>>, Error> {
        Ok(None)
    }

    async fn output(&self, _id: &str) -> Result<Box<dyn OutputSink>, Error> {
        Err(nobody("outputs"))
    }

    async fn send_tree(&self, _id: &str, _tree: Box<dyn Read + Send>) -> Result<(), Error> {
        Err(nobody("outputs"))
    }
}
