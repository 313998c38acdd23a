use super::{document, words};
use crate::error::invalid;

#[test]
fn words_and_documents_are_read() {
    let shown = |platform: Option<rorqual_core::Platform>| platform.map(|one| one.to_string());
    assert_eq!(words("").map(shown), Ok(None));
    assert_eq!(words("arm64").map(shown), Ok(Some("linux/arm64/v8".to_owned())));
    assert_eq!(document("").map(shown), Ok(None));
    let text = r#"{"os":"linux","architecture":"arm","variant":"v6"}"#;
    assert_eq!(document(text).map(shown), Ok(Some("linux/arm/v6".to_owned())));
}

#[test]
fn what_is_no_document_is_refused_with_the_reason() {
    for (text, reason) in [
        ("x", "failed to parse platform: invalid character 'x' looking for beginning of value"),
        ("{", "failed to parse platform: unexpected end of JSON input"),
        (r#"{"os":"linux"}"#, "both OS and Architecture must be provided"),
        ("{}", "both OS and Architecture must be provided"),
        (
            r#"{"variant":"v7"}"#,
            "optional platform components provided, but OS and Architecture are missing",
        ),
    ] {
        assert_eq!(document(text), Err(invalid(reason)), "{text}");
    }
}
