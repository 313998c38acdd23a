//! Image records in the database, with all of them in memory: reading takes no disk and no lock that a writer holds.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use rorqual_core::{DiffId, ImageId, Reference, Timestamp};
use rorqual_store::{Database, Durability, Record};
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex as AsyncMutex;

use crate::{Descriptor, Error, ImageDocument, ImageRecord, Images, name};

type Table = BTreeMap<ImageId, ImageRecord>;

/// The images of one data root; clones share it.
#[derive(Clone)]
pub struct ImageStore(Arc<Inner>);

struct Inner {
    database: Database,
    /// What is on disk, too. Replaced as a whole.
    table: Mutex<Arc<Table>>,
    /// One change at a time.
    changing: AsyncMutex<()>,
}

/// An image as it is on disk.
#[derive(Serialize, Deserialize)]
struct Stored {
    id: ImageId,
    target: Descriptor,
    manifest: Descriptor,
    document: ImageDocument,
    tags: Vec<Reference>,
    digests: Vec<Reference>,
    size: u64,
    tagged_at: Option<Timestamp>,
}

impl Record for Stored {
    const KIND: &'static str = "image";
    const VERSION: u32 = 1;

    fn id(&self) -> String {
        self.id.to_string()
    }
}

/// What a layer was packed to, on disk.
#[derive(Serialize, Deserialize)]
struct PackedForm {
    layer: DiffId,
    packed: Descriptor,
}

impl Record for PackedForm {
    const KIND: &'static str = "packed-layer";
    const VERSION: u32 = 1;

    fn id(&self) -> String {
        self.layer.to_string()
    }
}

impl From<ImageRecord> for Stored {
    fn from(image: ImageRecord) -> Self {
        let ImageRecord { id, target, manifest, document, tags, digests, size, tagged_at } = image;
        Self { id, target, manifest, document, tags, digests, size, tagged_at }
    }
}

impl From<Stored> for ImageRecord {
    fn from(stored: Stored) -> Self {
        let Stored { id, target, manifest, document, tags, digests, size, tagged_at } = stored;
        Self { id, target, manifest, document, tags, digests, size, tagged_at }
    }
}

fn failed(action: &'static str) -> impl FnOnce(rorqual_store::Error) -> Error {
    move |source| Error::Database { action, source: Box::new(source) }
}

impl ImageStore {
    /// Reads all records.
    pub async fn open(database: Database) -> Result<Self, Error> {
        let stored = database.list::<Stored>().await.map_err(failed("read the images"))?;
        let images = stored.into_iter().map(ImageRecord::from);
        let table = images.map(|image| (image.id.clone(), image)).collect::<Table>();
        let table = Mutex::new(Arc::new(table));
        Ok(Self(Arc::new(Inner { database, table, changing: AsyncMutex::new(()) })))
    }

    fn table(&self) -> Arc<Table> {
        Arc::clone(&self.0.table.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Makes a change on disk, then in memory. A task of its own, so that a caller who goes away cannot part them.
    async fn change<T: Send + 'static>(
        &self,
        change: impl FnOnce(&mut Table) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let store = self.clone();
        let task = tokio::spawn(async move { store.change_steps(change).await });
        task.await.map_err(|error| Error::Database {
            action: "change an image",
            source: Box::new(error),
        })?
    }

    async fn change_steps<T>(
        &self,
        change: impl FnOnce(&mut Table) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let _one = self.0.changing.lock().await;
        let before = self.table();
        let mut after = Table::clone(&before);
        let value = change(&mut after)?;
        let written = after.values().filter(|image| before.get(&image.id) != Some(image));
        let written = written.cloned().map(Stored::from).collect::<Vec<_>>();
        let removed = before.keys().filter(|id| !after.contains_key(id));
        let removed = removed.map(ToString::to_string).collect::<Vec<_>>();
        let write = self.0.database.write(Durability::Full, move |records| {
            written.iter().try_for_each(|image| records.put(image))?;
            removed.iter().try_for_each(|id| records.remove::<Stored>(id).map(drop))
        });
        write.await.map_err(failed("change an image"))?;
        *self.0.table.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(after);
        Ok(value)
    }
}

#[async_trait]
impl Images for ImageStore {
    async fn put(&self, image: ImageRecord) -> Result<(), Error> {
        self.change(move |images| {
            name::put(images, image);
            Ok(())
        })
        .await
    }

    async fn resolve(&self, text: &str) -> Result<ImageRecord, Error> {
        name::resolve(text, self.table().values()).cloned()
    }

    async fn image(&self, id: &ImageId) -> Result<ImageRecord, Error> {
        self.table().get(id).cloned().ok_or_else(|| name::missing_id(id))
    }

    async fn list(&self) -> Result<Vec<ImageRecord>, Error> {
        Ok(self.table().values().cloned().collect())
    }

    async fn tag(
        &self,
        id: &ImageId,
        name: &Reference,
        at: Timestamp,
    ) -> Result<Option<ImageId>, Error> {
        let (id, name) = (id.clone(), name.clone());
        self.change(move |images| name::tag(images, &id, &name, at)).await
    }

    async fn untag(&self, id: &ImageId, name: &Reference) -> Result<bool, Error> {
        let (id, name) = (id.clone(), name.clone());
        self.change(move |images| name::untag(images, &id, &name)).await
    }

    async fn remove(&self, id: &ImageId) -> Result<(), Error> {
        let id = id.clone();
        self.change(move |images| images.remove(&id).map(drop).ok_or_else(|| name::missing_id(&id)))
            .await
    }

    async fn packed_forms(&self) -> Result<Vec<(DiffId, Descriptor)>, Error> {
        let forms = self.0.database.list::<PackedForm>().await;
        let forms = forms.map_err(failed("read what layers were packed to"))?;
        Ok(forms.into_iter().map(|form| (form.layer, form.packed)).collect())
    }

    async fn note_packed(&self, layer: &DiffId, packed: &Descriptor) -> Result<(), Error> {
        let form = PackedForm { layer: layer.clone(), packed: packed.clone() };
        let written = self.0.database.put(Durability::Normal, form).await;
        written.map_err(failed("note what a layer was packed to"))
    }

    async fn forget_packed(&self, layers: Vec<DiffId>) -> Result<(), Error> {
        let remove = self.0.database.write(Durability::Normal, move |records| {
            layers
                .iter()
                .try_for_each(|layer| records.remove::<PackedForm>(&layer.to_string()).map(drop))
        });
        remove.await.map_err(failed("forget what layers were packed to"))
    }
}

#[cfg(test)]
mod tests;
