//! The conformance suite over mutual TLS: against the real binary, and against one that
//! takes TLS from anybody, which the rules that are meant for it have to catch.

#![allow(clippy::expect_used, clippy::panic)] // a test may panic

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use actuator_conformance::dial::TlsFiles;
use actuator_conformance::report::{Ended, Report};
use actuator_conformance::{Config, Options, run};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::{TcpListener, TcpStream};

struct Provider(Child);

impl Drop for Provider {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// An authority, and what it has signed for both sides, as files.
fn certificates(folder: &Path) {
    let mut parameters = CertificateParams::new(Vec::new()).expect("parameters");
    parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().expect("a key");
    let authority = CertifiedIssuer::self_signed(parameters, key).expect("signed");
    std::fs::write(folder.join("ca.crt"), authority.pem()).expect("written");
    for (file, name) in [("server", "localhost"), ("core", "core.test")] {
        let key = KeyPair::generate().expect("a key");
        let parameters = CertificateParams::new(vec![name.to_owned()]).expect("parameters");
        let certificate = parameters.signed_by(&key, &authority).expect("signed");
        std::fs::write(folder.join(format!("{file}.crt")), certificate.pem()).expect("written");
        std::fs::write(folder.join(format!("{file}.key")), key.serialize_pem()).expect("written");
    }
}

fn start(folder: &Path, port: u16, flags: &[String]) -> Provider {
    let log = std::fs::File::create(folder.join("log")).expect("a log");
    let child = Command::new(env!("CARGO_BIN_EXE_provider-fake"))
        .arg(format!("--listen=tcp://127.0.0.1:{port}"))
        .arg(format!("--state-dir={}/state", folder.display()))
        .arg("--require-token=conformance-token-good,conformance-token-rotated")
        .args(flags)
        .stdin(Stdio::null())
        .stdout(log.try_clone().expect("a log"))
        .stderr(log)
        .spawn()
        .expect("started");
    Provider(child)
}

async fn until_it_listens(port: u16) {
    let end = Instant::now() + Duration::from_secs(30);
    while TcpStream::connect(("127.0.0.1", port)).await.is_err() {
        assert!(Instant::now() < end, "the provider does not listen");
        // There is nothing to wait on before the port is open.
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("an address").port()
}

async fn judged(folder: &Path, port: u16, focus: &[&str]) -> Report {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/conformance/providers/fake.yaml");
    let config = Config::read(path.as_ref()).expect("a config");
    let endpoint = format!("https://localhost:{port}");
    let mut options = Options::new(endpoint.parse().expect("an endpoint"), config);
    options.tls = Some(TlsFiles {
        ca: folder.join("ca.crt"),
        certificate: folder.join("core.crt"),
        key: folder.join("core.key"),
    });
    options.focus = focus.iter().map(|&id| id.to_owned()).collect();
    options.parallel = 8;
    run(options).await.expect("a report")
}

fn ended(report: &Report, id: &str) -> Ended {
    let outcome = report.outcomes.iter().find(|outcome| outcome.id == id);
    outcome.expect("the rule was looked at").ended
}

const RULES: [&str; 2] = ["security.plain-clients-are-refused", "security.strangers-are-refused"];

#[tokio::test(flavor = "multi_thread")]
async fn provider_fake_conforms_over_mutual_tls() {
    let folder = tempfile::tempdir().expect("a folder");
    certificates(folder.path());
    let port = free_port();
    let file = |name: &str| folder.path().join(name).display().to_string();
    let _provider = start(
        folder.path(),
        port,
        &[
            format!("--tls-cert={}", file("server.crt")),
            format!("--tls-key={}", file("server.key")),
            format!("--tls-client-ca={}", file("ca.crt")),
            "--tls-client-name=core.test".to_owned(),
        ],
    );
    until_it_listens(port).await;
    let report = judged(folder.path(), port, &[]).await;
    assert!(report.conforms(), "{report}");
    for rule in RULES {
        assert_eq!(ended(&report, rule), Ended::Passed, "{report}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_takes_tls_from_anybody_is_caught() {
    let folder = tempfile::tempdir().expect("a folder");
    certificates(folder.path());
    let port = free_port();
    let _provider = start(folder.path(), port, &["--insecure-plain-tcp".to_owned()]);
    until_it_listens(port).await;

    // TLS that asks nobody for a certificate, in front of it.
    let pem = |name: &str| std::fs::read(folder.path().join(name)).expect("a file");
    let ring = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(ring)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(
            vec![CertificateDer::from_pem_slice(&pem("server.crt")).expect("a certificate")],
            PrivateKeyDer::from_pem_slice(&pem("server.key")).expect("a key"),
        )
        .expect("a pair");
    config.alpn_protocols = vec![b"h2".to_vec()];
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let front = listener.local_addr().expect("an address").port();
    let serving = tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let (Ok(mut client), Ok(mut provider)) = (
                    acceptor.accept(stream).await,
                    TcpStream::connect(("127.0.0.1", port)).await,
                ) else {
                    return;
                };
                let _ = tokio::io::copy_bidirectional(&mut client, &mut provider).await;
            });
        }
    });
    let report = judged(folder.path(), front, &RULES).await;
    serving.abort();
    for rule in RULES {
        assert_eq!(ended(&report, rule), Ended::Failed, "{report}");
    }
}
