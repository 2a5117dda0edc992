//! What writers may rely on: refusals, validation, applies, definitions, deletion, garbage collection.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // helpers of tests are tests

mod support;

use http::Method;
use serde_json::json;
use support::{Client, MAPS, WIDGETS, definition, map, owned, revision, widget};

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
        "widgets.example.com \"a\" is invalid: metadata.resourceVersion: Invalid value: 0: must be specified for an update"
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
        (&core["apiVersion"], &item["reportingComponent"]),
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
