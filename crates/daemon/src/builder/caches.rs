//! Build caches that come from elsewhere or go there: registries, directories of clients, images.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::sync::Arc;
use std::time::SystemTime;

use async_trait::async_trait;
use rorqual_build::Error;
use rorqual_build::solver::{
    self, CACHE_CONFIG, CacheDocument, CacheExport, CachedLayers, ImportedCache,
    MAX_CACHE_DOCUMENT, Recorder,
};
use rorqual_buildkit::{CacheEntry, ContentStore, Scope};
use rorqual_content::{Descriptor, ImageDocument, Index, Manifest, media_type};
use rorqual_core::{DiffId, Digest, Reference};
use rorqual_snapshot::{LayerSource, Snapshotter};
use rorqual_transfer::{Artifacts, Publication, RegistryAuth};
use serde::{Deserialize, Serialize};

use super::Builder;
use super::images::authentication;
use super::lookup::Task;
use super::outputs::{Told, other, unsupported};

/// LIMIT: an index that a name leads to.
const MAX_DOCUMENT: u64 = 4 << 20;
/// LIMIT: images of an index whose records are read.
const MAX_IMAGES: usize = 32;

/// The caches that the options of a front end name.
pub(super) fn listed(options: &BTreeMap<String, String>) -> Vec<CacheEntry> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Entry {
        r#type: String,
        #[serde(default)]
        attrs: BTreeMap<String, String>,
    }
    let listed = options.get("cache-imports");
    let listed: Option<Vec<Entry>> = listed.and_then(|json| serde_json::from_str(json).ok());
    let entries = listed.unwrap_or_default().into_iter();
    entries.map(|entry| CacheEntry { kind: entry.r#type, attrs: entry.attrs }).collect()
}

fn invalid(message: impl Into<String>) -> Error {
    Error::Invalid { message: message.into(), location: None }
}

/// Where a cache is.
#[derive(Clone)]
enum Place {
    Registry { artifacts: Arc<dyn Artifacts>, name: Reference, auth: RegistryAuth },
    Client { store: ContentStore, snapshots: Arc<dyn Snapshotter> },
}

impl Place {
    async fn manifest(&self, digest: Option<&Digest>) -> Result<Vec<u8>, Error> {
        match self {
            Self::Registry { artifacts, name, auth } => {
                let name = match digest {
                    Some(digest) => format!("{}@{digest}", name.repository())
                        .parse()
                        .map_err(|_| invalid("a manifest has no name"))?,
                    None => name.clone(),
                };
                let found = artifacts.document(&name, auth).await;
                found.map(|(_, bytes)| bytes).map_err(other("fetch the manifest of a cache"))
            }
            Self::Client { store, .. } => {
                let digest = digest.ok_or_else(|| invalid("a local cache needs a digest"))?;
                store.read(digest, MAX_DOCUMENT).await
            }
        }
    }

    async fn blob(&self, blob: &Descriptor) -> Result<Vec<u8>, Error> {
        match self {
            Self::Registry { artifacts, name, auth } => {
                let found = artifacts.small_blob(name, auth, blob).await;
                found.map_err(other("fetch the records of a cache"))
            }
            Self::Client { store, .. } => store.read(&blob.digest, MAX_CACHE_DOCUMENT).await,
        }
    }
}

#[async_trait]
impl CachedLayers for Place {
    async fn bring(&self, blob: &Descriptor, layer: &DiffId) -> Result<(), Error> {
        match self {
            Self::Registry { artifacts, name, auth } => {
                let brought = artifacts.layer(name, auth, blob, layer).await;
                brought.map_err(other(format!("fetch layer {} of a cache", blob.digest)))
            }
            Self::Client { store, snapshots } => {
                let reader = store.reader(&blob.digest, blob.size).await?;
                let source = LayerSource { blob: reader, expected: Some(layer.clone()) };
                let applied = snapshots.apply(source).await;
                applied.map(drop).map_err(other(format!("unpack layer {} of a cache", blob.digest)))
            }
        }
    }
}

async fn place(builder: &Builder, entry: &CacheEntry, scope: &Scope) -> Result<Place, Error> {
    let attribute = |name: &str| entry.attrs.get(name).map_or("", String::as_str);
    match entry.kind.as_str() {
        "registry" => {
            let name = attribute("ref").parse::<Reference>().map(Reference::or_latest);
            let name = name
                .map_err(|_| invalid(format!("invalid cache reference {:?}", attribute("ref"))))?;
            let session = scope.lender();
            let auth = authentication(session.as_deref(), &name).await?;
            Ok(Place::Registry { artifacts: Arc::clone(&builder.images.artifacts), name, auth })
        }
        "local" => {
            let session = scope.session.clone();
            let session =
                session.ok_or_else(|| invalid("a local cache needs a session of the client"))?;
            let path = entry.attrs.get("src").or(entry.attrs.get("dest"));
            let path = path.ok_or_else(|| invalid("a local cache needs src or dest"))?;
            let store = ContentStore::open(session, &format!("local:{path}"))?;
            Ok(Place::Client { store, snapshots: Arc::clone(&builder.images.snapshots) })
        }
        other => unsupported(format!(
            "caches of the kind {other:?} are not known to this builder: registry, local, inline"
        )),
    }
}

/// Takes a cache from elsewhere for the rest of a build. As at BuildKit, one that cannot be read is no failure: the build
/// goes on without it.
pub(super) async fn import(
    builder: &Builder,
    entry: &CacheEntry,
    scope: &Scope,
) -> Result<(), Error> {
    if scope.knows_import(entry) {
        return Ok(());
    }
    let from = entry.attrs.get("ref").or(entry.attrs.get("src")).map_or("", String::as_str);
    let task = Task::begin(scope, &format!("importing cache manifest from {from}"));
    let opened = async {
        let place = place(builder, entry, scope).await?;
        read(place, entry).await
    };
    let cache = match task.end(opened.await) {
        Ok(cache) => Some(Arc::new(cache)),
        Err(Error::Cancelled) => return Err(Error::Cancelled),
        Err(_) => None,
    };
    scope.add_import(entry.clone(), cache);
    Ok(())
}

async fn read(place: Place, entry: &CacheEntry) -> Result<ImportedCache, Error> {
    let digest = entry.attrs.get("digest").filter(|text| !text.is_empty());
    let digest = digest.map(|text| text.parse::<Digest>()).transpose();
    let digest = digest.map_err(|_| invalid("the digest of the cache is none"))?;
    let bytes = place.manifest(digest.as_ref()).await?;
    let source = Arc::new(place.clone());
    match found(&place, &bytes).await? {
        Found::Records(blob) => {
            let document = CacheDocument::parse(&place.blob(&blob).await?)?;
            ImportedCache::new(&[document], source)
        }
        Found::Images(documents) => ImportedCache::new(&documents, source),
    }
}

enum Found {
    /// A cache of its own.
    Records(Descriptor),
    /// Images that carry records.
    Images(Vec<CacheDocument>),
}

async fn found(place: &Place, bytes: &[u8]) -> Result<Found, Error> {
    let broken =
        |error: serde_json::Error| invalid(format!("the cache manifest is broken: {error}"));
    let shape = serde_json::from_slice::<serde_json::Value>(bytes).map_err(broken)?;
    let mut documents = Vec::new();
    if shape.get("manifests").is_some() {
        let index = serde_json::from_slice::<Index>(bytes).map_err(broken)?;
        if let Some(own) = index.manifests.iter().find(|one| one.media_type == CACHE_CONFIG) {
            return Ok(Found::Records(own.clone()));
        }
        for one in index.manifests.iter().take(MAX_IMAGES) {
            let is_image = one.platform.as_ref().is_none_or(|platform| platform.os != "unknown");
            if is_image {
                let bytes = place.manifest(Some(&one.digest)).await?;
                let manifest = serde_json::from_slice(&bytes).map_err(broken)?;
                documents.extend(carried(place, &manifest).await?);
            }
        }
    } else {
        let manifest = serde_json::from_slice::<Manifest>(bytes).map_err(broken)?;
        if manifest.config.media_type == CACHE_CONFIG {
            return Ok(Found::Records(manifest.config));
        }
        documents.extend(carried(place, &manifest).await?);
    }
    if documents.is_empty() {
        return Err(invalid(
            "the image carries no cache: it was built without --cache-to type=inline",
        ));
    }
    Ok(Found::Images(documents))
}

/// Reads the records that an image carries.
async fn carried(place: &Place, manifest: &Manifest) -> Result<Option<CacheDocument>, Error> {
    let config = place.blob(&manifest.config).await?;
    let Ok(config) = serde_json::from_slice::<ImageDocument>(&config) else { return Ok(None) };
    if config.build_cache.is_empty() || config.rootfs.diff_ids.len() != manifest.layers.len() {
        return Ok(None);
    }
    let layers = manifest.layers.iter().cloned().zip(config.rootfs.diff_ids).collect::<Vec<_>>();
    CacheDocument::inline(&config.build_cache, &layers).map(Some)
}

/// Refuses what a cache export cannot do.
pub(super) fn check(entry: &CacheEntry) -> Result<(), Error> {
    const KNOWN: [&str; 12] = [
        "ref",
        "dest",
        "tag",
        "mode",
        "cache-mounts",
        "compression",
        "compression-level",
        "force-compression",
        "image-manifest",
        "oci-mediatypes",
        "ignore-error",
        "name",
    ];
    if !matches!(entry.kind.as_str(), "registry" | "local" | "inline") {
        return unsupported(format!(
            "cache exports of the kind {:?} are not known to this builder: registry, local, inline",
            entry.kind
        ));
    }
    for (name, value) in &entry.attrs {
        let is_fine = match name.as_str() {
            "mode" => matches!(value.as_str(), "" | "min" | "max"),
            "compression" => matches!(value.as_str(), "" | "gzip"),
            "force-compression" | "compression-level" => matches!(value.as_str(), "" | "false"),
            "oci-mediatypes" => matches!(value.as_str(), "" | "true"),
            "image-manifest" | "ignore-error" | "cache-mounts" => {
                matches!(value.as_str(), "" | "true" | "false")
            }
            name => KNOWN.contains(&name),
        };
        if !is_fine {
            return unsupported(format!(
                "the option {name}={value} of the cache export {:?} is not supported by this builder: caches are OCI documents, \
                 their layers packed with gzip",
                entry.kind
            ));
        }
    }
    Ok(())
}

fn is_on(entry: &CacheEntry, name: &str, default: bool) -> bool {
    match entry.attrs.get(name).map_or("", String::as_str) {
        "" => default,
        value => value == "true",
    }
}

async fn collect(
    builder: &Builder,
    entry: &CacheEntry,
    recorder: &Recorder,
    states: &[solver::State],
) -> Result<CacheExport, Error> {
    let is_max = entry.attrs.get("mode").is_some_and(|mode| mode == "max");
    let results = (!is_max).then_some(states);
    builder.solver.collect_cache(recorder, results, is_on(entry, "cache-mounts", false)).await
}

/// Makes the records that the image of a state carries.
pub(super) async fn inline(
    builder: &Builder,
    recorder: &Recorder,
    state: &solver::State,
) -> Result<String, Error> {
    let export =
        builder.solver.collect_cache(recorder, Some(std::slice::from_ref(state)), false).await?;
    export.inline(state.layers())
}

/// Hands out the cache of a build.
pub(super) async fn export(
    builder: &Builder,
    entry: &CacheEntry,
    (recorder, states): (&Recorder, &[solver::State]),
    (scope, told): (&Scope, &mut Told),
) -> Result<(), Error> {
    let name = match entry.kind.as_str() {
        "inline" => return Ok(()),
        "local" => "exporting cache to client directory",
        _ => "exporting cache to registry",
    };
    let task = Task::begin(scope, name);
    let work = async {
        let export = collect(builder, entry, recorder, states).await?;
        write(builder, entry, &export, (scope, &task)).await
    };
    let written = work.await;
    match task.end(written) {
        Ok(manifest) => {
            let text = serde_json::to_string(&manifest);
            let text = text.map_err(|error| invalid(format!("cannot encode: {error}")))?;
            if entry.kind == "local" {
                told.insert("cache.manifest".to_owned(), text);
            }
            Ok(())
        }
        Err(error) if is_on(entry, "ignore-error", false) && !matches!(error, Error::Cancelled) => {
            Ok(())
        }
        Err(error) => Err(error),
    }
}

async fn write(
    builder: &Builder,
    entry: &CacheEntry,
    export: &CacheExport,
    (scope, task): (&Scope, &Task<'_>),
) -> Result<Descriptor, Error> {
    let place = place(builder, entry, scope).await?;
    // ORDER: what is packed from here on is not collected before it was sent.
    let lease = builder.images.blobs.lease();
    let mut packed = BTreeMap::new();
    for layer in export.layers() {
        let started = SystemTime::now();
        let blob = builder.images.artifacts.pack(&layer).await;
        let blob = blob.map_err(other("pack a layer for a cache"))?;
        task.part(&format!("writing layer {}", blob.digest), blob.size, started);
        packed.insert(layer, blob);
    }
    let document = export.document(&packed)?;
    let config = keep(builder, CACHE_CONFIG, &document.to_bytes()?)?;
    task.part(&format!("writing config {}", config.digest), config.size, SystemTime::now());
    let mut layers = packed.into_values().collect::<Vec<_>>();
    layers.sort_by(|a, b| a.digest.cmp(&b.digest));
    layers.dedup();
    let (kind, bytes) = manifest(is_on(entry, "image-manifest", true), &config, &layers)?;
    let manifest = keep(builder, kind, &bytes)?;
    let blobs = layers.into_iter().chain([config]).collect::<Vec<_>>();
    match place {
        Place::Registry { artifacts, name, auth } => {
            let manifest = (manifest.clone(), bytes);
            let publication = Publication { name, auth, blobs, manifest };
            artifacts.publish(publication).await.map_err(other("send the cache"))?;
        }
        Place::Client { store, .. } => {
            for blob in blobs.iter().chain([&manifest]) {
                let reader = builder.images.blobs.open(&blob.digest);
                let reader = reader.map_err(other("read a blob of the cache"))?;
                store.write(&blob.digest, blob.size, reader).await?;
            }
        }
    }
    let text = format!("writing cache manifest {}", manifest.digest);
    task.part(&text, manifest.size, SystemTime::now());
    drop(lease);
    Ok(manifest)
}

/// Makes what the name of a cache leads to: in the form of an image, or of an index as older builders wrote it.
fn manifest(
    is_image: bool,
    config: &Descriptor,
    layers: &[Descriptor],
) -> Result<(&'static str, Vec<u8>), Error> {
    #[derive(Serialize)]
    #[serde(untagged)]
    enum Document {
        Manifest(Manifest),
        Index(Index),
    }
    let (kind, document) = if is_image {
        let manifest = Manifest {
            schema_version: 2,
            media_type: media_type::OCI_MANIFEST.to_owned(),
            config: config.clone(),
            layers: layers.to_vec(),
            annotations: BTreeMap::new(),
        };
        (media_type::OCI_MANIFEST, Document::Manifest(manifest))
    } else {
        let index = Index {
            schema_version: 2,
            media_type: media_type::OCI_INDEX.to_owned(),
            manifests: layers.iter().chain([config]).cloned().collect(),
            annotations: BTreeMap::new(),
        };
        (media_type::OCI_INDEX, Document::Index(index))
    };
    let bytes = serde_json::to_vec(&document);
    Ok((kind, bytes.map_err(|error| invalid(format!("cannot encode a manifest: {error}")))?))
}

/// Stores a document; the caller holds a lease.
fn keep(builder: &Builder, kind: &str, bytes: &[u8]) -> Result<Descriptor, Error> {
    let action = || "store a document of the cache";
    let mut ingest = builder.images.blobs.ingest(bytes.len() as u64).map_err(other(action()))?;
    ingest.write_all(bytes).map_err(|error| Error::Other {
        action: action().to_owned(),
        kind: rorqual_core::ErrorKind::Internal,
        source: error.into(),
    })?;
    let (digest, size) = ingest.commit(None).map_err(other(action()))?;
    Ok(Descriptor::new(kind, digest, size))
}
