//! What passes by itself is shown once it lasts, with the words of its first time, and is
//! one event however often it is tried.

use actuator_proto::v1::{Effect, ErrorReason};
use anyhow::ensure;
use mirror::ledger::{Call, Ledger};
use mirror::provider::Act;
use mirror::statuses::error;
use outrigger_api::Machine;
use tonic::{Code, Status};

use crate::Row;
use crate::scene::{CLUSTER, MACHINE, Scene, cluster_condition, is_ready, is_running, machine_condition};
use crate::world::PATIENCE;

const WORDS: &str = "the cloud is not well";

fn told(code: Code, reason: ErrorReason) -> Status {
    error(code, reason, Effect::None, WORDS)
}

/// Name, status, the reason that is shown, the calls that come meanwhile.
fn table() -> Vec<(&'static str, Status, &'static [&'static str], &'static str)> {
    use ErrorReason as E;
    vec![
        (
            "quota",
            told(Code::ResourceExhausted, E::QuotaExceeded),
            &["QuotaExceeded"],
            "(x!)+",
        ),
        (
            "pending",
            told(Code::Aborted, E::OperationPending),
            &["OperationPending"],
            "(x!)+",
        ),
        (
            "stale",
            told(Code::Aborted, E::StaleGeneration),
            &["StaleGeneration"],
            "(x!)+",
        ),
        (
            "unclassified",
            told(Code::Unknown, E::CloudUnclassified),
            &["CloudUnclassified"],
            "x!(ex!)*e?",
        ),
        (
            "bug",
            told(Code::Internal, E::ProviderBug),
            &["ProviderBug"],
            "x!(ex!)*e?",
        ),
        // Between two tries the pause says the same.
        (
            "throttled",
            told(Code::ResourceExhausted, E::RateLimited),
            &["RateLimited", "ProviderPaused"],
            "(x!)+",
        ),
        (
            "outage",
            told(Code::Unavailable, E::CloudUnavailable),
            &["CloudUnavailable", "ProviderPaused"],
            "(x!)+",
        ),
        (
            "deadline",
            Status::deadline_exceeded(WORDS),
            &["DeadlineExceeded"],
            "x!(ex!)*e?",
        ),
    ]
}

pub fn rows() -> Vec<Row> {
    let mut rows = Vec::new();
    for (name, status, reasons, calls) in table() {
        let about_cluster = status.clone();
        rows.push(Row::scene(format!("lasting::machine::{name}"), move |scene| {
            machine(scene, status, reasons, calls)
        }));
        rows.push(Row::scene(format!("lasting::cluster::{name}"), move |scene| {
            cluster(scene, about_cluster, reasons, calls)
        }));
    }
    rows
}

async fn machine(scene: Scene, status: Status, reasons: &[&str], calls: &str) -> anyhow::Result<()> {
    scene.cluster().await?;
    scene.provider.script(Call::CreateMachine, Act::Refuse(status));
    scene.make_machine(MACHINE).await?;
    let says = |machine: &Machine| {
        machine_condition(machine, "Ready")
            .is_some_and(|(status, why, _)| status == "False" && reasons.contains(&&*why))
    };
    let shown = scene.until_machine("a machine that says what lasts", says).await?;
    let version = shown.metadata.resource_version;
    scene.expect_trace(MACHINE, &calls.replace('x', "c"))?;
    let tried = scene.provider.ledger(|ledger| ledger.count(Call::CreateMachine));
    let again = |ledger: &Ledger| ledger.count(Call::CreateMachine) >= tried + 3;
    scene.provider.until(PATIENCE, "three more tries", again).await?;
    if reasons.len() == 1 {
        let later = scene.api::<Machine>().get(MACHINE).await?;
        ensure!(later.metadata.resource_version == version, "the same again is no write");
        let events = scene.events(MACHINE).await?;
        ensure!(events.len() == 1, "one event: {events:?}");
    }
    scene.provider.heal();
    scene.until_machine("a machine that runs", is_running).await?;
    scene.finish().await
}

async fn cluster(scene: Scene, status: Status, reasons: &[&str], calls: &str) -> anyhow::Result<()> {
    scene.provider.script(Call::CreateCluster, Act::Refuse(status));
    scene.make_cluster().await?;
    scene
        .until_cluster("a cluster that says what lasts", |cluster| {
            cluster_condition(cluster, "Ready")
                .is_some_and(|(status, why, _)| status == "False" && reasons.contains(&&*why))
        })
        .await?;
    scene.expect_trace(CLUSTER, &calls.replace('e', "E").replace('x', "C"))?;
    scene.provider.heal();
    scene.until_cluster("a cluster that is ready", is_ready).await?;
    scene.finish().await
}
