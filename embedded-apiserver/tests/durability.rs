//! What was acknowledged is there after `kill -9`, and revisions never go back.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)] // helpers of tests are tests

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use embedded_apiserver::{ApiServer, OpenError, StartError};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use kube::api::{Api, ListParams, PostParams, WatchEvent, WatchParams};
use serde_json::json;

const DATA_FILE: &str = "EMBEDDED_APISERVER_TEST_DATA_FILE";
const ROUND: &str = "EMBEDDED_APISERVER_TEST_ROUND";

fn map(name: &str) -> ConfigMap {
    serde_json::from_value(json!({ "metadata": { "name": name }, "data": { "payload": "x".repeat(300) } })).unwrap()
}

/// Opens the file; who had it before lets it go a moment after the end.
async fn open(path: &Path) -> (ApiServer, kube::Client) {
    for _ in 0..1000 {
        match ApiServer::builder().data_file(path).build().await {
            Ok(server) => {
                let client = kube::Client::new(server.service(), "default");
                return (server, client);
            }
            Err(StartError::Open(OpenError::InUse(_))) => tokio::time::sleep(Duration::from_millis(10)).await,
            Err(error) => panic!("{error}"),
        }
    }
    panic!("the file was never let go");
}

/// The child: writes without end, saying of each object when it was acknowledged. Does nothing in a normal test run.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn child_that_writes() {
    let Ok(path) = std::env::var(DATA_FILE) else { return };
    let round = std::env::var(ROUND).unwrap();
    let (server, client) = open(Path::new(&path)).await;
    println!("\nrevision {}", server.revision());
    let mut writers = tokio::task::JoinSet::new();
    for writer in 0..8 {
        let maps: Api<ConfigMap> = Api::default_namespaced(client.clone());
        let round = round.clone();
        writers.spawn(async move {
            for at in 0..100_000 {
                let name = format!("r{round}-w{writer}-{at}");
                let made = maps.create(&PostParams::default(), &map(&name)).await.unwrap();
                println!("\nwritten {name} {}", made.metadata.resource_version.unwrap());
            }
        });
    }
    writers.join_all().await;
}

struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_acknowledged_is_lost_by_a_kill() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("data");
    let mut acknowledged: Vec<(String, u64)> = Vec::new();
    let mut last_revision = 0;
    let mut system_uid = None;
    for round in 0..5 {
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "child_that_writes", "--nocapture", "--test-threads=1"])
            .env(DATA_FILE, &path)
            .env(ROUND, round.to_string())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut child = Killed(child);
        let mut lines = BufReader::new(child.0.stdout.take().unwrap()).lines();
        let mut written = 0;
        while written < 150 {
            let line = lines.next().expect("the child ended by itself").unwrap();
            let mut words = line.split(' ');
            match (words.next(), words.next(), words.next()) {
                (Some("revision"), Some(revision), _) => {
                    let revision: u64 = revision.parse().unwrap();
                    assert!(revision >= last_revision, "the revision went back");
                }
                (Some("written"), Some(name), Some(revision)) => {
                    acknowledged.push((name.to_owned(), revision.parse().unwrap()));
                    written += 1;
                }
                _ => {}
            }
        }
        child.0.kill().unwrap();
        child.0.wait().unwrap();
        // What it had said before it died counts too.
        for line in lines.map_while(Result::ok) {
            let mut words = line.split(' ');
            if let (Some("written"), Some(name), Some(Ok(revision))) =
                (words.next(), words.next(), words.next().map(str::parse))
            {
                acknowledged.push((name.to_owned(), revision));
            }
        }
        let (server, client) = open(&path).await;
        let maps: Api<ConfigMap> = Api::default_namespaced(client.clone());
        let found = maps.list(&ListParams::default()).await.unwrap();
        let found: std::collections::HashMap<String, u64> = found
            .items
            .into_iter()
            .map(|map| {
                (
                    map.metadata.name.unwrap(),
                    map.metadata.resource_version.unwrap().parse().unwrap(),
                )
            })
            .collect();
        for (name, revision) in &acknowledged {
            assert_eq!(found.get(name), Some(revision), "{name} was acknowledged and is lost");
        }
        last_revision = server.revision();
        assert!(found.values().all(|revision| *revision <= last_revision));
        let namespaces: Api<Namespace> = Api::all(client.clone());
        let uid = namespaces.get("kube-system").await.unwrap().metadata.uid;
        assert_eq!(*system_uid.get_or_insert_with(|| uid.clone()), uid);

        // An old revision cannot be watched from any more: the client is told to list again.
        let mut watch = std::pin::pin!(maps.watch(&WatchParams::default(), "2").await.unwrap());
        let Some(Ok(WatchEvent::Error(expired))) = futures::StreamExt::next(&mut watch).await else {
            panic!("the watch did not end with an error");
        };
        assert_eq!((expired.code, expired.reason.as_str()), (410, "Expired"));
    }
}
