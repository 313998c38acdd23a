//! Looking at what a registry has, without fetching images.

use rorqual_content::{Index, Manifest, media_type};
use rorqual_core::{Platform, Reference, Repository};

use crate::pull::explained;
use crate::record::{self, MAX_CONFIG};
use crate::registry::{Document, Failure, Reason, Registries, Session};
use crate::{Distribution, Error, RegistryAuth};

/// Asks what a name leads to.
pub(crate) async fn resolve(
    registries: &Registries,
    name: &Reference,
    auth: &RegistryAuth,
) -> Result<Distribution, Error> {
    let name = name.clone().or_latest();
    let tag = name
        .digest()
        .map_or_else(|| name.tag().unwrap_or_default().to_owned(), ToString::to_string);
    let mut last = Failure::new(Reason::Unreachable, "no server to ask");
    for session in registries.readers(name.repository(), auth).await? {
        match session.manifest(&tag).await {
            Ok(document) => {
                session.note_reached();
                let platforms = platforms(&session, &document).await?;
                return Ok(Distribution { descriptor: document.descriptor, platforms });
            }
            Err(failure) if session.is_open(&failure) => last = failure,
            Err(failure) => return Err(explained(failure, &name)),
        }
    }
    Err(explained(last, &name))
}

async fn platforms(session: &Session, document: &Document) -> Result<Vec<Platform>, Error> {
    let kind = document.descriptor.media_type.as_str();
    if matches!(kind, media_type::OCI_INDEX | media_type::DOCKER_LIST) {
        let index = serde_json::from_slice::<Index>(&document.bytes).map_err(broken)?;
        return Ok(index.manifests.into_iter().filter_map(|entry| entry.platform).collect());
    }
    let manifest = serde_json::from_slice::<Manifest>(&document.bytes).map_err(broken)?;
    let config = session.small_blob(&manifest.config, MAX_CONFIG).await?;
    // What is no image has no platform.
    let platform = serde_json::from_slice(&config).ok().map(|document| record::platform(&document));
    Ok(platform.filter(record::is_known).into_iter().collect())
}

fn broken(error: serde_json::Error) -> Failure {
    Failure::new(Reason::Untrusted, format!("the manifest is broken: {error}"))
}

/// Lists the tags of a repository.
pub(crate) async fn tags(
    registries: &Registries,
    repository: &Repository,
    auth: &RegistryAuth,
) -> Result<Vec<String>, Error> {
    let mut last = Failure::new(Reason::Unreachable, "no server to ask");
    for session in registries.readers(repository, auth).await? {
        match session.tags().await {
            Ok(tags) => return Ok(tags),
            Err(failure) if session.is_open(&failure) => last = failure,
            Err(failure) => {
                last = failure;
                break;
            }
        }
    }
    match last.reason {
        // COMPAT: a missing repository is told as when one of its images is pulled.
        Reason::Denied | Reason::NameUnknown => {
            let name = format!("{repository}:latest").parse::<Reference>();
            Err(name
                .map_or_else(|_| Error::from(last.clone()), |name| explained(last.clone(), &name)))
        }
        _ => Err(last.into()),
    }
}
