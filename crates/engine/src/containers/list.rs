//! `ps` with its fifteen filters. Takes no lock.

use std::collections::BTreeSet;
use std::sync::Arc;

use rorqual_core::{DiffId, Filters, ImageId};

use crate::container::Container;
use crate::effective::parse_port;
use crate::error::{Error, Result};
use crate::phase::Phase;
use crate::records::{ContainerRecord, State};
use crate::request::ListRequest;
use crate::spec::NetworkMode;
use crate::validate::normal;
use crate::view::ContainerView;
use crate::world::World;

const KEYS: [&str; 15] = [
    "ancestor",
    "before",
    "exited",
    "expose",
    "health",
    "id",
    "is-task",
    "isolation",
    "label",
    "name",
    "network",
    "publish",
    "since",
    "status",
    "volume",
];

const STATUSES: [&str; 7] =
    ["created", "restarting", "running", "removing", "paused", "exited", "dead"];

pub(super) async fn list(world: &World, request: ListRequest) -> Result<Vec<ContainerView>> {
    let plan = Plan::new(world, &request).await?;
    let mut all: Vec<Arc<Container>> = world.index.all();
    all.sort_by_key(|container| std::cmp::Reverse(container.definition().created));
    let found = all.into_iter().filter(|container| plan.wants(container));
    let found: Vec<_> = found.take(request.limit.unwrap_or(usize::MAX)).collect();
    let mut views = Vec::with_capacity(found.len());
    for container in found {
        let mut view = container.view();
        if request.size {
            view.size = world.parts.snapshots.usage(&container.id).await.ok();
        }
        views.push(view);
    }
    Ok(views)
}

/// Filters with everything looked up that does not depend on the single container.
struct Plan<'a> {
    filters: &'a Filters,
    all: bool,
    exited: Vec<i32>,
    before: Option<rorqual_core::Timestamp>,
    since: Option<rorqual_core::Timestamp>,
    ancestors: Option<BTreeSet<ImageId>>,
    is_task: Option<bool>,
}

impl<'a> Plan<'a> {
    async fn new(world: &World, request: &'a ListRequest) -> Result<Self> {
        let filters = &request.filters;
        filters.check_keys(&KEYS)?;
        for status in filters.values("status") {
            if !STATUSES.contains(&status.as_str()) {
                // COMPAT: dockerd's text.
                return Err(Error::Invalid(format!(
                    "invalid filter 'status={status}': invalid value for state ({status}): must be one of created, \
                     running, paused, restarting, removing, exited, dead"
                )));
            }
        }
        for health in filters.values("health") {
            if !["none", "starting", "healthy", "unhealthy"].contains(&health.as_str()) {
                // COMPAT: dockerd's text.
                return Err(Error::Invalid(format!(
                    "invalid filter 'health={health}': invalid value for health ({health}): must be one of none, \
                     starting, healthy, unhealthy"
                )));
            }
        }
        let exited = filters.values("exited").iter().map(|code| {
            // COMPAT: dockerd's text.
            let text = |_| {
                format!(
                    "invalid filter 'exited={code}': strconv.Atoi: parsing {code:?}: invalid syntax"
                )
            };
            code.parse().map_err(|error| Error::Invalid(text(error)))
        });
        let created = |key: &str| match filters.values(key) {
            [] => Ok(None),
            [text, ..] => world.index.find(text).map(|other| Some(other.definition().created)),
        };
        for key in ["publish", "expose"] {
            for port in filters.values(key) {
                check_port(key, port)?;
            }
        }
        let widened = filters.has("status") || filters.has("exited");
        let related = request.limit.is_some() || filters.has("before") || filters.has("since");
        Ok(Self {
            filters,
            all: request.all || widened || related,
            exited: exited.collect::<Result<_>>()?,
            before: created("before")?,
            since: created("since")?,
            ancestors: ancestors(world, filters).await?,
            is_task: filters.bool("is-task")?,
        })
    }

    fn wants(&self, container: &Container) -> bool {
        let (definition, state) = (container.definition(), container.state());
        self.wants_state(container, &state)
            && self.wants_definition(&definition)
            && self.wants_network(&definition, &state)
    }

    fn wants_state(&self, container: &Container, state: &State) -> bool {
        let runs =
            matches!(state.phase, Phase::Running(_) | Phase::Paused(_) | Phase::Restarting(_));
        let ended = matches!(state.phase, Phase::Exited(_)) && state.started_at.is_some();
        let health = || {
            let live = container.live();
            live.health.as_ref().map_or("none", |health| health.status.word())
        };
        (self.all || runs)
            && self.filters.any("status", |wanted| wanted == state.phase.word())
            && (self.exited.is_empty() || (ended && self.exited.contains(&state.exit_code)))
            && (!self.filters.has("health")
                || self.filters.any("health", |wanted| wanted == health()))
    }

    fn wants_definition(&self, definition: &ContainerRecord) -> bool {
        let filters = self.filters;
        let label = |key: &str| definition.spec.labels.get(key).map(String::as_str);
        let volume = |wanted: &String| {
            definition.mounts.iter().any(|mount| {
                mount.name.as_ref().is_some_and(|name| name.as_str() == wanted)
                    || mount.source.to_str() == Some(wanted)
                    || normal(&mount.target) == normal(wanted)
            })
        };
        filters.any("id", |wanted| definition.id.to_string().starts_with(wanted.as_str()))
            && filters.any("name", |wanted| name_matches(definition.name.as_str(), wanted))
            && filters.labels_match("label", label)
            && filters.any("volume", volume)
            && filters.any("isolation", |wanted| wanted == "default")
            && self.is_task != Some(true)
            && self.before.is_none_or(|before| definition.created < before)
            && self.since.is_none_or(|since| definition.created > since)
            && self.ancestors.as_ref().is_none_or(|images| images.contains(&definition.image))
    }

    fn wants_network(&self, definition: &ContainerRecord, state: &State) -> bool {
        let mode = match &definition.spec.network.mode {
            NetworkMode::Default => "bridge",
            NetworkMode::None => "none",
            NetworkMode::Host => "host",
            NetworkMode::Container(_) => "",
            NetworkMode::Network(name) => name,
        };
        let network = |wanted: &String| {
            wanted == mode
                || state.endpoints.iter().any(|endpoint| {
                    endpoint.network_name == *wanted
                        || endpoint.network.to_string().starts_with(wanted.as_str())
                })
        };
        // COMPAT: the port of the host counts, not that of the container.
        let published = |wanted: &String| {
            in_ports(wanted, |port, protocol| {
                state
                    .ports
                    .iter()
                    .any(|published| published.host.0 == port && published.protocol == protocol)
            })
        };
        let exposed = |wanted: &String| {
            in_ports(wanted, |port, protocol| {
                definition.spec.network.exposed.contains(&(port, protocol))
            })
        };
        self.filters.any("network", network)
            && self.filters.any("publish", published)
            && self.filters.any("expose", exposed)
    }
}

/// COMPAT: what is no port is refused in the words of Go's parser.
fn check_port(key: &str, text: &str) -> Result<()> {
    let range = text.split_once('/').map_or(text, |(range, _)| range);
    let (first, last) = range.split_once('-').unwrap_or((range, range));
    for number in [first, last] {
        if number.parse::<u16>().is_err() {
            return Err(Error::Invalid(format!(
                "error while looking up for {key} {text}: strconv.ParseUint: parsing {number:?}: invalid syntax"
            )));
        }
    }
    Ok(())
}

/// Tells whether `test` holds for one port of `80`, `80/udp` or `80-90/tcp`.
fn in_ports(wanted: &str, test: impl Fn(u16, rorqual_network::PortProtocol) -> bool) -> bool {
    let (range, protocol) = wanted.split_once('/').unwrap_or((wanted, "tcp"));
    let (first, last) = range.split_once('-').unwrap_or((range, range));
    let Ok((first, protocol)) = parse_port(&format!("{first}/{protocol}")) else { return false };
    let Ok(last) = last.parse::<u16>() else { return false };
    (first..=last).any(|port| test(port, protocol))
}

/// Docker matches names as regular expressions. Anchors, `.*` and plain text are what people write.
pub(crate) fn name_matches(name: &str, pattern: &str) -> bool {
    let begins = pattern.starts_with('^');
    let ends = pattern.ends_with('$') && !pattern.ends_with("\\$");
    let body = pattern.trim_start_matches('^');
    let body = if ends { &body[..body.len() - 1] } else { body };
    let body = body.strip_prefix('/').unwrap_or(body);
    let parts: Vec<&str> = body.split(".*").collect();
    let mut rest = name;
    for (number, part) in parts.iter().enumerate() {
        let (first, last) = (number == 0, number + 1 == parts.len());
        let part = part.replace('\\', "");
        if last && ends {
            let long_enough = !(first && begins) || rest == part;
            return long_enough && rest.ends_with(&part);
        }
        match rest.find(&part) {
            Some(0) => rest = &rest[part.len()..],
            Some(at) if !(first && begins) => rest = &rest[at + part.len()..],
            _ => return false,
        }
    }
    true
}

/// The images meant by `ancestor`, and those built on them.
async fn ancestors(world: &World, filters: &Filters) -> Result<Option<BTreeSet<ImageId>>> {
    if !filters.has("ancestor") {
        return Ok(None);
    }
    let mut stacks: Vec<Vec<DiffId>> = Vec::new();
    let mut found = BTreeSet::new();
    for text in filters.values("ancestor") {
        // An unknown image has no descendants; that is no error.
        if let Ok(image) = world.parts.images.resolve(text).await {
            stacks.push(image.document.rootfs.diff_ids);
            found.insert(image.id);
        }
    }
    for image in world.parts.images.list().await? {
        let layers = &image.document.rootfs.diff_ids;
        if stacks.iter().any(|stack| !stack.is_empty() && layers.starts_with(stack)) {
            found.insert(image.id);
        }
    }
    Ok(Some(found))
}
