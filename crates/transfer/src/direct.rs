//! A registry asked directly, for programs that work on manifests without a daemon. Knows no stores.

use std::io;
use std::sync::Arc;

use rorqual_content::{Descriptor, Manifest};
use rorqual_core::{Digest, ErrorKind, Reference, Repository};

use crate::pull::explained;
use crate::registry::{Content, Failure, Reason, Registries, Sent, Session, Source};
use crate::{Error, RegistryAuth, RegistryOptions};

/// The way to all registries.
pub struct Remote(Registries);

/// A blob that cannot be sent, as it is not here: it can only be mounted.
struct Elsewhere;

impl Source for Elsewhere {
    fn open(&self, _from: u64) -> io::Result<Box<dyn io::Read + Send>> {
        Err(io::ErrorKind::NotFound.into())
    }
}

fn word(name: &Reference) -> String {
    let name = name.clone().or_latest();
    name.digest().map_or_else(|| name.tag().unwrap_or_default().to_owned(), ToString::to_string)
}

impl Remote {
    /// Speaks to registries by these settings.
    pub fn new(options: RegistryOptions) -> Self {
        Self(Registries::new(options))
    }

    /// Fetches a manifest or index: its descriptor and its bytes.
    pub async fn manifest(
        &self,
        name: &Reference,
        auth: &RegistryAuth,
    ) -> Result<(Descriptor, Vec<u8>), Error> {
        let (_, document) = self.find(name, auth).await?;
        Ok((document.descriptor, document.bytes))
    }

    async fn find(
        &self,
        name: &Reference,
        auth: &RegistryAuth,
    ) -> Result<(Arc<Session>, crate::registry::Document), Error> {
        let mut last = Failure::new(Reason::Unreachable, "no server to ask");
        for session in self.0.readers(name.repository(), auth).await? {
            match session.manifest(&word(name)).await {
                Ok(document) => return Ok((session, document)),
                Err(failure) if session.is_open(&failure) => last = failure,
                Err(failure) => return Err(explained(failure, name)),
            }
        }
        Err(explained(last, name))
    }

    /// Reads a small blob of an image, verified.
    pub async fn blob(
        &self,
        name: &Reference,
        blob: &Descriptor,
        limit: u64,
        auth: &RegistryAuth,
    ) -> Result<Vec<u8>, Error> {
        let mut last = Failure::new(Reason::Unreachable, "no server to ask");
        for session in self.0.readers(name.repository(), auth).await? {
            match session.small_blob(blob, limit).await {
                Ok(bytes) => return Ok(bytes),
                Err(failure) if session.is_open(&failure) => last = failure,
                Err(failure) => return Err(explained(failure, name)),
            }
        }
        Err(last.into())
    }

    async fn writer(
        &self,
        repository: &Repository,
        from: &[Repository],
        auth: &RegistryAuth,
    ) -> Result<Arc<Session>, Error> {
        let nothing = Digest::sha256([0; 32]);
        let mut last = Failure::new(Reason::Unreachable, "no server to send to");
        for session in self.0.writers(repository, from, auth).await? {
            match session.has_blob(&nothing).await {
                Ok(_) => return Ok(session),
                Err(failure) if session.is_open(&failure) => last = failure,
                Err(failure) => return Err(failure.into()),
            }
        }
        Err(last.into())
    }

    /// Puts a manifest or index under a tag.
    pub async fn put(
        &self,
        name: &Reference,
        kind: &str,
        bytes: &[u8],
        auth: &RegistryAuth,
    ) -> Result<(), Error> {
        let session = self.writer(name.repository(), &[], auth).await?;
        Ok(session.put_manifest(&word(name), kind, bytes).await?)
    }

    /// Makes an image of one repository one of another of the same registry: its blobs are mounted, its manifest is put.
    pub async fn mount(
        &self,
        from: &Reference,
        to: &Repository,
        auth: &RegistryAuth,
    ) -> Result<(), Error> {
        let (_, document) = self.find(from, auth).await?;
        let invalid =
            |message: String| Error::Registry { kind: ErrorKind::InvalidArgument, message };
        let manifest = serde_json::from_slice::<Manifest>(&document.bytes)
            .map_err(|error| invalid(format!("the manifest of {from} is broken: {error}")))?;
        let session = self.writer(to, std::slice::from_ref(from.repository()), auth).await?;
        let mounts = [from.repository().path().to_owned()];
        for blob in manifest.layers.iter().chain([&manifest.config]) {
            let content = Content {
                blob,
                source: Arc::new(Elsewhere),
                mounts: &mounts,
                progress: Arc::new(|_| ()),
            };
            match session.upload(&content).await {
                Ok(Sent::Exists | Sent::Mounted(_) | Sent::Uploaded) => {}
                Err(failure) => {
                    let text = format!(
                        "blob {} of {from} cannot be mounted in {to}, push the image there first: {failure}",
                        blob.digest
                    );
                    return Err(invalid(text));
                }
            }
        }
        let digest = document.descriptor.digest.to_string();
        Ok(session.put_manifest(&digest, &document.descriptor.media_type, &document.bytes).await?)
    }
}
