//! Images for builds: those that are here, and what a registry brings.

use std::sync::Arc;

use async_trait::async_trait;
use rorqual_build::{Error, Fetching, ImageResolver, ResolveMode, ResolvedImage, Session};
use rorqual_content::{Blobs, ImageDocument, ImageRecord, Images};
use rorqual_core::{BoxError, Classify, ErrorKind, Platform, Reference};
use rorqual_snapshot::Snapshotter;
use rorqual_transfer::{Progress, PullRequest, RegistryAuth, Transfer};

use crate::builtin::Builtin;

/// LIMIT: an image config; real ones have some ten KiB.
const MAX_CONFIG: u64 = 8 << 20;

/// Finds images in the local store, and pulls those that are not there.
pub(crate) struct LocalImages {
    pub(super) images: Arc<dyn Images>,
    pub(super) blobs: Arc<dyn Blobs>,
    pub(super) snapshots: Arc<dyn Snapshotter>,
    pub(super) transfer: Arc<dyn Transfer>,
    pub(super) builtin: Builtin,
}

fn failed(reference: &str, kind: ErrorKind, source: impl Into<BoxError>) -> Error {
    Error::Other { action: format!("resolve image {reference}"), kind, source: source.into() }
}

/// Who wants an image, and hears how it comes.
type Asker = (Option<Arc<dyn Session>>, Fetching);

/// Asks a client for its login at the registry of an image.
pub(super) async fn authentication(
    session: Option<&dyn Session>,
    name: &Reference,
) -> Result<RegistryAuth, Error> {
    let Some(session) = session else { return Ok(RegistryAuth::default()) };
    let host = match name.repository().host() {
        // COMPAT: clients know the login of the default registry by the host that serves it.
        "docker.io" => "registry-1.docker.io",
        host => host,
    };
    let none = RegistryAuth::default();
    Ok(match session.login(host).await? {
        None => none,
        Some(login) if login.username.is_empty() => {
            RegistryAuth { identity_token: login.secret, ..none }
        }
        Some(login) => RegistryAuth { username: login.username, password: login.secret, ..none },
    })
}

impl LocalImages {
    async fn here(
        &self,
        reference: &str,
        platform: &Platform,
    ) -> Result<Option<ImageRecord>, Error> {
        let record = match self.images.resolve(reference).await {
            Ok(record) => record,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed(reference, error.kind(), error)),
        };
        match self.transfer.variant(&record, platform).await {
            Ok(variant) => Ok(Some(variant)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(failed(reference, error.kind(), error)),
        }
    }

    async fn pull(
        &self,
        reference: &str,
        platform: &Platform,
        (session, progress): Asker,
    ) -> Result<ImageRecord, Error> {
        let built_in = self.builtin.install(reference).await;
        if built_in.map_err(|error| failed(reference, error.kind(), error))?
            && let Some(record) = self.here(reference, platform).await?
        {
            return Ok(record);
        }
        let name = reference.parse::<Reference>().map_err(|error| Error::Invalid {
            message: format!("invalid reference format: {reference:?}: {error}"),
            location: None,
        })?;
        let auth = authentication(session.as_deref(), &name).await?;
        let request =
            PullRequest { name: name.or_latest(), platform: Some(platform.clone()), auth };
        let told = Arc::new(move |step: Progress| progress(&step.id, step.current, step.total));
        let pulled = self.transfer.pull(request, told).await;
        pulled.map_err(|error| failed(reference, error.kind(), error))?;
        self.here(reference, platform).await?.ok_or_else(|| Error::NotFound {
            message: format!("{reference}: the registry has no image for {platform}"),
            location: None,
        })
    }

    async fn find(
        &self,
        reference: &str,
        platform: &Platform,
        mode: ResolveMode,
        (session, progress): Asker,
    ) -> Result<ImageRecord, Error> {
        if mode != ResolveMode::Pull
            && let Some(record) = self.here(reference, platform).await?
        {
            return Ok(record);
        }
        self.pull(reference, platform, (session, progress)).await
    }
}

#[async_trait]
impl ImageResolver for LocalImages {
    async fn resolve(
        &self,
        reference: &str,
        platform: &Platform,
        mode: ResolveMode,
        session: Option<Arc<dyn Session>>,
    ) -> Result<ResolvedImage, Error> {
        let record =
            self.find(reference, platform, mode, (session, Arc::new(|_, _, _| {}))).await?;
        let config = self.blobs.read(&record.id.0, MAX_CONFIG);
        let config = config.map_err(|error| failed(reference, error.kind(), error))?;
        let name = reference.parse::<Reference>().ok();
        let same = |known: &&Reference| {
            name.as_ref().is_some_and(|name| name.repository() == known.repository())
        };
        let digest = record.digests.iter().find(same).and_then(|known| known.digest().cloned());
        Ok(ResolvedImage {
            reference: reference.to_owned(),
            digest: digest.or(Some(record.target.digest)),
            document: record.document,
            config,
        })
    }

    async fn fetch(
        &self,
        reference: &str,
        platform: &Platform,
        session: Option<Arc<dyn Session>>,
        progress: Fetching,
    ) -> Result<ImageDocument, Error> {
        let record =
            self.find(reference, platform, ResolveMode::Default, (session, progress)).await?;
        for layer in &record.document.rootfs.diff_ids {
            let found = self.snapshots.find_layer(layer).await;
            if found.map_err(|error| failed(reference, error.kind(), error))?.is_none() {
                let message = format!(
                    "{reference}: its layer {layer} is not here for {platform}; load it again"
                );
                return Err(Error::NotFound { message, location: None });
            }
        }
        Ok(record.document)
    }
}
