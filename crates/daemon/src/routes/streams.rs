//! Answers that go on: logs, stats, events, wait.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use http::StatusCode;
use rorqual_api::ApiVersion;
use rorqual_api::container::{WaitExitError, WaitResponse};
use rorqual_api::frame::{self, Stream};
use rorqual_core::Timestamp;
use rorqual_engine::{EventQuery, LogRequest, StatsSample, WaitCondition};
use rorqual_http::body;
use rorqual_shim::log::{LogQuery, LogRecord, LogStream};
use serde::Serialize;

use crate::context::Context;
use crate::convert::event::event_document;
use crate::convert::stats::stats_document;
use crate::error::invalid;
use crate::request::{ApiRequest, Result, json, refuse, typed};
use crate::routes::attach::Piece;

/// Writes a log record as it goes on the wire.
pub(super) fn record_bytes(
    record: &LogRecord,
    tty: bool,
    timestamps: bool,
    details: bool,
) -> Vec<u8> {
    let mut line = Vec::with_capacity(record.line.len() + 64);
    if timestamps {
        line.extend_from_slice(fixed_nanos(record.at).as_bytes());
        line.push(b' ');
    }
    if details {
        let pairs = record.attrs.iter();
        let pairs = pairs.map(|(key, value)| format!("{}={}", escape(key), escape(value)));
        line.extend_from_slice(pairs.collect::<Vec<_>>().join(",").as_bytes());
        line.push(b' ');
    }
    line.extend_from_slice(&record.line);
    if tty {
        return line;
    }
    let stream = match record.stream {
        LogStream::Stdout => Stream::Stdout,
        LogStream::Stderr => Stream::Stderr,
    };
    frame::encode(stream, &line)
}

/// Writes RFC 3339 with all nine digits, so that lines are aligned.
fn fixed_nanos(at: Timestamp) -> String {
    let whole = Timestamp::from_nanos(at.secs() * 1_000_000_000).to_string();
    format!("{}.{:09}Z", whole.trim_end_matches('Z'), at.nanos() % 1_000_000_000)
}

/// Escapes as in a query.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b' ' => escaped.push('+'),
            byte if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) => {
                escaped.push(char::from(byte));
            }
            byte => {
                escaped.push('%');
                escaped.push_str(&format!("{byte:02X}"));
            }
        }
    }
    escaped
}

/// `GET /containers/{id}/logs`
pub(super) async fn logs(context: Arc<Context>, request: ApiRequest) -> Result {
    let flag = |name| request.query.flag(name);
    let (stdout, stderr) = (flag("stdout"), flag("stderr"));
    if !stdout && !stderr {
        // COMPAT: dockerd's text.
        return refuse(invalid("Bad parameters: you must choose at least one stream"));
    }
    let (timestamps, details) = (flag("timestamps"), flag("details"));
    let query = LogQuery {
        since: request.time("since")?,
        until: request.time("until")?,
        // COMPAT: what is no number means all.
        tail: request.query.text("tail").parse().ok(),
        follow: flag("follow"),
    };
    let asked = LogRequest { stdout, stderr, query };
    let view = context.engine.containers.logs(request.param("id"), asked).await?;
    let tty = view.tty;
    let pieces = view.records.map(move |record| -> Piece {
        Ok(match record {
            Ok(record) => Bytes::from(record_bytes(&record, tty, timestamps, details)),
            // The head is sent already: say it where the client looks.
            Err(error) => {
                let text = format!("error from daemon in stream: {error}\n");
                Bytes::from(if tty {
                    text.into_bytes()
                } else {
                    frame::encode(Stream::System, text.as_bytes())
                })
            }
        })
    });
    let is_framed = !tty && request.version >= ApiVersion::v1(42);
    let kind = if is_framed {
        "application/vnd.docker.multiplexed-stream"
    } else {
        "application/vnd.docker.raw-stream"
    };
    typed(StatusCode::OK, kind, body::stream(pieces))
}

fn line<T: Serialize>(document: &T) -> Piece {
    let mut text = serde_json::to_vec(document)?;
    text.push(b'\n');
    Ok(text.into())
}

const SECOND: Duration = Duration::from_secs(1);

/// `GET /containers/{id}/stats`
pub(super) async fn stats(context: Arc<Context>, request: ApiRequest) -> Result {
    let id = request.param("id").to_owned();
    let one_shot = request.query.flag("one-shot");
    let first = context.engine.containers.stats(&id).await?;
    if !request.query.switch("stream", true) {
        if one_shot || !first.running {
            return json(StatusCode::OK, &stats_document(&first, None));
        }
        tokio::time::sleep(SECOND).await;
        let second = context.engine.containers.stats(&id).await?;
        return json(StatusCode::OK, &stats_document(&second, Some(&first)));
    }
    if one_shot {
        // COMPAT: dockerd's text.
        return refuse(invalid("cannot have stream=true and one-shot=true"));
    }
    let state = Sampling { context, id, before: None, next: Some(first) };
    let pieces = futures_util::stream::unfold(state, |mut state| async {
        let sample = match state.next.take() {
            Some(first) => first,
            None => {
                tokio::time::sleep(SECOND).await;
                // A container that was removed ends the stream.
                state.context.engine.containers.stats(&state.id).await.ok()?
            }
        };
        let piece = line(&stats_document(&sample, state.before.as_ref()));
        state.before = Some(sample);
        Some((piece, state))
    });
    typed(StatusCode::OK, "application/json", body::stream(pieces))
}

struct Sampling {
    context: Arc<Context>,
    id: String,
    before: Option<StatsSample>,
    next: Option<StatsSample>,
}

/// `GET /events`
pub(super) async fn events(context: Arc<Context>, request: ApiRequest) -> Result {
    let query = EventQuery {
        // COMPAT: zero asks for all of the past.
        since: match request.query.text("since") {
            "0" => Some(Timestamp::default()),
            _ => request.time("since")?,
        },
        until: request.time("until")?,
        filters: request.filters()?,
    };
    if let (Some(since), Some(until)) = (query.since, query.until)
        && until < since
    {
        // COMPAT: dockerd's text.
        return refuse(invalid(format!(
            "`since` time ({}) cannot be after `until` time ({})",
            since.secs(),
            until.secs()
        )));
    }
    // COMPAT: clients before 1.46 do not know that images are created.
    let hides_image_create = request.version < ApiVersion::v1(46);
    let listener = context.engine.events.listen(query);
    let pieces = futures_util::stream::unfold(listener, move |mut listener| async move {
        loop {
            let event = listener.next().await?;
            let is_hidden = hides_image_create
                && event.action == "create"
                && event.kind == rorqual_engine::EventKind::Image;
            if !is_hidden {
                return Some((line(&event_document(&event)), listener));
            }
        }
    });
    typed(StatusCode::OK, "application/json", body::stream(pieces))
}

/// `POST /containers/{id}/wait`
pub(super) async fn wait(context: Arc<Context>, request: ApiRequest) -> Result {
    // COMPAT: clients before 1.30 know no conditions.
    let word =
        if request.version < ApiVersion::v1(30) { "" } else { request.query.text("condition") };
    let condition = match word {
        "" | "not-running" => WaitCondition::NotRunning,
        "next-exit" => WaitCondition::NextExit,
        "removed" => WaitCondition::Removed,
        other => return refuse(invalid(format!("invalid condition: {other:?}"))),
    };
    let waiting = context.engine.containers.wait(request.param("id"), condition).await?;
    // The head goes out at once: clients start the container only when they have seen it.
    let pieces = futures_util::stream::once(async move {
        let outcome = waiting.outcome().await;
        line(&WaitResponse {
            status_code: i64::from(outcome.exit_code),
            error: outcome.error.map(|message| WaitExitError { message }),
        })
    });
    typed(StatusCode::OK, "application/json", body::stream(pieces))
}

#[cfg(test)]
mod tests;
