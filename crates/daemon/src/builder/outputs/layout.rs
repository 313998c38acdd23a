//! Images as OCI layouts in a directory of the client, which completes the layout's index itself.

use std::collections::BTreeSet;
use std::time::SystemTime;

use rorqual_build::Error;
use rorqual_buildkit::{ContentStore, Export, Scope};
use rorqual_content::{Descriptor, media_type};
use serde::Deserialize;

use super::super::buildkit::BuildKit;
use super::super::lookup::Task;
use super::client::{client, forget};
use super::{Output, Told, compose, other, tell};

/// COMPAT: the name under which clients lend the directory.
const STORE: &str = "export";
/// LIMIT: a manifest or index of our own making.
const MAX_DOCUMENT: u64 = 4 << 20;

/// What a document leads to: an index to manifests, a manifest to a config and layers.
#[derive(Deserialize)]
struct Document {
    #[serde(default)]
    manifests: Vec<Descriptor>,
    config: Option<Descriptor>,
    #[serde(default)]
    layers: Vec<Descriptor>,
}

/// Tells whether an output is a directory, not an archive.
pub(super) fn is_wanted(export: &Export) -> bool {
    export.attrs.get("tar").is_some_and(|tar| tar == "false")
}

/// Writes an image into a directory of the client.
pub(super) async fn write(
    kit: &BuildKit,
    output: &Output<'_>,
    (scope, told): (&Scope, &mut Told),
) -> Result<(), Error> {
    let session = client(scope, output.export)?;
    let task = Task::begin(scope, &format!("exporting to {} image format", output.export.kind));
    let images = &kit.builder.images;
    let before = images.images.list().await.map_err(other("list images"))?;
    let work = async {
        let store = ContentStore::open(session, STORE)?;
        // ORDER: what is packed from here on is not collected before it was sent.
        let lease = images.blobs.lease();
        let recorded = compose(kit, output, Vec::new()).await?;
        let sent = match &recorded.target {
            Some(target) => send(kit, &store, (target, &task)).await,
            None => Ok(()),
        };
        forget(kit, &recorded.id, &before).await?;
        drop(lease);
        sent.map(|()| recorded)
    };
    let done = work.await;
    let recorded = task.end(done)?;
    tell(&recorded, &output.names, told);
    Ok(())
}

/// Sends what a descriptor leads to, and what that leads to before it.
async fn send(
    kit: &BuildKit,
    store: &ContentStore,
    (target, task): (&Descriptor, &Task<'_>),
) -> Result<(), Error> {
    let blobs = &kit.builder.images.blobs;
    let (mut all, mut open) = (Vec::new(), vec![target.clone()]);
    let mut seen = BTreeSet::new();
    while let Some(next) = open.pop() {
        if matches!(next.media_type.as_str(), media_type::OCI_INDEX | media_type::OCI_MANIFEST) {
            let bytes = blobs.read(&next.digest, MAX_DOCUMENT);
            let bytes = bytes.map_err(other("read a document of the image"))?;
            let document: Document =
                serde_json::from_slice(&bytes).map_err(|error| Error::Invalid {
                    message: format!("a document of the image is wrong: {error}"),
                    location: None,
                })?;
            open.extend(document.manifests.into_iter().chain(document.config));
            open.extend(document.layers);
        }
        all.push(next);
    }
    // Leaves first: whoever finds a document finds what it names.
    for blob in all.into_iter().rev() {
        if !seen.insert(blob.digest.clone()) {
            continue;
        }
        let started = SystemTime::now();
        let reader = blobs.open(&blob.digest).map_err(other("read a blob of the image"))?;
        store.write(&blob.digest, blob.size, reader).await?;
        task.part(&format!("writing {}", blob.digest), blob.size, started);
    }
    Ok(())
}
