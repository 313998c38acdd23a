//! Where a redirect or an upload's location leads.

use http::Uri;

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
