//! Log options: defaults, refusals, tags.

use std::path::PathBuf;

use rorqual_content::{Descriptor, ImageDocument, ImageRecord};
use rorqual_core::{ContainerId, Digest, ImageId};
use rorqual_shim::log::LogTarget;

use super::{Subject, plan};
use crate::spec::ContainerSpec;

fn planned(driver: &str, options: &[(&str, &str)]) -> Result<LogTarget, String> {
    let digest = Digest::sha256([1; 32]);
    let descriptor = Descriptor::new("", digest.clone(), 0);
    let image = ImageRecord {
        id: ImageId(digest),
        target: descriptor.clone(),
        manifest: descriptor,
        document: ImageDocument::default(),
        tags: Vec::new(),
        digests: Vec::new(),
        size: 0,
        tagged_at: None,
    };
    let mut spec = ContainerSpec { name: "web".parse().ok(), ..ContainerSpec::default() };
    spec.labels.insert("tier".to_owned(), "front".to_owned());
    spec.process.env = vec!["ZONE=a".to_owned()];
    let options =
        options.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    let id = ContainerId::from_random([0xab; 32]);
    let subject = Subject { id: &id, spec: &spec, image: &image, directory: PathBuf::from("/c") };
    plan(driver, &options, &subject).map_err(|error| error.to_string())
}

#[test]
fn files_are_bounded_unless_asked_otherwise() {
    let LogTarget::JsonFile(log) = planned("json-file", &[]).unwrap() else { panic!("json-file") };
    assert_eq!((log.max_size, log.max_files, log.compress), (Some(20 << 20), 5, false));
    assert_eq!(log.path, PathBuf::from(format!("/c/{}-json.log", "ab".repeat(32))));
    let options = [("max-size", "1m"), ("max-file", "3"), ("compress", "true")];
    let LogTarget::JsonFile(log) = planned("json-file", &options).unwrap() else {
        panic!("json-file")
    };
    assert_eq!((log.max_size, log.max_files, log.compress), (Some(1 << 20), 3, true));
    let LogTarget::JsonFile(log) = planned("json-file", &[("max-size", "-1")]).unwrap() else {
        panic!("json-file")
    };
    assert_eq!(log.max_size, None);
}

#[test]
fn unknown_drivers_and_options_are_refused() {
    let cases = [
        (
            "nonsense",
            ("", ""),
            "error looking up logging plugin nonsense: plugin \"nonsense\" not found",
        ),
        ("json-file", ("x", "1"), "unknown log opt 'x' for json-file log driver"),
        ("none", ("max-size", "1m"), "unknown log opt 'max-size' for none log driver"),
        ("json-file", ("max-file", "0"), "invalid value for max-file: 0"),
        ("syslog", ("syslog-facility", "nobody"), "invalid syslog facility"),
    ];
    for (driver, option, expected) in cases {
        let options: &[(&str, &str)] = if option.0.is_empty() { &[] } else { &[option] };
        assert_eq!(planned(driver, options).unwrap_err(), expected);
    }
}

#[test]
fn attributes_and_tags() {
    let options = [("labels", "tier,none"), ("env", "ZONE"), ("tag", "{{.Name}}/{{.ID}}")];
    let LogTarget::JsonFile(log) = planned("json-file", &options).unwrap() else {
        panic!("json-file")
    };
    let attrs: Vec<_> = log.attrs.iter().map(|(key, value)| format!("{key}={value}")).collect();
    assert_eq!(attrs, ["ZONE=a", "tag=web/abababababab", "tier=front"]);
    for (name, field) in
        [("a", "A"), ("com.x-y/1", "COM_X_Y_1"), ("_1b", "B"), ("9", ""), ("é", "")]
    {
        assert_eq!(super::field_name(name), field, "{name}");
    }
    let LogTarget::Journald { fields } = planned("journald", &[]).unwrap() else {
        panic!("journald")
    };
    assert_eq!(fields["CONTAINER_NAME"], "web");
}
