use super::{Scope, Value, is_running, mask, properties, start};
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
    assert_eq!(properties(&resources, Version::V2, None).expect("limits"), expected);
    let names: Vec<_> = properties(&resources, Version::V1, None)
        .expect("limits")
        .into_iter()
        .map(|(name, _)| name)
        .collect();
    assert_eq!(names[..3], ["MemoryLimit", "TasksMax", "CPUShares"]);
}

#[test]
fn a_host_without_systemd_says_so() {
    if !is_running() {
        let scope = Scope::parse("system.slice:docker:abc").expect("a scope");
        let error = start(&scope, &Resources::default(), Version::V2).expect_err("refused");
        assert!(matches!(error, Error::Systemd { .. }));
        assert_eq!(
            error.to_string(),
            "cannot start docker-abc.scope through systemd: systemd is not running on this host"
        );
    }
}

#[test]
fn swap_is_told_alone() {
    let only = |limit, swap| Resources {
        memory: Memory { limit, swap, ..Memory::default() },
        ..Resources::default()
    };
    for (limit, swap, in_force, expected) in [
        (Some(64), Some(96), None, vec![("MemoryMax", 64), ("MemorySwapMax", 32)]),
        (Some(64), Some(-1), None, vec![("MemoryMax", 64), ("MemorySwapMax", u64::MAX)]),
        (Some(-1), None, Some(64), vec![("MemoryMax", u64::MAX), ("MemorySwapMax", u64::MAX)]),
        (None, Some(96), Some(64), vec![("MemorySwapMax", 32)]),
        (None, None, Some(64), vec![]),
    ] {
        let expected: Vec<_> =
            expected.into_iter().map(|(name, number)| (name, Value::Number(number))).collect();
        let told = properties(&only(limit, swap), Version::V2, in_force).expect("limits");
        assert_eq!(told, expected, "{limit:?} {swap:?} {in_force:?}");
    }
    let error = properties(&only(None, Some(96)), Version::V2, None).expect_err("refused");
    assert_eq!(error.to_string(), "a limit of memory and swap needs a limit of memory");
}

#[test]
fn lists_become_bits() {
    for (list, bits) in [
        ("0", Some(vec![1])),
        ("0-3,8", Some(vec![15, 1])),
        ("1, 9-10", Some(vec![2, 6])),
        ("8191", Some([vec![0; 1023], vec![128]].concat())),
        ("8192", None),
        ("3-1", None),
        ("0-", None),
        ("a", None),
    ] {
        assert_eq!(mask(list).ok(), bits, "{list}");
    }
}
