//! `CreateMachine`: made once, found by its key, whatever happens in between.

use actuator_proto::errors::Classified;
use actuator_proto::limits::{MAX_BOOTSTRAP_BYTES, MAX_PROVIDER_ID_BYTES, MAX_PROVIDER_STATE_BYTES};
use actuator_proto::v1::{self, ConfigTarget, Effect, ErrorReason, MachinePhase, Presence};

use crate::calls::show_status;
use crate::context::Context;
use crate::holds;
use crate::requests::{self, Created as _, changed};
use crate::rule::{
    Rule,
    Severity::{Critical, Major, Minor},
    Stop, Verdict,
};

pub fn rules() -> Vec<Rule> {
    vec![
        Rule::required("create.answers-with-an-id", Critical, "A create answers with the machine's provider_id, which begins with the advertised prefix and has at most 512 bytes.", id).machines(1),
        Rule::required("create.becomes-running", Critical, "A machine with the valid config becomes RUNNING.", running).machines(1),
        Rule::required("create.status-is-well-formed", Major, "The status of a running machine has addresses, a known phase, what was observed, and a provider_state of at most 16 KiB.", status).machines(1),
        Rule::required("create.replay-ten-times", Critical, "Ten replays of a create return the same provider_id.", replay_ten).machines(1),
        Rule::required("create.replay-when-running", Critical, "A replay after the machine runs returns the same provider_id.", replay_running).machines(1),
        Rule::required("create.twenty-at-once", Critical, "Twenty creates at once with one key make one machine.", twenty).machines(1),
        Rule::required("create.key-conflict", Critical, "The same key with another digest is refused with KEY_CONFLICT, and the original is untouched.", conflict).machines(1),
        Rule::required("create.rotated-bootstrap-data", Critical, "A replay with rotated bootstrap data returns the existing machine.", rotated_bootstrap).machines(1),
        Rule::required("create.rotated-credentials", Major, "A replay with rotated credentials returns the existing machine.", rotated_credentials).machines(1),
        Rule::required("create.other-cluster-status", Major, "A replay with a newer status of its cluster returns the existing machine: it is no part of the digest.", other_status).machines(1),
        Rule::required("create.later-attempt", Minor, "The attempt number is no part of the identity: a replay with a higher one returns the existing machine.", later_attempt).machines(1),
        Rule::required("create.same-name-in-two-clusters", Critical, "Two clusters may each have a machine of the same name.", same_name).machines(2),
        Rule::required("create.same-name-in-one-cluster", Major, "Two keys make two machines, whatever their names, or the second is refused with NAME_CONFLICT.", same_name_one).machines(2),
        Rule::required("create.longest-name", Minor, "A name of 63 bytes, or of max_name_length, is taken.", longest_name).machines(1),
        Rule::required("create.longest-key", Major, "A key of 64 bytes is taken, and found again.", longest_key).machines(1),
        Rule::required("create.shortest-key", Minor, "A key with every allowed character is taken, and found again.", odd_key).machines(1),
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
        Rule::required("create.foreign-provider-state", Minor, "A provider_state that is none of its own does not lead to another machine.", foreign_state).machines(1),
        Rule::required("create.failure-domain", Minor, "A machine is made in the failure domain that was asked for.", failure_domain).machines(1),
        Rule::required("create.unknown-failure-domain", Minor, "A failure domain that is not there is refused, and nothing is made.", unknown_domain),
    ]
}

/// Nothing is there with this key, past the window in which reads may lag.
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

/// Refused for this reason, and nothing was made.
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

async fn machine(context: &Context, label: &str) -> Result<v1::CreateMachineRequest, Stop> {
    Ok(context.create_machine(&*context.cluster().await?, label))
}

async fn id(context: Context) -> Verdict {
    let request = machine(&context, "id").await?;
    let id = context.create(&request).await?.provider_id;
    let prefix = &context.info.provider_id_prefix;
    holds!(id.starts_with(prefix.as_str()), "{id:?} does not begin with {prefix:?}");
    holds!(
        id.len() <= MAX_PROVIDER_ID_BYTES && id.len() > prefix.len(),
        "{id:?} has {} bytes",
        id.len()
    );
    holds!(!id.chars().any(char::is_control), "{id:?} has control characters");
    Ok(())
}

async fn running(context: Context) -> Verdict {
    let request = machine(&context, "running").await?;
    let made = context.create(&request).await?;
    let status = context.phase(&request, MachinePhase::Running).await?;
    holds!(
        status.provider_id == made.provider_id,
        "its id changed from {:?} to {:?}",
        made.provider_id,
        status.provider_id
    );
    Ok(())
}

async fn status(context: Context) -> Verdict {
    let request = machine(&context, "status").await?;
    context.create(&request).await?;
    let status = context.phase(&request, MachinePhase::Running).await?;
    holds!(!status.addresses.is_empty(), "a machine that runs has no address");
    for address in &status.addresses {
        holds!(
            !address.address.is_empty() && address.r#type() != v1::MachineAddressType::Unspecified,
            "the address {address:?} lacks its type or itself"
        );
    }
    let digest = request
        .spec
        .as_ref()
        .map(|spec| spec.digest.clone())
        .unwrap_or_default();
    holds!(
        status.observed_digest == digest,
        "observed_digest is not that of the spec"
    );
    holds!(
        status.observed_generation == 1,
        "observed_generation is {}",
        status.observed_generation
    );
    holds!(
        status.provider_state.len() <= MAX_PROVIDER_STATE_BYTES,
        "provider_state has {} bytes",
        status.provider_state.len()
    );
    holds!(
        status.failure.is_none(),
        "it runs and has the failure {:?}",
        status.failure
    );
    holds!(!status.machine_type.is_empty(), "machine_type is not told");
    for artefact in &status.artefacts {
        holds!(
            !artefact.r#type.is_empty() && !artefact.id.is_empty(),
            "the artefact {artefact:?} lacks its type or id"
        );
    }
    let mut types: Vec<&String> = status.conditions.iter().map(|condition| &condition.r#type).collect();
    types.sort();
    holds!(
        types.windows(2).all(|pair| pair[0] != pair[1]),
        "a condition is there twice: {types:?}"
    );
    Ok(())
}

async fn replay_ten(context: Context) -> Verdict {
    let request = machine(&context, "replay").await?;
    let first = context.create(&request).await?.provider_id;
    for number in 1..=10 {
        let again = context.create(&request).await?.provider_id;
        holds!(
            again == first,
            "replay {number} returned {again:?} instead of {first:?}"
        );
    }
    Ok(())
}

async fn replay_running(context: Context) -> Verdict {
    let request = machine(&context, "late").await?;
    let first = context.create(&request).await?.provider_id;
    context.phase(&request, MachinePhase::Running).await?;
    let again = context.create(&request).await?;
    holds!(
        again.provider_id == first,
        "it returned {:?} instead of {first:?}",
        again.provider_id
    );
    Ok(())
}

async fn twenty(context: Context) -> Verdict {
    let request = machine(&context, "twenty").await?;
    let made = futures::future::join_all((0..20).map(|_| context.calls.call(request.clone()))).await;
    let mut ids = Vec::new();
    for answer in made {
        match answer {
            Ok(answer) => ids.push(answer.status.unwrap_or_default().provider_id),
            // Told to wait: fine, as long as it is not told that it failed for good.
            Err(status) => {
                let classified = Classified::from_status(&status);
                let waits = matches!(
                    classified.reason,
                    Some(ErrorReason::OperationPending | ErrorReason::TooManyInFlight | ErrorReason::RateLimited)
                );
                holds!(
                    waits || !classified.from_provider,
                    "one of them got {}",
                    show_status(&status)
                );
            }
        }
    }
    ids.push(context.create(&request).await?.provider_id);
    ids.sort();
    ids.dedup();
    holds!(ids.len() == 1, "they made {} machines: {ids:?}", ids.len());
    Ok(())
}

async fn conflict(context: Context) -> Verdict {
    let request = machine(&context, "conflict").await?;
    let first = context.create(&request).await?;
    let mut other = request.clone();
    other.spec = other.spec.map(|spec| {
        changed(spec, |spec| {
            spec.node_labels.insert("other".to_owned(), "digest".to_owned());
        })
    });
    let answer = context.calls.call(other).await;
    context.refused(answer, &[ErrorReason::KeyConflict], "the same key with another digest")?;
    let found = context.exists(&request).await?;
    let status = found.status.clone().unwrap_or_default();
    holds!(
        found.presence() == Presence::Present && status.provider_id == first.provider_id,
        "the original is now {found:?}"
    );
    let digest = request
        .spec
        .as_ref()
        .map(|spec| spec.digest.clone())
        .unwrap_or_default();
    holds!(
        status.observed_digest == digest,
        "the original has the other's digest now"
    );
    Ok(())
}

async fn same_machine(
    context: &Context,
    request: &v1::CreateMachineRequest,
    other: v1::CreateMachineRequest,
) -> Verdict {
    let first = context.create(request).await?.provider_id;
    let again = context.create(&other).await?.provider_id;
    holds!(again == first, "it returned {again:?} instead of {first:?}");
    Ok(())
}

async fn rotated_bootstrap(context: Context) -> Verdict {
    let request = machine(&context, "rotated").await?;
    let other = v1::CreateMachineRequest {
        bootstrap: Some(context.bootstrap("rotated data")),
        ..request.clone()
    };
    holds!(
        other.bootstrap != request.bootstrap,
        "the suite did not rotate the data"
    );
    same_machine(&context, &request, other).await
}

async fn rotated_credentials(context: Context) -> Verdict {
    let Some(rotated) = context.rotated.clone() else {
        return Err(Stop::skipped("the config has no credentials.rotated"));
    };
    let request = machine(&context, "credentials").await?;
    let other = v1::CreateMachineRequest {
        credentials: Some(rotated),
        ..request.clone()
    };
    same_machine(&context, &request, other).await
}

async fn other_status(context: Context) -> Verdict {
    let request = machine(&context, "cluster").await?;
    let mut other = request.clone();
    if let Some(cluster) = other.spec.as_mut().and_then(|spec| spec.cluster.as_mut()) {
        cluster.observed_generation += 1;
        cluster.conditions.push(v1::Condition {
            r#type: "Conformance".to_owned(),
            ..Default::default()
        });
    }
    same_machine(&context, &request, other).await
}

async fn later_attempt(context: Context) -> Verdict {
    let request = machine(&context, "attempt").await?;
    let mut other = request.clone();
    if let Some(meta) = &mut other.meta {
        meta.attempt = 7;
    }
    same_machine(&context, &request, other).await
}

async fn same_name(context: Context) -> Verdict {
    let first = machine(&context, "twin").await?;
    let mut request = context.create_cluster("second");
    if let Some(spec) = &mut request.spec {
        // Its own ranges where the cloud cares is the config's business.
        spec.digest = actuator_proto::digest::cluster_spec(spec);
    }
    let second_cluster = context.ready_cluster(request).await?;
    let second = context.create_machine(&second_cluster, "twin");
    let names = [&first, &second].map(|request| request.spec.as_ref().map(|spec| spec.name.clone()));
    holds!(names[0] == names[1], "the suite did not name them the same");
    let (one, two) = (
        context.create(&first).await?.provider_id,
        context.create(&second).await?.provider_id,
    );
    holds!(one != two, "both are {one:?}");
    for (request, id) in [(&first, &one), (&second, &two)] {
        let found = context.exists(request).await?.status.unwrap_or_default().provider_id;
        holds!(&found == id, "the key of {id:?} finds {found:?}");
    }
    context.delete(&second).await?;
    let left = context.exists(&first).await?;
    holds!(
        left.presence() == Presence::Present,
        "deleting the one took the other with it: {}",
        left.presence().as_str_name()
    );
    Ok(())
}

async fn same_name_one(context: Context) -> Verdict {
    let first = machine(&context, "double").await?;
    let second = machine(&context, "double").await?;
    let one = context.create(&first).await?.provider_id;
    match context.calls.call(second.clone()).await {
        Ok(answer) => {
            let two = answer.status.unwrap_or_default().provider_id;
            holds!(one != two, "two keys have the one machine {one:?}");
            Ok(())
        }
        Err(status) => {
            let classified = Classified::from_status(&status);
            holds!(
                classified.reason == Some(ErrorReason::NameConflict),
                "the second got {}",
                show_status(&status)
            );
            Ok(())
        }
    }
}

async fn longest_name(context: Context) -> Verdict {
    let mut request = machine(&context, &"n".repeat(80)).await?;
    let name = context.name(&"n".repeat(80)).chars().take(63).collect::<String>();
    if let Some(ownership) = &mut request.ownership {
        ownership.object_name.clone_from(&name);
    }
    request.spec = request
        .spec
        .map(|spec| changed(spec, |spec| spec.name.clone_from(&name)));
    context.create(&request).await.map(|_| ())
}

async fn with_key(context: &Context, key: String) -> Verdict {
    let mut request = machine(context, "key").await?;
    if let Some(meta) = &mut request.meta {
        meta.idempotency_key = key;
    }
    let made = context.create(&request).await?.provider_id;
    let found = context.exists(&request).await?.status.unwrap_or_default().provider_id;
    holds!(found == made, "the key finds {found:?}, the create made {made:?}");
    Ok(())
}

async fn longest_key(context: Context) -> Verdict {
    let key = format!("{}{}", requests::new_key(), "k".repeat(64))
        .chars()
        .take(64)
        .collect();
    with_key(&context, key).await
}

async fn odd_key(context: Context) -> Verdict {
    with_key(&context, format!("Az09._-{}", &context.run)).await
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

/// Bootstrap data of exactly so many bytes.
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

async fn foreign_state(context: Context) -> Verdict {
    let request = machine(&context, "hint").await?;
    let first = context.create(&request).await?.provider_id;
    let other = v1::CreateMachineRequest {
        provider_state: b"{\"of\":\"another\"}".to_vec(),
        ..request.clone()
    };
    match context.calls.call(other).await {
        Ok(answer) => {
            let again = answer.status.unwrap_or_default().provider_id;
            holds!(again == first, "it returned {again:?} instead of {first:?}");
            Ok(())
        }
        Err(status) => context
            .refused::<()>(
                Err(status),
                &[ErrorReason::StateVersionUnsupported],
                "a foreign provider_state",
            )
            .map(|_| ()),
    }
}

async fn failure_domain(context: Context) -> Verdict {
    let cluster = context.cluster().await?;
    let Some(domain) = cluster.status.failure_domains.last() else {
        return Err(Stop::inapplicable("the cluster has no failure domains"));
    };
    let mut request = machine(&context, "zone").await?;
    request.spec = request
        .spec
        .map(|spec| changed(spec, |spec| spec.failure_domain.clone_from(&domain.name)));
    context.create(&request).await?;
    let status = context.phase(&request, MachinePhase::Running).await?;
    holds!(
        status.failure_domain == domain.name,
        "it is in {:?} instead of {:?}",
        status.failure_domain,
        domain.name
    );
    Ok(())
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
