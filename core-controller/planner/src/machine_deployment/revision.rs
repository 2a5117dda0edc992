//! Which MachineSet stands for which template: names, hashes, revisions, rollback.
//!
//! A set is recognised by comparing templates, never by its hash: the hash only gives it a name and a label. Another way of
//! hashing, in a later version, therefore rolls no fleet. Not for how many replicas a set has.

use std::collections::BTreeMap;

use outrigger_api::names::{
    ANNOTATION_DESIRED_REPLICAS, ANNOTATION_MAX_REPLICAS, ANNOTATION_REVISION, ANNOTATION_REVISION_HISTORY,
    ANNOTATION_REVISION_UPSTREAM, LABEL_CLUSTER_NAME, LABEL_DEPLOYMENT_NAME, LABEL_DEPLOYMENT_NAME_UPSTREAM,
    LABEL_TEMPLATE_HASH,
};
use outrigger_api::{
    LabelSelector, MachineDeployment, MachineSet, MachineSetSpec, MachineTemplate, ObjectMeta, ResourceExt, reference,
};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::machine_set::encode;

/// The first bytes of what is hashed: another number for another way of hashing.
const HASH_VERSION: &str = "template-hash/1";
/// Characters of a hash.
const HASH_LENGTH: usize = 10;
/// Longest history of revisions kept on a set, in characters.
const HISTORY_LENGTH: usize = 2000;

/// The template without the labels that the deployment adds to those of its sets.
pub fn plain(template: &MachineTemplate) -> MachineTemplate {
    let mut plain = template.clone();
    for label in [
        LABEL_TEMPLATE_HASH,
        LABEL_DEPLOYMENT_NAME,
        LABEL_DEPLOYMENT_NAME_UPSTREAM,
    ] {
        plain.metadata.labels.remove(label);
    }
    plain
}

/// The hash of a template, as names and labels have it.
pub fn hash(template: &MachineTemplate, collisions: i32) -> String {
    let mut digest = Sha256::new();
    digest.update(HASH_VERSION);
    digest.update(canonical(&serde_json::to_value(plain(template)).unwrap_or_default()));
    digest.update(collisions.to_be_bytes());
    encode(&digest.finalize(), HASH_LENGTH)
}

/// JSON text with its keys in order, whatever order the library keeps them in.
fn canonical(value: &Value) -> String {
    match value {
        Value::Object(map) => {
            let ordered: BTreeMap<&String, String> = map.iter().map(|(key, value)| (key, canonical(value))).collect();
            let fields: Vec<String> = ordered
                .into_iter()
                .map(|(key, value)| format!("{}:{value}", Value::String(key.clone())))
                .collect();
            format!("{{{}}}", fields.join(","))
        }
        Value::Array(items) => format!("[{}]", items.iter().map(canonical).collect::<Vec<_>>().join(",")),
        plain => plain.to_string(),
    }
}

/// The revision that a set stands for; 0 when it says none.
pub fn revision(set: &MachineSet) -> i64 {
    set.annotations()
        .get(ANNOTATION_REVISION)
        .and_then(|text| text.parse().ok())
        .unwrap_or(0)
}

/// The number in an annotation of a set.
pub fn number(set: &MachineSet, annotation: &str) -> Option<i32> {
    set.annotations().get(annotation).and_then(|text| text.parse().ok())
}

/// The set whose template is the deployment's; of several the oldest, so that everybody chooses the same.
pub fn find_new<'a>(deployment: &MachineDeployment, sets: &[&'a MachineSet]) -> Option<&'a MachineSet> {
    let wanted = plain(&deployment.spec.template);
    sets.iter()
        .copied()
        .filter(|set| set.metadata.deletion_timestamp.is_none() && plain(&set.spec.template) == wanted)
        .min_by_key(|set| {
            (
                set.metadata.creation_timestamp.as_ref().map(|time| time.0),
                set.name_any(),
            )
        })
}

/// The annotations that a set should have as revision `wanted`; none if it has them.
pub fn revision_annotations(set: &MachineSet, wanted: i64) -> BTreeMap<String, Option<String>> {
    let mut changes = BTreeMap::new();
    let now = revision(set);
    if now >= wanted {
        return changes;
    }
    for annotation in [ANNOTATION_REVISION, ANNOTATION_REVISION_UPSTREAM] {
        changes.insert(annotation.to_owned(), Some(wanted.to_string()));
    }
    if now > 0 {
        let known = set
            .annotations()
            .get(ANNOTATION_REVISION_HISTORY)
            .map_or("", String::as_str);
        let mut history = if known.is_empty() {
            now.to_string()
        } else {
            format!("{known},{now}")
        };
        while history.len() > HISTORY_LENGTH {
            history = history
                .split_once(',')
                .map_or(String::new(), |(_, rest)| rest.to_owned());
        }
        changes.insert(ANNOTATION_REVISION_HISTORY.to_owned(), Some(history));
    }
    changes
}

/// The set to roll back to: that of this revision, or for 0 the one before the newest.
pub fn find_rollback<'a>(sets: &[&'a MachineSet], to: i64, newest: i64) -> Option<&'a MachineSet> {
    if to > 0 {
        return sets.iter().copied().find(|set| revision(set) == to);
    }
    sets.iter()
        .copied()
        .filter(|set| revision(set) < newest && revision(set) > 0)
        .max_by_key(|set| revision(set))
}

/// What a new set is given besides its template.
#[derive(Clone, Copy, Debug)]
pub struct NewSet<'a> {
    /// The hash that names it.
    pub hash: &'a str,
    /// Its replicas.
    pub replicas: i32,
    /// Its revision.
    pub revision: i64,
    /// The most machines that the deployment allows now.
    pub allowed: i32,
}

/// The name of the set with this hash.
pub fn set_name(deployment: &MachineDeployment, hash: &str) -> String {
    format!("{}-{hash}", deployment.name_any())
}

/// A new set for the deployment's template; `None` before the API server has given the deployment a UID.
pub fn new_set(deployment: &MachineDeployment, new: NewSet<'_>) -> Option<MachineSet> {
    let owner = reference::controller_of(deployment).filter(|owner| !owner.uid.is_empty())?;
    let spec = &deployment.spec;
    let mut template = plain(&spec.template);
    let name = deployment.name_any();
    template.metadata.labels.extend([
        (LABEL_TEMPLATE_HASH.to_owned(), new.hash.to_owned()),
        (LABEL_DEPLOYMENT_NAME.to_owned(), name.clone()),
        (LABEL_DEPLOYMENT_NAME_UPSTREAM.to_owned(), name),
    ]);
    let mut match_labels = spec.selector.match_labels.clone().unwrap_or_default();
    match_labels.insert(LABEL_TEMPLATE_HASH.to_owned(), new.hash.to_owned());
    let selector = LabelSelector {
        match_labels: Some(match_labels),
        match_expressions: spec.selector.match_expressions.clone(),
    };
    let mut labels = template.metadata.labels.clone();
    labels.insert(LABEL_CLUSTER_NAME.to_owned(), spec.cluster_name.clone());
    let annotations = BTreeMap::from([
        (ANNOTATION_REVISION.to_owned(), new.revision.to_string()),
        (ANNOTATION_REVISION_UPSTREAM.to_owned(), new.revision.to_string()),
        (ANNOTATION_DESIRED_REPLICAS.to_owned(), spec.replicas.to_string()),
        (ANNOTATION_MAX_REPLICAS.to_owned(), new.allowed.to_string()),
    ]);
    let metadata = ObjectMeta {
        name: Some(set_name(deployment, new.hash)),
        namespace: deployment.metadata.namespace.clone(),
        labels: Some(labels),
        annotations: Some(annotations),
        owner_references: Some(vec![owner]),
        ..ObjectMeta::default()
    };
    let spec = MachineSetSpec {
        cluster_name: spec.cluster_name.clone(),
        replicas: new.replicas,
        selector,
        template,
        min_ready_seconds: spec.min_ready_seconds,
        delete_policy: spec.strategy.rolling_update.delete_policy,
    };
    Some(MachineSet {
        metadata,
        spec,
        status: None,
    })
}
