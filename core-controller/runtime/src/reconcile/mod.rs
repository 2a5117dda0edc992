//! The loop: take an object from the queue, gather what is known of it, have it
//! planned, carry the plan out. One module per kind.
//!
//! Not for: deciding.

mod cluster;
mod machine;
mod machine_deployment;
mod machine_set;
mod provider;
pub mod route;
mod status;

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use outrigger_api::Cluster;
use outrigger_planner::event::Event;
use provider_host::Host;
use tokio::time::Instant;

use crate::events::Recorder;
use crate::execute::{WriteError, Writer};
use crate::index::Index;
use crate::lease::{Claim, Leadership};
use crate::memory::Memory;
use crate::names::{Key, Kind, Name};
use crate::operations::{Operations, Secrets};
use crate::options::Options;
use crate::providers::hints::Hints;
use crate::providers::snapshots::Snapshots;
use crate::queue::WorkQueue;
use crate::telemetry::Metrics;
use route::Router;

/// What a worker needs.
pub struct Reconciler {
    /// How the core is set up.
    pub options: Options,
    /// The objects.
    pub index: Arc<Index>,
    /// What to look at.
    pub queue: WorkQueue<Key>,
    /// Who has to look.
    pub router: Router,
    /// Writes.
    pub writer: Writer,
    /// Calls to providers.
    pub operations: Operations,
    /// What was learned.
    pub memory: Arc<Memory>,
    /// Events.
    pub recorder: Recorder,
    /// The providers.
    pub host: Host,
    /// The providers as the planners see them.
    pub snapshots: Arc<Snapshots>,
    /// Streams of hints.
    pub hints: Arc<Hints>,
    /// TLS files of remote providers.
    pub secrets: Arc<Secrets>,
    /// Whether we lead.
    pub leadership: Leadership,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// The claim under which this reconciler works.
    pub claim: Claim,
    /// Since when we lead.
    pub leading_since: Timestamp,
}

impl std::fmt::Debug for Reconciler {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reconciler").finish_non_exhaustive()
    }
}

/// When to look at an object again.
type Again = Option<Duration>;

impl Reconciler {
    /// Works until the queue is closed.
    pub async fn work(&self) {
        while let Some(work) = self.queue.next().await {
            let key = work.key().clone();
            // The plan that comes says anew when to look again.
            self.queue.forget(&key);
            let started = Instant::now();
            let result = match key.kind {
                Kind::Provider => self.reconcile_provider(&key).await,
                Kind::Cluster => self.reconcile_cluster(&key).await,
                Kind::MachineDeployment => self.reconcile_machine_deployment(&key).await,
                Kind::MachineSet => self.reconcile_machine_set(&key).await,
                Kind::Machine => self.reconcile_machine(&key).await,
            };
            self.metrics.count_reconcile(key.kind.as_str(), started.elapsed());
            let again = match result {
                Ok(again) => {
                    self.memory.write_succeeded(&key);
                    again
                }
                Err(error) => Some(self.after_failed_write(&key, &error)),
            };
            if let Some(after) = again {
                self.queue.add_after(key, after);
            }
        }
    }

    fn after_failed_write(&self, key: &Key, error: &WriteError) -> Duration {
        let after = self.memory.write_failed(key);
        match error {
            // The process is about to end, or the lease is renewed late.
            WriteError::NotLeading(_) => after,
            WriteError::Conflict(_) | WriteError::Gone(_) => {
                // The watch will tell; should it not, look again all the same.
                tracing::debug!(kind = key.kind.as_str(), name = %key.name, %error, "planned again");
                after
            }
            WriteError::Busy { after: asked, .. } => after.max(*asked),
            WriteError::Refused { .. } => {
                tracing::warn!(kind = key.kind.as_str(), name = %key.name, %error, "tried again");
                after
            }
            WriteError::Unknown { .. } => {
                tracing::info!(kind = key.kind.as_str(), name = %key.name, %error, "tried again");
                after
            }
        }
    }

    /// The Cluster of this name in a namespace.
    fn cluster_of(&self, namespace: &str, cluster: &str) -> Option<Arc<Cluster>> {
        self.index.clusters.read().get(&Name::new(namespace, cluster))
    }

    fn record<K: kube::Resource<DynamicType = ()>>(&self, object: &K, events: Vec<Event>) {
        for event in events {
            self.recorder.record(object, event);
        }
    }
}

/// The sooner of two times to look again.
fn sooner(a: Again, b: Again) -> Again {
    [a, b].into_iter().flatten().min()
}
