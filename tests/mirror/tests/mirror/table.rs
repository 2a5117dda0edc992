//! Every row of the error table, written down a second time: on each kind of call, for
//! machines and for clusters, with each effect. After each error the core calls again
//! what the table says and nothing else, says so in the status where a person has to
//! act, and loses nothing and makes nothing twice.

use actuator_proto::v1::{Effect, ErrorReason};
use anyhow::ensure;
use mirror::ledger::{Call, Ledger};
use mirror::provider::Act;
use mirror::statuses;
use outrigger_api::{Cluster, Machine};
use tonic::{Code, Status};

use crate::Row;
use crate::scene::{CLUSTER, MACHINE, Scene, cluster_condition, is_ready, is_running, machine_condition, phase};
use crate::world::PATIENCE;

/// What the table's last column says, as far as calls for one object differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recovery {
    /// Exists by key, then again.
    Resolve,
    /// Again after a while: RETRY, WAIT, THROTTLE, read the object again.
    Again,
    /// Nothing until spec, credentials or provider change.
    Hold,
    /// The same, and it is looked for now and then.
    HoldAndLook,
    /// Once more with the credentials as they are now, then hold.
    Refresh,
    /// Another failure domain, else again after a while; shown at once.
    Elsewhere,
    /// The owner replaces the machine.
    Replace,
    /// Hold and alert.
    Escalate,
}

use Recovery as R;

const NONE: &[Effect] = &[Effect::None];
const PARTIAL: &[Effect] = &[Effect::None, Effect::Partial];
const ANY: &[Effect] = &[Effect::None, Effect::Partial, Effect::Unknown];

/// The error table but for STALE_FENCING_EPOCH, which ends the core: code, reason, the
/// effects that it may have, what the core does.
const TABLE: &[(Code, ErrorReason, &[Effect], Recovery)] = &[
    (Code::Unknown, ErrorReason::CloudUnclassified, ANY, R::Resolve),
    (Code::Internal, ErrorReason::ProviderBug, ANY, R::Resolve),
    (Code::InvalidArgument, ErrorReason::InvalidField, NONE, R::Hold),
    (Code::InvalidArgument, ErrorReason::InvalidConfig, NONE, R::Hold),
    (
        Code::InvalidArgument,
        ErrorReason::UnsupportedSchemaVersion,
        NONE,
        R::Hold,
    ),
    (Code::InvalidArgument, ErrorReason::BootstrapTooLarge, NONE, R::Hold),
    (Code::InvalidArgument, ErrorReason::MalformedProviderId, NONE, R::Hold),
    (Code::InvalidArgument, ErrorReason::LimitExceeded, NONE, R::Hold),
    (Code::NotFound, ErrorReason::ResourceNotFound, NONE, R::Resolve),
    (Code::NotFound, ErrorReason::DependencyNotFound, PARTIAL, R::HoldAndLook),
    (Code::AlreadyExists, ErrorReason::KeyConflict, NONE, R::Hold),
    (Code::AlreadyExists, ErrorReason::NameConflict, PARTIAL, R::Hold),
    (Code::PermissionDenied, ErrorReason::MissingPermission, ANY, R::Hold),
    (Code::Unauthenticated, ErrorReason::CredentialsInvalid, ANY, R::Refresh),
    (Code::Unauthenticated, ErrorReason::CredentialsExpired, ANY, R::Refresh),
    (
        Code::ResourceExhausted,
        ErrorReason::InsufficientCapacity,
        PARTIAL,
        R::Elsewhere,
    ),
    (Code::ResourceExhausted, ErrorReason::QuotaExceeded, PARTIAL, R::Again),
    (Code::ResourceExhausted, ErrorReason::RateLimited, ANY, R::Again),
    (Code::ResourceExhausted, ErrorReason::TooManyInFlight, NONE, R::Again),
    (
        Code::FailedPrecondition,
        ErrorReason::DependentsExist,
        PARTIAL,
        R::Again,
    ),
    (Code::FailedPrecondition, ErrorReason::ClusterNotReady, NONE, R::Again),
    (Code::FailedPrecondition, ErrorReason::ReplaceRequired, NONE, R::Replace),
    (Code::FailedPrecondition, ErrorReason::OwnershipMismatch, NONE, R::Hold),
    (
        Code::FailedPrecondition,
        ErrorReason::DeletionProtected,
        PARTIAL,
        R::Hold,
    ),
    (
        Code::FailedPrecondition,
        ErrorReason::StateVersionUnsupported,
        NONE,
        R::Hold,
    ),
    (Code::Aborted, ErrorReason::OperationPending, ANY, R::Again),
    (Code::Aborted, ErrorReason::StaleGeneration, NONE, R::Again),
    (Code::Aborted, ErrorReason::PageTokenExpired, NONE, R::Again),
    (Code::OutOfRange, ErrorReason::ResumeTokenExpired, NONE, R::Again),
    (Code::Unavailable, ErrorReason::CloudUnavailable, ANY, R::Again),
    (Code::DataLoss, ErrorReason::MultipleInstances, ANY, R::Escalate),
    (Code::DataLoss, ErrorReason::StateInconsistent, ANY, R::Escalate),
];

/// A kind of call that fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    Create,
    Exists,
    Update,
    Delete,
}

/// One case.
#[derive(Debug, Clone)]
pub struct Case {
    /// Whether it is about the cluster.
    pub cluster: bool,
    /// Which call fails.
    pub operation: Operation,
    /// How.
    pub status: Status,
    /// Whether it was done all the same.
    pub done: bool,
    /// Whether the error says, and may say, that nothing has changed.
    pub nothing_changed: bool,
    /// What the core does.
    pub recovery: Recovery,
    /// The reason as a condition has it.
    pub reason: String,
}

const WORDS: &str = "the cloud said no, quite plainly";

pub fn rows() -> Vec<Row> {
    let mut rows = Vec::new();
    for (code, reason, effects, recovery) in TABLE {
        for cluster in [false, true] {
            let kind = if cluster { "cluster" } else { "machine" };
            for operation in [Operation::Create, Operation::Update] {
                for effect in [Effect::None, Effect::Partial, Effect::Unknown] {
                    for done in [false, true] {
                        let plain = effect == Effect::None;
                        let allowed = effects.contains(&effect);
                        // NONE that lies is a table of its own; PARTIAL is what was done in part.
                        let lies = plain && done || effect == Effect::Partial && !done;
                        // What may not be is UNKNOWN, whatever it is; clusters tell no two kinds of it apart.
                        let same = !allowed && (done || effect == Effect::Partial)
                            || cluster && (!allowed || effect == Effect::Unknown && !done);
                        if lies || same {
                            continue;
                        }
                        let name = format!(
                            "table::{kind}::{operation:?}::{}_with_effect_{}{}{}",
                            statuses::wire_name(*reason),
                            effect.as_str_name().trim_start_matches("EFFECT_"),
                            if allowed { "" } else { "_which_it_may_not_have" },
                            match (plain, done) {
                                (true, _) => "",
                                (_, true) => "_done",
                                (_, false) => "_not_done",
                            }
                        );
                        // An effect that the row rules out is none that can be relied on.
                        let recovery = match recovery {
                            R::Hold if !allowed => R::Resolve,
                            recovery => *recovery,
                        };
                        let case = Case {
                            cluster,
                            operation,
                            status: statuses::error(*code, *reason, effect, WORDS),
                            done,
                            nothing_changed: plain,
                            recovery,
                            reason: camel(statuses::wire_name(*reason)),
                        };
                        rows.push(Row::new(name, move |world| async move {
                            case.play(Scene::new(&world).await?).await
                        }));
                    }
                }
            }
            for operation in [Operation::Exists, Operation::Delete] {
                for done in [false, true] {
                    // A read does nothing.
                    if done && (operation == Operation::Exists || !effects.contains(&Effect::Partial)) {
                        continue;
                    }
                    let effect = if done { Effect::Partial } else { Effect::None };
                    let case = Case {
                        cluster,
                        operation,
                        status: statuses::error(*code, *reason, effect, WORDS),
                        done,
                        nothing_changed: !done,
                        recovery: *recovery,
                        reason: camel(statuses::wire_name(*reason)),
                    };
                    let name = format!(
                        "table::{kind}::{operation:?}::{}{}",
                        statuses::wire_name(*reason),
                        if done { "_done" } else { "" }
                    );
                    rows.push(Row::new(name, move |world| async move {
                        case.play(Scene::new(&world).await?).await
                    }));
                }
            }
        }
    }
    rows
}

/// `INVALID_CONFIG` as `InvalidConfig`.
pub fn camel(name: &str) -> String {
    let capital = |word: &str| {
        let (first, rest) = word.split_at(1);
        first.to_owned() + &rest.to_lowercase()
    };
    name.split('_').map(capital).collect()
}

impl Case {
    fn call(&self) -> Call {
        match (self.operation, self.cluster) {
            (Operation::Create, true) => Call::CreateCluster,
            (Operation::Create, false) => Call::CreateMachine,
            (Operation::Exists, true) => Call::ClusterExists,
            (Operation::Exists, false) => Call::MachineExists,
            (Operation::Update, true) => Call::UpdateCluster,
            (Operation::Update, false) => Call::UpdateMachine,
            (Operation::Delete, true) => Call::DeleteCluster,
            (Operation::Delete, false) => Call::DeleteMachine,
        }
    }

    fn object(&self) -> &'static str {
        if self.cluster { CLUSTER } else { MACHINE }
    }

    /// Whether a person sees it at once.
    fn shown_at_once(&self) -> bool {
        !matches!(self.recovery, R::Resolve | R::Again)
    }

    /// The calls that are expected while the fault lasts and until the object is well, in
    /// lower case: `x` is the call that fails, `e` Exists.
    fn calls(&self) -> (String, String) {
        let looks = self.operation != Operation::Delete
            && self.operation != Operation::Exists
            && (!self.nothing_changed || self.recovery == R::Resolve || (self.reason == "KeyConflict"));
        let look = if looks { "e" } else { "" };
        let (while_it_lasts, until_well) = match (self.recovery, self.operation) {
            (R::Escalate, _) if self.done && looks => ("x!".into(), "x!e".into()),
            // Found to be done: that was all.
            (_, Operation::Create | Operation::Update) if self.done => ("x!e".into(), "x!e".into()),
            (R::Escalate, _) => ("x!".into(), format!("x!{look}x")),
            (R::Resolve | R::Again, _) => ("(x!)+.*".into(), format!("x!{look}x!{look}x")),
            (R::Hold | R::Replace, _) => (format!("x!{look}"), format!("x!{look}x")),
            // The second try may be under way when the process is killed: then it is looked into.
            (R::Refresh, _) => (format!("x!{look}x!{look}"), format!("x!{look}x!({look}|e)*x")),
            (R::HoldAndLook | R::Elsewhere, _) => (format!("x!({look}x!)*({look})?"), format!("(x!{look})+x")),
        };
        // A deletion is over when Exists has said so too.
        let after = if self.operation == Operation::Delete { "e" } else { "" };
        (while_it_lasts, until_well + after)
    }

    fn letters(&self, pattern: &str) -> String {
        let letter = self.call().letter().unwrap_or_default();
        let exists = if self.cluster { 'E' } else { 'e' };
        pattern
            .replace('e', &exists.to_string())
            .replace('x', &letter.to_string())
    }

    /// What comes before the fault.
    fn before(&self) -> &'static str {
        match (self.operation, self.cluster) {
            (Operation::Create, _) => "",
            (_, true) => "C",
            (_, false) => "c",
        }
    }

    fn pattern(&self, calls: &str) -> anyhow::Result<regex::Regex> {
        Ok(regex::Regex::new(&format!(
            "^{}(?:{})$",
            self.before(),
            self.letters(calls)
        ))?)
    }

    fn expect(&self, scene: &Scene, calls: &str) -> anyhow::Result<()> {
        let (trace, pattern) = (scene.trace(self.object()), self.pattern(calls)?);
        ensure!(
            pattern.is_match(&trace),
            "the calls were {trace:?} and should have been {:?}",
            pattern.as_str()
        );
        Ok(())
    }

    /// From the fault to the end.
    pub async fn play(self, scene: Scene) -> anyhow::Result<()> {
        self.begin(&scene).await?;
        let (while_it_lasts, until_well) = self.calls();
        if self.shown_at_once() && !self.finds_it_done() {
            self.shown(&scene).await?;
            // The status may come before the last call that belongs to it.
            let calls = self.pattern(&while_it_lasts)?;
            let all_came = |ledger: &Ledger| calls.is_match(&ledger.trace(self.object()));
            scene.provider.until(PATIENCE, calls.as_str(), all_came).await?;
            scene.provider.heal();
            // What is held is looked at again when the provider is another process.
            if !matches!(self.recovery, R::HoldAndLook | R::Elsewhere) {
                scene.provider.restart()?;
            }
            self.well(&scene).await?;
            // A read that was lost with the old process is made once more.
            self.expect(&scene, &until_well.replace('e', "(?:ee?)"))?;
        } else {
            self.well(&scene).await?;
            self.expect(&scene, &until_well)?;
            let events = scene.events(self.object()).await?;
            ensure!(
                !events.iter().any(|(reason, _)| reason.starts_with("Failed")),
                "what passed by itself made events: {events:?}"
            );
        }
        scene.finish().await
    }

    /// Whether Exists finds at once that it was done.
    fn finds_it_done(&self) -> bool {
        self.done && self.recovery != R::Escalate && matches!(self.operation, Operation::Create | Operation::Update)
    }

    /// Up to the fault.
    async fn begin(&self, scene: &Scene) -> anyhow::Result<()> {
        if !self.cluster {
            scene.cluster().await?;
        }
        if self.operation == Operation::Exists {
            scene.provider.set_slow(true);
        }
        if matches!(self.operation, Operation::Create | Operation::Exists) {
            self.fail(scene);
        }
        match (self.operation, self.cluster) {
            (Operation::Create | Operation::Exists, true) => drop(scene.make_cluster().await?),
            (Operation::Create | Operation::Exists, false) => drop(scene.make_machine(MACHINE).await?),
            (_, true) => drop(scene.cluster().await?),
            (_, false) => drop(scene.machine().await?),
        }
        match (self.operation, self.cluster) {
            (Operation::Update, true) => {
                self.fail(scene);
                scene.resize::<Cluster>(CLUSTER, "large").await?;
            }
            (Operation::Update, false) => {
                self.fail(scene);
                scene.resize::<Machine>(MACHINE, "large").await?;
            }
            (Operation::Delete, true) => {
                self.fail(scene);
                scene.delete::<Cluster>(CLUSTER).await?;
            }
            (Operation::Delete, false) => {
                self.fail(scene);
                scene.delete::<Machine>(MACHINE).await?;
            }
            _ => {}
        }
        Ok(())
    }

    fn fail(&self, scene: &Scene) {
        let act = || {
            if self.done {
                Act::Lose(self.status.clone())
            } else {
                Act::Refuse(self.status.clone())
            }
        };
        if self.finds_it_done() {
            scene.provider.script_times(self.call(), 1, act());
        } else if self.shown_at_once() {
            scene.provider.script(self.call(), act());
        } else {
            scene.provider.script_times(self.call(), 2, act());
        }
    }

    /// The status and the event that tell a person.
    async fn shown(&self, scene: &Scene) -> anyhow::Result<()> {
        let says = |found: Option<(String, String, String)>, status: &str, reason: &str| {
            found.is_some_and(|(is, why, words)| is == status && why == reason && words.contains(WORDS))
        };
        let reason = &self.reason;
        let event = match (self.operation, self.cluster) {
            (Operation::Create, false) => {
                let shown = scene
                    .until_machine("a machine that says why it is not made", |machine| {
                        says(machine_condition(machine, "Ready"), "False", reason)
                    })
                    .await?;
                ensure!(phase(&shown) == "Pending", "{shown:?}");
                let config = ["InvalidConfig", "UnsupportedSchemaVersion"].contains(&&**reason);
                ensure!(
                    says(machine_condition(&shown, "ProviderConfigValid"), "False", reason) == config,
                    "only the config's fault is called that: {shown:?}"
                );
                Some("FailedCreate")
            }
            (Operation::Create, true) => {
                scene
                    .until_cluster("a cluster that says why it is not made", |cluster| {
                        says(cluster_condition(cluster, "Ready"), "False", reason)
                    })
                    .await?;
                Some("FailedCreate")
            }
            (Operation::Exists, false) => {
                let shown = scene
                    .until_machine("a machine that says why it cannot be looked at", |machine| {
                        says(machine_condition(machine, "Ready"), "Unknown", reason)
                    })
                    .await?;
                ensure!(phase(&shown) == "Provisioning", "{shown:?}");
                None
            }
            (Operation::Exists, true) => {
                scene
                    .until_cluster("a cluster that says why it cannot be looked at", |cluster| {
                        says(cluster_condition(cluster, "Ready"), "Unknown", reason)
                    })
                    .await?;
                None
            }
            (Operation::Update, false) => {
                let failed = |machine: &Machine| {
                    let last = machine.status.as_ref()?.last_operation.clone()?;
                    let words = last.message.unwrap_or_default().contains(WORDS);
                    Some(last.type_ == "Update" && last.reason.as_deref() == Some(reason) && words)
                };
                let shown = scene
                    .until_machine("a machine that says why it is not changed", |machine| {
                        failed(machine) == Some(true)
                    })
                    .await?;
                ensure!(phase(&shown) == "Running", "it runs on as it was: {shown:?}");
                let replace = machine_condition(&shown, "Ready").is_some_and(|(_, why, _)| why == "ReplaceRequired");
                ensure!(
                    replace == (self.recovery == R::Replace),
                    "its owner is told to replace it, or not: {shown:?}"
                );
                Some("FailedUpdate")
            }
            (Operation::Update, true) => {
                let shown = scene
                    .until_cluster("a cluster that says why it is not changed", |cluster| {
                        says(cluster_condition(cluster, "ProviderConfigValid"), "False", reason)
                    })
                    .await?;
                ensure!(is_ready(&shown), "it works on as it was: {shown:?}");
                Some("FailedUpdate")
            }
            (Operation::Delete, false) => {
                let stage = "WaitingForInfrastructureDeletion";
                scene
                    .until_machine("a machine that says why it does not go", |machine| {
                        let last = machine.status.as_ref().and_then(|status| status.last_operation.clone());
                        says(machine_condition(machine, "Deleting"), "True", stage)
                            && last.and_then(|last| last.reason).as_ref() == Some(reason)
                    })
                    .await?;
                Some("FailedDelete")
            }
            (Operation::Delete, true) => {
                scene
                    .until_cluster("a cluster that says why it does not go", |cluster| {
                        says(
                            cluster_condition(cluster, "Deleting"),
                            "True",
                            "InfrastructureDeletionBlocked",
                        )
                    })
                    .await?;
                Some("FailedDelete")
            }
        };
        match event {
            Some(event) => scene.until_event(self.object(), event, WORDS).await,
            None => Ok(()),
        }
    }

    /// Until all is as the user wants it.
    async fn well(&self, scene: &Scene) -> anyhow::Result<()> {
        match (self.operation, self.cluster) {
            (Operation::Create | Operation::Exists, true) => {
                drop(scene.until_cluster("a cluster that is ready", is_ready).await?);
            }
            (Operation::Create | Operation::Exists, false) => {
                drop(scene.until_machine("a machine that runs", is_running).await?);
            }
            (Operation::Update, true) => {
                scene
                    .until_cluster("a cluster that was changed", |cluster| {
                        is_ready(cluster)
                            && is_applied(
                                scene,
                                cluster.status.as_ref().and_then(|status| status.applied_digest.clone()),
                                true,
                            )
                            && cluster_condition(cluster, "ProviderConfigValid")
                                .is_some_and(|(status, ..)| status == "True")
                    })
                    .await?;
            }
            (Operation::Update, false) => {
                scene
                    .until_machine("a machine that was changed", |machine| {
                        is_running(machine)
                            && is_applied(
                                scene,
                                machine.status.as_ref().and_then(|status| status.applied_digest.clone()),
                                false,
                            )
                    })
                    .await?;
            }
            (Operation::Delete, true) => scene.gone::<Cluster>(CLUSTER).await?,
            (Operation::Delete, false) => scene.gone::<Machine>(MACHINE).await?,
        }
        Ok(())
    }
}

/// Whether the status has the digest that the provider has, and that is not the first.
fn is_applied(scene: &Scene, shown: Option<String>, cluster: bool) -> bool {
    scene.provider.ledger(|ledger| {
        let resource = ledger.resources.values().find(|resource| resource.cluster == cluster);
        resource.is_some_and(|found| found.changed && shown == Some(hex::encode(&found.digest)))
    })
}
