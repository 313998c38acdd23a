//! A data root of its own for each test.

use std::io::{Cursor, Write};
use std::sync::{Arc, Mutex};

use rorqual_content::{Blobs, ImageConfig, ImageStore, Images, LocalBlobs};
use rorqual_core::{Digest, ImageId, Platform, Reference};
use rorqual_snapshot::tar::{Entry, Kind, Writer};
use rorqual_snapshot::{Options, Overlay, Snapshotter};
use rorqual_store::Database;
use rorqual_transfer::{Error, ImageFile, Loaded, LocalTransfer, RegistryOptions, Transfer};
use sha2::{Digest as _, Sha256};

pub(crate) struct World {
    pub(crate) temp: tempfile::TempDir,
    pub(crate) blobs: Arc<LocalBlobs>,
    pub(crate) images: Arc<ImageStore>,
    pub(crate) snapshots: Arc<Overlay>,
    pub(crate) transfer: LocalTransfer,
}

#[derive(Clone, Default)]
struct Buffer(Arc<Mutex<Vec<u8>>>);

impl Buffer {
    fn bytes(&self) -> Vec<u8> {
        self.0.lock().unwrap().clone()
    }
}

impl Write for Buffer {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn transfer(
    blobs: &Arc<LocalBlobs>,
    images: &Arc<ImageStore>,
    snapshots: &Arc<Overlay>,
) -> LocalTransfer {
    LocalTransfer::new(
        Arc::clone(blobs) as Arc<dyn Blobs>,
        Arc::clone(images) as Arc<dyn Images>,
        Arc::clone(snapshots) as Arc<dyn Snapshotter>,
    )
}

impl World {
    pub(crate) async fn new() -> Self {
        let temp = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let blobs = Arc::new(LocalBlobs::open(temp.path()).unwrap());
        let images = Arc::new(ImageStore::open(Database::in_memory().unwrap()).await.unwrap());
        let options = Options { durable: false, ..Options::default() };
        let snapshots = Arc::new(Overlay::open(temp.path(), options).unwrap());
        let transfer = transfer(&blobs, &images, &snapshots);
        Self { temp, blobs, images, snapshots, transfer }
    }

    /// Forgets all that is kept in memory only.
    pub(crate) fn restart(&mut self, options: RegistryOptions) {
        self.transfer = transfer(&self.blobs, &self.images, &self.snapshots);
        self.transfer.configure(options);
    }

    pub(crate) async fn load(&self, archive: Vec<u8>) -> Result<Vec<Loaded>, Error> {
        self.load_for(archive, None).await
    }

    pub(crate) async fn load_for(
        &self,
        archive: Vec<u8>,
        platform: Option<&str>,
    ) -> Result<Vec<Loaded>, Error> {
        let platform = platform.map(|text| text.parse::<Platform>().unwrap());
        self.transfer.load(Box::new(Cursor::new(archive)), platform, Arc::new(|_| ())).await
    }

    pub(crate) async fn save(&self, images: &[(ImageId, &[&str])]) -> Vec<u8> {
        let named = |names: &&[&str]| names.iter().map(|name| reference(name)).collect();
        let images = images.iter().map(|(id, names)| (id.clone(), named(names))).collect();
        let buffer = Buffer::default();
        self.transfer.save(images, None, Box::new(buffer.clone())).await.unwrap();
        buffer.bytes()
    }

    pub(crate) async fn install(&self, name: &str, files: &[(&str, &str)]) -> ImageId {
        let file = |(path, content): &(&str, &str)| ImageFile {
            path: (*path).to_owned(),
            mode: 0o755,
            bytes: content.as_bytes().to_vec(),
        };
        let config =
            ImageConfig { entrypoint: Some(vec!["/hello".to_owned()]), ..ImageConfig::default() };
        let files = files.iter().map(file).collect();
        self.transfer.install(reference(name), files, config).await.unwrap()
    }
}

pub(crate) fn reference(name: &str) -> Reference {
    name.parse::<Reference>().unwrap().or_latest()
}

pub(crate) fn sha(bytes: &[u8]) -> String {
    Digest::sha256(Sha256::digest(bytes).into()).hex().to_owned()
}

pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

pub(crate) fn tar(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut writer = Writer::new(Vec::new());
    for (path, content) in files {
        match content.strip_prefix(b"-> ") {
            Some(target) => {
                let mut entry = Entry::new(*path, Kind::Symlink, 0o777);
                entry.link = target.to_vec();
                writer.header(&entry).unwrap();
            }
            None => writer.file(Entry::new(*path, Kind::File, 0o644), content).unwrap(),
        }
    }
    writer.finish().unwrap()
}
