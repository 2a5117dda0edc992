//! What random requests are made of: words that mean something to the server, put together in senseless ways.

#![allow(clippy::unwrap_used, clippy::panic)] // helpers of tests are tests

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::{Map, Value, json};

/// A request, as a client might send it.
#[derive(Clone)]
pub struct Asked {
    pub method: String,
    pub uri: String,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl std::fmt::Debug for Asked {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            formatter,
            "{} {} {:?} {}",
            self.method,
            self.uri,
            self.headers,
            String::from_utf8_lossy(&self.body)
        )
    }
}

pub const MEDIA: &[&str] = &[
    "application/json",
    "application/yaml",
    "application/vnd.kubernetes.protobuf",
    "application/merge-patch+json",
    "application/json-patch+json",
    "application/strategic-merge-patch+json",
    "application/apply-patch+yaml",
    "text/plain",
    "",
    "application/json;charset=utf-8",
    ";;;",
];

const WORDS: &[&str] = &[
    "apiVersion",
    "kind",
    "metadata",
    "name",
    "namespace",
    "labels",
    "annotations",
    "finalizers",
    "ownerReferences",
    "managedFields",
    "uid",
    "resourceVersion",
    "generation",
    "generateName",
    "creationTimestamp",
    "deletionTimestamp",
    "spec",
    "status",
    "data",
    "binaryData",
    "immutable",
    "stringData",
    "type",
    "items",
    "properties",
    "containers",
    "image",
    "ports",
    "containerPort",
    "protocol",
    "env",
    "value",
    "conditions",
    "replicas",
    "template",
    "selector",
    "matchLabels",
    "matchExpressions",
    "$patch",
    "$retainKeys",
    "$setElementOrder/containers",
    "$deleteFromPrimitiveList/finalizers",
    "fieldsV1",
    "manager",
    "operation",
    "time",
    "f:spec",
    "k:{\"name\":\"a\"}",
    ".",
    "",
    "a",
    "a/b",
    "~1",
    "~0",
    "-",
    "0",
    "default",
    "ConfigMap",
    "v1",
    "merge",
    "replace",
    "delete",
    "x.y/z",
    "é",
];

const TEXTS: &[&str] = &[
    "",
    "a",
    "A",
    "-",
    "a-b",
    "a.b",
    "there",
    "default",
    "v1",
    "v2",
    "ConfigMap",
    "Pod",
    "Free",
    "apps/v1",
    "fuzz.example.com/v1",
    "delete",
    "replace",
    "merge",
    "2024-01-02T03:04:05Z",
    "yesterday",
    "1",
    "-1",
    "1e3",
    "10Mi",
    "0x10",
    "~",
    "null",
    "true",
    "aGVsbG8=",
    "=",
    "é",
    "\u{0}",
    "\u{feff}",
    "😀",
    "a/b",
    "a=b",
    "Always",
    "TCP",
    "11111111-2222-3333-4444-555555555555",
    "kubernetes.io/x",
    "*",
    "%",
    "../..",
    "{{",
    "\"",
    "\\",
    "\n",
];

fn text() -> BoxedStrategy<String> {
    prop_oneof![
        6 => select(TEXTS).prop_map(str::to_owned),
        1 => any::<String>(),
        1 => (1..300_usize).prop_map(|length| "x".repeat(length)),
    ]
    .boxed()
}

fn leaf() -> BoxedStrategy<Value> {
    prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        (-3..10_i64).prop_map(Value::from),
        Just(json!(u64::MAX)),
        Just(json!(1e308)),
        Just(json!(-0.5)),
        any::<f64>()
            .prop_filter("JSON has no others", |number| number.is_finite())
            .prop_map(|number| json!(number)),
        text().prop_map(Value::from),
        text().prop_map(Value::from),
    ]
    .boxed()
}

fn word() -> BoxedStrategy<String> {
    prop_oneof![9 => select(WORDS).prop_map(str::to_owned), 1 => text()].boxed()
}

fn object_of(value: impl Strategy<Value = Value> + 'static) -> BoxedStrategy<Value> {
    vec((word(), value), 0..5)
        .prop_map(|fields| Value::Object(fields.into_iter().collect::<Map<_, _>>()))
        .boxed()
}

/// Any JSON.
pub fn json() -> BoxedStrategy<Value> {
    leaf()
        .prop_recursive(5, 40, 5, |inner| {
            prop_oneof![
                vec(inner.clone(), 0..4).prop_map(Value::from),
                object_of(inner.clone()),
                object_of(inner)
            ]
        })
        .boxed()
}

/// A JSON object.
pub fn fields() -> BoxedStrategy<Value> {
    object_of(json())
}

fn pointer() -> BoxedStrategy<String> {
    vec(word(), 0..4)
        .prop_map(|words| words.iter().flat_map(|word| ["/", word.as_str()]).collect())
        .boxed()
}

/// A JSON patch, or nearly.
pub fn operations() -> BoxedStrategy<Value> {
    let names = select(&["add", "remove", "replace", "move", "copy", "test", "spoil"]);
    let operation = (names, pointer(), pointer(), json(), any::<bool>()).prop_map(|(op, path, from, value, whole)| {
        if whole {
            json!({ "op": op, "path": path, "from": from, "value": value })
        } else {
            json!({ "op": op, "path": path })
        }
    });
    vec(operation, 0..5).prop_map(Value::from).boxed()
}

/// A label or field selector, or nearly.
pub fn selector() -> BoxedStrategy<String> {
    let part = select(&[
        "a",
        "b.c/d",
        "metadata.name",
        "spec.x",
        "=",
        "==",
        "!=",
        "!",
        " in ",
        " notin ",
        "(",
        ")",
        ",",
        " ",
        "x",
        "1",
        "in",
        "notin",
        ">",
        "<",
        "\\",
        "\\,",
        "\\=",
        "é",
        "-",
        "\t",
        "a=b",
        "a in (b,c)",
        "!a",
        "a>5",
        "exists",
    ]);
    prop_oneof![
        5 => vec(part, 0..8).prop_map(|parts| parts.concat()),
        1 => any::<String>(),
    ]
    .boxed()
}

pub fn map(name: &str) -> Value {
    json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": name } })
}

pub fn kind_of(plural: &str) -> String {
    let mut letters = plural.trim_end_matches('s').chars();
    letters
        .next()
        .map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

/// A definition of a resource with this schema.
pub fn definition(plural: &str, schema: &Value) -> Value {
    json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": { "name": format!("{plural}.fuzz.example.com") },
        "spec": {
            "group": "fuzz.example.com",
            "scope": "Namespaced",
            "names": { "plural": plural, "kind": kind_of(plural) },
            "versions": [{
                "name": "v1",
                "served": true,
                "storage": true,
                "schema": { "openAPIV3Schema": schema },
            }],
        },
    })
}

/// The resource whose objects may hold anything.
pub fn free() -> Value {
    definition(
        "frees",
        &json!({ "type": "object", "x-kubernetes-preserve-unknown-fields": true }),
    )
}

/// A schema, or nearly.
pub fn schema() -> BoxedStrategy<Value> {
    let types = select(&["object", "array", "string", "integer", "number", "boolean", "null", ""]);
    let rules = select(&[
        "true",
        "self == oldSelf",
        "self.a == 1",
        "has(self.a)",
        "self.all(x, x > 0)",
        "size(self) < 5",
        "1",
        "self +",
        "self.matches('(')",
        "'a' in self",
        "[1,2].exists(x, x == self)",
        "1/0 == 1",
        "self.a.b.c == 'x'",
    ]);
    let leaf = (types.clone(), text(), any::<i64>(), rules).prop_map(|(kind, text, number, rule)| {
        let extras = json!({
            "pattern": text, "format": text, "minimum": number, "maximum": -number.max(-5), "minLength": number,
            "default": number, "enum": [text, number], "multipleOf": number, "nullable": number % 2 == 0,
            "x-kubernetes-validations": [{ "rule": rule, "message": text }],
            "x-kubernetes-int-or-string": true, "x-kubernetes-preserve-unknown-fields": true,
            "x-kubernetes-embedded-resource": true, "x-kubernetes-list-type": "set", "maxItems": number,
        });
        let mut schema = json!({ "type": kind });
        // Which extras there are follows from the number.
        for (at, (name, value)) in extras.as_object().unwrap().iter().enumerate() {
            if (number >> at) & 7 == 1 {
                schema[name] = value.clone();
            }
        }
        schema
    });
    let any_schema = leaf.prop_recursive(4, 20, 4, |inner| {
        let fields = vec((word(), inner.clone()), 0..4)
            .prop_map(|fields| Value::Object(fields.into_iter().collect::<Map<_, _>>()));
        prop_oneof![
            fields.prop_map(|fields| json!({ "type": "object", "properties": fields })),
            inner.clone().prop_map(|items| json!({ "type": "array", "items": items })),
            inner.clone().prop_map(|items| json!({
                "type": "array", "items": items, "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"],
            })),
            inner.clone().prop_map(|values| json!({ "type": "object", "additionalProperties": values })),
            vec(inner.clone(), 0..3).prop_map(|all| json!({ "type": "object", "anyOf": all.clone(), "not": all.first() })),
            inner,
        ]
    });
    let rooted = vec((word(), any_schema.clone()), 0..4).prop_map(|fields| {
        let fields: Map<String, Value> = fields.into_iter().collect();
        json!({ "type": "object", "properties": fields })
    });
    prop_oneof![6 => rooted, 1 => any_schema, 1 => json()].boxed()
}

/// An object of a built-in kind with a few things wrong or strange, and the path of its collection.
pub fn near_object() -> BoxedStrategy<(String, Value)> {
    let kinds = select(&[
        ("v1", "ConfigMap", "/api/v1/namespaces/default/configmaps"),
        ("v1", "Secret", "/api/v1/namespaces/default/secrets"),
        ("v1", "Pod", "/api/v1/namespaces/default/pods"),
        ("v1", "Event", "/api/v1/namespaces/default/events"),
        ("v1", "Node", "/api/v1/nodes"),
        (
            "coordination.k8s.io/v1",
            "Lease",
            "/apis/coordination.k8s.io/v1/namespaces/default/leases",
        ),
        (
            "rbac.authorization.k8s.io/v1",
            "Role",
            "/apis/rbac.authorization.k8s.io/v1/namespaces/default/roles",
        ),
        (
            "policy/v1",
            "PodDisruptionBudget",
            "/apis/policy/v1/namespaces/default/poddisruptionbudgets",
        ),
        ("apps/v1", "DaemonSet", "/apis/apps/v1/namespaces/default/daemonsets"),
        (
            "fuzz.example.com/v1",
            "Free",
            "/apis/fuzz.example.com/v1/namespaces/default/frees",
        ),
    ]);
    let places = select(&[
        "/data",
        "/spec",
        "/status",
        "/metadata/labels",
        "/metadata/annotations",
        "/metadata/name",
        "/metadata/finalizers",
        "/metadata/ownerReferences",
        "/metadata/managedFields",
        "/metadata/generateName",
        "/metadata/namespace",
        "/metadata/uid",
        "/metadata/resourceVersion",
        "/metadata/creationTimestamp",
        "/metadata/deletionTimestamp",
        "/spec/containers",
        "/spec/selector",
        "/rules",
        "/type",
        "/stringData",
        "/binaryData",
        "/immutable",
        "/metadata",
        "/kind",
        "/apiVersion",
        "/spec/template",
        "/unknown",
    ]);
    (kinds, vec((places, json()), 0..4), 0..1_000_000_u32)
        .prop_map(|((api_version, kind, path), changes, number)| {
            let mut object = json!({
                "apiVersion": api_version, "kind": kind, "metadata": { "name": format!("near-{number}") },
            });
            match kind {
                "Pod" => object["spec"] = json!({ "containers": [{ "name": "a", "image": "b" }] }),
                "DaemonSet" => {
                    object["spec"] = json!({
                        "selector": { "matchLabels": { "a": "b" } },
                        "template": {
                            "metadata": { "labels": { "a": "b" } },
                            "spec": { "containers": [{ "name": "a", "image": "b" }] },
                        },
                    });
                }
                _ => {}
            }
            for (place, value) in changes {
                let (parent, name) = place.rsplit_once('/').unwrap();
                if let Some(Value::Object(parent)) = object.pointer_mut(parent) {
                    parent.insert(name.to_owned(), value);
                }
            }
            (path.to_owned(), object)
        })
        .boxed()
}

/// A whole request.
pub fn request() -> BoxedStrategy<Asked> {
    let methods = prop_oneof![
        8 => select(&["GET", "POST", "PUT", "PATCH", "DELETE"]),
        1 => select(&["HEAD", "OPTIONS", "CONNECT", "TRACE", "BREW"]),
    ];
    let parts = select(&[
        "api",
        "apis",
        "v1",
        "apps",
        "namespaces",
        "default",
        "configmaps",
        "there",
        "pods",
        "status",
        "scale",
        "log",
        "fuzz.example.com",
        "frees",
        "apiextensions.k8s.io",
        "customresourcedefinitions",
        "openapi",
        "v2",
        "v3",
        "version",
        "healthz",
        "readyz",
        "livez",
        "watch",
        "proxy",
        "finalize",
        "eviction",
        "binding",
        "kube-system",
        "authorization.k8s.io",
        "selfsubjectaccessreviews",
        "events",
        "nodes",
        "secrets",
        "",
        "..",
        "%2f",
        "%00",
        "%",
        "é",
        "a b",
        "*",
        "metrics",
        "debug",
        "coordination.k8s.io",
        "leases",
        "token",
    ]);
    let known = select(&[
        "/api/v1/namespaces/default/configmaps",
        "/api/v1/namespaces/default/configmaps/there",
        "/api/v1/configmaps",
        "/api/v1/namespaces/default/pods",
        "/api/v1/nodes",
        "/apis/fuzz.example.com/v1/namespaces/default/frees/there",
        "/apis/fuzz.example.com/v1/frees",
        "/apis/apiextensions.k8s.io/v1/customresourcedefinitions",
        "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews",
        "/api/v1/namespaces",
        "/openapi/v2",
        "/openapi/v3",
        "/openapi/v3/api/v1",
        "/apis",
        "/api",
        "/",
    ]);
    let path = prop_oneof![
        1 => vec(parts, 0..8).prop_map(|parts| format!("/{}", parts.join("/"))),
        3 => known.prop_map(str::to_owned),
    ];
    let names = select(&[
        "labelSelector",
        "fieldSelector",
        "limit",
        "continue",
        "resourceVersion",
        "resourceVersionMatch",
        "watch",
        "allowWatchBookmarks",
        "sendInitialEvents",
        "timeoutSeconds",
        "dryRun",
        "fieldManager",
        "fieldValidation",
        "force",
        "propagationPolicy",
        "orphanDependents",
        "gracePeriodSeconds",
        "pretty",
        "includeObject",
        "verbose",
        "unknown",
        "",
        "%",
        "hash",
    ]);
    let values = prop_oneof![
        select(&[
            "",
            "0",
            "1",
            "-1",
            "true",
            "false",
            "All",
            "Strict",
            "Warn",
            "Ignore",
            "Exact",
            "NotOlderThan",
            "Background",
            "Foreground",
            "Orphan",
            "99999999999999999999",
            "a%3Db",
            "metadata.name%3Dthere",
            "eyJ2IjoibWV0YSJ9",
            "%zz",
            "%00",
            "%F0%9F%98%80",
            "None",
            "Object",
            "1e3",
            "a,b",
            "%2C%2C",
        ])
        .prop_map(str::to_owned),
        "[a-z%0-9=,()! ]{0,20}".prop_map(|text: String| text.replace(' ', "+")),
    ];
    let query = vec((names, values), 0..4).prop_map(|pairs| {
        let pairs: Vec<String> = pairs.iter().map(|(name, value)| format!("{name}={value}")).collect();
        if pairs.is_empty() {
            String::new()
        } else {
            format!("?{}", pairs.join("&"))
        }
    });
    let headers = vec(
        prop_oneof![
            select(MEDIA).prop_map(|media| ("content-type".to_owned(), media.to_owned())),
            select(MEDIA).prop_map(|media| ("content-type".to_owned(), media.to_owned())),
            select(&[
                "application/json",
                "application/yaml",
                "*/*",
                "text/html",
                "application/vnd.kubernetes.protobuf",
                "application/json;as=Table;v=v1;g=meta.k8s.io",
                "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io",
                "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io",
                "application/json;as=Table;v=v9;g=x",
                "application/json;stream=watch",
                ";",
                ",,,",
                "application/json;q=0",
                "",
            ])
            .prop_map(|accept| ("accept".to_owned(), accept.to_owned())),
            select(&[
                ("impersonate-user", "someone"),
                ("impersonate-group", "all"),
                ("impersonate-uid", "1"),
                ("authorization", "Bearer x"),
                ("accept-encoding", "gzip"),
                ("content-encoding", "gzip"),
                ("if-none-match", "\"x\""),
                ("user-agent", ""),
                ("user-agent", "kubectl/v1.34"),
                ("content-length", "5"),
                ("impersonate-extra-x", "y"),
                ("expect", "100-continue"),
                ("transfer-encoding", "chunked"),
            ])
            .prop_map(|(name, value)| (name.to_owned(), value.to_owned())),
        ],
        0..4,
    );
    let body = prop_oneof![
        Just(Vec::new()),
        json().prop_map(|value| serde_json::to_vec(&value).unwrap()),
        near_object().prop_map(|(_, value)| serde_json::to_vec(&value).unwrap()),
        operations().prop_map(|value| serde_json::to_vec(&value).unwrap()),
        vec(any::<u8>(), 0..200),
        select(&[
            "a: &a [*a]",
            "a: 1\n---\nb: 2",
            "? x\n: y",
            "!!binary x",
            "{a: b, a: c}",
            "\t",
            "- -",
            "%YAML 9"
        ])
        .prop_map(|text| text.as_bytes().to_vec()),
    ];
    (methods, path, query, headers, body)
        .prop_map(|(method, path, query, headers, body)| Asked {
            method: method.to_owned(),
            uri: format!("{path}{query}"),
            headers,
            body,
        })
        .boxed()
}
