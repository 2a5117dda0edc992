//! What readers may rely on: lists, watches, selectors, versions, tables, discovery, access.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // helpers of tests are tests

mod support;

use embedded_apiserver::{ApiServer, HistoryLimits};
use http::Method;
use serde_json::{Value, json};
use support::{Client, MAPS, WIDGETS, map, revision, widget};

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
async fn discovery_speaks_both_dialects() {
    let client = Client::with_widgets().await;
    let plain = client.get("/apis/example.com/v1").await.body;
    let names: Vec<&str> = plain["resources"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| entry["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["widgets", "widgets/status", "widgets/scale"]);
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
