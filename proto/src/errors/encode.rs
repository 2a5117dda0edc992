//! How a provider writes an error: reason, words, effect; the rest comes from the
//! table. The status is bounded whatever the provider puts into it.

use std::collections::HashMap;
use std::fmt;
use std::time::Duration;

use prost::Message as _;
use prost_types::Any;
use tonic::{Code, Status};
use tonic_types::pb;

use super::{
    DOMAIN, FieldViolation, METADATA_CLOUD_CODE, METADATA_CLOUD_REQUEST_ID, TYPE_BAD_REQUEST, TYPE_ERROR_INFO,
    TYPE_OPERATION_OUTCOME, TYPE_QUOTA_FAILURE, TYPE_RETRY_INFO, table,
};
use crate::limits::{MAX_ERROR_MESSAGE_BYTES, MAX_PROVIDER_ID_BYTES, MAX_STATUS_BYTES, MAX_STRING_BYTES, bounded_text};
use crate::v1::{Effect, ErrorReason, OperationOutcome};

/// A quota that is used up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuotaViolation {
    /// What is limited: `project:demo`, `region:eu-west-1`.
    pub subject: String,
    /// Which limit, how much of it is used, how to raise it.
    pub description: String,
}

/// An error as the contract wants it. Its code comes from the table, its size is
/// bounded when it is turned into a [`Status`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ActuatorError {
    reason: ErrorReason,
    message: String,
    effect: Effect,
    provider_id: String,
    retry_after: Option<Duration>,
    fields: Vec<FieldViolation>,
    quotas: Vec<QuotaViolation>,
    metadata: HashMap<String, String>,
}

impl ActuatorError {
    /// An error whose operation has changed nothing. `message` is one sentence for
    /// people, without secrets: what was wrong, where, what to do.
    #[must_use]
    pub fn new(reason: ErrorReason, message: impl Into<String>) -> Self {
        Self {
            reason,
            message: message.into(),
            effect: Effect::None,
            provider_id: String::new(),
            retry_after: None,
            fields: Vec::new(),
            quotas: Vec::new(),
            metadata: HashMap::new(),
        }
    }

    /// `INVALID_FIELD` at one field of the request, for example `spec.config.json`.
    #[must_use]
    pub fn invalid_field(field: impl Into<String>, description: impl Into<String>) -> Self {
        let (field, description) = (field.into(), description.into());
        Self::new(ErrorReason::InvalidField, format!("{field}: {description}")).with_field(field, description)
    }

    /// What the operation did before it failed.
    #[must_use]
    pub fn with_effect(mut self, effect: Effect) -> Self {
        self.effect = effect;
        self
    }

    /// The id of what there is now.
    #[must_use]
    pub fn with_provider_id(mut self, provider_id: impl Into<String>) -> Self {
        self.provider_id = provider_id.into();
        self
    }

    /// Not before this long.
    #[must_use]
    pub fn with_retry_after(mut self, retry_after: Duration) -> Self {
        self.retry_after = Some(retry_after);
        self
    }

    /// A field that is wrong.
    #[must_use]
    pub fn with_field(mut self, field: impl Into<String>, description: impl Into<String>) -> Self {
        self.fields.push(FieldViolation {
            field: field.into(),
            description: description.into(),
        });
        self
    }

    /// A quota that is used up.
    #[must_use]
    pub fn with_quota(mut self, subject: impl Into<String>, description: impl Into<String>) -> Self {
        self.quotas.push(QuotaViolation {
            subject: subject.into(),
            description: description.into(),
        });
        self
    }

    /// The cloud's own code, `InsufficientInstanceCapacity` for example.
    #[must_use]
    pub fn with_cloud_code(self, code: impl Into<String>) -> Self {
        self.with_metadata(METADATA_CLOUD_CODE, code)
    }

    /// The cloud's own request id.
    #[must_use]
    pub fn with_cloud_request_id(self, id: impl Into<String>) -> Self {
        self.with_metadata(METADATA_CLOUD_REQUEST_ID, id)
    }

    /// One more fact for machines.
    #[must_use]
    pub fn with_metadata(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.metadata.insert(key.into(), value.into());
        self
    }

    /// The reason.
    pub fn reason(&self) -> ErrorReason {
        self.reason
    }

    /// The words.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// What the operation did before it failed.
    pub fn effect(&self) -> Effect {
        self.effect
    }

    /// The code that the table gives this reason.
    pub fn code(&self) -> Code {
        table::rule_for(self.reason).map_or(Code::Unknown, |rule| rule.code)
    }

    /// The effect if the table allows it for this reason, else UNKNOWN: an effect that
    /// the table rules out is a defect of the provider, and then nobody can tell.
    fn allowed_effect(&self) -> Effect {
        match table::rule_for(self.reason) {
            Some(rule) if rule.effects.contains(&self.effect) => self.effect,
            _ => Effect::Unknown,
        }
    }

    fn details(&self) -> Vec<Any> {
        let mut details = vec![
            any(
                TYPE_ERROR_INFO,
                &pb::ErrorInfo {
                    reason: self.reason.wire_name().to_owned(),
                    domain: DOMAIN.to_owned(),
                    metadata: self.metadata.clone(),
                },
            ),
            any(
                TYPE_OPERATION_OUTCOME,
                &OperationOutcome {
                    effect: self.allowed_effect().into(),
                    provider_id: bounded_text(&self.provider_id, MAX_PROVIDER_ID_BYTES),
                },
            ),
        ];
        if let Some(delay) = self.retry_after {
            let retry_delay = prost_types::Duration::try_from(delay).ok();
            details.push(any(TYPE_RETRY_INFO, &pb::RetryInfo { retry_delay }));
        }
        if !self.fields.is_empty() {
            let field_violations = self
                .fields
                .iter()
                .map(|violation| pb::bad_request::FieldViolation {
                    field: violation.field.clone(),
                    description: violation.description.clone(),
                    ..Default::default()
                })
                .collect();
            details.push(any(TYPE_BAD_REQUEST, &pb::BadRequest { field_violations }));
        }
        if !self.quotas.is_empty() {
            let violations = self
                .quotas
                .iter()
                .map(|violation| pb::quota_failure::Violation {
                    subject: violation.subject.clone(),
                    description: violation.description.clone(),
                    ..Default::default()
                })
                .collect();
            details.push(any(TYPE_QUOTA_FAILURE, &pb::QuotaFailure { violations }));
        }
        details
    }

    fn encoded(&self) -> (Code, String, Vec<u8>) {
        let code = self.code();
        let status = pb::Status {
            code: i32::from(code),
            message: self.message.clone(),
            details: self.details(),
        };
        (code, self.message.clone(), status.encode_to_vec())
    }

    /// Makes the error fit: what matters least goes first, the reason and the effect never.
    fn shrink(&mut self) {
        for violation in &mut self.fields {
            violation.field = bounded_text(&violation.field, MAX_STRING_BYTES);
            violation.description = bounded_text(&violation.description, MAX_STRING_BYTES);
        }
        for violation in &mut self.quotas {
            violation.subject = bounded_text(&violation.subject, MAX_STRING_BYTES);
            violation.description = bounded_text(&violation.description, MAX_STRING_BYTES);
        }
        for value in self.metadata.values_mut() {
            *value = bounded_text(value, MAX_STRING_BYTES);
        }
        while self.wire_bytes() > MAX_STATUS_BYTES {
            if self.fields.len() > 1 {
                self.fields.pop();
            } else if self.quotas.len() > 1 {
                self.quotas.pop();
            } else if let Some(key) = self
                .metadata
                .keys()
                .filter(|key| ![METADATA_CLOUD_CODE, METADATA_CLOUD_REQUEST_ID].contains(&key.as_str()))
                .max()
                .or_else(|| self.metadata.keys().max())
                .cloned()
                .filter(|_| self.message.len() <= MAX_STRING_BYTES || self.metadata.len() > 2)
            {
                self.metadata.remove(&key);
            } else if self.message.len() > 32 {
                self.message = bounded_text(&self.message, self.message.len() / 2);
            } else {
                self.fields.clear();
                self.quotas.clear();
                self.metadata.clear();
                return;
            }
        }
    }

    /// What the status costs in HTTP/2 headers: the message percent-encoded, the
    /// details in base64.
    fn wire_bytes(&self) -> usize {
        let (_, message, details) = self.encoded();
        let message: usize = message
            .bytes()
            .map(|byte| {
                if (0x20..0x7f).contains(&byte) && byte != b'%' {
                    1
                } else {
                    3
                }
            })
            .sum();
        message + details.len().div_ceil(3) * 4
    }
}

fn any(type_url: &str, message: &impl prost::Message) -> Any {
    Any {
        type_url: type_url.to_owned(),
        value: message.encode_to_vec(),
    }
}

impl fmt::Display for ActuatorError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.reason.wire_name(), self.message)
    }
}

impl std::error::Error for ActuatorError {}

impl From<ActuatorError> for Status {
    fn from(mut error: ActuatorError) -> Self {
        error.message = bounded_text(&error.message, MAX_ERROR_MESSAGE_BYTES);
        error.shrink();
        let (code, message, details) = error.encoded();
        Status::with_details(code, message, details.into())
    }
}
