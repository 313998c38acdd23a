//! Looking for repositories, by the interface that the default registry has for it and some others copied.

use std::sync::Arc;

use http::{Method, Uri};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use rorqual_core::ErrorKind;
use serde::Deserialize;

use super::endpoint::Purpose;
use super::failure::{Failure, Reason};
use super::session::{Call, Session};
use super::token::Scope;
use super::wire::Wire;
use crate::{Error, SearchRequest, SearchResult};

// LIMIT: an answer; a hundred results are some ten KiB.
const MAX_ANSWER: usize = 4 << 20;
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
        let words = utf8_percent_encode(words, NON_ALPHANUMERIC);
        let text = format!("{}/v1/search?q={words}&n={}", endpoint.base(), request.limit);
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
                let message = format!("registry {host} has no search");
                return Err(Error::Registry { kind: ErrorKind::NotFound, message });
            }
            Err(failure) => return Err(failure.into()),
        }
    }
    Err(last.into())
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
