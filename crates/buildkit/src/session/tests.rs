use super::*;

fn headers(id: &str) -> http::HeaderMap {
    let mut headers = http::HeaderMap::new();
    if let Ok(id) = id.parse() {
        headers.insert(HEADER_ID, id);
    }
    headers
}

#[test]
fn a_greeting_needs_an_identity() {
    let greeting = Greeting::from_headers(&headers("abc"));
    assert_eq!(greeting.map(|greeting| greeting.id).ok().as_deref(), Some("abc"));
    assert!(Greeting::from_headers(&http::HeaderMap::new()).is_err());
    assert!(Greeting::from_headers(&headers(&"x".repeat(300))).is_err());
}

#[tokio::test]
async fn a_session_is_found_once_it_is_open_and_gone_with_its_connection() {
    let sessions = Sessions::new(std::env::temp_dir());
    let (near, far) = tokio::io::duplex(1 << 16);
    let client = tokio::spawn(crate::client::Lending::default().serve(far));
    let served = {
        let sessions = sessions.clone();
        let greeting = Greeting { id: "one".to_owned(), ..Greeting::default() };
        tokio::spawn(async move { sessions.run(near, greeting).await })
    };
    let session = sessions.wait("one").await;
    let closed = session.map(|session| session.closed());
    client.abort();
    if let Ok(closed) = closed {
        closed.cancelled().await;
    }
    assert!(served.await.is_ok());
    assert!(sessions.find("one").is_none());
}
