//! Machines: observe, have it decided, act.

use std::time::Instant;

use futures::future::try_join;
use provider_sdk::v1::{self, ErrorReason};
use provider_sdk::{
    ActuatorError, CallContext, CreateMachine, DeleteMachine, Deletion, Existence, MachineExists, MachineSpec,
    OperationContext, Resource, UpdateMachine,
};

use super::{AwsProvider, Caller, IMAGE_AGE, MAX_IMAGES};
use crate::client::failure::Failure;
use crate::client::query::Filter;
use crate::cluster::{Network, artefact};
use crate::config::machine::{AwsMachineConfig, Image, Subnet as Wanted};
use crate::ec2::instances::{self, Image as Found, Instance};
use crate::ec2::network;
use crate::errors::{self, TOKEN_WITH_OTHER_PARAMETERS, after_changes};
use crate::machine::launch::{self, Launch};
use crate::machine::plan::{self, Create, Observation, Presence, Update};
use crate::machine::{status, user_data};
use crate::tags::{self, Applied, Kind};
use crate::{ec2, ids};

impl AwsProvider {
    pub(super) async fn make_machine(
        &self,
        context: &OperationContext,
        request: CreateMachine<AwsMachineConfig>,
    ) -> Result<v1::MachineStatus, ActuatorError> {
        let spec = &request.spec;
        let network = self.network_of(context, &request.ownership, spec).await?;
        let caller = self.caller(context, &network.region)?;
        let resource = Resource {
            ownership: request.ownership.clone(),
            key: context.key().to_owned(),
            provider_id: None,
        };
        let wanted = applied(spec, context.generation());
        let seen = self.observe_machine(&caller, &resource).await?;
        if let Create::Existing(instance) = plan::create(&seen, &resource, &wanted)? {
            return Ok(self.machine_status(&instance));
        }
        let image = self.image(&caller, &spec.config.image).await?;
        let subnet = self.subnet(&caller, spec, &network, context.key()).await?;
        let user_data = request.bootstrap.as_ref().map(user_data::encode).transpose()?;
        let groups = std::iter::once(&network.node_group).chain(&spec.config.security_group_ids);
        let launch = Launch {
            key: context.key(),
            image: &image,
            subnet: &subnet,
            groups: groups.cloned().collect(),
            user_data,
            tags: &tags::all(
                Kind::Machine,
                context.key(),
                &request.ownership,
                &wanted,
                &spec.config.tags,
            ),
        };
        let parameters = launch::parameters(&spec.config, &launch);
        let note = |made| {
            let management = &request.ownership.management_cluster_id;
            let now = Instant::now();
            self.machines
                .note(Kind::Machine, management, context.key(), &network.region, made, now);
        };
        note(None);
        match instances::run(&caller.client, parameters).await {
            Ok(Some(instance)) => {
                note(Some(instance.clone()));
                Ok(self.machine_status(&instance))
            }
            Ok(None) => Err(ActuatorError::new(
                ErrorReason::CloudUnclassified,
                "EC2 accepted RunInstances and told of no instance",
            )
            .with_effect(v1::Effect::Unknown)),
            // It was made before, with other bootstrap data for example, and may be seen by now.
            Err(failure) if failure.code() == Some(TOKEN_WITH_OTHER_PARAMETERS) => {
                let seen = self.observe_machine(&caller, &resource).await?;
                match plan::create(&seen, &resource, &wanted)? {
                    Create::Existing(instance) => Ok(self.machine_status(&instance)),
                    Create::Run => Err(errors::error(&failure)),
                }
            }
            Err(failure) => {
                let error = placed(errors::error(&failure), &failure, spec, &network, &subnet);
                if error.effect() == v1::Effect::None {
                    let management = &request.ownership.management_cluster_id;
                    self.machines.forget(Kind::Machine, management, context.key());
                }
                Err(error)
            }
        }
    }

    pub(super) async fn change_machine(
        &self,
        context: &OperationContext,
        request: UpdateMachine<AwsMachineConfig>,
    ) -> Result<v1::MachineStatus, ActuatorError> {
        let config = Some(&request.spec.config);
        let (caller, seen) = self.find_machine(context, &request.resource, config).await?;
        let wanted = applied(&request.spec, context.generation());
        let asked_for = &request.spec.config.tags;
        let (mut instance, ids, remove, write) = match plan::update(&seen, &request.resource, &wanted, asked_for)? {
            Update::Nothing(instance) => return Ok(self.machine_status(&instance)),
            Update::Retag {
                instance,
                ids,
                remove,
                write,
            } => (instance, ids, remove, write),
        };
        // The digest is written last, with the new tags: until then the old spec is the one
        // that was applied.
        if !remove.is_empty() {
            let removed = ec2::delete_tags(&caller.client, &ids, &remove).await;
            removed.map_err(|failure| errors::error(&failure))?;
        }
        let written = ec2::create_tags(&caller.client, &ids, &write).await;
        written.map_err(|failure| {
            if remove.is_empty() {
                errors::error(&failure)
            } else {
                after_changes(&failure)
            }
        })?;
        instance.retag(&write, &remove);
        Ok(self.machine_status(&instance))
    }

    pub(super) async fn remove_machine(
        &self,
        context: &OperationContext,
        request: DeleteMachine<AwsMachineConfig>,
    ) -> Result<Deletion, ActuatorError> {
        let found = self
            .find_machine(context, &request.resource, request.config.get())
            .await;
        let (caller, seen) = found?;
        let plan = plan::delete(&seen, &request.resource)?;
        let client = &caller.client;
        if !plan.terminate.is_empty() {
            let ended = instances::terminate(client, &plan.terminate).await;
            ended.map_err(|failure| errors::error(&failure))?;
        }
        let mut changed = false;
        let failed = |failure: Failure, changed: bool| {
            if changed {
                after_changes(&failure)
            } else {
                errors::error(&failure)
            }
        };
        for id in &plan.interfaces {
            let gone = instances::delete_interface(client, id).await;
            gone.map_err(|failure| failed(failure, changed))?;
            changed = true;
        }
        for id in &plan.volumes {
            let gone = instances::delete_volume(client, id).await;
            gone.map_err(|failure| failed(failure, changed))?;
            changed = true;
        }
        Ok(match plan.waits_for {
            None => Deletion::Gone,
            Some(message) => Deletion::InProgress {
                message,
                poll_after: Some(plan.poll_after.unwrap_or(self.settings.poll_interval)),
                remaining: plan.remaining.iter().map(|(kind, id)| artefact(kind, id)).collect(),
            },
        })
    }

    pub(super) async fn look_at_machine(
        &self,
        context: &CallContext,
        request: MachineExists<AwsMachineConfig>,
    ) -> Result<Existence<v1::MachineStatus>, ActuatorError> {
        let (_, seen) = self
            .find_machine(context, &request.resource, request.config.get())
            .await?;
        Ok(match plan::exists(&seen, &request.resource)? {
            Presence::Absent => Existence::Absent,
            Presence::Present(instance) => Existence::Present(self.machine_status(&instance)),
            Presence::Terminating(instance) => Existence::Terminating(self.machine_status(&instance)),
        })
    }

    pub(super) fn machine_status(&self, instance: &Instance) -> v1::MachineStatus {
        status::of(instance, self.settings.poll_interval)
    }

    /// What is seen of a machine wherever it may be, with who sees it there.
    async fn find_machine(
        &self,
        context: &CallContext,
        resource: &Resource,
        config: Option<&AwsMachineConfig>,
    ) -> Result<(Caller, Observation), ActuatorError> {
        let known = match &resource.provider_id {
            Some(id) => Some(ids::parse_machine(id)?.0),
            None => config.and_then(|config| config.region.clone()).or_else(|| {
                let management = &resource.ownership.management_cluster_id;
                self.machines.region(Kind::Machine, management, &resource.key)
            }),
        };
        let regions = match known {
            Some(region) => vec![region],
            None => self.every_region(context).await?,
        };
        let mut nothing = None;
        for region in regions {
            let caller = self.caller(context, &region)?;
            let seen = self.observe_machine(&caller, resource).await?;
            if !seen.is_empty() {
                return Ok((caller, seen));
            }
            nothing.get_or_insert((caller, seen));
        }
        nothing.ok_or_else(|| ActuatorError::new(ErrorReason::MissingPermission, "the account has no region"))
    }

    async fn observe_machine(&self, caller: &Caller, resource: &Resource) -> Result<Observation, ActuatorError> {
        // Before EC2 is asked: what is made meanwhile would be neither seen nor remembered.
        let management = &resource.ownership.management_cluster_id;
        let trace = self
            .machines
            .look(Kind::Machine, management, &resource.key, Instant::now());
        let client = &caller.client;
        let observed = async {
            let instances = caller.describes.with_key(&resource.key).await?;
            let named = match &resource.provider_id {
                Some(id) => {
                    let id = id.rsplit('/').next().unwrap_or_default();
                    if instances.iter().any(|instance| instance.id == id) {
                        None
                    } else {
                        instances::find(client, id).await?
                    }
                }
                None => None,
            };
            let (volumes, interfaces) = if plan::lives(&instances) {
                (Vec::new(), Vec::new())
            } else {
                let filters = [tags::by_key(Kind::Machine, [&resource.key])];
                try_join(
                    instances::describe_volumes(client, &filters),
                    instances::describe_interfaces(client, &filters),
                )
                .await?
            };
            Ok(Observation {
                instances,
                // Just made, it may not show its tags yet.
                named: named.filter(|named| !plan::is_made(&trace, named)),
                volumes,
                interfaces,
                trace,
            })
        };
        observed.await.map_err(|failure: Failure| errors::error(&failure))
    }

    /// Where a new machine goes: what its cluster's status says, or else what its tags say.
    async fn network_of(
        &self,
        context: &CallContext,
        ownership: &v1::Ownership,
        spec: &MachineSpec<AwsMachineConfig>,
    ) -> Result<Network, ActuatorError> {
        let state = spec.cluster.as_ref().map(|cluster| cluster.provider_state.as_slice());
        let network = match state.and_then(Network::read) {
            Some(network) => Some(network),
            None => {
                self.network_by_tags(context, ownership, spec.config.region.as_deref())
                    .await?
            }
        };
        let network = network.ok_or_else(|| {
            ActuatorError::new(
                ErrorReason::ClusterNotReady,
                "the cluster has no security group for its nodes yet",
            )
        })?;
        match &spec.config.region {
            Some(region) if *region != network.region => Err(ActuatorError::new(
                ErrorReason::InvalidConfig,
                format!(
                    "the machine is wanted in {region}, and its cluster is in {}",
                    network.region
                ),
            )
            .with_field("/region", "another region than the cluster's")),
            _ => Ok(network),
        }
    }

    /// The image that a config asks for.
    pub(super) async fn image(&self, caller: &Caller, wanted: &Image) -> Result<Found, ActuatorError> {
        let name = serde_json::to_string(wanted).unwrap_or_default();
        let place = (caller.name.clone(), name);
        let now = Instant::now();
        let known = self.images.lock().get(&place).cloned();
        if let Some((image, at)) = known
            && now.duration_since(at) < IMAGE_AGE
        {
            return Ok(image);
        }
        let found = async {
            let parameter = match wanted {
                Image::Parameter(name) => Some(ec2::get_parameter(&caller.client, name).await?),
                Image::Id(_) | Image::Filter(_) => None,
            };
            let question = launch::image_question(wanted, parameter.as_deref());
            instances::describe_images(&caller.client, question).await
        };
        let found = found.await.map_err(|failure| errors::error(&failure))?;
        let image = launch::newest(found, wanted)?;
        let mut images = self.images.lock();
        if images.len() >= MAX_IMAGES {
            images.retain(|_, (_, at)| now.duration_since(*at) < IMAGE_AGE);
        }
        if images.len() < MAX_IMAGES {
            images.insert(place, (image.clone(), now));
        }
        Ok(image)
    }

    async fn subnet(
        &self,
        caller: &Caller,
        spec: &MachineSpec<AwsMachineConfig>,
        its: &Network,
        key: &str,
    ) -> Result<String, ActuatorError> {
        let domain = spec.failure_domain.as_deref();
        let filters = match &spec.config.subnet {
            None => return Ok(launch::choose_subnet(&its.subnets(), domain, key)?.id.clone()),
            Some(Wanted::Zone(zone)) => {
                if domain.is_some_and(|domain| domain != zone) {
                    return Err(ActuatorError::new(
                        ErrorReason::InvalidConfig,
                        format!("the machine is wanted in the zone {zone} and in another failure domain"),
                    )
                    .with_field("/subnet/zone", "another zone than the failure domain"));
                }
                return Ok(launch::choose_subnet(&its.subnets(), Some(zone), key)?.id.clone());
            }
            Some(Wanted::Id(id)) => vec![Filter::exactly("subnet-id", [id])],
            Some(Wanted::Tags(wanted)) => wanted.iter().map(|(name, value)| Filter::tag(name, [value])).collect(),
        };
        let filters: Vec<Filter> = filters
            .into_iter()
            .chain([Filter::exactly("vpc-id", [&its.vpc])])
            .collect();
        let found = network::describe_subnets(&caller.client, &filters).await;
        let found = found.map_err(|failure| errors::error(&failure))?;
        Ok(launch::choose_subnet(&found, domain, key)?.id.clone())
    }
}

fn applied(spec: &MachineSpec<AwsMachineConfig>, generation: i64) -> Applied {
    Applied {
        digest: spec.digest.clone(),
        generation,
        shape: launch::shape(spec),
    }
}

/// A lack of capacity is one of a type in a zone.
fn placed(
    error: ActuatorError,
    failure: &Failure,
    spec: &MachineSpec<AwsMachineConfig>,
    network: &Network,
    subnet: &str,
) -> ActuatorError {
    if error.reason() != ErrorReason::InsufficientCapacity || failure.code().is_none() {
        return error;
    }
    let zone = network
        .subnets
        .iter()
        .find(|(id, _)| id == subnet)
        .map(|(_, zone)| zone.as_str());
    let error = error.with_metadata("machine_type", &spec.config.instance_type);
    match zone.or(spec.failure_domain.as_deref()) {
        Some(zone) => error.with_metadata("failure_domain", zone),
        None => error,
    }
}
