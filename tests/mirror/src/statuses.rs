//! Error statuses as bytes, well formed or not.

use std::collections::HashMap;

use actuator_proto::v1::{Effect, ErrorReason, OperationOutcome};
use prost::Message as _;
use tonic::{Code, Status};

/// A detail of a status: its type and its bytes.
pub type Detail = (&'static str, Vec<u8>);

/// The types of details.
pub mod types {
    /// Who speaks, and why.
    pub const INFO: &str = "type.googleapis.com/google.rpc.ErrorInfo";
    /// How long to wait.
    pub const RETRY: &str = "type.googleapis.com/google.rpc.RetryInfo";
    /// What was done.
    pub const OUTCOME: &str = "type.googleapis.com/actuator.v1.OperationOutcome";
}

/// `google.rpc.Status`, `ErrorInfo` and `RetryInfo`, as far as they are needed.
mod messages {
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Status {
        #[prost(int32, tag = "1")]
        pub code: i32,
        #[prost(string, tag = "2")]
        pub message: String,
        #[prost(message, repeated, tag = "3")]
        pub details: Vec<Any>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Any {
        #[prost(string, tag = "1")]
        pub type_url: String,
        #[prost(bytes = "vec", tag = "2")]
        pub value: Vec<u8>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub struct ErrorInfo {
        #[prost(string, tag = "1")]
        pub reason: String,
        #[prost(string, tag = "2")]
        pub domain: String,
        #[prost(map = "string, string", tag = "3")]
        pub metadata: std::collections::HashMap<String, String>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub struct RetryInfo {
        #[prost(message, optional, tag = "1")]
        pub delay: Option<Duration>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Duration {
        #[prost(int64, tag = "1")]
        pub seconds: i64,
        #[prost(int32, tag = "2")]
        pub nanos: i32,
    }
}

/// A status with these details, whatever they are.
pub fn status(code: Code, message: &str, details: &[Detail]) -> Status {
    let encoded = messages::Status {
        code: code as i32,
        message: message.to_owned(),
        details: details
            .iter()
            .map(|(type_url, value)| messages::Any {
                type_url: (*type_url).to_owned(),
                value: value.clone(),
            })
            .collect(),
    };
    Status::with_details(code, message, encoded.encode_to_vec().into())
}

/// An `ErrorInfo`.
pub fn info(domain: &str, reason: &str, metadata: &[(&str, &str)]) -> Detail {
    let metadata: HashMap<String, String> = metadata
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect();
    let info = messages::ErrorInfo {
        reason: reason.to_owned(),
        domain: domain.to_owned(),
        metadata,
    };
    (types::INFO, info.encode_to_vec())
}

/// An `OperationOutcome`, of an effect that need not be registered.
pub fn outcome(effect: i32) -> Detail {
    let outcome = OperationOutcome {
        effect,
        provider_id: String::new(),
    };
    (types::OUTCOME, outcome.encode_to_vec())
}

/// A `RetryInfo`.
pub fn retry(seconds: i64) -> Detail {
    let delay = Some(messages::Duration { seconds, nanos: 0 });
    (types::RETRY, messages::RetryInfo { delay }.encode_to_vec())
}

/// The name of a reason on the wire.
pub fn wire_name(reason: ErrorReason) -> &'static str {
    reason.as_str_name().trim_start_matches("ERROR_REASON_")
}

/// A registered error with this effect.
pub fn error(code: Code, reason: ErrorReason, effect: Effect, message: &str) -> Status {
    let details = [
        info("actuator.v1", wire_name(reason), &[("cloud_code", "Mirror.Fault")]),
        outcome(effect.into()),
    ];
    status(code, message, &details)
}
