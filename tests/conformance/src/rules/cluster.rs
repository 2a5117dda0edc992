//! `ClusterService`: what a cluster needs besides its machines.

use actuator_proto::digest;
use actuator_proto::limits::{MAX_PROVIDER_ID_BYTES, MAX_PROVIDER_STATE_BYTES};
use actuator_proto::v1::{self, ConfigTarget, ErrorReason, Presence};

use crate::context::Context;
use crate::holds;
use crate::requests::{self, Created as _};
use crate::rule::{
    Rule,
    Severity::{Critical, Major, Minor},
    Stop, Verdict,
};

pub fn rules() -> Vec<Rule> {
    vec![
        Rule::required(
            "cluster.becomes-ready",
            Critical,
            "A cluster with the valid config becomes READY.",
            ready,
        ),
        Rule::required(
            "cluster.status-is-well-formed",
            Major,
            "The status of a ready cluster has an id, what was observed, failure domains named once, and a bounded provider_state.",
            status,
        ),
        Rule::required(
            "cluster.replay",
            Critical,
            "Ten replays of a create return the same provider_id.",
            replay,
        ),
        Rule::required(
            "cluster.ten-at-once",
            Critical,
            "Ten creates at once with one key make one cluster.",
            at_once,
        ),
        Rule::required(
            "cluster.key-conflict",
            Critical,
            "The same key with another digest is refused with KEY_CONFLICT, and the original is untouched.",
            conflict,
        ),
        Rule::required(
            "cluster.exists-by-key",
            Critical,
            "A cluster is found by its key alone, without id and config.",
            by_key,
        ),
        Rule::required(
            "cluster.absent",
            Critical,
            "A key that was never used is ABSENT, not NOT_FOUND.",
            absent,
        ),
        Rule::required(
            "cluster.update-in-place",
            Major,
            "A change that can be made in place is made: same id, new digest.",
            update,
        ),
        Rule::required(
            "cluster.update-replace-required",
            Critical,
            "A change that cannot be made in place is refused with REPLACE_REQUIRED, and changes nothing.",
            replace,
        ),
        Rule::required(
            "cluster.update-not-there",
            Major,
            "An update of what is not there is NOT_FOUND with RESOURCE_NOT_FOUND.",
            update_nothing,
        ),
        Rule::required(
            "cluster.delete-by-key",
            Critical,
            "A cluster is removed by its key alone, and is ABSENT after GONE.",
            delete,
        ),
        Rule::required(
            "cluster.delete-never-there",
            Critical,
            "Deleting what was never there answers GONE.",
            delete_nothing,
        ),
        Rule::required(
            "cluster.delete-replay",
            Major,
            "A delete after GONE answers GONE again.",
            delete_again,
        ),
        Rule::required(
            "cluster.late-create",
            Critical,
            "A create that comes after the delete of its key leaves nothing.",
            late_create,
        ),
        Rule::required(
            "cluster.short-deadline",
            Critical,
            "After a create that met a deadline of 50 ms, a replay returns one cluster.",
            short_deadline,
        ),
        Rule::required(
            "cluster.invalid-config",
            Major,
            "An invalid config is refused with INVALID_CONFIG, and nothing is made.",
            invalid,
        ),
        Rule::required(
            "cluster.missing-fields",
            Minor,
            "A create without meta, ownership or spec is refused with INVALID_FIELD.",
            missing,
        ),
        Rule::required(
            "cluster.bad-credentials",
            Major,
            "Credentials that the cloud refuses get CREDENTIALS_INVALID, and nothing is made.",
            bad_credentials,
        ),
        Rule::required(
            "cluster.machine-needs-its-cluster",
            Minor,
            "A machine of a cluster that is not there is refused, and nothing is made; or it is made, and goes.",
            machine_alone,
        )
        .machines(1),
    ]
}

async fn made(context: &Context, label: &str) -> Result<(v1::CreateClusterRequest, v1::ClusterStatus), Stop> {
    let cluster = context.ready_cluster(context.create_cluster(label)).await?;
    Ok((cluster.request, cluster.status))
}

async fn exists(context: &Context, request: &v1::CreateClusterRequest) -> Result<v1::ClusterExistsResponse, Stop> {
    context.settled_reads().await;
    context
        .settle(requests::cluster_exists(request), context.config.timeouts.gone)
        .await
}

async fn is_absent(context: &Context, request: &v1::CreateClusterRequest) -> Verdict {
    tokio::time::sleep(context.read_after_write()).await;
    let found = exists(context, request).await?.presence();
    holds!(found == Presence::Absent, "it is {}", found.as_str_name());
    Ok(())
}

async fn ready(context: Context) -> Verdict {
    made(&context, "ready").await.map(|_| ())
}

async fn status(context: Context) -> Verdict {
    let (request, status) = made(&context, "status").await?;
    holds!(
        (1..=MAX_PROVIDER_ID_BYTES).contains(&status.provider_id.len()),
        "its id is {:?}",
        status.provider_id
    );
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
    let mut domains: Vec<&String> = status.failure_domains.iter().map(|domain| &domain.name).collect();
    let all = domains.len();
    domains.sort();
    domains.dedup();
    holds!(
        domains.len() == all && !domains.contains(&&String::new()),
        "the failure domains are {domains:?}"
    );
    holds!(
        status.provider_state.len() <= MAX_PROVIDER_STATE_BYTES,
        "provider_state has {} bytes",
        status.provider_state.len()
    );
    if let Some(endpoint) = &status.endpoint {
        holds!(
            !endpoint.host.is_empty() && (1..=65535).contains(&endpoint.port),
            "the endpoint is {endpoint:?}"
        );
    }
    holds!(
        status.failure.is_none(),
        "it is ready and has the failure {:?}",
        status.failure
    );
    Ok(())
}

async fn created(context: &Context, request: &v1::CreateClusterRequest) -> Result<String, Stop> {
    let answer = context.settle(request.clone(), context.config.timeouts.ready).await?;
    let id = answer.status.unwrap_or_default().provider_id;
    holds!(!id.is_empty(), "CreateCluster answered without a provider_id");
    Ok(id)
}

async fn replay(context: Context) -> Verdict {
    let request = context.create_cluster("replay");
    let first = created(&context, &request).await?;
    for number in 1..=10 {
        let again = created(&context, &request).await?;
        holds!(
            again == first,
            "replay {number} returned {again:?} instead of {first:?}"
        );
    }
    Ok(())
}

async fn at_once(context: Context) -> Verdict {
    let request = context.create_cluster("crowd");
    let mut ids = futures::future::try_join_all((0..10).map(|_| created(&context, &request))).await?;
    ids.sort();
    ids.dedup();
    holds!(ids.len() == 1, "they made {ids:?}");
    Ok(())
}

async fn conflict(context: Context) -> Verdict {
    let (request, before) = made(&context, "conflict").await?;
    let mut other = request.clone();
    if let Some(spec) = &mut other.spec {
        spec.pod_cidr_blocks = vec!["172.30.0.0/16".to_owned()];
        spec.digest = digest::cluster_spec(spec);
    }
    let answer = context.calls.call(other).await;
    context.refused(answer, &[ErrorReason::KeyConflict], "the same key with another digest")?;
    let after = exists(&context, &request).await?.status.unwrap_or_default();
    holds!(
        after.provider_id == before.provider_id && after.observed_digest == before.observed_digest,
        "the original is now {after:?}"
    );
    Ok(())
}

async fn by_key(context: Context) -> Verdict {
    let (request, status) = made(&context, "by-key").await?;
    let asked = v1::ClusterExistsRequest {
        config: None,
        ..requests::cluster_exists(&request)
    };
    let answer = context.settle(asked, context.config.timeouts.gone).await?;
    let id = answer.status.clone().unwrap_or_default().provider_id;
    holds!(
        answer.presence() == Presence::Present && id == status.provider_id,
        "it is {} with the id {id:?}",
        answer.presence().as_str_name()
    );
    Ok(())
}

async fn absent(context: Context) -> Verdict {
    is_absent(&context, &context.create_cluster("unknown")).await
}

fn spec_with(context: &Context, request: &v1::CreateClusterRequest, config: &serde_json::Value) -> v1::ClusterSpec {
    let mut spec = request.spec.clone().unwrap_or_default();
    spec.config = Some(context.opaque(ConfigTarget::Cluster, config));
    spec.digest = digest::cluster_spec(&spec);
    spec
}

async fn update(context: Context) -> Verdict {
    let Some(config) = context.configs(ConfigTarget::Cluster).alternative.clone() else {
        return Err(Stop::skipped("the config has no cluster.alternative"));
    };
    let (request, before) = made(&context, "update").await?;
    let spec = spec_with(&context, &request, &config);
    let digest = spec.digest.clone();
    let patience = context.config.timeouts.ready;
    context
        .settle(requests::update_cluster(&request, spec, 2), patience)
        .await?;
    let end = std::time::Instant::now() + patience;
    loop {
        let status = exists(&context, &request).await?.status.unwrap_or_default();
        holds!(
            status.provider_id == before.provider_id,
            "its id changed to {:?}",
            status.provider_id
        );
        if status.observed_digest == digest {
            return Ok(());
        }
        holds!(
            std::time::Instant::now() < end,
            "observed_digest did not become that of the new spec"
        );
        context.pause(status.poll_after.as_ref()).await;
    }
}

async fn replace(context: Context) -> Verdict {
    let Some(config) = context.configs(ConfigTarget::Cluster).replacement.clone() else {
        return Err(Stop::skipped("the config has no cluster.replacement"));
    };
    let (request, before) = made(&context, "replace").await?;
    let answer = context
        .calls
        .call(requests::update_cluster(
            &request,
            spec_with(&context, &request, &config),
            2,
        ))
        .await;
    context.refused(
        answer,
        &[ErrorReason::ReplaceRequired],
        "a change that cannot be made in place",
    )?;
    let after = exists(&context, &request).await?.status.unwrap_or_default();
    holds!(
        after.observed_digest == before.observed_digest,
        "it was changed all the same"
    );
    Ok(())
}

async fn update_nothing(context: Context) -> Verdict {
    let request = context.create_cluster("nothing");
    let update = requests::update_cluster(&request, request.spec.clone().unwrap_or_default(), 1);
    let answer = context.calls.call(update).await;
    context.refused(
        answer,
        &[ErrorReason::ResourceNotFound],
        "an update of what is not there",
    )?;
    is_absent(&context, &request).await
}

async fn delete(context: Context) -> Verdict {
    let (request, _) = made(&context, "delete").await?;
    let delete = v1::DeleteClusterRequest {
        config: None,
        ..requests::delete_cluster(&request)
    };
    context.delete_cluster(delete).await?;
    is_absent(&context, &request).await
}

async fn delete_nothing(context: Context) -> Verdict {
    let request = context.create_cluster("never");
    let answer = context
        .settle(requests::delete_cluster(&request), context.config.timeouts.gone)
        .await?;
    holds!(
        answer.state() == v1::DeletionState::Gone,
        "it is {}",
        answer.state().as_str_name()
    );
    Ok(())
}

async fn delete_again(context: Context) -> Verdict {
    let request = context.create_cluster("again");
    created(&context, &request).await?;
    context.delete_cluster(requests::delete_cluster(&request)).await?;
    for _ in 0..3 {
        let answer = context
            .settle(requests::delete_cluster(&request), context.config.timeouts.gone)
            .await?;
        holds!(
            answer.state() == v1::DeletionState::Gone,
            "it is {}",
            answer.state().as_str_name()
        );
    }
    Ok(())
}

async fn late_create(context: Context) -> Verdict {
    let request = context.create_cluster("late");
    created(&context, &request).await?;
    context.delete_cluster(requests::delete_cluster(&request)).await?;
    // Refused, or made and on its way out.
    let _ = context.calls.call(request.clone()).await;
    let end = std::time::Instant::now() + context.config.timeouts.gone;
    loop {
        let found = exists(&context, &request).await?.presence();
        if found == Presence::Absent {
            return is_absent(&context, &request).await;
        }
        holds!(
            found == Presence::Terminating,
            "a late create left {}",
            found.as_str_name()
        );
        holds!(std::time::Instant::now() < end, "it was not gone in time");
        context.pause(None).await;
    }
}

async fn short_deadline(context: Context) -> Verdict {
    let request = context.create_cluster("short");
    let _ = context
        .calls
        .call_within(request.clone(), std::time::Duration::from_millis(50))
        .await;
    let (first, second) = (created(&context, &request).await?, created(&context, &request).await?);
    holds!(first == second, "two replays returned {first:?} and {second:?}");
    Ok(())
}

async fn invalid(context: Context) -> Verdict {
    let mut config = context.configs(ConfigTarget::Cluster).valid.clone();
    config["x-conformance-no-such-field"] = 1.into();
    let mut request = context.create_cluster("invalid");
    request.spec = Some(spec_with(&context, &request, &config));
    let answer = context.calls.call(request.clone()).await;
    context.refused(answer, &[ErrorReason::InvalidConfig], "an invalid config")?;
    is_absent(&context, &request).await
}

async fn missing(context: Context) -> Verdict {
    let whole = context.create_cluster("missing");
    for (field, request) in [
        (
            "meta",
            v1::CreateClusterRequest {
                meta: None,
                ..whole.clone()
            },
        ),
        (
            "ownership",
            v1::CreateClusterRequest {
                ownership: None,
                ..whole.clone()
            },
        ),
        (
            "spec",
            v1::CreateClusterRequest {
                spec: None,
                ..whole.clone()
            },
        ),
    ] {
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
            "{field} is not named: {:?}",
            classified.fields
        );
    }
    is_absent(&context, &whole).await
}

async fn bad_credentials(context: Context) -> Verdict {
    let Some(bad) = context.bad.clone() else {
        return Err(Stop::skipped("the config has no credentials.bad"));
    };
    let request = context.create_cluster("stranger");
    let answer = context
        .calls
        .call(v1::CreateClusterRequest {
            credentials: Some(bad),
            ..request.clone()
        })
        .await;
    let reasons = [ErrorReason::CredentialsInvalid, ErrorReason::CredentialsExpired];
    context.refused(answer, &reasons, "a create with bad credentials")?;
    is_absent(&context, &request).await
}

async fn machine_alone(context: Context) -> Verdict {
    let request = context.create_cluster("phantom");
    let phantom = requests::Cluster {
        uid: request.key(),
        request,
        status: v1::ClusterStatus::default(),
    };
    let machine = context.create_machine(&phantom, "homeless");
    match context.calls.call(machine.clone()).await {
        Ok(_) => context.delete(&machine).await.map(|_| ()),
        Err(status) => {
            let reasons = [
                ErrorReason::ClusterNotReady,
                ErrorReason::DependencyNotFound,
                ErrorReason::InvalidField,
            ];
            context.refused::<()>(Err(status), &reasons, "a machine without its cluster")?;
            tokio::time::sleep(context.read_after_write()).await;
            let found = context.exists(&machine).await?.presence();
            holds!(found == Presence::Absent, "it is {}", found.as_str_name());
            Ok(())
        }
    }
}
