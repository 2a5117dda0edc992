//! Many writers and watchers at once: no update is lost, no event is lost, and all agree in the end.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // helpers of tests are tests

use std::collections::BTreeMap;
use std::time::Duration;

use embedded_apiserver::ApiServer;
use futures::TryStreamExt as _;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams, WatchEvent, WatchParams};
use rand::{Rng as _, SeedableRng as _};
use serde_json::json;

fn map(name: &str) -> ConfigMap {
    serde_json::from_value(json!({ "metadata": { "name": name }, "data": { "count": "0" } })).unwrap()
}

async fn server(folder: &std::path::Path, file: bool) -> (ApiServer, Api<ConfigMap>) {
    let builder = ApiServer::builder();
    let builder = if file {
        builder.data_file(folder.join("data"))
    } else {
        builder.in_memory()
    };
    let server = builder.build().await.unwrap();
    let maps = Api::default_namespaced(kube::Client::new(server.service(), "default"));
    (server, maps)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_update_is_lost_among_writers_that_check_revisions() {
    let folder = tempfile::tempdir().unwrap();
    for file in [false, true] {
        let (_server, maps) = server(folder.path(), file).await;
        maps.create(&PostParams::default(), &map("counter")).await.unwrap();
        let mut writers = tokio::task::JoinSet::new();
        for _ in 0..8 {
            let maps = maps.clone();
            writers.spawn(async move {
                let mut done = 0;
                while done < 20 {
                    let mut counter = maps.get("counter").await.unwrap();
                    let count: u64 = counter.data.as_ref().unwrap()["count"].parse().unwrap();
                    counter
                        .data
                        .as_mut()
                        .unwrap()
                        .insert("count".to_owned(), (count + 1).to_string());
                    match maps.replace("counter", &PostParams::default(), &counter).await {
                        Ok(_) => done += 1,
                        Err(kube::Error::Api(status)) if status.code == 409 => {}
                        Err(error) => panic!("{error}"),
                    }
                }
            });
        }
        writers.join_all().await;
        assert_eq!(maps.get("counter").await.unwrap().data.unwrap()["count"], "160");
    }
}

type State = BTreeMap<String, String>;

/// Follows the objects from a revision on until the object `end` comes, and answers what there is then.
async fn follow(maps: Api<ConfigMap>, mut state: State, since: String, pause: Option<Duration>) -> State {
    let mut last: u64 = since.parse().unwrap();
    let mut watch = std::pin::pin!(maps.watch(&WatchParams::default(), &since).await.unwrap());
    while let Some(event) = watch.try_next().await.unwrap() {
        let (object, gone, known) = match event {
            WatchEvent::Added(object) => (object, false, Some(false)),
            WatchEvent::Modified(object) => (object, false, Some(true)),
            WatchEvent::Deleted(object) => (object, true, Some(true)),
            WatchEvent::Bookmark(_) => continue,
            WatchEvent::Error(error) => panic!("{error:?}"),
        };
        let name = object.metadata.name.unwrap();
        let revision = object.metadata.resource_version.unwrap();
        let number: u64 = revision.parse().unwrap();
        assert!(number > last, "events out of order");
        last = number;
        if name == "end" {
            return state;
        }
        assert_eq!(Some(state.contains_key(&name)), known, "{name} came or went twice");
        if gone {
            state.remove(&name)
        } else {
            state.insert(name, revision)
        };
        if let Some(pause) = pause {
            tokio::time::sleep(pause).await;
        }
    }
    panic!("the watch ended");
}

async fn listed(maps: &Api<ConfigMap>) -> (State, String) {
    let list = maps.list(&ListParams::default()).await.unwrap();
    let state = list
        .items
        .into_iter()
        .map(|map| (map.metadata.name.unwrap(), map.metadata.resource_version.unwrap()))
        .filter(|(name, _)| name != "end")
        .collect();
    (state, list.metadata.resource_version.unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_watchers_arrive_at_what_is_stored() {
    let folder = tempfile::tempdir().unwrap();
    for file in [false, true] {
        let (_server, maps) = server(folder.path(), file).await;
        let mut writers = tokio::task::JoinSet::new();
        for seed in 0..6 {
            let maps = maps.clone();
            writers.spawn(async move {
                let mut random = rand::rngs::StdRng::seed_from_u64(seed);
                for at in 0..120 {
                    let name = format!("m{}", random.random_range(0..12));
                    // Whoever loses a race is refused; that is part of the churn.
                    let _ = match random.random_range(0..4) {
                        0 => maps.create(&PostParams::default(), &map(&name)).await.map(drop),
                        1 => maps.delete(&name, &DeleteParams::default()).await.map(drop),
                        _ => {
                            let patch = Patch::Merge(json!({ "data": { "count": format!("{seed}-{at}") } }));
                            maps.patch(&name, &PatchParams::default(), &patch).await.map(drop)
                        }
                    };
                }
            });
        }
        // Watchers that come at different times, one of them slow.
        let mut watchers = tokio::task::JoinSet::new();
        for at in 0..6 {
            let (state, since) = listed(&maps).await;
            let pause = (at == 0).then_some(Duration::from_millis(1));
            watchers.spawn(follow(maps.clone(), state, since, pause));
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        writers.join_all().await;
        maps.create(&PostParams::default(), &map("end")).await.unwrap();
        let (stored, _) = listed(&maps).await;
        let seen = tokio::time::timeout(Duration::from_mins(1), watchers.join_all())
            .await
            .unwrap();
        for state in seen {
            assert_eq!(state, stored);
        }
    }
}
