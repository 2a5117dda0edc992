//! `CreateMachine`: made once, found by its key, whatever happens in between.

use actuator_proto::errors::Classified;
use actuator_proto::limits::{MAX_PROVIDER_ID_BYTES, MAX_PROVIDER_STATE_BYTES};
use actuator_proto::v1::{self, ErrorReason, MachinePhase, Presence};

use crate::calls::show_status;
use crate::context::Context;
use crate::holds;
use crate::requests::{self, changed};
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
        Rule::required("create.foreign-provider-state", Minor, "A provider_state that is none of its own does not lead to another machine.", foreign_state).machines(1),
        Rule::required("create.failure-domain", Minor, "A machine is made in the failure domain that was asked for.", failure_domain).machines(1),
    ]
}

/// Asks for a machine of the shared cluster.
pub(super) async fn machine(context: &Context, label: &str) -> Result<v1::CreateMachineRequest, Stop> {
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
