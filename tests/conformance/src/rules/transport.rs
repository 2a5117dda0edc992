//! What is below the messages: deadlines, sizes, unknown fields, garbage, connections that
//! break.

use std::time::Duration;

use actuator_proto::limits::{
    MAX_CONFIG_BYTES, MAX_MESSAGE_BYTES, MAX_PROVIDER_ID_BYTES, MAX_PROVIDER_STATE_BYTES, MAX_STRING_BYTES,
};
use actuator_proto::v1::{self, ConfigTarget, ErrorReason, Presence};
use bytes::Bytes;
use prost::Message as _;
use tokio::io::AsyncWriteExt as _;
use tonic::{Code, Status};

use crate::calls::{Rpc, show_status};
use crate::context::{Context, Expected as _};
use crate::dial::Endpoint;
use crate::holds;
use crate::requests;
use crate::rule::{
    Rule,
    Severity::{Critical, Major, Minor},
    Stop, Verdict,
};

const MINUTE: Duration = Duration::from_mins(1);
/// A deadline that no cloud call fits into.
const SHORT: Duration = Duration::from_millis(50);
/// A field number that no message has; varint 1.
const UNKNOWN_FIELD: [u8; 4] = [0xf8, 0xff, 0x07, 0x01];

pub fn rules() -> Vec<Rule> {
    vec![
        Rule::required("transport.authority-is-localhost", Major, "Calls with the authority localhost are served.", authority),
        Rule::required("transport.short-deadline-ends", Major, "A call ends soon after its deadline, whatever the cloud is doing.", short_deadline).machines(1),
        Rule::required("transport.short-deadline-resolves", Critical, "After a create that met a deadline of 50 ms, Exists by key tells what became of it, and a replay returns the same machine.", deadline_resolves).machines(1),
        Rule::required("transport.dropped-call-goes-on", Critical, "A create whose caller went away goes on to a safe point, and its key finds it.", dropped).machines(1),
        Rule::required("transport.cut-connection-goes-on", Critical, "A create whose connection was cut goes on to a safe point, and its key finds it.", cut).machines(1),
        Rule::required("transport.message-too-large", Major, "A message above 4 MiB is refused, and the connection lives on.", too_large),
        Rule::required("transport.config-at-the-limit", Minor, "A config of exactly 256 KiB is read.", config_at_limit),
        Rule::required("transport.config-above-the-limit", Minor, "A config of 256 KiB and one byte is refused with LIMIT_EXCEEDED.", config_above_limit),
        Rule::required("transport.string-above-the-limit", Minor, "A string of 257 bytes is refused with LIMIT_EXCEEDED or INVALID_FIELD.", string_above_limit),
        Rule::required("transport.string-at-the-limit", Minor, "A string of 256 bytes is not refused for its size.", string_at_limit),
        Rule::required("transport.provider-id-above-the-limit", Minor, "A provider_id of 513 bytes is refused as malformed.", id_above_limit),
        Rule::required("transport.state-above-the-limit", Minor, "A provider_state of 16 KiB and one byte is refused with LIMIT_EXCEEDED.", state_above_limit),
        Rule::required("transport.state-at-the-limit", Major, "A provider_state of 16 KiB that is none of its own is no reason to fail: it is a hint.", state_at_limit),
        Rule::required("transport.unknown-fields", Major, "Unknown fields of a request are ignored.", unknown_fields),
        Rule::required("transport.unknown-fields-in-create", Major, "Unknown fields of a create are ignored.", unknown_fields_create).machines(1),
        Rule::required("transport.unknown-enum-values", Major, "An unknown validation mode is read as STATIC.", unknown_enum),
        Rule::required("transport.garbage-message", Major, "A message that is none is refused, and the provider goes on.", garbage_message),
        Rule::required("transport.garbage-connection", Major, "Bytes that are no HTTP/2 end their connection and no other.", garbage_connection),
        Rule::required("transport.empty-messages", Major, "An empty message to each required RPC is refused as the table says, and the provider goes on.", empty_messages),
        Rule::required("transport.unknown-rpc", Minor, "An RPC that is not there is UNIMPLEMENTED.", unknown_rpc),
        Rule::required("transport.not-advertised", Major, "An RPC whose capability is not advertised is UNIMPLEMENTED.", not_advertised),
        Rule::required("transport.many-connections", Minor, "Thirty-two connections at once are served.", many_connections),
        Rule::required("transport.many-streams", Minor, "Sixty-four calls at once on one connection are served.", many_streams),
        Rule::required("transport.trace-context", Minor, "traceparent and tracestate in the metadata disturb nothing.", trace_context),
    ]
}

async fn authority(context: Context) -> Verdict {
    let origin = context.calls.connection().origin.clone();
    if origin.host() != Some("localhost") {
        return Err(Stop::inapplicable("the endpoint has a name of its own"));
    }
    context.ask(v1::GetInfoRequest {}).await.map(|_| ())
}

async fn short_deadline(context: Context) -> Verdict {
    let cluster = context.cluster().await?;
    let request = context.create_machine(&cluster, "deadline");
    // Ended by an answer, by the server or by us: what counts is that it ends. The call
    // itself notices when it does not.
    let late_before = context.calls.shared().noticed.lock().late.len();
    let _ = context.calls.call_within(request.clone(), SHORT).await;
    let _ = context
        .calls
        .call_within(requests::machine_exists(&request), SHORT)
        .await;
    let _ = context
        .calls
        .call_within(requests::delete_machine(&request), SHORT)
        .await;
    let late = context
        .calls
        .shared()
        .noticed
        .lock()
        .late
        .get(late_before..)
        .unwrap_or_default()
        .to_vec();
    let ours: Vec<&String> = late
        .iter()
        .filter(|words| words.contains(&format!("{SHORT:?}")))
        .collect();
    holds!(
        ours.is_empty(),
        "{}",
        ours.iter().map(|words| words.as_str()).collect::<Vec<_>>().join("; ")
    );
    Ok(())
}

/// After a create of which no answer was seen: either way it ends, the key must tell.
async fn resolves(context: &Context, request: &v1::CreateMachineRequest) -> Verdict {
    // A safe point may be a moment away, and reads may lag for the window that is told.
    tokio::time::sleep(context.read_after_write() + Duration::from_millis(200)).await;
    let answer = context.exists(request).await?;
    holds!(
        matches!(answer.presence(), Presence::Present | Presence::Absent),
        "Exists answered {}",
        answer.presence().as_str_name()
    );
    let replayed = context.create(request).await?;
    if answer.presence() == Presence::Present {
        let found = answer.status.unwrap_or_default().provider_id;
        holds!(
            replayed.provider_id == found,
            "Exists found {found:?}, the replay returned {:?}",
            replayed.provider_id
        );
    }
    let again = context.create(request).await?;
    holds!(
        again.provider_id == replayed.provider_id,
        "two replays returned {:?} and {:?}",
        replayed.provider_id,
        again.provider_id
    );
    Ok(())
}

async fn deadline_resolves(context: Context) -> Verdict {
    let cluster = context.cluster().await?;
    let request = context.create_machine(&cluster, "short");
    let _ = context.calls.call_within(request.clone(), SHORT).await;
    resolves(&context, &request).await
}

async fn dropped(context: Context) -> Verdict {
    let cluster = context.cluster().await?;
    let request = context.create_machine(&cluster, "dropped");
    // The future is dropped: the stream is reset while the provider is at work.
    let _ = tokio::time::timeout(Duration::from_millis(20), context.calls.call(request.clone())).await;
    resolves(&context, &request).await
}

async fn cut(context: Context) -> Verdict {
    let cluster = context.cluster().await?;
    let request = context.create_machine(&cluster, "cut");
    let other = context.connection().await?;
    let (call, ()) = tokio::join!(other.call(request.clone()), async {
        tokio::time::sleep(Duration::from_millis(20)).await;
        other.connection().cut();
    });
    // Whether it was answered before the cut is chance.
    drop(call);
    resolves(&context, &request).await
}

async fn too_large(context: Context) -> Verdict {
    let request = v1::ValidateConfigRequest {
        config: Some(requests::opaque("x", "v1", vec![b' '; MAX_MESSAGE_BYTES + 1])),
        ..Default::default()
    };
    let answer = context.calls.call(request).await;
    // The library refuses before the provider reads: its code depends on the language.
    let codes = [
        Code::OutOfRange,
        Code::ResourceExhausted,
        Code::InvalidArgument,
        Code::Cancelled,
        Code::Internal,
        Code::Unavailable,
    ];
    context.code(answer, &codes, "a message above 4 MiB")?;
    context.ask(v1::GetInfoRequest {}).await.map(|_| ())
}

/// A valid config of exactly so many bytes: white space is no part of the JSON.
fn padded(context: &Context, bytes: usize) -> v1::OpaqueConfig {
    let mut json = context.configs(ConfigTarget::Machine).valid.to_string().into_bytes();
    json.resize(bytes, b' ');
    context.opaque_bytes(ConfigTarget::Machine, json)
}

async fn config_at_limit(context: Context) -> Verdict {
    let request = v1::ValidateConfigRequest {
        config: Some(padded(&context, MAX_CONFIG_BYTES)),
        mode: v1::ValidationMode::Static.into(),
        ..Default::default()
    };
    let answer = context.ask(request).await?;
    let worst = answer
        .diagnostics
        .iter()
        .find(|found| found.severity() != v1::Severity::Warning);
    holds!(worst.is_none(), "it was found invalid: {worst:?}");
    Ok(())
}

async fn config_above_limit(context: Context) -> Verdict {
    let request = v1::ValidateConfigRequest {
        config: Some(padded(&context, MAX_CONFIG_BYTES + 1)),
        mode: v1::ValidationMode::Static.into(),
        ..Default::default()
    };
    let answer = context.calls.call(request).await;
    context
        .refused(answer, &[ErrorReason::LimitExceeded], "a config above 256 KiB")
        .map(|_| ())
}

fn some_machine(context: &Context) -> v1::CreateMachineRequest {
    let cluster = requests::Cluster {
        uid: requests::new_key(),
        request: v1::CreateClusterRequest::default(),
        status: v1::ClusterStatus::default(),
    };
    context.create_machine(&cluster, "nowhere")
}

async fn string_above_limit(context: Context) -> Verdict {
    let mut request = requests::machine_exists(&some_machine(&context));
    if let Some(ownership) = request
        .r#ref
        .as_mut()
        .and_then(|reference| reference.ownership.as_mut())
    {
        ownership.namespace = "n".repeat(MAX_STRING_BYTES + 1);
    }
    let answer = context.calls.call(request).await;
    context
        .refused(
            answer,
            &[ErrorReason::LimitExceeded, ErrorReason::InvalidField],
            "a string above 256 bytes",
        )
        .map(|_| ())
}

async fn string_at_limit(context: Context) -> Verdict {
    let mut request = requests::machine_exists(&some_machine(&context));
    if let Some(ownership) = request
        .r#ref
        .as_mut()
        .and_then(|reference| reference.ownership.as_mut())
    {
        ownership.namespace = "n".repeat(MAX_STRING_BYTES);
    }
    let answer = context.settle(request, MINUTE).await?;
    holds!(
        answer.presence() == Presence::Absent,
        "it is {}",
        answer.presence().as_str_name()
    );
    Ok(())
}

async fn id_above_limit(context: Context) -> Verdict {
    let mut request = requests::machine_exists(&some_machine(&context));
    if let Some(reference) = &mut request.r#ref {
        let prefix = &context.info.provider_id_prefix;
        reference.provider_id = format!("{prefix}{}", "x".repeat(MAX_PROVIDER_ID_BYTES + 1 - prefix.len()));
    }
    let answer = context.calls.call(request).await;
    let reasons = [ErrorReason::MalformedProviderId, ErrorReason::LimitExceeded];
    context
        .refused(answer, &reasons, "a provider_id of 513 bytes")
        .map(|_| ())
}

async fn state_above_limit(context: Context) -> Verdict {
    let mut request = requests::machine_exists(&some_machine(&context));
    request.provider_state = vec![b's'; MAX_PROVIDER_STATE_BYTES + 1];
    let answer = context.calls.call(request).await;
    context
        .refused(answer, &[ErrorReason::LimitExceeded], "a provider_state above 16 KiB")
        .map(|_| ())
}

async fn state_at_limit(context: Context) -> Verdict {
    let mut request = requests::machine_exists(&some_machine(&context));
    request.provider_state = vec![b's'; MAX_PROVIDER_STATE_BYTES];
    match context.calls.call(request).await {
        Ok(answer) => {
            holds!(
                answer.presence() == Presence::Absent,
                "it is {}",
                answer.presence().as_str_name()
            );
            Ok(())
        }
        // The one thing that a provider may say about a state that it cannot read.
        Err(status) => context
            .refused::<()>(
                Err(status),
                &[ErrorReason::StateVersionUnsupported],
                "a provider_state of 16 KiB",
            )
            .map(|_| ()),
    }
}

async fn unknown_fields(context: Context) -> Verdict {
    for path in [
        "/actuator.discovery.v1.DiscoveryService/GetProtocols",
        "/actuator.v1.IdentityService/GetInfo",
    ] {
        let answer = context
            .calls
            .raw(path, Bytes::from_static(&UNKNOWN_FIELD), Duration::from_secs(5))
            .await;
        answer.expected(path)?;
    }
    Ok(())
}

async fn unknown_fields_create(context: Context) -> Verdict {
    let cluster = context.cluster().await?;
    let request = context.create_machine(&cluster, "fields");
    // Made once in the usual way, so that the key is in the ledger; then with more fields.
    let known = context.create(&request).await?;
    let mut bytes = request.encode_to_vec();
    bytes.extend_from_slice(&UNKNOWN_FIELD);
    let answer = context
        .calls
        .raw("/actuator.v1.MachineService/CreateMachine", bytes.into(), MINUTE)
        .await;
    let answer = answer.expected("a replay with an unknown field")?;
    let answer = v1::CreateMachineResponse::decode(answer).map_err(Stop::broken)?;
    let id = answer.status.unwrap_or_default().provider_id;
    holds!(
        id == known.provider_id,
        "it returned {id:?} instead of {:?}",
        known.provider_id
    );
    Ok(())
}

async fn unknown_enum(context: Context) -> Verdict {
    let request = v1::ValidateConfigRequest {
        config: Some(context.valid(ConfigTarget::Machine)),
        mode: 99,
        ..Default::default()
    };
    context.ask(request).await.map(|_| ())
}

async fn lives(context: &Context) -> Verdict {
    context
        .with(context.connection().await?)
        .ask(v1::ProbeRequest {})
        .await
        .map(|_| ())
}

async fn garbage_message(context: Context) -> Verdict {
    for path in [
        "/actuator.v1.MachineService/CreateMachine",
        "/actuator.v1.MachineService/DeleteMachine",
        "/actuator.v1.IdentityService/ValidateConfig",
    ] {
        // A length that goes beyond the end, and a wire type that is none.
        for garbage in [&[0x0a, 0xff, 0xff, 0xff, 0x7f][..], &[0xff; 64], &[0x0f, 0x01]] {
            let answer = context
                .calls
                .raw(path, Bytes::copy_from_slice(garbage), Duration::from_secs(5))
                .await;
            holds!(answer.is_err(), "{path} took {garbage:?}");
        }
    }
    lives(&context).await
}

async fn garbage_connection(context: Context) -> Verdict {
    let bytes: Vec<u8> = (0..4096_u32)
        .map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect();
    for garbage in [
        &b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"[..],
        &bytes,
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\xff\xff\xff\xff\xff",
    ] {
        let written: std::io::Result<()> = match &context.suite.endpoint {
            Endpoint::Unix(path) => {
                async { tokio::net::UnixStream::connect(path).await?.write_all(garbage).await }.await
            }
            Endpoint::Tcp(address) => {
                async { tokio::net::TcpStream::connect(address).await?.write_all(garbage).await }.await
            }
            Endpoint::Https(_) => return Err(Stop::inapplicable("TLS keeps garbage away")),
        };
        // The provider may close before it has read all.
        drop(written);
    }
    context.ask(v1::ProbeRequest {}).await?;
    lives(&context).await
}

async fn empty<R: Rpc>(context: &Context) -> Verdict {
    let path = format!("/{}/{}", R::SERVICE, R::METHOD);
    let answer = context.calls.raw(&path, Bytes::new(), Duration::from_secs(20)).await;
    context
        .refused(answer, &[ErrorReason::InvalidField], &format!("an empty {}", R::METHOD))
        .map(|_| ())
}

async fn empty_messages(context: Context) -> Verdict {
    empty::<v1::GetConfigSchemaRequest>(&context).await?;
    empty::<v1::ValidateConfigRequest>(&context).await?;
    empty::<v1::CreateClusterRequest>(&context).await?;
    empty::<v1::UpdateClusterRequest>(&context).await?;
    empty::<v1::DeleteClusterRequest>(&context).await?;
    empty::<v1::ClusterExistsRequest>(&context).await?;
    empty::<v1::CreateMachineRequest>(&context).await?;
    empty::<v1::UpdateMachineRequest>(&context).await?;
    empty::<v1::DeleteMachineRequest>(&context).await?;
    empty::<v1::MachineExistsRequest>(&context).await?;
    lives(&context).await
}

async fn unknown_rpc(context: Context) -> Verdict {
    for path in [
        "/actuator.v1.MachineService/NoSuchMethod",
        "/actuator.v99.MachineService/CreateMachine",
    ] {
        let answer = context.calls.raw(path, Bytes::new(), Duration::from_secs(5)).await;
        context.code(answer, &[Code::Unimplemented], path)?;
    }
    Ok(())
}

async fn not_advertised(context: Context) -> Verdict {
    let capabilities = context.info.capabilities.unwrap_or_default();
    let calls = &context.calls;
    let mut looked = 0;
    let mut check = |what: &str, answer: Result<(), Status>| {
        looked += 1;
        context.code(answer, &[Code::Unimplemented], what).map(|_| ())
    };
    if capabilities.list_machines.is_none() {
        check(
            "ListMachines",
            calls.call(v1::ListMachinesRequest::default()).await.map(|_| ()),
        )?;
    }
    if capabilities.list_clusters.is_none() {
        check(
            "ListClusters",
            calls.call(v1::ListClustersRequest::default()).await.map(|_| ()),
        )?;
    }
    if capabilities.endpoint_members.is_none() {
        check(
            "SetEndpointMembers",
            calls.call(v1::SetEndpointMembersRequest::default()).await.map(|_| ()),
        )?;
    }
    if capabilities.machine_types.is_none() {
        check(
            "ListMachineTypes",
            calls.call(v1::ListMachineTypesRequest::default()).await.map(|_| ()),
        )?;
    }
    // A stream may open before it is refused.
    if capabilities.watch_machines.is_none() {
        check(
            "WatchMachines",
            first(calls.stream(v1::WatchMachinesRequest::default()).await).await,
        )?;
    }
    if capabilities.console_output.is_none() {
        check(
            "GetConsoleOutput",
            first(calls.stream(v1::GetConsoleOutputRequest::default()).await).await,
        )?;
    }
    if looked == 0 {
        return Err(Stop::inapplicable("every capability is advertised"));
    }
    Ok(())
}

async fn first<R: Rpc>(opened: Result<crate::calls::Stream<R>, Status>) -> Result<(), Status> {
    match opened?.next(Duration::from_secs(5)).await {
        Some(Err(status)) => Err(status),
        _ => Ok(()),
    }
}

async fn many_connections(context: Context) -> Verdict {
    let asked = (0..32).map(|_| async { context.with(context.connection().await?).ask(v1::ProbeRequest {}).await });
    futures::future::try_join_all(asked).await.map(|_| ())
}

async fn many_streams(context: Context) -> Verdict {
    let asked = (0..64).map(|_| context.ask(v1::GetInfoRequest {}));
    futures::future::try_join_all(asked).await.map(|_| ())
}

async fn trace_context(context: Context) -> Verdict {
    let mut grpc = tonic::client::Grpc::with_origin(
        context.calls.connection().clone(),
        context.calls.connection().origin.clone(),
    );
    grpc.ready().await.expected("the connection")?;
    let mut request = tonic::Request::new(Bytes::new());
    request.set_timeout(Duration::from_secs(5));
    let metadata = request.metadata_mut();
    metadata.insert(
        "traceparent",
        tonic::metadata::MetadataValue::from_static("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
    );
    metadata.insert(
        "tracestate",
        tonic::metadata::MetadataValue::from_static("conformance=1"),
    );
    let path = http::uri::PathAndQuery::from_static("/actuator.v1.IdentityService/GetInfo");
    let answer = grpc.unary(request, path, actuator_proto::bytes_codec::BytesCodec).await;
    match answer {
        Ok(_) => Ok(()),
        Err(status) => Err(Stop::broken(show_status(&status))),
    }
}
