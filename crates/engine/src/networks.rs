//! Networks as users see them, and containers that join and leave them. How they are made belongs to `network`.

use std::sync::Arc;

use rorqual_core::Filters;
use rorqual_network::{EndpointRequest, NetworkRecord, NetworkRequest};

use crate::container::Container;
use crate::containers::{Containers, name_matches, until};
use crate::error::{Error, Result};
use crate::events::EventKind;
use crate::spec::{NetworkMode, NetworkSpec};
use crate::view::NetworkView;
use crate::world::World;

/// The networks of one daemon.
#[derive(Clone)]
pub struct NetworksView {
    pub(crate) world: Arc<World>,
}

const KEYS: [&str; 7] = ["dangling", "driver", "id", "label", "name", "scope", "type"];

fn is_builtin(record: &NetworkRecord) -> bool {
    record.is_predefined()
}

fn attributes(record: &NetworkRecord) -> [(&'static str, String); 2] {
    [("name", record.name.clone()), ("type", record.driver.clone())]
}

impl NetworksView {
    async fn view(&self, record: NetworkRecord) -> Result<NetworkView> {
        let containers = self.world.parts.networks.endpoints(&record.id).await?;
        Ok(NetworkView { record, containers })
    }

    /// Shows a network with its endpoints.
    pub async fn inspect(&self, network: &str) -> Result<NetworkView> {
        let record = self.world.parts.networks.find(network).await?;
        self.view(record).await
    }

    /// Lists networks (filters `dangling`, `driver`, `id`, `label`, `name`, `scope`, `type`).
    pub async fn list(&self, filters: Filters) -> Result<Vec<NetworkView>> {
        filters.check_keys(&KEYS)?;
        // COMPAT: dockerd's words, here and below.
        let dangling = filters.bool("dangling").map_err(|_| {
            let text = r#"invalid value for filter 'dangling', must be "true" (or "1"), or "false" (or "0")"#;
            Error::Invalid(text.to_owned())
        })?;
        let known = |kind: &&String| !matches!(kind.as_str(), "builtin" | "custom");
        if let Some(kind) = filters.values("type").iter().find(known) {
            return Err(Error::Invalid(format!("invalid filter: 'type'='{kind}'")));
        }
        let mut views = Vec::new();
        for record in self.world.parts.networks.list().await? {
            let label = |key: &str| record.labels.get(key).map(String::as_str);
            let wanted = filters.any("driver", |wanted| *wanted == record.driver)
                && filters.any("id", |wanted| record.id.to_string().starts_with(wanted.as_str()))
                && filters.any("name", |wanted| name_matches(&record.name, wanted))
                && filters.any("scope", |wanted| wanted == "local")
                && filters.any("type", |wanted| match wanted.as_str() {
                    "builtin" => is_builtin(&record),
                    "custom" => !is_builtin(&record),
                    _ => false,
                })
                && filters.labels_match("label", label);
            if !wanted {
                continue;
            }
            let view = self.view(record).await?;
            let unused = view.containers.is_empty() && !is_builtin(&view.record);
            if dangling.is_none_or(|wanted| wanted == unused) {
                views.push(view);
            }
        }
        Ok(views)
    }

    /// Makes a network.
    pub async fn create(&self, request: NetworkRequest) -> Result<NetworkRecord> {
        let world = Arc::clone(&self.world);
        let work = async move {
            let record = world.parts.networks.create(request).await?;
            world.event(EventKind::Network, "create", &record.id.to_string(), attributes(&record));
            Ok(record)
        };
        self.world.to_its_end(work).await
    }

    /// Removes a network that no running container uses.
    pub async fn remove(&self, network: &str) -> Result<()> {
        let (world, network) = (Arc::clone(&self.world), network.to_owned());
        let work = async move {
            let record = world.parts.networks.find(&network).await?;
            remove(&world, &record).await
        };
        self.world.to_its_end(work).await
    }

    /// Removes all networks of users that no running container uses and that pass the filters (`until`, `label`,
    /// `label!`); returns their names.
    pub async fn prune(&self, filters: Filters) -> Result<Vec<String>> {
        filters.check_keys(&["until", "label", "label!"])?;
        let world = Arc::clone(&self.world);
        self.world.to_its_end(async move { prune(&world, &filters).await }).await
    }

    /// Connects a container to a network; one that does not run joins it when it starts.
    pub async fn connect(
        &self,
        network: &str,
        container: &str,
        request: EndpointRequest,
    ) -> Result<()> {
        let record = self.world.parts.networks.find(network).await?;
        let request = EndpointRequest { network: record.name.clone(), ..request };
        let work = async move |world: Arc<World>, container| {
            connect(&world, &container, &record, request).await
        };
        self.containers().locked(container, work).await
    }

    /// Takes a container off a network.
    pub async fn disconnect(&self, network: &str, container: &str) -> Result<()> {
        let record = self.world.parts.networks.find(network).await?;
        let work =
            async move |world: Arc<World>, container| disconnect(&world, &container, &record).await;
        self.containers().locked(container, work).await
    }

    /// The same for whoever insists. A container that is gone has nothing left here, so there is nothing to force.
    pub async fn force_disconnect(&self, network: &str, container: &str) -> Result<()> {
        self.disconnect(network, container).await.map_err(|error| match error {
            // COMPAT: dockerd looks for an endpoint then, and says so.
            Error::NoSuchContainer(name) => Error::NotFound(format!("endpoint {name} not found")),
            error => error,
        })
    }

    fn containers(&self) -> Containers {
        Containers { world: Arc::clone(&self.world) }
    }
}

async fn remove(world: &World, record: &NetworkRecord) -> Result<()> {
    world.parts.networks.remove(&record.id).await?;
    world.event(EventKind::Network, "destroy", &record.id.to_string(), attributes(record));
    Ok(())
}

async fn prune(world: &World, filters: &Filters) -> Result<Vec<String>> {
    let until = until(filters, world.options.clock.now())?;
    let mut gone = Vec::new();
    for record in world.parts.networks.list().await? {
        let label = |key: &str| record.labels.get(key).map(String::as_str);
        let wanted = !is_builtin(&record)
            && until.is_none_or(|until| record.created < until)
            && filters.labels_match("label", label)
            && !(filters.has("label!") && filters.labels_match("label!", label));
        // Whoever uses it keeps it; that is no failure of a prune.
        if wanted && remove(world, &record).await.is_ok() {
            gone.push(record.name);
        }
    }
    world.event(EventKind::Network, "prune", "", [("reclaimed", "0".to_owned())]);
    Ok(gone)
}

fn tell(world: &World, action: &str, container: &Container, record: &NetworkRecord) {
    let [name, kind] = attributes(record);
    let about = [("container", container.id.to_string()), name, kind];
    world.event(EventKind::Network, action, &record.id.to_string(), about);
}

/// Tells whether a container's own configuration names a network.
fn names(spec: &NetworkSpec, record: &NetworkRecord) -> bool {
    let id = record.id.to_string();
    let is_it = |text: &str| text == record.name || (text.len() >= 12 && id.starts_with(text));
    let by_mode = match &spec.mode {
        NetworkMode::Default => record.name == "bridge",
        NetworkMode::Network(name) => is_it(name),
        NetworkMode::None | NetworkMode::Host | NetworkMode::Container(_) => false,
    };
    (by_mode && !spec.left_mode) || spec.endpoints.iter().any(|one| is_it(&one.network))
}

fn check_connectable(spec: &NetworkSpec, record: &NetworkRecord) -> Result<()> {
    // COMPAT: dockerd's texts.
    let refused = |text: &str| Err(Error::Forbidden(text.to_owned()));
    match &spec.mode {
        NetworkMode::Host | NetworkMode::Container(_) => refused(
            "container sharing network namespace with another container or host cannot be connected to any other network",
        ),
        NetworkMode::None => refused(
            "container cannot be connected to multiple networks with one of the networks in private (none) mode",
        ),
        _ if record.name == "host" => refused(
            "cannot connect container to host network - container must be created in host network mode",
        ),
        _ if record.name == "none" => refused(
            "container cannot be connected to multiple networks with one of the networks in private (none) mode",
        ),
        _ => Ok(()),
    }
}

async fn connect(
    world: &World,
    container: &Arc<Container>,
    record: &NetworkRecord,
    request: EndpointRequest,
) -> Result<()> {
    let old = container.definition();
    check_connectable(&old.spec.network, record)?;
    let running = container.task().is_some();
    if running {
        let networks = &world.parts.networks;
        let pid = container.state().pid;
        let endpoints = networks.connect(&container.id, pid, request.clone()).await?;
        container.change(|state| state.endpoints = endpoints);
    }
    let mut new = (*old).clone();
    let network = &mut new.spec.network;
    network.endpoints.retain(|endpoint| endpoint.network != record.name);
    network.endpoints.push(request);
    if let Err(error) = container.redefine(&world.parts.database, new).await {
        if running {
            let pid = container.state().pid;
            let taken_back = world.parts.networks.disconnect(&container.id, pid, &record.id).await;
            if let Ok(endpoints) = taken_back {
                container.change(|state| state.endpoints = endpoints);
            }
        }
        return Err(error);
    }
    container.persist(&world.parts.database).await?;
    if running {
        tell(world, "connect", container, record);
    }
    Ok(())
}

async fn disconnect(
    world: &World,
    container: &Arc<Container>,
    record: &NetworkRecord,
) -> Result<()> {
    let old = container.definition();
    let spec = &old.spec.network;
    if spec.mode == NetworkMode::Host && record.name == "host" {
        // COMPAT: dockerd's text.
        return Err(Error::Forbidden(
            "container cannot be disconnected from host network - host mode is set at container creation"
                .to_owned(),
        ));
    }
    let connected =
        container.state().endpoints.iter().any(|endpoint| endpoint.network == record.id);
    if !connected && !names(spec, record) {
        // COMPAT: dockerd's text.
        return Err(Error::Forbidden(format!(
            "container {} is not connected to network {}",
            container.id, record.name
        )));
    }
    if connected && container.task().is_some() {
        let pid = container.state().pid;
        let left = world.parts.networks.disconnect(&container.id, pid, &record.id).await?;
        container.change(|state| state.endpoints = left);
        tell(world, "disconnect", container, record);
    }
    let mut new = (*old).clone();
    let network = &mut new.spec.network;
    let id = record.id.to_string();
    let is_it = |text: &str| text == record.name || (text.len() >= 12 && id.starts_with(text));
    network.endpoints.retain(|endpoint| !is_it(&endpoint.network));
    network.left_mode = network.left_mode || names(network, record);
    container.redefine(&world.parts.database, new).await?;
    container.persist(&world.parts.database).await
}
