//! 1.40: `BindOptions.NonRecursive` came.

use super::{Document, Fields, Step, TooOld, each_mount, no_downgrade, object, remove};
use crate::ApiVersion;

pub(super) const STEP: Step = Step { since: ApiVersion::v1(40), upgrade, downgrade: no_downgrade };

fn upgrade(document: Document, fields: &mut Fields) -> Result<(), TooOld> {
    if document != Document::ContainerCreate {
        return Ok(());
    }
    // COMPAT: dockerd ignores what the version does not know.
    each_mount(fields, |mount| {
        if let Some(options) = object(mount, "BindOptions") {
            remove(options, "NonRecursive");
        }
        Ok(())
    })
}
