//! Endpoints of names under settings.

use rorqual_core::Repository;

use super::{Endpoint, Purpose, endpoints};
use crate::registry::options::{RegistryOptions, RegistryRule};

fn shown(options: &RegistryOptions, name: &str, purpose: Purpose) -> String {
    let repository: Repository = name.parse().unwrap();
    match endpoints(options, &repository, purpose, &[]) {
        Ok(found) => found
            .iter()
            .map(|endpoint| {
                let verify = if endpoint.verify { "" } else { " unverified" };
                format!("{}/{}{verify}", endpoint.base(), endpoint.path(repository.path()))
            })
            .collect::<Vec<_>>()
            .join(", "),
        Err(error) => error.to_string(),
    }
}

#[test]
fn names_lead_to_servers() {
    let rule = |mirrors: &[&str]| RegistryRule {
        mirrors: mirrors.iter().map(|text| (*text).to_owned()).collect(),
        ..RegistryRule::default()
    };
    let options = RegistryOptions {
        mirrors: vec!["https://mirror.test".to_owned(), "http://localhost:5000/".to_owned()],
        insecure: vec!["old.test:5000".to_owned(), "10.0.0.0/8".to_owned()],
        rules: vec![
            ("ghcr.io".to_owned(), rule(&["https://mirror.test/v2/ghcr"])),
            ("ghcr.io/secret".to_owned(), RegistryRule { blocked: true, ..rule(&[]) }),
            ("*.corp.test".to_owned(), RegistryRule { insecure: true, ..rule(&[]) }),
            (
                "quay.io".to_owned(),
                RegistryRule { mirrors_only: true, ..rule(&["https://q.test"]) },
            ),
        ],
        ..RegistryOptions::default()
    };
    let cases = [
        (
            "debian",
            "https://mirror.test/library/debian, http://localhost:5000/library/debian unverified, \
             https://registry-1.docker.io/library/debian",
        ),
        (
            "old.test:5000/a",
            "https://old.test:5000/a unverified, http://old.test:5000/a unverified",
        ),
        ("old.test/a", "https://old.test/a"),
        ("10.2.3.4/a", "https://10.2.3.4/a unverified, http://10.2.3.4/a unverified"),
        ("localhost:80/a", "https://localhost:80/a unverified, http://localhost:80/a unverified"),
        ("[::1]:80/a", "https://[::1]:80/a unverified, http://[::1]:80/a unverified"),
        ("ghcr.io/x/y", "https://mirror.test/ghcr/x/y, https://ghcr.io/x/y"),
        ("ghcr.io/secret/y", "registry ghcr.io is blocked by this daemon's settings"),
        ("ghcr.io/secrets", "https://mirror.test/ghcr/secrets, https://ghcr.io/secrets"),
        ("r.corp.test/a", "https://r.corp.test/a unverified, http://r.corp.test/a unverified"),
        ("quay.io/a", "https://q.test/a"),
    ];
    for (name, expected) in cases {
        assert_eq!(shown(&options, name, Purpose::Read), expected, "{name}");
    }
    assert_eq!(shown(&options, "quay.io/a", Purpose::Write), "https://quay.io/a");
    assert_eq!(
        shown(&options, "debian", Purpose::Write),
        "https://registry-1.docker.io/library/debian"
    );
}

#[test]
fn credentials_are_lent_to_named_servers_only() {
    let entries = ["auth.test", "tokens.test:8443", "*.login.test"];
    let endpoint = Endpoint {
        token_servers: entries.map(str::to_owned).to_vec(),
        ..Endpoint::mirror("https://registry.example").unwrap()
    };
    for (authority, expected) in [
        ("auth.test", true),
        ("AUTH.test:443", true),
        ("tokens.test:8443", true),
        ("tokens.test", false),
        ("a.login.test", true),
        ("login.test", false),
        ("evillogin.test", false),
        ("auth.test.evil.example", false),
    ] {
        assert_eq!(endpoint.lends_to(authority), expected, "{authority}");
    }
}
