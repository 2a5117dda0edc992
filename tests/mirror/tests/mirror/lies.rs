//! Answers that are no errors and not true, or not possible: presence that flaps, ids
//! that change, GONE too early, values that nobody knows, fields without bounds. The core
//! believes what it can check, asks again where it cannot, and never makes or deletes
//! anything because of a lie.

use actuator_proto::v1::{self, DeletionState, MachinePhase};
use anyhow::ensure;
use mirror::ledger::{Call, Ledger};
use mirror::provider::{Act, Provider};
use outrigger_api::{Cluster, Machine};

use crate::Row;
use crate::answers::{GOING, MAKING, absent, deleted, exists};
use crate::scene::{CLUSTER, MACHINE, Scene, cluster_condition, is_ready, is_running, machine_condition, phase};
use crate::world::PATIENCE;

pub fn rows() -> Vec<Row> {
    let mut rows = Vec::new();
    for (name, script, calls) in MAKING {
        rows.push(Row::scene(format!("lies::making::{name}"), move |scene| async move {
            script_before_cluster(&scene, name, *script).await?;
            scene.machine().await?;
            scene.until_trace(MACHINE, calls).await?;
            ensure!(scene.instances() == 1, "{} instances", scene.instances());
            scene.provider.heal();
            scene.finish().await
        }));
    }
    for (name, script, calls) in GOING {
        rows.push(Row::scene(format!("lies::going::{name}"), move |scene| async move {
            scene.cluster().await?;
            scene.machine().await?;
            script(&scene.provider);
            scene.delete::<Machine>(MACHINE).await?;
            scene.gone::<Machine>(MACHINE).await?;
            scene.expect_trace(MACHINE, calls)?;
            ensure!(scene.instances() == 0, "{} instances", scene.instances());
            scene.finish().await
        }));
    }
    rows.push(Row::scene(
        "lies::an_instance_that_is_gone_twice_is_lost_and_never_made_again",
        lost_instance,
    ));
    rows.push(Row::scene(
        "lies::another_id_for_a_machine_is_a_matter_for_a_person",
        another_machine_id,
    ));
    rows.push(Row::scene(
        "lies::another_id_from_an_update_is_a_matter_for_a_person",
        another_id_from_update,
    ));
    rows.push(Row::scene(
        "lies::another_id_for_a_cluster_is_a_matter_for_a_person",
        another_cluster_id,
    ));
    rows.push(Row::scene("lies::addresses_that_change_are_followed", addresses));
    rows.push(Row::scene(
        "lies::a_terminal_failure_is_failed_and_can_be_deleted",
        terminal,
    ));
    rows.push(Row::scene(
        "lies::a_deletion_that_never_ends_is_said_and_kept_up",
        never_ending,
    ));
    rows.push(Row::scene(
        "lies::a_cluster_with_an_endpoint_that_is_none_works_without",
        bad_endpoint,
    ));
    rows.push(Row::scene(
        "lies::a_cluster_gone_too_early_is_deleted_again",
        early_cluster,
    ));
    rows
}

/// What is said of configs is said before the cluster, too.
async fn script_before_cluster(scene: &Scene, name: &str, script: fn(&Provider)) -> anyhow::Result<()> {
    if name.contains("severity") || name.contains("verdict") {
        script(&scene.provider);
        scene.cluster().await?;
    } else {
        scene.cluster().await?;
        script(&scene.provider);
    }
    Ok(())
}

async fn lost_instance(scene: Scene) -> anyhow::Result<()> {
    scene.cluster().await?;
    scene.provider.set_slow(true);
    scene.provider.script(Call::MachineExists, absent());
    scene.make_machine(MACHINE).await?;
    let lost = scene
        .until_machine("a machine that is lost", |machine| phase(machine) == "Failed")
        .await?;
    ensure!(lost.status.and_then(|status| status.failure_reason).as_deref() == Some("InstanceLost"));
    scene
        .until_event(MACHINE, "InstanceLost", "its owner replaces it")
        .await?;
    scene.expect_trace(MACHINE, "ce!e!")?;
    ensure!(scene.instances() == 1, "nothing was deleted and nothing made");
    scene.provider.heal();
    scene.finish().await
}

async fn another_machine_id(scene: Scene) -> anyhow::Result<()> {
    scene.cluster().await?;
    scene.provider.set_slow(true);
    let other = exists(|answer| answer.status.get_or_insert_default().provider_id = "mirror:///other/1".into());
    scene.provider.script(Call::MachineExists, other);
    scene.make_machine(MACHINE).await?;
    scene
        .until_machine("a machine that says that its id is another one", |machine| {
            machine_condition(machine, "Ready").is_some_and(|(status, reason, words)| {
                status == "Unknown" && reason == "StateInconsistent" && words.contains("mirror:///other/1")
            })
        })
        .await?;
    scene.expect_trace(MACHINE, "ce!")?;
    scene.provider.heal();
    scene.provider.restart()?;
    scene.until_machine("a machine that runs", is_running).await?;
    scene.expect_trace(MACHINE, "ce!e")?;
    scene.finish().await
}

async fn another_id_from_update(scene: Scene) -> anyhow::Result<()> {
    scene.cluster().await?;
    let before = scene.machine().await?;
    let other = Act::twist(|answer: &mut v1::UpdateMachineResponse| {
        answer.status.get_or_insert_default().provider_id = "mirror:///other/2".into();
    });
    scene.provider.script(Call::UpdateMachine, other);
    scene.resize::<Machine>(MACHINE, "large").await?;
    scene.until_event(MACHINE, "FailedUpdate", "mirror:///other/2").await?;
    let shown = scene.api::<Machine>().get(MACHINE).await?;
    ensure!(shown.spec.provider_id == before.spec.provider_id, "{shown:?}");
    scene.expect_trace(MACHINE, "cu!")?;
    scene.provider.heal();
    scene.provider.restart()?;
    scene.until_trace(MACHINE, "cu!e").await?;
    scene.finish().await
}

async fn another_cluster_id(scene: Scene) -> anyhow::Result<()> {
    scene.provider.set_slow(true);
    let other = Act::twist(|answer: &mut v1::ClusterExistsResponse| {
        answer.status.get_or_insert_default().provider_id = "mirror:///other/3".into();
    });
    scene.provider.script(Call::ClusterExists, other);
    scene.make_cluster().await?;
    scene
        .until_cluster("a cluster that says that its id is another one", |cluster| {
            cluster_condition(cluster, "Ready")
                .is_some_and(|(status, reason, _)| status == "Unknown" && reason == "StateInconsistent")
        })
        .await?;
    scene.expect_trace(CLUSTER, "CE!")?;
    scene.provider.heal();
    scene.provider.restart()?;
    scene.until_cluster("a cluster that is ready", is_ready).await?;
    scene.expect_trace(CLUSTER, "CE!E")?;
    scene.finish().await
}

async fn addresses(scene: Scene) -> anyhow::Result<()> {
    scene.cluster().await?;
    scene.provider.set_slow(true);
    for round in 0..5 {
        let moving = exists(move |answer| {
            let status = answer.status.get_or_insert_default();
            status.phase = MachinePhase::Provisioning.into();
            let address = |last: usize| v1::MachineAddress {
                r#type: v1::MachineAddressType::InternalIp.into(),
                address: format!("10.0.0.{last}"),
            };
            // In another order each time, and twice.
            status.addresses = vec![address(round), address(9 - round), address(round)];
        });
        scene.provider.script_times(Call::MachineExists, 1, moving);
    }
    let machine = scene.machine().await?;
    let shown: Vec<String> = machine
        .status
        .map(|status| status.addresses.into_iter().map(|address| address.address).collect())
        .unwrap_or_default();
    ensure!(shown == ["10.0.0.1"], "{shown:?}");
    scene.expect_trace(MACHINE, "c(e!){5}e")?;
    scene.finish().await
}

async fn terminal(scene: Scene) -> anyhow::Result<()> {
    scene.cluster().await?;
    scene.provider.set_slow(true);
    let failed = exists(|answer| {
        let status = answer.status.get_or_insert_default();
        status.failure = Some(v1::Failure {
            reason: "DISK_BURNT".into(),
            message: "the disk has burnt".into(),
            terminal: true,
        });
    });
    scene.provider.script(Call::MachineExists, failed);
    scene.make_machine(MACHINE).await?;
    let shown = scene
        .until_machine("a machine that has failed", |machine| phase(machine) == "Failed")
        .await?;
    ensure!(
        shown.status.and_then(|status| status.failure_reason).as_deref() == Some("DiskBurnt"),
        "the reason is shown"
    );
    scene
        .until_event(MACHINE, "MachineFailed", "the disk has burnt")
        .await?;
    scene.expect_trace(MACHINE, "ce!")?;
    scene.provider.heal();
    scene.finish().await
}

async fn never_ending(scene: Scene) -> anyhow::Result<()> {
    scene.cluster().await?;
    scene.machine().await?;
    scene
        .provider
        .script(Call::DeleteMachine, deleted(DeletionState::InProgress.into()));
    scene.delete::<Machine>(MACHINE).await?;
    scene
        .until_machine("a machine that says what it waits for", |machine| {
            machine_condition(machine, "Deleting").is_some_and(|(_, _, words)| words.contains("it takes its time"))
        })
        .await?;
    let asked = |ledger: &Ledger| ledger.count(Call::DeleteMachine) >= 10;
    scene.provider.until(PATIENCE, "ten deletions", asked).await?;
    ensure!(
        scene.api::<Machine>().get_opt(MACHINE).await?.is_some(),
        "the finalizer stays"
    );
    scene.provider.heal();
    scene.finish().await
}

async fn bad_endpoint(scene: Scene) -> anyhow::Result<()> {
    let bad = Act::twist(|answer: &mut v1::CreateClusterResponse| {
        let status = answer.status.get_or_insert_default();
        status.endpoint = Some(v1::Endpoint {
            host: "not a host\n".into(),
            port: 70_000,
        });
        status.failure_domains = (0..3000)
            .map(|index| v1::FailureDomain {
                name: format!("zone-{index}-{}", "z".repeat(300)),
                ..Default::default()
            })
            .collect();
    });
    scene.provider.script(Call::CreateCluster, bad);
    let cluster = scene.cluster().await?;
    let status = cluster.status.unwrap_or_default();
    ensure!(status.control_plane_endpoint.is_none(), "{status:?}");
    ensure!(status.failure_domains.len() <= 128, "{}", status.failure_domains.len());
    scene.machine().await?;
    scene.finish().await
}

async fn early_cluster(scene: Scene) -> anyhow::Result<()> {
    scene.cluster().await?;
    let gone = Act::invent(v1::DeleteClusterResponse {
        state: DeletionState::Gone.into(),
        ..Default::default()
    });
    scene.provider.script_times(Call::DeleteCluster, 2, gone);
    scene.delete::<Cluster>(CLUSTER).await?;
    scene.gone::<Cluster>(CLUSTER).await?;
    scene.expect_trace(CLUSTER, "CD!ED!EDE")?;
    scene.finish().await
}
