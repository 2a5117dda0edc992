//! Judges an error status by the rules about errors: pure, so that every rule has a test.

use actuator_proto::errors::table::code_name;
use actuator_proto::errors::{DOMAIN, TYPE_ERROR_INFO, TYPE_OPERATION_OUTCOME, TYPE_RETRY_INFO, table};
use actuator_proto::limits::{MAX_ERROR_MESSAGE_BYTES, MAX_STATUS_BYTES};
use actuator_proto::v1::{Effect, ErrorReason, OperationOutcome};
use prost::Message as _;
use tonic::{Code, Status};
use tonic_types::pb;

/// The codes that a gRPC library gives by itself, without an ErrorInfo: the transport spoke.
const TRANSPORT: [Code; 7] = [
    Code::Cancelled,
    Code::DeadlineExceeded,
    Code::Unavailable,
    Code::Unimplemented,
    Code::Internal,
    Code::ResourceExhausted,
    Code::OutOfRange,
];

/// Which rules an error breaks, and how: `(rule id, words)`.
pub fn problems(status: &Status) -> Vec<(&'static str, String)> {
    let mut found = Vec::new();
    let mut broken = |rule, words: String| found.push((rule, words));
    let code = status.code();
    let name = code_name(code);
    if status.message().len() > MAX_ERROR_MESSAGE_BYTES {
        broken(
            "errors.message-is-short",
            format!(
                "the message of {name} has {} bytes; at most {MAX_ERROR_MESSAGE_BYTES} are allowed",
                status.message().len()
            ),
        );
    }
    let size = status.message().len() + status.details().len();
    if size > MAX_STATUS_BYTES {
        broken(
            "errors.status-is-small",
            format!("the whole status of {name} has {size} bytes; at most {MAX_STATUS_BYTES} are allowed"),
        );
    }
    let details = if status.details().is_empty() {
        Vec::new()
    } else {
        match pb::Status::decode(status.details()) {
            Ok(details) => {
                if details.code != i32::from(code) {
                    broken(
                        "errors.details-agree",
                        format!("the details are of code {}, the status is {name}", details.code),
                    );
                }
                details.details
            }
            Err(error) => {
                broken(
                    "errors.details-agree",
                    format!("the details of {name} are no google.rpc.Status: {error}"),
                );
                Vec::new()
            }
        }
    };
    let of_type = |wanted: &str| {
        details
            .iter()
            .filter(|detail| detail.type_url == wanted)
            .collect::<Vec<_>>()
    };
    let infos: Vec<pb::ErrorInfo> = of_type(TYPE_ERROR_INFO)
        .into_iter()
        .filter_map(|detail| pb::ErrorInfo::decode(detail.value.as_slice()).ok())
        .collect();
    let [info] = infos.as_slice() else {
        if !infos.is_empty() {
            broken(
                "errors.one-error-info",
                format!("{name} has {} ErrorInfo; exactly one is allowed", infos.len()),
            );
        } else if !TRANSPORT.contains(&code) {
            broken(
                "errors.one-error-info",
                format!(
                    "{name} ({:?}) has no ErrorInfo: the core cannot take it for final",
                    status.message()
                ),
            );
        }
        return found;
    };
    if info.domain != DOMAIN {
        broken(
            "errors.domain",
            format!(
                "the ErrorInfo of {name} has the domain {:?}; it must be {DOMAIN:?}",
                info.domain
            ),
        );
        return found;
    }
    let rule = ErrorReason::from_wire_name(&info.reason).and_then(table::rule_for);
    match rule {
        None => broken(
            "errors.registered-reason",
            format!("{name} has the reason {:?}, which is not registered", info.reason),
        ),
        Some(rule) if rule.code != code => broken(
            "errors.code-of-reason",
            format!("{} goes with {}, not with {name}", info.reason, code_name(rule.code)),
        ),
        Some(_) => {}
    }
    let outcomes: Vec<OperationOutcome> = of_type(TYPE_OPERATION_OUTCOME)
        .into_iter()
        .filter_map(|detail| OperationOutcome::decode(detail.value.as_slice()).ok())
        .collect();
    match outcomes.as_slice() {
        [outcome] => {
            let effect = Effect::try_from(outcome.effect).unwrap_or(Effect::Unspecified);
            if effect == Effect::Unspecified {
                broken(
                    "errors.effect-is-told",
                    format!("{name} {} does not tell its effect", info.reason),
                );
            } else if let Some(rule) = rule
                && !rule.effects.contains(&effect)
            {
                broken(
                    "errors.effect-is-allowed",
                    format!("{} may not have the effect {}", info.reason, effect.as_str_name()),
                );
            }
        }
        others => broken(
            "errors.effect-is-told",
            format!(
                "{name} {} has {} OperationOutcome; it must have exactly one",
                info.reason,
                others.len()
            ),
        ),
    }
    for retry in of_type(TYPE_RETRY_INFO) {
        let delay = pb::RetryInfo::decode(retry.value.as_slice())
            .ok()
            .and_then(|retry| retry.retry_delay);
        if delay.is_none_or(|delay| delay.seconds < 0 || delay.nanos < 0) {
            broken(
                "errors.retry-info",
                format!("the RetryInfo of {name} has no delay, or one below zero"),
            );
        }
    }
    found
}

/// Reason and effect of an error, for people.
pub fn describe(status: &Status) -> String {
    let classified = actuator_proto::errors::Classified::from_status(status);
    if !classified.from_provider {
        return " (no ErrorInfo)".to_owned();
    }
    format!(" ({}, {})", classified.reason_text, classified.effect.as_str_name())
}

#[cfg(test)]
mod tests {
    use super::*;
    use actuator_proto::errors::ActuatorError;

    fn rules(status: &Status) -> Vec<&'static str> {
        problems(status).into_iter().map(|(rule, _)| rule).collect()
    }

    fn with(code: Code, details: &[(&str, Vec<u8>)]) -> Status {
        let details = pb::Status {
            code: i32::from(code),
            message: String::new(),
            details: details
                .iter()
                .map(|(url, value)| prost_types::Any {
                    type_url: (*url).to_owned(),
                    value: value.clone(),
                })
                .collect(),
        };
        Status::with_details(code, "", details.encode_to_vec().into())
    }

    fn info(reason: &str, domain: &str) -> (&'static str, Vec<u8>) {
        let info = pb::ErrorInfo {
            reason: reason.to_owned(),
            domain: domain.to_owned(),
            metadata: Default::default(),
        };
        (TYPE_ERROR_INFO, info.encode_to_vec())
    }

    fn outcome(effect: Effect) -> (&'static str, Vec<u8>) {
        (
            TYPE_OPERATION_OUTCOME,
            OperationOutcome {
                effect: effect.into(),
                provider_id: String::new(),
            }
            .encode_to_vec(),
        )
    }

    #[test]
    fn what_the_sdk_sends_is_well_formed() {
        for rule in table::RULES {
            let status = Status::from(ActuatorError::new(rule.reason, "words"));
            assert_eq!(rules(&status), Vec::<&str>::new(), "{:?}", rule.reason);
        }
    }

    #[test]
    fn every_break_is_named() {
        let none = outcome(Effect::None);
        for (status, rule) in [
            (Status::unavailable("x".repeat(2000)), "errors.message-is-short"),
            (
                Status::with_details(Code::Internal, "", vec![0xff; 5000].into()),
                "errors.status-is-small",
            ),
            (
                Status::with_details(Code::Internal, "", vec![0xff; 5].into()),
                "errors.details-agree",
            ),
            (Status::not_found("gone"), "errors.one-error-info"),
            (
                with(
                    Code::NotFound,
                    &[
                        info("RESOURCE_NOT_FOUND", DOMAIN),
                        info("RESOURCE_NOT_FOUND", DOMAIN),
                        none.clone(),
                    ],
                ),
                "errors.one-error-info",
            ),
            (
                with(
                    Code::NotFound,
                    &[info("RESOURCE_NOT_FOUND", "example.com"), none.clone()],
                ),
                "errors.domain",
            ),
            (
                with(Code::NotFound, &[info("MY_OWN", DOMAIN), none.clone()]),
                "errors.registered-reason",
            ),
            (
                with(Code::Aborted, &[info("RESOURCE_NOT_FOUND", DOMAIN), none.clone()]),
                "errors.code-of-reason",
            ),
            (
                with(Code::NotFound, &[info("RESOURCE_NOT_FOUND", DOMAIN)]),
                "errors.effect-is-told",
            ),
            (
                with(
                    Code::NotFound,
                    &[info("RESOURCE_NOT_FOUND", DOMAIN), outcome(Effect::Unspecified)],
                ),
                "errors.effect-is-told",
            ),
            (
                with(
                    Code::NotFound,
                    &[info("RESOURCE_NOT_FOUND", DOMAIN), outcome(Effect::Partial)],
                ),
                "errors.effect-is-allowed",
            ),
            (
                with(
                    Code::ResourceExhausted,
                    &[info("RATE_LIMITED", DOMAIN), none, (TYPE_RETRY_INFO, Vec::new())],
                ),
                "errors.retry-info",
            ),
        ] {
            assert!(rules(&status).contains(&rule), "{rule}: {:?}", problems(&status));
        }
    }
}
