//! Machines of sets under a provider that misbehaves: they are replaced, once each, and
//! ever more slowly; and machines that find no room are put elsewhere.

use actuator_proto::v1::{self, Effect, ErrorReason, MachinePhase, Presence};
use anyhow::ensure;
use kube::ResourceExt as _;
use mirror::ledger::{Call, Ledger};
use mirror::provider::Act;
use mirror::statuses;
use outrigger_api::{Machine, MachineSet};
use serde_json::json;
use tonic::{Code, Status};

use crate::Row;
use crate::scene::{CLUSTER, MACHINE, Scene, is_running, machine_condition};
use crate::world::PATIENCE;

pub fn rows() -> Vec<Row> {
    vec![
        Row::scene(
            "owned::a_machine_that_cannot_be_changed_is_replaced_by_its_set",
            replaced,
        ),
        Row::scene("owned::an_instance_that_is_lost_is_replaced_by_its_set", lost),
        Row::scene("owned::machines_that_all_fail_are_replaced_ever_more_slowly", all_fail),
        Row::scene(
            "owned::machines_that_cannot_be_made_are_replaced_ever_more_slowly",
            never_made,
        ),
        Row::scene(
            "owned::a_zone_without_room_sends_a_machine_to_another_one",
            another_zone,
        ),
        Row::scene("owned::no_room_anywhere_is_waited_for_and_tried_in_turns", no_room),
    ]
}

/// A set of one machine; returns the machine's name once it is there.
async fn set(scene: &Scene) -> anyhow::Result<()> {
    scene
        .create::<MachineSet>(json!({
            "metadata": {"name": "pool"},
            "spec": {
                "clusterName": CLUSTER,
                "replicas": 1,
                "selector": {"matchLabels": {"pool": "pool"}},
                "template": {
                    "metadata": {"labels": {"pool": "pool"}},
                    "spec": {"providerSpec": {"kind": "MirrorMachine", "version": "v1", "size": "small"}},
                },
            },
        }))
        .await?;
    Ok(())
}

/// Waits until the set has one machine, that runs and has another name than `before`.
async fn one_runs(scene: &Scene, before: &str) -> anyhow::Result<String> {
    let ready = |set: &MachineSet| {
        let status = serde_json::to_value(&set.status).unwrap_or_default();
        status["replicas"] == 1 && status["readyReplicas"] == 1
    };
    loop {
        scene
            .until_one("pool", "a set of one machine that is ready", ready)
            .await?;
        let machines = scene.api::<Machine>().list(&Default::default()).await?.items;
        if let [machine] = machines.as_slice()
            && is_running(machine)
            && machine.name_any() != before
        {
            return Ok(machine.name_any());
        }
        // The set's status is behind: it tells of the next change.
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
}

async fn done(scene: Scene) -> anyhow::Result<()> {
    ensure!(scene.instances() == 1, "{} instances", scene.instances());
    scene.delete::<MachineSet>("pool").await?;
    scene.finish().await
}

async fn replaced(scene: Scene) -> anyhow::Result<()> {
    scene.cluster().await?;
    set(&scene).await?;
    let first = one_runs(&scene, "").await?;
    let refused = statuses::error(
        Code::FailedPrecondition,
        ErrorReason::ReplaceRequired,
        Effect::None,
        "the size cannot be changed",
    );
    scene.provider.script(Call::UpdateMachine, Act::Refuse(refused));
    scene.provider.ledger(|ledger| ledger.deletions_wanted = true);
    scene.resize::<Machine>(&first, "large").await?;
    one_runs(&scene, &first).await?;
    scene.expect_trace(&first, "cu!de")?;
    done(scene).await
}

fn absent() -> Act {
    Act::invent(v1::MachineExistsResponse {
        presence: Presence::Absent.into(),
        status: None,
    })
}

async fn lost(scene: Scene) -> anyhow::Result<()> {
    scene.cluster().await?;
    scene.provider.set_slow(true);
    scene.provider.script_times(Call::MachineExists, 2, absent());
    scene.provider.ledger(|ledger| ledger.deletions_wanted = true);
    set(&scene).await?;
    one_runs(&scene, "").await?;
    ensure!(scene.provider.ledger(|ledger| ledger.count(Call::CreateMachine)) == 2);
    done(scene).await
}

async fn all_fail(scene: Scene) -> anyhow::Result<()> {
    scene.cluster().await?;
    scene.provider.set_slow(true);
    let failed = Act::twist(|answer: &mut v1::MachineExistsResponse| {
        if let Some(status) = &mut answer.status {
            status.phase = MachinePhase::Failed.into();
            status.failure = Some(v1::Failure {
                reason: "BROKEN".into(),
                message: "it is broken".into(),
                terminal: true,
            });
        }
    });
    scene.provider.script(Call::MachineExists, failed);
    // A deletion is over when Exists says so: that is the truth all the while.
    scene.provider.ledger(|ledger| ledger.deletions_wanted = true);
    set(&scene).await?;
    let thrice = |ledger: &Ledger| ledger.count(Call::CreateMachine) >= 3;
    scene
        .provider
        .until(PATIENCE, "three machines that fail", thrice)
        .await?;
    // The one that goes, and the one that comes: a set does not wait for the end of what it deleted.
    ensure!(scene.instances() <= 2, "{} instances at a time", scene.instances());
    scene.provider.heal();
    one_runs(&scene, "").await?;
    let made = scene.provider.ledger(|ledger| ledger.count(Call::CreateMachine));
    ensure!(made <= 6, "{made} machines were made: nothing slowed it down");
    done(scene).await
}

async fn never_made(scene: Scene) -> anyhow::Result<()> {
    scene.cluster().await?;
    let refused = statuses::error(
        Code::FailedPrecondition,
        ErrorReason::ReplaceRequired,
        Effect::None,
        "make another one",
    );
    scene.provider.script(Call::CreateMachine, Act::Refuse(refused));
    scene.provider.ledger(|ledger| ledger.deletions_wanted = true);
    set(&scene).await?;
    let thrice = |ledger: &Ledger| ledger.count(Call::CreateMachine) >= 3;
    scene
        .provider
        .until(PATIENCE, "three machines that are refused", thrice)
        .await?;
    scene.provider.heal();
    one_runs(&scene, "").await?;
    let tried = scene.provider.ledger(|ledger| ledger.count(Call::CreateMachine));
    ensure!(tried <= 6, "{tried} were tried: nothing slowed it down");
    done(scene).await
}

fn no_room_here() -> Status {
    statuses::error(
        Code::ResourceExhausted,
        ErrorReason::InsufficientCapacity,
        Effect::None,
        "there is no room",
    )
}

async fn another_zone(scene: Scene) -> anyhow::Result<()> {
    scene.provider.set_domains(&["a", "b"]);
    scene.cluster().await?;
    let only_b = Act::judge(|request: v1::CreateMachineRequest| {
        let asked_for = request.spec.unwrap_or_default().failure_domain;
        (asked_for != "b").then(no_room_here)
    });
    scene.provider.script(Call::CreateMachine, only_b);
    scene.make_machine(MACHINE).await?;
    let machine = scene.until_machine("a machine that runs", is_running).await?;
    let zone = machine.status.and_then(|status| status.failure_domain);
    ensure!(zone.as_deref() == Some("b"), "{zone:?}");
    scene.expect_trace(MACHINE, "(c!)+c")?;
    scene.finish().await
}

async fn no_room(scene: Scene) -> anyhow::Result<()> {
    scene.provider.set_domains(&["a", "b"]);
    scene.cluster().await?;
    scene.provider.script(Call::CreateMachine, Act::Refuse(no_room_here()));
    scene.make_machine(MACHINE).await?;
    scene
        .until_machine("a machine that says that there is no room", |machine| {
            machine_condition(machine, "Ready").is_some_and(|(_, why, _)| why == "InsufficientCapacity")
        })
        .await?;
    scene.until_event(MACHINE, "FailedCreate", "there is no room").await?;
    let in_turns = |ledger: &Ledger| ledger.count(Call::CreateMachine) >= 6;
    scene.provider.until(PATIENCE, "six tries", in_turns).await?;
    scene.provider.heal();
    scene.until_machine("a machine that runs", is_running).await?;
    scene.expect_trace(MACHINE, "(c!)+c")?;
    scene.finish().await
}
