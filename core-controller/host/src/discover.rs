//! What is asked on every connection before anything else: which protocols are
//! served, what the provider is, and whether it can work.

use std::time::Duration;

use actuator_proto::discovery::v1::{GetProtocolsRequest, GetProtocolsResponse};
use actuator_proto::limits::{MAX_BOOTSTRAP_BYTES, MAX_PAGE_ITEMS, MAX_STRING_BYTES, MAX_TEXT_BYTES, bounded_line};
use actuator_proto::v1::{self, GetInfoRequest, GetInfoResponse, ProbeRequest, ProbeResponse, Readiness};
use http::uri::PathAndQuery;
use prost::Message;
use tonic::{Code, Request, Status};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};
use tonic_prost::ProstCodec;

use crate::connection::Connection;
use crate::rpc::Rpc;
use crate::snapshot::{
    Check, ProviderCapabilities, ProviderConfigKind, ProviderCredentialKey, ProviderInfo, ProviderLimits,
    ProviderTimings, ServedProtocol,
};
use crate::trouble::Trouble;
use crate::untrusted::duration;
use crate::versions;
use actuator_proto::errors::table::code_name;

/// The most of anything that a provider may list about itself.
const MAX_LISTED: usize = 100;
/// The longest instance id, in bytes.
const MAX_INSTANCE_ID_BYTES: usize = 64;
const HEALTH_PATH: &str = "/grpc.health.v1.Health/Check";

/// Asks what serves on a connection, which must be the provider called `name`.
pub(crate) async fn discover(connection: &Connection, name: &str) -> Result<ProviderInfo, Trouble> {
    let deadline = actuator_proto::limits::IDENTITY_DEADLINE;
    let protocols = ask(connection, Rpc::GetProtocols.path(), GetProtocolsRequest {}, deadline)
        .await
        .map_err(|status| trouble(connection, "GetProtocols", &status))?;
    let protocol = choose(name, &protocols).map_err(Trouble::Incompatible)?;
    let info = ask(connection, Rpc::GetInfo.path(), GetInfoRequest {}, deadline)
        .await
        .map_err(|status| trouble(connection, "GetInfo", &status))?;
    read(protocol, protocols, info).map_err(Trouble::Incompatible)
}

/// What a probe found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Probed {
    pub(crate) readiness: Readiness,
    pub(crate) checks: Vec<Check>,
}

/// Asks whether the provider can work: its own probe, and gRPC's health beside it.
pub(crate) async fn probe(connection: &Connection) -> Result<Probed, Trouble> {
    let deadline = actuator_proto::limits::PROBE_DEADLINE;
    let health = HealthCheckRequest { service: String::new() };
    let (probe, health) = tokio::join!(
        ask(connection, Rpc::Probe.path(), ProbeRequest {}, deadline),
        ask(connection, HEALTH_PATH, health, deadline),
    );
    let probe = probe.map_err(|status| trouble(connection, "Probe", &status))?;
    Ok(read_probe(probe, health.ok()))
}

async fn ask<Q, A>(connection: &Connection, path: &'static str, request: Q, deadline: Duration) -> Result<A, Status>
where
    Q: Message + Send + Sync + 'static,
    A: Message + Default + Send + Sync + 'static,
{
    let mut request = Request::new(request);
    request.set_timeout(deadline);
    let codec: ProstCodec<Q, A> = ProstCodec::default();
    let mut grpc = connection.grpc();
    let answer = async {
        grpc.ready().await?;
        grpc.unary(request, PathAndQuery::from_static(path), codec).await
    };
    match tokio::time::timeout(deadline, answer).await {
        Ok(answer) => answer.map(tonic::Response::into_inner),
        Err(_) => Err(Status::deadline_exceeded(format!("no answer within {deadline:?}"))),
    }
}

fn trouble(connection: &Connection, call: &str, status: &Status) -> Trouble {
    let said = bounded_line(status.message(), MAX_STRING_BYTES);
    if status.code() == Code::Unimplemented {
        return Trouble::Incompatible(format!(
            "what serves there does not have {call} ({said}); it is no provider, or one that is not complete"
        ));
    }
    if let Some(why) = connection.why_closed() {
        return Trouble::Unreachable(format!("the connection was closed during {call}: {why}"));
    }
    Trouble::Unreachable(format!("{call} failed: {}: {said}", code_name(status.code())))
}

fn choose(name: &str, protocols: &GetProtocolsResponse) -> Result<&'static str, String> {
    if protocols.name != name {
        return Err(format!(
            "the endpoint is named {name:?} and the provider that serves there {:?}; correct the name or the endpoint",
            bounded_line(&protocols.name, MAX_STRING_BYTES)
        ));
    }
    if protocols.protocols.len() > MAX_LISTED {
        return Err(format!(
            "the provider serves more than {MAX_LISTED} protocols; it has to be mended"
        ));
    }
    versions::choose(versions::SPOKEN, &protocols.protocols).map_err(|error| error.to_string())
}

fn read(protocol: &str, protocols: GetProtocolsResponse, info: GetInfoResponse) -> Result<ProviderInfo, String> {
    let instance_id = protocols.instance_id;
    if instance_id.is_empty() || instance_id.len() > MAX_INSTANCE_ID_BYTES {
        return Err(format!(
            "the provider's instance id has {} bytes and must have 1 to {MAX_INSTANCE_ID_BYTES}; it has to be mended",
            instance_id.len()
        ));
    }
    if info.instance_id != instance_id || info.name != protocols.name {
        return Err(
            "GetProtocols and GetInfo tell different names or instance ids; the provider has to be mended".to_owned(),
        );
    }
    let short = |text: &str| bounded_line(text, MAX_STRING_BYTES);
    let bootstrap_formats = info
        .bootstrap_formats()
        .filter(|format| *format != v1::BootstrapFormat::Unspecified)
        .take(MAX_LISTED)
        .collect();
    Ok(ProviderInfo {
        version: short(&protocols.version),
        instance_id: short(&instance_id),
        protocol: protocol.to_owned(),
        protocols: protocols
            .protocols
            .iter()
            .map(|protocol| ServedProtocol {
                package: short(&protocol.package),
                stability: protocol.stability(),
            })
            .collect(),
        capabilities: capabilities(info.capabilities.unwrap_or_default()),
        limits: limits(info.limits.unwrap_or_default()),
        timings: timings(info.timings.unwrap_or_default()),
        config_kinds: info
            .config_kinds
            .iter()
            .take(MAX_LISTED)
            .map(|kind| ProviderConfigKind {
                kind: short(&kind.kind),
                target: kind.target(),
                schema_versions: kind.schema_versions.iter().take(MAX_LISTED).map(|v| short(v)).collect(),
            })
            .collect(),
        credential_keys: info
            .credential_keys
            .iter()
            .take(MAX_LISTED)
            .map(|key| ProviderCredentialKey {
                name: short(&key.name),
                optional: key.optional,
                description: bounded_line(&key.description, MAX_TEXT_BYTES),
            })
            .collect(),
        provider_id_prefix: short(&info.provider_id_prefix),
        bootstrap_formats,
    })
}

fn positive(number: i32) -> Option<u32> {
    u32::try_from(number).ok().filter(|number| *number > 0)
}

fn capabilities(capabilities: v1::Capabilities) -> ProviderCapabilities {
    ProviderCapabilities {
        list_machines: capabilities.list_machines.is_some(),
        list_clusters: capabilities.list_clusters.is_some(),
        watch_machines: capabilities.watch_machines.is_some(),
        watch_resume_window: capabilities
            .watch_machines
            .and_then(|watch| duration(watch.resume_window, Duration::MAX))
            .filter(|window| !window.is_zero()),
        endpoint_members: capabilities.endpoint_members.is_some(),
        max_endpoint_members: capabilities
            .endpoint_members
            .and_then(|members| positive(members.max_members)),
        console_output: capabilities.console_output.is_some(),
        machine_types: capabilities.machine_types.is_some(),
        machine_type_prices: capabilities.machine_types.is_some_and(|types| types.prices),
    }
}

fn limits(limits: v1::Limits) -> ProviderLimits {
    ProviderLimits {
        max_concurrent_mutations: positive(limits.max_concurrent_mutations),
        max_bootstrap_bytes: usize::try_from(limits.max_bootstrap_bytes)
            .ok()
            .filter(|bytes| *bytes > 0)
            .map_or(MAX_BOOTSTRAP_BYTES, |bytes| bytes.min(MAX_BOOTSTRAP_BYTES)),
        max_page_size: positive(limits.max_page_size)
            .map_or(MAX_PAGE_ITEMS as u32, |size| size.min(MAX_PAGE_ITEMS as u32)),
        max_name_length: positive(limits.max_name_length),
    }
}

fn timings(timings: v1::Timings) -> ProviderTimings {
    let longest = actuator_proto::limits::MAX_DEADLINE;
    let defaults = ProviderTimings::default();
    ProviderTimings {
        mutation_deadline: duration(timings.mutation_deadline, longest)
            .unwrap_or_default()
            .max(defaults.mutation_deadline),
        exists_deadline: duration(timings.exists_deadline, longest)
            .unwrap_or_default()
            .max(defaults.exists_deadline),
        read_after_write: duration(timings.read_after_write, longest).unwrap_or_default(),
        // Never so often that the core or the provider spins.
        poll_interval: duration(timings.poll_interval, longest).map_or(defaults.poll_interval, |interval| {
            interval.max(Duration::from_millis(100))
        }),
    }
}

fn read_probe(probe: ProbeResponse, health: Option<HealthCheckResponse>) -> Probed {
    let mut readiness = match probe.readiness() {
        // "The process answers."
        Readiness::Unspecified | Readiness::Ready => Readiness::Ready,
        other => other,
    };
    let mut checks: Vec<Check> = probe
        .checks
        .iter()
        .take(MAX_LISTED)
        .map(|check| Check {
            name: bounded_line(&check.name, MAX_STRING_BYTES),
            healthy: check.healthy,
            message: bounded_line(&check.message, MAX_TEXT_BYTES),
        })
        .collect();
    if health.is_some_and(|health| health.status() == ServingStatus::NotServing) {
        if readiness == Readiness::Ready {
            readiness = Readiness::Degraded;
        }
        checks.push(Check {
            name: "grpc-health".to_owned(),
            healthy: false,
            message: "grpc.health.v1 says NOT_SERVING".to_owned(),
        });
    }
    Probed { readiness, checks }
}

#[cfg(test)]
mod tests {
    use actuator_proto::discovery::v1::{Protocol, Stability};

    use super::*;

    fn protocols() -> GetProtocolsResponse {
        GetProtocolsResponse {
            name: "fake".into(),
            version: "1.0".into(),
            instance_id: "x".into(),
            protocols: vec![Protocol {
                package: "actuator.v1".into(),
                stability: Stability::Stable.into(),
            }],
        }
    }

    fn info() -> GetInfoResponse {
        GetInfoResponse {
            name: "fake".into(),
            instance_id: "x".into(),
            ..Default::default()
        }
    }

    #[test]
    fn another_name_is_refused_with_both_names() {
        let error = choose("aws", &protocols()).unwrap_err();
        assert!(error.contains("\"aws\"") && error.contains("\"fake\""), "{error}");
        assert_eq!(choose("fake", &protocols()), Ok("actuator.v1"));
    }

    #[test]
    fn what_is_left_out_gets_the_contracts_defaults() {
        let read = read("actuator.v1", protocols(), info()).unwrap();
        assert_eq!(read.limits, ProviderLimits::default());
        assert_eq!(read.timings, ProviderTimings::default());
        assert!(read.capabilities.names().is_empty());
    }

    #[test]
    fn numbers_out_of_bounds_are_brought_into_them() {
        let seconds = |seconds| Some(prost_types::Duration { seconds, nanos: 0 });
        let info = GetInfoResponse {
            limits: Some(v1::Limits {
                max_concurrent_mutations: -5,
                max_bootstrap_bytes: i64::MAX,
                max_page_size: 100_000,
                max_name_length: -1,
            }),
            timings: Some(v1::Timings {
                mutation_deadline: seconds(86_400),
                exists_deadline: seconds(-1),
                read_after_write: seconds(86_400),
                poll_interval: seconds(0),
            }),
            bootstrap_formats: vec![1, 77, 0],
            ..info()
        };
        let read = read("actuator.v1", protocols(), info).unwrap();
        assert_eq!(read.limits, ProviderLimits::default());
        assert_eq!(read.timings.mutation_deadline, Duration::from_mins(5));
        assert_eq!(read.timings.exists_deadline, Duration::from_secs(20));
        assert_eq!(read.timings.read_after_write, Duration::from_mins(5));
        assert_eq!(read.timings.poll_interval, Duration::from_millis(100));
        assert_eq!(read.bootstrap_formats, [v1::BootstrapFormat::CloudConfig]);
    }

    #[test]
    fn an_instance_that_contradicts_itself_is_refused() {
        let other = GetInfoResponse {
            instance_id: "y".into(),
            ..info()
        };
        assert!(read("actuator.v1", protocols(), other).is_err());
        let none = GetProtocolsResponse {
            instance_id: String::new(),
            ..protocols()
        };
        assert!(read("actuator.v1", none, info()).is_err());
    }

    #[test]
    fn health_that_does_not_serve_degrades() {
        let health = |status: ServingStatus| Some(HealthCheckResponse { status: status.into() });
        let probe = ProbeResponse::default();
        assert_eq!(read_probe(probe.clone(), None).readiness, Readiness::Ready);
        assert_eq!(
            read_probe(probe.clone(), health(ServingStatus::Serving)).readiness,
            Readiness::Ready
        );
        let degraded = read_probe(probe, health(ServingStatus::NotServing));
        assert_eq!(degraded.readiness, Readiness::Degraded);
        assert_eq!(degraded.checks.len(), 1);
    }
}
