use super::{
    DEFAULT_PROFILE, Error, Features, Module, active, default_profile, has_apparmor, listed,
    set_exec_label,
};

#[test]
fn profiles_are_found_by_their_whole_name() {
    let text = "docker-default (enforce)\n/usr/bin/man (complain)\nother docker (kill)\n";
    for (name, expected) in
        [("docker-default", true), ("docker", false), ("other docker", true), ("", false)]
    {
        assert_eq!(listed(text, name), expected, "{name}");
    }
}

#[test]
fn the_profile_fits_the_host() {
    let bare = default_profile(DEFAULT_PROFILE, "unconfined", Features::default()).expect("plain");
    assert!(bare.starts_with("@{PROC}=/proc/\n\nprofile docker-default flags="));
    assert!(!bare.contains("abi <") && !bare.contains("network alg"));
    assert_eq!(bare.matches("peer=unconfined").count(), 1);
    let rich = Features { abi_3: true, tunables: true, base: true };
    let rich = default_profile(DEFAULT_PROFILE, "rorqual", rich).expect("plain");
    for part in
        ["abi <abi/3.0>,", "#include <tunables/global>", "deny network alg,", "peer=rorqual"]
    {
        assert!(rich.contains(part), "{part}");
    }
    assert_eq!(rich.matches('{').count(), rich.matches('}').count());
}

#[test]
fn names_cannot_add_rules() {
    for name in ["", "a b", "x,\n capability", "a{b}"] {
        assert_eq!(default_profile(name, "unconfined", Features::default()), None, "{name:?}");
        assert_eq!(default_profile("x", name, Features::default()), None, "{name:?}");
    }
}

#[test]
fn a_host_without_the_module_says_so() {
    if !has_apparmor() {
        let refused = set_exec_label(Module::AppArmor, "x");
        assert!(matches!(refused, Err(Error::Disabled("AppArmor"))), "{refused:?}");
        assert_ne!(active(), Some(Module::AppArmor));
    }
}
