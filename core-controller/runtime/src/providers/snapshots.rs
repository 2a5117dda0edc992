//! From what the host knows of a provider to the planners' plain data.
//!
//! Not for: judging it.

use std::sync::Arc;

use fnv::FnvHashMap;
use outrigger_planner::provider::{Check, ConfigKind, Link, Snapshot, Timings};
use parking_lot::RwLock;
use provider_host::{ProviderSnapshot, ProviderState};

/// The providers as the planners see them, by name.
#[derive(Debug, Default)]
pub struct Snapshots {
    known: RwLock<FnvHashMap<String, Arc<Snapshot>>>,
}

impl Snapshots {
    /// The provider of this name.
    pub fn get(&self, name: &str) -> Option<Arc<Snapshot>> {
        self.known.read().get(name).cloned()
    }

    /// Takes over what the host knows, `None` when it knows it no more. Returns what was
    /// known before.
    pub fn set(&self, name: &str, snapshot: Option<Snapshot>) -> Option<Arc<Snapshot>> {
        let mut known = self.known.write();
        match snapshot {
            Some(snapshot) => known.insert(name.to_owned(), Arc::new(snapshot)),
            None => known.remove(name),
        }
    }

    /// The names of all.
    pub fn names(&self) -> Vec<String> {
        self.known.read().keys().cloned().collect()
    }
}

/// Whether something that machines and clusters decide on has changed.
pub fn matters(old: Option<&Snapshot>, new: Option<&Snapshot>) -> bool {
    let of = |snapshot: &Snapshot| {
        (
            snapshot.link,
            snapshot.connections,
            snapshot.instance_id.clone(),
            snapshot.timings,
            snapshot.watching,
        )
    };
    old.map(of) != new.map(of)
}

/// The planners' view of a provider. `watching` says whether hints about all its
/// machines arrive.
pub fn convert(snapshot: &ProviderSnapshot, watching: bool) -> Snapshot {
    let mut converted = Snapshot::connecting(&*snapshot.name, snapshot.endpoint.clone());
    converted.link = match snapshot.state {
        ProviderState::Connecting => Link::Connecting,
        ProviderState::Ready => Link::Ready,
        ProviderState::Initializing => Link::Initializing,
        ProviderState::Degraded => Link::Degraded,
        ProviderState::Unreachable => Link::Unreachable,
        ProviderState::Incompatible => Link::Incompatible,
        ProviderState::Misconfigured => Link::Misconfigured,
    };
    snapshot.reason.clone_into(&mut converted.reason);
    converted.message.clone_from(&snapshot.message);
    converted.warning.clone_from(&snapshot.warning);
    converted.checks = snapshot
        .checks
        .iter()
        .map(|check| Check {
            name: check.name.clone(),
            healthy: check.healthy,
            message: check.message.clone(),
        })
        .collect();
    converted.connections = snapshot.connections;
    converted.watching = watching;
    if let Some(info) = &snapshot.info {
        converted.version.clone_from(&info.version);
        converted.instance_id.clone_from(&info.instance_id);
        converted.protocol.clone_from(&info.protocol);
        converted.protocols = info.protocols.iter().map(|served| served.package.clone()).collect();
        converted.capabilities = info.capabilities.names().into_iter().map(str::to_owned).collect();
        converted.config_kinds = info
            .config_kinds
            .iter()
            .map(|kind| ConfigKind {
                kind: kind.kind.clone(),
                target: match kind.target {
                    actuator_proto::v1::ConfigTarget::Machine => "Machine".to_owned(),
                    actuator_proto::v1::ConfigTarget::Cluster => "Cluster".to_owned(),
                    actuator_proto::v1::ConfigTarget::Unspecified => String::new(),
                },
                schema_versions: kind.schema_versions.clone(),
            })
            .collect();
        converted.credential_keys = info.credential_keys.iter().map(|key| key.name.clone()).collect();
        converted.timings = Timings {
            read_after_write: info.timings.read_after_write,
            poll_interval: info.timings.poll_interval,
        };
    }
    converted
}
