//! Outputs that go to the client: archives of images, files.

use std::io::{Read, Write};
use std::time::SystemTime;

use rorqual_build::{Error, Session as _};
use rorqual_buildkit::{Export, Scope};
use rorqual_core::{ErrorKind, ImageId, Reference, full_message};

use super::super::attest;
use super::super::buildkit::BuildKit;
use super::super::lookup::Task;
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

fn client(
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
    if export.attrs.get("tar").is_some_and(|tar| tar == "false") {
        return unsupported("tar=false: images are written as one archive by this builder");
    }
    let session = client(scope, export)?;
    let task = Task::begin(scope, &format!("exporting to {format} image format"));
    let images = &kit.builder.images.images;
    let before = images.list().await.map_err(other("list images"))?;
    let work = async {
        let recorded = record(kit, output, Vec::new()).await?;
        let id = &recorded.id;
        let saved = save(kit, id, names.clone(), export, &session).await;
        // The archive is what was wanted: the engine keeps no image of it.
        match before.iter().find(|image| image.id == *id) {
            Some(known) => images.put(known.clone()).await,
            None => images.remove(id).await,
        }
        .map_err(other("forget the image of an archive"))?;
        saved.map(|()| recorded)
    };
    let recorded = task.end(work.await)?;
    tell(&recorded, names, told);
    Ok(())
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

/// Sends the files of what was made.
pub(super) async fn files(kit: &BuildKit, output: &Output<'_>, scope: &Scope) -> Result<(), Error> {
    let Output { export, epoch, .. } = *output;
    let [made] = output.all.made.as_slice() else {
        return unsupported(format!(
            "the output {:?} takes the files of one platform: build one at a time, or an image",
            export.kind
        ));
    };
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
        let tar: Box<dyn Read + Send> = match &made.state {
            Some(state) => kit.builder.solver.tar(state, epoch).await?,
            // Two blocks of nothing end an archive.
            None => Box::new(std::io::Cursor::new(vec![0; 1024])),
        };
        let beside = attest::files(&made.predicates, epoch)?;
        let mut tar: Box<dyn Read + Send> = Box::new(std::io::Cursor::new(beside).chain(tar));
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
