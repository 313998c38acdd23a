//! Sending an image: first a plan of what belongs there, then all blobs that are missing at once, then manifests, the one that the
//! name will lead to last.
//!
//! An image that came from elsewhere is sent as it came. One that was made here has plain layers; those are packed on the way, to the
//! same bytes each time.

mod packed;
mod plan;
pub(crate) mod source;

use std::collections::HashMap;
use std::sync::Arc;

use futures_util::stream::{self, StreamExt, TryStreamExt};
use rorqual_content::{Descriptor, media_type};
use rorqual_core::{DiffId, Digest, Reference, Repository, Timestamp};
use tokio::sync::RwLock;

use crate::pins::Pins;
use crate::record::{Stores, other};
use crate::registry::{Content, Failure, Progressed, Reason, Registries, Sending, Sent, Session};
use crate::{Error, Progress, ProgressSink, PushRequest, Pushed};

pub(crate) use packed::Packed;
use packed::Survey;
use plan::{Part, Plan};

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
        let (plan, survey, pinned) = {
            // ORDER: held before anybody relies on it, and not in the middle of a collection.
            let _shared = self.gate.read().await;
            let plan = plan::plan(self.stores, &record, platform.as_ref()).await?;
            let survey = Survey::new(self.stores, self.packed, name.repository()).await?;
            let mut needed = plan.needed(&record);
            let layers = &record.document.rootfs.diff_ids;
            needed.extend(
                layers.iter().flat_map(|layer| self.forms(&survey, layer)).map(|form| form.digest),
            );
            (plan, survey, self.pins.hold(needed))
        };
        let from = self.sources(&survey, &plan, name.repository());
        let session = self.reach(&name, &from, &auth, &plan).await?;
        for part in &plan.parts {
            self.tell_of(part, "Preparing");
        }
        if let Some(note) = &plan.note {
            self.tell("", note.clone());
        }
        let lease = self.stores.blobs.lease();
        let sent = self.send(&session, &plan, &survey).await?;
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

    /// Sends all blobs, several at a time; returns what layers were packed to.
    async fn send(
        &self,
        session: &Session,
        plan: &Plan,
        survey: &Survey,
    ) -> Result<HashMap<Digest, Descriptor>, Error> {
        let mut sending = Vec::new();
        for part in &plan.parts {
            sending.push(async move {
                let blob = self.part(session, part, survey).await?;
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
        survey: &Survey,
    ) -> Result<Descriptor, Error> {
        let (blob, begun) = if part.pack {
            let layer = DiffId(part.blob.digest.clone());
            for known in self.forms(survey, &layer) {
                if session.has_blob(&known.digest).await? {
                    self.packed.put(&*self.stores.images, &layer, &known).await;
                    self.tell_of(part, "Layer already exists");
                    return Ok(known);
                }
            }
            self.tell_of(part, "Waiting");
            self.pack(session, part, survey.form(&layer)).await?
        } else {
            (part.blob.clone(), Progressed::Not)
        };
        let (pushing, total) = (self.pushing(part), blob.size);
        let content = Content {
            blob: &blob,
            source: source::open(self.stores, &blob),
            mounts: survey.mounts.get(&blob.digest).map_or(&[], Vec::as_slice),
            progress: Arc::new(move |current| pushing(current, total)),
        };
        let sent = match begun {
            Progressed::Done(sent) => sent,
            Progressed::Open(upload) => session.resume(upload, &content).await?,
            Progressed::Not => session.upload(&content).await?,
        };
        let status = match sent {
            Sent::Exists => "Layer already exists".to_owned(),
            Sent::Mounted(from) => format!("Mounted from {from}"),
            Sent::Uploaded => "Pushed".to_owned(),
        };
        self.tell_of(part, &status);
        Ok(blob)
    }

    /// Packs a plain layer and sends it meanwhile, if it is large.
    async fn pack(
        &self,
        session: &Session,
        part: &Part,
        form: Option<&Descriptor>,
    ) -> Result<(Descriptor, Progressed), Error> {
        let (layer, growing) = (DiffId(part.blob.digest.clone()), Arc::default());
        let pushing = self.pushing(part);
        let packing = self.packed.pack_growing(self.stores, &layer, form, &growing);
        let sending = async { Ok(session.send_growing(&growing, &pushing).await?) };
        futures_util::future::try_join(packing, sending).await
    }

    /// Makes what tells how much of a blob is sent.
    fn pushing(&self, part: &Part) -> Sending {
        let (id, progress) = (part.id.clone(), Arc::clone(&self.progress));
        Arc::new(move |current, total| {
            if !id.is_empty() {
                progress(Progress { id: id.clone(), status: "Pushing".to_owned(), current, total });
            }
        })
    }

    /// Lists the packed forms of a layer that are known: what it was packed to before, and what came packed.
    fn forms(&self, survey: &Survey, layer: &DiffId) -> Vec<Descriptor> {
        let mut forms: Vec<_> = self.packed.find(layer).into_iter().collect();
        forms.extend(survey.form(layer).filter(|form| !forms.contains(form)).cloned());
        forms
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

    /// Lists the repositories that blobs of a plan may be mounted from, for the scope of the token.
    fn sources(&self, survey: &Survey, plan: &Plan, to: &Repository) -> Vec<Repository> {
        let forms = |part: &Part| self.forms(survey, &DiffId(part.blob.digest.clone()));
        let packed = plan.parts.iter().filter(|part| part.pack).flat_map(forms);
        let digests = plan.parts.iter().map(|part| part.blob.digest.clone());
        let digests = digests.chain(packed.map(|form| form.digest)).collect::<Vec<_>>();
        let mut paths = digests
            .iter()
            .filter_map(|digest| survey.mounts.get(digest))
            .flatten()
            .collect::<Vec<_>>();
        paths.sort();
        paths.dedup();
        // LIMIT: more than a few sources are more than a token server wants to hear of.
        let repositories = paths.into_iter().take(5);
        repositories.filter_map(|path| format!("{}/{path}", to.host()).parse().ok()).collect()
    }
}
