//! Power cuts: what was not on the disk is gone. The data root is a file system in a file; a copy of that file, taken while
//! nobody has synced or unmounted anything, is what the next daemon finds.

use std::process::Command;

use rorqual_testkit::{Host, HostOptions, TestResult};

use crate::{inspect, scenario_with};

/// A data root in a file beside it.
fn on_a_disk_of_its_own() -> HostOptions {
    let script = r#"data=$(for a in "$@"; do [ "$p" = --data-root ] && echo "$a"; p=$a; done)
        mkdir -p "$data"
        test -e "$data.img" || { truncate -s 400M "$data.img" && mkfs.ext4 -q "$data.img"; }
        mountpoint -q "$data" || mount -o loop "$data.img" "$data" || true"#;
    HostOptions { before: Some(format!("{{ {script}; }}")), ..HostOptions::default() }
}

/// Cuts the power and starts anew with what was on the disk.
fn cut(host: &mut Host) -> TestResult {
    host.power_off()?;
    let image = host.folder().join("data.img").display().to_string();
    let script = r#"for try in 1 2 3 4 5 6 7 8 9 10; do
            cp --sparse=always "$1" "$1.cut" && cp --sparse=always "$1" "$1.again" || exit 1
            # The journal may have been written meanwhile: then the copy is of no single moment.
            cmp -s "$1.cut" "$1.again" && break
        done
        rm "$1.again" && umount "$2" && mv "$1.cut" "$1""#;
    let data = host.folder().join("data");
    let mut copying = host.command("sh");
    copying.args(["-c", script, "sh", &image]).arg(data);
    host.run(copying)?.ok()?;
    host.start_daemon()
}

/// Everything that is shown is whole, and everything can be worked with.
fn all_is_truthful(host: &Host) -> TestResult {
    let saved = host.folder().join("saved").display().to_string();
    for image in host.cli(["images", "-q", "--no-trunc"])?.ok()?.lines() {
        host.cli(["run", "--rm", image, "busybox", "true"])?.ok()?;
        host.cli(["save", "-o", &saved, image])?.ok()?;
    }
    for container in host.cli(["ps", "-aq", "--no-trunc"])?.ok()?.lines() {
        let state = inspect(host, container, "{{.State.Status}} {{.State.Pid}}")?;
        assert!(["created 0", "exited 0"].contains(&state.as_str()), "{state}");
        host.cli(["logs", container])?.ok()?;
        host.cli(["diff", container])?.ok()?;
        host.cli(["start", container])?.ok()?;
        host.cli(["rm", "-f", container])?.ok()?;
    }
    for volume in host.cli(["volume", "ls", "-q"])?.ok()?.lines() {
        let bind = format!("{volume}:/v");
        host.cli(["run", "--rm", "-v", &bind, "busybox", "touch", "/v/more"])?.ok()?;
    }
    host.cli(["system", "df"])?.ok()?;
    host.cli(["system", "prune", "-f"])?.ok()?;
    Ok(())
}

/// Makes images, volumes and containers until it is stopped; returns the images and volumes that were promised.
fn work(host: &Host, round: u32, steps: u32) -> TestResult<Vec<(&'static str, String)>> {
    let mut promised = Vec::new();
    for step in 0..steps {
        let name = format!("r{round}-{step}");
        let script =
            format!("head -c 3000000 /dev/urandom > /data; echo {name} > /name; sleep 1000");
        host.cli(["run", "-d", "--name", &name, "busybox", "sh", "-c", &script])?.ok()?;
        host.cli(["exec", &name, "sh", "-c", "until test -e /name; do sleep 0.05; done"])?.ok()?;
        host.cli(["commit", &name, &format!("image:{name}")])?.ok()?;
        promised.push(("image", format!("image:{name}")));
        host.cli(["volume", "create", &name])?.ok()?;
        promised.push(("volume", name.clone()));
        if step % 2 == 1 {
            host.cli(["rm", "-f", &name])?.ok()?;
        }
    }
    Ok(promised)
}

#[test]
fn a_power_cut_takes_nothing_that_was_promised() -> TestResult {
    if Command::new("mkfs.ext4").arg("-V").output().is_err() {
        return Ok(());
    }
    scenario_with(on_a_disk_of_its_own(), |host| {
        let data = host.folder().join("data");
        if !host.command("mountpoint").arg("-q").arg(data).status()?.success() {
            // No loop devices here.
            return Ok(());
        }
        for round in 0..3 {
            let promised = work(host, round, 2 + round)?;
            cut(host)?;
            for (kind, name) in &promised {
                host.cli([kind, "inspect", name.as_str()])?.ok()?;
            }
            for (_, name) in promised.iter().filter(|(kind, _)| *kind == "image") {
                let tag = name.trim_start_matches("image:");
                host.cli(["run", "--rm", name, "sh", "-c", "wc -c < /data; cat /name"])?
                    .prints(&format!("3000000\n{tag}"))?;
            }
            all_is_truthful(host)?;
        }
        // In the middle of an import: it is there as a whole, or not at all.
        let base = host.cli(["images", "-q", "busybox"])?.ok()?;
        let tar = host.folder().join("tar").display().to_string();
        host.cli(["save", "-o", &tar, base.trim()])?.ok()?;
        host.cli(["rmi", "-f", base.trim()])?.ok()?;
        let mut loading = host.command(crate::RORQUAL);
        let mut loading = loading.args(["load", "-i", &tar]).spawn()?;
        cut(host)?;
        loading.wait()?;
        host.cli(["images"])?.ok()?;
        host.import_busybox()?;
        all_is_truthful(host)
    })
}
