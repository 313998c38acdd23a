//! `attach` and `logs`.

use std::os::unix::net::UnixStream as StdUnixStream;
use std::sync::Arc;

use futures_util::StreamExt;
use rorqual_shim::Attachment;
use rorqual_shim::log::{LogQuery, LogStream};
use tokio::net::UnixStream;

use crate::container::Container;
use crate::error::{Error, Result};
use crate::logs::{LogRecords, LogRequest, LogView};
use crate::phase::Phase;
use crate::request::{AttachRequest, Attached};
use crate::world::World;

// LIMIT: clients that may wait for the start of one container.
const WAITING: usize = 64;

/// Makes the two ends of a client's connection: the daemon's and the shim's.
pub(crate) fn connection() -> Result<(UnixStream, StdUnixStream)> {
    let failed =
        |source| Error::Io { action: "make a socket pair for a client".to_owned(), source };
    let (near, far) = StdUnixStream::pair().map_err(failed)?;
    near.set_nonblocking(true).map_err(failed)?;
    Ok((UnixStream::from_std(near).map_err(failed)?, far))
}

pub(super) async fn attach(
    world: &Arc<World>,
    container: &Arc<Container>,
    request: AttachRequest,
) -> Result<Attached> {
    match container.phase() {
        // COMPAT: dockerd's texts.
        Phase::Paused(_) => {
            return Err(Error::Conflict(format!(
                "container {} is paused, unpause the container before attach",
                container.id
            )));
        }
        Phase::Restarting(_) => {
            return Err(Error::Conflict(format!(
                "container {} is restarting, wait until the container is running",
                container.id
            )));
        }
        _ => {}
    }
    let definition = container.definition();
    let process = &definition.spec.process;
    let logs = match request.logs {
        true => {
            let query = LogQuery::default();
            let wanted = LogRequest { stdout: request.stdout, stderr: request.stderr, query };
            Some(open(world, container, &wanted)?)
        }
        false => None,
    };
    let mut stream = None;
    if request.stream {
        let (near, far) = connection()?;
        let attachment = Attachment {
            socket: far,
            stdin: request.stdin && process.open_stdin,
            stdout: request.stdout,
            stderr: request.stderr,
        };
        connect(container, attachment).await?;
        stream = Some(near);
    }
    world.container_event(container, "attach", []);
    Ok(Attached { tty: process.tty, logs, stream })
}

/// Hands the far end to the task, or keeps it for the start.
async fn connect(container: &Container, attachment: Attachment) -> Result<()> {
    let task = {
        let mut live = container.live();
        match &live.task {
            Some(task) => Arc::clone(task),
            None if live.waiting.len() < WAITING => {
                live.waiting.push(attachment);
                return Ok(());
            }
            None => {
                return Err(Error::Conflict(
                    "too many clients wait for the start of the container".to_owned(),
                ));
            }
        }
    };
    let message = format!("cannot attach to container {}", container.id);
    task.attach(attachment).await.map_err(|source| Error::Task { message, source })
}

pub(super) fn logs(
    world: &World,
    container: &Arc<Container>,
    request: &LogRequest,
) -> Result<LogView> {
    if !request.stdout && !request.stderr {
        // COMPAT: dockerd's text.
        return Err(Error::Invalid(
            "Bad parameters: you must choose at least one stream".to_owned(),
        ));
    }
    let records = open(world, container, request)?;
    Ok(LogView { tty: container.definition().spec.process.tty, records })
}

fn open(world: &World, container: &Arc<Container>, request: &LogRequest) -> Result<LogRecords> {
    let definition = container.definition();
    let running = container.running.subscribe();
    let records = world.parts.logs.open(&definition.log, &request.query, running);
    let Some(records) = records else {
        // COMPAT: clients look for this text.
        return Err(Error::Unsupported(
            "configured logging driver does not support reading".to_owned(),
        ));
    };
    let (stdout, stderr) = (request.stdout, request.stderr);
    let wanted = move |stream| match stream {
        LogStream::Stdout => stdout,
        LogStream::Stderr => stderr,
    };
    let keep = move |record: &std::result::Result<rorqual_shim::log::LogRecord, _>| {
        let keep = record.as_ref().map_or(true, |record| wanted(record.stream));
        std::future::ready(keep)
    };
    Ok(Box::pin(records.filter(keep)))
}
