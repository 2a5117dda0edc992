use serde_json::json;

use super::*;
use crate::access::{Access, Keys, SigningKey, StaticTokens};
use crate::registry::Registry;
use crate::storage::{Change, Encoded, Expect, HistoryLimits, Store, Write};

#[test]
fn the_horizon_is_the_revision_of_an_hour_ago() {
    let mut horizon = Horizon::default();
    for minute in 0..60 {
        assert_eq!(horizon.advance(100 + minute), None);
    }
    assert_eq!(horizon.advance(500), Some(100));
    assert_eq!(horizon.advance(501), Some(101));
}

async fn event(core: &Core, name: &str) -> u64 {
    let object = json!({ "apiVersion": "v1", "kind": "Event", "metadata": { "name": name, "namespace": "default" } });
    let write = Write {
        key: Key::new(&"events".into(), "default", name),
        expect: Expect::Absent,
        guards: Vec::new(),
        change: Change::Put(Encoded::new(&object).unwrap()),
    };
    core.store.write(write).await.unwrap().revision
}

#[tokio::test]
async fn only_events_beyond_the_horizon_go() {
    let store = Store::in_memory(HistoryLimits::default());
    let core = Arc::new(Core {
        store,
        registry: Registry::new(),
        queue: Arc::new(Queue::default()),
        access: Arc::new(Access::new(
            StaticTokens::default(),
            Keys::new(SigningKey::generate().unwrap()),
        )),
    });
    let old = event(&core, "old").await;
    event(&core, "new").await;
    remove_events(&core, old).await;
    let left = core.store.list_all("events", None);
    assert_eq!(left.len(), 1);
    assert_eq!(left[0].0.name.as_ref(), "new");
}

#[tokio::test]
async fn work_waits_once_however_often_it_is_pushed() {
    let queue = Queue::default();
    let key = Key::new(&"pods".into(), "default", "a");
    for _ in 0..3 {
        queue.push(Work::Object(key.clone()));
    }
    queue.push(Work::OwnerGone(7));
    assert_eq!(queue.pop().await, Work::Object(key));
    assert_eq!(queue.pop().await, Work::OwnerGone(7));
    assert!(futures::FutureExt::now_or_never(queue.pop()).is_none());
}
