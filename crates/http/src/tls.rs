//! TLS for TCP listeners: a certificate of ours and, for mutual TLS, the authority whose clients may come.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::aws_lc_rs;
use rustls::server::WebPkiClientVerifier;
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

/// Reads the files; TLS 1.2 and 1.3, HTTP/1.1 and HTTP/2.
///
/// # Errors
///
/// When a file is missing or does not fit.
pub fn server_config(files: &TlsFiles) -> Result<Arc<ServerConfig>, TlsError> {
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
    let chain = certificates("the certificate", &files.cert)?;
    let key = PrivateKeyDer::from_pem_file(&files.key).map_err(|source| TlsError::Load {
        what: "the key",
        path: files.key.clone(),
        source,
    })?;
    let mut config = builder
        .with_single_cert(chain, key)
        .map_err(|error| unusable("certificate and key together")(error.into()))?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}
