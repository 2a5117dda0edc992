//! How objects are named inside the process: kind, namespace and name, cheap to
//! clone and to hash.
//!
//! Not for: UIDs, which identify an object for its life; a name may be used again.

use std::fmt;
use std::sync::Arc;

/// The kinds that the core reconciles.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// A provider endpoint.
    Provider,
    /// A cluster.
    Cluster,
    /// A rolling set of machine sets.
    MachineDeployment,
    /// A number of equal machines.
    MachineSet,
    /// One machine.
    Machine,
}

impl Kind {
    /// Every kind, owners before what they own.
    pub const ALL: [Self; 5] = [
        Self::Provider,
        Self::Cluster,
        Self::MachineDeployment,
        Self::MachineSet,
        Self::Machine,
    ];

    /// The kind as manifests spell it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Provider => "Provider",
            Self::Cluster => "Cluster",
            Self::MachineDeployment => "MachineDeployment",
            Self::MachineSet => "MachineSet",
            Self::Machine => "Machine",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Namespace and name of an object; the namespace is empty for cluster-scoped kinds.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name {
    /// The namespace, or nothing.
    pub namespace: Arc<str>,
    /// The name.
    pub name: Arc<str>,
}

impl Name {
    /// A name in a namespace.
    pub fn new(namespace: &str, name: &str) -> Self {
        Self {
            namespace: namespace.into(),
            name: name.into(),
        }
    }

    /// The name of this object.
    pub fn of<K: kube::Resource>(object: &K) -> Self {
        let meta = object.meta();
        Self::new(
            meta.namespace.as_deref().unwrap_or_default(),
            meta.name.as_deref().unwrap_or_default(),
        )
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() {
            f.write_str(&self.name)
        } else {
            write!(f, "{}/{}", self.namespace, self.name)
        }
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What the work queue holds: an object of a kind.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Key {
    /// The kind.
    pub kind: Kind,
    /// The name.
    pub name: Name,
}

impl Key {
    /// The object of `kind` with this name.
    pub fn new(kind: Kind, name: Name) -> Self {
        Self { kind, name }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind, self.name)
    }
}

impl crate::queue::Queued for Key {
    fn is_urgent(&self) -> bool {
        self.kind != Kind::Machine
    }
}
