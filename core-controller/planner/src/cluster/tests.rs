//! Rule by rule: birth, life and the ordered end of a cluster.

use actuator_proto::v1::{ClusterPhase as Phase, DeletionState, Effect, Presence};
use outrigger_api::names::{
    CONDITION_DELETING, CONDITION_INFRASTRUCTURE_READY, CONDITION_PAUSED, CONDITION_PROVIDER_CONFIG_VALID,
    CONDITION_READY, FINALIZER_CLUSTER, LABEL_CONTROL_PLANE,
};
use outrigger_api::{ClusterPhase, ClusterSpec, ConfigSpec, Endpoint, ObjectMeta, Time};

use super::*;
use crate::conditions;
use crate::operation::{Basis, Call, Failure, Member};
use crate::provider::{Link, Timings};
use crate::request;

mod trouble;

const NOW: i64 = 2_000;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

struct Fixture {
    cluster: Cluster,
    provider: Option<Snapshot>,
    seen: Observation,
    witnessed: bool,
    verdict: Option<Verdict>,
    deployments: Vec<MachineDeployment>,
    sets: Vec<MachineSet>,
    machines: Vec<Machine>,
    now: i64,
}

fn meta(name: &str) -> ObjectMeta {
    ObjectMeta {
        name: Some(name.into()),
        namespace: Some("default".into()),
        uid: Some(format!("uid-{name}")),
        generation: Some(1),
        ..Default::default()
    }
}

fn fixture() -> Fixture {
    Fixture {
        cluster: Cluster {
            metadata: ObjectMeta {
                finalizers: Some(vec![FINALIZER_CLUSTER.into()]),
                creation_timestamp: Some(Time(at(NOW))),
                ..meta("demo")
            },
            spec: ClusterSpec {
                provider: "fake".into(),
                provider_spec: ConfigSpec {
                    kind: "FakeClusterConfig".into(),
                    version: "v1".into(),
                    ..Default::default()
                },
                ..Default::default()
            },
            status: None,
        },
        provider: Some(Snapshot {
            link: Link::Ready,
            connections: 1,
            instance_id: "process-1".into(),
            timings: Timings {
                read_after_write: Duration::ZERO,
                poll_interval: Duration::from_secs(2),
            },
            ..Snapshot::connecting("fake", "unix:///run/fake.sock")
        }),
        seen: Observation::default(),
        witnessed: true,
        verdict: Some(Verdict::Valid),
        deployments: Vec::new(),
        sets: Vec::new(),
        machines: Vec::new(),
        now: NOW,
    }
}

fn ready() -> Fixture {
    let mut fixture = fixture();
    let status = fixture.answer(Phase::Ready);
    fixture.told(status);
    fixture.write();
    fixture
}

fn machine(name: &str, control_plane: bool) -> Machine {
    let mut machine = Machine {
        metadata: meta(name),
        ..Default::default()
    };
    if control_plane {
        machine.metadata.labels = Some([(LABEL_CONTROL_PLANE.to_owned(), String::new())].into());
        machine.spec.provider_id = Some(format!("fake:///{name}"));
    }
    machine
}

impl Fixture {
    fn plan(&self) -> Plan {
        let deployments: Vec<_> = self.deployments.iter().collect();
        let sets: Vec<_> = self.sets.iter().collect();
        let machines: Vec<_> = self.machines.iter().collect();
        plan(
            &View {
                cluster: &self.cluster,
                provider: self.provider.as_ref(),
                observation: &self.seen,
                witnessed_birth: self.witnessed,
                leading_since: at(500),
                credentials_version: "",
                verdict: self.verdict.as_ref(),
                deployments: &deployments,
                sets: &sets,
                machines: &machines,
            },
            at(self.now),
        )
    }

    fn call(&self) -> Option<Call> {
        self.plan().actions.into_iter().find_map(|action| match action {
            Action::Provider(operation) => Some(operation.call),
            _ => None,
        })
    }

    fn deletes(&self) -> Vec<(ChildKind, String)> {
        self.plan()
            .actions
            .into_iter()
            .map(|action| match action {
                Action::DeleteChild { kind, name, .. } => (kind, name),
                other => panic!("{other:?}"),
            })
            .collect()
    }

    fn write(&mut self) -> bool {
        let status = self.plan().status;
        let changed = self.cluster.status.as_ref() != Some(&status);
        self.cluster.status = Some(status);
        changed
    }

    fn digest(&self) -> Vec<u8> {
        request::cluster_spec(&self.cluster).unwrap().digest
    }

    fn answer(&self, phase: Phase) -> v1::ClusterStatus {
        v1::ClusterStatus {
            provider_id: "net-1".into(),
            phase: phase.into(),
            endpoint: Some(v1::Endpoint {
                host: "10.0.0.9".into(),
                port: 6443,
            }),
            failure_domains: ["b", "a"]
                .map(|name| v1::FailureDomain {
                    name: name.into(),
                    control_plane: true,
                    ..Default::default()
                })
                .to_vec(),
            observed_digest: self.digest(),
            observed_generation: 1,
            ..Default::default()
        }
    }

    fn result(&mut self, call: Call, result: Result<Answer, Failure>) {
        let operation = Operation {
            call,
            basis: Basis {
                generation: self.cluster.metadata.generation.unwrap(),
                session: self.provider.as_ref().unwrap().instance_id.clone(),
                connections: 1,
                digest: self.digest(),
                ..Default::default()
            },
        };
        self.seen.started(operation.clone(), at(self.now));
        let result = OperationResult {
            operation,
            started: at(self.now),
            result,
        };
        self.seen.observe(result, at(self.now));
    }

    fn told(&mut self, status: v1::ClusterStatus) {
        let answer = Answer::Exists {
            presence: Presence::Present,
            status: Some(Box::new(status)),
        };
        self.result(Call::Exists, Ok(answer));
    }

    fn absent(&mut self) {
        let answer = Answer::Exists {
            presence: Presence::Absent,
            status: None,
        };
        self.result(Call::Exists, Ok(answer));
    }

    fn fails(&mut self, call: Call, reason: &str, outcome: Outcome, effect: Effect) {
        let failure = Failure {
            outcome,
            reason: reason.into(),
            message: format!("{reason} it is"),
            effect,
            provider_id: None,
            violations: Vec::new(),
        };
        self.result(call, Err(failure));
    }

    fn delete(&mut self) {
        self.cluster.metadata.deletion_timestamp = Some(Time(at(self.now)));
    }
}

fn condition(status: &ClusterStatus, type_: &str) -> (String, String, String) {
    let condition = conditions::get(&status.conditions, type_).unwrap_or_else(|| panic!("no {type_}: {status:?}"));
    (
        condition.status.clone(),
        condition.reason.clone(),
        condition.message.clone(),
    )
}

fn create() -> Call {
    Call::Create { failure_domain: None }
}

fn deleted(state: DeletionState, message: &str) -> Answer {
    Answer::Deleted {
        state,
        message: message.into(),
        poll_after: None,
    }
}

#[test]
fn a_creation_that_stopped_half_way_goes_on_under_its_key() {
    let mut fixture = fixture();
    // The network was made, then an error whose effect nobody knows; Exists shows a half-made cluster.
    fixture.fails(
        create(),
        "CLOUD_UNCLASSIFIED",
        Outcome::Resolve {
            after: Duration::from_secs(1),
        },
        Effect::Unknown,
    );
    fixture.now += 5;
    assert_eq!(fixture.call(), Some(Call::Exists));
    let half = fixture.answer(Phase::Provisioning);
    fixture.told(half.clone());
    assert_eq!(fixture.call(), Some(create()), "{:?}", fixture.plan().reason);
    // Once a Create was accepted the provider goes on by itself.
    fixture.result(create(), Ok(Answer::Status(Box::new(half))));
    assert_eq!(fixture.call(), None);
}

#[test]
fn a_restart_in_the_middle_of_a_creation_replays_it_once() {
    let mut fixture = fixture();
    fixture.witnessed = false;
    let half = fixture.answer(Phase::Provisioning);
    fixture.told(half.clone());
    fixture.write();
    assert_eq!(fixture.call(), Some(create()));
    fixture.result(create(), Ok(Answer::Status(Box::new(half))));
    assert_eq!(fixture.call(), None);
}

#[test]
fn finalizer_verdict_create_poll_ready() {
    let mut fixture = fixture();
    fixture.cluster.metadata.finalizers = None;
    assert_eq!(fixture.plan().actions, [Action::AddFinalizer]);
    fixture.cluster.metadata.finalizers = Some(vec![FINALIZER_CLUSTER.into()]);
    fixture.verdict = None;
    assert_eq!(fixture.call(), Some(Call::Validate));
    fixture.verdict = Some(Verdict::Valid);
    assert_eq!(fixture.call(), Some(create()));
    let making = fixture.answer(Phase::Provisioning);
    fixture.result(create(), Ok(Answer::Status(Box::new(making))));
    let plan = fixture.plan();
    assert_eq!(plan.actions, []);
    assert_eq!(plan.look_again, Some(Duration::from_secs(2)));
    assert_eq!(plan.events[0].reason, "SuccessfulCreate");
    fixture.write();
    fixture.now += 2;
    assert_eq!(fixture.call(), Some(Call::Exists));
    let done = fixture.answer(Phase::Ready);
    fixture.told(done);
    fixture.write();
    let status = fixture.cluster.status.clone().unwrap();
    assert_eq!(status.phase, Some(ClusterPhase::Provisioned));
    assert_eq!(status.provider_id.as_deref(), Some("net-1"));
    let endpoint = Endpoint {
        host: "10.0.0.9".into(),
        port: 6443,
    };
    assert_eq!(status.control_plane_endpoint, Some(endpoint));
    let names: Vec<_> = status
        .failure_domains
        .iter()
        .map(|domain| domain.name.as_str())
        .collect();
    assert_eq!(names, ["a", "b"]);
    assert_eq!(condition(&status, CONDITION_INFRASTRUCTURE_READY).0, "True");
    let plan = fixture.plan();
    assert_eq!((plan.actions, plan.events), (vec![], vec![]));
}

#[test]
fn a_restart_asks_and_writes_nothing() {
    let mut fixture = ready();
    fixture.seen = Observation::default();
    fixture.witnessed = false;
    assert!(!fixture.write());
    assert_eq!(fixture.call(), Some(Call::Exists));
    let status = fixture.answer(Phase::Ready);
    fixture.told(status);
    assert!(!fixture.write());
    assert_eq!(fixture.plan().actions, []);
}

#[test]
fn after_an_unknown_outcome_exists_comes_first() {
    let mut fixture = fixture();
    let unknown = Outcome::Resolve { after: Duration::ZERO };
    fixture.fails(create(), "DEADLINE_EXCEEDED", unknown, Effect::Unknown);
    assert_eq!(fixture.call(), Some(Call::Exists));
    fixture.absent();
    assert_eq!(fixture.call(), Some(create()));
}

#[test]
fn an_endpoint_that_the_user_has_given_stays() {
    let mut fixture = fixture();
    let given = Endpoint {
        host: "api.example.org".into(),
        port: 443,
    };
    fixture.cluster.spec.control_plane_endpoint = Some(given.clone());
    let status = fixture.answer(Phase::Ready);
    fixture.told(status);
    assert_eq!(fixture.plan().status.control_plane_endpoint, Some(given));
}

#[test]
fn a_refused_config_creates_nothing() {
    let mut fixture = fixture();
    fixture.verdict = Some(Verdict::Invalid("at /region: unknown".into()));
    let plan = fixture.plan();
    assert_eq!(plan.actions, []);
    let (status, _, message) = condition(&plan.status, CONDITION_PROVIDER_CONFIG_VALID);
    assert_eq!(status, "False");
    assert!(message.contains("/region"));
}

#[test]
fn an_unknown_provider_is_said_with_what_to_do() {
    let mut fixture = fixture();
    fixture.provider = None;
    assert_eq!(fixture.plan().status, ClusterStatus::default(), "quiet at first");
    fixture.now += 3;
    let plan = fixture.plan();
    let (_, reason, message) = condition(&plan.status, CONDITION_READY);
    assert_eq!(reason, "ProviderNotFound");
    assert!(message.contains("start it"), "{message}");
}

#[test]
fn a_new_spec_is_an_update() {
    let mut fixture = ready();
    fixture
        .cluster
        .spec
        .provider_spec
        .config
        .insert("nat".into(), true.into());
    fixture.cluster.metadata.generation = Some(2);
    assert_eq!(fixture.call(), Some(Call::Update));
    let done = fixture.answer(Phase::Ready);
    fixture.result(Call::Update, Ok(Answer::Status(Box::new(done))));
    assert_eq!(fixture.plan().actions, []);
    // One that cannot be made in place is said; the cluster works on.
    fixture
        .cluster
        .spec
        .provider_spec
        .config
        .insert("nat".into(), false.into());
    fixture.cluster.metadata.generation = Some(3);
    fixture.fails(Call::Update, "REPLACE_REQUIRED", Outcome::ReplaceByOwner, Effect::None);
    let plan = fixture.plan();
    assert_eq!(plan.actions, []);
    assert_eq!(
        condition(&plan.status, CONDITION_PROVIDER_CONFIG_VALID).1,
        "ReplaceRequired"
    );
    assert_eq!(condition(&plan.status, CONDITION_READY).0, "True");
}

#[test]
fn lost_infrastructure_is_not_made_again() {
    let mut fixture = ready();
    fixture.now += 700;
    assert_eq!(fixture.call(), Some(Call::Exists));
    fixture.absent();
    assert_eq!(fixture.plan().actions, []);
    fixture.now += 5;
    assert_eq!(fixture.call(), Some(Call::Exists));
    fixture.absent();
    let plan = fixture.plan();
    assert_eq!(plan.actions, []);
    assert_eq!(plan.status.phase, Some(ClusterPhase::Failed));
    assert_eq!(condition(&plan.status, CONDITION_READY).1, "InfrastructureLost");
    fixture.write();
    fixture.now += 10_000;
    assert_eq!(fixture.call(), Some(Call::Exists), "it is looked for, slowly");
}

#[test]
fn machines_are_counted() {
    let mut fixture = ready();
    fixture.machines = vec![machine("a", false), machine("b", false)];
    let status = fixture.machines[0].status.get_or_insert_default();
    conditions::set(
        &mut status.conditions,
        conditions::Assertion::holds(CONDITION_READY, "Running", ""),
        None,
        at(NOW),
    );
    let plan = fixture.plan();
    assert_eq!((plan.status.machines, plan.status.ready_machines), (2, 1));
}

#[test]
fn the_endpoint_follows_the_control_plane() {
    let mut fixture = ready();
    fixture.machines = vec![machine("cp-2", true), machine("worker", false), machine("cp-1", true)];
    assert_eq!(fixture.call(), None, "not without the capability");
    fixture.provider.as_mut().unwrap().capabilities = vec!["endpoint_members".into()];
    let member = |name: &str, draining| Member {
        idempotency_key: format!("uid-{name}"),
        provider_id: format!("fake:///{name}"),
        draining,
    };
    let both = Call::SetEndpointMembers(vec![member("cp-1", false), member("cp-2", false)]);
    assert_eq!(fixture.call(), Some(both.clone()));
    fixture.result(both, Ok(Answer::Members { poll_after: None }));
    assert_eq!(fixture.call(), None);
    fixture.machines[0].metadata.deletion_timestamp = Some(Time(at(NOW)));
    let draining = Call::SetEndpointMembers(vec![member("cp-1", false), member("cp-2", true)]);
    assert_eq!(fixture.call(), Some(draining));
    fixture.machines.clear();
    assert_eq!(
        fixture.call(),
        Some(Call::SetEndpointMembers(vec![])),
        "the last one is taken out too"
    );
}

#[test]
fn a_pause_stops_everything() {
    let mut fixture = fixture();
    fixture.cluster.spec.paused = true;
    let plan = fixture.plan();
    assert_eq!(plan.actions, []);
    assert_eq!(condition(&plan.status, CONDITION_PAUSED).0, "True");
    fixture.write();
    fixture.cluster.spec.paused = false;
    assert_eq!(condition(&fixture.plan().status, CONDITION_PAUSED).0, "False");
}

#[test]
fn a_deletion_goes_in_order_and_says_what_it_waits_for() {
    let mut fixture = ready();
    fixture.deployments = vec![MachineDeployment {
        metadata: meta("workers"),
        ..Default::default()
    }];
    fixture.sets = vec![MachineSet {
        metadata: meta("workers-1"),
        ..Default::default()
    }];
    fixture.machines = vec![machine("cp", true)];
    fixture
        .machines
        .extend(["w5", "w4", "w3", "w2", "w1"].map(|name| machine(name, false)));
    fixture.delete();
    let waits = |fixture: &Fixture, reason: &str, words: &str| {
        let plan = fixture.plan();
        assert_eq!(plan.status.phase, Some(ClusterPhase::Deleting));
        let (_, shown, message) = condition(&plan.status, CONDITION_DELETING);
        assert_eq!(shown, reason);
        assert_eq!(message, words);
    };
    waits(
        &fixture,
        "WaitingForMachineDeployments",
        "waits for 1 MachineDeployment to go: workers",
    );
    assert_eq!(fixture.deletes(), [(ChildKind::MachineDeployment, "workers".into())]);
    fixture.deployments[0].metadata.deletion_timestamp = Some(Time(at(NOW)));
    assert_eq!(fixture.deletes(), [], "it is on its way");
    fixture.deployments.clear();
    assert_eq!(fixture.deletes(), [(ChildKind::MachineSet, "workers-1".into())]);
    fixture.sets.clear();
    waits(
        &fixture,
        "WaitingForWorkers",
        "waits for 5 worker Machines to go: w1, w2, w3 and 2 more",
    );
    assert_eq!(fixture.deletes().len(), 5);
    assert!(fixture.deletes().iter().all(|(_, name)| name != "cp"));
    fixture.machines.retain(request::is_control_plane);
    waits(
        &fixture,
        "WaitingForControlPlane",
        "waits for 1 control-plane Machine to go: cp",
    );
    assert_eq!(fixture.deletes(), [(ChildKind::Machine, "cp".into())]);
    fixture.machines.clear();
    assert_eq!(fixture.call(), Some(Call::Delete));
    fixture.result(
        Call::Delete,
        Ok(deleted(DeletionState::InProgress, "the load balancer drains.")),
    );
    waits(
        &fixture,
        "WaitingForInfrastructureDeletion",
        "the provider is removing it: the load balancer drains",
    );
    fixture.now += 2;
    assert_eq!(fixture.call(), Some(Call::Delete));
    fixture.result(Call::Delete, Ok(deleted(DeletionState::Gone, "")));
    assert_eq!(fixture.call(), Some(Call::Exists));
    fixture.absent();
    assert_eq!(fixture.plan().actions, [Action::RemoveFinalizer]);
}

#[test]
fn a_cluster_that_was_never_made_goes_at_once_if_that_is_sure() {
    let mut fixture = fixture();
    fixture.delete();
    fixture.provider = None;
    assert_eq!(fixture.plan().actions, [Action::RemoveFinalizer]);
    let mut fixture = self::fixture();
    fixture.delete();
    fixture.witnessed = false;
    assert_eq!(fixture.call(), Some(Call::Delete));
}

#[test]
fn what_cannot_be_told_keeps_the_finalizer() {
    let mut fixture = ready();
    fixture.delete();
    fixture.result(Call::Delete, Ok(deleted(DeletionState::Gone, "")));
    fixture.fails(
        Call::Exists,
        "MISSING_PERMISSION",
        Outcome::Hold { look_again: None },
        Effect::None,
    );
    for _ in 0..10 {
        fixture.now += 700;
        assert!(!fixture.plan().actions.contains(&Action::RemoveFinalizer));
    }
}

#[test]
fn a_deletion_that_something_forbids_is_said_and_tried_again() {
    let mut fixture = ready();
    fixture.delete();
    let forbidden = || Outcome::Hold { look_again: None };
    fixture.fails(Call::Delete, "DELETION_PROTECTED", forbidden(), Effect::None);
    let plan = fixture.plan();
    assert_eq!(
        condition(&plan.status, CONDITION_DELETING).1,
        "InfrastructureDeletionBlocked"
    );
    assert_eq!(plan.events.len(), 1);
    fixture.write();
    fixture.now += 601;
    assert_eq!(fixture.call(), Some(Call::Delete));
    fixture.fails(Call::Delete, "DELETION_PROTECTED", forbidden(), Effect::None);
    assert!(!fixture.write());
}
