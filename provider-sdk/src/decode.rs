//! From the messages of the wire to the requests that a provider gets: checked, with
//! typed configs, and for mutations with what decides about their order.

use actuator_proto::errors::ActuatorError;
use actuator_proto::v1;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::checks::{Checks, non_empty};
use crate::config::{Config, ConfigReader};
use crate::context::{CallContext, OperationContext};
use crate::credentials::Credentials;
use crate::info::ProviderInfo;
use crate::operations::executor::{Scope, ScopedKey};
use crate::operations::order::{Fingerprint, Intent, Verb};
use crate::request::{
    AnyConfig, ClusterExists, ClusterSpec, ConsoleOutput, CreateCluster, CreateMachine, DeleteCluster, DeleteMachine,
    ListClusters, ListMachineTypes, ListMachines, MachineExists, MachineSpec, Resource, SetEndpointMembers,
    UpdateCluster, UpdateMachine, WatchMachines,
};

/// What every request is decoded with.
pub(crate) struct Decoder<C, M> {
    pub(crate) info: ProviderInfo,
    pub(crate) max_members: i32,
    pub(crate) cluster: ConfigReader<C>,
    pub(crate) machine: ConfigReader<M>,
}

/// What a call has besides its message.
#[derive(Clone)]
pub(crate) struct Arrival {
    pub(crate) deadline: Option<Instant>,
    pub(crate) shutdown: CancellationToken,
}

/// A mutation, ready to be ordered and run.
pub(crate) struct Mutation<R> {
    pub(crate) context: OperationContext,
    pub(crate) management_cluster_id: String,
    pub(crate) key: ScopedKey,
    pub(crate) intent: Intent,
    pub(crate) request: R,
}

/// A read, ready to be run.
pub(crate) struct Reading<R> {
    pub(crate) context: CallContext,
    pub(crate) request: R,
}

type Mutated<R> = Result<Mutation<R>, ActuatorError>;
type Read<R> = Result<Reading<R>, ActuatorError>;

impl<C: Config, M: Config> Decoder<C, M> {
    pub(crate) fn create_cluster(
        &self,
        request: v1::CreateClusterRequest,
        arrival: Arrival,
    ) -> Mutated<CreateCluster<C>> {
        let mut checks = Checks::default();
        let meta = checks.meta(request.meta);
        let ownership = checks.ownership("ownership", request.ownership);
        let spec = check_cluster_spec(&mut checks, request.spec);
        checks.provider_state(&request.provider_state);
        checks.finish()?;
        let (spec, digest) = self.cluster_spec(spec)?;
        let context = self.context(request.credentials, arrival)?;
        let request = CreateCluster {
            ownership: ownership.clone(),
            spec,
            provider_state: request.provider_state.into(),
        };
        Ok(mutation(
            Scope::Cluster,
            Verb::Create,
            &meta,
            &ownership,
            &[&digest],
            context,
            request,
        ))
    }

    pub(crate) fn update_cluster(
        &self,
        request: v1::UpdateClusterRequest,
        arrival: Arrival,
    ) -> Mutated<UpdateCluster<C>> {
        let mut checks = Checks::default();
        let meta = checks.meta(request.meta);
        let resource = checks.resource("ref", request.r#ref, "", Some(&meta.idempotency_key));
        let spec = check_cluster_spec(&mut checks, request.spec);
        checks.provider_state(&request.provider_state);
        checks.finish()?;
        let (spec, digest) = self.cluster_spec(spec)?;
        let context = self.context(request.credentials, arrival)?;
        let (ownership, id) = identity(&resource);
        let request = UpdateCluster {
            resource,
            spec,
            provider_state: request.provider_state.into(),
        };
        Ok(mutation(
            Scope::Cluster,
            Verb::Update,
            &meta,
            &ownership,
            &[&digest, &id],
            context,
            request,
        ))
    }

    pub(crate) fn delete_cluster(
        &self,
        request: v1::DeleteClusterRequest,
        arrival: Arrival,
    ) -> Mutated<DeleteCluster<C>> {
        let mut checks = Checks::default();
        let meta = checks.meta(request.meta);
        let resource = checks.resource("ref", request.r#ref, "", Some(&meta.idempotency_key));
        checks.provider_state(&request.provider_state);
        checks.finish()?;
        let config = self.cluster.hint(request.config.as_ref(), "config")?;
        let context = self.context(request.credentials, arrival)?;
        let (ownership, id) = identity(&resource);
        let request = DeleteCluster {
            resource,
            config,
            provider_state: request.provider_state.into(),
        };
        Ok(mutation(
            Scope::Cluster,
            Verb::Delete,
            &meta,
            &ownership,
            &[&id],
            context,
            request,
        ))
    }

    pub(crate) fn cluster_exists(&self, request: v1::ClusterExistsRequest, arrival: Arrival) -> Read<ClusterExists<C>> {
        let mut checks = Checks::default();
        let resource = checks.resource("ref", request.r#ref, "", None);
        checks.provider_state(&request.provider_state);
        checks.finish()?;
        let config = self.cluster.hint(request.config.as_ref(), "config")?;
        Ok(Reading {
            context: self.context(request.credentials, arrival)?,
            request: ClusterExists {
                resource,
                config,
                provider_state: request.provider_state.into(),
            },
        })
    }

    pub(crate) fn create_machine(
        &self,
        request: v1::CreateMachineRequest,
        arrival: Arrival,
    ) -> Mutated<CreateMachine<M>> {
        let mut checks = Checks::default();
        let meta = checks.meta(request.meta);
        let ownership = checks.ownership("ownership", request.ownership);
        let spec = check_machine_spec(&mut checks, request.spec);
        let bootstrap = checks.bootstrap(request.bootstrap, &self.info);
        checks.provider_state(&request.provider_state);
        checks.finish()?;
        let (spec, digest) = self.machine_spec(spec)?;
        let context = self.context(request.credentials, arrival)?;
        let request = CreateMachine {
            ownership: ownership.clone(),
            spec,
            bootstrap,
            provider_state: request.provider_state.into(),
        };
        Ok(mutation(
            Scope::Machine,
            Verb::Create,
            &meta,
            &ownership,
            &[&digest],
            context,
            request,
        ))
    }

    pub(crate) fn update_machine(
        &self,
        request: v1::UpdateMachineRequest,
        arrival: Arrival,
    ) -> Mutated<UpdateMachine<M>> {
        let mut checks = Checks::default();
        let meta = checks.meta(request.meta);
        let resource = self.machine_resource(&mut checks, request.r#ref, Some(&meta));
        let spec = check_machine_spec(&mut checks, request.spec);
        checks.provider_state(&request.provider_state);
        checks.finish()?;
        let (spec, digest) = self.machine_spec(spec)?;
        let context = self.context(request.credentials, arrival)?;
        let (ownership, id) = identity(&resource);
        let request = UpdateMachine {
            resource,
            spec,
            provider_state: request.provider_state.into(),
        };
        Ok(mutation(
            Scope::Machine,
            Verb::Update,
            &meta,
            &ownership,
            &[&digest, &id],
            context,
            request,
        ))
    }

    pub(crate) fn delete_machine(
        &self,
        request: v1::DeleteMachineRequest,
        arrival: Arrival,
    ) -> Mutated<DeleteMachine<M>> {
        let mut checks = Checks::default();
        let meta = checks.meta(request.meta);
        let resource = self.machine_resource(&mut checks, request.r#ref, Some(&meta));
        checks.provider_state(&request.provider_state);
        checks.finish()?;
        let config = self.machine.hint(request.config.as_ref(), "config")?;
        let context = self.context(request.credentials, arrival)?;
        let (ownership, id) = identity(&resource);
        let request = DeleteMachine {
            resource,
            config,
            provider_state: request.provider_state.into(),
        };
        Ok(mutation(
            Scope::Machine,
            Verb::Delete,
            &meta,
            &ownership,
            &[&id],
            context,
            request,
        ))
    }

    pub(crate) fn machine_exists(&self, request: v1::MachineExistsRequest, arrival: Arrival) -> Read<MachineExists<M>> {
        let mut checks = Checks::default();
        let resource = self.machine_resource(&mut checks, request.r#ref, None);
        checks.provider_state(&request.provider_state);
        checks.finish()?;
        let config = self.machine.hint(request.config.as_ref(), "config")?;
        Ok(Reading {
            context: self.context(request.credentials, arrival)?,
            request: MachineExists {
                resource,
                config,
                provider_state: request.provider_state.into(),
            },
        })
    }

    pub(crate) fn set_endpoint_members(
        &self,
        request: v1::SetEndpointMembersRequest,
        arrival: Arrival,
    ) -> Mutated<SetEndpointMembers> {
        let mut checks = Checks::default();
        let meta = checks.meta(request.meta);
        let cluster = checks.resource("cluster", request.cluster, "", None);
        checks.members(&request.members, &self.info.provider_id_prefix, self.max_members);
        checks.provider_state(&request.provider_state);
        checks.finish()?;
        let context = self.context(request.credentials, arrival)?;
        let mut members: Vec<Vec<u8>> = request.members.iter().map(prost::Message::encode_to_vec).collect();
        members.sort();
        let mut parts: Vec<&[u8]> = members.iter().map(Vec::as_slice).collect();
        let (ownership, id) = identity(&cluster);
        parts.push(&id);
        // It changes what belongs to the cluster, whatever key the request itself has.
        let cluster_key = (Scope::Cluster, cluster.key.clone());
        let request = SetEndpointMembers {
            cluster,
            members: request.members,
            provider_state: request.provider_state.into(),
        };
        let mutation = mutation(
            Scope::Cluster,
            Verb::SetMembers,
            &meta,
            &ownership,
            &parts,
            context,
            request,
        );
        Ok(Mutation {
            key: cluster_key,
            ..mutation
        })
    }

    pub(crate) fn list_clusters(&self, request: v1::ListClustersRequest, arrival: Arrival) -> Read<ListClusters<C>> {
        let mut checks = Checks::default();
        checks.required_text("management_cluster_id", &request.management_cluster_id);
        let page = checks.page(request.page, &self.info);
        checks.finish()?;
        let config = self.place(request.config.as_ref())?;
        Ok(Reading {
            context: self.context(request.credentials, arrival)?,
            request: ListClusters {
                management_cluster_id: request.management_cluster_id,
                page,
                config,
            },
        })
    }

    pub(crate) fn list_machines(&self, request: v1::ListMachinesRequest, arrival: Arrival) -> Read<ListMachines<C>> {
        let mut checks = Checks::default();
        checks.required_text("management_cluster_id", &request.management_cluster_id);
        checks.text("cluster_uid", &request.cluster_uid);
        let page = checks.page(request.page, &self.info);
        checks.finish()?;
        let config = self.place(request.config.as_ref())?;
        Ok(Reading {
            context: self.context(request.credentials, arrival)?,
            request: ListMachines {
                management_cluster_id: request.management_cluster_id,
                cluster_uid: non_empty(request.cluster_uid),
                page,
                config,
            },
        })
    }

    pub(crate) fn watch_machines(&self, request: v1::WatchMachinesRequest, arrival: Arrival) -> Read<WatchMachines<C>> {
        let mut checks = Checks::default();
        checks.required_text("management_cluster_id", &request.management_cluster_id);
        checks.text("resume_token", &request.resume_token);
        checks.finish()?;
        let config = self.place(request.config.as_ref())?;
        Ok(Reading {
            context: self.context(request.credentials, arrival)?,
            request: WatchMachines {
                management_cluster_id: request.management_cluster_id,
                resume_token: non_empty(request.resume_token),
                config,
            },
        })
    }

    pub(crate) fn console_output(
        &self,
        request: v1::GetConsoleOutputRequest,
        arrival: Arrival,
    ) -> Read<ConsoleOutput<M>> {
        let mut checks = Checks::default();
        let resource = self.machine_resource(&mut checks, request.r#ref, None);
        if request.tail_bytes < 0 {
            checks.report(v1::ErrorReason::InvalidField, "tail_bytes", "must not be negative");
        }
        checks.finish()?;
        let config = self.machine.hint(request.config.as_ref(), "config")?;
        Ok(Reading {
            context: self.context(request.credentials, arrival)?,
            request: ConsoleOutput {
                resource,
                tail_bytes: u64::try_from(request.tail_bytes).ok().filter(|bytes| *bytes > 0),
                config,
            },
        })
    }

    pub(crate) fn list_machine_types(
        &self,
        request: v1::ListMachineTypesRequest,
        arrival: Arrival,
    ) -> Read<ListMachineTypes<C, M>> {
        let mut checks = Checks::default();
        checks.text("name", &request.name);
        let page = checks.page(request.page, &self.info);
        checks.finish()?;
        let config = match &request.config {
            None => None,
            Some(config) if config.kind == M::KIND => {
                Some(AnyConfig::Machine(self.machine.read(Some(config), "config")?))
            }
            Some(config) => Some(AnyConfig::Cluster(self.cluster.read(Some(config), "config")?)),
        };
        Ok(Reading {
            context: self.context(request.credentials, arrival)?,
            request: ListMachineTypes {
                page,
                name: non_empty(request.name),
                config,
            },
        })
    }

    fn machine_resource(
        &self,
        checks: &mut Checks,
        reference: Option<v1::ResourceRef>,
        meta: Option<&v1::OperationMeta>,
    ) -> Resource {
        let key = meta.map(|meta| meta.idempotency_key.as_str());
        checks.resource("ref", reference, &self.info.provider_id_prefix, key)
    }

    /// The context of a call that reaches the cloud: its credentials are there.
    fn context(&self, credentials: Option<v1::Credentials>, arrival: Arrival) -> Result<CallContext, ActuatorError> {
        let credentials = Credentials::from_wire(credentials);
        credentials.require(&self.info.credential_keys)?;
        Ok(CallContext {
            credentials,
            deadline: arrival.deadline,
            shutdown: arrival.shutdown,
        })
    }

    /// A config that says where to look. Looking elsewhere because it cannot be read
    /// would make things seem absent: it is refused.
    fn place(&self, config: Option<&v1::OpaqueConfig>) -> Result<Option<C>, ActuatorError> {
        Ok(match config {
            None => None,
            Some(config) => Some(self.cluster.read(Some(config), "config")?),
        })
    }

    fn cluster_spec(&self, spec: v1::ClusterSpec) -> Result<(ClusterSpec<C>, Vec<u8>), ActuatorError> {
        let digest = spec.digest.clone();
        let spec = ClusterSpec {
            config: self.cluster.read(spec.config.as_ref(), "spec.config")?,
            name: spec.name,
            pod_cidr_blocks: spec.pod_cidr_blocks,
            service_cidr_blocks: spec.service_cidr_blocks,
            control_plane_endpoint: spec.control_plane_endpoint,
            digest: spec.digest,
        };
        Ok((spec, digest))
    }

    fn machine_spec(&self, spec: v1::MachineSpec) -> Result<(MachineSpec<M>, Vec<u8>), ActuatorError> {
        let digest = spec.digest.clone();
        let spec = MachineSpec {
            config: self.machine.read(spec.config.as_ref(), "spec.config")?,
            name: spec.name,
            kubernetes_version: non_empty(spec.kubernetes_version),
            failure_domain: non_empty(spec.failure_domain),
            node_labels: spec.node_labels,
            taints: spec.taints,
            control_plane: spec.control_plane,
            cluster: spec.cluster,
            digest: spec.digest,
        };
        Ok((spec, digest))
    }
}

fn check_cluster_spec(checks: &mut Checks, spec: Option<v1::ClusterSpec>) -> v1::ClusterSpec {
    let Some(spec) = spec else {
        checks.report(v1::ErrorReason::InvalidField, "spec", "is required and missing");
        return v1::ClusterSpec::default();
    };
    checks.text("spec.name", &spec.name);
    for (index, block) in spec.pod_cidr_blocks.iter().enumerate() {
        checks.text(&format!("spec.pod_cidr_blocks[{index}]"), block);
    }
    for (index, block) in spec.service_cidr_blocks.iter().enumerate() {
        checks.text(&format!("spec.service_cidr_blocks[{index}]"), block);
    }
    if let Some(endpoint) = &spec.control_plane_endpoint {
        checks.endpoint("spec.control_plane_endpoint", endpoint);
    }
    checks.digest("spec.digest", &spec.digest);
    spec
}

fn check_machine_spec(checks: &mut Checks, spec: Option<v1::MachineSpec>) -> v1::MachineSpec {
    let Some(spec) = spec else {
        checks.report(v1::ErrorReason::InvalidField, "spec", "is required and missing");
        return v1::MachineSpec::default();
    };
    checks.text("spec.name", &spec.name);
    checks.text("spec.kubernetes_version", &spec.kubernetes_version);
    checks.text("spec.failure_domain", &spec.failure_domain);
    for (key, value) in &spec.node_labels {
        checks.required_text("spec.node_labels", key);
        checks.text("spec.node_labels", value);
    }
    for (index, taint) in spec.taints.iter().enumerate() {
        checks.required_text(&format!("spec.taints[{index}].key"), &taint.key);
        checks.text(&format!("spec.taints[{index}].value"), &taint.value);
        checks.text(&format!("spec.taints[{index}].effect"), &taint.effect);
    }
    checks.digest("spec.digest", &spec.digest);
    spec
}

/// What makes two requests for an existing resource ask for the same one.
fn identity(resource: &Resource) -> (v1::Ownership, Vec<u8>) {
    let id = resource.provider_id.clone().unwrap_or_default();
    (resource.ownership.clone(), id.into_bytes())
}

fn mutation<R>(
    scope: Scope,
    verb: Verb,
    meta: &v1::OperationMeta,
    ownership: &v1::Ownership,
    parts: &[&[u8]],
    call: CallContext,
    request: R,
) -> Mutation<R> {
    let mut all: Vec<&[u8]> = vec![
        ownership.management_cluster_id.as_bytes(),
        ownership.cluster_uid.as_bytes(),
        ownership.object_uid.as_bytes(),
    ];
    all.extend_from_slice(parts);
    Mutation {
        context: OperationContext {
            call,
            key: meta.idempotency_key.clone(),
            generation: meta.generation,
            fencing_epoch: meta.fencing_epoch,
            attempt: meta.attempt,
        },
        management_cluster_id: ownership.management_cluster_id.clone(),
        key: (scope, meta.idempotency_key.clone()),
        intent: Intent {
            verb,
            generation: meta.generation,
            fingerprint: Fingerprint::of(&all),
        },
        request,
    }
}
