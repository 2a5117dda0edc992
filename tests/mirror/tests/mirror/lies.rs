//! Answers that are no errors and not true, or not possible: presence that flaps, ids
//! that change, GONE too early, values that nobody knows, fields without bounds. The core
//! believes what it can check, asks again where it cannot, and never makes or deletes
//! anything because of a lie.

use crate::scene::{CLUSTER, MACHINE, Scene, cluster_condition, is_ready, is_running, machine_condition, phase};
use crate::world::PATIENCE;
use actuator_proto::v1::{self, DeletionState, MachinePhase, Presence};
use anyhow::ensure;
use bytes::Bytes;
use mirror::ledger::Call;
use mirror::provider::{Act, Provider};
use outrigger_api::{Cluster, Machine};

use crate::Row;

/// What happens before the machine runs: script, calls that follow.
type Making = (&'static str, fn(&Provider), &'static str);
/// What happens while the machine goes: script, calls that follow.
type Going = (&'static str, fn(&Provider), &'static str);

fn created(change: impl Fn(&mut v1::MachineStatus) + Send + Sync + 'static) -> Act {
    Act::twist(move |answer: &mut v1::CreateMachineResponse| change(answer.status.get_or_insert_default()))
}

fn exists(change: impl Fn(&mut v1::MachineExistsResponse) + Send + Sync + 'static) -> Act {
    Act::twist(change)
}

fn absent() -> Act {
    Act::invent(v1::MachineExistsResponse {
        presence: Presence::Absent.into(),
        status: None,
    })
}

/// Still on its way, whatever is true.
fn provisioning() -> Act {
    exists(|answer| {
        let status = answer.status.get_or_insert_default();
        status.phase = MachinePhase::Provisioning.into();
    })
}

fn lost() -> Act {
    Act::Lose(tonic::Status::deadline_exceeded("the answer is lost"))
}

fn deleted(state: i32) -> Act {
    Act::invent(v1::DeleteMachineResponse {
        state,
        message: "it takes its time".to_owned(),
        ..Default::default()
    })
}

/// Each ends with a machine that runs, made once.
const MAKING: &[Making] = &[
    (
        "a_phase_that_nobody_knows_is_asked_for_again",
        |provider| {
            provider.script_times(Call::CreateMachine, 1, created(|status| status.phase = 99));
        },
        "c!e",
    ),
    (
        "a_presence_that_nobody_knows_is_no_absence",
        |provider| {
            provider.set_slow(true);
            provider.script_times(Call::MachineExists, 1, exists(|answer| answer.presence = 77));
        },
        "ce!e",
    ),
    (
        "a_presence_that_is_not_told_is_no_absence",
        |provider| {
            provider.set_slow(true);
            provider.script_times(Call::MachineExists, 1, Act::Invent(Bytes::new()));
        },
        "ce!e",
    ),
    (
        "present_without_a_status_is_asked_for_again",
        |provider| {
            provider.set_slow(true);
            provider.script_times(Call::MachineExists, 2, exists(|answer| answer.status = None));
        },
        "ce!e!e",
    ),
    (
        "presence_that_flaps_loses_nothing",
        |provider| {
            provider.set_slow(true);
            for _ in 0..3 {
                provider.script_times(Call::MachineExists, 1, absent());
                provider.script_times(Call::MachineExists, 1, provisioning());
            }
        },
        "ce!e!e!e!e!e!e",
    ),
    (
        "absent_after_a_create_whose_answer_was_lost_is_replayed_under_its_key",
        |provider| {
            provider.script_times(Call::CreateMachine, 1, lost());
            provider.script_times(Call::MachineExists, 1, absent());
        },
        "c!e!c",
    ),
    (
        "an_answer_without_a_status_is_looked_into",
        |provider| {
            provider.script_times(
                Call::CreateMachine,
                1,
                Act::twist(|answer: &mut v1::CreateMachineResponse| answer.status = None),
            );
        },
        "c!e",
    ),
    (
        "an_answer_without_an_id_is_looked_into",
        |provider| {
            provider.script_times(Call::CreateMachine, 1, created(|status| status.provider_id.clear()));
        },
        "c!e",
    ),
    (
        "an_id_that_is_too_long_is_never_cut",
        |provider| {
            provider.script_times(
                Call::CreateMachine,
                1,
                created(|status| status.provider_id = "i".repeat(513)),
            );
        },
        "c!e",
    ),
    (
        "an_id_with_control_characters_is_never_cleaned",
        |provider| {
            provider.script_times(
                Call::CreateMachine,
                1,
                created(|status| status.provider_id.push('\u{1b}')),
            );
        },
        "c!e",
    ),
    (
        "an_id_that_looks_like_another_one_is_never_cleaned",
        |provider| {
            provider.script_times(
                Call::CreateMachine,
                1,
                created(|status| status.provider_id.push('\u{202e}')),
            );
        },
        "c!e",
    ),
    (
        "an_answer_that_does_not_decode_is_looked_into",
        |provider| {
            provider.script_times(
                Call::CreateMachine,
                1,
                Act::Twist(std::sync::Arc::new(|_| vec![0xff; 64].into())),
            );
        },
        "c!e",
    ),
    (
        "an_answer_of_nothing_is_looked_into",
        |provider| {
            provider.script_times(
                Call::CreateMachine,
                1,
                Act::Twist(std::sync::Arc::new(|_| Bytes::new())),
            );
        },
        "c!e",
    ),
    (
        "an_answer_above_the_largest_message_is_looked_into",
        |provider| {
            provider.script_times(
                Call::CreateMachine,
                1,
                created(|status| status.provider_state = vec![7; 5 * 1024 * 1024]),
            );
        },
        "c!e",
    ),
    (
        "an_answer_of_another_message_is_looked_into",
        |provider| {
            provider.script_times(
                Call::CreateMachine,
                1,
                Act::invent(v1::ProbeResponse {
                    readiness: 3,
                    checks: Vec::new(),
                }),
            );
        },
        "c!ec",
    ),
    (
        "fields_without_bounds_are_cut",
        |provider| {
            provider.script_times(Call::CreateMachine, 1, created(bloat));
        },
        "c!",
    ),
    (
        "poll_after_of_ages_ago_is_none",
        |provider| {
            provider.set_slow(true);
            provider.script_times(
                Call::CreateMachine,
                1,
                created(|status| {
                    status.poll_after = Some(prost_types::Duration {
                        seconds: -1000,
                        nanos: -5,
                    });
                }),
            );
        },
        "c!e",
    ),
    (
        "another_digest_than_asked_for_is_brought_up_once",
        |provider| {
            provider.script_times(
                Call::CreateMachine,
                1,
                created(|status| status.observed_digest = vec![9; 32]),
            );
        },
        "c!u",
    ),
    (
        "a_digest_that_is_none_is_brought_up_once",
        |provider| {
            provider.script_times(
                Call::CreateMachine,
                1,
                created(|status| status.observed_digest = vec![9; 20_000]),
            );
        },
        "c!u?",
    ),
    (
        "generations_of_the_future_and_the_past_change_nothing",
        |provider| {
            provider.script_times(
                Call::CreateMachine,
                1,
                created(|status| status.observed_generation = i64::MAX),
            );
        },
        "c!",
    ),
    (
        "a_failure_that_may_pass_passes",
        |provider| {
            provider.set_slow(true);
            provider.script_times(
                Call::MachineExists,
                3,
                exists(|answer| {
                    let status = answer.status.get_or_insert_default();
                    status.phase = MachinePhase::Provisioning.into();
                    status.failure = Some(v1::Failure {
                        reason: "BOOT_SLOW".into(),
                        message: "it is slow".into(),
                        terminal: false,
                    });
                }),
            );
        },
        "ce!e!e!e",
    ),
    (
        "terminating_that_is_taken_back_loses_nothing",
        |provider| {
            provider.set_slow(true);
            provider.script_times(
                Call::MachineExists,
                1,
                exists(|answer| {
                    answer.presence = Presence::Terminating.into();
                    answer.status.get_or_insert_default().phase = MachinePhase::Deleting.into();
                }),
            );
        },
        "ce!e",
    ),
    (
        "a_severity_that_nobody_knows_is_no_refusal",
        |provider| {
            provider.script(
                Call::ValidateConfig,
                Act::invent(v1::ValidateConfigResponse {
                    diagnostics: vec![v1::Diagnostic {
                        severity: 99,
                        message: "hm".into(),
                        ..Default::default()
                    }],
                }),
            );
        },
        "c",
    ),
    (
        "a_verdict_that_never_comes_is_asked_for_again",
        |provider| {
            provider.script_times(Call::ValidateConfig, 1, Act::Stall);
        },
        "c",
    ),
    (
        "a_create_that_never_answers_is_looked_into",
        |provider| {
            provider.script_times(Call::CreateMachine, 1, Act::StallDone);
        },
        "c!e",
    ),
    (
        "a_create_that_is_never_done_is_made_again",
        |provider| {
            provider.script_times(Call::CreateMachine, 1, Act::Stall);
        },
        "c!ec",
    ),
    (
        "an_exists_that_never_answers_is_asked_again",
        |provider| {
            provider.set_slow(true);
            provider.script_times(Call::MachineExists, 1, Act::Stall);
        },
        "ce!e",
    ),
];

/// Each ends with nothing left in the cloud.
const GOING: &[Going] = &[
    (
        "gone_too_early_is_deleted_again",
        |provider| {
            provider.script_times(Call::DeleteMachine, 1, deleted(DeletionState::Gone.into()));
        },
        "cd!ede",
    ),
    (
        "gone_too_early_three_times_is_deleted_again",
        |provider| {
            provider.script_times(Call::DeleteMachine, 3, deleted(DeletionState::Gone.into()));
        },
        "cd!ed!ed!ede",
    ),
    (
        "a_deletion_state_that_nobody_knows_is_in_progress",
        |provider| {
            provider.script_times(Call::DeleteMachine, 2, deleted(99));
        },
        "cd!d!de",
    ),
    (
        "an_answer_of_nothing_is_in_progress",
        |provider| {
            provider.script_times(Call::DeleteMachine, 1, Act::Invent(Bytes::new()));
        },
        "cd!de",
    ),
    (
        "an_answer_that_does_not_decode_is_asked_for_again",
        |provider| {
            provider.script_times(Call::DeleteMachine, 1, Act::Invent(vec![0xff; 64].into()));
        },
        "cd!de",
    ),
    (
        "terminating_after_gone_is_waited_for",
        |provider| {
            provider.script_times(
                Call::MachineExists,
                2,
                Act::invent(v1::MachineExistsResponse {
                    presence: Presence::Terminating.into(),
                    status: Some(v1::MachineStatus::default()),
                }),
            );
        },
        "cd(e!d)+e",
    ),
    (
        "terminating_without_a_status_is_waited_for",
        |provider| {
            provider.script_times(
                Call::MachineExists,
                1,
                Act::invent(v1::MachineExistsResponse {
                    presence: Presence::Terminating.into(),
                    status: None,
                }),
            );
        },
        "cde!e",
    ),
    (
        "a_presence_that_nobody_knows_keeps_the_finalizer",
        |provider| {
            provider.script_times(
                Call::MachineExists,
                1,
                Act::invent(v1::MachineExistsResponse {
                    presence: 55,
                    status: None,
                }),
            );
        },
        "cde!e",
    ),
    (
        "words_without_bounds_are_cut",
        |provider| {
            provider.script_times(
                Call::DeleteMachine,
                2,
                Act::invent(v1::DeleteMachineResponse {
                    state: DeletionState::InProgress.into(),
                    message: "long ".repeat(50_000),
                    poll_after: Some(prost_types::Duration { seconds: -7, nanos: 0 }),
                    remaining: vec![
                        v1::Artefact {
                            r#type: "disk".into(),
                            id: "d".repeat(9000)
                        };
                        3000
                    ],
                }),
            );
        },
        "cd!d!de",
    ),
    (
        "a_deletion_that_never_answers_is_asked_for_again",
        |provider| {
            provider.script_times(Call::DeleteMachine, 1, Act::Stall);
        },
        "cd!de",
    ),
    (
        "a_deletion_whose_answer_is_lost_is_asked_for_again",
        |provider| {
            provider.script_times(Call::DeleteMachine, 1, Act::StallDone);
        },
        "cd!de",
    ),
];

/// Far above every bound.
fn bloat(status: &mut v1::MachineStatus) {
    let long = "long ".repeat(20_000);
    status.machine_type = long.clone();
    status.failure_domain = long.clone();
    let address = v1::MachineAddress {
        r#type: v1::MachineAddressType::ExternalDns.into(),
        address: long.clone(),
    };
    status.addresses = vec![address; 3];
    status.addresses.extend((0..2000).map(|index| v1::MachineAddress {
        r#type: 99 * (index % 2) + 2 * (1 - index % 2),
        address: format!("10.0.{}.{}", index / 250, index % 250),
    }));
    status.conditions = (0..2000)
        .map(|index| v1::Condition {
            r#type: format!("Type{index}"),
            status: 99,
            reason: long[..500].to_owned(),
            message: long[..500].to_owned(),
            ..Default::default()
        })
        .collect();
    status.artefacts = (0..5000)
        .map(|index| v1::Artefact {
            r#type: "disk".to_owned(),
            id: format!("{index}"),
        })
        .collect();
    status.provider_state = vec![b'x'; 100_000];
}

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
    let asked = |ledger: &mirror::ledger::Ledger| ledger.count(Call::DeleteMachine) >= 10;
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
