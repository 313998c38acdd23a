//! Images on the move: import, save, load and commit, each engine in turn on the same archives.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rorqual_testkit::TestResult;

use crate::measure::{Times, once};

/// LIMIT: rounds; a round moves some hundred megabytes through each engine.
const ROUNDS: usize = 5;
const LAYERS: usize = 8;

/// Prepares a command of a client.
pub(crate) type Client<'a> = Box<dyn Fn(&[&str]) -> Command + 'a>;

/// An engine: how it is called, and how its client is run.
pub(crate) struct Contender<'a> {
    pub(crate) name: String,
    pub(crate) client: Client<'a>,
}

/// Archives to move.
pub(crate) struct Archives {
    folder: tempfile::TempDir,
}

fn run(program: &str, args: &[&str], folder: &Path) -> TestResult<String> {
    let output = Command::new(program).args(args).current_dir(folder).output()?;
    if !output.status.success() {
        return Err(format!("{program}: {}", String::from_utf8_lossy(&output.stderr)).into());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Fills a folder with files whose content no program can pack away.
fn fill(folder: &Path, count: usize, size: usize, seed: &mut u64) -> TestResult {
    for number in 0..count {
        let parent = folder.join(format!("d{}", number / 100));
        std::fs::create_dir_all(&parent)?;
        let mut bytes = Vec::with_capacity(size + 8);
        while bytes.len() < size {
            *seed ^= *seed << 13;
            *seed ^= *seed >> 7;
            *seed ^= *seed << 17;
            bytes.extend_from_slice(&seed.to_le_bytes());
        }
        std::fs::write(parent.join(format!("f{number}-{size}")), &bytes[..size])?;
    }
    Ok(())
}

impl Archives {
    pub(crate) fn new() -> TestResult<Self> {
        let archives = Self { folder: tempfile::tempdir()? };
        let (folder, mut seed) = (archives.folder.path(), 0x5eed);
        let small = folder.join("small");
        fill(&small, 20_000, 1024, &mut seed)?;
        run("tar", &["-cf", "small.tar", "-C", "small", "."], folder)?;
        std::fs::remove_dir_all(&small)?;
        archives.layers(&mut seed)?;
        Ok(archives)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Makes an image of several layers, in the way `docker save` writes it.
    fn layers(&self, seed: &mut u64) -> TestResult {
        let folder = self.folder.path();
        let (mut names, mut digests) = (Vec::new(), Vec::new());
        for number in 0..LAYERS {
            let files = folder.join("files");
            fill(&files, 600, 8192, seed)?;
            fill(&files, 8, 2 << 20, seed)?;
            let name = format!("layer{number}.tar");
            run("tar", &["-cf", &name, "-C", "files", "."], folder)?;
            std::fs::remove_dir_all(&files)?;
            let digest = run("sha256sum", &[&name], folder)?;
            digests.push(format!("sha256:{}", digest.split(' ').next().unwrap_or_default()));
            names.push(name);
        }
        let config = serde_json::json!({
            "architecture": "amd64", "os": "linux", "config": {},
            "rootfs": { "type": "layers", "diff_ids": digests },
        });
        std::fs::write(folder.join("config.json"), serde_json::to_vec(&config)?)?;
        let list = serde_json::json!([
            { "Config": "config.json", "RepoTags": ["bench-layers:1"], "Layers": names }
        ]);
        std::fs::write(folder.join("manifest.json"), serde_json::to_vec(&list)?)?;
        let mut args = vec!["-cf", "layers.tar", "config.json", "manifest.json"];
        args.extend(names.iter().map(String::as_str));
        run("tar", &args, folder)?;
        names.iter().try_for_each(|name| std::fs::remove_file(folder.join(name)))?;
        Ok(())
    }
}

/// Jobs in the order they are run; each leaves what the next needs.
pub(crate) const JOBS: [&str; 4] = [
    "import, 20000 small files",
    "load, 8 layers, 170 MB",
    "save, 8 layers, 170 MB",
    "commit, 64 MB written",
];

/// Times all jobs by all contenders, in turn.
pub(crate) fn measure(
    contenders: &[Contender<'_>],
    archives: &Archives,
) -> TestResult<Vec<Vec<Times>>> {
    let mut times = vec![vec![Vec::<Duration>::new(); contenders.len()]; JOBS.len()];
    for contender in contenders {
        let write = "dd if=/dev/urandom of=/written bs=1M count=64 2>/dev/null";
        once((contender.client)(&["run", "--name", "bench-commit", "busybox", "sh", "-c", write]))?;
    }
    for round in 0..=ROUNDS {
        for (at, contender) in contenders.iter().enumerate() {
            let took = one_round(contender, archives)?;
            for (job, took) in took.into_iter().enumerate().filter(|_| round > 0) {
                times[job][at].push(took);
            }
        }
    }
    for contender in contenders {
        once((contender.client)(&["rm", "-f", "bench-commit"]))?;
    }
    Ok(times.into_iter().map(|times| times.into_iter().map(Times::of).collect()).collect())
}

fn one_round(contender: &Contender<'_>, archives: &Archives) -> TestResult<[Duration; 4]> {
    let path = |name: &str| archives.path(name).display().to_string();
    let client = |args: &[&str]| once((contender.client)(args));
    let import = client(&["import", &path("small.tar"), "bench-small:1"])?;
    let load = client(&["load", "-i", &path("layers.tar")])?;
    let saved = path("saved.tar");
    let save = client(&["save", "-o", &saved, "bench-layers:1"])?;
    std::fs::remove_file(&saved)?;
    let commit = client(&["commit", "bench-commit", "bench-commit:1"])?;
    client(&["rmi", "bench-small:1", "bench-layers:1", "bench-commit:1"])?;
    Ok([import, load, save, commit])
}
