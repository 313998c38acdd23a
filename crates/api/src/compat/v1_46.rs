//! 1.46: lists of containers told annotations, `info` told of containerd.

use super::{Document, Fields, Step, no_upgrade, object, remove};
use crate::ApiVersion;

pub(super) const STEP: Step = Step { since: ApiVersion::v1(46), upgrade: no_upgrade, downgrade };

fn downgrade(document: Document, fields: &mut Fields) {
    match document {
        Document::ContainerList => {
            if let Some(host) = object(fields, "HostConfig") {
                remove(host, "Annotations");
            }
        }
        Document::Info => {
            remove(fields, "Containerd");
        }
        _ => {}
    }
}
