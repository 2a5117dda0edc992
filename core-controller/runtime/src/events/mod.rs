//! Kubernetes events (`events.k8s.io/v1`): aggregated, rate-limited, and never in the
//! way of anything; an event that finds no room is counted and forgotten.
//!
//! Not for: what has to be known later; that is in conditions.

mod aggregate;

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::events::v1::Event as ApiEvent;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use kube::core::ObjectMeta;
use outrigger_planner::event::{Event, Severity};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::telemetry::{Metrics, Verb};
use aggregate::{Aggregator, Verdict};

/// How many events wait to be written.
const CAPACITY: usize = 1024;
/// How often series are looked at.
const TICK: Duration = Duration::from_secs(15);
/// How long writing an event may take.
const WRITE_DEADLINE: Duration = Duration::from_secs(10);
/// The longest note that the API server takes, in bytes.
const MAX_NOTE_BYTES: usize = 1024;
/// Who reports.
const CONTROLLER: &str = "cluster.outrigger.dev/core-controller";

/// Takes events from everywhere. Clones share the queue.
#[derive(Debug, Clone)]
pub struct Recorder {
    sender: mpsc::Sender<(ObjectReference, Event)>,
    metrics: Arc<Metrics>,
}

impl Recorder {
    /// Records that something happened to the object. Never blocks.
    pub fn record<K: kube::Resource<DynamicType = ()>>(&self, object: &K, event: Event) {
        if self.sender.try_send((object.object_ref(&()), event)).is_err() {
            self.metrics.count_dropped_event();
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct SeriesKey {
    uid: String,
    event: Event,
}

/// Where an event was written.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Written {
    namespace: String,
    name: String,
}

/// Makes the recorder and the future that writes until `shutdown`.
pub fn recorder(
    client: kube::Client,
    instance: String,
    per_second: u32,
    metrics: Arc<Metrics>,
    shutdown: CancellationToken,
) -> (Recorder, impl Future<Output = ()> + Send + 'static) {
    let (sender, receiver) = mpsc::channel(CAPACITY);
    let writer = Writer {
        client,
        instance,
        metrics: Arc::clone(&metrics),
        aggregator: Aggregator::new(per_second, Instant::now()),
    };
    (Recorder { sender, metrics }, writer.run(receiver, shutdown))
}

struct Writer {
    client: kube::Client,
    instance: String,
    metrics: Arc<Metrics>,
    aggregator: Aggregator<SeriesKey, Written>,
}

impl Writer {
    async fn run(mut self, mut receiver: mpsc::Receiver<(ObjectReference, Event)>, shutdown: CancellationToken) {
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                _ = tick.tick() => self.write_series().await,
                received = receiver.recv() => match received {
                    Some((regarding, event)) => self.write(regarding, event).await,
                    None => return,
                },
            }
        }
    }

    async fn write(&mut self, regarding: ObjectReference, event: Event) {
        let key = SeriesKey {
            uid: regarding.uid.clone().unwrap_or_default(),
            event: event.clone(),
        };
        match self
            .aggregator
            .record(key.clone(), event.severity == Severity::Warning, Instant::now())
        {
            Verdict::Write => {}
            Verdict::Counted => return,
            Verdict::Dropped => {
                self.metrics.count_dropped_event();
                return;
            }
        }
        let namespace = regarding.namespace.clone().unwrap_or_else(|| "default".to_owned());
        let name = format!(
            "{}.{:016x}",
            regarding.name.as_deref().unwrap_or("unknown"),
            rand::random::<u64>()
        );
        let api_event = ApiEvent {
            metadata: ObjectMeta {
                name: Some(name.clone()),
                namespace: Some(namespace.clone()),
                ..ObjectMeta::default()
            },
            action: Some(event.action.into_owned()),
            event_time: Some(MicroTime(jiff::Timestamp::now())),
            note: Some(actuator_proto::limits::bounded_text(&event.note, MAX_NOTE_BYTES)),
            reason: Some(event.reason.into_owned()),
            regarding: Some(regarding),
            reporting_controller: Some(CONTROLLER.to_owned()),
            reporting_instance: Some(self.instance.clone()),
            type_: Some(
                match event.severity {
                    Severity::Normal => "Normal",
                    Severity::Warning => "Warning",
                }
                .to_owned(),
            ),
            ..ApiEvent::default()
        };
        let api: Api<ApiEvent> = Api::namespaced(self.client.clone(), &namespace);
        let params = PostParams::default();
        let result = tokio::time::timeout(WRITE_DEADLINE, api.create(&params, &api_event)).await;
        self.metrics
            .count_write(Verb::Create, "events", matches!(result, Ok(Ok(_))));
        match result {
            Ok(Ok(_)) => self.aggregator.written(&key, Written { namespace, name }),
            Ok(Err(error)) => tracing::debug!(%error, "unable to write an event"),
            Err(_) => tracing::debug!("unable to write an event: no answer in time"),
        }
    }

    async fn write_series(&mut self) {
        for due in self.aggregator.due(Instant::now()) {
            let api: Api<ApiEvent> = Api::namespaced(self.client.clone(), &due.handle.namespace);
            let patch = serde_json::json!({
                "series": {"count": due.count, "lastObservedTime": MicroTime(jiff::Timestamp::now())}
            });
            let (params, patch) = (PatchParams::default(), Patch::Merge(&patch));
            let result = tokio::time::timeout(WRITE_DEADLINE, api.patch(&due.handle.name, &params, &patch)).await;
            self.metrics
                .count_write(Verb::Patch, "events", matches!(result, Ok(Ok(_))));
        }
    }
}
