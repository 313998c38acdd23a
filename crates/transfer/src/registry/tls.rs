//! TLS towards registries: who is trusted, and what we show of ourselves, from the system and from `certs.d`.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};

use super::failure::{Failure, Reason};

// LIMIT: files looked at in one directory of certificates.
const MAX_FILES: usize = 100;

fn broken(path: &Path, reason: impl std::fmt::Display) -> Failure {
    Failure::new(Reason::Tls, format!("cannot use {}: {reason}", path.display()))
}

/// Lists the files of `host[:port]` in the directories of certificates.
fn files(roots: &[PathBuf], authority: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    // An authority is no path: it has no slash, and a name of dots is not looked for.
    if authority.contains('/') || authority.trim_matches('.').is_empty() {
        return found;
    }
    for root in roots {
        let Ok(entries) = std::fs::read_dir(root.join(authority)) else { continue };
        found.extend(entries.flatten().take(MAX_FILES).map(|entry| entry.path()));
    }
    found.sort();
    found
}

fn has_extension(path: &Path, wanted: &str) -> bool {
    path.extension().is_some_and(|extension| extension == wanted)
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, Failure> {
    let read = CertificateDer::pem_file_iter(path).map_err(|error| broken(path, error))?;
    read.collect::<Result<Vec<_>, _>>().map_err(|error| broken(path, error))
}

fn roots(files: &[PathBuf]) -> Result<RootCertStore, Failure> {
    let mut roots = RootCertStore::empty();
    // What the system has is trusted as far as it can be read.
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    for path in files.iter().filter(|path| has_extension(path, "crt")) {
        for certificate in certificates(path)? {
            roots.add(certificate).map_err(|error| broken(path, error))?;
        }
    }
    Ok(roots)
}

/// Makes the configuration for a server. Reads files.
pub(super) fn config(
    directories: &[PathBuf],
    authority: &str,
    verify: bool,
) -> Result<Arc<ClientConfig>, Failure> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let files = files(directories, authority);
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| Failure::new(Reason::Tls, error.to_string()))?;
    let builder = if verify {
        builder.with_root_certificates(roots(&files)?)
    } else {
        let verifier = Arc::new(Anybody(provider));
        builder.dangerous().with_custom_certificate_verifier(verifier)
    };
    let Some(cert) = files.iter().find(|path| has_extension(path, "cert")) else {
        return Ok(Arc::new(builder.with_no_client_auth()));
    };
    let key = cert.with_extension("key");
    if !key.exists() {
        // COMPAT: dockerd's text.
        let text = format!(
            "missing key {} for client certificate {}. CA certificates must use the extension .crt",
            key.display(),
            cert.display()
        );
        return Err(Failure::new(Reason::Tls, text));
    }
    let secret = PrivateKeyDer::from_pem_file(&key).map_err(|error| broken(&key, error))?;
    let config = builder.with_client_auth_cert(certificates(cert)?, secret);
    config.map(Arc::new).map_err(|error| broken(cert, error))
}

/// For registries whose certificates are not to be checked.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, cert, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, cert, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
