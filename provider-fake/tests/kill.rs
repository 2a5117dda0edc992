//! `kill -9` in the middle of a stream of mutations, again and again: what was
//! acknowledged is there, nothing is there twice, nothing is left over.

#![allow(clippy::expect_used, clippy::panic)]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use actuator_proto::v1::DeletionState;
use common::{Fake, create_machine, delete_machine, id};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::task::JoinSet;

const ROUNDS: usize = 30;
const CALLERS: usize = 8;

/// What the answers told, over all rounds.
#[derive(Default)]
struct Told {
    /// Ids by key, of creates that were answered.
    made: BTreeMap<String, String>,
    /// Keys of creates that were sent.
    asked: BTreeSet<String>,
    /// Keys of deletions that were answered with GONE.
    gone: BTreeSet<String>,
    /// Keys of deletions that were sent.
    deleting: BTreeSet<String>,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_acknowledged_is_lost_and_nothing_is_made_twice() {
    let mut fake = Fake::with_cluster(&["--max-concurrent-mutations=64"]).await;
    let told = Arc::new(Mutex::new(Told::default()));
    for round in 0..ROUNDS {
        let (answers, enough) = (Arc::new(AtomicUsize::new(0)), Arc::new(Notify::new()));
        // Each round is killed after another number of answers.
        let limit = 5 + round * 7 % 40;
        let mut callers = JoinSet::new();
        for caller in 0..CALLERS {
            let (mut machines, told) = (fake.machines(), Arc::clone(&told));
            let (answers, enough) = (Arc::clone(&answers), Arc::clone(&enough));
            callers.spawn(async move {
                for n in 0..1_000 {
                    let key = format!("r{round}-c{caller}-{n}");
                    told.lock().asked.insert(key.clone());
                    let Ok(answer) = machines.create_machine(create_machine(&key)).await else {
                        return;
                    };
                    told.lock().made.insert(key.clone(), id(answer));
                    if n % 3 == 0 {
                        told.lock().deleting.insert(key.clone());
                        let Ok(_) = machines.delete_machine(delete_machine(&key)).await else {
                            return;
                        };
                        told.lock().gone.insert(key);
                    }
                    if answers.fetch_add(1, Ordering::Relaxed) == limit {
                        enough.notify_one();
                    }
                }
            });
        }
        tokio::time::timeout(common::PATIENCE, enough.notified())
            .await
            .expect("answers come");
        fake.kill();
        while let Some(ended) = callers.join_next().await {
            ended.expect("no panic");
        }
        // The journal alone tells it already, before anything is started again.
        check(&fake, &told.lock());
        fake.restart().await;
    }
    let told = Arc::into_inner(told).expect("all callers have ended").into_inner();
    assert!(told.made.len() > ROUNDS * 5 && told.gone.len() > ROUNDS);

    // Every create is replayed, as the core would after each crash.
    let mut expected = BTreeSet::new();
    for key in &told.asked {
        let answer = fake.machines().create_machine(create_machine(key)).await;
        match answer {
            Ok(answer) => {
                let made = id(answer);
                assert_eq!(told.made.get(key).unwrap_or(&made), &made, "another id after the crash");
                assert!(!told.gone.contains(key), "{key} was deleted and came back");
                expected.insert(key.clone());
            }
            Err(status) => assert!(told.deleting.contains(key), "{key}: {status:?}"),
        }
    }
    let mut report = fake.audit();
    report.expect_keys(expected.iter().map(String::as_str));
    assert!(
        report.clean,
        "{:?} {:?} {:?}",
        report.duplicates, report.orphans, report.missing_keys
    );
    assert_eq!(report.starts as usize, ROUNDS + 1);

    // And the binary says the same, while the provider runs.
    let keys = fake.state_dir().join("keys.txt");
    std::fs::write(&keys, expected.into_iter().collect::<Vec<_>>().join("\n")).expect("written");
    let audit = |keys: &std::path::Path| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_provider-fake"));
        command
            .arg("audit")
            .arg("--state-dir")
            .arg(fake.state_dir())
            .arg("--expect-keys")
            .arg(keys);
        command.output().expect("it runs")
    };
    let output = audit(&keys);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(json["duplicates"], serde_json::json!([]));
    std::fs::write(&keys, "nobody").expect("written");
    assert_eq!(audit(&keys).status.code(), Some(1));
}

/// As the core does: replays until there is an answer, whatever comes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn faults_and_kills_together_leave_one_machine_for_each_key() {
    const MACHINES: usize = 60;
    let mut fake = Fake::with_cluster(&[
        "--error-rate=RunInstance:CLOUD_UNAVAILABLE=0.15,TerminateInstance:CLOUD_UNCLASSIFIED=0.15,RATE_LIMITED=0.05",
        "--lose-responses=0.1",
        "--lost-response-timeout=20ms",
        "--api-latency=2ms",
        "--boot-delay=30ms",
        "--delete-delay=10ms",
        "--read-after-write=20ms",
        "--capacity=zone-a=20",
        "--seed=3",
    ])
    .await;
    let keys: Vec<String> = (0..MACHINES).map(|n| format!("m{n}")).collect();
    let (kept, deleted) = keys.split_at(MACHINES / 2);
    let mut open: BTreeSet<&String> = keys.iter().collect();
    let mut to_delete: BTreeSet<&String> = deleted.iter().collect();
    let mut ids: BTreeMap<&String, String> = BTreeMap::new();
    for round in 0.. {
        assert!(round < 200, "no end: {open:?} {to_delete:?}");
        let creates = open.iter().map(|key| {
            let mut machines = fake.machines();
            async move { (*key, machines.create_machine(create_machine(key)).await) }
        });
        let made: Vec<_> = futures::future::join_all(creates).await;
        for (key, answer) in made {
            if let Ok(answer) = answer {
                let id = id(answer);
                assert_eq!(ids.entry(key).or_insert_with(|| id.clone()), &id);
                open.remove(key);
            }
        }
        let ready = to_delete.iter().filter(|key| !open.contains(**key));
        let deletes = ready.map(|key| {
            let mut machines = fake.machines();
            async move { (*key, machines.delete_machine(delete_machine(key)).await) }
        });
        let gone: Vec<_> = futures::future::join_all(deletes).await;
        for (key, answer) in gone {
            if answer.is_ok_and(|answer| answer.get_ref().state() == DeletionState::Gone) {
                to_delete.remove(key);
            }
        }
        if open.is_empty() && to_delete.is_empty() {
            break;
        }
        if round % 2 == 0 {
            fake.restart().await;
        }
    }
    let mut report = fake.audit();
    report.expect_keys(kept.iter().map(String::as_str));
    assert!(
        report.clean,
        "{:?} {:?} {:?}",
        report.duplicates, report.orphans, report.unexpected_keys
    );
    assert_eq!(report.changes["instance"]["created"] as usize, MACHINES);
    assert!(
        report.lost_responses > 0 && report.calls["RunInstance"].len() > 2,
        "{:?}",
        report.calls
    );
}

fn check(fake: &Fake, told: &Told) {
    let report = fake.audit();
    assert!(report.clean, "{:?} {:?}", report.duplicates, report.orphans);
    for (key, made) in &told.made {
        match report.instances.get(key) {
            Some(live) => assert!(made.ends_with(&live[0].id), "{key} has another id"),
            None => assert!(told.deleting.contains(key), "{key} was answered and is lost"),
        }
    }
    for key in &told.gone {
        assert!(!report.instances.contains_key(key), "{key} was gone and is there");
    }
}
