//! A transfer that moves nothing, for tests of this crate's users: an archive is one image's JSON record of names, a registry
//! is a table of images by name.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use rorqual_content::fake::FakeImages;
use rorqual_content::{Descriptor, ImageConfig, ImageDocument, ImageRecord, Images, media_type};
use rorqual_core::{ContainerId, Digest, ErrorKind, ImageId, Platform, Reference, Repository};
use sha2::{Digest as _, Sha256};

use crate::{
    CommitRequest, Distribution, Error, Hold, ImportRequest, Keeper, Kept, Loaded, ManifestKind,
    ManifestSummary, ProgressSink, PullRequest, Pulled, PushRequest, Pushed, RegistryAuth,
    SearchRequest, SearchResult, Transfer, record,
};

/// Makes image records without layers in a [`FakeImages`].
#[derive(Clone, Default)]
pub struct FakeTransfer {
    images: Arc<FakeImages>,
    /// What every registry has.
    remote: Arc<Mutex<BTreeMap<Reference, ImageRecord>>>,
}

impl FakeTransfer {
    /// Puts its images into `images`.
    pub fn new(images: Arc<FakeImages>) -> Self {
        Self { images, remote: Arc::default() }
    }

    fn remote(&self) -> MutexGuard<'_, BTreeMap<Reference, ImageRecord>> {
        self.remote.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn found(&self, name: &Reference) -> Result<ImageRecord, Error> {
        let found = self.remote().get(name).cloned();
        found.ok_or_else(|| Error::Registry {
            kind: ErrorKind::NotFound,
            message: format!("manifest for {} not found: manifest unknown", name.familiar()),
        })
    }

    /// Makes an image without layers.
    pub async fn put(
        &self,
        config: ImageConfig,
        platform: Platform,
        names: Vec<Reference>,
    ) -> Result<ImageId, Error> {
        let document = ImageDocument {
            architecture: platform.architecture,
            os: platform.os,
            variant: platform.variant,
            config,
            ..ImageDocument::default()
        };
        self.record(document, names).await
    }

    async fn record(
        &self,
        document: ImageDocument,
        names: Vec<Reference>,
    ) -> Result<ImageId, Error> {
        let bytes = serde_json::to_vec(&document)
            .map_err(|error| Error::InvalidArchive(error.to_string()))?;
        let digest = Digest::sha256(Sha256::digest(&bytes).into());
        let descriptor =
            Descriptor::new(media_type::OCI_MANIFEST, digest.clone(), bytes.len() as u64);
        let record = ImageRecord {
            id: ImageId(digest),
            target: descriptor.clone(),
            manifest: descriptor,
            document,
            tags: names,
            digests: Vec::new(),
            size: 0,
            tagged_at: None,
        };
        let id = record.id.clone();
        self.images.put(record).await?;
        Ok(id)
    }
}

#[async_trait]
impl Transfer for FakeTransfer {
    async fn load(
        &self,
        mut archive: Box<dyn Read + Send>,
        platform: Option<Platform>,
        _progress: ProgressSink,
    ) -> Result<Vec<Loaded>, Error> {
        let mut text = String::new();
        archive
            .read_to_string(&mut text)
            .map_err(|error| Error::InvalidArchive(error.to_string()))?;
        let names = text.lines().map(str::parse::<Reference>).collect::<Result<Vec<_>, _>>();
        let names = names.map_err(|error| Error::InvalidArchive(error.to_string()))?;
        let platform = platform.unwrap_or_else(Platform::host);
        let id = self.put(ImageConfig::default(), platform, names.clone()).await?;
        Ok(vec![Loaded { id, names }])
    }

    async fn save(
        &self,
        images: Vec<(ImageId, Vec<Reference>)>,
        _platform: Option<Platform>,
        mut sink: Box<dyn Write + Send>,
    ) -> Result<(), Error> {
        let names = images.iter().flat_map(|(_, names)| names);
        let text = names.map(ToString::to_string).collect::<Vec<_>>().join("\n");
        sink.write_all(text.as_bytes()).map_err(|source| Error::Other {
            action: "write the archive".to_owned(),
            source: source.into(),
        })
    }

    async fn manifests(&self, image: &ImageRecord) -> Result<Vec<ManifestSummary>, Error> {
        Ok(vec![ManifestSummary {
            descriptor: image.manifest.clone(),
            kind: ManifestKind::Image(record::platform(&image.document)),
            available: true,
            image: Some(image.id.clone()),
            content: image.manifest.size,
            unpacked: image.size,
        }])
    }

    async fn variant(
        &self,
        image: &ImageRecord,
        platform: &Platform,
    ) -> Result<ImageRecord, Error> {
        if platform.runs(&record::platform(&image.document)) {
            Ok(image.clone())
        } else {
            Err(Error::NoVariant(platform.clone()))
        }
    }

    async fn import(&self, request: ImportRequest) -> Result<ImageId, Error> {
        self.put(request.config, request.platform, request.name.into_iter().collect()).await
    }

    async fn commit(&self, request: CommitRequest) -> Result<ImageId, Error> {
        self.put(request.config, request.platform, request.name.into_iter().collect()).await
    }

    async fn make(&self, document: ImageDocument, names: Vec<Reference>) -> Result<ImageId, Error> {
        self.record(document, names).await
    }

    async fn pull(&self, request: PullRequest, _progress: ProgressSink) -> Result<Pulled, Error> {
        let mut image = self.found(&request.name)?;
        let (id, digest) = (image.id.clone(), image.target.digest.clone());
        let before = self.images.resolve(&request.name.to_string()).await.ok();
        image.tags = vec![request.name];
        self.images.put(image).await?;
        Ok(Pulled { new: before.is_none_or(|before| before.id != id), id, digest })
    }

    async fn push(&self, request: PushRequest, _progress: ProgressSink) -> Result<Pushed, Error> {
        let image = self.images.image(&request.image).await?;
        let target = image.target.clone();
        self.remote().insert(request.name, image);
        Ok(Pushed { target })
    }

    async fn resolve(&self, name: &Reference, _auth: &RegistryAuth) -> Result<Distribution, Error> {
        let image = self.found(name)?;
        let platforms = vec![record::platform(&image.document)];
        Ok(Distribution { descriptor: image.target, platforms })
    }

    async fn tags(
        &self,
        repository: &Repository,
        _auth: &RegistryAuth,
    ) -> Result<Vec<String>, Error> {
        let remote = self.remote();
        let names = remote.keys().filter(|name| name.repository() == repository);
        Ok(names.filter_map(|name| name.tag().map(str::to_owned)).collect())
    }

    async fn login(&self, _server: &str, auth: &RegistryAuth) -> Result<Option<String>, Error> {
        if auth.password == "wrong" {
            let message = "unauthorized: incorrect username or password".to_owned();
            return Err(Error::Registry { kind: ErrorKind::Unauthenticated, message });
        }
        Ok(None)
    }

    async fn fetch_file(
        &self,
        url: &str,
        _etag: Option<&str>,
    ) -> Result<crate::RemoteAnswer, crate::RemoteError> {
        Err(crate::RemoteError::Unreachable(format!("Get \"{url}\": there is no network here")))
    }

    async fn search(&self, request: SearchRequest) -> Result<Vec<SearchResult>, Error> {
        let remote = self.remote();
        let names = remote.keys().map(|name| name.repository().familiar());
        let found = names.filter(|name| name.contains(&request.term));
        let result = |name| SearchResult { name, ..SearchResult::default() };
        Ok(found.take(request.limit as usize).map(result).collect())
    }

    fn add_keeper(&self, _keeper: Arc<dyn Keeper>) {}

    async fn hold(&self) -> Hold {
        Box::new(())
    }

    async fn alone(&self) -> Hold {
        Box::new(())
    }

    fn kept(&self) -> Kept {
        Kept::default()
    }

    async fn collect(&self, _containers: &[ContainerId]) -> Result<u64, Error> {
        Ok(0)
    }
}
