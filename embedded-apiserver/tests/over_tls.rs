//! The server over TLS: certificates, who is let in, kubeconfig, HTTP details.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)] // helpers of tests are tests

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

use embedded_apiserver::{ApiServer, OpenError, Running, StartError};
use futures::{StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Api, ListParams, Patch, PatchParams, PostParams, WatchEvent, WatchParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

async fn serve(folder: &Path) -> (ApiServer, Running, CancellationToken) {
    let server = ApiServer::builder().in_memory().build().await.unwrap();
    let shutdown = CancellationToken::new();
    let running = server
        .serve("127.0.0.1:0".parse().unwrap(), folder, shutdown.clone())
        .await
        .unwrap();
    (server, running, shutdown)
}

async fn config(running: &Running) -> kube::Config {
    let kubeconfig = Kubeconfig::from_yaml(running.kubeconfig()).unwrap();
    kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
        .await
        .unwrap()
}

fn map(name: &str) -> ConfigMap {
    serde_json::from_value(json!({ "metadata": { "name": name }, "data": { "a": "b" } })).unwrap()
}

#[tokio::test]
async fn an_administrator_reads_writes_and_watches() {
    let folder = tempfile::tempdir().unwrap();
    let (_server, running, shutdown) = serve(folder.path()).await;
    let client = kube::Client::try_from(config(&running).await).unwrap();
    let maps: Api<ConfigMap> = Api::default_namespaced(client);
    let start = maps
        .list(&ListParams::default())
        .await
        .unwrap()
        .metadata
        .resource_version
        .unwrap();
    let mut watch = maps.watch(&WatchParams::default(), &start).await.unwrap().boxed();
    maps.create(&PostParams::default(), &map("one")).await.unwrap();
    let event = tokio::time::timeout(Duration::from_secs(10), watch.try_next())
        .await
        .unwrap()
        .unwrap()
        .unwrap();
    assert!(matches!(event, WatchEvent::Added(map) if map.metadata.name.as_deref() == Some("one")));
    let merge = Patch::Merge(json!({ "data": { "a": "c" } }));
    maps.patch("one", &PatchParams::default(), &merge).await.unwrap();
    let event = tokio::time::timeout(Duration::from_secs(10), watch.try_next())
        .await
        .unwrap()
        .unwrap()
        .unwrap();
    assert!(matches!(event, WatchEvent::Modified(map) if map.data.clone().unwrap()["a"] == "c"));
    drop(watch);
    shutdown.cancel();
    tokio::time::timeout(Duration::from_secs(30), running.ended())
        .await
        .unwrap();
}

async fn answer(client: &kube::Client, path: &str, token: Option<&str>) -> u16 {
    let mut request = http::Request::get(path);
    if let Some(token) = token {
        request = request.header("authorization", format!("Bearer {token}"));
    }
    let request = request.body(kube::client::Body::empty()).unwrap();
    client.send(request).await.unwrap().status().as_u16()
}

async fn anonymous(running: &Running) -> kube::Client {
    let mut config = config(running).await;
    config.auth_info = kube::config::AuthInfo::default();
    kube::Client::try_from(config).unwrap()
}

#[tokio::test]
async fn only_health_and_version_are_for_everyone() {
    let folder = tempfile::tempdir().unwrap();
    let (_server, running, _shutdown) = serve(folder.path()).await;
    let client = anonymous(&running).await;
    for path in ["/healthz", "/livez", "/readyz?verbose", "/version"] {
        assert_eq!(answer(&client, path, None).await, 200, "{path}");
        assert_eq!(answer(&client, path, Some("wrong")).await, 401, "{path}");
    }
    for path in ["/api", "/apis", "/api/v1/namespaces", "/openapi/v3", "/nothing"] {
        assert_eq!(answer(&client, path, None).await, 403, "{path}");
        assert_eq!(answer(&client, path, Some("wrong")).await, 401, "{path}");
    }
}

#[tokio::test]
async fn a_token_of_the_builder_lets_its_user_in() {
    let folder = tempfile::tempdir().unwrap();
    let builder = ApiServer::builder()
        .token("the-admins-token", "root", ["system:masters"])
        .token("the-readers-token", "reader", ["readers"]);
    assert!(!format!("{builder:?}").contains("the-admins-token"));
    let server = builder.build().await.unwrap();
    let running = server
        .serve("127.0.0.1:0".parse().unwrap(), folder.path(), CancellationToken::new())
        .await
        .unwrap();
    let client = anonymous(&running).await;
    let maps = "/api/v1/namespaces/default/configmaps";
    assert_eq!(answer(&client, maps, Some("the-admins-token")).await, 200);
    assert_eq!(answer(&client, maps, Some("the-readers-token")).await, 403);
    assert_eq!(answer(&client, "/api", Some("the-readers-token")).await, 200);
    assert_eq!(answer(&client, maps, Some("the-admins-tokem")).await, 401);
}

/// Opens the file; who had it before lets it go a moment after the end.
async fn open(path: &Path) -> ApiServer {
    for _ in 0..1000 {
        match ApiServer::builder().data_file(path).build().await {
            Ok(server) => return server,
            Err(StartError::Open(OpenError::InUse(_))) => tokio::time::sleep(Duration::from_millis(10)).await,
            Err(error) => panic!("{error}"),
        }
    }
    panic!("the file was never let go");
}

#[tokio::test]
async fn tokens_of_service_accounts_outlive_the_process() {
    let folder = tempfile::tempdir().unwrap();
    let start = || async {
        let server = open(&folder.path().join("objects")).await;
        let shutdown = CancellationToken::new();
        let identity = folder.path().join("identity");
        let running = server
            .serve("127.0.0.1:0".parse().unwrap(), &identity, shutdown.clone())
            .await
            .unwrap();
        (server, running, shutdown)
    };
    let (server, running, shutdown) = start().await;
    let admin = kube::Client::try_from(config(&running).await).unwrap();
    let accounts: Api<k8s_openapi::api::core::v1::ServiceAccount> = Api::default_namespaced(admin);
    let account = serde_json::from_value(json!({ "metadata": { "name": "robot" } })).unwrap();
    accounts.create(&PostParams::default(), &account).await.unwrap();
    let request = serde_json::from_value(json!({ "spec": { "audiences": [] } })).unwrap();
    let token = accounts
        .create_token_request("robot", &PostParams::default(), &request)
        .await
        .unwrap();
    let token = token.status.unwrap().token;
    assert_eq!(answer(&anonymous(&running).await, "/api", Some(&token)).await, 200);
    shutdown.cancel();
    running.ended().await;
    drop((server, accounts));
    let (_server, running, _shutdown) = start().await;
    assert_eq!(answer(&anonymous(&running).await, "/api", Some(&token)).await, 200);
}

#[tokio::test]
async fn a_certificate_of_another_authority_is_refused_unless_a_token_follows() {
    let (ours, theirs) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let server = ApiServer::builder()
        .token("good", "a", ["system:masters"])
        .build()
        .await
        .unwrap();
    let running = server
        .serve("127.0.0.1:0".parse().unwrap(), ours.path(), CancellationToken::new())
        .await
        .unwrap();
    let (_other, stranger, _other_shutdown) = serve(theirs.path()).await;
    let mut config = config(&running).await;
    config.auth_info = self::config(&stranger).await.auth_info;
    let client = kube::Client::try_from(config).unwrap();
    assert_eq!(answer(&client, "/healthz", None).await, 401);
    assert_eq!(answer(&client, "/api/v1/namespaces", None).await, 401);
    assert_eq!(answer(&client, "/api/v1/namespaces", Some("good")).await, 200);
}

/// A client certificate of the server's own authority.
fn client_certificate(folder: &Path, params: rcgen::CertificateParams) -> kube::config::AuthInfo {
    let read = |name: &str| std::fs::read_to_string(folder.join(name)).unwrap();
    let authority = rcgen::KeyPair::from_pem(&read("ca.key")).unwrap();
    let issuer = rcgen::Issuer::from_ca_cert_pem(&read("ca.crt"), authority).unwrap();
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = params.signed_by(&key, &issuer).unwrap();
    let encode = |text: String| base64::Engine::encode(&base64::engine::general_purpose::STANDARD, text);
    serde_json::from_value(json!({
        "client-certificate-data": encode(certificate.pem()), "client-key-data": encode(key.serialize_pem()),
    }))
    .unwrap()
}

fn subject(name: &str, organizations: &[&str]) -> rcgen::CertificateParams {
    let mut params = rcgen::CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(rcgen::DnType::CommonName, name);
    for organization in organizations {
        params
            .distinguished_name
            .push(rcgen::DnType::OrganizationName, *organization);
    }
    params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ClientAuth];
    params
}

#[tokio::test]
async fn a_certificate_names_its_user_until_it_ends() {
    let folder = tempfile::tempdir().unwrap();
    let (_server, running, _shutdown) = serve(folder.path()).await;
    let with = |params: rcgen::CertificateParams| {
        let auth_info = client_certificate(folder.path(), params);
        let running = &running;
        async move {
            let mut config = config(running).await;
            config.auth_info = auth_info;
            kube::Client::try_from(config).unwrap()
        }
    };
    let review = |client: kube::Client| async move {
        let request = http::Request::post("/apis/authentication.k8s.io/v1/selfsubjectreviews")
            .header("content-type", "application/json")
            .body(b"{}".to_vec())
            .unwrap();
        client.request::<Value>(request).await.unwrap()["status"]["userInfo"].clone()
    };
    let user = review(with(subject("alice", &["builders"])).await).await;
    assert_eq!(user["username"], "alice");
    assert_eq!(user["groups"], json!(["builders", "system:authenticated"]));
    let credential = user["extra"]["authentication.kubernetes.io/credential-id"][0]
        .as_str()
        .unwrap();
    assert!(credential.starts_with("X509SHA256="), "{credential}");

    let mut past = subject("alice", &["system:masters"]);
    past.not_before = rcgen::date_time_ymd(2020, 1, 1);
    past.not_after = rcgen::date_time_ymd(2021, 1, 1);
    assert_eq!(answer(&with(past).await, "/api", None).await, 401);
    let mut for_servers = subject("alice", &["system:masters"]);
    for_servers.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth];
    assert_eq!(answer(&with(for_servers).await, "/api", None).await, 401);
}

#[tokio::test]
async fn old_versions_of_tls_are_refused() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let folder = tempfile::tempdir().unwrap();
    let (_server, running, _shutdown) = serve(folder.path()).await;
    // SSL 3, TLS 1.0 and 1.1; 1.2 and 1.3 are accepted below.
    for minor in [0, 1, 2] {
        let mut hello = vec![3, minor];
        hello.extend([7; 32]); // random
        hello.push(0); // no session
        hello.extend([0, 4, 0xc0, 0x09, 0xc0, 0x0a]); // ECDHE-ECDSA with AES-128 and AES-256
        hello.extend([1, 0]); // no compression
        let mut record = vec![22, 3, 1, 0, hello.len() as u8 + 4, 1, 0, 0, hello.len() as u8];
        record.extend(hello);
        let mut stream = tokio::net::TcpStream::connect(running.local_addr()).await.unwrap();
        stream.write_all(&record).await.unwrap();
        let mut answer = Vec::new();
        let read = stream.read_to_end(&mut answer);
        tokio::time::timeout(Duration::from_secs(20), read)
            .await
            .unwrap()
            .unwrap();
        // A fatal alert, and no handshake.
        assert_eq!(answer.first(), Some(&21), "3.{minor}: {answer:?}");
        assert_eq!(answer.get(5), Some(&2), "3.{minor}: {answer:?}");
    }
}

#[tokio::test]
async fn tls_1_2_and_1_3_carry_http_1_and_2() {
    use rustls_pki_types::pem::PemObject as _;
    let folder = tempfile::tempdir().unwrap();
    let (_server, running, _shutdown) = serve(folder.path()).await;
    let authority = std::fs::read(folder.path().join("ca.crt")).unwrap();
    let mut roots = rustls::RootCertStore::empty();
    roots
        .add(rustls_pki_types::CertificateDer::from_pem_slice(&authority).unwrap())
        .unwrap();
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        for protocol in ["h2", "http/1.1"] {
            let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
            let mut config = rustls::ClientConfig::builder_with_provider(provider)
                .with_protocol_versions(&[version])
                .unwrap()
                .with_root_certificates(roots.clone())
                .with_no_client_auth();
            config.alpn_protocols = vec![protocol.as_bytes().to_vec()];
            let stream = tokio::net::TcpStream::connect(running.local_addr()).await.unwrap();
            let connector = tokio_rustls::TlsConnector::from(std::sync::Arc::new(config));
            let stream = connector
                .connect("localhost".try_into().unwrap(), stream)
                .await
                .unwrap();
            let connection = stream.get_ref().1;
            assert_eq!(connection.protocol_version(), Some(version.version));
            assert_eq!(connection.alpn_protocol(), Some(protocol.as_bytes()));
        }
    }
}

#[tokio::test]
async fn nothing_listens_beyond_loopback_unless_told_to() {
    let folder = tempfile::tempdir().unwrap();
    let everywhere = "0.0.0.0:0".parse().unwrap();
    let server = ApiServer::builder().build().await.unwrap();
    for address in ["0.0.0.0:0", "[::]:0", "192.0.2.1:0", "[::ffff:192.0.2.1]:0"] {
        let refused = server
            .serve(address.parse().unwrap(), folder.path(), CancellationToken::new())
            .await;
        let error = refused.unwrap_err();
        assert!(
            matches!(error, embedded_apiserver::ServeError::BeyondLoopback { .. }),
            "{error}"
        );
    }
    let told = ApiServer::builder().beyond_loopback().build().await.unwrap();
    let shutdown = CancellationToken::new();
    let running = told.serve(everywhere, folder.path(), shutdown.clone()).await.unwrap();
    shutdown.cancel();
    running.ended().await;
}

#[tokio::test]
async fn a_file_that_makes_no_sense_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let (_server, running, shutdown) = serve(folder.path()).await;
    shutdown.cancel();
    running.ended().await;
    let server = ApiServer::builder().build().await.unwrap();
    let other = rcgen::KeyPair::generate().unwrap().serialize_pem();
    for (file, content) in [
        ("ca.crt", "nonsense"),
        ("ca.key", "nonsense"),
        ("ca.key", other.as_str()),
        ("server.crt", "nonsense"),
        ("admin.key", other.as_str()),
        ("service-account.key", "nonsense"),
    ] {
        let path = folder.path().join(file);
        let good = std::fs::read(&path).unwrap();
        std::fs::write(&path, content).unwrap();
        let refused = server
            .serve("127.0.0.1:0".parse().unwrap(), folder.path(), CancellationToken::new())
            .await;
        let error = refused.unwrap_err().to_string();
        assert!(error.contains(file.split('.').next().unwrap()), "{file}: {error}");
        assert!(!error.contains("PRIVATE KEY"), "{error}");
        std::fs::write(&path, good).unwrap();
    }
    // With the files as they were, all is well, and what others could read they no longer can.
    let key = folder.path().join("ca.key");
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o644)).unwrap();
    let running = server
        .serve("127.0.0.1:0".parse().unwrap(), folder.path(), CancellationToken::new())
        .await
        .unwrap();
    assert_eq!(std::fs::metadata(&key).unwrap().permissions().mode() & 0o777, 0o600);
    drop(running);
}

#[tokio::test]
async fn certificates_of_an_earlier_authority_or_that_end_soon_are_made_anew() {
    let (ours, theirs) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    for folder in [&ours, &theirs] {
        let (_server, running, shutdown) = serve(folder.path()).await;
        shutdown.cancel();
        running.ended().await;
    }
    for file in ["ca.crt", "ca.key"] {
        std::fs::copy(theirs.path().join(file), ours.path().join(file)).unwrap();
    }
    let (_server, running, _shutdown) = serve(ours.path()).await;
    let client = kube::Client::try_from(config(&running).await).unwrap();
    assert_eq!(answer(&client, "/api/v1/namespaces", None).await, 200);

    // A server's certificate with a week left.
    let before = std::fs::read(ours.path().join("server.crt")).unwrap();
    let read = |name: &str| std::fs::read_to_string(ours.path().join(name)).unwrap();
    let issuer = rcgen::Issuer::from_ca_cert_pem(&read("ca.crt"), rcgen::KeyPair::from_pem(&read("ca.key")).unwrap());
    let mut params = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    params
        .subject_alt_names
        .push(rcgen::SanType::IpAddress([127, 0, 0, 1].into()));
    params.use_authority_key_identifier_extension = true;
    let soon = jiff::Timestamp::now() + jiff::SignedDuration::from_hours(24 * 7);
    let soon = soon.to_zoned(jiff::tz::TimeZone::UTC).date();
    params.not_after = rcgen::date_time_ymd(i32::from(soon.year()), soon.month() as u8, soon.day() as u8);
    let key = rcgen::KeyPair::generate().unwrap();
    let short = params.signed_by(&key, &issuer.unwrap()).unwrap().pem();
    std::fs::write(ours.path().join("server.crt"), &short).unwrap();
    std::fs::write(ours.path().join("server.key"), key.serialize_pem()).unwrap();
    let (_again, running, _shutdown) = serve(ours.path()).await;
    let after = std::fs::read(ours.path().join("server.crt")).unwrap();
    assert_ne!(after, short.into_bytes());
    assert_ne!(after, before);
    let client = kube::Client::try_from(config(&running).await).unwrap();
    assert_eq!(answer(&client, "/api/v1/namespaces", None).await, 200);
}

#[tokio::test]
async fn the_identity_is_private_and_stays() {
    let folder = tempfile::tempdir().unwrap();
    let (_server, running, shutdown) = serve(folder.path()).await;
    for file in [
        "ca.key",
        "server.key",
        "admin.key",
        "admin.kubeconfig",
        "service-account.key",
    ] {
        let mode = std::fs::metadata(folder.path().join(file))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600, "{file}");
    }
    let made = folder.path().join("made");
    let (_other, _running, _other_shutdown) = serve(&made).await;
    assert_eq!(std::fs::metadata(&made).unwrap().permissions().mode() & 0o777, 0o700);
    let authority = std::fs::read(folder.path().join("ca.crt")).unwrap();
    let certificate = std::fs::read(folder.path().join("server.crt")).unwrap();
    shutdown.cancel();
    running.ended().await;
    let (_again, running, _shutdown) = serve(folder.path()).await;
    assert_eq!(std::fs::read(folder.path().join("ca.crt")).unwrap(), authority);
    assert_eq!(std::fs::read(folder.path().join("server.crt")).unwrap(), certificate);
    let path = folder.path().join("copy");
    std::fs::write(&path, "old and readable").unwrap();
    running.write_kubeconfig(&path).unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(std::fs::read_to_string(&path).unwrap(), running.kubeconfig());
}
