//! The registry as a service: who asks, which part answers, what is logged and counted.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{self, HeaderName, HeaderValue};
use http::request::Parts;
use http::{HeaderMap, Method, Response, StatusCode};
use rorqual_core::full_message;
use rorqual_http::{Answer, BoxFuture, Peer, Request, Service, body};

use crate::auth::{Actor, Auth};
use crate::config::Config;
use crate::error::{Error, Result};
use crate::limit::Buckets;
use crate::metrics::Metrics;
use crate::notify::{self, Notifier, Source};
use crate::proxy::Proxy;
use crate::repository::Repositories;
use crate::{api, web};

/// Everything that answers requests.
pub(crate) struct App {
    pub(crate) config: Arc<Config>,
    pub(crate) repositories: Arc<Repositories>,
    pub(crate) auth: Auth,
    pub(crate) buckets: Option<Buckets>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) notifier: Notifier,
    pub(crate) proxy: Option<Proxy>,
}

/// One request being answered.
pub(crate) struct Exchange {
    pub(crate) parts: Parts,
    pub(crate) peer: Option<Peer>,
    pub(crate) id: String,
    pub(crate) actor: Actor,
    /// For metrics.
    pub(crate) route: &'static str,
}

impl Exchange {
    pub(crate) fn header(&self, name: &HeaderName) -> Option<&str> {
        self.parts.headers.get(name).and_then(|value| value.to_str().ok())
    }

    pub(crate) fn query(&self) -> rorqual_http::Query {
        rorqual_http::Query::parse(self.parts.uri.query().unwrap_or_default())
    }

    /// Tells notifications who it was.
    pub(crate) fn source(&self, is_tls: bool) -> Source {
        let text = |name: &HeaderName| self.header(name).unwrap_or_default().to_owned();
        Source {
            id: self.id.clone(),
            address: self
                .peer
                .and_then(Peer::address)
                .map(|address| address.to_string())
                .unwrap_or_default(),
            host: text(&header::HOST),
            method: self.parts.method.to_string(),
            agent: text(&header::USER_AGENT),
            user: self.actor.name().to_owned(),
            scheme: if is_tls { "https" } else { "http" },
        }
    }
}

/// Says who was asked in the header of HTTP/1.1 where HTTP/2 says it in the address (RFC 9113, section 8.3.1).
fn name_host(parts: &mut Parts) {
    let authority =
        parts.uri.authority().and_then(|host| HeaderValue::from_str(host.as_str()).ok());
    if let Some(authority) = authority {
        parts.headers.entry(header::HOST).or_insert(authority);
    }
}

/// Makes an answer.
pub(crate) fn answer(
    status: StatusCode,
    headers: impl IntoIterator<Item = (HeaderName, String)>,
    bytes: impl Into<Bytes>,
) -> Response<rorqual_http::Body> {
    let mut response = Response::new(body::full(bytes));
    *response.status_mut() = status;
    for (name, value) in headers {
        // What could not be a header was never one of ours.
        if let Ok(value) = HeaderValue::try_from(value) {
            response.headers_mut().append(name, value);
        }
    }
    response
}

/// Makes the answer of a failure.
pub(crate) fn refusal(error: &Error, id: &str) -> Response<rorqual_http::Body> {
    let (code, status) = error.wire();
    let message = if status.is_server_error() {
        // The log has the causes under the same id; clients are told no paths.
        format!("{error} (request {id})")
    } else {
        full_message(error)
    };
    let document =
        serde_json::json!({"errors": [{"code": code, "message": message, "detail": null}]});
    let mut headers = vec![(header::CONTENT_TYPE, "application/json".to_owned())];
    match error {
        Error::Unauthorized { challenge, .. } => {
            headers.push((header::WWW_AUTHENTICATE, challenge.clone()));
        }
        Error::TooMany { retry_after, .. } => {
            let seconds = retry_after.as_secs_f64().ceil().max(1.0);
            headers.push((header::RETRY_AFTER, format!("{seconds}")));
        }
        _ => {}
    }
    answer(status, headers, document.to_string())
}

impl App {
    pub(crate) fn is_tls(&self) -> bool {
        self.config.tls.cert.is_some()
    }

    async fn answer(self: Arc<Self>, request: Request) -> Answer {
        let began = Instant::now();
        self.metrics.in_flight.inc();
        let Request { mut parts, body } = request;
        name_host(&mut parts);
        let mut exchange = Exchange {
            peer: parts.extensions.get::<Peer>().copied(),
            parts,
            id: notify::new_id(),
            actor: Actor::Anonymous,
            route: "other",
        };
        let answered = match self.check_rate(&exchange) {
            Ok(()) => self.dispatch(&mut exchange, body).await,
            Err(error) => Err(error),
        };
        let mut answer = answered.unwrap_or_else(|error| {
            report(&exchange, &error);
            Answer::Response(refusal(&error, &exchange.id))
        });
        if exchange.parts.uri.path().starts_with("/v2")
            && let Some(headers) = headers_of(&mut answer)
        {
            let version = HeaderValue::from_static("registry/2.0");
            headers.insert(HeaderName::from_static("docker-distribution-api-version"), version);
        }
        self.metrics.in_flight.dec();
        self.note(&exchange, &answer, began.elapsed());
        answer
    }

    fn check_rate(&self, exchange: &Exchange) -> Result<()> {
        let (Some(buckets), Some(peer)) = (&self.buckets, exchange.peer.and_then(Peer::address))
        else {
            return Ok(());
        };
        buckets.take(peer.ip(), Instant::now()).map_err(|retry_after| Error::TooMany {
            message: "too many requests".to_owned(),
            retry_after,
        })
    }

    async fn dispatch(
        self: &Arc<Self>,
        exchange: &mut Exchange,
        body: rorqual_http::RequestBody,
    ) -> Result<Answer> {
        let path = exchange.parts.uri.path().to_owned();
        if path == "/v2" || path.starts_with("/v2/") {
            return api::answer(self, exchange, body).await;
        }
        if path == "/healthz" {
            exchange.route = "health";
            return Ok(Answer::Response(health(&self.repositories).await));
        }
        if path == "/token" && self.auth.issuer().is_some() {
            exchange.route = "token";
            return api::token::answer(self, exchange, body).await;
        }
        if self.config.web {
            exchange.route = "web";
            return web::answer(self, exchange).await;
        }
        Err(Error::refused(crate::error::Code::NotFound, "no such page"))
    }

    /// Counts the request and writes its line.
    fn note(&self, exchange: &Exchange, answer: &Answer, took: Duration) {
        let (status, length) = match answer {
            Answer::Response(response) => {
                (response.status(), response.headers().get(header::CONTENT_LENGTH).cloned())
            }
            Answer::File(file) => {
                (file.head.status, Some(HeaderValue::from(file.range.end - file.range.start)))
            }
            Answer::Hijack(_) => return,
        };
        let Exchange { parts, peer, id, actor, route } = exchange;
        self.metrics.request(route, &parts.method, status, took);
        if self.config.log.access {
            let text = |name: &HeaderName| exchange.header(name).unwrap_or_default();
            tracing::info!(
                target: "access",
                method = %parts.method,
                path = parts.uri.path(),
                status = status.as_u16(),
                bytes = length.as_ref().and_then(|value| value.to_str().ok()).unwrap_or_default(),
                micros = took.as_micros() as u64,
                client = %peer.and_then(Peer::address).map(|address| address.to_string()).unwrap_or_default(),
                user = actor.name(),
                agent = text(&header::USER_AGENT),
                request = %id,
            );
        }
    }
}

fn headers_of(answer: &mut Answer) -> Option<&mut HeaderMap> {
    match answer {
        Answer::Response(response) => Some(response.headers_mut()),
        Answer::File(file) => Some(&mut file.head.headers),
        Answer::Hijack(_) => None,
    }
}

/// Whoever handles an error logs it; mistakes of clients are no news.
fn report(exchange: &Exchange, error: &Error) {
    let (method, path) = (&exchange.parts.method, exchange.parts.uri.path());
    let text = full_message(error);
    if error.wire().1.is_server_error() {
        tracing::error!(%method, path, request = %exchange.id, "{text}");
    } else {
        tracing::debug!(%method, path, request = %exchange.id, "{text}");
    }
}

/// Says whether the storage works.
pub(crate) async fn health(repositories: &Repositories) -> Response<rorqual_http::Body> {
    let plain = || [(header::CONTENT_TYPE, "application/json".to_owned())];
    match repositories.storage.probe().await {
        Ok(()) => answer(StatusCode::OK, plain(), "{}"),
        Err(error) => {
            tracing::warn!(error = full_message(&error), "the storage does not work");
            let text = serde_json::json!({"storage": error.to_string()}).to_string();
            answer(StatusCode::SERVICE_UNAVAILABLE, plain(), text)
        }
    }
}

impl Service for App {
    fn may_hijack(&self, _: &Parts) -> bool {
        false
    }

    fn call(self: Arc<Self>, request: Request) -> BoxFuture<Answer> {
        // What changes something runs to its end in a task of its own, also when the client goes away; an upload ends
        // with its client, and keeps what came.
        let method = &request.parts.method;
        if *method == Method::DELETE || (*method == Method::PUT && !has_body(&request)) {
            let task = tokio::spawn(self.answer(request));
            return Box::pin(async move {
                task.await.unwrap_or_else(|error| {
                    tracing::error!(%error, "a request failed");
                    let error = Error::Storage { action: "answer".into(), source: error.into() };
                    Answer::Response(refusal(&error, ""))
                })
            });
        }
        Box::pin(self.answer(request))
    }
}

fn has_body(request: &Request) -> bool {
    !request.body.is_end()
}

/// Serves metrics and health at an address of their own.
pub(crate) struct Debug(pub(crate) Arc<App>);

impl Service for Debug {
    fn may_hijack(&self, _: &Parts) -> bool {
        false
    }

    fn call(self: Arc<Self>, request: Request) -> BoxFuture<Answer> {
        Box::pin(async move {
            let response = match request.parts.uri.path() {
                "/metrics" => {
                    let uploads = self.0.repositories.sessions.count();
                    self.0.metrics.uploads.set(uploads as i64);
                    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
                    let headers = [(header::CONTENT_TYPE, kind.to_owned())];
                    answer(StatusCode::OK, headers, self.0.metrics.text())
                }
                "/debug/health" | "/healthz" => health(&self.0.repositories).await,
                _ => answer(StatusCode::NOT_FOUND, [], "see /metrics and /debug/health\n"),
            };
            Answer::Response(response)
        })
    }
}
