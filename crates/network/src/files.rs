//! The three files that every container gets from its daemon: `hosts`, `hostname`, `resolv.conf`.
//!
//! Their texts are pure functions; only [`write`] touches the disk. Not concerned with mounting them.

use std::fmt::Write as _;
use std::fs;
use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use crate::dns::Upstream;
use crate::{Attach, Endpoint, Error, HostFiles, SandboxKind};

/// LIMIT: the resolver library reads far less; a larger file is damage.
const MAX_RESOLV_CONF: u64 = 64 * 1024;
/// LIMIT: of the host's own hosts file, which host-network containers get a copy of.
const MAX_HOSTS: u64 = 1024 * 1024;

// COMPAT: dockerd falls back to these when the host only has resolvers on its loopback.
const FALLBACK: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::new(8, 8, 8, 8)), IpAddr::V4(Ipv4Addr::new(8, 8, 4, 4))];

/// What of the host goes into the files.
#[derive(Clone, Debug)]
pub struct HostSide {
    /// `/etc/hosts`
    pub hosts: PathBuf,
    /// `/etc/resolv.conf`
    pub resolv_conf: PathBuf,
    /// What the stub resolver at 127.0.0.53 forwards to.
    pub upstream_resolv_conf: PathBuf,
    /// What `host-gateway` stands for.
    pub gateway: Option<IpAddr>,
}

impl Default for HostSide {
    fn default() -> Self {
        Self {
            hosts: "/etc/hosts".into(),
            resolv_conf: "/etc/resolv.conf".into(),
            upstream_resolv_conf: "/run/systemd/resolve/resolv.conf".into(),
            gateway: None,
        }
    }
}

/// Writes all three files into the directory of `attach`.
///
/// # Errors
/// `InvalidArgument` for a malformed extra host, `Os` when writing fails.
pub(crate) fn write(
    attach: &Attach,
    endpoints: &[Endpoint],
    host: &HostSide,
) -> Result<HostFiles, Error> {
    let on_host = attach.kind == SandboxKind::Host;
    let base = if on_host { read_bounded(&host.hosts, MAX_HOSTS) } else { HOSTS_BASE.to_owned() };
    let hosts = hosts_text(&base, attach, endpoints, host.gateway)?;
    let files = paths(&attach.directory);
    write_in_place(&files.hosts, &hosts)?;
    write_in_place(&files.hostname, &format!("{}\n", attach.hostname))?;
    write_in_place(&files.resolv_conf, &resolver_text(attach, endpoints, host))?;
    Ok(files)
}

fn resolver_text(attach: &Attach, endpoints: &[Endpoint], host: &HostSide) -> String {
    let on_host = attach.kind == SandboxKind::Host;
    if !on_host && endpoints.iter().any(|endpoint| endpoint.network_name != "bridge") {
        return embedded(attach, host).text();
    }
    let resolver = Resolver::parse(&host_resolv_conf(host));
    let ipv6 = on_host || endpoints.iter().any(|endpoint| endpoint.ipv6.is_some());
    let resolver = if on_host { resolver } else { resolver.for_container(ipv6) };
    resolver.overridden_by(attach).text()
}

/// Brings the files of a running container in line with its endpoints.
///
/// Of the hosts file only the lines of endpoints change, and `resolv.conf` only if nobody has edited it.
pub(crate) fn update(
    attach: &Attach,
    before: &[Endpoint],
    now: &[Endpoint],
    host: &HostSide,
) -> Result<(), Error> {
    let files = paths(&attach.directory);
    let text = read_bounded(&files.hosts, MAX_HOSTS);
    let (old, new) = (own_lines(attach, before), own_lines(attach, now));
    let gone = old.iter().filter(|line| !new.contains(line)).collect::<Vec<_>>();
    let kept = text.lines().filter(|line| !gone.iter().any(|gone| gone.trim_end() == *line));
    let added = new.iter().filter(|line| !old.contains(line)).map(|line| line.trim_end());
    let lines = kept.chain(added).map(|line| format!("{line}\n"));
    // ORDER: in place, since the container has this very file mounted.
    write_in_place(&files.hosts, &lines.collect::<String>())?;
    let resolver = |endpoints: &[Endpoint]| resolver_text(attach, endpoints, host);
    let (old, new) = (resolver(before), resolver(now));
    if old != new && read_bounded(&files.resolv_conf, MAX_RESOLV_CONF) == old {
        write_in_place(&files.resolv_conf, &new)?;
    }
    Ok(())
}

/// Tells where [`write`] puts the files of a container whose directory this is.
pub(crate) fn paths(directory: &Path) -> HostFiles {
    HostFiles {
        hosts: directory.join("hosts"),
        hostname: directory.join("hostname"),
        resolv_conf: directory.join("resolv.conf"),
    }
}

// COMPAT: the lines dockerd starts with.
const HOSTS_BASE: &str = "127.0.0.1\tlocalhost\n\
    ::1\tlocalhost ip6-localhost ip6-loopback\n\
    fe00::\tip6-localnet\n\
    ff00::\tip6-mcastprefix\n\
    ff02::1\tip6-allnodes\n\
    ff02::2\tip6-allrouters\n";

fn hosts_text(
    base: &str,
    attach: &Attach,
    endpoints: &[Endpoint],
    gateway: Option<IpAddr>,
) -> Result<String, Error> {
    let mut text = base.to_owned();
    if !text.is_empty() && !text.ends_with('\n') {
        text.push('\n');
    }
    for line in &attach.extra_hosts {
        let (name, address) = extra_host(line, gateway)?;
        push_line(&mut text, format_args!("{address}\t{name}\n"));
    }
    text.push_str(&own_lines(attach, endpoints).concat());
    Ok(text)
}

/// Writes the lines of a container's own name.
fn own_lines(attach: &Attach, endpoints: &[Endpoint]) -> Vec<String> {
    let name = if attach.domainname.is_empty() {
        attach.hostname.clone()
    } else {
        format!("{}.{}", attach.hostname, attach.domainname)
    };
    // COMPAT: a qualified name is followed by its first label.
    let name = match name.split_once('.') {
        Some((first, _)) if !first.is_empty() => format!("{name} {first}"),
        _ => name,
    };
    let addresses = endpoints.iter().flat_map(|endpoint| {
        let v4 = endpoint.ipv4.map(|(address, _)| IpAddr::V4(address));
        v4.into_iter().chain(endpoint.ipv6.map(|(address, _)| IpAddr::V6(address)))
    });
    addresses.map(|address| format!("{address}\t{name}\n")).collect()
}

fn push_line(text: &mut String, line: std::fmt::Arguments<'_>) {
    // Writing into a string cannot fail.
    let _infallible = text.write_fmt(line);
}

fn extra_host(line: &str, gateway: Option<IpAddr>) -> Result<(&str, IpAddr), Error> {
    // COMPAT: dockerd's words.
    let bad = || Error::InvalidArgument(format!("bad format for add-host: {line:?}"));
    let (name, address) = line.split_once([':', '=']).ok_or_else(bad)?;
    if name.is_empty() || name.contains(|c: char| c.is_whitespace() || c.is_control() || c == '#') {
        return Err(bad());
    }
    if address == "host-gateway" {
        return gateway.map(|gateway| (name, gateway)).ok_or_else(|| {
            // COMPAT: dockerd's words.
            Error::InvalidArgument("unable to derive the IP value for host-gateway".to_owned())
        });
    }
    let bare = address.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(address);
    let address = bare.parse().map_err(|_| {
        // COMPAT: dockerd's words.
        Error::InvalidArgument(format!("invalid IP address in add-host: {address:?}"))
    })?;
    Ok((name, address))
}

fn host_resolv_conf(host: &HostSide) -> String {
    let text = read_bounded(&host.resolv_conf, MAX_RESOLV_CONF);
    let stub = [IpAddr::V4(Ipv4Addr::new(127, 0, 0, 53))];
    if Resolver::parse(&text).servers == stub && host.upstream_resolv_conf.exists() {
        return read_bounded(&host.upstream_resolv_conf, MAX_RESOLV_CONF);
    }
    text
}

/// What a `resolv.conf` says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Resolver {
    servers: Vec<IpAddr>,
    search: Vec<String>,
    options: Vec<String>,
}

impl Resolver {
    fn parse(text: &str) -> Self {
        let mut resolver = Self::default();
        for line in text.lines() {
            let mut words = line.split(['#', ';']).next().unwrap_or_default().split_whitespace();
            let Some(keyword) = words.next() else { continue };
            let strings =
                |words: std::str::SplitWhitespace<'_>| words.map(ToOwned::to_owned).collect();
            match keyword {
                // A zone (`fe80::1%eth0`) means an interface of the host, which the container does not have.
                "nameserver" => {
                    resolver.servers.extend(words.next().and_then(|w| w.parse::<IpAddr>().ok()));
                }
                "search" | "domain" => resolver.search = strings(words),
                "options" => resolver.options = strings(words),
                _ => {}
            }
        }
        resolver
    }

    /// Leaves out servers that a container cannot reach, and falls back to public ones if none is left.
    fn for_container(mut self, ipv6: bool) -> Self {
        self.servers.retain(|server| !server.is_loopback() && (ipv6 || server.is_ipv4()));
        if self.servers.is_empty() {
            self.servers = FALLBACK.to_vec();
        }
        self
    }

    fn overridden_by(mut self, attach: &Attach) -> Self {
        if !attach.dns.is_empty() {
            self.servers.clone_from(&attach.dns);
        }
        if !attach.dns_search.is_empty() {
            self.search.clone_from(&attach.dns_search);
        }
        if !attach.dns_options.is_empty() {
            self.options.clone_from(&attach.dns_options);
        }
        // COMPAT: a single dot asks for no search list at all.
        self.search.retain(|domain| domain != ".");
        self
    }

    fn text(&self) -> String {
        let mut text =
            "# Written by the container engine when the container started.\n\n".to_owned();
        for server in &self.servers {
            push_line(&mut text, format_args!("nameserver {server}\n"));
        }
        if !self.search.is_empty() {
            push_line(&mut text, format_args!("search {}\n", self.search.join(" ")));
        }
        if !self.options.is_empty() {
            push_line(&mut text, format_args!("options {}\n", self.options.join(" ")));
        }
        text
    }
}

/// What a container is told whose names the resolver of this host serves.
fn embedded(attach: &Attach, host: &HostSide) -> Resolver {
    let mut resolver = Resolver::parse(&host_resolv_conf(host)).overridden_by(attach);
    resolver.servers = vec![IpAddr::V4(crate::dns::ADDRESS)];
    // COMPAT: names without a dot are names of containers first.
    if !resolver.options.iter().any(|option| option.starts_with("ndots:")) {
        resolver.options.push("ndots:0".to_owned());
    }
    resolver
}

/// Whom the resolver asks for a container; the host's own loopback is reached from the host only.
pub(crate) fn upstream(attach: &Attach, host: &HostSide, way_out: bool) -> Vec<Upstream> {
    let of_host = Resolver::parse(&read_bounded(&host.resolv_conf, MAX_RESOLV_CONF)).servers;
    let own = !attach.dns.is_empty();
    let servers = if own { attach.dns.clone() } else { of_host };
    let each = servers
        .into_iter()
        .map(|address| Upstream { address, on_host: !own && address.is_loopback() });
    // An internal network has no way out, so the host must not be one either.
    each.filter(|server| way_out || !server.on_host).collect()
}

fn read_bounded(path: &Path, limit: u64) -> String {
    // A host without the file has nothing to pass on.
    let Ok(file) = fs::File::open(path) else { return String::new() };
    let mut bytes = Vec::new();
    match file.take(limit).read_to_end(&mut bytes) {
        Ok(_) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(_) => String::new(),
    }
}

/// Writes a container's file. Nobody reads it before the container starts, so it needs no detour through a second name.
fn write_in_place(path: &Path, text: &str) -> Result<(), Error> {
    create(path, text).map_err(cannot_write(path))
}

/// Writes `text` so that a reader sees the old file or the new one, never half of it.
pub(crate) fn write_file(path: &Path, text: &str) -> Result<(), Error> {
    let temporary = path.with_extension("tmp");
    create(&temporary, text).and_then(|()| fs::rename(&temporary, path)).map_err(cannot_write(path))
}

fn create(path: &Path, text: &str) -> io::Result<()> {
    let mut options = fs::OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o644).custom_flags(no_follow());
    options.open(path)?.write_all(text.as_bytes())
}

fn cannot_write(path: &Path) -> impl FnOnce(io::Error) -> Error {
    let action = format!("write {}", path.display());
    |source| Error::Os { action, source: source.into() }
}

fn no_follow() -> i32 {
    rustix::fs::OFlags::NOFOLLOW.bits().cast_signed()
}

#[cfg(test)]
mod tests;
