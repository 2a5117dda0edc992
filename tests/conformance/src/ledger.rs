//! What the suite may have made: every key is written down before the call that could
//! make something, and taken off only when the provider has said GONE. What is left is
//! swept at the end of a run, after Ctrl-C, or by `--sweep` after a crash of the suite.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use actuator_proto::v1;
use anyhow::Context as _;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

/// What a key stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A machine; swept before clusters.
    Machine,
    /// A cluster.
    Cluster,
}

/// One key that may have something behind it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// What it stands for.
    pub kind: Kind,
    /// The idempotency key.
    pub key: String,
    /// `Ownership.management_cluster_id`.
    pub management_cluster_id: String,
    /// `Ownership.cluster_uid`.
    pub cluster_uid: String,
    /// `Ownership.object_uid`.
    pub object_uid: String,
    /// `Ownership.object_name`.
    pub name: String,
}

impl Entry {
    /// The entry of a request.
    pub fn new(kind: Kind, key: &str, ownership: &v1::Ownership) -> Self {
        Self {
            kind,
            key: key.to_owned(),
            management_cluster_id: ownership.management_cluster_id.clone(),
            cluster_uid: ownership.cluster_uid.clone(),
            object_uid: ownership.object_uid.clone(),
            name: ownership.object_name.clone(),
        }
    }

    /// What names it in Delete and Exists.
    pub fn reference(&self) -> v1::ResourceRef {
        v1::ResourceRef {
            ownership: Some(v1::Ownership {
                management_cluster_id: self.management_cluster_id.clone(),
                cluster_uid: self.cluster_uid.clone(),
                object_uid: self.object_uid.clone(),
                namespace: "conformance".to_owned(),
                cluster_name: String::new(),
                object_name: self.name.clone(),
            }),
            idempotency_key: self.key.clone(),
            provider_id: String::new(),
        }
    }
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Line {
    May(Entry),
    Gone(Place),
}

/// What a key stands for: the same key of another owner is another resource.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Place {
    kind: Kind,
    key: String,
    management: String,
    cluster: String,
}

impl Place {
    /// The place of a reference.
    pub fn of(kind: Kind, reference: &v1::ResourceRef) -> Self {
        let ownership = reference.ownership.clone().unwrap_or_default();
        Self {
            kind,
            key: reference.idempotency_key.clone(),
            management: ownership.management_cluster_id,
            cluster: ownership.cluster_uid,
        }
    }
}

/// The keys of a run, on disk.
#[derive(Debug)]
pub struct Ledger {
    path: PathBuf,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    file: File,
    open: BTreeMap<Place, Entry>,
    every: BTreeMap<Place, Entry>,
}

fn place(entry: &Entry) -> Place {
    Place {
        kind: entry.kind,
        key: entry.key.clone(),
        management: entry.management_cluster_id.clone(),
        cluster: entry.cluster_uid.clone(),
    }
}

impl Ledger {
    /// Opens or makes the file; what a former run left in it is open again.
    pub fn open(path: &Path) -> anyhow::Result<Self> {
        let mut open = BTreeMap::new();
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(error).with_context(|| format!("failed to read the ledger {}", path.display())),
        };
        for (number, line) in text.lines().enumerate() {
            match serde_json::from_str(line) {
                Ok(Line::May(entry)) => {
                    open.insert(place(&entry), entry);
                }
                Ok(Line::Gone(place)) => {
                    open.remove(&place);
                }
                // A crash may have cut the last line, before the call that it announces.
                Err(_) if number + 1 == text.lines().count() => {}
                Err(error) => {
                    return Err(error).with_context(|| format!("line {} of {} is damaged", number + 1, path.display()));
                }
            }
        }
        let file = File::options()
            .create(true)
            .append(true)
            .open(path)
            .with_context(|| format!("failed to write the ledger {}", path.display()))?;
        let every = open.clone();
        Ok(Self {
            path: path.to_owned(),
            inner: Mutex::new(Inner { file, open, every }),
        })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Something may be behind this key from now on. On disk when this returns.
    pub fn may_exist(&self, entry: Entry) -> anyhow::Result<()> {
        let mut inner = self.inner.lock();
        if inner.open.contains_key(&place(&entry)) {
            return Ok(());
        }
        append(&mut inner.file, &Line::May(entry.clone()))
            .with_context(|| format!("failed to write the ledger {}", self.path.display()))?;
        inner.every.insert(place(&entry), entry.clone());
        inner.open.insert(place(&entry), entry);
        Ok(())
    }

    /// The provider has said that nothing is behind this key any more.
    pub fn is_gone(&self, place: Place) {
        let mut inner = self.inner.lock();
        if inner.open.remove(&place).is_some() {
            // Lost, it costs one needless Delete.
            let _ = append(&mut inner.file, &Line::Gone(place));
        }
    }

    /// What may still be there, machines first.
    pub fn open_entries(&self) -> Vec<Entry> {
        self.inner.lock().open.values().cloned().collect()
    }

    /// Every key of this run, also those that are gone.
    pub fn all_entries(&self) -> Vec<Entry> {
        self.inner.lock().every.values().cloned().collect()
    }
}

fn append(file: &mut File, line: &Line) -> std::io::Result<()> {
    let mut text = serde_json::to_string(line)?;
    text.push('\n');
    file.write_all(text.as_bytes())?;
    file.sync_data()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(key: &str) -> Entry {
        let ownership = v1::Ownership {
            cluster_uid: "c".to_owned(),
            ..Default::default()
        };
        Entry::new(Kind::Machine, key, &ownership)
    }

    #[test]
    fn what_was_left_is_found_again_even_after_a_cut() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ledger");
        let ledger = Ledger::open(&path).unwrap();
        ledger.may_exist(entry("a")).unwrap();
        ledger.may_exist(entry("b")).unwrap();
        ledger.is_gone(place(&entry("a")));
        ledger.may_exist(entry("c")).unwrap();
        drop(ledger);
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, &text[..text.len() - 5]).unwrap();
        let keys: Vec<String> = Ledger::open(&path)
            .unwrap()
            .open_entries()
            .into_iter()
            .map(|entry| entry.key)
            .collect();
        assert_eq!(keys, ["b"]);
    }

    #[test]
    fn what_is_gone_of_another_owner_is_still_ours() {
        let folder = tempfile::tempdir().unwrap();
        let ledger = Ledger::open(&folder.path().join("ledger")).unwrap();
        ledger.may_exist(entry("a")).unwrap();
        let mut reference = entry("a").reference();
        if let Some(ownership) = &mut reference.ownership {
            ownership.management_cluster_id.push_str("-other");
        }
        ledger.is_gone(Place::of(Kind::Machine, &reference));
        assert_eq!(ledger.open_entries(), [entry("a")]);
        ledger.is_gone(Place::of(Kind::Machine, &entry("a").reference()));
        assert!(ledger.open_entries().is_empty());
    }

    #[test]
    fn damage_in_the_middle_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ledger");
        std::fs::write(&path, "nonsense\n{}\n").unwrap();
        assert!(Ledger::open(&path).unwrap_err().to_string().contains("line 1"));
    }
}
