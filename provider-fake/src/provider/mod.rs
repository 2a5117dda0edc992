//! The actuator protocol on top of the simulated cloud: each call of the protocol in
//! terms of the cloud's own. Not for: what the cloud decides (see [`crate::cloud`]) nor
//! for the wire (see `provider_sdk`).

mod convert;
mod validate;

use std::time::Duration;

use futures::{StreamExt as _, stream};
use provider_sdk::{
    ActuatorError, ByteStream, CallContext, ClusterExists, ConsoleOutput, CreateCluster, CreateMachine, CredentialKey,
    DeleteCluster, DeleteMachine, Deletion, Diagnostic, Existence, ListClusters, ListMachineTypes, ListMachines,
    MachineExists, OperationContext, Page, PageBuilder, PageRequest, Probe, Provider, ProviderInfo, SetEndpointMembers,
    UpdateCluster, UpdateMachine, Validation, WatchEvent, WatchMachines, WatchStream, async_trait, v1,
};

use crate::cloud::instances::{ModifyInstance, Removal, RunInstance};
use crate::cloud::model::{InstanceState, Target};
use crate::cloud::networks::{CreateNetwork, ModifyNetwork, NetworkRef, NetworkView};
use crate::cloud::{Caller, Cloud, CloudError, WatchItem};
use crate::config::{FakeClusterConfig, FakeMachineConfig};
use convert::{actuator_error, instance_ref, network_ref, owner};

/// What each provider_id begins with.
pub const PROVIDER_ID_PREFIX: &str = "fake:///";
/// How long a resume token of a watch stays valid, if not very much happens.
const RESUME_WINDOW: Duration = Duration::from_mins(10);
/// The entry of the credentials Secret.
const TOKEN: &str = "token";
/// The most members of an endpoint.
const MAX_MEMBERS: i32 = 100;

/// The provider of the simulated cloud.
pub struct FakeProvider {
    cloud: Cloud,
    info: ProviderInfo,
}

impl FakeProvider {
    /// A provider for this cloud. What the cloud is set to now is what it tells the core
    /// about its limits and times, for as long as it lives.
    pub fn new(cloud: Cloud, max_concurrent_mutations: usize) -> Self {
        let mut info = ProviderInfo::new("fake", env!("CARGO_PKG_VERSION"), PROVIDER_ID_PREFIX);
        info.limits.max_concurrent_mutations = max_concurrent_mutations;
        info.timings.read_after_write = Some(cloud.settings().read_after_write);
        info.timings.poll_interval = Some(Duration::from_secs(1));
        info.credential_keys = vec![CredentialKey::optional(
            TOKEN,
            "the token of the simulated cloud; needed where it was started with --require-token",
        )];
        Self { cloud, info }
    }

    fn list_token(&self, last: &str) -> String {
        format!("p1.{}.{last}", self.cloud.id())
    }

    /// The id behind which a page begins.
    fn list_position<'a>(&self, page: &'a PageRequest) -> Result<Option<&'a str>, ActuatorError> {
        let Some(token) = page.token.as_deref() else {
            return Ok(None);
        };
        let rest = token
            .strip_prefix("p1.")
            .and_then(|rest| rest.strip_prefix(self.cloud.id()));
        let last = rest
            .and_then(|rest| rest.strip_prefix('.'))
            .filter(|last| !last.is_empty());
        let expired = || {
            let message = "the page token is none of this cloud; start the list again";
            ActuatorError::new(v1::ErrorReason::PageTokenExpired, message)
        };
        last.map(Some).ok_or_else(expired)
    }

    /// The second step of making a cluster. What fails here has left the network.
    async fn with_load_balancer(
        &self,
        caller: &Caller,
        network: &NetworkRef,
        view: NetworkView,
    ) -> Result<NetworkView, ActuatorError> {
        if view.network.load_balancer_port.is_none() || view.load_balancer.is_some() {
            return Ok(view);
        }
        let made = self.cloud.create_load_balancer(caller, network).await;
        made.map_err(|mut error| {
            if error.effect == v1::Effect::None {
                error.effect = v1::Effect::Partial;
            }
            actuator_error(error).with_provider_id(convert::cluster_provider_id(&self.cloud, &view.network.id))
        })
    }
}

fn caller(context: &CallContext) -> Caller {
    let token = context.credentials().optional_text(TOKEN).ok().flatten();
    Caller {
        token: token.map(|token| token.as_bytes().to_vec()),
    }
}

/// Takes what fits onto a page. `more` tells whether the cloud has more behind `items`.
fn fill<T: prost::Message>(
    page: &PageRequest,
    items: impl IntoIterator<Item = (String, T)>,
    more: bool,
    token: impl Fn(&str) -> String,
) -> Page<T> {
    let mut builder = PageBuilder::new(page.size);
    let mut last = None;
    for (id, item) in items {
        if builder.push(item).is_err() {
            return builder.finish(last.as_deref().map(token));
        }
        last = Some(id);
    }
    builder.finish(last.filter(|_| more).as_deref().map(token))
}

#[async_trait]
impl Provider for FakeProvider {
    type ClusterConfig = FakeClusterConfig;
    type MachineConfig = FakeMachineConfig;

    fn info(&self) -> ProviderInfo {
        self.info.clone()
    }

    fn capabilities(&self) -> v1::Capabilities {
        v1::Capabilities {
            list_machines: Some(v1::ListMachinesCapability {}),
            list_clusters: Some(v1::ListClustersCapability {}),
            watch_machines: Some(v1::WatchMachinesCapability {
                resume_window: prost_types::Duration::try_from(RESUME_WINDOW).ok(),
            }),
            endpoint_members: Some(v1::EndpointMembersCapability {
                max_members: MAX_MEMBERS,
            }),
            console_output: Some(v1::ConsoleOutputCapability {}),
            machine_types: Some(v1::MachineTypesCapability { prices: true }),
        }
    }

    fn probe(&self) -> Probe {
        let failure = self.cloud.failure();
        let ledger = failure.as_deref().unwrap_or("the ledger takes writes");
        let outage = self.cloud.settings().outage;
        let cloud = if outage {
            "the simulated cloud is down"
        } else {
            "the simulated cloud answers"
        };
        Probe::ready()
            .with_check("ledger", failure.is_none(), ledger)
            .with_check("cloud", !outage, cloud)
    }

    async fn validate_cluster(
        &self,
        context: &CallContext,
        request: &Validation<FakeClusterConfig>,
    ) -> Result<Vec<Diagnostic>, ActuatorError> {
        let mut found = validate::cluster(&request.config, request.previous.as_ref());
        if request.preflight {
            self.cloud
                .machine_types(&caller(context))
                .await
                .map_err(actuator_error)?;
            found.extend(validate::cluster_in(&request.config, &self.cloud.settings()));
        }
        Ok(found)
    }

    async fn validate_machine(
        &self,
        context: &CallContext,
        request: &Validation<FakeMachineConfig>,
    ) -> Result<Vec<Diagnostic>, ActuatorError> {
        let mut found = validate::machine(&request.config, request.previous.as_ref());
        if request.preflight {
            self.cloud
                .machine_types(&caller(context))
                .await
                .map_err(actuator_error)?;
            found.extend(validate::machine_in(&request.config, &self.cloud.settings()));
        }
        Ok(found)
    }

    async fn create_cluster(
        &self,
        context: &OperationContext,
        request: CreateCluster<FakeClusterConfig>,
    ) -> Result<v1::ClusterStatus, ActuatorError> {
        let caller = caller(context);
        let create = CreateNetwork {
            key: context.key().to_owned(),
            owner: owner(&request.ownership),
            shape: convert::network_shape(&request.spec),
            digest: hex::encode(&request.spec.digest),
            generation: context.generation(),
            fails_with: request.spec.config.fail_create.map(|reason| reason.0),
        };
        let view = self
            .cloud
            .create_network(&caller, &create)
            .await
            .map_err(actuator_error)?;
        let network = NetworkRef {
            key: create.key,
            owner: create.owner,
            id: None,
        };
        let view = self.with_load_balancer(&caller, &network, view).await?;
        Ok(convert::cluster_status(&self.cloud, &view))
    }

    async fn update_cluster(
        &self,
        context: &OperationContext,
        request: UpdateCluster<FakeClusterConfig>,
    ) -> Result<v1::ClusterStatus, ActuatorError> {
        let caller = caller(context);
        let modify = ModifyNetwork {
            network: network_ref(&request.resource)?,
            shape: convert::network_shape(&request.spec),
            digest: hex::encode(&request.spec.digest),
            generation: context.generation(),
        };
        let view = self
            .cloud
            .modify_network(&caller, &modify)
            .await
            .map_err(actuator_error)?;
        let view = self.with_load_balancer(&caller, &modify.network, view).await?;
        Ok(convert::cluster_status(&self.cloud, &view))
    }

    async fn delete_cluster(
        &self,
        context: &OperationContext,
        request: DeleteCluster<FakeClusterConfig>,
    ) -> Result<Deletion, ActuatorError> {
        let network = network_ref(&request.resource)?;
        let removal = self
            .cloud
            .delete_network(&caller(context), &network)
            .await
            .map_err(actuator_error)?;
        Ok(match removal {
            Removal::Gone => Deletion::Gone,
            Removal::InProgress(network) => Deletion::InProgress {
                message: format!("the network {} is being removed", network.id),
                poll_after: convert::until(&self.cloud, network.gone_at),
                remaining: vec![convert::artefact("network", &network.id)],
            },
        })
    }

    async fn cluster_exists(
        &self,
        context: &CallContext,
        request: ClusterExists<FakeClusterConfig>,
    ) -> Result<Existence<v1::ClusterStatus>, ActuatorError> {
        let network = network_ref(&request.resource)?;
        let found = self
            .cloud
            .describe_network(&caller(context), &network)
            .await
            .map_err(actuator_error)?;
        Ok(match found {
            None => Existence::Absent,
            Some(view) => {
                let status = convert::cluster_status(&self.cloud, &view);
                match view.network.gone_at {
                    Some(_) => Existence::Terminating(status),
                    None => Existence::Present(status),
                }
            }
        })
    }

    async fn create_machine(
        &self,
        context: &OperationContext,
        request: CreateMachine<FakeMachineConfig>,
    ) -> Result<v1::MachineStatus, ActuatorError> {
        let spec = &request.spec;
        let run = RunInstance {
            key: context.key().to_owned(),
            owner: owner(&request.ownership),
            shape: convert::instance_shape(spec),
            digest: hex::encode(&spec.digest),
            generation: context.generation(),
            boot_delay: spec.config.boot_delay.map(|delay| delay.0),
            lifetime: spec.config.lifetime.map(|lifetime| lifetime.0),
            fails_at_boot: spec.config.fail_boot,
            fails_with: spec.config.fail_create.map(|reason| reason.0),
            bootstrap_bytes: request
                .bootstrap
                .as_ref()
                .map_or(0, |bootstrap| bootstrap.data().len() as u64),
        };
        let instance = self
            .cloud
            .run_instance(&caller(context), &run)
            .await
            .map_err(actuator_error)?;
        Ok(convert::machine_status(&self.cloud, &instance))
    }

    async fn update_machine(
        &self,
        context: &OperationContext,
        request: UpdateMachine<FakeMachineConfig>,
    ) -> Result<v1::MachineStatus, ActuatorError> {
        let modify = ModifyInstance {
            instance: instance_ref(&request.resource)?,
            shape: convert::instance_shape(&request.spec),
            digest: hex::encode(&request.spec.digest),
            generation: context.generation(),
        };
        let instance = self
            .cloud
            .modify_instance(&caller(context), &modify)
            .await
            .map_err(actuator_error)?;
        Ok(convert::machine_status(&self.cloud, &instance))
    }

    async fn delete_machine(
        &self,
        context: &OperationContext,
        request: DeleteMachine<FakeMachineConfig>,
    ) -> Result<Deletion, ActuatorError> {
        let instance = instance_ref(&request.resource)?;
        let removal = self
            .cloud
            .terminate_instance(&caller(context), &instance)
            .await
            .map_err(actuator_error)?;
        Ok(match removal {
            Removal::Gone => Deletion::Gone,
            Removal::InProgress(instance) => Deletion::InProgress {
                message: format!("the instance {} is shutting down", instance.id),
                poll_after: convert::until(&self.cloud, instance.gone_at),
                remaining: convert::machine_artefacts(&instance),
            },
        })
    }

    async fn machine_exists(
        &self,
        context: &CallContext,
        request: MachineExists<FakeMachineConfig>,
    ) -> Result<Existence<v1::MachineStatus>, ActuatorError> {
        let instance = instance_ref(&request.resource)?;
        let found = self
            .cloud
            .describe_instance(&caller(context), &instance)
            .await
            .map_err(actuator_error)?;
        Ok(match found {
            None => Existence::Absent,
            Some(instance) => {
                let status = convert::machine_status(&self.cloud, &instance);
                match instance.state {
                    InstanceState::ShuttingDown => Existence::Terminating(status),
                    _ => Existence::Present(status),
                }
            }
        })
    }

    async fn list_clusters(
        &self,
        context: &CallContext,
        request: ListClusters<FakeClusterConfig>,
    ) -> Result<Page<v1::ListedCluster>, ActuatorError> {
        let after = self.list_position(&request.page)?;
        let management_cluster = &request.management_cluster_id;
        let caller = caller(context);
        let listed = self
            .cloud
            .list_networks(&caller, management_cluster, after, request.page.size);
        let listed = listed.await.map_err(actuator_error)?;
        let items = listed.items.iter().map(|view| {
            let network = &view.network;
            let listed = v1::ListedCluster {
                ownership: Some(convert::ownership(&network.owner)),
                idempotency_key: network.key.clone(),
                status: Some(convert::cluster_status(&self.cloud, view)),
            };
            (network.id.clone(), listed)
        });
        Ok(fill(&request.page, items, listed.more, |last| self.list_token(last)))
    }

    async fn list_machines(
        &self,
        context: &CallContext,
        request: ListMachines<FakeClusterConfig>,
    ) -> Result<Page<v1::ListedMachine>, ActuatorError> {
        let after = self.list_position(&request.page)?;
        let (management_cluster, cluster) = (&request.management_cluster_id, request.cluster_uid.as_deref());
        let caller = caller(context);
        let listed = self
            .cloud
            .list_instances(&caller, management_cluster, cluster, after, request.page.size);
        let listed = listed.await.map_err(actuator_error)?;
        let items = listed
            .items
            .iter()
            .map(|instance| (instance.id.clone(), convert::listed(&self.cloud, instance)));
        Ok(fill(&request.page, items, listed.more, |last| self.list_token(last)))
    }

    async fn watch_machines(
        &self,
        context: &CallContext,
        request: WatchMachines<FakeClusterConfig>,
    ) -> Result<WatchStream, ActuatorError> {
        let (management_cluster, token) = (&request.management_cluster_id, request.resume_token.as_deref());
        let caller = caller(context);
        let watcher = self.cloud.watch_instances(&caller, management_cluster, token);
        let watcher = watcher.await.map_err(actuator_error)?;
        let cloud = self.cloud.clone();
        let events = stream::unfold(Some(watcher), move |watcher| {
            let cloud = cloud.clone();
            async move {
                let mut watcher = watcher?;
                Some(match watcher.next().await {
                    Ok(item) => (Ok(watch_event(&cloud, item)), Some(watcher)),
                    Err(error) => (Err(actuator_error(error)), None),
                })
            }
        });
        Ok(events.boxed())
    }

    async fn set_endpoint_members(
        &self,
        context: &OperationContext,
        request: SetEndpointMembers,
    ) -> Result<v1::SetEndpointMembersResponse, ActuatorError> {
        let network = network_ref(&request.cluster)?;
        let mut targets = Vec::with_capacity(request.members.len());
        for member in &request.members {
            let (_, instance) = convert::parse_machine_id(&member.provider_id)?;
            targets.push(Target {
                key: member.idempotency_key.clone(),
                instance,
                draining: member.draining,
            });
        }
        let caller = caller(context);
        let set = self
            .cloud
            .set_targets(&caller, &network, &targets, context.generation());
        let (view, states) = set.await.map_err(actuator_error)?;
        let members = request.members.iter().zip(states);
        let members: Vec<_> = members
            .map(|(member, state)| convert::member_status(member, state))
            .collect();
        let registering = v1::EndpointMemberState::Registering as i32;
        let settling = members.iter().any(|member| member.state == registering);
        let poll_after = settling.then_some(prost_types::Duration { seconds: 1, nanos: 0 });
        Ok(v1::SetEndpointMembersResponse {
            endpoint: convert::endpoint(&view),
            members,
            poll_after,
        })
    }

    async fn console_output(
        &self,
        context: &CallContext,
        request: ConsoleOutput<FakeMachineConfig>,
    ) -> Result<ByteStream, ActuatorError> {
        let instance = instance_ref(&request.resource)?;
        let text = self
            .cloud
            .console_output(&caller(context), &instance)
            .await
            .map_err(actuator_error)?;
        let text = text.ok_or_else(|| {
            let message = format!("there is no instance of the key {}", instance.key);
            actuator_error(CloudError::new(v1::ErrorReason::ResourceNotFound, message))
        })?;
        let mut bytes = bytes::Bytes::from(text);
        if let Some(tail) = request.tail_bytes {
            let tail = usize::try_from(tail).unwrap_or(usize::MAX);
            bytes = bytes.split_off(bytes.len().saturating_sub(tail));
        }
        Ok(stream::once(async move { Ok(bytes) }).boxed())
    }

    async fn list_machine_types(
        &self,
        context: &CallContext,
        request: ListMachineTypes<FakeClusterConfig, FakeMachineConfig>,
    ) -> Result<Page<v1::MachineType>, ActuatorError> {
        let after = self.list_position(&request.page)?;
        let types = self
            .cloud
            .machine_types(&caller(context))
            .await
            .map_err(actuator_error)?;
        let wanted = types.into_iter().filter(|(info, _)| {
            request.name.as_ref().is_none_or(|name| name == info.name) && after.is_none_or(|after| info.name > after)
        });
        let items = wanted.map(|(info, zones)| (info.name.to_owned(), convert::machine_type(info, zones)));
        Ok(fill(&request.page, items, false, |last| self.list_token(last)))
    }

    async fn shutdown(&self) {
        if let Err(error) = self.cloud.close().await {
            tracing::warn!(%error, "unable to write a snapshot: the next start takes longer");
        }
    }
}

fn watch_event(cloud: &Cloud, item: WatchItem) -> WatchEvent {
    match item {
        WatchItem::Present(instance) => WatchEvent::Present(Box::new(convert::listed(cloud, &instance))),
        WatchItem::Gone(instance) => WatchEvent::Gone(v1::GoneMachine {
            ownership: Some(convert::ownership(&instance.owner)),
            idempotency_key: instance.key.clone(),
            provider_id: convert::machine_provider_id(&instance),
        }),
        WatchItem::Synced(token) => WatchEvent::Synced(token),
        WatchItem::Bookmark(token) => WatchEvent::Bookmark(token),
    }
}
