//! A request as handlers see it, and the answers they make.

use http::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderValue};
use http::{Response, StatusCode};
use rorqual_api::ApiVersion;
use rorqual_api::compat::{self, Document};
use rorqual_core::{Filters, Timestamp};
use rorqual_http::{Answer, Body, Query, RequestBody, body};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::error::{ApiError, BadRequest, invalid};

// LIMIT: the largest documents are container requests with long environments; Go's server has no bound, we do.
const LARGEST_DOCUMENT: usize = 8 << 20;

/// Result of a handler.
pub(crate) type Result<T = Answer> = std::result::Result<T, ApiError>;

/// A request.
pub(crate) struct ApiRequest {
    pub(crate) version: ApiVersion,
    pub(crate) params: Vec<(&'static str, String)>,
    pub(crate) query: Query,
    pub(crate) parts: http::request::Parts,
    pub(crate) body: RequestBody,
}

impl ApiRequest {
    /// Returns a value out of the path.
    pub(crate) fn param(&self, name: &str) -> &str {
        self.params.iter().find(|(known, _)| *known == name).map_or("", |(_, value)| value)
    }

    /// Reads the `filters` of the query.
    pub(crate) fn filters(&self) -> Result<Filters> {
        // COMPAT: dockerd's text.
        Filters::from_json(self.query.text("filters")).map_err(|_| invalid("invalid filter").into())
    }

    /// Reads a whole number.
    pub(crate) fn number(&self, name: &str) -> Result<Option<i64>> {
        match self.query.text(name) {
            "" => Ok(None),
            text => text.parse().map(Some).map_err(|_| {
                // COMPAT: the words of Go's parser, which old tests of clients expect.
                invalid(format!("strconv.Atoi: parsing {text:?}: invalid syntax")).into()
            }),
        }
    }

    /// Reads a point in time (`since`, `until`); none and zero are the same.
    pub(crate) fn time(&self, name: &str) -> Result<Option<Timestamp>> {
        match self.query.text(name) {
            "" | "0" => Ok(None),
            text => {
                let parsed = text.parse::<Timestamp>();
                parsed.map(Some).map_err(|error| invalid(error.to_string()).into())
            }
        }
    }

    /// Reads the whole body as JSON, brought up to the newest version; an empty body is `None`.
    pub(crate) async fn value(&mut self, document: Option<Document>) -> Result<Option<Value>> {
        let kind = self.parts.headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
        let kind = kind.unwrap_or_default().to_owned();
        let body = std::mem::replace(&mut self.body, RequestBody::from_bytes(Vec::new()));
        let bytes =
            body.bytes(LARGEST_DOCUMENT).await.map_err(|error| invalid(error.to_string()))?;
        if bytes.is_empty() {
            return Ok(None);
        }
        let media_type = kind.split(';').next().unwrap_or_default().trim();
        if !media_type.is_empty() && !media_type.eq_ignore_ascii_case("application/json") {
            return Err(invalid(format!(
                "unsupported Content-Type header ({kind}): must be 'application/json'"
            ))
            .into());
        }
        let mut value = serde_json::from_slice(&bytes)
            .map_err(|error| invalid(format!("invalid JSON: {error}")))?;
        if let Some(document) = document {
            compat::upgrade(document, self.version, &mut value)
                .map_err(|error| invalid(error.to_string()))?;
        }
        Ok(Some(value))
    }

    /// Reads a JSON body that must be there.
    pub(crate) async fn json<T: DeserializeOwned>(
        &mut self,
        document: Option<Document>,
    ) -> Result<T> {
        let missing = || invalid("invalid JSON: got EOF while reading request body");
        let value = self.value(document).await?.ok_or_else(missing)?;
        from_value(value)
    }

    /// Reads a JSON body that may be missing.
    pub(crate) async fn optional_json<T: DeserializeOwned + Default>(
        &mut self,
        document: Option<Document>,
    ) -> Result<T> {
        self.value(document).await?.map_or_else(|| Ok(T::default()), from_value)
    }

    /// Answers with a JSON document, brought down to the client's version.
    pub(crate) fn answer<T: Serialize>(&self, document: Document, answer: &T) -> Result {
        if self.version >= rorqual_api::MAX {
            return json(StatusCode::OK, answer);
        }
        let mut value = serde_json::to_value(answer).map_err(internal)?;
        compat::downgrade(document, self.version, &mut value);
        json(StatusCode::OK, &value)
    }
}

fn from_value<T: DeserializeOwned>(value: Value) -> Result<T> {
    rorqual_api::from_value(value).map_err(|error| invalid(format!("invalid JSON: {error}")).into())
}

fn internal(error: impl std::fmt::Display) -> ApiError {
    ApiError { status: StatusCode::INTERNAL_SERVER_ERROR, message: error.to_string() }
}

/// Answers with a JSON document as it is.
pub(crate) fn json<T: Serialize>(status: StatusCode, document: &T) -> Result {
    let mut text = serde_json::to_vec(document).map_err(internal)?;
    // COMPAT: Go's encoder ends every document with a line feed.
    text.push(b'\n');
    typed(status, "application/json", body::full(text))
}

/// Answers without a body.
pub(crate) fn empty(status: StatusCode) -> Result {
    let mut response = Response::new(body::empty());
    *response.status_mut() = status;
    if status == StatusCode::OK {
        response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
    }
    Ok(Answer::Response(response))
}

/// Answers with a body of some type.
pub(crate) fn typed(status: StatusCode, kind: &'static str, body: Body) -> Result {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    Ok(Answer::Response(response))
}

/// Makes an error of a bad request.
pub(crate) fn refuse<T>(error: BadRequest) -> Result<T> {
    Err(error.into())
}
