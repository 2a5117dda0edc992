//! Data files that are not as they were written: each is opened with all that was acknowledged, or refused with a
//! sentence that says what is wrong. Nothing is lost silently, and nothing panics.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // helpers of tests are tests

use std::path::Path;

use embedded_apiserver::{ApiServer, StartError};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Api, ListParams, PostParams};
use rand::{Rng as _, SeedableRng as _};
use redb::{Database, TableDefinition};
use serde_json::json;

const OBJECTS: usize = 60;

fn maps(server: &ApiServer) -> Api<ConfigMap> {
    Api::default_namespaced(kube::Client::new(server.service(), "default"))
}

/// A file with acknowledged objects: as it is after a kill, and as it is after an orderly end.
async fn written(folder: &Path) -> (Vec<u8>, Vec<u8>) {
    let path = folder.join("whole");
    let server = ApiServer::builder().data_file(&path).build().await.unwrap();
    let maps = maps(&server);
    for at in 0..OBJECTS {
        let map = json!({
            "metadata": { "name": format!("m-{at}") },
            "data": { "payload": format!("{at}-").repeat(at * 20) },
        });
        let map: ConfigMap = serde_json::from_value(map).unwrap();
        maps.create(&PostParams::default(), &map).await.unwrap();
    }
    let killed = std::fs::read(&path).unwrap();
    drop(maps);
    drop(server);
    // It is let go once it can be opened again.
    drop(ApiServer::builder().data_file(&path).build().await.unwrap());
    drop(ApiServer::builder().data_file(&path).build().await.unwrap());
    (killed, std::fs::read(&path).unwrap())
}

/// What became of an attempt to open a file.
#[derive(Debug, PartialEq)]
enum Outcome {
    Whole,
    Refused(String),
}

async fn opened(path: &Path) -> Outcome {
    match ApiServer::builder().data_file(path).build().await {
        Ok(server) => {
            let listed = maps(&server).list(&ListParams::default()).await.unwrap().items;
            let whole = listed.iter().all(|map| {
                let name = map.metadata.name.as_deref().unwrap();
                let at: usize = name.strip_prefix("m-").unwrap().parse().unwrap();
                map.data.as_ref().unwrap()["payload"] == format!("{at}-").repeat(at * 20)
            });
            assert!(whole, "an object is not as it was written");
            assert_eq!(listed.len(), OBJECTS, "objects were lost silently");
            Outcome::Whole
        }
        Err(StartError::Open(error)) => Outcome::Refused(error.to_string()),
        Err(error) => panic!("{error}"),
    }
}

fn assert_clear(message: &str, path: &Path) {
    assert!(message.contains(&path.display().to_string()), "{message}");
    assert!(!message.contains("ended in a bug"), "{message}");
    assert!(!message.contains('\n') && !message.ends_with('.'), "{message}");
    let says_what_to_do = [
        "restore",
        "remove",
        "name a",
        "use a newer",
        "use the version",
        "free some",
    ];
    assert!(says_what_to_do.iter().any(|what| message.contains(what)), "{message}");
}

/// Each attempt has a file of its own: the one before may still be on its way out.
async fn try_content(folder: &Path, content: &[u8]) -> Outcome {
    let path = folder.join(uuid::Uuid::new_v4().to_string());
    std::fs::write(&path, content).unwrap();
    let outcome = opened(&path).await;
    if let Outcome::Refused(message) = &outcome {
        assert_clear(message, &path);
    }
    std::fs::remove_file(&path).unwrap();
    outcome
}

#[tokio::test]
async fn a_file_that_is_cut_short_is_refused_or_whole() {
    let folder = tempfile::tempdir().unwrap();
    let (killed, ended) = written(folder.path()).await;
    assert_eq!(try_content(folder.path(), &killed).await, Outcome::Whole);
    assert_eq!(try_content(folder.path(), &ended).await, Outcome::Whole);
    for whole in [killed, ended] {
        let mut lengths: Vec<usize> = vec![1, 8, 9, 10, 63, 64, 320, 511, 512, 4095, 4096, 4097, whole.len() - 1];
        lengths.extend((1..40).map(|part| whole.len() * part / 40));
        let mut refused = 0;
        for length in lengths {
            let outcome = try_content(folder.path(), &whole[..length]).await;
            refused += usize::from(outcome != Outcome::Whole);
        }
        assert!(refused > 20, "only {refused} of the shorter files were refused");
    }
}

#[tokio::test]
async fn a_flipped_bit_is_told_or_harmless() {
    let folder = tempfile::tempdir().unwrap();
    let (killed, ended) = written(folder.path()).await;
    let mut random = rand::rngs::StdRng::seed_from_u64(11);
    for whole in [killed, ended] {
        // The header decides what is read: all of it. Elsewhere most of the file is free space.
        let used: Vec<usize> = (512..whole.len()).filter(|at| whole[*at] != 0).collect();
        let anywhere: Vec<usize> = (0..120).map(|_| used[random.random_range(0..used.len())]).collect();
        let mut flips: Vec<(usize, u8)> = (0..320)
            .chain(anywhere)
            .map(|at| (at, random.random_range(0..8)))
            .collect();
        flips.extend((0..8).map(|bit| (9, bit)));
        // The one bit that says which of two commits is the newer is, flipped, just what a kill between the phases of
        // a commit leaves; nobody can tell these apart.
        flips.retain(|flip| *flip != (9, 0));
        let mut refused = 0;
        for (at, bit) in flips {
            let mut flipped = whole.clone();
            flipped[at] ^= 1 << bit;
            let outcome = try_content(folder.path(), &flipped).await;
            refused += usize::from(outcome != Outcome::Whole);
        }
        assert!(refused > 30, "only {refused} flipped bits were noticed");
    }
}

#[tokio::test]
async fn what_is_no_data_file_is_refused_and_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let said = |outcome: Outcome| match outcome {
        Outcome::Refused(message) => message,
        Outcome::Whole => panic!("it was opened"),
    };
    let empty = said(try_content(folder.path(), b"").await);
    assert!(empty.contains("it is empty"), "{empty}");
    let path = folder.path().join("other");
    for content in [&b"SQLite format 3\0 and more"[..], b"hello\n", &[0; 8192]] {
        std::fs::write(&path, content).unwrap();
        let message = said(opened(&path).await);
        assert!(message.contains("not a data file of this program"), "{message}");
        assert_eq!(
            std::fs::read(&path).unwrap(),
            content,
            "the other program's file was changed"
        );
    }
    let message = said(opened(folder.path()).await);
    assert!(message.contains("it is a folder; name a file"), "{message}");

    // The same kind of database, of another program.
    let foreign = folder.path().join("foreign");
    let table: TableDefinition<'_, &str, u64> = TableDefinition::new("settings");
    let database = Database::create(&foreign).unwrap();
    let transaction = database.begin_write().unwrap();
    transaction.open_table(table).unwrap().insert("size", 1).unwrap();
    transaction.commit().unwrap();
    drop(database);
    let message = said(opened(&foreign).await);
    assert!(message.contains("not a data file of this program"), "{message}");
}

#[tokio::test]
async fn a_file_of_a_newer_format_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (_, whole) = written(folder.path()).await;
    let path = folder.path().join("newer");
    std::fs::write(&path, whole).unwrap();
    let numbers: TableDefinition<'_, &str, u64> = TableDefinition::new("numbers");
    let database = Database::open(&path).unwrap();
    let transaction = database.begin_write().unwrap();
    transaction.open_table(numbers).unwrap().insert("format", 2).unwrap();
    transaction.commit().unwrap();
    drop(database);
    let Outcome::Refused(message) = opened(&path).await else {
        panic!("it was opened");
    };
    assert_clear(&message, &path);
    assert!(
        message.contains("has format 2, this version reads format 1"),
        "{message}"
    );
}

#[tokio::test]
async fn a_file_in_use_is_refused_and_the_user_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("shared");
    let server = ApiServer::builder().data_file(&path).build().await.unwrap();
    let Outcome::Refused(message) = opened(&path).await else {
        panic!("it was opened twice");
    };
    assert!(
        message.contains("in use by another process; stop that one first"),
        "{message}"
    );
    let map: ConfigMap = serde_json::from_value(json!({ "metadata": { "name": "m" } })).unwrap();
    maps(&server).create(&PostParams::default(), &map).await.unwrap();
}
