//! Looking for repositories, by the interface that the default registry has for it and some others copied; where a registry has none,
//! in the list of all its repositories.

use std::sync::Arc;

use http::{Method, Uri};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use rorqual_core::{ErrorKind, Repository};
use serde::Deserialize;

use super::endpoint::Purpose;
use super::failure::{Failure, Reason};
use super::session::{Call, Session};
use super::token::Scope;
use super::wire::Wire;
use crate::{Error, SearchRequest, SearchResult};

// LIMIT: an answer; a hundred results are some ten KiB.
const MAX_ANSWER: usize = 4 << 20;
// LIMIT: names of a page of a registry's list, and pages that are looked through.
const PAGE: usize = 1000;
const PAGES: usize = 50;
/// COMPAT: the default registry searches under another name than it serves images.
const HUB: &str = "index.docker.io";

#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    results: Vec<Found>,
}

#[derive(Deserialize)]
struct Found {
    name: String,
    #[serde(default)]
    description: Option<String>,
    #[serde(default)]
    star_count: u64,
    #[serde(default)]
    is_official: bool,
}

#[derive(Deserialize)]
struct Catalog {
    #[serde(default)]
    repositories: Option<Vec<String>>,
}

/// Splits `host/words`; words alone are for the default registry.
fn split(term: &str) -> (&str, &str) {
    match term.split_once('/') {
        Some((host, rest)) if host.contains(['.', ':']) || host == "localhost" => (host, rest),
        _ => ("docker.io", term),
    }
}

/// Looks for repositories.
pub(super) async fn search(
    wire: &Arc<Wire>,
    request: SearchRequest,
) -> Result<Vec<SearchResult>, Error> {
    let (host, words) = split(&request.term);
    let repository = format!("{host}/search").parse().map_err(|_| Error::Registry {
        kind: ErrorKind::InvalidArgument,
        message: format!("{host:?} is not a registry: need host[:port]"),
    })?;
    let mut last = Failure::new(Reason::Unreachable, format!("no way to {host}"));
    for mut endpoint in wire.endpoints(&repository, Purpose::Write).await? {
        if host == "docker.io" {
            HUB.clone_into(&mut endpoint.authority);
        }
        let base = endpoint.base();
        let encoded = utf8_percent_encode(words, NON_ALPHANUMERIC);
        let text = format!("{base}/v1/search?q={encoded}&n={}", request.limit);
        let uri: Uri = text.parse().map_err(|_| Failure::new(Reason::Invalid, "not an address"))?;
        let auth = request.auth.clone();
        let session = Session::new(Arc::clone(wire), endpoint, "search", auth, Scope::default());
        let found = async {
            let answer = session.call(Call::new(Method::GET, uri)).await?;
            wire.read(answer.into_body(), MAX_ANSWER).await
        };
        match found.await {
            Ok(bytes) => return read(&bytes, host).map_err(Error::from),
            Err(failure) if session.is_open(&failure) => last = failure,
            Err(failure) if failure.reason == Reason::Unknown => {
                return listed(&session, wire, &base, words, request.limit)
                    .await
                    .map(|names| names.iter().map(|name| result_of(host, name)).collect())
                    .map_err(|failure| {
                        let message = format!(
                            "registry {host} has no search, and does not list its repositories: {failure}"
                        );
                        Error::Registry { kind: ErrorKind::NotFound, message }
                    });
            }
            Err(failure) => return Err(failure.into()),
        }
    }
    Err(last.into())
}

fn result_of(host: &str, name: &str) -> SearchResult {
    SearchResult { name: format!("{host}/{name}"), ..SearchResult::default() }
}

/// Lists the repositories whose names contain all words.
async fn listed(
    session: &Session,
    wire: &Wire,
    base: &str,
    words: &str,
    limit: u32,
) -> Result<Vec<String>, Failure> {
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let words: Vec<String> = words.split_whitespace().map(str::to_lowercase).collect();
    let (mut found, mut last) = (Vec::new(), String::new());
    for _ in 0..PAGES {
        let mut text = format!("{base}/v2/_catalog?n={PAGE}");
        if !last.is_empty() {
            text.push_str(&format!("&last={}", utf8_percent_encode(&last, NON_ALPHANUMERIC)));
        }
        let uri: Uri = text.parse().map_err(|_| Failure::new(Reason::Invalid, "not an address"))?;
        let answer = session.call(Call::new(Method::GET, uri)).await?;
        let bytes = wire.read(answer.into_body(), MAX_ANSWER).await?;
        let page: Catalog = serde_json::from_slice(&bytes).map_err(|error| {
            Failure::new(Reason::Untrusted, format!("its list cannot be read: {error}"))
        })?;
        let names = page.repositories.unwrap_or_default();
        // What is no name is not shown; one that was asked for before is the end.
        let Some(end) = names.last().filter(|end| **end > last).cloned() else { break };
        let fits = |name: &String| {
            words.iter().all(|word| name.contains(word)) && name.parse::<Repository>().is_ok()
        };
        found.extend(names.into_iter().filter(fits));
        if found.len() >= limit {
            found.truncate(limit);
            break;
        }
        last = end;
    }
    Ok(found)
}

fn read(bytes: &[u8], host: &str) -> Result<Vec<SearchResult>, Failure> {
    let answer = serde_json::from_slice::<Answer>(bytes).map_err(|error| {
        Failure::new(Reason::Untrusted, format!("what {host} found cannot be read: {error}"))
    })?;
    // What a stranger wrote is shown on terminals.
    let plain = |text: String| text.chars().filter(|char| !char.is_control()).collect::<String>();
    let result = |found: Found| SearchResult {
        name: plain(if host == "docker.io" {
            found.name
        } else {
            format!("{host}/{}", found.name)
        }),
        description: plain(found.description.unwrap_or_default()),
        stars: found.star_count,
        official: found.is_official,
    };
    Ok(answer.results.into_iter().map(result).collect())
}
