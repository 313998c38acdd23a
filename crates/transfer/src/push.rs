//! Sending an image: first a plan of what belongs there, then all blobs that are missing at once, then manifests, the one that the
//! name will lead to last.
//!
//! An image that came from elsewhere is sent as it came. One that was made here has plain layers; those are packed on the way, to the
//! same bytes each time.

mod plan;
pub(crate) mod source;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::stream::{self, StreamExt, TryStreamExt};
use rorqual_content::{Descriptor, Manifest, media_type};
use rorqual_core::{DiffId, Digest, Reference, Repository, Timestamp};
use tokio::sync::{RwLock, Semaphore};

use crate::pins::Pins;
use crate::record::{Stores, other};
use crate::registry::{Content, Failure, Reason, Registries, Sent, Session};
use crate::{Error, Progress, ProgressSink, PushRequest, Pushed};

use plan::{Part, Plan};

// LIMIT: packed forms that are remembered.
const MAX_PACKED: usize = 10_000;

/// What plain layers were packed to since the daemon started, so that a layer that the registry has is not packed again to find out.
#[derive(Clone)]
pub(crate) struct Packed {
    known: Arc<Mutex<HashMap<DiffId, Descriptor>>>,
    /// One at a time: each uses all processors.
    turn: Arc<Semaphore>,
}

impl Default for Packed {
    fn default() -> Self {
        Self { known: Arc::default(), turn: Arc::new(Semaphore::new(1)) }
    }
}

impl Packed {
    pub(crate) fn find(&self, diff: &DiffId) -> Option<Descriptor> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).get(diff).cloned()
    }

    pub(crate) fn put(&self, diff: &DiffId, packed: &Descriptor) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() < MAX_PACKED {
            known.insert(diff.clone(), packed.clone());
        }
    }

    /// Packs a plain layer into a blob; the caller holds a lease until it was used.
    pub(crate) async fn pack(&self, stores: &Stores, diff: &DiffId) -> Result<Descriptor, Error> {
        let here = |known: &Descriptor| Ok::<_, Error>(stores.blobs.size(&known.digest)?.is_some());
        if let Some(known) = self.find(diff)
            && here(&known)?
        {
            return Ok(known);
        }
        let _turn = self.turn.acquire().await.map_err(other("wait for a turn"))?;
        // Whoever had the turn before may have packed the same.
        if let Some(known) = self.find(diff)
            && here(&known)?
        {
            return Ok(known);
        }
        let (digest, size) = source::pack(stores, diff).await?;
        let packed = Descriptor::new(media_type::OCI_LAYER_GZIP, digest, size);
        self.put(diff, &packed);
        Ok(packed)
    }
}

/// Everything a push works with.
pub(crate) struct Pusher<'t> {
    pub(crate) stores: &'t Stores,
    pub(crate) registries: &'t Registries,
    pub(crate) packed: &'t Packed,
    pub(crate) pins: &'t Pins,
    pub(crate) gate: &'t RwLock<()>,
    pub(crate) progress: ProgressSink,
}

impl Pusher<'_> {
    fn tell(&self, id: &str, status: impl Into<String>) {
        (self.progress)(Progress {
            id: id.to_owned(),
            status: status.into(),
            current: 0,
            total: 0,
        });
    }

    fn tell_of(&self, part: &Part, status: &str) {
        if !part.id.is_empty() {
            self.tell(&part.id, status);
        }
    }

    /// Sends an image.
    pub(crate) async fn push(&self, request: PushRequest) -> Result<Pushed, Error> {
        let PushRequest { image, name, platform, auth } = request;
        let name = name.or_latest();
        let tag = name.tag().unwrap_or_default().to_owned();
        let record = self.stores.images.image(&image).await?;
        let (plan, pinned) = {
            // ORDER: held before anybody relies on it, and not in the middle of a collection.
            let _shared = self.gate.read().await;
            let plan = plan::plan(self.stores, &record, platform.as_ref()).await?;
            let pinned = self.pins.hold(plan.needed(&record));
            (plan, pinned)
        };
        let mounts = self.mounts(name.repository()).await?;
        let from = sources(&mounts, &plan, name.repository());
        let session = self.reach(&name, &from, &auth, &plan).await?;
        for part in &plan.parts {
            self.tell_of(part, "Preparing");
        }
        if let Some(note) = &plan.note {
            self.tell("", note.clone());
        }
        let lease = self.stores.blobs.lease();
        let sent = self.send(&session, &plan, &mounts).await?;
        let target = self.manifests(&session, plan, &sent, &tag).await?;
        let digested = format!("{}@{}", name.repository(), target.digest);
        let digested = digested.parse::<Reference>().map_err(other("name an image by digest"))?;
        let now = Timestamp::from(std::time::SystemTime::now());
        // The image may have been removed meanwhile; it is at the registry all the same.
        if let Err(error) = self.stores.images.tag(&image, &digested, now).await {
            tracing::debug!(%error, "a pushed image is not named by digest");
        }
        drop((lease, pinned));
        // COMPAT: dockerd's text, which scripts read the digest from.
        self.tell("", format!("{tag}: digest: {} size: {}", target.digest, target.size));
        Ok(Pushed { target })
    }

    /// Finds the server that takes the image.
    async fn reach(
        &self,
        name: &Reference,
        from: &[Repository],
        auth: &crate::RegistryAuth,
        plan: &Plan,
    ) -> Result<Arc<Session>, Error> {
        let mut last = Failure::new(Reason::Unreachable, "no server to send to");
        for session in self.registries.writers(name.repository(), from, auth).await? {
            match session.has_blob(&plan.config.digest).await {
                Ok(_) => {
                    session.note_reached();
                    return Ok(session);
                }
                Err(failure) if session.is_open(&failure) => last = failure,
                Err(failure) => {
                    last = failure;
                    break;
                }
            }
        }
        Err(last.into())
    }

    /// Lists by blob the repositories of the same registry that images with it came from or went to.
    async fn mounts(&self, to: &Repository) -> Result<BTreeMap<Digest, Vec<String>>, Error> {
        let mut mounts: BTreeMap<Digest, Vec<String>> = BTreeMap::new();
        for image in self.stores.images.list().await? {
            let homes = image.digests.iter().map(Reference::repository);
            let homes = homes.filter(|home| home.host() == to.host() && home.path() != to.path());
            let homes = homes.map(|home| home.path().to_owned()).collect::<Vec<_>>();
            if homes.is_empty() {
                continue;
            }
            let Ok(bytes) =
                self.stores.blobs.read(&image.manifest.digest, rorqual_content::MAX_DOCUMENT)
            else {
                continue;
            };
            let Ok(manifest) = serde_json::from_slice::<Manifest>(&bytes) else { continue };
            for layer in manifest.layers {
                mounts.entry(layer.digest).or_default().extend(homes.iter().cloned());
            }
            for diff in &image.document.rootfs.diff_ids {
                if let Some(packed) = self.packed.find(diff) {
                    mounts.entry(packed.digest).or_default().extend(homes.iter().cloned());
                }
            }
        }
        Ok(mounts)
    }

    /// Sends all blobs, several at a time; returns what layers were packed to.
    async fn send(
        &self,
        session: &Session,
        plan: &Plan,
        mounts: &BTreeMap<Digest, Vec<String>>,
    ) -> Result<HashMap<Digest, Descriptor>, Error> {
        let mut sending = Vec::new();
        for part in &plan.parts {
            sending.push(async move {
                let blob = self.part(session, part, mounts).await?;
                Ok::<_, Error>((part.blob.digest.clone(), blob))
            });
        }
        let uploads = self.registries.options().uploads.max(1);
        stream::iter(sending).buffer_unordered(uploads).try_collect().await
    }

    async fn part(
        &self,
        session: &Session,
        part: &Part,
        mounts: &BTreeMap<Digest, Vec<String>>,
    ) -> Result<Descriptor, Error> {
        let blob = if part.pack {
            if let Some(known) = self.packed.find(&DiffId(part.blob.digest.clone()))
                && session.has_blob(&known.digest).await?
            {
                self.tell_of(part, "Layer already exists");
                return Ok(known);
            }
            self.tell_of(part, "Waiting");
            self.packed.pack(self.stores, &DiffId(part.blob.digest.clone())).await?
        } else {
            part.blob.clone()
        };
        let (id, total, progress) = (part.id.clone(), blob.size, Arc::clone(&self.progress));
        let content = Content {
            blob: &blob,
            source: source::open(self.stores, &blob),
            mounts: mounts.get(&blob.digest).map_or(&[], Vec::as_slice),
            progress: Arc::new(move |current| {
                let status = "Pushing".to_owned();
                if id.is_empty() {
                    return;
                }
                progress(Progress { id: id.clone(), status, current, total });
            }),
        };
        let status = match session.upload(&content).await? {
            Sent::Exists => "Layer already exists".to_owned(),
            Sent::Mounted(from) => format!("Mounted from {from}"),
            Sent::Uploaded => "Pushed".to_owned(),
        };
        self.tell_of(part, &status);
        Ok(blob)
    }

    /// Puts the manifests, those below others first.
    async fn manifests(
        &self,
        session: &Session,
        plan: Plan,
        sent: &HashMap<Digest, Descriptor>,
        tag: &str,
    ) -> Result<Descriptor, Error> {
        let mut target = plan.target;
        let mut top = None;
        for (descriptor, bytes) in plan.documents {
            if descriptor.digest == target.digest {
                top = Some(bytes);
            } else {
                let reference = descriptor.digest.to_string();
                session.put_manifest(&reference, &descriptor.media_type, &bytes).await?;
            }
        }
        if let Some(mut manifest) = plan.own {
            for layer in &mut manifest.layers {
                if let Some(packed) = sent.get(&layer.digest) {
                    *layer = packed.clone();
                }
            }
            let bytes = serde_json::to_vec(&manifest).map_err(other("encode a manifest"))?;
            let (digest, size) = self.stores.put(&bytes, None)?;
            target = Descriptor::new(media_type::OCI_MANIFEST, digest, size);
            top = Some(bytes);
        }
        let bytes = top.ok_or_else(|| rorqual_content::Error::NoSuchBlob(target.digest.clone()))?;
        let there = session.head_manifest(tag).await?;
        if there.is_none_or(|there| there.digest != target.digest) {
            session.put_manifest(tag, &target.media_type, &bytes).await?;
        }
        Ok(target)
    }
}

/// Lists the repositories that blobs of a plan may be mounted from, for the scope of the token.
fn sources(
    mounts: &BTreeMap<Digest, Vec<String>>,
    plan: &Plan,
    to: &Repository,
) -> Vec<Repository> {
    let paths = plan.parts.iter().filter_map(|part| mounts.get(&part.blob.digest)).flatten();
    let mut paths = paths.collect::<Vec<_>>();
    paths.sort();
    paths.dedup();
    // LIMIT: more than a few sources are more than a token server wants to hear of.
    let repositories = paths.into_iter().take(5);
    repositories.filter_map(|path| format!("{}/{path}", to.host()).parse().ok()).collect()
}
