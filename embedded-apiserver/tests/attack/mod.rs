//! A served server, raw connections to it, and the normal client that must be served beside every attack.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // helpers of tests are tests

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use embedded_apiserver::{ApiServer, HistoryLimits, Running};
use http::{Method, Request};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http2::{SendRequest, handshake};
use hyper_util::rt::{TokioExecutor, TokioIo};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Api, DeleteParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, ChildStdout, Command};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_util::sync::{CancellationToken, DropGuard};

/// Where a child keeps its identity.
pub const FOLDER: &str = "EMBEDDED_APISERVER_TEST_FOLDER";
const PATIENCE: Duration = Duration::from_mins(2);

/// A server and how to reach it.
pub struct Plane {
    address: SocketAddr,
    folder: PathBuf,
    config: Option<kube::Config>,
    running: Option<(ApiServer, Running, DropGuard, Option<tempfile::TempDir>)>,
}

impl Plane {
    pub async fn start(history: HistoryLimits) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut plane = Self::start_in(folder.path().to_owned(), history).await;
        if let Some((_, _, _, kept)) = &mut plane.running {
            *kept = Some(folder);
        }
        plane
    }

    pub async fn start_in(folder: PathBuf, history: HistoryLimits) -> Self {
        let server = ApiServer::builder().in_memory().history(history).build().await.unwrap();
        let shutdown = CancellationToken::new();
        let running = server
            .serve("127.0.0.1:0".parse().unwrap(), &folder, shutdown.clone())
            .await
            .unwrap();
        let mut plane = Self::of(running.local_addr(), &folder);
        plane.load().await;
        plane.running = Some((server, running, shutdown.drop_guard(), None));
        plane
    }

    /// A server of another process, whose identity is in the folder.
    pub fn of(address: SocketAddr, folder: &Path) -> Self {
        Self {
            address,
            folder: folder.to_owned(),
            config: None,
            running: None,
        }
    }

    async fn load(&mut self) {
        let kubeconfig = Kubeconfig::read_from(self.folder.join("admin.kubeconfig")).unwrap();
        let options = KubeConfigOptions::default();
        let config = kube::Config::from_custom_kubeconfig(kubeconfig, &options).await;
        self.config = Some(config.unwrap());
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// A client with connections of its own.
    pub async fn new_client(&self) -> kube::Client {
        let config = match &self.config {
            Some(config) => config.clone(),
            None => {
                let mut plane = Self::of(self.address, &self.folder);
                plane.load().await;
                plane.config.unwrap()
            }
        };
        kube::Client::try_from(config).unwrap()
    }

    pub fn maps(&self) -> Api<ConfigMap> {
        Api::default_namespaced(kube::Client::try_from(self.config.clone().unwrap()).unwrap())
    }

    /// A normal client that comes now is served.
    pub async fn serves(&self) {
        let work = async {
            let maps: Api<ConfigMap> = Api::default_namespaced(self.new_client().await);
            let map: ConfigMap = serde_json::from_value(json!({ "metadata": { "name": "normal" } })).unwrap();
            maps.create(&PostParams::default(), &map).await.unwrap();
            maps.get("normal").await.unwrap();
            maps.delete("normal", &DeleteParams::default()).await.unwrap();
        };
        tokio::time::timeout(PATIENCE, work)
            .await
            .expect("a normal client was not served");
    }

    pub async fn tls(&self, protocol: &[u8]) -> TlsStream<TcpStream> {
        let stream = TcpStream::connect(self.address).await.unwrap();
        self.encrypt(stream, protocol).await
    }

    /// As the administrator.
    pub async fn encrypt(&self, stream: TcpStream, protocol: &[u8]) -> TlsStream<TcpStream> {
        let read = |name: &str| std::fs::read(self.folder.join(name)).unwrap();
        let mut roots = rustls::RootCertStore::empty();
        roots
            .add(CertificateDer::from_pem_slice(&read("ca.crt")).unwrap())
            .unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_client_auth_cert(
                vec![CertificateDer::from_pem_slice(&read("admin.crt")).unwrap()],
                PrivateKeyDer::from_pem_slice(&read("admin.key")).unwrap(),
            )
            .unwrap();
        config.alpn_protocols = vec![protocol.to_vec()];
        let name = ServerName::from(self.address.ip());
        TlsConnector::from(Arc::new(config))
            .connect(name, stream)
            .await
            .unwrap()
    }

    pub async fn http2(&self) -> SendRequest<Full<Bytes>> {
        let stream = self.tls(b"h2").await;
        let (sender, connection) = handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        sender
    }

    pub fn request(&self, method: Method, path: &str, body: Bytes) -> Request<Full<Bytes>> {
        Request::builder()
            .method(method)
            .uri(format!("https://{}{path}", self.address))
            .body(Full::new(body))
            .unwrap()
    }

    /// The code of the answer to a request on a connection of its own.
    pub async fn answer(&self, method: Method, path: &str, media: &str, body: String) -> u16 {
        let mut connection = self.http2().await;
        let mut request = self.request(method, path, body.into());
        request.headers_mut().insert("content-type", media.parse().unwrap());
        let answered = async {
            let answer = connection.send_request(request).await.unwrap();
            let code = answer.status().as_u16();
            // What is refused before its end may be cut off, but the answer comes.
            let _ = answer.into_body().collect().await;
            code
        };
        tokio::time::timeout(PATIENCE, answered).await.expect("no answer came")
    }
}

/// The events of a watch's text.
pub fn lines_of(text: &[u8]) -> Vec<Value> {
    text.split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
        .map(|line| serde_json::from_slice(line).unwrap())
        .collect()
}

/// How many descriptors this process may have.
pub fn descriptor_limit() -> usize {
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap();
    let line = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    line.split_whitespace().nth(3).unwrap().parse().unwrap_or(usize::MAX)
}

/// A test of this program as a process of its own.
pub struct Process {
    child: Child,
    output: tokio::io::Lines<BufReader<ChildStdout>>,
}

/// Starts one that may have so many descriptors, or as many as are allowed.
pub fn child(test: &str, folder: &Path, descriptors: usize) -> Process {
    let mut child = Command::new("bash")
        .args(["-c", "ulimit -n \"$0\" || ulimit -n \"$(ulimit -Hn)\"; exec \"$@\""])
        .arg(descriptors.to_string())
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .env(FOLDER, folder)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let output = BufReader::new(child.stdout.take().unwrap()).lines();
    Process { child, output }
}

impl Process {
    /// The rest of the next line that starts so.
    pub async fn line(&mut self, start: &str) -> String {
        let found = async {
            while let Some(line) = self.output.next_line().await.unwrap() {
                if let Some(rest) = line.strip_prefix(start) {
                    return rest.to_owned();
                }
            }
            panic!("the child ended");
        };
        tokio::time::timeout(PATIENCE, found)
            .await
            .expect("the child says nothing")
    }

    /// How many descriptors it has open.
    pub fn descriptors(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.child.id().expect("the child ended")))
            .unwrap()
            .count()
    }

    /// Ends its input, and so it.
    pub async fn end(mut self) {
        drop(self.child.stdin.take());
        let ended = tokio::time::timeout(PATIENCE, self.child.wait()).await;
        assert!(ended.expect("the child goes on").unwrap().success());
    }
}
