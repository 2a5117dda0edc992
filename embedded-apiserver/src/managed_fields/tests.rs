//! Tests of field ownership.

use super::*;
use proptest::prelude::*;
use std::sync::LazyLock;

const API_VERSION: &str = "example.com/v1";

static SCHEMA: LazyLock<Schema> = LazyLock::new(|| Schema::compile(&SCHEMA_TEXT).expect("structural"));

static SCHEMA_TEXT: LazyLock<Value> = LazyLock::new(|| {
    json!({"type": "object", "properties": {
        "spec": {"type": "object", "properties": {
            "replicas": {"type": "integer"},
            "color": {"type": "string"},
            "atomic": {"type": "object", "x-kubernetes-map-type": "atomic", "additionalProperties": {"type": "string"}},
            "set": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}},
            "plain": {"type": "array", "items": {"type": "string"}},
            "ports": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["port", "protocol"],
                "items": {"type": "object", "required": ["port"], "properties": {
                    "port": {"type": "integer"},
                    "protocol": {"type": "string", "default": "TCP"},
                    "name": {"type": "string"},
                }}},
            "nested": {"type": "object", "properties": {"a": {"type": "string"}, "b": {"type": "string"}}},
        }},
        "status": {"type": "object", "properties": {"phase": {"type": "string"}}},
    }})
});

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_700_000_000 + second).expect("in range")
}

fn object(spec: Value) -> Value {
    json!({"apiVersion": API_VERSION, "kind": "K", "metadata": {"name": "n", "namespace": "ns"}, "spec": spec})
}

fn applied(live: Option<&Value>, spec: Value, manager: &str) -> Value {
    apply(live, &object(spec), manager, false, "", &SCHEMA, at(0)).expect("applies")
}

fn created(spec: Value, manager: &str) -> Value {
    let mut new = object(spec);
    update(None, &mut new, manager, "", API_VERSION, &SCHEMA, at(0));
    new
}

fn updated(old: &Value, spec: Value, manager: &str, second: i64) -> Value {
    let mut new = old.clone();
    new["spec"] = spec;
    update(Some(old), &mut new, manager, "", API_VERSION, &SCHEMA, at(second));
    new
}

/// `manager operation: fields` of each entry, in order.
fn owners(object: &Value) -> Vec<String> {
    entry::decode(managed_fields_of(object))
        .expect("valid")
        .iter()
        .map(|entry| {
            format!(
                "{} {:?}: {}",
                entry.manager,
                entry.operation,
                entry.fields.paths().join(" ")
            )
        })
        .collect()
}

fn refused(result: Result<Value, ApplyError>) -> String {
    result.expect_err("refused").to_string()
}

#[test]
fn creation_gives_all_fields_to_the_creator() {
    let live = created(
        json!({"replicas": 1, "ports": [{"port": 80}], "set": ["x"], "plain": ["y"]}),
        "kubectl",
    );
    assert_eq!(
        live["metadata"]["managedFields"],
        json!([{
            "apiVersion": API_VERSION,
            "fieldsType": "FieldsV1",
            "fieldsV1": {"f:spec": {
                ".": {},
                "f:plain": {},
                "f:ports": {".": {}, "k:{\"port\":80,\"protocol\":\"TCP\"}": {".": {}, "f:port": {}}},
                "f:replicas": {},
                "f:set": {".": {}, "v:\"x\"": {}},
            }},
            "manager": "kubectl",
            "operation": "Update",
            "time": "2023-11-14T22:13:20Z",
        }])
    );
}

#[test]
fn a_built_in_kind_has_structures_that_nobody_owns() {
    let schema = Schema::builtin("v1", "Namespace").expect("known");
    let mut new = json!({"apiVersion": "v1", "kind": "Namespace",
        "metadata": {"name": "n", "uid": "u", "labels": {"a": "b"}}, "spec": {"finalizers": ["kubernetes"]}});
    update(None, &mut new, "m", "", "v1", &schema, at(0));
    assert_eq!(
        owners(&new),
        ["m Update: .metadata.labels .metadata.labels.a .spec.finalizers"]
    );
}

#[test]
fn an_update_moves_what_it_changes() {
    let live = created(
        json!({"replicas": 1, "color": "red", "nested": {"a": "1", "b": "2"}}),
        "one",
    );
    let live = updated(&live, json!({"replicas": 2, "nested": {"a": "1"}}), "two", 5);
    assert_eq!(
        owners(&live),
        [
            "one Update: .spec .spec.nested .spec.nested.a",
            "two Update: .spec.replicas"
        ]
    );
    let again = updated(&live, live["spec"].clone(), "three", 9);
    assert_eq!(
        again, live,
        "a write that changes nothing changes no ownership and no time"
    );
}

#[test]
fn entries_that_own_nothing_vanish() {
    let live = applied(None, json!({"replicas": 1}), "one");
    let live = updated(&live, json!({"replicas": 2}), "two", 5);
    assert_eq!(owners(&live), ["two Update: .spec.replicas"]);
}

#[test]
fn an_empty_list_gives_ownership_up_until_the_next_apply() {
    let live = created(json!({"replicas": 1}), "one");
    for reset in [json!([]), json!([{}])] {
        let mut new = live.clone();
        new["metadata"]["managedFields"] = reset;
        update(Some(&live), &mut new, "two", "", API_VERSION, &SCHEMA, at(1));
        assert_eq!(new["metadata"].get("managedFields"), None);
        let later = updated(&new, json!({"replicas": 2}), "two", 2);
        assert_eq!(later["metadata"].get("managedFields"), None);
        let message = refused(apply(
            Some(&later),
            &object(json!({"replicas": 3})),
            "m",
            false,
            "",
            &SCHEMA,
            at(3),
        ));
        assert_eq!(
            message,
            "Apply failed with 1 conflict: conflict with \"before-first-apply\" using example.com/v1: .spec.replicas"
        );
        let mine = applied(Some(&later), json!({"replicas": 2}), "m");
        assert_eq!(
            owners(&mine),
            [
                "m Apply: .spec.replicas",
                "before-first-apply Update: .spec .spec.replicas"
            ]
        );
    }
}

#[test]
fn a_client_that_forgets_managed_fields_does_not_lose_them() {
    let live = created(json!({"replicas": 1}), "one");
    for sent in [json!(null), json!([{"manager": "x", "operation": "Hop"}])] {
        let mut new = live.clone();
        new["metadata"]["managedFields"] = sent;
        update(Some(&live), &mut new, "two", "", API_VERSION, &SCHEMA, at(1));
        assert_eq!(new, live);
    }
}

#[test]
fn an_apply_owns_what_it_lists_and_nothing_more() {
    let live = applied(
        None,
        json!({"replicas": 1, "ports": [{"port": 80, "name": "web"}]}),
        "one",
    );
    assert_eq!(
        owners(&live),
        ["one Apply: .spec.replicas .spec.ports[port=80,protocol=\"TCP\"] \
          .spec.ports[port=80,protocol=\"TCP\"].name .spec.ports[port=80,protocol=\"TCP\"].port"]
    );
    let live = applied(Some(&live), json!({"color": "red", "ports": [{"port": 443}]}), "two");
    assert_eq!(
        live["spec"],
        json!({"replicas": 1, "color": "red", "ports": [{"port": 80, "name": "web"}, {"port": 443}]})
    );
}

#[test]
fn what_an_applier_no_longer_lists_goes_unless_others_own_it() {
    let live = applied(
        None,
        json!({"replicas": 1, "color": "red", "nested": {"a": "1"}, "set": ["x", "y"]}),
        "one",
    );
    let live = applied(Some(&live), json!({"color": "red", "set": ["y"]}), "two");
    let live = applied(Some(&live), json!({"replicas": 1}), "one");
    assert_eq!(live["spec"], json!({"replicas": 1, "color": "red", "set": ["y"]}));
    let live = applied(Some(&live), json!({"set": ["y"]}), "two");
    assert_eq!(live["spec"], json!({"replicas": 1, "set": ["y"]}));
    let live = applied(Some(&live), json!({}), "two");
    assert_eq!(live["spec"], json!({"replicas": 1}));
}

#[test]
fn fields_of_updaters_survive_an_applier_that_leaves() {
    let live = applied(None, json!({"nested": {"a": "1"}}), "one");
    let live = updated(&live, json!({"nested": {"a": "1", "b": "2"}}), "two", 1);
    let live = applied(Some(&live), json!({}), "one");
    assert_eq!(live["spec"], json!({"nested": {"b": "2"}}));
}

#[test]
fn conflicts_are_listed_by_manager_and_field() {
    let live = created(json!({"replicas": 1, "color": "red"}), "kubectl");
    assert_eq!(
        refused(apply(
            Some(&live),
            &object(json!({"replicas": 2})),
            "m",
            false,
            "",
            &SCHEMA,
            at(1)
        )),
        "Apply failed with 1 conflict: conflict with \"kubectl\" using example.com/v1: .spec.replicas"
    );
    let live = applied(Some(&live), json!({"color": "red", "atomic": {"a": "b"}}), "argo");
    assert_eq!(
        refused(apply(
            Some(&live),
            &object(json!({"replicas": 2, "color": "blue", "atomic": {"c": "d"}})),
            "m",
            false,
            "",
            &SCHEMA,
            at(1)
        )),
        "Apply failed with 4 conflicts: conflicts with \"argo\":\n- .spec.atomic\n- .spec.color\nconflicts with \
         \"kubectl\" using example.com/v1:\n- .spec.color\n- .spec.replicas"
    );
    let forced = apply(
        Some(&live),
        &object(json!({"color": "blue"})),
        "m",
        true,
        "",
        &SCHEMA,
        at(9),
    )
    .expect("forced");
    assert_eq!(
        owners(&forced),
        [
            "argo Apply: .spec.atomic",
            "m Apply: .spec.color",
            "kubectl Update: .spec .spec.replicas"
        ]
    );
}

#[test]
fn equal_values_are_shared() {
    let live = applied(None, json!({"replicas": 1}), "one");
    let shared = applied(Some(&live), json!({"replicas": 1}), "two");
    assert_eq!(
        owners(&shared),
        ["two Apply: .spec.replicas", "one Apply: .spec.replicas"]
    );
    assert_eq!(
        refused(apply(
            Some(&shared),
            &object(json!({"replicas": 2})),
            "one",
            false,
            "",
            &SCHEMA,
            at(1)
        )),
        "Apply failed with 1 conflict: conflict with \"two\": .spec.replicas"
    );
}

#[test]
fn subresources_have_owners_of_their_own() {
    let live = created(json!({"replicas": 1}), "one");
    let mut new = live.clone();
    new["status"] = json!({"phase": "Up"});
    update(Some(&live), &mut new, "one", "status", API_VERSION, &SCHEMA, at(5));
    assert_eq!(
        owners(&new),
        ["one Update: .spec .spec.replicas", "one Update: .status .status.phase"]
    );
    let mut status = object(json!({"replicas": 7}));
    status["status"] = json!({"phase": "Down"});
    assert_eq!(
        refused(apply(Some(&new), &status, "m", false, "status", &SCHEMA, at(6))),
        "Apply failed with 1 conflict: conflict with \"one\" with subresource \"status\" using example.com/v1: \
         .status.phase"
    );
    let forced = apply(Some(&new), &status, "m", true, "status", &SCHEMA, at(6)).expect("forced");
    assert_eq!(forced["spec"], json!({"replicas": 1}));
    assert_eq!(forced["status"], json!({"phase": "Down"}));
}

#[test]
fn applied_objects_must_fit_the_schema() {
    let mut with_managed = object(json!({}));
    with_managed["metadata"]["managedFields"] = json!([]);
    assert_eq!(
        apply(None, &with_managed, "m", false, "", &SCHEMA, at(0)),
        Err(ApplyError::Refused {
            code: 400,
            message: "metadata.managedFields must be nil".to_owned()
        })
    );
    for (spec, error) in [
        (json!({"nonsense": 1}), ".spec.nonsense: field not declared in schema"),
        (
            json!({"set": ["a", "a"]}),
            ".spec.set: duplicate entries for key [=\"a\"]",
        ),
        (
            json!({"ports": [{"port": 1}, {"port": 1, "protocol": "TCP"}], "x": 1}),
            "errors:\n  .spec.ports: duplicate entries for key [port=1,protocol=\"TCP\"]\n  .spec.x: field not \
             declared in schema",
        ),
    ] {
        assert_eq!(
            apply(None, &object(spec), "m", false, "", &SCHEMA, at(0)),
            Err(ApplyError::Refused {
                code: 500,
                message: format!("failed to create typed patch object (ns/n; example.com/v1, Kind=K): {error}"),
            })
        );
    }
}

#[test]
fn values_of_wrong_types_are_named_as_go_prints_them() {
    for (spec, error) in [
        (json!(1), ".spec: expected map, got &{1}"),
        (json!({"set": {"a": 1}}), ".spec.set: expected list, got &{map[a:1]}"),
        (
            json!({"color": true}),
            ".spec.color: expected string, got &value.valueUnstructured{Value:true}",
        ),
        (
            json!({"replicas": "x"}),
            ".spec.replicas: expected numeric (int or float), got string",
        ),
    ] {
        assert_eq!(
            apply(None, &object(spec), "m", false, "", &SCHEMA, at(0)),
            Err(ApplyError::Refused {
                code: 500,
                message: format!("failed to create typed patch object (ns/n; example.com/v1, Kind=K): {error}"),
            })
        );
    }
}

#[test]
fn a_field_moves_from_its_owners_to_the_one_who_scales() {
    let mut live = apply(
        None,
        &object(json!({"replicas": 1, "color": "red"})),
        "one",
        false,
        "",
        &SCHEMA,
        at(0),
    )
    .unwrap();
    move_field(&mut live, &["spec", "replicas"], false, "two", "scale", API_VERSION);
    let entries = live["metadata"]["managedFields"].as_array().unwrap().clone();
    assert_eq!(entries.len(), 2);
    assert_eq!(entries[0]["fieldsV1"], json!({"f:spec": {"f:color": {}}}));
    assert_eq!(entries[1]["fieldsV1"], json!({"f:spec": {"f:replicas": {}}}));
    assert_eq!(entries[1]["subresource"], "scale");
    move_field(&mut live, &["spec", "replicas"], true, "two", "scale", API_VERSION);
    assert_eq!(live["metadata"]["managedFields"].as_array().unwrap().len(), 1);
}

#[test]
fn kubectl_takes_over_what_client_side_apply_set() {
    let last = object(json!({"replicas": 1, "color": "red"}));
    let mut live = last.clone();
    live["metadata"]["annotations"] = json!({LAST_APPLIED: last.to_string()});
    update(
        None,
        &mut live,
        "kubectl-client-side-apply",
        "",
        API_VERSION,
        &SCHEMA,
        at(0),
    );
    let config = object(json!({"replicas": 5, "color": "red"}));
    let taken = apply(Some(&live), &config, "kubectl", false, "", &SCHEMA, at(1)).expect("no conflict");
    assert_eq!(taken["spec"], json!({"replicas": 5, "color": "red"}));
    assert_eq!(
        taken["metadata"]["annotations"][LAST_APPLIED],
        json!(format!("{config}\n"))
    );
    assert!(owners(&taken).contains(&"kubectl Apply: .spec.color .spec.replicas".to_owned()));
    assert!(matches!(
        apply(Some(&live), &config, "other", false, "", &SCHEMA, at(1)),
        Err(ApplyError::Conflicts(_))
    ));
    // What somebody else changed since is a conflict for kubectl too.
    let touched = updated(&live, json!({"replicas": 2, "color": "red"}), "scaler", 2);
    assert_eq!(
        refused(apply(Some(&touched), &config, "kubectl", false, "", &SCHEMA, at(3))),
        "Apply failed with 1 conflict: conflict with \"scaler\" using example.com/v1: .spec.replicas"
    );
}

#[test]
fn the_number_of_updaters_is_bounded() {
    let mut live = created(json!({"replicas": 0}), "m0");
    for number in 1..30 {
        let ports: Vec<Value> = (1..=number).map(|port| json!({"port": port})).collect();
        live = updated(
            &live,
            json!({"replicas": 0, "ports": ports}),
            &format!("m{number}"),
            number,
        );
    }
    let owners = owners(&live);
    assert_eq!(owners.len(), 10, "{owners:?}");
    assert!(
        owners.iter().any(|owner| owner.starts_with("ancient-changes Update:")),
        "{owners:?}"
    );
}

#[test]
fn applied_lists_keep_their_order_and_their_place() {
    let ports =
        |numbers: &[i64]| json!({"ports": numbers.iter().map(|port| json!({"port": port})).collect::<Vec<_>>()});
    let numbers = |object: &Value| -> Vec<i64> {
        object["spec"]["ports"]
            .as_array()
            .expect("list")
            .iter()
            .map(|port| port["port"].as_i64().expect("port"))
            .collect()
    };
    let live = created(ports(&[1, 2, 3, 4]), "one");
    assert_eq!(numbers(&applied(Some(&live), ports(&[3, 1]), "two")), [2, 3, 4, 1]);
    assert_eq!(numbers(&applied(Some(&live), ports(&[9, 2]), "two")), [1, 9, 2, 3, 4]);
}

/// Without what is allowed to differ: times (only whether there is one), and whether nothing is a null (as the real
/// server leaves it) or an empty list or map.
fn comparable(mut object: Value) -> Value {
    fn drop_empty(value: &mut Value) -> bool {
        match value {
            Value::Object(map) => {
                map.retain(|_, child| !drop_empty(child));
                map.is_empty()
            }
            Value::Array(items) => items.is_empty(),
            other => other.is_null(),
        }
    }
    let mut entries = object["metadata"]["managedFields"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    for entry in &mut entries {
        let timed = entry.get("time").is_some();
        entry["time"] = json!(timed);
    }
    entries.sort_by_key(ToString::to_string);
    drop_managed_fields(&mut object);
    object["metadata"]["uid"] = json!("u");
    drop_empty(&mut object);
    object["metadata"]["managedFields"] = json!(entries);
    object
}

/// What the real field manager (Kubernetes 1.34) made of random applies and updates, each with the object it started
/// from.
#[test]
fn recorded_answers_of_the_real_server_are_given_again() {
    let mut schema = SCHEMA_TEXT.clone();
    schema["properties"]["spec"]["properties"]["map"] = json!({"type": "object", "additionalProperties": {
        "type": "object", "properties": {"a": {"type": "string"}, "b": {"type": "string"}}}});
    let schema = Schema::compile(&schema).expect("structural");
    let mut compared = 0;
    for line in include_str!("recorded.jsonl").lines() {
        let record: Value = serde_json::from_str(line).expect("JSON");
        let live = record.get("live");
        if live.is_some_and(|live| live.to_string().contains("null")) {
            // The real server would not have stored this.
            continue;
        }
        let manager = text(&record, "manager");
        let mut object = record["object"].clone();
        let result = if record["kind"] == "apply" {
            apply(live, &object, manager, record["force"] == true, "", &schema, at(0))
        } else {
            if let Some(live) = live {
                object["metadata"]["managedFields"] = live["metadata"]["managedFields"].clone();
            }
            update(live, &mut object, manager, "", API_VERSION, &schema, at(0));
            Ok(object)
        };
        match (result, record.get("error")) {
            (Ok(object), None) => {
                assert_eq!(comparable(object), comparable(record["result"].clone()), "{line}");
            }
            (Err(error), Some(expected)) => assert_eq!(error.to_string(), expected.as_str().expect("text"), "{line}"),
            (result, _) => panic!("{result:?} for {line}"),
        }
        compared += 1;
    }
    assert!(compared > 150, "{compared}");
}

fn any_spec() -> impl Strategy<Value = Value> {
    (
        proptest::option::of(0..3_i64),
        proptest::option::of("[ab]"),
        proptest::option::of(proptest::collection::btree_set("[abc]", 0..3)),
        proptest::option::of(proptest::collection::btree_map(
            1..4_i64,
            proptest::option::of("[ab]"),
            0..3,
        )),
        proptest::option::of((proptest::option::of("[ab]"), proptest::option::of("[ab]"))),
        proptest::option::of(proptest::collection::vec("[ab]", 0..3)),
    )
        .prop_map(|(replicas, color, set, ports, nested, plain)| {
            let mut spec = Map::new();
            spec.extend(replicas.map(|value| ("replicas".to_owned(), json!(value))));
            spec.extend(color.map(|value| ("color".to_owned(), json!(value))));
            spec.extend(set.map(|value| ("set".to_owned(), json!(value))));
            spec.extend(plain.map(|value| ("plain".to_owned(), json!(value))));
            spec.extend(ports.map(|ports| {
                let ports: Vec<Value> = ports
                    .into_iter()
                    .map(|(port, name)| match name {
                        Some(name) => json!({"port": port, "name": name}),
                        None => json!({"port": port}),
                    })
                    .collect();
                ("ports".to_owned(), json!(ports))
            }));
            spec.extend(nested.map(|(a, b)| {
                let mut nested = Map::new();
                nested.extend(a.map(|value| ("a".to_owned(), json!(value))));
                nested.extend(b.map(|value| ("b".to_owned(), json!(value))));
                ("nested".to_owned(), Value::Object(nested))
            }));
            Value::Object(spec)
        })
}

fn any_set() -> impl Strategy<Value = FieldSet> {
    any_spec().prop_map(|spec| Typed { schema: &SCHEMA }.field_set(Some(SCHEMA.root), &object(spec)))
}

proptest! {
    #[test]
    fn applying_the_same_again_changes_nothing(live in any_spec(), first in any_spec(), second in any_spec()) {
        let live = created(live, "creator");
        let config = object(first);
        let once = apply(Some(&live), &config, "m", true, "", &SCHEMA, at(1)).expect("forced");
        let twice = apply(Some(&once), &config, "m", false, "", &SCHEMA, at(2)).expect("own fields never conflict");
        prop_assert_eq!(&once, &twice);
        // And what was applied is there.
        let set = Typed { schema: &SCHEMA }.field_set(Some(SCHEMA.root), &config);
        // All that is there, empty lists too, which are no fields for an applier.
        let present = Typed { schema: &SCHEMA }.compare(Some(SCHEMA.root), Some(&json!({})), Some(&once)).added;
        prop_assert!(set.is_subset(&present), "{:?} {:?}", set.paths(), present.paths());
        // Going on to another configuration never conflicts with oneself either.
        let mut alone = once.clone();
        alone["metadata"]["managedFields"] = json!([]);
        let next = apply(Some(&twice), &object(second), "m", true, "", &SCHEMA, at(3));
        prop_assert!(next.is_ok());
    }

    #[test]
    fn an_applier_alone_gets_exactly_what_it_lists(first in any_spec(), second in any_spec()) {
        let once = apply(None, &object(first), "m", false, "", &SCHEMA, at(1)).expect("applies");
        let twice = apply(Some(&once), &object(second.clone()), "m", false, "", &SCHEMA, at(2)).expect("applies");
        let typed = Typed { schema: &SCHEMA };
        let mut twice = twice;
        drop_managed_fields(&mut twice);
        let difference = typed.compare(Some(SCHEMA.root), Some(&object(second)), Some(&twice));
        // Nothing of the first configuration is left; empty lists and maps may come or go, since nobody owns them.
        let structures = [".spec", ".spec.nested", ".spec.set", ".spec.ports"];
        for set in [&difference.removed, &difference.modified, &difference.added] {
            let paths = set.paths();
            prop_assert!(paths.iter().all(|path| structures.contains(&path.as_str())), "{:?} {}", paths, twice);
        }
    }

    #[test]
    fn appliers_of_different_fields_never_conflict(replicas in 0..9_i64, color in "[a-z]", port in 1..9_i64, names in proptest::collection::vec("[ab]", 1..3)) {
        let one = applied(None, json!({"replicas": replicas, "ports": [{"port": port}]}), "one");
        let two = apply(Some(&one), &object(json!({"color": color, "ports": [{"port": port + 100}], "plain": names})), "two", false, "", &SCHEMA, at(1));
        prop_assert!(two.is_ok());
        let again = apply(two.as_ref().ok(), &object(json!({"replicas": replicas + 1, "ports": [{"port": port}]})), "one", false, "", &SCHEMA, at(2));
        prop_assert!(again.is_ok());
    }

    #[test]
    fn sets_obey_their_laws(a in any_set(), b in any_set(), c in any_set()) {
        prop_assert_eq!(a.clone().union(&b), b.clone().union(&a));
        prop_assert_eq!(a.clone().union(&b).union(&c), a.clone().union(&b.clone().union(&c)));
        prop_assert_eq!(a.intersection(&b), b.intersection(&a));
        prop_assert_eq!(a.clone().union(&a), a.clone());
        prop_assert!(a.clone().difference(&a).is_empty());
        prop_assert_eq!(a.clone().difference(&b).union(&a.intersection(&b)), a.clone());
        prop_assert!(a.clone().difference(&b).intersection(&b).is_empty());
        prop_assert!(a.is_subset(&a.clone().union(&b)));
        prop_assert_eq!(FieldSet::decode(&a.encode()), Some(a));
    }

    #[test]
    fn every_change_has_an_owner(old in any_spec(), new in any_spec()) {
        let old = created(old, "one");
        let new = updated(&old, new, "two", 1);
        let typed = Typed { schema: &SCHEMA };
        let owned = entry::decode(managed_fields_of(&new)).expect("valid").iter()
            .fold(FieldSet::default(), |owned, entry| owned.union(&entry.fields));
        let mut present = typed.field_set(Some(SCHEMA.root), &new);
        strip(&mut present);
        present.remove(&["f:metadata", "f:managedFields"]);
        prop_assert!(present.is_subset(&owned), "{:?} {:?}", present.paths(), owned.paths());
    }
}
