//! Every key of `daemon.json` with its flag, and what becomes of it here.

/// How a value is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// `true` or `false`; the flag needs no value.
    Bool,
    /// A whole number.
    Int,
    /// Text.
    Text,
    /// Texts; the flag may be repeated.
    List,
    /// `key=value` with text values; the flag may be repeated.
    Map,
    /// Bytes, as a number or as in `64M`.
    Size,
    /// A JSON object; the flag writes `key=value`.
    Object,
    /// JSON objects in a list.
    Objects,
}

/// What becomes of a setting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It works.
    Works,
    /// It works and is read again on SIGHUP.
    Reloads,
    /// It means nothing here, because what it tunes does not exist; accepting it misleads nobody.
    Meaningless(&'static str),
    /// It concerns a part that is not built yet; it is kept, and said so at the start.
    Later(&'static str),
    /// Accepting it would mislead: start-up fails.
    Refused(&'static str),
}

/// A setting.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Row {
    /// Key in the file.
    pub(crate) key: &'static str,
    /// Long flag; empty when there is none.
    pub(crate) flag: &'static str,
    /// Short flag.
    pub(crate) short: Option<char>,
    /// How its value is written.
    pub(crate) kind: Kind,
    /// What becomes of it.
    pub(crate) fate: Fate,
}

const fn row(key: &'static str, flag: &'static str, kind: Kind, fate: Fate) -> Row {
    Row { key, flag, short: None, kind, fate }
}

const fn short(key: &'static str, flag: &'static str, letter: char, kind: Kind, fate: Fate) -> Row {
    Row { key, flag, short: Some(letter), kind, fate }
}

use Fate::{Later, Meaningless, Refused, Reloads, Works};
use Kind::{Bool, Int, List, Map, Object, Objects, Size, Text};

/// All settings, in alphabetical order.
pub(crate) const ROWS: &[Row] = &[
    row(
        "allow-direct-routing",
        "allow-direct-routing",
        Bool,
        Refused("direct routing to published ports is not built yet"),
    ),
    row("authorization-plugins", "authorization-plugin", List, Reloads),
    row("bip", "bip", Text, Works),
    row("bip6", "bip6", Text, Refused("IPv6 on the default bridge is not built yet")),
    short("bridge", "bridge", 'b', Text, Works),
    row(
        "bridge-accept-fwmark",
        "bridge-accept-fwmark",
        Text,
        Refused("marks that open the firewall are not built yet"),
    ),
    row("builder", "", Object, Works),
    row("cdi-spec-dirs", "cdi-spec-dir", List, Later("device interfaces (CDI) are not built yet")),
    row("cgroup-parent", "cgroup-parent", Text, Works),
    row("containerd", "containerd", Text, Meaningless("there is no containerd here")),
    row(
        "containerd-namespace",
        "containerd-namespace",
        Text,
        Meaningless("there is no containerd here"),
    ),
    row(
        "containerd-plugins-namespace",
        "containerd-plugins-namespace",
        Text,
        Meaningless("there is no containerd here"),
    ),
    row(
        "cpu-rt-period",
        "cpu-rt-period",
        Int,
        Refused("real-time limits on the parent cgroup are not built yet"),
    ),
    row(
        "cpu-rt-runtime",
        "cpu-rt-runtime",
        Int,
        Refused("real-time limits on the parent cgroup are not built yet"),
    ),
    row("cri-containerd", "cri-containerd", Bool, Meaningless("there is no containerd here")),
    row("data-root", "data-root", Text, Works),
    short("debug", "debug", 'D', Bool, Reloads),
    row("default-address-pools", "default-address-pool", Objects, Works),
    row("default-cgroupns-mode", "default-cgroupns-mode", Text, Works),
    row(
        "default-gateway",
        "default-gateway",
        Text,
        Refused("another gateway than the bridge is not built yet"),
    ),
    row(
        "default-gateway-v6",
        "default-gateway-v6",
        Text,
        Refused("IPv6 on the default bridge is not built yet"),
    ),
    row("default-ipc-mode", "default-ipc-mode", Text, Works),
    row(
        "default-network-opts",
        "default-network-opt",
        Object,
        Later("default options of networks are not built yet"),
    ),
    row("default-runtime", "default-runtime", Text, Works),
    row("default-shm-size", "default-shm-size", Size, Works),
    row("default-stop-timeout", "default-stop-timeout", Int, Works),
    row("default-ulimits", "default-ulimit", Object, Works),
    row("dns", "dns", List, Works),
    row("dns-opts", "dns-opt", List, Works),
    row("dns-search", "dns-search", List, Works),
    row("exec-opts", "exec-opt", List, Works),
    row("exec-root", "exec-root", Text, Works),
    row("experimental", "experimental", Bool, Works),
    row(
        "features",
        "feature",
        Object,
        Later("features choose among parts that this daemon does not have"),
    ),
    row("firewall-backend", "firewall-backend", Text, Works),
    row("fixed-cidr", "fixed-cidr", Text, Works),
    row(
        "fixed-cidr-v6",
        "fixed-cidr-v6",
        Text,
        Refused("IPv6 on the default bridge is not built yet"),
    ),
    short("group", "group", 'G', Text, Works),
    row("host-gateway-ip", "", Text, Refused("the address of host-gateway cannot be chosen yet")),
    row(
        "host-gateway-ips",
        "host-gateway-ip",
        List,
        Refused("the address of host-gateway cannot be chosen yet"),
    ),
    short("hosts", "host", 'H', List, Works),
    row("http-proxy", "http-proxy", Text, Works),
    row("https-proxy", "https-proxy", Text, Works),
    row("icc", "icc", Bool, Works),
    row("idmap-binds", "idmap-binds", Bool, Works),
    row("init", "init", Bool, Works),
    row("init-path", "init-path", Text, Meaningless("the init is our own")),
    row("insecure-registries", "insecure-registry", List, Reloads),
    row("ip", "ip", Text, Works),
    row("ip-forward", "ip-forward", Bool, Works),
    row(
        "ip-forward-no-drop",
        "ip-forward-no-drop",
        Bool,
        Meaningless("the policy of the forward chain is never changed"),
    ),
    row("ip-masq", "ip-masq", Bool, Works),
    row("ip6tables", "ip6tables", Bool, Meaningless("there is no IPv6 on bridges yet")),
    row("iptables", "iptables", Bool, Works),
    row("ipv6", "ipv6", Bool, Refused("IPv6 on the default bridge is not built yet")),
    row("labels", "label", List, Reloads),
    row("live-restore", "live-restore", Bool, Reloads),
    row("log-driver", "log-driver", Text, Works),
    row("log-format", "log-format", Text, Works),
    short("log-level", "log-level", 'l', Text, Works),
    row("log-opts", "log-opt", Map, Works),
    row("max-concurrent-downloads", "max-concurrent-downloads", Int, Reloads),
    row("max-concurrent-uploads", "max-concurrent-uploads", Int, Reloads),
    row("max-download-attempts", "max-download-attempts", Int, Reloads),
    row("metrics-addr", "metrics-addr", Text, Refused("metrics are not built yet")),
    row("min-api-version", "", Text, Refused("the oldest API version is always 1.24")),
    row("mtu", "mtu", Int, Works),
    row(
        "network-control-plane-mtu",
        "network-control-plane-mtu",
        Int,
        Later("swarm mode is not supported"),
    ),
    row(
        "network-diagnostic-port",
        "network-diagnostic-port",
        Int,
        Refused("network diagnostics are not built yet"),
    ),
    row("no-new-privileges", "no-new-privileges", Bool, Works),
    row("no-proxy", "no-proxy", Text, Works),
    row(
        "node-generic-resources",
        "node-generic-resource",
        List,
        Later("swarm mode is not supported"),
    ),
    row("nri-opts", "nri-opts", Object, Refused("NRI plugins are not supported")),
    short("pidfile", "pidfile", 'p', Text, Works),
    row("proxies", "", Object, Works),
    row("raw-logs", "raw-logs", Bool, Meaningless("logs have full time stamps and no colours")),
    row("registry-certs", "registry-certs", Text, Reloads),
    row("registry-mirrors", "registry-mirror", List, Reloads),
    row("registry-rules", "", Object, Reloads),
    row("respect-input-policy", "respect-input-policy", Bool, Works),
    row("rootless", "rootless", Bool, Refused("rootless mode is not built yet")),
    row("runtimes", "add-runtime", Object, Refused("only the built-in runtime can be used")),
    row("seccomp-profile", "seccomp-profile", Text, Works),
    row("selinux-enabled", "selinux-enabled", Bool, Works),
    row("shutdown-timeout", "shutdown-timeout", Int, Reloads),
    short("storage-driver", "storage-driver", 's', Text, Works),
    row("storage-opts", "storage-opt", List, Refused("the overlay driver has no options")),
    row(
        "swarm-default-advertise-addr",
        "swarm-default-advertise-addr",
        Text,
        Later("swarm mode is not supported"),
    ),
    row("tls", "tls", Bool, Works),
    row("tlscacert", "tlscacert", Text, Works),
    row("tlscert", "tlscert", Text, Works),
    row("tlskey", "tlskey", Text, Works),
    row("tlsverify", "tlsverify", Bool, Works),
    row("userland-proxy", "userland-proxy", Bool, Works),
    row(
        "userland-proxy-path",
        "userland-proxy-path",
        Text,
        Meaningless("ports are relayed by a process of our own"),
    ),
    row("userns-remap", "userns-remap", Text, Works),
];

/// Keys that dockerd accepts and does nothing with.
pub(crate) const DEAD_KEYS: [&str; 3] =
    ["allow-nondistributable-artifacts", "deprecated-key-path", "restart"];

/// Finds a setting by its key in the file.
pub(crate) fn by_key(key: &str) -> Option<&'static Row> {
    ROWS.iter().find(|row| row.key == key)
}

/// Finds a setting by its long flag.
pub(crate) fn by_flag(flag: &str) -> Option<&'static Row> {
    ROWS.iter().find(|row| !row.flag.is_empty() && row.flag == flag)
}

/// Finds a setting by its short flag.
pub(crate) fn by_letter(letter: char) -> Option<&'static Row> {
    ROWS.iter().find(|row| row.short == Some(letter))
}
