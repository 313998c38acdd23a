//! Commits of git repositories, fetched by the host's `git` program into a bare repository of ours per remote, of which each
//! commit is fetched once and shallow.
//!
//! The program sees nothing of the host's settings: no system or user configuration, no hooks, no templates, no credentials but
//! those that the client lends, and only protocols that fetch from elsewhere. Submodules are bound by the same rules.

mod program;
mod remote;

use std::path::{Path, PathBuf};

use rorqual_snapshot::{CopyEdit, FileTree, Owner};
use rorqual_store::blocking;

use super::cache::{CacheKind, Entry, now};
use super::exec::lent::{self, Lent};
use super::flight::Audience;
use super::http::{Arrival, commit, everything};
use super::key::Keyed;
use super::walk::Walk;
use super::{State, mounts};
use crate::Error;
use crate::error::other;
use crate::graph::{GitSource, SecretSpec};

use program::Git;
use remote::{Advertised, Remote};

/// Brings a commit; tells whether it was here.
pub(crate) async fn bring(
    walk: &Walk,
    source: &GitSource,
    audience: &Audience,
) -> Result<(State, bool), Error> {
    let remote = Remote::parse(&source.remote)?;
    remote::check_reference(&source.reference)?;
    let name = Keyed::new("git-remote").with(source.remote.as_bytes()).digest().hex().to_owned();
    let arrival = Arrival::new(walk)?;
    let (git, _lent) = lend(walk, source, &remote, &arrival).await?;
    let found = find(&git, source).await?;
    if let Some(wanted) = source.checksum.as_ref().filter(|it| !found.commit.starts_with(&***it)) {
        // COMPAT: BuildKit's text.
        let message = format!("expected checksum to match {wanted}, got {}", found.commit);
        return Err(Error::Invalid { message, location: None });
    }
    let shape = format!(
        "{:?} {} {} {} {}",
        source.subdir,
        source.keep_git_dir,
        source.skip_submodules,
        source.commit_times,
        if source.keep_git_dir { &*found.name } else { "" }
    );
    let key = Keyed::new("git")
        .with(source.remote.as_bytes())
        .with(found.commit.as_bytes())
        .with(shape.as_bytes())
        .digest();
    if let Some(state) = walk.known(key.hex()).await? {
        return Ok((state, true));
    }
    let bare = walk.inner.parts.directory.join("git").join(&name);
    let tree = arrival.path().join("tree");
    {
        let _alone = walk.inner.mounts.lock(format!("git\0{name}")).await;
        let _used = mounts::InUse::of(bare.clone());
        audience.status(&source.remote, 0, 0, false);
        git.fetch(&bare, source, &found).await?;
        git.check_out(&bare, &tree, source, &found).await?;
        audience.status(&source.remote, 0, 0, true);
        remember(walk, name, &source.remote, &bare).await?;
    }
    if source.commit_times {
        let time = git.time_of(&bare, &found.commit).await?;
        let tree = tree.clone();
        let set = blocking(move || set_times(&tree, time, 0)).await;
        set.map_err(other("set the times of a commit's files"))?;
    }
    let state = layer(walk, tree, source).await?;
    walk.note(key.hex(), CacheKind::SourceGit, &source.remote, (&state, None)).await?;
    Ok((state, false))
}

/// Notes our copy of a repository, so that it is seen and can be pruned.
async fn remember(walk: &Walk, key: String, remote: &str, bare: &Path) -> Result<(), Error> {
    let cache = &walk.inner.parts.cache;
    let before = cache.get(&key);
    let entry = Entry {
        kind: CacheKind::SourceGit,
        description: format!("repository {remote}"),
        outputs: Vec::new(),
        directory: format!("git/{key}"),
        tag: String::new(),
        size: mounts::size(bare).await?,
        created: before.as_ref().map_or_else(now, |entry| entry.created),
        used: now(),
        uses: before.map_or(1, |entry| entry.uses + 1),
        key,
    };
    cache.put(entry).await
}

/// Asks the client for what the repository wants to see.
async fn lend(
    walk: &Walk,
    source: &GitSource,
    remote: &Remote,
    arrival: &Arrival,
) -> Result<(Git, Option<Lent>), Error> {
    let mut git = Git::new(arrival.path().to_owned(), &source.remote)?;
    if remote.is_ssh {
        let id = source.ssh.clone().unwrap_or_else(|| "default".to_owned());
        let spec = SecretSpec { id, uid: 0, gid: 0, mode: 0o600, optional: true };
        let mut lent = Lent::new(walk)?;
        let agent = lent.agent(walk, &spec).await?;
        let hosts = walk.inner.parts.directory.join("git").join("known_hosts");
        git.use_ssh(agent.as_deref(), &hosts);
        return Ok((git, Some(lent)));
    }
    let Some(site) = remote.site.as_deref() else { return Ok((git, None)) };
    // COMPAT: the names under which clients lend them, for one host or for all.
    let header = source.auth_header_secret.as_deref().unwrap_or("GIT_AUTH_HEADER");
    let token = source.auth_token_secret.as_deref().unwrap_or("GIT_AUTH_TOKEN");
    for (id, is_token) in [(header, false), (token, true)] {
        for id in [format!("{id}.{}", remote.host), id.to_owned()] {
            let spec = SecretSpec { id, uid: 0, gid: 0, mode: 0, optional: true };
            if let Some(value) = lent::secret(walk, &spec).await? {
                git.authorize(site, &value, is_token)?;
                return Ok((git, None));
            }
        }
    }
    Ok((git, None))
}

/// Finds the commit that is meant.
async fn find(git: &Git, source: &GitSource) -> Result<Advertised, Error> {
    if remote::is_commit(&source.reference) {
        let commit = source.reference.to_lowercase();
        return Ok(Advertised { name: String::new(), commit });
    }
    let reference = if source.reference.is_empty() { "HEAD" } else { &source.reference };
    let listed = git.list(reference).await?;
    remote::choose(&listed, reference).ok_or_else(|| {
        // COMPAT: BuildKit's text.
        let message = format!("repository does not contain ref {reference}, output: {listed:?}");
        Error::NotFound { message, location: None }
    })
}

async fn layer(walk: &Walk, tree: PathBuf, source: &GitSource) -> Result<State, Error> {
    let subdir = source.subdir.trim_matches('/');
    let copy = CopyEdit {
        from: FileTree::Directory(tree),
        selection: everything(format!("/{subdir}")),
        target: "/".to_owned(),
        owner: Owner::Ids(0, 0),
        // A repository knows only whether a file is a program; the rest was the umask's.
        mode: Some("a=rX,u+w".to_owned()),
        contents_only: true,
        unpack: false,
        make_parents: true,
        replace: false,
        created: None,
    };
    commit(walk, copy).await.map_err(|error| match error {
        Error::NotFound { .. } => Error::NotFound {
            message: format!("{}: the repository has no directory {subdir:?}", source.remote),
            location: None,
        },
        error => error,
    })
}

/// Gives all files below a directory of ours one time. Links are not followed, and keep theirs.
fn set_times(path: &Path, time: std::time::SystemTime, depth: usize) -> std::io::Result<()> {
    // LIMIT: what lies deeper keeps its time; copying refuses it.
    if depth > 200 {
        return Ok(());
    }
    let kind = std::fs::symlink_metadata(path)?.file_type();
    if kind.is_dir() {
        for entry in std::fs::read_dir(path)? {
            set_times(&entry?.path(), time, depth + 1)?;
        }
    }
    if kind.is_dir() || kind.is_file() {
        std::fs::File::open(path)?.set_modified(time)?;
    }
    Ok(())
}
