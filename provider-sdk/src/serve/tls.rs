//! Mutual TLS from files that may change while the server runs: each handshake takes
//! the newest set that is whole. The names that a client's certificate may carry can be
//! pinned. Who is refused is told so by an alert, and the log says why (`refusal`).

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{NoServerSessionStorage, ParsedCertificate, WebPkiClientVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, RootCertStore, ServerConfig, SignatureScheme};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::refusal;

/// How often the files are looked at, at most.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// How long a client that is refused may take to read so: a connection with unread bytes
/// is reset at once, and the reset overtakes what it was told.
const LINGER: Duration = Duration::from_secs(1);
/// How often the files are looked at without a client.
const WATCH_INTERVAL: Duration = Duration::from_secs(5);
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
    /// What was found last and cannot be used: it is said once.
    refused: Option<Content>,
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
            .collect::<Result<Vec<_>, _>>()?;
        let content = read(&files)?;
        let config = configure(&files, &names, &content)?;
        Ok(Self {
            files,
            names,
            current: Mutex::new(Current {
                config,
                content,
                refused: None,
                looked_at: Instant::now(),
            }),
        })
    }

    /// Shakes hands. Errors say why the client is refused.
    pub(crate) async fn accept(&self, stream: TcpStream) -> Result<TlsStream<TcpStream>, String> {
        let acceptor = TlsAcceptor::from(self.newest().await);
        let shaken = tokio::time::timeout(HANDSHAKE, acceptor.accept(stream).into_fallible())
            .await
            .map_err(|_| "the TLS handshake took too long; look at the client and at the network".to_owned())?;
        shaken.map_err(|(error, stream)| {
            tokio::spawn(linger(stream));
            refusal::explain(&error, &self.files)
        })
    }

    /// Looks at the files from time to time, so that what cannot be used is told before a
    /// client comes. Ends only when it is dropped.
    pub(crate) async fn watch(&self) {
        let mut ticks = tokio::time::interval(WATCH_INTERVAL);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            self.newest().await;
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
        {
            let current = self.current.lock();
            if current.content == content || current.refused.as_ref() == Some(&content) {
                return Arc::clone(&current.config);
            }
        }
        match configure(&self.files, &self.names, &content) {
            Ok(config) => {
                tracing::info!("the TLS files have changed; new connections use the new ones");
                let mut current = self.current.lock();
                current.config = config;
                current.content = content;
                current.refused = None;
            }
            Err(error) => {
                tracing::warn!(%error, "the TLS files have changed and cannot be used; the former ones stay in use");
                self.current.lock().refused = Some(content);
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

fn configure(
    files: &TlsFiles,
    names: &[ServerName<'static>],
    content: &Content,
) -> Result<Arc<ServerConfig>, TlsError> {
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
        .with_client_cert_verifier(Arc::new(PinnedNames {
            authorities: clients,
            names: names.to_vec(),
        }))
        .with_single_cert(chain, key)
        .map_err(|error| unusable(&error))?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    // Each connection shows its certificate: a session that is resumed would not.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}

/// A client's certificate has to come from an authority and, where names are pinned, to
/// carry one of them. In the handshake, so that the client is told by an alert.
#[derive(Debug)]
struct PinnedNames {
    authorities: Arc<dyn ClientCertVerifier>,
    names: Vec<ServerName<'static>>,
}

impl ClientCertVerifier for PinnedNames {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.authorities.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        let verified = self.authorities.verify_client_cert(certificate, intermediates, now)?;
        let parsed = ParsedCertificate::try_from(certificate)?;
        let mut refused = None;
        for name in &self.names {
            match rustls::client::verify_server_name(&parsed, name) {
                Ok(()) => return Ok(verified),
                Err(error) => refused = Some(error),
            }
        }
        refused.map_or(Ok(verified), Err)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.authorities.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.authorities.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.authorities.supported_verify_schemes()
    }
}

/// Lets the client read the alert before the connection is gone.
async fn linger(mut stream: TcpStream) {
    const MOST: usize = 64 * 1024;
    let draining = async {
        let mut scratch = [0; 4096];
        let mut read = 0;
        stream.shutdown().await?;
        while read < MOST {
            match stream.read(&mut scratch).await? {
                0 => break,
                bytes => read += bytes,
            }
        }
        io::Result::Ok(())
    };
    // Whatever becomes of it, the client was refused.
    let _ = tokio::time::timeout(LINGER, draining).await;
}
