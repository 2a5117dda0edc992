//! The server under kube-rs, in process.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)] // helpers of tests are tests

use embedded_apiserver::ApiServer;
use futures::{StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{
    Api, DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams, WatchEvent, WatchParams,
};
use kube::core::{ApiResource, GroupVersionKind};
use serde_json::json;

async fn client() -> kube::Client {
    let server = ApiServer::builder().in_memory().build().await.unwrap();
    kube::Client::new(server.service(), "default")
}

fn widget_definition() -> CustomResourceDefinition {
    serde_json::from_value(json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": { "name": "widgets.example.com" },
        "spec": {
            "group": "example.com",
            "scope": "Namespaced",
            "names": { "plural": "widgets", "kind": "Widget", "shortNames": ["wd"] },
            "versions": [{
                "name": "v1",
                "served": true,
                "storage": true,
                "subresources": {
                    "status": {},
                    "scale": { "specReplicasPath": ".spec.replicas", "statusReplicasPath": ".status.replicas" },
                },
                "schema": { "openAPIV3Schema": {
                    "type": "object",
                    "properties": {
                        "spec": {
                            "type": "object",
                            "properties": {
                                "replicas": { "type": "integer", "default": 1, "minimum": 0 },
                                "color": { "type": "string", "enum": ["red", "green"] },
                            },
                        },
                        "status": { "type": "object", "properties": { "replicas": { "type": "integer" } } },
                    },
                } },
            }],
        },
    }))
    .unwrap()
}

fn widgets(client: &kube::Client) -> Api<DynamicObject> {
    let kind = GroupVersionKind::gvk("example.com", "v1", "Widget");
    Api::namespaced_with(
        client.clone(),
        "default",
        &ApiResource::from_gvk_with_plural(&kind, "widgets"),
    )
}

async fn with_widgets() -> (kube::Client, Api<DynamicObject>) {
    let client = client().await;
    let definitions: Api<CustomResourceDefinition> = Api::all(client.clone());
    definitions
        .create(&PostParams::default(), &widget_definition())
        .await
        .unwrap();
    let api = widgets(&client);
    (client, api)
}

fn widget(name: &str, spec: serde_json::Value) -> DynamicObject {
    serde_json::from_value(json!({
        "apiVersion": "example.com/v1", "kind": "Widget", "metadata": { "name": name }, "spec": spec,
    }))
    .unwrap()
}

#[tokio::test]
async fn a_definition_serves_its_objects_as_soon_as_it_is_created() {
    let (_, api) = with_widgets().await;
    let made = api
        .create(&PostParams::default(), &widget("a", json!({ "color": "red" })))
        .await
        .unwrap();
    assert_eq!(made.metadata.generation, Some(1));
    assert!(made.metadata.uid.is_some() && made.metadata.creation_timestamp.is_some());
    assert_eq!(
        api.get("a").await.unwrap().metadata.resource_version,
        made.metadata.resource_version
    );
    let listed = api.list(&ListParams::default()).await.unwrap();
    assert_eq!(listed.items.len(), 1);

    let mut changed = made.clone();
    changed.data["spec"]["color"] = "green".into();
    let updated = api.replace("a", &PostParams::default(), &changed).await.unwrap();
    assert_eq!(updated.metadata.generation, Some(2));
    let kube::Error::Api(conflict) = api.replace("a", &PostParams::default(), &changed).await.unwrap_err() else {
        panic!("no API error");
    };
    assert_eq!((conflict.code, conflict.reason.as_str()), (409, "Conflict"));
    assert_eq!(
        conflict.message,
        "Operation cannot be fulfilled on widgets.example.com \"a\": the object has been modified; please apply your changes to the latest version and try again"
    );
    api.delete("a", &DeleteParams::default()).await.unwrap();
    assert!(api.get_opt("a").await.unwrap().is_none());
}

#[tokio::test]
async fn a_watch_sees_every_change_in_order() {
    let (_, api) = with_widgets().await;
    let start = api
        .list(&ListParams::default())
        .await
        .unwrap()
        .metadata
        .resource_version
        .unwrap();
    let mut watch = api.watch(&WatchParams::default(), &start).await.unwrap().boxed();
    api.create(&PostParams::default(), &widget("a", json!({})))
        .await
        .unwrap();
    let patch = Patch::Merge(json!({ "spec": { "replicas": 3 } }));
    api.patch("a", &PatchParams::default(), &patch).await.unwrap();
    api.delete("a", &DeleteParams::default()).await.unwrap();
    let mut seen = Vec::new();
    for _ in 0..3 {
        seen.push(match watch.try_next().await.unwrap().unwrap() {
            WatchEvent::Added(object) => ("added", object.data["spec"]["replicas"].clone()),
            WatchEvent::Modified(object) => ("modified", object.data["spec"]["replicas"].clone()),
            WatchEvent::Deleted(object) => ("deleted", object.data["spec"]["replicas"].clone()),
            other => panic!("unexpected {other:?}"),
        });
    }
    assert_eq!(seen[0].0, "added");
    assert_eq!(seen[1], ("modified", json!(3)));
    assert_eq!(seen[2], ("deleted", json!(3)));
}

#[tokio::test]
async fn the_status_is_apart_from_the_spec() {
    let (_, api) = with_widgets().await;
    api.create(&PostParams::default(), &widget("a", json!({ "replicas": 2 })))
        .await
        .unwrap();
    let both = Patch::Merge(json!({ "spec": { "replicas": 9 }, "status": { "replicas": 1 } }));
    let status = api.patch_status("a", &PatchParams::default(), &both).await.unwrap();
    assert_eq!(
        (&status.data["spec"]["replicas"], &status.data["status"]["replicas"]),
        (&json!(2), &json!(1))
    );
    assert_eq!(status.metadata.generation, Some(1));
    let spec = api.patch("a", &PatchParams::default(), &both).await.unwrap();
    assert_eq!(
        (&spec.data["spec"]["replicas"], &spec.data["status"]["replicas"]),
        (&json!(9), &json!(1))
    );
    assert_eq!(spec.metadata.generation, Some(2));
    let scale = api.get_scale("a").await.unwrap();
    assert_eq!(scale.spec.unwrap().replicas, Some(9));
    api.patch_scale(
        "a",
        &PatchParams::default(),
        &Patch::Merge(json!({ "spec": { "replicas": 4 } })),
    )
    .await
    .unwrap();
    assert_eq!(api.get("a").await.unwrap().data["spec"]["replicas"], 4);
}

#[tokio::test]
async fn a_patch_that_changes_nothing_writes_nothing() {
    let (_, api) = with_widgets().await;
    let made = api
        .create(&PostParams::default(), &widget("a", json!({ "replicas": 2 })))
        .await
        .unwrap();
    let same = Patch::Merge(json!({ "spec": { "replicas": 2 } }));
    let after = api.patch("a", &PatchParams::default(), &same).await.unwrap();
    assert_eq!(after.metadata.resource_version, made.metadata.resource_version);
}

#[tokio::test]
async fn finalizers_hold_an_object_until_they_are_gone() {
    let (_, api) = with_widgets().await;
    let mut held = widget("a", json!({}));
    held.metadata.finalizers = Some(vec!["example.com/hold".to_owned()]);
    api.create(&PostParams::default(), &held).await.unwrap();
    let deleting = api.delete("a", &DeleteParams::default()).await.unwrap().left().unwrap();
    assert!(deleting.metadata.deletion_timestamp.is_some());
    assert_eq!(deleting.metadata.generation, Some(2));
    let again = api.delete("a", &DeleteParams::default()).await.unwrap().left().unwrap();
    assert_eq!(again.metadata.resource_version, deleting.metadata.resource_version);
    let free = Patch::Merge(json!({ "metadata": { "finalizers": null } }));
    api.patch("a", &PatchParams::default(), &free).await.unwrap();
    assert!(api.get_opt("a").await.unwrap().is_none());
}

#[tokio::test]
async fn a_namespace_takes_its_content_along() {
    let client = client().await;
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), "work");
    let map: ConfigMap = serde_json::from_value(json!({ "metadata": { "name": "m" }, "data": { "a": "b" } })).unwrap();
    let kube::Error::Api(missing) = maps.create(&PostParams::default(), &map).await.unwrap_err() else {
        panic!("no API error");
    };
    assert_eq!(
        (missing.code, missing.message.as_str()),
        (404, "namespaces \"work\" not found")
    );
    let namespace: Namespace = serde_json::from_value(json!({ "metadata": { "name": "work" } })).unwrap();
    namespaces.create(&PostParams::default(), &namespace).await.unwrap();
    maps.create(&PostParams::default(), &map).await.unwrap();
    let since = namespaces
        .list(&ListParams::default())
        .await
        .unwrap()
        .metadata
        .resource_version
        .unwrap();
    let mut watch = namespaces.watch(&WatchParams::default(), &since).await.unwrap().boxed();
    let gone = namespaces
        .delete("work", &DeleteParams::default())
        .await
        .unwrap()
        .left()
        .unwrap();
    assert_eq!(gone.status.unwrap().phase.as_deref(), Some("Terminating"));
    loop {
        if let WatchEvent::Deleted(namespace) = watch.try_next().await.unwrap().unwrap() {
            assert_eq!(namespace.metadata.name.as_deref(), Some("work"));
            break;
        }
    }
    assert!(maps.list(&ListParams::default()).await.unwrap().items.is_empty());
}

#[tokio::test]
async fn dependents_follow_their_owner() {
    let client = client().await;
    let maps: Api<ConfigMap> = Api::default_namespaced(client.clone());
    let named = |name: &str| -> ConfigMap { serde_json::from_value(json!({ "metadata": { "name": name } })).unwrap() };
    let owner = maps.create(&PostParams::default(), &named("owner")).await.unwrap();
    let mut child = named("child");
    child.metadata.owner_references = Some(vec![
        serde_json::from_value(json!({
            "apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": owner.metadata.uid,
        }))
        .unwrap(),
    ]);
    maps.create(&PostParams::default(), &child).await.unwrap();
    let since = maps
        .list(&ListParams::default())
        .await
        .unwrap()
        .metadata
        .resource_version
        .unwrap();
    let mut watch = maps.watch(&WatchParams::default(), &since).await.unwrap().boxed();
    maps.delete("owner", &DeleteParams::default()).await.unwrap();
    let mut gone = Vec::new();
    while gone.len() < 2 {
        if let WatchEvent::Deleted(map) = watch.try_next().await.unwrap().unwrap() {
            gone.push(map.metadata.name.unwrap());
        }
    }
    assert_eq!(gone, ["owner", "child"]);
}
