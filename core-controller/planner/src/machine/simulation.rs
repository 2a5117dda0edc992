//! The Machine planner against a cloud that answers late, loses answers and shows old
//! reads, and a core that forgets all it knows at any moment. An invariant checker
//! looks at every step.

use std::time::Duration;

use actuator_proto::v1::{self, DeletionState, Effect, MachinePhase as Phase, Presence};
use jiff::Timestamp;
use outrigger_api::names::{CONDITION_INFRASTRUCTURE_READY, FINALIZER_MACHINE};
use outrigger_api::{
    Cluster, ClusterSpec, ClusterStatus, ConfigSpec, Machine, MachinePhase, MachineSpec, MachineStatus, ObjectMeta,
    Time,
};
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::conditions::{self, Assertion};
use crate::observation::Observation as Seen;
use crate::operation::{Call, Failure};
use crate::provider::{Link, Timings};

/// How long the cloud knows a replayed create by its token, in seconds: longer than any
/// window, and no longer, so that only a look protects against a second instance.
const TOKEN: i64 = 30;
const POLL: i64 = 2;

pub(super) fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

pub(super) fn config(size: &str) -> ConfigSpec {
    ConfigSpec {
        kind: "FakeMachineConfig".into(),
        version: "v1".into(),
        config: json!({ "size": size }).as_object().unwrap().clone(),
    }
}

pub(super) fn ready_cluster() -> Cluster {
    let mut status = ClusterStatus {
        provider_id: Some("net-1".into()),
        ..Default::default()
    };
    conditions::set(
        &mut status.conditions,
        Assertion::holds(CONDITION_INFRASTRUCTURE_READY, "Ready", ""),
        Some(1),
        at(0),
    );
    Cluster {
        metadata: ObjectMeta {
            name: Some("demo".into()),
            namespace: Some("default".into()),
            uid: Some("cluster-uid".into()),
            generation: Some(1),
            ..Default::default()
        },
        spec: ClusterSpec {
            provider: "fake".into(),
            provider_spec: config("net"),
            ..Default::default()
        },
        status: Some(status),
    }
}

pub(super) fn new_machine(now: Timestamp) -> Machine {
    Machine {
        metadata: ObjectMeta {
            name: Some("demo-1".into()),
            namespace: Some("default".into()),
            uid: Some("machine-uid".into()),
            generation: Some(1),
            creation_timestamp: Some(Time(now)),
            finalizers: Some(vec![FINALIZER_MACHINE.into()]),
            ..Default::default()
        },
        spec: MachineSpec {
            cluster_name: "demo".into(),
            provider_spec: config("small"),
            ..Default::default()
        },
        status: None,
    }
}

pub(super) fn usable_provider(window: i64) -> Snapshot {
    Snapshot {
        link: Link::Ready,
        connections: 1,
        instance_id: "process-1".into(),
        timings: Timings {
            read_after_write: Duration::from_secs(window as u64),
            poll_interval: Duration::from_secs(POLL as u64),
        },
        ..Snapshot::connecting("fake", "unix:///run/fake.sock")
    }
}

/// An instance of the cloud.
#[derive(Debug, Clone)]
struct Instance {
    id: String,
    created: i64,
    /// From when on it is gone.
    gone: Option<i64>,
    digest: Vec<u8>,
    generation: i64,
}

/// What goes wrong with a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    None,
    /// It never arrives, and nobody can tell.
    LostBefore,
    /// It is done, and the answer never arrives.
    LostAfter,
    /// It is done so many seconds later, and the answer never arrives.
    Late(u8),
    /// A final error: nothing was done.
    Refused(u8),
    /// It is done, or not, and the provider cannot tell.
    CannotTell,
}

/// What else happens in a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Happening {
    Nothing,
    RestartCore,
    RestartProvider,
    LoseStatus,
    Delete,
    KillInstance,
    EditSpec,
    HintTrue,
    HintGone,
    HintOld,
    Pause,
}

#[derive(Debug, Clone)]
struct Step {
    happening: Happening,
    fault: Fault,
    takes: u8,
    pause: u8,
}

fn step() -> impl Strategy<Value = Step> {
    let happening = prop_oneof![
        12 => Just(Happening::Nothing),
        3 => Just(Happening::RestartCore),
        1 => Just(Happening::RestartProvider),
        1 => Just(Happening::LoseStatus),
        1 => Just(Happening::Delete),
        1 => Just(Happening::KillInstance),
        1 => Just(Happening::EditSpec),
        1 => Just(Happening::HintTrue),
        1 => Just(Happening::HintGone),
        1 => Just(Happening::HintOld),
        1 => Just(Happening::Pause),
    ];
    let fault = prop_oneof![
        5 => Just(Fault::None),
        1 => Just(Fault::LostBefore),
        2 => Just(Fault::LostAfter),
        2 => (1u8..12).prop_map(Fault::Late),
        2 => (0u8..6).prop_map(Fault::Refused),
        1 => Just(Fault::CannotTell),
    ];
    (happening, fault, 0u8..3, 0u8..20).prop_map(|(happening, fault, takes, pause)| Step {
        happening,
        fault,
        takes,
        pause,
    })
}

struct Pending {
    operation: Operation,
    started: i64,
    due: i64,
    result: Result<Answer, Failure>,
}

/// The API server, the core, the provider and the cloud.
struct World {
    now: i64,
    window: i64,
    deletion_takes: i64,
    boot: i64,
    machine: Option<Machine>,
    cluster: Cluster,
    provider: Snapshot,
    seen: Seen<v1::MachineStatus>,
    witnessed: bool,
    leading_since: i64,
    in_flight: Option<Pending>,
    instances: Vec<Instance>,
    /// A create that lands at this time, and the digest and generation that it makes.
    late_create: Option<(i64, Vec<u8>, i64)>,
    // What the checker needs.
    killed: bool,
    writes: Vec<&'static str>,
    calls: Vec<&'static str>,
    events: Vec<String>,
    last_create_end: Option<i64>,
    last_absent_asked: Option<i64>,
    said_gone: bool,
    /// The last status that was written, with the one before.
    last_write: String,
}

impl World {
    fn new(window: i64, deletion_takes: i64, boot: i64) -> Self {
        Self {
            now: 1_000,
            window,
            deletion_takes,
            boot,
            machine: Some(new_machine(at(1_000))),
            cluster: ready_cluster(),
            provider: usable_provider(window),
            seen: Seen::default(),
            witnessed: true,
            leading_since: 500,
            in_flight: None,
            instances: Vec::new(),
            late_create: None,
            killed: false,
            writes: vec!["create"],
            calls: Vec::new(),
            events: Vec::new(),
            last_create_end: None,
            last_absent_asked: None,
            said_gone: false,
            last_write: String::new(),
        }
    }

    fn alive(&self) -> Vec<&Instance> {
        self.instances
            .iter()
            .filter(|instance| instance.gone.is_none_or(|gone| gone > self.now))
            .collect()
    }

    /// What a read shows: the state of `window` seconds ago.
    fn visible(&self) -> Option<usize> {
        let shown = self.now - self.window;
        self.instances
            .iter()
            .rposition(|instance| instance.created <= shown && instance.gone.is_none_or(|gone| gone > shown))
    }

    fn status_of(&self, index: usize) -> v1::MachineStatus {
        let instance = &self.instances[index];
        let running = instance.created + self.boot <= self.now;
        v1::MachineStatus {
            provider_id: instance.id.clone(),
            phase: if running { Phase::Running } else { Phase::Provisioning }.into(),
            observed_digest: instance.digest.clone(),
            observed_generation: instance.generation,
            addresses: vec![v1::MachineAddress {
                r#type: v1::MachineAddressType::InternalIp.into(),
                address: "10.0.0.1".into(),
            }],
            ..Default::default()
        }
    }

    fn land(&mut self, created: i64, digest: Vec<u8>, generation: i64) -> usize {
        self.instances.push(Instance {
            id: format!("fake:///{}", self.instances.len()),
            created,
            gone: None,
            digest,
            generation,
        });
        self.instances.len() - 1
    }

    fn tick(&mut self) {
        if let Some((when, digest, generation)) = self.late_create.clone()
            && when <= self.now
        {
            self.late_create = None;
            // Its own replay: the cloud knows the token.
            if self.by_token(when).is_none() {
                self.land(when, digest, generation);
            }
        }
    }

    /// The instance that the cloud knows by the token of the key.
    fn by_token(&self, now: i64) -> Option<usize> {
        self.instances
            .iter()
            .rposition(|instance| now - instance.created < TOKEN && instance.gone.is_none_or(|gone| gone > now))
    }

    /// Does what the call asks for, as a provider that keeps the contract on a cloud
    /// with old reads.
    fn perform(&mut self, call: &Call, basis_digest: &[u8], generation: i64) -> Result<Answer, Failure> {
        let pending = || {
            Err(failure(
                "OPERATION_PENDING",
                Outcome::Wait {
                    after: Duration::from_secs(2),
                },
                Effect::Unknown,
            ))
        };
        match call {
            Call::Validate | Call::SetEndpointMembers(_) => Ok(Answer::Validated),
            Call::Exists => Ok(match self.visible() {
                Some(index) => Answer::Exists {
                    presence: Presence::Present,
                    status: Some(Box::new(self.status_of(index))),
                },
                None => Answer::Exists {
                    presence: Presence::Absent,
                    status: None,
                },
            }),
            Call::Create { .. } => {
                if self.late_create.is_some() {
                    return pending();
                }
                let known = self.by_token(self.now).or_else(|| self.visible());
                if let Some(index) = known {
                    if self.instances[index].digest != basis_digest {
                        return Err(failure(
                            "KEY_CONFLICT",
                            Outcome::Hold { look_again: None },
                            Effect::None,
                        ));
                    }
                    return Ok(Answer::Status(Box::new(self.status_of(index))));
                }
                let index = self.land(self.now, basis_digest.to_vec(), generation);
                Ok(Answer::Status(Box::new(self.status_of(index))))
            }
            Call::Update => {
                if self.late_create.is_some() {
                    return pending();
                }
                let Some(index) = self.visible() else {
                    return Err(failure(
                        "RESOURCE_NOT_FOUND",
                        Outcome::Resolve { after: Duration::ZERO },
                        Effect::None,
                    ));
                };
                self.instances[index].digest = basis_digest.to_vec();
                self.instances[index].generation = generation;
                Ok(Answer::Status(Box::new(self.status_of(index))))
            }
            Call::Delete => {
                // Delete wins over a create that is running.
                self.late_create = None;
                let mut going = false;
                let shown = self.now - self.window;
                for instance in &mut self.instances {
                    let shows = instance.created <= shown && instance.gone.is_none_or(|gone| gone > shown);
                    if shows && instance.gone.is_none() {
                        instance.gone = Some(self.now + self.deletion_takes);
                    }
                    going |= shows && instance.gone.is_some_and(|gone| gone > self.now);
                }
                self.said_gone |= !going;
                Ok(Answer::Deleted {
                    state: if going {
                        DeletionState::InProgress
                    } else {
                        DeletionState::Gone
                    },
                    message: "2 disks are left".into(),
                    poll_after: None,
                })
            }
        }
    }

    fn send(&mut self, operation: &Operation, fault: Fault, takes: i64) {
        let generation = operation.basis.generation;
        // Where the Secret is missing nothing leaves the core.
        if fault != Fault::Refused(4) {
            self.calls.push(operation.call.name());
        }
        self.seen.started(operation.clone(), at(self.now));
        let digest = operation.basis.digest.clone();
        let unknown = || {
            Err(failure(
                "DEADLINE_EXCEEDED",
                Outcome::Resolve {
                    after: Duration::from_secs(1),
                },
                Effect::Unknown,
            ))
        };
        let result = match fault {
            Fault::None => self.perform(&operation.call, &digest, generation),
            Fault::LostBefore => unknown(),
            Fault::LostAfter => {
                let _ = self.perform(&operation.call, &digest, generation);
                unknown()
            }
            Fault::Late(seconds) => {
                if matches!(operation.call, Call::Create { .. })
                    && self.late_create.is_none()
                    && self.by_token(self.now).or_else(|| self.visible()).is_none()
                {
                    self.late_create = Some((self.now + i64::from(seconds), digest, generation));
                }
                unknown()
            }
            Fault::Refused(kind) => Err(refused(kind)),
            Fault::CannotTell => match operation.call {
                Call::Exists => Ok(Answer::Exists {
                    presence: Presence::Unspecified,
                    status: None,
                }),
                _ => unknown(),
            },
        };
        self.in_flight = Some(Pending {
            operation: operation.clone(),
            started: self.now,
            due: self.now + takes,
            result,
        });
    }

    fn deliver(&mut self) {
        if self.in_flight.as_ref().is_none_or(|pending| pending.due > self.now) {
            return;
        }
        let Some(pending) = self.in_flight.take() else { return };
        // Of a Create that changed nothing, nothing has to be waited for.
        let changed_nothing =
            matches!(&pending.result, Err(failure) if failure.is_final() && failure.reason != "KEY_CONFLICT");
        if matches!(pending.operation.call, Call::Create { .. }) && !changed_nothing {
            self.last_create_end = Some(self.now);
        }
        if let Ok(Answer::Exists {
            presence: Presence::Absent,
            ..
        }) = &pending.result
        {
            self.last_absent_asked = Some(pending.started);
        }
        self.seen.observe(
            OperationResult {
                operation: pending.operation,
                started: at(pending.started),
                result: pending.result,
            },
            at(self.now),
        );
    }

    fn happen(&mut self, happening: Happening) {
        let now = self.now;
        match happening {
            Happening::Nothing => {}
            Happening::RestartCore => {
                self.seen = Seen::default();
                // What was on its way is done, and nobody hears of it.
                if self
                    .in_flight
                    .take()
                    .is_some_and(|pending| matches!(pending.operation.call, Call::Create { .. }))
                {
                    self.last_create_end = Some(now);
                }
                self.witnessed = false;
                self.leading_since = now;
            }
            Happening::RestartProvider => {
                self.provider.instance_id.push('x');
                self.provider.connections += 1;
            }
            Happening::LoseStatus => {
                if let Some(machine) = &mut self.machine {
                    machine.status = None;
                }
            }
            Happening::Delete => {
                if let Some(machine) = &mut self.machine
                    && machine.metadata.deletion_timestamp.is_none()
                {
                    machine.metadata.deletion_timestamp = Some(Time(at(now)));
                    machine.metadata.generation = machine.metadata.generation.map(|generation| generation + 1);
                    self.writes.push("delete");
                }
            }
            Happening::KillInstance => {
                for instance in &mut self.instances {
                    if instance.gone.is_none() {
                        instance.gone = Some(now);
                        self.killed = true;
                    }
                }
            }
            Happening::EditSpec => {
                if let Some(machine) = &mut self.machine {
                    machine.metadata.generation = machine.metadata.generation.map(|generation| generation + 1);
                    machine.spec.provider_spec = config(&format!("size-{now}"));
                }
            }
            Happening::HintTrue => {
                if let Some(index) = self
                    .instances
                    .iter()
                    .rposition(|instance| instance.gone.is_none_or(|gone| gone > now))
                {
                    let status = self.status_of(index);
                    self.seen.hint_present(status, at(now));
                }
            }
            Happening::HintGone => self.seen.hint_gone(),
            Happening::HintOld => {
                // Something that was true once, or never.
                let mut status = v1::MachineStatus {
                    provider_id: "fake:///0".into(),
                    phase: Phase::Running.into(),
                    ..Default::default()
                };
                if now % 2 == 0 {
                    status.phase = Phase::Failed.into();
                    status.failure = Some(v1::Failure {
                        reason: "BROKEN".into(),
                        message: "says an old hint".into(),
                        terminal: true,
                    });
                }
                self.seen.hint_present(status, at(now));
            }
            Happening::Pause => {
                self.cluster.spec.paused = !self.cluster.spec.paused;
            }
        }
    }

    fn plan(&self, machine: &Machine) -> Plan {
        plan(
            &View {
                machine,
                cluster: Some(&self.cluster),
                provider: Some(&self.provider),
                observation: &self.seen,
                witnessed_birth: self.witnessed,
                leading_since: at(self.leading_since),
                credentials_version: "",
                verdict: Some(&Verdict::Valid),
                exhausted_domains: &[],
            },
            at(self.now),
        )
    }

    /// One round of the core: plan, check, write, act. Tells when to look again.
    fn round(&mut self, fault: Fault, takes: i64) -> Option<Duration> {
        let machine = self.machine.clone()?;
        let plan = self.plan(&machine);
        self.check(&machine, &plan);
        self.events
            .extend(plan.events.iter().map(|event| event.reason.to_string()));
        if machine.status.as_ref().unwrap_or(&MachineStatus::default()) != &plan.status {
            self.writes.push("status");
            self.last_write = format!("{:?}\n-> {:?}", machine.status, plan.status);
            if let Some(machine) = &mut self.machine {
                machine.status = Some(plan.status.clone());
                // The write itself asks for no other write.
                let again = self.plan(&self.machine.clone().unwrap());
                assert_eq!(again.status, plan.status, "a status that is written is written again");
            }
        }
        let machine = self.machine.as_mut()?;
        match &plan.action {
            None => {}
            Some(Action::AddFinalizer) => {
                self.writes.push("finalizer");
                machine.metadata.finalizers = Some(vec![FINALIZER_MACHINE.into()]);
            }
            Some(Action::RemoveFinalizer) => {
                self.writes.push("finalizer");
                self.machine = None;
            }
            Some(Action::SetProviderId(id)) => {
                self.writes.push("providerID");
                machine.spec.provider_id = Some(id.clone());
                machine.metadata.generation = machine.metadata.generation.map(|generation| generation + 1);
            }
            Some(Action::Provider(operation)) => self.send(operation, fault, takes),
        }
        plan.look_again
    }

    /// The invariants.
    fn check(&self, machine: &Machine, plan: &Plan) {
        let again = self.plan(machine);
        assert_eq!(&again, plan, "the same input gives the same plan");
        let deleted = machine.metadata.deletion_timestamp.is_some();
        match &plan.action {
            Some(Action::Provider(operation)) => {
                assert!(self.seen.in_flight().is_none(), "one operation at a time");
                assert!(!self.cluster.spec.paused, "paused stops everything");
                if matches!(operation.call, Call::Create { .. }) {
                    assert_eq!(machine.spec.provider_id, None, "never created again");
                    assert!(!deleted, "never created once the deletion has begun");
                    if let Some(end) = self.last_create_end {
                        let asked = self.last_absent_asked.expect("after an attempt, Exists comes first");
                        assert!(
                            asked >= end + self.window,
                            "absent within the window of an attempt is not absent: attempt until {end}, asked at {asked}"
                        );
                    }
                }
                if operation.call == Call::Delete {
                    assert!(deleted, "nothing is deleted that nobody deleted");
                }
            }
            Some(Action::RemoveFinalizer) => {
                assert!(deleted);
                assert!(self.alive().is_empty(), "an instance is left: {:?}", self.instances);
                assert!(self.late_create.is_none(), "an instance will come");
                assert!(
                    self.said_gone || !self.calls.contains(&"Create"),
                    "the provider never said GONE"
                );
            }
            Some(Action::SetProviderId(id)) => {
                assert!(self.instances.iter().any(|instance| instance.id == *id));
            }
            Some(Action::AddFinalizer) | None => {}
        }
        if plan.status.failure_reason.as_deref() == Some(REASON_INSTANCE_LOST) {
            assert!(self.killed && self.alive().is_empty(), "given up, and there");
        }
        assert_ne!(
            plan.status.failure_reason.as_deref(),
            Some("Broken"),
            "a hint alone never makes a machine fail"
        );
        assert!(self.alive().len() <= 1, "two instances: {:?}", self.instances);
    }

    /// Whether only the slow look is left to wait for.
    fn is_at_rest(&self) -> bool {
        let phase = self.machine.as_ref().and_then(|machine| machine.status.as_ref()?.phase);
        self.late_create.is_none()
            && self.seen.troubles.is_empty()
            && self
                .machine
                .as_ref()
                .is_some_and(|machine| machine.metadata.deletion_timestamp.is_none())
            && matches!(phase, Some(MachinePhase::Running | MachinePhase::Failed))
    }

    /// Lets time pass without faults until nothing more is to be done.
    fn settle(&mut self) {
        self.cluster.spec.paused = false;
        let mut quiet = 0;
        for _ in 0..2_000 {
            self.tick();
            self.deliver();
            let sent = self.calls.len();
            let wrote = self.writes.len();
            let look_again = self.round(Fault::None, 0);
            if self.machine.is_none() {
                return;
            }
            if let Some(pending) = &self.in_flight {
                self.now = self.now.max(pending.due);
            }
            if self.in_flight.is_some() || self.calls.len() > sent || self.writes.len() > wrote {
                quiet = 0;
                continue;
            }
            match look_again {
                // Something slow, or nothing: it has come to rest, unless it has not.
                None => quiet += 1,
                Some(after) if after > Duration::from_secs(400) && self.is_at_rest() => quiet += 1,
                Some(after) => {
                    self.now += i64::try_from(after.as_secs()).unwrap().max(1);
                }
            }
            if quiet > 2 {
                return;
            }
        }
        panic!(
            "it does not come to rest: {:?}",
            self.calls.iter().rev().take(10).collect::<Vec<_>>()
        );
    }
}

fn failure(reason: &str, outcome: Outcome, effect: Effect) -> Failure {
    Failure {
        outcome,
        reason: reason.into(),
        message: format!("{reason}, says the provider"),
        effect,
        provider_id: None,
        violations: Vec::new(),
    }
}

fn refused(kind: u8) -> Failure {
    let after = Duration::from_secs(3);
    match kind {
        0 => failure("RATE_LIMITED", Outcome::Throttled { after }, Effect::None),
        1 => failure(
            "CLOUD_UNAVAILABLE",
            Outcome::ProviderUnavailable { after },
            Effect::Unknown,
        ),
        2 => failure("CREDENTIALS_EXPIRED", Outcome::RefreshCredentials, Effect::None),
        3 => failure("QUOTA_EXCEEDED", Outcome::Wait { after }, Effect::Partial),
        4 => Failure::missing_secret("credentials", "default", "cloud"),
        _ => failure(
            "MISSING_PERMISSION",
            Outcome::Hold { look_again: None },
            Effect::Unknown,
        ),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_goes_wrong_there_is_one_instance_and_in_the_end_none(
        window in 0i64..10,
        deletion_takes in 0i64..8,
        boot in 0i64..8,
        steps in proptest::collection::vec(step(), 1..60),
    ) {
        let mut world = World::new(window, deletion_takes, boot);
        for step in steps {
            world.happen(step.happening);
            world.tick();
            world.deliver();
            let look_again = world.round(step.fault, i64::from(step.takes));
            world.now += match look_again {
                Some(after) if step.pause % 2 == 0 => i64::try_from(after.as_secs()).unwrap().min(60) + i64::from(step.pause / 10),
                _ => i64::from(step.pause) / 2,
            };
        }
        world.settle();
        if world.killed {
            // What nobody tells of is found by the slow look.
            world.now += 4_000;
            world.settle();
        }
        match world.machine.clone() {
            None => prop_assert!(world.alive().is_empty(), "deletion leaves nothing"),
            Some(machine) => {
                prop_assert!(machine.metadata.deletion_timestamp.is_none(), "a deletion comes to its end");
                let status = machine.status.clone().unwrap_or_default();
                if world.killed && status.phase == Some(MachinePhase::Failed) {
                    prop_assert_eq!(status.failure_reason.as_deref(), Some(REASON_INSTANCE_LOST));
                } else {
                    prop_assert_eq!(status.phase, Some(MachinePhase::Running), "{:?} {:?}", status, world.seen);
                    prop_assert_eq!(world.alive().len(), 1);
                    prop_assert_eq!(machine.spec.provider_id.as_deref(), Some(world.alive()[0].id.as_str()));
                    let view_digest = crate::request::machine_spec(&machine, None, None).unwrap().digest;
                    prop_assert_eq!(&world.alive()[0].digest, &view_digest, "the spec is reached");
                }
                // A restart at rest: calls perhaps, writes never.
                let writes = world.writes.len();
                world.happen(Happening::RestartCore);
                world.settle();
                prop_assert_eq!(world.writes.len(), writes, "{}", world.last_write);
                // With a full snapshot of hints not even a call.
                world.happen(Happening::RestartCore);
                world.happen(Happening::HintTrue);
                let calls = world.calls.len();
                world.settle();
                prop_assert_eq!(world.writes.len(), writes, "{}", world.last_write);
                if status.phase == Some(MachinePhase::Running) {
                    prop_assert_eq!(world.calls.len(), calls);
                }
                // And it can be deleted.
                world.happen(Happening::Delete);
                world.settle();
                prop_assert!(world.machine.is_none() && world.alive().is_empty());
            }
        }
    }

    #[test]
    fn without_faults_the_budget_of_writes_is_kept(
        window in 0i64..10,
        deletion_takes in 0i64..8,
        boot in 0i64..8,
    ) {
        let mut world = World::new(window, deletion_takes, boot);
        world.settle();
        // create, providerID, and the status once or, where the machine boots, twice.
        prop_assert!(world.writes.len() <= 4, "{:?}", world.writes);
        prop_assert_eq!(&world.writes[..2], &["create", "providerID"]);
        prop_assert_eq!(world.calls.iter().filter(|call| **call == "Create").count(), 1);
        if boot == 0 {
            prop_assert_eq!(&world.writes, &["create", "providerID", "status"]);
            prop_assert_eq!(&world.calls, &["Create"], "a machine that nobody else can have made is not looked for");
        }
        prop_assert!(world.events.is_empty(), "{:?}", world.events);
        world.writes.clear();
        world.calls.clear();
        world.now += 100;
        world.happen(Happening::Delete);
        world.settle();
        prop_assert!(world.machine.is_none());
        prop_assert!(world.writes.len() <= 3, "{:?}", world.writes);
        if deletion_takes == 0 {
            prop_assert_eq!(&world.writes, &["delete", "finalizer"]);
            prop_assert_eq!(&world.calls, &["Delete", "Exists"]);
        }
    }
}
