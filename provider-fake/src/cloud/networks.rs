//! What the cloud decides about networks and load balancers. Pure functions of the
//! state, the settings and the time.

use std::collections::BTreeMap;
use std::sync::Arc;

use actuator_proto::v1::ErrorReason;
use ipnet::Ipv4Net;

use super::error::CloudError;
use super::instances::{
    Circumstances, Decision, Removal, check_owner, check_quota, later, spent_key, stale_generation,
};
use super::model::{Action, Change, Kind, LoadBalancer, Network, Owner, Resource, Target};
use super::settings::Quota;

/// What the caller wants a network to be.
#[derive(Debug, Clone, PartialEq)]
pub struct NetworkShape {
    /// The name of the cluster.
    pub name: String,
    /// The region; `None`: the only one.
    pub region: Option<String>,
    /// Its range.
    pub cidr: Ipv4Net,
    /// Its zones; empty: all of the region.
    pub zones: Vec<String>,
    /// The port of its load balancer; `None`: it gets none.
    pub load_balancer_port: Option<u16>,
    /// The control-plane endpoint that the user gave, `host:port`.
    pub given_endpoint: Option<String>,
    /// What it carries.
    pub labels: BTreeMap<String, String>,
}

/// Asks for a network.
#[derive(Debug, Clone, PartialEq)]
pub struct CreateNetwork {
    /// The client token.
    pub key: String,
    /// Whose it is.
    pub owner: Owner,
    /// What it is to be.
    pub shape: NetworkShape,
    /// The digest of what it is to be, in hexadecimal.
    pub digest: String,
    /// The generation that this was made from.
    pub generation: i64,
    /// The call fails with this.
    pub fails_with: Option<ErrorReason>,
}

/// Which network, by key; with the id where it is known.
#[derive(Debug, Clone, PartialEq)]
pub struct NetworkRef {
    /// The client token with which it was made.
    pub key: String,
    /// Whose it is.
    pub owner: Owner,
    /// Its id.
    pub id: Option<String>,
}

/// Asks for a change.
#[derive(Debug, Clone, PartialEq)]
pub struct ModifyNetwork {
    /// Which.
    pub network: NetworkRef,
    /// What it is to be.
    pub shape: NetworkShape,
    /// The digest of what it is to be, in hexadecimal.
    pub digest: String,
    /// The generation that this was made from.
    pub generation: i64,
}

/// A cluster as the cloud has it.
#[derive(Debug, Clone, PartialEq)]
pub struct NetworkView {
    /// Its network.
    pub network: Arc<Network>,
    /// Its load balancer, if it has one by now.
    pub load_balancer: Option<Arc<LoadBalancer>>,
}

/// The network with its load balancer.
pub fn view(on: &Circumstances<'_>, network: &Arc<Network>) -> NetworkView {
    NetworkView {
        network: Arc::clone(network),
        load_balancer: on.state.load_balancer_of(&network.key).cloned(),
    }
}

/// Carries out [`CreateNetwork`].
pub fn create(on: &Circumstances<'_>, request: &CreateNetwork) -> Decision<NetworkView> {
    let conflict = |network: &Network, why: &str| {
        CloudError::new(
            ErrorReason::KeyConflict,
            format!("the key {} already made {} {why}", request.key, network.id),
        )
    };
    if let Some(network) = on.state.network_of(&request.key) {
        check_owner(&network.id, &network.owner, &request.owner)?;
        if network.gone_at.is_some() {
            return Err(spent_key(&request.key));
        }
        if ![&network.created_digest, &network.digest].contains(&&request.digest) {
            return Err(conflict(
                network,
                "from another spec; use another key for another cluster",
            ));
        }
        if request.generation < network.generation {
            return Err(stale_generation(network.generation, request.generation));
        }
        return Ok((view(on, network), Vec::new()));
    }
    if on.state.is_spent_cluster(&request.key) {
        return Err(spent_key(&request.key));
    }
    if let Some(reason) = request.fails_with {
        return Err(CloudError::new(reason, "the cluster's config asked for this failure"));
    }
    if let Some(network) = on.state.network_of_cluster(&request.owner.cluster) {
        return Err(CloudError::new(
            ErrorReason::NameConflict,
            format!(
                "the cluster {:?} has the network {} already, of another key",
                request.owner.cluster, network.id
            ),
        ));
    }
    let zones = zones(on, &request.shape)?;
    check_quota(on, Quota::Networks, 1)?;
    let shape = &request.shape;
    let network = Arc::new(Network {
        id: format!("net-{}", on.chance.id(&["net", &request.key])),
        key: request.key.clone(),
        owner: request.owner.clone(),
        name: shape.name.clone(),
        cidr: shape.cidr.to_string(),
        zones,
        load_balancer_port: shape.load_balancer_port,
        given_endpoint: shape.given_endpoint.clone(),
        created_at: on.now,
        ready_at: later(on.now, on.settings.network_delay),
        gone_at: None,
        created_digest: request.digest.clone(),
        digest: request.digest.clone(),
        generation: request.generation,
        labels: shape.labels.clone(),
    });
    let change = Change::to(Action::Created, Resource::Network(Arc::clone(&network)));
    let made = NetworkView {
        network,
        load_balancer: None,
    };
    Ok((made, vec![change]))
}

fn zones(on: &Circumstances<'_>, shape: &NetworkShape) -> Result<Vec<String>, CloudError> {
    let missing = |message: String| CloudError::new(ErrorReason::DependencyNotFound, message);
    let settings = on.settings;
    if let Some(region) = &shape.region
        && *region != settings.region
    {
        return Err(missing(format!(
            "there is no region {region:?}; there is {}",
            settings.region
        )));
    }
    if let Some(unknown) = shape.zones.iter().find(|zone| !settings.zones.contains(zone)) {
        let zones = settings.zones.join(", ");
        return Err(missing(format!(
            "there is no zone {unknown:?} in {}; there are {zones}",
            settings.region
        )));
    }
    Ok(if shape.zones.is_empty() {
        settings.zones.clone()
    } else {
        shape.zones.clone()
    })
}

/// Makes the load balancer of a network, or finds it.
pub fn create_load_balancer(on: &Circumstances<'_>, wanted: &NetworkRef) -> Decision<NetworkView> {
    let network = existing(on, wanted)?;
    let Some(port) = network.load_balancer_port else {
        return Ok((view(on, network), Vec::new()));
    };
    if on.state.load_balancer_of(&network.key).is_some() {
        return Ok((view(on, network), Vec::new()));
    }
    check_quota(on, Quota::LoadBalancers, 1)?;
    let id = format!("lb-{}", on.chance.id(&["lb", &network.key]));
    let load_balancer = Arc::new(LoadBalancer {
        host: format!("{id}.{}.fake.invalid", on.settings.region),
        id,
        key: network.key.clone(),
        owner: network.owner.clone(),
        network: network.id.clone(),
        port,
        targets: Vec::new(),
        targets_generation: 0,
    });
    let change = Change::to(Action::Created, Resource::LoadBalancer(Arc::clone(&load_balancer)));
    let made = NetworkView {
        network: Arc::clone(network),
        load_balancer: Some(load_balancer),
    };
    Ok((made, vec![change]))
}

/// The network that is meant, `None` when it is not there; an error when it is not the
/// caller's.
pub fn find<'a>(on: &Circumstances<'a>, wanted: &NetworkRef) -> Result<Option<&'a Arc<Network>>, CloudError> {
    let found = on.state.network_of(&wanted.key);
    check(on, wanted, found.map(Arc::as_ref)).map(|()| found)
}

/// Whether what the key shows, which may be an older state, is what the caller means
/// and the caller's.
pub fn check(on: &Circumstances<'_>, wanted: &NetworkRef, found: Option<&Network>) -> Result<(), CloudError> {
    let mismatch = |id: &str| {
        let message = format!("{id} is not what the key {} made and is not touched", wanted.key);
        Err(CloudError::new(ErrorReason::OwnershipMismatch, message))
    };
    if let Some(network) = found {
        check_owner(&network.id, &network.owner, &wanted.owner)?;
        return match &wanted.id {
            Some(id) if *id != network.id => mismatch(id),
            _ => Ok(()),
        };
    }
    match &wanted.id {
        Some(id) if on.state.networks.get(id).is_some_and(|other| other.key != wanted.key) => mismatch(id),
        _ => Ok(()),
    }
}

fn existing<'a>(on: &Circumstances<'a>, wanted: &NetworkRef) -> Result<&'a Arc<Network>, CloudError> {
    let found = find(on, wanted)?.filter(|network| network.gone_at.is_none());
    found.ok_or_else(|| {
        let message = format!("there is no network of the key {}", wanted.key);
        CloudError::new(ErrorReason::ResourceNotFound, message)
    })
}

/// Carries out [`ModifyNetwork`].
pub fn modify(on: &Circumstances<'_>, request: &ModifyNetwork) -> Decision<NetworkView> {
    let network = existing(on, &request.network)?;
    if request.generation < network.generation {
        return Err(stale_generation(network.generation, request.generation));
    }
    let shape = &request.shape;
    let fixed = [
        ("networkCidr", shape.cidr.to_string() != network.cidr),
        ("loadBalancer", shape.load_balancer_port != network.load_balancer_port),
        ("controlPlaneEndpoint", shape.given_endpoint != network.given_endpoint),
    ];
    let changed: Vec<&str> = fixed
        .iter()
        .filter(|(_, differs)| *differs)
        .map(|(name, _)| *name)
        .collect();
    if !changed.is_empty() {
        let message = format!("{} of {} cannot be changed in place", changed.join(", "), network.id);
        return Err(CloudError::new(ErrorReason::ReplaceRequired, message));
    }
    let next = Network {
        name: shape.name.clone(),
        zones: zones(on, shape)?,
        labels: shape.labels.clone(),
        digest: request.digest.clone(),
        generation: request.generation,
        ..Network::clone(network)
    };
    if next == **network {
        return Ok((view(on, network), Vec::new()));
    }
    let next = Arc::new(next);
    let change = Change::to(Action::Updated, Resource::Network(Arc::clone(&next)));
    Ok((view(on, &next), vec![change]))
}

/// Removes a network with its load balancer, and spends its key.
pub fn delete(on: &Circumstances<'_>, wanted: &NetworkRef) -> Decision<Removal<Network>> {
    let Some(network) = find(on, wanted)? else {
        let spent = on.state.is_spent_cluster(&wanted.key);
        let retired = Change::retired(Kind::Network, &wanted.key, &wanted.owner.cluster);
        return Ok((Removal::Gone, if spent { Vec::new() } else { vec![retired] }));
    };
    if network.gone_at.is_some() {
        return Ok((Removal::InProgress(Arc::clone(network)), Vec::new()));
    }
    let mut dependents = on.state.members_of(&network.id);
    let named: Vec<&str> = dependents.by_ref().take(3).map(String::as_str).collect();
    if !named.is_empty() {
        let more = match dependents.count() {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        let message = format!(
            "the network {} still has {}{more}; delete them first",
            network.id,
            named.join(", ")
        );
        return Err(CloudError::new(ErrorReason::DependentsExist, message));
    }
    if on.settings.delete_delay.is_zero() {
        return Ok((Removal::Gone, on.state.network_gone(network)));
    }
    let next = Arc::new(Network {
        gone_at: Some(later(on.now, on.settings.delete_delay)),
        ..Network::clone(network)
    });
    let change = Change::to(Action::ShuttingDown, Resource::Network(Arc::clone(&next)));
    Ok((Removal::InProgress(next), vec![change]))
}

/// Sets the full set of targets of a network's load balancer. One that is not there is
/// kept, and is unhealthy: a full set must converge whatever died meanwhile.
pub fn set_targets(
    on: &Circumstances<'_>,
    wanted: &NetworkRef,
    targets: &[Target],
    generation: i64,
) -> Decision<NetworkView> {
    let network = existing(on, wanted)?;
    if network.load_balancer_port.is_none() {
        return Ok((view(on, network), Vec::new()));
    }
    let load_balancer = on.state.load_balancer_of(&network.key).ok_or_else(|| {
        let message = format!(
            "the network {} has no load balancer yet; create the cluster again",
            network.id
        );
        CloudError::new(ErrorReason::ResourceNotFound, message)
    })?;
    if generation < load_balancer.targets_generation {
        return Err(stale_generation(load_balancer.targets_generation, generation));
    }
    let mut targets = targets.to_vec();
    targets.sort_by(|a, b| a.key.cmp(&b.key));
    targets.dedup_by(|a, b| a.key == b.key);
    let next = LoadBalancer {
        targets,
        targets_generation: generation,
        ..LoadBalancer::clone(load_balancer)
    };
    if next == **load_balancer {
        return Ok((view(on, network), Vec::new()));
    }
    let next = Arc::new(next);
    let change = Change::to(Action::Updated, Resource::LoadBalancer(Arc::clone(&next)));
    let changed = NetworkView {
        network: Arc::clone(network),
        load_balancer: Some(next),
    };
    Ok((changed, vec![change]))
}
