//! Answers of registries in words.

use http::StatusCode;

use super::{Reason, read};

#[test]
fn bodies_of_bad_answers_are_read() {
    let cases = [
        (
            404,
            r#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown","detail":{"Tag":"x"}}]}"#,
            Reason::Unknown,
            "manifest unknown: manifest unknown",
            false,
        ),
        (
            401,
            r#"{"errors":[{"code":"DENIED","message":"requested access to the resource is denied"}]}"#,
            Reason::Denied,
            "denied: requested access to the resource is denied",
            false,
        ),
        (
            401,
            r#"{"details":"incorrect username or password"}"#,
            Reason::Unauthorized,
            "incorrect username or password (401 Unauthorized)",
            false,
        ),
        (
            403,
            "<html>",
            Reason::Denied,
            "denied: requested access to the resource is denied",
            false,
        ),
        (429, "", Reason::Busy, "toomanyrequests: the registry wants fewer requests", true),
        (
            503,
            "",
            Reason::Broken,
            "unexpected status from the registry: 503 Service Unavailable",
            true,
        ),
        (
            400,
            r#"{"errors":[{"code":"MANIFEST_INVALID","message":"bad\u001b[2J"}]}"#,
            Reason::Invalid,
            "manifest invalid: bad[2J",
            false,
        ),
        (404, "", Reason::Unknown, "unexpected status from the registry: 404 Not Found", false),
    ];
    for (status, body, reason, text, transient) in cases {
        let failure = read(StatusCode::from_u16(status).unwrap(), body.as_bytes());
        assert_eq!(
            (failure.reason, failure.text.as_str(), failure.transient),
            (reason, text, transient)
        );
    }
}
