use std::collections::BTreeMap;

use rorqual_build::{Graph, Op};
use serde_json::Value;

use super::{Facts, Provenance, files, parameters, shown, wishes, without_login};

fn options(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

#[test]
fn what_is_asked_for_is_said_and_no_more() {
    let asked = |value: &str| wishes(&options(&[("attest:provenance", value)]));
    assert_eq!(asked("mode=min,inline-only=true").unwrap().provenance, None);
    assert_eq!(asked("mode=max,disabled=true").unwrap().provenance, None);
    assert_eq!(asked("").unwrap().provenance, Some(Provenance::default()));
    let all = asked("mode=max,reproducible=true,builder-id=https://b,version=v1").unwrap();
    let expected = Provenance {
        is_max: true,
        is_reproducible: true,
        builder: "https://b".to_owned(),
        is_v1: true,
    };
    assert_eq!(all.provenance, Some(expected));
    for wrong in ["mode=all", "version=v9", "unheard=of"] {
        assert!(asked(wrong).is_err(), "{wrong}");
    }
    assert!(wishes(&options(&[("attest:sbom", "")])).unwrap().sbom);
    let other = wishes(&options(&[("attest:sbom", "generator=example.com/scanner")]));
    assert!(other.unwrap_err().to_string().contains("example.com/scanner"));
    assert!(wishes(&options(&[("attest:other", "")])).is_err());
}

#[test]
fn no_credentials_are_told() {
    for (address, expected) in [
        ("https://user:word@example.com/a@b", "https://example.com/a@b"),
        ("https://token@example.com", "https://example.com"),
        ("https://example.com/?a=b@c", "https://example.com/?a=b@c"),
        ("no address", "no address"),
    ] {
        assert_eq!(without_login(address), expected);
    }
    let given = options(&[
        ("build-arg:HTTP_PROXY", "http://user:word@proxy"),
        ("build-arg:https_proxy", "http://user:word@proxy"),
        ("build-arg:NAME", "value"),
        ("attest:sbom", ""),
        ("context:other", "https://user:word@example.com/x.git"),
        ("local-sessionid:context", "id"),
        ("target", "last"),
    ]);
    let text = Value::from(shown(&given)).to_string();
    assert!(!text.contains("word") && !text.contains("PROXY") && !text.contains("id\""), "{text}");
    let graph = Graph::default();
    let least = Value::from(parameters(&graph, &given, false))["args"].clone();
    assert_eq!(least, serde_json::json!({ "target": "last" }));
    let most = Value::from(parameters(&graph, &given, true))["args"].clone();
    assert_eq!(most["build-arg:NAME"], "value");
    assert_eq!(most["context:other"], "https://example.com/x.git");
}

#[test]
fn ids_of_secrets_are_told_not_their_values() {
    let mut graph = Graph::default();
    let secret = rorqual_build::SecretSpec { id: "token".to_owned(), ..Default::default() };
    let exec = rorqual_build::ExecOp {
        args: vec!["true".to_owned()],
        env: Vec::new(),
        cwd: "/".to_owned(),
        user: String::new(),
        hostname: String::new(),
        mounts: Vec::new(),
        network: rorqual_build::ExecNetwork::default(),
        security: rorqual_build::ExecSecurity::default(),
        extra_hosts: Vec::new(),
        proxy_env: vec!["HTTP_PROXY=http://user:word@proxy".to_owned()],
        secret_env: vec![("TOKEN".to_owned(), secret)],
        shm_size: None,
        ulimits: Vec::new(),
        cgroup_parent: String::new(),
        devices: Vec::new(),
        valid_exit_codes: Vec::new(),
    };
    let vertex = rorqual_build::Vertex {
        op: Op::Exec(Box::new(exec)),
        name: "RUN true".to_owned(),
        platform: rorqual_core::Platform::host(),
        ignore_cache: false,
        location: None,
    };
    graph.add(vertex).unwrap();
    let told = Value::from(parameters(&graph, &BTreeMap::new(), true));
    assert_eq!(told["secrets"], serde_json::json!([{ "id": "token" }]));
    let steps = super::steps(&graph);
    assert_eq!(steps[0]["exec"]["args"][0], "true");
    assert!(!steps.to_string().contains("word"), "{steps}");
}

#[test]
fn statements_can_be_files_before_others_in_a_tar() {
    let facts = Facts {
        materials: Vec::new(),
        source: Value::Null,
        parameters: serde_json::Map::new(),
        steps: None,
        details: serde_json::Map::new(),
        started: String::new(),
        finished: String::new(),
        id: String::new(),
    };
    let body = facts.v02(&Provenance::default());
    let predicate = rorqual_transfer::Predicate { kind: super::SLSA_02.to_owned(), body };
    let bytes = files(&[predicate], Some(5)).unwrap();
    assert_eq!(bytes.len() % 512, 0);
    assert!(bytes.starts_with(b"provenance.json\0"));
    assert!(bytes[bytes.len() - 512..].iter().any(|byte| *byte != 0), "no end of an archive");
}
