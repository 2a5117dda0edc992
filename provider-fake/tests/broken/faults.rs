//! The broken providers: each breaks one rule, and names the test that has to catch it.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use actuator_proto::digest::sha256;
use actuator_proto::discovery::v1::GetProtocolsResponse;
use actuator_proto::errors::{TYPE_ERROR_INFO, TYPE_OPERATION_OUTCOME, TYPE_RETRY_INFO};
use actuator_proto::v1::watch_machines_response::Event;
use actuator_proto::v1::{self, DeletionState, Effect, Presence};
use bytes::Bytes;
use futures::{FutureExt as _, StreamExt as _};
use prost::Message as _;
use prost_types::Any;
use tonic::{Code, Status};

use crate::proxy::{Call, Fault, edit};

/// A provider that is broken in one way.
pub struct Broken {
    /// What it does.
    pub name: &'static str,
    /// The test that has to fail because of it.
    pub caught_by: &'static str,
    /// How it does it.
    pub fault: Arc<dyn Fault>,
}

type Answer = Result<Bytes, Status>;

struct Function<F>(F);

impl<F, R> Fault for Function<F>
where
    F: Fn(Call) -> R + Send + Sync + 'static,
    R: Future<Output = Answer> + Send + 'static,
{
    fn unary(&self, call: Call) -> std::pin::Pin<Box<dyn Future<Output = Answer> + Send>> {
        (self.0)(call).boxed()
    }
}

fn broken<F, R>(name: &'static str, caught_by: &'static str, fault: F) -> Broken
where
    F: Fn(Call) -> R + Send + Sync + 'static,
    R: Future<Output = Answer> + Send + 'static,
{
    Broken {
        name,
        caught_by,
        fault: Arc::new(Function(fault)),
    }
}

/// Passes everything on: what is not broken must not be caught.
pub fn none() -> Arc<dyn Fault> {
    Arc::new(Function(|call: Call| async move { call.forward().await }))
}

/// Changes the answer of one method.
fn answers<M: prost::Message + Default + 'static>(
    name: &'static str,
    caught_by: &'static str,
    method: &'static str,
    change: impl Fn(&Call, &mut M) + Send + Sync + Copy + 'static,
) -> Broken {
    broken(name, caught_by, move |call| async move {
        let answer = call.forward().await;
        if call.is(method) {
            edit::<M>(answer, |message| change(&call, message))
        } else {
            answer
        }
    })
}

/// Changes the requests of one method.
fn asks<M: prost::Message + Default + 'static>(
    name: &'static str,
    caught_by: &'static str,
    method: &'static str,
    change: impl Fn(&Call, &mut M) + Send + Sync + Copy + 'static,
) -> Broken {
    broken(name, caught_by, move |call| async move {
        if call.is(method) {
            call.edited::<M>(|message| change(&call, message)).forward().await
        } else {
            call.forward().await
        }
    })
}

/// Answers one method as if all were well where it is refused with this code.
fn forgives(
    name: &'static str,
    caught_by: &'static str,
    method: &'static str,
    code: Code,
    instead: impl prost::Message,
) -> Broken {
    let instead = Bytes::from(instead.encode_to_vec());
    broken(name, caught_by, move |call| {
        let instead = instead.clone();
        async move {
            let answer = call.forward().await;
            if call.is(method) && answer.as_ref().is_err_and(|status| status.code() == code) {
                return Ok(instead);
            }
            answer
        }
    })
}

/// Changes every error.
fn errors(
    name: &'static str,
    caught_by: &'static str,
    change: impl Fn(&Call, Status) -> Status + Send + Sync + Copy + 'static,
) -> Broken {
    broken(name, caught_by, move |call| async move {
        call.forward().await.map_err(|status| change(&call, status))
    })
}

fn details(status: &Status) -> tonic_types::pb::Status {
    tonic_types::pb::Status::decode(status.details()).unwrap_or_default()
}

fn with_details(code: Code, message: &str, mut details: tonic_types::pb::Status) -> Status {
    details.code = code.into();
    Status::with_details(code, message, details.encode_to_vec().into())
}

fn change_detail<M: prost::Message + Default>(status: &Status, url: &str, change: impl Fn(&mut M)) -> Status {
    let mut details = details(status);
    for detail in details.details.iter_mut().filter(|detail| detail.type_url == url) {
        let mut message = M::decode(detail.value.as_slice()).unwrap_or_default();
        change(&mut message);
        detail.value = message.encode_to_vec();
    }
    with_details(status.code(), status.message(), details)
}

fn key_of(meta: Option<&v1::OperationMeta>) -> String {
    meta.map(|meta| meta.idempotency_key.clone()).unwrap_or_default()
}

fn suffix_key(meta: &mut Option<v1::OperationMeta>, suffix: &str) {
    if let Some(meta) = meta {
        // Keys have at most 64 bytes.
        meta.idempotency_key = format!(
            "{}{suffix}",
            &meta.idempotency_key[..meta.idempotency_key.len().min(50)]
        );
    }
}

fn token(credentials: Option<&v1::Credentials>) -> String {
    match credentials.and_then(|credentials| credentials.source.as_ref()) {
        Some(v1::credentials::Source::Data(data)) => data
            .entries
            .get("token")
            .map(|token| String::from_utf8_lossy(token).into_owned())
            .unwrap_or_default(),
        _ => String::new(),
    }
}

/// Every broken provider.
pub fn all() -> Vec<Broken> {
    [
        deletion(),
        creation(),
        reading(),
        listing(),
        identity(),
        errors_of_form(),
        secrets(),
        timing(),
        streams(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn deletion() -> Vec<Broken> {
    vec![
        broken(
            "says GONE before it deletes",
            "delete.gone-is-absent",
            |call| async move {
                if call.is("DeleteMachine") {
                    let gone = v1::DeleteMachineResponse {
                        state: DeletionState::Gone.into(),
                        ..Default::default()
                    };
                    return Ok(gone.encode_to_vec().into());
                }
                call.forward().await
            },
        ),
        answers(
            "leaks a disk",
            "delete.gone-leaves-no-artefact",
            "MachineExists",
            |call, answer: &mut v1::MachineExistsResponse| {
                let Some(status) = &mut answer.status else { return };
                let mut seen = call.memory.seen.lock().unwrap();
                let disk = status
                    .artefacts
                    .iter()
                    .find(|artefact| artefact.r#type == "disk")
                    .map(prost::Message::encode_to_vec);
                if let Some(disk) = disk {
                    let first = seen.entry("disk".to_owned()).or_insert(disk).clone();
                    let first = v1::Artefact::decode(first.as_slice()).unwrap();
                    status.artefacts.retain(|artefact| *artefact != first);
                    status.artefacts.push(first);
                }
            },
        ),
        forgives(
            "says GONE with credentials that are refused",
            "delete.bad-credentials",
            "DeleteMachine",
            Code::Unauthenticated,
            v1::DeleteMachineResponse {
                state: DeletionState::Gone.into(),
                ..Default::default()
            },
        ),
        broken(
            "lets a late create win over the delete",
            "delete.wins-over-late-create",
            |call| async move {
                if call.is("DeleteMachine") {
                    let request: v1::DeleteMachineRequest = call.decoded();
                    call.memory.keys.lock().unwrap().insert(key_of(request.meta.as_ref()));
                }
                rename_keys(&call, |key| {
                    call.memory.count.load(Ordering::SeqCst) == 0 && call.memory.keys.lock().unwrap().contains(key)
                })
                .forward()
                .await
            },
        ),
        answers(
            "forgets what is terminating",
            "delete.terminating-until-gone",
            "MachineExists",
            |_, answer: &mut v1::MachineExistsResponse| {
                if answer.presence() == Presence::Terminating {
                    answer.presence = Presence::Absent.into();
                    answer.status = None;
                }
            },
        ),
        broken(
            "answers NOT_FOUND to a delete of nothing",
            "delete.never-there",
            |call| async move {
                let answer = call.forward().await;
                if call.is("DeleteMachine")
                    && let Ok(bytes) = &answer
                    && v1::DeleteMachineResponse::decode(bytes.clone())
                        .is_ok_and(|gone| gone.state() == DeletionState::Gone)
                {
                    return Err(Status::not_found("there is no such machine"));
                }
                answer
            },
        ),
        broken(
            "deletes by name",
            "create.same-name-in-two-clusters",
            |call| async move { by_name(&call).forward().await },
        ),
    ]
}

/// The same call under another key, in create, exists and delete, when the key is one of those.
fn rename_keys(call: &Call, renamed: impl Fn(&str) -> bool) -> Call {
    const SUFFIX: &str = ".again";
    match call.method.as_str() {
        "CreateMachine" => call.edited::<v1::CreateMachineRequest>(|request| {
            if renamed(&key_of(request.meta.as_ref())) {
                suffix_key(&mut request.meta, SUFFIX);
            }
        }),
        "MachineExists" => call.edited::<v1::MachineExistsRequest>(|request| {
            if let Some(reference) = &mut request.r#ref
                && renamed(&reference.idempotency_key)
            {
                reference.idempotency_key.push_str(SUFFIX);
            }
        }),
        _ => call.clone(),
    }
}

/// The machine's name is its key: two clusters cannot have the same.
fn by_name(call: &Call) -> Call {
    let name = |ownership: Option<&v1::Ownership>| {
        ownership
            .map(|ownership| ownership.object_name.clone())
            .unwrap_or_default()
    };
    let shared = |ownership: &mut Option<v1::Ownership>| {
        if let Some(ownership) = ownership {
            ownership.object_uid.clone_from(&ownership.object_name);
        }
    };
    match call.method.as_str() {
        "CreateMachine" => call.edited::<v1::CreateMachineRequest>(|request| {
            let name = name(request.ownership.as_ref());
            shared(&mut request.ownership);
            // The cluster is no part of the identity either.
            let mut seen = call.memory.seen.lock().unwrap();
            if let (Some(meta), Some(ownership)) = (&mut request.meta, &mut request.ownership) {
                meta.idempotency_key.clone_from(&name);
                let first = seen.entry(name).or_insert(ownership.cluster_uid.clone().into_bytes());
                ownership.cluster_uid = String::from_utf8_lossy(first).into_owned();
            }
        }),
        "MachineExists" => {
            call.edited::<v1::MachineExistsRequest>(|request| rename_reference(call, &mut request.r#ref))
        }
        "DeleteMachine" => call.edited::<v1::DeleteMachineRequest>(|request| {
            rename_reference(call, &mut request.r#ref);
            if let (Some(meta), Some(reference)) = (&mut request.meta, &request.r#ref) {
                meta.idempotency_key.clone_from(&reference.idempotency_key);
            }
        }),
        _ => call.clone(),
    }
}

fn rename_reference(call: &Call, reference: &mut Option<v1::ResourceRef>) {
    let Some(reference) = reference else { return };
    let Some(ownership) = &mut reference.ownership else {
        return;
    };
    reference.idempotency_key.clone_from(&ownership.object_name);
    ownership.object_uid.clone_from(&ownership.object_name);
    if let Some(first) = call.memory.seen.lock().unwrap().get(&ownership.object_name) {
        ownership.cluster_uid = String::from_utf8_lossy(first).into_owned();
    }
}

fn creation() -> Vec<Broken> {
    vec![
        asks(
            "makes another machine on each replay",
            "create.replay-ten-times",
            "CreateMachine",
            |call, request: &mut v1::CreateMachineRequest| {
                let number = call.memory.count.fetch_add(1, Ordering::SeqCst);
                suffix_key(&mut request.meta, &format!(".{number}"));
            },
        ),
        broken("has no lock for a key", "create.twenty-at-once", |call| async move {
            if !call.is("CreateMachine") {
                return call.forward().await;
            }
            let others = call.memory.count.fetch_add(1, Ordering::SeqCst);
            let answer = call
                .edited::<v1::CreateMachineRequest>(|request| {
                    if others > 0 {
                        suffix_key(&mut request.meta, &format!(".{others}"));
                    }
                })
                .forward()
                .await;
            tokio::time::sleep(Duration::from_millis(50)).await;
            call.memory.count.fetch_sub(1, Ordering::SeqCst);
            answer
        }),
        broken(
            "forgets its keys in a restart",
            "crashes.replay-after-restart",
            |call| async move {
                let restarted = call.memory.restarted.load(Ordering::SeqCst);
                rename_keys(&call, |_| restarted).forward().await
            },
        ),
        forgives(
            "takes the same key for another spec",
            "create.key-conflict",
            "CreateMachine",
            Code::AlreadyExists,
            v1::CreateMachineResponse {
                status: Some(v1::MachineStatus {
                    provider_id: "fake:///zone-a/i-00000000000000000".to_owned(),
                    ..Default::default()
                }),
            },
        ),
        asks(
            "takes bootstrap data for a part of the spec",
            "create.rotated-bootstrap-data",
            "CreateMachine",
            |_, request: &mut v1::CreateMachineRequest| {
                if let (Some(spec), Some(bootstrap)) = (&mut request.spec, &request.bootstrap) {
                    spec.digest = sha256(&[spec.digest.as_slice(), &bootstrap.sha256].concat());
                }
            },
        ),
        asks(
            "takes the cluster's status for a part of the spec",
            "create.other-cluster-status",
            "CreateMachine",
            |_, request: &mut v1::CreateMachineRequest| {
                if let Some(spec) = &mut request.spec {
                    let cluster = spec
                        .cluster
                        .as_ref()
                        .map(prost::Message::encode_to_vec)
                        .unwrap_or_default();
                    spec.digest = sha256(&[spec.digest.as_slice(), &cluster].concat());
                }
            },
        ),
        asks(
            "cuts bootstrap data that is too large",
            "create.bootstrap-above-the-limit",
            "CreateMachine",
            |_, request: &mut v1::CreateMachineRequest| {
                if let Some(bootstrap) = &mut request.bootstrap
                    && bootstrap.sha256 == sha256(&bootstrap.data)
                {
                    bootstrap.data.truncate(1000);
                    bootstrap.sha256 = sha256(&bootstrap.data);
                }
            },
        ),
        asks(
            "does not look at digests of configs",
            "create.config-digest",
            "CreateMachine",
            |_, request: &mut v1::CreateMachineRequest| {
                if let Some(config) = request.spec.as_mut().and_then(|spec| spec.config.as_mut()) {
                    config.sha256 = sha256(&config.json);
                }
            },
        ),
        asks(
            "does not fence",
            "create.stale-fencing-epoch",
            "CreateMachine",
            |_, request: &mut v1::CreateMachineRequest| {
                if let Some(meta) = &mut request.meta {
                    meta.fencing_epoch = 0;
                }
            },
        ),
        answers(
            "makes up ids of another form",
            "create.answers-with-an-id",
            "CreateMachine",
            |_, answer: &mut v1::CreateMachineResponse| {
                if let Some(status) = &mut answer.status {
                    status.provider_id = status.provider_id.replace("fake://", "cloud://");
                }
            },
        ),
        forgives(
            "replaces what it cannot change",
            "update.replace-required",
            "UpdateMachine",
            Code::FailedPrecondition,
            v1::UpdateMachineResponse::default(),
        ),
        forgives(
            "says that it updated nothing",
            "update.not-there",
            "UpdateMachine",
            Code::NotFound,
            v1::UpdateMachineResponse::default(),
        ),
    ]
}

fn reading() -> Vec<Broken> {
    vec![
        broken(
            "answers NOT_FOUND for Exists",
            "exists.absent-for-unknown-keys",
            |call| async move {
                let answer = call.forward().await;
                if call.is("MachineExists")
                    && let Ok(bytes) = &answer
                    && v1::MachineExistsResponse::decode(bytes.clone())
                        .is_ok_and(|found| found.presence() == Presence::Absent)
                {
                    return Err(Status::not_found("there is no such machine"));
                }
                answer
            },
        ),
        broken(
            "finds machines by their id only",
            "exists.present-by-key-alone",
            |call| async move {
                let answer = call.forward().await;
                if call.is("MachineExists") {
                    let request: v1::MachineExistsRequest = call.decoded();
                    if request.r#ref.is_some_and(|reference| reference.provider_id.is_empty()) {
                        return edit::<v1::MachineExistsResponse>(answer, |answer| {
                            *answer = v1::MachineExistsResponse {
                                presence: Presence::Absent.into(),
                                status: None,
                            };
                        });
                    }
                }
                answer
            },
        ),
        forgives(
            "takes refused credentials for absence",
            "exists.bad-credentials",
            "MachineExists",
            Code::Unauthenticated,
            v1::MachineExistsResponse {
                presence: Presence::Absent.into(),
                status: None,
            },
        ),
        answers(
            "keeps a provider_state of 20 KiB",
            "create.status-is-well-formed",
            "MachineExists",
            |_, answer: &mut v1::MachineExistsResponse| {
                if let Some(status) = &mut answer.status {
                    status.provider_state = vec![b's'; 20 * 1024];
                }
            },
        ),
        answers(
            "changes a machine's id",
            "create.becomes-running",
            "MachineExists",
            |_, answer: &mut v1::MachineExistsResponse| {
                if let Some(status) = &mut answer.status
                    && status.phase() == v1::MachinePhase::Running
                {
                    status.provider_id.push_str("-now");
                }
            },
        ),
    ]
}

fn listing() -> Vec<Broken> {
    vec![
        answers(
            "leaves a machine out of the list",
            "list.has-every-machine",
            "ListMachines",
            |_, answer: &mut v1::ListMachinesResponse| {
                answer.machines.pop();
            },
        ),
        asks(
            "does not look at the page size",
            "list.page-size-is-a-bound",
            "ListMachines",
            |_, request: &mut v1::ListMachinesRequest| {
                if let Some(page) = &mut request.page {
                    page.page_size = 0;
                }
            },
        ),
        asks(
            "lists what is another's",
            "list.other-management-cluster",
            "ListMachines",
            |_, request: &mut v1::ListMachinesRequest| {
                request.management_cluster_id = request.management_cluster_id.trim_end_matches("-other").to_owned();
            },
        ),
        answers(
            "forgets the owner in the list",
            "list.ownership-is-complete",
            "ListMachines",
            |_, answer: &mut v1::ListMachinesResponse| {
                for machine in &mut answer.machines {
                    if let Some(ownership) = &mut machine.ownership {
                        ownership.object_uid.clear();
                    }
                }
            },
        ),
        answers(
            "puts a member in twice",
            "endpoint.sets-members",
            "SetEndpointMembers",
            |_, answer: &mut v1::SetEndpointMembersResponse| {
                let first = answer.members.first().cloned();
                answer.members.extend(first);
            },
        ),
        asks(
            "adds members and takes none out",
            "endpoint.full-set",
            "SetEndpointMembers",
            |call, request: &mut v1::SetEndpointMembersRequest| {
                let mut seen = call.memory.seen.lock().unwrap();
                for member in &request.members {
                    seen.insert(member.idempotency_key.clone(), member.encode_to_vec());
                }
                request.members = seen
                    .values()
                    .map(|member| v1::EndpointMember::decode(member.as_slice()).unwrap())
                    .collect();
            },
        ),
        answers(
            "has a machine type without memory",
            "machine-types.are-complete",
            "ListMachineTypes",
            |_, answer: &mut v1::ListMachineTypesResponse| {
                if let Some(kind) = answer.machine_types.first_mut() {
                    kind.memory_bytes = 0;
                }
            },
        ),
    ]
}

fn identity() -> Vec<Broken> {
    vec![
        answers(
            "has another instance_id on each call",
            "discovery.instance-id-stays",
            "GetProtocols",
            |call, answer: &mut GetProtocolsResponse| {
                answer.instance_id = format!("instance-{}", call.memory.count.fetch_add(1, Ordering::SeqCst));
            },
        ),
        answers(
            "has two names",
            "identity.agrees-with-discovery",
            "GetProtocols",
            |_, answer: &mut GetProtocolsResponse| {
                answer.name.push('x');
            },
        ),
        answers(
            "hides a capability that it has",
            "transport.not-advertised",
            "GetInfo",
            |_, answer: &mut v1::GetInfoResponse| {
                if let Some(capabilities) = &mut answer.capabilities {
                    capabilities.list_machines = None;
                }
            },
        ),
        answers(
            "sends another digest with its schema",
            "schema.digest",
            "GetConfigSchema",
            |_, answer: &mut v1::GetConfigSchemaResponse| {
                answer.sha256 = vec![0; 32];
            },
        ),
        answers(
            "takes unknown keys",
            "validation.unknown-keys",
            "ValidateConfig",
            |_, answer: &mut v1::ValidateConfigResponse| {
                answer.diagnostics.clear();
            },
        ),
        answers(
            "points nowhere",
            "validation.invalid-configs",
            "ValidateConfig",
            |_, answer: &mut v1::ValidateConfigResponse| {
                for found in &mut answer.diagnostics {
                    found.json_pointer.clear();
                }
            },
        ),
        asks(
            "floats its integers",
            "validation.integers-stay-exact",
            "ValidateConfig",
            |_, request: &mut v1::ValidateConfigRequest| {
                if let Some(config) = &mut request.config {
                    let text = String::from_utf8_lossy(&config.json).replace("9007199254740993", "9007199254740992");
                    config.json = text.into_bytes();
                    config.sha256 = sha256(&config.json);
                }
            },
        ),
        broken("is not served by its health", "health.overall", |call| async move {
            let answer = call.forward().await;
            if call.is("Check") {
                // HealthCheckResponse.status = NOT_SERVING.
                return Ok(Bytes::from_static(&[0x08, 0x02]));
            }
            answer
        }),
        answers(
            "has bootstrap data of two megabytes",
            "identity.bootstrap-limit",
            "GetInfo",
            |_, answer: &mut v1::GetInfoResponse| {
                if let Some(limits) = &mut answer.limits {
                    limits.max_bootstrap_bytes = 2 * 1024 * 1024;
                }
            },
        ),
    ]
}

fn errors_of_form() -> Vec<Broken> {
    vec![
        errors(
            "sends errors without ErrorInfo",
            "errors.one-error-info",
            |_, status| Status::new(status.code(), status.message()),
        ),
        errors("speaks of another domain", "errors.domain", |_, status| {
            change_detail(&status, TYPE_ERROR_INFO, |info: &mut tonic_types::pb::ErrorInfo| {
                info.domain = "example.com".into();
            })
        }),
        errors("makes up a reason", "errors.registered-reason", |_, status| {
            change_detail(&status, TYPE_ERROR_INFO, |info: &mut tonic_types::pb::ErrorInfo| {
                info.reason = "OUT_OF_COFFEE".into();
            })
        }),
        errors("has one code for all", "errors.code-of-reason", |_, status| {
            with_details(Code::Internal, status.message(), details(&status))
        }),
        errors("does not tell the effect", "errors.effect-is-told", |_, status| {
            let mut details = details(&status);
            details
                .details
                .retain(|detail| detail.type_url != TYPE_OPERATION_OUTCOME);
            with_details(status.code(), status.message(), details)
        }),
        errors(
            "tells an effect that cannot be",
            "errors.effect-is-allowed",
            |_, status| {
                change_detail(&status, TYPE_OPERATION_OUTCOME, |outcome: &mut v1::OperationOutcome| {
                    outcome.effect = Effect::Partial.into();
                })
            },
        ),
        errors("sends a status of 100 KiB", "errors.status-is-small", |_, status| {
            let mut details = details(&status);
            details.details.push(Any {
                type_url: "type.example.com/Stack".to_owned(),
                value: vec![b's'; 100 * 1024],
            });
            with_details(status.code(), status.message(), details)
        }),
        errors("sends a message of 2 KiB", "errors.message-is-short", |_, status| {
            with_details(status.code(), &"m".repeat(2048), details(&status))
        }),
        errors("disagrees with its details", "errors.details-agree", |_, status| {
            let mut details = details(&status);
            details.code = 999;
            Status::with_details(status.code(), status.message(), details.encode_to_vec().into())
        }),
        errors("waits for less than nothing", "errors.retry-info", |_, status| {
            let retry = tonic_types::pb::RetryInfo {
                retry_delay: Some(prost_types::Duration { seconds: -1, nanos: 0 }),
            };
            let mut details = details(&status);
            details.details.push(Any {
                type_url: TYPE_RETRY_INFO.to_owned(),
                value: retry.encode_to_vec(),
            });
            with_details(status.code(), status.message(), details)
        }),
        broken(
            "says that nothing was done when it was",
            "create.invalid-config",
            |call| async move {
                if call.is("CreateMachine") {
                    let request: v1::CreateMachineRequest = call.decoded();
                    let mut made = request.clone();
                    if let Some(config) = made.spec.as_mut().and_then(|spec| spec.config.as_mut()) {
                        config.json = br#"{"machineType":"fake.small"}"#.to_vec();
                        config.sha256 = sha256(&config.json);
                    }
                    let refused = call.forward().await;
                    if refused.is_err() {
                        call.with(&made).forward().await?;
                    }
                    return refused;
                }
                call.forward().await
            },
        ),
    ]
}

fn secrets() -> Vec<Broken> {
    vec![
        errors(
            "echoes a secret in errors",
            "security.errors-hold-no-secret",
            |call, status| {
                let secret = match call.method.as_str() {
                    "CreateMachine" => {
                        let request: v1::CreateMachineRequest = call.decoded();
                        token(request.credentials.as_ref())
                    }
                    "MachineExists" => {
                        let request: v1::MachineExistsRequest = call.decoded();
                        token(request.credentials.as_ref())
                    }
                    _ => return status,
                };
                let message = format!("{}: {secret}", status.message());
                with_details(status.code(), &message, details(&status))
            },
        ),
        answers(
            "keeps a secret in provider_state",
            "security.status-holds-no-secret",
            "CreateMachine",
            |call, answer: &mut v1::CreateMachineResponse| {
                let request: v1::CreateMachineRequest = call.decoded();
                if let (Some(status), Some(bootstrap)) = (&mut answer.status, request.bootstrap) {
                    status.provider_state = bootstrap.data;
                }
            },
        ),
        Broken {
            name: "lets everybody connect",
            caught_by: "security.socket-mode",
            fault: Arc::new(OpenSocket),
        },
    ]
}

struct OpenSocket;

impl Fault for OpenSocket {
    fn unary(&self, call: Call) -> std::pin::Pin<Box<dyn Future<Output = Answer> + Send>> {
        async move { call.forward().await }.boxed()
    }

    fn socket_mode(&self) -> u32 {
        0o777
    }
}

fn timing() -> Vec<Broken> {
    vec![
        broken(
            "ignores deadlines",
            "transport.short-deadline-ends",
            |call| async move {
                if call.is("CreateMachine") {
                    tokio::time::sleep(Duration::from_secs(4)).await;
                }
                call.forward().await
            },
        ),
        broken(
            "blocks reads behind creates",
            "concurrency.reads-beside-creates",
            |call| async move {
                let held = call.memory.clone();
                let _lock = held.lock.lock().await;
                if call.is("CreateMachine") {
                    tokio::time::sleep(Duration::from_secs(4)).await;
                }
                call.forward().await
            },
        ),
        broken(
            "asks its cloud when it is probed",
            "identity.probe-is-answered",
            |call| async move {
                if call.is("Probe") {
                    tokio::time::sleep(Duration::from_secs(5)).await;
                }
                call.forward().await
            },
        ),
        broken(
            "forgets a create whose caller went away",
            "transport.short-deadline-resolves",
            |call| async move {
                // The first is answered with what never was made.
                if call.is("CreateMachine") && call.memory.count.fetch_add(1, Ordering::SeqCst) == 1 {
                    return call
                        .edited::<v1::CreateMachineRequest>(|request| suffix_key(&mut request.meta, ".second"))
                        .forward()
                        .await;
                }
                call.forward().await
            },
        ),
    ]
}

struct Streamed<F>(F);

impl<F> Fault for Streamed<F>
where
    F: Fn(Bytes) -> Option<Bytes> + Send + Sync + Clone + 'static,
{
    fn unary(&self, call: Call) -> std::pin::Pin<Box<dyn Future<Output = Answer> + Send>> {
        async move { call.forward().await }.boxed()
    }

    fn stream(
        &self,
        call: Call,
    ) -> std::pin::Pin<Box<dyn Future<Output = Result<futures::stream::BoxStream<'static, Answer>, Status>> + Send>>
    {
        let change = self.0.clone();
        async move {
            let stream = call.forward_stream().await?;
            let changed = stream.filter_map(move |chunk| {
                std::future::ready(match chunk {
                    Ok(chunk) => change(chunk).map(Ok),
                    Err(status) => Some(Err(status)),
                })
            });
            Ok(changed.boxed())
        }
        .boxed()
    }
}

fn streamed(
    name: &'static str,
    caught_by: &'static str,
    change: impl Fn(Bytes) -> Option<Bytes> + Send + Sync + Clone + 'static,
) -> Broken {
    Broken {
        name,
        caught_by,
        fault: Arc::new(Streamed(change)),
    }
}

fn streams() -> Vec<Broken> {
    let event = |chunk: &Bytes| {
        v1::WatchMachinesResponse::decode(chunk.clone())
            .ok()
            .and_then(|answer| answer.event)
    };
    vec![
        streamed(
            "never says that it is synced",
            "watch.snapshot-then-synced",
            move |chunk| (!matches!(event(&chunk), Some(Event::Synced(_)))).then_some(chunk),
        ),
        streamed(
            "does not tell what is gone",
            "watch.tells-gone-machines",
            move |chunk| (!matches!(event(&chunk), Some(Event::Gone(_)))).then_some(chunk),
        ),
        streamed("streams chunks of 100 KiB", "console.is-streamed", |_| {
            Some(
                v1::GetConsoleOutputResponse {
                    chunk: vec![b'c'; 100 * 1024],
                }
                .encode_to_vec()
                .into(),
            )
        }),
    ]
}
