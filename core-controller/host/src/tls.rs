//! Mutual TLS to a provider: the core shows its certificate, trusts the authorities
//! that were given and no others, and pins the provider's name.

use std::sync::Arc;

use rustls::ClientConfig;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use sha2::{Digest as _, Sha256};

use crate::config::{Pem, TlsFiles};

/// The largest PEM, in bytes.
const MAX_PEM_BYTES: u64 = 1024 * 1024;

/// The PEMs as they are now.
pub(crate) struct Material {
    ca: Vec<u8>,
    certificate: Vec<u8>,
    key: Vec<u8>,
}

impl Material {
    /// Reads the PEMs; the error says which and what to do.
    pub(crate) async fn read(files: &TlsFiles) -> Result<Self, String> {
        Ok(Self {
            ca: read("the authorities", &files.ca).await?,
            certificate: read("the core's certificate", &files.certificate).await?,
            key: read("the core's key", &files.key).await?,
        })
    }

    /// Another value when one of them was changed.
    pub(crate) fn fingerprint(&self) -> [u8; 32] {
        let mut hash = Sha256::new();
        for part in [&self.ca, &self.certificate, &self.key] {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part);
        }
        hash.finalize().into()
    }

    /// How to connect with them.
    pub(crate) fn client_config(&self) -> Result<ClientConfig, String> {
        let mut roots = rustls::RootCertStore::empty();
        for certificate in certificates("the authorities", &self.ca)? {
            roots
                .add(certificate)
                .map_err(|error| format!("one of the authorities cannot be used: {error}"))?;
        }
        let chain = certificates("the core's certificate", &self.certificate)?;
        let key = PrivateKeyDer::from_pem_slice(&self.key)
            .map_err(|_| "the core's key is no private key in PEM; write it anew".to_owned())?;
        let ring = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ClientConfig::builder_with_provider(ring)
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?
            .with_root_certificates(roots)
            .with_client_auth_cert(chain, key)
            .map_err(|error| format!("the core's certificate and key cannot be used together: {error}"))?;
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(config)
    }
}

/// The name that the provider's certificate must be valid for.
pub(crate) fn server_name(files: &TlsFiles, host: &str) -> Result<ServerName<'static>, String> {
    let name = files.server_name.as_deref().unwrap_or(host);
    ServerName::try_from(name.to_owned())
        .map_err(|_| format!("{name:?} is no server name; use a DNS name or an address"))
}

fn certificates(what: &str, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match certificates {
        Ok(certificates) if !certificates.is_empty() => Ok(certificates),
        _ => Err(format!("{what}: no certificate in PEM found; write it anew")),
    }
}

async fn read(what: &str, pem: &Pem) -> Result<Vec<u8>, String> {
    let path = match pem {
        Pem::Bytes(bytes) => return Ok(bytes.to_vec()),
        Pem::File(path) => path,
    };
    let complain = |error: std::io::Error| format!("{what} cannot be read from {}: {error}", path.display());
    let length = tokio::fs::metadata(path).await.map_err(complain)?.len();
    if length > MAX_PEM_BYTES {
        return Err(format!("{what} in {} is larger than 1 MiB", path.display()));
    }
    tokio::fs::read(path).await.map_err(complain)
}
