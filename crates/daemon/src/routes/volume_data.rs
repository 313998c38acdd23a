//! Volumes on the move. These endpoints are ours alone and lie apart from Docker's, below `/rorqual/volumes/`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use rorqual_api::message::{Message, ProgressDetail};
use rorqual_core::full_message;
use rorqual_engine::{Copied, CopyRequest, ExportRequest, ImportRequest};
use rorqual_http::{RequestBody, body};
use rorqual_volume::{ChunkSet, Progress};
use serde::Deserialize;
use tokio::sync::mpsc;

use crate::context::Context;
use crate::convert::mounts::volume_name;
use crate::convert::non_empty;
use crate::convert::volume::volume_document;
use crate::error::invalid;
use crate::request::{ApiRequest, Result, json, refuse, typed};
use crate::routes::attach::Piece;
use crate::routes::transfers::driven;

/// LIMIT: digests of two terabytes in chunks.
const LARGEST_LIST: usize = 128 << 20;
/// LIMIT: how often a client hears how far a copy is.
const HEARTBEAT: Duration = Duration::from_millis(250);
/// What an exported volume is.
const MEDIA: &str = "application/vnd.rorqual.volume";

/// Body of a snapshot or clone.
#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default, deny_unknown_fields)]
struct CopyDocument {
    /// Name of the copy.
    name: String,
    /// Its labels; those of the volume when absent.
    labels: Option<BTreeMap<String, String>>,
    /// Pause who uses the volume meanwhile.
    freeze: bool,
}

/// `POST /rorqual/volumes/{name}/snapshot`
pub(super) async fn snapshot(context: Arc<Context>, request: ApiRequest) -> Result {
    copy(context, request, Copied::Snapshot).await
}

/// `POST /rorqual/volumes/{name}/clone`
pub(super) async fn clone(context: Arc<Context>, request: ApiRequest) -> Result {
    copy(context, request, Copied::Clone).await
}

async fn copy(context: Arc<Context>, mut request: ApiRequest, kind: Copied) -> Result {
    let CopyDocument { name, labels, freeze } = request.optional_json(None).await?;
    let name = non_empty(name).map(|name| volume_name(&name)).transpose()?;
    if kind == Copied::Clone && name.is_none() {
        return refuse(invalid("a clone needs a name (Name)"));
    }
    let source = request.param("name").to_owned();
    let asked = CopyRequest { source, kind, name, labels, freeze };
    // What is wrong with the names is told by the status, which comes first.
    context.engine.volumes.check_copy(&asked).await?;
    let slot = context.archive_slot().await?;
    let (sender, answer) = body::channel();
    let work = async move {
        let _slot = slot;
        let progress = Progress::default();
        let word = if kind == Copied::Snapshot { "Snapshot" } else { "Clone" };
        let id = asked.source.clone();
        let copying = context.engine.volumes.copy(asked, progress.clone());
        let copied = tokio::select! {
            copied = copying => copied,
            () = tell(&progress, &id, "Copying", &sender) => return,
        };
        let last = match copied {
            Ok(view) => Message {
                aux: serde_json::to_value(volume_document(&view)).ok(),
                ..Message::status(&id, format!("{word} {} complete", view.name))
            },
            Err(error) => Message::error(&full_message(&error)),
        };
        // A client that has gone needs no answer.
        sender.send(Ok(last.line().into())).await.ok();
    };
    typed(StatusCode::OK, "application/json", driven(work, answer))
}

/// Tells how far work is until the client goes away.
async fn tell(progress: &Progress, id: &str, status: &str, sender: &mpsc::Sender<Piece>) {
    loop {
        tokio::time::sleep(HEARTBEAT).await;
        let detail =
            ProgressDetail { current: progress.bytes() as i64, ..ProgressDetail::default() };
        let message =
            Message { progress_detail: Some(detail), ..Message::status(id, status.to_owned()) };
        if sender.send(Ok(message.line().into())).await.is_err() {
            return;
        }
    }
}

/// `POST /rorqual/volumes/{name}/export`: `since` names volumes whose content the receiver has; the body lists digests of
/// further chunks that it has, one a line.
pub(super) async fn export(context: Arc<Context>, mut request: ApiRequest) -> Result {
    let list = std::mem::replace(&mut request.body, RequestBody::from_bytes(""));
    let list = list.bytes(LARGEST_LIST).await.map_err(|error| invalid(error.to_string()))?;
    let list = String::from_utf8(list.into()).map_err(|error| invalid(error.to_string()))?;
    let have = ChunkSet::parse(&list).map_err(rorqual_engine::Error::from)?;
    let since = request.query.all("since").map(str::to_owned).collect();
    let asked = ExportRequest { volume: request.param("name").to_owned(), since, have };
    let slot = context.archive_slot().await?;
    let archive = context.engine.volumes.export(asked, Progress::default()).await?;
    typed(StatusCode::OK, MEDIA, body::reader(super::archive::Held::new(archive, slot)))
}

/// `POST /rorqual/volumes/import`: `name`, `base` and `labels` (a JSON object); the archive is the body.
pub(super) async fn import(context: Arc<Context>, mut request: ApiRequest) -> Result {
    let name = match request.query.text("name") {
        "" => return refuse(invalid("an imported volume needs a name (name=)")),
        name => volume_name(name)?,
    };
    let labels = match request.query.text("labels") {
        "" => None,
        text => Some(
            serde_json::from_str(text)
                .map_err(|error| invalid(format!("labels are no JSON object of texts: {error}")))?,
        ),
    };
    let base = non_empty(request.query.text("base").to_owned());
    let _slot = context.archive_slot().await?;
    let archive = std::mem::replace(&mut request.body, RequestBody::from_bytes("")).into_reader();
    let asked = ImportRequest { name, base, labels };
    let view = context.engine.volumes.import(asked, archive, Progress::default()).await?;
    json(StatusCode::CREATED, &volume_document(&view))
}

/// `GET /rorqual/volumes/{name}/chunks`: digests of all chunks of a volume, one a line.
pub(super) async fn chunks(context: Arc<Context>, request: ApiRequest) -> Result {
    let text = context.engine.volumes.chunks(request.param("name")).await?;
    typed(StatusCode::OK, "text/plain", body::full(text))
}
