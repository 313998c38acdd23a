//! Patterns and versions.

use http::Method;

use super::Router;

fn router() -> Router<u8> {
    let mut router = Router::default();
    router.add(Method::GET, "/images/json", 1);
    router.add(Method::GET, "/images/{name:.*}/json", 2);
    router.add(Method::DELETE, "/images/{name:.*}", 3);
    router.add(Method::GET, "/containers/{id}/json", 4);
    router.add(Method::DELETE, "/containers/{id}/checkpoints/{checkpoint}", 5);
    router
}

#[test]
fn finds_routes() {
    let router = router();
    let check = |method: Method, path: &str, want: Option<(u8, &str)>| {
        let found = router.find(&method, path).map(|found| {
            let params = found.params.iter().map(|(name, value)| format!("{name}={value}"));
            let version = found.version.map(|version| format!("v{version} ")).unwrap_or_default();
            (*found.route, version + &params.collect::<Vec<_>>().join(","))
        });
        assert_eq!(found.as_ref().map(|(route, text)| (*route, text.as_str())), want, "{path}");
    };
    check(Method::GET, "/images/json", Some((1, "")));
    check(Method::GET, "/v1.51/images/json", Some((1, "v1.51 ")));
    check(Method::GET, "/images/a/b/c:1/json", Some((2, "name=a/b/c:1")));
    check(Method::GET, "/images/a%2Fb/json", Some((2, "name=a/b")));
    check(Method::GET, "/images/json/json", Some((2, "name=json")));
    check(Method::DELETE, "/images/host:5000/a@sha256:00", Some((3, "name=host:5000/a@sha256:00")));
    check(Method::GET, "/containers/ab/json", Some((4, "id=ab")));
    check(Method::GET, "/containers/a/b/json", None);
    check(Method::GET, "/containers//json", None);
    check(Method::POST, "/images/json", None);
    check(Method::DELETE, "/v1/containers/a/checkpoints/b", Some((5, "v1 id=a,checkpoint=b")));
    check(Method::GET, "/v1.51", None);
    check(Method::GET, "/vx/images/json", None);
    check(Method::GET, "/images/%zz/json", None);
    check(Method::GET, "/images/ü/json", Some((2, "name=ü")));
}
