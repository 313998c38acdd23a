//! Images.

use std::collections::BTreeMap;

use rorqual_api::Empty;
use rorqual_api::container::{Config, GraphDriver, HealthConfig};
use rorqual_api::image::{
    DeleteItem, HistoryItem, ImageConfig as ConfigDocument, Inspect, Metadata, RootFs, Summary,
};
use rorqual_content::{Descriptor, ImageConfig, ImageRecord};
use rorqual_core::{Platform, Reference, Timestamp};
use rorqual_engine::{HistoryLine, ImageRemoval, ImageSummary, ManifestUse};
use rorqual_transfer::{ManifestKind, ManifestSummary};
use serde_json::{Value, json};

use crate::convert::view::STORAGE_DRIVER;

fn names(references: &[Reference]) -> Vec<String> {
    references.iter().map(Reference::familiar).collect()
}

fn platform(platform: &Platform) -> Value {
    let mut document = json!({
        "architecture": platform.architecture,
        "os": platform.os,
    });
    if !platform.variant.is_empty() {
        document["variant"] = json!(platform.variant);
    }
    document
}

fn descriptor(descriptor: &Descriptor) -> Value {
    let mut document = json!({
        "mediaType": descriptor.media_type,
        "digest": descriptor.digest.to_string(),
        "size": descriptor.size,
    });
    if !descriptor.annotations.is_empty() {
        document["annotations"] = json!(descriptor.annotations);
    }
    if let Some(of) = &descriptor.platform {
        document["platform"] = platform(of);
    }
    for (key, value) in &descriptor.more {
        document[key] = value.clone();
    }
    document
}

/// Writes what is known of a manifest.
pub(crate) fn manifest_document(used: &ManifestUse) -> Value {
    let ManifestUse { manifest, containers } = used;
    let ManifestSummary { descriptor: of, kind, available, image: _, content, unpacked } = manifest;
    let mut document = json!({
        "ID": of.digest.to_string(),
        "Descriptor": descriptor(of),
        "Available": available,
        "Size": { "Content": content, "Total": content + unpacked },
        "Kind": "unknown",
    });
    match kind {
        ManifestKind::Image(of) => {
            document["Kind"] = json!("image");
            document["ImageData"] = json!({
                "Platform": platform(of),
                "Containers": containers.iter().map(ToString::to_string).collect::<Vec<_>>(),
                "Size": { "Unpacked": unpacked },
            });
        }
        ManifestKind::Attestation(about) => {
            document["Kind"] = json!("attestation");
            document["AttestationData"] = json!({ "For": about.to_string() });
        }
        ManifestKind::Unknown => {}
    }
    document
}

/// Writes what `inspect` answers.
pub(crate) fn inspect_document(record: &ImageRecord, manifests: Option<&[ManifestUse]>) -> Inspect {
    let ImageRecord { id, target, manifest: _, document, tags, digests, size, tagged_at } = record;
    Inspect {
        id: id.to_string(),
        repo_tags: names(tags),
        repo_digests: names(digests),
        parent: String::new(),
        comment: if document.comment.is_empty() {
            document.history.last().map(|step| step.comment.clone()).unwrap_or_default()
        } else {
            document.comment.clone()
        },
        created: document.created.clone(),
        docker_version: String::new(),
        author: document.author.clone(),
        architecture: document.architecture.clone(),
        variant: document.variant.clone(),
        os: document.os.clone(),
        os_version: String::new(),
        size: *size as i64,
        virtual_size: 0,
        graph_driver: GraphDriver { data: None, name: STORAGE_DRIVER.to_owned() },
        root_fs: RootFs {
            kind: document.rootfs.kind.clone(),
            layers: document.rootfs.diff_ids.iter().map(ToString::to_string).collect(),
        },
        metadata: Metadata { last_tag_time: crate::convert::time(*tagged_at) },
        descriptor: Some(descriptor(target)),
        manifests: manifests.map(|list| list.iter().map(manifest_document).collect()),
        config: Some(config_document(&document.config)),
    }
}

fn set(keys: Option<&BTreeMap<String, impl Sized>>) -> Option<BTreeMap<String, Empty>> {
    keys.map(|keys| keys.keys().map(|key| (key.clone(), Empty {})).collect())
}

fn config_document(config: &ImageConfig) -> ConfigDocument {
    ConfigDocument {
        args_escaped: false,
        cmd: config.cmd.clone(),
        entrypoint: config.entrypoint.clone(),
        env: config.env.clone(),
        exposed_ports: set(config.exposed_ports.as_ref()).unwrap_or_default(),
        healthcheck: config.healthcheck.as_ref().map(|check| HealthConfig {
            test: check.test.clone(),
            interval: check.interval,
            timeout: check.timeout,
            start_period: check.start_period,
            start_interval: check.start_interval,
            retries: check.retries,
        }),
        labels: config.labels.clone(),
        on_build: config.on_build.clone(),
        shell: config.shell.clone().unwrap_or_default(),
        stop_signal: config.stop_signal.clone(),
        user: config.user.clone(),
        volumes: set(config.volumes.as_ref()),
        working_dir: config.working_dir.clone(),
    }
}

/// Reads the body of `POST /commit`: config laid over the container's; `None` when nothing is given.
pub(crate) fn commit_config(config: Config) -> Result<Option<ImageConfig>, serde_json::Error> {
    if config == Config::default() {
        return Ok(None);
    }
    // Both documents have the same keys; those that only containers have are ignored.
    serde_json::to_value(config).and_then(rorqual_api::from_value).map(Some)
}

fn seconds(text: &str) -> i64 {
    text.parse::<Timestamp>().map_or(0, |at| at.secs() as i64)
}

/// Writes a line of a list.
pub(crate) fn summary_document(summary: &ImageSummary) -> Summary {
    let ImageSummary { record, shared_size, containers, manifests } = summary;
    let count = |number: Option<u64>| number.map_or(-1, |number| number as i64);
    Summary {
        containers: count(*containers),
        created: seconds(&record.document.created),
        descriptor: Some(descriptor(&record.target)),
        id: record.id.to_string(),
        labels: record.document.config.labels.clone(),
        manifests: manifests.as_ref().map(|list| list.iter().map(manifest_document).collect()),
        parent_id: String::new(),
        repo_digests: Some(names(&record.digests)),
        repo_tags: Some(names(&record.tags)),
        shared_size: count(*shared_size),
        size: record.size as i64,
        virtual_size: 0,
    }
}

/// Writes a line of the history.
pub(crate) fn history_document(line: &HistoryLine) -> HistoryItem {
    let HistoryLine { id, created, created_by, tags, size, comment } = line;
    HistoryItem {
        comment: comment.clone(),
        created: created.map_or(0, |at| at.secs() as i64),
        created_by: created_by.clone(),
        id: id.as_ref().map_or_else(|| "<missing>".to_owned(), ToString::to_string),
        size: *size as i64,
        tags: (!tags.is_empty()).then(|| tags.clone()),
    }
}

/// Writes a step of a removal.
pub(crate) fn removal_document(removal: &ImageRemoval) -> DeleteItem {
    match removal {
        ImageRemoval::Untagged(name) => {
            DeleteItem { untagged: name.clone(), deleted: String::new() }
        }
        ImageRemoval::Deleted(id) => DeleteItem { deleted: id.clone(), untagged: String::new() },
    }
}
