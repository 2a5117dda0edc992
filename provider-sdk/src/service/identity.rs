//! `IdentityService` and `DiscoveryService`: all from memory, but a preflight.

use actuator_proto::PACKAGE_V1;
use actuator_proto::discovery::v1 as discovery;
use actuator_proto::discovery::v1::discovery_service_server::DiscoveryService;
use actuator_proto::errors::ActuatorError;
use actuator_proto::limits::{MAX_DIAGNOSTICS, MAX_TEXT_BYTES, bounded_text};
use actuator_proto::v1;
use actuator_proto::v1::identity_service_server::IdentityService;
use tonic::{Request, Response, Status, async_trait};

use super::core::{Core, Service, secrets_of};
use crate::answer::Diagnostic;
use crate::config::{Config, ConfigReader, Unread, unsupported_version};
use crate::context::CallContext;
use crate::credentials::Credentials;
use crate::decode::{Arrival, Reading};
use crate::outgoing::wire_duration;
use crate::provider::Provider;
use crate::request::Validation;
use crate::telemetry::calls::{About, Method, Weight};

const fn method(name: &'static str) -> Method {
    Method {
        service: "actuator.v1.IdentityService",
        name,
        weight: Weight::Read,
    }
}

#[async_trait]
impl<P: Provider> DiscoveryService for Service<P> {
    async fn get_protocols(
        &self,
        request: Request<discovery::GetProtocolsRequest>,
    ) -> Result<Response<discovery::GetProtocolsResponse>, Status> {
        let core = &self.0;
        let method = Method {
            service: "actuator.discovery.v1.DiscoveryService",
            name: "GetProtocols",
            weight: Weight::Read,
        };
        let (call, _) = core.begin(method, &About::default(), &request);
        call.answer(async {
            Ok(Response::new(discovery::GetProtocolsResponse {
                name: core.decoder.info.name.clone(),
                version: core.decoder.info.version.clone(),
                instance_id: core.instance_id.clone(),
                protocols: vec![discovery::Protocol {
                    package: PACKAGE_V1.to_owned(),
                    stability: discovery::Stability::Stable.into(),
                }],
            }))
        })
        .await
    }
}

#[async_trait]
impl<P: Provider> IdentityService for Service<P> {
    async fn get_info(&self, request: Request<v1::GetInfoRequest>) -> Result<Response<v1::GetInfoResponse>, Status> {
        let core = &self.0;
        let (call, _) = core.begin(method("GetInfo"), &About::default(), &request);
        call.answer(async { Ok(Response::new(info(core))) }).await
    }

    async fn probe(&self, request: Request<v1::ProbeRequest>) -> Result<Response<v1::ProbeResponse>, Status> {
        let core = &self.0;
        let (call, arrival) = core.begin(method("Probe"), &About::default(), &request);
        let reading = Ok(plain(arrival, Credentials::none(), ()));
        core.read(call, Default::default(), reading, |provider, _, (), _| async move {
            let probe = provider.probe();
            let checks = probe
                .checks
                .into_iter()
                .take(MAX_DIAGNOSTICS)
                .map(|check| v1::ProbeCheck {
                    name: bounded_text(&check.name, MAX_TEXT_BYTES),
                    healthy: check.healthy,
                    message: bounded_text(&check.message, MAX_TEXT_BYTES),
                })
                .collect();
            Ok(v1::ProbeResponse {
                readiness: probe.readiness.into(),
                checks,
            })
        })
        .await
    }

    async fn get_config_schema(
        &self,
        request: Request<v1::GetConfigSchemaRequest>,
    ) -> Result<Response<v1::GetConfigSchemaResponse>, Status> {
        let core = &self.0;
        let (call, _) = core.begin(method("GetConfigSchema"), &About::default(), &request);
        let request = request.into_inner();
        call.answer(async {
            let decoder = &core.decoder;
            let found = if request.kind == P::ClusterConfig::KIND {
                schema(&decoder.cluster, &request)
            } else if request.kind == P::MachineConfig::KIND {
                schema(&decoder.machine, &request)
            } else {
                Err(unknown_kind::<P>("kind"))
            };
            found.map(Response::new).map_err(Status::from)
        })
        .await
    }

    async fn validate_config(
        &self,
        request: Request<v1::ValidateConfigRequest>,
    ) -> Result<Response<v1::ValidateConfigResponse>, Status> {
        let core = &self.0;
        let (call, arrival) = core.begin(method("ValidateConfig"), &About::default(), &request);
        let secrets = secrets_of(request.get_ref().credentials.as_ref());
        let request = request.into_inner();
        let preflight = request.mode() == v1::ValidationMode::Preflight;
        let credentials = Credentials::from_wire(request.credentials.clone());
        let reading = if preflight {
            credentials.require(&core.decoder.info.credential_keys)
        } else {
            Ok(())
        };
        let reading = reading.map(|()| plain(arrival, credentials, request));
        core.read(
            call,
            secrets,
            reading,
            |provider, context, request, bounds| async move {
                let config = request
                    .config
                    .as_ref()
                    .ok_or_else(|| ActuatorError::invalid_field("config", "is required and missing"))?;
                let previous = request.previous.as_ref();
                let found = if config.kind == P::ClusterConfig::KIND {
                    match validation(&core.decoder.cluster, config, previous, preflight)? {
                        Ok(validation) => provider.validate_cluster(&context, &validation).await?,
                        Err(found) => found,
                    }
                } else if config.kind == P::MachineConfig::KIND {
                    match validation(&core.decoder.machine, config, previous, preflight)? {
                        Ok(validation) => provider.validate_machine(&context, &validation).await?,
                        Err(found) => found,
                    }
                } else {
                    return Err(unknown_kind::<P>("config.kind"));
                };
                Ok(v1::ValidateConfigResponse {
                    diagnostics: bounds.diagnostics(found),
                })
            },
        )
        .await
    }
}

fn plain<R>(arrival: Arrival, credentials: Credentials, request: R) -> Reading<R> {
    Reading {
        context: CallContext {
            credentials,
            deadline: arrival.deadline,
            shutdown: arrival.shutdown,
        },
        request,
    }
}

/// What the provider is asked to judge, or what is wrong before it comes to that.
fn validation<C: Config>(
    reader: &ConfigReader<C>,
    config: &v1::OpaqueConfig,
    previous: Option<&v1::OpaqueConfig>,
    preflight: bool,
) -> Result<Result<Validation<C>, Vec<Diagnostic>>, ActuatorError> {
    match reader.read(Some(config), "config") {
        Ok(config) => Ok(Ok(Validation {
            config,
            previous: reader.hint(previous, "previous")?.get().cloned(),
            preflight,
        })),
        Err(Unread::Invalid(found)) => Ok(Err(found)),
        Err(Unread::Refused(error)) => Err(error),
    }
}

fn schema<C: Config>(
    reader: &ConfigReader<C>,
    request: &v1::GetConfigSchemaRequest,
) -> Result<v1::GetConfigSchemaResponse, ActuatorError> {
    let (schema, sha256) = reader
        .schema(&request.schema_version)
        .ok_or_else(|| unsupported_version(C::KIND, reader.versions(), "schema_version"))?;
    Ok(v1::GetConfigSchemaResponse {
        json_schema: schema.to_vec(),
        sha256: sha256.to_vec(),
    })
}

fn unknown_kind<P: Provider>(field: &str) -> ActuatorError {
    ActuatorError::invalid_field(
        field,
        format!(
            "the kind must be {:?} or {:?}",
            P::ClusterConfig::KIND,
            P::MachineConfig::KIND
        ),
    )
}

fn info<P: Provider>(core: &Core<P>) -> v1::GetInfoResponse {
    let info = &core.decoder.info;
    let number = |number: usize| i32::try_from(number).unwrap_or(i32::MAX);
    let kind = |kind: &str, target: v1::ConfigTarget, versions: Vec<&'static str>| v1::ConfigKind {
        kind: kind.to_owned(),
        target: target.into(),
        schema_versions: versions.into_iter().map(str::to_owned).collect(),
    };
    v1::GetInfoResponse {
        name: info.name.clone(),
        vendor_version: info.version.clone(),
        instance_id: core.instance_id.clone(),
        capabilities: Some(core.capabilities),
        limits: Some(v1::Limits {
            max_concurrent_mutations: number(info.limits.max_concurrent_mutations),
            max_bootstrap_bytes: info.limits.max_bootstrap_bytes as i64,
            max_page_size: number(info.limits.max_page_size),
            max_name_length: info.limits.max_name_length.map_or(0, number),
        }),
        timings: Some(v1::Timings {
            mutation_deadline: info.timings.mutation_deadline.and_then(wire_duration),
            exists_deadline: info.timings.exists_deadline.and_then(wire_duration),
            read_after_write: info.timings.read_after_write.and_then(wire_duration),
            poll_interval: info.timings.poll_interval.and_then(wire_duration),
        }),
        config_kinds: vec![
            kind(
                P::ClusterConfig::KIND,
                v1::ConfigTarget::Cluster,
                core.decoder.cluster.versions().collect(),
            ),
            kind(
                P::MachineConfig::KIND,
                v1::ConfigTarget::Machine,
                core.decoder.machine.versions().collect(),
            ),
        ],
        credential_keys: info
            .credential_keys
            .iter()
            .map(|key| v1::CredentialKey {
                name: key.name.clone(),
                optional: key.optional,
                description: bounded_text(&key.description, MAX_TEXT_BYTES),
            })
            .collect(),
        provider_id_prefix: info.provider_id_prefix.clone(),
        bootstrap_formats: info.bootstrap_formats.iter().map(|format| i32::from(*format)).collect(),
    }
}
