//! Events. Fields are those of the published Engine API, in the order in which Docker's daemon prints them.
#![expect(missing_docs, reason = "fields are named and described by the published Engine API")]

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::is_empty;

/// `EventMessage`
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Event {
    #[serde(rename = "status", skip_serializing_if = "is_empty")]
    pub status: String,
    #[serde(rename = "id", skip_serializing_if = "is_empty")]
    pub id: String,
    #[serde(rename = "from", skip_serializing_if = "is_empty")]
    pub from: String,
    #[serde(rename = "Type")]
    pub kind: String,
    pub action: String,
    pub actor: Actor,
    #[serde(rename = "scope", skip_serializing_if = "is_empty")]
    pub scope: String,
    #[serde(rename = "time", skip_serializing_if = "is_empty")]
    pub time: i64,
    #[serde(rename = "timeNano", skip_serializing_if = "is_empty")]
    pub time_nano: i64,
}

/// `EventActor`
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Actor {
    #[serde(rename = "ID")]
    pub id: String,
    pub attributes: BTreeMap<String, String>,
}
