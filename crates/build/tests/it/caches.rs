//! Caches that travel from one solver to another.

use std::collections::BTreeMap;
use std::io::Cursor;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use rorqual_build::solver::{CacheDocument, CachedLayers, ImportedCache, Job, Recorder};
use rorqual_build::{CacheSharing, Error, ExecMount, Graph, Input, MountKind, Op};
use rorqual_content::{Descriptor, media_type};
use rorqual_core::DiffId;
use rorqual_snapshot::{LayerSource, Overlay, Snapshotter as _};

use crate::solver::{output, two_stages};
use crate::world::{Heard, Programs, World, add, exec, job};

/// Takes layers from another data root.
struct Layers {
    from: Arc<Overlay>,
    to: Arc<Overlay>,
    brought: AtomicUsize,
    broken: bool,
}

#[derive(Clone, Default)]
struct Buffer(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Buffer {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[async_trait]
impl CachedLayers for Layers {
    async fn bring(&self, _: &Descriptor, layer: &DiffId) -> Result<(), Error> {
        if self.broken {
            return Err(Error::NotFound { message: "gone".to_owned(), location: None });
        }
        let bytes = Buffer::default();
        self.from.layer_tar(layer, Box::new(bytes.clone())).await.unwrap();
        let blob = Box::new(Cursor::new(std::mem::take(&mut *bytes.0.lock().unwrap())));
        self.to.apply(LayerSource { blob, expected: Some(layer.clone()) }).await.unwrap();
        self.brought.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }
}

fn recorded(heard: &Arc<Heard>) -> (Job, Arc<Recorder>) {
    let recorder = Arc::new(Recorder::default());
    let mut job = job(heard);
    job.recorder = Some(Arc::clone(&recorder));
    (job, recorder)
}

/// Builds, and returns the document of the cache.
async fn export(world: &World, is_max: bool, mounts: bool, graph: Graph, wanted: Input) -> Vec<u8> {
    let heard = Arc::new(Heard::default());
    let (job, recorder) = recorded(&heard);
    let states = world.solver.solve(Arc::new(graph), &[output(wanted)], &job).await.unwrap();
    let results = (!is_max).then_some(states.as_slice());
    let export = world.solver.collect_cache(&recorder, results, mounts).await.unwrap();
    let packed = export.layers().into_iter().map(|layer| {
        let blob = Descriptor::new(media_type::OCI_LAYER, layer.0.clone(), 1);
        (layer, blob)
    });
    export.document(&packed.collect::<BTreeMap<_, _>>()).unwrap().to_bytes().unwrap()
}

fn import(
    document: &[u8],
    from: &World,
    to: &World,
    broken: bool,
) -> (Job, Arc<Heard>, Arc<Layers>) {
    let layers = Arc::new(Layers {
        from: Arc::clone(&from.overlay),
        to: Arc::clone(&to.overlay),
        brought: AtomicUsize::new(0),
        broken,
    });
    let document = CacheDocument::parse(document).unwrap();
    let cache = ImportedCache::new(&[document], Arc::clone(&layers) as _).unwrap();
    let heard = Arc::new(Heard::default());
    let mut job = job(&heard);
    job.imports.push(Arc::new(cache));
    (job, heard, layers)
}

fn graph() -> (Graph, Input) {
    let (graph, wanted) = two_stages("text", "a");
    (Arc::unwrap_or_clone(graph), Input::Output(wanted))
}

#[tokio::test]
async fn another_builder_runs_nothing_of_what_a_cache_holds() {
    let (first, second) =
        (World::new(Programs::default()).await, World::new(Programs::default()).await);
    let (built, wanted) = graph();
    let document = export(&first, true, false, built.clone(), wanted).await;
    let (job, heard, layers) = import(&document, &first, &second, false);
    let wanted = [output(wanted)];
    let states = second.solver.solve(Arc::new(built.clone()), &wanted, &job).await.unwrap();
    assert_eq!(heard.ended(), ["first*", "noise*", "copy*", "last*"]);
    assert!(second.ran().is_empty());
    let made = second.solver.read_file(&states[0], "/in/made", 100).await.unwrap();
    assert_eq!(made.unwrap(), b"text");
    assert!(layers.brought.load(Ordering::SeqCst) >= 4);
    // From then on it is the builder's own.
    let heard = Arc::new(Heard::default());
    let own = crate::world::job(&heard);
    second.solver.solve(Arc::new(built), &wanted, &own).await.unwrap();
    assert_eq!(heard.ended(), ["first*", "noise*", "copy*", "last*"]);
}

#[tokio::test]
async fn the_least_cache_has_only_what_the_result_consists_of() {
    let (first, second) =
        (World::new(Programs::default()).await, World::new(Programs::default()).await);
    let (built, wanted) = graph();
    let document = export(&first, false, false, built.clone(), wanted).await;
    let (job, heard, _) = import(&document, &first, &second, false);
    second.solver.solve(Arc::new(built), &[output(wanted)], &job).await.unwrap();
    assert_eq!(heard.ended(), ["first", "noise", "copy*", "last*"]);
}

#[tokio::test]
async fn a_cache_that_cannot_deliver_is_as_good_as_none() {
    let (first, second) =
        (World::new(Programs::default()).await, World::new(Programs::default()).await);
    let (built, wanted) = graph();
    let document = export(&first, true, false, built.clone(), wanted).await;
    let (job, heard, _) = import(&document, &first, &second, true);
    second.solver.solve(Arc::new(built), &[output(wanted)], &job).await.unwrap();
    assert_eq!(heard.ended(), ["first", "noise", "copy", "last"]);
    assert!(heard.logs().contains("an imported cache was not of use: gone"), "{}", heard.logs());
}

#[tokio::test]
async fn cache_mounts_travel_when_they_are_asked_for() {
    let build = |name: &str, args: &[&str]| {
        let mut graph = Graph::default();
        let Op::Exec(mut op) = exec(args, Input::Scratch) else { unreachable!() };
        op.mounts.push(ExecMount {
            target: "/cache".to_owned(),
            input: None,
            selector: "/".to_owned(),
            output: None,
            readonly: false,
            kind: MountKind::Cache { id: "it".to_owned(), sharing: CacheSharing::Shared },
        });
        let wanted = add(&mut graph, name, Op::Exec(op));
        (graph, wanted)
    };
    for (mounts, expected) in [(true, Some("kept")), (false, None)] {
        let (first, second) =
            (World::new(Programs::default()).await, World::new(Programs::default()).await);
        let (graph, wanted) = build("fill", &["keep", "kept"]);
        let document = export(&first, true, mounts, graph, wanted).await;
        let (job, _, _) = import(&document, &first, &second, false);
        // Another step with the same mount: it runs, and finds what the first one left.
        let (graph, wanted) = build("look", &["look"]);
        second.solver.solve(Arc::new(graph), &[output(wanted)], &job).await.unwrap();
        let found = second.programs.found.lock().unwrap().clone();
        assert_eq!(found.as_deref(), expected);
    }
}

#[tokio::test]
async fn an_image_carries_the_records_of_its_own_layers() {
    let (first, second) =
        (World::new(Programs::default()).await, World::new(Programs::default()).await);
    let (built, wanted) = graph();
    let heard = Arc::new(Heard::default());
    let (job, recorder) = recorded(&heard);
    let wanted = [output(wanted)];
    let states = first.solver.solve(Arc::new(built.clone()), &wanted, &job).await.unwrap();
    let export = first.solver.collect_cache(&recorder, Some(&states), false).await.unwrap();
    let text = export.inline(states[0].layers()).unwrap();
    let layers = states[0]
        .layers()
        .iter()
        .map(|layer| (Descriptor::new(media_type::OCI_LAYER, layer.0.clone(), 1), layer.clone()));
    let document = CacheDocument::inline(&text, &layers.collect::<Vec<_>>()).unwrap();
    let (job, heard, _) = import(&document.to_bytes().unwrap(), &first, &second, false);
    second.solver.solve(Arc::new(built), &wanted, &job).await.unwrap();
    assert_eq!(heard.ended(), ["first", "noise", "copy*", "last*"]);
}
