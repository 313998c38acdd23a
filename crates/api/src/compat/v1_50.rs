//! 1.50: an image's config lost the keys that only containers use; bridge netfilter left `info`.

use serde_json::{Value, json};

use super::{Document, Fields, Step, no_upgrade, object, remove};
use crate::ApiVersion;

pub(super) const STEP: Step = Step { since: ApiVersion::v1(50), upgrade: no_upgrade, downgrade };

fn downgrade(document: Document, fields: &mut Fields) {
    match document {
        Document::Info => {
            remove(fields, "DiscoveredDevices");
            fields.insert("BridgeNfIptables".to_owned(), Value::from(false));
            fields.insert("BridgeNfIp6tables".to_owned(), Value::from(false));
        }
        Document::ImageInspect => {
            let Some(config) = object(fields, "Config") else { return };
            // COMPAT: these keys were always there and always empty.
            let legacy = json!({
                "AttachStderr": false, "AttachStdin": false, "AttachStdout": false,
                "Domainname": "", "Hostname": "", "Image": "",
                "OpenStdin": false, "StdinOnce": false, "Tty": false,
            });
            if let Value::Object(legacy) = legacy {
                config.extend(legacy);
            }
        }
        _ => {}
    }
}
