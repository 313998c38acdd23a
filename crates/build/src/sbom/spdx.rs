//! Packages as an SPDX 2.3 document. The same packages make the same document.

use rorqual_core::Digest;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::{Manager, Package, Scan};

/// What the document is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subject {
    /// Name of the image, or what stands for it.
    pub name: String,
    /// RFC 3339.
    pub created: String,
    /// Version of what made the document.
    pub tool: String,
}

/// Escapes what means something in a package URL.
fn escaped(text: &str) -> String {
    use std::fmt::Write as _;
    text.bytes().fold(String::new(), |mut all, byte| {
        if byte.is_ascii_alphanumeric() || b".-_~".contains(&byte) {
            all.push(byte.into());
        } else {
            // Writing to a string cannot fail.
            write!(all, "%{byte:02X}").ok();
        }
        all
    })
}

fn package_url(package: &Package, (system, version): (&str, &str)) -> String {
    let Package { manager, name, architecture, .. } = package;
    let of = escaped(&package.version);
    let (space, name) = match manager {
        Manager::Deb | Manager::Apk | Manager::Rpm => {
            let space = if system.is_empty() { "linux" } else { system };
            (format!("{}/", escaped(space)), escaped(name))
        }
        // A scope is a part of the path.
        Manager::Npm => match name.split_once('/') {
            Some((scope, name)) => (format!("{}/", escaped(scope)), escaped(name)),
            None => (String::new(), escaped(name)),
        },
        Manager::Pypi => (String::new(), escaped(name)),
    };
    let mut facts = Vec::new();
    if !architecture.is_empty() {
        facts.push(format!("arch={}", escaped(architecture)));
    }
    if matches!(manager, Manager::Deb | Manager::Apk | Manager::Rpm) && !system.is_empty() {
        facts.push(format!("distro={}-{}", escaped(system), escaped(version)));
    }
    let facts = if facts.is_empty() { String::new() } else { format!("?{}", facts.join("&")) };
    format!("pkg:{}/{space}{name}@{of}{facts}", manager.name())
}

/// Tells whether a text can be an expression of licences.
fn is_expression(text: &str) -> bool {
    let is_word = |word: &str| {
        !word.is_empty()
            && word.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-+()".contains(&byte))
    };
    let words = text.split(' ').collect::<Vec<_>>();
    words.iter().all(|word| is_word(word))
        && words.iter().skip(1).step_by(2).all(|word| matches!(*word, "AND" | "OR" | "WITH"))
        && words.len() % 2 == 1
}

fn described(number: usize, package: &Package, system: (&str, &str)) -> Value {
    let url = package_url(package, system);
    let is_expression = package.manager != Manager::Rpm && is_expression(&package.license);
    let declared = if is_expression { package.license.as_str() } else { "NOASSERTION" };
    let mut value = json!({
        "name": package.name,
        "SPDXID": identity(number, package),
        "versionInfo": package.version,
        "supplier": "NOASSERTION",
        "downloadLocation": "NOASSERTION",
        "filesAnalyzed": false,
        "sourceInfo": format!("acquired package info from: /{}", package.found_in),
        "licenseConcluded": "NOASSERTION",
        "licenseDeclared": declared,
        "copyrightText": "NOASSERTION",
        "externalRefs": [{
            "referenceCategory": "PACKAGE-MANAGER",
            "referenceType": "purl",
            "referenceLocator": url,
        }],
    });
    if !is_expression && !package.license.is_empty() {
        value["licenseComments"] = Value::from(package.license.as_str());
    }
    value
}

fn identity(number: usize, package: &Package) -> String {
    let name = package.name.bytes().map(|byte| match byte {
        byte if byte.is_ascii_alphanumeric() || byte == b'.' => char::from(byte),
        _ => '-',
    });
    format!("SPDXRef-Package-{}-{}-{number}", package.manager.name(), name.collect::<String>())
}

/// Writes a document.
pub fn spdx(scan: &Scan, subject: &Subject) -> Value {
    let system = (scan.system.0.as_str(), scan.system.1.as_str());
    let mut packages = vec![json!({
        "name": subject.name,
        "SPDXID": "SPDXRef-DocumentRoot-Image",
        "downloadLocation": "NOASSERTION",
        "filesAnalyzed": false,
        "licenseConcluded": "NOASSERTION",
        "licenseDeclared": "NOASSERTION",
        "copyrightText": "NOASSERTION",
        "primaryPackagePurpose": "CONTAINER",
    })];
    let mut relations = vec![json!({
        "spdxElementId": "SPDXRef-DOCUMENT",
        "relationshipType": "DESCRIBES",
        "relatedSpdxElement": "SPDXRef-DocumentRoot-Image",
    })];
    let mut hash = Sha256::new();
    for (number, package) in scan.packages.iter().enumerate() {
        let value = described(number, package, system);
        hash.update(value.to_string());
        packages.push(value);
        relations.push(json!({
            "spdxElementId": "SPDXRef-DocumentRoot-Image",
            "relationshipType": "CONTAINS",
            "relatedSpdxElement": identity(number, package),
        }));
    }
    hash.update(&subject.name);
    hash.update(&subject.created);
    let name = Digest::sha256(hash.finalize().into());
    let mut info = json!({
        "created": subject.created,
        "creators": [format!("Tool: rorqual-{}", subject.tool)],
    });
    if !scan.remarks.is_empty() {
        info["comment"] = Value::from(scan.remarks.join("; "));
    }
    json!({
        "spdxVersion": "SPDX-2.3",
        "dataLicense": "CC0-1.0",
        "SPDXID": "SPDXRef-DOCUMENT",
        "name": subject.name,
        "documentNamespace": format!("urn:rorqual:sbom:{}", name.hex()),
        "creationInfo": info,
        "packages": packages,
        "relationships": relations,
    })
}
