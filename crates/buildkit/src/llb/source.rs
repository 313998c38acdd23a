//! Sources: an identifier with a scheme, and attributes.

use std::collections::BTreeMap;

use rorqual_build::{Error, GitSource, HttpSource, ImageSource, LocalSource, Op};

use super::invalid;
use crate::wire::pb;

type Attrs = BTreeMap<String, String>;

/// Attributes that change nothing here.
const IGNORED: &[&str] = &[
    "image.recordtype",
    "image.resolvemode",
    "local.unique",
    "local.differ",
    "oci.session",
    "git.fullurl",
    "git.knownsshhosts",
];

/// Reads a source.
pub(super) fn decode(wire: &pb::SourceOp) -> Result<Op, Error> {
    let Some((scheme, rest)) = wire.identifier.split_once("://") else {
        return Err(invalid(format!("{:?} is no source: it has no scheme", wire.identifier)));
    };
    let mut attrs = wire.attrs.clone();
    attrs.retain(|name, _| !IGNORED.contains(&name.as_str()));
    let op = match scheme {
        "docker-image" => image(rest, None, &mut attrs),
        "oci-layout" => {
            let layout = attrs.remove("oci.store").unwrap_or_default();
            image(rest, Some(layout), &mut attrs)
        }
        "local" => local(rest, &mut attrs)?,
        "git" => git(rest, &wire.attrs, &mut attrs)?,
        "http" | "https" => http(&wire.identifier, &mut attrs)?,
        _ => {
            return Err(Error::Unsupported(format!(
                "sources of the scheme {scheme:?} are not supported"
            )));
        }
    };
    match attrs.keys().next() {
        Some(name) => Err(Error::Unsupported(format!(
            "the attribute {name:?} of the source {:?} is not supported",
            wire.identifier
        ))),
        None => Ok(op),
    }
}

fn image(reference: &str, layout: Option<String>, attrs: &mut Attrs) -> Op {
    let checksum = attrs.remove("image.checksum");
    let reference = match checksum {
        Some(digest) if !reference.contains('@') => format!("{reference}@{digest}"),
        _ => reference.to_owned(),
    };
    Op::Image(ImageSource { reference, layout })
}

fn list(attrs: &mut Attrs, name: &str) -> Result<Vec<String>, Error> {
    let Some(text) = attrs.remove(name) else { return Ok(Vec::new()) };
    let parsed: Result<Option<Vec<String>>, _> = serde_json::from_str(&text);
    let parsed = parsed.map_err(|error| invalid(format!("{name} is no list of texts: {error}")))?;
    Ok(parsed.unwrap_or_default())
}

fn local(name: &str, attrs: &mut Attrs) -> Result<Op, Error> {
    Ok(Op::Local(LocalSource {
        name: name.to_owned(),
        session: attrs.remove("local.session").filter(|id| !id.is_empty()),
        include: list(attrs, "local.includepattern")?,
        exclude: list(attrs, "local.excludepatterns")?,
        follow: list(attrs, "local.followpaths")?,
        shared_key: attrs.remove("local.sharedkeyhint").unwrap_or_default(),
    }))
}

fn git(rest: &str, all: &Attrs, attrs: &mut Attrs) -> Result<Op, Error> {
    let (remote, fragment) = rest.split_once('#').unwrap_or((rest, ""));
    let (reference, subdir) = fragment.split_once(':').unwrap_or((fragment, ""));
    let full =
        all.get("git.fullurl").map(|url| url.split_once('#').map_or(url.as_str(), |(url, _)| url));
    Ok(Op::Git(GitSource {
        remote: full.map_or_else(|| format!("git://{remote}"), str::to_owned),
        reference: reference.to_owned(),
        subdir: subdir.to_owned(),
        checksum: attrs.remove("git.checksum").filter(|sum| !sum.is_empty()),
        keep_git_dir: flag(attrs, "git.keepgitdir")?,
        skip_submodules: flag(attrs, "git.skipsubmodules")?,
        commit_times: attrs.remove("git.mtime").is_some_and(|mtime| mtime == "commit"),
        auth_header_secret: attrs.remove("git.authheadersecret"),
        auth_token_secret: attrs.remove("git.authtokensecret"),
        ssh: attrs.remove("git.mountsshsock"),
    }))
}

fn flag(attrs: &mut Attrs, name: &str) -> Result<bool, Error> {
    match attrs.remove(name).as_deref() {
        None | Some("" | "false") => Ok(false),
        Some("true") => Ok(true),
        Some(other) => Err(invalid(format!("{name} is {other:?}: need true or false"))),
    }
}

fn number(attrs: &mut Attrs, name: &str) -> Result<Option<u32>, Error> {
    let Some(text) = attrs.remove(name) else { return Ok(None) };
    // Go reads numbers with the base that their prefix says.
    let parsed = match text.strip_prefix("0o").or_else(|| text.strip_prefix('0')) {
        Some(octal) if !octal.is_empty() => u32::from_str_radix(octal, 8),
        _ => text.parse(),
    };
    parsed.map(Some).map_err(|_| invalid(format!("{name} is {text:?}: need a number")))
}

fn http(url: &str, attrs: &mut Attrs) -> Result<Op, Error> {
    let checksum = attrs.remove("http.checksum").filter(|sum| !sum.is_empty());
    let checksum = checksum.map(|sum| {
        sum.parse().map_err(|_| invalid(format!("http.checksum is {sum:?}: need a digest")))
    });
    let (uid, gid) = (number(attrs, "http.uid")?, number(attrs, "http.gid")?);
    let owner = (uid.is_some() || gid.is_some())
        .then(|| (uid.unwrap_or_default(), gid.unwrap_or_default()));
    Ok(Op::Http(HttpSource {
        url: url.to_owned(),
        checksum: checksum.transpose()?,
        filename: attrs.remove("http.filename").filter(|name| !name.is_empty()),
        mode: number(attrs, "http.perm")?,
        owner,
    }))
}

/// Writes a source.
pub(super) fn encode(op: &Op) -> Option<pb::SourceOp> {
    let mut attrs = Attrs::new();
    let mut put = |name: &str, value: String| {
        attrs.insert(name.to_owned(), value);
    };
    let json = |list: &[String]| serde_json::to_string(list).unwrap_or_default();
    let identifier = match op {
        Op::Image(image) => match &image.layout {
            Some(layout) => {
                put("oci.store", layout.clone());
                format!("oci-layout://{}", image.reference)
            }
            None => format!("docker-image://{}", image.reference),
        },
        Op::Local(local) => {
            let lists = [
                ("local.includepattern", &local.include),
                ("local.excludepatterns", &local.exclude),
                ("local.followpaths", &local.follow),
            ];
            for (name, list) in lists.into_iter().filter(|(_, list)| !list.is_empty()) {
                put(name, json(list));
            }
            if let Some(session) = &local.session {
                put("local.session", session.clone());
            }
            if !local.shared_key.is_empty() {
                put("local.sharedkeyhint", local.shared_key.clone());
            }
            format!("local://{}", local.name)
        }
        Op::Git(git) => {
            put("git.fullurl", git.remote.clone());
            let options = [
                ("git.checksum", git.checksum.clone()),
                ("git.keepgitdir", git.keep_git_dir.then(|| "true".to_owned())),
                ("git.skipsubmodules", git.skip_submodules.then(|| "true".to_owned())),
                ("git.mtime", git.commit_times.then(|| "commit".to_owned())),
                ("git.authheadersecret", git.auth_header_secret.clone()),
                ("git.authtokensecret", git.auth_token_secret.clone()),
                ("git.mountsshsock", git.ssh.clone()),
            ];
            for (name, value) in options {
                if let Some(value) = value {
                    put(name, value);
                }
            }
            let bare = git.remote.split_once("://").map_or(git.remote.as_str(), |(_, rest)| rest);
            match (git.reference.as_str(), git.subdir.as_str()) {
                ("", "") => format!("git://{bare}"),
                (reference, "") => format!("git://{bare}#{reference}"),
                (reference, subdir) => format!("git://{bare}#{reference}:{subdir}"),
            }
        }
        Op::Http(http) => {
            let options = [
                ("http.checksum", http.checksum.as_ref().map(ToString::to_string)),
                ("http.filename", http.filename.clone()),
                ("http.perm", http.mode.map(|mode| format!("0{mode:o}"))),
                ("http.uid", http.owner.map(|(uid, _)| uid.to_string())),
                ("http.gid", http.owner.map(|(_, gid)| gid.to_string())),
            ];
            for (name, value) in options {
                if let Some(value) = value {
                    put(name, value);
                }
            }
            http.url.clone()
        }
        _ => return None,
    };
    Some(pb::SourceOp { identifier, attrs })
}
