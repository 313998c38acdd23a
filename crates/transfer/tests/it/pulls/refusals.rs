//! Documents and layers that are not what they should be.

use rorqual_core::ErrorKind;
use serde_json::{Value, json};

use super::refused;
use crate::hostile::{Answer, INDEX, MANIFEST, Registry, architecture, digest, honest, noise};
use crate::world::{gzip, tar};

/// Changes the manifest of an image and pulls it.
async fn with_manifest(change: impl FnOnce(&mut Value)) -> (ErrorKind, String) {
    let registry = Registry::start();
    let mut manifest = registry.noisy("v1", 10_000);
    change(&mut manifest);
    registry.put_manifest("v1", MANIFEST, manifest.to_string().as_bytes());
    refused(&registry, "a:v1").await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn absurd_manifests_are_refused() {
    type Change = Box<dyn FnOnce(&mut Value)>;
    let cases: Vec<(&str, Change)> = vec![
        ("the manifest has 0 layers, the config 1", Box::new(|m| m["layers"] = json!([]))),
        (
            "at the registry, but its manifest says 1",
            Box::new(|m| m["layers"][0]["size"] = 1.into()),
        ),
        (
            "its manifest says 1099511627777",
            Box::new(|m| m["layers"][0]["size"] = ((1_u64 << 40) + 1).into()),
        ),
        ("more than 8388608", Box::new(|m| m["config"]["size"] = (1_u64 << 50).into())),
        ("unsupported type", Box::new(|m| m["layers"][0]["mediaType"] = "text/plain".into())),
        (
            "unsupported media type application/wasm",
            Box::new(|m| m["config"]["mediaType"] = "application/wasm".into()),
        ),
        (
            "unsupported media type application/vnd.oci.empty.v1+json",
            Box::new(|m| m["config"]["mediaType"] = "application/vnd.oci.empty.v1+json".into()),
        ),
        (
            "use \"docker model pull/run\" instead",
            Box::new(|m| {
                m["config"]["mediaType"] =
                    "application/vnd.docker.ai.model.config.v0.1+json".into();
            }),
        ),
        (
            "plugin config",
            Box::new(|m| m["config"]["mediaType"] = "application/vnd.docker.plugin.v1+json".into()),
        ),
        ("schema 1", Box::new(|m| m["schemaVersion"] = 1.into())),
        ("calls itself", Box::new(|m| m["mediaType"] = INDEX.into())),
        ("that is none", Box::new(|m| m["manifests"] = json!([]))),
        ("unsupported manifest format", Box::new(|m| m["mediaType"] = "application/x".into())),
    ];
    for (expected, change) in cases {
        if expected == "unsupported manifest format" {
            let registry = Registry::start();
            registry.put_manifest("v1", "application/x", b"{\"schemaVersion\":2}");
            let (_, text) = refused(&registry, "a:v1").await;
            assert!(text.contains(expected), "{text}");
            continue;
        }
        let (_, text) = with_manifest(change).await;
        // A size beyond all bounds may be told as one or the other.
        let fits = text.contains(expected) || text.contains("more than 1099511627776");
        assert!(fits, "expected {expected}, got {text}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn documents_that_are_none_are_refused() {
    let registry = Registry::start();
    for body in ["", "[", "{}", "null", "{\"schemaVersion\":2,\"layers\":3}"] {
        registry.put_manifest("v1", MANIFEST, body.as_bytes());
        refused(&registry, "a:v1").await;
    }
    registry.put_manifest("v1", MANIFEST, &vec![b' '; (4 << 20) + 1]);
    let (_, text) = refused(&registry, "a:v1").await;
    assert!(text.contains("more than 4194304 bytes"), "{text}");
    // Thousands of layers.
    let mut manifest = registry.noisy("v1", 10);
    let layer = manifest["layers"][0].clone();
    manifest["layers"] = vec![layer; 5000].into();
    let diffs = vec![digest(&noise(10)).to_string(); 5000];
    let config = json!({"os": "linux", "architecture": architecture(), "rootfs": {"type": "layers", "diff_ids": diffs}});
    let config = config.to_string();
    manifest["config"]["digest"] = registry.put_blob(config.as_bytes()).to_string().into();
    manifest["config"]["size"] = config.len().into();
    registry.put_manifest("v1", MANIFEST, manifest.to_string().as_bytes());
    let (_, text) = refused(&registry, "a:v1").await;
    assert!(text.contains("max depth exceeded"), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_bytes_are_refused() {
    let registry = Registry::start();
    registry.noisy("v1", 100_000);
    let packed = gzip(&noise(100_000));
    let blob = format!("/v2/a/blobs/{}", digest(&packed));
    let other = gzip(&noise(100_001));
    let (shorter, longer) = (packed[..packed.len() - 1].to_vec(), [&packed[..], b"x"].concat());
    let cases: Vec<(&str, Answer, &str)> = vec![
        ("another layer", Answer::bytes(other), "but its manifest says"),
        (
            "one byte changed",
            Answer::bytes({
                let mut bytes = packed.clone();
                bytes[5000] ^= 1;
                bytes
            }),
            "",
        ),
        ("one byte too few", Answer::bytes(shorter.clone()), "but its manifest says"),
        ("one byte too many", Answer::bytes(longer.clone()), "but its manifest says"),
        (
            "too short, length lies",
            Answer { length: Some(packed.len() as u64), ..Answer::bytes(shorter) },
            "",
        ),
        ("endless", Answer { endless: true, ..Answer::bytes(packed.clone()) }, "is longer than"),
        (
            "nothing",
            Answer { endless: false, length: Some(packed.len() as u64), ..Answer::bytes("") },
            "",
        ),
        (
            "another range",
            Answer { status: 206, ..Answer::bytes(packed.clone()) }
                .with("Content-Range", "bytes 7-9/10"),
            "another range",
        ),
    ];
    for (what, answer, expected) in cases {
        let blob = blob.clone();
        registry.rule(move |asked, _| (asked.path == blob).then(|| answer.clone()));
        let (_, text) = refused(&registry, "a:v1").await;
        assert!(text.contains(expected), "{what}: {text}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_documents_are_refused() {
    let registry = Registry::start();
    let manifest = registry.noisy("v1", 1000);
    let config = format!("/v2/a/blobs/{}", manifest["config"]["digest"].as_str().unwrap());
    registry.rule(move |asked, _| (asked.path == config).then(|| Answer::bytes("{}")));
    let (_, text) = refused(&registry, "a:v1").await;
    assert!(text.contains("blob verification failed"), "{text}");
    // The header says another digest than the bytes have.
    registry.rule(|asked, shelf| {
        let mut answer = honest(asked, shelf);
        let wrong = format!("sha256:{}", "0".repeat(64));
        answer
            .headers
            .iter_mut()
            .filter(|(name, _)| name.contains("Digest"))
            .for_each(|(_, value)| *value = wrong.clone());
        Some(answer)
    });
    let (_, text) = refused(&registry, "a:v1").await;
    assert!(text.contains("manifest verification failed"), "{text}");
    let wanted = format!("a@sha256:{}", "1".repeat(64));
    registry.rule(move |asked, shelf| {
        let body = shelf.manifests.lock().unwrap()["v1"].1.clone();
        asked
            .path
            .contains("/manifests/")
            .then(|| Answer::bytes(body).with("Content-Type", MANIFEST))
    });
    let (_, text) = refused(&registry, &wanted).await;
    assert!(text.contains("manifest verification failed"), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn layers_that_are_bombs_or_lead_out_are_refused() {
    let registry = Registry::start();
    // Unpacks to another layer than the config names.
    let (plain, other) = (noise(1000), noise(2000));
    let mut manifest = registry.image("v1", architecture(), &[plain]);
    let packed = gzip(&other);
    manifest["layers"][0]["digest"] = registry.put_blob(&packed).to_string().into();
    manifest["layers"][0]["size"] = packed.len().into();
    registry.put_manifest("v1", MANIFEST, manifest.to_string().as_bytes());
    let (_, text) = refused(&registry, "a:v1").await;
    assert!(text.contains("does not match its digest"), "{text}");
    // A header that claims more than any disk has.
    let mut bomb = tar(&[("big", &[0; 1000])]);
    bomb[124..136]
        .copy_from_slice(&[0x80, 0, 0, 0, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]);
    let sum = 8 * 32
        + bomb[..512]
            .iter()
            .enumerate()
            .filter(|(at, _)| !(148..156).contains(at))
            .map(|(_, byte)| u32::from(*byte))
            .sum::<u32>();
    bomb[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    registry.image("v1", architecture(), &[bomb]);
    let (kind, text) = refused(&registry, "a:v1").await;
    assert_eq!(kind, ErrorKind::InvalidArgument, "{text}");
    registry.image("v1", architecture(), &[b"no tar at all".repeat(100)]);
    let (_, text) = refused(&registry, "a:v1").await;
    assert!(text.contains("cannot be unpacked"), "{text}");
}
