//! Networks as users see them. Making and removing them belongs to `network`.

use std::sync::Arc;

use rorqual_core::Filters;
use rorqual_network::NetworkRecord;

use crate::containers::name_matches;
use crate::error::Result;
use crate::view::NetworkView;
use crate::world::World;

/// The networks of one daemon.
#[derive(Clone)]
pub struct NetworksView {
    pub(crate) world: Arc<World>,
}

const KEYS: [&str; 7] = ["dangling", "driver", "id", "label", "name", "scope", "type"];

fn is_builtin(record: &NetworkRecord) -> bool {
    matches!(record.name.as_str(), "bridge" | "host" | "none")
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
        let dangling = filters.bool("dangling")?;
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
}
