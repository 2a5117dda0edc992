//! One view at one moment, with what every branch of the decision asks of it.
//! Not for: decisions of one branch.

use std::time::Duration;

use jiff::Timestamp;
use outrigger_api::names::{ANNOTATION_PAUSED, FINALIZER_CLUSTER};
use outrigger_api::{ClusterStatus, ResourceExt as _};

use super::{Action, Plan, View};
use crate::conditions;
use crate::line::{self, Line};
use crate::observation::{Gate, Trouble, plus, until};
use crate::operation::{Basis, Call, Failure, Operation};
use crate::provider::Snapshot;
use crate::request;

/// How long a cluster may wait before its status says so.
pub(super) const QUIET: Duration = Duration::from_secs(2);
/// How long a failure that passes by itself may last before the status says so.
pub(super) const TROUBLE_QUIET: Duration = Duration::from_secs(15);
/// How often to look whether a provider came back, should its news get lost.
const PROVIDER_LOOK_AGAIN: Duration = Duration::from_mins(1);

/// A view, a moment, and what follows from both.
pub(super) struct Case<'a> {
    pub view: &'a View<'a>,
    pub now: Timestamp,
    /// The status as it was observed, with the machines counted anew.
    pub before: ClusterStatus,
    /// What an operation would be decided on now.
    pub basis: Basis,
    /// Why no request can be made of the spec.
    pub unusable_spec: Option<Failure>,
}

impl<'a> Case<'a> {
    pub fn new(view: &'a View<'a>, now: Timestamp) -> Self {
        let cluster = view.cluster;
        let mut before = cluster.status.clone().unwrap_or_default();
        before.machines = i32::try_from(view.machines.len()).unwrap_or(i32::MAX);
        let ready = view.machines.iter().filter(|machine| {
            machine
                .status
                .as_ref()
                .is_some_and(|status| conditions::is_true(&status.conditions, outrigger_api::names::CONDITION_READY))
        });
        before.ready_machines = i32::try_from(ready.count()).unwrap_or(i32::MAX);
        let (digest, unusable_spec) = match request::cluster_spec(cluster) {
            Ok(spec) => (spec.digest, None),
            Err(error) => (Vec::new(), Some(error.into())),
        };
        Self {
            view,
            now,
            before,
            basis: Basis {
                generation: cluster.metadata.generation.unwrap_or_default(),
                digest,
                session: view
                    .provider
                    .map(|provider| provider.instance_id.clone())
                    .unwrap_or_default(),
                connections: view.provider.map_or(0, |provider| provider.connections),
                credentials: view.credentials_version.to_owned(),
            },
            unusable_spec,
        }
    }

    pub fn is_paused(&self) -> bool {
        let cluster = self.view.cluster;
        cluster.spec.paused || cluster.annotations().contains_key(ANNOTATION_PAUSED)
    }

    pub fn has_finalizer(&self) -> bool {
        self.view
            .cluster
            .finalizers()
            .iter()
            .any(|finalizer| finalizer == FINALIZER_CLUSTER)
    }

    pub fn line(&self) -> Line<'a> {
        line::line(&self.view.cluster.spec.provider, self.view.provider)
    }

    /// From when on ABSENT counts.
    pub fn settled(&self, provider: &Snapshot) -> Timestamp {
        let view = self.view;
        line::settled(view.observation, view.witnessed_birth, view.leading_since, provider)
    }

    /// Whether it is time to show what began at `since`; else from when on.
    pub fn may_complain(&self, since: Option<Timestamp>, quiet: Duration) -> Result<(), Timestamp> {
        let from = since.map_or(Timestamp::MIN, |since| plus(since, quiet));
        if from <= self.now { Ok(()) } else { Err(from) }
    }

    pub fn created_at(&self) -> Option<Timestamp> {
        self.view
            .cluster
            .metadata
            .creation_timestamp
            .as_ref()
            .map(|time| time.0)
    }

    /// The trouble that keeps `call` from being sent: its own, else the provider's.
    pub fn trouble_with(&self, call: &Call) -> Option<&Trouble> {
        let observation = self.view.observation;
        observation
            .trouble(call)
            .or_else(|| observation.troubles.iter().max_by_key(|trouble| trouble.last))
    }

    /// No action, this status.
    #[allow(clippy::unused_self)] // reads as a decision of the case, like its siblings
    pub fn wait(&self, status: ClusterStatus, reason: impl Into<String>) -> Plan {
        Plan {
            status,
            actions: Vec::new(),
            look_again: None,
            events: Vec::new(),
            reason: reason.into(),
            step_down: false,
        }
    }

    pub fn wait_for_provider(&self, status: ClusterStatus, reason: impl Into<String>) -> Plan {
        let mut plan = self.wait(status, reason);
        plan.look_again = Some(PROVIDER_LOOK_AGAIN);
        plan
    }

    /// This call, or a wait for its gate; `Err` tells what the gate said.
    pub fn call(&self, status: ClusterStatus, call: Call, reason: &str) -> Result<Plan, (ClusterStatus, Gate)> {
        match self.view.observation.gate(&call, &self.basis, self.now) {
            Gate::Open => {
                let mut plan = self.wait(status, reason);
                plan.actions.push(Action::Provider(Operation {
                    call,
                    basis: self.basis.clone(),
                }));
                Ok(plan)
            }
            gate => Err((status, gate)),
        }
    }
}

impl Plan {
    /// Looks again at `when`, or sooner where that was planned already.
    pub(super) fn no_later_than(mut self, now: Timestamp, when: Timestamp) -> Self {
        let after = until(now, when);
        self.look_again = Some(self.look_again.map_or(after, |planned| planned.min(after)));
        self
    }

    /// Looks again when the gate may open.
    pub(super) fn at_gate(self, now: Timestamp, gate: &Gate) -> Self {
        match gate {
            Gate::Until(when) => self.no_later_than(now, *when),
            Gate::Open | Gate::Held => self,
        }
    }
}
