//! Whose a resource is, as tags: written with its creation, and how it is found again.
//! Pure.

use provider_sdk::v1::{self, ErrorReason};
use provider_sdk::{ActuatorError, Resource};
use sha2::{Digest as _, Sha256};

use crate::client::query::Filter;
use crate::ec2::Tags;

/// All tags of ours begin so.
const OURS: &str = "outrigger.dev/";
/// The idempotency key of a machine, on its instance, volumes and interfaces.
pub const MACHINE_KEY: &str = "outrigger.dev/machine-key";
/// The idempotency key of a cluster, on what it consists of.
pub const CLUSTER_KEY: &str = "outrigger.dev/cluster-key";
/// The management cluster.
pub const MANAGEMENT_CLUSTER: &str = "outrigger.dev/management-cluster";
/// The UID of the Cluster object.
pub const CLUSTER_UID: &str = "outrigger.dev/cluster-uid";
const OBJECT_UID: &str = "outrigger.dev/object-uid";
const NAMESPACE: &str = "outrigger.dev/namespace";
const CLUSTER_NAME: &str = "outrigger.dev/cluster-name";
const OBJECT_NAME: &str = "outrigger.dev/object-name";
/// The digest of the spec that was applied, in hexadecimal digits.
const DIGEST: &str = "outrigger.dev/digest";
/// The generation that was applied.
const GENERATION: &str = "outrigger.dev/generation";
/// A digest of those parts of the spec that cannot be changed in place.
const SHAPE: &str = "outrigger.dev/shape";
/// Which of the other tags the user's config asked for, as fingerprints of their keys.
const ASKED_FOR: &str = "outrigger.dev/tags";
/// What Amazon's console shows.
const NAME: &str = "Name";
/// How the cloud provider of Kubernetes knows what belongs to a cluster.
const KUBERNETES: &str = "kubernetes.io/cluster/";

/// The most tags that a user may ask for: EC2 takes 50, ours are among them, and the
/// fingerprints of their keys have to fit in one value.
pub const MAX_ASKED_FOR: usize = 30;

/// What was applied to a resource.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Applied {
    /// The digest of the spec.
    pub digest: Vec<u8>,
    /// The generation of the object.
    pub generation: i64,
    /// A digest of what cannot be changed in place.
    pub shape: String,
}

/// Which kind of key a resource has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// It is a machine's.
    Machine,
    /// It is a cluster's.
    Cluster,
}

impl Kind {
    /// The tag that holds the key.
    pub fn key_tag(self) -> &'static str {
        match self {
            Self::Machine => MACHINE_KEY,
            Self::Cluster => CLUSTER_KEY,
        }
    }
}

/// Every tag of a new resource.
pub fn all(kind: Kind, key: &str, ownership: &v1::Ownership, applied: &Applied, asked_for: &Tags) -> Tags {
    let mut tags = asked_for.clone();
    tags.extend(changing(applied, asked_for));
    let fixed = [
        (kind.key_tag(), key),
        (MANAGEMENT_CLUSTER, &ownership.management_cluster_id),
        (CLUSTER_UID, &ownership.cluster_uid),
        (OBJECT_UID, &ownership.object_uid),
        (NAMESPACE, &ownership.namespace),
        (CLUSTER_NAME, &ownership.cluster_name),
        (OBJECT_NAME, &ownership.object_name),
    ];
    tags.extend(fixed.map(|(name, value)| (name.to_owned(), value.to_owned())));
    tags.entry(NAME.to_owned())
        .or_insert_with(|| ownership.object_name.clone());
    tags.insert(format!("{KUBERNETES}{}", ownership.cluster_name), "owned".to_owned());
    tags
}

/// The tags that an update writes anew.
pub fn changing(applied: &Applied, asked_for: &Tags) -> Tags {
    let mut tags = asked_for.clone();
    tags.insert(DIGEST.to_owned(), hex::encode(&applied.digest));
    tags.insert(GENERATION.to_owned(), applied.generation.to_string());
    tags.insert(SHAPE.to_owned(), applied.shape.clone());
    tags.insert(
        ASKED_FOR.to_owned(),
        asked_for.keys().map(|key| fingerprint(key)).collect(),
    );
    tags
}

/// The tags that a former config asked for and this one does not. Those that others have
/// put there stay.
pub fn no_longer_asked_for(there: &Tags, asked_for: &Tags) -> Vec<String> {
    let Some(former) = there.get(ASKED_FOR) else {
        return Vec::new();
    };
    let gone = |key: &&String| {
        !asked_for.contains_key(*key) && !is_reserved(key) && contains(former, &fingerprint(key)) && *key != NAME
    };
    there.keys().filter(gone).cloned().collect()
}

fn contains(fingerprints: &str, one: &str) -> bool {
    fingerprints
        .as_bytes()
        .chunks(one.len())
        .any(|known| known == one.as_bytes())
}

/// Eight digits for a key.
fn fingerprint(key: &str) -> String {
    let mut digits = hex::encode(Sha256::digest(key));
    digits.truncate(8);
    digits
}

/// Whether a user must not ask for a tag with this key.
pub fn is_reserved(key: &str) -> bool {
    key.starts_with(OURS)
        || key.starts_with(KUBERNETES)
        || key.get(..4).is_some_and(|start| start.eq_ignore_ascii_case("aws:"))
}

/// What was applied, as the tags tell.
pub fn applied(tags: &Tags) -> Applied {
    Applied {
        digest: tags
            .get(DIGEST)
            .and_then(|digits| hex::decode(digits).ok())
            .unwrap_or_default(),
        generation: tags
            .get(GENERATION)
            .and_then(|text| text.parse().ok())
            .unwrap_or_default(),
        shape: tags.get(SHAPE).cloned().unwrap_or_default(),
    }
}

/// Whose a resource is, as its tags tell.
pub fn ownership(tags: &Tags) -> v1::Ownership {
    let tag = |name: &str| tags.get(name).cloned().unwrap_or_default();
    v1::Ownership {
        management_cluster_id: tag(MANAGEMENT_CLUSTER),
        cluster_uid: tag(CLUSTER_UID),
        object_uid: tag(OBJECT_UID),
        namespace: tag(NAMESPACE),
        cluster_name: tag(CLUSTER_NAME),
        object_name: tag(OBJECT_NAME),
    }
}

/// Refuses what is not the resource that is meant: another key, another owner, or nobody's.
pub fn check_owner(kind: Kind, id: &str, tags: &Tags, meant: &Resource) -> Result<(), ActuatorError> {
    let is = ownership(tags);
    let wanted = &meant.ownership;
    let ours = tags.get(kind.key_tag()) == Some(&meant.key)
        && is.management_cluster_id == wanted.management_cluster_id
        && is.cluster_uid == wanted.cluster_uid
        && is.object_uid == wanted.object_uid;
    if ours {
        return Ok(());
    }
    Err(ActuatorError::new(
        ErrorReason::OwnershipMismatch,
        format!("{id} does not belong to this object by its tags {OURS}*; it is left alone"),
    ))
}

/// What has one of these keys.
pub fn by_key(kind: Kind, keys: impl IntoIterator<Item = impl AsRef<str>>) -> Filter {
    Filter::tag(kind.key_tag(), keys)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub fn owner() -> v1::Ownership {
        v1::Ownership {
            management_cluster_id: "management".to_owned(),
            cluster_uid: "cluster-uid".to_owned(),
            object_uid: "object-uid".to_owned(),
            namespace: "default".to_owned(),
            cluster_name: "demo".to_owned(),
            object_name: "worker-1".to_owned(),
        }
    }

    pub fn applied_for_tests() -> Applied {
        Applied {
            digest: vec![7; 32],
            generation: 3,
            shape: "shape".to_owned(),
        }
    }

    fn asked(keys: &[&str]) -> Tags {
        keys.iter().map(|key| ((*key).to_owned(), "v".to_owned())).collect()
    }

    #[test]
    fn what_is_written_is_read_back() {
        let tags = all(
            Kind::Machine,
            "key-1",
            &owner(),
            &applied_for_tests(),
            &asked(&["team"]),
        );
        assert_eq!(ownership(&tags), owner());
        assert_eq!(applied(&tags), applied_for_tests());
        assert_eq!(tags.get("team").map(String::as_str), Some("v"));
        assert_eq!(tags.get("Name").map(String::as_str), Some("worker-1"));
        assert_eq!(
            tags.get("kubernetes.io/cluster/demo").map(String::as_str),
            Some("owned")
        );
        assert_eq!(tags.get(MACHINE_KEY).map(String::as_str), Some("key-1"));
        assert!(!tags.contains_key(CLUSTER_KEY));
    }

    #[test]
    fn everything_fits_what_ec2_takes() {
        let many: Vec<String> = (0..MAX_ASKED_FOR).map(|number| format!("tag-{number}")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        let tags = all(Kind::Machine, "k", &owner(), &applied_for_tests(), &asked(&many));
        assert!(tags.len() <= 50, "{}", tags.len());
        for (key, value) in &tags {
            assert!(key.len() <= 128 && value.len() <= 256, "{key}={value}");
        }
    }

    #[test]
    fn a_tag_goes_when_it_was_asked_for_and_is_not_any_more() {
        let mut there = all(
            Kind::Machine,
            "k",
            &owner(),
            &applied_for_tests(),
            &asked(&["old", "kept"]),
        );
        there.insert("cost-centre".to_owned(), "put there by somebody else".to_owned());
        assert_eq!(no_longer_asked_for(&there, &asked(&["kept", "new"])), ["old"]);
        assert!(no_longer_asked_for(&asked(&["other"]), &Tags::new()).is_empty());
    }

    #[test]
    fn only_the_owner_with_the_key_passes() {
        let tags = all(Kind::Machine, "k", &owner(), &applied_for_tests(), &Tags::new());
        let meant = Resource {
            ownership: owner(),
            key: "k".to_owned(),
            provider_id: None,
        };
        assert!(check_owner(Kind::Machine, "i-1", &tags, &meant).is_ok());
        let mut others = vec![meant.clone(); 4];
        others[0].key = "other".to_owned();
        others[1].ownership.management_cluster_id = "other".to_owned();
        others[2].ownership.cluster_uid = "other".to_owned();
        others[3].ownership.object_uid = "other".to_owned();
        for other in others {
            let error = check_owner(Kind::Machine, "i-1", &tags, &other).expect_err("refused");
            assert_eq!(error.reason(), ErrorReason::OwnershipMismatch);
        }
        assert!(check_owner(Kind::Cluster, "i-1", &tags, &meant).is_err());
        assert!(check_owner(Kind::Machine, "i-1", &Tags::new(), &meant).is_err());
    }

    #[test]
    fn names_of_others_are_reserved() {
        for key in ["outrigger.dev/x", "aws:x", "AWS:x", "kubernetes.io/cluster/x"] {
            assert!(is_reserved(key), "{key}");
        }
        assert!(!is_reserved("Name") && !is_reserved("team"));
    }
}
