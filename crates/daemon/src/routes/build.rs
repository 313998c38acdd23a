//! Builds by the classic protocol, and the build cache.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use http::StatusCode;
use rorqual_build::dockerfile::{Dialect, NoCache, Options};
use rorqual_build::solver::PruneRequest;
use rorqual_build::{ExecNetwork, ResolveMode};
use rorqual_core::{Filters, Reference, Timestamp};
use rorqual_http::body;
use serde::de::DeserializeOwned;
use serde_json::json;

use crate::builder::{ClassicRequest, Logins, Origin, build as prepare};
use crate::context::Context;
use crate::convert::platform;
use crate::error::{invalid, unsupported};
use crate::request::{ApiRequest, Result, empty, json as answer, refuse, typed};
use crate::routes::transfers::{driven, take_body};

/// Reads a parameter that is JSON; a missing one is the default.
pub(super) fn from_json<T: DeserializeOwned + Default>(
    request: &ApiRequest,
    name: &str,
) -> Result<T> {
    match request.query.text(name) {
        "" => Ok(T::default()),
        text => serde_json::from_str(text)
            .map_err(|error| invalid(format!("invalid {name}: {error}")).into()),
    }
}

fn options(request: &ApiRequest) -> Result<Options> {
    let query = &request.query;
    let args: BTreeMap<String, Option<String>> = from_json(request, "buildargs")?;
    let labels: BTreeMap<String, String> = from_json(request, "labels")?;
    let mut hosts = Vec::new();
    for host in query.all("extrahosts").flat_map(|list| list.split(',')) {
        if let Some((name, address)) = host.split_once(':') {
            hosts.push((name.to_owned(), address.to_owned()));
        }
    }
    let network = match query.text("networkmode") {
        "" | "default" | "bridge" => ExecNetwork::Sandbox,
        "host" => ExecNetwork::Host,
        "none" => ExecNetwork::None,
        other => {
            return refuse(unsupported(format!(
                "networkmode={other}: builds run on the default bridge, the host's network or none"
            )));
        }
    };
    let pull = query.flag("pull");
    Ok(Options {
        dialect: Dialect::Classic,
        target: query.text("target").to_owned(),
        platforms: platform::words(query.text("platform"))?.into_iter().collect(),
        // An argument without a value takes the daemon's environment, which builds do not see.
        build_args: args.into_iter().filter_map(|(name, value)| Some((name, value?))).collect(),
        labels,
        extra_hosts: hosts,
        network,
        shm_size: request
            .number("shmsize")?
            .and_then(|size| u64::try_from(size).ok())
            .filter(|size| *size > 0),
        ulimits: ulimits(request)?,
        cgroup_parent: query.text("cgroupparent").to_owned(),
        no_cache: if query.flag("nocache") { NoCache::Always } else { NoCache::Never },
        resolve_mode: if pull { ResolveMode::Pull } else { ResolveMode::Default },
        ..Options::default()
    })
}

pub(super) fn ulimits(request: &ApiRequest) -> Result<Vec<String>> {
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Limit {
        name: String,
        soft: i64,
        hard: i64,
    }
    let all: Vec<Limit> = from_json(request, "ulimits")?;
    Ok(all.into_iter().map(|one| format!("{}={}:{}", one.name, one.soft, one.hard)).collect())
}

pub(super) fn names(request: &ApiRequest) -> Result<Vec<Reference>> {
    let mut all: Vec<Reference> = Vec::new();
    for text in request.query.all("t").filter(|text| !text.is_empty()) {
        // COMPAT: dockerd's text.
        let name = text.parse::<Reference>().map_err(|_| invalid("invalid reference format"))?;
        if name.digest().is_some() {
            return refuse(invalid("refusing to create a tag with a digest reference"));
        }
        let name = name.or_latest();
        if !all.contains(&name) {
            all.push(name);
        }
    }
    Ok(all)
}

/// Refuses what the classic protocol knows and this builder does not do.
fn refuse_rest(request: &ApiRequest) -> Result<()> {
    let query = &request.query;
    if query.flag("squash") {
        return refuse(unsupported("squash is not supported: use several stages and COPY --from"));
    }
    let limits = ["memory", "memswap", "cpushares", "cpuquota", "cpuperiod"];
    for name in limits {
        if request.number(name)?.is_some_and(|value| value != 0) {
            return refuse(unsupported(format!(
                "{name} is not supported for builds: set a cgroup-parent with that limit"
            )));
        }
    }
    for name in ["cpusetcpus", "cpusetmems"] {
        if !query.text(name).is_empty() {
            return refuse(unsupported(format!(
                "{name} is not supported for builds: set a cgroup-parent with that limit"
            )));
        }
    }
    Ok(())
}

/// `POST /build`
pub(super) async fn build(context: Arc<Context>, mut request: ApiRequest) -> Result {
    if request.query.text("version") == "2" {
        return super::buildkit::build(&context, &request);
    }
    refuse_rest(&request)?;
    let dockerfile = match request.query.text("dockerfile") {
        "" => "Dockerfile",
        name => name,
    };
    let classic = ClassicRequest {
        dockerfile: dockerfile.to_owned(),
        options: options(&request)?,
        names: names(&request)?,
        quiet: request.query.flag("q"),
        id: request.query.text("buildid").to_owned(),
        logins: Logins::new(super::registry::logins(&request)),
        origin: match request.query.text("remote") {
            "" => Origin::Archive(take_body(&mut request)),
            remote => Origin::Remote(remote.to_owned()),
        },
    };
    let slot = context.archive_slot().await?;
    let prepared = prepare(&context.builder, classic).await?;
    drop(slot);
    let (sender, body) = body::channel();
    let work = async move {
        let line = move |line: Vec<u8>| {
            let sender = sender.clone();
            async move { sender.send(Ok(line.into())).await.is_ok() }
        };
        prepared.run(line).await;
    };
    typed(StatusCode::OK, "application/json", driven(work, body))
}

/// `POST /build/cancel`
pub(super) async fn cancel(context: Arc<Context>, request: ApiRequest) -> Result {
    match request.query.text("id") {
        // COMPAT: dockerd's text.
        "" => refuse(invalid("build ID not provided")),
        id => {
            context.builder.cancel(id);
            empty(StatusCode::OK)
        }
    }
}

fn prune_request(request: &ApiRequest) -> Result<PruneRequest> {
    let filters = request.filters()?;
    let list = |name: &str| filters.values(name).to_vec();
    let mut keep = None;
    for name in ["keep-storage", "reserved-space", "max-used-space"] {
        if let Some(bytes) = request.number(name)?.filter(|bytes| *bytes > 0) {
            keep = u64::try_from(bytes).ok();
        }
    }
    let mut ids = list("id");
    ids.extend(list("parent"));
    Ok(PruneRequest { ids, kinds: list("type"), until: until(&filters)?, keep })
}

/// Reads how long something must not have been used: a duration, or a point in time.
fn until(filters: &Filters) -> Result<Option<Timestamp>> {
    let mut all = filters.values("until").iter().chain(filters.values("unused-for"));
    let Some(text) = all.next() else { return Ok(None) };
    if all.next().is_some() {
        return refuse(invalid("until is given more than once"));
    }
    if let Ok(time) = text.parse::<Timestamp>() {
        return Ok(Some(time));
    }
    let age = rorqual_core::units::parse_duration(text)
        .map_err(|_| invalid(format!("until: {text:?} is neither a duration nor a time")))?;
    Ok(SystemTime::now().checked_sub(age).map(Timestamp::from))
}

/// `POST /build/prune`
pub(super) async fn prune(context: Arc<Context>, request: ApiRequest) -> Result {
    let pruned = context.builder.solver.prune(prune_request(&request)?).await?;
    context.engine.images.collect().await?;
    // COMPAT: nothing is null.
    let ids = (!pruned.ids.is_empty()).then_some(pruned.ids);
    answer(StatusCode::OK, &json!({ "CachesDeleted": ids, "SpaceReclaimed": pruned.size }))
}
