//! The stream of hints: snapshot, end, resumption, silence, and its absence.

use std::time::Duration;

use actuator_proto::errors::ActuatorError;
use actuator_proto::v1::watch_machines_response::Event;
use actuator_proto::v1::{self, ErrorReason};
use futures::StreamExt as _;
use provider_host::{HostTimes, MachineHint, MachineWatch, Rpc};
use tokio::sync::mpsc;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::Status;

use crate::scripted::*;

fn script(resume_window: Option<i64>) -> Script {
    let script = Script::provider("fake", "instance-1");
    let watch = v1::WatchMachinesCapability {
        resume_window: resume_window.map(|seconds| prost_types::Duration { seconds, nanos: 0 }),
    };
    let info = v1::GetInfoResponse {
        capabilities: Some(v1::Capabilities {
            watch_machines: Some(watch),
            ..Default::default()
        }),
        ..Default::default()
    };
    script.identity("fake", "instance-1", "1", "actuator.v1", info);
    script
}

fn present_event(key: &str) -> Event {
    Event::Present(v1::ListedMachine {
        idempotency_key: key.into(),
        status: Some(machine("fake:///i")),
        ..Default::default()
    })
}

fn synced(token: &str) -> Event {
    Event::Synced(v1::WatchSynced {
        resume_token: token.into(),
    })
}

type Events = mpsc::UnboundedSender<Result<v1::WatchMachinesResponse, Status>>;

/// Each watch that is opened: its resume token, and where to send its events.
fn opened(script: &Script) -> mpsc::UnboundedReceiver<(String, Events)> {
    let (tell, told) = mpsc::unbounded_channel();
    script.stream(Rpc::WatchMachines, move |request: v1::WatchMachinesRequest| {
        let (events, stream) = mpsc::unbounded_channel();
        let _ = tell.send((request.resume_token, events));
        Ok(UnboundedReceiverStream::new(stream))
    });
    told
}

fn send(events: &Events, event: Event) {
    events
        .send(Ok(v1::WatchMachinesResponse { event: Some(event) }))
        .unwrap();
}

async fn next(watch: &mut MachineWatch) -> Option<MachineHint> {
    tokio::time::timeout(PATIENCE, watch.next()).await.expect("a hint")
}

async fn open(opened: &mut mpsc::UnboundedReceiver<(String, Events)>) -> (String, Events) {
    tokio::time::timeout(PATIENCE, opened.recv())
        .await
        .expect("a watch is opened")
        .unwrap()
}

fn key(hint: Option<MachineHint>) -> String {
    match hint {
        Some(MachineHint::Present(machine)) => machine.idempotency_key,
        other => panic!("{other:?} is not a machine that is there"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_that_drops_is_resumed_where_it_was() {
    let scene = Scene::with(script(Some(60)), times(), Default::default()).await;
    let mut streams = opened(&scene.script);
    let mut watch = scene.fake().watch_machines(&credential(), Default::default()).unwrap();
    let (token, events) = open(&mut streams).await;
    assert_eq!(token, "");
    send(&events, present_event("a"));
    send(&events, synced("t1"));
    let gone = v1::GoneMachine {
        idempotency_key: "a".into(),
        ..Default::default()
    };
    send(&events, Event::Gone(gone.clone()));
    send(
        &events,
        Event::Bookmark(v1::WatchBookmark {
            resume_token: "t2".into(),
        }),
    );
    assert_eq!(next(&mut watch).await, Some(MachineHint::Restarted));
    assert_eq!(key(next(&mut watch).await), "a");
    assert_eq!(next(&mut watch).await, Some(MachineHint::Synced));
    assert_eq!(next(&mut watch).await, Some(MachineHint::Gone(gone)));
    assert_eq!(next(&mut watch).await, Some(MachineHint::Bookmark));
    drop(events);
    let (token, events) = open(&mut streams).await;
    assert_eq!(token, "t2");
    send(&events, present_event("b"));
    assert_eq!(key(watch.by_ref().next().await), "b", "no snapshot again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_expired_token_and_an_unfinished_snapshot_begin_anew() {
    let scene = Scene::with(script(Some(60)), times(), Default::default()).await;
    let mut streams = opened(&scene.script);
    let mut watch = scene.fake().watch_machines(&credential(), Default::default()).unwrap();
    let (_, events) = open(&mut streams).await;
    send(&events, present_event("a"));
    let bookmark = v1::WatchBookmark {
        resume_token: "too early".into(),
    };
    send(&events, Event::Bookmark(bookmark));
    assert_eq!(next(&mut watch).await, Some(MachineHint::Restarted));
    next(&mut watch).await;
    next(&mut watch).await;
    drop(events);
    let (token, events) = open(&mut streams).await;
    assert_eq!(token, "", "the snapshot was not complete");
    send(&events, synced("t1"));
    assert_eq!(next(&mut watch).await, Some(MachineHint::Restarted));
    assert_eq!(next(&mut watch).await, Some(MachineHint::Synced));
    let expired: Status = ActuatorError::new(ErrorReason::ResumeTokenExpired, "too old").into();
    drop(events);
    let (token, events) = open(&mut streams).await;
    assert_eq!(token, "t1");
    events.send(Err(expired)).unwrap();
    let (token, events) = open(&mut streams).await;
    assert_eq!(token, "");
    send(&events, present_event("c"));
    assert_eq!(next(&mut watch).await, Some(MachineHint::Restarted));
    assert_eq!(key(next(&mut watch).await), "c");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_watch_is_opened_anew_and_without_a_window_in_full() {
    let short = HostTimes {
        watch_silence: Duration::from_millis(100),
        ..times()
    };
    let scene = Scene::with(script(None), short, Default::default()).await;
    let mut streams = opened(&scene.script);
    let mut watch = scene.fake().watch_machines(&credential(), Default::default()).unwrap();
    let (_, first) = open(&mut streams).await;
    send(&first, synced("t1"));
    assert_eq!(next(&mut watch).await, Some(MachineHint::Restarted));
    assert_eq!(next(&mut watch).await, Some(MachineHint::Synced));
    let (token, second) = open(&mut streams).await;
    assert_eq!(token, "");
    send(&second, synced("t2"));
    assert_eq!(next(&mut watch).await, Some(MachineHint::Restarted));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_survives_the_death_of_its_provider() {
    let mut scene = Scene::with(script(Some(60)), times(), Default::default()).await;
    let mut streams = opened(&scene.script);
    let mut watch = scene.fake().watch_machines(&credential(), Default::default()).unwrap();
    let (_, events) = open(&mut streams).await;
    send(&events, synced("t1"));
    next(&mut watch).await;
    next(&mut watch).await;
    scene.serving = None;
    scene.serving = Some(scene.script.serve(&scene.path()));
    let (token, events) = open(&mut streams).await;
    assert_eq!(token, "t1");
    send(&events, present_event("b"));
    assert_eq!(key(next(&mut watch).await), "b");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_the_capability_there_is_none_and_one_that_lies_ends() {
    let scene = Scene::new().await;
    assert!(scene.fake().watch_machines(&credential(), Default::default()).is_none());
    assert_eq!(scene.script.calls(Rpc::WatchMachines), 0);

    let scene = Scene::with(script(None), times(), Default::default()).await;
    let mut watch = scene.fake().watch_machines(&credential(), Default::default()).unwrap();
    assert_eq!(next(&mut watch).await, None);
    assert!(scene.fake().watch_machines(&credential(), Default::default()).is_none());
    assert_eq!(scene.script.calls(Rpc::WatchMachines), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_that_nobody_reads_does_not_hold_up_calls() {
    let scene = Scene::with(script(None), times(), Default::default()).await;
    scene.script.stream(Rpc::WatchMachines, |_: v1::WatchMachinesRequest| {
        Ok(futures::stream::repeat_with(|| {
            Ok(v1::WatchMachinesResponse {
                event: Some(Event::Present(v1::ListedMachine {
                    idempotency_key: "k".into(),
                    status: Some(v1::MachineStatus {
                        provider_state: vec![0; 16 * 1024],
                        ..machine("fake:///i")
                    }),
                    ..Default::default()
                })),
            })
        })
        .take(20_000))
    });
    scene
        .script
        .on(Rpc::MachineExists, |_: v1::MachineExistsRequest| async {
            Ok(present("fake:///i-1"))
        });
    let watches: Vec<_> = (0..8)
        .map(|_| scene.fake().watch_machines(&credential(), Default::default()).unwrap())
        .collect();
    let (fake, credential) = (scene.fake(), credential());
    for _ in 0..50 {
        let call = fake.machine_exists(&credential, exists("k"));
        tokio::time::timeout(PATIENCE, call).await.expect("an answer").unwrap();
    }
    drop(watches);
}
