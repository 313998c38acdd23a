//! Where states come from: images, clients' directories, addresses and repositories.

use std::sync::Arc;

use super::flight::Audience;
use super::walk::Walk;
use super::{State, git, http};
use crate::Error;
use crate::contract::Fetching;
use crate::graph::{ImageSource, LocalSource, Op, Vertex};

/// Brings a source; tells whether all of it was here.
pub(crate) async fn bring(
    walk: &Walk,
    vertex: &Vertex,
    audience: &Audience,
) -> Result<(State, bool), Error> {
    match &vertex.op {
        Op::Image(image) => self::image(walk, vertex, image, audience).await,
        Op::Local(local) => Ok((self::local(walk, local, audience).await?, false)),
        Op::Http(http) => http::bring(walk, http, audience).await,
        Op::Git(git) => git::bring(walk, git, audience).await,
        _ => Err(Error::Unsupported("not a source".to_owned())),
    }
}

async fn image(
    walk: &Walk,
    vertex: &Vertex,
    image: &ImageSource,
    audience: &Audience,
) -> Result<(State, bool), Error> {
    let told = audience.clone();
    let progress: Fetching = Arc::new(move |id, done, total| {
        told.status(id, done, total, total > 0 && done >= total);
    });
    let session = walk.job.session.clone();
    let images = &walk.inner.parts.images;
    if let Some(store) = &image.layout {
        let cache = Arc::clone(&walk.inner.parts.cache);
        let held = std::sync::Mutex::new(Vec::new());
        // ORDER: kept from before they come until the state keeps them.
        let keep = |layers: &[rorqual_core::DiffId]| {
            let guard = cache.hold(layers);
            held.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(guard);
        };
        let (reference, platform) = (&image.reference, &vertex.platform);
        let document = images.fetch_layout(store, reference, platform, (session, &keep)).await?;
        return Ok((walk.state(document.rootfs.diff_ids), false));
    }
    let document = images.fetch(&image.reference, &vertex.platform, session, progress).await?;
    Ok((walk.state(document.rootfs.diff_ids), true))
}

async fn local(walk: &Walk, local: &LocalSource, audience: &Audience) -> Result<State, Error> {
    let Some(session) = &walk.job.session else {
        let message =
            format!("the build needs the directory {:?}, and no client offers one", local.name);
        return Err(Error::NotFound { message, location: None });
    };
    if let Some(path) = session.local_directory(&local.name) {
        return Ok(State::directory(path));
    }
    let shared = session.shared_key();
    let shared = if shared.is_empty() { session.id() } else { &shared };
    let key = [shared, &local.name, &local.shared_key].join("\0");
    let lease = walk.inner.mirrors.lease(&key).await?;
    let told = audience.clone();
    // COMPAT: BuildKit's name of it.
    let label = "transferring context:";
    let sink = lease.sink(Box::new(move |bytes| told.status(label, bytes, 0, false)))?;
    session.sync(local.clone(), sink).await?;
    audience.status(label, 0, 0, true);
    Ok(State::mirror(lease))
}
