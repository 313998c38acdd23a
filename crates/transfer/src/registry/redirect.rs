//! Where a redirect or an upload's location leads.

use http::header::LOCATION;
use http::{Response, Uri};

use super::failure::{Failure, Reason};

// LIMIT: redirects of one request; as browsers and Go's client.
const MAX_REDIRECTS: usize = 10;

/// Finds where an answer leads, the `redirects`th of one request.
pub(super) fn follow<B>(
    answer: &Response<B>,
    from: &Uri,
    redirects: usize,
    verify: bool,
) -> Result<Uri, Failure> {
    let untrusted = |text: String| Failure::new(Reason::Untrusted, text);
    if redirects > MAX_REDIRECTS {
        return Err(untrusted(format!("stopped after {MAX_REDIRECTS} redirects")));
    }
    let location = answer.headers().get(LOCATION).and_then(|value| value.to_str().ok());
    let nowhere = || untrusted(format!("{} without a location", answer.status()));
    let location = location.ok_or_else(nowhere)?;
    let uri = resolve(from, location);
    let uri = uri.ok_or_else(|| untrusted(format!("redirect to {location:?}: not an address")))?;
    if verify && from.scheme_str() == Some("https") && uri.scheme_str() == Some("http") {
        let host = uri.host().unwrap_or_default();
        return Err(untrusted(format!("redirect from https to plain http at {host}: refused")));
    }
    Ok(uri)
}

/// Resolves a `Location` against the address of its request; `None` for what is no address of the web.
pub(super) fn resolve(base: &Uri, location: &str) -> Option<Uri> {
    let location = location.split('#').next().unwrap_or_default();
    let scheme = base.scheme_str()?;
    let authority = base.authority()?;
    let text = if location.starts_with("http://") || location.starts_with("https://") {
        location.to_owned()
    } else if let Some(rest) = location.strip_prefix("//") {
        format!("{scheme}://{rest}")
    } else if location.contains("://") {
        return None;
    } else if location.starts_with('/') {
        format!("{scheme}://{authority}{location}")
    } else if location.starts_with('?') {
        format!("{scheme}://{authority}{}{location}", base.path())
    } else {
        let (folder, _) = base.path().rsplit_once('/').unwrap_or_default();
        format!("{scheme}://{authority}{folder}/{location}")
    };
    let uri = text.parse::<Uri>().ok()?;
    // An address with credentials in it is none that a registry has to give.
    let plain = uri.authority().is_some_and(|authority| !authority.as_str().contains('@'));
    plain.then_some(uri)
}

/// Tells whether two addresses are of one server, so that what is meant for one may be told to the other.
pub(super) fn same_server(a: &Uri, b: &Uri) -> bool {
    let port = |uri: &Uri| {
        uri.port_u16().unwrap_or(if uri.scheme_str() == Some("http") { 80 } else { 443 })
    };
    let host = |uri: &Uri| uri.host().map(str::to_ascii_lowercase);
    host(a) == host(b) && port(a) == port(b) && a.scheme_str() == b.scheme_str()
}

#[cfg(test)]
mod tests;
