//! What the process counts, for Prometheus.
//!
//! Not for: labels from outside whose number nobody bounds; names of objects are
//! never labels.

use std::sync::atomic::AtomicU64;
use std::time::Duration;

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::{Family, MetricConstructor};
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

/// A verb of the Kubernetes API.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Verb {
    /// Create.
    Create,
    /// Replace.
    Update,
    /// Patch.
    Patch,
    /// Delete.
    Delete,
}

impl Verb {
    /// The verb as RBAC spells it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Update => "update",
            Self::Patch => "patch",
            Self::Delete => "delete",
        }
    }
}

impl EncodeLabelValue for Verb {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), std::fmt::Error> {
        EncodeLabelValue::encode(&self.as_str(), encoder)
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct WriteLabels {
    verb: Verb,
    resource: &'static str,
    result: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct KindLabels {
    kind: &'static str,
}

#[derive(Debug, Clone, Copy)]
struct Latency;

impl MetricConstructor<Histogram> for Latency {
    fn new_metric(&self) -> Histogram {
        // From 0.5 ms to 65 s.
        Histogram::new(exponential_buckets(0.0005, 2.0, 18))
    }
}

/// The metrics of one core.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    host: parking_lot::Mutex<Registry>,
    writes: Family<WriteLabels, Counter>,
    reconciles: Family<KindLabels, Counter>,
    reconcile_seconds: Family<KindLabels, Histogram, Latency>,
    objects: Family<KindLabels, Gauge>,
    relists: Family<KindLabels, Counter>,
    events_dropped: Counter,
    queue_ready: Gauge,
    queue_working: Gauge,
    queue_waiting: Gauge,
    operations_queued: Gauge,
    leading: Gauge,
    resident_bytes: Gauge,
    cpu_seconds: Gauge<f64, AtomicU64>,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// Fresh metrics, all zero.
    pub fn new() -> Self {
        let mut metrics = Self {
            registry: Registry::default(),
            host: parking_lot::Mutex::default(),
            writes: Family::default(),
            reconciles: Family::default(),
            reconcile_seconds: Family::new_with_constructor(Latency),
            objects: Family::default(),
            relists: Family::default(),
            events_dropped: Counter::default(),
            queue_ready: Gauge::default(),
            queue_working: Gauge::default(),
            queue_waiting: Gauge::default(),
            operations_queued: Gauge::default(),
            leading: Gauge::default(),
            resident_bytes: Gauge::default(),
            cpu_seconds: Gauge::default(),
        };
        let mut registry = Registry::with_prefix("outrigger");
        registry.register(
            "api_writes",
            "Writes to the Kubernetes API server by verb, resource and result",
            metrics.writes.clone(),
        );
        registry.register("reconciles", "Plans made, by kind", metrics.reconciles.clone());
        registry.register(
            "reconcile_seconds",
            "Time to plan and execute, without provider calls",
            metrics.reconcile_seconds.clone(),
        );
        registry.register("objects", "Objects known, by kind", metrics.objects.clone());
        registry.register(
            "relists",
            "Complete lists read from the Kubernetes API server, by kind",
            metrics.relists.clone(),
        );
        registry.register(
            "events_dropped",
            "Kubernetes events that were not written because there were too many",
            metrics.events_dropped.clone(),
        );
        registry.register(
            "queue_ready",
            "Objects ready to be planned",
            metrics.queue_ready.clone(),
        );
        registry.register("queue_working", "Objects being planned", metrics.queue_working.clone());
        registry.register(
            "queue_waiting",
            "Objects that are looked at again later",
            metrics.queue_waiting.clone(),
        );
        registry.register(
            "operations_queued",
            "Provider calls that wait or run",
            metrics.operations_queued.clone(),
        );
        registry.register("leading", "Whether this process leads", metrics.leading.clone());
        let process = registry.sub_registry_with_prefix("process");
        process.register(
            "resident_memory_bytes",
            "Resident memory of the process",
            metrics.resident_bytes.clone(),
        );
        process.register(
            "cpu_seconds",
            "Processor time of the process, user and system",
            metrics.cpu_seconds.clone(),
        );
        metrics.registry = registry;
        metrics
    }

    /// Counts a write to the API server.
    pub fn count_write(&self, verb: Verb, resource: &'static str, accepted: bool) {
        let result = if accepted { "accepted" } else { "failed" };
        self.writes.get_or_create(&WriteLabels { verb, resource, result }).inc();
    }

    /// How many writes of this verb to this resource were accepted or failed.
    pub fn writes(&self, verb: Verb, resource: &'static str) -> u64 {
        ["accepted", "failed"]
            .into_iter()
            .filter_map(|result| {
                let counter = self.writes.get(&WriteLabels { verb, resource, result })?;
                Some(counter.get())
            })
            .sum()
    }

    /// Counts a plan made and executed.
    pub fn count_reconcile(&self, kind: &'static str, took: Duration) {
        let labels = KindLabels { kind };
        self.reconciles.get_or_create(&labels).inc();
        self.reconcile_seconds
            .get_or_create(&labels)
            .observe(took.as_secs_f64());
    }

    /// Tells the host's metrics along with these.
    pub fn register_host(&self, host: &provider_host::HostMetrics) {
        let mut registry = Registry::default();
        host.register(&mut registry);
        *self.host.lock() = registry;
    }

    /// Sets how many objects of a kind are known.
    pub fn set_objects(&self, kind: &'static str, count: usize) {
        self.objects.get_or_create(&KindLabels { kind }).set(count as i64);
    }

    /// Counts a complete list.
    pub fn count_relist(&self, kind: &'static str) {
        self.relists.get_or_create(&KindLabels { kind }).inc();
    }

    /// Counts an event that was not written.
    pub fn count_dropped_event(&self) {
        self.events_dropped.inc();
    }

    /// Sets the lengths of the work queue.
    pub fn set_queue(&self, ready: usize, working: usize, waiting: usize) {
        self.queue_ready.set(ready as i64);
        self.queue_working.set(working as i64);
        self.queue_waiting.set(waiting as i64);
    }

    /// One more (or, with -1, one less) provider call waits or runs.
    pub fn add_operations(&self, more: i64) {
        self.operations_queued.inc_by(more);
    }

    /// Sets whether this process leads.
    pub fn set_leading(&self, leading: bool) {
        self.leading.set(i64::from(leading));
    }

    /// All of it as OpenMetrics text.
    pub fn encode(&self) -> Result<String, std::fmt::Error> {
        if let Some((resident, cpu)) = read_process() {
            self.resident_bytes.set(resident);
            self.cpu_seconds.set(cpu);
        }
        let mut text = String::new();
        prometheus_client::encoding::text::encode_registry(&mut text, &self.registry)?;
        prometheus_client::encoding::text::encode(&mut text, &self.host.lock())?;
        Ok(text)
    }
}

/// Resident bytes and processor seconds of this process, where the system tells.
fn read_process() -> Option<(i64, f64)> {
    // The sizes that Linux has used on every platform for decades.
    const PAGE_BYTES: i64 = 4096;
    const TICKS_PER_SECOND: f64 = 100.0;
    let statm = std::fs::read_to_string("/proc/self/statm").ok()?;
    let resident: i64 = statm.split_whitespace().nth(1)?.parse().ok()?;
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    // The name of the process, in parentheses, may contain spaces.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let user: f64 = fields.next()?.parse().ok()?;
    let system: f64 = fields.next()?.parse().ok()?;
    Some((resident * PAGE_BYTES, (user + system) / TICKS_PER_SECOND))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_are_counted_by_verb_and_resource() {
        let metrics = Metrics::new();
        metrics.count_write(Verb::Create, "machines", true);
        metrics.count_write(Verb::Create, "machines", false);
        metrics.count_write(Verb::Patch, "machines/status", true);
        assert_eq!(metrics.writes(Verb::Create, "machines"), 2);
        assert_eq!(metrics.writes(Verb::Delete, "machines"), 0);
        let text = metrics.encode().unwrap();
        assert!(
            text.contains(r#"outrigger_api_writes_total{verb="patch",resource="machines/status",result="accepted"} 1"#),
            "{text}"
        );
        assert!(text.contains("outrigger_process_resident_memory_bytes"), "{text}");
    }
}
