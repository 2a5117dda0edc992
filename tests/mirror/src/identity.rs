//! What the scripted provider says of itself.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use actuator_proto::discovery::v1 as discovery;
use actuator_proto::v1;

/// How often a machine that changes is asked for.
const POLL: Duration = Duration::from_millis(100);

/// What the provider says of itself.
#[derive(Debug, Clone)]
pub struct Identity {
    /// The name that it gives.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Random for each process.
    pub instance_id: String,
    /// The protocols that it offers.
    pub protocols: Vec<(String, i32)>,
    /// All else.
    pub info: v1::GetInfoResponse,
    /// Fields of a later version, appended to the answer to GetInfo.
    pub later_fields: Vec<u8>,
    /// What Probe says.
    pub probe: v1::ProbeResponse,
}

fn kind(kind: &str, target: v1::ConfigTarget) -> v1::ConfigKind {
    v1::ConfigKind {
        kind: kind.to_owned(),
        target: target.into(),
        schema_versions: vec!["v1".to_owned()],
    }
}

/// The identity of a provider of this name with the required RPCs and nothing else.
pub(crate) fn plain_identity(name: &str) -> Identity {
    Identity {
        name: name.to_owned(),
        version: "1.0.0".to_owned(),
        instance_id: new_instance_id(),
        protocols: vec![("actuator.v1".to_owned(), discovery::Stability::Stable.into())],
        info: v1::GetInfoResponse {
            timings: Some(v1::Timings {
                poll_interval: prost_types::Duration::try_from(POLL).ok(),
                ..Default::default()
            }),
            config_kinds: vec![
                kind("MirrorCluster", v1::ConfigTarget::Cluster),
                kind("MirrorMachine", v1::ConfigTarget::Machine),
            ],
            provider_id_prefix: "mirror://".to_owned(),
            ..Default::default()
        },
        later_fields: Vec::new(),
        probe: v1::ProbeResponse {
            readiness: v1::Readiness::Ready.into(),
            checks: Vec::new(),
        },
    }
}

pub(crate) fn new_instance_id() -> String {
    static COUNT: AtomicUsize = AtomicUsize::new(1);
    format!("instance-{}", COUNT.fetch_add(1, Ordering::Relaxed))
}
