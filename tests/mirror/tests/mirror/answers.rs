//! Answers that are not true, or not possible, one row each: while a machine is made, and
//! while it goes.

use actuator_proto::v1::{self, DeletionState, MachinePhase, Presence};
use bytes::Bytes;
use mirror::ledger::Call;
use mirror::provider::{Act, Provider};

/// What happens before the machine runs: script, calls that follow.
pub type Making = (&'static str, fn(&Provider), &'static str);
/// What happens while the machine goes: script, calls that follow.
pub type Going = (&'static str, fn(&Provider), &'static str);

pub fn created(change: impl Fn(&mut v1::MachineStatus) + Send + Sync + 'static) -> Act {
    Act::twist(move |answer: &mut v1::CreateMachineResponse| change(answer.status.get_or_insert_default()))
}

pub fn exists(change: impl Fn(&mut v1::MachineExistsResponse) + Send + Sync + 'static) -> Act {
    Act::twist(change)
}

pub fn absent() -> Act {
    Act::invent(v1::MachineExistsResponse {
        presence: Presence::Absent.into(),
        status: None,
    })
}

/// Still on its way, whatever is true.
pub fn provisioning() -> Act {
    exists(|answer| {
        let status = answer.status.get_or_insert_default();
        status.phase = MachinePhase::Provisioning.into();
    })
}

pub fn lost() -> Act {
    Act::Lose(tonic::Status::deadline_exceeded("the answer is lost"))
}

pub fn deleted(state: i32) -> Act {
    Act::invent(v1::DeleteMachineResponse {
        state,
        message: "it takes its time".to_owned(),
        ..Default::default()
    })
}

/// Each ends with a machine that runs, made once.
pub const MAKING: &[Making] = &[
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
pub const GOING: &[Going] = &[
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
    status.machine_type.clone_from(&long);
    status.failure_domain.clone_from(&long);
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
