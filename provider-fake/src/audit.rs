//! Judges a run by its journal alone: what is alive, what was made twice, what was left
//! behind. It reads the file from the first line to the last, independently of the
//! cloud's own state, and works while a provider runs or after it was killed.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use jiff::Timestamp;
use serde::Serialize;

use crate::cloud::LedgerError;
use crate::cloud::journal::{self, JOURNAL_FILE, Line};
use crate::cloud::model::{Action, Change, InstanceState, Kind, Resource};

/// What a journal says of a run.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct AuditReport {
    /// No duplicates, no orphans, and the expected keys where some were given.
    pub clean: bool,
    /// How many lines the journal has.
    pub lines: u64,
    /// How often a process was started on it.
    pub starts: u64,
    /// Whether a line was cut off at the end, as when the process was killed.
    pub torn: bool,
    /// How many resources of each kind there are.
    pub live: BTreeMap<&'static str, u64>,
    /// The instances there are, by key.
    pub instances: BTreeMap<String, Vec<LiveInstance>>,
    /// Keys and objects for which there was ever more than one.
    pub duplicates: Vec<Duplicate>,
    /// Resources whose owner is gone.
    pub orphans: Vec<Orphan>,
    /// How often each method was answered with what.
    pub calls: BTreeMap<String, BTreeMap<String, u64>>,
    /// How many answers never arrived.
    pub lost_responses: u64,
    /// How often what happened to each kind.
    pub changes: BTreeMap<&'static str, BTreeMap<String, u64>>,
    /// Expected keys without an instance.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub missing_keys: Option<Vec<String>>,
    /// Instances whose keys were not expected.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unexpected_keys: Option<Vec<String>>,
}

/// An instance that is there.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LiveInstance {
    /// Its id.
    pub id: String,
    /// The UID of its cluster.
    pub cluster: String,
    /// The UID of its object.
    pub object: String,
    /// Its name.
    pub name: String,
    /// Its zone.
    pub zone: String,
    /// What it did last.
    pub state: InstanceState,
    /// When it was accepted.
    pub created_at: Timestamp,
}

/// Something of which there may be one and was more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Duplicate {
    /// What kind of resource.
    pub kind: Kind,
    /// The key that made more than one; empty where an object has more than one.
    pub key: String,
    /// The object that has more than one; empty where a key made more than one.
    pub object: String,
    /// Those that are alive.
    pub live: Vec<String>,
    /// How many were ever made.
    pub created: u64,
}

/// A resource whose owner is gone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Orphan {
    /// What kind of resource.
    pub kind: Kind,
    /// Its id.
    pub id: String,
    /// Its key.
    pub key: String,
    /// The UID of its cluster.
    pub cluster: String,
    /// What kind of owner is gone.
    pub missing: Kind,
    /// The id of that owner.
    pub missing_id: String,
}

/// Audits the journal in a state folder.
pub fn audit(state_dir: &Path) -> Result<AuditReport, LedgerError> {
    let path = state_dir.join(JOURNAL_FILE);
    let mut fold = Fold::default();
    let end = journal::read(&path, 0, |line| fold.take(line))?;
    let length = path.metadata().map_or(end, |metadata| metadata.len());
    Ok(fold.report(length > end))
}

impl AuditReport {
    /// Compares the instances there are with the keys that should have one.
    pub fn expect_keys<'a>(&mut self, keys: impl IntoIterator<Item = &'a str>) {
        let expected: BTreeSet<&str> = keys.into_iter().collect();
        let there: BTreeSet<&str> = self.instances.keys().map(String::as_str).collect();
        let names = |keys: Vec<&&str>| keys.into_iter().map(|key| (*key).to_owned()).collect::<Vec<_>>();
        let missing = names(expected.difference(&there).collect());
        let unexpected = names(there.difference(&expected).collect());
        self.clean &= missing.is_empty() && unexpected.is_empty();
        self.missing_keys = Some(missing);
        self.unexpected_keys = Some(unexpected);
    }
}

#[derive(Default)]
struct Fold {
    lines: u64,
    starts: u64,
    lost: u64,
    resources: BTreeMap<(Kind, String), Resource>,
    created: BTreeMap<(Kind, String), u64>,
    calls: BTreeMap<String, BTreeMap<String, u64>>,
    changes: BTreeMap<&'static str, BTreeMap<String, u64>>,
}

impl Fold {
    fn take(&mut self, line: Line) {
        self.lines += 1;
        self.starts += u64::from(line.opened.is_some());
        if let Some(call) = line.call {
            self.lost += u64::from(call.lost);
            *self
                .calls
                .entry(call.method)
                .or_default()
                .entry(call.result)
                .or_default() += 1;
        }
        for change in line.changes {
            self.change(change);
        }
    }

    fn change(&mut self, change: Change) {
        let action = serde_json::to_value(change.action).ok();
        let action = action
            .and_then(|name| name.as_str().map(str::to_owned))
            .unwrap_or_default();
        *self
            .changes
            .entry(change.kind.as_str())
            .or_default()
            .entry(action)
            .or_default() += 1;
        if change.action == Action::Created {
            *self.created.entry((change.kind, change.key)).or_default() += 1;
        }
        let place = (change.kind, change.id);
        match change.resource {
            Some(resource) if change.action != Action::Lost => {
                self.resources.insert(place, resource);
            }
            _ => {
                self.resources.remove(&place);
            }
        }
    }

    fn report(self, torn: bool) -> AuditReport {
        let duplicates = self.duplicates();
        let orphans = self.orphans();
        let mut live = BTreeMap::new();
        let mut instances: BTreeMap<String, Vec<LiveInstance>> = BTreeMap::new();
        for resource in self.resources.values() {
            *live.entry(resource.kind().as_str()).or_default() += 1;
            if let Resource::Instance(it) = resource {
                instances.entry(it.key.clone()).or_default().push(LiveInstance {
                    id: it.id.clone(),
                    cluster: it.owner.cluster.clone(),
                    object: it.owner.object.clone(),
                    name: it.name.clone(),
                    zone: it.zone.clone(),
                    state: it.state,
                    created_at: it.created_at,
                });
            }
        }
        AuditReport {
            clean: duplicates.is_empty() && orphans.is_empty(),
            lines: self.lines,
            starts: self.starts,
            torn,
            live,
            instances,
            duplicates,
            orphans,
            calls: self.calls,
            lost_responses: self.lost,
            changes: self.changes,
            missing_keys: None,
            unexpected_keys: None,
        }
    }

    fn duplicates(&self) -> Vec<Duplicate> {
        let mut by_key: BTreeMap<(Kind, &str), Vec<String>> = BTreeMap::new();
        let mut by_object: BTreeMap<(Kind, &str), Vec<String>> = BTreeMap::new();
        for ((kind, id), resource) in &self.resources {
            let (_, key, owner) = resource.identity();
            by_key.entry((*kind, key)).or_default().push(id.clone());
            by_object
                .entry((*kind, owner.object.as_str()))
                .or_default()
                .push(id.clone());
        }
        let made_twice = self.created.iter().filter(|(_, created)| **created > 1);
        let of_keys = made_twice.map(|((kind, key), created)| Duplicate {
            kind: *kind,
            key: key.clone(),
            object: String::new(),
            live: by_key.get(&(*kind, key.as_str())).cloned().unwrap_or_default(),
            created: *created,
        });
        let of_objects = by_object
            .iter()
            .filter(|((_, object), live)| !object.is_empty() && live.len() > 1);
        let of_objects = of_objects.map(|((kind, object), live)| Duplicate {
            kind: *kind,
            key: String::new(),
            object: (*object).to_owned(),
            live: live.clone(),
            created: live.len() as u64,
        });
        of_keys.chain(of_objects).collect()
    }

    fn orphans(&self) -> Vec<Orphan> {
        let orphan = |((kind, id), resource): (&(Kind, String), &Resource)| {
            let (missing, missing_id) = resource.depends_on()?;
            if self.resources.contains_key(&(missing, missing_id.to_owned())) {
                return None;
            }
            let (_, key, owner) = resource.identity();
            Some(Orphan {
                kind: *kind,
                id: id.clone(),
                key: key.to_owned(),
                cluster: owner.cluster.clone(),
                missing,
                missing_id: missing_id.to_owned(),
            })
        };
        self.resources.iter().filter_map(orphan).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resource(json: &str) -> Resource {
        serde_json::from_str(json).expect("a resource")
    }

    fn network(id: &str) -> Resource {
        resource(&format!(
            r#"{{"network":{{"id":"{id}","key":"ck","owner":{{"management_cluster":"m","cluster":"c","object":"c"}},
            "name":"demo","cidr":"10.0.0.0/12","zones":["z"],"created_at":"2026-01-01T00:00:00Z",
            "ready_at":"2026-01-01T00:00:00Z","created_digest":"","digest":"","generation":1}}}}"#
        ))
    }

    fn instance(id: &str, key: &str, object: &str) -> Resource {
        resource(&format!(
            r#"{{"instance":{{"id":"{id}","key":"{key}","owner":{{"management_cluster":"m","cluster":"c","object":"{object}"}},
            "state":"running","name":"n","zone":"z","machine_type":"t","image":"i","network":"net","disk":"d",
            "network_interface":"ni","internal_ip":"10.0.0.1","created_at":"2026-01-01T00:00:00Z",
            "ready_at":"2026-01-01T00:00:00Z","created_digest":"","digest":"","generation":1}}}}"#
        ))
    }

    fn disk(id: &str, instance: &str) -> Resource {
        resource(&format!(
            r#"{{"disk":{{"id":"{id}","key":"k","owner":{{"management_cluster":"m","cluster":"c","object":"o"}},
            "instance":"{instance}","size_gib":20}}}}"#
        ))
    }

    fn report(changes: Vec<Change>) -> AuditReport {
        let mut fold = Fold::default();
        for change in changes {
            fold.change(change);
        }
        fold.report(false)
    }

    fn created(resource: Resource) -> Change {
        Change::to(Action::Created, resource)
    }

    #[test]
    fn one_of_each_is_clean_and_keys_are_compared() {
        let mut report = report(vec![
            created(network("net")),
            created(instance("i-1", "k", "o")),
            created(disk("d", "i-1")),
        ]);
        assert!(report.clean, "{report:?}");
        report.expect_keys(["k"]);
        assert!(report.clean);
        report.expect_keys(["k", "other"]);
        assert_eq!(report.missing_keys.as_deref(), Some(&["other".to_owned()][..]));
        assert!(!report.clean);
    }

    #[test]
    fn two_instances_of_a_key_are_found_even_when_one_is_gone() {
        let both = report(vec![
            created(network("net")),
            created(instance("i-1", "k", "o")),
            created(instance("i-2", "k", "o")),
        ]);
        assert_eq!(both.duplicates.len(), 2, "by key and by object: {:?}", both.duplicates);
        assert_eq!(both.duplicates[0].live, ["i-1", "i-2"]);
        let first = instance("i-1", "k", "o");
        let one_gone = report(vec![
            created(network("net")),
            created(first.clone()),
            Change::gone(Action::Deleted, &first),
            created(instance("i-2", "k", "o")),
        ]);
        assert_eq!(one_gone.duplicates.len(), 1);
        assert_eq!(
            (one_gone.duplicates[0].created, one_gone.duplicates[0].live.len()),
            (2, 1)
        );
        let two_keys = report(vec![
            created(network("net")),
            created(instance("i-1", "k1", "o")),
            created(instance("i-2", "k2", "o")),
        ]);
        assert_eq!(two_keys.duplicates[0].object, "o");
        assert!(!two_keys.clean);
    }

    #[test]
    fn what_hangs_on_nothing_is_an_orphan() {
        let gone = instance("i-1", "k", "o");
        let without_owner = report(vec![
            created(network("net")),
            created(gone.clone()),
            created(disk("d", "i-1")),
            Change::gone(Action::Deleted, &gone),
        ]);
        assert_eq!(without_owner.orphans.len(), 1);
        assert_eq!(
            (without_owner.orphans[0].kind, without_owner.orphans[0].missing),
            (Kind::Disk, Kind::Instance)
        );
        let alone = report(vec![created(gone)]);
        assert_eq!(alone.orphans[0].missing, Kind::Network);
        assert!(!alone.clean);
    }
}
