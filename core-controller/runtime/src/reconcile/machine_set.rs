//! MachineSets: view, plan, execute.
//!
//! Not for: deciding (`outrigger_planner::machine_set`).

use std::sync::Arc;

use futures::StreamExt as _;
use jiff::Timestamp;
use outrigger_api::reference::controller_of;
use outrigger_api::{Machine, MachineSet, OwnerReference};
use outrigger_planner::machine_set::{self, Action, Outcome, Performed, View};
use serde_json::json;

use super::status::Pace;
use super::{Again, Reconciler, sooner};
use crate::execute::{Tie, WriteError};
use crate::index::{IndexKey, Reconciled};
use crate::names::{Key, Name};
use crate::reconcile::route::Routed;

/// How many actions of one plan are under way at a time.
const CONCURRENCY: usize = 16;

impl Reconciler {
    pub(super) async fn reconcile_machine_set(&self, key: &Key) -> Result<Again, WriteError> {
        let Some(set) = self.index.sets.read().get(&key.name) else {
            return Ok(None);
        };
        let uid = set.metadata.uid.as_deref().unwrap_or_default();
        let cluster = self.cluster_of(&key.name.namespace, &set.spec.cluster_name);
        let machines: Vec<Arc<Machine>> = {
            let machines = self.index.machines.read();
            let mut found = machines.find(&IndexKey::Controller(uid.into()));
            let cluster = Name::new(&key.name.namespace, &set.spec.cluster_name);
            found.extend(machines.find(&IndexKey::Orphan(cluster)));
            found
        };
        let machines: Vec<&Machine> = machines.iter().map(AsRef::as_ref).collect();
        let plan = self.memory.set(uid, |observation| {
            let view = View {
                set: &set,
                cluster: cluster.as_deref(),
                machines: &machines,
                observation,
                seed: rand::random(),
            };
            machine_set::plan(&view, Timestamp::now())
        });
        tracing::trace!(name = %key.name, reason = plan.reason, actions = plan.actions.len(), "planned a MachineSet");
        let written = self
            .write_status(&*set, set.status.as_ref(), &plan.status, Pace::Coalesced)
            .await?;
        let namespace = &key.name.namespace;
        let results: Vec<(Performed, Outcome)> = futures::stream::iter(plan.actions)
            .map(|action| self.perform(namespace, action))
            .buffer_unordered(CONCURRENCY)
            .collect()
            .await;
        let acted = !results.is_empty();
        let events = if acted {
            self.memory
                .set(uid, |observation| observation.observe(&results, Timestamp::now()))
        } else {
            Vec::new()
        };
        self.note_possible_machines(&set, uid);
        self.record::<MachineSet>(&set, plan.events);
        self.record::<MachineSet>(&set, events);
        // What was just done is planned on: more may be missing.
        let again = if acted {
            sooner(plan.look_again, Some(std::time::Duration::from_millis(1)))
        } else {
            plan.look_again
        };
        Ok(sooner(again, written.again()))
    }

    /// Tells the deployment of a set how many machines the set may have by creates whose
    /// answer never came: they count against replicas + surge until they are settled.
    fn note_possible_machines(&self, set: &MachineSet, uid: &str) {
        let Some(deployment) = controller_of(set) else {
            return;
        };
        let possible = self
            .memory
            .set(uid, |observation| observation.possible_machines(Timestamp::now()));
        let name = set.metadata.name.as_deref().unwrap_or_default();
        self.memory
            .deployment(&deployment.uid, |observation| observation.note_possible(name, possible));
    }

    async fn perform(&self, namespace: &str, action: Action) -> (Performed, Outcome) {
        match action {
            Action::Create(machine) => {
                let name = machine.metadata.name.clone().unwrap_or_default();
                let result = self.writer.create::<Machine>(&machine).await;
                (Performed::Create { name }, outcome(result))
            }
            Action::Delete { name, uid, replaced } => {
                let result = self
                    .writer
                    .delete::<Machine>(&Name::new(namespace, &name), &uid, None)
                    .await;
                (Performed::Delete { name, uid, replaced }, outcome(result))
            }
            Action::Adopt {
                name,
                uid,
                resource_version,
                owner_references,
            } => {
                let result = self
                    .set_owners::<Machine>(namespace, &name, &uid, resource_version.as_deref(), &owner_references)
                    .await;
                (Performed::Adopt { name }, outcome(result))
            }
            Action::Release {
                name,
                uid,
                resource_version,
                owner_references,
            } => {
                let result = self
                    .set_owners::<Machine>(namespace, &name, &uid, resource_version.as_deref(), &owner_references)
                    .await;
                (Performed::Release { name }, outcome(result))
            }
        }
    }

    /// Gives an object these owners, if it is still as it was.
    pub(super) async fn set_owners<K: Reconciled + Routed>(
        &self,
        namespace: &str,
        name: &str,
        uid: &str,
        version: Option<&str>,
        owners: &[OwnerReference],
    ) -> Result<(), WriteError> {
        let patch = json!({ "metadata": { "uid": uid, "ownerReferences": owners } });
        let tie = version.map_or(Tie::Uid(uid), Tie::Version);
        self.writer.patch::<K>(&Name::new(namespace, name), tie, patch).await
    }
}

pub(super) fn outcome(result: Result<(), WriteError>) -> Outcome {
    match result {
        Ok(()) => Outcome::Done,
        Err(WriteError::Unknown { message, .. }) => Outcome::Unknown { message },
        Err(WriteError::Refused { message, reason, .. }) => Outcome::Refused { reason, message },
        Err(error) => Outcome::Refused {
            reason: match &error {
                WriteError::Conflict(_) => "Conflict",
                WriteError::Gone(_) => "NotFound",
                WriteError::Busy { .. } => "TooManyRequests",
                _ => "NotLeading",
            }
            .to_owned(),
            message: error.to_string(),
        },
    }
}
