//! Which images an archive holds: Docker's `manifest.json`, or an OCI layout's index. Reads no stream.

use std::collections::HashMap;

use rorqual_content::{Descriptor, ImageDocument, Index, Manifest};
use rorqual_core::{Platform, Reference};
use serde::Deserialize;

use crate::Error;
use crate::archive::{Contents, Unpacked, blob_path, broken, clean};
use crate::record;

/// LIMIT: images of one archive, and indexes within indexes.
const MAX_IMAGES: usize = 10_000;
const MAX_DEPTH: usize = 8;

/// An image found in an archive, whole and verified.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) config: Vec<u8>,
    pub(crate) document: ImageDocument,
    pub(crate) names: Vec<Reference>,
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
    let docker = contents.documents.contains_key("manifest.json");
    let oci = contents.documents.contains_key("index.json");
    // An index can offer several platforms; Docker's list has one image per name.
    if docker && !(oci && platform.is_some()) {
        return search.docker(platform);
    }
    if oci {
        return search.layout(platform);
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
    fn docker(&self, platform: Option<&Platform>) -> Result<Vec<Found>, Error> {
        let bytes = self.contents.document("manifest.json")?;
        let listed: Vec<DockerImage> = parse("manifest.json", bytes)?;
        if listed.len() > MAX_IMAGES {
            return Err(broken("too many images"));
        }
        let mut found = Vec::new();
        for image in listed {
            let config = self.contents.document(&image.config)?;
            let names = image.repo_tags.unwrap_or_default();
            let names = names.iter().map(|text| name(text)).collect::<Result<Vec<_>, _>>()?;
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
        for (path, expected) in layers.iter().zip(expected) {
            let unpacked = self.layer(path)?;
            if unpacked.diff_id != *expected {
                let (expected, found) = (expected.clone(), unpacked.diff_id.clone());
                return Err(rorqual_snapshot::Error::WrongDigest { expected, found }.into());
            }
        }
        Ok(Found { config: config.to_vec(), document, names })
    }

    fn layer(&self, path: &str) -> Result<&Unpacked, Error> {
        let path = clean(path.as_bytes()).unwrap_or_default();
        let found = self.layers.get(self.contents.resolve(&path));
        found.ok_or_else(|| broken(format!("layer {path:?} is missing")))
    }

    fn layout(&self, platform: Option<&Platform>) -> Result<Vec<Found>, Error> {
        let index: Index = parse("index.json", self.contents.document("index.json")?)?;
        if index.manifests.len() > MAX_IMAGES {
            return Err(broken("too many images"));
        }
        let host = Platform::host();
        let mut found: Vec<Found> = Vec::new();
        for descriptor in &index.manifests {
            let names = annotated_name(descriptor)?;
            let Some(manifest) = self.choose(descriptor, platform.unwrap_or(&host), 0)? else {
                continue;
            };
            let image = self.oci_image(&manifest, names)?;
            // One image under two names is listed twice.
            match found.iter_mut().find(|known| known.config == image.config) {
                Some(known) => known.names.extend(image.names),
                None => found.push(image),
            }
        }
        if found.is_empty() {
            return Err(Error::NoPlatform(platform.unwrap_or(&host).clone()));
        }
        Ok(found)
    }

    /// Goes down through indexes to the manifest that fits the platform.
    fn choose(
        &self,
        descriptor: &Descriptor,
        platform: &Platform,
        depth: usize,
    ) -> Result<Option<Manifest>, Error> {
        if depth > MAX_DEPTH {
            return Err(broken("indexes are nested too deeply"));
        }
        if descriptor.platform.as_ref().is_some_and(|offered| !platform.runs(offered)) {
            return Ok(None);
        }
        let bytes = self.contents.blob(&descriptor.digest)?;
        if let Ok(index) = serde_json::from_slice::<Index>(bytes) {
            for inner in &index.manifests {
                // An archive need not hold all platforms of an index.
                if !self.contents.documents.contains_key(&blob_path(&inner.digest)) {
                    continue;
                }
                if let Some(manifest) = self.choose(inner, platform, depth + 1)? {
                    return Ok(Some(manifest));
                }
            }
            return Ok(None);
        }
        let manifest: Manifest = parse("manifest", bytes)?;
        if descriptor.platform.is_some() {
            return Ok(Some(manifest));
        }
        // Without a platform in the descriptor the config says it.
        let config: ImageDocument =
            parse("image config", self.contents.blob(&manifest.config.digest)?)?;
        Ok(platform.runs(&record::platform(&config)).then_some(manifest))
    }

    fn oci_image(&self, manifest: &Manifest, names: Vec<Reference>) -> Result<Found, Error> {
        let config = self.contents.blob(&manifest.config.digest)?;
        for layer in &manifest.layers {
            let unpacked = self.layer(&blob_path(&layer.digest))?;
            if unpacked.blob != layer.digest {
                let (expected, found) = (layer.digest.clone(), unpacked.blob.clone());
                return Err(rorqual_content::Error::WrongDigest { expected, found }.into());
            }
        }
        let paths = manifest.layers.iter().map(|layer| blob_path(&layer.digest));
        self.image(config, &paths.collect::<Vec<_>>(), names)
    }
}

/// Reads the name that a layout gives to an image: containerd's annotation, else a reference that is more than a tag.
fn annotated_name(descriptor: &Descriptor) -> Result<Vec<Reference>, Error> {
    let annotations = &descriptor.annotations;
    if let Some(text) = annotations.get("io.containerd.image.name") {
        return Ok(vec![name(text)?]);
    }
    match annotations.get("org.opencontainers.image.ref.name") {
        Some(text) if text.contains([':', '/']) => Ok(vec![name(text)?]),
        _ => Ok(Vec::new()),
    }
}
