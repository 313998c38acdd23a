//! Tests of merging a request with its image.

use std::time::Duration;

use rorqual_content::{HealthConfig, ImageConfig};
use rorqual_core::ContainerId;

use super::{merge, overlay_env, process_env};
use crate::spec::{ContainerSpec, HealthSpec, HealthTest};

fn words(text: &str) -> Option<Vec<String>> {
    Some(text.split_whitespace().map(str::to_owned).collect())
}

#[test]
fn entrypoint_and_command() {
    // (image entrypoint, image cmd, own entrypoint, own cmd) -> command
    let cases = [
        (None, words("sh"), None, None, Some("sh")),
        (words("/init"), words("a b"), None, None, Some("/init a b")),
        (words("/init"), words("a b"), None, words("c"), Some("/init c")),
        (words("/init"), words("a b"), words("/other"), None, Some("/other")),
        (words("/init"), words("a"), Some(vec![String::new()]), words("x"), Some("x")),
        (None, None, None, None, None),
    ];
    for (image_entrypoint, image_cmd, entrypoint, cmd, expected) in cases {
        let image =
            ImageConfig { entrypoint: image_entrypoint, cmd: image_cmd, ..Default::default() };
        let mut spec = ContainerSpec::default();
        spec.process.entrypoint = entrypoint;
        spec.process.cmd = cmd;
        let merged = merge(&mut spec, &image, &ContainerId::from_random([0; 32]));
        match expected {
            Some(expected) => assert_eq!(merged.unwrap().command.join(" "), expected),
            None => assert_eq!(merged.unwrap_err().to_string(), "no command specified"),
        }
    }
}

#[test]
fn variables_of_the_request_win_and_bare_names_remove() {
    let mut spec = ContainerSpec::default();
    spec.process.env = vec!["A=1".to_owned(), "B".to_owned()];
    let image = ImageConfig {
        env: Some(vec!["A=0".to_owned(), "B=2".to_owned(), "PATH=/bin".to_owned()]),
        cmd: words("sh"),
        ..Default::default()
    };
    let merged = merge(&mut spec, &image, &ContainerId::from_random([0xab; 32])).unwrap();
    assert_eq!(merged.env, ["A=1", "B", "PATH=/bin"]);
    assert_eq!(
        process_env(&merged, true),
        ["PATH=/bin", "HOSTNAME=abababababab", "TERM=xterm", "A=1"]
    );
    let mut env = vec!["A=1".to_owned()];
    overlay_env(&mut env, &["A".to_owned(), "C".to_owned()]);
    assert!(env.is_empty());
}

#[test]
fn health_checks_inherit_field_by_field() {
    let image = ImageConfig {
        cmd: words("sh"),
        healthcheck: Some(HealthConfig {
            test: vec!["CMD-SHELL".to_owned(), "true".to_owned()],
            interval: 7_000_000_000,
            ..HealthConfig::default()
        }),
        ..Default::default()
    };
    let id = ContainerId::from_random([0; 32]);
    let plan = merge(&mut ContainerSpec::default(), &image, &id).unwrap().health.unwrap();
    assert_eq!(plan.test, HealthTest::Shell("true".to_owned()));
    assert_eq!((plan.interval, plan.retries), (Duration::from_secs(7), 3));
    let mut off = ContainerSpec { healthcheck: Some(HealthSpec::Disabled), ..Default::default() };
    assert_eq!(merge(&mut off, &image, &id).unwrap().health, None);
}
