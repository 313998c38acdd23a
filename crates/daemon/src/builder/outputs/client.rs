//! Outputs that go to the client: archives of images, files.

use std::io::{Read, Write};
use std::time::SystemTime;

use rorqual_build::{Error, Session as _};
use rorqual_buildkit::{Export, Scope};
use rorqual_content::ImageRecord;
use rorqual_core::{ErrorKind, ImageId, Reference, full_message};

use super::super::attest;
use super::super::buildkit::BuildKit;
use super::super::lookup::Task;
use super::parts::Parts;
use super::{Output, Told, other, record, tell, unsupported};

/// Feeds an asynchronous receiver from threads that block.
struct Pipe(tokio::sync::mpsc::Sender<Vec<u8>>);

impl Write for Pipe {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let sent = self.0.blocking_send(bytes.to_vec());
        sent.map_err(|_| std::io::Error::from(std::io::ErrorKind::BrokenPipe))?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// LIMIT: pieces on their way to a client.
const QUEUE: usize = 8;

pub(super) fn client(
    scope: &Scope,
    export: &Export,
) -> Result<std::sync::Arc<rorqual_buildkit::RemoteSession>, Error> {
    scope.session.clone().ok_or_else(|| Error::Invalid {
        message: format!("the output {:?} needs a session of the client", export.kind),
        location: None,
    })
}

/// Writes an image into an archive of the client.
pub(super) async fn archive(
    kit: &BuildKit,
    output: &Output<'_>,
    (scope, told): (&Scope, &mut Told),
) -> Result<(), Error> {
    let Output { export, names, .. } = output;
    let format = if export.kind == "oci" { "oci" } else { "docker" };
    let session = client(scope, export)?;
    let task = Task::begin(scope, &format!("exporting to {format} image format"));
    let images = &kit.builder.images.images;
    let before = images.list().await.map_err(other("list images"))?;
    let work = async {
        let recorded = record(kit, output, Vec::new()).await?;
        let id = &recorded.id;
        let saved = save(kit, id, names.clone(), export, &session).await;
        forget(kit, id, &before).await?;
        saved.map(|()| recorded)
    };
    let recorded = task.end(work.await)?;
    tell(&recorded, names, told);
    Ok(())
}

/// The archive is what was wanted: the engine keeps no image of it, or the one that it had before.
pub(super) async fn forget(
    kit: &BuildKit,
    id: &ImageId,
    before: &[ImageRecord],
) -> Result<(), Error> {
    let images = &kit.builder.images.images;
    match before.iter().find(|image| image.id == *id) {
        Some(known) => images.put(known.clone()).await.map(drop),
        None => images.remove(id).await.map(drop),
    }
    .map_err(other("forget the image of an archive"))
}

async fn save(
    kit: &BuildKit,
    id: &ImageId,
    names: Vec<Reference>,
    export: &Export,
    session: &rorqual_buildkit::RemoteSession,
) -> Result<(), Error> {
    let mut sink = session.output(&export.id.to_string()).await?;
    let (sender, mut pieces) = tokio::sync::mpsc::channel(QUEUE);
    let transfer = &kit.builder.images.transfer;
    let writer = Box::new(std::io::BufWriter::with_capacity(1 << 18, Pipe(sender)));
    let writing = transfer.save(vec![(id.clone(), names)], None, writer);
    let sending = async {
        while let Some(piece) = pieces.recv().await {
            sink.write(&piece).await?;
        }
        Ok::<_, Error>(sink)
    };
    tokio::pin!(writing, sending);
    // Either may be over first: the receiver fails while the writer still works, or has taken the last piece before the
    // writer is seen to be done.
    let sink = tokio::select! {
        written = &mut writing => {
            written.map_err(other("write the archive"))?;
            sending.await?
        }
        sent = &mut sending => {
            let sink = sent?;
            writing.await.map_err(other("write the archive"))?;
            sink
        }
    };
    sink.finish().await
}

type Tar = Box<dyn Read + Send>;

/// Tells whether the files of each platform get a directory of their own.
fn is_split(output: &Output<'_>) -> Result<bool, Error> {
    let export = output.export;
    let is_split = match export.attrs.get("platform-split").map_or("", String::as_str) {
        "" => output.all.is_indexed,
        "true" | "1" => true,
        "false" | "0" => false,
        other => {
            return Err(Error::Invalid {
                message: format!("invalid value {other:?} of platform-split: true or false"),
                location: None,
            });
        }
    };
    if !is_split && output.all.made.len() > 1 {
        return unsupported(format!(
            "the output {:?} with platform-split=false takes the files of one platform: those of several would replace each other",
            export.kind
        ));
    }
    Ok(is_split)
}

/// Opens an archive of the files of what was made.
async fn packed(kit: &BuildKit, output: &Output<'_>) -> Result<Tar, Error> {
    let epoch = output.epoch;
    let mut parts = Vec::new();
    for made in &output.all.made {
        let tar: Tar = match &made.state {
            Some(state) => kit.builder.solver.tar(state, epoch).await?,
            // Two blocks of nothing end an archive.
            None => Box::new(std::io::Cursor::new(vec![0; 1024])),
        };
        let beside = attest::files(&made.predicates, epoch)?;
        let tar: Tar = Box::new(std::io::Cursor::new(beside).chain(tar));
        parts.push((made.id.replace('/', "_"), tar));
    }
    if !is_split(output)?
        && let Some((_, only)) = parts.pop()
    {
        return Ok(only);
    }
    Ok(Box::new(Parts::new(parts, epoch)))
}

/// Sends the files of what was made.
pub(super) async fn files(kit: &BuildKit, output: &Output<'_>, scope: &Scope) -> Result<(), Error> {
    let export = output.export;
    let name = match export.kind.as_str() {
        "tar" => "sending tarball",
        _ => "copying files",
    };
    let task = Task::begin(
        scope,
        &format!(
            "exporting to client {}",
            if export.kind == "tar" { "tarball" } else { "directory" }
        ),
    );
    let started = SystemTime::now();
    let work = async {
        let session = client(scope, export)?;
        let id = export.id.to_string();
        let mut tar = packed(kit, output).await?;
        if export.kind == "local" {
            return session.send_tree(&id, tar).await;
        }
        let mut sink = session.output(&id).await?;
        loop {
            let read = tokio::task::spawn_blocking(move || {
                let mut piece = Vec::new();
                let read = (&mut tar).take(1 << 20).read_to_end(&mut piece);
                read.map(|_| (piece, tar))
            });
            let read = read.await.map_err(|_| Error::Cancelled)?;
            let (piece, rest) = read.map_err(|error| Error::Other {
                action: "pack the files of a state".to_owned(),
                kind: ErrorKind::Internal,
                source: error.into(),
            })?;
            tar = rest;
            if piece.is_empty() {
                return sink.finish().await;
            }
            sink.write(&piece).await?;
        }
    };
    let done = work.await;
    match &done {
        Ok(()) => task.part(name, 0, started),
        Err(error) => tracing::debug!(error = full_message(error), "an output failed"),
    }
    task.end(done)
}
