//! A model of an API server, and a table that hears of it by a watch that lags, by
//! lists, and by late answers to own writes.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use proptest::prelude::*;

use super::*;

impl Stored for ConfigMap {
    fn index_keys(&self, keys: &mut Vec<IndexKey>) {
        if let Some(value) = self.data.as_ref().and_then(|data| data.get("provider")) {
            keys.push(IndexKey::Provider(value.as_str().into()));
        }
    }
}

fn object(name: &str, uid: &str, version: u64, value: &str) -> ConfigMap {
    let mut object = ConfigMap::default();
    object.metadata.namespace = Some("default".to_owned());
    object.metadata.name = Some(name.to_owned());
    object.metadata.uid = Some(uid.to_owned());
    object.metadata.resource_version = Some(version.to_string());
    object.data = Some(BTreeMap::from([("provider".to_owned(), value.to_owned())]));
    object
}

fn found(table: &Table<ConfigMap>, value: &str) -> Vec<String> {
    table
        .find(&IndexKey::Provider(value.into()))
        .iter()
        .filter_map(|object| object.metadata.name.clone())
        .collect()
}

#[test]
fn secondary_keys_follow_changes() {
    let mut table = Table::default();
    table.observe(object("a", "1", 1, "x"), true);
    table.observe(object("b", "2", 2, "x"), true);
    assert_eq!(found(&table, "x"), ["a", "b"]);
    table.observe(object("a", "1", 3, "y"), false);
    assert_eq!(found(&table, "x"), ["b"]);
    assert_eq!(found(&table, "y"), ["a"]);
    table.observe_deleted(&object("b", "2", 4, "x"));
    assert!(found(&table, "x").is_empty());
    assert_eq!(table.count(&IndexKey::Provider("x".into())), 0);
    assert!(table.get_by_uid("2").is_none());
}

#[test]
fn a_late_answer_does_not_bring_a_deleted_object_back() {
    let mut table = Table::default();
    table.observe(object("a", "1", 1, "x"), true);
    table.observe_deleted(&object("a", "1", 3, "x"));
    assert!(table.apply_own(object("a", "1", 2, "late"), false).is_none());
    assert!(table.is_empty());
}

#[test]
fn an_object_that_our_write_removed_is_gone_at_once_and_stays_so() {
    let mut table = Table::default();
    table.observe(object("a", "1", 1, "x"), true);
    let mut last = object("a", "1", 3, "x");
    last.metadata.deletion_timestamp = Some(Time(jiff::Timestamp::UNIX_EPOCH));
    assert!(table.apply_own(last, false).is_some_and(|change| change.new.is_none()));
    // The watch is behind: it tells of an update before the removal.
    assert!(table.observe(object("a", "1", 2, "x"), false).is_none());
    assert!(table.is_empty());
    table.observe_deleted(&object("a", "1", 3, "x"));
    assert!(table.removed.is_empty());
}

#[test]
fn a_stale_list_is_refused_until_the_storage_was_put_back() {
    let mut table = Table::default();
    table.observe(object("a", "1", 7, "x"), true);
    assert_eq!(
        table.replace(vec![], 6).unwrap_err(),
        StaleList { listed: 6, watched: 7 }
    );
    table.accept_any_list();
    assert_eq!(table.replace(vec![], 6).unwrap().len(), 1);
    assert!(table.is_empty());
}

#[test]
fn births_are_witnessed_by_live_watch_and_own_create_only() {
    let mut table = Table::default();
    table.replace(vec![object("listed", "1", 1, "x")], 1).unwrap();
    table.observe(object("added", "2", 2, "x"), true);
    table.apply_own(object("created", "3", 3, "x"), true);
    let born = |table: &Table<ConfigMap>, name| table.born(&Name::new("default", name));
    assert_eq!(born(&table, "listed"), None);
    assert_eq!(born(&table, "added"), Some(2));
    assert_eq!(born(&table, "created"), Some(3));
    // It stays known over updates and lists, and ends with the UID.
    table.observe(object("added", "2", 4, "y"), false);
    assert_eq!(born(&table, "added"), Some(2));
    table.replace(vec![object("added", "9", 5, "y")], 5).unwrap();
    assert_eq!(born(&table, "added"), None);
}

/// One thing that happens, in the model.
#[derive(Debug, Clone)]
enum Step {
    /// Somebody else writes.
    Write { name: u8, value: u8 },
    /// Somebody else deletes.
    Delete { name: u8 },
    /// We write; the answer comes later.
    OwnWrite { name: u8, value: u8 },
    /// We delete; the answer comes later.
    OwnDelete { name: u8 },
    /// One answer of ours arrives, not always the oldest.
    Answer { which: u8 },
    /// The watch delivers some events.
    Watch { events: u8 },
    /// The watch broke: a list, taken now.
    Relist,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        (0u8..4, any::<u8>()).prop_map(|(name, value)| Step::Write { name, value }),
        (0u8..4).prop_map(|name| Step::Delete { name }),
        (0u8..4, any::<u8>()).prop_map(|(name, value)| Step::OwnWrite { name, value }),
        (0u8..4).prop_map(|name| Step::OwnDelete { name }),
        any::<u8>().prop_map(|which| Step::Answer { which }),
        any::<u8>().prop_map(|which| Step::Answer { which }),
        (1u8..4).prop_map(|events| Step::Watch { events }),
        (1u8..4).prop_map(|events| Step::Watch { events }),
        Just(Step::Relist),
    ];
    proptest::collection::vec(step, 1..60)
}

#[derive(Debug, Clone)]
enum Event {
    Put(ConfigMap, bool),
    Gone(ConfigMap),
}

#[derive(Debug)]
enum Answer {
    Put(Box<ConfigMap>, bool),
    Gone(Name, String),
}

#[derive(Default)]
struct Model {
    version: u64,
    uids: u64,
    objects: BTreeMap<String, ConfigMap>,
    events: std::collections::VecDeque<Event>,
}

impl Model {
    fn write(&mut self, name: &str, value: u8) -> (ConfigMap, bool) {
        self.version += 1;
        let known = self.objects.get(name).and_then(|object| object.metadata.uid.clone());
        let created = known.is_none();
        let uid = known.unwrap_or_else(|| {
            self.uids += 1;
            self.uids.to_string()
        });
        let written = object(name, &uid, self.version, &value.to_string());
        self.objects.insert(name.to_owned(), written.clone());
        self.events.push_back(Event::Put(written.clone(), created));
        (written, created)
    }

    fn delete(&mut self, name: &str) -> Option<ConfigMap> {
        let mut gone = self.objects.remove(name)?;
        self.version += 1;
        gone.metadata.resource_version = Some(self.version.to_string());
        self.events.push_back(Event::Gone(gone.clone()));
        Some(gone)
    }
}

fn same(table: &Table<ConfigMap>, model: &Model) -> Result<(), TestCaseError> {
    let known: BTreeMap<String, ConfigMap> = table
        .iter()
        .map(|object| (object.metadata.name.clone().unwrap(), ConfigMap::clone(object)))
        .collect();
    prop_assert_eq!(&known, &model.objects);
    for object in model.objects.values() {
        let value = &object.data.as_ref().unwrap()["provider"];
        prop_assert!(found(table, value).contains(object.metadata.name.as_ref().unwrap()));
        prop_assert!(table.get_by_uid(object.metadata.uid.as_ref().unwrap()).is_some());
    }
    let indexed: usize = table.secondary.values().map(BTreeSet::len).sum();
    prop_assert_eq!(indexed, model.objects.len());
    prop_assert_eq!(table.by_uid.len(), model.objects.len());
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]
    #[test]
    fn any_interleaving_ends_in_the_servers_state(steps in steps()) {
        let mut model = Model::default();
        let mut table = Table::<ConfigMap>::default();
        table.replace(vec![], 0).unwrap();
        let mut answers: Vec<Answer> = Vec::new();
        // What our own answers said is gone.
        let mut gone: HashSet<String> = HashSet::new();
        let deliver = |table: &mut Table<ConfigMap>, event: Event| match event {
            Event::Put(object, added) => { table.observe(object, added); }
            Event::Gone(object) => { table.observe_deleted(&object); }
        };
        let answer = |table: &mut Table<ConfigMap>, answer: Answer| match answer {
            Answer::Put(object, created) => {
                let version = version_of(&*object);
                let name = Name::of(&*object);
                let uid = uid_of(&*object).to_owned();
                table.apply_own(*object, created);
                // Read your writes: never older than what we wrote, or gone by now.
                if let Some(known) = table.get(&name)
                    && uid_of(&*known) == uid {
                    assert!(version_of(&*known) >= version);
                }
            }
            Answer::Gone(name, uid) => {
                table.remove_own(&name, &uid);
                assert!(table.get_by_uid(&uid).is_none());
            }
        };
        for step in steps {
            match step {
                Step::Write { name, value } => { model.write(&name.to_string(), value); }
                Step::Delete { name } => { model.delete(&name.to_string()); }
                Step::OwnWrite { name, value } => {
                    let (object, created) = model.write(&name.to_string(), value);
                    answers.push(Answer::Put(Box::new(object), created));
                }
                Step::OwnDelete { name } => {
                    // We only delete what we know, by its UID.
                    let name = name.to_string();
                    let known = table.get(&Name::new("default", &name));
                    let uid = model.objects.get(&name).and_then(|object| object.metadata.uid.clone());
                    if known.is_some_and(|known| known.metadata.uid == uid)
                        && let Some(gone) = model.delete(&name) {
                        answers.push(Answer::Gone(Name::of(&gone), uid_of(&gone).to_owned()));
                    }
                }
                Step::Answer { which } => {
                    if !answers.is_empty() {
                        let which = usize::from(which) % answers.len();
                        let arrived = answers.remove(which);
                        if let Answer::Gone(_, uid) = &arrived {
                            gone.insert(uid.clone());
                        }
                        answer(&mut table, arrived);
                    }
                }
                Step::Watch { events } => {
                    for _ in 0..events {
                        if let Some(event) = model.events.pop_front() {
                            deliver(&mut table, event);
                        }
                    }
                }
                Step::Relist => {
                    model.events.clear();
                    table.replace(model.objects.values().cloned().collect(), model.version).unwrap();
                }
            }
            for uid in &gone {
                prop_assert!(table.get_by_uid(uid).is_none(), "{} came back", uid);
            }
        }
        for late in answers {
            answer(&mut table, late);
        }
        while let Some(event) = model.events.pop_front() {
            deliver(&mut table, event);
        }
        same(&table, &model)?;
        prop_assert!(table.removed.is_empty());
    }
}
