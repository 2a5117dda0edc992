//! kube-rs's runtime: watchers in each strategy, reflectors, a controller with finalizers and
//! owned objects, the events recorder, and conditions that are waited for.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // helpers of tests are tests

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use clients::stage::Stage;
use embedded_apiserver::HistoryLimits;
use futures::{StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{ConfigMap, Event};
use kube::api::{Api, DeleteParams, ListParams, ObjectMeta, Patch, PatchParams, PostParams};
use kube::core::PartialObjectMeta;
use kube::runtime::controller::{Action, Controller};
use kube::runtime::events::{Event as Note, EventType, Recorder, Reporter};
use kube::runtime::finalizer::{Event as Finalizing, finalizer};
use kube::runtime::reflector::{self, store};
use kube::runtime::wait::{await_condition, conditions};
use kube::runtime::watcher::{self, watcher};
use kube::runtime::{WatchStreamExt as _, predicates};
use kube::{CustomResource, Resource as _, ResourceExt as _};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

const GROUP: &str = "rust.example.com";
const PATIENCE: Duration = Duration::from_mins(2);

#[derive(CustomResource, Debug, Clone, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[kube(
    group = "rust.example.com",
    version = "v1",
    kind = "Widget",
    namespaced,
    status = "WidgetStatus"
)]
#[serde(rename_all = "camelCase")]
struct WidgetSpec {
    replicas: i32,
}

#[derive(Debug, Clone, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
struct WidgetStatus {
    replicas: Option<i32>,
    observed_generation: Option<i64>,
}

async fn start(history: HistoryLimits) -> (Stage, kube::Client) {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let stage = Stage::start(history).await.unwrap();
    stage.define(GROUP).await.unwrap();
    let client = stage.client().await.unwrap();
    (stage, client)
}

fn map(name: &str, number: usize) -> ConfigMap {
    ConfigMap {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            labels: Some(BTreeMap::from([("app".to_owned(), "watched".to_owned())])),
            ..ObjectMeta::default()
        },
        data: Some(BTreeMap::from([("number".to_owned(), number.to_string())])),
        ..ConfigMap::default()
    }
}

async fn in_time<T>(what: &str, happens: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, happens)
        .await
        .unwrap_or_else(|_| panic!("never: {what}"))
}

/// Each way to begin: what there is comes first, between the marks, and then what happens.
async fn sees_all(client: &kube::Client, config: watcher::Config, run: usize) {
    let maps: Api<ConfigMap> = Api::default_namespaced(client.clone());
    for number in 0..25 {
        let made = map(&format!("r{run}-{number:02}"), number);
        maps.create(&PostParams::default(), &made).await.unwrap();
    }
    let mut events = std::pin::pin!(watcher(maps.clone(), config.labels("app=watched")));
    let mut first = Vec::new();
    in_time("the first list", async {
        assert!(matches!(events.next().await, Some(Ok(watcher::Event::Init))));
        loop {
            match events.next().await.unwrap().unwrap() {
                watcher::Event::InitApply(map) => first.push(map.name_any()),
                watcher::Event::InitDone => break,
                other => panic!("{other:?} while the list was not done"),
            }
        }
    })
    .await;
    first.sort();
    let wanted: Vec<String> = (0..25).map(|number| format!("r{run}-{number:02}")).collect();
    assert_eq!(first, wanted);
    let patch = Patch::Merge(json!({ "data": { "number": "changed" } }));
    maps.patch(&wanted[3], &PatchParams::default(), &patch).await.unwrap();
    maps.delete(&wanted[4], &DeleteParams::default()).await.unwrap();
    in_time("the change and the deletion", async {
        match events.next().await.unwrap().unwrap() {
            watcher::Event::Apply(changed) => assert_eq!(changed.data.unwrap()["number"], "changed"),
            other => panic!("{other:?}"),
        }
        match events.next().await.unwrap().unwrap() {
            watcher::Event::Delete(gone) => assert_eq!(gone.name_any(), wanted[4]),
            other => panic!("{other:?}"),
        }
    })
    .await;
    maps.delete_collection(&DeleteParams::default(), &ListParams::default().labels("app=watched"))
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn watchers_begin_in_every_way() {
    let (mut stage, client) = start(HistoryLimits::default()).await;
    let ways = [
        watcher::Config::default(),
        watcher::Config::default().page_size(10),
        watcher::Config::default().any_semantic(),
        watcher::Config::default().streaming_lists(),
        watcher::Config::default().disable_bookmarks(),
    ];
    for (run, way) in ways.into_iter().enumerate() {
        sees_all(&client, way, run).await;
    }
    drop(client);
    stage.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watcher_lives_through_a_restart_and_forgets_nothing() {
    let (mut stage, client) = start(HistoryLimits {
        events: 50,
        bytes: 1 << 20,
    })
    .await;
    let maps: Api<ConfigMap> = Api::default_namespaced(client.clone());
    for number in 0..10 {
        maps.create(&PostParams::default(), &map(&format!("m-{number}"), number))
            .await
            .unwrap();
    }
    let (reader, writer) = store();
    let config = watcher::Config::default().labels("app=watched").streaming_lists();
    let stream = watcher(maps.clone(), config).default_backoff();
    let following = tokio::spawn(reflector::reflector(writer, stream).for_each(|_| async {}));
    in_time("the reflector's list", reader.wait_until_ready())
        .await
        .unwrap();
    assert_eq!(reader.len(), 10);

    stage.stop().await;
    stage.resume().await.unwrap();
    let maps: Api<ConfigMap> = Api::default_namespaced(stage.client().await.unwrap());
    // More than the history holds, before the watcher has come back.
    for number in 0..100 {
        let patch = Patch::Merge(json!({ "data": { "number": number.to_string() } }));
        maps.patch("m-0", &PatchParams::default(), &patch).await.unwrap();
    }
    maps.delete("m-1", &DeleteParams::default()).await.unwrap();
    let fresh = maps.list(&ListParams::default().labels("app=watched")).await.unwrap();
    let revisions = |maps: &mut dyn Iterator<Item = ConfigMap>| {
        maps.map(|map| (map.name_any(), map.resource_version().unwrap()))
            .collect::<BTreeMap<_, _>>()
    };
    let wanted = revisions(&mut fresh.items.into_iter());
    in_time("the reflector has what the server has", async {
        while revisions(&mut reader.state().iter().map(|map| (**map).clone())) != wanted {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    following.abort();
    stage.stop().await;
}

#[derive(Debug, thiserror::Error)]
enum ReconcileError {
    #[error(transparent)]
    Kube(#[from] kube::Error),
    #[error("the finalizer: {0}")]
    Finalizer(#[source] Box<kube::runtime::finalizer::Error<ReconcileError>>),
}

struct Context {
    client: kube::Client,
    recorder: Recorder,
}

async fn reconcile(widget: Arc<Widget>, context: Arc<Context>) -> Result<Action, ReconcileError> {
    let widgets: Api<Widget> = Api::default_namespaced(context.client.clone());
    finalizer(&widgets, "example.com/hold", widget, |event| async {
        match event {
            Finalizing::Apply(widget) => apply(&widget, &context).await,
            Finalizing::Cleanup(widget) => {
                let note = note("Cleaned", "it is being deleted");
                context.recorder.publish(&note, &widget.object_ref(&())).await?;
                Ok(Action::await_change())
            }
        }
    })
    .await
    .map_err(|error| ReconcileError::Finalizer(Box::new(error)))
}

fn note(reason: &str, text: &str) -> Note {
    Note {
        type_: EventType::Normal,
        reason: reason.to_owned(),
        note: Some(text.to_owned()),
        action: "Reconcile".to_owned(),
        secondary: None,
    }
}

/// A ConfigMap of each widget's own, server-side applied, and the status.
async fn apply(widget: &Widget, context: &Context) -> Result<Action, ReconcileError> {
    let name = widget.name_any();
    let mut child = map(&name, widget.spec.replicas as usize);
    child.metadata.owner_references = widget.controller_owner_ref(&()).map(|owner| vec![owner]);
    let by = PatchParams::apply("controller").force();
    let maps: Api<ConfigMap> = Api::default_namespaced(context.client.clone());
    maps.patch(&name, &by, &Patch::Apply(&child)).await?;
    let status = json!({
        "apiVersion": Widget::api_version(&()),
        "kind": Widget::kind(&()),
        "status": { "replicas": widget.spec.replicas, "observedGeneration": widget.metadata.generation },
    });
    let widgets: Api<Widget> = Api::default_namespaced(context.client.clone());
    widgets.patch_status(&name, &by, &Patch::Apply(&status)).await?;
    let reference = widget.object_ref(&());
    context
        .recorder
        .publish(&note("Reconciled", "it is as it should be"), &reference)
        .await?;
    Ok(Action::await_change())
}

fn settled(replicas: i32) -> impl kube::runtime::wait::Condition<Widget> {
    move |widget: Option<&Widget>| {
        widget.is_some_and(|widget| {
            let status = widget.status.clone().unwrap_or_default();
            status.replicas == Some(replicas) && status.observed_generation == widget.metadata.generation
        })
    }
}

async fn with_controller(config: watcher::Config) {
    let (mut stage, client) = start(HistoryLimits::default()).await;
    let widgets: Api<Widget> = Api::default_namespaced(client.clone());
    let maps: Api<ConfigMap> = Api::default_namespaced(client.clone());
    let context = Arc::new(Context {
        client: client.clone(),
        recorder: Recorder::new(client.clone(), Reporter::from("controller")),
    });
    let controller = Controller::new(widgets.clone(), config.clone())
        .owns(maps.clone(), config)
        .run(
            reconcile,
            |_, error, _| panic!("a reconciliation failed: {error}"),
            context,
        );
    let running = tokio::spawn(controller.for_each(|done| async { drop(done.unwrap()) }));

    for number in 0..10 {
        let widget = Widget::new(&format!("w-{number}"), WidgetSpec { replicas: number });
        widgets.create(&PostParams::default(), &widget).await.unwrap();
    }
    for number in 0..10 {
        let name = format!("w-{number}");
        let there = await_condition(widgets.clone(), &name, settled(number));
        in_time("each widget is settled", there).await.unwrap();
        assert_eq!(
            maps.get(&name).await.unwrap().data.unwrap()["number"],
            number.to_string()
        );
    }
    let bigger = Patch::Merge(json!({ "spec": { "replicas": 100 } }));
    widgets.patch("w-3", &PatchParams::default(), &bigger).await.unwrap();
    in_time(
        "the change is settled",
        await_condition(widgets.clone(), "w-3", settled(100)),
    )
    .await
    .unwrap();

    // An owned object that someone removes comes back, since its owner is reconciled.
    let child = maps.get("w-5").await.unwrap();
    maps.delete("w-5", &DeleteParams::default()).await.unwrap();
    let uid = child.uid().unwrap();
    in_time(
        "the child's end",
        await_condition(maps.clone(), "w-5", conditions::is_deleted(&uid)),
    )
    .await
    .unwrap();
    in_time(
        "the new child",
        await_condition(maps.clone(), "w-5", conditions::is_created()),
    )
    .await
    .unwrap();

    // The end: the finalizer is taken off, the children go with their owner, the events stay.
    let uid = widgets.get("w-7").await.unwrap().uid().unwrap();
    widgets.delete("w-7", &DeleteParams::default()).await.unwrap();
    in_time(
        "the widget's end",
        await_condition(widgets.clone(), "w-7", conditions::is_deleted(&uid)),
    )
    .await
    .unwrap();
    in_time("the child's end", async {
        while maps.get_opt("w-7").await.unwrap().is_some() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    let events: Api<Event> = Api::default_namespaced(client.clone());
    let about = ListParams::default().fields(&format!("involvedObject.uid={uid}"));
    let mut reasons: Vec<String> = events
        .list(&about)
        .await
        .unwrap()
        .into_iter()
        .filter_map(|event| event.reason)
        .collect();
    reasons.sort();
    reasons.dedup();
    assert_eq!(reasons, ["Cleaned", "Reconciled"]);
    running.abort();
    drop((client, widgets, maps, events));
    stage.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_controller_that_lists_and_watches() {
    with_controller(watcher::Config::default()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_controller_with_streaming_lists() {
    with_controller(watcher::Config::default().streaming_lists()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn metadata_alone_and_changes_of_generation() {
    let (mut stage, client) = start(HistoryLimits::default()).await;
    let widgets: Api<Widget> = Api::default_namespaced(client.clone());
    let partial: Api<PartialObjectMeta<Widget>> = Api::default_namespaced(client.clone());
    let stream = watcher(partial, watcher::Config::default())
        .applied_objects()
        .predicate_filter(predicates::generation, Default::default());
    let mut stream = std::pin::pin!(stream);
    let widget = Widget::new("a", WidgetSpec { replicas: 1 });
    let parameters = PostParams::default();
    // The watcher begins with its first poll; what is made before or after it is seen either way.
    let (made, first) = tokio::join!(
        widgets.create(&parameters, &widget),
        in_time("the first", stream.try_next())
    );
    assert_eq!(first.unwrap().unwrap().metadata.generation, Some(1));
    assert_eq!(made.unwrap().metadata.generation, Some(1));
    let status = Patch::Merge(json!({ "status": { "replicas": 1 } }));
    widgets
        .patch_status("a", &PatchParams::default(), &status)
        .await
        .unwrap();
    let spec = Patch::Merge(json!({ "spec": { "replicas": 2 } }));
    widgets.patch("a", &PatchParams::default(), &spec).await.unwrap();
    // The status made no generation, and so no event.
    let second = in_time("the second", stream.try_next()).await.unwrap().unwrap();
    assert_eq!(second.metadata.generation, Some(2));
    drop((client, widgets));
    stage.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lease_is_taken_by_one_of_many() {
    let (mut stage, client) = start(HistoryLimits::default()).await;
    let leases: Api<Lease> = Api::default_namespaced(client.clone());
    let free: Lease = serde_json::from_value(json!({
        "metadata": { "name": "taken" },
        "spec": { "leaseDurationSeconds": 10, "renewTime": "2026-01-02T03:04:05.000006Z" },
    }))
    .unwrap();
    let free = leases.create(&PostParams::default(), &free).await.unwrap();
    let takes = (0..16).map(|number| {
        let (leases, mut lease) = (leases.clone(), free.clone());
        async move {
            lease.spec.as_mut().unwrap().holder_identity = Some(format!("candidate-{number}"));
            leases.replace("taken", &PostParams::default(), &lease).await
        }
    });
    let outcomes = futures::future::join_all(takes).await;
    let taken: Vec<Lease> = outcomes
        .iter()
        .filter_map(|outcome| outcome.as_ref().ok().cloned())
        .collect();
    assert_eq!(taken.len(), 1);
    for refused in outcomes.into_iter().filter_map(Result::err) {
        match refused {
            kube::Error::Api(status) => assert_eq!((status.code, status.reason.as_str()), (409, "Conflict")),
            other => panic!("{other}"),
        }
    }
    let now = leases.get("taken").await.unwrap();
    assert_eq!(now.spec, taken[0].spec);
    assert_eq!(now.spec.unwrap().renew_time, free.spec.unwrap().renew_time);
    drop((client, leases));
    stage.stop().await;
}
