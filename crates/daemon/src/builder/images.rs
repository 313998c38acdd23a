//! Images for builds: those that are here, and what a registry brings.

use std::sync::Arc;

use async_trait::async_trait;
use rorqual_build::{
    BlobSource, Error, Fetching, ImageResolver, KeepLayers, ResolveMode, ResolvedImage, Session,
};
use rorqual_content::{Blobs, ImageDocument, ImageRecord, Images, Index, Manifest};
use rorqual_core::{BoxError, Classify, Digest, ErrorKind, Platform, Reference};
use rorqual_snapshot::Snapshotter;
use rorqual_transfer::{Artifacts, Progress, PullRequest, RegistryAuth, Transfer};

use crate::builtin::Builtin;

/// LIMIT: an image config; real ones have some ten KiB.
const MAX_CONFIG: u64 = 8 << 20;

/// Finds images in the local store, and pulls those that are not there.
pub(crate) struct LocalImages {
    pub(super) images: Arc<dyn Images>,
    pub(super) blobs: Arc<dyn Blobs>,
    pub(super) snapshots: Arc<dyn Snapshotter>,
    pub(super) transfer: Arc<dyn Transfer>,
    pub(super) artifacts: Arc<dyn Artifacts>,
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

/// An image in an OCI layout of a client.
struct Layout {
    reference: String,
    digest: Digest,
    blobs: Box<dyn BlobSource>,
}

impl Layout {
    fn open(
        store: &str,
        reference: &str,
        session: Option<Arc<dyn Session>>,
    ) -> Result<Self, Error> {
        let digest = reference.rsplit_once('@').and_then(|(_, digest)| digest.parse().ok());
        let digest = digest.ok_or_else(|| Error::Invalid {
            message: format!("{reference}: an image of a layout needs a digest"),
            location: None,
        })?;
        let blobs = session.and_then(|session| session.blobs(store));
        let blobs = blobs.ok_or_else(|| Error::NotFound {
            message: format!("{reference}: the client lends no OCI layout {store:?}"),
            location: None,
        })?;
        Ok(Self { reference: reference.to_owned(), digest, blobs })
    }

    fn broken(&self, error: serde_json::Error) -> Error {
        failed(&self.reference, ErrorKind::InvalidArgument, error)
    }

    /// Reads the manifest for a platform, and the config.
    async fn image(
        &self,
        platform: &Platform,
    ) -> Result<(Manifest, ImageDocument, Vec<u8>), Error> {
        /// LIMIT: indexes within indexes.
        const MAX_DEPTH: usize = 4;
        let mut digest = self.digest.clone();
        for _ in 0..MAX_DEPTH {
            let bytes = self.blobs.read(&digest, rorqual_content::MAX_DOCUMENT).await?;
            let broken = |error| self.broken(error);
            let value = serde_json::from_slice::<serde_json::Value>(&bytes).map_err(broken)?;
            if value.get("manifests").is_none() {
                let manifest = serde_json::from_slice::<Manifest>(&bytes).map_err(broken)?;
                let config = self.blobs.read(&manifest.config.digest, MAX_CONFIG).await?;
                let document = serde_json::from_slice::<ImageDocument>(&config).map_err(broken)?;
                if document.rootfs.diff_ids.len() != manifest.layers.len() {
                    let text = "its manifest and its config have different layers";
                    return Err(failed(&self.reference, ErrorKind::InvalidArgument, text));
                }
                return Ok((manifest, document, config));
            }
            let index = serde_json::from_slice::<Index>(&bytes).map_err(broken)?;
            let fits = |one: &&rorqual_content::Descriptor| {
                one.platform.as_ref().is_none_or(|offered| platform.runs(offered))
            };
            let Some(found) = index.manifests.iter().find(fits) else {
                let message = format!("{}: it has no image for {platform}", self.reference);
                return Err(Error::NotFound { message, location: None });
            };
            digest = found.digest.clone();
        }
        Err(failed(
            &self.reference,
            ErrorKind::InvalidArgument,
            "its indexes are nested too deeply",
        ))
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

    async fn resolve_layout(
        &self,
        store: &str,
        reference: &str,
        platform: &Platform,
        session: Option<Arc<dyn Session>>,
    ) -> Result<ResolvedImage, Error> {
        let layout = Layout::open(store, reference, session)?;
        let (_, document, config) = layout.image(platform).await?;
        Ok(ResolvedImage {
            reference: reference.to_owned(),
            digest: Some(layout.digest),
            document,
            config,
        })
    }

    async fn fetch_layout(
        &self,
        store: &str,
        reference: &str,
        platform: &Platform,
        (session, keep): (Option<Arc<dyn Session>>, KeepLayers<'_>),
    ) -> Result<ImageDocument, Error> {
        let layout = Layout::open(store, reference, session)?;
        let (manifest, document, _) = layout.image(platform).await?;
        keep(&document.rootfs.diff_ids);
        for (blob, diff) in manifest.layers.iter().zip(&document.rootfs.diff_ids) {
            let found = self.snapshots.find_layer(diff).await;
            if found.map_err(|error| failed(reference, error.kind(), error))?.is_some() {
                continue;
            }
            let blob = layout.blobs.open(&blob.digest, blob.size).await?;
            let source = rorqual_snapshot::LayerSource { blob, expected: Some(diff.clone()) };
            let applied = self.snapshots.apply(source).await;
            applied.map_err(|error| failed(reference, error.kind(), error))?;
        }
        Ok(document)
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
