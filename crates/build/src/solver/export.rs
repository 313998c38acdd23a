//! What becomes of a state: an image in the local store, or a tar of its files.

use std::io::Read;
use std::time::{Duration, SystemTime};

use rorqual_content::{ImageDocument, RootFs};
use rorqual_core::{DiffId, ImageId, Reference, Timestamp};

use super::cache::now;
use super::files::failed;
use super::{Solver, State};
use crate::Error;
use crate::error::other;

/// An image to make of a state.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImageExport {
    /// Its config with its history; the layers, and times that are empty, are filled in.
    pub document: ImageDocument,
    /// Names that it gets.
    pub names: Vec<Reference>,
    /// Its time, seconds since the epoch (`SOURCE_DATE_EPOCH`); that of its layers when `None`.
    pub epoch: Option<i64>,
    /// No file has a time later than `epoch`.
    pub rewrite_timestamps: bool,
    /// Layers of the image it was made from: those stay as they are, whatever their times.
    pub base_layers: usize,
    /// Records of the build's cache, for its config.
    pub cache: String,
}

/// The config of an image whose layers are made, kept until the image refers to them.
pub struct Exported {
    /// Complete.
    pub document: ImageDocument,
    _held: Vec<super::keeper::LayersHeld>,
}

/// Digest of the tar that holds nothing.
const EMPTY_TAR: &str = "5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef";

fn text(seconds: i64) -> String {
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
    Timestamp::from(time).to_string()
}

/// Makes the history say as many layers as there are: what is missing is added, a step too many has none.
fn fit_history(document: &mut ImageDocument, layers: usize) {
    let mut left = layers;
    for step in document.history.iter_mut().filter(|step| !step.empty_layer) {
        match left.checked_sub(1) {
            Some(rest) => left = rest,
            None => step.empty_layer = true,
        }
    }
    if !document.history.is_empty() {
        let created_by = "unknown".to_owned();
        let step = rorqual_content::History { created_by, ..Default::default() };
        document.history.extend(vec![step; left]);
    }
}

/// Fills in times that are empty: a step has that of its layer, one without a layer that of the step before. So a build
/// that found all in the cache makes the same image again.
fn date(
    document: &mut ImageDocument,
    times: &mut dyn Iterator<Item = String>,
    epoch: Option<String>,
) {
    let mut last = String::new();
    for step in &mut document.history {
        let own = if step.empty_layer { None } else { times.next() };
        if step.created.is_empty() {
            step.created = own.filter(|_| !step.empty_layer).unwrap_or_else(|| last.clone());
        }
        last.clone_from(&step.created);
    }
    if document.created.is_empty() {
        document.created = epoch.unwrap_or(last);
    }
    if document.created.is_empty() {
        document.created = now().to_string();
    }
    for step in document.history.iter_mut().filter(|step| step.created.is_empty()) {
        step.created.clone_from(&document.created);
    }
}

impl Solver {
    /// Makes an image of a state. The same state, config and time make the same image, on every daemon.
    pub async fn export_image(&self, state: &State, export: ImageExport) -> Result<ImageId, Error> {
        let names = export.names.clone();
        let exported = self.export_document(state, export).await?;
        let made = self.0.parts.transfer.make(exported.document, names).await;
        made.map_err(other("record the image"))
    }

    /// Makes the config of an image of a state, and the layers that only the image has.
    pub async fn export_document(
        &self,
        state: &State,
        export: ImageExport,
    ) -> Result<Exported, Error> {
        if !state.is_layered() {
            let text =
                "a directory of the client cannot become an image; copy it into a state first";
            return Err(Error::Unsupported(text.to_owned()));
        }
        let ImageExport {
            mut document,
            epoch,
            rewrite_timestamps,
            base_layers,
            cache: records,
            ..
        } = export;
        let mut layers = state.layers().to_vec();
        // ORDER: kept until the image refers to them.
        let mut held = Vec::new();
        if let Some(latest) = epoch.filter(|_| rewrite_timestamps) {
            for layer in layers.iter_mut().skip(base_layers) {
                let (rewritten, guard) = self.rewrite(layer, latest).await?;
                *layer = rewritten;
                held.push(guard);
            }
        }
        fit_history(&mut document, layers.len());
        let cache = &self.0.parts.cache;
        let mut times = layers.iter().map(|layer| match epoch {
            Some(epoch) => text(epoch),
            None => cache.made(layer).unwrap_or_else(now).to_string(),
        });
        date(&mut document, &mut times, epoch.map(text));
        document.rootfs = RootFs { kind: "layers".to_owned(), diff_ids: layers };
        document.build_cache = records;
        Ok(Exported { document, _held: held })
    }

    async fn rewrite(
        &self,
        layer: &DiffId,
        latest: i64,
    ) -> Result<(DiffId, super::keeper::LayersHeld), Error> {
        let parts = &self.0.parts;
        let hold = parts.transfer.hold().await;
        let made = parts.workbench.no_later_than(layer, latest).await;
        let made = made.map_err(|error| failed("set the times of a layer", error))?;
        let guard = parts.cache.hold(std::slice::from_ref(&made.diff_id));
        drop(hold);
        Ok((made.diff_id, guard))
    }

    /// Opens a tar of a state's files, no time in it later than `latest` (seconds since the epoch).
    pub async fn tar(
        &self,
        state: &State,
        latest: Option<i64>,
    ) -> Result<Box<dyn Read + Send>, Error> {
        let archive = self.0.parts.workbench.archive(&state.tree(), latest).await;
        archive.map_err(|error| failed("pack the files of a state", error))
    }

    /// Tells whether a layer holds nothing.
    pub fn is_empty_layer(layer: &DiffId) -> bool {
        layer.0.hex() == EMPTY_TAR
    }
}
