use super::{Scope, Value, is_running, properties, start};
use crate::cgroup::resources::{Cpu, Memory, Resources};
use crate::cgroup::{Error, Version};

#[test]
fn scopes() {
    for (text, path) in [
        ("system.slice:docker:abc", Some("system.slice/docker-abc.scope")),
        (":docker:abc", Some("system.slice/docker-abc.scope")),
        ("a-b-c.slice::x", Some("a.slice/a-b.slice/a-b-c.slice/x.scope")),
        ("-.slice:p:x", Some("p-x.scope")),
        ("/docker/abc", None),
        ("system.slice:docker:", None),
        ("system.slice:docker:a/b", None),
        ("system:docker:a", None),
    ] {
        assert_eq!(Scope::parse(text).ok().map(|scope| scope.path()).as_deref(), path, "{text}");
    }
}

#[test]
fn limits_become_properties() {
    let resources = Resources {
        memory: Memory { limit: Some(1 << 20), ..Memory::default() },
        cpu: Cpu { shares: Some(1024), quota: Some(150_000), ..Cpu::default() },
        pids: Some(-1),
        ..Resources::default()
    };
    let expected = [
        ("MemoryMax", 1 << 20),
        ("TasksMax", u64::MAX),
        ("CPUWeight", 100),
        ("CPUQuotaPerSecUSec", 1_500_000),
        ("CPUQuotaPeriodUSec", 100_000),
    ]
    .map(|(name, number)| (name, Value::Number(number)));
    assert_eq!(properties(&resources, Version::V2), expected);
    let names: Vec<_> =
        properties(&resources, Version::V1).into_iter().map(|(name, _)| name).collect();
    assert_eq!(names[..3], ["MemoryLimit", "TasksMax", "CPUShares"]);
}

#[test]
fn a_host_without_systemd_says_so() {
    if !is_running() {
        let scope = Scope::parse("system.slice:docker:abc").expect("a scope");
        let error = start(&scope).expect_err("refused");
        assert!(matches!(error, Error::Systemd { .. }));
        assert_eq!(
            error.to_string(),
            "cannot start docker-abc.scope through systemd: systemd is not running on this host"
        );
    }
}
