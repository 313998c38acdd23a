//! The workbench on real overlays: what copies make, what hostile trees cannot, and that a layer made by a rename is what
//! its tar says.

use std::fs;
use std::io::Read;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use rorqual_core::DiffId;
use rorqual_snapshot::{
    CopyEdit, Edit, Error, FileTree, LayerSource, Mountable, Overlay, Owner, Selection,
    Snapshotter, Workbench,
};

use crate::layers::Buffer;
use crate::world::{World, options};

fn copy(from: FileTree, source: &str, target: &str) -> CopyEdit {
    CopyEdit {
        from,
        selection: Selection {
            source: source.to_owned(),
            wildcard: true,
            allow_empty: false,
            follow: true,
            parents: false,
            filter: None,
            owners: false,
        },
        target: target.to_owned(),
        owner: Owner::Ids(0, 0),
        mode: None,
        contents_only: true,
        unpack: false,
        make_parents: true,
        replace: false,
        created: None,
    }
}

async fn made(world: &World, base: &[DiffId], edits: Vec<Edit>) -> Result<DiffId, Error> {
    let snapshot = world.container(77, base).await;
    match world.overlay.edit(&snapshot, edits).await {
        Ok(()) => Ok(world.overlay.commit(&snapshot).await?.diff_id),
        Err(error) => {
            world.overlay.remove(&snapshot).await.unwrap();
            Err(error)
        }
    }
}

async fn copied(world: &World, base: &[DiffId], edit: CopyEdit) -> Result<DiffId, Error> {
    made(world, base, vec![Edit::Copy(Box::new(edit))]).await
}

/// Lists a tree with kinds, permissions and contents.
fn shown(root: &Path) -> Vec<String> {
    let mut all = Vec::new();
    let mut todo = vec![PathBuf::new()];
    while let Some(below) = todo.pop() {
        for entry in fs::read_dir(root.join(&below)).unwrap() {
            let path = below.join(entry.unwrap().file_name());
            let meta = fs::symlink_metadata(root.join(&path)).unwrap();
            let text = if meta.is_symlink() {
                format!("-> {}", fs::read_link(root.join(&path)).unwrap().display())
            } else if meta.is_file() {
                fs::read_to_string(root.join(&path)).unwrap()
            } else if meta.is_dir() {
                todo.push(path.clone());
                "/".to_owned()
            } else if meta.file_type().is_char_device() && meta.rdev() == 0 {
                "whiteout".to_owned()
            } else {
                "special".to_owned()
            };
            let mode = meta.permissions().mode() & 0o7777;
            all.push(format!("{} {mode:o} {}:{} {text}", path.display(), meta.uid(), meta.gid()));
        }
    }
    all.sort();
    all
}

fn context(world: &World) -> PathBuf {
    let path = world.temp.path().join("context");
    fs::create_dir_all(path.join("src/deep")).unwrap();
    fs::write(path.join("src/a"), "one").unwrap();
    fs::write(path.join("src/deep/b"), "two").unwrap();
    symlink("deep/b", path.join("src/link")).unwrap();
    fs::write(path.join("top.txt"), "three").unwrap();
    for (name, mode) in [
        ("src", 0o755),
        ("src/deep", 0o755),
        ("src/a", 0o640),
        ("src/deep/b", 0o644),
        ("top.txt", 0o644),
    ] {
        fs::set_permissions(path.join(name), fs::Permissions::from_mode(mode)).unwrap();
    }
    path
}

#[tokio::test]
async fn directories_are_merged_and_files_replaced() {
    let world = World::new();
    let from = FileTree::Directory(context(&world));
    let base = world.layer(&[("in/", ""), ("in/a", "old"), ("in/kept", "kept")]).await;
    let layer = copied(&world, std::slice::from_ref(&base), copy(from.clone(), "/src", "/in/"))
        .await
        .unwrap();
    let wanted = [
        "in 755 0:0 /",
        "in/a 640 0:0 one",
        "in/deep 755 0:0 /",
        "in/deep/b 644 0:0 two",
        "in/link 777 0:0 -> deep/b",
    ];
    assert_eq!(shown(&world.tree(&layer)), wanted);
    // A file goes into a directory, and under another name.
    for (target, wanted) in
        [("/in", "in/top.txt"), ("/in/named", "in/named"), ("/x/y/", "x/y/top.txt")]
    {
        let layer =
            copied(&world, std::slice::from_ref(&base), copy(from.clone(), "/top.txt", target))
                .await
                .unwrap();
        let found = shown(&world.tree(&layer));
        assert!(found.contains(&format!("{wanted} 644 0:0 three")), "{target} {found:?}");
    }
    let mut edit = copy(from.clone(), "/s*", "/out/");
    edit.contents_only = false;
    edit.mode = Some("u=rwX,go=".to_owned());
    edit.owner = Owner::Ids(5, 6);
    let layer = copied(&world, &[], edit).await.unwrap();
    assert!(shown(&world.tree(&layer)).contains(&"out/src/deep 700 5:6 /".to_owned()));
    let into_file = copy(from, "/src", "/in/kept");
    let refused = copied(&world, &[base], into_file).await.unwrap_err();
    assert!(refused.to_string().contains("cannot copy to non-directory"), "{refused}");
}

#[tokio::test]
async fn what_is_made_by_a_rename_is_what_its_tar_says() {
    let world = World::new();
    let base = world
        .layer(&[
            ("d/", ""),
            ("d/gone", "x"),
            ("d/stays", "y"),
            ("e/", ""),
            ("e/f", "z"),
            ("l", "-> d"),
        ])
        .await;
    let remove =
        |path: &str| Edit::Remove { path: path.to_owned(), allow_missing: false, wildcard: true };
    let mkdir = |path: &str| Edit::MakeDir {
        path: path.to_owned(),
        mode: 0o750,
        parents: true,
        owner: Owner::Ids(1, 2),
        created: None,
    };
    let write = |path: &str, data: &str| Edit::MakeFile {
        path: path.to_owned(),
        data: data.into(),
        mode: 0o4711,
        owner: Owner::Keep,
        created: Some(1_000),
    };
    let edits = vec![
        remove("/d/g*"),
        // Removed and made again: what was below must not show through, without a word that hides all.
        remove("/e"),
        mkdir("/e/new"),
        write("/e/file", "text"),
        Edit::Symlink {
            old: "x".to_owned(),
            new: "/s".to_owned(),
            owner: Owner::Keep,
            created: None,
        },
    ];
    let layer = made(&world, std::slice::from_ref(&base), edits).await.unwrap();
    let wanted = [
        "d 755 0:0 /",
        "d/gone 0 0:0 whiteout",
        "e 750 1:2 /",
        "e/f 0 0:0 whiteout",
        "e/file 4711 0:0 text",
        "e/new 750 1:2 /",
        "s 777 0:0 -> x",
    ];
    assert_eq!(shown(&world.tree(&layer)), wanted);
    // Its tar makes the same layer anywhere else.
    let tar = Buffer::default();
    world.overlay.layer_tar(&layer, Box::new(tar.clone())).await.unwrap();
    let other = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let second = Overlay::open(other.path(), options()).unwrap();
    let blob = Box::new(std::io::Cursor::new(tar.bytes()));
    let info = second.apply(LayerSource { blob, expected: Some(layer.clone()) }).await.unwrap();
    assert_eq!(shown(&other.path().join("layers").join(layer.0.hex()).join("fs")), wanted);
    assert_eq!(info, world.overlay.find_layer(&layer).await.unwrap().unwrap());
}

#[tokio::test]
async fn nothing_leads_out_of_either_tree() {
    let world = World::new();
    let outside = world.temp.path().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("secret"), "secret").unwrap();
    let context = context(&world);
    symlink(&outside, context.join("leak")).unwrap();
    symlink("../outside", context.join("up")).unwrap();
    let from = FileTree::Directory(context);
    for source in
        ["/leak/secret", "/up/secret", "/../outside/secret", "/leak", "/src/../../outside"]
    {
        let refused = copied(&world, &[], copy(from.clone(), source, "/x")).await.unwrap_err();
        assert!(matches!(refused, Error::NoSuchSource(_)), "{source} {refused}");
    }
    let absolute = format!("-> {}", outside.display());
    let base = world.layer(&[("abs", absolute.as_str()), ("rel", "-> ../../../../outside")]).await;
    for target in ["/abs/planted", "/rel/planted", "/../../outside/planted", "/abs/", "/rel"] {
        copied(&world, std::slice::from_ref(&base), copy(from.clone(), "/top.txt", target))
            .await
            .unwrap();
    }
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 1, "nothing was planted");
}

#[tokio::test]
async fn archives_are_unpacked_and_others_copied() {
    let world = World::new();
    let folder = world.temp.path().join("archives");
    fs::create_dir(&folder).unwrap();
    fs::write(
        folder.join("a.tar"),
        crate::world::tar(&[("d/", ""), ("d/f", "x"), ("up", "-> ../../..")]),
    )
    .unwrap();
    fs::write(folder.join("plain"), "no archive").unwrap();
    let from = FileTree::Directory(folder);
    for (source, wanted) in
        [("/a.tar", "t/d/f 644 3:4 x"), ("/plain", "t/plain 644 3:4 no archive")]
    {
        let mut edit = copy(from.clone(), source, "/t/");
        edit.unpack = true;
        edit.owner = Owner::Ids(3, 4);
        edit.mode = (source == "/plain").then(|| "644".to_owned());
        let layer = copied(&world, &[], edit).await.unwrap();
        let found = shown(&world.tree(&layer));
        assert!(found.contains(&wanted.to_owned()), "{source} {found:?}");
    }
}

#[tokio::test]
async fn names_of_owners_are_those_of_the_tree() {
    let world = World::new();
    let base = world
        .layer(&[("etc/", ""), ("etc/passwd", "u:x:41:42::/:\n"), ("etc/group", "g:x:43:\n")])
        .await;
    let from = FileTree::Directory(context(&world));
    for (owner, wanted) in
        [("u", "41:42"), ("u:g", "41:43"), ("9", "9:9"), (":g", "0:43"), ("9:u", "")]
    {
        let mut edit = copy(from.clone(), "/top.txt", "/f");
        edit.owner = Owner::Named(owner.to_owned());
        match copied(&world, std::slice::from_ref(&base), edit).await {
            Ok(layer) => assert_eq!(shown(&world.tree(&layer)), [format!("f 644 {wanted} three")]),
            Err(error) => {
                assert_eq!(wanted, "", "{owner}");
                assert!(error.to_string().contains("unable to find group u"), "{error}");
            }
        }
    }
}

#[tokio::test]
async fn what_was_made_to_mount_on_goes_and_the_rest_stays() {
    let world = World::new();
    let base = world.layer(&[("there/", "")]).await;
    let tree = FileTree::Layers(vec![base.clone()]);
    let paths = ["/there/x/y", "/there", "/new/full"].map(str::to_owned).to_vec();
    let missing = world.overlay.missing(&tree, paths).await.unwrap();
    assert_eq!(missing, ["there/x/y", "new/full", "there/x", "new"]);
    let mkdir = |path: &str| Edit::MakeDir {
        path: path.to_owned(),
        mode: 0o755,
        parents: true,
        owner: Owner::Keep,
        created: None,
    };
    let write = Edit::MakeFile {
        path: "/new/full/file".to_owned(),
        data: b"x".to_vec(),
        mode: 0o644,
        owner: Owner::Keep,
        created: None,
    };
    let edits =
        vec![mkdir("/there/x/y"), mkdir("/new/full"), write, Edit::Prune { paths: missing }];
    let layer = made(&world, &[base], edits).await.unwrap();
    assert_eq!(
        shown(&world.tree(&layer)),
        ["new 755 0:0 /", "new/full 755 0:0 /", "new/full/file 644 0:0 x"]
    );
}

#[tokio::test]
async fn parts_of_layers_can_be_mounted() {
    let world = World::new();
    let lower = world
        .layer(&[("d/", ""), ("d/a", "1"), ("f", "low"), ("hidden/", ""), ("hidden/x", "x")])
        .await;
    let upper =
        world.layer(&[("d/b", "2"), (".wh.hidden", ""), ("hidden2/", ""), ("l", "-> d")]).await;
    let tree = FileTree::Layers(vec![lower.clone(), upper.clone()]);
    let find = async |path: &str| world.overlay.mountable(&tree, path).await.unwrap();
    let Some(Mountable::Layers(plan)) = find("/l").await else { panic!("no directory") };
    assert_eq!(plan.lower, [world.tree(&upper).join("d"), world.tree(&lower).join("d")]);
    assert_eq!(find("/f").await, Some(Mountable::File(world.tree(&lower).join("f"))));
    assert_eq!(find("/hidden/x").await, None);
    assert_eq!(find("/nowhere").await, None);
}

#[tokio::test]
async fn times_are_bounded_and_nothing_else_changes() {
    let world = World::new();
    let context = context(&world);
    let layer =
        copied(&world, &[], copy(FileTree::Directory(context), "/src", "/s/")).await.unwrap();
    let early = world.overlay.no_later_than(&layer, 500).await.unwrap().diff_id;
    assert_ne!(early, layer);
    assert_eq!(shown(&world.tree(&early)), shown(&world.tree(&layer)));
    for path in ["s", "s/a", "s/deep/b", "s/link"] {
        let meta = fs::symlink_metadata(world.tree(&early).join(path)).unwrap();
        assert_eq!(meta.mtime(), 500, "{path}");
    }
    assert_eq!(world.overlay.no_later_than(&early, 500).await.unwrap().diff_id, early);
    let tree = FileTree::Layers(vec![early]);
    let mut archive = world.overlay.archive(&tree, Some(100)).await.unwrap();
    let mut bytes = Vec::new();
    archive.read_to_end(&mut bytes).unwrap();
    assert!(!bytes.is_empty());
}
