//! Images on the move: load, save, import. Progress goes out as it comes.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::StreamExt;
use http::StatusCode;
use rorqual_api::message::{Message, ProgressDetail};
use rorqual_core::full_message;
use rorqual_engine::ImageImport;
use rorqual_http::{RequestBody, body};
use rorqual_transfer::{Loaded, Progress, ProgressSink};
use tokio::sync::mpsc;

use crate::context::Context;
use crate::convert::platform;
use crate::error::{ApiError, invalid};
use crate::request::{ApiRequest, Result, refuse, typed};
use crate::routes::attach::Piece;
use crate::routes::containers::{changes_of, image_name};

pub(super) fn take_body(request: &mut ApiRequest) -> Box<dyn std::io::Read + Send> {
    std::mem::replace(&mut request.body, RequestBody::from_bytes("")).into_reader()
}

fn progress_sink(sender: mpsc::Sender<Piece>) -> ProgressSink {
    Arc::new(move |progress: Progress| {
        let Progress { id, status, current, total } = progress;
        let detail = ProgressDetail {
            current: current as i64,
            total: total as i64,
            ..ProgressDetail::default()
        };
        let message = Message { progress_detail: Some(detail), ..Message::status(&id, status) };
        // A client that is too slow misses steps, not the outcome.
        sender.try_send(Ok(message.line().into())).ok();
    })
}

/// `POST /images/load`
pub(super) async fn load(context: Arc<Context>, mut request: ApiRequest) -> Result {
    let platform = platform::document(request.query.text("platform"))?;
    let quiet = request.query.switch("quiet", true);
    let slot = context.archive_slot().await?;
    let archive = take_body(&mut request);
    let (sender, body) = body::channel();
    let work = async move {
        let _slot = slot;
        let sink: ProgressSink =
            if quiet { Arc::new(|_| {}) } else { progress_sink(sender.clone()) };
        let lines = match context.engine.images.load(archive, platform, sink).await {
            Ok(loaded) => loaded.iter().flat_map(loaded_messages).collect(),
            Err(error) => vec![Message::error(&full_message(&error))],
        };
        for message in lines {
            if sender.send(Ok(message.line().into())).await.is_err() {
                return;
            }
        }
    };
    // COMPAT: 200 at once; a failure is the last line.
    typed(StatusCode::OK, "application/json", driven(work, body))
}

fn loaded_messages(loaded: &Loaded) -> Vec<Message> {
    let said = |text: String| Message { stream: text, ..Message::default() };
    if loaded.names.is_empty() {
        return vec![said(format!("Loaded image ID: {}\n", loaded.id))];
    }
    let names = loaded.names.iter();
    names.map(|name| said(format!("Loaded image: {}\n", name.familiar()))).collect()
}

/// A body whose making is driven by who reads it: when the client goes away, the work is dropped.
pub(super) fn driven(
    work: impl Future<Output = ()> + Send + 'static,
    body: rorqual_http::Body,
) -> rorqual_http::Body {
    let frames = http_body_util::BodyStream::new(body);
    let data = frames.filter_map(|frame| async {
        match frame {
            Ok(frame) => frame.into_data().ok().map(Ok),
            Err(error) => Some(Err(error)),
        }
    });
    // The work yields nothing itself; its end is seen by the channel behind `body`.
    let silent = futures_util::stream::once(work).filter_map(|()| async { None::<Piece> });
    body::stream(futures_util::stream::select(Box::pin(data), Box::pin(silent)))
}

/// `GET /images/get`
pub(super) async fn save_many(context: Arc<Context>, request: ApiRequest) -> Result {
    let names = request.query.all("names").flat_map(|names| names.split(','));
    let names: Vec<String> = names.filter(|name| !name.is_empty()).map(str::to_owned).collect();
    if names.is_empty() {
        return refuse(invalid("no image names given: name at least one with names="));
    }
    save(context, &request, names).await
}

/// `GET /images/{name}/get`
pub(super) async fn save_one(context: Arc<Context>, request: ApiRequest) -> Result {
    let name = request.param("name").to_owned();
    save(context, &request, vec![name]).await
}

async fn save(context: Arc<Context>, request: &ApiRequest, names: Vec<String>) -> Result {
    let platform = platform::document(request.query.text("platform"))?;
    for name in &names {
        // What is missing must be a 404, which it cannot be once bytes have been sent.
        let found = match &platform {
            Some(platform) => context.engine.images.variant(name, platform).await,
            None => context.engine.images.inspect(name).await,
        };
        found.map_err(|error| {
            let mut error = ApiError::from(error);
            // COMPAT: here dockerd does not complete the name.
            if error.message.starts_with("No such image: ") {
                error.message = format!("No such image: {name}");
            }
            error
        })?;
    }
    let slot = context.archive_slot().await?;
    let (sink, sender, body) = body::writer();
    let work = async move {
        let _slot = slot;
        if let Err(error) = context.engine.images.save(names, platform, Box::new(sink)).await {
            // Cuts the connection, so that the client knows that the archive is not whole.
            sender.send(Err(error.into())).await.ok();
        }
    };
    typed(StatusCode::OK, "application/x-tar", driven(work, body))
}

/// `POST /images/create`: import, and what would be a pull.
pub(super) async fn create(context: Arc<Context>, request: ApiRequest) -> Result {
    let wanted = request.query.text("fromImage");
    if !wanted.is_empty() {
        return super::registry::pull(context, request).await;
    }
    match request.query.text("fromSrc") {
        "-" => import(context, request).await,
        "" => refuse(invalid("need fromImage or fromSrc")),
        _ => import(context, request).await,
    }
}

async fn import(context: Arc<Context>, mut request: ApiRequest) -> Result {
    let source = request.query.text("fromSrc").to_owned();
    let message = match request.query.text("message") {
        // COMPAT: dockerd's text.
        "" => format!("Imported from {source}"),
        message => message.to_owned(),
    };
    let _slot = context.archive_slot().await?;
    let archive = match source.as_str() {
        "-" => take_body(&mut request),
        address => {
            let opened = context.transfer.open_address(address).await;
            opened.map_err(|error| ApiError::from(rorqual_engine::Error::from(error)))?
        }
    };
    let import = ImageImport {
        name: image_name(&request)?,
        message,
        changes: changes_of(&request),
        platform: platform::words(request.query.text("platform"))?,
        archive,
    };
    let id = context.engine.images.import(import).await.map_err(ApiError::from)?;
    let line = Bytes::from(Message::status("", id.to_string()).line());
    typed(StatusCode::OK, "application/json", body::full(line))
}
