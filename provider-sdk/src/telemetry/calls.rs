//! One span, one log line and one count for each call, whatever becomes of it. Only
//! names, codes and sizes are in them, never a request.

use actuator_proto::errors::table::code_name;
use actuator_proto::errors::{ActuatorError, Classified};
use actuator_proto::limits::{MAX_STRING_BYTES, bounded_text};
use actuator_proto::v1;
use opentelemetry::propagation::{Extractor, TextMapPropagator};
use opentelemetry::trace::TraceContextExt;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use tokio::time::Instant;
use tonic::metadata::{KeyRef, MetadataMap};
use tonic::{Code, Status};
use tracing::field::Empty;
use tracing::{Instrument, Span};
use tracing_opentelemetry::OpenTelemetrySpanExt;

use super::metrics::Metrics;

/// What a call is about, for its span. Everything here comes from the caller and is
/// bounded before it is shown.
#[derive(Debug, Default)]
pub(crate) struct About {
    key: String,
    generation: i64,
    attempt: i32,
    namespace: String,
    cluster: String,
    object: String,
}

impl About {
    pub(crate) fn operation(meta: Option<&v1::OperationMeta>, ownership: Option<&v1::Ownership>) -> Self {
        let mut about = Self::owned(ownership);
        if let Some(meta) = meta {
            about.key = shown(&meta.idempotency_key);
            about.generation = meta.generation;
            about.attempt = meta.attempt;
        }
        about
    }

    pub(crate) fn change(meta: Option<&v1::OperationMeta>, reference: Option<&v1::ResourceRef>) -> Self {
        Self::operation(meta, reference.and_then(|reference| reference.ownership.as_ref()))
    }

    pub(crate) fn resource(reference: Option<&v1::ResourceRef>) -> Self {
        let mut about = Self::owned(reference.and_then(|reference| reference.ownership.as_ref()));
        if let Some(reference) = reference {
            about.key = shown(&reference.idempotency_key);
        }
        about
    }

    fn owned(ownership: Option<&v1::Ownership>) -> Self {
        ownership.map_or_else(Self::default, |ownership| Self {
            namespace: shown(&ownership.namespace),
            cluster: shown(&ownership.cluster_name),
            object: shown(&ownership.object_name),
            ..Self::default()
        })
    }
}

fn shown(text: &str) -> String {
    bounded_text(text, MAX_STRING_BYTES).replace(['\n', '\t'], " ")
}

/// Whether a call is worth a line when all went well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Weight {
    Mutation,
    Read,
}

/// A method of the protocol.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Method {
    pub(crate) service: &'static str,
    pub(crate) name: &'static str,
    pub(crate) weight: Weight,
}

/// A call that is being answered. Dropped before its end, it is counted as given up by
/// its caller.
pub(crate) struct Call {
    method: Method,
    span: Span,
    started: Instant,
    metrics: Metrics,
    ended: bool,
}

impl Call {
    pub(crate) fn begin(method: Method, metadata: &MetadataMap, about: &About, metrics: &Metrics) -> Self {
        let span = tracing::info_span!(
            "call",
            otel.name = method.name,
            otel.kind = "server",
            rpc.system = "grpc",
            rpc.service = method.service,
            method = method.name,
            key = about.key,
            generation = about.generation,
            attempt = about.attempt,
            namespace = about.namespace,
            cluster = about.cluster,
            object = about.object,
            trace_id = Empty,
            code = Empty,
            reason = Empty,
        );
        let parent = TraceContextPropagator::new().extract(&Metadata(metadata));
        let context = parent.span().span_context().clone();
        if context.is_valid() {
            span.record("trace_id", context.trace_id().to_string());
            // Fails only where no tracer listens.
            let _ = span.set_parent(parent);
        }
        Self {
            method,
            span,
            started: Instant::now(),
            metrics: metrics.clone(),
            ended: false,
        }
    }

    pub(crate) fn span(&self) -> &Span {
        &self.span
    }

    /// Answers the call with what `work` gives.
    pub(crate) async fn answer<T>(mut self, work: impl Future<Output = Result<T, Status>>) -> Result<T, Status> {
        let result = work.instrument(self.span.clone()).await;
        self.end(result.as_ref().err());
        result
    }

    pub(crate) fn end(&mut self, status: Option<&Status>) {
        self.ended = true;
        let took = self.started.elapsed();
        let seconds = took.as_secs_f64();
        let _entered = self.span.enter();
        let Some(status) = status else {
            self.span.record("code", "OK");
            self.metrics.called(self.method.name, "OK", "", took);
            match self.method.weight {
                Weight::Mutation => tracing::info!(seconds, "answered"),
                Weight::Read => tracing::debug!(seconds, "answered"),
            }
            return;
        };
        let error = Classified::from_status(status);
        let code = code_name(status.code());
        let reason = error.reason.map_or("", v1::ErrorReason::wire_name);
        self.span.record("code", code);
        self.span.record("reason", reason);
        self.metrics.called(self.method.name, code, reason, took);
        if error.reason == Some(v1::ErrorReason::ProviderBug) || status.code() == Code::DataLoss {
            tracing::error!(
                seconds,
                effect = error.effect.as_str_name(),
                error = error.message,
                "failed"
            );
        } else {
            tracing::warn!(
                seconds,
                effect = error.effect.as_str_name(),
                error = error.message,
                "refused or failed"
            );
        }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        if !self.ended {
            let took = self.started.elapsed();
            let _entered = self.span.enter();
            self.metrics
                .called(self.method.name, code_name(Code::Cancelled), "", took);
            tracing::info!(
                seconds = took.as_secs_f64(),
                "the caller has gone or its deadline has passed"
            );
        }
    }
}

/// The error as it goes out, without the secrets of the request.
pub(crate) fn outgoing(error: ActuatorError, secrets: &actuator_proto::secrets::Secrets) -> Status {
    secrets.mask_status(error.into())
}

struct Metadata<'a>(&'a MetadataMap);

impl Extractor for Metadata<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).and_then(|value| value.to_str().ok())
    }

    fn keys(&self) -> Vec<&str> {
        self.0
            .keys()
            .filter_map(|key| match key {
                KeyRef::Ascii(key) => Some(key.as_str()),
                KeyRef::Binary(_) => None,
            })
            .collect()
    }
}

/// When the caller stops waiting, from the `grpc-timeout` of the call.
pub(crate) fn deadline_of(metadata: &MetadataMap) -> Option<Instant> {
    let text = metadata.get("grpc-timeout")?.to_str().ok()?;
    Instant::now().checked_add(timeout_of(text)?)
}

fn timeout_of(text: &str) -> Option<std::time::Duration> {
    use std::time::Duration;

    let unit_at = text.len().checked_sub(1)?;
    let (digits, unit) = text.split_at_checked(unit_at)?;
    // The protocol of gRPC allows at most 8 digits.
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let number: u64 = digits.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(number * 3600)),
        "M" => Some(Duration::from_secs(number * 60)),
        "S" => Some(Duration::from_secs(number)),
        "m" => Some(Duration::from_millis(number)),
        "u" => Some(Duration::from_micros(number)),
        "n" => Some(Duration::from_nanos(number)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn timeouts_are_read_as_grpc_writes_them() {
        assert_eq!(timeout_of("60S"), Some(Duration::from_mins(1)));
        assert_eq!(timeout_of("250m"), Some(Duration::from_millis(250)));
        assert_eq!(timeout_of("99999999H"), Some(Duration::from_hours(99_999_999)));
        for text in ["", "S", "60", "-1S", "+1S", "123456789S", "1ä"] {
            assert_eq!(timeout_of(text), None, "{text}");
        }
    }

    #[test]
    fn names_from_outside_are_bounded_and_on_one_line() {
        let ownership = v1::Ownership {
            object_name: format!("a\nb\u{1b}{}", "x".repeat(1000)),
            ..Default::default()
        };
        let about = About::operation(None, Some(&ownership));
        assert!(about.object.len() <= MAX_STRING_BYTES);
        assert!(about.object.starts_with("a bx"));
    }
}
