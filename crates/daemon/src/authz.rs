//! Authorization plugins: asked before a request is served, and before its answer is sent. Fails closed.
//!
//! COMPAT: Docker's protocol and texts. Unlike there, an answer that is a stream is asked about before its first byte.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap};
use http::request::Parts;
use http::{Response, StatusCode};
use http_body_util::BodyExt as _;
use rorqual_core::full_message;
use rorqual_http::{Answer, Body, PeerCertificates, Request, RequestBody, body};
use rorqual_plugin::Plugins;
use serde::{Deserialize, Serialize};

use crate::error::ApiError;

const SUBSYSTEM: &str = "authz";
/// LIMIT: a larger document is no request of a client; not showing it to plugins would let it pass unseen.
const LARGEST_BODY: usize = 4 << 20;
/// LIMIT: answers whose bodies plugins get to see.
const LARGEST_ANSWER: u64 = 1 << 20;
/// LIMIT: a plugin that takes longer blocks the request.
const PATIENCE: Duration = Duration::from_secs(30);

/// What plugins are asked.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Question {
    #[serde(skip_serializing_if = "String::is_empty")]
    user: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    user_auth_n_method: String,
    request_method: String,
    request_uri: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    request_body: String,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    request_headers: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    request_peer_certificates: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    response_status_code: Option<u16>,
    #[serde(skip_serializing_if = "String::is_empty")]
    response_body: String,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    response_headers: BTreeMap<String, String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Verdict {
    #[serde(default)]
    allow: bool,
    #[serde(default)]
    msg: String,
}

/// The plugins that every request must pass, in order.
pub(crate) struct Authorization {
    plugins: Arc<Plugins>,
    names: RwLock<Arc<[String]>>,
}

/// A request that has passed, until its answer has.
pub(crate) struct Passed {
    names: Arc<[String]>,
    question: Question,
}

impl Authorization {
    pub(crate) fn new(plugins: Arc<Plugins>, names: &[String]) -> Self {
        Self { plugins, names: RwLock::new(names.into()) }
    }

    /// Sets who is asked from now on.
    pub(crate) fn set(&self, names: &[String]) {
        *self.names.write().unwrap_or_else(PoisonError::into_inner) = names.into();
    }

    /// Asks whether a request may be served; `None` when nobody has to be asked.
    pub(crate) async fn request(
        &self,
        request: Request,
    ) -> Result<(Request, Option<Passed>), ApiError> {
        let names = Arc::clone(&self.names.read().unwrap_or_else(PoisonError::into_inner));
        if names.is_empty() {
            return Ok((request, None));
        }
        let Request { parts, mut body } = request;
        let mut question = Question::new(&parts);
        if shows_body(parts.uri.path(), &parts.headers) {
            let bytes = body.bytes(LARGEST_BODY).await.map_err(|error| ApiError {
                status: StatusCode::BAD_REQUEST,
                message: format!("request body cannot be shown to authorization plugins: {error}"),
            })?;
            question.request_body = BASE64_STANDARD.encode(&bytes);
            body = RequestBody::from_bytes(bytes);
        }
        self.ask(&names, "AuthZPlugin.AuthZReq", &question).await?;
        Ok((Request { parts, body }, Some(Passed { names, question })))
    }

    /// Asks whether an answer may be sent.
    pub(crate) async fn answer(&self, passed: Passed, answer: Answer) -> Result<Answer, ApiError> {
        let Passed { names, mut question } = passed;
        let (status, headers, answer) = match answer {
            Answer::Response(response) => {
                let (head, whole, body) = take_body(response, &question.request_uri).await?;
                question.response_body =
                    whole.map_or_else(String::new, |whole| BASE64_STANDARD.encode(whole));
                let (status, headers) = (head.status, head.headers.clone());
                (status, headers, Answer::Response(Response::from_parts(head, body)))
            }
            Answer::File(file) => (file.head.status, file.head.headers.clone(), Answer::File(file)),
            Answer::Hijack(hijack) => {
                (StatusCode::OK, hijack.headers.clone(), Answer::Hijack(hijack))
            }
        };
        question.response_status_code = Some(status.as_u16());
        question.response_headers = shown(&headers);
        self.ask(&names, "AuthZPlugin.AuthZRes", &question).await?;
        Ok(answer)
    }

    /// Asks all, until one refuses.
    async fn ask(
        &self,
        names: &[String],
        method: &str,
        question: &Question,
    ) -> Result<(), ApiError> {
        for name in names {
            let asked = async {
                let plugin = self.plugins.get(name, SUBSYSTEM).await?;
                plugin.call::<Verdict>(method, question, PATIENCE).await
            };
            let verdict = asked.await.map_err(|error| ApiError {
                // COMPAT: dockerd's words and status, here and below.
                status: StatusCode::INTERNAL_SERVER_ERROR,
                message: format!("plugin {name} failed with error: {}", full_message(&error)),
            })?;
            if !verdict.allow {
                let message = format!("authorization denied by plugin {name}: {}", verdict.msg);
                return Err(ApiError { status: StatusCode::FORBIDDEN, message });
            }
        }
        Ok(())
    }
}

impl Question {
    fn new(parts: &Parts) -> Self {
        let certificates = parts.extensions.get::<PeerCertificates>();
        let chain = certificates.map_or(&[][..], |certificates| &certificates.0);
        let (user, method) = match chain.first() {
            Some(own) => (common_name(own).unwrap_or_default(), "TLS"),
            None => (String::new(), ""),
        };
        let uri = parts.uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
        Self {
            user,
            user_auth_n_method: method.to_owned(),
            request_method: parts.method.to_string(),
            request_uri: uri.to_owned(),
            request_headers: shown(&parts.headers),
            request_peer_certificates: chain
                .iter()
                .map(|one| BASE64_STANDARD.encode(pem(one)))
                .collect(),
            ..Self::default()
        }
    }
}

/// Tells whether plugins see a body: documents, but no passwords.
fn shows_body(path: &str, headers: &HeaderMap) -> bool {
    let versioned =
        path.strip_prefix("/v").filter(|rest| rest.starts_with(|c: char| c.is_ascii_digit()));
    let path = versioned.and_then(|rest| rest.find('/').map(|at| &rest[at..])).unwrap_or(path);
    if path == "/auth" || path.starts_with("/auth/") {
        return false;
    }
    let kind = headers.get(CONTENT_TYPE).map(|kind| kind.to_str().unwrap_or_default());
    // Handlers take documents without a type too.
    kind.is_none_or(|kind| {
        kind.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case("application/json")
    })
}

/// What plugins see of headers: no passwords, and of several of one name the last.
fn shown(headers: &HeaderMap) -> BTreeMap<String, String> {
    let secret = ["x-registry-auth", "x-registry-config", AUTHORIZATION.as_str()];
    let open = headers.iter().filter(|(name, _)| !secret.contains(&name.as_str()));
    open.map(|(name, value)| {
        (canonical(name.as_str()), String::from_utf8_lossy(value.as_bytes()).into_owned())
    })
    .collect()
}

/// Writes `content-type` as `Content-Type`, as plugins know it.
fn canonical(name: &str) -> String {
    let word = |word: &str| match word.split_at_checked(1) {
        Some((first, rest)) => first.to_ascii_uppercase() + rest,
        None => String::new(),
    };
    name.split('-').map(word).collect::<Vec<_>>().join("-")
}

type Taken = (http::response::Parts, Option<Bytes>, Body);

/// Takes the body of an answer that is a whole document.
async fn take_body(response: Response<Body>, uri: &str) -> Result<Taken, ApiError> {
    let (head, rest) = response.into_parts();
    let size = http_body::Body::size_hint(&rest).exact();
    let path = uri.split('?').next().unwrap_or_default();
    let is_document = head.headers.contains_key(CONTENT_TYPE) && shows_body(path, &head.headers);
    if !is_document || size.is_none_or(|size| size > LARGEST_ANSWER) {
        return Ok((head, None, rest));
    }
    let whole = rest.collect().await.map_err(|error| ApiError {
        status: StatusCode::INTERNAL_SERVER_ERROR,
        message: format!("cannot read the answer for authorization plugins: {error}"),
    })?;
    let whole = whole.to_bytes();
    Ok((head, Some(whole.clone()), body::full(whole)))
}

fn pem(certificate: &[u8]) -> String {
    let text = BASE64_STANDARD.encode(certificate);
    let lines = text.as_bytes().chunks(64).map(|line| String::from_utf8_lossy(line) + "\n");
    format!("-----BEGIN CERTIFICATE-----\n{}-----END CERTIFICATE-----\n", lines.collect::<String>())
}

/// Finds the common name of a certificate's subject.
fn common_name(certificate: &[u8]) -> Option<String> {
    const SEQUENCE: u8 = 0x30;
    const VERSION: u8 = 0xa0;
    const COMMON_NAME: &[u8] = &[0x55, 0x04, 0x03];
    let mut outer = Values(certificate);
    let mut certificate = Values(outer.next_of(SEQUENCE)?);
    let mut fields = Values(certificate.next_of(SEQUENCE)?);
    // Version (if there is one), serial number, algorithm, issuer, validity.
    let (first, _) = fields.next()?;
    let before = if first == VERSION { 4 } else { 3 };
    for _ in 0..before {
        fields.next()?;
    }
    let subject = Values(fields.next_of(SEQUENCE)?);
    let mut found = None;
    for (_, set) in subject {
        for (_, attribute) in Values(set) {
            let mut attribute = Values(attribute);
            let (Some((_, kind)), Some((_, value))) = (attribute.next(), attribute.next()) else {
                continue;
            };
            // COMPAT: of several, the last counts.
            if kind == COMMON_NAME {
                found = Some(String::from_utf8_lossy(value).into_owned());
            }
        }
    }
    found
}

/// The values one after the other in DER, with their tags.
struct Values<'a>(&'a [u8]);

impl<'a> Values<'a> {
    fn next_of(&mut self, tag: u8) -> Option<&'a [u8]> {
        self.next().filter(|(found, _)| *found == tag).map(|(_, value)| value)
    }
}

impl<'a> Iterator for Values<'a> {
    type Item = (u8, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let (&tag, rest) = self.0.split_first()?;
        let (&short, rest) = rest.split_first()?;
        let (length, rest) = if short < 0x80 {
            (usize::from(short), rest)
        } else {
            // LIMIT: no value of a certificate needs more than four bytes of length.
            let bytes = usize::from(short & 0x7f);
            let (length, rest) =
                rest.split_at_checked(bytes).filter(|_| (1..=4).contains(&bytes))?;
            (length.iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte)), rest)
        };
        let (value, rest) = rest.split_at_checked(length)?;
        self.0 = rest;
        Some((tag, value))
    }
}

#[cfg(test)]
mod tests;
