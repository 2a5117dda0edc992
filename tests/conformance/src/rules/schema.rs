//! `GetConfigSchema`: what the core publishes to users before anything is sent.

use actuator_proto::digest::sha256;
use actuator_proto::v1::{self, ConfigTarget, ErrorReason};
use serde_json::{Value, json};

use crate::context::Context;
use crate::holds;
use crate::rule::{
    Rule,
    Severity::{Major, Minor},
    Stop, Verdict,
};

/// The largest schema, in bytes.
const MAX_SCHEMA_BYTES: usize = 1024 * 1024;
/// A name that no config has.
const NO_SUCH_FIELD: &str = "x-conformance-no-such-field";

pub fn rules() -> Vec<Rule> {
    vec![
        Rule::required(
            "schema.every-version",
            Major,
            "There is a schema for every config kind and version that GetInfo lists.",
            every,
        ),
        Rule::required(
            "schema.is-2020-12",
            Major,
            "Each schema is JSON Schema 2020-12 of an object, in UTF-8.",
            is_schema,
        ),
        Rule::required("schema.digest", Minor, "Each schema comes with its SHA-256.", digests),
        Rule::required("schema.size", Minor, "No schema is larger than 1 MiB.", size),
        Rule::required("schema.stays", Minor, "A schema is the same each time.", stays),
        Rule::required(
            "schema.accepts-the-valid",
            Major,
            "The valid configs are valid by their schemas.",
            accepts,
        ),
        Rule::required(
            "schema.refuses-unknown-fields",
            Major,
            "The schemas refuse unknown fields, as the provider has to.",
            refuses_unknown,
        ),
        Rule::required(
            "schema.unknown-kind",
            Minor,
            "An unknown kind is refused with INVALID_FIELD.",
            unknown_kind,
        ),
        Rule::required(
            "schema.unknown-version",
            Minor,
            "An unknown version is refused with UNSUPPORTED_SCHEMA_VERSION.",
            unknown_version,
        ),
    ]
}

/// Kind and version of each schema, with what the provider answered.
async fn schemas(context: &Context) -> Result<Vec<(String, v1::GetConfigSchemaResponse)>, Stop> {
    let mut found = Vec::new();
    for kind in &context.info.config_kinds {
        for version in &kind.schema_versions {
            let request = v1::GetConfigSchemaRequest {
                kind: kind.kind.clone(),
                schema_version: version.clone(),
            };
            found.push((format!("{} {version}", kind.kind), context.ask(request).await?));
        }
    }
    Ok(found)
}

async fn every(context: Context) -> Verdict {
    let schemas = schemas(&context).await?;
    holds!(!schemas.is_empty(), "GetInfo lists no config kind");
    for (name, schema) in schemas {
        holds!(!schema.json_schema.is_empty(), "the schema of {name} is empty");
    }
    Ok(())
}

fn parse(name: &str, schema: &v1::GetConfigSchemaResponse) -> Result<Value, Stop> {
    serde_json::from_slice(&schema.json_schema)
        .map_err(|error| Stop::broken(format!("the schema of {name} is no JSON: {error}")))
}

fn compile(name: &str, schema: &Value) -> Result<jsonschema::Validator, Stop> {
    jsonschema::draft202012::new(schema)
        .map_err(|error| Stop::broken(format!("the schema of {name} is no 2020-12: {error}")))
}

async fn is_schema(context: Context) -> Verdict {
    for (name, answer) in schemas(&context).await? {
        let schema = parse(&name, &answer)?;
        let validator = compile(&name, &schema)?;
        holds!(
            !validator.is_valid(&json!([])) && !validator.is_valid(&json!("x")),
            "the schema of {name} takes what is no object"
        );
    }
    Ok(())
}

async fn digests(context: Context) -> Verdict {
    for (name, answer) in schemas(&context).await? {
        holds!(
            answer.sha256 == sha256(&answer.json_schema),
            "the digest of {name} is not that of its bytes"
        );
    }
    Ok(())
}

async fn size(context: Context) -> Verdict {
    for (name, answer) in schemas(&context).await? {
        let bytes = answer.json_schema.len();
        holds!(bytes <= MAX_SCHEMA_BYTES, "the schema of {name} has {bytes} bytes");
    }
    Ok(())
}

async fn stays(context: Context) -> Verdict {
    holds!(
        schemas(&context).await? == schemas(&context).await?,
        "asked twice, the schemas differ"
    );
    Ok(())
}

async fn validator(context: &Context, target: ConfigTarget) -> Result<jsonschema::Validator, Stop> {
    let (kind, schema_version) = context.kind(target);
    let request = v1::GetConfigSchemaRequest {
        kind: kind.clone(),
        schema_version,
    };
    let answer = context.ask(request).await?;
    compile(&kind, &parse(&kind, &answer)?)
}

async fn accepts(context: Context) -> Verdict {
    for target in [ConfigTarget::Cluster, ConfigTarget::Machine] {
        let validator = validator(&context, target).await?;
        let configs = context.configs(target);
        let valid = [
            Some(&configs.valid),
            configs.alternative.as_ref(),
            configs.replacement.as_ref(),
        ];
        for config in valid.into_iter().flatten() {
            let errors: Vec<String> = validator
                .iter_errors(config)
                .map(|error| format!("{}: {error}", error.instance_path()))
                .collect();
            holds!(
                errors.is_empty(),
                "{config} is refused by its schema: {}",
                errors.join("; ")
            );
        }
    }
    Ok(())
}

async fn refuses_unknown(context: Context) -> Verdict {
    for target in [ConfigTarget::Cluster, ConfigTarget::Machine] {
        let validator = validator(&context, target).await?;
        let mut config = context.configs(target).valid.clone();
        config[NO_SUCH_FIELD] = json!(1);
        holds!(
            !validator.is_valid(&config),
            "the schema of {} takes an unknown field",
            context.kind(target).0
        );
    }
    Ok(())
}

async fn unknown_kind(context: Context) -> Verdict {
    let request = v1::GetConfigSchemaRequest {
        kind: "NoSuchKind".to_owned(),
        schema_version: "v1".to_owned(),
    };
    let answer = context.calls.call(request).await;
    context
        .refused(answer, &[ErrorReason::InvalidField], "a schema of an unknown kind")
        .map(|_| ())
}

async fn unknown_version(context: Context) -> Verdict {
    let (kind, _) = context.kind(ConfigTarget::Machine);
    let request = v1::GetConfigSchemaRequest {
        kind,
        schema_version: "v99".to_owned(),
    };
    let answer = context.calls.call(request).await;
    context
        .refused(
            answer,
            &[ErrorReason::UnsupportedSchemaVersion],
            "a schema of an unknown version",
        )
        .map(|_| ())
}
