//! The table row by row, and what happens to statuses that are too large or wrong.

use std::time::Duration;

use proptest::prelude::*;
use prost::Message as _;
use tonic::{Code, Status};

use super::*;
use crate::limits::{MAX_ERROR_MESSAGE_BYTES, MAX_STATUS_BYTES};
use crate::v1::{Effect, ErrorReason};

fn all_reasons() -> Vec<ErrorReason> {
    (1..).map_while(|number| ErrorReason::try_from(number).ok()).collect()
}

#[test]
fn every_registered_reason_has_exactly_one_row() {
    let reasons = all_reasons();
    assert_eq!(reasons.len(), table::RULES.len());
    for reason in reasons {
        let rows = table::RULES.iter().filter(|rule| rule.reason == reason).count();
        assert_eq!(rows, 1, "{} has {rows} rows", reason.wire_name());
        assert_eq!(ErrorReason::from_wire_name(reason.wire_name()), Some(reason));
    }
}

/// What authors read says what the table says: the comments of the contract, which is all
/// that an author in another language has, and the page.
#[test]
fn the_contract_and_the_page_tell_code_and_effects_of_every_reason() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let read = |path: &str| std::fs::read_to_string(folder.join(path)).unwrap();
    let contract = read("actuator/v1/errors.proto");
    let page = read("../docs/writing-a-provider.md");
    for rule in table::RULES {
        let (code, reason) = (table::code_name(rule.code), rule.reason.wire_name());
        let effects = match rule.effects {
            [Effect::None] => "NONE",
            [Effect::None, Effect::Partial] => "NONE or PARTIAL",
            [Effect::None, Effect::Partial, Effect::Unknown] => "any",
            other => panic!("no words for {other:?}"),
        };
        let comment = format!("  // Code {code}, effect {effects}.\n  ERROR_REASON_{reason} = ");
        assert!(contract.contains(&comment), "errors.proto lacks {comment:?}");
        let row = page
            .lines()
            .filter(|line| line.starts_with('|') && line.contains(&format!("`{reason}`")));
        let cells: Vec<Vec<&str>> = row.map(|line| line.split('|').map(str::trim).collect()).collect();
        assert_eq!(cells.len(), 1, "{reason} stands once on the page");
        assert_eq!((cells[0][1], cells[0][3]), (code, effects), "{reason} on the page");
    }
}

#[test]
fn every_row_survives_the_wire() {
    for rule in table::RULES {
        for effect in rule.effects {
            let status: Status = ActuatorError::new(rule.reason, "no")
                .with_effect(*effect)
                .with_provider_id("fake:///z/i-1")
                .into();
            let classified = Classified::from_status(&status);
            assert_eq!(classified.code, rule.code);
            assert_eq!(classified.reason, Some(rule.reason));
            assert_eq!(classified.effect, *effect);
            assert_eq!(classified.recovery, rule.recovery, "{}", rule.reason.wire_name());
            assert_eq!(classified.provider_id.as_deref(), Some("fake:///z/i-1"));
            assert_eq!(classified.is_final(), *effect == Effect::None);
        }
    }
}

#[test]
fn an_error_without_error_info_is_of_unknown_effect_whatever_its_code() {
    for code in (1..=16).map(Code::from) {
        let classified = Classified::from_status(&Status::new(code, "boom"));
        assert!(!classified.is_final());
        assert!(!classified.from_provider);
        assert_eq!(classified.effect, Effect::Unknown);
        assert_ne!(
            classified.recovery,
            Recovery::Hold,
            "{code:?} without ErrorInfo must never be final"
        );
    }
    let recovery = |code| Classified::from_status(&Status::new(code, "")).recovery;
    assert_eq!(recovery(Code::Unavailable), Recovery::BreakThenResolve);
    assert_eq!(recovery(Code::Unauthenticated), Recovery::Break);
    assert_eq!(recovery(Code::DeadlineExceeded), Recovery::ResolveThenReplay);
    assert_eq!(recovery(Code::ResourceExhausted), Recovery::Resolve);
    assert_eq!(recovery(Code::Unimplemented), Recovery::Fallback);
}

#[test]
fn an_effect_that_the_table_rules_out_is_read_as_unknown() {
    let status: Status = ActuatorError::new(ErrorReason::InvalidConfig, "no")
        .with_effect(Effect::Partial)
        .into();
    let classified = Classified::from_status(&status);
    assert_eq!(classified.effect, Effect::Unknown);
    assert!(!classified.is_final());
    assert_ne!(classified.recovery, Recovery::Hold);
}

#[test]
fn a_reason_under_a_foreign_code_does_not_get_its_row() {
    let good: Status = ActuatorError::new(ErrorReason::InvalidConfig, "no").into();
    let wrong = Status::with_details(Code::Unavailable, "no", good.details().to_vec().into());
    let classified = Classified::from_status(&wrong);
    assert_eq!(classified.reason, None);
    assert_eq!(classified.recovery, Recovery::RetryProvider);
}

#[test]
fn garbage_details_are_no_details() {
    let status = Status::with_details(Code::InvalidArgument, "no", vec![0xff; 64].into());
    assert!(!Classified::from_status(&status).from_provider);
}

#[test]
fn retry_info_is_clamped_to_the_row() {
    let clamped = |reason, seconds| {
        let status: Status = ActuatorError::new(reason, "later")
            .with_retry_after(Duration::from_secs(seconds))
            .into();
        Classified::from_status(&status)
            .retry_after
            .map(|delay| delay.as_secs())
    };
    assert_eq!(clamped(ErrorReason::QuotaExceeded, 1), Some(600));
    assert_eq!(clamped(ErrorReason::OperationPending, 60), Some(10));
    assert_eq!(clamped(ErrorReason::RateLimited, 100_000), Some(1800));
    assert_eq!(clamped(ErrorReason::RateLimited, 7), Some(7));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn a_status_is_bounded_and_keeps_reason_and_effect(
        message in "\\PC{0,3000}",
        fields in prop::collection::vec(("\\PC{0,400}", "\\PC{0,600}"), 0..12),
        metadata in prop::collection::hash_map("[a-z_]{1,40}", "\\PC{0,600}", 0..12),
        reason in prop::sample::select(all_reasons()),
    ) {
        let mut error = ActuatorError::new(reason, message).with_cloud_code("SomeCode");
        for (field, description) in fields {
            error = error.with_field(field, description);
        }
        for (key, value) in metadata {
            error = error.with_metadata(key, value);
        }
        let status: Status = error.into();
        prop_assert!(status.message().len() <= MAX_ERROR_MESSAGE_BYTES);
        prop_assert!(status.details().len() <= MAX_STATUS_BYTES * 3 / 4);
        let classified = Classified::from_status(&status);
        prop_assert_eq!(classified.reason, Some(reason));
        prop_assert_eq!(classified.effect, Effect::None);
    }

    #[test]
    fn any_bytes_as_details_are_survived(code in 0i32..20, bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        let classified = Classified::from_status(&Status::with_details(Code::from(code), "x", bytes.into()));
        prop_assert!(classified.message.len() <= MAX_ERROR_MESSAGE_BYTES);
    }

    #[test]
    fn a_status_of_any_size_is_read_within_bounds(message in "\\PC{0,9000}", reason in "[A-Z_]{0,600}") {
        let info = tonic_types::pb::ErrorInfo { reason, domain: DOMAIN.into(), ..Default::default() };
        let details = tonic_types::pb::Status {
            details: vec![prost_types::Any { type_url: TYPE_ERROR_INFO.into(), value: info.encode_to_vec() }],
            ..Default::default()
        };
        let status = Status::with_details(Code::Aborted, message, details.encode_to_vec().into());
        let classified = Classified::from_status(&status);
        prop_assert!(classified.message.len() <= MAX_ERROR_MESSAGE_BYTES);
        prop_assert!(classified.reason_text.len() <= 256);
        prop_assert!(!classified.is_final());
    }
}
