use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

fn object(name: &str, payload: u32) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Thing",
        "metadata": { "name": name, "uid": format!("uid-{name}"), "labels": { "payload": payload.to_string() } },
        "spec": { "payload": payload },
    })
}

fn put(key: Key, expect: Expect, payload: u32) -> Write {
    let change = Change::Put(Encoded::new(&object(&key.object.name, payload)).unwrap());
    Write {
        key,
        expect,
        guards: Vec::new(),
        change,
    }
}

fn things() -> Arc<str> {
    "things.example.com".into()
}

fn payload(stored: &Stored) -> u32 {
    stored.value().unwrap()["spec"]["payload"].as_u64().unwrap() as u32
}

#[tokio::test]
async fn the_bytes_carry_the_revision_wherever_the_field_falls() {
    let store = Store::in_memory(HistoryLimits::default());
    for (at, metadata) in [
        json!({ "name": "a" }),
        json!({ "name": "b", "uid": "x", "resourceVersion": "77" }),
        json!({ "name": "c", "zone": "last" }),
        json!({}),
    ]
    .into_iter()
    .enumerate()
    {
        let value = json!({ "kind": "Thing", "metadata": metadata, "spec": { "resourceVersion": "left alone" } });
        let change = Change::Put(Encoded::new(&value).unwrap());
        let key = Key::new(&things(), "", &at.to_string());
        let stored = store
            .write(Write {
                key,
                expect: Expect::Absent,
                guards: Vec::new(),
                change,
            })
            .await
            .unwrap();
        let read = stored.value().unwrap();
        assert_eq!(read["metadata"]["resourceVersion"], stored.revision.to_string());
        assert_eq!(read["spec"]["resourceVersion"], "left alone");
    }
}

#[tokio::test]
async fn a_write_against_another_revision_changes_nothing() {
    let store = Store::in_memory(HistoryLimits::default());
    let key = Key::new(&things(), "default", "a");
    let first = store.write(put(key.clone(), Expect::Absent, 1)).await.unwrap();
    assert!(matches!(
        store.write(put(key.clone(), Expect::Absent, 2)).await,
        Err(WriteError::Exists(_))
    ));
    let wrong = Expect::Revision(first.revision + 1);
    assert!(matches!(
        store.write(put(key.clone(), wrong, 2)).await,
        Err(WriteError::Conflict(_))
    ));
    let second = store
        .write(put(key.clone(), Expect::Revision(first.revision), 2))
        .await
        .unwrap();
    assert_eq!(second.revision, first.revision + 1);
    assert_eq!(payload(&store.get(&key).unwrap()), 2);
    let missing = Key::new(&things(), "default", "b");
    assert!(matches!(
        store.write(put(missing, Expect::Revision(1), 2)).await,
        Err(WriteError::NotFound)
    ));
}

#[tokio::test]
async fn guards_are_judged_in_the_same_instant() {
    let store = Store::in_memory(HistoryLimits::default());
    let namespace = Key::new(&"namespaces".into(), "", "work");
    let mut write = put(Key::new(&things(), "work", "a"), Expect::Absent, 1);
    write.guards = vec![Guard::Live(namespace.clone())];
    assert!(matches!(store.write(write).await, Err(WriteError::Guard)));
    let made = store.write(put(namespace.clone(), Expect::Absent, 0)).await.unwrap();
    let mut write = put(Key::new(&things(), "work", "a"), Expect::Absent, 1);
    write.guards = vec![Guard::Live(namespace.clone())];
    store.write(write).await.unwrap();
    let last = Change::Delete(Encoded::new(&object("work", 0)).unwrap());
    let write = Write {
        key: namespace,
        expect: Expect::Revision(made.revision),
        guards: vec![Guard::NamespaceEmpty("work".to_owned())],
        change: last,
    };
    assert!(matches!(store.write(write).await, Err(WriteError::Guard)));
}

#[tokio::test]
async fn a_history_that_was_cut_says_so() {
    let limits = HistoryLimits {
        events: 3,
        bytes: usize::MAX,
    };
    let store = Store::in_memory(limits);
    let start = store.revision();
    for name in ["a", "b", "c", "d", "e"] {
        store
            .write(put(Key::new(&things(), "", name), Expect::Absent, 1))
            .await
            .unwrap();
    }
    let expired = store.events_after(&things(), start, 10).unwrap_err();
    assert_eq!(
        expired,
        RevisionError::Expired {
            requested: start,
            oldest: start + 2
        }
    );
    assert_eq!(store.events_after(&things(), start + 2, 10).unwrap().events.len(), 3);
    assert!(matches!(
        store.list(&things(), None, None, Some(start), usize::MAX),
        Err(RevisionError::Expired { .. })
    ));
    let future = store.events_after(&things(), start + 6, 10).unwrap_err();
    assert_eq!(
        future,
        RevisionError::Future {
            requested: start + 6,
            current: start + 5
        }
    );
}

#[tokio::test]
async fn the_file_gives_back_what_was_acknowledged() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("data");
    let store = Store::open(&path, HistoryLimits::default()).unwrap();
    assert!(matches!(
        Store::open(&path, HistoryLimits::default()),
        Err(OpenError::InUse(_))
    ));
    let mut writes = Vec::new();
    for at in 0..200_u32 {
        let store = store.clone();
        let key = Key::new(&things(), "default", &format!("thing-{at}"));
        writes.push(tokio::spawn(async move {
            store.write(put(key, Expect::Absent, at)).await.unwrap().revision
        }));
    }
    let mut revisions = Vec::new();
    for write in writes {
        revisions.push(write.await.unwrap());
    }
    revisions.sort_unstable();
    revisions.dedup();
    assert_eq!(revisions.len(), 200, "each write has a revision of its own");
    let before = store.list(&things(), None, None, None, usize::MAX).unwrap();
    drop(store);
    let reopened = reopen(&path).await;
    let after = reopened.list(&things(), None, None, None, usize::MAX).unwrap();
    assert_eq!(after.revision, before.revision);
    let flat = |snapshot: &Snapshot| -> Vec<_> {
        snapshot
            .objects
            .iter()
            .map(|(name, stored)| (name.clone(), stored.revision, stored.bytes.clone()))
            .collect()
    };
    assert_eq!(flat(&after), flat(&before));
    assert!(matches!(
        reopened.events_after(&things(), before.revision - 1, 10),
        Err(RevisionError::Expired { .. })
    ));
    let next = reopened
        .write(put(Key::new(&things(), "", "next"), Expect::Absent, 1))
        .await
        .unwrap();
    assert_eq!(next.revision, before.revision + 1);
}

/// The writer's thread lets the file go a moment after the last handle.
async fn reopen(path: &Path) -> Store {
    for _ in 0..1000 {
        match Store::open(path, HistoryLimits::default()) {
            Err(OpenError::InUse(_)) => tokio::time::sleep(std::time::Duration::from_millis(5)).await,
            other => return other.unwrap(),
        }
    }
    panic!("the file was never let go");
}

#[test]
fn a_damaged_file_is_a_clear_error() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("data");
    std::fs::write(
        &path,
        b"this is no database, but long enough to look like one".repeat(100),
    )
    .unwrap();
    let error = Store::open(&path, HistoryLimits::default()).unwrap_err().to_string();
    assert!(
        error.contains("data file") && error.contains("cannot be opened"),
        "{error}"
    );
}

#[derive(Clone, Debug)]
enum Step {
    Create(u8, u32),
    Update(u8, u32),
    Delete(u8),
    Stale(u8),
}

fn step() -> impl Strategy<Value = Step> {
    let name = 0..6_u8;
    prop_oneof![
        (name.clone(), any::<u32>()).prop_map(|(name, payload)| Step::Create(name, payload)),
        (name.clone(), any::<u32>()).prop_map(|(name, payload)| Step::Update(name, payload)),
        name.clone().prop_map(Step::Delete),
        name.prop_map(Step::Stale),
    ]
}

type Model = BTreeMap<String, (u64, u32)>;

fn apply_events(mut state: Model, events: &[Arc<Event>]) -> Model {
    for event in events {
        let name = event.key.object.name.to_string();
        match event.kind {
            EventKind::Deleted => assert!(state.remove(&name).is_some(), "deleted something unknown"),
            EventKind::Added => {
                let old = state.insert(name, (event.object.revision, payload(&event.object)));
                assert!(old.is_none(), "added what was there");
            }
            EventKind::Modified => {
                let old = state.insert(name, (event.object.revision, payload(&event.object)));
                assert!(old.is_some(), "modified what was not there");
            }
        }
    }
    state
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// Against a model: revisions only grow, refused writes change nothing, every past list can be had again while the
    /// history lasts, and a list followed by its watch arrives at the present state from every revision.
    #[test]
    fn lists_and_watches_tell_the_same_story(steps in prop::collection::vec(step(), 1..60)) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let store = Store::in_memory(HistoryLimits::default());
        let mut model: Model = BTreeMap::new();
        let mut past: Vec<(u64, Model)> = vec![(store.revision(), model.clone())];
        for step in steps {
            let before = store.revision();
            let name_of = |name: u8| format!("thing-{name}");
            let key = |name: u8| Key::new(&things(), "default", &name_of(name));
            let (name, write) = match step {
                Step::Create(name, payload) => (name, put(key(name), Expect::Absent, payload)),
                Step::Update(name, payload) => {
                    let revision = model.get(&name_of(name)).map_or(9999, |(revision, _)| *revision);
                    (name, put(key(name), Expect::Revision(revision), payload))
                }
                Step::Delete(name) => {
                    let revision = model.get(&name_of(name)).map_or(9999, |(revision, _)| *revision);
                    let last = Encoded::new(&object(&name_of(name), 0)).unwrap();
                    let expect = Expect::Revision(revision);
                    (name, Write { key: key(name), expect, guards: Vec::new(), change: Change::Delete(last) })
                }
                Step::Stale(name) => (name, put(key(name), Expect::Revision(0), 0)),
            };
            let deletes = matches!(write.change, Change::Delete(_));
            match runtime.block_on(store.write(write)) {
                Ok(stored) => {
                    prop_assert_eq!(stored.revision, before + 1);
                    if deletes {
                        model.remove(&name_of(name));
                    } else {
                        model.insert(name_of(name), (stored.revision, payload(&stored)));
                    }
                    past.push((stored.revision, model.clone()));
                }
                Err(_) => prop_assert_eq!(store.revision(), before),
            }
        }
        let state_of = |snapshot: &Snapshot| -> Model {
            snapshot.objects.iter().map(|(name, stored)| (name.name.to_string(), (stored.revision, payload(stored)))).collect()
        };
        for (revision, then) in &past {
            let listed = store.list(&things(), Some("default"), None, Some(*revision), usize::MAX).unwrap();
            prop_assert_eq!(&state_of(&listed), then);
            // In small pieces, as a slow watcher takes them.
            let (mut state, mut position) = (state_of(&listed), *revision);
            while position < store.revision() {
                let events = store.events_after(&things(), position, 3).unwrap();
                for pair in events.events.windows(2) {
                    prop_assert!(pair[0].revision() < pair[1].revision());
                }
                state = apply_events(state, &events.events);
                prop_assert!(events.revision > position);
                position = events.revision;
            }
            prop_assert_eq!(&state, &model);
        }
    }
}
