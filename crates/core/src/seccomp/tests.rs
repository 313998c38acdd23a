use super::{Action, Arch, Arg, Document, Environment, Flag, Op, Profile, Rule};
use crate::capability::{Capabilities, Capability};

fn environment(capabilities: Capabilities) -> Environment {
    Environment {
        capabilities,
        architecture: "amd64".to_owned(),
        kernel: "6.1.0-13-amd64".parse().expect("a release"),
    }
}

fn allowed(profile: &Profile, name: &str) -> bool {
    profile.rules.iter().any(|rule| {
        rule.action == Action::Allow
            && rule.args.is_empty()
            && rule.names.iter().any(|known| known == name)
    })
}

#[test]
fn the_default_profile_follows_capabilities() {
    let plain = Profile::docker_default(&environment(Capabilities::DOCKER_DEFAULT));
    assert_eq!(plain.default_action, Action::Errno(1));
    assert_eq!(plain.architectures, [Arch::X86_64, Arch::X86, Arch::X32]);
    for (name, expected) in
        [("read", true), ("ptrace", true), ("chroot", true), ("mount", false), ("keyctl", false)]
    {
        assert_eq!(allowed(&plain, name), expected, "{name}");
    }
    let clone3 = plain.rules.iter().find(|rule| rule.names == ["clone3"]).expect("a rule");
    assert_eq!(clone3.action, Action::Errno(38));
    let clone = plain.rules.iter().find(|rule| rule.names == ["clone"]).expect("a rule");
    assert_eq!(clone.args.len(), 1);
    assert_eq!((clone.args[0].index, clone.args[0].op), (0, Op::MaskedEq));

    let admin = environment(Capabilities::DOCKER_DEFAULT.with(Capability::SYS_ADMIN));
    let admin = Profile::docker_default(&admin);
    assert!(allowed(&admin, "mount") && allowed(&admin, "clone") && allowed(&admin, "clone3"));
    assert!(!admin.rules.iter().any(|rule| rule.action == Action::Errno(38)));
}

#[test]
fn the_default_profile_follows_machine_and_kernel() {
    let mut arm = environment(Capabilities::DOCKER_DEFAULT);
    arm.architecture = "arm64".to_owned();
    arm.kernel = "4.7".parse().expect("a release");
    let profile = Profile::docker_default(&arm);
    assert_eq!(profile.architectures, [Arch::Aarch64, Arch::Arm]);
    assert!(allowed(&profile, "set_tls") && !allowed(&profile, "arch_prctl"));
    assert!(!allowed(&profile, "ptrace"));
    arm.architecture = "unheard-of".to_owned();
    assert!(Profile::docker_default(&arm).architectures.is_empty());
}

#[test]
fn the_oci_form_survives_a_round_trip() {
    let profile = Profile::docker_default(&environment(Capabilities::DOCKER_DEFAULT));
    let json = serde_json::to_string(&profile).expect("serialisable");
    assert!(json.starts_with(r#"{"defaultAction":"SCMP_ACT_ERRNO","defaultErrnoRet":1,"arch"#));
    assert_eq!(serde_json::from_str::<Profile>(&json).expect("its own form"), profile);
}

#[test]
fn documents_of_users() {
    let json = r#"{"defaultAction": "SCMP_ACT_ALLOW", "architectures": null, "syscalls": [
        {"name": "chmod", "action": "SCMP_ACT_ERRNO", "args": null, "includes": null},
        {"names": ["kill"], "action": "SCMP_ACT_TRACE", "errnoRet": 7,
         "args": [{"index": 1, "value": 9, "valueTwo": 0, "op": "SCMP_CMP_EQ"}],
         "excludes": {"caps": ["CAP_KILL"], "minKernel": "7.0"}}]}"#;
    let document = Document::parse(json).expect("a profile");
    let all = document.resolve(&environment(Capabilities::EMPTY)).expect("resolves");
    assert_eq!(all.rules.len(), 2);
    assert_eq!(all.rules[0].action, Action::Errno(1));
    assert_eq!(all.rules[1].action, Action::Trace(7));
    let fewer = document.resolve(&environment(Capabilities::DOCKER_DEFAULT)).expect("resolves");
    assert_eq!(fewer.rules.len(), 1);
}

#[test]
fn faults_are_named() {
    for (json, expected) in [
        ("{", "Decoding seccomp profile failed"),
        (r#"{"defaultAction":"X"}"#, "unknown seccomp action \"X\""),
        (
            r#"{"defaultAction":"SCMP_ACT_ALLOW","architectures":["SCMP_ARCH_X86"],
                "archMap":[{"architecture":"SCMP_ARCH_X86_64"}]}"#,
            "both 'architectures' and 'archMap' are specified in the seccomp profile, use either \
             'architectures' or 'archMap'",
        ),
        (
            r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[
                {"name":"a","names":["b"],"action":"SCMP_ACT_ALLOW"}]}"#,
            "both 'name' and 'names' are specified in the seccomp profile, use either 'name' or 'names'",
        ),
        (
            r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["b"],
                "action":"SCMP_ACT_ALLOW","args":[{"index":6,"value":1,"op":"SCMP_CMP_EQ"}]}]}"#,
            "seccomp argument index 6 is not from 0 to 5",
        ),
        (
            r#"{"defaultAction":"SCMP_ACT_ERRNO","defaultErrnoRet":5000}"#,
            "seccomp error number 5000 is larger than 4095",
        ),
    ] {
        let fault = Document::parse(json)
            .and_then(|document| document.resolve(&environment(Capabilities::EMPTY)))
            .expect_err("refused");
        assert_eq!(fault.to_string(), expected);
    }
}

#[test]
fn every_variant_has_a_name() {
    let arches = [
        Arch::X86,
        Arch::X86_64,
        Arch::X32,
        Arch::Arm,
        Arch::Aarch64,
        Arch::Mips,
        Arch::Mips64,
        Arch::Mips64N32,
        Arch::Mipsel,
        Arch::Mipsel64,
        Arch::Mipsel64N32,
        Arch::Ppc,
        Arch::Ppc64,
        Arch::Ppc64Le,
        Arch::S390,
        Arch::S390X,
        Arch::Parisc,
        Arch::Parisc64,
        Arch::Riscv64,
        Arch::Loongarch64,
        Arch::M68k,
        Arch::Sh,
        Arch::Sheb,
    ];
    let ops = [Op::Ne, Op::Lt, Op::Le, Op::Eq, Op::Ge, Op::Gt, Op::MaskedEq];
    let rule = |op| Rule {
        names: vec!["read".to_owned()],
        action: Action::Log,
        args: vec![Arg { index: 1, value: 2, value_two: 3, op }],
    };
    let profile = Profile {
        default_action: Action::Trace(5),
        architectures: arches.to_vec(),
        flags: Some(vec![Flag::Tsync, Flag::Log, Flag::SpecAllow, Flag::WaitKillableRecv]),
        listener_path: "/listener".to_owned(),
        listener_metadata: "data".to_owned(),
        rules: ops.map(rule).to_vec(),
    };
    let json = serde_json::to_string(&profile).expect("serialisable");
    assert_eq!(serde_json::from_str::<Profile>(&json).expect("its own form"), profile);
}
