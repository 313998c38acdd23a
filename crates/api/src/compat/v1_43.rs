//! 1.43: annotations came; images without a name got empty lists of names.

use serde_json::{Value, json};

use super::{Document, Fields, Step, TooOld, field, object, remove};
use crate::ApiVersion;

pub(super) const STEP: Step = Step { since: ApiVersion::v1(43), upgrade, downgrade };

fn upgrade(document: Document, fields: &mut Fields) -> Result<(), TooOld> {
    if document == Document::ContainerCreate
        && let Some(host) = object(fields, "HostConfig")
    {
        remove(host, "Annotations");
    }
    Ok(())
}

fn downgrade(document: Document, fields: &mut Fields) {
    if document != Document::ImageList {
        return;
    }
    let is_nameless = ["RepoTags", "RepoDigests"].into_iter().all(|key| {
        field(fields, key).is_none_or(|names| names.as_array().is_none_or(Vec::is_empty))
    });
    if is_nameless {
        // COMPAT: clients of that age print these words.
        fields.insert("RepoTags".to_owned(), json!(["<none>:<none>"]));
        fields.insert("RepoDigests".to_owned(), Value::from(vec!["<none>@<none>"]));
    }
}
