//! Sends the trace of the current span along, as the W3C's `traceparent`.

use opentelemetry::trace::{SpanContext, TraceContextExt as _};
use tonic::metadata::{MetadataMap, MetadataValue};
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

/// Adds `traceparent` and `tracestate` where there is a trace.
pub(crate) fn inject(metadata: &mut MetadataMap) {
    let context = tracing::Span::current().context();
    let span = context.span();
    let span = span.span_context();
    if let Some(Ok(value)) = traceparent(span).map(MetadataValue::try_from) {
        metadata.insert("traceparent", value);
        let state = span.trace_state().header();
        if let Ok(value) = MetadataValue::try_from(state.as_str())
            && !state.is_empty()
        {
            metadata.insert("tracestate", value);
        }
    }
}

fn traceparent(span: &SpanContext) -> Option<String> {
    span.is_valid().then(|| {
        format!(
            "00-{}-{}-{:02x}",
            span.trace_id(),
            span.span_id(),
            span.trace_flags().to_u8()
        )
    })
}

#[cfg(test)]
mod tests {
    use opentelemetry::trace::{SpanId, TraceFlags, TraceId, TraceState};

    use super::*;

    #[test]
    fn a_valid_span_becomes_a_traceparent_and_none_becomes_nothing() {
        let span = SpanContext::new(
            TraceId::from(0x0af7_6519_16cd_43dd_8448_eb21_1c80_319c_u128),
            SpanId::from(0xb7ad_6b71_6920_3331_u64),
            TraceFlags::SAMPLED,
            true,
            TraceState::NONE,
        );
        assert_eq!(
            traceparent(&span).as_deref(),
            Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
        );
        assert_eq!(traceparent(&SpanContext::NONE), None);
        let mut metadata = MetadataMap::new();
        inject(&mut metadata);
        assert!(metadata.is_empty());
    }
}
