//! Mutations over a real socket: they outlive their calls, keep their order, and stay
//! within bounds.

#![allow(clippy::expect_used, clippy::panic, clippy::unnecessary_wraps, clippy::manual_assert)] // a test may panic

mod support;

use provider_sdk::v1::{DeletionState, Effect, ErrorReason, Presence};
use provider_sdk::{ActuatorError, v1};
use support::*;
use tonic::{Code, Request};

#[tokio::test]
async fn a_create_answers_what_the_provider_made() {
    let served = serve().await;
    let mut machines = served.machines().await;
    let request = create_with("k", 3, r#"{"size":"small","account":9007199254740993}"#);
    let digest = request.spec.as_ref().expect("a spec").digest.clone();
    let status = machines
        .create_machine(request)
        .await
        .expect("made")
        .into_inner()
        .status
        .expect("a status");
    assert_eq!(status.provider_id, "test:///k");
    assert_eq!((status.observed_generation, status.observed_digest), (3, digest));
    assert_eq!(*served.cloud.accounts.lock(), [9_007_199_254_740_993]);

    let found = machines
        .machine_exists(exists("k"))
        .await
        .expect("an answer")
        .into_inner();
    assert_eq!(found.presence(), Presence::Present);
    let gone = machines
        .delete_machine(delete("k", 4))
        .await
        .expect("an answer")
        .into_inner();
    assert_eq!(gone.state(), DeletionState::Gone);
    let found = machines
        .machine_exists(exists("k"))
        .await
        .expect("an answer")
        .into_inner();
    assert_eq!(found.presence(), Presence::Absent);
}

#[tokio::test]
async fn a_dropped_call_does_not_stop_its_create() {
    let served = serve().await;
    let hold = served.cloud.hold("k");
    let mut machines = served.machines().await;
    let call = tokio::spawn(async move { machines.create_machine(create("k")).await });
    hold.started().await;
    call.abort();
    let _ = call.await;
    hold.release();
    served.cloud.ended.wait().await;
    let found = served
        .machines()
        .await
        .machine_exists(exists("k"))
        .await
        .expect("an answer");
    assert_eq!(found.into_inner().presence(), Presence::Present);
    assert_eq!(served.cloud.calls(), ["create k"]);
}

#[tokio::test]
async fn a_deadline_does_not_stop_its_create_and_the_replay_joins() {
    let served = serve().await;
    let hold = served.cloud.hold("k");
    let mut machines = served.machines().await;
    let mut request = Request::new(create("k"));
    request.set_timeout(std::time::Duration::from_secs(1));
    let status = machines.create_machine(request).await.expect_err("too late");
    // From the transport: no ErrorInfo, so nobody takes it for final.
    assert!(
        matches!(status.code(), Code::Cancelled | Code::DeadlineExceeded),
        "{status:?}"
    );
    assert!(!classified(&status).is_final());
    hold.started().await;
    // Another attempt, with rotated credentials' order and bootstrap data, is the same.
    let mut replay = create("k");
    replay.meta.as_mut().expect("meta").attempt = 2;
    let mut again = served.machines().await;
    let replaying = tokio::spawn(async move { again.create_machine(replay).await });
    let metrics = || served.metrics.encode();
    eventually("the replay joins", || {
        metrics().contains("actuator_mutations_joined_total 1")
    })
    .await;
    assert!(metrics().contains("method=\"CreateMachine\",code=\"CANCELLED\""));
    hold.release();
    let status = joined(replaying)
        .await
        .expect("made")
        .into_inner()
        .status
        .expect("a status");
    assert_eq!(status.provider_id, "test:///k");
    assert_eq!(served.cloud.calls(), ["create k"]);
}

#[tokio::test]
async fn delete_wins_over_a_running_create() {
    let served = serve().await;
    let hold = served.cloud.hold("k");
    let mut machines = served.machines().await;
    let mut creator = machines.clone();
    let creating = tokio::spawn(async move { creator.create_machine(create("k")).await });
    hold.started().await;
    let mut deleter = machines.clone();
    let deleting = tokio::spawn(async move { deleter.delete_machine(delete("k", 2)).await });
    // A late Create is refused as soon as the Delete is accepted, whatever generation.
    let mut late = machines.clone();
    let refused = tokio::time::timeout(LONG, async {
        loop {
            let result = late.create_machine(create_with("k", 2, r#"{"size":"other"}"#)).await;
            let (_, reason, error) = refusal(result);
            if reason == Some(ErrorReason::StaleGeneration) {
                return error;
            }
            // Before that it waits for the running one and gives up.
            assert_eq!(reason, Some(ErrorReason::OperationPending));
        }
    });
    assert!(refused.await.expect("refused").is_final());
    hold.release();
    joined(creating).await.expect("made");
    let gone = joined(deleting).await.expect("deleted").into_inner();
    assert_eq!(gone.state(), DeletionState::Gone);
    assert_eq!(served.cloud.calls(), ["create k", "delete k"]);
    assert!(served.cloud.machines.lock().is_empty());
    let (code, _, _) = refusal(
        machines
            .create_machine(create_with("k", 3, r#"{"size":"small"}"#))
            .await,
    );
    assert_eq!(code, Code::Aborted);
    assert!(served.cloud.machines.lock().is_empty());
}

#[tokio::test]
async fn another_request_for_a_busy_key_is_pending_and_reads_do_not_wait() {
    let served = serve().await;
    let hold = served.cloud.hold("k");
    let mut machines = served.machines().await;
    let mut creator = machines.clone();
    let creating = tokio::spawn(async move { creator.create_machine(create("k")).await });
    hold.started().await;
    let found = machines
        .machine_exists(exists("k"))
        .await
        .expect("at once")
        .into_inner();
    assert_eq!(found.presence(), Presence::Absent);
    let (code, reason, error) = refusal(machines.update_machine(update("k", 1)).await);
    assert_eq!((code, reason), (Code::Aborted, Some(ErrorReason::OperationPending)));
    assert!(error.is_final() && error.retry_after.is_some());
    // Another key is free meanwhile.
    machines.create_machine(create("other")).await.expect("made");
    hold.release();
    joined(creating).await.expect("made");
}

#[tokio::test]
async fn generations_and_epochs_never_go_back() {
    let served = serve().await;
    let mut machines = served.machines().await;
    machines
        .create_machine(create_with("k", 5, r#"{"size":"small"}"#))
        .await
        .expect("made");
    let (code, reason, error) = refusal(machines.update_machine(update("k", 4)).await);
    assert_eq!((code, reason), (Code::Aborted, Some(ErrorReason::StaleGeneration)));
    assert!(error.is_final());

    let epoch = |epoch: i64, key: &str| {
        let mut request = create(key);
        request.meta.as_mut().expect("meta").fencing_epoch = epoch;
        request
    };
    machines.create_machine(epoch(7, "a")).await.expect("made");
    let (code, reason, _) = refusal(machines.create_machine(epoch(6, "b")).await);
    assert_eq!(
        (code, reason),
        (Code::FailedPrecondition, Some(ErrorReason::StaleFencingEpoch))
    );
    machines
        .create_machine(epoch(0, "c"))
        .await
        .expect("who does not fence is not fenced");
    assert!(!served.cloud.calls().contains(&"create b".to_owned()));
}

#[tokio::test]
async fn too_many_mutations_are_refused_and_reads_are_not() {
    let served = serve().await;
    let machines = served.machines().await;
    let mut holds = Vec::new();
    for number in 0..4 {
        let key = format!("k{number}");
        let hold = served.cloud.hold(&key);
        let mut machines = machines.clone();
        tokio::spawn(async move { machines.create_machine(create(&key)).await });
        hold.started().await;
        holds.push(hold);
    }
    let mut machines = machines;
    let (code, reason, error) = refusal(machines.create_machine(create("one-more")).await);
    assert_eq!(
        (code, reason),
        (Code::ResourceExhausted, Some(ErrorReason::TooManyInFlight))
    );
    assert!(error.is_final());
    machines.machine_exists(exists("k0")).await.expect("reads go on");
    for hold in holds {
        hold.release();
    }
    for _ in 0..4 {
        served.cloud.ended.wait().await;
    }
    let made = tokio::time::timeout(LONG, async {
        while machines.create_machine(create("one-more")).await.is_err() {}
    });
    made.await.expect("there is room again");
}

#[tokio::test]
async fn a_panic_is_a_bug_of_unknown_effect_and_the_process_goes_on() {
    let served = serve().await;
    served.cloud.behave("k", Behaviour::Panic);
    let mut machines = served.machines().await;
    let (code, reason, error) = refusal(machines.create_machine(create("k")).await);
    assert_eq!((code, reason), (Code::Internal, Some(ErrorReason::ProviderBug)));
    assert_eq!(error.effect, Effect::Unknown);
    assert!(!error.message.contains(SENTINEL));
    served.cloud.behaviours.lock().clear();
    machines
        .create_machine(create("k"))
        .await
        .expect("the key is free again");

    let (code, _, error) = refusal(machines.machine_exists(exists("read-panics")).await);
    assert_eq!(code, Code::Internal);
    assert!(!error.message.contains(SENTINEL));
    assert!(served.metrics.encode().contains("actuator_panics_total 2"));
}

#[tokio::test]
async fn errors_keep_their_effect_and_lose_their_secrets() {
    let served = serve().await;
    let error = ActuatorError::new(
        ErrorReason::CloudUnclassified,
        format!("{} {SENTINEL}", "x".repeat(3000)),
    )
    .with_effect(Effect::Partial)
    .with_provider_id("test:///half")
    .with_field(SENTINEL, format!("{SENTINEL} {}", "y".repeat(5000)));
    served.cloud.behave("k", Behaviour::Fail(error));
    let short = ActuatorError::new(ErrorReason::CredentialsInvalid, format!("the token {SENTINEL} is bad"));
    served.cloud.behave("l", Behaviour::Fail(short));
    let mut machines = served.machines().await;
    let status = machines.create_machine(create("k")).await.expect_err("an error");
    assert!(status.message().len() <= 1024 && status.details().len() <= 4096);
    assert!(!String::from_utf8_lossy(status.details()).contains(SENTINEL));
    let error = classified(&status);
    assert_eq!(error.effect, Effect::Partial);
    assert_eq!(error.provider_id.as_deref(), Some("test:///half"));
    let (_, reason, error) = refusal(machines.create_machine(create("l")).await);
    assert_eq!(reason, Some(ErrorReason::CredentialsInvalid));
    assert!(error.message.starts_with("the token **") && !error.message.contains(SENTINEL));
}

#[tokio::test]
async fn an_answer_that_breaks_the_protocol_is_a_bug() {
    let served = serve().await;
    let mut machines = served.machines().await;
    for (key, id) in [
        ("a", String::new()),
        ("b", "other:///1".into()),
        ("c", format!("test:///{}", "x".repeat(600))),
    ] {
        served.cloud.behave(key, Behaviour::Id(id));
        let (code, reason, error) = refusal(machines.create_machine(create(key)).await);
        assert_eq!((code, reason), (Code::Internal, Some(ErrorReason::ProviderBug)));
        assert_eq!(error.effect, Effect::Unknown);
    }
}

#[tokio::test]
async fn endpoint_members_share_the_order_of_their_cluster() {
    let served = serve().await;
    let hold = served.cloud.hold("c");
    let mut endpoints = served.endpoints().await;
    let set = |members: usize| v1::SetEndpointMembersRequest {
        meta: meta("c", 1),
        cluster: reference("c"),
        members: (0..members)
            .map(|number| v1::EndpointMember {
                idempotency_key: format!("m{number}"),
                provider_id: format!("test:///m{number}"),
                draining: false,
            })
            .collect(),
        credentials: credentials(),
        provider_state: Vec::new(),
    };
    let (code, reason, _) = refusal(endpoints.set_endpoint_members(set(3)).await);
    assert_eq!(
        (code, reason),
        (Code::InvalidArgument, Some(ErrorReason::LimitExceeded))
    );

    let mut setter = endpoints.clone();
    let request = set(2);
    let setting = tokio::spawn(async move { setter.set_endpoint_members(request).await });
    hold.started().await;
    let mut clusters = served.clusters().await;
    let update = v1::UpdateClusterRequest {
        meta: meta("c", 1),
        r#ref: reference("c"),
        spec: Some(v1::ClusterSpec {
            digest: vec![1; 32],
            ..Default::default()
        }),
        credentials: credentials(),
        provider_state: Vec::new(),
    };
    let (_, reason, _) = refusal(clusters.update_cluster(update).await);
    assert_eq!(reason, Some(ErrorReason::OperationPending));
    hold.release();
    let response = joined(setting).await.expect("set").into_inner();
    assert_eq!(response.members.len(), 2);
    served.cloud.behaviours.lock().clear();
    let deleted = clusters
        .delete_cluster(v1::DeleteClusterRequest {
            meta: meta("c", 2),
            r#ref: reference("c"),
            // One that can no longer be read is not in the way.
            config: opaque("TestClusterConfig", r#"{"gone":1}"#),
            credentials: credentials(),
            provider_state: Vec::new(),
        })
        .await
        .expect("accepted")
        .into_inner();
    assert_eq!(deleted.state(), DeletionState::InProgress);
    assert_eq!(deleted.message, "the network");
}
