//! References to git repositories, as build contexts and sources of `ADD` name them: `URL[#ref[:subdir]]` or
//! `URL?key=value&…`.
//!
//! Pure text; whether a repository or a commit exists is not asked.

use crate::GitSource;
use crate::gopath;

/// Why a text that is a git reference cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidGitReference(String);

/// A git reference.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GitReference {
    /// Where to fetch from.
    pub remote: String,
    /// Commit, tag or branch; empty for the default branch.
    pub reference: String,
    /// Directory in the repository; empty for its root.
    pub subdir: String,
    /// The commit that it must be, whole or abbreviated.
    pub checksum: String,
    /// `github.com/x/y`: could be a local path as well, so only build contexts take it.
    pub like_local: bool,
    /// Keep `.git`, when the reference says so or says not.
    pub keep_git_dir: Option<bool>,
    /// Fetch submodules, when the reference says so or says not.
    pub submodules: Option<bool>,
    /// Files get the time of the commit instead of that of the checkout.
    pub commit_times: bool,
    /// `checksum` is trusted and fetched without asking where the reference leads.
    pub fetch_by_commit: bool,
}

impl GitReference {
    /// Reads a reference; `None` when the text is something else: a path, or a URL that is not of a git repository.
    ///
    /// # Errors
    ///
    /// When it is a git reference with a query that means nothing.
    pub fn parse(text: &str) -> Result<Option<Self>, InvalidGitReference> {
        if text.starts_with("./") || text.starts_with("../") {
            return Ok(None);
        }
        let like_local = text.starts_with("github.com/");
        let (bare, fragment) = text.split_once('#').unwrap_or((text, ""));
        let (remote, query) = bare.split_once('?').unwrap_or((bare, ""));
        if !like_local && !is_repository(remote) {
            return Ok(None);
        }
        let mut reference = Self { remote: normal_scheme(remote), like_local, ..Self::default() };
        if !fragment.is_empty() {
            let fragment = percent_decode(fragment).unwrap_or_else(|| fragment.to_owned());
            let (name, subdir) = fragment.split_once(':').unwrap_or((&fragment, ""));
            name.clone_into(&mut reference.reference);
            reference.subdir = gopath::clean(&format!("/{subdir}"))[1..].to_owned();
        }
        reference.read_query(query)?;
        Ok(Some(reference))
    }

    /// The source that fetches it. `keep_git_dir` is what an instruction says besides.
    pub fn source(&self, keep_git_dir: Option<bool>) -> GitSource {
        let remote = match self.like_local {
            true => format!("https://{}", self.remote),
            false => self.remote.clone(),
        };
        let direct = self.fetch_by_commit && !self.checksum.is_empty();
        GitSource {
            remote,
            reference: if direct { self.checksum.clone() } else { self.reference.clone() },
            subdir: self.subdir.clone(),
            checksum: (!self.checksum.is_empty()).then(|| self.checksum.clone()),
            keep_git_dir: self.keep_git_dir.or(keep_git_dir).unwrap_or(false),
            skip_submodules: self.submodules == Some(false),
            commit_times: self.commit_times,
            ..GitSource::default()
        }
    }

    fn read_query(&mut self, query: &str) -> Result<(), InvalidGitReference> {
        let fail = |text: String| Err(InvalidGitReference(text));
        let (mut tag, mut branch) = (String::new(), String::new());
        let mut seen: Vec<String> = Vec::new();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            let (Some(key), Some(value)) = (percent_decode(key), percent_decode(value)) else {
                return fail(format!("invalid escape in query {pair:?}"));
            };
            if seen.contains(&key) {
                return fail(format!("query {key:?} has multiple values"));
            }
            let switch = ["submodules", "keep-git-dir", "fetch-by-commit"].contains(&&*key);
            if value.is_empty() && !switch {
                return fail(format!("query {key:?} has no value"));
            }
            let flag = || {
                let known = if value.is_empty() { Some(true) } else { parse_bool(&value) };
                known.ok_or_else(|| InvalidGitReference(format!("invalid {key} value: {value:?}")))
            };
            match &*key {
                "ref" => settle("ref", &mut self.reference, value)?,
                "subdir" => settle("subdir", &mut self.subdir, value)?,
                "tag" => tag = prefixed("refs/tags/", &value),
                "branch" => branch = prefixed("refs/heads/", &value),
                "checksum" | "commit" => self.checksum = value,
                "keep-git-dir" => self.keep_git_dir = Some(flag()?),
                "submodules" => self.submodules = Some(flag()?),
                "fetch-by-commit" => self.fetch_by_commit = flag()?,
                "mtime" if value == "checkout" => self.commit_times = false,
                "mtime" if value == "commit" => self.commit_times = true,
                "mtime" => {
                    return fail(format!(
                        "invalid mtime value: {value:?} (must be \"checkout\" or \"commit\")"
                    ));
                }
                _ => return fail(format!("unexpected query {key:?}")),
            }
            seen.push(key);
        }
        if !tag.is_empty() && !branch.is_empty() {
            return fail("branch conflicts with tag".to_owned());
        }
        [tag, branch]
            .into_iter()
            .filter(|name| !name.is_empty())
            .try_for_each(|name| settle("ref", &mut self.reference, name))
    }
}

fn settle(what: &str, place: &mut String, value: String) -> Result<(), InvalidGitReference> {
    if !place.is_empty() && *place != value {
        return Err(InvalidGitReference(format!("{what} conflicts: {place:?} vs {value:?}")));
    }
    *place = value;
    Ok(())
}

fn prefixed(prefix: &str, name: &str) -> String {
    if name.starts_with(prefix) { name.to_owned() } else { format!("{prefix}{name}") }
}

/// `http(s)://….git`, `git://…`, `ssh://…`, or `user@host:path`.
fn is_repository(remote: &str) -> bool {
    let Some((scheme, rest)) = remote.split_once("://") else {
        return is_scp_like(remote);
    };
    match &*scheme.to_ascii_lowercase() {
        "http" | "https" => rest
            .split_once('/')
            .is_some_and(|(host, path)| !host.is_empty() && path.strip_suffix(".git").is_some()),
        "git" | "ssh" => !rest.is_empty(),
        _ => false,
    }
}

fn is_scp_like(remote: &str) -> bool {
    let Some((user, rest)) = remote.split_once('@') else { return false };
    let word = |text: &str, more: &str| {
        !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || more.contains(c))
    };
    let Some((host, path)) = rest.split_once(':') else { return false };
    word(user, "_-") && word(host, "_.-") && !path.is_empty()
}

fn normal_scheme(remote: &str) -> String {
    match remote.split_once("://") {
        Some((scheme, rest)) => format!("{}://{rest}", scheme.to_ascii_lowercase()),
        None => remote.to_owned(),
    }
}

/// Reads what Go's `strconv.ParseBool` takes.
pub(crate) fn parse_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

fn percent_decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        rest = tail;
        match first {
            b'%' => {
                let hex = std::str::from_utf8(tail.get(..2)?).ok()?;
                bytes.push(u8::from_str_radix(hex, 16).ok()?);
                rest = &tail[2..];
            }
            b'+' => bytes.push(b' '),
            byte => bytes.push(byte),
        }
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests;
