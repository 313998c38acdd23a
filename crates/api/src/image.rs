//! Images. Fields are those of the published Engine API, in the order in which Docker's daemon prints them.
//!
//! Docker prints some of these documents with keys in alphabetical order, as here.
#![expect(missing_docs, reason = "fields are named and described by the published Engine API")]

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::container::{GraphDriver, HealthConfig};
use crate::{Empty, is_empty};

/// `ImageInspect`
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Inspect {
    pub id: String,
    pub repo_tags: Vec<String>,
    pub repo_digests: Vec<String>,
    pub parent: String,
    pub comment: String,
    #[serde(skip_serializing_if = "is_empty")]
    pub created: String,
    pub docker_version: String,
    pub author: String,
    pub architecture: String,
    #[serde(skip_serializing_if = "is_empty")]
    pub variant: String,
    pub os: String,
    #[serde(skip_serializing_if = "is_empty")]
    pub os_version: String,
    pub size: i64,
    #[serde(skip_serializing_if = "is_empty")]
    pub virtual_size: i64,
    pub graph_driver: GraphDriver,
    #[serde(rename = "RootFS")]
    pub root_fs: RootFs,
    pub metadata: Metadata,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub descriptor: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub manifests: Option<Vec<Value>>,
    pub config: Option<ImageConfig>,
}

/// `RootFS`
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct RootFs {
    #[serde(rename = "Type", skip_serializing_if = "is_empty")]
    pub kind: String,
    #[serde(skip_serializing_if = "is_empty")]
    pub layers: Vec<String>,
}

/// `ImageMetadata`
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Metadata {
    #[serde(skip_serializing_if = "is_empty")]
    pub last_tag_time: String,
}

/// `ImageConfig`, keys in alphabetical order.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ImageConfig {
    #[serde(skip_serializing_if = "is_empty")]
    pub args_escaped: bool,
    pub cmd: Option<Vec<String>>,
    pub entrypoint: Option<Vec<String>>,
    pub env: Option<Vec<String>>,
    #[serde(skip_serializing_if = "is_empty")]
    pub exposed_ports: BTreeMap<String, Empty>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub healthcheck: Option<HealthConfig>,
    pub labels: Option<BTreeMap<String, String>>,
    pub on_build: Option<Vec<String>>,
    #[serde(skip_serializing_if = "is_empty")]
    pub shell: Vec<String>,
    #[serde(skip_serializing_if = "is_empty")]
    pub stop_signal: String,
    pub user: String,
    pub volumes: Option<BTreeMap<String, Empty>>,
    pub working_dir: String,
}

/// `ImageSummary`
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Summary {
    pub containers: i64,
    pub created: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub descriptor: Option<Value>,
    pub id: String,
    pub labels: Option<BTreeMap<String, String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub manifests: Option<Vec<Value>>,
    pub parent_id: String,
    pub repo_digests: Option<Vec<String>>,
    pub repo_tags: Option<Vec<String>>,
    pub shared_size: i64,
    pub size: i64,
    #[serde(skip_serializing_if = "is_empty")]
    pub virtual_size: i64,
}

/// `ImageHistoryResponseItem`
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct HistoryItem {
    pub comment: String,
    pub created: i64,
    pub created_by: String,
    pub id: String,
    pub size: i64,
    pub tags: Option<Vec<String>>,
}

/// `ImageDeleteResponseItem`
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct DeleteItem {
    #[serde(skip_serializing_if = "is_empty")]
    pub deleted: String,
    #[serde(skip_serializing_if = "is_empty")]
    pub untagged: String,
}

/// Answer of `POST /images/prune`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct PruneReport {
    pub images_deleted: Option<Vec<DeleteItem>>,
    pub space_reclaimed: u64,
}

/// Answer of `POST /commit`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct IdResponse {
    pub id: String,
}

/// `AuthConfig`
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RegistryCredentials {
    #[serde(skip_serializing_if = "is_empty")]
    pub username: String,
    #[serde(skip_serializing_if = "is_empty")]
    pub password: String,
    #[serde(skip_serializing_if = "is_empty")]
    pub auth: String,
    #[serde(skip_serializing_if = "is_empty")]
    pub serveraddress: String,
    #[serde(skip_serializing_if = "is_empty")]
    pub identitytoken: String,
    #[serde(skip_serializing_if = "is_empty")]
    pub registrytoken: String,
}

/// Answer of `POST /auth`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct LoginAnswer {
    pub identity_token: String,
    pub status: String,
}

/// One result of `GET /images/search`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Found {
    pub star_count: i64,
    pub is_official: bool,
    pub name: String,
    pub is_automated: bool,
    pub description: String,
}
