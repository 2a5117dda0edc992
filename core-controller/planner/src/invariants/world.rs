//! A simulated API server and executor: enough to carry out plans, lose answers, and show things late.
//!
//! Not for judging plans: see the checker.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use outrigger_api::names::{ANNOTATION_DELETE_MACHINE, CONDITION_READY};
use outrigger_api::{
    Cluster, LabelSelector, Machine, MachineDeployment, MachineDeploymentSpec, MachinePhase, MachineSet, MachineStatus,
    MachineTemplate, ObjectMeta, ResourceExt, Time, reference,
};

use super::{check_deployment, check_set};
use crate::conditions::{self, Assertion};
use crate::machine_deployment::{self as deployment, SetView};
use crate::machine_set::{self, Outcome};

/// What happens to a create.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It is refused.
    Refused,
    /// It is carried out, and the answer is lost; the index shows it later.
    AnswerLost,
    /// It never arrives.
    RequestLost,
}

/// The whole simulated world.
#[derive(Clone, Debug)]
pub struct World {
    pub now: Timestamp,
    pub cluster: Cluster,
    pub deployment: MachineDeployment,
    pub sets: Vec<MachineSet>,
    pub machines: Vec<Machine>,
    pub faults: Vec<Fault>,
    pub delete_faults: Vec<Fault>,
    /// Whether the deployment's size, strategy or pause changed since its last plan.
    pub was_scaled: bool,
    hidden: BTreeMap<String, Timestamp>,
    memory: deployment::Observation,
    set_memory: BTreeMap<String, machine_set::Observation>,
    counter: u64,
}

impl World {
    pub fn new(replicas: i32) -> Self {
        let selector = LabelSelector {
            match_labels: Some([("app".to_owned(), "web".to_owned())].into()),
            match_expressions: None,
        };
        let mut template = MachineTemplate::default();
        template.metadata.labels.insert("app".to_owned(), "web".to_owned());
        template.spec.provider_spec.kind = "FakeMachine".to_owned();
        let spec = MachineDeploymentSpec {
            cluster_name: "demo".to_owned(),
            replicas,
            selector,
            template,
            ..MachineDeploymentSpec::default()
        };
        let mut deployment = MachineDeployment::new("web", spec);
        deployment.metadata.namespace = Some("default".to_owned());
        deployment.metadata.uid = Some("uid-deployment".to_owned());
        deployment.metadata.generation = Some(1);
        let mut cluster = Cluster::default();
        cluster.metadata.name = Some("demo".to_owned());
        Self {
            now: Timestamp::from_second(1_000_000).unwrap(),
            cluster,
            deployment,
            sets: Vec::new(),
            machines: Vec::new(),
            faults: Vec::new(),
            delete_faults: Vec::new(),
            was_scaled: true,
            hidden: BTreeMap::new(),
            memory: deployment::Observation::default(),
            set_memory: BTreeMap::new(),
            counter: 0,
        }
    }

    fn number(&mut self) -> u64 {
        self.counter += 1;
        self.counter
    }

    fn stamp(&mut self, meta: &mut ObjectMeta) {
        let number = self.number();
        meta.resource_version = Some(number.to_string());
        if meta.uid.is_none() {
            meta.uid = Some(format!("uid-{number}"));
            meta.creation_timestamp = Some(Time(self.now));
        }
    }

    pub fn machine(&self, name: &str) -> Option<&Machine> {
        self.machines.iter().find(|machine| machine.name_any() == name)
    }

    pub fn is_hidden(&self, name: &str) -> bool {
        self.hidden.contains_key(name)
    }

    /// The UIDs whose deletion this set has asked for without an answer.
    pub fn unanswered_deletes(&self, set: &MachineSet) -> BTreeSet<String> {
        let uid = set.metadata.uid.as_deref().unwrap_or_default();
        self.set_memory
            .get(uid)
            .map(|memory| memory.unanswered_deletes.keys().cloned().collect())
            .unwrap_or_default()
    }

    /// The index sees everything.
    pub fn catch_up(&mut self) {
        self.hidden.clear();
    }

    /// Time goes by; what was hidden for long has come through.
    pub fn wait(&mut self, seconds: i64) {
        self.now = self.now.saturating_add(SignedDuration::from_secs(seconds)).unwrap();
        let now = self.now;
        self.hidden.retain(|_, since| now.as_second() - since.as_second() < 40);
    }

    /// The process starts anew: it lists everything and remembers nothing.
    pub fn restart(&mut self) {
        self.catch_up();
        self.memory = deployment::Observation::default();
        self.set_memory.clear();
    }

    /// Changes one machine as the machine's own controller or its cloud would.
    pub fn with_machine(&mut self, index: usize, change: impl FnOnce(&mut Machine, Timestamp)) {
        let now = self.now;
        let Some(at) = index.checked_rem(self.machines.len()) else {
            return;
        };
        change(&mut self.machines[at], now);
        let mut meta = self.machines[at].metadata.clone();
        self.stamp(&mut meta);
        self.machines[at].metadata = meta;
    }

    /// Machines that were asked to go are gone.
    pub fn finish_deletions(&mut self) {
        self.machines
            .retain(|machine| machine.metadata.deletion_timestamp.is_none());
    }

    /// A machine that nobody controls, with labels that match or not.
    pub fn add_orphan(&mut self, matches: bool) {
        let mut machine = Machine::default();
        let number = self.number();
        machine.metadata.name = Some(format!("orphan-{number}"));
        machine.metadata.namespace = Some("default".to_owned());
        "demo".clone_into(&mut machine.spec.cluster_name);
        if let Some(set) = self.sets.first().filter(|_| matches) {
            machine.metadata.labels = Some(set.spec.template.metadata.labels.clone());
        }
        let mut meta = machine.metadata.clone();
        self.stamp(&mut meta);
        machine.metadata = meta;
        self.machines.push(machine);
    }

    /// Plans the deployment, checks the plan, carries it out. Returns whether anything was written.
    pub fn run_deployment(&mut self) -> bool {
        let sets: Vec<MachineSet> = self
            .sets
            .iter()
            .filter(|set| !self.hidden.contains_key(&set.name_any()))
            .cloned()
            .collect();
        let machines: Vec<Machine> = self.visible();
        let plan = {
            let members: Vec<Vec<&Machine>> = sets
                .iter()
                .map(|set| {
                    let uid = set.metadata.uid.as_deref().unwrap_or_default();
                    machines
                        .iter()
                        .filter(|machine| reference::is_controlled_by(&machine.metadata, uid))
                        .collect()
                })
                .collect();
            let views: Vec<SetView<'_>> = sets
                .iter()
                .zip(&members)
                .map(|(set, machines)| SetView { set, machines })
                .collect();
            let view = deployment::View {
                deployment: &self.deployment,
                cluster: Some(&self.cluster),
                sets: &views,
                observation: &self.memory,
            };
            let plan = deployment::plan(&view, self.now);
            assert_eq!(
                plan,
                deployment::plan(&view, self.now),
                "the same view gives another plan"
            );
            plan
        };
        check_deployment(self, &plan);
        let mut wrote = !plan.actions.is_empty();
        let mut results = Vec::new();
        for action in plan.actions {
            results.push(self.carry_out(action));
        }
        if self.deployment.status.as_ref() != Some(&plan.status) {
            self.deployment.status = Some(plan.status);
            wrote = true;
        }
        self.was_scaled = false;
        self.memory.observe(&results, self.now);
        wrote
    }

    fn carry_out(&mut self, action: deployment::Action) -> (deployment::Performed, Outcome) {
        let refused = |reason: &str| Outcome::Refused {
            reason: reason.to_owned(),
            message: reason.to_owned(),
        };
        match action {
            deployment::Action::CreateSet(set) => {
                let performed = deployment::Performed::CreateSet(set.clone());
                let name = set.name_any();
                if self.sets.iter().any(|known| known.name_any() == name) {
                    self.hidden.remove(&name);
                    return (performed, refused(deployment::ALREADY_EXISTS));
                }
                let fault = self.faults.pop();
                if matches!(fault, None | Some(Fault::AnswerLost)) {
                    let mut set = *set;
                    let mut meta = set.metadata.clone();
                    self.stamp(&mut meta);
                    set.metadata = meta;
                    self.sets.push(set);
                }
                (performed, self.outcome(fault, &name))
            }
            deployment::Action::PatchSet {
                name,
                resource_version,
                patch,
            } => {
                let performed = deployment::Performed::PatchSet {
                    name: name.clone(),
                    replicas: patch.replicas,
                };
                let Some(at) = self.sets.iter().position(|set| set.name_any() == name) else {
                    return (performed, refused("NotFound"));
                };
                if self.sets[at].metadata.resource_version != resource_version {
                    return (performed, refused(deployment::CONFLICT));
                }
                let mut set = self.sets[at].clone();
                let mut value = serde_json::to_value(&set).unwrap();
                merge(&mut value, &patch.to_merge_patch(resource_version.as_deref()));
                set = serde_json::from_value(value).unwrap();
                let mut meta = set.metadata.clone();
                self.stamp(&mut meta);
                set.metadata = meta;
                self.sets[at] = set;
                (performed, Outcome::Done)
            }
            deployment::Action::DeleteSet { name, .. } => {
                self.sets.retain(|set| set.name_any() != name);
                (deployment::Performed::DeleteSet { name }, Outcome::Done)
            }
            deployment::Action::OwnSet {
                name, owner_references, ..
            } => {
                if let Some(set) = self.sets.iter_mut().find(|set| set.name_any() == name) {
                    set.metadata.owner_references = Some(owner_references);
                }
                (deployment::Performed::Own { name }, Outcome::Done)
            }
            deployment::Action::PatchDeployment { annotations, rollback } => {
                let known = self.deployment.metadata.annotations.get_or_insert_default();
                for (key, value) in annotations {
                    match value {
                        Some(value) => known.insert(key, value),
                        None => known.remove(&key),
                    };
                }
                let rolled_back_to = rollback.as_ref().map(|(revision, _)| *revision);
                if let Some((_, template)) = rollback {
                    self.deployment.spec.template = *template;
                }
                (deployment::Performed::PatchDeployment { rolled_back_to }, Outcome::Done)
            }
        }
    }

    fn visible(&self) -> Vec<Machine> {
        self.machines
            .iter()
            .filter(|machine| !self.hidden.contains_key(&machine.name_any()))
            .cloned()
            .collect()
    }

    /// Plans one set, checks the plan, carries it out. Returns whether anything was written.
    pub fn run_set(&mut self, index: usize) -> bool {
        let Some(at) = index.checked_rem(self.sets.len()) else {
            return false;
        };
        let set = self.sets[at].clone();
        if self.hidden.contains_key(&set.name_any()) {
            return false;
        }
        let uid = set.metadata.uid.clone().unwrap_or_default();
        let memory = self.set_memory.get(&uid).cloned().unwrap_or_default();
        let machines = self.visible();
        let machines: Vec<&Machine> = machines.iter().collect();
        let seed = self.number();
        let view = machine_set::View {
            set: &set,
            cluster: Some(&self.cluster),
            machines: &machines,
            observation: &memory,
            seed,
        };
        let plan = machine_set::plan(&view, self.now);
        check_set(self, &set, &plan);
        let mut wrote = !plan.actions.is_empty();
        let mut results = Vec::new();
        for action in plan.actions {
            results.push(self.carry_out_machine(action));
        }
        if self.sets[at].status.as_ref() != Some(&plan.status) {
            self.sets[at].status = Some(plan.status);
            wrote = true;
        }
        let now = self.now;
        let memory = self.set_memory.entry(uid).or_insert(memory);
        memory.observe(&results, now);
        let possible = memory.possible_machines(now);
        self.memory.note_possible(&set.name_any(), possible);
        wrote
    }

    fn carry_out_machine(&mut self, action: machine_set::Action) -> (machine_set::Performed, Outcome) {
        match action {
            machine_set::Action::Create(machine) => {
                let name = machine.name_any();
                let performed = machine_set::Performed::Create { name: name.clone() };
                if self.machine(&name).is_some() {
                    self.hidden.remove(&name);
                    return (performed, Outcome::Done);
                }
                let fault = self.faults.pop();
                if matches!(fault, None | Some(Fault::AnswerLost)) {
                    let mut machine = *machine;
                    let mut meta = machine.metadata.clone();
                    self.stamp(&mut meta);
                    machine.metadata = meta;
                    self.machines.push(machine);
                }
                (performed, self.outcome(fault, &name))
            }
            machine_set::Action::Delete { name, uid, replaced } => {
                let fault = self.delete_faults.pop();
                if matches!(fault, None | Some(Fault::AnswerLost)) {
                    let now = self.now;
                    if let Some(machine) = self
                        .machines
                        .iter_mut()
                        .find(|machine| machine.metadata.uid.as_ref() == Some(&uid))
                    {
                        machine.metadata.deletion_timestamp.get_or_insert(Time(now));
                    }
                }
                let outcome = match fault {
                    None => Outcome::Done,
                    Some(Fault::Refused) => Outcome::Refused {
                        reason: "Forbidden".into(),
                        message: "no".into(),
                    },
                    Some(_) => Outcome::Unknown {
                        message: "no answer".into(),
                    },
                };
                (machine_set::Performed::Delete { name, uid, replaced }, outcome)
            }
            machine_set::Action::Adopt {
                name, owner_references, ..
            } => {
                self.set_owners(&name, owner_references);
                (machine_set::Performed::Adopt { name }, Outcome::Done)
            }
            machine_set::Action::Release {
                name, owner_references, ..
            } => {
                self.set_owners(&name, owner_references);
                (machine_set::Performed::Release { name }, Outcome::Done)
            }
        }
    }

    fn set_owners(&mut self, name: &str, owners: Vec<outrigger_api::OwnerReference>) {
        if let Some(machine) = self.machines.iter_mut().find(|machine| machine.name_any() == name) {
            machine.metadata.owner_references = Some(owners);
        }
    }

    fn outcome(&mut self, fault: Option<Fault>, name: &str) -> Outcome {
        match fault {
            None => {
                self.hidden.remove(name);
                Outcome::Done
            }
            Some(Fault::Refused) => Outcome::Refused {
                reason: "Forbidden".into(),
                message: "quota".into(),
            },
            Some(Fault::AnswerLost) => {
                self.hidden.insert(name.to_owned(), self.now);
                Outcome::Unknown {
                    message: "no answer".into(),
                }
            }
            Some(Fault::RequestLost) => Outcome::Unknown {
                message: "no answer".into(),
            },
        }
    }
}

/// JSON merge patch, as RFC 7386 has it.
fn merge(target: &mut serde_json::Value, patch: &serde_json::Value) {
    let Some(patch) = patch.as_object() else {
        target.clone_from(patch);
        return;
    };
    if !target.is_object() {
        *target = serde_json::json!({});
    }
    let Some(target) = target.as_object_mut() else { return };
    for (key, value) in patch {
        if value.is_null() {
            target.remove(key);
        } else {
            merge(target.entry(key.clone()).or_insert(serde_json::Value::Null), value);
        }
    }
}

/// The machine is ready, or no longer.
pub fn set_ready(machine: &mut Machine, ready: bool, now: Timestamp) {
    let status = machine.status.get_or_insert_with(MachineStatus::default);
    if status.phase == Some(MachinePhase::Failed) {
        return;
    }
    status.phase = Some(if ready {
        MachinePhase::Running
    } else {
        MachinePhase::Unknown
    });
    machine
        .spec
        .provider_id
        .get_or_insert_with(|| format!("fake://{}", machine.metadata.name.as_deref().unwrap_or_default()));
    let assertion = if ready {
        Assertion::holds(CONDITION_READY, "Ready", "")
    } else {
        Assertion::fails(CONDITION_READY, "NotReady", "")
    };
    conditions::set(&mut status.conditions, assertion, None, now);
}

/// The machine is lost.
pub fn set_failed(machine: &mut Machine) {
    machine.status.get_or_insert_with(MachineStatus::default).phase = Some(MachinePhase::Failed);
}

/// The machine is marked to go first.
pub fn mark(machine: &mut Machine) {
    machine
        .metadata
        .annotations
        .get_or_insert_default()
        .insert(ANNOTATION_DELETE_MACHINE.to_owned(), String::new());
}
