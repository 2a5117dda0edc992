//! Rule by rule; what holds for every course of events is in `simulation`.

use actuator_proto::v1::{Effect, MachinePhase as Phase, Presence};
use outrigger_api::names::{
    ANNOTATION_PAUSED, CONDITION_DELETING, CONDITION_INFRASTRUCTURE_READY, CONDITION_PAUSED,
    CONDITION_PROVIDER_CONFIG_VALID, CONDITION_READY, LABEL_CONTROL_PLANE,
};
use outrigger_api::{FailureDomain, LocalSecretReference, MachinePhase, OperationState, Time};
use rstest::rstest;

use super::simulation::{at, config, new_machine, ready_cluster, usable_provider};
use super::*;
use crate::conditions;
use crate::operation::{Basis, Call, Failure, Violation};
use crate::provider::Link;
use crate::request;

mod trouble;

const NOW: i64 = 2_000;

/// All that a view borrows.
struct Fixture {
    machine: Machine,
    cluster: Option<Cluster>,
    provider: Option<Snapshot>,
    seen: Observation,
    witnessed: bool,
    verdict: Option<Verdict>,
    exhausted: Vec<String>,
    now: i64,
}

fn fixture() -> Fixture {
    Fixture {
        machine: new_machine(at(NOW)),
        cluster: Some(ready_cluster()),
        provider: Some(usable_provider(0)),
        seen: Observation::default(),
        witnessed: true,
        verdict: Some(Verdict::Valid),
        exhausted: Vec::new(),
        now: NOW,
    }
}

/// A machine that runs, with all that is known of it.
fn running() -> Fixture {
    let mut fixture = fixture();
    fixture.machine.spec.provider_id = Some("fake:///1".into());
    fixture.machine.metadata.generation = Some(2);
    let status = fixture.answer(Phase::Running);
    fixture.told(status);
    fixture.write();
    fixture
}

impl Fixture {
    fn plan(&self) -> Plan {
        plan(
            &View {
                machine: &self.machine,
                cluster: self.cluster.as_ref(),
                provider: self.provider.as_ref(),
                observation: &self.seen,
                witnessed_birth: self.witnessed,
                leading_since: at(500),
                credentials_version: "",
                verdict: self.verdict.as_ref(),
                exhausted_domains: &self.exhausted,
            },
            at(self.now),
        )
    }

    fn call(&self) -> Option<Call> {
        match self.plan().action {
            Some(Action::Provider(operation)) => Some(operation.call),
            _ => None,
        }
    }

    /// Writes the planned status, as the executor does.
    fn write(&mut self) -> bool {
        let status = self.plan().status;
        let changed = self.machine.status.as_ref() != Some(&status);
        self.machine.status = Some(status);
        changed
    }

    fn answer(&self, phase: Phase) -> v1::MachineStatus {
        v1::MachineStatus {
            provider_id: "fake:///1".into(),
            phase: phase.into(),
            observed_digest: request::machine_spec(&self.machine, None, self.machine.spec.failure_domain.as_deref())
                .unwrap()
                .digest,
            observed_generation: 1,
            ..Default::default()
        }
    }

    fn result(&mut self, call: Call, result: Result<Answer, Failure>) {
        let operation = match self.plan().action {
            Some(Action::Provider(operation)) if operation.call == call => operation,
            _ => Operation {
                call,
                basis: Basis {
                    generation: self.machine.metadata.generation.unwrap(),
                    session: self.provider.as_ref().unwrap().instance_id.clone(),
                    connections: self.provider.as_ref().unwrap().connections,
                    digest: request::machine_spec(&self.machine, None, self.machine.spec.failure_domain.as_deref())
                        .unwrap()
                        .digest,
                    ..Default::default()
                },
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

    fn told(&mut self, status: v1::MachineStatus) {
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

    fn fails(&mut self, call: Call, reason: &str, outcome: Outcome) {
        self.fails_with(call, failure(reason, outcome, Effect::None));
    }

    fn fails_with(&mut self, call: Call, failure: Failure) {
        self.result(call, Err(failure));
    }

    fn delete(&mut self) {
        self.machine.metadata.deletion_timestamp = Some(Time(at(self.now)));
    }
}

fn failure(reason: &str, outcome: Outcome, effect: Effect) -> Failure {
    Failure {
        outcome,
        reason: reason.into(),
        message: format!("{reason} it is"),
        effect,
        provider_id: None,
        violations: Vec::new(),
    }
}

fn create() -> Call {
    Call::Create { failure_domain: None }
}

fn condition(status: &MachineStatus, type_: &str) -> (String, String, String) {
    let condition = conditions::get(&status.conditions, type_).unwrap_or_else(|| panic!("no {type_}: {status:?}"));
    (
        condition.status.clone(),
        condition.reason.clone(),
        condition.message.clone(),
    )
}

const SECONDS_3: Duration = Duration::from_secs(3);

// Birth.

#[test]
fn whoever_saw_the_birth_creates_without_a_look_and_without_a_write() {
    let fixture = fixture();
    assert_eq!(fixture.call(), Some(create()));
    assert_eq!(fixture.plan().status, MachineStatus::default());
}

#[test]
fn whoever_did_not_see_the_birth_looks_first() {
    let mut fixture = fixture();
    fixture.witnessed = false;
    assert_eq!(fixture.call(), Some(Call::Exists));
    fixture.absent();
    assert_eq!(fixture.call(), Some(create()));
}

#[test]
fn what_was_found_is_taken_over_before_all_else() {
    let mut fixture = fixture();
    fixture.witnessed = false;
    let status = fixture.answer(Phase::Running);
    fixture.told(status);
    // Even with the provider gone, the config refused and the cluster not ready.
    fixture.provider = None;
    fixture.verdict = Some(Verdict::Invalid("no".into()));
    fixture.cluster.as_mut().unwrap().status = None;
    assert_eq!(fixture.plan().action, Some(Action::SetProviderId("fake:///1".into())));
}

#[test]
fn a_hint_is_no_ground_to_take_an_instance_over_or_to_create_one() {
    let mut fixture = fixture();
    fixture.witnessed = false;
    fixture.seen.hint_present(fixture.answer(Phase::Running), at(NOW));
    assert_eq!(fixture.call(), Some(Call::Exists));
    let mut fixture = self::fixture();
    fixture.witnessed = false;
    fixture.seen.hint_gone();
    assert_eq!(fixture.call(), Some(Call::Exists));
}

#[test]
fn a_provider_id_that_cannot_be_written_is_not() {
    let mut fixture = fixture();
    fixture.now += 10;
    let mut status = fixture.answer(Phase::Running);
    status.provider_id = String::new();
    fixture.told(status);
    let plan = fixture.plan();
    assert_eq!(plan.action, None);
    assert_eq!(condition(&plan.status, CONDITION_READY).1, "MalformedProviderID");
}

#[test]
fn a_machine_of_a_user_gets_the_finalizer_before_the_first_call() {
    let mut fixture = fixture();
    fixture.machine.metadata.finalizers = None;
    fixture.verdict = None;
    assert_eq!(fixture.plan().action, Some(Action::AddFinalizer));
}

#[test]
fn the_config_is_judged_first_and_by_one_for_all() {
    let mut fixture = fixture();
    fixture.verdict = None;
    assert_eq!(fixture.call(), Some(Call::Validate));
    fixture.verdict = Some(Verdict::Asking);
    let plan = fixture.plan();
    assert_eq!((plan.action, plan.status), (None, MachineStatus::default()));
    assert!(plan.look_again.is_some());
    // A provider that cannot judge judges with Create.
    fixture.verdict = None;
    fixture.fails(Call::Validate, "UNIMPLEMENTED", Outcome::Fallback);
    assert_eq!(fixture.call(), Some(create()));
}

#[test]
fn a_refused_config_names_pointer_and_reason_and_creates_nothing() {
    let mut fixture = fixture();
    fixture.verdict = Some(Verdict::Invalid("at /size: \"huge\" is unknown".into()));
    let plan = fixture.plan();
    assert_eq!(plan.action, None);
    let (status, reason, message) = condition(&plan.status, CONDITION_PROVIDER_CONFIG_VALID);
    assert_eq!((status.as_str(), reason.as_str()), ("False", "InvalidConfig"));
    assert!(message.contains("/size"), "{message}");
    assert_eq!(plan.events.len(), 1);
    fixture.write();
    assert!(fixture.plan().events.is_empty(), "one event, not one per plan");
    // A correction ends it.
    fixture.verdict = Some(Verdict::Valid);
    assert_eq!(fixture.call(), Some(create()));
}

#[test]
fn an_invalid_config_that_create_finds_is_shown_as_such_and_held_until_the_spec_changes() {
    let mut fixture = fixture();
    let mut invalid = failure("INVALID_CONFIG", Outcome::Hold { look_again: None }, Effect::None);
    invalid.violations = vec![Violation {
        pointer: "/image".into(),
        message: "is not there".into(),
    }];
    fixture.fails_with(create(), invalid);
    let plan = fixture.plan();
    assert_eq!((plan.action.clone(), plan.look_again), (None, None));
    let (status, _, message) = condition(&plan.status, CONDITION_PROVIDER_CONFIG_VALID);
    assert_eq!(status, "False");
    assert!(message.contains("at /image: is not there"), "{message}");
    fixture.now += 100_000;
    assert_eq!(fixture.call(), None);
    fixture.machine.metadata.generation = Some(2);
    assert_eq!(fixture.call(), Some(create()));
}

#[rstest]
#[case::no_cluster(|fixture: &mut Fixture| fixture.cluster = None, "ClusterNotFound", "demo")]
#[case::no_infrastructure(|fixture: &mut Fixture| fixture.cluster.as_mut().unwrap().status = None,
    "WaitingForClusterInfrastructure", "demo")]
#[case::going_cluster(|fixture: &mut Fixture| fixture.cluster.as_mut().unwrap().metadata.deletion_timestamp = Some(Time(at(1))),
    "ClusterDeleting", "being deleted")]
#[case::no_provider(|fixture: &mut Fixture| fixture.provider = None, "ProviderNotFound", "start it")]
#[case::unreachable(|fixture: &mut Fixture| fixture.provider.as_mut().unwrap().link = Link::Unreachable,
    "ProviderUnavailable", "the Provider fake says why")]
fn what_has_to_come_first_is_said_once_it_lasts(
    #[case] break_it: fn(&mut Fixture),
    #[case] reason: &str,
    #[case] words: &str,
) {
    let mut fixture = fixture();
    break_it(&mut fixture);
    let plan = fixture.plan();
    assert_eq!(
        (plan.action, plan.status),
        (None, MachineStatus::default()),
        "quiet at first"
    );
    assert!(plan.look_again.unwrap() <= Duration::from_secs(5));
    fixture.now += 6;
    assert!(fixture.write());
    let status = fixture.machine.status.clone().unwrap();
    assert_eq!(status.phase, Some(MachinePhase::Pending));
    let (_, shown, message) = condition(&status, CONDITION_READY);
    assert_eq!(shown, reason);
    assert!(message.contains(words), "{message}");
    fixture.now += 1_000;
    assert!(!fixture.write(), "and said once");
}

#[test]
fn a_missing_secret_is_said_at_once_and_looked_for_again() {
    let mut fixture = fixture();
    fixture.fails_with(create(), Failure::missing_secret("bootstrap data", "default", "boot"));
    let plan = fixture.plan();
    let (_, reason, message) = condition(&plan.status, CONDITION_READY);
    assert_eq!(reason, "SecretNotFound");
    assert!(
        message.contains("default/boot") && message.contains("create it"),
        "{message}"
    );
    assert_eq!(plan.look_again, Some(Duration::from_secs(30)));
    fixture.now += 30;
    // It was sent to nobody: no look is needed.
    assert_eq!(fixture.call(), Some(create()));
}

// After a Create.

#[rstest]
#[case::deadline("DEADLINE_EXCEEDED", Outcome::Resolve { after: Duration::ZERO }, Effect::Unknown)]
#[case::partial("QUOTA_EXCEEDED", Outcome::Wait { after: Duration::ZERO }, Effect::Partial)]
#[case::cloud_down("CLOUD_UNAVAILABLE", Outcome::ProviderUnavailable { after: Duration::ZERO }, Effect::Unknown)]
#[case::conflict("KEY_CONFLICT", Outcome::Hold { look_again: None }, Effect::None)]
fn after_an_unknown_outcome_exists_comes_first(#[case] reason: &str, #[case] outcome: Outcome, #[case] effect: Effect) {
    let mut fixture = fixture();
    fixture.fails_with(create(), failure(reason, outcome, effect));
    assert_eq!(fixture.call(), Some(Call::Exists));
}

#[test]
fn absent_within_the_window_is_not_absent() {
    let mut fixture = fixture();
    fixture.provider = Some(usable_provider(10));
    fixture.fails_with(
        create(),
        failure(
            "DEADLINE_EXCEEDED",
            Outcome::Resolve { after: Duration::ZERO },
            Effect::Unknown,
        ),
    );
    assert_eq!(fixture.call(), Some(Call::Exists));
    fixture.absent();
    let plan = fixture.plan();
    assert_eq!((plan.action, plan.look_again), (None, Some(Duration::from_secs(10))));
    fixture.now += 10;
    assert_eq!(fixture.call(), Some(Call::Exists));
    fixture.absent();
    assert_eq!(fixture.call(), Some(create()));
}

#[test]
fn cannot_tell_is_not_absent() {
    let mut fixture = fixture();
    fixture.witnessed = false;
    for answer in [
        Answer::Exists {
            presence: Presence::Unspecified,
            status: None,
        },
        Answer::Exists {
            presence: Presence::Present,
            status: None,
        },
    ] {
        fixture.result(Call::Exists, Ok(answer));
        fixture.now += 10;
        assert_eq!(fixture.call(), Some(Call::Exists));
    }
    fixture.fails(Call::Exists, "MISSING_PERMISSION", Outcome::Hold { look_again: None });
    fixture.now += 10;
    assert_eq!(fixture.plan().action, None);
}

#[test]
fn a_key_conflict_without_an_instance_is_held() {
    let mut fixture = fixture();
    fixture.fails(create(), "KEY_CONFLICT", Outcome::Hold { look_again: None });
    fixture.absent();
    let plan = fixture.plan();
    assert_eq!(plan.action, None);
    assert_eq!(condition(&plan.status, CONDITION_READY).1, "KeyConflict");
}

#[test]
fn what_passes_by_itself_is_shown_once_it_lasts_and_then_with_its_first_words() {
    let mut fixture = fixture();
    let mut writes = 0;
    for attempt in 0..20 {
        let mut again = failure("RATE_LIMITED", Outcome::Throttled { after: SECONDS_3 }, Effect::None);
        again.message = format!("slow down, request {attempt}");
        fixture.fails_with(create(), again);
        let plan = fixture.plan();
        assert_eq!(plan.action, None);
        assert!(plan.look_again.unwrap() <= SECONDS_3);
        writes += usize::from(fixture.write());
        fixture.now += 3;
        writes += usize::from(fixture.write());
        assert_eq!(fixture.call(), Some(create()));
    }
    assert_eq!(writes, 2, "the empty status of the fixture, and the words once");
    let (_, reason, message) = condition(fixture.machine.status.as_ref().unwrap(), CONDITION_READY);
    assert_eq!(
        (reason.as_str(), message.as_str()),
        ("RateLimited", "slow down, request 0")
    );
}

#[test]
fn credentials_are_read_again_once_and_then_held() {
    let mut fixture = fixture();
    fixture.fails(create(), "CREDENTIALS_EXPIRED", Outcome::RefreshCredentials);
    assert_eq!(fixture.call(), Some(create()), "at once, with the Secret read again");
    fixture.fails(create(), "CREDENTIALS_EXPIRED", Outcome::RefreshCredentials);
    assert_eq!(fixture.call(), None);
    fixture.now += 60;
    let plan = fixture.plan();
    assert_eq!(plan.action, None);
    assert_eq!(condition(&plan.status, CONDITION_READY).1, "CredentialsExpired");
}

#[test]
fn a_provider_that_comes_back_is_called_at_once() {
    let mut fixture = fixture();
    let down = Outcome::ProviderUnavailable {
        after: Duration::from_mins(5),
    };
    fixture.fails(create(), "CIRCUIT_OPEN", down);
    assert_eq!(fixture.call(), None);
    fixture.provider.as_mut().unwrap().connections += 1;
    assert_eq!(fixture.call(), Some(create()));
}

#[test]
fn another_leader_ends_this_process() {
    let mut fixture = fixture();
    fixture.fails(create(), "STALE_FENCING_EPOCH", Outcome::StepDown);
    let plan = fixture.plan();
    assert!(plan.step_down);
    assert_eq!(plan.action, None);
}

#[test]
fn without_room_another_failure_domain_is_written_down_and_then_tried() {
    let mut fixture = fixture();
    let domain = |name: &str, control_plane| FailureDomain {
        name: name.into(),
        control_plane,
        ..Default::default()
    };
    fixture
        .cluster
        .as_mut()
        .unwrap()
        .status
        .as_mut()
        .unwrap()
        .failure_domains = vec![domain("a", true), domain("b", false)];
    fixture.machine.metadata.labels = Some([(LABEL_CONTROL_PLANE.to_owned(), String::new())].into());
    let no_room = || Outcome::TryElsewhere {
        after: Duration::from_mins(2),
    };
    fixture.fails(create(), "INSUFFICIENT_CAPACITY", no_room());
    let plan = fixture.plan();
    assert_eq!((plan.action, plan.status.failure_domain.as_deref()), (None, Some("a")));
    assert!(fixture.write());
    let there = Call::Create {
        failure_domain: Some("a".into()),
    };
    assert_eq!(fixture.call(), Some(there.clone()));
    // The other domain is not for control planes: it waits.
    fixture.now += 5;
    fixture.fails(there, "INSUFFICIENT_CAPACITY", no_room());
    let plan = fixture.plan();
    assert_eq!(plan.action, None);
    assert_eq!(plan.look_again, Some(Duration::from_mins(2)));
    assert_eq!(condition(&plan.status, CONDITION_READY).1, "InsufficientCapacity");
}

#[test]
fn a_machine_that_was_put_elsewhere_is_as_asked_for() {
    let mut fixture = running();
    let placed = request::machine_spec(&fixture.machine, None, Some("zone-b")).unwrap();
    let mut status = fixture.answer(Phase::Running);
    status.failure_domain = "zone-b".into();
    status.observed_digest = placed.digest;
    fixture.told(status);
    let plan = fixture.plan();
    assert_eq!(plan.action, None, "no Update for the core's own choice");
    assert_eq!(plan.status.failure_domain.as_deref(), Some("zone-b"));
}

// Life.

#[test]
fn phases_follow_the_provider() {
    for (phase, expected, ready) in [
        (Phase::Pending, MachinePhase::Provisioning, "Provisioning"),
        (Phase::Unspecified, MachinePhase::Provisioning, "Provisioning"),
        (Phase::Running, MachinePhase::Running, "Running"),
        (Phase::Stopped, MachinePhase::Provisioned, "Stopped"),
        (Phase::Deleting, MachinePhase::Provisioned, "Terminating"),
        (Phase::Failed, MachinePhase::Provisioned, "ProviderFailed"),
    ] {
        let mut fixture = running();
        let status = fixture.answer(phase);
        fixture.told(status);
        let plan = fixture.plan();
        assert_eq!(plan.status.phase, Some(expected), "{phase:?}");
        assert_eq!(condition(&plan.status, CONDITION_INFRASTRUCTURE_READY).1, ready);
        assert_eq!(plan.status.failure_reason, None);
    }
}

#[test]
fn a_terminal_failure_is_failed_for_ever() {
    let mut fixture = running();
    let mut status = fixture.answer(Phase::Failed);
    status.failure = Some(v1::Failure {
        reason: "BOOT_FAILED".into(),
        message: "the image does not boot".into(),
        terminal: true,
    });
    fixture.told(status);
    let plan = fixture.plan();
    assert_eq!(plan.events[0].reason, "MachineFailed");
    fixture.write();
    let status = fixture.machine.status.clone().unwrap();
    assert_eq!(status.phase, Some(MachinePhase::Failed));
    assert_eq!(status.failure_reason.as_deref(), Some("BootFailed"));
    assert_eq!(status.failure_message.as_deref(), Some("the image does not boot"));
    assert!(needs_replacement(&fixture.machine));
    // A restart asks nothing and changes nothing.
    fixture.seen = Observation::default();
    fixture.now += 100_000;
    let plan = fixture.plan();
    assert_eq!((plan.action, plan.status, plan.events), (None, status, vec![]));
}

#[test]
fn a_failure_that_may_pass_is_no_terminal_one() {
    let mut fixture = running();
    let mut status = fixture.answer(Phase::Provisioning);
    status.failure = Some(v1::Failure {
        reason: "SLOW_DISK".into(),
        message: "waits for a disk".into(),
        terminal: false,
    });
    fixture.told(status);
    let plan = fixture.plan();
    assert_eq!(plan.status.phase, Some(MachinePhase::Provisioning));
    assert_eq!(condition(&plan.status, CONDITION_READY).1, "SlowDisk");
    assert!(plan.look_again.is_some());
}

#[test]
fn gone_is_asked_twice_and_then_the_machine_is_lost() {
    let mut fixture = running();
    fixture.now += 5_000;
    assert_eq!(fixture.call(), Some(Call::Exists), "the slow look");
    fixture.absent();
    let plan = fixture.plan();
    assert_eq!((plan.action, plan.events.len()), (None, 0));
    fixture.now += 5;
    assert_eq!(fixture.call(), Some(Call::Exists));
    fixture.absent();
    let plan = fixture.plan();
    assert_eq!(plan.events[0].reason, REASON_INSTANCE_LOST);
    assert_eq!(plan.action, None);
    fixture.write();
    assert!(needs_replacement(&fixture.machine));
    assert!(fixture.plan().events.is_empty());
}

#[test]
fn a_hint_that_it_is_gone_leads_to_a_look_and_no_further() {
    let mut fixture = running();
    fixture.seen.hint_gone();
    let before = fixture.machine.status.clone().unwrap();
    let plan = fixture.plan();
    assert_eq!(plan.status, before);
    assert_eq!(fixture.call(), Some(Call::Exists));
    let status = fixture.answer(Phase::Running);
    fixture.told(status);
    assert_eq!(fixture.call(), None);
}

#[test]
fn a_restart_with_hints_writes_nothing_and_asks_nothing() {
    let mut fixture = running();
    fixture.provider.as_mut().unwrap().watching = true;
    fixture.seen = Observation::default();
    fixture.witnessed = false;
    fixture.seen.hint_present(fixture.answer(Phase::Running), at(NOW));
    let plan = fixture.plan();
    assert_eq!(plan.action, None);
    assert_eq!(Some(plan.status), fixture.machine.status);
    assert!(plan.look_again.unwrap() > Duration::from_secs(2_000));
}

#[test]
fn a_hint_that_does_not_tell_which_spec_was_applied_leads_to_a_look() {
    let mut fixture = running();
    fixture.seen = Observation::default();
    let untold = v1::MachineStatus {
        observed_digest: Vec::new(),
        observed_generation: 0,
        ..fixture.answer(Phase::Running)
    };
    fixture.seen.hint_present(untold, at(NOW));
    assert_eq!(fixture.call(), Some(Call::Exists));
}

#[test]
fn hints_are_shown() {
    let mut fixture = running();
    fixture.seen.hint_present(fixture.answer(Phase::Stopped), at(NOW + 1));
    assert_eq!(fixture.plan().status.phase, Some(MachinePhase::Provisioned));
    let mut older = fixture.answer(Phase::Running);
    older.observed_generation = 0;
    fixture.seen.hint_present(older, at(NOW + 2));
    assert_eq!(
        fixture.plan().status.phase,
        Some(MachinePhase::Provisioned),
        "not an older one"
    );
}

#[test]
fn another_instance_under_the_key_is_a_matter_for_a_person() {
    let mut fixture = running();
    let mut status = fixture.answer(Phase::Running);
    status.provider_id = "fake:///2".into();
    fixture.told(status);
    let plan = fixture.plan();
    assert_eq!(plan.action, None);
    assert_eq!(condition(&plan.status, CONDITION_READY).1, "ProviderIDMismatch");
}

#[test]
fn an_unreachable_provider_changes_no_status() {
    let mut fixture = running();
    let before = fixture.machine.status.clone().unwrap();
    fixture.seen = Observation::default();
    for link in [Link::Unreachable, Link::Connecting, Link::Initializing] {
        fixture.provider.as_mut().unwrap().link = link;
        fixture.now += 10_000;
        let plan = fixture.plan();
        assert_eq!((plan.action, plan.status), (None, before.clone()));
    }
    fixture.provider = Some(usable_provider(0));
    for _ in 0..10 {
        let down = Outcome::ProviderUnavailable { after: SECONDS_3 };
        fixture.fails(Call::Exists, "CLOUD_UNAVAILABLE", down);
        fixture.now += 1;
        assert_eq!(fixture.plan().status, before);
        fixture.now += 100;
    }
}

#[test]
fn a_look_that_needs_a_person_makes_readiness_unknown_and_keeps_the_phase() {
    let mut fixture = running();
    fixture.now += 5_000;
    let forbidden = Outcome::Hold { look_again: None };
    fixture.fails(Call::Exists, "MISSING_PERMISSION", forbidden);
    let plan = fixture.plan();
    assert_eq!(plan.status.phase, Some(MachinePhase::Running));
    let (status, reason, _) = condition(&plan.status, CONDITION_READY);
    assert_eq!((status.as_str(), reason.as_str()), ("Unknown", "MissingPermission"));
    fixture.write();
    fixture.now += 700;
    assert_eq!(fixture.call(), Some(Call::Exists), "it is looked again, slowly");
    let status = fixture.answer(Phase::Running);
    fixture.told(status);
    assert_eq!(condition(&fixture.plan().status, CONDITION_READY).0, "True");
}

#[test]
fn lost_statuses_are_made_anew() {
    let mut fixture = running();
    let before = fixture.machine.status.take().unwrap();
    fixture.seen = Observation::default();
    fixture.witnessed = false;
    assert_eq!(fixture.call(), Some(Call::Exists));
    let status = fixture.answer(Phase::Running);
    fixture.told(status);
    assert_eq!(fixture.plan().status, before);
}

#[test]
fn answers_in_another_order_are_the_same_status() {
    let mut fixture = running();
    let address = |text: &str| v1::MachineAddress {
        r#type: v1::MachineAddressType::InternalIp.into(),
        address: text.into(),
    };
    let mut status = fixture.answer(Phase::Running);
    status.addresses = vec![address("10.0.0.2"), address("10.0.0.1")];
    fixture.told(status.clone());
    fixture.write();
    status.addresses.reverse();
    fixture.told(status);
    assert!(!fixture.write());
}

// Updates.

fn edited() -> Fixture {
    let mut fixture = running();
    fixture.machine.spec.provider_spec = config("large");
    fixture.machine.metadata.generation = Some(3);
    fixture
}

#[test]
fn a_new_spec_is_an_update_and_one_write() {
    let mut fixture = edited();
    assert_eq!(fixture.call(), Some(Call::Update));
    let mut done = fixture.answer(Phase::Running);
    done.observed_generation = 3;
    fixture.result(Call::Update, Ok(Answer::Status(Box::new(done))));
    let plan = fixture.plan();
    assert_eq!(plan.action, None);
    assert_eq!(plan.status.phase, Some(MachinePhase::Running));
    assert_eq!(plan.status.last_operation.as_ref().unwrap().type_, "Update");
    assert_eq!(plan.events[0].reason, "SuccessfulUpdate");
    fixture.write();
    assert!(fixture.plan().events.is_empty());
}

#[test]
fn an_update_that_takes_time_is_shown_and_polled_and_not_sent_again() {
    let mut fixture = edited();
    let old = fixture.machine.status.clone().unwrap().applied_digest.unwrap();
    let mut accepted = fixture.answer(Phase::Running);
    accepted.observed_digest = hex::decode(old).unwrap();
    fixture.result(Call::Update, Ok(Answer::Status(Box::new(accepted))));
    let plan = fixture.plan();
    assert_eq!(plan.status.phase, Some(MachinePhase::Updating));
    assert_eq!(condition(&plan.status, CONDITION_READY).0, "True");
    assert_eq!(plan.action, None);
    fixture.write();
    fixture.now += 3;
    assert_eq!(fixture.call(), Some(Call::Exists));
    let done = fixture.answer(Phase::Running);
    fixture.told(done);
    let plan = fixture.plan();
    assert_eq!(plan.status.phase, Some(MachinePhase::Running));
    assert_eq!(plan.events[0].reason, "SuccessfulUpdate");
}

#[test]
fn the_generation_alone_is_no_new_spec() {
    let mut fixture = running();
    fixture.machine.metadata.generation = Some(7);
    assert_eq!(fixture.call(), None);
}

#[test]
fn a_provider_without_digests_is_brought_up_by_generation() {
    let mut fixture = running();
    let mut status = fixture.answer(Phase::Running);
    status.observed_digest.clear();
    fixture.told(status.clone());
    assert_eq!(fixture.call(), None, "the second generation is the providerID's own");
    fixture.machine.metadata.generation = Some(3);
    assert_eq!(fixture.call(), Some(Call::Update));
    status.observed_generation = 3;
    fixture.told(status.clone());
    assert_eq!(fixture.call(), None);
    status.observed_generation = 0;
    fixture.told(status);
    assert_eq!(fixture.call(), None, "who tells nothing is not asked in a circle");
}

#[test]
fn a_change_that_needs_a_new_machine_is_left_to_the_owner() {
    let mut fixture = edited();
    fixture.fails(Call::Update, "REPLACE_REQUIRED", Outcome::ReplaceByOwner);
    let plan = fixture.plan();
    assert_eq!(plan.action, None);
    let (status, reason, _) = condition(&plan.status, CONDITION_READY);
    assert_eq!((status.as_str(), reason.as_str()), ("False", REASON_REPLACE_REQUIRED));
    fixture.write();
    assert!(needs_replacement(&fixture.machine));
    assert_eq!(plan.status.phase, Some(MachinePhase::Running));
    // After a restart the provider says the same, and nothing is written.
    fixture.seen = Observation::default();
    let mut old = fixture.answer(Phase::Running);
    old.observed_digest = hex::decode(fixture.machine.status.clone().unwrap().applied_digest.unwrap()).unwrap();
    assert!(!fixture.write());
    fixture.told(old);
    fixture.fails(Call::Update, "REPLACE_REQUIRED", Outcome::ReplaceByOwner);
    assert!(!fixture.write());
}

#[test]
fn a_refused_update_leaves_the_machine_running() {
    let mut fixture = edited();
    fixture.verdict = Some(Verdict::Invalid("at /size: no".into()));
    let plan = fixture.plan();
    assert_eq!(plan.action, None);
    assert_eq!(condition(&plan.status, CONDITION_PROVIDER_CONFIG_VALID).0, "False");
    assert_eq!(condition(&plan.status, CONDITION_READY).0, "True");
    assert_eq!(plan.events.len(), 1);
}

// Pauses.

#[test]
fn a_pause_stops_everything_and_says_so() {
    for by_cluster in [true, false] {
        for deleted in [true, false] {
            let mut fixture = fixture();
            if by_cluster {
                fixture.cluster.as_mut().unwrap().spec.paused = true;
            } else {
                fixture.machine.metadata.annotations = Some([(ANNOTATION_PAUSED.to_owned(), String::new())].into());
            }
            if deleted {
                fixture.delete();
            }
            let plan = fixture.plan();
            assert_eq!(plan.action, None);
            assert_eq!(condition(&plan.status, CONDITION_PAUSED).0, "True");
            fixture.write();
            assert!(!fixture.write());
            fixture.cluster.as_mut().unwrap().spec.paused = false;
            fixture.machine.metadata.annotations = None;
            let plan = fixture.plan();
            assert_eq!(condition(&plan.status, CONDITION_PAUSED).0, "False");
            assert!(plan.action.is_some());
        }
    }
}

// Deletion.

fn gone() -> Answer {
    Answer::Deleted {
        state: v1::DeletionState::Gone,
        message: String::new(),
        poll_after: None,
    }
}

#[test]
fn a_deletion_is_delete_then_exists_then_the_finalizer_and_no_status() {
    let mut fixture = running();
    fixture.delete();
    let before = fixture.machine.status.clone().unwrap();
    assert_eq!(fixture.call(), Some(Call::Delete));
    fixture.result(Call::Delete, Ok(gone()));
    assert_eq!(fixture.call(), Some(Call::Exists));
    fixture.absent();
    let plan = fixture.plan();
    assert_eq!(plan.action, Some(Action::RemoveFinalizer));
    assert_eq!(plan.status, before);
}

#[test]
fn the_finalizer_waits_for_the_window() {
    let mut fixture = running();
    fixture.provider = Some(usable_provider(10));
    fixture.delete();
    fixture.result(Call::Delete, Ok(gone()));
    assert_eq!(fixture.plan().look_again, Some(Duration::from_secs(10)));
    fixture.absent();
    assert_eq!(fixture.plan().action, None, "asked too early");
    fixture.now += 10;
    assert_eq!(fixture.call(), Some(Call::Exists));
    fixture.absent();
    assert_eq!(fixture.plan().action, Some(Action::RemoveFinalizer));
}

#[test]
fn what_was_said_to_be_gone_and_is_there_is_deleted_again() {
    let mut fixture = running();
    fixture.delete();
    fixture.result(Call::Delete, Ok(gone()));
    let status = fixture.answer(Phase::Running);
    fixture.told(status);
    assert_eq!(fixture.plan().action, None, "with a pause");
    fixture.now += 2;
    assert_eq!(fixture.call(), Some(Call::Delete));
}

#[test]
fn a_deletion_in_progress_is_one_status_whatever_the_provider_counts() {
    let mut fixture = running();
    fixture.delete();
    let mut writes = 0;
    for left in (1..9).rev() {
        let answer = Answer::Deleted {
            state: v1::DeletionState::InProgress,
            message: format!("{left} disks are left"),
            poll_after: Some(Duration::from_secs(4)),
        };
        fixture.result(Call::Delete, Ok(answer));
        writes += usize::from(fixture.write());
        assert_eq!(fixture.plan().look_again, Some(Duration::from_secs(4)));
        fixture.now += 4;
        assert_eq!(fixture.call(), Some(Call::Delete));
    }
    assert_eq!(writes, 1);
    let status = fixture.machine.status.clone().unwrap();
    assert_eq!(status.phase, Some(MachinePhase::Deleting));
    let (_, reason, message) = condition(&status, CONDITION_DELETING);
    assert_eq!(reason, "WaitingForInfrastructureDeletion");
    assert!(message.contains("8 disks are left"), "{message}");
}

#[test]
fn a_machine_that_was_never_made_goes_at_once_if_that_is_sure() {
    let mut fixture = fixture();
    fixture.delete();
    fixture.provider = None;
    fixture.cluster = None;
    assert_eq!(fixture.plan().action, Some(Action::RemoveFinalizer));
    // After a restart nobody can be sure.
    let mut fixture = self::fixture();
    fixture.delete();
    fixture.witnessed = false;
    assert_eq!(fixture.call(), Some(Call::Delete));
    // And neither after an attempt.
    let mut fixture = self::fixture();
    fixture.fails(create(), "RATE_LIMITED", Outcome::Retry { after: Duration::ZERO });
    fixture.delete();
    assert_eq!(fixture.call(), Some(Call::Delete));
}

#[test]
fn a_deletion_needs_no_cluster() {
    let mut fixture = fixture();
    fixture.cluster.as_mut().unwrap().spec.credentials_ref = Some(LocalSecretReference { name: "cloud".into() });
    fixture.machine.spec.provider_id = Some("fake:///1".into());
    let status = fixture.answer(Phase::Running);
    fixture.told(status);
    fixture.write();
    fixture.seen = Observation::default();
    fixture.witnessed = false;
    fixture.cluster = None;
    fixture.delete();
    assert_eq!(provider_name(&fixture.machine, None), Some("fake"));
    assert_eq!(
        request::machine_credentials(&fixture.machine, None),
        request::CredentialsSource::Secret("cloud".into())
    );
    assert_eq!(
        request::machine_ownership(&fixture.machine, None, "m")
            .unwrap()
            .cluster_uid,
        "cluster-uid"
    );
    assert_eq!(fixture.call(), Some(Call::Delete));
}

#[test]
fn without_cluster_and_status_nothing_is_sent_with_wrong_credentials() {
    let mut fixture = running();
    fixture.machine.status = None;
    fixture.machine.spec.provider = Some("fake".into());
    fixture.cluster = None;
    fixture.delete();
    fixture.now += 10;
    let plan = fixture.plan();
    assert_eq!(plan.action, None);
    let (_, _, message) = condition(&plan.status, CONDITION_DELETING);
    assert!(message.contains("credentials"), "{message}");
}

#[test]
fn a_deletion_that_is_forbidden_is_said_and_tried_again() {
    let mut fixture = running();
    fixture.delete();
    fixture.fails(Call::Delete, "DELETION_PROTECTED", Outcome::Hold { look_again: None });
    let plan = fixture.plan();
    assert_eq!(plan.action, None);
    assert_eq!(plan.events[0].reason, "FailedDelete");
    let (_, _, message) = condition(&plan.status, CONDITION_DELETING);
    assert!(message.contains("DELETION_PROTECTED"), "{message}");
    fixture.write();
    fixture.now += 600;
    assert_eq!(fixture.call(), Some(Call::Delete));
    fixture.fails(Call::Delete, "DELETION_PROTECTED", Outcome::Hold { look_again: None });
    assert!(!fixture.write());
    assert!(fixture.plan().events.is_empty());
}

#[test]
fn missing_credentials_keep_the_finalizer() {
    let mut fixture = running();
    fixture.delete();
    for _ in 0..5 {
        fixture.fails_with(Call::Delete, Failure::missing_secret("credentials", "default", "cloud"));
        let plan = fixture.plan();
        assert_eq!(plan.action, None);
        assert!(condition(&plan.status, CONDITION_DELETING).2.contains("default/cloud"));
        fixture.now += 30;
        assert_eq!(fixture.call(), Some(Call::Delete));
    }
}

#[test]
fn what_contradicts_itself_is_never_deleted() {
    let mut fixture = running();
    fixture.delete();
    fixture.fails(Call::Delete, "MULTIPLE_INSTANCES", Outcome::Escalate);
    fixture.now += 100_000;
    assert_eq!(fixture.plan().action, None);
    fixture.provider.as_mut().unwrap().instance_id = "process-2".into();
    assert_eq!(fixture.call(), Some(Call::Delete));
}

#[test]
fn a_create_in_flight_is_waited_for_before_the_deletion() {
    let mut fixture = fixture();
    let Some(Action::Provider(operation)) = fixture.plan().action else {
        panic!("it is created")
    };
    fixture.seen.started(operation, at(NOW));
    fixture.delete();
    let plan = fixture.plan();
    assert_eq!((plan.action, plan.look_again), (None, None));
}

#[test]
fn a_call_that_takes_long_is_told_of_once() {
    let mut fixture = fixture();
    let Some(Action::Provider(operation)) = fixture.plan().action else {
        panic!("it is created")
    };
    fixture.seen.started(operation, at(NOW));
    assert_eq!(fixture.plan().status.phase, None, "a quick answer costs no write");
    assert!(fixture.plan().look_again.is_some(), "nobody would tell of it");
    fixture.now += 60;
    assert!(fixture.write());
    let status = fixture.machine.status.clone().unwrap();
    let (_, reason, message) = condition(&status, CONDITION_READY);
    assert_eq!(reason, "WaitingForProvider");
    assert!(message.contains("the provider's answer"), "{message}");
    fixture.now += 60;
    assert!(!fixture.write());
}

#[test]
fn without_our_finalizer_nothing_is_ours_to_do() {
    let mut fixture = running();
    fixture.delete();
    fixture.machine.metadata.finalizers = Some(vec!["someone/else".into()]);
    assert_eq!(fixture.plan().action, None);
}

#[test]
fn the_last_operation_keeps_its_time() {
    let mut fixture = running();
    let before = fixture.machine.status.clone().unwrap().last_operation.unwrap();
    assert_eq!(
        (before.type_.as_str(), before.state),
        ("Create", OperationState::Succeeded)
    );
    fixture.now += 50;
    let status = fixture.answer(Phase::Running);
    fixture.told(status);
    assert_eq!(fixture.plan().status.last_operation, Some(before));
}
