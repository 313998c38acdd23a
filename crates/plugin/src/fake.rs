//! A plugin that answers from a function, on a socket file, in a thread of its own: for tests of those who call plugins.

use std::convert::Infallible;
use std::io;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::sync::oneshot;

/// What a plugin answers to a method and its question: status and document.
pub type Answers = dyn Fn(&str, &Value) -> (u16, Value) + Send + Sync;

type Calls = Arc<Mutex<Vec<(String, Value)>>>;

/// A running plugin; dropping it ends it and removes its socket.
pub struct FakePlugin {
    socket: PathBuf,
    calls: Calls,
    end: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl FakePlugin {
    /// Serves `answers` at `socket`. `Plugin.Activate` is asked like any other method.
    pub fn serve(
        socket: impl AsRef<Path>,
        answers: impl Fn(&str, &Value) -> (u16, Value) + Send + Sync + 'static,
    ) -> io::Result<Self> {
        let socket = socket.as_ref().to_owned();
        let listener = UnixListener::bind(&socket)?;
        listener.set_nonblocking(true)?;
        let (end, ended) = oneshot::channel();
        let calls = Calls::default();
        let noted = Arc::clone(&calls);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let thread = std::thread::spawn(move || {
            let serving = accept(listener, noted, Arc::new(answers));
            runtime.block_on(async {
                tokio::select! { _ = ended => {} () = serving => {} }
            });
        });
        Ok(Self { socket, calls, end: Some(end), thread: Some(thread) })
    }

    /// Returns what it was asked so far.
    pub fn calls(&self) -> Vec<(String, Value)> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Returns the methods it was asked so far, in order.
    pub fn methods(&self) -> Vec<String> {
        self.calls().into_iter().map(|(method, _)| method).collect()
    }
}

impl Drop for FakePlugin {
    fn drop(&mut self) {
        let _ = self.end.take().map(|end| end.send(()));
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        let _ = std::fs::remove_file(&self.socket);
    }
}

async fn accept(listener: UnixListener, calls: Calls, answers: Arc<Answers>) {
    let Ok(listener) = tokio::net::UnixListener::from_std(listener) else { return };
    while let Ok((stream, _)) = listener.accept().await {
        let (calls, answers) = (Arc::clone(&calls), Arc::clone(&answers));
        let service = service_fn(move |request| {
            let (calls, answers) = (Arc::clone(&calls), Arc::clone(&answers));
            async move { Ok::<_, Infallible>(answer(request, &calls, &*answers).await) }
        });
        tokio::spawn(
            hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service),
        );
    }
}

async fn answer(
    request: http::Request<Incoming>,
    calls: &Mutex<Vec<(String, Value)>>,
    answers: &Answers,
) -> http::Response<Full<Bytes>> {
    let method = request.uri().path().trim_start_matches('/').to_owned();
    let body = request.into_body().collect().await.unwrap_or_default().to_bytes();
    let question = serde_json::from_slice(&body).unwrap_or(Value::Null);
    let (status, document) = answers(&method, &question);
    calls.lock().unwrap_or_else(PoisonError::into_inner).push((method, question));
    let mut response = http::Response::new(Full::from(document.to_string()));
    *response.status_mut() =
        http::StatusCode::from_u16(status).unwrap_or(http::StatusCode::INTERNAL_SERVER_ERROR);
    response
}
