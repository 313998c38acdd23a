use super::*;

fn check(path: &str) -> String {
    match Route::parse(path) {
        Ok(route) => {
            let name = route.name().map(ToString::to_string).unwrap_or_default();
            format!("{} {name}", route.label())
        }
        Err(error) => error.wire().0.to_owned(),
    }
}

#[test]
fn paths() {
    let hex = "a".repeat(64);
    let id = "0123456789abcdef0123456789abcdef";
    for (path, expected) in [
        ("/v2", "base "),
        ("/v2/", "base "),
        ("/v2/_catalog", "catalog "),
        ("/v2/_oci/ext/discover", "extensions "),
        ("/v2/a/_oci/ext/discover", "extensions a"),
        ("/v2/a/b/tags/list", "tags a/b"),
        ("/v2/a/manifests/latest", "manifest a"),
        ("/v2/manifests/manifests/manifests", "manifest manifests"),
        ("/v2/blobs/uploads/blobs/uploads/", "upload blobs/uploads"),
        ("/v2/tags/list/tags/list", "tags tags/list"),
        (&format!("/v2/a/b/blobs/sha256:{hex}"), "blob a/b"),
        (&format!("/v2/a/b/blobs/sha256%3A{hex}"), "blob a/b"),
        (&format!("/v2/a/blobs/uploads/{id}"), "upload a"),
        (&format!("/v2/a/referrers/sha256:{hex}"), "referrers a"),
        ("/v2/a/blobs/uploads/../../x", "UNSUPPORTED"),
        ("/v2/a/blobs/uploads/nope", "BLOB_UPLOAD_UNKNOWN"),
        ("/v2/A/manifests/latest", "NAME_INVALID"),
        ("/v2/a%2fb/manifests/latest", "NAME_INVALID"),
        ("/v2/../manifests/latest", "NAME_INVALID"),
        ("/v2//manifests/latest", "NAME_INVALID"),
        ("/v2/a/manifests/", "TAG_INVALID"),
        ("/v2/a/manifests/sha256:beef", "DIGEST_INVALID"),
        ("/v2/a/blobs/latest", "DIGEST_INVALID"),
        ("/v2/a", "UNSUPPORTED"),
        ("/v2/a/b/c", "UNSUPPORTED"),
        ("/v3/", "UNSUPPORTED"),
        ("/v2x", "UNSUPPORTED"),
    ] {
        assert_eq!(check(path), expected, "{path}");
    }
}
