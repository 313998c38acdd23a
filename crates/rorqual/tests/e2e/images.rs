//! Images on disk: import, tag, commit, save, load, history, removal.

use rorqual_testkit::{TestResult, eventually};

use crate::{inspect, scenario};

#[test]
fn an_image_survives_commit_save_and_load() -> TestResult {
    scenario(|host| {
        host.cli([
            "run",
            "--name",
            "cc",
            "busybox",
            "sh",
            "-c",
            "echo mine > /mine; rm /etc/group",
        ])?
        .ok()?;
        host.cli(["commit", "-m", "note", "--change", "CMD [\"cat\",\"/mine\"]", "cc", "own:v1"])?
            .ok()?;
        host.cli(["rm", "cc"])?.ok()?;
        host.cli(["run", "--rm", "own:v1"])?.prints("mine")?;
        host.cli(["run", "--rm", "own:v1", "ls", "/etc"])?
            .prints("hostname\nhosts\nmtab\npasswd\nresolv.conf")?;
        let folder = tempfile::tempdir()?;
        let archive = folder.path().join("own.tar").display().to_string();
        let id = inspect(host, "own:v1", "{{.Id}}")?;
        host.cli(["save", "-o", &archive, "own:v1"])?.ok()?;
        host.cli(["rmi", "own:v1"])?.ok()?;
        host.cli(["run", "--rm", "own:v1"])?.exits_with(125)?;
        host.cli(["load", "-q", "-i", &archive])?.prints("Loaded image: own:v1")?;
        assert_eq!(inspect(host, "own:v1", "{{.Id}}")?, id);
        host.cli(["run", "--rm", "own:v1"])?.prints("mine")?;
        assert!(host.cli(["history", "own:v1"])?.ok()?.lines().count() >= 3);
        Ok(())
    })
}

#[test]
fn names_come_and_go() -> TestResult {
    scenario(|host| {
        host.cli(["tag", "busybox", "localhost:5000/a/b:c"])?.ok()?;
        let list = host.cli(["images", "--format", "{{.Repository}}:{{.Tag}}"])?.ok()?;
        let mut list: Vec<&str> =
            list.lines().filter(|name| !name.starts_with("rorqual/")).collect();
        list.sort_unstable();
        assert_eq!(list, ["busybox:latest", "localhost:5000/a/b:c"]);
        host.cli(["rmi", "localhost:5000/a/b:c"])?.prints("Untagged: localhost:5000/a/b:c")?;
        host.cli(["run", "-d", "--name", "user", "busybox", "sleep", "1000"])?.ok()?;
        host.cli(["rmi", "busybox"])?.exits_with(1)?.complains("conflict")?;
        host.cli(["tag", "nowhere", "x"])?
            .exits_with(1)?
            .complains("No such image: nowhere:latest")?;
        host.cli(["tag", "busybox", "Not Valid"])?.exits_with(1)?;
        Ok(())
    })
}

#[test]
fn the_built_in_image_greets() -> TestResult {
    scenario(|host| {
        let hello = host.cli(["run", "--rm", "rorqual/hello"])?.ok()?;
        assert!(hello.contains("Rorqual"), "{hello}");
        Ok(())
    })
}

#[test]
fn broken_archives_are_refused_and_leave_nothing() -> TestResult {
    scenario(|host| {
        for broken in [&b""[..], b"not a tar at all", &[0_u8; 1024]] {
            let refused = host.cli_with_input(["load"], broken)?;
            assert_ne!(refused.code, 0, "{refused:?}");
        }
        let folder = tempfile::tempdir()?;
        let archive = folder.path().join("whole.tar");
        host.cli(["save", "-o", &archive.display().to_string(), "busybox"])?.ok()?;
        host.cli(["rmi", "busybox"])?.ok()?;
        let whole = std::fs::read(&archive)?;
        let cut = host.cli_with_input(["load"], &whole[..whole.len() / 2])?;
        assert_ne!(cut.code, 0);
        let mut bent = whole.clone();
        let middle = whole.len() / 2;
        bent[middle] ^= 0xff;
        assert_ne!(host.cli_with_input(["load"], &bent)?.code, 0, "a bent byte");
        host.cli(["images", "-q", "busybox"])?.prints("")?;
        host.cli_with_input(["load"], &whole)?.ok()?;
        host.cli(["run", "--rm", "busybox", "echo", "whole"])?.prints("whole")?;
        Ok(())
    })
}

#[test]
fn a_root_file_system_is_imported_from_an_address() -> TestResult {
    scenario(|host| {
        let web = host.folder().join("web");
        std::fs::create_dir(&web)?;
        std::fs::write(web.join("root.tar"), rorqual_testkit::image::busybox_rootfs()?)?;
        let mut server = host.command(rorqual_testkit::image::busybox()?);
        server.args(["httpd", "-f", "-p", "127.0.0.1:8000", "-h"]).arg(&web);
        let mut server = server.spawn()?;
        let url = "http://127.0.0.1:8000/root.tar";
        let imported = eventually("the server answers", || {
            host.cli(["import", url, "fetched:1"]).ok().filter(|run| run.code == 0)
        });
        let missing = host.cli(["import", "http://127.0.0.1:8000/nothing", "fetched:2"])?;
        server.kill()?;
        server.wait()?;
        imported?;
        missing.exits_with(1)?.complains("Got HTTP status code >= 400: 404 Not Found")?;
        host.cli(["run", "--rm", "fetched:1", "echo", "hello"])?.prints("hello")?;
        host.cli(["history", "--format", "{{.Comment}}", "fetched:1"])?
            .prints(&format!("Imported from {url}"))?;
        host.cli(["import", url, "fetched:3"])?
            .exits_with(1)?
            .complains("dial tcp 127.0.0.1:8000: connect: connection refused")?;
        host.cli(["images", "-q", "fetched:3"])?.prints("")?;
        Ok(())
    })
}

/// Puts the images of two archives below one index named `multi:1`: `sh -c` in a folder that takes the layout.
const ONE_INDEX: &str = r#"
set -e
for name in one two; do
    tar -xf ../$name.tar
    sed 's/.*"manifests":\[\(.*\)\].*/\1/' index.json > ../$name
done
printf '{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[%s,%s]}' \
    "$(cat ../one)" "$(cat ../two)" > ../inner
sum=$(sha256sum ../inner | cut -d' ' -f1)
cp ../inner blobs/sha256/$sum
printf '{"schemaVersion":2,"manifests":[{"mediaType":"application/vnd.oci.image.index.v1+json","digest":"sha256:%s","size":%s,"annotations":{"io.containerd.image.name":"docker.io/library/multi:1"}}]}' \
    $sum $(stat -c %s ../inner) > index.json
rm -f manifest.json
tar -cf ../multi.tar .
"#;

#[test]
fn single_platforms_of_an_image_are_removed() -> TestResult {
    scenario(|host| {
        let folder = tempfile::tempdir()?;
        let path = |name: &str| folder.path().join(name).display().to_string();
        std::fs::write(path("other.tar"), rorqual_testkit::image::odd_rootfs(&[])?)?;
        host.cli(["import", "--platform", "linux/s390x", &path("other.tar"), "other"])?.ok()?;
        host.cli(["save", "-o", &path("one.tar"), "busybox"])?.ok()?;
        host.cli(["save", "-o", &path("two.tar"), "other"])?.ok()?;
        host.cli(["rmi", "busybox", "other"])?.ok()?;
        std::fs::create_dir(folder.path().join("layout"))?;
        let made = std::process::Command::new("sh")
            .args(["-c", ONE_INDEX])
            .current_dir(folder.path().join("layout"))
            .status()?;
        assert!(made.success());
        host.cli(["load", "-i", &path("multi.tar")])?.ok()?;
        let other = [
            "image",
            "inspect",
            "--platform",
            "linux/s390x",
            "--format",
            "{{.Architecture}}",
            "multi:1",
        ];
        host.cli(other)?.prints("s390x")?;

        host.cli(["rmi", "--platform", "linux/riscv64", "multi:1"])?.exits_with(1)?;
        host.cli(["rmi", "--platform", "linux/amd64", "multi:1"])?
            .exits_with(1)?
            .complains("linux/amd64 is what the image is here")?;
        let removed = host.cli(["rmi", "--platform", "linux/s390x", "multi:1"])?.ok()?;
        assert!(removed.starts_with("Deleted: sha256:"), "{removed}");
        host.cli(other)?.exits_with(1)?;
        host.cli(["run", "--rm", "multi:1", "echo", "still here"])?.prints("still here")?;
        // With its last platform the image goes.
        host.cli(["rmi", "--platform", "linux/amd64", "multi:1"])?.ok()?;
        host.cli(["images", "-q"])?.prints("")?;
        host.import_busybox()?;
        Ok(())
    })
}

#[test]
fn loads_and_collections_at_once_lose_nothing() -> TestResult {
    const IMAGES: usize = 3;
    scenario(|host| {
        let folder = tempfile::tempdir()?;
        let archive = |at: usize| folder.path().join(format!("{at}.tar")).display().to_string();
        for at in 0..IMAGES {
            let name = format!("made{at}");
            host.cli([
                "run",
                "--name",
                &name,
                "busybox",
                "sh",
                "-c",
                &format!("echo {at} > /mine"),
            ])?
            .ok()?;
            host.cli(["commit", &name, &name])?.ok()?;
            host.cli(["rm", &name])?.ok()?;
            host.cli(["save", "-o", &archive(at), &name])?.ok()?;
            host.cli(["rmi", &name])?.ok()?;
        }
        let host = &*host;
        let come_and_go = |at: usize| -> Result<(), String> {
            let failed = |error: Box<dyn std::error::Error + Send + Sync>| error.to_string();
            let name = format!("made{at}");
            for _ in 0..4 {
                let path = archive(at);
                host.cli(["load", "-q", "-i", &path])
                    .and_then(rorqual_testkit::Finished::ok)
                    .map_err(failed)?;
                // Whatever is collected meanwhile, what was loaded is whole as long as it has its name.
                let run = host.cli(["run", "--rm", &name, "cat", "/mine"]).map_err(failed)?;
                if run.code == 0 && run.stdout.trim() != at.to_string() {
                    return Err(format!("{run:?}"));
                }
                if run.code != 0 && !run.stderr.contains(&name) {
                    return Err(format!("{run:?}"));
                }
            }
            Ok(())
        };
        std::thread::scope(|scope| {
            let loaders: Vec<_> =
                (0..IMAGES).map(|at| scope.spawn(move || come_and_go(at))).collect();
            while !loaders.iter().all(std::thread::ScopedJoinHandle::is_finished) {
                let _ = host.cli(["image", "prune", "-af"]);
            }
            loaders
                .into_iter()
                .try_for_each(|loader| loader.join().map_err(|_| "a loader panicked".to_owned())?)
        })?;
        for at in 0..IMAGES {
            host.cli(["load", "-q", "-i", &archive(at)])?.ok()?;
            host.cli(["run", "--rm", &format!("made{at}"), "cat", "/mine"])?
                .prints(&at.to_string())?;
        }
        host.import_busybox()?;
        Ok(())
    })
}
