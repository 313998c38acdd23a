//! 1.41: a cgroup namespace of the container's own could be asked for.

use serde_json::Value;

use super::{Document, Fields, Step, TooOld, is_given, no_downgrade, object};
use crate::ApiVersion;

pub(super) const STEP: Step = Step { since: ApiVersion::v1(41), upgrade, downgrade: no_downgrade };

fn upgrade(document: Document, fields: &mut Fields) -> Result<(), TooOld> {
    if document == Document::ContainerCreate
        && let Some(host) = object(fields, "HostConfig")
        && !is_given(host, "CgroupnsMode")
    {
        // COMPAT: clients of that age expect the host's cgroup namespace.
        host.insert("CgroupnsMode".to_owned(), Value::from("host"));
    }
    Ok(())
}
