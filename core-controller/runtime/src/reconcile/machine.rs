//! Machines: view, plan, execute.
//!
//! Not for: deciding (`outrigger_planner::machine`).

use jiff::Timestamp;
use outrigger_api::Machine;
use outrigger_api::names::FINALIZER_MACHINE;
use outrigger_planner::machine::{self, Action, Plan, View};
use outrigger_planner::operation::Call;
use outrigger_planner::{request, validation};
use serde_json::json;

use super::status::Pace;
use super::{Again, Reconciler};
use crate::execute::{Tie, WriteError};
use crate::names::{Key, Name};

impl Reconciler {
    pub(super) async fn reconcile_machine(&self, key: &Key) -> Result<Again, WriteError> {
        let (machine, born) = {
            let machines = self.index.machines.read();
            let Some(machine) = machines.get(&key.name) else {
                self.operations.forget(key);
                return Ok(None);
            };
            (machine, machines.born(&key.name))
        };
        let uid = machine.metadata.uid.as_deref().unwrap_or_default();
        let cluster = self.cluster_of(&key.name.namespace, &machine.spec.cluster_name);
        let provider = machine::provider_name(&machine, cluster.as_deref()).map(str::to_owned);
        let snapshot = provider.as_ref().and_then(|name| self.snapshots.get(name));
        let now = Timestamp::now();
        let verdict_key = snapshot.as_ref().and_then(|snapshot| {
            let config = request::opaque_config(&machine.spec.provider_spec).ok()?;
            Some(validation::Key {
                provider: snapshot.name.clone(),
                session: snapshot.instance_id.clone(),
                config: request::config_digest(&config),
            })
        });
        let verdict = verdict_key.as_ref().and_then(|key| self.memory.verdict(key));
        let cluster_uid = cluster.as_ref().and_then(|cluster| cluster.metadata.uid.as_deref());
        let exhausted = match (&provider, cluster_uid) {
            (Some(provider), Some(cluster)) => self.memory.exhausted_domains(provider, cluster, now),
            _ => Vec::new(),
        };
        let secrets = self.operations.machine_secrets_version(&machine, cluster.as_deref());
        let plan = self.memory.machine(uid, |observation| {
            let view = View {
                machine: &machine,
                cluster: cluster.as_deref(),
                provider: snapshot.as_deref(),
                observation,
                witnessed_birth: born.is_some_and(|version| version > self.claim.version),
                leading_since: self.leading_since,
                credentials_version: &secrets,
                verdict: verdict.as_ref(),
                exhausted_domains: &exhausted,
            };
            machine::plan(&view, now)
        });
        tracing::trace!(name = %key.name, reason = plan.reason, action = ?plan.action, "planned a Machine");
        self.execute_machine(key, &machine, provider.as_deref(), verdict_key, plan)
            .await
    }

    async fn execute_machine(
        &self,
        key: &Key,
        machine: &Machine,
        provider: Option<&str>,
        verdict_key: Option<validation::Key>,
        plan: Plan,
    ) -> Result<Again, WriteError> {
        if plan.step_down {
            self.leadership
                .step_down("a provider has answered that another core leads");
            return Ok(None);
        }
        self.write_status(machine, machine.status.as_ref(), &plan.status, Pace::AtOnce)
            .await?;
        let uid = machine.metadata.uid.as_deref().unwrap_or_default();
        match plan.action {
            None => {}
            Some(Action::AddFinalizer) => self.add_finalizer::<Machine>(&key.name, FINALIZER_MACHINE).await?,
            Some(Action::RemoveFinalizer) => {
                self.remove_finalizer::<Machine>(&key.name, FINALIZER_MACHINE).await?;
            }
            Some(Action::SetProviderId(id)) => {
                self.writer
                    .patch::<Machine>(&key.name, Tie::Uid(uid), json!({ "spec": { "providerID": id } }))
                    .await?;
            }
            Some(Action::Provider(operation)) => match provider {
                Some(provider) => {
                    let verdict = (operation.call == Call::Validate).then_some(verdict_key).flatten();
                    self.operations.start_machine(provider, machine, operation, verdict);
                }
                None => tracing::warn!(name = %key.name, "a call was planned for a machine without a provider"),
            },
        }
        self.record(machine, plan.events);
        Ok(plan.look_again)
    }

    /// Puts a finalizer on the newest version that we know.
    pub(super) async fn add_finalizer<K>(&self, name: &Name, finalizer: &str) -> Result<(), WriteError>
    where
        K: crate::index::Reconciled + super::route::Routed,
    {
        self.change_finalizers::<K>(name, |finalizers| {
            if !finalizers.iter().any(|known| known == finalizer) {
                finalizers.push(finalizer.to_owned());
            }
        })
        .await
    }

    /// Takes a finalizer off the newest version that we know.
    pub(super) async fn remove_finalizer<K>(&self, name: &Name, finalizer: &str) -> Result<(), WriteError>
    where
        K: crate::index::Reconciled + super::route::Routed,
    {
        self.change_finalizers::<K>(name, |finalizers| finalizers.retain(|known| known != finalizer))
            .await
    }

    /// The list is written as a whole, so it is tied to the version that it was read at.
    async fn change_finalizers<K>(&self, name: &Name, change: impl FnOnce(&mut Vec<String>)) -> Result<(), WriteError>
    where
        K: crate::index::Reconciled + super::route::Routed,
    {
        let Some(object) = K::table(&self.index).read().get(name) else {
            return Ok(());
        };
        let before = object.meta().finalizers.clone().unwrap_or_default();
        let mut finalizers = before.clone();
        change(&mut finalizers);
        if finalizers == before {
            return Ok(());
        }
        let version = object.meta().resource_version.as_deref().unwrap_or_default();
        self.writer
            .patch::<K>(
                name,
                Tie::Version(version),
                json!({ "metadata": { "finalizers": finalizers } }),
            )
            .await?;
        Ok(())
    }
}
