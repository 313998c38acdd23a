use std::str::FromStr as _;

use oci_spec::runtime::{Arch, Capability, LinuxSeccompAction, LinuxSeccompOperator, Spec};

use super::*;

/// What the document claims to know must be readable in a specification.
#[test]
fn features_are_known() {
    let document = features_document();
    let texts = |pointer: &str| -> Vec<String> {
        let list = document.pointer(pointer).unwrap().as_array().unwrap();
        list.iter().map(|one| one.as_str().unwrap().to_owned()).collect()
    };
    for name in texts("/linux/seccomp/actions") {
        LinuxSeccompAction::from_str(&name).unwrap();
    }
    for name in texts("/linux/seccomp/operators") {
        LinuxSeccompOperator::from_str(&name).unwrap();
    }
    for name in texts("/linux/seccomp/archs") {
        serde_json::from_value::<Arch>(json!(name)).unwrap();
    }
    for name in texts("/linux/capabilities") {
        serde_json::from_value::<Capability>(json!(name)).unwrap();
    }
    for (mode, flag) in texts("/linux/memoryPolicy/modes").iter().flat_map(|mode| {
        let flags = texts("/linux/memoryPolicy/flags");
        flags.into_iter().map(move |flag| (mode, flag))
    }) {
        let policy = json!({"mode": mode, "flags": [flag]});
        let spec = json!({"ociVersion": "1.3.0", "linux": {"memoryPolicy": policy}});
        serde_json::from_value::<Spec>(spec).unwrap();
    }
    assert_eq!(texts("/mountOptions").len(), 62);
    assert_eq!(texts("/linux/capabilities").len(), 41);
    assert_eq!(texts("/linux/seccomp/supportedFlags"), texts("/linux/seccomp/knownFlags"));
}
