//! 1.48: image mounts, manifest descriptors and `GwPriority` came; networks told whether they have IPv4.

use super::{Document, Fields, Step, TooOld, each_mount, field, no_upgrade, remove};
use crate::ApiVersion;

pub(super) const STEP: Step = Step { since: SINCE, upgrade, downgrade };

const SINCE: ApiVersion = ApiVersion::v1(48);

fn upgrade(document: Document, fields: &mut Fields) -> Result<(), TooOld> {
    if document != Document::ContainerCreate {
        return no_upgrade(document, fields);
    }
    each_mount(fields, |mount| {
        if field(mount, "Type").is_some_and(|kind| *kind == "image") {
            return Err(TooOld { feature: "Mount type \"Image\"", since: SINCE });
        }
        Ok(())
    })
}

fn downgrade(document: Document, fields: &mut Fields) {
    match document {
        Document::ContainerInspect | Document::ContainerList => {
            remove(fields, "ImageManifestDescriptor");
        }
        Document::ImageInspect => {
            remove(fields, "Descriptor");
            remove(fields, "Manifests");
        }
        Document::ImageList => {
            remove(fields, "Descriptor");
        }
        _ => {}
    }
}
