//! 1.42: kernel memory limits went, `ConsoleSize` of execs and `BindOptions.CreateMountpoint` came.

use super::{Document, Fields, Step, TooOld, each_mount, no_downgrade, object, remove};
use crate::ApiVersion;

pub(super) const STEP: Step = Step { since: ApiVersion::v1(42), upgrade, downgrade: no_downgrade };

fn upgrade(document: Document, fields: &mut Fields) -> Result<(), TooOld> {
    match document {
        Document::ContainerCreate => {
            if let Some(host) = object(fields, "HostConfig") {
                remove(host, "ConsoleSize");
            }
            each_mount(fields, |mount| {
                if let Some(options) = object(mount, "BindOptions") {
                    remove(options, "CreateMountpoint");
                }
                Ok(())
            })
        }
        Document::Exec => {
            remove(fields, "ConsoleSize");
            Ok(())
        }
        _ => Ok(()),
    }
}
