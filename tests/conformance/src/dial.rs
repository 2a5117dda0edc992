//! Connecting to a provider the way the core does: a Unix socket with `localhost` as the
//! authority, TCP with mutual TLS, or plain TCP on loopback.

use std::fmt;
use std::future::Future;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::Pin;
use std::str::FromStr;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use hyper::body::Incoming;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tonic::body::Body;
use tonic::{Code, Status};

/// What a peer may send as headers: large enough to see a status that is too large.
const MAX_HEADER_LIST_BYTES: u32 = 512 * 1024;
const DIAL_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a provider that was started just before may take until it listens.
const START_TIMEOUT: Duration = Duration::from_secs(10);

/// Where a provider listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Endpoint {
    /// `unix:///run/actuator/aws/actuator.sock`.
    Unix(PathBuf),
    /// `tcp://127.0.0.1:7070`, plain, on loopback only.
    Tcp(SocketAddr),
    /// `https://actuator.example.com:7070`, with mutual TLS.
    Https(String),
}

impl FromStr for Endpoint {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        if let Some(path) = text.strip_prefix("unix://") {
            let path = PathBuf::from(path);
            if !path.is_absolute() {
                bail!("the socket path in {text:?} is not absolute; write unix:///absolute/path");
            }
            Ok(Self::Unix(path))
        } else if let Some(address) = text.strip_prefix("tcp://") {
            let address: SocketAddr = address
                .parse()
                .with_context(|| format!("{text:?} is no address; write tcp://127.0.0.1:PORT"))?;
            if !address.ip().is_loopback() {
                bail!(
                    "{text} is not on loopback: plain TCP leaves the machine unprotected; use https:// with mutual TLS"
                );
            }
            Ok(Self::Tcp(address))
        } else if let Some(authority) = text.strip_prefix("https://") {
            Ok(Self::Https(authority.trim_end_matches('/').to_owned()))
        } else {
            bail!("{text:?} is no endpoint; write unix:///path, tcp://127.0.0.1:PORT or https://NAME:PORT")
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(formatter, "unix://{}", path.display()),
            Self::Tcp(address) => write!(formatter, "tcp://{address}"),
            Self::Https(authority) => write!(formatter, "https://{authority}"),
        }
    }
}

/// The files of mutual TLS, in PEM.
#[derive(Debug, Clone)]
pub struct TlsFiles {
    /// Who signed the provider's certificate.
    pub ca: PathBuf,
    /// Our certificate.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

/// One HTTP/2 connection. It keeps no deadline of its own: whether the provider honours
/// one is for the suite to see.
#[derive(Clone, Debug)]
pub struct Connection {
    sender: http2::SendRequest<Body>,
    /// The scheme and authority of every request.
    pub origin: http::Uri,
    task: tokio::task::AbortHandle,
}

impl Connection {
    /// Cuts the connection as a crash of the core would.
    pub fn cut(&self) {
        self.task.abort();
    }
}

impl tower::Service<http::Request<Body>> for Connection {
    type Response = http::Response<Incoming>;
    type Error = Status;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Status>> + Send>>;

    fn poll_ready(&mut self, context: &mut TaskContext<'_>) -> Poll<Result<(), Status>> {
        self.sender
            .poll_ready(context)
            .map_err(|_| Status::unavailable("the connection is closed"))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let answer = self.sender.send_request(request);
        Box::pin(async move {
            answer.await.map_err(|error| match Status::from_error(Box::new(error)) {
                // What is no word of HTTP/2 is the connection's end.
                status if status.code() == Code::Unknown => Status::unavailable(status.message()),
                status => status,
            })
        })
    }
}

/// The first connection of a run. Who starts a provider and then the suite need not wait in
/// between: where nobody listens yet, it is tried again for a while.
pub async fn connect_first(endpoint: &Endpoint, tls: Option<&TlsFiles>) -> anyhow::Result<Connection> {
    let end = Instant::now() + START_TIMEOUT;
    loop {
        match connect(endpoint, tls).await {
            Err(error) if nobody_listens(endpoint, &error) && Instant::now() < end => {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            dialled => return dialled,
        }
    }
}

fn nobody_listens(endpoint: &Endpoint, error: &anyhow::Error) -> bool {
    let kind = error.downcast_ref::<io::Error>().map(io::Error::kind);
    match kind {
        Some(ErrorKind::ConnectionRefused) => true,
        Some(ErrorKind::NotFound) => matches!(endpoint, Endpoint::Unix(_)),
        _ => false,
    }
}

/// A connection that is not shared with any other.
pub async fn connect(endpoint: &Endpoint, tls: Option<&TlsFiles>) -> anyhow::Result<Connection> {
    let dialling = async {
        match endpoint {
            Endpoint::Unix(path) => over(UnixStream::connect(path).await?, "http://localhost").await,
            Endpoint::Tcp(address) => over(TcpStream::connect(address).await?, "http://localhost").await,
            Endpoint::Https(authority) => {
                let files = tls.context("an https endpoint needs mutual TLS; give --ca, --certificate and --key")?;
                let uri: http::Uri = format!("https://{authority}").parse()?;
                let host = uri.host().context("the endpoint has no host")?.to_owned();
                let tcp = TcpStream::connect((host.as_str(), uri.port_u16().unwrap_or(443))).await?;
                let connector = tokio_rustls::TlsConnector::from(Arc::new(files.client_config()?));
                over(
                    connector.connect(ServerName::try_from(host)?, tcp).await?,
                    &uri.to_string(),
                )
                .await
            }
        }
    };
    tokio::time::timeout(DIAL_TIMEOUT, dialling)
        .await
        .map_err(|_| anyhow::anyhow!("it did not answer within {DIAL_TIMEOUT:?}"))
        .and_then(|dialled| dialled)
        .with_context(|| format!("no connection to {endpoint}; is the provider running there?"))
}

async fn over(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    origin: &str,
) -> anyhow::Result<Connection> {
    let (sender, connection) = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .max_header_list_size(MAX_HEADER_LIST_BYTES)
        .handshake(TokioIo::new(stream))
        .await
        .context("the peer does not speak HTTP/2")?;
    let task = tokio::spawn(async move {
        // How a connection ends is told to the calls on it.
        let _ = connection.await;
    });
    Ok(Connection {
        sender,
        origin: origin.parse()?,
        task: task.abort_handle(),
    })
}

impl TlsFiles {
    fn client_config(&self) -> anyhow::Result<rustls::ClientConfig> {
        let failed = |path: &PathBuf| format!("{} holds no PEM of what it should", path.display());
        let mut roots = rustls::RootCertStore::empty();
        for certificate in CertificateDer::pem_file_iter(&self.ca).with_context(|| failed(&self.ca))? {
            roots.add(certificate.with_context(|| failed(&self.ca))?)?;
        }
        let chain: Result<Vec<_>, _> = CertificateDer::pem_file_iter(&self.certificate)
            .with_context(|| failed(&self.certificate))?
            .collect();
        let key = PrivateKeyDer::from_pem_file(&self.key).with_context(|| failed(&self.key))?;
        let ring = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = rustls::ClientConfig::builder_with_provider(ring)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_client_auth_cert(chain.with_context(|| failed(&self.certificate))?, key)?;
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(config)
    }
}

/// A client that vouches for itself.
pub struct Stranger {
    certificate: CertificateDer<'static>,
    key: PrivateKeyDer<'static>,
}

impl Stranger {
    /// Another one each time.
    pub fn new() -> anyhow::Result<Self> {
        let key = rcgen::KeyPair::generate()?;
        let certificate = rcgen::CertificateParams::new(vec!["stranger.invalid".to_owned()])?.self_signed(&key)?;
        Ok(Self {
            certificate: certificate.der().clone(),
            key: PrivateKeyDer::try_from(key.serialize_der()).map_err(anyhow::Error::msg)?,
        })
    }
}

/// Shakes hands as nobody the endpoint knows, or shows no certificate; nothing when the
/// endpoint refuses already here. Who the endpoint is, is of no interest: no secret is sent.
pub(crate) async fn as_stranger(
    authority: &str,
    tcp: TcpStream,
    stranger: Option<Stranger>,
) -> Option<tokio_rustls::client::TlsStream<TcpStream>> {
    let uri: http::Uri = format!("https://{authority}").parse().ok()?;
    let name = ServerName::try_from(uri.host()?.to_owned()).ok()?;
    let ring = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(ring.clone())
        .with_safe_default_protocol_versions()
        .ok()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody(ring)));
    let mut config = match stranger {
        None => builder.with_no_client_auth(),
        Some(stranger) => builder
            .with_client_auth_cert(vec![stranger.certificate], stranger.key)
            .ok()?,
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    let shaking = connector.connect(name, tcp);
    tokio::time::timeout(DIAL_TIMEOUT, shaking).await.ok()?.ok()
}

/// Takes any server for who it says it is.
#[derive(Debug)]
struct Anybody(Arc<rustls::crypto::CryptoProvider>);

impl rustls::client::danger::ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: rustls_pki_types::UnixTime,
    ) -> Result<rustls::client::danger::ServerCertVerified, rustls::Error> {
        Ok(rustls::client::danger::ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_read_and_unsafe_ones_refused() {
        for good in ["unix:///tmp/a.sock", "tcp://127.0.0.1:7", "https://a.example.com:7"] {
            assert_eq!(good.parse::<Endpoint>().unwrap().to_string(), good);
        }
        for bad in ["unix://tmp/a", "tcp://10.0.0.1:7", "http://localhost:7", "a"] {
            assert!(bad.parse::<Endpoint>().is_err(), "{bad}");
        }
    }

    #[tokio::test]
    async fn a_provider_that_listens_a_moment_later_is_met() {
        let folder = tempfile::Builder::new().prefix("or").tempdir().unwrap();
        let path = folder.path().join("actuator.sock");
        let endpoint = Endpoint::Unix(path.clone());
        let mut dialling = std::pin::pin!(connect_first(&endpoint, None));
        // A connection to no socket fails at once, so this has failed once already.
        assert!(futures::poll!(dialling.as_mut()).is_pending());
        let listener = tokio::net::UnixListener::bind(&path).unwrap();
        let (accepted, dialled) = tokio::join!(listener.accept(), dialling);
        accepted.unwrap();
        dialled.unwrap();
    }
}
