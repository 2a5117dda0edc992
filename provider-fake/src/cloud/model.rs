//! What there is in the simulated cloud: instances with their disks, interfaces and
//! public addresses; networks and load balancers. Plain data, as it stands in the
//! ledger. Not for: how it comes to be (see the sibling modules).

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// Whose a resource is: the tags on every artefact.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// The management cluster.
    pub management_cluster: String,
    /// The UID of the Cluster object.
    pub cluster: String,
    /// The UID of the object itself.
    pub object: String,
    /// The namespace, for people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub namespace: String,
    /// The name of the cluster, for people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub cluster_name: String,
    /// The name of the object, for people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
}

impl Owner {
    /// Whether both name the same object; names for people do not count.
    pub fn is_same(&self, other: &Owner) -> bool {
        self.management_cluster == other.management_cluster
            && self.cluster == other.cluster
            && self.object == other.object
    }
}

/// What an instance is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum InstanceState {
    /// Accepted, booting.
    Pending,
    /// It runs.
    Running,
    /// There, and switched off.
    Stopped,
    /// It will never be well again.
    Failed,
    /// Being removed.
    ShuttingDown,
    /// It ended by itself and nothing is left of it; only answers to a replayed
    /// token show it.
    Lost,
}

/// A machine in the cloud.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Instance {
    /// `i-` and 17 hexadecimal digits.
    pub id: String,
    /// The client token with which it was made; set atomically with it, kept for life.
    pub key: String,
    /// Whose it is.
    pub owner: Owner,
    /// What it does.
    pub state: InstanceState,
    /// The name of the machine.
    pub name: String,
    /// Where it is.
    pub zone: String,
    /// Its type, from the catalogue.
    pub machine_type: String,
    /// Its image, from the catalogue.
    pub image: String,
    /// The Kubernetes version that its image is to run, may be empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub kubernetes_version: String,
    /// Whether it is to run the control plane.
    #[serde(default)]
    pub control_plane: bool,
    /// The network that it is in.
    pub network: String,
    /// Its root disk.
    pub disk: String,
    /// Its network interface.
    pub network_interface: String,
    /// Its public address, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// Its address in the network.
    pub internal_ip: String,
    /// The address by which the world reaches it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub external_ip: Option<String>,
    /// When it was accepted.
    pub created_at: Timestamp,
    /// When it runs, or fails where `fails_at_boot`.
    pub ready_at: Timestamp,
    /// Whether its boot ends in a failure.
    #[serde(default)]
    pub fails_at_boot: bool,
    /// When it dies by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dies_at: Option<Timestamp>,
    /// When its removal is over; set while it is shutting down.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gone_at: Option<Timestamp>,
    /// Why it failed, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
    /// The digest with which it was created, in hexadecimal.
    pub created_digest: String,
    /// The digest that was applied last, in hexadecimal.
    pub digest: String,
    /// The highest generation that was applied.
    pub generation: i64,
    /// What it carries for people and tools.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// The taints of its node, `key=value:effect`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub taints: Vec<String>,
    /// How many bytes of bootstrap data it got; the data itself is not kept.
    #[serde(default)]
    pub bootstrap_bytes: u64,
    /// How many KiB its console says beyond the boot messages.
    #[serde(default)]
    pub console_kib: u32,
}

/// A root disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Disk {
    /// `disk-` and 17 hexadecimal digits.
    pub id: String,
    /// The key of its instance.
    pub key: String,
    /// Whose it is.
    pub owner: Owner,
    /// The instance that it is attached to.
    pub instance: String,
    /// Its size.
    pub size_gib: u32,
}

/// A network interface.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkInterface {
    /// `nic-` and 17 hexadecimal digits.
    pub id: String,
    /// The key of its instance.
    pub key: String,
    /// Whose it is.
    pub owner: Owner,
    /// The instance that it is attached to.
    pub instance: String,
    /// The network that it is in.
    pub network: String,
    /// Its address in the network.
    pub ip: String,
}

/// A public address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Address {
    /// `ip-` and 17 hexadecimal digits.
    pub id: String,
    /// The key of its instance.
    pub key: String,
    /// Whose it is.
    pub owner: Owner,
    /// The instance that it points to.
    pub instance: String,
    /// The address.
    pub ip: String,
}

/// A network, one for each cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    /// `net-` and 17 hexadecimal digits.
    pub id: String,
    /// The client token with which it was made.
    pub key: String,
    /// Whose it is.
    pub owner: Owner,
    /// The name of the cluster.
    pub name: String,
    /// Its range, `10.0.0.0/12`.
    pub cidr: String,
    /// Where instances of it may be put.
    pub zones: Vec<String>,
    /// The port of the load balancer that belongs to it; `None`: it has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub load_balancer_port: Option<u16>,
    /// The control-plane endpoint that the user gave, `host:port`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub given_endpoint: Option<String>,
    /// When it was accepted.
    pub created_at: Timestamp,
    /// When instances may be put into it.
    pub ready_at: Timestamp,
    /// When its removal is over; set while it is being removed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gone_at: Option<Timestamp>,
    /// The digest with which it was created, in hexadecimal.
    pub created_digest: String,
    /// The digest that was applied last, in hexadecimal.
    pub digest: String,
    /// The highest generation that was applied.
    pub generation: i64,
    /// What it carries for people and tools.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
}

/// One machine behind a load balancer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Target {
    /// The instance's key.
    pub key: String,
    /// The instance's id.
    pub instance: String,
    /// No new connections.
    #[serde(default)]
    pub draining: bool,
}

/// A load balancer in front of a cluster's control plane.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoadBalancer {
    /// `lb-` and 17 hexadecimal digits.
    pub id: String,
    /// The client token with which it was made; that of its network.
    pub key: String,
    /// Whose it is.
    pub owner: Owner,
    /// The network that it is in.
    pub network: String,
    /// Its name in the DNS of the cloud.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// Who is behind it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub targets: Vec<Target>,
    /// The highest generation of a target set that was applied.
    #[serde(default)]
    pub targets_generation: i64,
}

/// A kind of resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// [`Instance`].
    Instance,
    /// [`Disk`].
    Disk,
    /// [`NetworkInterface`].
    NetworkInterface,
    /// [`Address`].
    Address,
    /// [`Network`].
    Network,
    /// [`LoadBalancer`].
    LoadBalancer,
}

impl Kind {
    /// As it stands in the journal and on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Instance => "instance",
            Self::Disk => "disk",
            Self::NetworkInterface => "network-interface",
            Self::Address => "address",
            Self::Network => "network",
            Self::LoadBalancer => "load-balancer",
        }
    }
}

/// A resource of any kind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Resource {
    /// An instance.
    Instance(Arc<Instance>),
    /// A disk.
    Disk(Arc<Disk>),
    /// A network interface.
    NetworkInterface(Arc<NetworkInterface>),
    /// A public address.
    Address(Arc<Address>),
    /// A network.
    Network(Arc<Network>),
    /// A load balancer.
    LoadBalancer(Arc<LoadBalancer>),
}

impl Resource {
    /// What kind it is.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Instance(_) => Kind::Instance,
            Self::Disk(_) => Kind::Disk,
            Self::NetworkInterface(_) => Kind::NetworkInterface,
            Self::Address(_) => Kind::Address,
            Self::Network(_) => Kind::Network,
            Self::LoadBalancer(_) => Kind::LoadBalancer,
        }
    }

    /// Its id, its key and whose it is.
    pub fn identity(&self) -> (&str, &str, &Owner) {
        match self {
            Self::Instance(it) => (&it.id, &it.key, &it.owner),
            Self::Disk(it) => (&it.id, &it.key, &it.owner),
            Self::NetworkInterface(it) => (&it.id, &it.key, &it.owner),
            Self::Address(it) => (&it.id, &it.key, &it.owner),
            Self::Network(it) => (&it.id, &it.key, &it.owner),
            Self::LoadBalancer(it) => (&it.id, &it.key, &it.owner),
        }
    }

    /// What it hangs on: the instance of a disk, the network of a load balancer.
    pub fn depends_on(&self) -> Option<(Kind, &str)> {
        match self {
            Self::Instance(it) => Some((Kind::Network, &it.network)),
            Self::Disk(it) => Some((Kind::Instance, &it.instance)),
            Self::NetworkInterface(it) => Some((Kind::Instance, &it.instance)),
            Self::Address(it) => Some((Kind::Instance, &it.instance)),
            Self::Network(_) => None,
            Self::LoadBalancer(it) => Some((Kind::Network, &it.network)),
        }
    }
}

/// What happened to a resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Action {
    /// It was made.
    Created,
    /// It was changed by a call.
    Updated,
    /// Its boot is over.
    Running,
    /// It was switched off.
    Stopped,
    /// It failed.
    Failed,
    /// Its removal has begun.
    ShuttingDown,
    /// It died by itself.
    Lost,
    /// It is gone.
    Deleted,
    /// Its key will never name a resource again, though none was there.
    Retired,
}

/// One change of the ledger.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// What happened.
    pub action: Action,
    /// To what kind of resource.
    pub kind: Kind,
    /// Its id; empty where only a key is retired.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub id: String,
    /// Its key.
    pub key: String,
    /// The UID of its cluster.
    pub cluster: String,
    /// The resource after the change; absent when it is gone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resource: Option<Resource>,
}

impl Change {
    /// The resource is now as given.
    pub fn to(action: Action, resource: Resource) -> Self {
        let (id, key, owner) = resource.identity();
        Self {
            action,
            kind: resource.kind(),
            id: id.to_owned(),
            key: key.to_owned(),
            cluster: owner.cluster.clone(),
            resource: Some(resource),
        }
    }

    /// The resource is gone.
    pub fn gone(action: Action, resource: &Resource) -> Self {
        Self {
            resource: None,
            ..Self::to(action, resource.clone())
        }
    }

    /// The key is spent although nothing was there.
    pub fn retired(kind: Kind, key: &str, cluster: &str) -> Self {
        Self {
            action: Action::Retired,
            kind,
            id: String::new(),
            key: key.to_owned(),
            cluster: cluster.to_owned(),
            resource: None,
        }
    }
}

/// What is remembered of a key whose resource is gone, for ever: a late call with
/// the key must not bring it back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Spent {
    /// It was deleted by a call.
    Deleted,
    /// It died by itself: the token still answers with what it was.
    Lost(Arc<Instance>),
}
