//! Garbage collection while the registry serves.
//!
//! What counts as used: tags, young things, what the trash still holds, and all that these lead to, through indexes to
//! manifests, from subjects to what refers to them, and from manifests to blobs. Everything else goes, in three steps:
//! manifests without a tag (if that is wanted), links of repositories to blobs, bytes without a link.
//!
//! Nobody waits for a collection. Who begins to use something makes it young first and looks for a mark then; the collector
//! sets the mark first and looks at the age then; so whichever is later sees the other, and who wrote something looks whether it is still
//! there when the mark is gone. The age (`grace`) covers the time
//! between a client's look at a blob and the push of the manifest that needs it; it is counted back from when the collection began, so
//! it need not cover the time that a collection takes. One collector works at a time.

mod lock;

use std::collections::{HashMap, HashSet};
use std::time::SystemTime;

use bytes::Bytes;
use rorqual_core::{Digest, Timestamp};

use crate::config::{Retention, fits};
use crate::error::Result;
use crate::name::{Name, Tag, key};
use crate::repository::{MARK_HOLDS, Manifest, Repositories, TagRecord, age};
use crate::storage::{Durability, list_all};

use lock::Lock;

/// What a collection removed, or would.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Report {
    pub(crate) tags: usize,
    pub(crate) manifests: usize,
    pub(crate) links: usize,
    pub(crate) blobs: usize,
    pub(crate) bytes: u64,
    pub(crate) uploads: usize,
    pub(crate) trash: usize,
}

/// One collection.
pub(crate) struct Collector<'a> {
    repositories: &'a Repositories,
    dry_run: bool,
    /// Ages are counted from here, not from the moment of the look: what came into use while the collection went on is young, however
    /// long that takes.
    began: SystemTime,
    say: &'a (dyn Fn(&str) + Sync),
    report: Report,
    /// `None` for a dry run.
    lock: Option<Lock>,
}

/// Collects once. `say` hears of each thing that goes.
pub(crate) async fn collect(
    repositories: &Repositories,
    dry_run: bool,
    say: &(dyn Fn(&str) + Sync),
) -> Result<Report> {
    collect_from(SystemTime::now(), repositories, dry_run, say).await
}

async fn collect_from(
    began: SystemTime,
    repositories: &Repositories,
    dry_run: bool,
    say: &(dyn Fn(&str) + Sync),
) -> Result<Report> {
    let storage = &*repositories.storage;
    let lock = if dry_run { None } else { Some(Lock::acquire(storage).await?) };
    let mut collector =
        Collector { repositories, dry_run, began, say, report: Report::default(), lock };
    let result = collector.run().await;
    let Collector { report, lock, .. } = collector;
    if let Some(lock) = lock {
        lock.release(storage).await;
    }
    result.map(|()| report)
}

/// What a repository uses, as far as it was looked at.
#[derive(Default)]
struct Marked {
    manifests: HashMap<Digest, Node>,
    live: HashSet<Digest>,
    blobs: HashSet<Digest>,
}

struct Node {
    manifests: Vec<Digest>,
    blobs: Vec<Digest>,
    subject: Option<Digest>,
}

impl Collector<'_> {
    async fn renew(&self) -> Result<()> {
        match &self.lock {
            Some(lock) => lock.renew(&*self.repositories.storage).await,
            None => Ok(()),
        }
    }

    async fn run(&mut self) -> Result<()> {
        self.sweep_marks(key::CONDEMNED).await?;
        let names = self.repositories.catalog().await?;
        for name in &names {
            self.renew().await?;
            self.repository(name).await?;
        }
        self.bytes(&names).await?;
        self.sweep_pins().await?;
        self.report.uploads = self.repositories.expire_uploads(self.dry_run).await?;
        Ok(())
    }

    fn tell(&self, what: &str) {
        (self.say)(&format!("{} {what}", if self.dry_run { "would remove" } else { "remove" }));
    }

    fn is_young(&self, modified: std::time::SystemTime) -> bool {
        let age = self.began.duration_since(modified).unwrap_or_default();
        let grace = self.repositories.config.gc.grace.0;
        // Who looked at something younger than half the grace left it as it is, and may count on the whole of it from then on.
        age <= grace + grace / 2
    }

    /// Removes marks that a collector left when it died.
    async fn sweep_marks(&self, folder: &str) -> Result<()> {
        for entry in list_all(&*self.repositories.storage, folder).await? {
            if age(entry.meta.modified) > MARK_HOLDS && !self.dry_run {
                self.repositories.storage.delete(&format!("{folder}/{}", entry.name)).await?;
            }
        }
        Ok(())
    }

    async fn repository(&mut self, name: &Name) -> Result<()> {
        self.sweep_marks(&key::folder(name, "condemned")).await?;
        let tags = self.retain(name).await?;
        let mut marked = self.mark(name, &tags).await?;
        self.empty_trash(name, &mut marked).await?;
        spread(&mut marked);
        let dead: Vec<Digest> = marked
            .manifests
            .keys()
            .filter(|digest| !marked.live.contains(digest))
            .cloned()
            .collect();
        for digest in dead {
            self.remove_manifest(name, &digest).await?;
            // What goes to the trash keeps its blobs until the trash is emptied.
            if !self.repositories.config.gc.undo.0.is_zero()
                && let Some(node) = marked.manifests.get(&digest)
            {
                marked.blobs.extend(node.blobs.iter().cloned());
            }
        }
        self.remove_links(name, &marked.blobs).await?;
        self.sweep_referrers(name, &marked).await
    }

    /// Applies the retention rules; returns the tags that stay.
    async fn retain(&mut self, name: &Name) -> Result<Vec<(Tag, TagRecord)>> {
        let mut records = self.repositories.tag_records(name).await?;
        let config = &self.repositories.config;
        let mut rules: Vec<Retention> = config
            .retention
            .iter()
            .filter(|rule| fits(&rule.repository, name.as_str()))
            .cloned()
            .collect();
        rules.extend(config.proxy.as_ref().map(|proxy| Retention {
            repository: "*".to_owned(),
            tags: "*".to_owned(),
            keep: None,
            age: Some(proxy.ttl),
        }));
        let now = Timestamp::from(std::time::SystemTime::now());
        for rule in rules {
            for (tag, record) in outlived(&rule, &records, now) {
                self.report.tags += 1;
                self.tell(&format!("tag {name}:{tag}"));
                if !self.dry_run {
                    self.repositories.trash_tag(name, &tag, &record).await?;
                }
                records.retain(|(known, _)| *known != tag);
            }
        }
        Ok(records)
    }

    /// Reads all manifests of a repository and notes where looking for the living begins.
    async fn mark(&self, name: &Name, tags: &[(Tag, TagRecord)]) -> Result<Marked> {
        let mut marked = Marked::default();
        marked.live.extend(tags.iter().map(|(_, record)| record.digest.clone()));
        let config = &self.repositories.config;
        let untagged = config.proxy.as_ref().map(|proxy| proxy.ttl).or(config.gc.untagged);
        for (digest, _) in self.repositories.manifest_digests(name).await? {
            let Some(manifest) = self.repositories.manifest(name, &digest).await? else { continue };
            let stays = self.is_young(manifest.modified)
                || untagged.is_none_or(|most| age(manifest.modified) <= most.0);
            if stays {
                marked.live.insert(digest.clone());
            }
            marked.manifests.insert(digest, node(&manifest)?);
        }
        Ok(marked)
    }

    /// Removes what nobody can want back any more; the rest counts as used.
    async fn empty_trash(&mut self, name: &Name, marked: &mut Marked) -> Result<()> {
        let now = Timestamp::from(std::time::SystemTime::now());
        let undo = self.repositories.config.gc.undo.0;
        for entry in self.repositories.trashed(name).await? {
            if now.since(entry.deleted.at) > undo {
                self.report.trash += 1;
                if !self.dry_run {
                    self.repositories.storage.delete(&entry.key).await?;
                }
                continue;
            }
            marked.live.insert(entry.deleted.digest.clone());
            if let Some(document) = entry.document() {
                marked.blobs.extend(document.blobs().iter().map(|blob| blob.digest.clone()));
                let children = document.manifests().iter().map(|child| child.digest.clone());
                marked.live.extend(children);
            }
        }
        Ok(())
    }

    async fn remove_manifest(&mut self, name: &Name, digest: &Digest) -> Result<()> {
        let storage = &self.repositories.storage;
        if self.dry_run {
            self.report.manifests += 1;
            self.tell(&format!("manifest {name}@{digest}"));
            return Ok(());
        }
        let mark = key::condemned_manifest(name, digest);
        storage.put(&mark, Bytes::new(), Durability::Volatile).await?;
        let manifest = self.repositories.manifest(name, digest).await?;
        if let Some(manifest) = manifest.filter(|manifest| !self.is_young(manifest.modified)) {
            self.repositories.trash_manifest(name, &manifest, &[]).await?;
            self.report.manifests += 1;
            self.tell(&format!("manifest {name}@{digest}"));
        }
        self.repositories.storage.delete(&mark).await
    }

    async fn remove_links(&mut self, name: &Name, used: &HashSet<Digest>) -> Result<()> {
        let storage = &self.repositories.storage;
        for entry in list_all(&**storage, &key::folder(name, "blobs")).await? {
            let Some(digest) = key::unflat(&entry.name) else { continue };
            if used.contains(&digest) || self.is_young(entry.meta.modified) {
                continue;
            }
            if !self.dry_run {
                let (link, mark) = (key::link(name, &digest), key::condemned_link(name, &digest));
                storage.put(&mark, Bytes::new(), Durability::Volatile).await?;
                let meta = storage.head(&link).await?;
                let goes = meta.is_some_and(|meta| !self.is_young(meta.modified));
                if goes {
                    storage.delete(&link).await?;
                }
                storage.delete(&mark).await?;
                if !goes {
                    continue;
                }
            }
            self.report.links += 1;
            self.tell(&format!("blob {digest} from {name}"));
        }
        if self.report.links > 0 {
            self.repositories.usage().forget(name);
        }
        Ok(())
    }

    /// Removes notes about referrers that are not there any more.
    async fn sweep_referrers(&self, name: &Name, marked: &Marked) -> Result<()> {
        let storage = &self.repositories.storage;
        let folder = key::folder(name, "referrers");
        for subject in storage.folders(&folder).await? {
            let folder = format!("{folder}/{subject}");
            for entry in list_all(&**storage, &folder).await? {
                let is_known = key::unflat(&entry.name)
                    .is_some_and(|digest| marked.manifests.contains_key(&digest));
                if !is_known && !self.is_young(entry.meta.modified) && !self.dry_run {
                    storage.delete(&format!("{folder}/{}", entry.name)).await?;
                }
            }
        }
        Ok(())
    }

    /// Removes the bytes that no repository links to.
    async fn bytes(&mut self, names: &[Name]) -> Result<()> {
        let storage = &self.repositories.storage;
        let mut linked = HashSet::new();
        for name in names {
            self.renew().await?;
            let entries = list_all(&**storage, &key::folder(name, "blobs")).await?;
            linked.extend(entries.iter().filter_map(|entry| key::unflat(&entry.name)));
        }
        for algorithm in storage.folders(key::BLOBS).await? {
            for shard in storage.folders(&format!("{}/{algorithm}", key::BLOBS)).await? {
                self.renew().await?;
                let folder = format!("{}/{algorithm}/{shard}", key::BLOBS);
                for entry in list_all(&**storage, &folder).await? {
                    let digest = format!("{algorithm}:{}", entry.name).parse::<Digest>();
                    let Ok(digest) = digest else { continue };
                    if !linked.contains(&digest) && !self.is_young(entry.meta.modified) {
                        self.remove_bytes(&digest, entry.meta.size).await?;
                    }
                }
            }
        }
        Ok(())
    }

    async fn remove_bytes(&mut self, digest: &Digest, size: u64) -> Result<()> {
        let storage = &self.repositories.storage;
        if !self.dry_run {
            let mark = key::condemned(digest);
            storage.put(&mark, Bytes::new(), Durability::Volatile).await?;
            let pin = storage.head(&key::pin(digest)).await?;
            let goes = pin.is_none_or(|pin| !self.is_young(pin.modified));
            if goes {
                storage.delete(&key::blob(digest)).await?;
            }
            storage.delete(&mark).await?;
            if !goes {
                return Ok(());
            }
        }
        self.report.blobs += 1;
        self.report.bytes += size;
        self.tell(&format!("{size} bytes of {digest}"));
        Ok(())
    }

    async fn sweep_pins(&self) -> Result<()> {
        for entry in list_all(&*self.repositories.storage, key::PINS).await? {
            if !self.is_young(entry.meta.modified) && !self.dry_run {
                self.repositories.storage.delete(&format!("{}/{}", key::PINS, entry.name)).await?;
            }
        }
        Ok(())
    }
}

fn node(manifest: &Manifest) -> Result<Node> {
    let document = manifest.document()?;
    Ok(Node {
        manifests: document.manifests().iter().map(|child| child.digest.clone()).collect(),
        blobs: document.blobs().iter().map(|blob| blob.digest.clone()).collect(),
        subject: document.subject,
    })
}

/// Follows all edges from the living.
fn spread(marked: &mut Marked) {
    let mut referrers: HashMap<&Digest, Vec<&Digest>> = HashMap::new();
    for (digest, node) in &marked.manifests {
        if let Some(subject) = &node.subject {
            referrers.entry(subject).or_default().push(digest);
        }
    }
    let mut open: Vec<Digest> = marked.live.iter().cloned().collect();
    while let Some(digest) = open.pop() {
        let node = marked.manifests.get(&digest);
        let children = node.iter().flat_map(|node| node.manifests.iter());
        let referring = referrers.get(&digest).into_iter().flatten().copied();
        for next in children.chain(referring) {
            if marked.live.insert(next.clone()) {
                open.push(next.clone());
            }
        }
        marked.blobs.extend(node.iter().flat_map(|node| node.blobs.iter().cloned()));
    }
}

/// Chooses the tags that a rule takes: neither among the newest that stay nor young enough.
fn outlived(
    rule: &Retention,
    records: &[(Tag, TagRecord)],
    now: Timestamp,
) -> Vec<(Tag, TagRecord)> {
    let mut found: Vec<_> =
        records.iter().filter(|(tag, _)| fits(&rule.tags, tag.as_str())).cloned().collect();
    found.sort_by_key(|(_, record)| std::cmp::Reverse(record.pushed));
    let kept = rule.keep.unwrap_or(0).min(found.len());
    let mut rest = found.split_off(kept);
    rest.retain(|(_, record)| rule.age.is_none_or(|most| now.since(record.pushed) > most.0));
    rest
}

#[cfg(test)]
mod tests;
