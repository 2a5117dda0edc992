//! The server over TLS: certificates, who is let in, kubeconfig, HTTP details.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)] // helpers of tests are tests

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

use embedded_apiserver::{ApiServer, Running};
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

#[tokio::test]
async fn only_health_and_version_are_for_everyone() {
    let folder = tempfile::tempdir().unwrap();
    let (_server, running, _shutdown) = serve(folder.path()).await;
    let mut config = config(&running).await;
    config.auth_info = kube::config::AuthInfo::default();
    let client = kube::Client::try_from(config).unwrap();
    for path in ["/healthz", "/livez", "/readyz?verbose", "/version"] {
        let request = http::Request::get(path).body(Vec::new()).unwrap();
        client.request_text(request).await.unwrap();
    }
    for path in ["/api", "/apis", "/api/v1/namespaces", "/openapi/v3", "/nothing"] {
        let request = http::Request::get(path).body(Vec::new()).unwrap();
        let kube::Error::Api(refused) = client.request::<Value>(request).await.unwrap_err() else {
            panic!("no API error at {path}");
        };
        assert_eq!((refused.code, refused.reason.as_str()), (401, "Unauthorized"), "{path}");
    }
}

#[tokio::test]
async fn a_certificate_of_another_authority_is_no_certificate() {
    let (ours, theirs) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (_server, running, _shutdown) = serve(ours.path()).await;
    let (_other, stranger, _other_shutdown) = serve(theirs.path()).await;
    let mut config = config(&running).await;
    config.auth_info = self::config(&stranger).await.auth_info;
    let client = kube::Client::try_from(config).unwrap();
    let maps: Api<ConfigMap> = Api::default_namespaced(client);
    assert!(maps.list(&ListParams::default()).await.is_err());
}

#[tokio::test]
async fn the_identity_is_private_and_stays() {
    let folder = tempfile::tempdir().unwrap();
    let (_server, running, shutdown) = serve(folder.path()).await;
    for file in ["ca.key", "server.key", "admin.key", "admin.kubeconfig"] {
        let mode = std::fs::metadata(folder.path().join(file))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600, "{file}");
    }
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
