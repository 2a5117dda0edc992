//! Watches that stall, break, repeat and lie. They are hints: machines come and go all
//! the same, and nothing is decided on a hint alone.

use std::sync::Arc;

use actuator_proto::v1;
use actuator_proto::v1::watch_machines_response::Event;
use anyhow::ensure;
use futures::stream::{self, BoxStream, StreamExt as _};
use mirror::ledger::{Call, Ledger};
use tonic::Status;

use crate::Row;
use crate::scene::{MACHINE, Scene, is_running};
use crate::world::PATIENCE;

type Stream = BoxStream<'static, Result<v1::WatchMachinesResponse, Status>>;
/// Name, what the stream says of what there is, the calls for a machine that runs.
type Watched = (&'static str, fn(Vec<v1::ListedMachine>) -> Stream, &'static str);

#[allow(clippy::unnecessary_wraps)] // an item of a stream
fn event(event: Event) -> Result<v1::WatchMachinesResponse, Status> {
    Ok(v1::WatchMachinesResponse { event: Some(event) })
}

fn present(machine: v1::ListedMachine) -> Result<v1::WatchMachinesResponse, Status> {
    event(Event::Present(machine))
}

fn gone(machine: v1::ListedMachine) -> Result<v1::WatchMachinesResponse, Status> {
    event(Event::Gone(v1::GoneMachine {
        ownership: machine.ownership,
        idempotency_key: machine.idempotency_key,
        provider_id: String::new(),
    }))
}

fn synced() -> Result<v1::WatchMachinesResponse, Status> {
    event(Event::Synced(v1::WatchSynced::default()))
}

fn then_silent(events: Vec<Result<v1::WatchMachinesResponse, Status>>) -> Stream {
    stream::iter(events).chain(stream::pending()).boxed()
}

fn snapshot(machines: Vec<v1::ListedMachine>) -> Vec<Result<v1::WatchMachinesResponse, Status>> {
    machines.into_iter().map(present).chain([synced()]).collect()
}

fn changed(machines: Vec<v1::ListedMachine>, change: fn(&mut v1::ListedMachine)) -> Vec<v1::ListedMachine> {
    let change = |mut machine| {
        change(&mut machine);
        machine
    };
    machines.into_iter().map(change).collect()
}

const WATCHES: &[Watched] = &[
    (
        "without_an_event_or_a_bookmark_are_opened_anew",
        |_| stream::pending().boxed(),
        "ce*",
    ),
    (
        "that_fall_silent_after_the_snapshot_are_opened_anew",
        |machines| then_silent(snapshot(machines)),
        "ce*",
    ),
    ("that_end_at_once_are_opened_anew", |_| stream::empty().boxed(), "ce*"),
    (
        "that_break_at_every_message_are_opened_anew",
        |machines| {
            stream::iter(
                snapshot(machines)
                    .into_iter()
                    .take(1)
                    .chain([Err(Status::unavailable("broken"))]),
            )
            .boxed()
        },
        "ce*",
    ),
    (
        "that_break_with_an_error_of_the_provider_are_opened_anew",
        |_| stream::iter([Err(Status::internal("no idea"))]).boxed(),
        "ce*",
    ),
    (
        "that_repeat_themselves_are_read",
        |machines| {
            let all = snapshot(machines);
            let again: Vec<_> = (0..200).flat_map(|_| all.clone()).collect();
            then_silent(again)
        },
        "ce*",
    ),
    (
        "that_say_gone_of_what_is_there_lead_to_a_look",
        |machines| then_silent(machines.into_iter().map(gone).chain([synced()]).collect()),
        "ce+",
    ),
    (
        "that_do_not_list_what_is_there_lead_to_a_look",
        |_| then_silent(vec![synced()]),
        "ce*",
    ),
    (
        "that_say_failed_of_what_runs_lead_to_a_look",
        |machines| {
            let failed = changed(machines, |machine| {
                let status = machine.status.get_or_insert_default();
                status.phase = v1::MachinePhase::Failed.into();
                status.failure = Some(v1::Failure {
                    reason: "DEAD".into(),
                    message: "it is dead".into(),
                    terminal: true,
                });
            });
            then_silent(snapshot(failed))
        },
        "ce*",
    ),
    (
        "that_give_another_id_lead_to_a_look",
        |machines| {
            let other = changed(machines, |machine| {
                machine.status.get_or_insert_default().provider_id = "mirror:///other/9".into();
            });
            then_silent(snapshot(other))
        },
        "ce*",
    ),
    (
        "of_other_keys_and_objects_are_read_over",
        |machines| {
            let other = changed(machines, |machine| {
                machine.idempotency_key = "another-key".into();
                machine.ownership.get_or_insert_default().object_uid = "another-uid".into();
            });
            let gone_too = other.clone().into_iter().map(gone);
            then_silent(snapshot(other).into_iter().chain(gone_too).collect())
        },
        "ce*",
    ),
    (
        "without_ownership_are_read_over",
        |machines| {
            let other = changed(machines, |machine| machine.ownership = None);
            then_silent(snapshot(other))
        },
        "ce*",
    ),
    (
        "with_events_that_nobody_knows_are_read_over",
        |machines| {
            let unknown = Ok(v1::WatchMachinesResponse { event: None });
            then_silent(
                [unknown.clone(), unknown]
                    .into_iter()
                    .chain(snapshot(machines))
                    .collect(),
            )
        },
        "ce*",
    ),
    (
        "with_events_above_the_largest_message_are_opened_anew",
        |machines| {
            let huge = changed(machines, |machine| {
                machine.status.get_or_insert_default().provider_state = vec![1; 5 * 1024 * 1024];
            });
            then_silent(snapshot(huge))
        },
        "ce*",
    ),
    (
        "with_resume_tokens_without_bounds_are_opened_anew",
        |machines| {
            let token = event(Event::Synced(v1::WatchSynced {
                resume_token: "t".repeat(1024 * 1024),
            }));
            then_silent(machines.into_iter().map(present).chain([token]).collect())
        },
        "ce*",
    ),
];

pub fn rows() -> Vec<Row> {
    let mut rows = Vec::new();
    for (name, say, calls) in WATCHES {
        rows.push(Row::new(format!("streams::watches_{name}"), move |world| async move {
            let watch: mirror::provider::Watch = Arc::new(move |ledger, _| say(listed(ledger)));
            play(Scene::with(&world, |provider| provider.set_watch(watch)).await?, calls).await
        }));
    }
    rows.push(Row::new(
        "streams::a_watch_that_is_offered_and_not_there_is_tried_once",
        |world| async move {
            let watch: mirror::provider::Watch =
                Arc::new(|_, _| stream::iter([Err(Status::unimplemented("not there"))]).boxed());
            not_there(Scene::with(&world, |provider| provider.set_watch(watch)).await?).await
        },
    ));
    rows
}

/// The truth, as a list has it.
fn listed(ledger: &Ledger) -> Vec<v1::ListedMachine> {
    let machines = ledger.resources.iter().filter(|(_, resource)| !resource.cluster);
    machines
        .map(|(key, resource)| v1::ListedMachine {
            ownership: Some(resource.owner.clone()),
            idempotency_key: key.clone(),
            created_at: None,
            status: Some(v1::MachineStatus {
                provider_id: resource.id.clone(),
                phase: v1::MachinePhase::Running.into(),
                observed_digest: resource.digest.clone(),
                observed_generation: resource.generation,
                ..Default::default()
            }),
        })
        .collect()
}

async fn play(scene: Scene, calls: &str) -> anyhow::Result<()> {
    scene.cluster().await?;
    scene.machine().await?;
    // All that there is to say was said at least once after the machine was there.
    let opened = scene.provider.ledger(|ledger| ledger.count(Call::WatchMachines));
    let again = |ledger: &Ledger| ledger.count(Call::WatchMachines) >= opened + 3;
    scene.provider.until(PATIENCE, "three more watches", again).await?;
    scene.until_trace(MACHINE, calls).await?;
    let machine = scene.until_machine("a machine that runs", is_running).await?;
    ensure!(machine.spec.provider_id.is_some(), "{machine:?}");
    scene.provider.set_slow(true);
    scene.make_machine("two").await?;
    scene.until_one("two", "a machine that runs", is_running).await?;
    scene.expect_trace(MACHINE, calls)?;
    ensure!(scene.instances() == 2, "{} instances", scene.instances());
    scene.finish().await
}

async fn not_there(scene: Scene) -> anyhow::Result<()> {
    scene.provider.set_slow(true);
    scene.cluster().await?;
    let tried = |ledger: &Ledger| ledger.count(Call::WatchMachines) == 1;
    scene.provider.until(PATIENCE, "the one try", tried).await?;
    scene.machine().await?;
    ensure!(
        scene.provider.ledger(|ledger| tried(ledger)),
        "{:?}",
        scene.provider.recent()
    );
    scene.finish().await
}
