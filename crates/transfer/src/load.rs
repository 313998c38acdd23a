//! Which images an archive holds: an OCI layout's index, or Docker's `manifest.json`. Reads no stream.

use std::collections::HashMap;

use rorqual_content::{Descriptor, ImageDocument, Index, Manifest};
use rorqual_core::{DiffId, Digest, Platform, Reference};
use serde::Deserialize;

use crate::archive::{Contents, Unpacked, blob_path, broken, clean};
use crate::graph::{self, Graph, Leaf};
use crate::record;
use crate::{Error, ManifestKind};

/// LIMIT: images of one archive.
const MAX_IMAGES: usize = 10_000;
/// Annotations that carry names of images.
const NAME: &str = "io.containerd.image.name";
const REF_NAME: &str = "org.opencontainers.image.ref.name";

/// An image found in an archive, whole and verified but for the layers that are still to be unpacked.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) config: Vec<u8>,
    pub(crate) document: ImageDocument,
    pub(crate) names: Vec<Reference>,
    /// Layers whose blobs are stored.
    pub(crate) packed: Vec<(Digest, DiffId)>,
    /// What the image came as, where the archive says it.
    pub(crate) origin: Option<Origin>,
}

/// An image's place in an OCI layout.
#[derive(Debug)]
pub(crate) struct Origin {
    pub(crate) target: Descriptor,
    pub(crate) manifest: Descriptor,
    /// Documents to keep as they are.
    pub(crate) documents: Vec<(Digest, Vec<u8>)>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DockerImage {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    #[serde(default)]
    layers: Vec<String>,
}

/// Finds the images of an archive, in its order.
pub(crate) fn images(
    contents: &Contents,
    layers: &HashMap<String, Unpacked>,
    platform: Option<&Platform>,
) -> Result<Vec<Found>, Error> {
    let search = Search { contents, layers };
    // The index says more: all platforms, and the manifests as they were made.
    if contents.documents.contains_key("index.json") {
        return search.layout(platform);
    }
    if contents.documents.contains_key("manifest.json") {
        return search.docker(platform);
    }
    Err(broken("it holds neither manifest.json nor index.json"))
}

struct Search<'c> {
    contents: &'c Contents,
    layers: &'c HashMap<String, Unpacked>,
}

fn parse<'d, T: Deserialize<'d>>(what: &str, bytes: &'d [u8]) -> Result<T, Error> {
    serde_json::from_slice(bytes).map_err(|error| broken(format!("broken {what}: {error}")))
}

fn name(text: &str) -> Result<Reference, Error> {
    let parsed = text.parse::<Reference>();
    Ok(parsed.map_err(|error| broken(format!("image name {text:?}: {error}")))?.or_latest())
}

impl Search<'_> {
    fn listed(&self) -> Result<Vec<DockerImage>, Error> {
        let listed: Vec<DockerImage> =
            parse("manifest.json", self.contents.document("manifest.json")?)?;
        if listed.len() > MAX_IMAGES {
            return Err(broken("too many images"));
        }
        Ok(listed)
    }

    fn docker(&self, platform: Option<&Platform>) -> Result<Vec<Found>, Error> {
        let mut found = Vec::new();
        for image in self.listed()? {
            let config = self.contents.document(&image.config)?;
            let names = image.names()?;
            let image = self.image(config, &image.layers, names)?;
            if let Some(wanted) = platform
                && !wanted.runs(&record::platform(&image.document))
            {
                continue;
            }
            found.push(image);
        }
        match platform {
            Some(platform) if found.is_empty() => Err(Error::NoPlatform(platform.clone())),
            _ => Ok(found),
        }
    }

    fn image(
        &self,
        config: &[u8],
        layers: &[String],
        names: Vec<Reference>,
    ) -> Result<Found, Error> {
        let document: ImageDocument = parse("image config", config)?;
        let expected = &document.rootfs.diff_ids;
        if expected.len() != layers.len() {
            return Err(broken(format!(
                "the config names {} layers, the manifest {}",
                expected.len(),
                layers.len()
            )));
        }
        let mut packed = Vec::new();
        for (path, expected) in layers.iter().zip(expected) {
            match self.layer(path)? {
                Held::Stored(blob) => packed.push((blob.clone(), expected.clone())),
                Held::Unpacked(unpacked) if unpacked.diff_id != *expected => {
                    let (expected, found) = (expected.clone(), unpacked.diff_id.clone());
                    return Err(rorqual_snapshot::Error::WrongDigest { expected, found }.into());
                }
                Held::Unpacked(_) => {}
            }
        }
        Ok(Found { config: config.to_vec(), document, names, packed, origin: None })
    }

    fn layer(&self, path: &str) -> Result<Held<'_>, Error> {
        let path = clean(path.as_bytes()).unwrap_or_default();
        let path = self.contents.resolve(&path);
        let unpacked = self.layers.get(path).map(Held::Unpacked);
        let held = unpacked.or_else(|| self.contents.stored.get(path).map(Held::Stored));
        held.ok_or_else(|| broken(format!("layer {path:?} is missing")))
    }

    fn layout(&self, platform: Option<&Platform>) -> Result<Vec<Found>, Error> {
        let index: Index = parse("index.json", self.contents.document("index.json")?)?;
        if index.manifests.len() > MAX_IMAGES {
            return Err(broken("too many images"));
        }
        let host = Platform::host();
        let wanted = platform.unwrap_or(&host);
        let mut found = self.chosen(&index, Some(wanted), platform.is_some())?;
        if found.is_empty() && platform.is_none() {
            // Nothing for this machine: what there is can still be looked at, saved and handed on.
            found = self.chosen(&index, None, false)?;
        }
        if found.is_empty() {
            return Err(Error::NoPlatform(wanted.clone()));
        }
        self.name_from_list(&mut found)?;
        Ok(found)
    }

    /// Takes the images for a platform (`None`: the first there is) from the targets of a layout.
    fn chosen(
        &self,
        index: &Index,
        platform: Option<&Platform>,
        alone: bool,
    ) -> Result<Vec<Found>, Error> {
        let mut found: Vec<Found> = Vec::new();
        for target in &index.manifests {
            let graph = graph::walk(self.contents, target)?;
            let Some(leaf) = graph::choose(self.contents, &graph, platform)? else { continue };
            let image = self.oci_image(target, &graph, leaf, alone)?;
            // One image under two names is listed twice.
            let same = |known: &&mut Found| {
                known.config == image.config
                    && known.origin.as_ref().map(|origin| &origin.target.digest)
                        == image.origin.as_ref().map(|origin| &origin.target.digest)
            };
            match found.iter_mut().find(same) {
                Some(known) => known.names.extend(image.names),
                None => found.push(image),
            }
        }
        Ok(found)
    }

    fn oci_image(
        &self,
        target: &Descriptor,
        graph: &Graph,
        leaf: &Leaf,
        alone: bool,
    ) -> Result<Found, Error> {
        let manifest = leaf.manifest.as_ref().ok_or_else(|| broken("a manifest is missing"))?;
        let config = &manifest.config.digest;
        let config = self.contents.blob(config)?;
        let config = config.ok_or_else(|| broken("the config of an image is missing"))?;
        for layer in &manifest.layers {
            self.check(layer)?;
        }
        let paths = manifest.layers.iter().map(|layer| blob_path(&layer.digest));
        let mut image = self.image(config, &paths.collect::<Vec<_>>(), annotated_name(target)?)?;
        image.origin = Some(self.origin(target, graph, leaf, alone)?);
        Ok(image)
    }

    /// Checks a layer against its descriptor.
    fn check(&self, layer: &Descriptor) -> Result<(), Error> {
        let held = match self.layer(&blob_path(&layer.digest)) {
            Ok(held) => held,
            Err(error) => {
                let Some(urls) = layer.more.get("urls") else { return Err(error) };
                return Err(broken(format!(
                    "layer {} is not in the archive, only at {urls}: put it into the archive",
                    layer.digest
                )));
            }
        };
        match held {
            Held::Unpacked(unpacked) if unpacked.blob != layer.digest => {
                let (expected, found) = (layer.digest.clone(), unpacked.blob.clone());
                Err(rorqual_content::Error::WrongDigest { expected, found }.into())
            }
            // The store has checked it.
            _ => Ok(()),
        }
    }

    /// Collects what is kept of a target: everything, or one image with what is said about it.
    fn origin(
        &self,
        target: &Descriptor,
        graph: &Graph,
        chosen: &Leaf,
        alone: bool,
    ) -> Result<Origin, Error> {
        let mut left_out = Vec::new();
        let mut documents = Vec::new();
        for leaf in &graph.leaves {
            let mine = leaf.descriptor.digest == chosen.descriptor.digest
                || matches!(leaf.kind(self.contents)?, ManifestKind::Attestation(about) if about == chosen.descriptor.digest);
            if alone && !mine {
                left_out.push(&leaf.descriptor.digest);
                continue;
            }
            let Some(Manifest { config, layers, .. }) = &leaf.manifest else { continue };
            for blob in std::iter::once(config).chain(layers) {
                if let Some(bytes) = self.contents.blob(&blob.digest)? {
                    documents.push((blob.digest.clone(), bytes.to_vec()));
                }
            }
        }
        let kept = graph.documents.iter().filter(|(digest, _)| !left_out.contains(&digest));
        documents.extend(kept.cloned());
        let unnamed = |descriptor: &Descriptor| {
            let mut descriptor = descriptor.clone();
            descriptor.annotations.retain(|key, _| key != NAME && key != REF_NAME);
            descriptor
        };
        let (target, manifest) = (unnamed(target), unnamed(&chosen.descriptor));
        Ok(Origin { target, manifest, documents })
    }

    /// Gives images that the index does not name the names that Docker's list beside it has for them.
    fn name_from_list(&self, found: &mut [Found]) -> Result<(), Error> {
        if found.iter().all(|image| !image.names.is_empty())
            || !self.contents.documents.contains_key("manifest.json")
        {
            return Ok(());
        }
        for listed in self.listed()? {
            let config = self.contents.document(&listed.config)?;
            for image in found.iter_mut().filter(|image| image.names.is_empty()) {
                if image.config == config {
                    image.names = listed.names()?;
                }
            }
        }
        Ok(())
    }
}

/// Where a layer of the archive is now.
enum Held<'c> {
    Unpacked(&'c Unpacked),
    Stored(&'c Digest),
}

impl DockerImage {
    fn names(&self) -> Result<Vec<Reference>, Error> {
        self.repo_tags.iter().flatten().map(|text| name(text)).collect()
    }
}

/// Reads the name that a layout gives to an image: containerd's annotation, else a reference that is more than a tag.
fn annotated_name(descriptor: &Descriptor) -> Result<Vec<Reference>, Error> {
    let annotations = &descriptor.annotations;
    if let Some(text) = annotations.get(NAME) {
        return Ok(vec![name(text)?]);
    }
    match annotations.get(REF_NAME) {
        Some(text) if text.contains([':', '/']) => Ok(vec![name(text)?]),
        _ => Ok(Vec::new()),
    }
}
