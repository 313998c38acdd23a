//! Running the registry: listeners, periodic collection, signals, the orderly end.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rorqual_core::full_message;
use rorqual_http::{Address, Bound, Certificate, Limits, Server, TlsFiles, UnixAccess, bind};
use rorqual_store::blocking;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::app::{App, Debug};
use crate::auth::Auth;
use crate::config::Config;
use crate::error::{Error, Result};
use crate::gc;
use crate::limit::Buckets;
use crate::metrics::Metrics;
use crate::notify::Notifier;
use crate::proxy::Proxy;
use crate::repository::Repositories;
use crate::storage;

/// A registry that serves.
pub struct Running {
    app: Arc<App>,
    server: Server<App>,
    debug: Server<Debug>,
    addresses: Vec<SocketAddr>,
    debug_address: Option<SocketAddr>,
    certificate: Option<Arc<Certificate>>,
    stop: CancellationToken,
}

const PORT: u16 = 5000;
const DEBUG_PORT: u16 = 5001;

/// Reads an address as people write it: with or without scheme.
fn address(text: &str) -> Result<Address> {
    let full = if text.contains("://") { text.to_owned() } else { format!("tcp://{text}") };
    let address: Address = full
        .parse()
        .map_err(|error: rorqual_http::InvalidAddress| Error::Config(error.to_string()))?;
    match address {
        Address::Fd(_) => Err(Error::Config("the registry cannot listen at fd://".to_owned())),
        address => Ok(address),
    }
}

async fn listen(text: &str, port: u16) -> Result<Bound> {
    bind(&address(text)?, UnixAccess::default(), port)
        .await
        .map_err(|error| Error::Config(full_message(&error)))
}

/// Starts a registry; it serves when this returns.
///
/// # Errors
///
/// When the configuration cannot be used, the storage not opened or an address not listened at.
pub async fn start(config: Config) -> Result<Running> {
    config.check()?;
    let config = Arc::new(config);
    let storage = storage::open(&config.storage).await?;
    let repositories = Arc::new(Repositories::new(storage, Arc::clone(&config)));
    let metrics = Arc::new(Metrics::new());
    let notifier = Notifier::start(&config.notifications, &metrics)?;
    let proxy = match &config.proxy {
        Some(settings) => Some(Proxy::new(&config, settings, &repositories, &metrics)?),
        None => None,
    };
    let for_auth = Arc::clone(&config);
    let auth = blocking(move || Auth::new(&for_auth)).await?;
    let limits = &config.limits;
    let buckets = (limits.rate > 0.0).then(|| Buckets::new(limits.rate, limits.burst));
    let tls = match (&config.tls.cert, &config.tls.key) {
        (Some(cert), Some(key)) => {
            let client_ca = config.tls.client_ca.clone();
            let files = TlsFiles { cert: cert.clone(), key: key.clone(), client_ca };
            let made = rorqual_http::reloadable_config(&files);
            Some(made.map_err(|error| Error::Config(full_message(&error)))?)
        }
        _ => None,
    };
    let app = Arc::new(App {
        config: Arc::clone(&config),
        repositories,
        auth,
        buckets,
        metrics,
        notifier,
        proxy,
    });
    let bounds = Limits { connections: limits.connections, ..Limits::default() };
    let mut running = Running {
        server: Server::new(Arc::clone(&app), bounds),
        debug: Server::new(Arc::new(Debug(Arc::clone(&app))), Limits::default()),
        app,
        addresses: Vec::new(),
        debug_address: None,
        certificate: tls.as_ref().map(|(_, certificate)| Arc::clone(certificate)),
        stop: CancellationToken::new(),
    };
    for text in &config.listen {
        let bound = listen(text, PORT).await?;
        running.addresses.extend(bound.local_addr());
        warn_if_open(&bound, &running.app);
        let (server, tls) = (running.server.clone(), tls.as_ref().map(|(tls, _)| Arc::clone(tls)));
        tracing::info!(address = %bound.address, tls = tls.is_some(), "serving");
        tokio::spawn(async move { server.serve(bound, tls).await });
    }
    if !config.debug_listen.is_empty() {
        let bound = listen(&config.debug_listen, DEBUG_PORT).await?;
        running.debug_address = bound.local_addr();
        let server = running.debug.clone();
        tokio::spawn(async move { server.serve(bound, None).await });
    }
    tokio::spawn(collect_periodically(Arc::clone(&running.app), running.stop.clone()));
    Ok(running)
}

/// Passwords and images that anybody on the way can read deserve a word.
fn warn_if_open(bound: &Bound, app: &App) {
    if app.is_tls() || bound.is_local() {
        return;
    }
    tracing::warn!(
        address = %bound.address,
        "without TLS everybody on the network's path can read and change what passes: use --tls-cert and --tls-key, or a proxy in front"
    );
    if matches!(app.auth, Auth::Open) && !app.config.read_only {
        tracing::warn!(address = %bound.address, "everybody who reaches this address can push");
    }
}

async fn collect_periodically(app: Arc<App>, stop: CancellationToken) {
    let interval = app.config.gc.interval.0;
    if interval.is_zero() || app.config.read_only {
        return;
    }
    loop {
        // Processes that share a storage and start together do not collect together.
        let mut salt = [0];
        getrandom::fill(&mut salt).ok();
        let jitter = interval.mul_f64(f64::from(salt[0]) / 2560.0);
        tokio::select! {
            () = tokio::time::sleep(interval + jitter) => {}
            () = stop.cancelled() => return,
        }
        collect_once(&app).await;
    }
}

async fn collect_once(app: &App) {
    match gc::collect(&app.repositories, false, &|what| tracing::debug!("gc: {what}")).await {
        Ok(report) => {
            app.metrics.collections.inc();
            app.metrics.collected_bytes.inc_by(report.bytes);
            let gc::Report { tags, manifests, links, blobs, bytes, uploads, trash } = report;
            tracing::info!(
                tags,
                manifests,
                links,
                blobs,
                bytes,
                uploads,
                trash,
                "collected garbage"
            );
        }
        Err(error @ Error::TooMany { .. }) => tracing::info!(%error, "no collection this time"),
        Err(error) => tracing::warn!(error = full_message(&error), "cannot collect garbage"),
    }
}

impl Running {
    /// Where it listens, ports included.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Where metrics and health are.
    pub const fn debug_address(&self) -> Option<SocketAddr> {
        self.debug_address
    }

    /// Reads certificate, users, policy and keys again.
    pub async fn reload(&self) {
        let (app, certificate) = (Arc::clone(&self.app), self.certificate.clone());
        blocking(move || {
            app.auth.reload();
            if let Some(Err(error)) = certificate.map(|certificate| certificate.reload()) {
                tracing::warn!(error = full_message(&error), "the certificate stays as it was");
            }
        })
        .await;
        tracing::info!("reloaded");
    }

    /// Takes no further connections, lets requests end within the time of the configuration, and cuts the rest.
    pub async fn stop(self) {
        self.stop.cancel();
        self.server.stop();
        let patience = self.app.config.drain.0;
        if tokio::time::timeout(patience, self.server.drained()).await.is_err() {
            tracing::warn!("some requests did not end in time");
            self.server.cut();
            // LIMIT: cut connections end at once; this is for the unforeseen.
            tokio::time::timeout(Duration::from_secs(5), self.server.drained()).await.ok();
        }
        self.debug.stop();
        self.debug.cut();
    }
}

fn on(kind: SignalKind) -> Result<Signal> {
    signal(kind).map_err(|error| Error::Config(format!("cannot wait for signals: {error}")))
}

/// Serves until SIGTERM or SIGINT; SIGHUP reloads.
pub(crate) async fn run(config: Config) -> Result<()> {
    let (mut term, mut int, mut hup) =
        (on(SignalKind::terminate())?, on(SignalKind::interrupt())?, on(SignalKind::hangup())?);
    let running = start(config).await?;
    loop {
        tokio::select! {
            _ = term.recv() => break,
            _ = int.recv() => break,
            _ = hup.recv() => running.reload().await,
        }
    }
    tracing::info!("ending");
    running.stop().await;
    Ok(())
}
