//! Errors of the contract: one table from which both sides read the code, the
//! effects that are allowed and what the core does ([`table`]); how a provider
//! writes an error ([`ActuatorError`]); how the core reads one ([`Classified`]).

mod classify;
mod encode;
pub mod table;

pub use classify::{Classified, FieldViolation};
pub use encode::{ActuatorError, QuotaViolation};
pub use table::{ErrorRule, Recovery};

/// The domain of each `google.rpc.ErrorInfo` of this protocol.
pub const DOMAIN: &str = "actuator.v1";
/// The metadata key of the cloud's own error code.
pub const METADATA_CLOUD_CODE: &str = "cloud_code";
/// The metadata key of the cloud's own request id.
pub const METADATA_CLOUD_REQUEST_ID: &str = "cloud_request_id";

const TYPE_ERROR_INFO: &str = "type.googleapis.com/google.rpc.ErrorInfo";
const TYPE_RETRY_INFO: &str = "type.googleapis.com/google.rpc.RetryInfo";
const TYPE_BAD_REQUEST: &str = "type.googleapis.com/google.rpc.BadRequest";
const TYPE_QUOTA_FAILURE: &str = "type.googleapis.com/google.rpc.QuotaFailure";
const TYPE_OPERATION_OUTCOME: &str = "type.googleapis.com/actuator.v1.OperationOutcome";

#[cfg(test)]
mod tests;
