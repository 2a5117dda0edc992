//! Machines come and go: apply, run, scale, roll, delete, restart; and what it costs.

#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use core_controller::telemetry::Verb;
use kube::api::DeleteParams;
use outrigger_api::{Cluster, Machine, MachineDeployment, MachineSet};
use serde_json::json;
use support::{Scene, deployment, eventually, is_running, options, sets, until};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn machines_come_and_go() {
    let scene = Scene::start().await;
    scene.kinds().await;
    scene.cluster().await;
    scene.deployment(3).await;
    let machines = scene.running(3).await;
    assert_eq!(scene.cloud.instances(), 3);
    for machine in &machines {
        let instance = scene.cloud.state.lock().instances[machine.metadata.uid.as_ref().unwrap()].clone();
        assert_eq!(machine.spec.provider_id.as_ref(), Some(&instance.id));
        assert_eq!(instance.owner.object_name, *machine.metadata.name.as_ref().unwrap());
    }
    until(scene.api::<Cluster>(), "a cluster that counts", |clusters| {
        clusters.iter().all(|cluster| {
            cluster
                .status
                .as_ref()
                .is_some_and(|status| serde_json::to_value(status).unwrap()["machines"] == 3)
        })
    })
    .await;

    // Up and down.
    scene
        .merge::<MachineDeployment>("workers", json!({"spec": {"replicas": 5}}))
        .await;
    scene.running(5).await;
    scene
        .merge::<MachineDeployment>("workers", json!({"spec": {"replicas": 2}}))
        .await;
    scene.running(2).await;
    eventually("two instances", || scene.cloud.instances() == 2).await;

    // Another template.
    let before = scene.running(2).await;
    scene
        .merge::<MachineDeployment>("workers", json!({"spec": deployment(2, "large")["spec"]}))
        .await;
    let after = until(scene.api::<Machine>(), "only large machines", |machines| {
        machines.len() == 2
            && machines.iter().all(is_running)
            && machines
                .iter()
                .all(|machine| machine.spec.provider_spec.config["size"] == "large")
    })
    .await;
    for machine in &after {
        assert!(!before.iter().any(|old| old.metadata.uid == machine.metadata.uid));
    }
    assert_eq!(sets(&scene).await.len(), 2, "the old set is kept for a rollback");

    // The end, in order.
    scene
        .api::<Cluster>()
        .delete("demo", &DeleteParams::default())
        .await
        .unwrap();
    until(scene.api::<Cluster>(), "no cluster", <[_]>::is_empty).await;
    assert_eq!(scene.cloud.instances(), 0);
    assert!(scene.cloud.state.lock().clusters.is_empty());
    until(scene.api::<Machine>(), "no machine", <[_]>::is_empty).await;
    until(scene.api::<MachineSet>(), "no set", <[_]>::is_empty).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn machines_cost_few_writes_and_a_restart_none() {
    const COUNT: u64 = 40;
    let mut scene = Scene::start().await;
    scene.kinds().await;
    scene.cluster().await;
    scene.deployment(COUNT as i32).await;
    scene.running(COUNT as usize).await;
    let total: u64 = scene.writes().iter().map(|(_, _, count)| count).sum();
    assert_eq!(scene.metrics.writes(Verb::Create, "machines"), COUNT);
    assert_eq!(scene.cloud.state.lock().calls("CreateMachine") as u64, COUNT);
    assert!(total <= 5 * COUNT, "{total} writes: {:?}", scene.writes());

    // What was written last is coalesced; then nothing moves any more.
    until(
        scene.api::<MachineDeployment>(),
        "a settled deployment",
        |deployments| {
            deployments.iter().all(|deployment| {
                deployment
                    .status
                    .as_ref()
                    .is_some_and(|status| status.available_replicas == COUNT as i32)
            })
        },
    )
    .await;
    until(scene.api::<MachineSet>(), "a settled set", |sets| {
        sets.iter().all(|set| {
            set.status
                .as_ref()
                .is_some_and(|status| status.available_replicas == COUNT as i32)
        })
    })
    .await;
    until(scene.api::<Cluster>(), "a settled cluster", |clusters| {
        clusters.iter().all(|cluster| {
            cluster
                .status
                .as_ref()
                .is_some_and(|status| serde_json::to_value(status).unwrap()["readyMachines"] == COUNT)
        })
    })
    .await;

    // A restart asks the provider and writes nothing.
    scene.stop_core().await.unwrap();
    let asked = scene.cloud.state.lock().calls("MachineExists");
    let mut again = options(&scene.cloud);
    again.install_crds = false;
    scene.start_core(again);
    eventually("every machine to be asked for", || {
        scene.cloud.state.lock().calls("MachineExists") >= asked + COUNT as usize
    })
    .await;
    tokio::time::sleep(std::time::Duration::from_secs(2)).await;
    assert_eq!(scene.writes(), [], "a restart writes nothing");
    assert_eq!(scene.cloud.state.lock().made as u64, COUNT);

    // And down.
    scene
        .merge::<MachineDeployment>("workers", json!({"spec": {"replicas": 0}}))
        .await;
    until(scene.api::<Machine>(), "no machine", <[_]>::is_empty).await;
    let machine_writes: u64 = scene
        .writes()
        .iter()
        .filter(|(resource, _, _)| resource.starts_with("machines"))
        .map(|(_, _, count)| count)
        .sum();
    assert!(machine_writes <= 3 * COUNT, "{:?}", scene.writes());
    eventually("no instance", || scene.cloud.instances() == 0).await;
}
