//! Counters for Prometheus. Labels are methods, codes and registered reasons only: their
//! number is bounded and none of them comes from a request.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;

/// The metrics of one server; cheap to clone.
#[derive(Clone)]
pub struct Metrics(Arc<Inner>);

struct Inner {
    registry: Mutex<Registry>,
    calls: Family<CallLabels, Counter>,
    seconds: Family<MethodLabels, Histogram>,
    panics: Counter,
    joined: Counter,
    mutations_in_flight: Gauge,
    mutations_queued: Gauge,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CallLabels {
    method: &'static str,
    code: &'static str,
    reason: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct MethodLabels {
    method: &'static str,
}

fn histogram() -> Histogram {
    // From a look into memory to the longest deadline.
    Histogram::new([
        0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0,
    ])
}

impl Metrics {
    pub(crate) fn new(name: &str, version: &str) -> Self {
        let inner = Inner {
            registry: Mutex::new(Registry::default()),
            calls: Family::default(),
            seconds: Family::new_with_constructor(histogram as fn() -> Histogram),
            panics: Counter::default(),
            joined: Counter::default(),
            mutations_in_flight: Gauge::default(),
            mutations_queued: Gauge::default(),
        };
        let mut registry = inner.registry.lock();
        registry.register(
            "actuator_calls",
            "Calls by method, gRPC code and reason",
            inner.calls.clone(),
        );
        registry.register(
            "actuator_call_duration_seconds",
            "Seconds from a call's arrival to its answer",
            inner.seconds.clone(),
        );
        registry.register("actuator_panics", "Panics of the provider's code", inner.panics.clone());
        registry.register(
            "actuator_mutations_joined",
            "Requests that joined a mutation that was running already",
            inner.joined.clone(),
        );
        registry.register(
            "actuator_mutations_in_flight",
            "Mutations that run now, whether or not their callers still wait",
            inner.mutations_in_flight.clone(),
        );
        registry.register(
            "actuator_mutations_queued",
            "Deletions queued behind another mutation of their key now",
            inner.mutations_queued.clone(),
        );
        registry.register(
            "actuator_provider",
            "What this provider is",
            Info::new(vec![("name", name.to_owned()), ("version", version.to_owned())]),
        );
        drop(registry);
        Self(Arc::new(inner))
    }

    /// Adds the provider's own metrics.
    pub fn register(&self, add: impl FnOnce(&mut Registry)) {
        add(&mut self.0.registry.lock());
    }

    /// All metrics as OpenMetrics text.
    pub fn encode(&self) -> String {
        let mut text = String::new();
        // Writing to a String cannot fail.
        let _ = prometheus_client::encoding::text::encode(&mut text, &self.0.registry.lock());
        text
    }

    pub(crate) fn called(&self, method: &'static str, code: &'static str, reason: &'static str, took: Duration) {
        self.0.calls.get_or_create(&CallLabels { method, code, reason }).inc();
        self.0
            .seconds
            .get_or_create(&MethodLabels { method })
            .observe(took.as_secs_f64());
    }

    pub(crate) fn panicked(&self) {
        self.0.panics.inc();
    }

    pub(crate) fn joined(&self) -> Counter {
        self.0.joined.clone()
    }

    pub(crate) fn mutations(&self, in_flight: usize, queued: usize) {
        self.0.mutations_in_flight.set(in_flight as i64);
        self.0.mutations_queued.set(queued as i64);
    }
}
