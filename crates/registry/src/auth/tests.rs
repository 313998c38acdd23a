use std::path::Path;

use http::HeaderValue;

use super::*;
use crate::config::{Span, Token};

fn users(folder: &Path) -> std::path::PathBuf {
    let path = folder.join("users");
    let hash = bcrypt::hash("pw", 4).unwrap();
    std::fs::write(&path, format!("ann:{hash}\nbob:{hash}\n")).unwrap();
    path
}

fn policy(folder: &Path) -> std::path::PathBuf {
    let path = folder.join("policy.json");
    let rules = r#"[
        {"user": "ann", "repository": "*", "actions": ["admin"]},
        {"user": "*", "repository": "team/*", "actions": ["pull", "push"]},
        {"user": "anonymous", "repository": "public/*", "actions": ["pull"]}
    ]"#;
    std::fs::write(&path, rules).unwrap();
    path
}

fn headers(scheme: &str, value: &str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(HOST, HeaderValue::from_static("registry.test:5000"));
    if !value.is_empty() {
        headers.insert(AUTHORIZATION, HeaderValue::try_from(format!("{scheme} {value}")).unwrap());
    }
    headers
}

fn as_user(user: &str, password: &str) -> HeaderMap {
    headers("Basic", &STANDARD.encode(format!("{user}:{password}")))
}

async fn verdict(auth: &Auth, headers: &HeaderMap, wanted: &[Access]) -> String {
    match auth.check(headers, wanted, false).await {
        Ok(actor) => format!("ok {}", actor.name()),
        Err(error) => error.wire().0.to_owned(),
    }
}

#[tokio::test]
async fn passwords_and_policy() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = Config::default();
    config.auth.htpasswd = Some(users(folder.path()));
    let plain = Auth::new(&config).unwrap();
    config.auth.policy = Some(policy(folder.path()));
    let ruled = Auth::new(&config).unwrap();
    let on = |name: &str, action: &str| vec![Access::repository(name, &[action])];
    let nobody = HeaderMap::new();
    for (auth, headers, wanted, expected) in [
        (&plain, &nobody, vec![], "UNAUTHORIZED"),
        (&plain, &as_user("ann", "wrong"), vec![], "UNAUTHORIZED"),
        (&plain, &as_user("bob", "pw"), on("any/thing", "delete"), "ok bob"),
        (&plain, &nobody, on("public/x", "pull"), "UNAUTHORIZED"),
        (&plain, &headers("Basic", "!!"), vec![], "UNAUTHORIZED"),
        (&ruled, &nobody, vec![], "UNAUTHORIZED"),
        (&ruled, &nobody, on("public/x", "pull"), "ok "),
        (&ruled, &nobody, on("public/x", "push"), "UNAUTHORIZED"),
        (&ruled, &as_user("bob", "pw"), on("team/x", "push"), "ok bob"),
        (&ruled, &as_user("bob", "pw"), on("team/x", "delete"), "DENIED"),
        (&ruled, &as_user("bob", "pw"), on("other", "pull"), "DENIED"),
        (&ruled, &as_user("bob", "pw"), vec![Access::catalog()], "DENIED"),
        (&ruled, &as_user("ann", "pw"), vec![Access::catalog()], "ok ann"),
        (&ruled, &as_user("ann", "pw"), on("other", "delete"), "ok ann"),
        (&ruled, &as_user("ann", "wrong"), on("public/x", "pull"), "UNAUTHORIZED"),
    ] {
        assert_eq!(verdict(auth, headers, &wanted).await, expected, "{wanted:?}");
    }
    assert!(ruled.may_see(&Actor::Anonymous, "public/x"));
    assert!(!ruled.may_see(&Actor::Anonymous, "team/x"));
}

fn token_config(folder: &Path) -> Config {
    let mut config = Config::default();
    config.auth.htpasswd = Some(users(folder));
    config.auth.policy = Some(policy(folder));
    let key = Some(folder.join("key"));
    config.auth.token = Some(Token { key, ..Token::default() });
    config
}

fn issue(auth: &Auth, actor: &Actor, scope: &str, offline: bool) -> serde_json::Value {
    let scopes = vec![scope.to_owned()];
    let wanted = token::Wanted { scopes, offline, ..token::Wanted::default() };
    serde_json::to_value(auth.issuer().unwrap().issue(actor, &wanted).unwrap()).unwrap()
}

#[tokio::test]
async fn tokens_say_what_the_policy_grants() {
    let folder = tempfile::tempdir().unwrap();
    let config = token_config(folder.path());
    let auth = Auth::new(&config).unwrap();
    let pull = [Access::repository("team/x", &["pull"])];
    let error = auth.check(&headers("", ""), &pull, false).await.unwrap_err();
    let Error::Unauthorized { challenge, .. } = &error else { panic!("{error:?}") };
    assert_eq!(
        challenge,
        "Bearer realm=\"http://registry.test:5000/token\",service=\"rorqual-registry\",scope=\"repository:team/x:pull\""
    );
    let bob = Actor::User("bob".to_owned());
    let issued = issue(&auth, &bob, "repository:team/x:pull,push,delete registry:catalog:*", true);
    assert_eq!(issued["scope"], "repository:team/x:pull,push");
    let token = issued["token"].as_str().unwrap();
    let with = headers("Bearer", token);
    assert_eq!(verdict(&auth, &with, &pull).await, "ok bob");
    for refused in [
        Access::repository("team/x", &["delete"]),
        Access::repository("team/y", &["pull"]),
        Access::catalog(),
    ] {
        let error = auth.check(&with, &[refused], true).await.unwrap_err();
        let Error::Unauthorized { challenge, .. } = &error else { panic!("{error:?}") };
        assert!(challenge.contains("insufficient_scope") && challenge.contains("https://"));
    }
    // A refresh token buys tokens and opens nothing.
    let refresh = issued["refresh_token"].as_str().unwrap();
    assert_eq!(verdict(&auth, &headers("Bearer", refresh), &[]).await, "UNAUTHORIZED");
    let issuer = auth.issuer().unwrap();
    assert_eq!(issuer.refreshed(refresh), Some(bob));
    assert_eq!(issuer.refreshed(token), None);
    // Another process with the same key believes the same tokens; one with another key does not.
    assert_eq!(verdict(&Auth::new(&config).unwrap(), &with, &pull).await, "ok bob");
    let other = tempfile::tempdir().unwrap();
    let stranger = Auth::new(&token_config(other.path())).unwrap();
    assert_eq!(verdict(&stranger, &with, &pull).await, "UNAUTHORIZED");
    // A new password ends refresh tokens.
    let hash = bcrypt::hash("new", 4).unwrap();
    std::fs::write(folder.path().join("users"), format!("bob:{hash}\n")).unwrap();
    auth.reload();
    assert_eq!(issuer.refreshed(refresh), None);
}

#[tokio::test]
async fn forged_and_stale_tokens_are_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = token_config(folder.path());
    let auth = Auth::new(&config).unwrap();
    let issued = issue(&auth, &Actor::Anonymous, "repository:public/x:pull", false);
    let token = issued["token"].as_str().unwrap().to_owned();
    assert_eq!(verdict(&auth, &headers("Bearer", &token), &[]).await, "ok ");
    let mut parts: Vec<&str> = token.split('.').collect();
    let encode = |text: &str| base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(text);
    let (none, hmac) = (encode(r#"{"alg":"none","typ":"JWT"}"#), encode(r#"{"alg":"HS256"}"#));
    let claims = parts[1];
    let mut cases = vec![String::new(), "x".repeat(100_000), "a.b.c".to_owned()];
    cases.push(format!("{none}.{claims}."));
    cases.push(format!("{hmac}.{claims}.{}", parts[2]));
    let more = encode(
        r#"{"iss":"rorqual-registry","aud":"rorqual-registry","exp":99999999999,"access":[{"type":"repository","name":"x","actions":["*"]}]}"#,
    );
    parts[1] = &more;
    cases.push(parts.join("."));
    for case in cases {
        assert_eq!(
            verdict(&auth, &headers("Bearer", &case), &[]).await,
            "UNAUTHORIZED",
            "{case:.40}"
        );
    }
    if let Some(token) = &mut config.auth.token {
        token.service = "another".to_owned();
    }
    let other = Auth::new(&config).unwrap();
    assert_eq!(verdict(&other, &headers("Bearer", &token), &[]).await, "UNAUTHORIZED");
    let _ = Span::default();
}
