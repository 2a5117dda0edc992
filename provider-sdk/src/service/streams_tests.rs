//! Streams of providers that are silent, fail or panic.

#![allow(clippy::unnecessary_wraps)] // they are items of a stream

use std::sync::Arc;

use actuator_proto::errors::Classified;
use actuator_proto::v1::{Effect, ErrorReason};
use tokio::sync::Semaphore;

use super::*;

fn place() -> OwnedSemaphorePermit {
    Arc::new(Semaphore::new(1)).try_acquire_owned().expect("a place")
}

fn watched(events: WatchStream) -> BoxStream<'static, Result<v1::WatchMachinesResponse, Status>> {
    let bounds = Bounds {
        prefix: "test:///".into(),
        secrets: Secrets::default(),
        effect: Effect::None,
    };
    let metrics = Metrics::new("test", "1");
    watch(
        events,
        bounds,
        metrics,
        CancellationToken::new(),
        place(),
        tracing::Span::none(),
    )
}

fn present(provider_id: &str) -> Result<WatchEvent, ActuatorError> {
    Ok(WatchEvent::Present(Box::new(v1::ListedMachine {
        status: Some(v1::MachineStatus {
            provider_id: provider_id.into(),
            ..Default::default()
        }),
        ..Default::default()
    })))
}

fn synced(token: &str) -> Result<WatchEvent, ActuatorError> {
    Ok(WatchEvent::Synced(token.into()))
}

#[tokio::test(start_paused = true)]
async fn silence_is_filled_with_bookmarks_after_the_snapshot() {
    let silent = stream::iter([present("test:///a"), synced("t1")]).chain(stream::pending());
    let mut watch = watched(silent.boxed());
    let started = Instant::now();
    let mut events = Vec::new();
    for _ in 0..4 {
        events.push(
            watch
                .next()
                .await
                .expect("more")
                .expect("no error")
                .event
                .expect("an event"),
        );
    }
    assert!(matches!(events[0], Event::Present(_)));
    assert!(matches!(events[1], Event::Synced(_)));
    for event in &events[2..] {
        assert_eq!(
            *event,
            Event::Bookmark(v1::WatchBookmark {
                resume_token: "t1".into()
            })
        );
    }
    assert!(started.elapsed() <= 2 * BOOKMARK_INTERVAL);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_said_before_the_snapshot_is_complete() {
    let mut watch = watched(stream::iter([present("test:///a")]).chain(stream::pending()).boxed());
    assert!(watch.next().await.is_some());
    let silent = tokio::time::timeout(4 * BOOKMARK_INTERVAL, watch.next()).await;
    assert!(
        silent.is_err(),
        "a bookmark would promise a snapshot that is not complete"
    );
}

#[tokio::test]
async fn a_watch_ends_with_its_first_error() {
    let bad = [
        Err(ActuatorError::new(ErrorReason::CloudUnavailable, "down")),
        // Not an id of this provider.
        present("other:///a"),
        Ok(WatchEvent::Bookmark("t".repeat(257))),
    ];
    for event in bad {
        let mut watch = watched(stream::iter([event, synced("never")]).boxed());
        let status = watch.next().await.expect("an error").expect_err("an error");
        assert!(Classified::from_status(&status).is_final());
        assert!(watch.next().await.is_none());
    }
}

#[tokio::test]
async fn a_panic_ends_a_stream_with_an_error() {
    let panicking = stream::iter([0]).map(|_: i32| -> Result<WatchEvent, ActuatorError> { panic!("in a stream") });
    let mut watch = watched(panicking.boxed());
    let status = watch.next().await.expect("an error").expect_err("an error");
    assert_eq!(Classified::from_status(&status).reason, Some(ErrorReason::ProviderBug));
    assert!(watch.next().await.is_none());

    let panicking = stream::iter([0]).map(|_: i32| -> Result<Bytes, ActuatorError> { panic!("in a stream") });
    let metrics = Metrics::new("test", "1");
    let shutdown = CancellationToken::new();
    let mut console = console(panicking.boxed(), Secrets::default(), metrics, shutdown, place());
    let status = console.next().await.expect("an error").expect_err("an error");
    assert_eq!(Classified::from_status(&status).reason, Some(ErrorReason::ProviderBug));
    assert!(console.next().await.is_none());
}
