use super::{Capabilities, Capability, check, container_set};

fn list(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

#[test]
fn the_default_set_is_dockers_fourteen() {
    let mut names = Capabilities::DOCKER_DEFAULT.names();
    names.sort_unstable();
    let expected = "AUDIT_WRITE CHOWN DAC_OVERRIDE FOWNER FSETID KILL MKNOD NET_BIND_SERVICE \
                    NET_RAW SETFCAP SETGID SETPCAP SETUID SYS_CHROOT";
    let expected: Vec<String> = list(expected).iter().map(|name| format!("CAP_{name}")).collect();
    assert_eq!(names, expected);
}

#[test]
fn adding_and_dropping() {
    let have = Capabilities::ALL.without(Capability::SYS_RESOURCE);
    let net_admin = Capabilities::EMPTY.with(Capability::NET_ADMIN);
    let default = Capabilities::DOCKER_DEFAULT;
    for (add, drop, expected) in [
        ("", "", default),
        ("net_admin", "", default.union(net_admin)),
        ("Cap_Net_Admin", "ALL", net_admin),
        ("", "all", Capabilities::EMPTY),
        ("ALL", "", have),
        ("all", "CAP_NET_ADMIN", have.without(Capability::NET_ADMIN)),
        ("", "mknod", default.without(Capability::MKNOD)),
        ("ALL", "ALL", have),
    ] {
        assert_eq!(container_set(&list(add), &list(drop), have), Ok(expected), "{add} - {drop}");
    }
}

#[test]
fn errors_read_as_dockers() {
    let have = Capabilities::ALL.without(Capability::SYS_RESOURCE);
    let text = |names: &str| check(&list(names), have).expect_err("refused").to_string();
    assert_eq!(text("chown nonsense"), "unknown capability: \"CAP_NONSENSE\"");
    assert_eq!(
        text("sys_resource"),
        "capability not supported by your kernel or not available in the current environment: \
         \"CAP_SYS_RESOURCE\""
    );
}

#[test]
fn names_and_numbers_agree() {
    for number in 0..41 {
        let one = Capability::from_number(number).expect("in the table");
        assert_eq!(one.name().parse(), Ok(one));
    }
    assert_eq!(Capability::from_number(41), None);
    assert_eq!(Capability::SYS_ADMIN.name(), "CAP_SYS_ADMIN");
    assert_eq!(Capability::MKNOD.name(), "CAP_MKNOD");
}
