//! Clusters: observe, have it decided, act.

use std::time::Instant;

use provider_sdk::v1::{self, ErrorReason};
use provider_sdk::{
    ActuatorError, CallContext, ClusterExists, ClusterSpec, CreateCluster, DeleteCluster, Deletion, Existence,
    OperationContext, Resource, UpdateCluster,
};

use super::{AwsProvider, Caller};
use crate::client::failure::Failure;
use crate::client::query::Filter;
use crate::cluster::{self, Network, Observation, READY, artefact};
use crate::config::cluster::{AwsClusterConfig, Network as Wanted};
use crate::ec2::network::{self, SecurityGroup, Subnet};
use crate::ec2::{self, Tags, instances};
use crate::errors::{self, after_changes};
use crate::ids;
use crate::tags::{self, Kind};

impl AwsProvider {
    pub(super) async fn make_cluster(
        &self,
        context: &OperationContext,
        request: CreateCluster<AwsClusterConfig>,
    ) -> Result<v1::ClusterStatus, ActuatorError> {
        let (spec, config) = (&request.spec, &request.spec.config);
        let caller = self.caller(context, &config.region)?;
        let resource = Resource {
            ownership: request.ownership.clone(),
            key: context.key().to_owned(),
            provider_id: None,
        };
        let seen = self.observe_cluster(&caller, &resource).await?;
        let (group, subnets) = match seen.group(&resource)? {
            Some(group) => {
                cluster::check_digest(group, &spec.digest)?;
                let subnets = subnets(&caller, &group.vpc_id, &config.network).await?;
                (group.clone(), subnets)
            }
            None => {
                let vpc = vpc(&caller, config).await?;
                let subnets = subnets(&caller, &vpc, &config.network).await?;
                (self.make_group(context, &request, &caller, &vpc).await?, subnets)
            }
        };
        let mut tags = group.tags();
        self.converge_rules(&caller, &group, config).await?;
        if !tags.contains_key(READY) {
            let ready: Tags = [(READY.to_owned(), "true".to_owned())].into();
            let written = ec2::create_tags(&caller.client, std::slice::from_ref(&group.id), &ready).await;
            written.map_err(|failure| fresh(&failure))?;
            tags.extend(ready);
        }
        let network = Network::new(&config.region, &group, &subnets);
        Ok(cluster::status(context.key(), &network, &tags, given(spec)))
    }

    async fn make_group(
        &self,
        context: &OperationContext,
        request: &CreateCluster<AwsClusterConfig>,
        caller: &Caller,
        vpc: &str,
    ) -> Result<SecurityGroup, ActuatorError> {
        let config = &request.spec.config;
        let applied = cluster::applied(&request.spec.digest, context.generation());
        let tags = tags::all(Kind::Cluster, context.key(), &request.ownership, &applied, &config.tags);
        let note = |made| {
            let management = &request.ownership.management_cluster_id;
            let now = Instant::now();
            self.clusters
                .note(Kind::Cluster, management, context.key(), &config.region, made, now);
        };
        note(None);
        // The name has the key in it: EC2 takes it once in a network, which makes it the
        // token of this call.
        let name = format!("outrigger-{}", context.key());
        let description = format!("Nodes of the cluster {}", request.ownership.cluster_name);
        let made = network::create_security_group(&caller.client, &name, &description, vpc, &tags).await;
        match made {
            Ok(id) => {
                let group = SecurityGroup::new(&id, vpc, &tags);
                note(Some(group.clone()));
                Ok(group)
            }
            Err(failure) if failure.code() == Some("InvalidGroup.Duplicate") => Err(ActuatorError::new(
                ErrorReason::OperationPending,
                format!("the security group {name} was made before and cannot be seen yet"),
            )),
            Err(failure) => {
                let error = errors::error(&failure);
                if error.effect() == v1::Effect::None {
                    let management = &request.ownership.management_cluster_id;
                    self.clusters.forget(Kind::Cluster, management, context.key());
                }
                Err(error)
            }
        }
    }

    pub(super) async fn change_cluster(
        &self,
        context: &OperationContext,
        request: UpdateCluster<AwsClusterConfig>,
    ) -> Result<v1::ClusterStatus, ActuatorError> {
        let (spec, config) = (&request.spec, &request.spec.config);
        let (caller, seen) = self.find_cluster(context, &request.resource, Some(config)).await?;
        let Some(group) = seen.group(&request.resource)? else {
            return Err(match seen.unsettled() {
                Some(left) => unsettled(left),
                None => ActuatorError::new(
                    ErrorReason::ResourceNotFound,
                    "there is no security group with this key",
                ),
            });
        };
        let region = caller.client.region();
        cluster::check_update(group, region, spec, context.generation())?;
        let subnets = subnets(&caller, &group.vpc_id, &config.network).await?;
        self.converge_rules(&caller, group, config).await?;
        let mut tags = group.tags();
        let ids = std::slice::from_ref(&group.id);
        let remove = tags::no_longer_asked_for(&tags, &config.tags);
        if !remove.is_empty() {
            let removed = ec2::delete_tags(&caller.client, ids, &remove).await;
            removed.map_err(|failure| after_changes(&failure))?;
        }
        let applied = cluster::applied(&spec.digest, context.generation());
        let mut write = tags::changing(&applied, &config.tags);
        write.insert(READY.to_owned(), "true".to_owned());
        let written = ec2::create_tags(&caller.client, ids, &write).await;
        written.map_err(|failure| after_changes(&failure))?;
        tags.retain(|key, _| !remove.contains(key));
        tags.extend(write);
        let network = Network::new(region, group, &subnets);
        Ok(cluster::status(&request.resource.key, &network, &tags, given(spec)))
    }

    pub(super) async fn remove_cluster(
        &self,
        context: &OperationContext,
        request: DeleteCluster<AwsClusterConfig>,
    ) -> Result<Deletion, ActuatorError> {
        let found = self
            .find_cluster(context, &request.resource, request.config.get())
            .await;
        let (caller, seen) = found?;
        let Some(group) = seen.group(&request.resource)? else {
            return Ok(match seen.unsettled() {
                None => Deletion::Gone,
                Some(left) => Deletion::InProgress {
                    message: "what was made a moment ago may not be seen yet".to_owned(),
                    poll_after: Some(left),
                    remaining: Vec::new(),
                },
            });
        };
        let in_progress = |message: String, remaining| Deletion::InProgress {
            message,
            poll_after: Some(self.settings.poll_interval),
            remaining,
        };
        let removed = network::delete_security_group(&caller.client, &group.id).await;
        let blocked = matches!(&removed, Err(failure) if failure.code() == Some("DependencyViolation"));
        if blocked {
            let users = [Filter::exactly("group-id", [&group.id])];
            let users = instances::describe_interfaces(&caller.client, &users).await;
            let users = users.map_err(|failure| errors::error(&failure))?;
            let names: Vec<&str> = users.iter().map(|user| user.id.as_str()).collect();
            let message = format!("the security group {} is in use by {}", group.id, names.join(", "));
            let users = users.iter().map(|user| artefact("network-interface", &user.id));
            return Ok(in_progress(
                message,
                users.chain([artefact("security-group", &group.id)]).collect(),
            ));
        }
        removed.map_err(|failure| errors::error(&failure))?;
        // It is gone; a late look may still find what was noted when it was made.
        let management = &request.resource.ownership.management_cluster_id;
        self.clusters.forget(Kind::Cluster, management, &request.resource.key);
        Ok(Deletion::Gone)
    }

    pub(super) async fn look_at_cluster(
        &self,
        context: &CallContext,
        request: ClusterExists<AwsClusterConfig>,
    ) -> Result<Existence<v1::ClusterStatus>, ActuatorError> {
        let config = request.config.get();
        let (caller, seen) = self.find_cluster(context, &request.resource, config).await?;
        let Some(group) = seen.group(&request.resource)? else {
            return seen
                .unsettled()
                .map_or(Ok(Existence::Absent), |left| Err(unsettled(left)));
        };
        let known = Network::read(&request.provider_state).filter(|known| known.node_group == group.id);
        let network = match (config, known) {
            (None, Some(known)) => known,
            (config, _) => {
                let wanted = config.map(|config| config.network.clone()).unwrap_or_default();
                let found = find_subnets(&caller, &group.vpc_id, &wanted).await?;
                Network::new(caller.client.region(), group, &found)
            }
        };
        Ok(Existence::Present(cluster::status(
            &request.resource.key,
            &network,
            &group.tags(),
            None,
        )))
    }

    /// Whether the network is there that a config names.
    pub(super) async fn look_for_network(
        &self,
        context: &CallContext,
        config: &AwsClusterConfig,
    ) -> Result<(), ActuatorError> {
        let caller = self.caller(context, &config.region)?;
        let vpc = vpc(&caller, config).await?;
        subnets(&caller, &vpc, &config.network).await.map(|_| ())
    }

    async fn converge_rules(
        &self,
        caller: &Caller,
        group: &SecurityGroup,
        config: &AwsClusterConfig,
    ) -> Result<(), ActuatorError> {
        let wanted = cluster::wanted_rules(&group.id, config);
        let changes = cluster::rule_changes(&group.rules(), &wanted);
        // One by one: a call with one rule that is there already adds none of the others.
        for rule in &changes.add {
            let added = network::authorize_ingress(&caller.client, &group.id, std::slice::from_ref(rule)).await;
            added.map_err(|failure| fresh(&failure))?;
        }
        for rule in &changes.remove {
            let removed = network::revoke_ingress(&caller.client, &group.id, std::slice::from_ref(rule)).await;
            removed.map_err(|failure| fresh(&failure))?;
        }
        Ok(())
    }

    /// What is seen of a cluster wherever it may be, with who sees it there.
    async fn find_cluster(
        &self,
        context: &CallContext,
        resource: &Resource,
        config: Option<&AwsClusterConfig>,
    ) -> Result<(Caller, Observation), ActuatorError> {
        let known = match &resource.provider_id {
            Some(id) => Some(ids::parse_cluster(id, &resource.key)?),
            None => config.map(|config| config.region.clone()).or_else(|| {
                let management = &resource.ownership.management_cluster_id;
                self.clusters.region(Kind::Cluster, management, &resource.key)
            }),
        };
        let regions = match known {
            Some(region) => vec![region],
            None => self.every_region(context).await?,
        };
        let mut nothing = None;
        for region in regions {
            let caller = self.caller(context, &region)?;
            let seen = self.observe_cluster(&caller, resource).await?;
            if !seen.groups.is_empty() {
                return Ok((caller, seen));
            }
            nothing.get_or_insert((caller, seen));
        }
        nothing.ok_or_else(|| ActuatorError::new(ErrorReason::MissingPermission, "the account has no region"))
    }

    async fn observe_cluster(&self, caller: &Caller, resource: &Resource) -> Result<Observation, ActuatorError> {
        let management = &resource.ownership.management_cluster_id;
        let trace = self
            .clusters
            .look(Kind::Cluster, management, &resource.key, Instant::now());
        let filters = [tags::by_key(Kind::Cluster, [&resource.key])];
        let groups = network::describe_security_groups(&caller.client, &filters).await;
        let groups = groups.map_err(|failure| errors::error(&failure))?;
        Ok(Observation { groups, trace })
    }

    /// What a machine has to know of its cluster, from the cluster's tags alone.
    pub(super) async fn network_by_tags(
        &self,
        context: &CallContext,
        ownership: &v1::Ownership,
        region: Option<&str>,
    ) -> Result<Option<Network>, ActuatorError> {
        let regions = match region {
            Some(region) => vec![region.to_owned()],
            None => self.every_region(context).await?,
        };
        let filters = [
            Filter::exactly("tag-key", [tags::CLUSTER_KEY]),
            Filter::tag(tags::CLUSTER_UID, [&ownership.cluster_uid]),
            Filter::tag(tags::MANAGEMENT_CLUSTER, [&ownership.management_cluster_id]),
        ];
        for region in regions {
            let caller = self.caller(context, &region)?;
            let groups = network::describe_security_groups(&caller.client, &filters).await;
            let groups = groups.map_err(|failure| errors::error(&failure))?;
            if let Some(group) = groups.iter().find(|group| group.tags().contains_key(READY)) {
                let found = find_subnets(&caller, &group.vpc_id, &Wanted::default()).await?;
                return Ok(Some(Network::new(&region, group, &found)));
            }
        }
        Ok(None)
    }
}

/// The endpoint that the user has given; none is made.
fn given(spec: &ClusterSpec<AwsClusterConfig>) -> Option<v1::Endpoint> {
    let endpoint = spec.control_plane_endpoint.clone();
    endpoint.filter(|endpoint| !endpoint.host.is_empty())
}

async fn vpc(caller: &Caller, config: &AwsClusterConfig) -> Result<String, ActuatorError> {
    let (filter, missing) = match &config.network.vpc_id {
        Some(id) => (Filter::exactly("vpc-id", [id]), format!("there is no VPC {id}")),
        None => (
            Filter::exactly("is-default", ["true"]),
            "the region has no default VPC; name one".to_owned(),
        ),
    };
    let found = network::describe_vpcs(&caller.client, &[filter]).await;
    let found = found.map_err(|failure| errors::error(&failure))?;
    let first = found.into_iter().next().map(|vpc| vpc.id);
    first.ok_or_else(|| {
        ActuatorError::new(ErrorReason::DependencyNotFound, missing).with_field("/network/vpcId", "not found")
    })
}

async fn find_subnets(caller: &Caller, vpc: &str, wanted: &Wanted) -> Result<Vec<Subnet>, ActuatorError> {
    let mut filters = vec![Filter::exactly("vpc-id", [vpc])];
    if !wanted.subnet_ids.is_empty() {
        filters.push(Filter::exactly("subnet-id", &wanted.subnet_ids));
    }
    let found = network::describe_subnets(&caller.client, &filters).await;
    let mut found = found.map_err(|failure| errors::error(&failure))?;
    found.sort_by(|one, other| one.id.cmp(&other.id));
    Ok(found)
}

/// The same where all that are wanted have to be there.
async fn subnets(caller: &Caller, vpc: &str, wanted: &Wanted) -> Result<Vec<Subnet>, ActuatorError> {
    let found = find_subnets(caller, vpc, wanted).await?;
    let missing = wanted
        .subnet_ids
        .iter()
        .find(|id| found.iter().all(|subnet| subnet.id != **id));
    let message = match missing {
        Some(id) => format!("{vpc} has no subnet {id}"),
        None if found.is_empty() => format!("{vpc} has no subnet; make one"),
        None => return Ok(found),
    };
    Err(ActuatorError::new(ErrorReason::DependencyNotFound, message).with_field("/network/subnetIds", "not found"))
}

/// A failure at a group that is there: EC2 may not know yet what it has just made.
fn fresh(failure: &Failure) -> ActuatorError {
    let error = after_changes(failure);
    if failure.code().is_some_and(|code| code.starts_with("InvalidGroup")) {
        let message = "the security group was made a moment ago and cannot be changed yet";
        return ActuatorError::new(ErrorReason::OperationPending, message).with_effect(v1::Effect::Partial);
    }
    error
}

fn unsettled(left: std::time::Duration) -> ActuatorError {
    ActuatorError::new(
        ErrorReason::OperationPending,
        "what was made a moment ago may not be seen yet",
    )
    .with_retry_after(left)
}
