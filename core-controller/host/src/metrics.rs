//! What the host counts, for Prometheus. Labels are bounded: providers by name, calls
//! by RPC, results by registered reason or code.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use actuator_proto::errors::table::RULES;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};
use tonic::Code;

use crate::breaker::CircuitState;
use crate::disposition::Refusal;
use crate::rpc::{Lane, Rpc};
use crate::snapshot::ProviderState;
use actuator_proto::errors::table::code_name;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CallLabels {
    provider: Arc<str>,
    rpc: &'static str,
    result: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RpcLabels {
    provider: Arc<str>,
    rpc: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct LaneLabels {
    provider: Arc<str>,
    lane: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ProviderLabels {
    provider: Arc<str>,
}

/// The host's metrics; clones count together.
#[derive(Debug, Clone)]
pub struct HostMetrics {
    calls: Family<CallLabels, Counter>,
    durations: Family<RpcLabels, Histogram, fn() -> Histogram>,
    in_flight: Family<LaneLabels, Gauge>,
    queued: Family<LaneLabels, Gauge>,
    circuit: Family<ProviderLabels, Gauge>,
    ready: Family<ProviderLabels, Gauge>,
    connections: Family<ProviderLabels, Counter<u64, AtomicU64>>,
    sessions: Family<ProviderLabels, Counter<u64, AtomicU64>>,
    pauses: Family<ProviderLabels, Counter<u64, AtomicU64>>,
}

fn histogram() -> Histogram {
    // 1 ms to 262 s: a call over a socket up to the longest deadline.
    Histogram::new(exponential_buckets(0.001, 4.0, 10))
}

impl Default for HostMetrics {
    fn default() -> Self {
        Self {
            calls: Family::default(),
            durations: Family::new_with_constructor(histogram),
            in_flight: Family::default(),
            queued: Family::default(),
            circuit: Family::default(),
            ready: Family::default(),
            connections: Family::default(),
            sessions: Family::default(),
            pauses: Family::default(),
        }
    }
}

impl HostMetrics {
    /// Registers all metrics under `outrigger_provider_…`.
    pub fn register(&self, registry: &mut Registry) {
        let registry = registry.sub_registry_with_prefix("outrigger_provider");
        registry.register("calls", "Calls to providers by result", self.calls.clone());
        registry.register_with_unit(
            "call_duration",
            "Durations of calls that were sent",
            Unit::Seconds,
            self.durations.clone(),
        );
        registry.register("calls_in_flight", "Calls that run now", self.in_flight.clone());
        registry.register("calls_queued", "Calls that wait for their turn", self.queued.clone());
        registry.register("circuit", "0 closed, 1 half-open, 2 open", self.circuit.clone());
        registry.register("ready", "1 when the provider is ready", self.ready.clone());
        registry.register("connections", "Connections made to providers", self.connections.clone());
        registry.register("sessions", "Processes of providers met", self.sessions.clone());
        registry.register("pauses", "Pauses that providers asked for", self.pauses.clone());
    }

    pub(crate) fn called(&self, provider: &Arc<str>, rpc: Rpc, result: &'static str, duration: Option<Duration>) {
        self.calls
            .get_or_create(&CallLabels {
                provider: provider.clone(),
                rpc: rpc.name(),
                result,
            })
            .inc();
        if let Some(duration) = duration {
            self.durations
                .get_or_create(&RpcLabels {
                    provider: provider.clone(),
                    rpc: rpc.name(),
                })
                .observe(duration.as_secs_f64());
        }
    }

    pub(crate) fn lane_gauges(&self, provider: &Arc<str>, lane: Lane) -> (Gauge, Gauge) {
        let labels = LaneLabels {
            provider: provider.clone(),
            lane: lane.name(),
        };
        (
            self.in_flight.get_or_create_owned(&labels),
            self.queued.get_or_create_owned(&labels),
        )
    }

    pub(crate) fn state(&self, provider: &Arc<str>, state: ProviderState, circuit: CircuitState) {
        let labels = ProviderLabels {
            provider: provider.clone(),
        };
        self.ready
            .get_or_create(&labels)
            .set(i64::from(state == ProviderState::Ready));
        self.circuit.get_or_create(&labels).set(match circuit {
            CircuitState::Closed => 0,
            CircuitState::HalfOpen => 1,
            CircuitState::Open => 2,
        });
    }

    pub(crate) fn connected(&self, provider: &Arc<str>, new_session: bool) {
        let labels = ProviderLabels {
            provider: provider.clone(),
        };
        self.connections.get_or_create(&labels).inc();
        if new_session {
            self.sessions.get_or_create(&labels).inc();
        }
    }

    pub(crate) fn paused(&self, provider: &Arc<str>) {
        self.pauses
            .get_or_create(&ProviderLabels {
                provider: provider.clone(),
            })
            .inc();
    }

    /// Forgets a provider that was removed, so that labels stay bounded.
    pub(crate) fn forget(&self, provider: &Arc<str>) {
        for rpc in Rpc::ALL {
            for result in results() {
                self.calls.remove(&CallLabels {
                    provider: provider.clone(),
                    rpc: rpc.name(),
                    result,
                });
            }
            self.durations.remove(&RpcLabels {
                provider: provider.clone(),
                rpc: rpc.name(),
            });
        }
        for lane in Lane::ALL {
            let labels = LaneLabels {
                provider: provider.clone(),
                lane: lane.name(),
            };
            self.in_flight.remove(&labels);
            self.queued.remove(&labels);
        }
        let labels = ProviderLabels {
            provider: provider.clone(),
        };
        self.circuit.remove(&labels);
        self.ready.remove(&labels);
        self.connections.remove(&labels);
        self.sessions.remove(&labels);
        self.pauses.remove(&labels);
    }
}

/// All values of the label `result`.
fn results() -> impl Iterator<Item = &'static str> {
    let reasons = RULES.iter().map(|rule| rule.reason.wire_name());
    let codes = (0..=16).map(|code| code_name(Code::from(code)));
    let refusals = [
        Refusal::Unavailable,
        Refusal::Paused,
        Refusal::Busy,
        Refusal::CapabilityMissing,
    ];
    reasons.chain(codes).chain(refusals.map(Refusal::name))
}
