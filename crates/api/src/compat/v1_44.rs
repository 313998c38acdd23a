//! 1.44: `VirtualSize` went, recursive read-only binds, `StartInterval` came.

use serde_json::Value;

use super::{Document, Fields, Step, TooOld, each_mount, field, is_given, object, remove};
use crate::ApiVersion;

pub(super) const STEP: Step = Step { since: SINCE, upgrade, downgrade };

const SINCE: ApiVersion = ApiVersion::v1(44);

fn upgrade(document: Document, fields: &mut Fields) -> Result<(), TooOld> {
    if document != Document::ContainerCreate {
        return Ok(());
    }
    if let Some(check) = object(fields, "Healthcheck") {
        remove(check, "StartInterval");
    }
    each_mount(fields, |mount| {
        let Some(options) = object(mount, "BindOptions") else { return Ok(()) };
        if is_given(options, "ReadOnlyNonRecursive") {
            return Err(TooOld { feature: "BindOptions.ReadOnlyNonRecursive", since: SINCE });
        }
        if is_given(options, "ReadOnlyForceRecursive") {
            return Err(TooOld { feature: "BindOptions.ReadOnlyForceRecursive", since: SINCE });
        }
        Ok(())
    })
}

fn downgrade(document: Document, fields: &mut Fields) {
    match document {
        Document::ImageInspect | Document::ImageList => {
            if let Some(size) = field(fields, "Size").cloned() {
                fields.insert("VirtualSize".to_owned(), size);
            }
        }
        Document::DiskUsage => {
            let Some(Value::Array(images)) = field(fields, "Images") else { return };
            for image in images.iter_mut().filter_map(Value::as_object_mut) {
                downgrade(Document::ImageList, image);
            }
        }
        _ => {}
    }
}
