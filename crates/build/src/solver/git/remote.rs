//! Which repositories may be fetched, and what they say they have. Pure.

use crate::Error;

/// A place that a repository is fetched from.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Remote {
    pub(super) host: String,
    pub(super) is_ssh: bool,
    /// `https://host[:port]/`, where credentials are for; only of HTTP.
    pub(super) site: Option<String>,
}

/// A commit that a repository offers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Advertised {
    /// Whole name of the reference; empty where a commit was asked for by its own name.
    pub(super) name: String,
    pub(super) commit: String,
}

impl Remote {
    /// Reads a remote; refuses what would be a path of this host or a program.
    pub(super) fn parse(text: &str) -> Result<Self, Error> {
        let refused = |why: &str| Error::Invalid {
            message: format!("cannot fetch the git repository {text:?}: {why}"),
            location: None,
        };
        if text.starts_with('-') || text.chars().any(char::is_control) {
            return Err(refused("that is no address"));
        }
        let Some((scheme, rest)) = text.split_once("://") else {
            // `user@host:path`
            let (to, path) = text.split_once(':').ok_or_else(|| refused("that is no address"))?;
            let host = to.rsplit_once('@').map_or(to, |(_, host)| host);
            if host.is_empty() || host.starts_with('-') || to.contains('/') || path.starts_with(':')
            {
                return Err(refused("that is no address"));
            }
            return Ok(Self { host: host.to_owned(), is_ssh: true, site: None });
        };
        let authority = rest.split('/').next().unwrap_or_default();
        let place = authority.rsplit_once('@').map_or(authority, |(_, place)| place);
        let bracket = place.find(']').map_or(0, |at| at + 1);
        let end = place[bracket..].find(':').map_or(place.len(), |at| bracket + at);
        let host = &place[..end];
        if host.is_empty() || host.starts_with('-') || authority.starts_with('-') {
            return Err(refused("it has no host"));
        }
        let remote = |is_ssh, site| Self { host: host.to_owned(), is_ssh, site };
        match scheme {
            "http" | "https" => Ok(remote(false, Some(format!("{scheme}://{place}/")))),
            "git" => Ok(remote(false, None)),
            "ssh" => Ok(remote(true, None)),
            _ => Err(refused("only http, https, git and ssh are fetched from")),
        }
    }
}

/// Refuses names that no reference has, and those that would be options.
pub(super) fn check_reference(name: &str) -> Result<(), Error> {
    let odd = |c: char| c.is_control() || c.is_whitespace() || "~^:?*[\\".contains(c);
    if name.starts_with('-') || name.contains("..") || name.contains(odd) || name.len() > 1024 {
        let message = format!("invalid git reference {name:?}");
        return Err(Error::Invalid { message, location: None });
    }
    Ok(())
}

/// Tells whether it is the whole name of a commit.
pub(super) fn is_commit(name: &str) -> bool {
    matches!(name.len(), 40 | 64) && name.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Chooses what a name means of the lines that `git ls-remote` prints: a branch before a tag, of a tag the commit below it.
pub(super) fn choose(listed: &str, name: &str) -> Option<Advertised> {
    let lines = listed.lines().filter_map(|line| line.split_once('\t'));
    let all = lines.filter(|(commit, _)| is_commit(commit)).collect::<Vec<_>>();
    let candidates = [name.to_owned(), format!("refs/heads/{name}"), format!("refs/tags/{name}")];
    candidates.into_iter().find_map(|whole| {
        let named = |wanted: &str| all.iter().find(|(_, name)| *name == wanted);
        let (commit, _) = named(&format!("{whole}^{{}}")).or_else(|| named(&whole))?;
        Some(Advertised { commit: (*commit).to_owned(), name: whole })
    })
}

#[cfg(test)]
mod tests;
