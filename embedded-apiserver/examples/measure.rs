//! Figures of the server in process, as a table: `cargo run --release --example measure`.

use std::time::{Duration, Instant};

use embedded_apiserver::ApiServer;
use futures::{StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Api, ListParams, PostParams, WatchParams};
use serde_json::json;

fn map(name: &str) -> ConfigMap {
    serde_json::from_value(json!({ "metadata": { "name": name, "labels": { "app": "x" } }, "data": { "a": "b" } }))
        .unwrap_or_default()
}

fn resident_mib() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .unwrap_or_default();
    line.split_whitespace()
        .next()
        .and_then(|number| number.parse::<f64>().ok())
        .unwrap_or_default()
        / 1024.0
}

fn show(what: &str, value: f64, unit: &str) {
    #[allow(clippy::print_stdout)] // figures are what it is for
    {
        println!("{what:<44} {value:>12.1} {unit}");
    }
}

async fn creates(maps: &Api<ConfigMap>, prefix: &str, clients: usize, total: usize) -> Result<Duration, kube::Error> {
    let start = Instant::now();
    let mut tasks = tokio::task::JoinSet::new();
    for client in 0..clients {
        let (maps, prefix) = (maps.clone(), prefix.to_owned());
        tasks.spawn(async move {
            for at in 0..total / clients {
                maps.create(&PostParams::default(), &map(&format!("{prefix}-{client}-{at}")))
                    .await?;
            }
            Ok::<(), kube::Error>(())
        });
    }
    while let Some(done) = tasks.join_next().await {
        if let Ok(result) = done {
            result?;
        }
    }
    Ok(start.elapsed())
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = tempfile::tempdir()?;
    for file in [false, true] {
        let kind = if file { "file" } else { "memory" };
        let start = Instant::now();
        let builder = ApiServer::builder();
        let builder = if file {
            builder.data_file(folder.path().join("data"))
        } else {
            builder.in_memory()
        };
        let server = builder.build().await?;
        show(
            &format!("{kind}: start to ready"),
            start.elapsed().as_secs_f64() * 1000.0,
            "ms",
        );
        let maps: Api<ConfigMap> = Api::default_namespaced(kube::Client::new(server.service(), "default"));
        for clients in [1, 16, 64] {
            let total = if file && clients == 1 { 320 } else { 3200 };
            let took = creates(&maps, &format!("{kind}{clients}"), clients, total).await?;
            show(
                &format!("{kind}: creates, {clients} clients"),
                total as f64 / took.as_secs_f64(),
                "/s",
            );
        }
        let start = Instant::now();
        for _ in 0..2000 {
            maps.get(&format!("{kind}64-0-0")).await?;
        }
        show(
            &format!("{kind}: gets, 1 client"),
            2000.0 / start.elapsed().as_secs_f64(),
            "/s",
        );
    }

    let server = ApiServer::builder().in_memory().build().await?;
    let maps: Api<ConfigMap> = Api::default_namespaced(kube::Client::new(server.service(), "default"));
    let (sender, mut seen) = tokio::sync::mpsc::channel(10_000);
    let since = maps
        .list(&ListParams::default())
        .await?
        .metadata
        .resource_version
        .unwrap_or_default();
    for _ in 0..100 {
        let mut watch = maps.watch(&WatchParams::default(), &since).await?.boxed();
        let sender = sender.clone();
        tokio::spawn(async move {
            while let Ok(Some(_)) = watch.try_next().await {
                if sender.send(Instant::now()).await.is_err() {
                    return;
                }
            }
        });
    }
    let mut delays = Vec::new();
    for at in 0..50 {
        let start = Instant::now();
        maps.create(&PostParams::default(), &map(&format!("fan-{at}"))).await?;
        for _ in 0..100 {
            if let Some(then) = seen.recv().await {
                delays.push(then.duration_since(start).as_secs_f64() * 1000.0);
            }
        }
    }
    delays.sort_by(f64::total_cmp);
    for (name, share) in [("p50", 0.5), ("p99", 0.99)] {
        let at = (delays.len() as f64 * share) as usize;
        show(
            &format!("write to event, 100 watchers, {name}"),
            delays.get(at).copied().unwrap_or_default(),
            "ms",
        );
    }

    let before = resident_mib();
    for (name, total) in [("10k", 10_000), ("100k", 90_000)] {
        creates(&maps, name, 16, total).await?;
        let start = Instant::now();
        let listed = maps.list_metadata(&ListParams::default().limit(500)).await?.items.len();
        show(
            &format!("resident memory after {name} objects"),
            resident_mib() - before,
            "MiB more",
        );
        show(
            &format!("list of {listed} of them"),
            start.elapsed().as_secs_f64() * 1000.0,
            "ms",
        );
    }
    Ok(())
}
