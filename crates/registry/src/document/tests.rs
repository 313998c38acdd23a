use super::*;

const DIGEST: &str = "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a";

fn check(media_type: &str, rest: &str) -> Result<Document, String> {
    let text = format!(r#"{{"schemaVersion":2{rest}}}"#).replace("DIGEST", DIGEST);
    Document::parse(text.as_bytes(), Some(media_type)).map_err(|error| error.to_string())
}

const CONFIG: &str = r#","config":{"mediaType":"a/b","digest":"DIGEST","size":2}"#;

#[test]
fn good_ones() {
    let document = check(media_type::OCI_MANIFEST, CONFIG).unwrap();
    assert_eq!((document.blobs().len(), document.kind().as_deref()), (1, Some("a/b")));
    let foreign = format!(
        r#"{CONFIG},"layers":[{{"mediaType":"x.foreign.y","digest":"DIGEST","size":1,"urls":["https://x"]}}],"annotations":null"#
    );
    assert_eq!(check(media_type::DOCKER_MANIFEST, &foreign).unwrap().blobs().len(), 1);
    let index = r#","manifests":[{"mediaType":"m","digest":"DIGEST","size":1,"platform":{"os":"linux","architecture":"amd64"}}]"#;
    assert_eq!(check(media_type::OCI_INDEX, index).unwrap().manifests().len(), 1);
    assert!(check("application/vnd.oci.image.index.v1+json; charset=utf-8", index).is_ok());
}

#[test]
fn bad_ones() {
    let oci = media_type::OCI_MANIFEST;
    for (media_type, rest, complaint) in [
        (oci, "", "no config"),
        (oci, r#","config":null"#, "no config"),
        (oci, r#","manifests":[]"#, "is it an index"),
        (media_type::OCI_INDEX, CONFIG, "is it a manifest"),
        (media_type::OCI_INDEX, r#","manifests":[],"layers":[]"#, "is it a manifest"),
        (oci, r#","mediaType":"application/vnd.oci.image.index.v1+json""#, "is not the document's"),
        ("text/plain", CONFIG, "not one of a manifest"),
        (oci, r#","config":{"mediaType":"a","digest":"sha256:xyz","size":1}"#, "invalid digest"),
        (oci, r#","config":{"mediaType":"a","digest":"DIGEST","size":-1}"#, "not a manifest"),
        (oci, r#","config":{"mediaType":"a","digest":"DIGEST","size":1e99}"#, "not a manifest"),
        (oci, r#","config":7"#, "not a manifest"),
        (oci, r#","schemaVersion":1"#, "not a manifest"),
    ] {
        let error = check(media_type, rest).unwrap_err();
        assert!(error.contains(complaint), "{rest}: {error}");
    }
    for (text, complaint) in [
        (&b""[..], "not a manifest"),
        (b"[]", "not a manifest"),
        (b"{\"schemaVersion\":1}", "schema version 1"),
        (b"{\"schemaVersion\":3}", "must be 2"),
        (b"\xff\xfe", "not a manifest"),
    ] {
        let error = Document::parse(text, Some(oci)).unwrap_err().to_string();
        assert!(error.contains(complaint), "{error}");
    }
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    assert!(Document::parse(deep.as_bytes(), Some(oci)).is_err());
    let many = format!(
        r#","manifests":[{}]"#,
        vec![r#"{"mediaType":"m","digest":"DIGEST","size":1}"#; 10_001].join(",")
    );
    assert!(check(media_type::OCI_INDEX, &many).unwrap_err().contains("more than"));
}
