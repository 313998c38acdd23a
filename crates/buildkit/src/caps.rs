//! What the frontend interface and build definitions may use here. Clients ask before they use anything newer.

use crate::wire::ApiCap;

const FRONTEND: &[&str] = &[
    "solve.base",
    "solve.inlinereturn",
    "resolveimage",
    "resolveimage.resolvemode",
    "readfile",
    "return",
    "returnmap",
    "readdir",
    "statfile",
    "importcaches",
    "proto.refarray",
    "reference.output",
    "frontend.inputs",
    "gateway.solve.metadata",
    "frontend.caps",
    "gateway.solve.evaluate",
    "gateway.evaluate",
    "gateway.warnings",
    "source.metaresolver",
];

const DEFINITION: &[&str] = &[
    "source.image",
    "source.image.resolvemode",
    "source.image.checksum",
    "source.local",
    "source.local.unique",
    "source.local.sessionid",
    "source.local.includepatterns",
    "source.local.followpaths",
    "source.local.excludepatterns",
    "source.local.sharedkeyhint",
    "source.local.differ",
    "source.git",
    "source.git.keepgitdir",
    "source.git.fullurl",
    "source.git.httpauth",
    "source.git.mountsshsock",
    "source.git.subdir",
    "source.git.checksum",
    "source.git.skipsubmodules",
    "source.http",
    "source.http.checksum",
    "source.http.perm",
    // COMPAT: the name has been wrong from the beginning.
    "soruce.http.uidgid",
    "source.ocilayout",
    "source.buildop.llbfilename",
    "exec.meta.base",
    "exec.meta.cgroup.parent",
    "exec.meta.network",
    "exec.meta.proxyenv",
    "exec.meta.security",
    "exec.meta.setsdefaultpath",
    "exec.meta.ulimit",
    "exec.mount.bind",
    "exec.mount.bind.readwrite-nooutput",
    "exec.mount.cache",
    "exec.mount.cache.sharing",
    "exec.mount.selector",
    "exec.mount.tmpfs",
    "exec.mount.tmpfs.size",
    "exec.mount.secret",
    "exec.mount.ssh",
    "exec.secretenv",
    "exec.validexitcode",
    "file.base",
    "file.rm.wildcard",
    "file.copy.includeexcludepatterns",
    "file.copy.requiredpaths",
    "source.git.mtime",
    "file.copy.alwaysreplaceexistingdestpaths",
    "file.copy.modestring",
    "file.symlink.create",
    "constraints",
    "platform",
    "meta.ignorecache",
    "meta.description",
    "meta.exportcache",
    "mergeop",
    "diffop",
    "exporter.image.annotations",
    "exporter.image.attestations",
    "exporter.sourcedateepoch",
    "exporter.multiple",
];

fn wire(names: impl Iterator<Item = &'static str>) -> Vec<ApiCap> {
    names.map(|name| ApiCap { id: name.to_owned(), enabled: true, ..ApiCap::default() }).collect()
}

/// What the frontend interface can do.
pub(crate) fn frontend() -> Vec<ApiCap> {
    wire(FRONTEND.iter().copied())
}

/// What build definitions and outputs may contain, with what this builder's parts can beyond that.
pub(crate) fn definition(further: &[&'static str]) -> Vec<ApiCap> {
    wire(DEFINITION.iter().chain(further).copied())
}

/// Tells whether a definition may say that it needs this.
pub(crate) fn is_known(name: &str) -> bool {
    DEFINITION.contains(&name)
}
