//! Images with documents of their own. The formats are those of OCI, statements beside an image those of in-toto, tied to
//! it as BuildKit does.

use std::collections::BTreeMap;

use rorqual_content::{Descriptor, ImageConfig, ImageDocument, Index, Manifest, media_type};
use rorqual_core::{DiffId, Digest, ImageId, Platform, Reference};
use serde_json::{Value, json};

use super::{Component, Composed, Composition, Predicate};
use crate::Error;
use crate::load::{Found, Origin};
use crate::local::LocalTransfer;
use crate::record::other;

/// Media type of a statement.
const IN_TOTO: &str = "application/vnd.in-toto+json";

/// A component with its documents.
struct Made {
    config: Vec<u8>,
    document: ImageDocument,
    platform: Platform,
    manifest: Descriptor,
}

#[derive(Default)]
struct Documents(Vec<(Digest, Vec<u8>)>);

fn encoded(value: &impl serde::Serialize) -> Result<Vec<u8>, Error> {
    serde_json::to_vec(value).map_err(other("encode a document of an image"))
}

/// Writes the name of an image as a package URL.
fn package_url(name: &Reference, platform: &Platform) -> String {
    let familiar = name.repository().familiar();
    let tag = name.tag().map(|tag| format!("@{tag}")).unwrap_or_default();
    let platform = platform.to_string().replace('/', "%2F");
    format!("pkg:docker/{familiar}{tag}?platform={platform}")
}

fn statement(
    predicate: &Predicate,
    (names, platform): (&[Reference], &Platform),
    subject: &Digest,
) -> Result<Vec<u8>, Error> {
    let digest = BTreeMap::from([(subject.algorithm().name(), subject.hex())]);
    let mut subjects = names
        .iter()
        .map(|name| json!({ "name": package_url(name, platform), "digest": digest }))
        .collect::<Vec<Value>>();
    if subjects.is_empty() {
        subjects.push(json!({ "name": "_", "digest": digest }));
    }
    encoded(&json!({
        "_type": "https://in-toto.io/Statement/v0.1",
        "predicateType": predicate.kind,
        "subject": subjects,
        "predicate": predicate.body,
    }))
}

impl LocalTransfer {
    fn keep(
        &self,
        documents: &mut Documents,
        kind: &str,
        bytes: Vec<u8>,
    ) -> Result<Descriptor, Error> {
        let (digest, size) = self.stores.put(&bytes, None)?;
        documents.0.push((digest.clone(), bytes));
        Ok(Descriptor::new(kind, digest, size))
    }

    async fn component(
        &self,
        component: &Component,
        documents: &mut Documents,
    ) -> Result<Made, Error> {
        let config = encoded(&component.document)?;
        let config_descriptor = self.keep(documents, media_type::OCI_CONFIG, config.clone())?;
        let mut layers = Vec::new();
        for layer in &component.document.rootfs.diff_ids {
            layers.push(self.pack_layer(layer).await?);
        }
        let manifest = Manifest {
            schema_version: 2,
            media_type: media_type::OCI_MANIFEST.to_owned(),
            config: config_descriptor,
            layers,
            annotations: component.annotations.clone(),
        };
        let mut manifest = self.keep(documents, media_type::OCI_MANIFEST, encoded(&manifest)?)?;
        manifest.annotations.clone_from(&component.descriptor_annotations);
        manifest.platform = Some(component.platform.clone());
        Ok(Made {
            config,
            document: component.document.clone(),
            platform: component.platform.clone(),
            manifest,
        })
    }

    /// Makes the manifest of what is said of a component.
    fn statements(
        &self,
        component: &Component,
        (names, subject): (&[Reference], &Digest),
        documents: &mut Documents,
    ) -> Result<Descriptor, Error> {
        let mut layers = Vec::new();
        for predicate in &component.predicates {
            let bytes = statement(predicate, (names, &component.platform), subject)?;
            let mut layer = self.keep(documents, IN_TOTO, bytes)?;
            let kind = predicate.kind.clone();
            layer.annotations.insert("in-toto.io/predicate-type".to_owned(), kind);
            layers.push(layer);
        }
        let unknown = Platform {
            os: "unknown".to_owned(),
            architecture: "unknown".to_owned(),
            variant: String::new(),
        };
        let diffs = layers.iter().map(|layer| DiffId(layer.digest.clone())).collect();
        let mut document = crate::record::document(unknown.clone(), ImageConfig::default());
        document.rootfs.diff_ids = diffs;
        let config = self.keep(documents, media_type::OCI_CONFIG, encoded(&document)?)?;
        let manifest = Manifest {
            schema_version: 2,
            media_type: media_type::OCI_MANIFEST.to_owned(),
            config,
            layers,
            annotations: BTreeMap::new(),
        };
        let mut manifest = self.keep(documents, media_type::OCI_MANIFEST, encoded(&manifest)?)?;
        manifest.platform = Some(unknown);
        // COMPAT: how BuildKit ties statements to the manifest that they are about.
        let note = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        manifest.annotations.extend([
            note("vnd.docker.reference.type", "attestation-manifest"),
            note("vnd.docker.reference.digest", &subject.to_string()),
        ]);
        Ok(manifest)
    }
}

/// Records the image. The caller keeps collection away and holds a lease.
pub(super) async fn compose(
    transfer: &LocalTransfer,
    composition: Composition,
) -> Result<Composed, Error> {
    let mut documents = Documents::default();
    let (mut made, mut listed) = (Vec::new(), Vec::new());
    for component in &composition.components {
        let one = transfer.component(component, &mut documents).await?;
        listed.push(one.manifest.clone());
        made.push(one);
    }
    let is_indexed = composition.index
        || composition.components.len() > 1
        || composition.components.iter().any(|component| !component.predicates.is_empty());
    let target = if is_indexed {
        // Images first: who knows no statements takes the first that fits.
        for (component, one) in composition.components.iter().zip(&made) {
            if !component.predicates.is_empty() {
                let subject = (composition.subjects.as_slice(), &one.manifest.digest);
                listed.push(transfer.statements(component, subject, &mut documents)?);
            }
        }
        let index = Index {
            schema_version: 2,
            media_type: media_type::OCI_INDEX.to_owned(),
            manifests: listed,
            annotations: composition.index_annotations,
        };
        let index = encoded(&index)?;
        let mut index = transfer.keep(&mut documents, media_type::OCI_INDEX, index)?;
        index.annotations = composition.index_descriptor_annotations;
        index
    } else {
        made[0].manifest.clone()
    };
    let host = Platform::host();
    let own = made.iter().position(|one| host.runs(&one.platform)).unwrap_or(0);
    let Made { config, document, manifest, .. } = made.swap_remove(own);
    let origin = Origin { target: target.clone(), manifest, documents: documents.0 };
    let found = Found {
        config,
        document,
        names: composition.names,
        packed: Vec::new(),
        origin: Some(origin),
    };
    let id: ImageId = transfer.stores.record(found).await?;
    Ok(Composed { id, target })
}
