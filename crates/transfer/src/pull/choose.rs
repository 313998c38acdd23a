//! Choosing the manifest for a machine at the registry, with what is said about it. Fetches documents, no layers.

use std::sync::Arc;

use rorqual_content::{Descriptor, Index, MAX_DOCUMENT, Manifest, media_type};
use rorqual_core::{Digest, ErrorKind, Platform, Reference};

use super::refused;
use crate::Error;
use crate::registry::{Document, Session};

/// LIMIT: indexes within indexes, entries of one, and entries without a platform that are looked at.
const MAX_DEPTH: usize = 4;
const MAX_ENTRIES: usize = 10_000;
const MAX_NAMELESS: usize = 16;
/// LIMIT: statements about an image that are kept, and their bytes.
const MAX_STATEMENTS: usize = 8;
const MAX_STATEMENT: u64 = 16 << 20;

/// What is pulled.
pub(super) struct Chosen {
    /// What the name leads to.
    pub(super) target: Descriptor,
    pub(super) manifest: Descriptor,
    pub(super) parsed: Manifest,
    /// All documents between the two, with the statements about the manifest.
    pub(super) documents: Vec<(Digest, Vec<u8>)>,
}

fn is_index(descriptor: &Descriptor) -> bool {
    matches!(descriptor.media_type.as_str(), media_type::OCI_INDEX | media_type::DOCKER_LIST)
}

fn broken(name: &Reference, what: &str, error: &serde_json::Error) -> Error {
    refused(
        ErrorKind::InvalidArgument,
        format!("the {what} of {} is broken: {error}", name.familiar()),
    )
}

/// Chooses below `root`.
pub(super) async fn choose(
    session: &Arc<Session>,
    root: Document,
    platform: Option<&Platform>,
    name: &Reference,
) -> Result<Chosen, Error> {
    let host = Platform::host();
    let wanted = platform.unwrap_or(&host);
    let target = root.descriptor.clone();
    let mut documents = Vec::new();
    let mut current = root;
    for _ in 0..MAX_DEPTH {
        let descriptor = current.descriptor.clone();
        documents.push((descriptor.digest.clone(), current.bytes.clone()));
        if !is_index(&descriptor) {
            let parsed = serde_json::from_slice::<Manifest>(&current.bytes)
                .map_err(|error| broken(name, "manifest", &error))?;
            return Ok(Chosen { target, manifest: descriptor, parsed, documents });
        }
        let index = serde_json::from_slice::<Index>(&current.bytes)
            .map_err(|error| broken(name, "index", &error))?;
        if index.manifests.len() > MAX_ENTRIES {
            return Err(refused(ErrorKind::InvalidArgument, "the index has too many manifests"));
        }
        let entry = match fitting(&index, wanted) {
            Some(entry) => entry.clone(),
            None => nameless(session, &index, wanted).await?.ok_or_else(|| {
                // COMPAT: clients look for this text.
                let text =
                    format!("no matching manifest for {wanted} in the manifest list entries");
                refused(ErrorKind::NotFound, text)
            })?,
        };
        statements(session, &index, &entry.digest, &mut documents).await;
        current = fetch(session, &entry).await?;
        current.descriptor = entry;
    }
    Err(refused(ErrorKind::InvalidArgument, "indexes are nested too deeply"))
}

/// Finds the entry for a machine: the very same before one that only runs on it.
fn fitting<'i>(index: &'i Index, wanted: &Platform) -> Option<&'i Descriptor> {
    let images = || {
        index.manifests.iter().filter_map(|entry| {
            let platform = entry.platform.as_ref()?;
            (!is_statement(entry) && wanted.runs(platform)).then_some((entry, platform))
        })
    };
    let same = images().find(|(_, platform)| *platform == wanted);
    same.or_else(|| images().next()).map(|(entry, _)| entry)
}

fn is_statement(entry: &Descriptor) -> bool {
    entry.annotations.contains_key("vnd.docker.reference.digest")
}

/// Looks into entries that do not say what they are for.
async fn nameless(
    session: &Arc<Session>,
    index: &Index,
    wanted: &Platform,
) -> Result<Option<Descriptor>, Error> {
    let entries =
        index.manifests.iter().filter(|entry| entry.platform.is_none() && !is_statement(entry));
    for entry in entries.take(MAX_NAMELESS) {
        if is_index(entry) {
            return Ok(Some(entry.clone()));
        }
        let document = fetch(session, entry).await?;
        let Ok(manifest) = serde_json::from_slice::<Manifest>(&document.bytes) else { continue };
        let config = session.small_blob(&manifest.config, crate::record::MAX_CONFIG).await?;
        if let Ok(document) = serde_json::from_slice(&config)
            && wanted.runs(&crate::record::platform(&document))
        {
            return Ok(Some(entry.clone()));
        }
    }
    Ok(None)
}

/// Fetches an entry of an index, which must be what the index says.
async fn fetch(session: &Arc<Session>, entry: &Descriptor) -> Result<Document, Error> {
    if entry.size > MAX_DOCUMENT {
        let text =
            format!("manifest {} has {} bytes, more than {MAX_DOCUMENT}", entry.digest, entry.size);
        return Err(refused(ErrorKind::InvalidArgument, text));
    }
    let document = session.manifest(&entry.digest.to_string()).await?;
    if document.descriptor.media_type != entry.media_type || document.descriptor.size != entry.size
    {
        let text = format!(
            "manifest {} is {} of {} bytes, but the index says {} of {}",
            entry.digest,
            document.descriptor.media_type,
            document.descriptor.size,
            entry.media_type,
            entry.size
        );
        return Err(refused(ErrorKind::InvalidArgument, text));
    }
    Ok(document)
}

/// Fetches what is said about a manifest in its index. An image without is as good, so failures are only noted.
async fn statements(
    session: &Arc<Session>,
    index: &Index,
    about: &Digest,
    documents: &mut Vec<(Digest, Vec<u8>)>,
) {
    let about = about.to_string();
    let found = index.manifests.iter().filter(|entry| {
        entry.annotations.get("vnd.docker.reference.digest").is_some_and(|text| *text == about)
    });
    for entry in found.take(MAX_STATEMENTS) {
        match statement(session, entry).await {
            Ok(all) => documents.extend(all),
            Err(error) => {
                tracing::debug!(digest = %entry.digest, %error, "a statement is not kept");
            }
        }
    }
}

async fn statement(
    session: &Arc<Session>,
    entry: &Descriptor,
) -> Result<Vec<(Digest, Vec<u8>)>, Error> {
    let document = fetch(session, entry).await?;
    let manifest = serde_json::from_slice::<Manifest>(&document.bytes)
        .map_err(|error| refused(ErrorKind::InvalidArgument, error.to_string()))?;
    let mut all = vec![(entry.digest.clone(), document.bytes)];
    for blob in manifest.layers.iter().chain([&manifest.config]).take(MAX_STATEMENTS) {
        all.push((blob.digest.clone(), session.small_blob(blob, MAX_STATEMENT).await?));
    }
    Ok(all)
}
