//! 1.45: `VolumeOptions.Subpath` came; the short id left a container's network aliases.

use serde_json::Value;

use super::{Document, Fields, Step, TooOld, each_endpoint, each_mount, field, is_given, object};
use crate::ApiVersion;

pub(super) const STEP: Step = Step { since: SINCE, upgrade, downgrade };

const SINCE: ApiVersion = ApiVersion::v1(45);

fn upgrade(document: Document, fields: &mut Fields) -> Result<(), TooOld> {
    if document != Document::ContainerCreate {
        return Ok(());
    }
    each_mount(fields, |mount| {
        let Some(options) = object(mount, "VolumeOptions") else { return Ok(()) };
        if is_given(options, "Subpath") {
            return Err(TooOld { feature: "VolumeOptions.Subpath", since: SINCE });
        }
        Ok(())
    })
}

fn downgrade(document: Document, fields: &mut Fields) {
    if document != Document::ContainerInspect {
        return;
    }
    let id = field(fields, "Id").and_then(|id| id.as_str().map(str::to_owned));
    let Some(short) = id.and_then(|id| id.get(..12).map(str::to_owned)) else { return };
    each_endpoint(fields, |endpoint| {
        if let Some(Value::Array(aliases)) = field(endpoint, "Aliases")
            && !aliases.iter().any(|alias| *alias == short)
        {
            aliases.push(Value::from(short.clone()));
        }
    });
}
