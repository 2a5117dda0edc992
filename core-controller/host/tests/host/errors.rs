//! Every row of the error table, from the wire to what the caller does.

use std::time::Duration;

use actuator_proto::errors::{ActuatorError, table};
use actuator_proto::v1::{self, Effect, ErrorReason};
use provider_host::{AfterResolve, CircuitState, Disposition, ProviderState, Refusal, Rpc};
use tonic::{Code, Status};

use crate::scripted::*;

const SECOND: Duration = Duration::from_secs(1);

/// What the protocol's table says, written down a second time: the disposition after
/// the first failure of CreateMachine, with the random number 0.
fn expected(reason: ErrorReason, effect: Effect) -> Disposition {
    use ErrorReason as R;
    let hold = Disposition::Hold { look_again: None };
    match reason {
        R::CloudUnclassified | R::ProviderBug => Disposition::Resolve {
            then: AfterResolve::Retry { after: SECOND },
        },
        R::InvalidField
        | R::InvalidConfig
        | R::UnsupportedSchemaVersion
        | R::BootstrapTooLarge
        | R::MalformedProviderId
        | R::LimitExceeded
        | R::KeyConflict
        | R::NameConflict
        | R::MissingPermission
        | R::OwnershipMismatch
        | R::DeletionProtected
        | R::StateVersionUnsupported => hold,
        R::ResourceNotFound => Disposition::Resolve {
            then: AfterResolve::Decide,
        },
        R::DependencyNotFound => Disposition::Hold {
            look_again: Some(120 * SECOND),
        },
        R::CredentialsInvalid | R::CredentialsExpired => Disposition::RefreshCredentials,
        R::InsufficientCapacity => Disposition::TryElsewhere { after: 120 * SECOND },
        R::QuotaExceeded => Disposition::Wait { after: 600 * SECOND },
        R::RateLimited | R::TooManyInFlight => Disposition::Paused {
            after: Duration::ZERO,
            resolve: effect != Effect::None,
        },
        R::DependentsExist | R::ClusterNotReady => Disposition::Wait { after: SECOND },
        R::ReplaceRequired => Disposition::ReplaceByOwner,
        R::StaleFencingEpoch => Disposition::StepDown,
        R::OperationPending => Disposition::Wait { after: 2 * SECOND },
        R::StaleGeneration => Disposition::ReadObjectAgain,
        R::PageTokenExpired => Disposition::RestartList,
        R::ResumeTokenExpired => Disposition::ListInFull,
        R::CloudUnavailable => Disposition::Retry { after: Duration::ZERO },
        R::MultipleInstances | R::StateInconsistent => Disposition::Escalate,
        R::Unspecified => panic!("not a reason"),
    }
}

/// The time of a pause has jitter of its own: it is compared apart.
fn without_time(disposition: Disposition) -> Disposition {
    match disposition {
        Disposition::Paused { after, resolve } => {
            assert!((SECOND..=2 * SECOND).contains(&after), "{after:?}");
            Disposition::Paused {
                after: Duration::ZERO,
                resolve,
            }
        }
        Disposition::Retry { after } => {
            assert!((SECOND..=2 * SECOND).contains(&after), "{after:?}");
            Disposition::Retry { after: Duration::ZERO }
        }
        other => other,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_row_gets_its_disposition() {
    for rule in table::RULES {
        // A provider of its own for each row: some pause it.
        for effect in rule.effects {
            let scene = Scene::new().await;
            let error = ActuatorError::new(rule.reason, "scripted").with_effect(*effect);
            scene.script.fail(Rpc::CreateMachine, error.into());
            let error = scene
                .fake()
                .create_machine(&credential(), create("k"))
                .await
                .unwrap_err();
            let name = rule.reason.wire_name();
            assert_eq!(error.reason(), name);
            assert_eq!(error.classified.code, rule.code, "{name}");
            assert_eq!(error.classified.effect, *effect, "{name}");
            assert_eq!(
                without_time(error.disposition_with(1, 0.0)),
                expected(rule.reason, *effect),
                "{name} with effect {effect:?}"
            );
            assert_eq!(error.changed_nothing(), *effect == Effect::None, "{name}");
            assert_eq!(
                scene.script.calls(Rpc::CreateMachine),
                1,
                "{name}: a mutation is never repeated"
            );
            assert_eq!(
                scene.host.snapshot("fake").unwrap().circuit,
                CircuitState::Closed,
                "{name}"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_error_without_error_info_is_the_transports() {
    let replay = Disposition::Resolve {
        then: AfterResolve::Replay,
    };
    let retry = Disposition::Resolve {
        then: AfterResolve::Retry { after: SECOND },
    };
    let decide = Disposition::Resolve {
        then: AfterResolve::Decide,
    };
    let rows = [
        (Code::Cancelled, replay.clone()),
        (Code::DeadlineExceeded, replay),
        (Code::Unknown, retry.clone()),
        (Code::Internal, retry.clone()),
        (Code::InvalidArgument, retry.clone()),
        (Code::NotFound, retry.clone()),
        (Code::AlreadyExists, retry.clone()),
        (Code::PermissionDenied, retry.clone()),
        (Code::FailedPrecondition, retry.clone()),
        (Code::Aborted, retry),
        (Code::ResourceExhausted, decide.clone()),
        (Code::OutOfRange, decide),
        (Code::DataLoss, Disposition::Escalate),
    ];
    let scene = Scene::new().await;
    for (code, expected) in rows {
        scene.script.fail(Rpc::CreateMachine, Status::new(code, "no words"));
        let error = scene
            .fake()
            .create_machine(&credential(), create("k"))
            .await
            .unwrap_err();
        assert_eq!(error.disposition_with(1, 0.0), expected, "{code:?}");
        assert!(!error.changed_nothing(), "{code:?}");
        assert!(!error.classified.is_final());
    }
    // After many failures in a row INTERNAL is slow, UNKNOWN goes its way.
    scene.script.fail(Rpc::CreateMachine, Status::internal("again"));
    let error = scene
        .fake()
        .create_machine(&credential(), create("k"))
        .await
        .unwrap_err();
    assert_eq!(
        error.disposition_with(6, 1.0),
        Disposition::Resolve {
            then: AfterResolve::Retry { after: 300 * SECOND }
        }
    );
    // A read has nothing to resolve: it is made again.
    scene.script.fail(Rpc::MachineExists, Status::deadline_exceeded("late"));
    let error = scene
        .fake()
        .machine_exists(&credential(), exists("k"))
        .await
        .unwrap_err();
    assert_eq!(error.disposition_with(1, 0.0), Disposition::Retry { after: SECOND });
    assert_eq!(scene.script.calls(Rpc::CreateMachine), 14);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_breaks_the_circuit_opens_it_and_the_provider_is_dialled_again() {
    for code in [Code::Unavailable, Code::Unauthenticated, Code::Unimplemented] {
        let scene = Scene::new().await;
        let before = scene.host.snapshot("fake").unwrap();
        scene.script.fail(Rpc::CreateMachine, Status::new(code, "broken"));
        let error = scene
            .fake()
            .create_machine(&credential(), create("k"))
            .await
            .unwrap_err();
        let Disposition::Unavailable { resolve, .. } = error.disposition_with(1, 0.0) else {
            panic!("{code:?} gives {:?}", error.disposition_with(1, 0.0))
        };
        assert_eq!(resolve, code == Code::Unavailable, "{code:?}");
        let after = until(&scene.host, "fake", |snapshot| {
            snapshot.connections > before.connections && snapshot.circuit == CircuitState::Closed
        })
        .await;
        assert_eq!(after.sessions, before.sessions, "the same process is the same session");
        let create_again = scene.fake();
        scene
            .script
            .on(Rpc::CreateMachine, |_: v1::CreateMachineRequest| async {
                Ok(v1::CreateMachineResponse {
                    status: Some(machine("fake:///i-1")),
                })
            });
        create_again.create_machine(&credential(), create("k")).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_circuit_that_opens_over_and_over_stays_open_and_refuses_at_once() {
    let scene = Scene::new().await;
    scene
        .script
        .fail(Rpc::CreateMachine, Status::unauthenticated("who are you"));
    let mut refused = None;
    for _ in 0..1000 {
        let error = scene
            .fake()
            .create_machine(&credential(), create("k"))
            .await
            .unwrap_err();
        if error.facts.refusal == Some(Refusal::Unavailable) && error.facts.closed_for > Some(SECOND / 4) {
            refused = Some(error);
            break;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let error = refused.expect("the circuit stays open after a while");
    assert!(error.changed_nothing());
    assert!(matches!(
        error.disposition_with(1, 0.0),
        Disposition::Unavailable { resolve: false, .. }
    ));
    let snapshot = scene.host.snapshot("fake").unwrap();
    assert_eq!(snapshot.circuit, CircuitState::Open);
    assert!(snapshot.message.contains("UNAUTHENTICATED"), "{}", snapshot.message);
    scene.state(ProviderState::Ready).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_optional_call_that_is_not_there_falls_back_and_is_not_made_again() {
    let script = Script::provider("fake", "instance-1");
    let capabilities = v1::Capabilities {
        list_machines: Some(v1::ListMachinesCapability {}),
        ..Default::default()
    };
    let info = v1::GetInfoResponse {
        capabilities: Some(capabilities),
        ..Default::default()
    };
    script.identity("fake", "instance-1", "1", "actuator.v1", info);
    let scene = Scene::with(script, times(), Default::default()).await;
    for _ in 0..3 {
        let error = scene
            .fake()
            .list_machines(&credential(), Default::default())
            .await
            .unwrap_err();
        assert_eq!(error.disposition(1), Disposition::Fallback);
    }
    assert_eq!(scene.script.calls(Rpc::ListMachines), 1, "advertised, tried once");
    let error = scene
        .fake()
        .list_clusters(&credential(), Default::default())
        .await
        .unwrap_err();
    assert_eq!(error.disposition(1), Disposition::Fallback);
    assert_eq!(
        scene.script.calls(Rpc::ListClusters),
        0,
        "never called without the capability"
    );
    assert_eq!(scene.host.snapshot("fake").unwrap().circuit, CircuitState::Closed);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn statuses_of_any_size_are_cut_or_end_the_call_and_never_hang() {
    let scene = Scene::new().await;
    scene
        .script
        .on(Rpc::MachineExists, |_: v1::MachineExistsRequest| async {
            Ok(present("fake:///i-1"))
        });
    for size in [1024, 16 * 1024, 100 * 1024, 1024 * 1024] {
        let details = ActuatorError::new(ErrorReason::QuotaExceeded, "full");
        let status: Status = details.into();
        let message = format!("\u{1b}[31m{}", "x".repeat(size));
        let status = Status::with_details(Code::ResourceExhausted, message, status.details().to_vec().into());
        scene.script.fail(Rpc::CreateMachine, status);
        let (fake, credential) = (scene.fake(), credential());
        let call = fake.create_machine(&credential, create("k"));
        let ended = tokio::time::timeout(PATIENCE, call).await;
        let error = ended.expect("the call ends").unwrap_err();
        assert!(error.classified.message.len() <= 1024);
        assert!(!error.to_string().contains('\u{1b}'));
        if size <= 100 * 1024 {
            assert_eq!(
                error.classified.reason,
                Some(ErrorReason::QuotaExceeded),
                "{size}: {error}"
            );
        } else {
            assert!(!error.classified.is_final(), "{error}");
            assert!(!error.changed_nothing(), "{error}");
        }
        // The largest takes its connection along: until another is made, calls are refused.
        let asked_again = async {
            while let Err(error) = fake.machine_exists(&credential, exists("k")).await {
                assert!(size > 100 * 1024, "{size}: {error}");
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let answered = tokio::time::timeout(PATIENCE, asked_again).await;
        answered.expect("calls go on");
    }
}
