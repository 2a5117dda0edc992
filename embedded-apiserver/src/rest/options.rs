//! What is wrong with the options of a write, in the words of the real server.

use super::error::cause;
use super::{ApiError, BodyFormat, Options, Verb};
use crate::schema::{Cause, go_quote};

/// The longest name of a field manager, in bytes.
const MANAGER_LIMIT: usize = 128;

/// Refuses options that are none.
pub fn check(verb: Verb, format: BodyFormat, options: &Options) -> Result<(), ApiError> {
    let kind = match verb {
        Verb::Create => "CreateOptions",
        Verb::Update => "UpdateOptions",
        Verb::Patch => "PatchOptions",
        Verb::Delete | Verb::DeleteCollection => "DeleteOptions",
        Verb::Get | Verb::List | Verb::Watch => return Ok(()),
    };
    let mut causes = Vec::new();
    if verb == Verb::Patch {
        patch(format, options, &mut causes);
    }
    if kind != "DeleteOptions" {
        manager(options.field_manager.as_deref().unwrap_or_default(), &mut causes);
    }
    if options.dry_run_values.iter().any(|value| value != "All") {
        let shown: Vec<String> = options.dry_run_values.iter().map(|value| go_quote(value)).collect();
        let message = format!("Unsupported value: [{}]: supported values: \"All\"", shown.join(","));
        causes.push(cause("FieldValueNotSupported", "dryRun", message));
    }
    let validation = options.field_validation.as_str();
    if kind != "DeleteOptions" && !matches!(validation, "" | "Ignore" | "Strict" | "Warn") {
        let message = format!(
            "Unsupported value: {}: supported values: \"\", \"Ignore\", \"Strict\", \"Warn\"",
            go_quote(validation)
        );
        causes.push(cause("FieldValueNotSupported", "fieldValidation", message));
    }
    if causes.is_empty() {
        Ok(())
    } else {
        Err(ApiError::invalid_options(kind, &causes))
    }
}

fn patch(format: BodyFormat, options: &Options, causes: &mut Vec<Cause>) {
    if format != BodyFormat::Apply {
        if options.force.is_some() {
            let message = "Forbidden: may not be specified for non-apply patch";
            causes.push(cause("FieldValueForbidden", "force", message));
        }
    } else if options.field_manager.as_deref().unwrap_or_default().is_empty() {
        let message = "Required value: is required for apply patch";
        causes.push(cause("FieldValueRequired", "fieldManager", message));
    }
}

fn manager(name: &str, causes: &mut Vec<Cause>) {
    if name.len() > MANAGER_LIMIT {
        let message = format!("Too long: may not be more than {MANAGER_LIMIT} bytes");
        causes.push(cause("FieldValueTooLong", "fieldManager", message));
    }
    // Go prints no other space than the plain one.
    let is_printable = |letter: char| letter == ' ' || !(letter.is_control() || letter.is_whitespace());
    for (at, letter) in name.char_indices().filter(|(_, letter)| !is_printable(*letter)) {
        let message = format!(
            "Invalid value: {}: invalid character U+{:04X} (at position {at})",
            go_quote(name),
            u32::from(letter)
        );
        causes.push(cause("FieldValueInvalid", "fieldManager", message));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_wrong_option_is_told_in_order() {
        let options = Options {
            dry_run: true,
            dry_run_values: vec!["All".to_owned(), "x".to_owned()],
            field_manager: Some("a\nb".to_owned()),
            field_validation: "strict".to_owned(),
            force: Some(false),
            ..Options::default()
        };
        let error = check(Verb::Patch, BodyFormat::MergePatch, &options).unwrap_err();
        assert_eq!(
            error.message,
            "PatchOptions.meta.k8s.io \"\" is invalid: [force: Forbidden: may not be specified for non-apply patch, \
             fieldManager: Invalid value: \"a\\nb\": invalid character U+000A (at position 1), \
             dryRun: Unsupported value: [\"All\",\"x\"]: supported values: \"All\", \
             fieldValidation: Unsupported value: \"strict\": supported values: \"\", \"Ignore\", \"Strict\", \"Warn\"]"
        );
        assert!(check(Verb::Get, BodyFormat::Json, &options).is_ok());
    }

    #[test]
    fn an_apply_needs_a_manager() {
        let error = check(Verb::Patch, BodyFormat::Apply, &Options::default()).unwrap_err();
        assert!(
            error
                .message
                .ends_with("fieldManager: Required value: is required for apply patch")
        );
    }
}
