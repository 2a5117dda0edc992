//! What clients may rely on, request by request, in the words of the real server.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)] // helpers of tests are tests

use embedded_apiserver::{ApiServer, HistoryLimits, Service};
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use serde_json::{Value, json};
use tower::ServiceExt as _;

struct Answer {
    code: u16,
    headers: http::HeaderMap,
    body: Value,
}

#[derive(Clone)]
struct Client(Service);

impl Client {
    async fn new() -> Self {
        Self(ApiServer::builder().in_memory().build().await.unwrap().service())
    }

    async fn with_widgets() -> Self {
        let client = Self::new().await;
        let made = client
            .post("/apis/apiextensions.k8s.io/v1/customresourcedefinitions", &definition())
            .await;
        assert_eq!(made.code, 201, "{}", made.body);
        client
    }

    async fn raw(&self, method: Method, path: &str, headers: &[(&str, &str)], body: Vec<u8>) -> Answer {
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(bytes::Bytes::from(body))).unwrap();
        let response = self.0.clone().oneshot(request).await.unwrap();
        let (head, body) = response.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        let body = serde_json::from_slice(&body).unwrap_or_else(|_| String::from_utf8_lossy(&body).into_owned().into());
        Answer {
            code: head.status.as_u16(),
            headers: head.headers,
            body,
        }
    }

    async fn send(&self, method: Method, path: &str, media: &str, body: &Value) -> Answer {
        self.raw(
            method,
            path,
            &[("content-type", media)],
            serde_json::to_vec(body).unwrap(),
        )
        .await
    }

    async fn get(&self, path: &str) -> Answer {
        self.raw(Method::GET, path, &[], Vec::new()).await
    }

    async fn post(&self, path: &str, body: &Value) -> Answer {
        self.send(Method::POST, path, "application/json", body).await
    }

    async fn put(&self, path: &str, body: &Value) -> Answer {
        self.send(Method::PUT, path, "application/json", body).await
    }

    async fn merge(&self, path: &str, body: &Value) -> Answer {
        self.send(Method::PATCH, path, "application/merge-patch+json", body)
            .await
    }

    async fn apply(&self, path: &str, body: &Value) -> Answer {
        self.send(Method::PATCH, path, "application/apply-patch+yaml", body)
            .await
    }

    async fn delete(&self, path: &str) -> Answer {
        self.raw(Method::DELETE, path, &[], Vec::new()).await
    }

    /// A watch, as an iterator over its events.
    async fn watch(&self, path: &str) -> Events {
        let request = Request::get(path).body(Full::new(bytes::Bytes::new())).unwrap();
        let response = self.0.clone().oneshot(request).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        Events {
            body: response.into_body(),
            text: Vec::new(),
        }
    }
}

struct Events {
    body: embedded_apiserver::Body,
    text: Vec<u8>,
}

impl Events {
    async fn next(&mut self) -> Option<(String, Value)> {
        loop {
            if let Some(end) = self.text.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.text.drain(..=end).collect();
                let event: Value = serde_json::from_slice(&line).unwrap();
                return Some((event["type"].as_str().unwrap().to_owned(), event["object"].clone()));
            }
            let wait = std::time::Duration::from_secs(20);
            let frame = tokio::time::timeout(wait, self.body.frame())
                .await
                .expect("no event came")?;
            self.text.extend_from_slice(&frame.unwrap().into_data().unwrap());
        }
    }

    async fn names(&mut self, count: usize) -> Vec<String> {
        let mut seen = Vec::new();
        for _ in 0..count {
            let (kind, object) = self.next().await.unwrap();
            seen.push(format!(
                "{kind} {}",
                object["metadata"]["name"].as_str().unwrap_or_default()
            ));
        }
        seen
    }
}

fn definition() -> Value {
    json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": { "name": "widgets.example.com" },
        "spec": {
            "group": "example.com",
            "scope": "Namespaced",
            "names": { "plural": "widgets", "kind": "Widget", "shortNames": ["wd"], "categories": ["gadgets"] },
            "versions": [
                version("v1", true, true),
                version("v1beta1", true, false),
                version("v1alpha1", false, false),
            ],
        },
    })
}

fn version(name: &str, served: bool, storage: bool) -> Value {
    json!({
        "name": name,
        "served": served,
        "storage": storage,
        "deprecated": name == "v1beta1",
        "subresources": {
            "status": {},
            "scale": {
                "specReplicasPath": ".spec.replicas",
                "statusReplicasPath": ".status.replicas",
                "labelSelectorPath": ".status.selector",
            },
        },
        "selectableFields": [{ "jsonPath": ".spec.color" }],
        "additionalPrinterColumns": [{ "name": "Color", "type": "string", "jsonPath": ".spec.color" }],
        "schema": { "openAPIV3Schema": {
            "type": "object",
            "properties": {
                "spec": {
                    "type": "object",
                    "properties": {
                        "replicas": { "type": "integer", "default": 1, "minimum": 0 },
                        "color": { "type": "string" },
                        "fixed": {
                            "type": "string",
                            "x-kubernetes-validations": [{ "rule": "self == oldSelf", "message": "fixed is immutable" }],
                        },
                    },
                },
                "status": {
                    "type": "object",
                    "properties": { "replicas": { "type": "integer" }, "selector": { "type": "string" } },
                },
            },
        } },
    })
}

const WIDGETS: &str = "/apis/example.com/v1/namespaces/default/widgets";
const MAPS: &str = "/api/v1/namespaces/default/configmaps";

fn widget(name: &str, spec: Value) -> Value {
    json!({ "apiVersion": "example.com/v1", "kind": "Widget", "metadata": { "name": name }, "spec": spec })
}

fn map(name: &str) -> Value {
    json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": name } })
}

fn revision(answer: &Value) -> u64 {
    answer["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap()
}

#[tokio::test]
async fn refusals_are_worded_as_by_the_real_server() {
    let client = Client::with_widgets().await;
    let missing = client.get(&format!("{WIDGETS}/a")).await;
    assert_eq!(
        missing.body,
        json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": "widgets.example.com \"a\" not found", "reason": "NotFound",
            "details": { "name": "a", "group": "example.com", "kind": "widgets" }, "code": 404,
        })
    );
    client.post(WIDGETS, &widget("a", json!({}))).await;
    let twice = client.post(WIDGETS, &widget("a", json!({}))).await;
    assert_eq!((twice.code, &twice.body["reason"]), (409, &json!("AlreadyExists")));
    assert_eq!(twice.body["message"], "widgets.example.com \"a\" already exists");
    let invalid = client.post(WIDGETS, &widget("b", json!({ "replicas": -1 }))).await;
    assert_eq!((invalid.code, &invalid.body["reason"]), (422, &json!("Invalid")));
    assert_eq!(invalid.body["details"]["causes"][0]["field"], "spec.replicas");
    assert_eq!(invalid.body["details"]["kind"], "Widget");
    let unversioned = client.put(&format!("{WIDGETS}/a"), &widget("a", json!({}))).await;
    assert_eq!(
        unversioned.body["message"],
        "Widget.example.com \"a\" is invalid: metadata.resourceVersion: Invalid value: 0: must be specified for an update"
    );
    let elsewhere = client.put(&format!("{WIDGETS}/a"), &widget("b", json!({}))).await;
    assert_eq!(
        (elsewhere.code, elsewhere.body["message"].as_str().unwrap()),
        (400, "the name of the object (b) does not match the name on the URL (a)")
    );
    assert_eq!(client.get("/apis/example.com/v2/widgets").await.code, 404);
    assert_eq!(
        client.get("/apis/example.com/v1alpha1/widgets").await.code,
        404,
        "a version that is not served"
    );
    assert_eq!(client.get("/nothing").await.body, "404 page not found\n");
    let capitals = client.post(MAPS, &map("Capital")).await;
    assert_eq!(capitals.code, 422);
    assert!(
        capitals.body["message"]
            .as_str()
            .unwrap()
            .contains("lowercase RFC 1123 subdomain")
    );
    let method = client.raw(Method::POST, &format!("{MAPS}/x"), &[], Vec::new()).await;
    assert_eq!((method.code, &method.body["reason"]), (405, &json!("MethodNotAllowed")));
}

#[tokio::test]
async fn bodies_and_media_types_that_do_not_fit_are_refused() {
    let client = Client::with_widgets().await;
    let post = |media: &'static str, body: Vec<u8>| {
        let client = client.clone();
        async move {
            client
                .raw(Method::POST, MAPS, &[("content-type", media)], body)
                .await
                .code
        }
    };
    assert_eq!(post("application/json", b"{".to_vec()).await, 400);
    assert_eq!(post("application/json", b"[]".to_vec()).await, 400);
    assert_eq!(post("application/json", vec![b'['; 200_000]).await, 400);
    assert_eq!(post("application/json", vec![b' '; (3 << 20) + 1]).await, 413);
    assert_eq!(post("text/plain", b"x".to_vec()).await, 415);
    assert_eq!(post("application/vnd.kubernetes.protobuf", b"k8s".to_vec()).await, 400);
    assert_eq!(
        post(
            "application/yaml",
            b"metadata:\n  name: from-yaml\ndata: {a: b}\n".to_vec()
        )
        .await,
        201
    );
    let strategic = "application/strategic-merge-patch+json";
    client.post(WIDGETS, &widget("a", json!({}))).await;
    assert_eq!(
        client
            .send(Method::PATCH, &format!("{WIDGETS}/a"), strategic, &json!({}))
            .await
            .code,
        415
    );
    let accept = |accept: &'static str| {
        let client = client.clone();
        async move {
            client
                .raw(
                    Method::GET,
                    &format!("{MAPS}/from-yaml"),
                    &[("accept", accept)],
                    Vec::new(),
                )
                .await
        }
    };
    assert_eq!(accept("application/vnd.kubernetes.protobuf").await.code, 406);
    assert_eq!(
        accept("application/vnd.kubernetes.protobuf, application/json")
            .await
            .body["data"]["a"],
        "b"
    );
    let yaml = accept("application/yaml").await;
    assert_eq!(yaml.headers["content-type"], "application/yaml");
    assert!(yaml.body.as_str().unwrap().contains("name: from-yaml"));
}

#[tokio::test]
async fn unknown_and_duplicate_fields_are_dropped_warned_of_or_refused() {
    let client = Client::with_widgets().await;
    let odd = widget("a", json!({ "colour": "red" }));
    let warned = client.post(&format!("{WIDGETS}?dryRun=All"), &odd).await;
    assert_eq!(warned.code, 201);
    assert_eq!(warned.headers["warning"], "299 - \"unknown field \\\"spec.colour\\\"\"");
    assert!(warned.body["spec"].get("colour").is_none());
    assert_eq!(client.get(&format!("{WIDGETS}/a")).await.code, 404, "a dry run wrote");
    let ignored = client
        .post(&format!("{WIDGETS}?dryRun=All&fieldValidation=Ignore"), &odd)
        .await;
    assert!(ignored.headers.get("warning").is_none());
    let strict = client.post(&format!("{WIDGETS}?fieldValidation=Strict"), &odd).await;
    assert_eq!((strict.code, &strict.body["reason"]), (400, &json!("BadRequest")));
    assert!(
        strict.body["message"]
            .as_str()
            .unwrap()
            .ends_with("strict decoding error: unknown field \"spec.colour\"")
    );
    let twice = br#"{"metadata":{"name":"x"},"data":{"a":"1","a":"2"}}"#.to_vec();
    let json = [("content-type", "application/json")];
    let twice = client
        .raw(Method::POST, &format!("{MAPS}?fieldValidation=Strict"), &json, twice)
        .await;
    assert_eq!(twice.code, 400);
    assert!(
        twice.body["message"]
            .as_str()
            .unwrap()
            .contains("duplicate field \"data.a\"")
    );
}

#[tokio::test]
async fn lists_come_in_chunks_of_one_revision() {
    let client = Client::new().await;
    for at in 0..7 {
        client.post(MAPS, &map(&format!("m{at}"))).await;
    }
    let first = client.get(&format!("{MAPS}?limit=3")).await.body;
    assert_eq!(first["metadata"]["remainingItemCount"], 4);
    // What happens in between does not show.
    client.delete(&format!("{MAPS}/m4")).await;
    client.post(MAPS, &map("m3a")).await;
    let token = first["metadata"]["continue"].as_str().unwrap();
    let second = client.get(&format!("{MAPS}?limit=3&continue={token}")).await.body;
    let names = |list: &Value| -> Vec<String> {
        let items = list["items"].as_array().unwrap();
        items
            .iter()
            .map(|item| item["metadata"]["name"].as_str().unwrap().to_owned())
            .collect()
    };
    assert_eq!(names(&first), ["m0", "m1", "m2"]);
    assert_eq!(names(&second), ["m3", "m4", "m5"]);
    assert_eq!(revision(&first), revision(&second));
    let token = second["metadata"]["continue"].as_str().unwrap();
    let third = client.get(&format!("{MAPS}?limit=3&continue={token}")).await.body;
    assert_eq!(names(&third), ["m6"]);
    assert!(third["metadata"].get("continue").is_none());
    let then = revision(&first);
    let exact = client
        .get(&format!("{MAPS}?resourceVersion={then}&resourceVersionMatch=Exact"))
        .await
        .body;
    assert_eq!(names(&exact).len(), 7);
    assert_eq!(
        names(&client.get(MAPS).await.body),
        ["m0", "m1", "m2", "m3", "m3a", "m5", "m6"]
    );
    let future = client
        .get(&format!(
            "{MAPS}?resourceVersion=99999&resourceVersionMatch=NotOlderThan"
        ))
        .await;
    assert_eq!((future.code, &future.body["reason"]), (504, &json!("Timeout")));
    assert_eq!(
        client.get(&format!("{MAPS}?resourceVersionMatch=Exact")).await.code,
        422
    );
    assert_eq!(client.get(&format!("{MAPS}?continue=nonsense")).await.code, 400);
}

#[tokio::test]
async fn what_the_history_lost_is_expired() {
    let server = ApiServer::builder()
        .history(HistoryLimits {
            events: 3,
            bytes: 1 << 20,
        })
        .build()
        .await
        .unwrap();
    let client = Client(server.service());
    for at in 0..4 {
        client.post(MAPS, &map(&format!("m{at}"))).await;
    }
    let first = client.get(&format!("{MAPS}?limit=2")).await.body;
    let then = revision(&first);
    for at in 4..10 {
        client.post(MAPS, &map(&format!("m{at}"))).await;
    }
    let token = first["metadata"]["continue"].as_str().unwrap();
    let expired = client.get(&format!("{MAPS}?limit=2&continue={token}")).await;
    assert_eq!((expired.code, &expired.body["reason"]), (410, &json!("Expired")));
    let token = expired.body["metadata"]["continue"].as_str().unwrap();
    let rest = client.get(&format!("{MAPS}?continue={token}")).await.body;
    assert_eq!(
        rest["items"].as_array().unwrap().len(),
        8,
        "the inconsistent rest of the list"
    );
    let mut watch = client.watch(&format!("{MAPS}?watch=true&resourceVersion={then}")).await;
    let (kind, status) = watch.next().await.unwrap();
    assert_eq!(
        (kind.as_str(), &status["code"], &status["reason"]),
        ("ERROR", &json!(410), &json!("Expired"))
    );
    assert!(watch.next().await.is_none());
}

#[tokio::test]
async fn watches_begin_where_they_are_told() {
    let client = Client::new().await;
    client.post(MAPS, &map("a")).await;
    let after_a = revision(&client.get(MAPS).await.body);
    client.post(MAPS, &map("b")).await;
    let mut from_a = client.watch(&format!("{MAPS}?watch=1&resourceVersion={after_a}")).await;
    assert_eq!(from_a.names(1).await, ["ADDED b"]);
    for any in ["", "&resourceVersion=0"] {
        let mut all = client.watch(&format!("{MAPS}?watch=1{any}")).await;
        assert_eq!(all.names(2).await, ["ADDED a", "ADDED b"]);
        client
            .merge(&format!("{MAPS}/a"), &json!({ "data": { "at": any } }))
            .await;
        assert_eq!(all.names(1).await, ["MODIFIED a"]);
    }
    let path =
        format!("{MAPS}?watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true");
    let mut streaming = client.watch(&path).await;
    assert_eq!(streaming.names(2).await, ["ADDED a", "ADDED b"]);
    let (kind, bookmark) = streaming.next().await.unwrap();
    assert_eq!(kind, "BOOKMARK");
    assert_eq!(bookmark["metadata"]["annotations"]["k8s.io/initial-events-end"], "true");
    assert_eq!(
        (&bookmark["kind"], &bookmark["apiVersion"]),
        (&json!("ConfigMap"), &json!("v1"))
    );
    client.delete(&format!("{MAPS}/b")).await;
    assert_eq!(streaming.names(1).await, ["DELETED b"]);
    let wrong = client
        .get(&format!("{MAPS}?watch=1&resourceVersionMatch=NotOlderThan"))
        .await;
    assert_eq!(wrong.code, 422);
    let mut short = client
        .watch(&format!("{MAPS}?watch=1&timeoutSeconds=1&resourceVersion={after_a}"))
        .await;
    while short.next().await.is_some() {}
}

#[tokio::test]
async fn selectors_let_objects_come_and_go() {
    let client = Client::with_widgets().await;
    let mut labels = client
        .watch(&format!("{WIDGETS}?watch=1&labelSelector=app%3Ddemo"))
        .await;
    let mut fields = client
        .watch(&format!("{WIDGETS}?watch=1&fieldSelector=spec.color%3Dred"))
        .await;
    let mut one = client
        .watch(&format!("{WIDGETS}?watch=1&fieldSelector=metadata.name%3Da"))
        .await;
    client.post(WIDGETS, &widget("b", json!({ "color": "green" }))).await;
    client.post(WIDGETS, &widget("a", json!({ "color": "red" }))).await;
    client
        .merge(
            &format!("{WIDGETS}/a"),
            &json!({ "metadata": { "labels": { "app": "demo" } } }),
        )
        .await;
    let left = client
        .merge(
            &format!("{WIDGETS}/a"),
            &json!({ "metadata": { "labels": null }, "spec": { "color": "blue" } }),
        )
        .await;
    assert_eq!(labels.names(1).await, ["ADDED a"]);
    let (kind, gone) = labels.next().await.unwrap();
    assert_eq!((kind.as_str(), revision(&gone)), ("DELETED", revision(&left.body)));
    assert_eq!(gone["metadata"]["labels"]["app"], "demo", "its last state in view");
    assert_eq!(fields.names(3).await, ["ADDED a", "MODIFIED a", "DELETED a"]);
    assert_eq!(one.names(3).await, ["ADDED a", "MODIFIED a", "MODIFIED a"]);
    let listed = client
        .get("/apis/example.com/v1/widgets?fieldSelector=spec.color!%3Dblue")
        .await
        .body;
    assert_eq!(listed["items"].as_array().unwrap().len(), 1);
    let unknown = client.get(&format!("{WIDGETS}?fieldSelector=spec.size%3D1")).await;
    assert_eq!((unknown.code, &unknown.body["reason"]), (400, &json!("BadRequest")));
}

#[tokio::test]
async fn applies_own_fields_and_conflict() {
    let client = Client::with_widgets().await;
    let path = |manager: &str| format!("{WIDGETS}/a?fieldManager={manager}");
    assert_eq!(
        client
            .apply(&format!("{WIDGETS}/a"), &widget("a", json!({})))
            .await
            .code,
        422,
        "no field manager"
    );
    let made = client
        .apply(&path("one"), &widget("a", json!({ "color": "red" })))
        .await;
    assert_eq!(made.code, 201, "{}", made.body);
    let same = client
        .apply(&path("one"), &widget("a", json!({ "color": "red" })))
        .await;
    assert_eq!(
        (same.code, revision(&same.body)),
        (200, revision(&made.body)),
        "nothing changed, nothing written"
    );
    let conflict = client
        .apply(&path("two"), &widget("a", json!({ "color": "green" })))
        .await;
    assert_eq!((conflict.code, &conflict.body["reason"]), (409, &json!("Conflict")));
    assert_eq!(conflict.body["details"]["causes"][0]["reason"], "FieldManagerConflict");
    assert_eq!(conflict.body["details"]["causes"][0]["field"], ".spec.color");
    let forced = client
        .apply(
            &format!("{}&force=true", path("two")),
            &widget("a", json!({ "color": "green" })),
        )
        .await;
    assert_eq!((forced.code, &forced.body["spec"]["color"]), (200, &json!("green")));
    let given_up = client.apply(&path("two"), &widget("a", json!({}))).await;
    assert!(given_up.body["spec"].get("color").is_none(), "{}", given_up.body);
}

#[tokio::test]
async fn rules_see_the_old_object() {
    let client = Client::with_widgets().await;
    client.post(WIDGETS, &widget("a", json!({ "fixed": "x" }))).await;
    let changed = client
        .merge(&format!("{WIDGETS}/a"), &json!({ "spec": { "fixed": "y" } }))
        .await;
    assert_eq!(changed.code, 422);
    assert!(
        changed.body["message"].as_str().unwrap().contains("fixed is immutable"),
        "{}",
        changed.body
    );
    assert_eq!(
        client
            .merge(&format!("{WIDGETS}/a"), &json!({ "spec": { "fixed": "x" } }))
            .await
            .code,
        200
    );
}

#[tokio::test]
async fn versions_are_views_of_one_object() {
    let client = Client::with_widgets().await;
    client.post(WIDGETS, &widget("a", json!({ "color": "red" }))).await;
    let beta = client
        .get("/apis/example.com/v1beta1/namespaces/default/widgets/a")
        .await;
    assert_eq!(beta.body["apiVersion"], "example.com/v1beta1");
    assert_eq!(
        beta.headers["warning"],
        "299 - \"example.com/v1beta1 Widget is deprecated\""
    );
    let patch = json!({ "spec": { "color": "green" } });
    client
        .merge("/apis/example.com/v1beta1/namespaces/default/widgets/a", &patch)
        .await;
    let stored = client.get(&format!("{WIDGETS}/a")).await.body;
    assert_eq!(
        (&stored["apiVersion"], &stored["spec"]["color"]),
        (&json!("example.com/v1"), &json!("green"))
    );
}

#[tokio::test]
async fn a_changed_definition_gives_old_objects_its_defaults() {
    let client = Client::with_widgets().await;
    client.post(WIDGETS, &widget("a", json!({}))).await;
    let path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/widgets.example.com";
    let mut definition = client.get(path).await.body;
    definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]["size"] =
        json!({ "type": "string", "default": "large" });
    let put = client.put(path, &definition).await;
    assert_eq!(put.code, 200, "{}", put.body);
    let read = client.get(&format!("{WIDGETS}/a")).await.body;
    assert_eq!(read["spec"]["size"], "large");
    let listed = client.get(WIDGETS).await.body;
    assert_eq!(listed["items"][0]["spec"]["size"], "large");
}

#[tokio::test]
async fn definitions_are_settled_and_take_their_objects_along() {
    let client = Client::with_widgets().await;
    let path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    let settled = client.get(&format!("{path}/widgets.example.com")).await.body;
    let is_true = |kind: &str| {
        let conditions = settled["status"]["conditions"].as_array().unwrap();
        conditions
            .iter()
            .any(|condition| condition["type"] == kind && condition["status"] == "True")
    };
    assert!(is_true("Established") && is_true("NamesAccepted"));
    assert_eq!(settled["status"]["acceptedNames"]["singular"], "widget");
    assert_eq!(settled["status"]["storedVersions"], json!(["v1"]));

    // Another definition that wants the same kind has to wait for it.
    let mut rival = definition();
    rival["metadata"]["name"] = "things.example.com".into();
    rival["spec"]["names"]["plural"] = "things".into();
    rival["spec"]["names"]["singular"] = "thing".into();
    rival["spec"]["names"]["shortNames"] = json!(["th"]);
    assert_eq!(client.post(path, &rival).await.code, 201);
    assert_eq!(client.get("/apis/example.com/v1/things").await.code, 404);

    client.post(WIDGETS, &widget("a", json!({}))).await;
    let mut held = widget("held", json!({}));
    held["metadata"]["finalizers"] = json!(["example.com/hold"]);
    client.post(WIDGETS, &held).await;
    let mut watch = client.watch(&format!("{path}?watch=1")).await;
    assert_eq!(client.delete(&format!("{path}/widgets.example.com")).await.code, 200);
    let refused = client.post(WIDGETS, &widget("late", json!({}))).await;
    assert!(refused.code >= 400, "created in a definition that is going");
    client
        .merge(
            &format!("{WIDGETS}/held"),
            &json!({ "metadata": { "finalizers": null } }),
        )
        .await;
    loop {
        let (kind, object) = watch.next().await.unwrap();
        if kind == "DELETED" {
            assert_eq!(object["metadata"]["name"], "widgets.example.com");
            break;
        }
    }
    // The rival is told that the name is free; its status follows.
    loop {
        let (_, object) = watch.next().await.unwrap();
        let conditions = object["status"]["conditions"].as_array().unwrap();
        if conditions
            .iter()
            .any(|condition| condition["type"] == "Established" && condition["status"] == "True")
        {
            break;
        }
    }
    assert_eq!(client.get(WIDGETS).await.code, 404);

    let mut bad = definition();
    bad["spec"]["versions"][1]["storage"] = true.into();
    bad["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["type"] = "".into();
    let refused = client.post(path, &bad).await;
    assert_eq!(refused.code, 422);
    assert!(
        refused.body["message"]
            .as_str()
            .unwrap()
            .contains("exactly one version marked as storage version")
    );
}

#[tokio::test]
async fn deletions_check_preconditions_and_go_by_selector() {
    let client = Client::new().await;
    let made = client.post(MAPS, &map("a")).await.body;
    let json_body = [("content-type", "application/json")];
    let wrong = json!({ "kind": "DeleteOptions", "apiVersion": "v1", "preconditions": { "uid": "other" } });
    let path = format!("{MAPS}/a");
    let refused = client
        .raw(Method::DELETE, &path, &json_body, serde_json::to_vec(&wrong).unwrap())
        .await;
    assert_eq!((refused.code, &refused.body["reason"]), (409, &json!("Conflict")));
    let uid = made["metadata"]["uid"].as_str().unwrap();
    let dry = client.delete(&format!("{path}?dryRun=All")).await;
    assert_eq!((dry.code, &dry.body["details"]["uid"]), (200, &json!(uid)));
    let right = json!({ "preconditions": { "uid": uid, "resourceVersion": made["metadata"]["resourceVersion"] } });
    let gone = client
        .raw(Method::DELETE, &path, &json_body, serde_json::to_vec(&right).unwrap())
        .await;
    assert_eq!(
        gone.body,
        json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success",
            "details": { "name": "a", "kind": "configmaps", "uid": uid },
        })
    );
    for (name, app) in [("x", "one"), ("y", "one"), ("z", "two")] {
        let mut labelled = map(name);
        labelled["metadata"]["labels"] = json!({ "app": app });
        client.post(MAPS, &labelled).await;
    }
    let deleted = client.delete(&format!("{MAPS}?labelSelector=app%3Done")).await;
    assert_eq!(deleted.body["items"].as_array().unwrap().len(), 2);
    assert_eq!(client.get(MAPS).await.body["items"].as_array().unwrap().len(), 1);
    let forbidden = client.delete("/api/v1/namespaces/kube-system").await;
    assert_eq!(
        forbidden.body["message"],
        "namespaces \"kube-system\" is forbidden: this namespace may not be deleted"
    );
}

fn owned(name: &str, owner: &Value, block: bool) -> Value {
    let mut object = map(name);
    object["metadata"]["ownerReferences"] = json!([{
        "apiVersion": "v1", "kind": "ConfigMap", "name": owner["metadata"]["name"], "uid": owner["metadata"]["uid"],
        "blockOwnerDeletion": block,
    }]);
    object
}

#[tokio::test]
async fn owners_wait_for_dependents_in_the_foreground() {
    let client = Client::new().await;
    let owner = client.post(MAPS, &map("owner")).await.body;
    let mut child = owned("child", &owner, true);
    child["metadata"]["finalizers"] = json!(["example.com/hold"]);
    client.post(MAPS, &child).await;
    let mut watch = client
        .watch(&format!(
            "{MAPS}?watch=1&resourceVersion={}",
            revision(&client.get(MAPS).await.body)
        ))
        .await;
    let waiting = client
        .delete(&format!("{MAPS}/owner?propagationPolicy=Foreground"))
        .await
        .body;
    assert_eq!(waiting["metadata"]["finalizers"], json!(["foregroundDeletion"]));
    assert_eq!(watch.names(2).await, ["MODIFIED owner", "MODIFIED child"]);
    assert_eq!(
        client.get(&format!("{MAPS}/owner")).await.code,
        200,
        "it waits for the child"
    );
    client
        .merge(&format!("{MAPS}/child"), &json!({ "metadata": { "finalizers": null } }))
        .await;
    assert_eq!(watch.names(2).await, ["DELETED child", "DELETED owner"]);
}

#[tokio::test]
async fn orphans_lose_their_owner_and_stay() {
    let client = Client::new().await;
    let owner = client.post(MAPS, &map("owner")).await.body;
    client.post(MAPS, &owned("child", &owner, false)).await;
    let mut watch = client
        .watch(&format!(
            "{MAPS}?watch=1&resourceVersion={}",
            revision(&client.get(MAPS).await.body)
        ))
        .await;
    client.delete(&format!("{MAPS}/owner?propagationPolicy=Orphan")).await;
    assert_eq!(
        watch.names(3).await,
        ["MODIFIED owner", "MODIFIED child", "DELETED owner"]
    );
    let child = client.get(&format!("{MAPS}/child")).await.body;
    assert!(child["metadata"].get("ownerReferences").is_none());
}

#[tokio::test]
async fn an_owner_that_never_was_takes_its_dependent_along() {
    let client = Client::new().await;
    let ghost = json!({ "metadata": { "name": "ghost", "uid": "00000000-0000-4000-8000-000000000000" } });
    let mut watch = client.watch(&format!("{MAPS}?watch=1")).await;
    client.post(MAPS, &owned("child", &ghost, false)).await;
    assert_eq!(watch.names(2).await, ["ADDED child", "DELETED child"]);
    // Owners of kinds that are not served cannot be judged.
    let mut foreign = owned("foreign", &ghost, false);
    foreign["metadata"]["ownerReferences"][0]["kind"] = "Deployment".into();
    foreign["metadata"]["ownerReferences"][0]["apiVersion"] = "apps/v1".into();
    client.post(MAPS, &foreign).await;
    client.post(MAPS, &owned("second", &ghost, false)).await;
    assert_eq!(
        watch.names(3).await,
        ["ADDED foreign", "ADDED second", "DELETED second"]
    );
    assert_eq!(client.get(&format!("{MAPS}/foreign")).await.code, 200);
}

#[tokio::test]
async fn scales_count_replicas() {
    let client = Client::with_widgets().await;
    client.post(WIDGETS, &widget("a", json!({ "replicas": 2 }))).await;
    client
        .merge(
            &format!("{WIDGETS}/a/status"),
            &json!({ "status": { "replicas": 2, "selector": "app=a" } }),
        )
        .await;
    let mut scale = client.get(&format!("{WIDGETS}/a/scale")).await.body;
    assert_eq!(
        (&scale["kind"], &scale["apiVersion"]),
        (&json!("Scale"), &json!("autoscaling/v1"))
    );
    assert_eq!(scale["status"], json!({ "replicas": 2, "selector": "app=a" }));
    scale["spec"]["replicas"] = 5.into();
    assert_eq!(
        client.put(&format!("{WIDGETS}/a/scale"), &scale).await.body["spec"]["replicas"],
        5
    );
    assert_eq!(
        client.put(&format!("{WIDGETS}/a/scale"), &scale).await.code,
        409,
        "its revision is of before"
    );
    let negative = client
        .merge(&format!("{WIDGETS}/a/scale"), &json!({ "spec": { "replicas": -1 } }))
        .await;
    assert_eq!(negative.code, 422);
    let object = client.get(&format!("{WIDGETS}/a")).await.body;
    assert_eq!(
        (&object["spec"]["replicas"], &object["metadata"]["generation"]),
        (&json!(5), &json!(2))
    );
}

#[tokio::test]
async fn events_are_one_object_under_two_groups() {
    let client = Client::new().await;
    let event = json!({
        "metadata": { "name": "e", "namespace": "default" },
        "regarding": { "kind": "Pod", "name": "p", "namespace": "default" },
        "eventTime": "2026-01-01T00:00:00.000000Z", "reportingController": "c", "reportingInstance": "i",
        "action": "Did", "reason": "Because", "note": "words", "type": "Normal",
    });
    let made = client
        .post("/apis/events.k8s.io/v1/namespaces/default/events", &event)
        .await;
    assert_eq!(made.code, 201, "{}", made.body);
    let core = client
        .get("/api/v1/namespaces/default/events?fieldSelector=involvedObject.name%3Dp")
        .await
        .body;
    let item = &core["items"][0];
    assert_eq!(
        (&item["message"], &item["involvedObject"]["name"]),
        (&json!("words"), &json!("p"))
    );
    assert_eq!(
        (&item["apiVersion"], &item["reportingComponent"]),
        (&json!("v1"), &json!("c"))
    );
    let view = client
        .get("/apis/events.k8s.io/v1/namespaces/default/events/e")
        .await
        .body;
    assert_eq!(
        (&view["apiVersion"], &view["note"]),
        (&json!("events.k8s.io/v1"), &json!("words"))
    );
}

#[tokio::test]
async fn secrets_take_plain_text_and_names_are_generated() {
    let client = Client::new().await;
    let secret = json!({ "metadata": { "generateName": "s-" }, "stringData": { "a": "b" } });
    let made = client.post("/api/v1/namespaces/default/secrets", &secret).await.body;
    assert_eq!((&made["data"]["a"], &made["type"]), (&json!("Yg=="), &json!("Opaque")));
    assert!(made.get("stringData").is_none());
    let name = made["metadata"]["name"].as_str().unwrap();
    assert!(name.starts_with("s-") && name.len() == 7, "{name}");
}

#[tokio::test]
async fn discovery_speaks_both_dialects() {
    let client = Client::with_widgets().await;
    let plain = client.get("/apis/example.com/v1").await.body;
    let names: Vec<&str> = plain["resources"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| entry["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["widgets", "widgets/scale", "widgets/status"]);
    assert_eq!(plain["resources"][0]["shortNames"], json!(["wd"]));
    let group = client.get("/apis/example.com").await.body;
    assert_eq!(group["preferredVersion"]["version"], "v1");
    assert_eq!(group["versions"].as_array().unwrap().len(), 2);
    let media = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
    let all = client.raw(Method::GET, "/apis", &[("accept", media)], Vec::new()).await;
    assert_eq!(all.headers["content-type"], media);
    let groups = all.body["items"].as_array().unwrap();
    let ours = groups
        .iter()
        .find(|group| group["metadata"]["name"] == "example.com")
        .unwrap();
    assert_eq!(ours["versions"][0]["resources"][0]["resource"], "widgets");
    assert_eq!(client.get("/version").await.body["gitVersion"], "v1.34.0+outrigger");
    let index = client.get("/openapi/v3").await.body;
    let url = index["paths"]["apis/example.com/v1"]["serverRelativeURL"]
        .as_str()
        .unwrap();
    let document = client.get(url).await;
    assert_eq!(document.headers["cache-control"], "public, immutable");
    assert!(document.body["paths"]["/apis/example.com/v1/namespaces/{namespace}/widgets/{name}"]["patch"].is_object());
}

#[tokio::test]
async fn tables_and_metadata_alone() {
    let client = Client::with_widgets().await;
    client.post(WIDGETS, &widget("a", json!({ "color": "red" }))).await;
    let accept = |media: &'static str, path: String| {
        let client = client.clone();
        async move {
            client
                .raw(Method::GET, &path, &[("accept", media)], Vec::new())
                .await
                .body
        }
    };
    let table = accept(
        "application/json;as=Table;v=v1;g=meta.k8s.io,application/json",
        WIDGETS.to_owned(),
    )
    .await;
    assert_eq!(table["kind"], "Table");
    assert_eq!(table["columnDefinitions"][1]["name"], "Color");
    assert_eq!(table["rows"][0]["cells"], json!(["a", "red"]));
    assert_eq!(table["rows"][0]["object"]["kind"], "PartialObjectMetadata");
    let partial = "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io";
    let list = accept(partial, WIDGETS.to_owned()).await;
    assert_eq!(list["kind"], "PartialObjectMetadataList");
    assert_eq!(list["items"][0]["kind"], "PartialObjectMetadata");
    assert!(list["items"][0].get("spec").is_none());
}

#[tokio::test]
async fn only_administrators_and_the_granted_may() {
    let client = Client::new().await;
    let me = [("impersonate-user", "me"), ("content-type", "application/json")];
    let list = || client.raw(Method::GET, MAPS, &me, Vec::new());
    let refused = list().await;
    assert_eq!(refused.code, 403);
    assert_eq!(
        refused.body["message"],
        "configmaps is forbidden: User \"me\" cannot list resource \"configmaps\" in API group \"\" in the namespace \"default\""
    );
    let rbac = "/apis/rbac.authorization.k8s.io/v1/namespaces/default";
    let role = json!({
        "metadata": { "name": "r" }, "rules": [{ "apiGroups": [""], "resources": ["configmaps"], "verbs": ["list"] }],
    });
    assert_eq!(client.post(&format!("{rbac}/roles"), &role).await.code, 201);
    let binding = json!({
        "metadata": { "name": "b" }, "subjects": [{ "kind": "User", "name": "me" }],
        "roleRef": { "kind": "Role", "name": "r", "apiGroup": "rbac.authorization.k8s.io" },
    });
    assert_eq!(client.post(&format!("{rbac}/rolebindings"), &binding).await.code, 201);
    assert_eq!(list().await.code, 200);
    assert_eq!(
        client
            .raw(Method::GET, &format!("{MAPS}/x"), &me, Vec::new())
            .await
            .code,
        403
    );
    let review = json!({ "spec": { "resourceAttributes": {
        "verb": "list", "resource": "configmaps", "namespace": "default",
    } } });
    let path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
    let answer = client
        .raw(Method::POST, path, &me, serde_json::to_vec(&review).unwrap())
        .await;
    assert_eq!((answer.code, &answer.body["status"]["allowed"]), (201, &json!(true)));
}
