//! What the cloud decides about instances: which changes a call makes, or why it makes
//! none. Pure functions of the state, the settings and the time.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use actuator_proto::v1::ErrorReason;
use jiff::Timestamp;

use super::catalogue;
use super::chance::Chance;
use super::error::CloudError;
use super::model::{
    Action, Address, Change, Disk, Instance, InstanceState, Network, NetworkInterface, Owner, Resource, Spent,
};
use super::settings::{Quota, Settings};
use super::state::State;

/// What every decision rests on.
pub struct Circumstances<'a> {
    /// Everything there is.
    pub state: &'a State,
    /// How the cloud behaves.
    pub settings: &'a Settings,
    /// For jitter, lifetimes and ids.
    pub chance: &'a Chance,
    /// The time of the call.
    pub now: Timestamp,
}

/// What the caller wants an instance to be.
#[derive(Debug, Clone, PartialEq)]
pub struct InstanceShape {
    /// The name of the machine.
    pub name: String,
    /// The Kubernetes version, may be empty.
    pub kubernetes_version: String,
    /// Whether it is to run the control plane.
    pub control_plane: bool,
    /// Where to put it; `None` lets the cloud choose.
    pub zone: Option<String>,
    /// Its type.
    pub machine_type: String,
    /// Its image.
    pub image: String,
    /// The size of its disk.
    pub disk_gib: u32,
    /// Whether it gets a public address.
    pub public_address: bool,
    /// What it carries.
    pub labels: BTreeMap<String, String>,
    /// The taints of its node, `key=value:effect`.
    pub taints: Vec<String>,
    /// How many KiB its console says beyond the boot messages.
    pub console_kib: u32,
}

/// Asks for an instance with its disk, its interface and, if wanted, its address.
#[derive(Debug, Clone, PartialEq)]
pub struct RunInstance {
    /// The client token.
    pub key: String,
    /// Whose it is; written on every artefact.
    pub owner: Owner,
    /// What it is to be.
    pub shape: InstanceShape,
    /// The digest of what it is to be, in hexadecimal.
    pub digest: String,
    /// The generation that this was made from.
    pub generation: i64,
    /// Instead of the cloud's own boot delay.
    pub boot_delay: Option<Duration>,
    /// Instead of the cloud's own mean lifetime, and exactly.
    pub lifetime: Option<Duration>,
    /// The boot ends in a failure.
    pub fails_at_boot: bool,
    /// The call fails with this.
    pub fails_with: Option<ErrorReason>,
    /// How much bootstrap data comes with it.
    pub bootstrap_bytes: u64,
}

/// Which instance, by key; with the id where it is known.
#[derive(Debug, Clone, PartialEq)]
pub struct InstanceRef {
    /// The client token with which it was made.
    pub key: String,
    /// Whose it is.
    pub owner: Owner,
    /// Its zone and its id.
    pub id: Option<(String, String)>,
}

/// Asks for a change.
#[derive(Debug, Clone, PartialEq)]
pub struct ModifyInstance {
    /// Which.
    pub instance: InstanceRef,
    /// What it is to be.
    pub shape: InstanceShape,
    /// The digest of what it is to be, in hexadecimal.
    pub digest: String,
    /// The generation that this was made from.
    pub generation: i64,
}

/// How far a deletion is.
#[derive(Debug, Clone, PartialEq)]
pub enum Removal<T> {
    /// Nothing is left.
    Gone,
    /// It goes on until `gone_at` of what is there.
    InProgress(Arc<T>),
}

/// What a decision comes to: the answer and the changes.
pub type Decision<T> = Result<(T, Vec<Change>), CloudError>;

pub(super) fn stale_generation(seen: i64, asked: i64) -> CloudError {
    CloudError::new(
        ErrorReason::StaleGeneration,
        format!("generation {asked} was asked for, and generation {seen} has been applied already"),
    )
}

fn key_conflict(instance: &Instance) -> CloudError {
    CloudError::new(
        ErrorReason::KeyConflict,
        format!(
            "the key {} already made {} from another spec; use another key for another machine",
            instance.key, instance.id
        ),
    )
}

pub(super) fn spent_key(key: &str) -> CloudError {
    CloudError::new(
        ErrorReason::StaleGeneration,
        format!(
            "what the key {key} named was deleted, and a deleted key never makes anything again; read the object again"
        ),
    )
}

pub(super) fn check_owner(id: &str, owner: &Owner, caller: &Owner) -> Result<(), CloudError> {
    if owner.is_same(caller) {
        return Ok(());
    }
    let message = format!("{id} carries the tags of another object or management cluster and is not touched");
    Err(CloudError::new(ErrorReason::OwnershipMismatch, message))
}

/// Carries out [`RunInstance`].
pub fn run(on: &Circumstances<'_>, request: &RunInstance) -> Decision<Arc<Instance>> {
    if let Some(instance) = on.state.instance_of(&request.key) {
        return replay(instance, request);
    }
    match on.state.spent_machine(&request.key) {
        Some(Spent::Deleted) => return Err(spent_key(&request.key)),
        Some(Spent::Lost(instance)) => {
            check_owner(&instance.id, &instance.owner, &request.owner)?;
            if ![&instance.created_digest, &instance.digest].contains(&&request.digest) {
                return Err(key_conflict(instance));
            }
            return Ok((Arc::clone(instance), Vec::new()));
        }
        None => {}
    }
    if let Some(reason) = request.fails_with {
        return Err(CloudError::new(reason, "the machine's config asked for this failure"));
    }
    let shape = &request.shape;
    let info = catalogue::find_machine_type(&shape.machine_type).ok_or_else(|| {
        let names = catalogue::machine_type_names();
        missing(format!(
            "there is no machine type {:?}; there are {names}",
            shape.machine_type
        ))
    })?;
    if !on.settings.images.contains(&shape.image) {
        let names = on.settings.images.join(", ");
        return Err(missing(format!(
            "there is no image {:?}; there are {names}",
            shape.image
        )));
    }
    let network = usable_network(on, &request.owner.cluster)?;
    let zone = choose_zone(on, network, shape)?;
    check_quotas(on, shape, u64::from(info.cpus))?;
    let no_address = |range: &str| {
        CloudError::new(
            ErrorReason::QuotaExceeded,
            format!("no address is left in {range}; delete machines or use a larger range"),
        )
    };
    let internal_ip = on
        .state
        .free_internal_ip(&network.id)
        .ok_or_else(|| no_address(&network.cidr))?
        .to_string();
    let external_ip = if shape.public_address {
        Some(
            on.state
                .free_external_ip()
                .ok_or_else(|| no_address("the public range"))?
                .to_string(),
        )
    } else {
        None
    };
    Ok(new_instance(on, request, network, zone, internal_ip, external_ip))
}

fn replay(instance: &Arc<Instance>, request: &RunInstance) -> Decision<Arc<Instance>> {
    check_owner(&instance.id, &instance.owner, &request.owner)?;
    if instance.state == InstanceState::ShuttingDown {
        return Err(spent_key(&request.key));
    }
    if ![&instance.created_digest, &instance.digest].contains(&&request.digest) {
        return Err(key_conflict(instance));
    }
    if request.generation < instance.generation {
        return Err(stale_generation(instance.generation, request.generation));
    }
    Ok((Arc::clone(instance), Vec::new()))
}

fn missing(message: String) -> CloudError {
    CloudError::new(ErrorReason::DependencyNotFound, message)
}

fn usable_network<'a>(on: &Circumstances<'a>, cluster: &str) -> Result<&'a Arc<Network>, CloudError> {
    let not_ready = |message: String| CloudError::new(ErrorReason::ClusterNotReady, message);
    let network = on.state.network_of_cluster(cluster).ok_or_else(|| {
        not_ready(format!(
            "there is no network of the cluster {cluster:?} yet; create the cluster first"
        ))
    })?;
    if network.gone_at.is_some() {
        return Err(not_ready(format!("the network {} is being removed", network.id)));
    }
    if network.ready_at > on.now {
        let wait = Duration::try_from(network.ready_at.duration_since(on.now)).unwrap_or_default();
        return Err(not_ready(format!("the network {} is still being made", network.id)).with_retry_after(wait));
    }
    Ok(network)
}

fn has_room(on: &Circumstances<'_>, zone: &str, machine_type: &str) -> bool {
    let limit = |place: &str| on.settings.capacity.get(place).copied().unwrap_or(u64::MAX);
    on.state.count_in(zone, None) < limit(zone)
        && on.state.count_in(zone, Some(machine_type)) < limit(&format!("{zone}/{machine_type}"))
}

/// Whether one more instance of this type fits into the zone.
pub fn is_available(on: &Circumstances<'_>, zone: &str, machine_type: &str) -> bool {
    on.settings.zones.iter().any(|known| known == zone) && has_room(on, zone, machine_type)
}

/// The zone that was asked for, or the one with the fewest instances of the cluster.
fn choose_zone(on: &Circumstances<'_>, network: &Network, shape: &InstanceShape) -> Result<String, CloudError> {
    let usable = |zone: &&String| on.settings.zones.contains(zone);
    let no_capacity = |zone: &str| {
        let message = format!("there is no capacity for {} left in {zone}", shape.machine_type);
        CloudError::new(ErrorReason::InsufficientCapacity, message)
            .with_fact("zone", zone)
            .with_fact("machine_type", &shape.machine_type)
            .with_retry_after(Duration::from_mins(2))
    };
    if let Some(zone) = &shape.zone {
        if !network.zones.contains(zone) || !usable(&zone) {
            let zones = network.zones.join(", ");
            return Err(missing(format!("the cluster has no zone {zone:?}; it has {zones}")));
        }
        return if has_room(on, zone, &shape.machine_type) {
            Ok(zone.clone())
        } else {
            Err(no_capacity(zone))
        };
    }
    let roomy = network
        .zones
        .iter()
        .filter(usable)
        .filter(|zone| has_room(on, zone, &shape.machine_type));
    let emptiest = roomy.min_by_key(|zone| on.state.members_in(&network.id, zone));
    emptiest.cloned().ok_or_else(|| no_capacity(&network.zones.join(", ")))
}

fn check_quotas(on: &Circumstances<'_>, shape: &InstanceShape, cpus: u64) -> Result<(), CloudError> {
    let wanted = [
        (Quota::Instances, 1),
        (Quota::Cpus, cpus),
        (Quota::DiskGib, u64::from(shape.disk_gib)),
        (Quota::Addresses, u64::from(shape.public_address)),
    ];
    wanted
        .into_iter()
        .try_for_each(|(quota, more)| check_quota(on, quota, more))
}

pub(super) fn check_quota(on: &Circumstances<'_>, quota: Quota, more: u64) -> Result<(), CloudError> {
    let used = on.state.used(quota);
    match on.settings.quotas.get(&quota) {
        Some(limit) if more > 0 && used + more > *limit => Err(CloudError::quota(quota.name(), used, *limit)),
        _ => Ok(()),
    }
}

fn new_instance(
    on: &Circumstances<'_>,
    request: &RunInstance,
    network: &Network,
    zone: String,
    internal_ip: String,
    external_ip: Option<String>,
) -> (Arc<Instance>, Vec<Change>) {
    let (key, owner, shape) = (&request.key, &request.owner, &request.shape);
    let make_id = |prefix: &str| format!("{prefix}-{}", on.chance.id(&[prefix, key]));
    let id = make_id("i");
    let (disk, network_interface) = (make_id("disk"), make_id("nic"));
    let address = external_ip.is_some().then(|| make_id("ip"));
    let ready_at = later(on.now, request.boot_delay.unwrap_or_else(|| boot_delay(on, key)));
    let boots = ready_at > on.now;
    let state = match (boots, request.fails_at_boot) {
        (true, _) => InstanceState::Pending,
        (false, false) => InstanceState::Running,
        (false, true) => InstanceState::Failed,
    };
    let lifetime = request.lifetime.or_else(|| {
        let mean = on.settings.mean_lifetime?.as_secs_f64();
        let chance = on.chance.draw("lifetime", key);
        Some(Duration::from_secs_f64((-mean * (1.0 - chance).ln()).clamp(0.0, 1e9)))
    });
    let instance = Arc::new(Instance {
        id: id.clone(),
        key: key.clone(),
        owner: owner.clone(),
        state,
        name: shape.name.clone(),
        zone,
        machine_type: shape.machine_type.clone(),
        image: shape.image.clone(),
        kubernetes_version: shape.kubernetes_version.clone(),
        control_plane: shape.control_plane,
        network: network.id.clone(),
        disk: disk.clone(),
        network_interface: network_interface.clone(),
        address: address.clone(),
        internal_ip: internal_ip.clone(),
        external_ip: external_ip.clone(),
        created_at: on.now,
        ready_at,
        fails_at_boot: request.fails_at_boot,
        dies_at: lifetime.map(|lifetime| later(on.now, lifetime)),
        gone_at: None,
        failure: (state == InstanceState::Failed).then(|| "the boot failed, as the config asked for".to_owned()),
        created_digest: request.digest.clone(),
        digest: request.digest.clone(),
        generation: request.generation,
        labels: shape.labels.clone(),
        taints: shape.taints.clone(),
        bootstrap_bytes: request.bootstrap_bytes,
        console_kib: shape.console_kib,
    });
    let disk = Disk {
        id: disk,
        key: key.clone(),
        owner: owner.clone(),
        instance: id.clone(),
        size_gib: shape.disk_gib,
    };
    let network_interface = NetworkInterface {
        id: network_interface,
        key: key.clone(),
        owner: owner.clone(),
        instance: id.clone(),
        network: network.id.clone(),
        ip: internal_ip,
    };
    let mut resources = vec![
        Resource::Instance(Arc::clone(&instance)),
        Resource::Disk(Arc::new(disk)),
        Resource::NetworkInterface(Arc::new(network_interface)),
    ];
    if let (Some(address), Some(ip)) = (address, external_ip) {
        let (key, owner) = (key.clone(), owner.clone());
        let address = Address {
            id: address,
            key,
            owner,
            instance: id,
            ip,
        };
        resources.push(Resource::Address(Arc::new(address)));
    }
    let changes = resources
        .into_iter()
        .map(|resource| Change::to(Action::Created, resource))
        .collect();
    (instance, changes)
}

fn boot_delay(on: &Circumstances<'_>, key: &str) -> Duration {
    let jitter = on.settings.boot_jitter;
    on.settings.boot_delay
        + if jitter.is_zero() {
            jitter
        } else {
            jitter.mul_f64(on.chance.draw("boot", key))
        }
}

/// `now` and this long; the end of time where it does not fit.
pub(super) fn later(now: Timestamp, delay: Duration) -> Timestamp {
    jiff::SignedDuration::try_from(delay)
        .ok()
        .and_then(|delay| now.checked_add(delay).ok())
        .unwrap_or(Timestamp::MAX)
}

/// The instance that is meant, `None` when it is not there; an error when it is not
/// the caller's.
pub fn find<'a>(on: &Circumstances<'a>, wanted: &InstanceRef) -> Result<Option<&'a Arc<Instance>>, CloudError> {
    let found = on.state.instance_of(&wanted.key);
    check(on, wanted, found.map(Arc::as_ref)).map(|()| found)
}

/// Whether what the key shows, which may be an older state, is what the caller means
/// and the caller's.
pub fn check(on: &Circumstances<'_>, wanted: &InstanceRef, found: Option<&Instance>) -> Result<(), CloudError> {
    let mismatch = |id: &str| {
        let message = format!("{id} is not what the key {} made and is not touched", wanted.key);
        Err(CloudError::new(ErrorReason::OwnershipMismatch, message))
    };
    if let Some(instance) = found {
        check_owner(&instance.id, &instance.owner, &wanted.owner)?;
        return match &wanted.id {
            Some((zone, id)) if *id != instance.id || *zone != instance.zone => mismatch(id),
            _ => Ok(()),
        };
    }
    if let Some(Spent::Lost(instance)) = on.state.spent_machine(&wanted.key) {
        check_owner(&instance.id, &instance.owner, &wanted.owner)?;
    }
    match &wanted.id {
        Some((_, id)) if on.state.instances.get(id).is_some_and(|other| other.key != wanted.key) => mismatch(id),
        _ => Ok(()),
    }
}

/// Carries out [`ModifyInstance`].
pub fn modify(on: &Circumstances<'_>, request: &ModifyInstance) -> Decision<Arc<Instance>> {
    let found = find(on, &request.instance)?.filter(|instance| instance.state != InstanceState::ShuttingDown);
    let instance = found.ok_or_else(|| {
        let message = format!("there is no instance of the key {}", request.instance.key);
        CloudError::new(ErrorReason::ResourceNotFound, message)
    })?;
    if request.generation < instance.generation {
        return Err(stale_generation(instance.generation, request.generation));
    }
    let shape = &request.shape;
    let disk = on.state.disks.get(&instance.disk).ok_or_else(|| {
        let message = format!("the instance {} has no disk", instance.id);
        CloudError::new(ErrorReason::StateInconsistent, message)
    })?;
    let fixed = [
        ("machineType", shape.machine_type != instance.machine_type),
        ("image", shape.image != instance.image),
        (
            "kubernetesVersion",
            shape.kubernetes_version != instance.kubernetes_version,
        ),
        ("controlPlane", shape.control_plane != instance.control_plane),
        (
            "failureDomain",
            shape.zone.as_ref().is_some_and(|zone| *zone != instance.zone),
        ),
        ("publicAddress", shape.public_address != instance.address.is_some()),
        ("diskGiB (a disk never shrinks)", shape.disk_gib < disk.size_gib),
    ];
    let changed: Vec<&str> = fixed
        .iter()
        .filter(|(_, differs)| *differs)
        .map(|(name, _)| *name)
        .collect();
    if !changed.is_empty() {
        let message = format!("{} of {} cannot be changed in place", changed.join(", "), instance.id);
        return Err(CloudError::new(ErrorReason::ReplaceRequired, message));
    }
    let next = Instance {
        name: shape.name.clone(),
        labels: shape.labels.clone(),
        taints: shape.taints.clone(),
        console_kib: shape.console_kib,
        digest: request.digest.clone(),
        generation: request.generation,
        ..Instance::clone(instance)
    };
    let mut changes = Vec::new();
    if shape.disk_gib > disk.size_gib {
        check_quota(on, Quota::DiskGib, u64::from(shape.disk_gib - disk.size_gib))?;
        let disk = Disk {
            size_gib: shape.disk_gib,
            ..Disk::clone(disk)
        };
        changes.push(Change::to(Action::Updated, Resource::Disk(Arc::new(disk))));
    }
    if next == **instance && changes.is_empty() {
        return Ok((Arc::clone(instance), changes));
    }
    let next = Arc::new(next);
    changes.push(Change::to(Action::Updated, Resource::Instance(Arc::clone(&next))));
    Ok((next, changes))
}

/// Removes an instance with everything that hangs on it, and spends its key.
pub fn terminate(on: &Circumstances<'_>, wanted: &InstanceRef) -> Decision<Removal<Instance>> {
    let Some(instance) = find(on, wanted)? else {
        let spent = on.state.spent_machine(&wanted.key) == Some(&Spent::Deleted);
        let retired = Change::retired(super::model::Kind::Instance, &wanted.key, &wanted.owner.cluster);
        return Ok((Removal::Gone, if spent { Vec::new() } else { vec![retired] }));
    };
    if instance.state == InstanceState::ShuttingDown {
        return Ok((Removal::InProgress(Arc::clone(instance)), Vec::new()));
    }
    if on.settings.delete_delay.is_zero() {
        return Ok((Removal::Gone, on.state.instance_gone(instance, Action::Deleted)));
    }
    let next = Arc::new(Instance {
        state: InstanceState::ShuttingDown,
        gone_at: Some(later(on.now, on.settings.delete_delay)),
        ..Instance::clone(instance)
    });
    let change = Change::to(Action::ShuttingDown, Resource::Instance(Arc::clone(&next)));
    Ok((Removal::InProgress(next), vec![change]))
}

/// What an instance's console says.
pub fn console(instance: &Instance, now: Timestamp) -> String {
    let mut text = format!(
        "[{}] {} {} starting on {} in {}\n[{}] bootstrap data: {} bytes\n",
        instance.created_at,
        instance.image,
        instance.id,
        instance.machine_type,
        instance.zone,
        instance.created_at,
        instance.bootstrap_bytes
    );
    if now >= instance.ready_at {
        let outcome = if instance.fails_at_boot {
            "boot failed"
        } else {
            "login:"
        };
        let line = format!("[{}] {} {outcome}\n", instance.ready_at, instance.name);
        text.push_str(&line);
    }
    let line = format!("{:-<63}\n", instance.id);
    text.push_str(&line.repeat(instance.console_kib as usize * 16));
    text
}
