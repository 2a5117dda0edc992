//! `CreateMachine` that is refused: with its reason, and nothing made.

use actuator_proto::errors::Classified;
use actuator_proto::limits::MAX_BOOTSTRAP_BYTES;
use actuator_proto::v1::{self, ConfigTarget, Effect, ErrorReason, Presence};

use crate::calls::show_status;
use crate::context::Context;
use crate::holds;
use crate::requests::{self, Created as _, changed};
use crate::rule::{
    Rule,
    Severity::{Critical, Major, Minor},
    Stop, Verdict,
};

use super::create::machine;

pub fn rules() -> Vec<Rule> {
    vec![
        Rule::required("create.bad-keys", Major, "A key that is empty, longer than 64 bytes or of other characters is refused with INVALID_FIELD.", bad_keys),
        Rule::required("create.missing-fields", Major, "A create without meta, ownership or spec is refused with INVALID_FIELD, and the field is named.", missing_fields),
        Rule::required("create.missing-ownership-ids", Critical, "A create whose ownership lacks an id is refused with INVALID_FIELD: nobody would find it again.", missing_ids),
        Rule::required("create.bad-digest", Major, "A create whose spec digest has not 32 bytes is refused with INVALID_FIELD.", bad_digest),
        Rule::required("create.negative-generation", Minor, "A generation below zero is refused with INVALID_FIELD.", negative_generation),
        Rule::required("create.bootstrap-at-the-limit", Major, "Bootstrap data of exactly max_bootstrap_bytes is taken.", bootstrap_at_limit).machines(1),
        Rule::required("create.bootstrap-above-the-limit", Major, "Bootstrap data of one byte more is refused with BOOTSTRAP_TOO_LARGE, and nothing is made.", bootstrap_above_limit),
        Rule::required("create.bootstrap-digest", Minor, "Bootstrap data whose SHA-256 is not that of its bytes is refused with INVALID_FIELD.", bootstrap_digest),
        Rule::required("create.without-bootstrap-data", Minor, "A machine without bootstrap data is made, or refused with INVALID_FIELD.", no_bootstrap).machines(1),
        Rule::required("create.invalid-config", Major, "An invalid config is refused with INVALID_CONFIG at its field, and nothing is made.", invalid_config),
        Rule::required("create.config-digest", Major, "A config whose SHA-256 is not that of its bytes is refused with INVALID_FIELD.", config_digest),
        Rule::required("create.unknown-schema-version", Major, "A config of an unknown schema version is refused with UNSUPPORTED_SCHEMA_VERSION.", unknown_version),
        Rule::required("create.missing-dependency", Major, "A config that names what the cloud does not have is refused with DEPENDENCY_NOT_FOUND, and what was begun is found by key.", missing_dependency),
        Rule::required("create.bad-credentials", Major, "Credentials that the cloud refuses get CREDENTIALS_INVALID, and nothing is made.", bad_credentials),
        Rule::required("create.no-credentials", Major, "A create without the credentials that are needed is refused with CREDENTIALS_INVALID.", no_credentials),
        Rule::required("create.stale-generation", Major, "A create with a generation below one that was seen is refused with STALE_GENERATION, or returns the machine unchanged.", stale_generation).machines(1),
        Rule::required("create.stale-fencing-epoch", Critical, "A create with a fencing epoch below one that was seen is refused with STALE_FENCING_EPOCH.", stale_epoch).machines(1).alone(),
        Rule::required("create.unknown-failure-domain", Minor, "A failure domain that is not there is refused, and nothing is made.", unknown_domain),
    ]
}

async fn nothing(context: &Context, request: &v1::CreateMachineRequest) -> Verdict {
    tokio::time::sleep(context.read_after_write()).await;
    // By key alone: config and credentials may be what was refused.
    let asked = v1::MachineExistsRequest {
        config: None,
        credentials: Some(context.good.clone()),
        ..requests::machine_exists(request)
    };
    let answer = context.settle(asked, context.config.timeouts.gone).await?;
    holds!(
        answer.presence() == Presence::Absent,
        "effect NONE was told, but Exists answers {}",
        answer.presence().as_str_name()
    );
    Ok(())
}

async fn refused(
    context: &Context,
    request: v1::CreateMachineRequest,
    reasons: &[ErrorReason],
    what: &str,
) -> Result<Classified, Stop> {
    let answer = context.calls.call(request.clone()).await;
    let classified = context.refused(answer, reasons, what)?;
    // A key that is malformed names nothing that could be asked for.
    if actuator_proto::key::validate(&request.key()).is_ok() && complete(&request) {
        nothing(context, &request).await?;
    }
    Ok(classified)
}

fn complete(request: &v1::CreateMachineRequest) -> bool {
    request.ownership.as_ref().is_some_and(|ownership| {
        !ownership.management_cluster_id.is_empty()
            && !ownership.cluster_uid.is_empty()
            && !ownership.object_uid.is_empty()
    })
}

async fn bad_keys(context: Context) -> Verdict {
    for key in [
        String::new(),
        "k".repeat(65),
        "a b".to_owned(),
        "a/b".to_owned(),
        "ä".to_owned(),
        "a\n".to_owned(),
    ] {
        let mut request = machine(&context, "key").await?;
        if let Some(meta) = &mut request.meta {
            meta.idempotency_key.clone_from(&key);
        }
        let answer = context.calls.raw(
            "/actuator.v1.MachineService/CreateMachine",
            prost::Message::encode_to_vec(&request).into(),
            std::time::Duration::from_mins(1),
        );
        // Raw, since the ledger cannot sweep what has no lawful key.
        context.refused(
            answer.await,
            &[ErrorReason::InvalidField, ErrorReason::LimitExceeded],
            &format!("the key {key:?}"),
        )?;
    }
    Ok(())
}

async fn named(context: &Context, request: v1::CreateMachineRequest, field: &str) -> Verdict {
    let answer = context.calls.call(request).await;
    let classified = context.refused(
        answer,
        &[ErrorReason::InvalidField],
        &format!("a create without {field}"),
    )?;
    holds!(
        classified
            .fields
            .iter()
            .any(|violation| violation.field.starts_with(field)),
        "the field {field} is not named in BadRequest: {:?}",
        classified.fields
    );
    Ok(())
}

async fn missing_fields(context: Context) -> Verdict {
    let whole = machine(&context, "missing").await?;
    named(
        &context,
        v1::CreateMachineRequest {
            meta: None,
            ..whole.clone()
        },
        "meta",
    )
    .await?;
    named(
        &context,
        v1::CreateMachineRequest {
            ownership: None,
            ..whole.clone()
        },
        "ownership",
    )
    .await?;
    named(&context, v1::CreateMachineRequest { spec: None, ..whole }, "spec").await
}

async fn missing_ids(context: Context) -> Verdict {
    for (what, clear) in [
        (
            "management_cluster_id",
            (|ownership| ownership.management_cluster_id.clear()) as fn(&mut v1::Ownership),
        ),
        ("cluster_uid", |ownership| ownership.cluster_uid.clear()),
        ("object_uid", |ownership| ownership.object_uid.clear()),
    ] {
        let mut request = machine(&context, "nobody").await?;
        request.ownership.iter_mut().for_each(clear);
        refused(
            &context,
            request,
            &[ErrorReason::InvalidField],
            &format!("an ownership without {what}"),
        )
        .await?;
    }
    Ok(())
}

async fn bad_digest(context: Context) -> Verdict {
    for bytes in [0, 31, 33] {
        let mut request = machine(&context, "digest").await?;
        if let Some(spec) = &mut request.spec {
            spec.digest = vec![1; bytes];
        }
        refused(
            &context,
            request,
            &[ErrorReason::InvalidField],
            &format!("a digest of {bytes} bytes"),
        )
        .await?;
    }
    Ok(())
}

async fn negative_generation(context: Context) -> Verdict {
    let mut request = machine(&context, "generation").await?;
    if let Some(meta) = &mut request.meta {
        meta.generation = -1;
    }
    refused(
        &context,
        request,
        &[ErrorReason::InvalidField],
        "a generation below zero",
    )
    .await
    .map(|_| ())
}

fn sized(context: &Context, bytes: usize) -> v1::BootstrapData {
    let small = context.bootstrap("sized");
    let mut data = small.data.clone();
    data.resize(bytes, b'\n');
    requests::bootstrap(data, small.format())
}

fn most_bootstrap(context: &Context) -> usize {
    let told = context
        .info
        .limits
        .as_ref()
        .map_or(0, |limits| limits.max_bootstrap_bytes);
    usize::try_from(told).unwrap_or(0).min(MAX_BOOTSTRAP_BYTES)
}

async fn bootstrap_at_limit(context: Context) -> Verdict {
    let mut request = machine(&context, "large").await?;
    request.bootstrap = Some(sized(&context, most_bootstrap(&context)));
    context.create(&request).await.map(|_| ())
}

async fn bootstrap_above_limit(context: Context) -> Verdict {
    let mut request = machine(&context, "larger").await?;
    request.bootstrap = Some(sized(&context, most_bootstrap(&context) + 1));
    refused(
        &context,
        request,
        &[ErrorReason::BootstrapTooLarge],
        "bootstrap data above the limit",
    )
    .await
    .map(|_| ())
}

async fn bootstrap_digest(context: Context) -> Verdict {
    let mut request = machine(&context, "mangled").await?;
    if let Some(bootstrap) = &mut request.bootstrap {
        bootstrap.sha256 = vec![0; 32];
    }
    refused(
        &context,
        request,
        &[ErrorReason::InvalidField],
        "bootstrap data with a wrong digest",
    )
    .await
    .map(|_| ())
}

async fn no_bootstrap(context: Context) -> Verdict {
    let request = v1::CreateMachineRequest {
        bootstrap: None,
        ..machine(&context, "bare").await?
    };
    match context.calls.call(request.clone()).await {
        Ok(answer) => {
            holds!(
                answer.status.is_some_and(|status| !status.provider_id.is_empty()),
                "it has no provider_id"
            );
            Ok(())
        }
        Err(status) => {
            context.refused::<()>(
                Err(status),
                &[ErrorReason::InvalidField],
                "a machine without bootstrap data",
            )?;
            nothing(&context, &request).await
        }
    }
}

async fn with_config(
    context: &Context,
    label: &str,
    config: v1::OpaqueConfig,
) -> Result<v1::CreateMachineRequest, Stop> {
    let mut request = machine(context, label).await?;
    request.spec = request
        .spec
        .map(|spec| changed(spec, |spec| spec.config = Some(config)));
    Ok(request)
}

async fn invalid_config(context: Context) -> Verdict {
    let mut unknown = context.configs(ConfigTarget::Machine).valid.clone();
    unknown["x-conformance-no-such-field"] = 1.into();
    let configs = context
        .configs(ConfigTarget::Machine)
        .invalid
        .iter()
        .map(|invalid| (&invalid.config, invalid.at.clone()));
    for (config, at) in configs.chain([(&unknown, "/x-conformance-no-such-field".to_owned())]) {
        let request = with_config(&context, "invalid", context.opaque(ConfigTarget::Machine, config)).await?;
        let classified = refused(&context, request, &[ErrorReason::InvalidConfig], &config.to_string()).await?;
        holds!(
            classified.fields.iter().any(|violation| violation.field == at),
            "{config} is wrong at {at}, BadRequest names {:?}",
            classified.fields
        );
    }
    Ok(())
}

async fn config_digest(context: Context) -> Verdict {
    let mut config = context.valid(ConfigTarget::Machine);
    config.sha256 = vec![0; 32];
    let request = with_config(&context, "tampered", config).await?;
    refused(
        &context,
        request,
        &[ErrorReason::InvalidField],
        "a config with a wrong digest",
    )
    .await
    .map(|_| ())
}

async fn unknown_version(context: Context) -> Verdict {
    let mut config = context.valid(ConfigTarget::Machine);
    config.schema_version = "v99".into();
    let request = with_config(&context, "future", config).await?;
    refused(
        &context,
        request,
        &[ErrorReason::UnsupportedSchemaVersion],
        "an unknown schema version",
    )
    .await
    .map(|_| ())
}

async fn missing_dependency(context: Context) -> Verdict {
    let Some(config) = context.configs(ConfigTarget::Machine).missing_dependency.clone() else {
        return Err(Stop::skipped("the config has no machine.missingDependency"));
    };
    let request = with_config(&context, "orphan", context.opaque(ConfigTarget::Machine, &config)).await?;
    let Err(status) = context.calls.call(request.clone()).await else {
        return Err(Stop::broken(format!("{config} was accepted")));
    };
    let classified = Classified::from_status(&status);
    holds!(
        classified.reason == Some(ErrorReason::DependencyNotFound),
        "{config} got {}",
        show_status(&status)
    );
    if classified.effect == Effect::None {
        return nothing(&context, &request).await;
    }
    // What was begun must be found, and go away.
    context.delete(&request).await.map(|_| ())
}

async fn bad_credentials(context: Context) -> Verdict {
    let Some(bad) = context.bad.clone() else {
        return Err(Stop::skipped("the config has no credentials.bad"));
    };
    let request = machine(&context, "stranger").await?;
    let reasons = [ErrorReason::CredentialsInvalid, ErrorReason::CredentialsExpired];
    let answer = context
        .calls
        .call(v1::CreateMachineRequest {
            credentials: Some(bad),
            ..request.clone()
        })
        .await;
    context.refused(answer, &reasons, "a create with bad credentials")?;
    nothing(&context, &request).await
}

async fn no_credentials(context: Context) -> Verdict {
    if !context.info.credential_keys.iter().any(|key| !key.optional) {
        return Err(Stop::inapplicable("the provider needs no credentials"));
    }
    let request = machine(&context, "nameless").await?;
    let empty = requests::credentials([("x-conformance".to_owned(), b"x".to_vec())].into());
    for credentials in [None, Some(empty)] {
        let answer = context
            .calls
            .call(v1::CreateMachineRequest {
                credentials,
                ..request.clone()
            })
            .await;
        context.refused(
            answer,
            &[ErrorReason::CredentialsInvalid],
            "a create without credentials",
        )?;
    }
    nothing(&context, &request).await
}

async fn stale_generation(context: Context) -> Verdict {
    let mut request = machine(&context, "stale").await?;
    if let Some(meta) = &mut request.meta {
        meta.generation = 5;
    }
    let first = context.create(&request).await?;
    let mut older = request.clone();
    if let Some(meta) = &mut older.meta {
        meta.generation = 3;
    }
    match context.calls.call(older).await {
        Ok(answer) => {
            let status = answer.status.unwrap_or_default();
            holds!(
                status.provider_id == first.provider_id && status.observed_generation >= 5,
                "the generation went back: {:?} at {}",
                status.provider_id,
                status.observed_generation
            );
            Ok(())
        }
        Err(status) => context
            .refused::<()>(Err(status), &[ErrorReason::StaleGeneration], "an older generation")
            .map(|_| ()),
    }
}

async fn stale_epoch(context: Context) -> Verdict {
    let mut request = machine(&context, "fenced").await?;
    let lower = context.next_epoch();
    let higher = context.next_epoch();
    if let Some(meta) = &mut request.meta {
        meta.fencing_epoch = higher;
    }
    context.create(&request).await?;
    let mut late = machine(&context, "deposed").await?;
    if let Some(meta) = &mut late.meta {
        meta.fencing_epoch = lower;
    }
    refused(
        &context,
        late,
        &[ErrorReason::StaleFencingEpoch],
        "a create of a core that lost the lead",
    )
    .await?;
    // One that does not fence is not behind anybody.
    let unfenced = machine(&context, "unfenced").await?;
    context.create(&unfenced).await.map(|_| ())
}

async fn unknown_domain(context: Context) -> Verdict {
    if context.cluster().await?.status.failure_domains.is_empty() {
        return Err(Stop::inapplicable("the cluster has no failure domains"));
    }
    let mut request = machine(&context, "nowhere").await?;
    request.spec = request
        .spec
        .map(|spec| changed(spec, |spec| spec.failure_domain = "no-such-domain".into()));
    let reasons = [
        ErrorReason::InvalidField,
        ErrorReason::InvalidConfig,
        ErrorReason::DependencyNotFound,
    ];
    refused(&context, request, &reasons, "a failure domain that is not there")
        .await
        .map(|_| ())
}
