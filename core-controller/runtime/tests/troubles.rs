//! What goes wrong, and what is said of it.

#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use actuator_proto::errors::ActuatorError;
use actuator_proto::v1::ErrorReason;
use core_controller::lease::LeaseSettings;
use core_controller::telemetry::Verb;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::api::events::v1::Event;
use kube::api::{DeleteParams, Patch, PatchParams};
use outrigger_api::{Cluster, Machine, MachineSet, Provider};
use serde_json::json;
use support::cloud::{Cloud, Fault};
use support::{Scene, condition, eventually, is_running, machine, options, until};

fn machine_condition(machine: &Machine, kind: &str) -> Option<(String, String, String)> {
    condition(&machine.status.as_ref()?.conditions, kind)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_config_is_shown_with_its_place_and_makes_nothing() {
    let scene = Scene::start().await;
    scene.kinds().await;
    scene.cluster().await;
    scene.create::<Machine>(machine("one", "impossible")).await;
    let machines = until(scene.api::<Machine>(), "a refused config", |machines| {
        machines.iter().any(|machine| {
            machine_condition(machine, "ProviderConfigValid").is_some_and(|(status, ..)| status == "False")
        })
    })
    .await;
    let (_, _, message) = machine_condition(&machines[0], "ProviderConfigValid").unwrap();
    assert!(
        message.contains("/size") && message.contains("none of small, large"),
        "{message}"
    );
    assert_eq!(scene.cloud.instances(), 0);
    // Corrected, it is made.
    scene
        .merge::<Machine>("one", json!({"spec": {"providerSpec": {"size": "small"}}}))
        .await;
    scene.running(1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unknown_provider_is_named() {
    let scene = Scene::start().await;
    scene.kinds().await;
    scene
        .create::<Cluster>(json!({
            "metadata": {"name": "demo"},
            "spec": {"provider": "nowhere", "providerSpec": {"kind": "ScriptedCluster", "version": "v1"}},
        }))
        .await;
    let clusters = until(scene.api::<Cluster>(), "a cluster that says why", |clusters| {
        clusters.iter().any(|cluster| {
            cluster
                .status
                .as_ref()
                .is_some_and(|status| !status.conditions.is_empty())
        })
    })
    .await;
    let status = clusters[0].status.as_ref().unwrap();
    let (ready, _, message) = condition(&status.conditions, "Ready").unwrap();
    assert_eq!(ready, "False");
    assert!(message.contains("nowhere"), "{message}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn missing_secrets_are_named_and_used_once_they_are_there() {
    let scene = Scene::start().await;
    scene.kinds().await;
    scene
        .create::<Cluster>(json!({
            "metadata": {"name": "demo"},
            "spec": {
                "provider": "scripted",
                "providerSpec": {"kind": "ScriptedCluster", "version": "v1"},
                "credentialsRef": {"name": "cloud"},
            },
        }))
        .await;
    let clusters = until(scene.api::<Cluster>(), "a cluster that misses its Secret", |clusters| {
        clusters
            .iter()
            .filter_map(|cluster| cluster.status.as_ref())
            .any(|status| serde_json::to_string(status).unwrap().contains("default/cloud"))
    })
    .await;
    let text = serde_json::to_string(&clusters[0].status).unwrap();
    assert!(text.contains("is not there; create it"), "{text}");
    scene
        .create::<Secret>(json!({"metadata": {"name": "cloud"}, "stringData": {"token": "hunter2"}}))
        .await;
    scene
        .create::<Machine>({
            let mut object = machine("one", "small");
            object["spec"]["bootstrap"] = json!({"dataSecretName": "boot"});
            object
        })
        .await;
    until(
        scene.api::<Machine>(),
        "a machine that misses its bootstrap data",
        |machines| {
            machines
                .iter()
                .filter_map(|machine| machine.status.as_ref())
                .any(|status| serde_json::to_string(status).unwrap().contains("default/boot"))
        },
    )
    .await;
    assert_eq!(scene.cloud.instances(), 0);
    scene
        .create::<Secret>(json!({"metadata": {"name": "boot"}, "stringData": {"value": "#cloud-config"}}))
        .await;
    scene.running(1).await;
    let state = scene.cloud.state.lock();
    assert_eq!(state.credentials["token"], b"hunter2");
    assert_eq!(
        state.instances.values().next().unwrap().bootstrap.as_deref(),
        Some(&b"#cloud-config"[..])
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refused_credentials_are_held_until_the_secret_changes() {
    let scene = Scene::start().await;
    for _ in 0..3 {
        let error = ActuatorError::new(ErrorReason::CredentialsInvalid, "the token is unknown");
        scene.cloud.state.lock().create_faults.push_back(Fault::Refuse(error));
    }
    scene.kinds().await;
    scene
        .create::<Secret>(json!({"metadata": {"name": "cloud"}, "stringData": {"token": "old"}}))
        .await;
    scene
        .create::<Cluster>(json!({
            "metadata": {"name": "demo"},
            "spec": {
                "provider": "scripted",
                "providerSpec": {"kind": "ScriptedCluster", "version": "v1"},
                "credentialsRef": {"name": "cloud"},
            },
        }))
        .await;
    scene.create::<Machine>(machine("one", "small")).await;
    until(scene.api::<Machine>(), "a machine that says why it waits", |machines| {
        machines
            .iter()
            .filter_map(|machine| machine.status.as_ref())
            .any(|status| serde_json::to_string(status).unwrap().contains("the token is unknown"))
    })
    .await;
    eventually("tries to be over", || {
        scene.cloud.state.lock().calls("CreateMachine") >= 2
    })
    .await;
    scene.cloud.state.lock().create_faults.clear();
    scene
        .merge::<Secret>("cloud", json!({"stringData": {"token": "new"}}))
        .await;
    scene.running(1).await;
    assert_eq!(scene.cloud.state.lock().credentials["token"], b"new");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_paused_cluster_stands_still() {
    let scene = Scene::start().await;
    scene.kinds().await;
    scene.cluster().await;
    scene.merge::<Cluster>("demo", json!({"spec": {"paused": true}})).await;
    scene.create::<Machine>(machine("one", "small")).await;
    until(scene.api::<Machine>(), "a paused machine", |machines| {
        machines
            .iter()
            .any(|machine| machine_condition(machine, "Paused").is_some_and(|(status, ..)| status == "True"))
    })
    .await;
    assert_eq!(scene.cloud.state.lock().calls("CreateMachine"), 0);
    scene.merge::<Cluster>("demo", json!({"spec": {"paused": false}})).await;
    scene.running(1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_answer_makes_no_second_instance() {
    let scene = Scene::start().await;
    scene.cloud.state.lock().create_faults.push_back(Fault::LoseAnswer);
    scene.kinds().await;
    scene.cluster().await;
    scene.create::<Machine>(machine("one", "small")).await;
    scene.running(1).await;
    assert_eq!(scene.cloud.state.lock().made, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refusal_is_shown_and_tried_again_as_the_table_says() {
    let scene = Scene::start().await;
    let error = ActuatorError::new(ErrorReason::CloudUnavailable, "the cloud is out for lunch");
    scene.cloud.state.lock().create_faults.push_back(Fault::Refuse(error));
    scene.kinds().await;
    scene.cluster().await;
    scene.create::<Machine>(machine("one", "small")).await;
    scene.running(1).await;
    assert_eq!(scene.cloud.state.lock().made, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_instance_is_replaced_by_its_set() {
    let mut scene = Scene::start().await;
    scene.kinds().await;
    scene.cluster().await;
    scene.create::<MachineSet>(set(1)).await;
    let before = scene.running(1).await;
    // The core learns of it when it asks: after a restart it asks for everything.
    scene.stop_core().await.unwrap();
    scene.cloud.state.lock().instances.clear();
    scene.start_core(options(&scene.cloud));
    let after = until(scene.api::<Machine>(), "another machine", |machines| {
        machines.len() == 1 && is_running(&machines[0]) && machines[0].metadata.uid != before[0].metadata.uid
    })
    .await;
    assert_ne!(after[0].spec.provider_id, before[0].spec.provider_id);
    assert_eq!(scene.cloud.instances(), 1);
    let events = scene.api::<Event>();
    until(events, "an event that tells of the loss", |events| {
        events
            .iter()
            .any(|event| event.reason.as_deref() == Some("InstanceLost"))
    })
    .await;
}

fn set(replicas: i32) -> serde_json::Value {
    let mut set = support::deployment(replicas, "small");
    set["metadata"]["name"] = json!("pool");
    set
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_set_adopts_what_matches_and_releases_what_does_not() {
    let scene = Scene::start().await;
    scene.kinds().await;
    scene.cluster().await;
    let mut orphan = machine("orphan", "small");
    orphan["metadata"]["labels"] = json!({"pool": "workers"});
    scene.create::<Machine>(orphan).await;
    scene.running(1).await;
    scene.create::<MachineSet>(set(2)).await;
    let machines = scene.running(2).await;
    assert!(machines.iter().any(
        |machine| machine.metadata.name.as_deref() == Some("orphan") && machine.metadata.owner_references.is_some()
    ));
    scene
        .merge::<Machine>("orphan", json!({"metadata": {"labels": {"pool": null}}}))
        .await;
    let machines = scene.running(3).await;
    assert!(
        machines
            .iter()
            .any(|machine| machine.metadata.name.as_deref() == Some("orphan")
                && machine.metadata.owner_references.as_ref().is_none_or(Vec::is_empty))
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_deletions_do_not_starve_creations() {
    let scene = Scene::start().await;
    scene.kinds().await;
    scene.cluster().await;
    scene.create::<MachineSet>(set(60)).await;
    scene.running(60).await;
    scene.cloud.state.lock().deletions_hang = true;
    scene
        .merge::<MachineSet>("pool", json!({"spec": {"replicas": 0}}))
        .await;
    eventually("deletions under way", || {
        scene.cloud.state.lock().calls("DeleteMachine") >= 60
    })
    .await;
    scene.create::<Machine>(machine("new", "small")).await;
    until(scene.api::<Machine>(), "a new machine among the dying", |machines| {
        machines
            .iter()
            .any(|machine| machine.metadata.name.as_deref() == Some("new") && is_running(machine))
    })
    .await;
    let (mut present, dying) = (scene.cloud.instances(), 60);
    assert_eq!(present, dying + 1);
    scene.cloud.state.lock().deletions_hang = false;
    until(scene.api::<Machine>(), "the dying to be gone", |machines| {
        machines.len() == 1
    })
    .await;
    present = scene.cloud.instances();
    assert_eq!(present, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_provider_that_comes_late_is_picked_up() {
    let mut scene = Scene::without_core().await;
    let folder = tempfile::Builder::new().prefix("late").tempdir().unwrap();
    let path = folder.path().join("actuator.sock");
    let mut late = options(&scene.cloud);
    late.providers.get_mut("scripted").unwrap().endpoint = format!("unix://{}", path.display());
    scene.start_core(late);
    scene.kinds().await;
    let providers = until(
        scene.providers(),
        "a provider that is not there",
        |providers: &[Provider]| {
            providers.iter().any(|provider| {
                provider.status.as_ref().is_some_and(|status| {
                    condition(&status.conditions, "Ready").is_some_and(|(status, ..)| status == "False")
                })
            })
        },
    )
    .await;
    let status = providers[0].status.as_ref().unwrap();
    let (_, _, message) = condition(&status.conditions, "Reachable").unwrap();
    assert!(message.contains(path.to_str().unwrap()), "{message}");
    scene.cluster().await;
    scene.create::<Machine>(machine("one", "small")).await;
    let cloud = Cloud::start_at(&path, std::sync::Arc::clone(&scene.cloud.state));
    scene.running(1).await;
    until(
        scene.providers(),
        "a provider that is ready",
        |providers: &[Provider]| {
            providers.iter().any(|provider| {
                provider.status.as_ref().is_some_and(|status| {
                    status.version.as_deref() == Some("1.2.3")
                        && condition(&status.conditions, "Ready").is_some_and(|(status, ..)| status == "True")
                })
            })
        },
    )
    .await;
    // Another process takes its place.
    drop(cloud);
    let _cloud = Cloud::start_at(&path, std::sync::Arc::clone(&scene.cloud.state));
    scene.create::<Machine>(machine("two", "small")).await;
    scene.running(2).await;
    assert_eq!(scene.cloud.state.lock().made, 2);
}

fn lease(identity: &str) -> LeaseSettings {
    LeaseSettings {
        identity: identity.to_owned(),
        duration: std::time::Duration::from_secs(5),
        retry_period: std::time::Duration::from_millis(200),
        ..LeaseSettings::default()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_identity_takes_over_and_the_other_process_ends() {
    let mut scene = Scene::without_core().await;
    let mut first = options(&scene.cloud);
    first.lease = Some(lease("same"));
    scene.start_core(first.clone());
    scene.kinds().await;
    scene.cluster().await;
    scene.create::<Machine>(machine("one", "small")).await;
    scene.running(1).await;
    // A second process of the same name, as after a restart whose predecessor hangs.
    let mut second = Scene::without_core().await;
    second.client = scene.client.clone();
    second.start_core(first);
    let error = scene.core_ended().await.unwrap_err();
    assert!(error.to_string().contains("does not lead"), "{error:#}");
    scene.create::<Machine>(machine("two", "small")).await;
    scene.running(2).await;
    let epochs = scene.cloud.state.lock().epochs.clone();
    assert_eq!(epochs, [1, 2], "the fencing epoch grows with each leader");
    second.stop_core().await.unwrap();
    let lease = scene.api::<Lease>().get("core-controller").await.unwrap();
    assert_eq!(
        lease.spec.unwrap().holder_identity.as_deref(),
        Some(""),
        "the lease is released"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_standby_takes_over_when_the_leader_ends() {
    let mut scene = Scene::without_core().await;
    let mut first = options(&scene.cloud);
    first.lease = Some(lease("first"));
    scene.start_core(first.clone());
    scene.kinds().await;
    scene.cluster().await;
    scene.create::<Machine>(machine("one", "small")).await;
    scene.running(1).await;
    let mut standby = Scene::without_core().await;
    standby.client = scene.client.clone();
    first.lease = Some(lease("second"));
    standby.start_core(first);
    scene.stop_core().await.unwrap();
    scene.create::<Machine>(machine("two", "small")).await;
    scene.running(2).await;
    assert_eq!(scene.cloud.state.lock().made, 2);
    assert_eq!(standby.metrics.writes(Verb::Create, "machines"), 0);
    standby.stop_core().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stale_epoch_ends_the_process() {
    let mut scene = Scene::start().await;
    let error = ActuatorError::new(ErrorReason::StaleFencingEpoch, "a newer core leads");
    scene.cloud.state.lock().create_faults.push_back(Fault::Refuse(error));
    scene.kinds().await;
    scene.cluster().await;
    scene.create::<Machine>(machine("one", "small")).await;
    let error = scene.core_ended().await.unwrap_err();
    assert!(error.to_string().contains("another core leads"), "{error:#}");
    assert_eq!(scene.cloud.instances(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_machine_goes_though_its_cluster_object_was_torn_away() {
    let scene = Scene::start().await;
    scene.kinds().await;
    scene.cluster().await;
    scene.create::<Machine>(machine("one", "small")).await;
    scene.running(1).await;
    // Somebody tears the Cluster away: finalizer off, deleted.
    let clusters = scene.api::<Cluster>();
    let delete = DeleteParams::default();
    scene
        .merge::<Cluster>(
            "demo",
            json!({"metadata": {"annotations": {"cluster.outrigger.dev/paused": "true"}}}),
        )
        .await;
    until(clusters.clone(), "a paused cluster", |clusters| {
        clusters.iter().all(|cluster| {
            cluster
                .status
                .as_ref()
                .is_some_and(|status| condition(&status.conditions, "Paused").is_some())
        })
    })
    .await;
    clusters
        .patch(
            "demo",
            &PatchParams::default(),
            &Patch::Merge(json!({"metadata": {"finalizers": null}})),
        )
        .await
        .unwrap();
    clusters.delete("demo", &delete).await.unwrap();
    until(clusters, "no cluster", <[_]>::is_empty).await;
    scene.api::<Machine>().delete("one", &delete).await.unwrap();
    until(scene.api::<Machine>(), "no machine", <[_]>::is_empty).await;
    assert_eq!(scene.cloud.instances(), 0);
}
