//! Mutual TLS from files that may change while the server runs: each handshake takes
//! the newest set that is whole. The names that a client's certificate may carry can be
//! pinned.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rustls::server::{ParsedCertificate, WebPkiClientVerifier};
use rustls::{RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// How often the files are looked at, at most.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// How long a client may take to shake hands.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// The files of a server that speaks mutual TLS, in PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificate of the server with its chain.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// The authorities that clients' certificates come from.
    pub client_authorities: PathBuf,
    /// The DNS names of which a client's certificate must carry one; empty: whoever the
    /// authorities vouch for.
    pub client_names: Vec<String>,
}

/// Why TLS cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("unable to read {path:?}")]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A file does not hold what it should.
    #[error("{path:?} does not hold {expected} in PEM: {reason}")]
    Content {
        /// Which file.
        path: PathBuf,
        /// What it should hold.
        expected: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// The files do not fit together.
    #[error("the certificate, the key and the client authorities do not make a server: {0}")]
    Unusable(String),
    /// A pinned name is none.
    #[error("{0:?} is not a DNS name that a client's certificate could carry")]
    Name(String),
}

/// Shakes hands with the newest certificates.
pub(crate) struct Tls {
    files: TlsFiles,
    names: Vec<ServerName<'static>>,
    current: Mutex<Current>,
}

struct Current {
    config: Arc<ServerConfig>,
    content: Content,
    looked_at: Instant,
}

#[derive(Clone, PartialEq, Eq)]
struct Content {
    certificate: Vec<u8>,
    key: Vec<u8>,
    client_authorities: Vec<u8>,
}

impl Tls {
    pub(crate) fn new(files: TlsFiles) -> Result<Self, TlsError> {
        let names = files
            .client_names
            .iter()
            .map(|name| ServerName::try_from(name.clone()).map_err(|_| TlsError::Name(name.clone())))
            .collect::<Result<_, _>>()?;
        let content = read(&files)?;
        let config = configure(&files, &content)?;
        Ok(Self {
            files,
            names,
            current: Mutex::new(Current {
                config,
                content,
                looked_at: Instant::now(),
            }),
        })
    }

    /// Shakes hands. Errors say why the client is refused.
    pub(crate) async fn accept(&self, stream: TcpStream) -> Result<TlsStream<TcpStream>, String> {
        let acceptor = TlsAcceptor::from(self.newest().await);
        let stream = tokio::time::timeout(HANDSHAKE, acceptor.accept(stream))
            .await
            .map_err(|_| "the TLS handshake took too long".to_owned())?
            .map_err(|error| format!("the TLS handshake failed: {error}"))?;
        self.check_name(&stream)?;
        Ok(stream)
    }

    fn check_name(&self, stream: &TlsStream<TcpStream>) -> Result<(), String> {
        if self.names.is_empty() {
            return Ok(());
        }
        let (_, session) = stream.get_ref();
        let certificate = session
            .peer_certificates()
            .and_then(<[_]>::first)
            .ok_or("the client sent no certificate")?;
        let parsed = ParsedCertificate::try_from(certificate).map_err(|error| error.to_string())?;
        let carries = |name: &ServerName<'_>| rustls::client::verify_server_name(&parsed, name).is_ok();
        if self.names.iter().any(carries) {
            Ok(())
        } else {
            Err("the client's certificate carries none of the names that are allowed".to_owned())
        }
    }

    async fn newest(&self) -> Arc<ServerConfig> {
        {
            let mut current = self.current.lock();
            if current.looked_at.elapsed() < LOOK_INTERVAL {
                return Arc::clone(&current.config);
            }
            // Only one of those who come now looks.
            current.looked_at = Instant::now();
        }
        let files = self.files.clone();
        let content = match tokio::task::spawn_blocking(move || read(&files)).await {
            Ok(Ok(content)) => content,
            Ok(Err(error)) => {
                tracing::warn!(%error, "the TLS files cannot be read; the former ones stay in use");
                return self.config();
            }
            Err(_) => return self.config(),
        };
        if self.current.lock().content != content {
            match configure(&self.files, &content) {
                Ok(config) => {
                    tracing::info!("the TLS files have changed; the new ones are in use");
                    let mut current = self.current.lock();
                    current.config = config;
                    current.content = content;
                }
                Err(error) => {
                    tracing::warn!(%error, "the TLS files have changed and cannot be used; the former ones stay in use");
                }
            }
        }
        self.config()
    }

    fn config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.current.lock().config)
    }
}

fn read(files: &TlsFiles) -> Result<Content, TlsError> {
    let read = |path: &Path| {
        std::fs::read(path).map_err(|source| TlsError::Read {
            path: path.to_owned(),
            source,
        })
    };
    Ok(Content {
        certificate: read(&files.certificate)?,
        key: read(&files.key)?,
        client_authorities: read(&files.client_authorities)?,
    })
}

fn certificates(path: &Path, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let wrong = |reason: String| TlsError::Content {
        path: path.to_owned(),
        expected: "certificates",
        reason,
    };
    let found: Vec<_> = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<_, _>>()
        .map_err(|error| wrong(error.to_string()))?;
    if found.is_empty() {
        return Err(wrong("there is none".to_owned()));
    }
    Ok(found)
}

fn configure(files: &TlsFiles, content: &Content) -> Result<Arc<ServerConfig>, TlsError> {
    let unusable = |error: &dyn std::fmt::Display| TlsError::Unusable(error.to_string());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let chain = certificates(&files.certificate, &content.certificate)?;
    let key = PrivateKeyDer::from_pem_slice(&content.key).map_err(|_| TlsError::Content {
        path: files.key.clone(),
        expected: "a private key",
        // What the reader says might quote it.
        reason: "there is none, or it is damaged".to_owned(),
    })?;
    let mut authorities = RootCertStore::empty();
    for authority in certificates(&files.client_authorities, &content.client_authorities)? {
        authorities.add(authority).map_err(|error| unusable(&error))?;
    }
    let clients = WebPkiClientVerifier::builder_with_provider(Arc::new(authorities), Arc::clone(&provider))
        .build()
        .map_err(|error| unusable(&error))?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| unusable(&error))?
        .with_client_cert_verifier(clients)
        .with_single_cert(chain, key)
        .map_err(|error| unusable(&error))?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(Arc::new(config))
}
