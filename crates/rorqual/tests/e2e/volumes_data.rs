//! Whole volumes: snapshot, clone, export, import; quotas. What is not whole is never seen.

use std::io::Write;
use std::process::Stdio;

use rorqual_testkit::{Host, HostOptions, TestResult, eventually};

use crate::faults::small_data_root;
use crate::{RORQUAL, inspect, scenario, scenario_with};

/// Runs a line of shell over a volume at `/v`.
fn shell(host: &Host, volume: &str, script: &str) -> TestResult<String> {
    let bind = format!("{volume}:/v");
    host.cli(["run", "--rm", "-v", &bind, "busybox", "sh", "-c", script])?.ok()
}

/// What a volume holds: every path with its mode, owner and time, and the digest of every file.
fn listing(host: &Host, volume: &str) -> TestResult<String> {
    let script = "cd /v && find . | sort | xargs stat -c '%n %F %a %u %g %Y' && find . -type f | sort | xargs sha256sum";
    let bind = format!("{volume}:/v:ro");
    host.cli(["run", "--rm", "-v", &bind, "busybox", "sh", "-c", script])?.ok()
}

const FILL: &str = "mkdir -p /v/dir; cd /v; echo one > dir/file; ln dir/file again; ln -s dir/file link; mkfifo pipe; \
     head -c 3000000 /dev/urandom > big; chmod 4751 dir/file; chown 12:34 big; touch -t 202001010000 big dir";

/// The staging directory holds nothing; what was discarded is removed in the background.
fn nothing_staged(host: &Host) -> TestResult {
    let staging = host.folder().join("data/volumes/.staging");
    let empty = || std::fs::read_dir(&staging).map_or(0, Iterator::count) == 0;
    eventually("nothing is staged", || empty().then_some(()))
}

#[test]
fn a_snapshot_stays_as_it_was_and_a_clone_goes_its_own_way() -> TestResult {
    scenario(|host| {
        host.cli(["volume", "create", "--label", "team=blue", "data"])?.ok()?;
        shell(host, "data", FILL)?;
        let before = listing(host, "data")?;
        host.cli(["volume", "snapshot", "data", "then"])?.prints("then")?;
        host.cli(["volume", "clone", "data", "copy"])?.prints("copy")?;
        let named = host.cli(["volume", "snapshot", "-q", "data"])?.ok()?;
        assert!(named.starts_with("data-20"), "{named}");
        shell(host, "data", "echo two > /v/dir/file; rm /v/big")?;
        shell(host, "copy", "echo three > /v/dir/new")?;
        assert_eq!(listing(host, "then")?, before);
        assert_ne!(listing(host, "data")?, before);
        shell(host, "copy", "cat /v/big | wc -c")?;

        let format = "{{.Status.SnapshotOf}} {{.Labels.team}}";
        host.cli(["volume", "inspect", "-f", format, "then"])?.prints("data blue")?;
        host.cli(["run", "--rm", "-v", "then:/v", "busybox", "true"])?
            .exits_with(125)?
            .complains("volume then is a snapshot of data and can only be mounted read-only")?;
        let mount = "type=volume,src=then,dst=/v,ro";
        host.cli(["run", "--rm", "--mount", mount, "busybox", "touch", "/v/x"])?
            .exits_with(1)?
            .complains("Read-only file system")?;
        host.cli(["volume", "clone", "data", "copy"])?
            .exits_with(1)?
            .complains("there is a volume of this name")?;
        host.cli(["volume", "clone", "nosuch", "other"])?
            .exits_with(1)?
            .complains("no such volume")?;
        host.cli(["volume", "rm", "data", "then", "copy", &named])?.ok()?;
        nothing_staged(host)
    })
}

#[test]
fn frozen_containers_go_on_after_the_snapshot() -> TestResult {
    scenario(|host| {
        let script = "while true; do date > /v/now; done";
        host.cli([
            "run", "-d", "--name", "writer", "-v", "data:/v", "busybox", "sh", "-c", script,
        ])?
        .ok()?;
        host.cli(["volume", "snapshot", "--freeze", "data", "then"])?.ok()?;
        assert_eq!(inspect(host, "writer", "{{.State.Status}}")?, "running");
        let events =
            host.cli(["events", "--since", "1h", "--until", "0s", "--format", "{{.Action}}"])?;
        let events = events.ok()?;
        assert!(events.contains("pause") && events.contains("unpause"), "{events}");
        host.cli(["rm", "-f", "writer"])?.ok()?;
        Ok(())
    })
}

#[test]
fn a_volume_travels_to_another_daemon_and_then_only_what_changed() -> TestResult {
    scenario(|host| {
        shell(host, "data", FILL)?;
        host.cli(["volume", "snapshot", "data", "first"])?.ok()?;
        let file = |name: &str| host.folder().join(name).display().to_string();
        host.cli(["volume", "export", "first", "-o", &file("full")])?.ok()?;
        shell(
            host,
            "data",
            "echo more >> /v/dir/file; dd if=/dev/zero of=/v/big bs=1 seek=2500000 count=9 conv=notrunc 2>/dev/null",
        )?;
        host.cli(["volume", "export", "data", "--since", "first", "-o", &file("rest")])?.ok()?;
        let size = |name: &str| Ok::<_, std::io::Error>(std::fs::metadata(file(name))?.len());
        assert!(size("rest")? < size("full")? / 2, "{} of {}", size("rest")?, size("full")?);

        let other = Host::start(RORQUAL)?;
        other.import_busybox()?;
        other.cli(["volume", "import", "one", &file("full")])?.prints("one")?;
        assert_eq!(listing(&other, "one")?, listing(host, "first")?);
        other.cli(["volume", "import", "two", "--base", "one", &file("rest")])?.prints("two")?;
        assert_eq!(listing(&other, "two")?, listing(host, "data")?);
        // The receiver tells what it has.
        let chunks = other.cli(["volume", "chunks", "two"])?.ok()?;
        std::fs::write(file("have"), chunks)?;
        host.cli(["volume", "export", "data", "--have", &file("have"), "-o", &file("none")])?
            .ok()?;
        assert!(size("none")? < 10_000, "{}", size("none")?);

        other
            .cli(["volume", "import", "three", &file("rest")])?
            .exits_with(1)?
            .complains("name the volume that holds the earlier state as its base")?;
        let mut broken = std::fs::read(file("full"))?;
        broken[1_000_000] ^= 1;
        std::fs::write(file("broken"), broken)?;
        other
            .cli(["volume", "import", "three", &file("broken")])?
            .exits_with(1)?
            .complains("invalid volume archive")?;
        other.cli(["volume", "inspect", "three"])?.exits_with(1)?;
        nothing_staged(&other)?;
        other.finish()
    })
}

#[test]
fn a_daemon_that_dies_during_an_import_leaves_nothing_of_it() -> TestResult {
    scenario(|host| {
        shell(host, "data", FILL)?;
        let archive = host.folder().join("archive");
        host.cli(["volume", "export", "data", "-o", &archive.display().to_string()])?.ok()?;
        let bytes = std::fs::read(&archive)?;
        let mut client = host.command(RORQUAL);
        client.args(["volume", "import", "half", "-"]).stdin(Stdio::piped());
        let mut client = client.stderr(Stdio::null()).spawn()?;
        let mut input = client.stdin.take().ok_or("no input")?;
        input.write_all(&bytes[..bytes.len() / 2])?;
        input.flush()?;
        let staging = host.folder().join("data/volumes/.staging");
        let begun = || std::fs::read_dir(&staging).is_ok_and(|mut all| all.next().is_some());
        eventually("the import has begun", || begun().then_some(()))?;
        host.kill_daemon()?;
        drop(input);
        client.wait()?;
        host.start_daemon()?;
        nothing_staged(host)?;
        host.cli(["volume", "inspect", "half"])?.exits_with(1)?;
        host.cli(["volume", "import", "half", &archive.display().to_string()])?.ok()?;
        assert_eq!(listing(host, "half")?, listing(host, "data")?);
        Ok(())
    })
}

#[test]
fn a_client_that_goes_away_takes_its_import_along() -> TestResult {
    scenario(|host| {
        shell(host, "data", FILL)?;
        let archive = host.folder().join("archive");
        host.cli(["volume", "export", "data", "-o", &archive.display().to_string()])?.ok()?;
        let bytes = std::fs::read(&archive)?;
        let mut client = host.command(RORQUAL);
        client.args(["volume", "import", "half", "-"]).stdin(Stdio::piped());
        let mut client = client.stderr(Stdio::null()).spawn()?;
        let mut input = client.stdin.take().ok_or("no input")?;
        input.write_all(&bytes[..bytes.len() / 2])?;
        let staging = host.folder().join("data/volumes/.staging");
        let begun = || std::fs::read_dir(&staging).is_ok_and(|mut all| all.next().is_some());
        eventually("the import has begun", || begun().then_some(()))?;
        client.kill()?;
        client.wait()?;
        nothing_staged(host)?;
        host.cli(["volume", "inspect", "half"])?.exits_with(1)?;
        Ok(())
    })
}

#[test]
fn a_full_disk_leaves_no_half_of_a_copy() -> TestResult {
    scenario(|host| {
        small_data_root(host)?;
        shell(host, "data", "head -c 9000000 /dev/urandom > /v/big")?;
        host.cli(["volume", "clone", "data", "copy"])?
            .exits_with(1)?
            .complains("No space left on device")?;
        host.cli(["volume", "inspect", "copy"])?.exits_with(1)?;
        nothing_staged(host)?;
        shell(host, "data", "rm /v/big; echo small > /v/file")?;
        host.cli(["volume", "clone", "data", "copy"])?.ok()?;
        host.cli(["rm", "-f", "nosuch"])?;
        host.cli(["volume", "rm", "data", "copy"])?.ok()?;
        Ok(())
    })
}

#[test]
fn what_an_image_has_is_copied_wholly_or_not_at_all() -> TestResult {
    scenario(|host| {
        host.cli(["volume", "create", "first"])?.ok()?;
        host.cli(["create", "--name", "one", "-v", "first:/bin", "busybox", "true"])?.ok()?;
        shell(host, "first", "test -e /v/busybox -o -e /v/sh")?;
        host.cli(["create", "--name", "two", "-v", "empty:/bin:nocopy", "busybox", "true"])?
            .ok()?;
        assert_eq!(shell(host, "empty", "ls /v | wc -l")?, "0");
        nothing_staged(host)
    })
}

/// A data root on ext4 with project quotas.
fn with_quotas() -> HostOptions {
    // The daemon's namespace is its own; a restarted daemon finds it mounted.
    let script = r#"data=$(for a in "$@"; do [ "$p" = --data-root ] && echo "$a"; p=$a; done)
        if ! mountpoint -q "$data"; then
            mkdir -p "$data" && truncate -s 256M "$data.img" &&
            mkfs.ext4 -q -O quota,project -E quotatype=prjquota "$data.img" &&
            mount -o loop,prjquota "$data.img" "$data" || rm -f "$data.img"
        fi 2>/dev/null"#;
    HostOptions { before: Some(format!("{{ {script}; }}")), ..HostOptions::default() }
}

#[test]
fn sizes_are_bounded_where_the_file_system_can() -> TestResult {
    scenario_with(with_quotas(), |host| {
        let data = host.folder().join("data");
        if !host.command("mountpoint").arg("-q").arg(data).status()?.success() {
            // A kernel without quotas on disk (CONFIG_QFMT_V2) mounts no such file system.
            return Ok(());
        }
        host.cli(["volume", "create", "-o", "size=4m", "small"])?.ok()?;
        let script = "head -c 8000000 /dev/zero > /v/big; stat -c %s /v/big";
        let written = host.cli(["run", "--rm", "-v", "small:/v", "busybox", "sh", "-c", script])?;
        let written = written.complains("o space left")?.ok()?;
        let written: u64 = written.trim().parse()?;
        assert!((3_500_000..4_300_000).contains(&written), "{written}");
        let script = "head -c 8000000 /dev/zero > /big; stat -c %s /big";
        let options = ["--storage-opt", "size=4m"];
        let words = ["run", "--rm"].into_iter().chain(options);
        let written = host.cli(words.chain(["busybox", "sh", "-c", script]))?;
        let written: u64 = written.complains("o space left")?.ok()?.trim().parse()?;
        assert!((3_000_000..4_300_000).contains(&written), "{written}");
        // Others are not bounded.
        shell(host, "large", "head -c 8000000 /dev/zero > /v/big")?;
        host.cli(["volume", "rm", "small", "large"])?.ok()?;
        Ok(())
    })
}

#[test]
fn sizes_are_refused_elsewhere() -> TestResult {
    scenario(|host| {
        small_data_root(host)?;
        host.cli(["volume", "create", "-o", "size=4m", "small"])?
            .exits_with(1)?
            .complains("quota size requested but no quota support")?;
        host.cli(["run", "--storage-opt", "size=4m", "busybox", "true"])?
            .exits_with(125)?
            .complains("--storage-opt is supported only for overlay over xfs")?;
        Ok(())
    })
}
