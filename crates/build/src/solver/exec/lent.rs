//! What a client lends to a step: secrets as files in memory, and sockets that lead to its ssh agents. Gone with the step.

use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::net::UnixListener;
use tokio::task::JoinSet;

use crate::Error;
use crate::contract::{SecretValue, Session, new_snapshot_id};
use crate::error::other;
use crate::graph::SecretSpec;
use crate::solver::walk::Walk;

/// A directory in memory for one step.
pub(crate) struct Lent {
    home: PathBuf,
    count: usize,
    /// Listeners; they end with this.
    agents: JoinSet<()>,
}

impl Drop for Lent {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.home) {
            tracing::warn!(%error, path = %self.home.display(), "cannot remove secrets of a build");
        }
        if let Some(memory) = self.home.parent() {
            // It stays while another step has something in it.
            std::fs::remove_dir(memory).ok();
        }
    }
}

/// Asks the client for a secret.
pub(crate) async fn secret(walk: &Walk, spec: &SecretSpec) -> Result<Option<SecretValue>, Error> {
    let found = match &walk.job.session {
        Some(session) => session.secret(&spec.id).await?,
        None => None,
    };
    if found.is_none() && !spec.optional {
        // COMPAT: BuildKit's text.
        let message = format!("secret {}: not found", spec.id);
        return Err(Error::NotFound { message, location: None });
    }
    Ok(found)
}

impl Lent {
    pub(crate) fn new(walk: &Walk) -> Result<Self, Error> {
        let Some(memory) = &walk.inner.parts.memory else {
            return Err(Error::Unsupported(
                "secrets and ssh agents need a directory in memory (tmpfs), and this host has none: mount a tmpfs on /run"
                    .to_owned(),
            ));
        };
        let home = memory.join(new_snapshot_id()?.short());
        make(memory, &home).map_err(other("make a place for what the client lends"))?;
        Ok(Self { home, count: 0, agents: JoinSet::new() })
    }

    fn next(&mut self) -> PathBuf {
        self.count += 1;
        self.home.join(self.count.to_string())
    }

    /// Writes a secret where the step can mount it.
    pub(crate) async fn secret(
        &mut self,
        walk: &Walk,
        spec: &SecretSpec,
    ) -> Result<Option<PathBuf>, Error> {
        let Some(value) = secret(walk, spec).await? else { return Ok(None) };
        let path = self.next();
        write(&path, &value.0, spec).map_err(other("lend a secret to a step"))?;
        Ok(Some(path))
    }

    /// Listens for the step's connections to an agent of the client.
    pub(crate) async fn agent(
        &mut self,
        walk: &Walk,
        spec: &SecretSpec,
    ) -> Result<Option<PathBuf>, Error> {
        // Asked once beforehand, so that a build without an agent fails here and not in its program.
        let session = walk.job.session.clone();
        let there = match &session {
            Some(session) => session.agent(&spec.id).await?.is_some(),
            None => false,
        };
        let Some(session) = session.filter(|_| there) else {
            if spec.optional {
                return Ok(None);
            }
            let message = format!(
                "ssh agent {:?} is required, and the client offers none: pass it with --ssh {}",
                spec.id, spec.id
            );
            return Err(Error::NotFound { message, location: None });
        };
        let path = self.next();
        let failed = || other("lend an ssh agent to a step");
        let listener = UnixListener::bind(&path).map_err(failed())?;
        own(&path, spec).map_err(failed())?;
        self.agents.spawn(forward(listener, session, spec.id.clone()));
        Ok(Some(path))
    }
}

/// Makes a directory below one that another step may be removing.
fn make(memory: &Path, home: &Path) -> std::io::Result<()> {
    let mut tries = 0;
    loop {
        std::fs::DirBuilder::new().recursive(true).mode(0o711).create(memory)?;
        match std::fs::DirBuilder::new().mode(0o711).create(home) {
            // LIMIT: steps that end just now; one try is as good as always enough.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && tries < 10 => tries += 1,
            result => return result,
        }
    }
}

fn write(path: &Path, value: &[u8], spec: &SecretSpec) -> std::io::Result<()> {
    let mut file =
        std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    std::io::Write::write_all(&mut file, value)?;
    own(path, spec)
}

fn own(path: &Path, spec: &SecretSpec) -> std::io::Result<()> {
    std::os::unix::fs::chown(path, Some(spec.uid), Some(spec.gid))?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(spec.mode & 0o7777))
}

async fn forward(listener: UnixListener, session: Arc<dyn Session>, id: String) {
    let mut connections = JoinSet::new();
    while let Ok((mut near, _)) = listener.accept().await {
        let (session, id) = (Arc::clone(&session), id.clone());
        connections.spawn(async move {
            // A client that has gone, or closes, ends the connection; the program sees that.
            if let Ok(Some(mut far)) = session.agent(&id).await {
                tokio::io::copy_bidirectional(&mut near, &mut far).await.ok();
            }
        });
        while connections.try_join_next().is_some() {}
    }
}
