//! Clusters: view, plan, execute.
//!
//! Not for: deciding (`outrigger_planner::cluster`).

use jiff::Timestamp;
use outrigger_api::names::FINALIZER_CLUSTER;
use outrigger_api::{Cluster, Machine, MachineDeployment, MachineSet};
use outrigger_planner::cluster::{self, Action, ChildKind, View};
use outrigger_planner::operation::Call;
use outrigger_planner::{request, validation};

use super::status::Pace;
use super::{Again, Reconciler, sooner};
use crate::execute::WriteError;
use crate::index::IndexKey;
use crate::names::{Key, Name};

impl Reconciler {
    pub(super) async fn reconcile_cluster(&self, key: &Key) -> Result<Again, WriteError> {
        let (cluster, born) = {
            let clusters = self.index.clusters.read();
            let Some(cluster) = clusters.get(&key.name) else {
                self.operations.forget(key);
                return Ok(None);
            };
            (cluster, clusters.born(&key.name))
        };
        let uid = cluster.metadata.uid.as_deref().unwrap_or_default();
        let provider = cluster.spec.provider.as_str();
        let snapshot = self.snapshots.get(provider);
        let members = IndexKey::Cluster(key.name.clone());
        let deployments = self.index.deployments.read().find(&members);
        let sets = self.index.sets.read().find(&members);
        let machines = self.index.machines.read().find(&members);
        let deployments: Vec<&MachineDeployment> = deployments.iter().map(AsRef::as_ref).collect();
        let sets: Vec<&MachineSet> = sets.iter().map(AsRef::as_ref).collect();
        let machines: Vec<&Machine> = machines.iter().map(AsRef::as_ref).collect();
        let verdict_key = snapshot.as_ref().and_then(|snapshot| {
            let config = request::opaque_config(&cluster.spec.provider_spec).ok()?;
            Some(validation::Key {
                provider: snapshot.name.clone(),
                session: snapshot.instance_id.clone(),
                config: request::config_digest(&config),
            })
        });
        let verdict = verdict_key.as_ref().and_then(|key| self.memory.verdict(key));
        let secrets = self.operations.cluster_secrets_version(&cluster);
        let plan = self.memory.cluster(uid, |observation| {
            let view = View {
                cluster: &cluster,
                provider: snapshot.as_deref(),
                observation,
                witnessed_birth: born.is_some_and(|version| version > self.claim.version),
                leading_since: self.leading_since,
                credentials_version: &secrets,
                verdict: verdict.as_ref(),
                deployments: &deployments,
                sets: &sets,
                machines: &machines,
            };
            cluster::plan(&view, Timestamp::now())
        });
        tracing::trace!(name = %key.name, reason = plan.reason, actions = ?plan.actions, "planned a Cluster");
        if plan.step_down {
            self.leadership
                .step_down("a provider has answered that another core leads");
            return Ok(None);
        }
        let written = self
            .write_status(&*cluster, cluster.status.as_ref(), &plan.status, Pace::Coalesced)
            .await?;
        for action in plan.actions {
            match action {
                Action::AddFinalizer => self.add_finalizer::<Cluster>(&key.name, FINALIZER_CLUSTER).await?,
                Action::RemoveFinalizer => self.remove_finalizer::<Cluster>(&key.name, FINALIZER_CLUSTER).await?,
                Action::DeleteChild { kind, name, uid } => {
                    let name = Name::new(&key.name.namespace, &name);
                    match kind {
                        ChildKind::MachineDeployment => {
                            self.writer.delete::<MachineDeployment>(&name, &uid, None).await?;
                        }
                        ChildKind::MachineSet => self.writer.delete::<MachineSet>(&name, &uid, None).await?,
                        ChildKind::Machine => self.writer.delete::<Machine>(&name, &uid, None).await?,
                    }
                }
                Action::Provider(operation) => {
                    let verdict = (operation.call == Call::Validate)
                        .then(|| verdict_key.clone())
                        .flatten();
                    self.operations.start_cluster(provider, &cluster, operation, verdict);
                }
            }
        }
        self.record(&*cluster, plan.events);
        Ok(sooner(plan.look_again, written.again()))
    }
}
