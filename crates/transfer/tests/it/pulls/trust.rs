//! Who is told credentials, and where a registry may send us.

use std::sync::{Arc, Mutex};

use rorqual_core::{Classify, ErrorKind};
use rorqual_transfer::{RegistryAuth, RegistryOptions, RegistryRule, Transfer};
use serde_json::json;

use super::{assert_nothing, options, pull, pull_as, refused, world};
use crate::hostile::{Answer, MANIFEST, Registry, architecture, digest, honest, noise, unknown};
use crate::world::{World, gzip};

/// A registry with a token server in it; tokens are `t1`, `t2`, … and only the newest is taken.
fn guard(registry: &Registry, expire_after: usize) {
    let address = registry.address;
    let state = Arc::new(Mutex::new((0_usize, 0_usize)));
    registry.rule(move |asked, shelf| {
        let mut state = state.lock().unwrap();
        if asked.path.starts_with("/token") {
            if asked.headers.get("authorization").map(String::as_str)
                != Some("Basic dXNlcjpzZWNyZXQ=")
            {
                return Some(Answer {
                    body: br#"{"details":"incorrect username or password"}"#.to_vec(),
                    ..Answer::status(401)
                });
            }
            state.0 += 1;
            state.1 = 0;
            return Some(Answer::bytes(
                json!({"token": format!("t{}", state.0), "refresh_token": "r"}).to_string(),
            ));
        }
        state.1 += 1;
        let good = format!("Bearer t{}", state.0);
        if asked.headers.get("authorization") != Some(&good) || state.1 > expire_after {
            let challenge = format!(
                "Bearer realm=\"http://{address}/token\",service=\"s\",scope=\"repository:a:pull\""
            );
            return Some(
                Answer {
                    body: unknown("UNAUTHORIZED", "authentication required"),
                    ..Answer::status(401)
                }
                .with("WWW-Authenticate", challenge),
            );
        }
        Some(honest(asked, shelf))
    });
}

pub(super) fn user(password: &str) -> RegistryAuth {
    RegistryAuth {
        username: "user".to_owned(),
        password: password.to_owned(),
        ..RegistryAuth::default()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokens_are_got_and_got_again_when_they_expire() {
    let registry = Registry::start();
    let layers: Vec<Vec<u8>> = (0..6).map(|number| noise(1000 + number)).collect();
    registry.image("v1", architecture(), &layers);
    guard(&registry, 3);
    let world = world().await;
    pull_as(&world, registry.name("a:v1"), user("secret")).await.unwrap();
    let tokens = registry.lines().iter().filter(|line| line.contains("/token")).count();
    assert!(tokens >= 3, "{tokens}");
    let error = pull_as(&world, registry.name("a:v2"), user("wrong")).await.unwrap_err();
    assert_eq!(
        (error.kind(), error.to_string()),
        (ErrorKind::Unauthenticated, "unauthorized: incorrect username or password".to_owned())
    );
    let token = world.transfer.login(&registry.address.to_string(), &user("secret")).await.unwrap();
    assert_eq!(token.as_deref(), Some("r"));
    let error =
        world.transfer.login(&registry.address.to_string(), &user("wrong")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unauthenticated, "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn credentials_go_to_nobody_else() {
    let (registry, thief) = (Registry::start(), Registry::start_at("127.0.0.2:0"));
    registry.noisy("v1", 10_000);
    let packed = gzip(&noise(10_000));
    thief.put_blob(&packed);
    let (to, blob) = (thief.address, digest(&packed));
    registry.rule(move |asked, shelf| {
        if asked.headers.get("authorization").map(String::as_str) != Some("Basic dXNlcjpzZWNyZXQ=")
        {
            return Some(Answer::status(401).with("WWW-Authenticate", "Basic realm=\"x\""));
        }
        if asked.path.ends_with(&blob.to_string()) {
            return Some(
                Answer::status(307).with("Location", format!("http://{to}{}", asked.path)),
            );
        }
        Some(honest(asked, shelf))
    });
    let world = world().await;
    pull_as(&world, registry.name("a:v1"), user("secret")).await.unwrap();
    let told = thief.log();
    assert_eq!(told.len(), 1);
    assert!(!told[0].headers.contains_key("authorization"), "{told:?}");
    let error = pull(&world, registry.name("a:v1")).await.unwrap_err();
    assert_eq!(error.to_string(), "no basic auth credentials");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_server_of_another_owner_has_to_be_named() {
    // In this test all addresses are the internet's.
    let is_private = |_: std::net::IpAddr| false;
    let (registry, tokens) = (Registry::start(), Registry::start_at("127.0.0.2:0"));
    registry.noisy("v1", 10_000);
    tokens.rule(|_, _| Some(Answer::bytes(json!({"token": "t"}).to_string())));
    let realm = format!("Bearer realm=\"http://{}/token\",service=\"s\"", tokens.address);
    registry.rule(move |asked, shelf| {
        let known = asked.headers.get("authorization").is_some_and(|text| text == "Bearer t");
        let refusal = || Answer::status(401).with("WWW-Authenticate", realm.clone());
        Some(if known { honest(asked, shelf) } else { refusal() })
    });
    let world = World::new().await;
    world.transfer.configure(RegistryOptions { is_private, ..options() });
    let error = pull_as(&world, registry.name("a:v1"), user("secret")).await.unwrap_err();
    assert!(error.to_string().contains("name it in token-servers"), "{error}");
    assert_eq!(tokens.log().len(), 0, "it has seen no credentials");
    let rule =
        RegistryRule { token_servers: vec![tokens.address.to_string()], ..RegistryRule::default() };
    let rules = vec![(registry.address.to_string(), rule)];
    world.transfer.configure(RegistryOptions { is_private, rules, ..options() });
    pull_as(&world, registry.name("a:v1"), user("secret")).await.unwrap();
    let told = tokens.log();
    assert!(!told.is_empty());
    assert!(told.iter().all(|asked| asked.headers["authorization"] == "Basic dXNlcjpzZWNyZXQ="));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_public_registry_cannot_send_us_into_our_own_network() {
    // In this test 127.0.0.1 is the internet, and 127.0.0.2 our own network.
    let is_private = |address: std::net::IpAddr| address != std::net::IpAddr::from([127, 0, 0, 1]);
    let (registry, inside) = (Registry::start(), Registry::start_at("127.0.0.2:0"));
    let manifest = registry.noisy("v1", 10_000);
    inside.put_blob(&gzip(&noise(10_000)));
    let (to, layer) =
        (inside.address, manifest["layers"][0]["digest"].as_str().unwrap().to_owned());
    let redirected = layer.clone();
    registry.rule(move |asked, _| {
        asked
            .path
            .ends_with(&redirected)
            .then(|| Answer::status(307).with("Location", format!("http://{to}{}", asked.path)))
    });
    let world = World::new().await;
    world.transfer.configure(RegistryOptions { is_private, ..options() });
    let error = pull(&world, registry.name("a:v1")).await.unwrap_err();
    assert!(error.to_string().contains("has a private address"), "{error}");
    // The same by an address in the manifest, and by the address of a token server.
    let mut manifest = manifest.clone();
    manifest["layers"][0]["urls"] = json!([format!("http://{to}/v2/a/blobs/{layer}")]);
    registry.put_manifest("v2", MANIFEST, manifest.to_string().as_bytes());
    let missing = layer.clone();
    registry.rule(move |asked, _| asked.path.ends_with(&missing).then(|| Answer::status(404)));
    let error = pull(&world, registry.name("a:v2")).await.unwrap_err();
    assert!(error.to_string().contains("has a private address"), "{error}");
    registry.rule(move |_, _| {
        Some(
            Answer::status(401)
                .with("WWW-Authenticate", format!("Bearer realm=\"http://{to}/token\"")),
        )
    });
    let error = pull(&world, registry.name("a:v3")).await.unwrap_err();
    assert!(error.to_string().contains("has a private address"), "{error}");
    let error = pull_as(&world, registry.name("a:v3"), user("secret")).await.unwrap_err();
    assert!(error.to_string().contains("which is somebody else"), "{error}");
    assert_eq!(inside.log().len(), 0);
    assert_nothing(&world).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redirects_end() {
    let registry = Registry::start();
    registry.rule(|asked, _| Some(Answer::status(302).with("Location", asked.path.clone())));
    let (_, text) = refused(&registry, "a:v1").await;
    assert!(text.contains("stopped after 10 redirects"), "{text}");
    registry.rule(|_, _| Some(Answer::status(302).with("Location", "file:///etc/passwd")));
    let (_, text) = refused(&registry, "a:v1").await;
    assert!(text.contains("not an address"), "{text}");
}
