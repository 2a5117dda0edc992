//! Remote providers: mutual TLS, pinned names, certificates that change.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use actuator_proto::v1;
use provider_host::{Endpoint, EndpointConfig, EndpointSource, Host, Pem, ProviderState, Rpc, TlsFiles};
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
    /// Cuts the connections of now.
    cut: Arc<tokio::sync::Notify>,
    folder: tempfile::TempDir,
    authority: Authority,
    script: Script,
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
        let scripts = script.clone();
        let cut = Arc::<tokio::sync::Notify>::default();
        let cuts = cut.clone();
        runtime.spawn(async move {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            while let Ok((stream, _)) = listener.accept().await {
                let acceptor = acceptors.lock().unwrap().clone();
                let script = scripts.clone();
                let cuts = cuts.clone();
                tokio::spawn(async move {
                    let Ok(mut stream) = acceptor.accept(stream).await else {
                        return;
                    };
                    // A pipe between, which can be cut.
                    let (mut ours, theirs) = tokio::io::duplex(64 * 1024);
                    script.connection(theirs);
                    tokio::select! {
                        _ = tokio::io::copy_bidirectional(&mut stream, &mut ours) => {}
                        () = cuts.notified() => {}
                    }
                });
            }
        });
        let remote = Self {
            port,
            acceptor,
            cut,
            folder: tempfile::tempdir().unwrap(),
            authority,
            script,
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

    async fn refused(&self, reason: &str, words: &str) {
        let snapshot = until(&self.host, "fake", |snapshot| snapshot.reason == reason).await;
        assert!(snapshot.message.contains(words), "{snapshot:?}");
        assert_eq!(snapshot.state, ProviderState::Misconfigured, "{snapshot:?}");
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
    remote.refused("ProviderNameMismatch", "for provider.test").await;
    remote.connect("provider.test");
    remote.ready().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_foreign_authority_is_refused_on_both_sides() {
    let foreign = authority();
    let remote = Remote::new();
    remote.write("ca.pem", &foreign.pem());
    remote.connect("provider.test");
    remote.refused("ProviderCertificateUntrusted", "ca.pem").await;
    // In this order: at no moment would both sides accept each other.
    remote.client(&leaf(&foreign, "core.test", |_| {}));
    remote.write("ca.pem", &remote.authority.pem());
    remote
        .refused("CoreCertificateRefused", "no authority that the provider knows")
        .await;
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
    remote.refused("ProviderCertificateExpired", "2002-01-01").await;
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
        snapshot.warning.contains("the former ones stay in use") && snapshot.warning.contains("core-key.pem")
    })
    .await;
    assert_eq!(snapshot.state, ProviderState::Ready);
    assert_eq!(snapshot.connections, 1);
    // The connection is lost meanwhile: the next one is made with the former certificates.
    remote.cut.notify_waiters();
    let snapshot = until(&remote.host, "fake", |snapshot| snapshot.connections == 2).await;
    assert_eq!(snapshot.state, ProviderState::Ready);
    remote.client(&leaf(&remote.authority, "core.test", |_| {}));
    let snapshot = until(&remote.host, "fake", |snapshot| snapshot.connections == 3).await;
    assert_eq!(snapshot.sessions, 1);
    assert_eq!(snapshot.warning, "");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_from_the_future_and_files_that_are_none_are_refused() {
    let remote = Remote::new();
    remote.write("core-key.pem", "no key at all");
    remote.connect("provider.test");
    remote.refused("CertificateFilesUnusable", "core-key.pem").await;
    let future = leaf(&remote.authority, "provider.test", |params| {
        params.not_before = rcgen::date_time_ymd(2901, 1, 1);
        params.not_after = rcgen::date_time_ymd(2902, 1, 1);
    });
    *remote.acceptor.lock().unwrap() = server(&remote.authority, &future);
    remote.client(&leaf(&remote.authority, "core.test", |_| {}));
    remote.refused("ProviderCertificateNotYetValid", "2901-01-01").await;
    *remote.acceptor.lock().unwrap() = server(&remote.authority, &leaf(&remote.authority, "provider.test", |_| {}));
    remote.ready().await;
}

/// As a Secret that was changed: the same endpoint with other bytes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn other_certificates_for_the_same_endpoint_leave_no_gap() {
    let remote = Remote::new();
    remote.connect("provider.test");
    remote.ready().await;
    let pem = |name: &str, text: &str| Pem::Bytes {
        bytes: text.as_bytes().into(),
        from: format!("{name} of the Secret default/remote").into(),
    };
    let set = |(certificate, key): &(String, String)| {
        let mut config = EndpointConfig::new(
            Endpoint::Https {
                host: "127.0.0.1".into(),
                port: remote.port,
            },
            EndpointSource::Object,
        );
        config.tls = Some(TlsFiles {
            ca: pem("ca.crt", &remote.authority.pem()),
            certificate: pem("tls.crt", certificate),
            key: pem("tls.key", key),
            server_name: Some("provider.test".into()),
        });
        remote.host.set_endpoint("fake", config).unwrap();
    };
    // One call that lasts longer than all this, and others without a pause.
    let delete_ends = Arc::new(tokio::sync::Notify::new());
    let ends = delete_ends.clone();
    remote
        .script
        .on(Rpc::DeleteMachine, move |_: v1::DeleteMachineRequest| {
            let ends = ends.clone();
            async move {
                ends.notified().await;
                Ok(v1::DeleteMachineResponse {
                    state: v1::DeletionState::Gone.into(),
                    ..Default::default()
                })
            }
        });
    remote
        .script
        .on(Rpc::MachineExists, |_: v1::MachineExistsRequest| async {
            Ok(present("fake:///i-1"))
        });
    let fake = remote.host.provider("fake").unwrap();
    let deleting = tokio::spawn(async move { fake.delete_machine(&credential(), delete("long")).await });
    let (stop, mut stopped) = tokio::sync::oneshot::channel::<()>();
    let fake = remote.host.provider("fake").unwrap();
    let calling = tokio::spawn(async move {
        let mut calls = 0_u64;
        while stopped.try_recv().is_err() {
            fake.machine_exists(&credential(), exists("k")).await.unwrap();
            calls += 1;
        }
        calls
    });
    // Half of the new pair, then a stranger's, then a good one.
    let (good, foreign) = (
        leaf(&remote.authority, "core.test", |_| {}),
        leaf(&authority(), "core.test", |_| {}),
    );
    set(&(good.0.clone(), foreign.1.clone()));
    let warned = |words: &'static str| {
        let host = remote.host.clone();
        async move { until(&host, "fake", |snapshot| snapshot.warning.contains(words)).await }
    };
    warned("do not belong together").await;
    set(&foreign);
    warned("the old connection goes on").await;
    set(&good);
    until(&remote.host, "fake", |snapshot| {
        snapshot.connections == 2 && snapshot.warning.is_empty()
    })
    .await;
    stop.send(()).unwrap();
    assert!(calling.await.unwrap() > 0, "no call was made meanwhile");
    delete_ends.notify_one();
    deleting.await.unwrap().expect("what was under way comes to its end");
}

/// Plain HTTP/2 where TLS is served, and TLS where plain HTTP/2 is served.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_speaks_tls_alone_is_told_so() {
    let remote = Remote::new();
    let mut plain = EndpointConfig::new(
        Endpoint::HttpLoopback(([127, 0, 0, 1], remote.port).into()),
        EndpointSource::Flag,
    );
    plain.allow_plain_http = true;
    remote.host.set_endpoint("fake", plain).unwrap();
    remote.refused("TLSRequired", "use https://").await;

    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let script = Script::provider("fake", "instance-1");
    let serving = tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            script.clone().connection(stream);
        }
    });
    let mut remote = remote;
    remote.port = port;
    remote.connect("provider.test");
    remote.refused("TLSNotSpoken", "does not speak TLS").await;
    serving.abort();
}
