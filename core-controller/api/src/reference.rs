//! Owner references between our kinds: made and read in one place, so that "is it ours" means the same everywhere.
//!
//! Not for looking owners up: that is the index's.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube_core::{ObjectMeta, Resource};

/// The reference by which `owner` controls a child; `None` before the API server has given the owner a name and a UID.
pub fn controller_of<K: Resource<DynamicType = ()>>(owner: &K) -> Option<OwnerReference> {
    owner.controller_owner_ref(&())
}

/// The reference in `meta` that names the controlling owner, whatever its kind.
pub fn controller(meta: &ObjectMeta) -> Option<&OwnerReference> {
    meta.owner_references
        .as_ref()?
        .iter()
        .find(|reference| reference.controller == Some(true))
}

/// Whether the object with this metadata is controlled by the object with this UID.
pub fn is_controlled_by(meta: &ObjectMeta, owner_uid: &str) -> bool {
    controller(meta).is_some_and(|reference| reference.uid == owner_uid)
}
