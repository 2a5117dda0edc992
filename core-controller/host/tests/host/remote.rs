//! Remote providers: mutual TLS, pinned names, certificates that change.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use provider_host::{Endpoint, EndpointConfig, EndpointSource, Host, Pem, ProviderState, TlsFiles};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose,
};
use rustls::RootCertStore;
use rustls::server::WebPkiClientVerifier;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::TlsAcceptor;

use crate::scripted::*;

type Authority = CertifiedIssuer<'static, KeyPair>;

fn authority() -> Authority {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// A certificate and its key, in PEM.
fn leaf(authority: &Authority, name: &str, change: impl FnOnce(&mut CertificateParams)) -> (String, String) {
    let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    change(&mut params);
    let key = KeyPair::generate().unwrap();
    let certificate = params.signed_by(&key, authority).unwrap();
    (certificate.pem(), key.serialize_pem())
}

fn server(authority: &Authority, (certificate, key): &(String, String)) -> TlsAcceptor {
    let ring = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = RootCertStore::empty();
    roots.add(authority.der().clone()).unwrap();
    let clients = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), ring.clone())
        .build()
        .unwrap();
    let mut config = rustls::ServerConfig::builder_with_provider(ring)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(clients)
        .with_single_cert(
            vec![CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()],
            PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap(),
        )
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec()];
    TlsAcceptor::from(Arc::new(config))
}

/// A provider over TLS whose certificate can be changed.
struct Remote {
    port: u16,
    acceptor: Arc<Mutex<TlsAcceptor>>,
    folder: tempfile::TempDir,
    authority: Authority,
    host: Host,
    _serving: Serving,
}

impl Remote {
    fn new() -> Self {
        let authority = authority();
        let certificate = leaf(&authority, "provider.test", |_| {});
        let acceptor = Arc::new(Mutex::new(server(&authority, &certificate)));
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let port = listener.local_addr().unwrap().port();
        let script = Script::provider("fake", "instance-1");
        let acceptors = acceptor.clone();
        runtime.spawn(async move {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            while let Ok((stream, _)) = listener.accept().await {
                let acceptor = acceptors.lock().unwrap().clone();
                let script = script.clone();
                tokio::spawn(async move {
                    if let Ok(stream) = acceptor.accept(stream).await {
                        script.connection(stream);
                    }
                });
            }
        });
        let remote = Self {
            port,
            acceptor,
            folder: tempfile::tempdir().unwrap(),
            authority,
            host: host(),
            _serving: Serving::on(runtime),
        };
        remote.write("ca.pem", &remote.authority.pem());
        remote.client(&leaf(&remote.authority, "core.test", |_| {}));
        remote
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        // As a Secret's volume does it: never half a file.
        let new = self.path("new");
        std::fs::write(&new, text).unwrap();
        std::fs::rename(&new, self.path(name)).unwrap();
    }

    fn client(&self, (certificate, key): &(String, String)) {
        self.write("core.pem", certificate);
        self.write("core-key.pem", key);
    }

    fn connect(&self, server_name: &str) {
        let file = |path: &Path| Pem::File(path.to_owned());
        let mut config = EndpointConfig::new(
            Endpoint::Https {
                host: "127.0.0.1".into(),
                port: self.port,
            },
            EndpointSource::Object,
        );
        config.tls = Some(TlsFiles {
            ca: file(&self.path("ca.pem")),
            certificate: file(&self.path("core.pem")),
            key: file(&self.path("core-key.pem")),
            server_name: Some(server_name.into()),
        });
        self.host.set_endpoint("fake", config).unwrap();
    }

    async fn refused(&self, words: &str) {
        let snapshot = until(&self.host, "fake", |snapshot| snapshot.message.contains(words)).await;
        assert!(
            matches!(
                snapshot.state,
                ProviderState::Misconfigured | ProviderState::Unreachable
            ),
            "{snapshot:?}"
        );
        assert!(snapshot.info.is_none(), "nothing was asked: {snapshot:?}");
    }

    async fn ready(&self) {
        until(&self.host, "fake", |snapshot| snapshot.state == ProviderState::Ready).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_sides_show_their_certificates_and_the_name_is_pinned() {
    let remote = Remote::new();
    remote.connect("another.test");
    remote.refused("is refused").await;
    remote.connect("provider.test");
    remote.ready().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_foreign_authority_is_refused_on_both_sides() {
    let foreign = authority();
    let remote = Remote::new();
    remote.write("ca.pem", &foreign.pem());
    remote.connect("provider.test");
    remote.refused("is refused").await;
    // In this order: at no moment would both sides accept each other.
    remote.client(&leaf(&foreign, "core.test", |_| {}));
    remote.write("ca.pem", &remote.authority.pem());
    remote.refused("alert").await;
    remote.write("core-key.pem", "no key at all");
    remote.refused("no private key").await;
    remote.client(&leaf(&remote.authority, "core.test", |_| {}));
    remote.ready().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_expired_certificate_is_refused_and_a_new_one_is_taken() {
    let remote = Remote::new();
    let expired = leaf(&remote.authority, "provider.test", |params| {
        params.not_before = rcgen::date_time_ymd(2001, 1, 1);
        params.not_after = rcgen::date_time_ymd(2002, 1, 1);
    });
    *remote.acceptor.lock().unwrap() = server(&remote.authority, &expired);
    remote.connect("provider.test");
    remote.refused("expired").await;
    let good = leaf(&remote.authority, "provider.test", |_| {});
    *remote.acceptor.lock().unwrap() = server(&remote.authority, &good);
    remote.ready().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_that_change_are_taken_up_and_broken_ones_do_no_harm() {
    let remote = Remote::new();
    remote.connect("provider.test");
    remote.ready().await;
    remote.write("core-key.pem", "half a key");
    let snapshot = until(&remote.host, "fake", |snapshot| {
        snapshot.message.contains("the old connection goes on")
    })
    .await;
    assert_eq!(snapshot.state, ProviderState::Ready);
    assert_eq!(snapshot.connections, 1);
    remote.client(&leaf(&remote.authority, "core.test", |_| {}));
    let snapshot = until(&remote.host, "fake", |snapshot| snapshot.connections == 2).await;
    assert_eq!(snapshot.sessions, 1);
}
