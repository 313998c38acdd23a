//! Fetching an image: what its name leads to, the manifest for a machine, the config, then all layers at once.
//!
//! The config is verified before a layer is fetched, so that every layer is checked twice: its bytes against the manifest, what
//! they unpack to against the config. Nothing is recorded before all is there.

mod choose;
mod job;
mod layer;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{FuturesUnordered, TryStreamExt};
use rorqual_content::{Descriptor, ImageDocument, ImageRecord, media_type};
use rorqual_core::{DiffId, Digest, ErrorKind, ImageId, Platform, Reference};
use tokio::sync::RwLock;

use crate::load::{Found, Origin};
use crate::pins::Pins;
use crate::record::{self, MAX_CONFIG, Stores, other};
use crate::registry::{Document, Failure, Reason, Registries, Session};
use crate::{Error, Progress, ProgressSink, PullRequest, Pulled};

use choose::Chosen;
pub(crate) use job::Jobs;
use job::{Job, Key, Stage};

/// LIMIT: layers of one image; the kernel's overlay takes not many more.
const MAX_LAYERS: usize = 480;
/// How often a bar moves.
const TICK: Duration = Duration::from_millis(100);

/// Everything a pull works with.
pub(crate) struct Puller<'t> {
    pub(crate) stores: &'t Stores,
    pub(crate) registries: &'t Registries,
    pub(crate) jobs: &'t Jobs,
    pub(crate) pins: &'t Pins,
    pub(crate) gate: &'t RwLock<()>,
    pub(crate) progress: ProgressSink,
}

fn refused(kind: ErrorKind, message: impl Into<String>) -> Error {
    Error::Registry { kind, message: message.into() }
}

/// Words for what a registry says about a name, as dockerd has them.
pub(crate) fn explained(failure: Failure, name: &Reference) -> Error {
    let repository = name.repository().familiar();
    // COMPAT: clients look for these texts.
    let message = match failure.reason {
        Reason::Denied => format!(
            "pull access denied for {repository}, repository does not exist or may require 'docker login': {failure}"
        ),
        Reason::Unknown => {
            format!("manifest for {} not found: {}", name.familiar(), missing(&failure))
        }
        Reason::NameUnknown => format!("repository {repository} not found: {failure}"),
        _ => return failure.into(),
    };
    refused(ErrorKind::NotFound, message)
}

/// COMPAT: registries that have no words get dockerd's.
fn missing(failure: &Failure) -> &str {
    if failure.text.starts_with("unexpected") { "manifest unknown" } else { &failure.text }
}

impl Puller<'_> {
    fn tell(&self, id: &str, status: impl Into<String>) {
        (self.progress)(Progress {
            id: id.to_owned(),
            status: status.into(),
            current: 0,
            total: 0,
        });
    }

    /// Fetches an image.
    pub(crate) async fn pull(&self, request: PullRequest) -> Result<Pulled, Error> {
        let name = request.name.clone().or_latest();
        let tag = name
            .digest()
            .map_or_else(|| name.tag().unwrap_or_default().to_owned(), ToString::to_string);
        let before = self.stores.images.resolve(&name.to_string()).await.ok();
        let sessions = self.registries.readers(name.repository(), &request.auth).await?;
        if let Some(known) = &before
            && let Some(digest) =
                self.is_current(&sessions, &tag, known, request.platform.as_ref()).await?
        {
            self.tell(&tag, format!("Pulling from {}", name.repository().path()));
            self.finish(&name, &digest, false);
            return Ok(Pulled { id: known.id.clone(), digest, new: false });
        }
        let (at, root) = self.root(&sessions, &tag, &name).await?;
        let sessions = &sessions[at..];
        sessions[0].note_reached();
        self.tell(&tag, format!("Pulling from {}", name.repository().path()));
        let digest = root.descriptor.digest.clone();
        let chosen = choose::choose(&sessions[0], root, request.platform.as_ref(), &name).await?;
        let (config, document) = Self::config(&sessions[0], &chosen, &request, &name).await?;
        let layers = pairs(&chosen, &document, &name)?;
        let needed = layers.iter().flat_map(|(blob, diff)| [blob.digest.clone(), diff.0.clone()]);
        let pinned = {
            // ORDER: held before anybody looks what is here, and not in the middle of a collection.
            let _shared = self.gate.read().await;
            self.pins.hold(needed.collect())
        };
        self.fetch(sessions, layers).await?;
        let id = self.record(&name, chosen, config, document).await?;
        drop(pinned);
        let new = before.is_none_or(|before| before.id != id);
        self.finish(&name, &digest, new);
        Ok(Pulled { id, digest, new })
    }

    fn finish(&self, name: &Reference, digest: &Digest, new: bool) {
        self.tell("", format!("Digest: {digest}"));
        // COMPAT: dockerd's texts.
        let status = if new { "Downloaded newer image" } else { "Image is up to date" };
        self.tell("", format!("Status: {status} for {}", name.familiar()));
    }

    /// Tells whether a name still leads to what is here, whole; costs one small request.
    async fn is_current(
        &self,
        sessions: &[Arc<Session>],
        tag: &str,
        known: &ImageRecord,
        platform: Option<&Platform>,
    ) -> Result<Option<Digest>, Error> {
        let is = record::platform(&known.document);
        if !platform.unwrap_or(&Platform::host()).runs(&is) {
            return Ok(None);
        }
        for id in &known.document.rootfs.diff_ids {
            if self.stores.snapshots.find_layer(id).await?.is_none() {
                return Ok(None);
            }
        }
        let Some(session) = sessions.first() else { return Ok(None) };
        let found = session.head_manifest(tag).await.ok().flatten();
        let same = found.filter(|found| found.digest == known.target.digest);
        if same.is_some() {
            session.note_reached();
        }
        Ok(same.map(|found| found.digest))
    }

    /// Fetches what the name leads to from the first server that has it.
    async fn root(
        &self,
        sessions: &[Arc<Session>],
        tag: &str,
        name: &Reference,
    ) -> Result<(usize, Document), Error> {
        let mut last = None;
        for (at, session) in sessions.iter().enumerate() {
            match session.manifest(tag).await {
                Ok(document) => return Ok((at, document)),
                Err(failure) if session.is_open(&failure) && at + 1 < sessions.len() => {
                    tracing::debug!(server = session.authority(), error = %failure, "asking the next server");
                    last = Some(failure);
                }
                Err(failure) => return Err(explained(failure, name)),
            }
        }
        let nobody = Failure::new(Reason::Unreachable, "no server to ask");
        Err(explained(last.unwrap_or(nobody), name))
    }

    async fn config(
        session: &Session,
        chosen: &Chosen,
        request: &PullRequest,
        name: &Reference,
    ) -> Result<(Vec<u8>, ImageDocument), Error> {
        let descriptor = &chosen.parsed.config;
        let kind = descriptor.media_type.as_str();
        match kind {
            media_type::OCI_CONFIG
            | media_type::DOCKER_CONFIG
            | "application/octet-stream"
            | "" => {}
            "application/vnd.docker.plugin.v1+json" => {
                // COMPAT: dockerd's text.
                let text = format!("Encountered remote \"{kind}\"(plugin config) when fetching");
                return Err(refused(ErrorKind::InvalidArgument, text));
            }
            _ if kind.starts_with("application/vnd.docker.ai.") => {
                // COMPAT: dockerd's text.
                let text = "AI models are not yet supported by the Engine, please use \"docker model pull/run\" instead";
                return Err(refused(ErrorKind::InvalidArgument, text));
            }
            _ => {
                // COMPAT: dockerd's text.
                return Err(refused(
                    ErrorKind::InvalidArgument,
                    format!("unsupported media type {kind}"),
                ));
            }
        }
        let bytes = session.small_blob(descriptor, MAX_CONFIG).await?;
        let document = serde_json::from_slice::<ImageDocument>(&bytes).map_err(|error| {
            refused(
                ErrorKind::InvalidArgument,
                format!("the config of {} is broken: {error}", name.familiar()),
            )
        })?;
        let is = record::platform(&document);
        if !is.os.is_empty() && is.os != "linux" {
            // COMPAT: dockerd's text.
            let text =
                format!("image operating system {:?} cannot be used on this platform", is.os);
            return Err(refused(ErrorKind::InvalidArgument, text));
        }
        if let Some(wanted) = &request.platform
            && record::is_known(&is)
            && !wanted.runs(&is)
        {
            // COMPAT: dockerd's text.
            let text = format!(
                "image with reference {} was found but does not provide the specified platform ({wanted})",
                name.familiar()
            );
            return Err(refused(ErrorKind::NotFound, text));
        }
        Ok((bytes, document))
    }

    /// Fetches and unpacks all layers; the first failure ends the rest.
    pub(crate) async fn fetch(
        &self,
        sessions: &[Arc<Session>],
        layers: Vec<(Descriptor, DiffId)>,
    ) -> Result<(), Error> {
        let mut watched = Vec::new();
        for (blob, diff) in layers {
            let id = blob.digest.short().to_owned();
            if layer::is_here(self.stores, &blob, &diff).await? {
                self.tell(&id, "Already exists");
                continue;
            }
            self.tell(&id, "Pulling fs layer");
            let key = Key { blob: blob.digest.clone(), diff: diff.clone() };
            let fetch = layer::Fetch {
                stores: self.stores.clone(),
                sessions: sessions.to_vec(),
                slots: self.jobs.slots(self.registries.options().downloads),
                blob: blob.clone(),
                diff,
            };
            let job = self.jobs.join(key, |stage| fetch.run(stage));
            watched.push((id, blob.size, job));
        }
        let following = watched.iter().map(|(id, size, job)| self.follow(id, *size, job));
        following.collect::<FuturesUnordered<_>>().try_collect::<()>().await
    }

    /// Tells of a layer until it is there.
    async fn follow(&self, id: &str, size: u64, job: &Job) -> Result<(), Error> {
        let mut stages = job.watch();
        let mut shown = Stage::Begun;
        loop {
            let stage = stages.borrow_and_update().clone();
            if stage != shown {
                self.show(id, size, &shown, &stage);
                shown = stage.clone();
            }
            match stage {
                Stage::Complete => return Ok(()),
                Stage::Failed(error) => return Err(error.to_error()),
                _ => {}
            }
            if stages.changed().await.is_err() {
                return Err(refused(ErrorKind::Cancelled, "the pull was called off"));
            }
            // Bars need not move more often than people can see.
            let moving = matches!(&*stages.borrow(), Stage::Downloading(_));
            if moving && matches!(shown, Stage::Downloading(_)) {
                tokio::time::sleep(TICK).await;
            }
        }
    }

    fn show(&self, id: &str, size: u64, before: &Stage, stage: &Stage) {
        match stage {
            Stage::Begun | Stage::Failed(_) => {}
            Stage::Waiting => self.tell(id, "Waiting"),
            Stage::Downloading(done) => (self.progress)(Progress {
                id: id.to_owned(),
                status: "Downloading".to_owned(),
                current: *done,
                total: size,
            }),
            Stage::Downloaded => {
                if matches!(before, Stage::Downloading(_)) {
                    self.tell(id, "Verifying Checksum");
                }
                self.tell(id, "Download complete");
                // Most of it was unpacked on its way. COMPAT: this has a bar, which only terminals show.
                (self.progress)(Progress {
                    id: id.to_owned(),
                    status: "Extracting".to_owned(),
                    current: size,
                    total: size,
                });
            }
            Stage::Complete => {
                // Who watches may have missed the turn before.
                if *before != Stage::Downloaded {
                    self.show(id, size, before, &Stage::Downloaded);
                }
                self.tell(id, "Pull complete");
            }
        }
    }

    async fn record(
        &self,
        name: &Reference,
        chosen: Chosen,
        config: Vec<u8>,
        document: ImageDocument,
    ) -> Result<ImageId, Error> {
        let digested = format!("{}@{}", name.repository(), chosen.target.digest);
        let digested = digested.parse::<Reference>().map_err(other("name an image by digest"))?;
        let tagged = name.digest().is_none();
        let mut documents = chosen.documents;
        documents.push((chosen.parsed.config.digest.clone(), config.clone()));
        let found = Found {
            config,
            document,
            names: if tagged { vec![name.clone()] } else { Vec::new() },
            packed: Vec::new(),
            origin: Some(Origin { target: chosen.target, manifest: chosen.manifest, documents }),
        };
        // ORDER: what is stored now is not collected before the record refers to it.
        let _shared = self.gate.read().await;
        let _lease = self.stores.blobs.lease();
        self.stores.record_with(found, vec![digested]).await
    }
}

/// Pairs the blobs of a manifest with what they unpack to.
fn pairs(
    chosen: &Chosen,
    document: &ImageDocument,
    name: &Reference,
) -> Result<Vec<(Descriptor, DiffId)>, Error> {
    let (blobs, diffs) = (&chosen.parsed.layers, &document.rootfs.diff_ids);
    let invalid =
        |text: String| refused(ErrorKind::InvalidArgument, format!("{}: {text}", name.familiar()));
    if blobs.len() != diffs.len() {
        return Err(invalid(format!(
            "the manifest has {} layers, the config {}",
            blobs.len(),
            diffs.len()
        )));
    }
    if blobs.len() > MAX_LAYERS {
        return Err(invalid(format!(
            "{} layers are more than {MAX_LAYERS}: max depth exceeded",
            blobs.len()
        )));
    }
    if let Some(odd) = blobs.iter().find(|blob| !is_layer(&blob.media_type)) {
        return Err(invalid(format!(
            "layer {} is of unsupported type {:?}",
            odd.digest, odd.media_type
        )));
    }
    let mut seen = HashSet::new();
    let pairs = blobs.iter().cloned().zip(diffs.iter().cloned());
    Ok(pairs.filter(|(blob, diff)| seen.insert((blob.digest.clone(), diff.clone()))).collect())
}

fn is_layer(kind: &str) -> bool {
    let known = kind.starts_with("application/vnd.oci.image.layer.")
        || kind.starts_with("application/vnd.docker.image.rootfs.");
    known && !kind.ends_with("+encrypted")
}
