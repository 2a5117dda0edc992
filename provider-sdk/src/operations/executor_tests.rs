//! Tasks that outlive their callers, in order, within bounds.

use tokio::sync::oneshot;

use super::super::order::{Fingerprint, Verb};
use super::*;

fn key(name: &str) -> ScopedKey {
    (Scope::Machine, name.to_owned())
}

fn intent(verb: Verb, generation: i64, digest: u8) -> Intent {
    Intent {
        verb,
        generation,
        fingerprint: Fingerprint::of(&[&[digest]]),
    }
}

/// Work that starts, tells so, and ends when it is told to.
fn held(value: u32) -> (Work<u32>, oneshot::Receiver<()>, oneshot::Sender<()>) {
    let (started, has_started) = oneshot::channel();
    let (end, ends) = oneshot::channel::<()>();
    let work = async move {
        let _ = started.send(());
        let _ = ends.await;
        Ok(value)
    };
    (work.boxed(), has_started, end)
}

fn quick(value: u32) -> Work<u32> {
    async move { Ok(value) }.boxed()
}

fn executor(slots: usize) -> Arc<Executor<u32>> {
    Arc::new(Executor::new(slots, Counter::default()))
}

fn spawn(
    executor: &Arc<Executor<u32>>,
    name: &str,
    intent: Intent,
    work: Work<u32>,
) -> tokio::task::JoinHandle<Result<u32, ActuatorError>> {
    let (executor, key) = (Arc::clone(executor), key(name));
    tokio::spawn(async move { executor.run(key, intent, None, work).await })
}

#[tokio::test]
async fn work_goes_on_when_its_caller_is_gone() {
    let executor = executor(4);
    let (work, started, end) = held(1);
    let caller = spawn(&executor, "k", intent(Verb::Create, 1, 1), work);
    started.await.expect("started");
    caller.abort();
    let _ = caller.await;
    assert_eq!(executor.running(), 1);
    // The same request joins it, though the one who started it has gone.
    let joined = spawn(&executor, "k", intent(Verb::Create, 1, 1), quick(9));
    tokio::task::yield_now().await;
    end.send(()).expect("still running");
    assert_eq!(joined.await.expect("no panic"), Ok(1));
    assert!(executor.drain(Duration::from_secs(10)).await);
}

#[tokio::test]
async fn a_delete_runs_right_after_the_create_and_no_create_after_it() {
    let executor = executor(4);
    let (create, started, end) = held(1);
    let creating = spawn(&executor, "k", intent(Verb::Create, 1, 1), create);
    started.await.expect("started");
    let (delete, deleting, end_delete) = held(2);
    let caller = spawn(&executor, "k", intent(Verb::Delete, 2, 0), delete);
    while executor.queued() == 0 {
        tokio::task::yield_now().await;
    }
    // Accepted is accepted.
    caller.abort();
    let _ = caller.await;
    let late = executor.run(key("k"), intent(Verb::Create, 2, 1), None, quick(3)).await;
    assert_eq!(late.map_err(|error| error.reason()), Err(ErrorReason::StaleGeneration));
    end.send(()).expect("running");
    assert_eq!(creating.await.expect("no panic"), Ok(1));
    deleting.await.expect("the delete runs");
    end_delete.send(()).expect("running");
    assert!(executor.drain(Duration::from_secs(10)).await);
    assert_eq!((executor.running(), executor.queued()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn another_request_waits_and_is_then_refused() {
    let executor = executor(4);
    let (create, started, end) = held(1);
    let creating = spawn(&executor, "k", intent(Verb::Create, 1, 1), create);
    started.await.expect("started");
    let refused = executor.run(key("k"), intent(Verb::Update, 2, 2), None, quick(2)).await;
    assert_eq!(
        refused.map_err(|error| error.reason()),
        Err(ErrorReason::OperationPending)
    );
    // One that still waits when the other ends gets its turn.
    let update = spawn(&executor, "k", intent(Verb::Update, 2, 2), quick(2));
    tokio::task::yield_now().await;
    end.send(()).expect("running");
    assert_eq!(creating.await.expect("no panic"), Ok(1));
    assert_eq!(update.await.expect("no panic"), Ok(2));
}

#[tokio::test]
async fn other_keys_do_not_wait_and_their_number_is_bounded() {
    let executor = executor(2);
    let mut ends = Vec::new();
    for name in ["a", "b"] {
        let (work, started, end) = held(1);
        spawn(&executor, name, intent(Verb::Create, 1, 1), work);
        started.await.expect("started beside the other");
        ends.push(end);
    }
    let refused = executor.run(key("c"), intent(Verb::Create, 1, 1), None, quick(1)).await;
    let error = refused.expect_err("no room");
    assert_eq!(error.reason(), ErrorReason::TooManyInFlight);
    drop(ends);
    assert!(executor.drain(Duration::from_secs(10)).await);
    assert_eq!(executor.inner.slots.available_permits(), 2);
}

#[tokio::test]
async fn a_panic_is_an_error_and_frees_the_key() {
    let executor = executor(1);
    let work: Work<u32> = async { panic!("with s3cr3t words") }.boxed();
    let error = executor
        .run(key("k"), intent(Verb::Create, 1, 1), None, work)
        .await
        .expect_err("a panic");
    assert_eq!(error.reason(), ErrorReason::ProviderBug);
    assert!(!error.message().contains("s3cr3t"));
    let again = executor.run(key("k"), intent(Verb::Create, 1, 1), None, quick(5)).await;
    assert_eq!(again, Ok(5));
}

#[tokio::test]
async fn epochs_never_go_back() {
    let executor = executor(1);
    assert!(executor.check_epoch("mgmt", 3).is_ok());
    assert!(executor.check_epoch("mgmt", 3).is_ok());
    let error = executor.check_epoch("mgmt", 2).expect_err("stale");
    assert_eq!(error.reason(), ErrorReason::StaleFencingEpoch);
    assert!(executor.check_epoch("mgmt", 0).is_ok());
    assert!(executor.check_epoch("other", 1).is_ok());
}

#[tokio::test]
async fn memory_is_bounded() {
    let executor = executor(8);
    for number in 0..1000 {
        let name = format!("key-{number}");
        assert_eq!(
            executor
                .run(key(&name), intent(Verb::Create, 1, 1), None, quick(1))
                .await,
            Ok(1)
        );
    }
    let active: usize = executor
        .inner
        .shards
        .iter()
        .map(|shard| shard.lock().active.len())
        .sum();
    assert_eq!(active, 0);
}
