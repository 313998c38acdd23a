//! Passwords, tokens, TLS with an authority of one's own, and pages that show what strangers pushed.

use http::StatusCode;
use serde_json::{Value, json};

use crate::world::{World, code, json as document};

async fn with_users(token: bool) -> (tempfile::TempDir, World) {
    with_users_and(token, json!({})).await
}

async fn with_users_and(token: bool, tls: Value) -> (tempfile::TempDir, World) {
    let folder = tempfile::tempdir().unwrap();
    let users = folder.path().join("users");
    std::fs::write(&users, format!("ann:{}\n", bcrypt::hash("pw", 4).unwrap())).unwrap();
    let policy = folder.path().join("policy");
    let rules = json!([
        {"user": "ann", "repository": "*", "actions": ["admin"]},
        {"user": "anonymous", "repository": "public/*", "actions": ["pull"]},
    ]);
    std::fs::write(&policy, rules.to_string()).unwrap();
    let mut auth = json!({"htpasswd": users, "policy": policy});
    if token {
        auth["token"] = json!({"key": folder.path().join("key")});
    }
    let world = World::start(json!({"auth": auth, "tls": tls})).await;
    (folder, world)
}

#[tokio::test(flavor = "multi_thread")]
async fn passwords() {
    let (_folder, world) = with_users(false).await;
    let answer = world.get("/v2/").await;
    assert_eq!(answer.status(), StatusCode::UNAUTHORIZED);
    assert!(answer.headers()["www-authenticate"].to_str().unwrap().starts_with("Basic "));
    assert_eq!(code(answer).await, "UNAUTHORIZED");
    let login = |password: &'static str| {
        world.client.get(format!("{}/v2/", world.base)).basic_auth("ann", Some(password)).send()
    };
    assert_eq!(login("pw").await.unwrap().status(), StatusCode::OK);
    assert_eq!(login("px").await.unwrap().status(), StatusCode::UNAUTHORIZED);
    assert_eq!(world.get("/v2/public/x/tags/list").await.status(), StatusCode::NOT_FOUND);
    assert_eq!(world.get("/v2/private/x/tags/list").await.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(world.get("/").await.status(), StatusCode::UNAUTHORIZED);
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_as_docker_asks_for_them() {
    let (_folder, world) = with_users(true).await;
    let answer = world.send("POST", "/v2/team/app/blobs/uploads/").await;
    let challenge = answer.headers()["www-authenticate"].to_str().unwrap().to_owned();
    assert!(challenge.contains("scope=\"repository:team/app:pull,push\""), "{challenge}");
    let url = format!(
        "{}/token?service=rorqual-registry&scope=repository:team/app:pull,push&offline_token=true",
        world.base
    );
    let anonymous = document(world.client.get(&url).send().await.unwrap()).await;
    assert_eq!(anonymous["scope"], "");
    let wrong = world.client.get(&url).basic_auth("ann", Some("no")).send().await.unwrap();
    assert_eq!(wrong.status(), StatusCode::UNAUTHORIZED);
    let issued = world.client.get(&url).basic_auth("ann", Some("pw")).send().await.unwrap();
    let issued = document(issued).await;
    let begin = |token: &str| {
        let url = format!("{}/v2/team/app/blobs/uploads/", world.base);
        world.client.post(url).bearer_auth(token).send()
    };
    let with = |value: &Value| value["token"].as_str().unwrap().to_owned();
    assert_eq!(begin(&with(&issued)).await.unwrap().status(), StatusCode::ACCEPTED);
    assert_eq!(begin(&with(&anonymous)).await.unwrap().status(), StatusCode::UNAUTHORIZED);
    let refresh = issued["refresh_token"].as_str().unwrap();
    let form = format!(
        "grant_type=refresh_token&refresh_token={refresh}&service=rorqual-registry&scope=repository%3Ateam%2Fapp%3Apull%2Cpush"
    );
    let post = world.client.post(format!("{}/token", world.base)).body(form);
    let again = document(post.send().await.unwrap()).await;
    assert_eq!(begin(&with(&again)).await.unwrap().status(), StatusCode::ACCEPTED);
}

/// HTTP/2 has no header `Host`; the token service is all the same where the request came to.
#[tokio::test(flavor = "multi_thread")]
async fn clients_of_http2_are_sent_to_the_token_service_too() {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let files = tempfile::tempdir().unwrap();
    let (cert, key) = (files.path().join("cert"), files.path().join("key"));
    std::fs::write(&cert, made.cert.pem()).unwrap();
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    let (_folder, world) = with_users_and(true, json!({"cert": cert, "key": key})).await;
    let authority = reqwest::Certificate::from_pem(made.cert.pem().as_bytes()).unwrap();
    let client = reqwest::Client::builder().tls_certs_only([authority]).build().unwrap();
    let port = world.running.as_ref().unwrap().addresses()[0].port();
    let answer = client.get(format!("https://localhost:{port}/v2/")).send().await.unwrap();
    assert_eq!(answer.version(), http::Version::HTTP_2);
    let challenge = answer.headers()["www-authenticate"].to_str().unwrap();
    let realm = format!("Bearer realm=\"https://localhost:{port}/token\"");
    assert!(challenge.starts_with(&realm), "{challenge}");
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_of_an_own_authority_and_a_new_certificate() {
    let folder = tempfile::tempdir().unwrap();
    let issue = || {
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        std::fs::write(folder.path().join("cert"), made.cert.pem()).unwrap();
        std::fs::write(folder.path().join("key"), made.signing_key.serialize_pem()).unwrap();
        reqwest::Certificate::from_pem(made.cert.pem().as_bytes()).unwrap()
    };
    let client =
        |certificate| reqwest::Client::builder().tls_certs_only([certificate]).build().unwrap();
    let first = issue();
    let tls = json!({"cert": folder.path().join("cert"), "key": folder.path().join("key")});
    let world = World::start(json!({"tls": tls})).await;
    let running = world.running.as_ref().unwrap();
    let url = format!("https://localhost:{}/v2/", running.addresses()[0].port());
    let answer = client(first.clone()).get(&url).send().await.unwrap();
    assert_eq!((answer.status(), answer.version()), (StatusCode::OK, http::Version::HTTP_2));
    let second = issue();
    running.reload().await;
    assert!(client(first).get(&url).send().await.is_err());
    assert_eq!(client(second).get(&url).send().await.unwrap().status(), StatusCode::OK);
    // Blobs over TLS go through this process, in pieces.
    std::fs::write(folder.path().join("key"), "broken").unwrap();
    running.reload().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_escape_what_was_pushed() {
    let world = World::open().await;
    let evil = "<script>alert(1)</script>";
    let more = format!(r#","annotations":{{"{evil}":"{evil}"}}"#);
    let image = world.image("team/app", "v1", b"layer", &more).await;
    for path in [
        "/",
        "/r/team/app",
        "/r/team/app/-/v1",
        &format!("/r/team/app/-/{image}"),
        &format!("/?q={evil}"),
    ] {
        let answer = world.get(path).await;
        assert_eq!(answer.status(), StatusCode::OK, "{path}");
        let policy = answer.headers()["content-security-policy"].to_str().unwrap();
        assert!(policy.contains("default-src 'none'") && !policy.contains("unsafe"));
        let text = answer.text().await.unwrap();
        assert!(!text.contains(evil), "{path}");
        assert!(text.contains("team/app") || path.contains("q="), "{path}");
    }
    let page = world.get("/r/team/app/-/v1").await.text().await.unwrap();
    assert!(page.contains("docker pull 127.0.0.1:") && page.contains("&lt;script&gt;"));
    assert_eq!(world.get("/r/none").await.status(), StatusCode::NOT_FOUND);
    assert_eq!(world.get("/nope").await.status(), StatusCode::NOT_FOUND);
    assert_eq!(world.send("POST", "/").await.status(), StatusCode::METHOD_NOT_ALLOWED);
}
