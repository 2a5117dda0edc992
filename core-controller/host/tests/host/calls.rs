//! Deadlines, turns, pauses, repeats, traces and counts of calls.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use actuator_proto::errors::ActuatorError;
use actuator_proto::v1::{self, ErrorReason};
use futures::FutureExt as _;
use opentelemetry::trace::TracerProvider as _;
use prometheus_client::registry::Registry;
use provider_host::{
    AfterResolve, CallBounds, CircuitState, CredentialId, Disposition, EndpointConfig, HostConfig, HostMetrics,
    HostTimes, ProviderState, Rate, Refusal, Rpc,
};
use tokio::sync::Semaphore;
use tonic::{Code, Status};
use tracing::Instrument as _;
use tracing_subscriber::layer::SubscriberExt as _;

use crate::scripted::*;

fn limited(max_concurrent_mutations: i32) -> Script {
    let script = Script::provider("fake", "instance-1");
    let info = v1::GetInfoResponse {
        limits: Some(v1::Limits {
            max_concurrent_mutations,
            ..Default::default()
        }),
        ..Default::default()
    };
    script.identity("fake", "instance-1", "1", "actuator.v1", info);
    script
}

/// Answers CreateMachine and DeleteMachine once a permit of `gate` can be had.
fn gated(script: &Script, crowd: &Crowd, gate: &Arc<Semaphore>) {
    let (c, g) = (crowd.clone(), gate.clone());
    script.on(Rpc::CreateMachine, move |request: v1::CreateMachineRequest| {
        let (c, g) = (c.clone(), g.clone());
        async move {
            let _inside = c.enter();
            let _permit = g.acquire().await.unwrap();
            let key = request.meta.unwrap_or_default().idempotency_key;
            Ok(v1::CreateMachineResponse {
                status: Some(machine(&format!("fake:///{key}"))),
            })
        }
    });
    let (c, g) = (crowd.clone(), gate.clone());
    script.on(Rpc::DeleteMachine, move |_: v1::DeleteMachineRequest| {
        let (c, g) = (c.clone(), g.clone());
        async move {
            let _inside = c.enter();
            let _permit = g.acquire().await.unwrap();
            Ok(v1::DeleteMachineResponse {
                state: v1::DeletionState::Gone.into(),
                ..Default::default()
            })
        }
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stalled_provider_ends_by_its_deadline_and_slows_no_other() {
    let short = HostTimes {
        max_deadline: Duration::from_secs(4),
        ..times()
    };
    let scene = Scene::with(Script::provider("fake", "instance-1"), short, CallBounds::default()).await;
    let crowd = Crowd::default();
    gated(&scene.script, &crowd, &Arc::new(Semaphore::new(0)));
    let timeouts = Arc::new(Mutex::new(Vec::new()));
    let other = Script::provider("other", "instance-9");
    let seen = timeouts.clone();
    other.handle(Rpc::MachineExists.path(), move |metadata, _| {
        let timeout = metadata
            .get("grpc-timeout")
            .map(|value| value.to_str().unwrap().to_owned());
        seen.lock().unwrap().push(timeout);
        async {
            let message = prost::Message::encode_to_vec(&present("other:///i-1"));
            let stream: futures::stream::BoxStream<'static, _> =
                Box::pin(futures::stream::iter([Ok(bytes::Bytes::from(message))]));
            Ok(stream)
        }
        .boxed()
    });
    let other_path = scene.folder.path().join("other.sock");
    let _serving = other.serve(&other_path);
    scene.host.set_endpoint("other", unix(&other_path)).unwrap();
    until(&scene.host, "other", |snapshot| snapshot.state == ProviderState::Ready).await;

    let stalled: Vec<_> = (0..20)
        .map(|number| {
            let fake = scene.fake();
            tokio::spawn(async move { fake.create_machine(&credential(), create(&number.to_string())).await })
        })
        .collect();
    crowd.reaches(20).await;
    let handle = scene.host.provider("other").unwrap();
    for _ in 0..100 {
        handle.machine_exists(&credential(), exists("k")).await.unwrap();
    }
    assert_eq!(
        crowd.now(),
        20,
        "the other provider answered a hundred calls while the stalled ones hung"
    );
    for task in stalled {
        let error = task.await.unwrap().unwrap_err();
        assert_eq!(error.classified.code, Code::DeadlineExceeded);
        assert_eq!(
            error.disposition(1),
            Disposition::Resolve {
                then: AfterResolve::Replay
            }
        );
    }
    crowd.reaches(0).await;
    let timeouts = timeouts.lock().unwrap();
    assert!(timeouts.iter().all(Option::is_some), "each call carries its deadline");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_is_repeated_once_and_a_mutation_never() {
    let scene = Scene::new().await;
    let tries = Arc::new(AtomicUsize::new(0));
    let counted = tries.clone();
    scene.script.on(Rpc::MachineExists, move |_: v1::MachineExistsRequest| {
        let first = counted.fetch_add(1, Ordering::SeqCst) == 0;
        async move {
            if first {
                Err(Status::unavailable("lost"))
            } else {
                Ok(present("fake:///i-1"))
            }
        }
    });
    scene.fake().machine_exists(&credential(), exists("k")).await.unwrap();
    assert_eq!(tries.load(Ordering::SeqCst), 2);
    assert_eq!(scene.host.snapshot("fake").unwrap().circuit, CircuitState::Closed);
    assert_eq!(scene.host.snapshot("fake").unwrap().connections, 1);

    scene.script.fail(Rpc::ClusterExists, Status::unavailable("lost"));
    scene.script.fail(Rpc::CreateMachine, Status::unavailable("lost"));
    let request = v1::ClusterExistsRequest {
        r#ref: reference("c"),
        ..Default::default()
    };
    let error = scene.fake().cluster_exists(&credential(), request).await.unwrap_err();
    assert!(matches!(
        error.disposition(1),
        Disposition::Unavailable { resolve: false, .. }
    ));
    assert_eq!(scene.script.calls(Rpc::ClusterExists), 2);
    until(&scene.host, "fake", |s| {
        s.connections == 2 && s.circuit == CircuitState::Closed
    })
    .await;
    let error = scene
        .fake()
        .create_machine(&credential(), create("k"))
        .await
        .unwrap_err();
    assert!(matches!(
        error.disposition(1),
        Disposition::Unavailable { resolve: true, .. }
    ));
    assert_eq!(scene.script.calls(Rpc::CreateMachine), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_under_way_when_the_provider_dies_are_to_be_resolved() {
    let mut scene = Scene::new().await;
    let crowd = Crowd::default();
    gated(&scene.script, &crowd, &Arc::new(Semaphore::new(0)));
    let fake = scene.fake();
    let call = tokio::spawn(async move { fake.create_machine(&credential(), create("k")).await });
    crowd.reaches(1).await;
    scene.serving = None;
    let error = call.await.unwrap().unwrap_err();
    assert_eq!(error.classified.code, Code::Unavailable, "{error}");
    assert!(matches!(
        error.disposition(1),
        Disposition::Unavailable { resolve: true, .. }
    ));
    assert!(!error.changed_nothing());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn throttling_pauses_one_credential_and_goes_on_after_it() {
    let scene = Scene::new().await;
    let (a, b) = (CredentialId::new("a"), CredentialId::new("b"));
    let limited = ActuatorError::new(ErrorReason::RateLimited, "slow down").with_retry_after(Duration::from_secs(1));
    scene.script.fail(Rpc::MachineExists, limited.into());
    let fake = scene.fake();
    let error = fake.machine_exists(&a, exists("k")).await.unwrap_err();
    assert!(matches!(
        error.disposition(1),
        Disposition::Paused { resolve: false, .. }
    ));
    scene
        .script
        .on(Rpc::MachineExists, |_: v1::MachineExistsRequest| async {
            Ok(present("fake:///i-1"))
        });
    let error = fake.machine_exists(&a, exists("k")).await.unwrap_err();
    assert_eq!(error.facts.refusal, Some(Refusal::Paused));
    let Disposition::Paused { after, resolve: false } = error.disposition(1) else {
        panic!("{error}")
    };
    assert!(after <= Duration::from_secs(2));
    assert_eq!(scene.script.calls(Rpc::MachineExists), 1, "nothing is sent meanwhile");
    fake.machine_exists(&b, exists("k")).await.unwrap();
    let resumed = async {
        while fake.machine_exists(&a, exists("k")).await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, resumed).await.expect("the pause ends");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cloud_that_is_down_pauses_the_provider_but_not_what_it_knows_by_heart() {
    let scene = Scene::new().await;
    scene.script.fail(
        Rpc::MachineExists,
        ActuatorError::new(ErrorReason::CloudUnavailable, "down").into(),
    );
    scene
        .script
        .on(Rpc::ValidateConfigStatic, |_: v1::ValidateConfigRequest| async {
            Ok(v1::ValidateConfigResponse::default())
        });
    let fake = scene.fake();
    let error = fake.machine_exists(&credential(), exists("k")).await.unwrap_err();
    assert!(matches!(error.disposition(1), Disposition::Retry { .. }));
    assert_eq!(
        scene.script.calls(Rpc::MachineExists),
        1,
        "the provider itself answered: no repeat"
    );
    let other = CredentialId::new("other");
    let error = fake.create_machine(&other, create("k")).await.unwrap_err();
    assert_eq!(error.facts.refusal, Some(Refusal::Paused));
    fake.validate_config(&other, v1::ValidateConfigRequest::default())
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn never_more_mutations_at_a_time_than_the_provider_bears() {
    let scene = Scene::with(limited(3), times(), CallBounds::default()).await;
    let (crowd, gate) = (Crowd::default(), Arc::new(Semaphore::new(0)));
    gated(&scene.script, &crowd, &gate);
    let mut tasks = Vec::new();
    for number in 0..20 {
        let fake = scene.fake();
        tasks.push(tokio::spawn(async move {
            let key = number.to_string();
            match number % 2 {
                0 => fake.create_machine(&credential(), create(&key)).await.map(drop),
                _ => fake.delete_machine(&credential(), delete(&key)).await.map(drop),
            }
        }));
    }
    crowd.reaches(3).await;
    gate.add_permits(1000);
    for task in tasks {
        task.await.unwrap().unwrap();
    }
    assert_eq!(crowd.peak(), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_deletions_that_hang_let_a_creation_through() {
    let scene = Scene::with(limited(4), times(), CallBounds::default()).await;
    let crowd = Crowd::default();
    gated(&scene.script, &crowd, &Arc::new(Semaphore::new(0)));
    scene
        .script
        .on(Rpc::CreateMachine, |_: v1::CreateMachineRequest| async {
            Ok(v1::CreateMachineResponse {
                status: Some(machine("fake:///i-1")),
            })
        });
    let mut deletions = Vec::new();
    for number in 0..100 {
        let fake = scene.fake();
        deletions.push(tokio::spawn(async move {
            fake.delete_machine(&credential(), delete(&number.to_string())).await
        }));
    }
    crowd.reaches(3).await;
    let created = tokio::time::timeout(PATIENCE, async {
        scene.fake().create_machine(&credential(), create("k")).await
    });
    created.await.expect("the creation does not wait").unwrap();
    assert_eq!(crowd.now(), 3);
    for task in deletions {
        task.abort();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dropped_call_gives_its_place_back() {
    let scene = Scene::with(limited(1), times(), CallBounds::default()).await;
    let (crowd, gate) = (Crowd::default(), Arc::new(Semaphore::new(0)));
    gated(&scene.script, &crowd, &gate);
    for _ in 0..3 {
        let mut tasks = Vec::new();
        for _ in 0..5 {
            let fake = scene.fake();
            tasks.push(tokio::spawn(async move {
                fake.create_machine(&credential(), create("k")).await
            }));
        }
        crowd.reaches(1).await;
        for task in tasks {
            task.abort();
        }
        crowd.reaches(0).await;
    }
    gate.add_permits(1);
    scene.fake().create_machine(&credential(), create("k")).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn above_the_bounds_a_call_is_answered_at_once() {
    let bounds = CallBounds {
        queued: 2,
        ..CallBounds::default()
    };
    let scene = Scene::with(limited(1), times(), bounds).await;
    let (crowd, gate) = (Crowd::default(), Arc::new(Semaphore::new(0)));
    gated(&scene.script, &crowd, &gate);
    let (fake, credential) = (scene.fake(), credential());
    let mut calls = futures::stream::FuturesUnordered::new();
    for number in 0..10 {
        calls.push(fake.create_machine(&credential, create(&number.to_string())));
    }
    for _ in 0..7 {
        let error = futures::StreamExt::next(&mut calls).await.unwrap().unwrap_err();
        assert!(matches!(error.disposition(1), Disposition::Busy { .. }), "{error}");
        assert!(error.changed_nothing());
    }
    gate.add_permits(10);
    for _ in 0..3 {
        futures::StreamExt::next(&mut calls).await.unwrap().unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_rate_of_an_endpoint_holds() {
    let scene = Scene::new().await;
    let config = EndpointConfig {
        rate: Some(Rate {
            per_second: 0.001,
            burst: 2,
        }),
        ..unix(&scene.path())
    };
    scene.host.set_endpoint("fake", config).unwrap();
    scene
        .script
        .on(Rpc::MachineExists, |_: v1::MachineExistsRequest| async {
            Ok(present("fake:///i-1"))
        });
    let fake = scene.fake();
    fake.machine_exists(&credential(), exists("k")).await.unwrap();
    fake.machine_exists(&credential(), exists("k")).await.unwrap();
    let error = fake.machine_exists(&credential(), exists("k")).await.unwrap_err();
    assert_eq!(error.facts.refusal, Some(Refusal::Busy));
    assert_eq!(
        scene.host.snapshot("fake").unwrap().connections,
        1,
        "a limit needs no other connection"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_trace_goes_along() {
    let provider = opentelemetry_sdk::trace::SdkTracerProvider::builder().build();
    let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("test"));
    let _guard = tracing::subscriber::set_default(tracing_subscriber::registry().with(layer));
    let scene = Scene::new().await;
    let (tell, told) = std::sync::mpsc::channel();
    scene.script.handle(Rpc::MachineExists.path(), move |metadata, _| {
        let parent = metadata
            .get("traceparent")
            .map(|value| value.to_str().unwrap().to_owned());
        tell.send(parent).unwrap();
        async { Err(Status::not_found("")) }.boxed()
    });
    let span = tracing::info_span!("test");
    let trace = {
        use opentelemetry::trace::TraceContextExt as _;
        use tracing_opentelemetry::OpenTelemetrySpanExt as _;
        span.context().span().span_context().trace_id().to_string()
    };
    let fake = scene.fake();
    // The subscriber is this thread's: the call must stay on it.
    let _ = fake.machine_exists(&credential(), exists("k")).instrument(span).await;
    let parent = told.recv().unwrap().expect("a traceparent");
    assert!(
        parent.starts_with(&format!("00-{trace}-")),
        "{parent} is not of {trace}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_are_counted() {
    let metrics = HostMetrics::default();
    let mut registry = Registry::default();
    metrics.register(&mut registry);
    let host = provider_host::Host::new(HostConfig {
        times: times(),
        metrics,
        ..HostConfig::default()
    });
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("fake.sock");
    let script = Script::provider("fake", "instance-1");
    let _serving = script.serve(&path);
    host.set_endpoint("fake", unix(&path)).unwrap();
    until(&host, "fake", |snapshot| snapshot.state == ProviderState::Ready).await;
    script.fail(
        Rpc::CreateMachine,
        ActuatorError::new(ErrorReason::QuotaExceeded, "full").into(),
    );
    let fake = host.provider("fake").unwrap();
    fake.create_machine(&credential(), create("k")).await.unwrap_err();
    let text = || {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        text
    };
    for line in [
        r#"outrigger_provider_calls_total{provider="fake",rpc="CreateMachine",result="QUOTA_EXCEEDED"} 1"#,
        r#"outrigger_provider_call_duration_seconds_count{provider="fake",rpc="CreateMachine"} 1"#,
        r#"outrigger_provider_calls_in_flight{provider="fake",lane="create"} 0"#,
        r#"outrigger_provider_ready{provider="fake"} 1"#,
        r#"outrigger_provider_circuit{provider="fake"} 0"#,
        r#"outrigger_provider_sessions_total{provider="fake"} 1"#,
    ] {
        assert!(text().contains(line), "{line} is not in\n{}", text());
    }
    host.remove_endpoint("fake");
    assert!(!text().contains("fake"), "{}", text());
}
