//! From a Cluster and the objects that name it to a tree: owners above what they own.
//! Pure; it reads objects as they came, so that it also shows kinds that it does not know.

use std::collections::BTreeMap;

use kube::ResourceExt as _;
use kube::api::DynamicObject;
use serde_json::Value;

/// One object and what it owns.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    /// The kind.
    pub kind: String,
    /// The name.
    pub name: String,
    /// `status.phase`.
    pub phase: Option<String>,
    /// Ready and wanted, for what has replicas.
    pub replicas: Option<(i64, i64)>,
    /// When it was made.
    pub created: Option<jiff::Timestamp>,
    /// Whether its deletion was asked for.
    pub deleting: bool,
    /// The conditions as they stand in the status.
    pub conditions: Vec<Condition>,
    /// What it owns, by kind and name.
    pub children: Vec<Node>,
}

/// A condition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Condition {
    /// The type.
    pub name: String,
    /// True, False or Unknown.
    pub status: String,
    /// The reason.
    pub reason: String,
    /// The message.
    pub message: String,
}

impl Condition {
    /// Whether it says that something is not as it shall be. Conditions whose name is bad
    /// news are well when they are not True.
    pub fn is_bad(&self) -> bool {
        if matches!(self.name.as_str(), "Deleting" | "Paused" | "ReplicaFailure") {
            self.status == "True"
        } else {
            self.status != "True"
        }
    }
}

impl Node {
    /// The condition of this type.
    pub fn condition(&self, name: &str) -> Option<&Condition> {
        self.conditions.iter().find(|condition| condition.name == name)
    }
}

/// Builds the tree. What names the cluster and has no owner among the objects hangs
/// directly below the cluster; what belongs to another cluster is left out.
pub fn build<'a>(cluster: &DynamicObject, objects: impl IntoIterator<Item = &'a DynamicObject>) -> Node {
    let cluster_name = cluster.name_any();
    let objects: Vec<&DynamicObject> = objects
        .into_iter()
        .filter(|object| object.data["spec"]["clusterName"].as_str() == Some(cluster_name.as_str()))
        .collect();
    let uids: BTreeMap<&str, &DynamicObject> = objects
        .iter()
        .filter_map(|object| Some((object.metadata.uid.as_deref()?, *object)))
        .collect();
    let mut owned: BTreeMap<Option<&str>, Vec<&DynamicObject>> = BTreeMap::new();
    for object in &objects {
        let owner = object
            .owner_references()
            .iter()
            .map(|reference| reference.uid.as_str())
            .find(|uid| uids.contains_key(uid) && object.metadata.uid.as_deref() != Some(uid));
        owned.entry(owner).or_default().push(object);
    }
    let mut root = node(cluster, "Cluster");
    root.children = children(None, &mut owned);
    root
}

/// Takes what `owner` owns out of `owned`, so that owners in a circle end the walk.
fn children<'a>(owner: Option<&'a str>, owned: &mut BTreeMap<Option<&'a str>, Vec<&'a DynamicObject>>) -> Vec<Node> {
    let mut nodes: Vec<Node> = owned
        .remove(&owner)
        .unwrap_or_default()
        .into_iter()
        .map(|object| {
            let mut node = node(object, "");
            node.children = match object.metadata.uid.as_deref() {
                Some(uid) => children(Some(uid), owned),
                None => Vec::new(),
            };
            node
        })
        .collect();
    nodes.sort_by(|a, b| (&a.kind, &a.name).cmp(&(&b.kind, &b.name)));
    nodes
}

fn node(object: &DynamicObject, kind: &str) -> Node {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let status = &object.data["status"];
    let conditions = status["conditions"]
        .as_array()
        .map(|conditions| {
            conditions
                .iter()
                .map(|condition| Condition {
                    name: text(&condition["type"]),
                    status: text(&condition["status"]),
                    reason: text(&condition["reason"]),
                    message: text(&condition["message"]),
                })
                .collect()
        })
        .unwrap_or_default();
    Node {
        kind: object
            .types
            .as_ref()
            .map_or_else(|| kind.to_owned(), |types| types.kind.clone()),
        name: object.name_any(),
        phase: status["phase"].as_str().map(ToOwned::to_owned),
        replicas: object.data["spec"]["replicas"]
            .as_i64()
            .map(|wanted| (status["readyReplicas"].as_i64().unwrap_or(0), wanted)),
        created: object.creation_timestamp().map(|time| time.0),
        deleting: object.metadata.deletion_timestamp.is_some(),
        conditions,
        children: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn object(kind: &str, name: &str, owner: Option<&str>) -> DynamicObject {
        serde_json::from_value(json!({
            "apiVersion": "cluster.outrigger.dev/v1alpha1", "kind": kind,
            "metadata": {
                "name": name, "uid": name, "creationTimestamp": "2026-01-01T00:00:00Z",
                "ownerReferences": owner.map(|uid| json!([{"apiVersion": "v1", "kind": "X", "name": uid, "uid": uid}])),
            },
            "spec": {"clusterName": "demo", "replicas": 3},
            "status": {"phase": "Running", "readyReplicas": 2, "conditions": [
                {"type": "Ready", "status": "False", "reason": "Waiting", "message": "for the cloud"}]},
        }))
        .expect("an object")
    }

    fn walk(node: &Node, names: &mut Vec<String>) {
        names.push(node.name.clone());
        for child in &node.children {
            walk(child, names);
        }
    }

    #[test]
    fn owners_stand_above_what_they_own() {
        let objects = [
            object("Machine", "m2", Some("ms")),
            object("Machine", "m1", Some("ms")),
            object("MachineSet", "ms", Some("md")),
            object("MachineDeployment", "md", Some("cluster-uid-not-listed")),
            object("Machine", "lonely", None),
        ];
        let root = build(&object("Cluster", "demo", None), &objects);
        let mut names = Vec::new();
        walk(&root, &mut names);
        assert_eq!(names, ["demo", "lonely", "md", "ms", "m1", "m2"]);
        assert_eq!(root.children[1].replicas, Some((2, 3)));
        assert!(root.children[0].condition("Ready").is_some_and(Condition::is_bad));
    }

    #[test]
    fn other_clusters_are_left_out_and_circles_end() {
        let mut foreign = object("Machine", "foreign", None);
        foreign.data["spec"]["clusterName"] = json!("other");
        let objects = [
            foreign,
            object("MachineSet", "a", Some("b")),
            object("MachineSet", "b", Some("a")),
        ];
        let root = build(&object("Cluster", "demo", None), &objects);
        assert!(root.children.is_empty());
    }
}
