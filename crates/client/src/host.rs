//! Addresses of daemons: `unix://`, `tcp://`, `http(s)://`, `ssh://`.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// A text that is not the address of a daemon.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
// COMPAT: docker's texts.
#[error("{}", if .0.contains("://") { format!("invalid bind address format: {}", .0) } else { format!("unable to parse docker host `{}`", .0) })]
pub struct InvalidHost(pub String);

/// Where a daemon listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Host {
    /// A socket file.
    Unix(PathBuf),
    /// `host:port`; encrypted when TLS is configured.
    Tcp {
        /// `host:port`
        address: String,
        /// A path in front of the API's, as behind a proxy.
        base: String,
        /// Whether the scheme itself asks for TLS.
        https: bool,
    },
    /// A command on another machine that carries the connection on its standard streams.
    Ssh {
        /// What ssh is called with: `user@host`.
        target: String,
        /// `-p`
        port: Option<u16>,
        /// Socket on the far side; its default when empty.
        socket: String,
    },
}

impl FromStr for Host {
    type Err = InvalidHost;

    fn from_str(text: &str) -> Result<Self, InvalidHost> {
        let invalid = || InvalidHost(text.to_owned());
        let (scheme, rest) = text.split_once("://").ok_or_else(invalid)?;
        if rest.is_empty() {
            return Err(invalid());
        }
        match scheme {
            "unix" => Ok(Self::Unix(PathBuf::from(rest))),
            "tcp" | "http" | "https" => Ok(tcp(scheme, rest)),
            "ssh" => ssh(rest).ok_or_else(invalid),
            _ => Err(invalid()),
        }
    }
}

fn tcp(scheme: &str, rest: &str) -> Host {
    let (authority, base) = rest.split_once('/').unwrap_or((rest, ""));
    let has_port = authority.rsplit_once(':').is_some_and(|(_, port)| !port.contains(']'));
    let address = match (has_port, scheme) {
        (true, _) => authority.to_owned(),
        (false, "tcp") => format!("{authority}:2375"),
        (false, "https") => format!("{authority}:443"),
        (false, _) => format!("{authority}:80"),
    };
    let base = base.trim_end_matches('/');
    let base = if base.is_empty() { String::new() } else { format!("/{base}") };
    Host::Tcp { address, base, https: scheme == "https" }
}

fn ssh(rest: &str) -> Option<Host> {
    let (authority, socket) = match rest.split_once('/') {
        Some((authority, path)) => (authority, format!("/{path}")),
        None => (rest, String::new()),
    };
    let (user, host) = match authority.rsplit_once('@') {
        Some((user, host)) => (Some(user), host),
        None => (None, authority),
    };
    let (host, port) = match host.rsplit_once(':') {
        Some((host, port)) if !host.is_empty() && !port.contains(']') => {
            (host, Some(port.parse().ok()?))
        }
        _ => (host, None),
    };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    // A name with a leading dash would be an option of ssh.
    let unsafe_word = |word: &str| word.is_empty() || word.starts_with('-');
    if unsafe_word(host) || user.is_some_and(|user| unsafe_word(user) || user.contains(':')) {
        return None;
    }
    let target = user.map_or_else(|| host.to_owned(), |user| format!("{user}@{host}"));
    let socket = if socket == "/" { String::new() } else { socket };
    Some(Host::Ssh { target, port, socket })
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
            Self::Tcp { address, base, https } => {
                write!(f, "{}://{address}{base}", if *https { "https" } else { "tcp" })
            }
            Self::Ssh { target, port: Some(port), socket } => {
                write!(f, "ssh://{target}:{port}{socket}")
            }
            Self::Ssh { target, port: None, socket } => write!(f, "ssh://{target}{socket}"),
        }
    }
}

#[cfg(test)]
mod tests;
