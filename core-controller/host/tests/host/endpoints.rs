//! Endpoints that cannot be used, each with its sentence.

use provider_host::{Endpoint, EndpointConfig, EndpointError, EndpointSource, Pem, ProviderState, Rate, TlsFiles};

use crate::scripted::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_or_a_link_is_misconfigured_until_it_is_mended() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("fake.sock");
    std::fs::write(&path, "no socket").unwrap();
    let host = host();
    host.set_endpoint("fake", unix(&path)).unwrap();
    let snapshot = until(&host, "fake", |snapshot| snapshot.state == ProviderState::Misconfigured).await;
    assert!(snapshot.message.contains("is not a socket"), "{}", snapshot.message);

    let script = Script::provider("fake", "instance-1");
    let real = folder.path().join("real.sock");
    let _serving = script.serve(&real);
    std::fs::remove_file(&path).unwrap();
    std::os::unix::fs::symlink(&real, &path).unwrap();
    let snapshot = until(&host, "fake", |snapshot| snapshot.message.contains("symbolic link")).await;
    assert_eq!(snapshot.state, ProviderState::Misconfigured);

    let _serving = script.serve(&path);
    until(&host, "fake", |snapshot| snapshot.state == ProviderState::Ready).await;
}

#[tokio::test]
async fn what_cannot_work_is_refused_when_it_is_set() {
    let host = host();
    let flag = |text: &str| EndpointConfig::new(text.parse().unwrap(), EndpointSource::Flag);
    let tls = TlsFiles {
        ca: Pem::File("/ca".into()),
        certificate: Pem::File("/cert".into()),
        key: Pem::File("/key".into()),
        server_name: None,
    };
    let set = |name: &str, config: EndpointConfig| host.set_endpoint(name, config).unwrap_err();
    assert!(matches!(set("Fake", flag("unix:///a")), EndpointError::Name(_)));
    assert!(matches!(set("fake", flag("https://h:1")), EndpointError::TlsMissing(_)));
    assert!(matches!(
        set("fake", flag("http://127.0.0.1:1")),
        EndpointError::PlainNotAllowed(_)
    ));
    let mut config = flag("unix:///a");
    config.tls = Some(tls);
    assert!(matches!(set("fake", config), EndpointError::TlsUnused(_)));
    let mut config = flag("unix:///a");
    config.rate = Some(Rate {
        per_second: 0.0,
        burst: 1,
    });
    assert!(matches!(set("fake", config), EndpointError::Rate(_)));
    let long = Endpoint::Unix(format!("/{}", "a".repeat(200)).into());
    assert!(matches!(
        set("fake", EndpointConfig::new(long, EndpointSource::Flag)),
        EndpointError::PathTooLong { .. }
    ));
    assert!(host.snapshots().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn plain_http_to_loopback_works_with_its_flag() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let script = Script::provider("fake", "instance-1");
    let accept = tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            script.clone().connection(stream);
        }
    });
    let host = host();
    let mut config = EndpointConfig::new(Endpoint::HttpLoopback(address), EndpointSource::Flag);
    config.allow_plain_http = true;
    host.set_endpoint("fake", config).unwrap();
    until(&host, "fake", |snapshot| snapshot.state == ProviderState::Ready).await;
    accept.abort();
}
