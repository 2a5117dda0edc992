//! The one client of all measurements: HTTP/2 over TLS with the administrator's certificate, as client-go speaks, one
//! connection each. It reads answers to their end and does not decode them, so that little of the machine goes to it.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use base64::Engine as _;
use bytes::Bytes;
use http::{Method, Request, Uri};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::http2::{SendRequest, handshake};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use serde::Deserialize;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// What is read of a kubeconfig.
#[derive(Deserialize)]
struct Kubeconfig {
    clusters: Vec<NamedCluster>,
    users: Vec<NamedUser>,
}

#[derive(Deserialize)]
struct NamedCluster {
    cluster: Cluster,
}

#[derive(Deserialize)]
struct NamedUser {
    user: User,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Cluster {
    server: String,
    certificate_authority_data: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct User {
    client_certificate_data: String,
    client_key_data: String,
}

/// Where a server listens and how to be its administrator.
#[derive(Clone)]
pub struct Target {
    address: SocketAddr,
    tls: TlsConnector,
}

impl Target {
    /// From an administrator's kubeconfig with its certificates inline.
    pub fn from_kubeconfig(yaml: &str) -> anyhow::Result<Self> {
        let Kubeconfig { clusters, users } = serde_saphyr::from_str(yaml).context("the kubeconfig cannot be read")?;
        let (Some(NamedCluster { cluster }), Some(NamedUser { user })) =
            (clusters.into_iter().next(), users.into_iter().next())
        else {
            bail!("the kubeconfig names no cluster or no user");
        };
        let server: Uri = cluster.server.parse()?;
        let address = server
            .authority()
            .context("the server has no address")?
            .as_str()
            .parse()?;
        let data = |text: &str| base64::engine::general_purpose::STANDARD.decode(text);
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(&data(
            &cluster.certificate_authority_data,
        )?)?)?;
        let mut config = rustls::ClientConfig::builder()
            .with_root_certificates(roots)
            .with_client_auth_cert(
                vec![CertificateDer::from_pem_slice(&data(&user.client_certificate_data)?)?],
                PrivateKeyDer::from_pem_slice(&data(&user.client_key_data)?)?,
            )?;
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(Self {
            address,
            tls: TlsConnector::from(Arc::new(config)),
        })
    }

    /// A connection of its own.
    pub async fn connect(&self) -> anyhow::Result<Connection> {
        let stream = TcpStream::connect(self.address).await?;
        stream.set_nodelay(true)?;
        let stream = self.tls.connect(ServerName::from(self.address.ip()), stream).await?;
        let (sender, connection) = handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        Ok(Connection {
            authority: self.address.to_string(),
            sender,
        })
    }

    /// As many connections.
    pub async fn connect_many(&self, count: usize) -> anyhow::Result<Vec<Connection>> {
        let mut connections = Vec::with_capacity(count);
        for _ in 0..count {
            connections.push(self.connect().await?);
        }
        Ok(connections)
    }
}

/// One connection.
#[derive(Clone)]
pub struct Connection {
    authority: String,
    sender: SendRequest<Full<Bytes>>,
}

impl Connection {
    async fn send(&mut self, method: Method, path: &str, body: Bytes) -> anyhow::Result<Incoming> {
        let uri = Uri::builder()
            .scheme("https")
            .authority(self.authority.as_str())
            .path_and_query(path)
            .build()?;
        let request = Request::builder()
            .method(method)
            .uri(uri)
            .header("content-type", "application/json")
            .header("accept", "application/json")
            .header("user-agent", "bench/1")
            .body(Full::new(body))?;
        self.sender.ready().await?;
        let response = self.sender.send_request(request).await?;
        if !response.status().is_success() {
            let status = response.status();
            let body = response.into_body().collect().await?.to_bytes();
            bail!("{path} was answered {status}: {}", String::from_utf8_lossy(&body));
        }
        Ok(response.into_body())
    }

    /// A request that is answered with success, read to its end; the length of the answer.
    pub async fn call(&mut self, method: Method, path: &str, body: Bytes) -> anyhow::Result<usize> {
        let mut answer = self.send(method, path, body).await?;
        let mut length = 0;
        while let Some(frame) = answer.frame().await {
            length += frame?.data_ref().map_or(0, Bytes::len);
        }
        Ok(length)
    }

    /// A watch, once it is answered.
    pub async fn watch(&mut self, path: &str) -> anyhow::Result<Incoming> {
        self.send(Method::GET, path, Bytes::new()).await
    }
}
