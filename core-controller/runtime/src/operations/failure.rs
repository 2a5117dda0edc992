//! From the host's disposition of a failed call to the planner's outcome.
//!
//! Not for: interpreting errors, which the host has done.

use std::time::Duration;

use outrigger_planner::operation::{Failure, Outcome, Violation};
use provider_host::{AfterResolve, CallError, Disposition};

/// The planner's words for a failed call; `failures` counts those in a row, this one
/// included.
pub fn failure(error: &CallError, failures: u32) -> Failure {
    let classified = &error.classified;
    Failure {
        outcome: outcome(error, failures),
        reason: error.reason().to_owned(),
        message: match &classified.cloud_code {
            Some(code) if !classified.message.contains(code.as_str()) => format!("{} ({code})", classified.message),
            _ => classified.message.clone(),
        },
        effect: if error.changed_nothing() {
            actuator_proto::v1::Effect::None
        } else {
            classified.effect
        },
        provider_id: classified.provider_id.clone(),
        violations: classified
            .fields
            .iter()
            .map(|field| Violation {
                pointer: field.field.clone(),
                message: field.description.clone(),
            })
            .collect(),
    }
}

fn outcome(error: &CallError, failures: u32) -> Outcome {
    match error.disposition(failures) {
        Disposition::Retry { after } => Outcome::Retry { after },
        Disposition::Wait { after } => Outcome::Wait { after },
        Disposition::Resolve {
            then: AfterResolve::Retry { after },
        } => Outcome::Resolve { after },
        Disposition::Resolve {
            then: AfterResolve::Replay | AfterResolve::Decide,
        } => Outcome::Resolve {
            // The first time at once; over and over, slower.
            after: if failures <= 1 {
                Duration::ZERO
            } else {
                error.backoff(failures)
            },
        },
        Disposition::Hold { look_again } => Outcome::Hold { look_again },
        Disposition::TryElsewhere { after } => Outcome::TryElsewhere { after },
        Disposition::ReplaceByOwner => Outcome::ReplaceByOwner,
        Disposition::ReadObjectAgain => Outcome::ReadObjectAgain,
        Disposition::StepDown => Outcome::StepDown,
        Disposition::Escalate => Outcome::Escalate,
        Disposition::RefreshCredentials => Outcome::RefreshCredentials,
        Disposition::Fallback => Outcome::Fallback,
        // Lists are not operations of one object.
        Disposition::RestartList | Disposition::ListInFull => Outcome::Retry {
            after: Duration::from_secs(1),
        },
        // Whether to ask Exists first follows from the effect.
        Disposition::Paused { after, .. } => Outcome::Throttled { after },
        Disposition::Unavailable { after, .. } => Outcome::ProviderUnavailable { after },
        Disposition::Busy { after } => Outcome::Retry { after },
    }
}
