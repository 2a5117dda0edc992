//! Statuses that no SDK would send: without details, with details that are none, with
//! reasons and effects that nobody knows, too large, with what must not be shown.

use actuator_proto::v1::{Effect, ErrorReason};
use anyhow::ensure;
use mirror::ledger::Call;
use mirror::provider::Act;
use mirror::statuses::{self, Detail, info, outcome, retry, status, types};
use outrigger_api::Machine;
use tonic::{Code, Status};

use crate::Row;
use crate::scene::{MACHINE, Scene, is_running, machine_condition};
use crate::table::{Case, Operation, Recovery as R, camel};
use crate::world;

const WORDS: &str = "the cloud said no, quite plainly";
const NONE: i32 = Effect::None as i32;
const UNKNOWN: i32 = Effect::Unknown as i32;

fn of(code: Code, details: &[Detail]) -> Status {
    status(code, WORDS, details)
}

fn ours(reason: &str) -> Detail {
    info("actuator.v1", reason, &[])
}

/// Name, status, whether it says that nothing has changed, what the core does.
fn table() -> Vec<(String, Status, bool, R)> {
    let mut table = Vec::new();
    let mut add = |name: &str, status: Status, nothing_changed: bool, recovery: R| {
        table.push((name.to_owned(), status, nothing_changed, recovery));
    };
    // An error without an ErrorInfo comes from the transport, whatever its code: looked into.
    for (code, recovery) in [
        (Code::Cancelled, R::Resolve),
        (Code::Unknown, R::Resolve),
        (Code::InvalidArgument, R::Resolve),
        (Code::DeadlineExceeded, R::Resolve),
        (Code::NotFound, R::Resolve),
        (Code::AlreadyExists, R::Resolve),
        (Code::PermissionDenied, R::Resolve),
        (Code::ResourceExhausted, R::Resolve),
        (Code::FailedPrecondition, R::Resolve),
        (Code::Aborted, R::Resolve),
        (Code::OutOfRange, R::Resolve),
        (Code::Internal, R::Resolve),
        (Code::DataLoss, R::Escalate),
    ] {
        add(
            &format!("{code:?}_without_details"),
            Status::new(code, WORDS),
            false,
            recovery,
        );
    }
    // A reason of a later version: the code alone has to do.
    for (code, recovery) in [
        (Code::InvalidArgument, R::Hold),
        (Code::NotFound, R::Resolve),
        (Code::AlreadyExists, R::Hold),
        (Code::PermissionDenied, R::Hold),
        (Code::Unauthenticated, R::Hold),
        (Code::FailedPrecondition, R::Hold),
        (Code::ResourceExhausted, R::Resolve),
        (Code::OutOfRange, R::Resolve),
        (Code::Aborted, R::Resolve),
        (Code::Unavailable, R::Again),
        (Code::Internal, R::Resolve),
        (Code::DataLoss, R::Escalate),
    ] {
        let later = of(code, &[ours("FROM_THE_FUTURE"), outcome(NONE)]);
        add(
            &format!("{code:?}_with_a_reason_that_nobody_knows"),
            later,
            true,
            recovery,
        );
    }
    let config = "INVALID_CONFIG";
    let invalid = Code::InvalidArgument;
    let rows: Vec<(&str, Status, bool, R)> = vec![
        (
            "an_effect_that_nobody_knows_is_unknown",
            of(invalid, &[ours(config), outcome(77)]),
            false,
            R::Resolve,
        ),
        ("no_effect_is_unknown", of(invalid, &[ours(config)]), false, R::Resolve),
        (
            "an_effect_alone_is_nobodys_word",
            of(invalid, &[outcome(NONE)]),
            false,
            R::Resolve,
        ),
        (
            "an_error_info_of_another_domain_is_none",
            of(invalid, &[info("example.com", config, &[]), outcome(NONE)]),
            false,
            R::Resolve,
        ),
        (
            "an_error_info_without_a_reason_is_none",
            of(invalid, &[ours(""), outcome(NONE)]),
            false,
            R::Resolve,
        ),
        (
            "an_error_info_that_does_not_decode_is_none",
            of(invalid, &[(types::INFO, vec![0xff; 40]), outcome(NONE)]),
            false,
            R::Resolve,
        ),
        (
            "details_that_do_not_decode_are_none",
            Status::with_details(invalid, WORDS, vec![0xff; 400].into()),
            false,
            R::Resolve,
        ),
        (
            "details_that_are_no_details_are_none",
            of(invalid, &[("", Vec::new()), ("type.googleapis.com/x.Y", vec![1, 2, 3])]),
            false,
            R::Resolve,
        ),
        (
            "an_outcome_that_does_not_decode_is_unknown",
            of(invalid, &[ours(config), (types::OUTCOME, vec![0xff; 9])]),
            false,
            R::Resolve,
        ),
        (
            "a_reason_under_another_code_is_not_registered",
            of(Code::Unavailable, &[ours(config), outcome(NONE)]),
            true,
            R::Again,
        ),
        (
            "a_hold_of_an_unknown_reason_looks_first",
            of(invalid, &[ours("FROM_THE_FUTURE"), outcome(UNKNOWN)]),
            false,
            R::Hold,
        ),
        (
            "a_negative_retry_info_is_none",
            of(
                Code::ResourceExhausted,
                &[ours("QUOTA_EXCEEDED"), outcome(NONE), retry(-5)],
            ),
            true,
            R::Again,
        ),
        (
            "a_retry_info_of_ages_is_clamped",
            of(
                Code::ResourceExhausted,
                &[ours("RATE_LIMITED"), outcome(NONE), retry(i64::MAX)],
            ),
            true,
            R::Again,
        ),
        (
            "a_retry_info_that_does_not_decode_is_none",
            of(
                Code::Aborted,
                &[ours("OPERATION_PENDING"), outcome(NONE), (types::RETRY, vec![0xff; 9])],
            ),
            true,
            R::Again,
        ),
        (
            "a_retry_info_of_zero_is_no_spin",
            of(Code::Aborted, &[ours("OPERATION_PENDING"), outcome(NONE), retry(0)]),
            true,
            R::Again,
        ),
        (
            "a_thousand_details_are_read",
            of(invalid, &vec![ours(config); 100]),
            false,
            R::Resolve,
        ),
    ];
    table.extend(
        rows.into_iter()
            .map(|(name, status, nothing, recovery)| (name.to_owned(), status, nothing, recovery)),
    );
    // Larger than allowed: cut, and what it says counts.
    for size in [4, 16, 64] {
        let message = format!("{WORDS} {}", "x".repeat(size * 1024));
        let large = status(invalid, &message, &[ours("INVALID_FIELD"), outcome(NONE)]);
        table.push((format!("a_message_of_{size}_kib_is_cut"), large, true, R::Hold));
        let metadata = info(
            "actuator.v1",
            "INVALID_FIELD",
            &[("cloud_code", &"y".repeat(size * 1024))],
        );
        let large = of(invalid, &[metadata, outcome(NONE)]);
        table.push((format!("details_of_{size}_kib_are_cut"), large, true, R::Hold));
    }
    table
}

/// Answers that only a broken provider or transport gives: the circuit opens, the provider
/// is dialled and discovered again, and then it is looked into.
fn breaking() -> Vec<(&'static str, Status)> {
    vec![
        ("unavailable_without_details", Status::unavailable(WORDS)),
        ("unauthenticated_without_details", Status::unauthenticated(WORDS)),
        ("unimplemented_of_what_is_required", Status::unimplemented(WORDS)),
        (
            "unimplemented_with_a_reason",
            of(Code::Unimplemented, &[ours("FROM_THE_FUTURE"), outcome(NONE)]),
        ),
        (
            "a_status_that_is_too_large_for_the_transport",
            Status::internal("z".repeat(600 * 1024)),
        ),
    ]
}

pub fn rows() -> Vec<Row> {
    let mut rows = Vec::new();
    for (name, status, nothing_changed, recovery) in table() {
        for (operation, done) in [
            (Operation::Create, false),
            (Operation::Create, true),
            (Operation::Delete, false),
        ] {
            if done && nothing_changed {
                continue;
            }
            let case = Case {
                cluster: false,
                operation,
                reason: reason_of(&status),
                status: status.clone(),
                done,
                nothing_changed,
                recovery,
            };
            let done = if done { "_done" } else { "" };
            rows.push(Row::new(
                format!("statuses::{operation:?}::{name}{done}"),
                move |world| async move { case.play(Scene::new(&world).await?).await },
            ));
        }
    }
    for (name, status) in breaking() {
        for done in [false, true] {
            let status = status.clone();
            let suffix = if done { "_done" } else { "" };
            rows.push(Row::new(
                format!("statuses::break::{name}{suffix}"),
                move |world| async move {
                    breaks(
                        Scene::new(&world).await?,
                        status,
                        name == "unimplemented_with_a_reason",
                        done,
                    )
                    .await
                },
            ));
        }
    }
    rows.push(Row::new(
        "statuses::a_secret_that_is_echoed_is_shown_nowhere",
        |world| async move { echoed(Scene::new(&world).await?).await },
    ));
    rows.push(Row::new(
        "statuses::control_characters_are_shown_nowhere",
        |world| async move { controlled(Scene::new(&world).await?).await },
    ));
    rows
}

/// The reason as a condition has it: the registered one, else the code.
fn reason_of(status: &Status) -> String {
    let details = status.details();
    let has = |reason: &str| details.windows(reason.len()).any(|window| window == reason.as_bytes());
    let registered = ["QUOTA_EXCEEDED", "RATE_LIMITED", "OPERATION_PENDING", "INVALID_FIELD"];
    match registered.into_iter().find(|reason| has(reason)) {
        Some(reason) => camel(reason),
        None => format!("{:?}", status.code()),
    }
}

async fn breaks(scene: Scene, status: Status, nothing_changed: bool, done: bool) -> anyhow::Result<()> {
    scene.cluster().await?;
    let discovered = scene.provider.ledger(|ledger| ledger.count(Call::GetProtocols));
    let act = if done { Act::Lose(status) } else { Act::Refuse(status) };
    scene
        .provider
        .script_times(Call::CreateMachine, if done { 1 } else { 2 }, act);
    scene.make_machine(MACHINE).await?;
    scene.until_machine("a machine that runs", is_running).await?;
    // With an ErrorInfo the provider itself has said that nothing has changed.
    let expected = match (nothing_changed, done) {
        (true, _) => "(c!)+c",
        (false, true) => "c!e",
        (false, false) => "c!ec!ec",
    };
    scene.expect_trace(MACHINE, expected)?;
    let again = scene.provider.ledger(|ledger| ledger.count(Call::GetProtocols));
    ensure!(again > discovered, "it was not discovered again");
    scene.finish().await
}

/// In every text that a provider can send.
async fn echoed(mut scene: Scene) -> anyhow::Result<()> {
    const SECRET: &str = "s3cr3t-sentinel-in-an-echo";
    scene.use_credentials(SECRET).await?;
    scene.cluster().await?;
    let says = format!("the token {SECRET} is not known");
    let details = [
        info(
            "actuator.v1",
            "INVALID_FIELD",
            &[("cloud_code", &says), ("cloud_request_id", SECRET)],
        ),
        outcome(NONE),
    ];
    let refused = status(Code::InvalidArgument, &says, &details);
    scene
        .provider
        .script_times(Call::CreateMachine, 1, Act::Refuse(refused.clone()));
    scene.make_machine(MACHINE).await?;
    scene
        .until_machine("a machine that says why it is not made", |machine| {
            machine_condition(machine, "Ready").is_some_and(|(_, why, _)| why == "InvalidField")
        })
        .await?;
    scene.until_event(MACHINE, "FailedCreate", "the token ").await?;
    // The same in an answer that is well.
    let words = says.clone();
    let twist = Act::twist(move |answer: &mut actuator_proto::v1::CreateMachineResponse| {
        let status = answer.status.get_or_insert_default();
        status.conditions.push(actuator_proto::v1::Condition {
            r#type: "Told".into(),
            message: words.clone(),
            ..Default::default()
        });
        status.machine_type.clone_from(&words);
        status.artefacts.push(actuator_proto::v1::Artefact {
            r#type: "disk".into(),
            id: words.clone(),
        });
        status.provider_state = words.clone().into_bytes();
    });
    scene.provider.script_times(Call::CreateMachine, 1, twist);
    scene.resize::<Machine>(MACHINE, "large").await?;
    scene.until_machine("a machine that runs", is_running).await?;
    scene
        .provider
        .script_times(Call::DeleteMachine, 1, Act::Refuse(refused));
    scene.delete::<Machine>(MACHINE).await?;
    scene.until_event(MACHINE, "FailedDelete", "the token ").await?;
    let machine = scene.api::<Machine>().get(MACHINE).await?;
    let object = serde_json::to_string(&machine)?;
    ensure!(!object.contains(SECRET), "the object shows the secret: {object}");
    let events = scene.events(MACHINE).await?;
    ensure!(
        !format!("{events:?}").contains(SECRET),
        "an event shows the secret: {events:?}"
    );
    // Held; another process of the provider may do better.
    scene.provider.restart()?;
    scene.gone::<Machine>(MACHINE).await?;
    let logged = world::logged(SECRET);
    ensure!(logged.is_empty(), "the log shows the secret: {logged:?}");
    scene.finish().await
}

async fn controlled(scene: Scene) -> anyhow::Result<()> {
    const MARK: &str = "marked-4711";
    // Escape sequences, a forged line, and what turns the direction of writing.
    let says = format!(
        "{MARK}\u{1b}[2J\u{7}\0\u{9b}31m\r\n2026-01-01T00:00:00Z ERROR forged {MARK}\u{202e}\u{2066}\u{feff} end"
    );
    let refused = statuses::error(Code::InvalidArgument, ErrorReason::InvalidField, Effect::None, &says);
    scene.cluster().await?;
    scene
        .provider
        .script_times(Call::CreateMachine, 1, Act::Refuse(refused));
    scene.make_machine(MACHINE).await?;
    let shown = scene
        .until_machine("a machine that says why it is not made", |machine| {
            machine_condition(machine, "Ready").is_some_and(|(_, why, _)| why == "InvalidField")
        })
        .await?;
    let (_, _, words) = machine_condition(&shown, "Ready").unwrap_or_default();
    scene.until_event(MACHINE, "FailedCreate", MARK).await?;
    let events = scene.events(MACHINE).await?;
    let notes: String = events.into_iter().map(|(_, note)| note).collect();
    let logged = world::logged(MARK);
    ensure!(!logged.is_empty(), "nothing was logged of it");
    for (place, text) in [
        ("a condition", &words),
        ("an event", &notes),
        ("the log", &logged.concat()),
    ] {
        ensure!(
            !text.chars().any(is_harmful),
            "{place} has harmful characters: {text:?}"
        );
    }
    ensure!(
        !logged.iter().any(|line| line.starts_with("2026-01-01")),
        "a line of the log is forged: {logged:?}"
    );
    scene.resize::<Machine>(MACHINE, "large").await?;
    scene.until_machine("a machine that runs", is_running).await?;
    scene.finish().await
}

fn is_harmful(character: char) -> bool {
    character.is_control() || matches!(character, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}
