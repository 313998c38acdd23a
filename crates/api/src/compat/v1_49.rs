//! 1.49: `info` told of the firewall back end and forgot what it expected of its helpers.

use super::{Document, Fields, Step, field, no_upgrade, object, remove};
use crate::ApiVersion;

pub(super) const STEP: Step = Step { since: ApiVersion::v1(49), upgrade: no_upgrade, downgrade };

fn downgrade(document: Document, fields: &mut Fields) {
    if document != Document::Info {
        return;
    }
    remove(fields, "FirewallBackend");
    for key in ["ContainerdCommit", "RuncCommit", "InitCommit"] {
        if let Some(commit) = object(fields, key)
            && let Some(id) = field(commit, "ID").cloned()
        {
            commit.insert("Expected".to_owned(), id);
        }
    }
}
