//! The whole state of the simulated cloud in memory, and how one change of the ledger
//! alters it. Pure: no clock, no disk. Not for: whether a change is allowed (see
//! `instances` and `networks`).

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::Ipv4Addr;
use std::sync::Arc;

use ipnet::Ipv4Net;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::addresses::AddressPool;
use super::catalogue;
use super::model::{
    Action, Address, Change, Disk, Instance, InstanceState, Kind, LoadBalancer, Network, NetworkInterface, Resource,
    Spent,
};
use super::settings::Quota;

/// The range of all public addresses: set aside for benchmarks, routed nowhere.
const PUBLIC_RANGE: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(198, 18, 0, 0), 15);

/// What is written into a snapshot: the state without what follows from it.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct StateImage {
    resources: Vec<Resource>,
    spent_machines: Vec<(String, Spent)>,
    spent_clusters: Vec<String>,
}

/// Everything there is.
#[derive(Debug)]
pub struct State {
    pub(super) instances: BTreeMap<String, Arc<Instance>>,
    pub(super) disks: BTreeMap<String, Arc<Disk>>,
    pub(super) network_interfaces: BTreeMap<String, Arc<NetworkInterface>>,
    pub(super) addresses: BTreeMap<String, Arc<Address>>,
    pub(super) networks: BTreeMap<String, Arc<Network>>,
    pub(super) load_balancers: BTreeMap<String, Arc<LoadBalancer>>,
    spent_machines: HashMap<String, Spent>,
    spent_clusters: BTreeSet<String>,
    // What follows from the above.
    instance_by_key: HashMap<String, String>,
    network_by_key: HashMap<String, String>,
    network_by_cluster: HashMap<String, String>,
    load_balancer_by_key: HashMap<String, String>,
    /// Instances of each network, by zone.
    members: HashMap<String, BTreeMap<String, BTreeSet<String>>>,
    by_zone: HashMap<String, u64>,
    by_zone_and_type: HashMap<(String, String), u64>,
    usage: BTreeMap<Quota, u64>,
    pools: HashMap<String, AddressPool>,
    public: AddressPool,
    due: BTreeSet<(Timestamp, Kind, String)>,
}

impl Default for State {
    fn default() -> Self {
        Self {
            instances: BTreeMap::new(),
            disks: BTreeMap::new(),
            network_interfaces: BTreeMap::new(),
            addresses: BTreeMap::new(),
            networks: BTreeMap::new(),
            load_balancers: BTreeMap::new(),
            spent_machines: HashMap::new(),
            spent_clusters: BTreeSet::new(),
            instance_by_key: HashMap::new(),
            network_by_key: HashMap::new(),
            network_by_cluster: HashMap::new(),
            load_balancer_by_key: HashMap::new(),
            members: HashMap::new(),
            by_zone: HashMap::new(),
            by_zone_and_type: HashMap::new(),
            usage: BTreeMap::new(),
            pools: HashMap::new(),
            public: AddressPool::new(PUBLIC_RANGE),
            due: BTreeSet::new(),
        }
    }
}

impl State {
    /// The state of a snapshot.
    pub fn from_image(image: StateImage) -> Self {
        let mut state = Self::default();
        // Networks first: the addresses of instances are taken from their pools.
        let (networks, others): (Vec<_>, Vec<_>) = image
            .resources
            .into_iter()
            .partition(|resource| resource.kind() == Kind::Network);
        for resource in networks.into_iter().chain(others) {
            state.put(resource);
        }
        state.spent_machines = image.spent_machines.into_iter().collect();
        state.spent_clusters = image.spent_clusters.into_iter().collect();
        state
    }

    /// For a snapshot; cheap, as resources are shared.
    pub fn image(&self) -> StateImage {
        StateImage {
            resources: self.resources().collect(),
            spent_machines: self
                .spent_machines
                .iter()
                .map(|(key, spent)| (key.clone(), spent.clone()))
                .collect(),
            spent_clusters: self.spent_clusters.iter().cloned().collect(),
        }
    }

    /// Every resource, networks first.
    pub fn resources(&self) -> impl Iterator<Item = Resource> + '_ {
        let networks = self.networks.values().cloned().map(Resource::Network);
        let load_balancers = self.load_balancers.values().cloned().map(Resource::LoadBalancer);
        let instances = self.instances.values().cloned().map(Resource::Instance);
        let disks = self.disks.values().cloned().map(Resource::Disk);
        let interfaces = self
            .network_interfaces
            .values()
            .cloned()
            .map(Resource::NetworkInterface);
        let addresses = self.addresses.values().cloned().map(Resource::Address);
        networks
            .chain(load_balancers)
            .chain(instances)
            .chain(disks)
            .chain(interfaces)
            .chain(addresses)
    }

    /// Makes one change. The ledger is trusted: this cannot fail.
    pub fn apply(&mut self, change: &Change) {
        match (&change.resource, change.action) {
            (Some(Resource::Instance(instance)), Action::Lost) => {
                self.remove(Kind::Instance, &change.id);
                self.spent_machines
                    .insert(change.key.clone(), Spent::Lost(Arc::clone(instance)));
            }
            (Some(resource), _) => {
                self.remove(change.kind, &change.id);
                self.put(resource.clone());
            }
            (None, _) => {
                self.remove(change.kind, &change.id);
                match change.kind {
                    Kind::Instance => {
                        self.spent_machines.insert(change.key.clone(), Spent::Deleted);
                    }
                    Kind::Network => {
                        self.spent_clusters.insert(change.key.clone());
                    }
                    Kind::Disk | Kind::NetworkInterface | Kind::Address | Kind::LoadBalancer => {}
                }
            }
        }
    }

    /// The instance of a key.
    pub fn instance_of(&self, key: &str) -> Option<&Arc<Instance>> {
        self.instances.get(self.instance_by_key.get(key)?)
    }

    /// The network of a key.
    pub fn network_of(&self, key: &str) -> Option<&Arc<Network>> {
        self.networks.get(self.network_by_key.get(key)?)
    }

    /// The network of a cluster, by the cluster's UID.
    pub fn network_of_cluster(&self, cluster: &str) -> Option<&Arc<Network>> {
        self.networks.get(self.network_by_cluster.get(cluster)?)
    }

    /// The load balancer of a cluster's key.
    pub fn load_balancer_of(&self, key: &str) -> Option<&Arc<LoadBalancer>> {
        self.load_balancers.get(self.load_balancer_by_key.get(key)?)
    }

    /// What is remembered of a machine's key.
    pub fn spent_machine(&self, key: &str) -> Option<&Spent> {
        self.spent_machines.get(key)
    }

    /// Whether a cluster's key was deleted.
    pub fn is_spent_cluster(&self, key: &str) -> bool {
        self.spent_clusters.contains(key)
    }

    /// How many instances a network has in a zone.
    pub fn members_in(&self, network: &str, zone: &str) -> usize {
        let zones = self.members.get(network);
        zones.and_then(|zones| zones.get(zone)).map_or(0, BTreeSet::len)
    }

    /// The ids of the instances of a network, those being removed included.
    pub fn members_of(&self, network: &str) -> impl Iterator<Item = &String> {
        self.members
            .get(network)
            .into_iter()
            .flat_map(BTreeMap::values)
            .flatten()
    }

    /// How many instances are in a zone, of one type or of any.
    pub fn count_in(&self, zone: &str, machine_type: Option<&str>) -> u64 {
        let count = match machine_type {
            None => self.by_zone.get(zone),
            Some(machine_type) => self.by_zone_and_type.get(&(zone.to_owned(), machine_type.to_owned())),
        };
        count.copied().unwrap_or(0)
    }

    /// How much of a quota is used.
    pub fn used(&self, quota: Quota) -> u64 {
        self.usage.get(&quota).copied().unwrap_or(0)
    }

    /// The next free address of a network.
    pub fn free_internal_ip(&self, network: &str) -> Option<Ipv4Addr> {
        self.pools.get(network)?.next_free()
    }

    /// The next free public address.
    pub fn free_external_ip(&self) -> Option<Ipv4Addr> {
        self.public.next_free()
    }

    /// When something next happens by itself.
    pub fn next_due(&self) -> Option<Timestamp> {
        self.due.first().map(|(at, _, _)| *at)
    }

    /// The changes of one thing that has happened by itself by now: a boot that is over,
    /// a removal that is over, a death. Empty when there is nothing more; to be applied
    /// before asking again.
    pub fn due(&self, now: Timestamp) -> Vec<Change> {
        let Some((at, kind, id)) = self.due.first() else {
            return Vec::new();
        };
        if *at > now {
            return Vec::new();
        }
        let changes = match kind {
            Kind::Network => self.networks.get(id).map(|network| self.network_gone(network)),
            _ => self.instances.get(id).map(|instance| self.instance_due(instance, now)),
        };
        changes.unwrap_or_default()
    }

    fn instance_due(&self, instance: &Arc<Instance>, now: Timestamp) -> Vec<Change> {
        if instance.state == InstanceState::ShuttingDown {
            return self.instance_gone(instance, Action::Deleted);
        }
        let dead = instance.dies_at.is_some_and(|dies_at| dies_at <= now);
        if dead && (instance.state != InstanceState::Pending || instance.dies_at <= Some(instance.ready_at)) {
            return self.instance_gone(instance, Action::Lost);
        }
        let mut next = Instance::clone(instance);
        let action = if instance.fails_at_boot {
            next.state = InstanceState::Failed;
            next.failure = Some("the boot failed, as the config asked for".to_owned());
            Action::Failed
        } else {
            next.state = InstanceState::Running;
            Action::Running
        };
        vec![Change::to(action, Resource::Instance(Arc::new(next)))]
    }

    /// The changes by which an instance goes with everything that hangs on it.
    pub fn instance_gone(&self, instance: &Arc<Instance>, action: Action) -> Vec<Change> {
        let mut changes = Vec::with_capacity(4);
        if let Some(address) = instance.address.as_ref().and_then(|id| self.addresses.get(id)) {
            changes.push(Change::gone(Action::Deleted, &Resource::Address(Arc::clone(address))));
        }
        if let Some(interface) = self.network_interfaces.get(&instance.network_interface) {
            changes.push(Change::gone(
                Action::Deleted,
                &Resource::NetworkInterface(Arc::clone(interface)),
            ));
        }
        if let Some(disk) = self.disks.get(&instance.disk) {
            changes.push(Change::gone(Action::Deleted, &Resource::Disk(Arc::clone(disk))));
        }
        changes.push(if action == Action::Lost {
            let lost = Instance {
                state: InstanceState::Lost,
                failure: Some("the instance ended by itself".to_owned()),
                ..Instance::clone(instance)
            };
            Change::to(Action::Lost, Resource::Instance(Arc::new(lost)))
        } else {
            Change::gone(action, &Resource::Instance(Arc::clone(instance)))
        });
        changes
    }

    /// The changes by which a network goes with its load balancer.
    pub fn network_gone(&self, network: &Arc<Network>) -> Vec<Change> {
        let load_balancer = self.load_balancer_of(&network.key);
        let load_balancer = load_balancer.filter(|load_balancer| load_balancer.network == network.id);
        let gone = |resource: Resource| Change::gone(Action::Deleted, &resource);
        load_balancer
            .map(|load_balancer| gone(Resource::LoadBalancer(Arc::clone(load_balancer))))
            .into_iter()
            .chain([gone(Resource::Network(Arc::clone(network)))])
            .collect()
    }

    fn put(&mut self, resource: Resource) {
        match resource {
            Resource::Instance(it) => {
                self.count_instance(&it, true);
                self.instance_by_key.insert(it.key.clone(), it.id.clone());
                self.instances.insert(it.id.clone(), it);
            }
            Resource::Disk(it) => {
                *self.usage.entry(Quota::DiskGib).or_default() += u64::from(it.size_gib);
                self.disks.insert(it.id.clone(), it);
            }
            Resource::NetworkInterface(it) => {
                if let (Some(pool), Ok(ip)) = (self.pools.get_mut(&it.network), it.ip.parse()) {
                    pool.take(ip);
                }
                self.network_interfaces.insert(it.id.clone(), it);
            }
            Resource::Address(it) => {
                *self.usage.entry(Quota::Addresses).or_default() += 1;
                if let Ok(ip) = it.ip.parse() {
                    self.public.take(ip);
                }
                self.addresses.insert(it.id.clone(), it);
            }
            Resource::Network(it) => {
                *self.usage.entry(Quota::Networks).or_default() += 1;
                if let Ok(range) = it.cidr.parse()
                    && !self.pools.contains_key(&it.id)
                {
                    self.pools.insert(it.id.clone(), AddressPool::new(range));
                }
                if let Some(gone_at) = it.gone_at {
                    self.due.insert((gone_at, Kind::Network, it.id.clone()));
                }
                self.network_by_key.insert(it.key.clone(), it.id.clone());
                self.network_by_cluster.insert(it.owner.cluster.clone(), it.id.clone());
                self.networks.insert(it.id.clone(), it);
            }
            Resource::LoadBalancer(it) => {
                *self.usage.entry(Quota::LoadBalancers).or_default() += 1;
                self.load_balancer_by_key.insert(it.key.clone(), it.id.clone());
                self.load_balancers.insert(it.id.clone(), it);
            }
        }
    }

    /// Takes a resource out, to put its next version in or for good. The pool of a
    /// network stays as long as something of it has addresses in it.
    fn remove(&mut self, kind: Kind, id: &str) {
        match kind {
            Kind::Instance => {
                if let Some(it) = self.instances.remove(id) {
                    self.count_instance(&it, false);
                    self.instance_by_key.remove(&it.key);
                }
            }
            Kind::Disk => {
                if let Some(it) = self.disks.remove(id) {
                    self.release(Quota::DiskGib, u64::from(it.size_gib));
                }
            }
            Kind::NetworkInterface => {
                if let Some(it) = self.network_interfaces.remove(id)
                    && let (Some(pool), Ok(ip)) = (self.pools.get_mut(&it.network), it.ip.parse())
                {
                    pool.give_back(ip);
                }
            }
            Kind::Address => {
                if let Some(it) = self.addresses.remove(id) {
                    self.release(Quota::Addresses, 1);
                    if let Ok(ip) = it.ip.parse() {
                        self.public.give_back(ip);
                    }
                }
            }
            Kind::Network => {
                if let Some(it) = self.networks.remove(id) {
                    self.release(Quota::Networks, 1);
                    self.network_by_key.remove(&it.key);
                    self.network_by_cluster.remove(&it.owner.cluster);
                    if let Some(gone_at) = it.gone_at {
                        self.due.remove(&(gone_at, Kind::Network, it.id.clone()));
                    }
                    if !self.members.contains_key(id) {
                        self.pools.remove(id);
                    }
                }
            }
            Kind::LoadBalancer => {
                if let Some(it) = self.load_balancers.remove(id) {
                    self.release(Quota::LoadBalancers, 1);
                    self.load_balancer_by_key.remove(&it.key);
                }
            }
        }
    }

    fn release(&mut self, quota: Quota, amount: u64) {
        let used = self.usage.entry(quota).or_default();
        *used = used.saturating_sub(amount);
    }

    fn count_instance(&mut self, it: &Instance, there: bool) {
        let cpus = catalogue::find_machine_type(&it.machine_type).map_or(0, |info| u64::from(info.cpus));
        let due = due_of(it).map(|at| (at, Kind::Instance, it.id.clone()));
        let place = (it.zone.clone(), it.machine_type.clone());
        if there {
            *self.usage.entry(Quota::Instances).or_default() += 1;
            *self.usage.entry(Quota::Cpus).or_default() += cpus;
            *self.by_zone.entry(it.zone.clone()).or_default() += 1;
            *self.by_zone_and_type.entry(place).or_default() += 1;
            let zones = self.members.entry(it.network.clone()).or_default();
            zones.entry(it.zone.clone()).or_default().insert(it.id.clone());
            self.due.extend(due);
            return;
        }
        self.release(Quota::Instances, 1);
        self.release(Quota::Cpus, cpus);
        lower(&mut self.by_zone, &it.zone);
        lower(&mut self.by_zone_and_type, &place);
        if let Some(zones) = self.members.get_mut(&it.network) {
            if let Some(ids) = zones.get_mut(&it.zone) {
                ids.remove(&it.id);
            }
            zones.retain(|_, ids| !ids.is_empty());
            if zones.is_empty() {
                self.members.remove(&it.network);
            }
        }
        if let Some(due) = due {
            self.due.remove(&due);
        }
    }
}

fn lower<K: std::hash::Hash + Eq>(counts: &mut HashMap<K, u64>, key: &K) {
    if let Some(count) = counts.get_mut(key) {
        *count = count.saturating_sub(1);
        if *count == 0 {
            counts.remove(key);
        }
    }
}

/// When something next happens to an instance by itself.
fn due_of(it: &Instance) -> Option<Timestamp> {
    match it.state {
        InstanceState::ShuttingDown => it.gone_at,
        InstanceState::Pending => Some(it.dies_at.map_or(it.ready_at, |dies_at| dies_at.min(it.ready_at))),
        InstanceState::Running | InstanceState::Stopped | InstanceState::Failed => it.dies_at,
        InstanceState::Lost => None,
    }
}
