//! `ValidateConfig` and what is refused before anything is made.

use actuator_proto::limits::{MAX_DIAGNOSTICS, MAX_TEXT_BYTES};
use actuator_proto::v1::{self, ConfigTarget, ErrorReason, Severity as Gravity, ValidationMode};
use serde_json::{Value, json};

use crate::context::Context;
use crate::holds;
use crate::rule::{
    Rule,
    Severity::{Critical, Major, Minor},
    Stop, Verdict,
};

const TARGETS: [ConfigTarget; 2] = [ConfigTarget::Cluster, ConfigTarget::Machine];
/// A name that no config has.
const NO_SUCH_FIELD: &str = "x-conformance-no-such-field";
/// The first integer that a double cannot hold.
const BEYOND_DOUBLE: u64 = 9_007_199_254_740_993;

pub fn rules() -> Vec<Rule> {
    vec![
        Rule::required(
            "validation.valid-configs",
            Critical,
            "The valid configs have no diagnostic of severity ERROR.",
            valid,
        ),
        Rule::required(
            "validation.invalid-configs",
            Major,
            "The invalid configs get OK with an ERROR at the place that is wrong.",
            invalid,
        ),
        Rule::required(
            "validation.pointers",
            Minor,
            "The pointers of diagnostics are RFC 6901 and lead into the config or to what is missing in it.",
            pointers,
        ),
        Rule::required(
            "validation.unknown-keys",
            Major,
            "An unknown key is an ERROR, at its own pointer.",
            unknown_key,
        ),
        Rule::required(
            "validation.duplicate-keys",
            Major,
            "A duplicate key is an ERROR.",
            duplicate_key,
        ),
        Rule::required(
            "validation.not-an-object",
            Major,
            "A config that is no JSON object is an ERROR.",
            no_object,
        ),
        Rule::required(
            "validation.bad-json",
            Major,
            "A config that is no JSON is an ERROR.",
            bad_json,
        ),
        Rule::required(
            "validation.bad-utf8",
            Minor,
            "A config that is no UTF-8 is an ERROR.",
            bad_utf8,
        ),
        Rule::required(
            "validation.integers-stay-exact",
            Major,
            "An integer above 2^53 is taken exactly, or refused with its exact digits.",
            exact_integers,
        ),
        Rule::required(
            "validation.fractions-are-no-integers",
            Minor,
            "A fraction where an integer belongs is an ERROR.",
            fractions,
        ),
        Rule::required(
            "validation.digest-mismatch",
            Major,
            "A config whose SHA-256 is not that of its bytes is refused with INVALID_FIELD.",
            digest_mismatch,
        ),
        Rule::required(
            "validation.unknown-kind",
            Minor,
            "A config of an unknown kind is refused with INVALID_FIELD.",
            unknown_kind,
        ),
        Rule::required(
            "validation.unknown-version",
            Minor,
            "A config of an unknown schema version is refused with UNSUPPORTED_SCHEMA_VERSION.",
            unknown_version,
        ),
        Rule::required(
            "validation.missing-config",
            Minor,
            "A validation without a config is refused with INVALID_FIELD.",
            missing_config,
        ),
        Rule::required(
            "validation.static-needs-no-credentials",
            Major,
            "A static validation needs no credentials, and bad ones do not matter.",
            static_offline,
        ),
        Rule::required(
            "validation.static-is-quick",
            Minor,
            "Twenty static validations at once end within the deadline of one.",
            static_quick,
        ),
        Rule::required(
            "validation.same-verdict",
            Minor,
            "The same config gets the same verdict each time.",
            same_verdict,
        ),
        Rule::required(
            "validation.diagnostics-are-bounded",
            Minor,
            "At most 100 diagnostics, worst first, each with a severity and a message of at most 1 KiB.",
            bounded,
        ),
        Rule::required(
            "validation.tells-replacements",
            Minor,
            "With the previous config, a change that cannot be made in place is told beforehand.",
            replacements,
        ),
        Rule::required(
            "validation.preflight-of-the-valid",
            Major,
            "A preflight of the valid configs finds no ERROR.",
            preflight,
        ),
        Rule::required(
            "validation.preflight-finds-what-is-missing",
            Minor,
            "A preflight finds that something that the config names is not there.",
            preflight_missing,
        ),
        Rule::required(
            "validation.preflight-with-bad-credentials",
            Major,
            "A preflight with credentials that the cloud refuses is UNAUTHENTICATED, or says so in an ERROR.",
            preflight_bad,
        ),
    ]
}

fn request(config: v1::OpaqueConfig) -> v1::ValidateConfigRequest {
    v1::ValidateConfigRequest {
        config: Some(config),
        mode: ValidationMode::Static.into(),
        ..Default::default()
    }
}

/// The diagnostics that make a config invalid; an unspecified severity is to be read as ERROR.
fn errors(answer: &v1::ValidateConfigResponse) -> Vec<&v1::Diagnostic> {
    answer
        .diagnostics
        .iter()
        .filter(|found| found.severity() != Gravity::Warning)
        .collect()
}

async fn valid(context: Context) -> Verdict {
    for target in TARGETS {
        let configs = context.configs(target);
        for config in [
            Some(&configs.valid),
            configs.alternative.as_ref(),
            configs.replacement.as_ref(),
        ]
        .into_iter()
        .flatten()
        {
            let answer = context.ask(request(context.opaque(target, config))).await?;
            holds!(
                errors(&answer).is_empty(),
                "{config} is found invalid: {:?}",
                errors(&answer)
            );
        }
    }
    Ok(())
}

async fn invalid(context: Context) -> Verdict {
    let mut looked = 0;
    for target in TARGETS {
        for invalid in &context.configs(target).invalid {
            looked += 1;
            let answer = context.ask(request(context.opaque(target, &invalid.config))).await?;
            let found = errors(&answer);
            holds!(!found.is_empty(), "{} is found valid", invalid.config);
            holds!(
                found.iter().any(|found| found.json_pointer == invalid.at),
                "{} is wrong at {:?}, but the errors are at {:?}",
                invalid.config,
                invalid.at,
                found.iter().map(|found| &found.json_pointer).collect::<Vec<_>>()
            );
        }
    }
    if looked == 0 {
        return Err(Stop::skipped(
            "the config has no machine.invalid and no cluster.invalid",
        ));
    }
    Ok(())
}

/// Whether a pointer leads into a document, or to one field that an object there lacks.
fn leads(pointer: &str, document: &Value) -> bool {
    if pointer.is_empty() || document.pointer(pointer).is_some() {
        return true;
    }
    let Some((parent, _)) = pointer.rsplit_once('/') else {
        return false;
    };
    leads(parent, document)
}

fn well_formed(pointer: &str) -> bool {
    let escapes = pointer
        .split('~')
        .skip(1)
        .all(|rest| rest.starts_with('0') || rest.starts_with('1'));
    (pointer.is_empty() || pointer.starts_with('/')) && escapes
}

async fn pointers(context: Context) -> Verdict {
    for target in TARGETS {
        let configs = context.configs(target);
        let mut wrong = configs.valid.clone();
        wrong["a/b~c"] = json!(1);
        let documents = configs.invalid.iter().map(|invalid| &invalid.config).chain([&wrong]);
        for document in documents {
            for found in context
                .ask(request(context.opaque(target, document)))
                .await?
                .diagnostics
            {
                let pointer = &found.json_pointer;
                holds!(well_formed(pointer), "{pointer:?} is no JSON pointer");
                holds!(leads(pointer, document), "{pointer:?} leads nowhere in {document}");
            }
        }
    }
    Ok(())
}

async fn unknown_key(context: Context) -> Verdict {
    for target in TARGETS {
        let mut config = context.configs(target).valid.clone();
        config[NO_SUCH_FIELD] = json!("x");
        let answer = context.ask(request(context.opaque(target, &config))).await?;
        let wanted = format!("/{NO_SUCH_FIELD}");
        holds!(
            errors(&answer).iter().any(|found| found.json_pointer == wanted),
            "{config} has the diagnostics {:?}; an ERROR at {wanted} is due",
            answer.diagnostics
        );
    }
    Ok(())
}

/// The valid config with its first key written twice.
fn doubled(valid: &Value) -> Option<String> {
    let (key, value) = valid.as_object()?.iter().next()?;
    let text = valid.to_string();
    Some(format!("{{{}:{value},{}", json!(key), &text[1..]))
}

async fn duplicate_key(context: Context) -> Verdict {
    let mut looked = 0;
    for target in TARGETS {
        let Some(text) = doubled(&context.configs(target).valid) else {
            continue;
        };
        looked += 1;
        let answer = context
            .ask(request(context.opaque_bytes(target, text.clone().into_bytes())))
            .await?;
        holds!(!errors(&answer).is_empty(), "{text} is found valid");
    }
    if looked == 0 {
        return Err(Stop::skipped("the valid configs are empty"));
    }
    Ok(())
}

async fn found_wrong(context: &Context, bytes: &[u8]) -> Verdict {
    let answer = context
        .ask(request(context.opaque_bytes(ConfigTarget::Machine, bytes.to_vec())))
        .await?;
    holds!(
        !errors(&answer).is_empty(),
        "{:?} is found valid",
        String::from_utf8_lossy(bytes)
    );
    Ok(())
}

async fn no_object(context: Context) -> Verdict {
    for text in ["[]", "\"x\"", "1", "null", "true"] {
        found_wrong(&context, text.as_bytes()).await?;
    }
    Ok(())
}

async fn bad_json(context: Context) -> Verdict {
    for text in ["{", "{}{}", "{\"a\":}", "{'a':1}", "// x\n{}"] {
        found_wrong(&context, text.as_bytes()).await?;
    }
    Ok(())
}

async fn bad_utf8(context: Context) -> Verdict {
    let mut bytes = context.configs(ConfigTarget::Machine).valid.to_string().into_bytes();
    let end = bytes.len() - 1;
    bytes.splice(
        end..end,
        if end > 1 {
            b",\"\xff\":1".to_vec()
        } else {
            b"\"\xff\":1".to_vec()
        },
    );
    found_wrong(&context, &bytes).await
}

fn with_number(context: &Context, number: Value) -> Result<Value, Stop> {
    let configs = context.configs(ConfigTarget::Machine);
    let Some(pointer) = &configs.integer_at else {
        return Err(Stop::skipped("the config has no machine.integerAt"));
    };
    let mut config = configs.valid.clone();
    let (parent, key) = pointer.rsplit_once('/').unwrap_or(("", pointer));
    let Some(object) = config.pointer_mut(parent).and_then(Value::as_object_mut) else {
        return Err(Stop::skipped(format!(
            "machine.integerAt ({pointer}) leads nowhere in the valid config"
        )));
    };
    object.insert(key.replace("~1", "/").replace("~0", "~"), number);
    Ok(config)
}

async fn exact_integers(context: Context) -> Verdict {
    let config = with_number(&context, json!(BEYOND_DOUBLE))?;
    let answer = context
        .ask(request(context.opaque(ConfigTarget::Machine, &config)))
        .await?;
    // Taken, or refused in words that show what was read.
    let words: Vec<String> = errors(&answer)
        .iter()
        .map(|found| found.message.replace([',', '_', ' '], ""))
        .collect();
    holds!(
        words.is_empty() || words.iter().any(|words| words.contains(&BEYOND_DOUBLE.to_string())),
        "{BEYOND_DOUBLE} was refused in words that do not hold its digits: {:?}",
        errors(&answer)
    );
    Ok(())
}

async fn fractions(context: Context) -> Verdict {
    let config = with_number(&context, json!(1.5))?;
    let answer = context
        .ask(request(context.opaque(ConfigTarget::Machine, &config)))
        .await?;
    holds!(!errors(&answer).is_empty(), "{config} is found valid");
    Ok(())
}

async fn digest_mismatch(context: Context) -> Verdict {
    let mut config = context.valid(ConfigTarget::Machine);
    config.sha256 = vec![0; 32];
    let answer = context.calls.call(request(config)).await;
    context
        .refused(answer, &[ErrorReason::InvalidField], "a config with a wrong digest")
        .map(|_| ())
}

async fn unknown_kind(context: Context) -> Verdict {
    let mut config = context.valid(ConfigTarget::Machine);
    config.kind = "NoSuchKind".into();
    let answer = context.calls.call(request(config)).await;
    context
        .refused(answer, &[ErrorReason::InvalidField], "a config of an unknown kind")
        .map(|_| ())
}

async fn unknown_version(context: Context) -> Verdict {
    let mut config = context.valid(ConfigTarget::Machine);
    config.schema_version = "v99".into();
    let answer = context.calls.call(request(config)).await;
    context
        .refused(
            answer,
            &[ErrorReason::UnsupportedSchemaVersion],
            "a config of an unknown version",
        )
        .map(|_| ())
}

async fn missing_config(context: Context) -> Verdict {
    let answer = context.calls.call(v1::ValidateConfigRequest::default()).await;
    context
        .refused(answer, &[ErrorReason::InvalidField], "a validation without a config")
        .map(|_| ())
}

async fn static_offline(context: Context) -> Verdict {
    for credentials in [None, context.bad.clone()] {
        let mut request = request(context.valid(ConfigTarget::Machine));
        request.credentials = credentials;
        let answer = context.ask(request).await?;
        holds!(errors(&answer).is_empty(), "it is found invalid: {:?}", errors(&answer));
    }
    Ok(())
}

async fn static_quick(context: Context) -> Verdict {
    let asked = (0..20).map(|_| context.ask(request(context.valid(ConfigTarget::Machine))));
    futures::future::try_join_all(asked).await.map(|_| ())
}

async fn same_verdict(context: Context) -> Verdict {
    for target in TARGETS {
        let configs = context.configs(target);
        for config in configs
            .invalid
            .iter()
            .map(|invalid| &invalid.config)
            .chain([&configs.valid])
        {
            let first = context.ask(request(context.opaque(target, config))).await?;
            for _ in 0..3 {
                let other = context.ask(request(context.opaque(target, config))).await?;
                holds!(other == first, "{config} got {first:?} and then {other:?}");
            }
        }
    }
    Ok(())
}

async fn bounded(context: Context) -> Verdict {
    let mut config = context.configs(ConfigTarget::Machine).valid.clone();
    for number in 0..150 {
        config[format!("{NO_SUCH_FIELD}-{number}-{}", "x".repeat(40))] = json!("y".repeat(400));
    }
    let found = context
        .ask(request(context.opaque(ConfigTarget::Machine, &config)))
        .await?
        .diagnostics;
    holds!(
        !found.is_empty() && found.len() <= MAX_DIAGNOSTICS,
        "there are {} diagnostics",
        found.len()
    );
    for diagnostic in &found {
        holds!(
            diagnostic.severity() != Gravity::Unspecified,
            "{diagnostic:?} has no severity"
        );
        let bytes = diagnostic.message.len();
        holds!(
            (1..=MAX_TEXT_BYTES).contains(&bytes),
            "the message of {:?} has {bytes} bytes",
            diagnostic.json_pointer
        );
    }
    let warnings_first = found
        .windows(2)
        .any(|pair| pair[0].severity() == Gravity::Warning && pair[1].severity() != Gravity::Warning);
    holds!(!warnings_first, "a warning comes before an error");
    Ok(())
}

async fn replacements(context: Context) -> Verdict {
    let configs = context.configs(ConfigTarget::Machine);
    let Some(replacement) = &configs.replacement else {
        return Err(Stop::skipped("the config has no machine.replacement"));
    };
    let mut request = request(context.opaque(ConfigTarget::Machine, replacement));
    request.previous = Some(context.valid(ConfigTarget::Machine));
    let answer = context.ask(request.clone()).await?;
    holds!(
        answer.diagnostics.iter().any(|found| found.requires_replacement),
        "no diagnostic says requires_replacement: {:?}",
        answer.diagnostics
    );
    if let Some(alternative) = &configs.alternative {
        request.config = Some(context.opaque(ConfigTarget::Machine, alternative));
        let answer = context.ask(request).await?;
        let wrong = answer.diagnostics.iter().find(|found| found.requires_replacement);
        holds!(
            wrong.is_none(),
            "a change that can be made in place is said to need a replacement: {wrong:?}"
        );
    }
    Ok(())
}

fn preflight_request(context: &Context, config: v1::OpaqueConfig) -> v1::ValidateConfigRequest {
    v1::ValidateConfigRequest {
        mode: ValidationMode::Preflight.into(),
        credentials: Some(context.good.clone()),
        ..request(config)
    }
}

async fn preflight(context: Context) -> Verdict {
    for target in TARGETS {
        let answer = context.ask(preflight_request(&context, context.valid(target))).await?;
        holds!(
            errors(&answer).is_empty(),
            "{}: {:?}",
            target.as_str_name(),
            errors(&answer)
        );
    }
    Ok(())
}

async fn preflight_missing(context: Context) -> Verdict {
    let Some(config) = &context.configs(ConfigTarget::Machine).missing_dependency else {
        return Err(Stop::skipped("the config has no machine.missingDependency"));
    };
    let request = preflight_request(&context, context.opaque(ConfigTarget::Machine, config));
    match context.calls.call(request).await {
        Ok(answer) => {
            holds!(!errors(&answer).is_empty(), "{config} is found valid");
            Ok(())
        }
        Err(status) => context
            .refused::<()>(
                Err(status),
                &[ErrorReason::DependencyNotFound],
                "a config that names what is not there",
            )
            .map(|_| ()),
    }
}

async fn preflight_bad(context: Context) -> Verdict {
    let Some(bad) = context.bad.clone() else {
        return Err(Stop::skipped("the config has no credentials.bad"));
    };
    let mut request = preflight_request(&context, context.valid(ConfigTarget::Machine));
    request.credentials = Some(bad);
    match context.calls.call(request).await {
        Ok(answer) => {
            holds!(!errors(&answer).is_empty(), "they were taken");
            Ok(())
        }
        Err(status) => {
            let reasons = [
                ErrorReason::CredentialsInvalid,
                ErrorReason::CredentialsExpired,
                ErrorReason::MissingPermission,
            ];
            context
                .refused::<()>(Err(status), &reasons, "a preflight with bad credentials")
                .map(|_| ())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pointers_lead_somewhere_or_nowhere() {
        let document = json!({ "a": { "b": [1] } });
        assert!(leads("", &document) && leads("/a/b/0", &document) && leads("/a/missing", &document));
        assert!(well_formed("/a~1b") && !well_formed("a") && !well_formed("/a~2"));
        assert_eq!(doubled(&json!({ "a": 1 })).as_deref(), Some(r#"{"a":1,"a":1}"#));
        assert_eq!(doubled(&json!({})), None);
    }
}
