//! The texts in which package managers say what is installed.

use serde::Deserialize;

use super::{Manager, Package};

/// Reads `ID` and `VERSION_ID`.
pub(super) fn system(text: &str) -> (String, String) {
    let value = |name: &str| {
        let found = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
        found.unwrap_or_default().trim().trim_matches(['"', '\'']).to_owned()
    };
    (value("ID"), value("VERSION_ID"))
}

/// Finds a field of a stanza of `Name: value` lines.
fn field<'t>(stanza: &'t str, name: &str) -> &'t str {
    let found = stanza.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    found.unwrap_or_default().trim()
}

/// Reads dpkg's status.
pub(super) fn dpkg(text: &str, path: &str) -> Vec<Package> {
    let packages = text.split("\n\n").filter_map(|stanza| {
        let status = field(stanza, "Status");
        let is_installed = status.is_empty() || status.ends_with(" installed");
        let (name, version) = (field(stanza, "Package"), field(stanza, "Version"));
        (is_installed && !name.is_empty() && !version.is_empty()).then(|| Package {
            manager: Manager::Deb,
            name: name.to_owned(),
            version: version.to_owned(),
            architecture: field(stanza, "Architecture").to_owned(),
            license: String::new(),
            found_in: path.to_owned(),
        })
    });
    packages.collect()
}

/// Reads apk's database.
pub(super) fn apk(text: &str, path: &str) -> Vec<Package> {
    let packages = text.split("\n\n").filter_map(|stanza| {
        let (name, version) = (field(stanza, "P"), field(stanza, "V"));
        (!name.is_empty() && !version.is_empty()).then(|| Package {
            manager: Manager::Apk,
            name: name.to_owned(),
            version: version.to_owned(),
            architecture: field(stanza, "A").to_owned(),
            license: field(stanza, "L").to_owned(),
            found_in: path.to_owned(),
        })
    });
    packages.collect()
}

/// Reads the metadata of a Python distribution: headers, as of mail, up to the first empty line.
pub(super) fn python(text: &str, path: &str) -> Option<Package> {
    let head = text.split_once("\n\n").map_or(text, |(head, _)| head);
    let (name, version) = (field(head, "Name"), field(head, "Version"));
    let license = match field(head, "License-Expression") {
        "" => field(head, "License"),
        expression => expression,
    };
    (!name.is_empty() && !version.is_empty()).then(|| Package {
        manager: Manager::Pypi,
        // As the index knows it.
        name: name.to_ascii_lowercase().replace(['_', '.'], "-"),
        version: version.to_owned(),
        architecture: String::new(),
        license: license.to_owned(),
        found_in: path.to_owned(),
    })
}

/// Reads the description of a Node package.
pub(super) fn node(bytes: &[u8], path: &str) -> Option<Package> {
    #[derive(Deserialize)]
    struct Description {
        #[serde(default)]
        name: String,
        #[serde(default)]
        version: String,
        #[serde(default)]
        license: serde_json::Value,
    }
    let found = serde_json::from_slice::<Description>(bytes).ok()?;
    let license = match &found.license {
        serde_json::Value::String(text) => text.clone(),
        other => other["type"].as_str().unwrap_or_default().to_owned(),
    };
    (!found.name.is_empty() && !found.version.is_empty()).then(|| Package {
        manager: Manager::Npm,
        name: found.name,
        version: found.version,
        architecture: String::new(),
        license,
        found_in: path.to_owned(),
    })
}
