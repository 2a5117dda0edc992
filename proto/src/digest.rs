//! Digests of specs. The core makes them, providers only compare them: equal
//! digests mean an equal spec. Bootstrap data, credentials and the cluster's status
//! are no part of a machine's digest, so that rotating them is no other spec.

use prost::Message as _;
use sha2::{Digest as _, Sha256};

use crate::v1;

/// SHA-256 of `bytes`, 32 bytes.
pub fn sha256(bytes: &[u8]) -> Vec<u8> {
    Sha256::digest(bytes).to_vec()
}

/// The digest of what `spec` asks for, whatever `spec.digest` and `spec.cluster` hold.
pub fn machine_spec(spec: &v1::MachineSpec) -> Vec<u8> {
    let mut asked = spec.clone();
    asked.digest = Vec::new();
    asked.cluster = None;
    sha256(&asked.encode_to_vec())
}

/// The digest of what `spec` asks for, whatever `spec.digest` holds.
pub fn cluster_spec(spec: &v1::ClusterSpec) -> Vec<u8> {
    let mut asked = spec.clone();
    asked.digest = Vec::new();
    sha256(&asked.encode_to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec() -> v1::MachineSpec {
        v1::MachineSpec {
            name: "worker-1".into(),
            node_labels: [("b".to_owned(), "2".to_owned()), ("a".to_owned(), "1".to_owned())].into(),
            ..Default::default()
        }
    }

    #[test]
    fn the_cluster_and_the_digest_itself_do_not_count() {
        let digest = machine_spec(&spec());
        let mut other = spec();
        other.digest = digest.clone();
        other.cluster = Some(v1::ClusterStatus {
            provider_id: "net-1".into(),
            ..Default::default()
        });
        assert_eq!(machine_spec(&other), digest);
        assert_eq!(digest.len(), 32);
    }

    #[test]
    fn what_is_asked_for_counts() {
        let mut other = spec();
        other.node_labels.insert("a".into(), "3".into());
        assert_ne!(machine_spec(&other), machine_spec(&spec()));
        let mut other = spec();
        other.failure_domain = "zone-a".into();
        assert_ne!(machine_spec(&other), machine_spec(&spec()));
    }
}
