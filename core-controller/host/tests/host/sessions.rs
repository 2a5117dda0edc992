//! Providers that come late, die, come back, are replaced, hang, are removed.

use std::sync::Arc;
use std::time::Duration;

use actuator_proto::v1;
use provider_host::{Change, CircuitState, Disposition, EndpointSource, HostTimes, ProviderState, Refusal, Rpc};
use tokio::sync::Semaphore;

use crate::scripted::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_provider_that_comes_late_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("fake.sock");
    let host = host();
    host.set_endpoint("fake", unix(&path)).unwrap();
    let snapshot = until(&host, "fake", |snapshot| snapshot.state == ProviderState::Unreachable).await;
    assert!(
        snapshot.message.contains("there is no socket at"),
        "{}",
        snapshot.message
    );
    let error = host
        .provider("fake")
        .unwrap()
        .create_machine(&credential(), create("k"))
        .await
        .unwrap_err();
    assert_eq!(error.facts.refusal, Some(Refusal::Unavailable));
    assert!(matches!(
        error.disposition(1),
        Disposition::Unavailable { resolve: false, .. }
    ));
    assert!(error.to_string().contains("there is no socket at"), "{error}");

    let script = Script::provider("fake", "instance-1");
    let _serving = script.serve(&path);
    let snapshot = until(&host, "fake", |snapshot| snapshot.state == ProviderState::Ready).await;
    assert_eq!((snapshot.sessions, snapshot.connections), (1, 1));
    assert_eq!(snapshot.message, "");
    assert!(snapshot.connected_at.is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_death_is_seen_at_once_and_a_newer_version_is_taken_up() {
    let slow_probe = HostTimes {
        probe_interval: Duration::from_hours(1),
        ..times()
    };
    let mut scene = Scene::with(Script::provider("fake", "instance-1"), slow_probe, Default::default()).await;
    scene.serving = None;
    let snapshot = scene.state(ProviderState::Unreachable).await;
    assert_eq!(snapshot.connected_at, None);
    assert!(snapshot.info.is_some(), "what is known of it stays");

    let newer = Script::provider("fake", "instance-2");
    let info = v1::GetInfoResponse {
        capabilities: Some(v1::Capabilities {
            console_output: Some(v1::ConsoleOutputCapability {}),
            ..Default::default()
        }),
        ..Default::default()
    };
    newer.identity("fake", "instance-2", "2.0.0", "actuator.v1", info);
    scene.serving = Some(newer.serve(&scene.path()));
    let snapshot = scene.state(ProviderState::Ready).await;
    let info = snapshot.info.unwrap();
    assert_eq!(snapshot.sessions, 2);
    assert_eq!(
        (info.version.as_str(), info.instance_id.as_str()),
        ("2.0.0", "instance-2")
    );
    assert_eq!(info.capabilities.names(), ["console_output"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_process_on_another_connection_is_the_same_session() {
    let mut scene = Scene::new().await;
    scene.serving = None;
    scene.serving = Some(scene.script.serve(&scene.path()));
    let snapshot = until(&scene.host, "fake", |snapshot| {
        snapshot.connections >= 2 && snapshot.state.is_reachable()
    })
    .await;
    assert_eq!(snapshot.sessions, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_provider_that_takes_over_the_socket_is_taken_up_while_the_old_one_lives() {
    let scene = Scene::new().await;
    let newer = Script::provider("fake", "instance-2");
    let _serving = newer.serve(&scene.path());
    let snapshot = until(&scene.host, "fake", |snapshot| snapshot.sessions == 2).await;
    assert_eq!(snapshot.info.unwrap().instance_id, "instance-2");
    newer.on(Rpc::MachineExists, |_: v1::MachineExistsRequest| async {
        Ok(present("fake:///i-1"))
    });
    scene.fake().machine_exists(&credential(), exists("k")).await.unwrap();
    assert_eq!(newer.calls(Rpc::MachineExists), 1);
    assert_eq!(scene.script.calls(Rpc::MachineExists), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readiness_is_shown_and_a_provider_that_hangs_is_unreachable() {
    let mut scene = Scene::new().await;
    scene.script.on(Rpc::Probe, |_: v1::ProbeRequest| async {
        Ok(v1::ProbeResponse {
            readiness: v1::Readiness::Degraded.into(),
            checks: vec![v1::ProbeCheck {
                name: "cloud-api".into(),
                healthy: false,
                message: "slow\u{7}".into(),
            }],
        })
    });
    let snapshot = scene.state(ProviderState::Degraded).await;
    assert_eq!(snapshot.message, "cloud-api: slow");
    scene.script.on(Rpc::Probe, |_: v1::ProbeRequest| async {
        Ok(v1::ProbeResponse {
            readiness: v1::Readiness::Initializing.into(),
            checks: Vec::new(),
        })
    });
    scene.state(ProviderState::Initializing).await;
    scene.script.on(Rpc::Probe, |_: v1::ProbeRequest| async {
        Ok(v1::ProbeResponse {
            readiness: 99,
            checks: Vec::new(),
        })
    });
    scene.state(ProviderState::Ready).await;
    // Every call hangs; only the probe can tell.
    scene.script.stall(Rpc::Probe);
    let snapshot = scene.state(ProviderState::Unreachable).await;
    assert!(snapshot.message.contains("Probe"), "{}", snapshot.message);
    scene.serving = None;
    let healthy = Script::provider("fake", "instance-2");
    scene.serving = Some(healthy.serve(&scene.path()));
    scene.state(ProviderState::Ready).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_common_version_is_incompatible_until_one_is_installed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("fake.sock");
    let only_v2 = Script::provider("fake", "instance-1");
    only_v2.identity("fake", "instance-1", "9", "actuator.v2", Default::default());
    let serving = only_v2.serve(&path);
    let host = host();
    host.set_endpoint("fake", unix(&path)).unwrap();
    let snapshot = until(&host, "fake", |snapshot| snapshot.state == ProviderState::Incompatible).await;
    assert!(
        snapshot.message.contains("actuator.v2") && snapshot.message.contains("actuator.v1"),
        "{}",
        snapshot.message
    );
    assert_eq!(only_v2.calls(Rpc::GetInfo), 0, "nothing of v1 is called");
    drop(serving);
    let _serving = Script::provider("fake", "instance-2").serve(&path);
    until(&host, "fake", |snapshot| snapshot.state == ProviderState::Ready).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_provider_of_another_name_is_incompatible() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("fake.sock");
    let _serving = Script::provider("aws", "instance-1").serve(&path);
    let host = host();
    host.set_endpoint("fake", unix(&path)).unwrap();
    let snapshot = until(&host, "fake", |snapshot| snapshot.state == ProviderState::Incompatible).await;
    assert!(
        snapshot.message.contains("\"fake\"") && snapshot.message.contains("\"aws\""),
        "{}",
        snapshot.message
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_no_provider_is_incompatible() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("fake.sock");
    let _serving = Script::default().serve(&path);
    let host = host();
    host.set_endpoint("fake", unix(&path)).unwrap();
    let snapshot = until(&host, "fake", |snapshot| snapshot.state == ProviderState::Incompatible).await;
    assert!(snapshot.message.contains("no provider"), "{}", snapshot.message);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_are_told_and_a_removed_provider_refuses() {
    let scene = Scene::new().await;
    let mut changes = scene.host.subscribe();
    let handle = scene.fake();
    scene.host.remove_endpoint("fake");
    assert_eq!(changes.next().await, Some(Change::Provider("fake".into())));
    assert_eq!(scene.host.snapshot("fake"), None);
    assert!(scene.host.provider("fake").is_none());
    let error = handle.create_machine(&credential(), create("k")).await.unwrap_err();
    assert_eq!(error.facts.refusal, Some(Refusal::Unavailable));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_endpoint_is_dialled_at_once() {
    let scene = Scene::new().await;
    let other = scene.folder.path().join("other.sock");
    let script = Script::provider("fake", "instance-2");
    let _serving = script.serve(&other);
    scene.host.set_endpoint("fake", unix(&other)).unwrap();
    let snapshot = until(&scene.host, "fake", |snapshot| snapshot.sessions == 2).await;
    assert!(snapshot.endpoint.ends_with("other.sock"));
    // The same again changes nothing.
    scene.host.set_endpoint("fake", unix(&other)).unwrap();
    scene.fake().snapshot();
    assert_eq!(scene.host.snapshot("fake").unwrap().connections, snapshot.connections);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sockets_in_the_folder_come_and_go() {
    let folder = tempfile::tempdir().unwrap();
    let host = host();
    host.watch_socket_folder(folder.path());
    let own = folder.path().join("fake");
    std::fs::create_dir(&own).unwrap();
    let script = Script::provider("fake", "instance-1");
    let _serving = script.serve(&own.join("actuator.sock"));
    let snapshot = until(&host, "fake", |snapshot| snapshot.state == ProviderState::Ready).await;
    assert_eq!(snapshot.source, EndpointSource::SocketFolder);
    std::fs::remove_dir_all(&own).unwrap();
    let mut changes = host.subscribe();
    let gone = async {
        while host.snapshot("fake").is_some() {
            changes.next().await;
        }
    };
    tokio::time::timeout(PATIENCE, gone).await.expect("it is forgotten");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_provider_that_stops_in_an_orderly_way_ends_its_calls_while_new_ones_go_to_the_next() {
    let scene = Scene::new().await;
    let (crowd, gate) = (Crowd::default(), Arc::new(Semaphore::new(0)));
    let (inside, opened) = (crowd.clone(), gate.clone());
    scene.script.on(Rpc::CreateMachine, move |_: v1::CreateMachineRequest| {
        let (inside, opened) = (inside.clone(), opened.clone());
        async move {
            let _inside = inside.enter();
            let _permit = opened.acquire().await.unwrap();
            Ok(v1::CreateMachineResponse {
                status: Some(machine("fake:///i-1")),
            })
        }
    });
    let fake = scene.fake();
    let under_way = tokio::spawn(async move { fake.create_machine(&credential(), create("k")).await });
    crowd.reaches(1).await;
    let next = Script::provider("fake", "instance-2");
    next.on(Rpc::MachineExists, |_: v1::MachineExistsRequest| async {
        Ok(present("fake:///i-1"))
    });
    let _serving = next.serve(&scene.path());
    scene.script.leave.notify_waiters();
    let snapshot = until(&scene.host, "fake", |s| s.sessions == 2 && s.state.is_reachable()).await;
    assert_eq!(snapshot.circuit, CircuitState::Closed);
    scene.fake().machine_exists(&credential(), exists("k")).await.unwrap();
    gate.add_permits(1);
    under_way
        .await
        .unwrap()
        .expect("the old process finishes what it has begun");
}
