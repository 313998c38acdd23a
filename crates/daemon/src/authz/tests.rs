//! What plugins are asked, what their answers mean, and what they do not get to see.

use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, Response};
use http_body_util::BodyExt as _;
use rorqual_http::{Answer, PeerCertificates, Request, RequestBody, body};
use rorqual_plugin::fake::FakePlugin;
use rorqual_plugin::{Places, Plugins};
use serde_json::{Value, json};

use super::{Authorization, common_name, shows_body};

fn plugins(directory: &std::path::Path) -> Arc<Plugins> {
    let places = Places { sockets: directory.to_owned(), files: Vec::new() };
    Arc::new(Plugins::new(places))
}

/// A plugin that answers so to requests and to answers.
fn plugin(directory: &std::path::Path, name: &str, on: [Value; 2]) -> FakePlugin {
    let answers = move |method: &str, _: &Value| match method {
        "Plugin.Activate" => (200, json!({ "Implements": ["authz"] })),
        "AuthZPlugin.AuthZReq" => (200, on[0].clone()),
        _ => (200, on[1].clone()),
    };
    FakePlugin::serve(directory.join(format!("{name}.sock")), answers).unwrap()
}

fn request(kind: &str, text: &'static str) -> Request {
    let built = http::Request::post("/v1.51/containers/create?name=x").header(CONTENT_TYPE, kind);
    let built = built.header("X-Registry-Auth", "secret").header("Authorization", "secret");
    let (parts, ()) = built.body(()).unwrap().into_parts();
    Request { parts, body: RequestBody::from_bytes(text) }
}

fn answer(text: &'static str) -> Answer {
    let mut response = Response::new(body::full(text));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Answer::Response(response)
}

async fn bytes(answer: Answer) -> Bytes {
    let Answer::Response(response) = answer else { panic!("another kind of answer") };
    response.into_body().collect().await.unwrap().to_bytes()
}

#[tokio::test]
async fn a_request_and_its_answer_are_shown_without_secrets() {
    let directory = tempfile::tempdir().unwrap();
    let fine = json!({ "Allow": true });
    let plugin = plugin(directory.path(), "judge", [fine.clone(), fine]);
    let authorization = Authorization::new(plugins(directory.path()), &["judge".to_owned()]);
    let asked = request("application/json; charset=utf-8", r#"{"Image":"x"}"#);
    let (request, passed) = authorization.request(asked).await.unwrap();
    assert_eq!(request.body.bytes(99).await.unwrap(), r#"{"Image":"x"}"#);
    let answered = authorization.answer(passed.unwrap(), answer(r#"{"Id":"y"}"#)).await.unwrap();
    assert_eq!(bytes(answered).await, r#"{"Id":"y"}"#);

    let calls = plugin.calls();
    assert_eq!(plugin.methods()[1..], ["AuthZPlugin.AuthZReq", "AuthZPlugin.AuthZRes"]);
    let (first, second) = (&calls[1].1, &calls[2].1);
    let shown = json!({
        "RequestMethod": "POST",
        "RequestUri": "/v1.51/containers/create?name=x",
        "RequestBody": BASE64_STANDARD.encode(r#"{"Image":"x"}"#),
        "RequestHeaders": { "Content-Type": "application/json; charset=utf-8" },
    });
    assert_eq!(*first, shown);
    assert_eq!(second["ResponseStatusCode"], 200);
    assert_eq!(second["ResponseBody"], BASE64_STANDARD.encode(r#"{"Id":"y"}"#));
    assert_eq!(second["RequestBody"], first["RequestBody"]);
}

#[tokio::test]
async fn the_first_refusal_counts_and_nobody_is_asked_behind_it() {
    let directory = tempfile::tempdir().unwrap();
    let fine = || json!({ "Allow": true });
    let no = json!({ "Allow": false, "Msg": "not today" });
    let first = plugin(directory.path(), "first", [fine(), fine()]);
    let second = plugin(directory.path(), "second", [no.clone(), no]);
    let third = plugin(directory.path(), "third", [fine(), fine()]);
    let names = ["first", "second", "third"].map(str::to_owned);
    let authorization = Authorization::new(plugins(directory.path()), &names);
    let Err(refused) = authorization.request(request("application/json", "{}")).await else {
        panic!("it passed")
    };
    assert_eq!(refused.status, 403);
    assert_eq!(refused.message, "authorization denied by plugin second: not today");
    assert_eq!((first.calls().len(), second.calls().len(), third.calls().len()), (2, 2, 0));
    authorization.set(&names[..1]);
    assert!(authorization.request(request("application/json", "{}")).await.is_ok());
    authorization.set(&[]);
    let (_, passed) = authorization.request(request("application/json", "{}")).await.unwrap();
    assert!(passed.is_none(), "nobody is asked");
}

#[tokio::test]
async fn an_answer_can_be_refused_too() {
    let directory = tempfile::tempdir().unwrap();
    let no = json!({ "Allow": false, "Msg": "secret" });
    let _plugin = plugin(directory.path(), "judge", [json!({ "Allow": true }), no]);
    let authorization = Authorization::new(plugins(directory.path()), &["judge".to_owned()]);
    let (_, passed) = authorization.request(request("application/json", "{}")).await.unwrap();
    let Err(refused) = authorization.answer(passed.unwrap(), answer("{}")).await else {
        panic!("it passed")
    };
    assert_eq!(refused.message, "authorization denied by plugin judge: secret");
}

#[tokio::test]
async fn whatever_a_plugin_cannot_judge_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let broken = json!({ "Allow": true, "Err": "my disk is full" });
    let _plugin = plugin(directory.path(), "broken", [broken.clone(), broken]);
    let refusal = async |name: &str, asked: Request| {
        let authorization = Authorization::new(plugins(directory.path()), &[name.to_owned()]);
        match authorization.request(asked).await {
            Ok(_) => panic!("it passed"),
            Err(error) => (error.status.as_u16(), error.message),
        }
    };
    let asked = || request("application/json", "{}");
    let (status, text) = refusal("broken", asked()).await;
    assert_eq!((status, text.as_str()), (500, "plugin broken failed with error: my disk is full"));
    let (status, text) = refusal("absent", asked()).await;
    assert_eq!(status, 500);
    assert_eq!(text, "plugin absent failed with error: plugin \"absent\" not found");
    let large = Request { body: RequestBody::from_bytes(vec![b' '; 5 << 20]), ..asked() };
    let (status, text) = refusal("broken", large).await;
    assert_eq!(status, 400);
    assert!(text.contains("cannot be shown to authorization plugins"), "{text}");
}

#[tokio::test]
async fn clients_are_told_by_their_certificates() {
    let directory = tempfile::tempdir().unwrap();
    let fine = json!({ "Allow": true });
    let plugin = plugin(directory.path(), "judge", [fine.clone(), fine]);
    let authorization = Authorization::new(plugins(directory.path()), &["judge".to_owned()]);
    let certificate = certificate("alice");
    let mut asked = request("application/x-tar", "not shown");
    asked.parts.extensions.insert(PeerCertificates(Arc::new([certificate])));
    authorization.request(asked).await.unwrap();
    let asked = &plugin.calls()[1].1;
    assert_eq!((&asked["User"], &asked["UserAuthNMethod"]), (&json!("alice"), &json!("TLS")));
    assert!(asked.get("RequestBody").is_none());
    let shown = asked["RequestPeerCertificates"][0].as_str().unwrap();
    let shown = String::from_utf8(BASE64_STANDARD.decode(shown).unwrap()).unwrap();
    assert!(shown.starts_with("-----BEGIN CERTIFICATE-----\n"), "{shown}");
}

fn certificate(name: &str) -> Vec<u8> {
    let key = rcgen::KeyPair::generate().unwrap();
    let mut asked = rcgen::CertificateParams::new(vec!["host.example".to_owned()]).unwrap();
    asked.distinguished_name = rcgen::DistinguishedName::new();
    asked.distinguished_name.push(rcgen::DnType::OrganizationName, "example");
    asked.distinguished_name.push(rcgen::DnType::CommonName, name);
    asked.self_signed(&key).unwrap().der().to_vec()
}

#[test]
fn common_names_are_found_and_damage_is_none() {
    let whole = certificate("a rather long common name that needs some room of its own");
    assert_eq!(
        common_name(&whole).as_deref(),
        Some("a rather long common name that needs some room of its own")
    );
    for end in 0..whole.len() {
        common_name(&whole[..end]);
    }
    let seen = Mutex::new(0);
    for at in 0..whole.len().min(200) {
        let mut damaged = whole.clone();
        damaged[at] ^= 0xff;
        *seen.lock().unwrap() += usize::from(common_name(&damaged).is_none());
    }
    assert!(*seen.lock().unwrap() > 0);
    assert_eq!(common_name(b""), None);
}

#[test]
fn documents_are_shown_and_passwords_are_not() {
    let headers = |kind: Option<&'static str>| {
        let kind = kind.map(|kind| (CONTENT_TYPE, HeaderValue::from_static(kind)));
        kind.into_iter().collect::<HeaderMap>()
    };
    for (path, kind, shown) in [
        ("/v1.51/containers/create", Some("application/json"), true),
        ("/containers/create", Some("Application/JSON ; charset=utf-8"), true),
        ("/containers/create", None, true),
        ("/build", Some("application/x-tar"), false),
        ("/auth", Some("application/json"), false),
        ("/v1.51/auth", Some("application/json"), false),
        ("/volumes/auth", Some("application/json"), true),
        ("/v1.51/authors", Some("application/json"), true),
    ] {
        assert_eq!(shows_body(path, &headers(kind)), shown, "{path} {kind:?}");
    }
}
