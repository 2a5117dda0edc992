//! MachineDeployments: view, plan, execute.
//!
//! Not for: deciding (`outrigger_planner::machine_deployment`).

use std::sync::Arc;

use jiff::Timestamp;
use outrigger_api::{Machine, MachineDeployment, MachineSet, MachineTemplate};
use outrigger_planner::machine_deployment::{self, Action, Performed, SetView, View};
use outrigger_planner::machine_set::Outcome;
use serde_json::{Value, json};

use super::machine_set::outcome;
use super::status::Pace;
use super::{Again, Reconciler, sooner};
use crate::execute::WriteError;
use crate::index::IndexKey;
use crate::names::{Key, Name};

impl Reconciler {
    pub(super) async fn reconcile_machine_deployment(&self, key: &Key) -> Result<Again, WriteError> {
        let Some(deployment) = self.index.deployments.read().get(&key.name) else {
            return Ok(None);
        };
        let uid = deployment.metadata.uid.as_deref().unwrap_or_default();
        let cluster = self.cluster_of(&key.name.namespace, &deployment.spec.cluster_name);
        let sets = self.sets_of(key, &deployment, uid);
        let machines: Vec<Vec<&Machine>> = sets
            .iter()
            .map(|(_, machines)| machines.iter().map(AsRef::as_ref).collect())
            .collect();
        let sets: Vec<SetView<'_>> = sets
            .iter()
            .zip(&machines)
            .map(|((set, _), machines)| SetView { set, machines })
            .collect();
        let plan = self.memory.deployment(uid, |observation| {
            let view = View {
                deployment: &deployment,
                cluster: cluster.as_deref(),
                sets: &sets,
                observation,
            };
            machine_deployment::plan(&view, Timestamp::now())
        });
        tracing::trace!(name = %key.name, reason = plan.reason, actions = plan.actions.len(), "planned a MachineDeployment");
        let written = self
            .write_status(&*deployment, deployment.status.as_ref(), &plan.status, Pace::Coalesced)
            .await?;
        // One after another: they are in the order in which they have to happen.
        let mut results = Vec::with_capacity(plan.actions.len());
        for action in plan.actions {
            results.push(self.perform_for_deployment(&deployment, &key.name, action).await);
        }
        let acted = !results.is_empty();
        let events = if acted {
            self.memory
                .deployment(uid, |observation| observation.observe(&results, Timestamp::now()))
        } else {
            Vec::new()
        };
        self.record::<MachineDeployment>(&deployment, plan.events);
        self.record::<MachineDeployment>(&deployment, events);
        let moment = acted.then_some(std::time::Duration::from_millis(1));
        Ok(sooner(sooner(plan.look_again, moment), written.again()))
    }

    /// The sets that the deployment controls or may adopt, each with its machines.
    fn sets_of(
        &self,
        key: &Key,
        deployment: &MachineDeployment,
        uid: &str,
    ) -> Vec<(Arc<MachineSet>, Vec<Arc<Machine>>)> {
        let found = {
            let sets = self.index.sets.read();
            let mut found = sets.find(&IndexKey::Controller(uid.into()));
            let cluster = Name::new(&key.name.namespace, &deployment.spec.cluster_name);
            found.extend(sets.find(&IndexKey::Orphan(cluster)));
            found
        };
        let machines = self.index.machines.read();
        found
            .into_iter()
            .map(|set| {
                let uid = set.metadata.uid.as_deref().unwrap_or_default();
                let members = machines.find(&IndexKey::Controller(uid.into()));
                (set, members)
            })
            .collect()
    }

    async fn perform_for_deployment(
        &self,
        deployment: &MachineDeployment,
        deployment_name: &Name,
        action: Action,
    ) -> (Performed, Outcome) {
        let namespace = &*deployment_name.namespace;
        match action {
            Action::CreateSet(set) => {
                let result = self.writer.create::<MachineSet>(&set).await;
                (Performed::CreateSet(set), outcome(result))
            }
            Action::PatchSet {
                name,
                resource_version,
                patch,
            } => {
                let body = patch.to_merge_patch(resource_version.as_deref());
                let result = self
                    .writer
                    .patch_as_is::<MachineSet>(&Name::new(namespace, &name), body)
                    .await;
                let replicas = patch.replicas;
                (Performed::PatchSet { name, replicas }, outcome(result))
            }
            Action::DeleteSet {
                name,
                uid,
                resource_version,
            } => {
                let result = self
                    .writer
                    .delete::<MachineSet>(&Name::new(namespace, &name), &uid, resource_version.as_deref())
                    .await;
                (Performed::DeleteSet { name }, outcome(result))
            }
            Action::OwnSet {
                name,
                uid,
                resource_version,
                owner_references,
            } => {
                let result = self
                    .set_owners::<MachineSet>(namespace, &name, &uid, resource_version.as_deref(), &owner_references)
                    .await;
                (Performed::Own { name }, outcome(result))
            }
            Action::PatchDeployment { annotations, rollback } => {
                let mut body = json!({
                    "metadata": {
                        "resourceVersion": deployment.metadata.resource_version,
                        "annotations": annotations,
                    }
                });
                let rolled_back_to = rollback.as_ref().map(|(revision, _)| *revision);
                if let Some((_, template)) = rollback {
                    match replace_template(&deployment.spec.template, &template) {
                        Ok(patch) => body["spec"] = json!({ "template": patch }),
                        Err(message) => {
                            let reason = "BadRequest".to_owned();
                            return (
                                Performed::PatchDeployment { rolled_back_to },
                                Outcome::Refused { reason, message },
                            );
                        }
                    }
                }
                let result = self
                    .writer
                    .patch_as_is::<MachineDeployment>(deployment_name, body)
                    .await;
                (Performed::PatchDeployment { rolled_back_to }, outcome(result))
            }
        }
    }
}

/// The merge patch that makes one template the other, removals included.
fn replace_template(old: &MachineTemplate, new: &MachineTemplate) -> Result<Value, String> {
    let json = |template: &MachineTemplate| {
        serde_json::to_value(template).map_err(|error| format!("the template cannot be written as JSON: {error}"))
    };
    Ok(crate::execute::merge_diff(&json(old)?, &json(new)?).unwrap_or_else(|| json!({})))
}
