//! Tests of schemas: the real server's wordings, row by row.

use super::*;
use proptest::prelude::*;
use rstest::rstest;
use std::fmt::Write as _;

/// A CRD's schema whose `spec` has these properties.
fn with_spec(properties: Value) -> Schema {
    compiled(json!({"type": "object", "properties": {"spec": {"type": "object", "properties": properties}}}))
}

fn compiled(schema: Value) -> Schema {
    Schema::compile(&schema).unwrap_or_else(|causes| panic!("{}", aggregate(&causes)))
}

fn texts(causes: &[Cause]) -> Vec<String> {
    causes.iter().map(|cause| format!("{} {cause}", cause.reason)).collect()
}

#[rstest]
#[case(json!({"type": "integer", "minimum": 0}), json!(-1),
    "FieldValueInvalid spec.x: Invalid value: -1: spec.x in body should be greater than or equal to 0")]
#[case(json!({"type": "integer", "minimum": 0, "exclusiveMinimum": true}), json!(0),
    "FieldValueInvalid spec.x: Invalid value: 0: spec.x in body should be greater than 0")]
#[case(json!({"type": "number", "maximum": 1.5}), json!(2.25),
    "FieldValueInvalid spec.x: Invalid value: 2.25: spec.x in body should be less than or equal to 1.5")]
#[case(json!({"type": "integer", "maximum": 3, "exclusiveMaximum": true}), json!(3),
    "FieldValueInvalid spec.x: Invalid value: 3: spec.x in body should be less than 3")]
#[case(json!({"type": "integer", "multipleOf": 5}), json!(7),
    "FieldValueInvalid spec.x: Invalid value: 7: spec.x in body should be a multiple of 5")]
#[case(json!({"type": "integer"}), json!("a"),
    "FieldValueTypeInvalid spec.x: Invalid value: \"string\": spec.x in body must be of type integer: \"string\"")]
#[case(json!({"type": "string"}), json!(null),
    "FieldValueTypeInvalid spec.x: Invalid value: \"null\": spec.x in body must be of type string: \"null\"")]
#[case(json!({"x-kubernetes-int-or-string": true}), json!(true),
    "FieldValueTypeInvalid spec.x: Invalid value: \"boolean\": spec.x in body must be of type integer,string: \"boolean\"")]
#[case(json!({"type": "string", "maxLength": 2}), json!("abc"),
    "FieldValueTooLong spec.x: Too long: may not be more than 2 bytes")]
#[case(json!({"type": "string", "minLength": 2}), json!("a"),
    "FieldValueInvalid spec.x: Invalid value: \"a\": spec.x in body should be at least 2 chars long")]
#[case(json!({"type": "string", "pattern": "^[a-z]+$"}), json!("A"),
    "FieldValueInvalid spec.x: Invalid value: \"A\": spec.x in body should match '^[a-z]+$'")]
#[case(json!({"type": "string", "enum": ["a", "b"]}), json!("c"),
    "FieldValueNotSupported spec.x: Unsupported value: \"c\": supported values: \"a\", \"b\"")]
#[case(json!({"type": "integer", "enum": [1, 2]}), json!(3),
    "FieldValueNotSupported spec.x: Unsupported value: 3: supported values: \"1\", \"2\"")]
#[case(json!({"type": "string", "format": "date-time"}), json!("yesterday"),
    "FieldValueTypeInvalid spec.x: Invalid value: \"yesterday\": spec.x in body must be of type date-time: \"yesterday\"")]
#[case(json!({"type": "array", "items": {"type": "string"}, "maxItems": 1}), json!(["a", "b"]),
    "FieldValueTooMany spec.x: Too many: 2: must have at most 1 item")]
#[case(json!({"type": "array", "items": {"type": "string"}, "minItems": 1}), json!([]),
    "FieldValueInvalid spec.x: Invalid value: 0: spec.x in body should have at least 1 items")]
#[case(json!({"type": "array", "items": {"type": "string"}}), json!(["a", 1]),
    "FieldValueTypeInvalid spec.x[1]: Invalid value: \"integer\": spec.x[1] in body must be of type string: \"integer\"")]
#[case(json!({"type": "object", "additionalProperties": {"type": "string"}}), json!({"k": 1}),
    "FieldValueTypeInvalid spec.x.k: Invalid value: \"integer\": spec.x.k in body must be of type string: \"integer\"")]
#[case(json!({"type": "object", "additionalProperties": {"type": "string"}, "minProperties": 1}), json!({}),
    "FieldValueInvalid spec.x: Invalid value: 0: spec.x in body should have at least 1 properties")]
#[case(json!({"type": "object", "properties": {"y": {"type": "string"}}, "required": ["y"]}), json!({}),
    "FieldValueRequired spec.x.y: Required value")]
#[case(json!({"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}}), json!(["a", "b", "a", "a"]),
    "FieldValueDuplicate spec.x[2]: Duplicate value: \"a\"")]
#[case(json!({"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"],
        "items": {"type": "object", "required": ["name"], "properties": {"name": {"type": "string"}}}}),
    json!([{"name": "a"}, {"name": "a"}]),
    "FieldValueDuplicate spec.x[1]: Duplicate value: {\"name\":\"a\"}")]
#[case(json!({"type": "string", "not": {"enum": ["a"]}}), json!("a"),
    "FieldValueInvalid <nil>: Invalid value: \"\": \"spec.x\" must not validate the schema (not)")]
#[case(json!({"type": "integer", "x-kubernetes-validations": [{"rule": "self > 3"}]}), json!(2),
    "FieldValueInvalid spec.x: Invalid value: \"integer\": failed rule: self > 3")]
#[case(json!({"type": "integer", "x-kubernetes-validations": [{"rule": "self > 3", "message": " more "}]}), json!(2),
    "FieldValueInvalid spec.x: Invalid value: \"integer\": more")]
#[case(json!({"type": "integer", "x-kubernetes-validations": [
        {"rule": "self > 3", "messageExpression": "self == 2 ? 'not two' : 'none'", "reason": "FieldValueForbidden"}]}), json!(2),
    "FieldValueForbidden spec.x: Forbidden: not two")]
#[case(json!({"type": "object", "properties": {"y": {"type": "integer"}}, "x-kubernetes-validations": [
        {"rule": "self.y > 3", "message": "m", "fieldPath": ".y"}]}), json!({"y": 1}),
    "FieldValueInvalid spec.x.y: Invalid value: \"object\": m")]
#[case(json!({"type": "object", "properties": {"y": {"type": "integer"}}, "x-kubernetes-validations": [
        {"rule": "self.y > 3"}]}), json!({}),
    "FieldValueInvalid spec.x: Invalid value: \"object\": no such key: y evaluating rule: self.y > 3")]
fn invalid_values_are_refused_in_the_real_words(#[case] schema: Value, #[case] value: Value, #[case] expected: &str) {
    let schema = with_spec(json!({"x": schema}));
    let causes = schema.validate(&json!({"spec": {"x": value}}), None);
    assert_eq!(texts(&causes), [expected]);
}

#[rstest]
#[case(json!({"type": "integer"}), json!(1.0))]
#[case(json!({"type": "number"}), json!(1))]
#[case(json!({"type": "string", "nullable": true}), json!(null))]
#[case(json!({"x-kubernetes-int-or-string": true}), json!("50%"))]
#[case(json!({"x-kubernetes-preserve-unknown-fields": true}), json!([1, {"a": null}]))]
#[case(json!({"type": "integer", "format": "int32"}), json!(7))]
#[case(json!({"type": "string", "format": "unheard-of"}), json!("x"))]
#[case(json!({"type": "string", "format": "date-time"}), json!("2025-01-02T03:04:05.5+01:00"))]
#[case(json!({"type": "string", "format": "duration", "x-kubernetes-validations": [
    {"rule": "self > duration('1m')"}]}), json!("1h"))]
#[case(json!({"type": "object", "properties": {"a-b": {"type": "integer"}, "namespace": {"type": "integer"}},
    "x-kubernetes-validations": [{"rule": "self.a__dash__b == self.__namespace__"}]}), json!({"a-b": 1, "namespace": 1}))]
#[case(json!({"type": "array", "items": {"type": "object", "properties": {"n": {"type": "integer"}}},
    "x-kubernetes-validations": [{"rule": "self.all(item, has(item.n) && item.n > 0)"}]}), json!([{"n": 1}]))]
fn valid_values_pass(#[case] schema: Value, #[case] value: Value) {
    let schema = with_spec(json!({"x": schema}));
    assert_eq!(texts(&schema.validate(&json!({"spec": {"x": value}}), None)), [""; 0]);
}

#[test]
fn junctors_report_the_best_branch() {
    let branch = |name: &str| json!({"required": [name]});
    let object = json!({"type": "object", "properties": {"a": {"type": "string"}, "b": {"type": "string"}}});
    let with = |key: &str| {
        let mut schema = object.clone();
        schema[key] = json!([branch("a"), branch("b")]);
        with_spec(json!({"x": schema}))
    };
    let empty = json!({"spec": {"x": {}}});
    assert_eq!(
        texts(&with("anyOf").validate(&empty, None)),
        [
            "FieldValueInvalid <nil>: Invalid value: \"\": \"spec.x\" must validate at least one schema (anyOf)",
            "FieldValueRequired spec.x.a: Required value",
        ]
    );
    let both = json!({"spec": {"x": {"a": "1", "b": "2"}}});
    assert_eq!(
        texts(&with("oneOf").validate(&both, None)),
        [
            "FieldValueInvalid <nil>: Invalid value: \"\": \"spec.x\" must validate one and only one schema (oneOf). Found \
          2 valid alternatives"
        ]
    );
    assert_eq!(
        texts(&with("allOf").validate(&json!({"spec": {"x": {"a": "1"}}}), None)),
        [
            "FieldValueRequired spec.x.b: Required value",
            "FieldValueInvalid <nil>: Invalid value: \"\": \"spec.x\" must validate all the schemas (allOf)",
        ]
    );
}

#[test]
fn transition_rules_run_only_with_an_old_value() {
    let schema = with_spec(json!({
        "x": {"type": "integer", "x-kubernetes-validations": [{"rule": "self >= oldSelf", "message": "shrinks"}]},
        "list": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"],
            "items": {"type": "object", "required": ["name"],
                "properties": {"name": {"type": "string"}, "size": {"type": "integer"}},
                "x-kubernetes-validations": [{"rule": "self.size == oldSelf.size", "message": "fixed"}]}},
    }));
    let old = json!({"spec": {"x": 3, "list": [{"name": "a", "size": 1}, {"name": "b", "size": 2}]}});
    let new = json!({"spec": {"x": 2, "list": [{"name": "b", "size": 5}, {"name": "c", "size": 9}]}});
    assert_eq!(texts(&schema.validate(&new, None)), [""; 0]);
    assert_eq!(
        texts(&schema.validate(&new, Some(&old))),
        [
            "FieldValueInvalid spec.list[0]: Invalid value: \"object\": fixed",
            "FieldValueInvalid spec.x: Invalid value: \"integer\": shrinks",
        ]
    );
}

#[test]
fn an_optional_old_self_runs_on_create_too() {
    let schema = with_spec(json!({"x": {"type": "integer", "x-kubernetes-validations": [{
        "rule": "oldSelf.hasValue() ? self > oldSelf.value() : self == 1", "optionalOldSelf": true, "message": "counts",
    }]}}));
    let at = |x: i64| json!({"spec": {"x": x}});
    assert_eq!(schema.validate(&at(1), None), []);
    assert_eq!(schema.validate(&at(2), None).len(), 1);
    assert_eq!(schema.validate(&at(2), Some(&at(1))), []);
    assert_eq!(schema.validate(&at(1), Some(&at(2))).len(), 1);
}

#[test]
fn what_was_invalid_and_has_not_changed_is_let_through() {
    let schema = with_spec(json!({
        "x": {"type": "integer", "maximum": 3, "x-kubernetes-validations": [{"rule": "self < 3"}]},
        "y": {"type": "string"},
    }));
    let old = json!({"spec": {"x": 9, "y": "a"}});
    assert_eq!(schema.validate(&json!({"spec": {"x": 9, "y": "b"}}), Some(&old)), []);
    assert_eq!(
        schema.validate(&json!({"spec": {"x": 8, "y": "a"}}), Some(&old)).len(),
        2
    );
}

#[test]
fn rules_wait_until_the_rest_is_valid() {
    let schema = with_spec(json!({
        "x": {"type": "integer", "x-kubernetes-validations": [{"rule": "self > 3"}]},
        "y": {"type": "string"},
    }));
    assert_eq!(
        texts(&schema.validate(&json!({"spec": {"x": 1, "y": 1}}), None)),
        [
            "FieldValueTypeInvalid spec.y: Invalid value: \"integer\": spec.y in body must be of type string: \
             \"integer\"",
            "FieldValueInvalid <nil>: Invalid value: null: some validation rules were not checked because the object \
             was invalid; correct the existing errors to complete validation",
        ]
    );
}

#[test]
fn a_status_write_validates_the_status_alone() {
    let schema = compiled(json!({"type": "object", "properties": {
        "spec": {"type": "object", "properties": {"x": {"type": "integer"}}},
        "status": {"type": "object", "properties": {"phase": {"type": "string"}}},
    }}));
    let causes = schema.validate_status(
        Vec::new(),
        &json!({"spec": {"x": "no"}, "status": {"phase": 1}}),
        &json!({}),
    );
    assert_eq!(
        texts(&causes),
        [
            "FieldValueTypeInvalid status.phase: Invalid value: \"integer\": phase in body must be of type string: \
          \"integer\""
        ]
    );
}

#[rstest]
#[case(json!({}), "type: Required value: must not be empty at the root")]
#[case(json!({"type": "string"}), "type: Invalid value: \"string\": must be object at the root")]
#[case(json!({"type": "object", "properties": {"a": {}}}),
    "properties[a].type: Required value: must not be empty for specified object fields")]
#[case(json!({"type": "object", "properties": {"a": {"type": "array"}}}),
    "properties[a].items: Required value: must be specified")]
#[case(json!({"type": "object", "properties": {"a": {"type": "strin"}}}),
    "properties[a].type: Unsupported value: \"strin\": supported values: \"array\", \"boolean\", \"integer\", \
     \"number\", \"object\", \"string\"")]
#[case(json!({"type": "object", "properties": {"a": {"$ref": "#/x"}}}), "properties[a].$ref: Forbidden: $ref is not supported")]
#[case(json!({"type": "object", "properties": {"a": {"type": "array", "items": {"type": "string"}, "uniqueItems": true}}}),
    "properties[a].uniqueItems: Forbidden: uniqueItems cannot be set to true since the runtime complexity becomes quadratic")]
#[case(json!({"type": "object", "properties": {"a": {"type": "object", "properties": {"b": {"type": "string"}},
    "additionalProperties": {"type": "string"}}}}),
    "properties[a].additionalProperties: Forbidden: additionalProperties and properties are mutual exclusive")]
#[case(json!({"type": "object", "anyOf": [{"type": "object"}]}), "anyOf[0].type: Forbidden: must be empty to be structural")]
#[case(json!({"type": "object", "properties": {"a": {"type": "array", "x-kubernetes-list-type": "map",
    "items": {"type": "object"}}}}),
    "properties[a].x-kubernetes-list-map-keys: Required value: must not be empty if x-kubernetes-list-type is map")]
#[case(json!({"type": "object", "properties": {"a": {"type": "string", "x-kubernetes-validations": [{"rule": " "}]}}}),
    "properties[a].x-kubernetes-validations[0].rule: Required value: rule is not specified")]
#[case(json!({"type": "object", "properties": {"a": {"type": "integer", "default": "x"}}}),
    "properties[a].default: Invalid value: \"string\":  in body must be of type integer: \"string\"")]
fn schemas_that_are_not_structural_are_refused(#[case] schema: Value, #[case] expected: &str) {
    let causes = Schema::compile(&schema).expect_err("refused");
    assert!(causes.iter().any(|cause| cause.to_string() == expected), "{causes:#?}");
}

#[rstest]
#[case("self.replicas > ", "Syntax error")]
#[case("self.replicass > 1", "undefined field 'replicass'")]
#[case("other > 1", "undeclared reference to 'other' (in container '')")]
#[case("self.items.all(item, item.nam == 'x')", "undefined field 'nam'")]
fn rules_that_do_not_compile_refuse_the_schema(#[case] rule: &str, #[case] expected: &str) {
    let schema = json!({"type": "object", "properties": {"spec": {"type": "object",
        "properties": {
            "replicas": {"type": "integer"},
            "items": {"type": "array", "items": {"type": "object", "properties": {"name": {"type": "string"}}}},
        },
        "x-kubernetes-validations": [{"rule": rule}]}}});
    let causes = Schema::compile(&schema).expect_err("refused");
    let [cause] = causes.as_slice() else {
        panic!("{causes:?}")
    };
    assert_eq!(cause.field, "properties[spec].x-kubernetes-validations[0].rule");
    assert!(
        cause.message.contains("compilation failed: ERROR: <input>:1:"),
        "{}",
        cause.message
    );
    assert!(cause.message.contains(expected), "{}", cause.message);
}

#[test]
fn causes_are_put_under_the_callers_path() {
    let schema = json!({"type": "object", "properties": {"a": {"type": "array", "items": {"type": "integer",
        "x-kubernetes-validations": [{"rule": "self >= oldSelf"}]}}}});
    let causes = Schema::compile(&schema).expect_err("refused");
    assert_eq!(
        causes[0].clone().under("spec.validation.openAPIV3Schema").to_string(),
        "spec.validation.openAPIV3Schema.properties[a].items.x-kubernetes-validations[0].rule: Invalid value: \"self >= \
         oldSelf\": oldSelf cannot be used on the uncorrelatable portion of the schema within \
         spec.validation.openAPIV3Schema.properties[a]"
    );
    let root = Cause::required("", "");
    assert_eq!(root.clone().under("spec").field, "spec");
    assert_eq!(Cause::required("[0].a", "").under("spec").field, "spec[0].a");
    assert_eq!(aggregate(&[root.clone(), root.clone()]), "<nil>: Required value");
    assert_eq!(
        aggregate(&[root, Cause::required("a", "why")]),
        "[<nil>: Required value, a: Required value: why]"
    );
}

#[test]
fn rules_that_are_no_conditions_refuse_the_schema() {
    for rule in ["self + 1", "'a'", "size(string(self))", "[self]"] {
        let schema = json!({"type": "object", "properties": {"spec": {"type": "object", "properties": {
            "x": {"type": "integer", "x-kubernetes-validations": [{"rule": rule}]}}}}});
        let causes = Schema::compile(&schema).expect_err("refused");
        assert!(
            causes[0].message.ends_with(": cel expression must evaluate to a bool"),
            "{causes:?}"
        );
    }
}

#[test]
fn defaults_must_fit_their_own_schema() {
    let schema = |property: Value| {
        json!({"type": "object", "properties": {"spec": {"type": "object",
        "properties": {"x": property}}}})
    };
    let refused = |property: Value| texts(&Schema::compile(&schema(property)).expect_err("refused"));
    assert_eq!(
        refused(json!({"type": "object", "properties": {"a": {"type": "string"}}, "default": {"b": 1}})),
        [
            "FieldValueInvalid properties[spec].properties[x].default: Invalid value: {\"b\":1}: must not have unknown \
          fields"
        ]
    );
    assert_eq!(
        refused(json!({"type": "string", "enum": ["a"], "default": "b"})),
        [
            "FieldValueNotSupported properties[spec].properties[x].default: Unsupported value: \"b\": supported values: \
          \"a\""
        ]
    );
}

#[test]
fn formats_are_checked_as_the_real_server_checks_them() {
    for (format, good, bad) in [
        (
            "duration",
            &["1h30m", "-5s", "22 ns", "3 days", "1.5h"][..],
            &["", "h", "5 parsecs"][..],
        ),
        ("byte", &["YWJj"], &["", "***"]),
        ("uuid", &["123E4567-e89b-12d3-a456-426614174000"], &["123"]),
        ("uri", &["http://x/y?z", "/a/b", "mailto:x"], &["", "a b", "x/y"]),
        ("email", &["a@b.org", "A <a@b.org>"], &["a", "@b", "a@"]),
        (
            "cidr",
            &["10.0.0.0/8", "::/0"],
            &["10.0.0.0/33", "10.0.0.0", "10.0.0.0/+8"],
        ),
        ("ipv4", &["10.0.0.1"], &["10.0.0.256", "::1", "010.0.0.1"]),
        ("ipv6", &["::1", "::ffff:10.0.0.1"], &["10.0.0.1"]),
        ("mac", &["00:11:22:33:44:55", "0011.2233.4455"], &["00:11:22:33:44"]),
        ("hostname", &["example.com", "a"], &["-x", "a_b.com"]),
        ("date", &["2021-01-02"], &["2021-13-02", "20210102"]),
        ("isbn", &["0321751043", "978-0321751041"], &["0321751044"]),
        ("creditcard", &["4111 1111 1111 1111"], &["4111 1111 1111 1112"]),
        ("ssn", &["123-45-6789"], &["123-45-678"]),
        ("hexcolor", &["#fff", "A0B1C2"], &["#ffff"]),
        ("rgbcolor", &["rgb(1, 2,255)"], &["rgb(1,2,256)"]),
        ("bsonobjectid", &["507f1f77bcf86cd799439011"], &["507f"]),
    ] {
        let format = format::Format::named(format).expect("checked");
        for text in good {
            assert!(format.accepts(text), "{format:?} {text}");
        }
        for text in bad {
            assert!(!format.accepts(text), "{format:?} {text}");
        }
    }
    assert_eq!(format::Format::named("int32"), None);
}

#[test]
fn pruning_drops_and_names_what_is_unknown() {
    let schema = with_spec(json!({
        "known": {"type": "string"},
        "list": {"type": "array", "items": {"type": "object", "properties": {"a": {"type": "string"}}}},
        "open": {"type": "object", "x-kubernetes-preserve-unknown-fields": true,
            "properties": {"closed": {"type": "object", "properties": {"b": {"type": "string"}}}}},
        "map": {"type": "object", "additionalProperties": {"type": "object", "properties": {"c": {"type": "string"}}}},
        "embedded": {"type": "object", "x-kubernetes-embedded-resource": true, "properties": {"spec": {"type": "object"}}},
        "nothing": {"type": "string"},
    }));
    let mut object = json!({
        "apiVersion": "v1", "kind": "K", "metadata": {"name": "n", "nonsense": 1, "creationTimestamp": null},
        "extra": 1,
        "spec": {
            "known": "x", "unknown": {"deep": 1}, "nothing": null,
            "list": [{"a": "1"}, {"b": "2"}],
            "open": {"anything": {"goes": 1}, "closed": {"b": "1", "d": 1}},
            "map": {"k": {"c": "1", "d": 1}},
            "embedded": {"apiVersion": "v1", "kind": "K", "metadata": {"labels": {"a": "b"}}, "spec": {}, "more": 1},
        },
    });
    assert_eq!(
        schema.prune(&mut object),
        [
            "extra",
            "metadata.nonsense",
            "spec.embedded.more",
            "spec.list[1].b",
            "spec.map.k.d",
            "spec.open.closed.d",
            "spec.unknown",
        ]
    );
    assert_eq!(
        object,
        json!({
            "apiVersion": "v1", "kind": "K", "metadata": {"name": "n"},
            "spec": {
                "known": "x", "list": [{"a": "1"}, {}],
                "open": {"anything": {"goes": 1}, "closed": {"b": "1"}},
                "map": {"k": {"c": "1"}},
                "embedded": {"apiVersion": "v1", "kind": "K", "metadata": {"labels": {"a": "b"}}, "spec": {}},
            },
        })
    );
}

#[test]
fn defaults_reach_into_maps_and_lists() {
    let inner = json!({"type": "object", "properties": {"size": {"type": "integer", "default": 3}}});
    let schema = with_spec(json!({
        "own": {"type": "string", "default": "d"},
        "deep": {"type": "object", "default": {}, "properties": {"size": {"type": "integer", "default": 3}}},
        "list": {"type": "array", "items": inner},
        "map": {"type": "object", "additionalProperties": inner},
        "set": {"type": "string", "default": "d"},
        "nulled": {"type": "string", "default": "d"},
    }));
    let mut object = json!({"spec": {"list": [{}, {"size": 1}], "map": {"k": {}}, "set": "x", "nulled": null}});
    schema.default(&mut object);
    assert_eq!(
        object,
        json!({"spec": {"own": "d", "deep": {"size": 3}, "list": [{"size": 3}, {"size": 1}],
            "map": {"k": {"size": 3}}, "set": "x", "nulled": "d"}})
    );
    let mut without_spec = json!({"kind": "K"});
    schema.default(&mut without_spec);
    assert_eq!(without_spec, json!({"kind": "K"}));
}

#[test]
fn built_in_kinds_pass_through_the_same_machinery() {
    let secret = Schema::builtin("v1", "Secret").expect("known");
    let mut object = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "n", "creationTimestamp": null},
        "stringData": {"a": "b"}, "dat": {}});
    assert_eq!(secret.prune(&mut object), ["dat"]);
    assert_eq!(secret.validate(&object, None), []);
    let causes = secret.validate(&json!({"data": {"a": "***"}}), None);
    assert_eq!(
        texts(&causes),
        [
            "FieldValueTypeInvalid data.a: Invalid value: \"***\": data.a in body must be of type \
        byte: \"***\""
        ]
    );
    let pod = Schema::builtin("v1", "Pod").expect("known");
    let mut object = json!({"spec": {"containers": [{"name": "c", "imag": "x",
        "resources": {"limits": {"cpu": 1, "memory": "1Gi"}}}]}});
    assert_eq!(pod.prune(&mut object), ["spec.containers[0].imag"]);
    assert_eq!(pod.validate(&object, None), []);
    let definition = Schema::builtin("apiextensions.k8s.io/v1", "CustomResourceDefinition").expect("known");
    let mut object = json!({"spec": {"versions": [{"schema": {"openAPIV3Schema": {"properties": {"a": {"typ": "x",
        "default": {"any": 1}, "x-kubernetes-validations": [{"rule": "true", "rul": 1}]}}}}}]}});
    assert_eq!(
        definition.prune(&mut object),
        [
            "spec.versions[0].schema.openAPIV3Schema.properties.a.typ",
            "spec.versions[0].schema.openAPIV3Schema.properties.a.x-kubernetes-validations[0].rul",
        ]
    );
    assert!(Schema::builtin("v1", "Nonsense").is_none());
}

#[rstest]
#[case("", "unexpected end of JSON input")]
#[case("{", "unexpected end of JSON input")]
#[case("{a}", "invalid character 'a' looking for beginning of object key string")]
#[case("{\"a\" 1}", "invalid character '1' after object key")]
#[case("{\"a\":1 2}", "invalid character '2' after object key:value pair")]
#[case("[1 2]", "invalid character '2' after array element")]
#[case("{} x", "invalid character 'x' after top-level value")]
#[case("nul", "unexpected end of JSON input")]
#[case("nulL", "invalid character 'L' in literal null (expecting 'l')")]
#[case("01", "invalid character '1' after top-level value")]
#[case("1.x", "invalid character 'x' after decimal point in numeric literal")]
#[case("\"\n\"", "invalid character '\\n' in string literal")]
#[case("\"\\x\"", "invalid character 'x' in string escape code")]
#[case("kind: x", "invalid character 'k' looking for beginning of value")]
fn bad_json_is_refused_in_the_real_words(#[case] text: &str, #[case] expected: &str) {
    assert_eq!(
        decode_strict(text.as_bytes()).expect_err("refused").to_string(),
        expected
    );
}

#[test]
fn duplicates_are_found_and_the_last_counts() {
    let (value, findings) =
        decode_strict(br#"{"kind": "K", "spec": {"a": 1, "l": [{"b": 1, "b": 2}], "a": 2}, "kind": "L"}"#)
            .expect("JSON");
    assert_eq!(
        findings,
        [
            "duplicate field \"spec.l[0].b\"",
            "duplicate field \"spec.a\"",
            "duplicate field \"kind\""
        ]
    );
    assert_eq!(value, json!({"kind": "L", "spec": {"a": 2, "l": [{"b": 2}]}}));
    let (value, findings) = decode_strict_yaml(b"a: 1\nb:\n  c: [1, x]\na: 2\n").expect("YAML");
    assert_eq!(findings, ["line 4: key \"a\" already set in map"]);
    let (_, findings) = decode_strict_yaml(b"{\"a\": 1,\n\"a\": 2}").expect("YAML");
    assert_eq!(findings, ["line 2: key \"a\" already set in map"]);
    assert_eq!(value, json!({"a": 2, "b": {"c": [1, "x"]}}));
}

#[test]
fn numbers_and_escapes_are_read_as_the_real_server_does() {
    let (value, _) =
        decode_strict(r#"[1.0, 1e3, 1.5, -0, 9223372036854775808, "é😀\ud800!"]"#.as_bytes()).expect("JSON");
    assert_eq!(
        value,
        json!([1, 1000, 1.5, 0, 9_223_372_036_854_775_808.0, "é😀\u{fffd}!"])
    );
    assert_eq!(
        decode_strict("1e999".as_bytes()).expect_err("refused").to_string(),
        "json: cannot unmarshal number 1e999 into Go value of type float64"
    );
}

#[test]
fn nesting_is_bounded() {
    // On stacks of the usual size.
    const MAX_DEPTH: usize = 100;
    for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
        let text = open.repeat(10_000) + "1" + &close.repeat(10_000);
        assert_eq!(decode_strict(text.as_bytes()), Err(DecodeError::TooDeep));
        assert_eq!(decode_strict_yaml(text.as_bytes()), Err(DecodeError::TooDeep));
        let fits = open.repeat(MAX_DEPTH) + "1" + &close.repeat(MAX_DEPTH);
        let (value, _) = decode_strict(fits.as_bytes()).expect("fits");
        assert_eq!(decode_strict_yaml(fits.as_bytes()).expect("fits").0, value);
        let unquoted =
            |depth: usize| open.replace('"', "").replace(':', ": ").repeat(depth) + "x" + &close.repeat(depth);
        assert_eq!(
            decode_strict_yaml(unquoted(10_000).as_bytes()),
            Err(DecodeError::TooDeep)
        );
        assert!(decode_strict_yaml(unquoted(50).as_bytes()).is_ok());
        // What is accepted can be read by the usual reader too, even inside a list.
        assert!(serde_json::from_str::<Value>(&format!("[[{value}]]")).is_ok());
    }
}

#[test]
fn values_are_printed_as_go_prints_them() {
    for (value, expected) in [
        (json!("a\"b\u{1}"), r#""a\"b\x01""#),
        (json!(0.000_01), "1e-05"),
        (json!(1e21), "1e+21"),
        (json!(2.5), "2.5"),
        (json!({"a": "<b>"}), r#"{"a":"\u003cb\u003e"}"#),
        (json!(null), "null"),
    ] {
        assert_eq!(cause::go_value(&value), expected);
    }
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i32>().prop_map(Value::from),
        "[a-z]{0,3}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 40, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::btree_map("[abcx]|known|list|map|open", inner, 0..4)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

fn rich_schema() -> Schema {
    let leaf =
        json!({"type": "object", "properties": {"a": {"type": "string", "default": "d"}, "b": {"type": "integer"}}});
    compiled(json!({"type": "object", "properties": {
        "a": {"type": "string", "nullable": true},
        "known": leaf,
        "list": {"type": "array", "items": leaf},
        "map": {"type": "object", "additionalProperties": leaf, "default": {"x": {}}},
        "open": {"type": "object", "x-kubernetes-preserve-unknown-fields": true, "properties": {"known": leaf}},
    }}))
}

proptest! {
    #[test]
    fn pruning_and_defaulting_are_idempotent(mut object in any_json()) {
        let schema = rich_schema();
        schema.prune(&mut object);
        let pruned = object.clone();
        prop_assert_eq!(schema.prune(&mut object), Vec::<String>::new());
        prop_assert_eq!(&object, &pruned);
        schema.default(&mut object);
        let defaulted = object.clone();
        schema.default(&mut object);
        prop_assert_eq!(&object, &defaulted);
        prop_assert_eq!(schema.prune(&mut object), Vec::<String>::new());
        schema.validate(&object, Some(&pruned));
    }

    #[test]
    fn the_decoder_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200), text in "[\\[\\]{}:,\"\\\\a0-9eE.+ut-]{0,60}") {
        for input in [bytes.as_slice(), text.as_bytes()] {
            let ours = decode_strict(input);
            let _ = decode_strict_yaml(input);
            // What the common reader accepts, so do we, with the same value.
            if let Ok(theirs) = serde_json::from_slice::<Value>(input) {
                let again = decode_strict(theirs.to_string().as_bytes());
                prop_assert_eq!(ours.map(|(value, _)| value), again.map(|(value, _)| value));
            }
        }
    }

    #[test]
    fn decoding_reads_back_what_was_written(value in any_json()) {
        let (read, findings) = decode_strict(value.to_string().as_bytes()).expect("JSON");
        prop_assert_eq!(&read, &value);
        prop_assert_eq!(findings, Vec::<String>::new());
        let mut text = String::new();
        write!(text, "{value:#}").expect("text");
        prop_assert_eq!(decode_strict(text.as_bytes()).expect("JSON").0, value);
    }
}
