//! With skopeo as the other side, where it is installed.

use std::path::Path;
use std::process::Command;

use rorqual_content::Images;

use crate::world::World;

fn skopeo(dir: &Path, from: &str, to: &str) -> bool {
    let run = Command::new("skopeo")
        .args(["--insecure-policy", "copy", from, to])
        .current_dir(dir)
        .output();
    match run {
        Ok(out) => {
            assert!(
                out.status.success(),
                "{from} to {to}: {}",
                String::from_utf8_lossy(&out.stderr)
            );
            true
        }
        Err(_) => false,
    }
}

#[tokio::test]
async fn archives_travel_through_skopeo() {
    let world = World::new().await;
    let id = world.install("app:1", &[("/hello", "binary"), ("/x", "y")]).await;
    world.install("app:2", &[("/other", "binary")]).await;
    let archive = world.save(&[(id.clone(), &["app:1"])]).await;
    let dir = world.temp.path();
    std::fs::write(dir.join("saved.tar"), &archive).unwrap();
    if !skopeo(dir, "docker-archive:saved.tar", "docker-archive:classic.tar:app:1") {
        return;
    }
    skopeo(dir, "oci-archive:saved.tar", "oci-archive:layout.tar:app:1");
    skopeo(dir, "oci-archive:saved.tar", "oci:layout:app:1");
    skopeo(dir, "oci:layout:app:1", "docker-archive:back.tar:app:1");
    for (file, same) in [("classic.tar", true), ("back.tar", false), ("layout.tar", true)] {
        let there = World::new().await;
        let loaded = there.load(std::fs::read(dir.join(file)).unwrap()).await.unwrap();
        assert_eq!(loaded.len(), 1, "{file}");
        let image = there.images.image(&loaded[0].id).await.unwrap();
        let layers = world.images.image(&id).await.unwrap().document.rootfs;
        assert_eq!(image.document.rootfs, layers, "{file}");
        assert!(!same || loaded[0].id == id, "{file}: skopeo changes no config here");
        assert_eq!(image.tags.len(), 1, "{file}");
    }
}
