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

/// The type of the detail that says who speaks, and why.
pub const TYPE_ERROR_INFO: &str = "type.googleapis.com/google.rpc.ErrorInfo";
/// The type of the detail that says how long to wait.
pub const TYPE_RETRY_INFO: &str = "type.googleapis.com/google.rpc.RetryInfo";
/// The type of the detail that names the fields that are wrong.
pub const TYPE_BAD_REQUEST: &str = "type.googleapis.com/google.rpc.BadRequest";
/// The type of the detail that names the quota.
pub const TYPE_QUOTA_FAILURE: &str = "type.googleapis.com/google.rpc.QuotaFailure";
/// The type of the detail that says what was done before it failed.
pub const TYPE_OPERATION_OUTCOME: &str = "type.googleapis.com/actuator.v1.OperationOutcome";

#[cfg(test)]
mod tests;
