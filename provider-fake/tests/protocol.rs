//! The protocol over the real socket of the real binary.

#![allow(clippy::expect_used, clippy::panic)]

mod common;

use actuator_proto::v1::{self, DeletionState, ErrorReason, Presence};
use common::{
    CLUSTER, Fake, classified, create_cluster, create_machine, create_machine_with, delete_cluster, delete_machine, id,
    machine_spec, meta, reason, reference, timed,
};
use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use provider_fake::control::v1 as control;

#[tokio::test]
async fn ten_replays_and_twenty_at_once_make_one_machine() {
    let fake = Fake::with_cluster(&["--api-latency=5ms"]).await;
    let first = id(fake
        .machines()
        .create_machine(create_machine("k1"))
        .await
        .expect("made"));
    assert!(first.starts_with("fake:///zone-"), "{first}");
    for _ in 0..10 {
        assert_eq!(
            id(fake
                .machines()
                .create_machine(create_machine("k1"))
                .await
                .expect("replayed")),
            first
        );
    }
    let at_once: FuturesUnordered<_> = (0..20)
        .map(|_| {
            let mut machines = fake.machines();
            async move { machines.create_machine(create_machine("k2")).await }
        })
        .collect();
    let answers: Vec<_> = at_once.collect().await;
    // Some may be told to wait; those that got an id got the same one.
    let mut ids: Vec<String> = answers.into_iter().filter_map(|answer| answer.ok().map(id)).collect();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 1);
    let report = fake.audit();
    assert!(report.clean && report.instances.len() == 2, "{report:?}");
    assert_eq!(report.changes["instance"]["created"], 2);
}

#[tokio::test]
async fn another_digest_conflicts_and_rotated_bootstrap_data_does_not() {
    let mut fake = Fake::with_cluster(&[]).await;
    let first = id(fake.machines().create_machine(create_machine("k")).await.expect("made"));
    fake.restart().await;
    let other = create_machine_with("k", r#"{"machineType":"fake.large"}"#);
    assert_eq!(
        reason(fake.machines().create_machine(other).await),
        ErrorReason::KeyConflict
    );
    let mut rotated = create_machine("k");
    if let Some(bootstrap) = &mut rotated.get_mut().bootstrap {
        bootstrap.data = b"other data".to_vec();
        bootstrap.sha256 = actuator_proto::digest::sha256(&bootstrap.data);
    }
    assert_eq!(
        id(fake.machines().create_machine(rotated).await.expect("replayed")),
        first
    );
}

#[tokio::test]
async fn delete_wins_over_creates_before_at_the_same_time_and_after() {
    let mut fake = Fake::with_cluster(&["--api-latency=30ms"]).await;
    for n in 0..5 {
        let key = format!("race-{n}");
        let (mut creating, mut deleting) = (fake.machines(), fake.machines());
        let (_, deleted) = tokio::join!(creating.create_machine(create_machine(&key)), async {
            loop {
                match deleting.delete_machine(delete_machine(&key)).await {
                    Ok(answer) if answer.get_ref().state() == DeletionState::Gone => return,
                    Ok(_) => {}
                    Err(status) => assert_eq!(reason(Err::<(), _>(status)), ErrorReason::OperationPending),
                }
            }
        });
        let () = deleted;
        fake.machines()
            .create_machine(create_machine(&key))
            .await
            .expect_err("too late");
        assert_eq!(fake.exists(&key).await.presence(), Presence::Absent);
    }
    // The process that knew of the deletions is gone; the ledger is not.
    fake.restart().await;
    fake.machines()
        .create_machine(create_machine("race-0"))
        .await
        .expect_err("too late");
    let report = fake.audit();
    assert!(report.clean && report.instances.is_empty(), "{report:?}");
}

#[tokio::test]
async fn a_client_that_goes_away_leaves_a_machine_that_its_key_finds() {
    let fake = Fake::with_cluster(&["--api-latency=100ms"]).await;
    let mut machines = fake.machines();
    let call = machines.create_machine(create_machine("k"));
    tokio::time::timeout(std::time::Duration::from_millis(20), call)
        .await
        .expect_err("gone already");
    let made = id(fake
        .machines()
        .create_machine(create_machine("k"))
        .await
        .expect("joined or replayed"));
    let status = fake.exists("k").await.status.expect("present");
    assert_eq!(status.provider_id, made);
    assert_eq!(fake.audit().changes["instance"]["created"], 1);
}

#[tokio::test]
async fn a_machine_changes_in_place_what_it_can() {
    let fake = Fake::with_cluster(&[]).await;
    let made = id(fake.machines().create_machine(create_machine("k")).await.expect("made"));
    let update = |json: &str, generation| {
        timed(v1::UpdateMachineRequest {
            meta: Some(meta("k", generation)),
            r#ref: Some(v1::ResourceRef {
                provider_id: made.clone(),
                ..reference("k")
            }),
            spec: Some(machine_spec(json)),
            ..Default::default()
        })
    };
    let grown = r#"{"machineType":"fake.small","publicAddress":true,"diskGiB":40}"#;
    let status = fake
        .machines()
        .update_machine(update(grown, 2))
        .await
        .expect("updated")
        .into_inner()
        .status;
    let status = status.expect("a status");
    assert_eq!(
        (status.observed_generation, status.observed_digest),
        (2, machine_spec(grown).digest)
    );
    let other = r#"{"machineType":"fake.large","publicAddress":true,"diskGiB":40}"#;
    let refused = classified(fake.machines().update_machine(update(other, 3)).await);
    assert!(
        refused.reason == Some(ErrorReason::ReplaceRequired) && refused.is_final(),
        "{refused:?}"
    );
    assert!(refused.message.contains("machineType"), "{}", refused.message);
}

#[tokio::test]
async fn what_is_wrong_gets_its_reason() {
    let fake = Fake::start(&["--require-token=good", "--expired-token=old"]).await;
    let with_token = |mut request: tonic::Request<v1::CreateMachineRequest>, token: &str| {
        let entries = [("token".to_owned(), token.as_bytes().to_vec())].into();
        request.get_mut().credentials = Some(v1::Credentials {
            source: Some(v1::credentials::Source::Data(v1::CredentialData { entries })),
        });
        request
    };
    let create = |request| {
        let mut machines = fake.machines();
        async move { reason(machines.create_machine(request).await) }
    };
    assert_eq!(create(create_machine("k")).await, ErrorReason::CredentialsInvalid);
    assert_eq!(
        create(with_token(create_machine("k"), "bad")).await,
        ErrorReason::CredentialsInvalid
    );
    assert_eq!(
        create(with_token(create_machine("k"), "old")).await,
        ErrorReason::CredentialsExpired
    );
    assert_eq!(
        create(with_token(create_machine("k"), "good")).await,
        ErrorReason::ClusterNotReady
    );

    let fake = Fake::with_cluster(&[]).await;
    let create = |key: &str, json: &str| {
        let mut machines = fake.machines();
        let request = create_machine_with(key, json);
        async move { classified(machines.create_machine(request).await) }
    };
    let image = create("k", r#"{"machineType":"fake.small","image":"dos"}"#).await;
    assert_eq!(image.reason, Some(ErrorReason::DependencyNotFound));
    let machine_type = create("k", r#"{"machineType":"fake.huge"}"#).await;
    assert_eq!(machine_type.reason, Some(ErrorReason::InvalidConfig));
    assert!(
        machine_type
            .fields
            .iter()
            .any(|field| field.field.ends_with("/machineType")),
        "{machine_type:?}"
    );
    let unknown_key = create("k", r#"{"machineType":"fake.small","colour":"red"}"#).await;
    assert_eq!(unknown_key.reason, Some(ErrorReason::InvalidConfig));
    let told = create("k", r#"{"machineType":"fake.small","failCreate":"QUOTA_EXCEEDED"}"#).await;
    assert_eq!(told.reason, Some(ErrorReason::QuotaExceeded));

    fake.machines().create_machine(create_machine("k")).await.expect("made");
    assert_eq!(
        reason(fake.clusters().delete_cluster(delete_cluster(CLUSTER)).await),
        ErrorReason::DependentsExist
    );
    let foreign = v1::MachineExistsRequest {
        r#ref: Some(v1::ResourceRef {
            provider_id: fake.exists("k").await.status.expect("present").provider_id,
            ..reference("other")
        }),
        ..Default::default()
    };
    assert_eq!(
        reason(fake.machines().machine_exists(timed(foreign)).await),
        ErrorReason::OwnershipMismatch
    );
}

#[tokio::test]
async fn a_cluster_comes_and_goes() {
    let mut fake = Fake::start(&["--delete-delay=50ms"]).await;
    let made = fake
        .clusters()
        .create_cluster(create_cluster(CLUSTER))
        .await
        .expect("made")
        .into_inner()
        .status;
    let made = made.expect("a status");
    assert_eq!(made.phase(), v1::ClusterPhase::Ready);
    assert_eq!(made.endpoint.as_ref().map(|endpoint| endpoint.port), Some(6443));
    assert_eq!(made.failure_domains.len(), 3);
    fake.restart().await;
    let again = fake
        .clusters()
        .create_cluster(create_cluster(CLUSTER))
        .await
        .expect("replayed")
        .into_inner()
        .status;
    assert_eq!(again, Some(made));
    let listed = v1::ListClustersRequest {
        management_cluster_id: "management-1".to_owned(),
        ..Default::default()
    };
    let listed = fake
        .clusters()
        .list_clusters(timed(listed))
        .await
        .expect("listed")
        .into_inner();
    assert_eq!(listed.clusters.len(), 1);
    loop {
        let deleted = fake
            .clusters()
            .delete_cluster(delete_cluster(CLUSTER))
            .await
            .expect("accepted")
            .into_inner();
        if deleted.state() == DeletionState::Gone {
            break;
        }
        assert!(!deleted.remaining.is_empty());
    }
    assert!(fake.audit().live.is_empty());
}

#[tokio::test]
async fn limits_and_faults_reach_the_core_as_the_table_has_them() {
    let fake = Fake::with_cluster(&["--quota=instances=1", "--capacity=zone-b=0", "--control"]).await;
    let mut elsewhere = create_machine("k0");
    if let Some(spec) = &mut elsewhere.get_mut().spec {
        spec.failure_domain = "zone-b".to_owned();
    }
    let full = classified(fake.machines().create_machine(elsewhere).await);
    assert_eq!(full.reason, Some(ErrorReason::InsufficientCapacity));
    assert!(
        full.message.contains("zone-b") && full.message.contains("fake.small"),
        "{}",
        full.message
    );
    fake.machines()
        .create_machine(create_machine("k1"))
        .await
        .expect("made");
    assert_eq!(
        reason(fake.machines().create_machine(create_machine("k2")).await),
        ErrorReason::QuotaExceeded
    );

    let set = |pairs: &[(&str, &str)]| {
        let settings = pairs
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        let mut control = fake.control();
        async move {
            control
                .set_settings(control::SetSettingsRequest { settings })
                .await
                .expect("set")
        }
    };
    set(&[("quota", ""), ("rate-limit", "1/m:1")]).await;
    fake.machines()
        .create_machine(create_machine("k2"))
        .await
        .expect("the burst");
    let limited = classified(fake.machines().create_machine(create_machine("k3")).await);
    assert_eq!(limited.reason, Some(ErrorReason::RateLimited));
    assert!(limited.retry_after.is_some());

    set(&[
        ("rate-limit", ""),
        ("lose-responses", "1"),
        ("lost-response-timeout", "10ms"),
    ])
    .await;
    let lost = classified(fake.machines().create_machine(create_machine("k3")).await);
    assert!(
        lost.reason == Some(ErrorReason::CloudUnavailable) && !lost.is_final(),
        "{lost:?}"
    );
    assert_eq!(fake.exists("k3").await.presence(), Presence::Present);

    set(&[
        ("lose-responses", ""),
        ("error-rate", "DescribeInstance:MISSING_PERMISSION=1"),
    ])
    .await;
    let request = timed(v1::MachineExistsRequest {
        r#ref: Some(reference("k3")),
        ..Default::default()
    });
    let denied = classified(fake.machines().machine_exists(request).await);
    assert_eq!(
        denied.reason,
        Some(ErrorReason::MissingPermission),
        "cannot tell is never absent"
    );
}
