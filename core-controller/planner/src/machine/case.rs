//! One view at one moment, with what every branch of the decision asks of it.
//! Not for: decisions of one branch.

use std::hash::{Hash as _, Hasher as _};
use std::time::Duration;

use jiff::Timestamp;
use outrigger_api::names::{ANNOTATION_PAUSED, FINALIZER_MACHINE};
use outrigger_api::{MachineStatus, ResourceExt as _};

use super::{Action, Plan, View, provider_name};
use crate::line::{self, Line};
use crate::observation::{Gate, plus, until};
use crate::operation::{Basis, Call, Operation};
use crate::provider::Snapshot;
use crate::request;

/// How long an object may wait before its status says so: most waits are over by then,
/// and cost no write.
pub(super) const QUIET: Duration = Duration::from_secs(5);
/// How long a failure that passes by itself may last before the status says so.
pub(super) const TROUBLE_QUIET: Duration = Duration::from_secs(15);
/// How often to look whether a provider came back, should its news get lost.
const PROVIDER_LOOK_AGAIN: Duration = Duration::from_mins(1);

/// A view, a moment, and what follows from both.
pub(super) struct Case<'a> {
    pub view: &'a View<'a>,
    pub now: Timestamp,
    /// The status as it was observed.
    pub before: MachineStatus,
    /// What an operation would be decided on now.
    pub basis: Basis,
    /// The digests under which the instance is what the spec asks for: the first is the
    /// one that an Update would ask for. Empty when no request can be made of the spec.
    pub digests: Vec<Vec<u8>>,
    /// Why no request can be made of the spec.
    pub unusable_spec: Option<crate::operation::Failure>,
}

impl<'a> Case<'a> {
    pub fn new(view: &'a View<'a>, now: Timestamp) -> Self {
        let machine = view.machine;
        let before = machine.status.clone().unwrap_or_default();
        let own_domain = machine.spec.failure_domain.as_deref();
        // A machine that was put somewhere by choice was created with that choice in its
        // spec; one that the provider has put there was not. Both are as asked for.
        let mut digests = Vec::with_capacity(2);
        let mut unusable_spec = None;
        match request::machine_spec(machine, None, own_domain) {
            Ok(spec) => {
                let mut placed = spec.clone();
                digests.push(spec.digest);
                let reported = view.observation.status().map(|status| status.failure_domain.as_str());
                let chosen = reported.filter(|domain| !domain.is_empty());
                if let Some(domain) = chosen.or(before.failure_domain.as_deref())
                    && own_domain.is_none()
                {
                    domain.clone_into(&mut placed.failure_domain);
                    digests.push(actuator_proto::digest::machine_spec(&placed));
                }
            }
            Err(error) => unusable_spec = Some(error.into()),
        }
        let basis = Basis {
            generation: machine.metadata.generation.unwrap_or_default(),
            digest: digests.first().cloned().unwrap_or_default(),
            session: view
                .provider
                .map(|provider| provider.instance_id.clone())
                .unwrap_or_default(),
            connections: view.provider.map_or(0, |provider| provider.connections),
            credentials: view.credentials_version.to_owned(),
        };
        Self {
            view,
            now,
            before,
            basis,
            digests,
            unusable_spec,
        }
    }

    /// What is paused, if anything is: "the Cluster" or "the Machine".
    pub fn paused(&self) -> Option<&'static str> {
        let annotated =
            |annotations: &std::collections::BTreeMap<String, String>| annotations.contains_key(ANNOTATION_PAUSED);
        if annotated(self.view.machine.annotations()) {
            return Some("the Machine");
        }
        self.view
            .cluster
            .is_some_and(|cluster| cluster.spec.paused || annotated(cluster.annotations()))
            .then_some("the Cluster")
    }

    pub fn has_finalizer(&self) -> bool {
        self.view
            .machine
            .finalizers()
            .iter()
            .any(|finalizer| finalizer == FINALIZER_MACHINE)
    }

    /// Whether the provider can be called, and what to say where it cannot.
    pub fn line(&self) -> Line<'a> {
        let Some(name) = provider_name(self.view.machine, self.view.cluster) else {
            return Line::Closed(
                "ProviderUnknown",
                format!(
                    "nobody can tell which provider has the machine: its Cluster {} is gone; set spec.provider",
                    self.view.machine.spec.cluster_name
                ),
            );
        };
        line::line(name, self.view.provider)
    }

    /// From when on ABSENT counts.
    pub fn settled(&self, provider: &Snapshot) -> Timestamp {
        let view = self.view;
        line::settled(view.observation, view.witnessed_birth, view.leading_since, provider)
    }

    /// Whether the object is old enough to say that it waits.
    pub fn may_complain(&self, since: Option<Timestamp>, quiet: Duration) -> Result<(), Timestamp> {
        let from = since.map_or(Timestamp::MIN, |since| plus(since, quiet));
        if from <= self.now { Ok(()) } else { Err(from) }
    }

    pub fn created_at(&self) -> Option<Timestamp> {
        self.view
            .machine
            .metadata
            .creation_timestamp
            .as_ref()
            .map(|time| time.0)
    }

    /// A share of `period` between three and five quarters that is the machine's own, so
    /// that a fleet is not asked for all at once.
    pub fn jittered(&self, period: Duration) -> Duration {
        let mut hasher = fnv::FnvHasher::default();
        self.view.machine.metadata.uid.hash(&mut hasher);
        let percent = 75 + u32::try_from(hasher.finish() % 51).unwrap_or(25);
        period * percent / 100
    }

    /// No action, this status.
    #[allow(clippy::unused_self)] // reads as a decision of the case, like its siblings
    pub fn wait(&self, status: MachineStatus, reason: impl Into<String>) -> Plan {
        Plan {
            status,
            action: None,
            look_again: None,
            events: Vec::new(),
            reason: reason.into(),
            step_down: false,
        }
    }

    /// No action, the status as it is, and again when something changes.
    pub fn wait_for_answer(&self, status: MachineStatus, call: &Call) -> Plan {
        self.wait(status, format!("waits for the answer to {}", call.name()))
    }

    /// This call, or a wait for its gate; `Err` tells what the gate said.
    pub fn call(
        &self,
        status: MachineStatus,
        call: Call,
        reason: impl Into<String>,
    ) -> Result<Plan, (MachineStatus, Gate)> {
        match self.view.observation.gate(&call, &self.basis, self.now) {
            Gate::Open => {
                let mut plan = self.wait(status, reason);
                plan.action = Some(Action::Provider(Operation {
                    call,
                    basis: self.basis.clone(),
                }));
                Ok(plan)
            }
            gate => Err((status, gate)),
        }
    }

    /// The wait that a closed line asks for.
    pub fn wait_for_provider(&self, status: MachineStatus, reason: impl Into<String>) -> Plan {
        let mut plan = self.wait(status, reason);
        plan.look_again = Some(PROVIDER_LOOK_AGAIN);
        plan
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
