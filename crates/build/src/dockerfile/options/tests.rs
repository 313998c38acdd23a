use std::collections::BTreeMap;

use super::*;

fn attributes(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

#[test]
fn attributes_become_options() {
    let options = options_from_attributes(&attributes(&[
        ("target", "app"),
        ("platform", "linux/amd64,linux/arm64/v8"),
        ("build-arg:X", "1"),
        ("label:a.b", "c"),
        ("add-hosts", "one=10.0.0.1,two=::1"),
        ("force-network-mode", "host"),
        ("shm-size", "1048576"),
        ("ulimit", "nofile=1024:2048,nproc=3"),
        ("no-cache", "a,b"),
        ("image-resolve-mode", "pull"),
        ("context:base", "docker-image://alpine"),
        ("build-arg:BUILDKIT_SANDBOX_HOSTNAME", "box"),
        ("filename", "ignored here"),
    ]));
    let options = options.unwrap();
    assert_eq!(options.target, "app");
    let platforms: Vec<String> = options.platforms.iter().map(ToString::to_string).collect();
    assert_eq!(platforms, ["linux/amd64", "linux/arm64"]);
    assert!(options.multi_platform);
    assert_eq!(options.build_args["X"], "1");
    assert_eq!(options.labels["a.b"], "c");
    assert_eq!(options.extra_hosts[1], ("two".into(), "::1".into()));
    assert_eq!((options.network, options.shm_size), (ExecNetwork::Host, Some(1 << 20)));
    assert_eq!(options.ulimits, ["nofile=1024:2048", "nproc=3"]);
    assert_eq!(options.no_cache, NoCache::Stages(vec!["a".into(), "b".into()]));
    assert_eq!((options.resolve_mode, &*options.hostname), (ResolveMode::Pull, "box"));
    assert_eq!(options.named_contexts["base"], "docker-image://alpine");
}

#[test]
fn bad_attributes_are_refused_in_docker_s_words() {
    for (key, value, message) in [
        ("image-resolve-mode", "x", "invalid image-resolve-mode: x"),
        ("force-network-mode", "x", "invalid netmode x"),
        ("add-hosts", "x", "failed to parse additional hosts: invalid key-value pair x"),
        ("add-hosts", "x=y", "failed to parse additional hosts: failed to parse IP y"),
        ("multi-platform", "x", "invalid boolean value for multi-platform: x"),
    ] {
        let refused = options_from_attributes(&attributes(&[(key, value)])).unwrap_err();
        assert_eq!(refused.to_string(), message);
    }
}

#[test]
fn fields_may_be_quoted() {
    assert_eq!(csv_fields(r#"a,"b,""c""",d"#).unwrap(), ["a", "b,\"c\"", "d"]);
    assert!(csv_fields(r#"a,b"c"#).is_err() && csv_fields(r#""a"#).is_err());
}

#[test]
fn contexts_are_told_apart() {
    assert!(matches!(context_kind("https://e.com/x.git"), Ok(ContextKind::Git(_))));
    assert!(matches!(context_kind("https://e.com/x.tar"), Ok(ContextKind::Url(_))));
    assert!(matches!(context_kind("context"), Ok(ContextKind::Local(_))));
    assert!(context_kind("https://e.com/x.git?y=z").is_err());
}
