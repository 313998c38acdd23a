//! TLS for TCP listeners: a certificate of ours and, for mutual TLS, the authority whose clients may come.

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use rustls::crypto::aws_lc_rs;
use rustls::server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

/// Files in PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// Our certificate and those that lead to its authority.
    pub cert: PathBuf,
    /// Its key.
    pub key: PathBuf,
    /// Authority of clients; `None` lets everybody in.
    pub client_ca: Option<PathBuf>,
}

/// Why TLS cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read or holds something else.
    #[error("cannot load {what} from {}", path.display())]
    Load {
        /// What was wanted.
        what: &'static str,
        /// From where.
        path: PathBuf,
        /// Why.
        source: rustls_pki_types::pem::Error,
    },
    /// Certificate, key or authority do not do.
    #[error("cannot use {what}")]
    Unusable {
        /// What.
        what: &'static str,
        /// Why.
        source: rorqual_core::BoxError,
    },
}

fn certificates(what: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let failed = |source| TlsError::Load { what, path: path.to_owned(), source };
    CertificateDer::pem_file_iter(path).map_err(failed)?.collect::<Result<_, _>>().map_err(failed)
}

/// A certificate that connections to come find replaced after [`Self::reload`].
#[derive(Debug)]
pub struct Certificate {
    files: TlsFiles,
    current: RwLock<Arc<CertifiedKey>>,
}

impl Certificate {
    fn load(files: &TlsFiles) -> Result<Arc<CertifiedKey>, TlsError> {
        let chain = certificates("the certificate", &files.cert)?;
        let key = PrivateKeyDer::from_pem_file(&files.key).map_err(|source| TlsError::Load {
            what: "the key",
            path: files.key.clone(),
            source,
        })?;
        let pair = CertifiedKey::from_der(chain, key, &aws_lc_rs::default_provider());
        pair.map(Arc::new).map_err(|error| TlsError::Unusable {
            what: "certificate and key together",
            source: error.into(),
        })
    }

    /// Reads certificate and key again; the old ones stay when that fails. Blocking.
    ///
    /// # Errors
    ///
    /// When a file is missing or does not fit.
    pub fn reload(&self) -> Result<(), TlsError> {
        let fresh = Self::load(&self.files)?;
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = fresh;
        Ok(())
    }
}

impl ResolvesServerCert for Certificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner)))
    }
}

/// Reads the files; TLS 1.2 and 1.3, HTTP/1.1 and HTTP/2.
///
/// # Errors
///
/// When a file is missing or does not fit.
pub fn server_config(files: &TlsFiles) -> Result<Arc<ServerConfig>, TlsError> {
    reloadable_config(files).map(|(config, _)| config)
}

/// Like [`server_config`], with a handle to replace the certificate while the server runs.
///
/// # Errors
///
/// When a file is missing or does not fit.
pub fn reloadable_config(
    files: &TlsFiles,
) -> Result<(Arc<ServerConfig>, Arc<Certificate>), TlsError> {
    let unusable = |what| move |source: rorqual_core::BoxError| TlsError::Unusable { what, source };
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| unusable("TLS")(error.into()))?;
    let builder = match &files.client_ca {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let mut roots = RootCertStore::empty();
            for certificate in certificates("the authority of clients", path)? {
                roots
                    .add(certificate)
                    .map_err(|e| unusable("the authority of clients")(e.into()))?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
                .build()
                .map_err(|e| unusable("the authority of clients")(e.into()))?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let current = RwLock::new(Certificate::load(files)?);
    let certificate = Arc::new(Certificate { files: files.clone(), current });
    let resolver: Arc<dyn ResolvesServerCert> = Arc::<Certificate>::clone(&certificate);
    let mut config = builder.with_cert_resolver(resolver);
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok((Arc::new(config), certificate))
}
