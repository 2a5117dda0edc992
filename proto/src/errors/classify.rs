//! How the core reads an error: from any [`Status`], however malformed, to one
//! typed answer. Nothing of what a provider sends is trusted: texts are bounded,
//! unknown values are read as the contract says.

use std::time::Duration;

use prost::Message as _;
use tonic::{Code, Status};
use tonic_types::pb;

use super::table::{self, Recovery};
use super::{
    DOMAIN, METADATA_CLOUD_CODE, METADATA_CLOUD_REQUEST_ID, TYPE_BAD_REQUEST, TYPE_ERROR_INFO, TYPE_OPERATION_OUTCOME,
    TYPE_RETRY_INFO,
};
use crate::limits::{MAX_ERROR_MESSAGE_BYTES, MAX_PROVIDER_ID_BYTES, MAX_STRING_BYTES, bounded_line};
use crate::v1::{Effect, ErrorReason, OperationOutcome};

/// A field of the request that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldViolation {
    /// Which field; a JSON pointer where it is inside the opaque config.
    pub field: String,
    /// What is wrong and what is allowed.
    pub description: String,
}

/// An error as the core understands it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Classified {
    /// The gRPC code.
    pub code: Code,
    /// The registered reason; `None` when there was none or it is not registered here.
    pub reason: Option<ErrorReason>,
    /// The reason as it was sent, bounded; empty when there was no ErrorInfo.
    pub reason_text: String,
    /// Whether the provider itself spoke (there was an ErrorInfo of our domain); else
    /// the transport did.
    pub from_provider: bool,
    /// What the operation did before it failed.
    pub effect: Effect,
    /// The id of what there is now, where the provider told.
    pub provider_id: Option<String>,
    /// The words, bounded and without control characters.
    pub message: String,
    /// The cloud's own code.
    pub cloud_code: Option<String>,
    /// The cloud's own request id.
    pub cloud_request_id: Option<String>,
    /// Not before this long, clamped to the bounds of the row.
    pub retry_after: Option<Duration>,
    /// What was wrong with the request.
    pub fields: Vec<FieldViolation>,
    /// What to do.
    pub recovery: Recovery,
}

impl Classified {
    /// Whether nothing in the cloud has changed, for sure.
    pub fn is_final(&self) -> bool {
        self.from_provider && self.effect == Effect::None
    }

    /// Reads a status.
    pub fn from_status(status: &Status) -> Self {
        // Details that do not decode are no details: then the transport spoke.
        let details = pb::Status::decode(status.details()).unwrap_or_default().details;
        let find = |type_url: &str| details.iter().find(|detail| detail.type_url == type_url);

        let info = find(TYPE_ERROR_INFO)
            .and_then(|detail| pb::ErrorInfo::decode(detail.value.as_slice()).ok())
            .filter(|info| info.domain == DOMAIN && !info.reason.is_empty());
        let outcome = find(TYPE_OPERATION_OUTCOME)
            .and_then(|detail| OperationOutcome::decode(detail.value.as_slice()).ok())
            .unwrap_or_default();
        let retry_after = find(TYPE_RETRY_INFO)
            .and_then(|detail| pb::RetryInfo::decode(detail.value.as_slice()).ok())
            .and_then(|retry| retry.retry_delay)
            .and_then(|delay| Duration::try_from(delay).ok());
        let fields = find(TYPE_BAD_REQUEST)
            .and_then(|detail| pb::BadRequest::decode(detail.value.as_slice()).ok())
            .map(|bad_request| bad_request.field_violations)
            .unwrap_or_default();

        let from_provider = info.is_some();
        let info = info.unwrap_or_default();
        // A registered reason under another code than its own is no registered error.
        let rule = ErrorReason::from_wire_name(&info.reason)
            .and_then(table::rule_for)
            .filter(|rule| rule.code == status.code());
        let effect = match outcome.effect() {
            _ if !from_provider => Effect::Unknown,
            Effect::Unspecified => Effect::Unknown,
            // An effect that the row rules out is a defect: nobody can tell.
            effect if rule.is_some_and(|rule| !rule.effects.contains(&effect)) => Effect::Unknown,
            effect => effect,
        };
        let recovery = rule.map_or_else(
            || table::recovery_for_code(status.code(), from_provider),
            |rule| rule.recovery,
        );
        // Only an error that is final may be held: with any other effect, look first.
        let recovery = match recovery {
            Recovery::Hold if effect == Effect::Unknown && rule.is_some_and(|rule| !rule.effects.contains(&effect)) => {
                Recovery::ResolveThenRetry { slow_after: Some(5) }
            }
            recovery => recovery,
        };
        let text = |key: &str| {
            info.metadata
                .get(key)
                .map(|value| bounded_line(value, MAX_STRING_BYTES))
        };

        Self {
            code: status.code(),
            reason: rule.map(|rule| rule.reason),
            reason_text: bounded_line(&info.reason, MAX_STRING_BYTES),
            from_provider,
            effect,
            provider_id: Some(bounded_line(&outcome.provider_id, MAX_PROVIDER_ID_BYTES))
                .filter(|id| from_provider && !id.is_empty()),
            message: bounded_line(status.message(), MAX_ERROR_MESSAGE_BYTES),
            cloud_code: text(METADATA_CLOUD_CODE),
            cloud_request_id: text(METADATA_CLOUD_REQUEST_ID),
            retry_after: retry_after.map(|delay| clamp(delay, recovery)),
            fields: fields
                .into_iter()
                .take(crate::limits::MAX_DIAGNOSTICS)
                .map(|violation| FieldViolation {
                    field: bounded_line(&violation.field, MAX_STRING_BYTES),
                    description: bounded_line(&violation.description, MAX_ERROR_MESSAGE_BYTES),
                })
                .collect(),
            recovery,
        }
    }
}

fn clamp(delay: Duration, recovery: Recovery) -> Duration {
    let (min, max) = match recovery {
        Recovery::Wait { min, max } | Recovery::TryElsewhere { min, max } => (min, max),
        _ => table::WAIT_BOUNDS,
    };
    delay.clamp(min, max)
}
