//! The Engine API as a service: version check, route, handler, headers.

use std::sync::Arc;

use http::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use http::request::Parts;
use http::{Method, Response, StatusCode};
use rorqual_api::message::ErrorResponse;
use rorqual_api::{ApiVersion, MAX, MIN};
use rorqual_http::{Answer, Body, BoxFuture, Query, Request, Router, Service, body};

use crate::context::Context;
use crate::error::ApiError;
use crate::request::ApiRequest;
use crate::rest::Requests;
use crate::routes::{self, Handler};

/// Serves the Engine API.
pub(crate) struct Api {
    context: Arc<Context>,
    router: Router<Handler>,
    requests: Requests,
}

impl Api {
    pub(crate) fn new(context: Arc<Context>, requests: Requests) -> Self {
        Self { context, router: routes::router(), requests }
    }

    /// Answers what authorization plugins let pass.
    async fn authorized(self: Arc<Self>, request: Request) -> Answer {
        let (method, path) = (request.parts.method.clone(), request.parts.uri.path().to_owned());
        let refused = |error: ApiError| {
            report(&method, &path, &error);
            Answer::Response(self.headed(error_response(&error)))
        };
        let authorization = &self.context.authorization;
        let (request, passed) = match authorization.request(request).await {
            Ok(asked) => asked,
            Err(error) => return refused(error),
        };
        let answer = Arc::clone(&self).answer(request).await;
        let Some(passed) = passed else { return answer };
        authorization.answer(passed, answer).await.unwrap_or_else(refused)
    }

    async fn answer(self: Arc<Self>, request: Request) -> Answer {
        self.requests.count();
        let Request { parts, body } = request;
        if parts.method == Method::OPTIONS {
            return Answer::Response(self.headed(plain(StatusCode::OK, body::empty())));
        }
        let path = parts.uri.path();
        let version = match check_version(Router::<Handler>::version(path)) {
            Ok(version) => version,
            Err(refusal) => return Answer::Response(self.headed(*refusal)),
        };
        let Some(found) = self.router.find(&parts.method, path) else {
            // COMPAT: no other headers here.
            let error =
                ApiError { status: StatusCode::NOT_FOUND, message: "page not found".to_owned() };
            return Answer::Response(error_response(&error));
        };
        let handler = *found.route;
        let request = ApiRequest {
            version,
            params: found.params,
            query: Query::parse(parts.uri.query().unwrap_or_default()),
            parts,
            body,
        };
        let (method, path) = (request.parts.method.clone(), request.parts.uri.path().to_owned());
        match handler(Arc::clone(&self.context), request).await {
            Ok(Answer::Response(response)) => Answer::Response(self.headed(response)),
            Ok(Answer::File(file)) => Answer::Response(self.headed(file.into_response())),
            Ok(Answer::Hijack(mut hijack)) => {
                hijack.headers.extend(self.common_headers());
                Answer::Hijack(hijack)
            }
            Err(error) => {
                report(&method, &path, &error);
                Answer::Response(self.headed(error_response(&error)))
            }
        }
    }

    fn common_headers(&self) -> HeaderMap {
        let mut headers = HeaderMap::new();
        let experimental = if self.context.settings().experimental { "true" } else { "false" };
        for (name, value) in [
            ("api-version", MAX.to_string()),
            ("docker-experimental", experimental.to_owned()),
            ("ostype", "linux".to_owned()),
            ("server", format!("Rorqual/{} (linux)", env!("CARGO_PKG_VERSION"))),
        ] {
            if let Ok(value) = HeaderValue::try_from(value) {
                headers.insert(HeaderName::from_static(name), value);
            }
        }
        headers
    }

    fn headed(&self, mut response: Response<Body>) -> Response<Body> {
        for (name, value) in self.common_headers() {
            if let Some(name) = name {
                response.headers_mut().entry(name).or_insert(value);
            }
        }
        response
    }
}

impl Service for Api {
    fn may_hijack(&self, head: &Parts) -> bool {
        let path = head.uri.path();
        head.headers.contains_key(http::header::UPGRADE)
            || head.method == Method::POST
                && (path.ends_with("/attach")
                    || path.contains("/exec/") && path.ends_with("/start"))
    }

    fn call(self: Arc<Self>, request: Request) -> BoxFuture<Answer> {
        Box::pin(self.authorized(request))
    }
}

fn plain(status: StatusCode, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response
}

/// Makes the JSON answer of an error.
pub(crate) fn error_response(error: &ApiError) -> Response<Body> {
    let document = ErrorResponse { message: error.message.trim().to_owned() };
    let mut text = serde_json::to_vec(&document).unwrap_or_default();
    text.push(b'\n');
    let mut response = plain(error.status, body::full(text));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// Whoever handles an error logs it; mistakes of clients are no news.
fn report(method: &Method, path: &str, error: &ApiError) {
    let ApiError { status, message } = error;
    if status.is_server_error() {
        tracing::error!(%method, path, status = status.as_u16(), "{message}");
    } else {
        tracing::debug!(%method, path, status = status.as_u16(), "{message}");
    }
}

fn check_version(text: Option<&str>) -> Result<ApiVersion, Box<Response<Body>>> {
    let Some(text) = text else { return Ok(MAX) };
    let bad = |message: String| {
        let error = ApiError { status: StatusCode::BAD_REQUEST, message };
        Box::new(error_response(&error))
    };
    // A bare `v1` has no minor version and is as old as can be.
    let version = text.parse().or_else(|_| format!("{text}.0").parse::<ApiVersion>());
    let version = version.map_err(|error| bad(error.to_string()))?;
    // COMPAT: clients look for both texts; the second comes as plain text.
    if version > MAX {
        return Err(bad(format!(
            "client version {text} is too new. Maximum supported API version is {MAX}"
        )));
    }
    if version < MIN {
        let mut response = plain(
            StatusCode::BAD_REQUEST,
            body::full(format!(
                "client version {text} is too old. Minimum supported API version is {MIN}, please upgrade your client \
                 to a newer version\n"
            )),
        );
        let kind = HeaderValue::from_static("text/plain; charset=utf-8");
        response.headers_mut().insert(CONTENT_TYPE, kind);
        return Err(Box::new(response));
    }
    Ok(version)
}
