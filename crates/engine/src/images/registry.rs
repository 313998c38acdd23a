//! Images from and to registries: which names are meant, and what everybody is told.

use std::sync::Arc;
use std::time::Duration;

use rorqual_content::ImageRecord;
use rorqual_core::{ImageId, Reference, full_message};
use rorqual_transfer::{
    Distribution, Progress, ProgressSink, PullRequest, Pulled, PushRequest, Pushed, RegistryAuth,
    SearchRequest, SearchResult,
};

use super::{ImagesService, Leavings, collect};
use crate::error::{Error, Result};
use crate::events::EventKind;
use crate::request::{ImagePull, ImagePush, ImageSearch};
use crate::world::World;

/// COMPAT: events of registries are about names, not ids.
fn announce(world: &World, action: &str, name: &Reference) {
    let attributes = [("name", name.repository().familiar())];
    world.event(EventKind::Image, action, &name.familiar(), attributes);
}

// LIMIT: how long the whole layers of a pull that failed wait for another try.
const SECOND_TRY: Duration = Duration::from_secs(600);

/// Whole layers that nobody refers to, for a pull to be taken up; collected when nobody did.
struct Unfinished {
    world: Option<Arc<World>>,
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        let Some(world) = self.world.take() else { return };
        let waiting = Arc::clone(&world);
        world.tracker.spawn(async move {
            tokio::select! {
                () = waiting.closing.cancelled() => {}
                () = tokio::time::sleep(SECOND_TRY) => {
                    if let Err(error) = collect(&waiting).await {
                        tracing::warn!(error = full_message(&error), "cannot collect content");
                    }
                }
            }
        });
    }
}

fn say(progress: &ProgressSink, status: String) {
    progress(Progress { id: String::new(), status, current: 0, total: 0 });
}

impl ImagesService {
    /// Fetches an image, or all that a repository has.
    ///
    /// # Cancellation
    ///
    /// Dropping the future ends the pull; images that are not complete are not there.
    pub async fn pull(&self, request: ImagePull, progress: ProgressSink) -> Result<Vec<Pulled>> {
        let ImagePull { name, all_tags, platform, auth } = request;
        let names = if all_tags {
            let repository = name.repository();
            let tags = self.world.parts.transfer.tags(repository, &auth).await?;
            if tags.is_empty() {
                return Err(Error::NotFound(format!("{} has no tags", repository.familiar())));
            }
            tags.iter()
                .map(|tag| Ok(Reference::tagged(repository.clone(), tag)?))
                .collect::<Result<Vec<_>>>()?
        } else {
            vec![name.or_latest()]
        };
        let mut rest = Unfinished { world: Some(Arc::clone(&self.world)) };
        let mut pulled = Vec::new();
        for name in names {
            let pull =
                PullRequest { name: name.clone(), platform: platform.clone(), auth: auth.clone() };
            let one = self.world.parts.transfer.pull(pull, Arc::clone(&progress)).await?;
            announce(&self.world, "pull", &name);
            pulled.push(one);
        }
        rest.world = None;
        Ok(pulled)
    }

    /// Sends an image, or all tags of a repository; `sent` is told of each.
    ///
    /// # Cancellation
    ///
    /// Dropping the future ends the push; names at the registry that it did not get to are as they were.
    pub async fn push(
        &self,
        request: ImagePush,
        progress: ProgressSink,
        sent: impl Fn(&str, &Pushed) + Send,
    ) -> Result<()> {
        let ImagePush { name, all_tags, platform, auth } = request;
        say(&progress, format!("The push refers to repository [{}]", name.repository()));
        let images = self.to_push(&name, all_tags).await?;
        // Packed layers are of no use afterwards.
        let _rest = Leavings { world: Some(Arc::clone(&self.world)) };
        for (image, name) in images {
            let push = PushRequest {
                image,
                name: name.clone(),
                platform: platform.clone(),
                auth: auth.clone(),
            };
            let pushed = self.world.parts.transfer.push(push, Arc::clone(&progress)).await?;
            announce(&self.world, "push", &name);
            sent(name.tag().unwrap_or_default(), &pushed);
        }
        Ok(())
    }

    async fn to_push(&self, name: &Reference, all_tags: bool) -> Result<Vec<(ImageId, Reference)>> {
        if name.digest().is_some() {
            // COMPAT: dockerd's text.
            return Err(Error::Invalid("cannot push a digest reference".to_owned()));
        }
        let images = self.world.parts.images.list().await?;
        let tags = |image: &ImageRecord| {
            let id = image.id.clone();
            let tags = image.tags.iter().filter(|tag| tag.repository() == name.repository());
            tags.cloned().map(move |tag| (id.clone(), tag)).collect::<Vec<_>>()
        };
        let mut found: Vec<_> = images.iter().flat_map(tags).collect();
        if found.is_empty() {
            // COMPAT: clients look for this text.
            let repository = name.repository().familiar();
            let text = format!("An image does not exist locally with the tag: {repository}");
            return Err(Error::NotFound(text));
        }
        if !all_tags {
            let wanted = name.clone().or_latest();
            found.retain(|(_, tag)| *tag == wanted);
            if found.is_empty() {
                // COMPAT: dockerd's text.
                return Err(Error::NotFound(format!("tag does not exist: {}", wanted.familiar())));
            }
        }
        found.sort_by(|(_, a), (_, b)| a.cmp(b));
        Ok(found)
    }

    /// Asks a registry what a name leads to.
    pub async fn distribution(
        &self,
        name: &Reference,
        auth: &RegistryAuth,
    ) -> Result<Distribution> {
        Ok(self.world.parts.transfer.resolve(name, auth).await?)
    }

    /// Checks credentials with a registry; returns the token to keep instead of the password, if there is one.
    pub async fn login(&self, server: &str, auth: &RegistryAuth) -> Result<Option<String>> {
        Ok(self.world.parts.transfer.login(server, auth).await?)
    }

    /// Looks for repositories (filters `is-official`, `is-automated`, `stars`).
    pub async fn search(&self, request: ImageSearch) -> Result<Vec<SearchResult>> {
        let ImageSearch { term, limit, filters, auth } = request;
        filters.check_keys(&["is-official", "is-automated", "stars"])?;
        let limit = if limit == 0 { 25 } else { limit };
        if !(1..=100).contains(&limit) {
            // COMPAT: dockerd's text.
            return Err(Error::Invalid(format!("limit {limit} is outside the range of [1, 100]")));
        }
        let official = filters.bool("is-official")?;
        let automated = filters.bool("is-automated")?;
        let mut stars = 0;
        for text in filters.values("stars") {
            let number = text.parse::<u64>();
            let bad = |_| Error::Invalid(format!("invalid filter 'stars={text}'"));
            stars = stars.max(number.map_err(bad)?);
        }
        // COMPAT: nothing is automated any more.
        if automated == Some(true) {
            return Ok(Vec::new());
        }
        let wanted = SearchRequest { term, limit: limit as u32, auth };
        let mut found = self.world.parts.transfer.search(wanted).await?;
        found.retain(|one| {
            one.stars >= stars && official.is_none_or(|wanted| wanted == one.official)
        });
        Ok(found)
    }
}
