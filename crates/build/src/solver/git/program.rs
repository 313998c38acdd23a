//! The `git` program: what it is run with, and what it may do.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rorqual_core::ErrorKind;
use rorqual_store::blocking;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::Command;

use super::remote::Advertised;
use crate::Error;
use crate::contract::SecretValue;
use crate::error::other;
use crate::graph::GitSource;
use crate::solver::mounts;

/// LIMIT: one run of the program.
const PATIENCE: Duration = Duration::from_secs(30 * 60);
/// LIMIT: what it may print.
const MAX_OUTPUT: usize = 16 << 20;
/// LIMIT: bytes of a repository, and of a checkout.
const LARGEST: u64 = 64 << 30;
/// How often the size is looked at.
const LOOK: Duration = Duration::from_secs(1);
/// Protocols that fetch from elsewhere, and no program or path of this host.
const PROTOCOLS: &str = "http:https:git:ssh";
/// Variables of the daemon that say how the network is reached.
const PASSED: [&str; 10] = [
    "http_proxy",
    "https_proxy",
    "no_proxy",
    "all_proxy",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
    "ALL_PROXY",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
];

/// How the program is run for one source.
pub(super) struct Git {
    remote: String,
    /// Its home: a directory of ours that goes afterwards.
    home: PathBuf,
    env: Vec<(OsString, OsString)>,
    /// Settings; given by variables, as arguments are seen by everybody.
    settings: Vec<(String, String)>,
}

fn failed(message: String) -> Error {
    Error::Other {
        action: "fetch a git repository".to_owned(),
        kind: ErrorKind::Unavailable,
        source: message.into(),
    }
}

impl Git {
    pub(super) fn new(home: PathBuf, remote: &str) -> Result<Self, Error> {
        let templates = home.join("templates");
        std::fs::create_dir(&templates).map_err(other("make a home for git"))?;
        let fixed = [
            ("core.hooksPath", "/dev/null"),
            ("core.fsmonitor", "false"),
            ("core.untrackedCache", "false"),
            ("gc.auto", "0"),
            ("maintenance.auto", "false"),
            ("advice.detachedHead", "false"),
            ("init.defaultBranch", "main"),
            ("protocol.version", "2"),
            ("submodule.fetchJobs", "1"),
        ];
        let settings = fixed.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let mut env = vec![
            ("PATH".into(), std::env::var_os("PATH").unwrap_or_else(|| "/usr/bin:/bin".into())),
            ("HOME".into(), home.clone().into_os_string()),
            ("GIT_TEMPLATE_DIR".into(), templates.into_os_string()),
            ("GIT_CONFIG_NOSYSTEM".into(), "1".into()),
            ("GIT_CONFIG_SYSTEM".into(), "/dev/null".into()),
            ("GIT_CONFIG_GLOBAL".into(), "/dev/null".into()),
            ("GIT_TERMINAL_PROMPT".into(), "0".into()),
            ("GIT_ASKPASS".into(), "/bin/false".into()),
            ("SSH_ASKPASS".into(), "/bin/false".into()),
            ("LC_ALL".into(), "C".into()),
        ];
        let passed =
            PASSED.iter().filter_map(|name| Some(((*name).into(), std::env::var_os(name)?)));
        env.extend(passed);
        Ok(Self { remote: remote.to_owned(), home, env, settings: settings.into() })
    }

    /// Sends the client's secret to this site.
    pub(super) fn authorize(
        &mut self,
        site: &str,
        value: &SecretValue,
        is_token: bool,
    ) -> Result<(), Error> {
        let value = String::from_utf8(value.0.clone()).map_err(|_| Error::Invalid {
            message: "the secret for the git repository is no text".to_owned(),
            location: None,
        })?;
        let value = value.trim();
        if value.contains(char::is_control) {
            let message = "the secret for the git repository has several lines".to_owned();
            return Err(Error::Invalid { message, location: None });
        }
        let value = match is_token {
            // COMPAT: the user that GitHub and others take for a token.
            true => format!("basic {}", STANDARD.encode(format!("x-access-token:{value}"))),
            false => value.to_owned(),
        };
        self.settings.push((format!("http.{site}.extraHeader"), format!("Authorization: {value}")));
        Ok(())
    }

    /// Reaches the repository by ssh. Hosts are believed the first time, and held to their key afterwards.
    pub(super) fn use_ssh(&mut self, agent: Option<&Path>, hosts: &Path) {
        if let Some(agent) = agent {
            self.env.push(("SSH_AUTH_SOCK".into(), agent.into()));
        }
        let hosts = hosts.display();
        let command = format!(
            "ssh -F /dev/null -o BatchMode=yes -o ConnectTimeout=30 -o StrictHostKeyChecking=accept-new \
             -o IdentityFile=none -o UserKnownHostsFile='{hosts}'"
        );
        self.env.push(("GIT_SSH_COMMAND".into(), command.into()));
    }

    /// Lists the references of a name.
    pub(super) async fn list(&self, name: &str) -> Result<String, Error> {
        let peeled = format!("{name}^{{}}");
        self.run(&["ls-remote", "--", &self.remote, name, &peeled], PROTOCOLS, None).await
    }

    /// Makes sure that a commit is in our bare repository, under a reference of its own.
    pub(super) async fn fetch(
        &self,
        bare: &Path,
        source: &GitSource,
        found: &Advertised,
    ) -> Result<(), Error> {
        let there = bare.join("HEAD");
        if !there.exists() {
            if let Some(above) = bare.parent() {
                std::fs::create_dir_all(above).map_err(other("make a place for repositories"))?;
            }
            self.run(&["init", "--quiet", "--bare", "--", &text(bare)?], "", None).await?;
        }
        let at = format!("--git-dir={}", text(bare)?);
        let object = format!("{}^{{commit}}", found.commit);
        if self.run(&[&at, "cat-file", "-e", &object], "", None).await.is_err() {
            self.fetch_missing(&at, bare, source, found).await?;
            self.run(&[&at, "cat-file", "-e", &object], "", None)
                .await
                .map_err(|_| failed(format!("{} has no commit {}", self.remote, found.commit)))?;
        }
        let name = format!("refs/rorqual/{}", found.commit);
        self.run(&[&at, "update-ref", &name, &found.commit], "", None).await?;
        Ok(())
    }

    async fn fetch_missing(
        &self,
        at: &str,
        bare: &Path,
        source: &GitSource,
        found: &Advertised,
    ) -> Result<(), Error> {
        let wanted = if found.name.is_empty() { &found.commit } else { &found.name };
        let common = [at, "fetch", "--quiet", "--no-tags", "--force"];
        let one = [&common[..], &["--depth=1", "--", &self.remote, wanted]].concat();
        let Err(error) = self.run(&one, PROTOCOLS, Some(bare)).await else { return Ok(()) };
        // Servers need not give single commits, nor shallow ones: then all that they show is fetched.
        let reason = rorqual_core::full_message(&error);
        let asks_less = ["shallow", "not our ref", "unadvertised object", "remote ref"];
        if !asks_less.iter().any(|text| reason.contains(text)) {
            return Err(error);
        }
        tracing::debug!(remote = source.remote, reason, "fetching a whole repository");
        let refs = ["+refs/heads/*:refs/remotes/origin/*", "+refs/tags/*:refs/tags/*"];
        // What was fetched shallow before has no history, and the commit may be in it.
        let whole: &[&str] = if bare.join("shallow").exists() { &["--unshallow"] } else { &[] };
        let all = [&common[..], whole, &["--", &self.remote], &refs].concat();
        self.run(&all, PROTOCOLS, Some(bare)).await.map(drop)
    }

    /// Makes the files of a commit.
    pub(super) async fn check_out(
        &self,
        bare: &Path,
        tree: &Path,
        source: &GitSource,
        found: &Advertised,
    ) -> Result<(), Error> {
        let (bare, to) = (text(bare)?, text(tree)?);
        self.run(&["init", "--quiet", "--", &to], "", None).await?;
        let name = format!("refs/rorqual/{}", found.commit);
        // Only from our own repository, in which is nothing but what was fetched.
        let fetch = ["-C", &to, "fetch", "--quiet", "--no-tags", "--depth=1", "--", &bare, &name];
        self.run(&fetch, "file", Some(tree)).await?;
        self.run(&["-C", &to, "remote", "add", "--", "origin", &self.remote], "", None).await?;
        match found.name.strip_prefix("refs/heads/").filter(|_| source.keep_git_dir) {
            Some(branch) => {
                let checkout = ["-C", &to, "checkout", "--quiet", "-B", branch, &found.commit];
                self.run(&checkout, "", Some(tree)).await?;
            }
            None => {
                let checkout = ["-C", &to, "checkout", "--quiet", "--detach", &found.commit];
                self.run(&checkout, "", Some(tree)).await?;
            }
        }
        if !source.skip_submodules && tree.join(".gitmodules").exists() {
            let update =
                ["-C", &to, "submodule", "--quiet", "update", "--init", "--recursive", "--depth=1"];
            self.run(&update, PROTOCOLS, Some(tree)).await?;
        }
        if !source.keep_git_dir {
            let tree = tree.to_owned();
            let removed = blocking(move || remove_git(&tree, 0)).await;
            removed.map_err(other("remove .git"))?;
        }
        Ok(())
    }

    /// Tells when a commit was made.
    pub(super) async fn time_of(&self, bare: &Path, commit: &str) -> Result<SystemTime, Error> {
        let at = format!("--git-dir={}", text(bare)?);
        let shown = self.run(&[&at, "show", "-s", "--format=%ct", commit], "", None).await?;
        let seconds = shown.trim().parse().unwrap_or_default();
        Ok(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds))
    }

    /// Runs it; returns what it prints. `grows` is the directory that may grow meanwhile.
    ///
    /// # Cancellation
    ///
    /// The program ends when the future is dropped.
    async fn run(
        &self,
        args: &[&str],
        protocols: &str,
        grows: Option<&Path>,
    ) -> Result<String, Error> {
        let mut command = Command::new("git");
        command.args(args).env_clear().envs(self.env.iter().map(|(name, value)| (name, value)));
        command.env("GIT_ALLOW_PROTOCOL", protocols);
        command.env("GIT_CONFIG_COUNT", self.settings.len().to_string());
        for (number, (name, value)) in self.settings.iter().enumerate() {
            command.env(format!("GIT_CONFIG_KEY_{number}"), name);
            command.env(format!("GIT_CONFIG_VALUE_{number}"), value);
        }
        command.current_dir(&self.home).kill_on_drop(true);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => Error::Unsupported(format!(
                "cannot fetch {}: git repositories are fetched by the program git, which is not installed on the daemon's host: \
                 install git, or clone the repository and build the directory",
                self.remote
            )),
            _ => other("run git")(error),
        })?;
        let (output, errors) = (child.stdout.take(), child.stderr.take());
        // On the heap: its buffers would make every future around it large.
        let work = Box::pin(async {
            let (output, errors) = tokio::join!(all_of(output), all_of(errors));
            let status = child.wait().await.map_err(other("wait for git"))?;
            match status.success() {
                true => Ok(output),
                // The last lines say why.
                false => Err(failed(errors.trim().to_owned())),
            }
        });
        tokio::select! {
            result = work => result,
            () = tokio::time::sleep(PATIENCE) => {
                Err(failed(format!("{}: not done within {PATIENCE:?}", self.remote)))
            }
            () = outgrown(grows) => {
                Err(failed(format!("{}: larger than {LARGEST} bytes", self.remote)))
            }
        }
    }
}

/// Returns when a directory is too large.
async fn outgrown(path: Option<&Path>) {
    let Some(path) = path else { return std::future::pending().await };
    loop {
        tokio::time::sleep(LOOK).await;
        if mounts::size(path).await.is_ok_and(|size| size > LARGEST) {
            return;
        }
    }
}

/// Reads what is printed; what is too much is read and forgotten.
async fn all_of(from: Option<impl AsyncRead + Unpin>) -> String {
    let Some(mut from) = from else { return String::new() };
    let (mut all, mut piece) = (Vec::new(), [0; 8192]);
    while let Ok(count @ 1..) = from.read(&mut piece).await {
        let room = MAX_OUTPUT.saturating_sub(all.len());
        all.extend_from_slice(&piece[..count.min(room)]);
    }
    String::from_utf8_lossy(&all).into_owned()
}

fn text(path: &Path) -> Result<String, Error> {
    let text = path.to_str().map(str::to_owned);
    text.ok_or_else(|| Error::Unsupported(format!("the data root {} is no text", path.display())))
}

/// Removes what git keeps for itself, also of submodules. Links are not followed.
fn remove_git(path: &Path, depth: usize) -> std::io::Result<()> {
    // LIMIT: what lies deeper is refused by the copy that follows.
    if depth > 200 {
        return Ok(());
    }
    for entry in std::fs::read_dir(path)? {
        let entry = entry?;
        let is_dir = entry.file_type()?.is_dir();
        match (entry.file_name() == OsStr::new(".git"), is_dir) {
            (true, true) => std::fs::remove_dir_all(entry.path())?,
            (true, false) => std::fs::remove_file(entry.path())?,
            (false, true) => remove_git(&entry.path(), depth + 1)?,
            (false, false) => {}
        }
    }
    Ok(())
}
