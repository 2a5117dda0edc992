//! `EndpointService`: the full set of machines behind a cluster's endpoint.

use std::collections::BTreeSet;

use actuator_proto::v1::{self, EndpointMemberState, ErrorReason, MachinePhase};

use crate::context::Context;
use crate::holds;
use crate::requests::{self, Cluster, Created as _};
use crate::rule::{
    Capability, Rule,
    Severity::{Critical, Major, Minor},
    Stop, Verdict,
};

pub fn rules() -> Vec<Rule> {
    vec![
        Rule::required(
            "endpoint.sets-members",
            Major,
            "The members that were set are told, each once, with a state.",
            sets,
        )
        .with(Capability::EndpointMembers)
        .machines(2),
        Rule::required(
            "endpoint.full-set",
            Critical,
            "What is not named is taken out.",
            full_set,
        )
        .with(Capability::EndpointMembers)
        .machines(2),
        Rule::required("endpoint.replay", Major, "A replay changes nothing.", replay)
            .with(Capability::EndpointMembers)
            .machines(1),
        Rule::required("endpoint.empty-set", Major, "The empty set is taken.", empty).with(Capability::EndpointMembers),
        Rule::required(
            "endpoint.draining",
            Minor,
            "A draining member is told as DRAINING, or is out.",
            draining,
        )
        .with(Capability::EndpointMembers)
        .machines(1),
        Rule::required(
            "endpoint.cluster-not-there",
            Major,
            "For a cluster that is not there it is NOT_FOUND with RESOURCE_NOT_FOUND.",
            not_there,
        )
        .with(Capability::EndpointMembers),
        Rule::required(
            "endpoint.missing-fields",
            Minor,
            "Without meta or cluster it is refused with INVALID_FIELD.",
            missing,
        )
        .with(Capability::EndpointMembers),
        Rule::required(
            "endpoint.same-endpoint",
            Major,
            "The endpoint that is told is the cluster's.",
            same_endpoint,
        )
        .with(Capability::EndpointMembers),
    ]
}

async fn own_cluster(context: &Context, label: &str) -> Result<Cluster, Stop> {
    context.ready_cluster(context.create_cluster(label)).await
}

async fn member(context: &Context, cluster: &Cluster, label: &str) -> Result<v1::EndpointMember, Stop> {
    let request = context.create_machine(cluster, label);
    context.create(&request).await?;
    let status = context.phase(&request, MachinePhase::Running).await?;
    Ok(v1::EndpointMember {
        idempotency_key: request.key(),
        provider_id: status.provider_id,
        draining: false,
    })
}

fn set(
    context: &Context,
    cluster: &Cluster,
    members: &[v1::EndpointMember],
    generation: i64,
) -> v1::SetEndpointMembersRequest {
    v1::SetEndpointMembersRequest {
        meta: Some(requests::meta(&cluster.uid, generation)),
        cluster: Some(cluster.request.reference()),
        members: members.to_vec(),
        credentials: Some(context.good.clone()),
        provider_state: Vec::new(),
    }
}

/// Sets until all is in place.
async fn settled(
    context: &Context,
    request: v1::SetEndpointMembersRequest,
) -> Result<v1::SetEndpointMembersResponse, Stop> {
    let patience = context.config.timeouts.ready;
    let end = std::time::Instant::now() + patience;
    loop {
        let answer = context.settle(request.clone(), patience).await?;
        if answer.poll_after.is_none() {
            return Ok(answer);
        }
        holds!(
            std::time::Instant::now() < end,
            "the members were not in place within {patience:?}"
        );
        context.pause(answer.poll_after.as_ref()).await;
    }
}

fn ids(answer: &v1::SetEndpointMembersResponse) -> Vec<&str> {
    answer
        .members
        .iter()
        .filter(|member| member.state() != EndpointMemberState::Draining)
        .map(|member| member.provider_id.as_str())
        .collect()
}

async fn sets(context: Context) -> Verdict {
    let cluster = own_cluster(&context, "members").await?;
    let members = [
        member(&context, &cluster, "one").await?,
        member(&context, &cluster, "two").await?,
    ];
    let answer = settled(&context, set(&context, &cluster, &members, 1)).await?;
    let told: BTreeSet<&str> = ids(&answer).into_iter().collect();
    let wanted: BTreeSet<&str> = members.iter().map(|member| member.provider_id.as_str()).collect();
    holds!(
        told == wanted && answer.members.len() == 2,
        "{wanted:?} were set, {told:?} are told"
    );
    let vague = answer
        .members
        .iter()
        .find(|member| member.state() == EndpointMemberState::Unspecified);
    holds!(vague.is_none(), "{vague:?} has no state");
    Ok(())
}

async fn full_set(context: Context) -> Verdict {
    let cluster = own_cluster(&context, "full").await?;
    let (one, two) = (
        member(&context, &cluster, "one").await?,
        member(&context, &cluster, "two").await?,
    );
    settled(&context, set(&context, &cluster, &[one.clone(), two.clone()], 1)).await?;
    let answer = settled(&context, set(&context, &cluster, std::slice::from_ref(&two), 2)).await?;
    holds!(
        ids(&answer) == [two.provider_id.as_str()],
        "only {:?} was set, {:?} are told",
        two.provider_id,
        ids(&answer)
    );
    Ok(())
}

async fn replay(context: Context) -> Verdict {
    let cluster = own_cluster(&context, "replay").await?;
    let members = [member(&context, &cluster, "one").await?];
    let first = settled(&context, set(&context, &cluster, &members, 1)).await?;
    for _ in 0..3 {
        let again = settled(&context, set(&context, &cluster, &members, 1)).await?;
        holds!(
            ids(&again) == ids(&first),
            "it was {:?} and is {:?}",
            ids(&first),
            ids(&again)
        );
    }
    Ok(())
}

async fn empty(context: Context) -> Verdict {
    let cluster = own_cluster(&context, "empty").await?;
    let answer = settled(&context, set(&context, &cluster, &[], 1)).await?;
    holds!(ids(&answer).is_empty(), "nothing was set, {:?} are told", ids(&answer));
    Ok(())
}

async fn draining(context: Context) -> Verdict {
    let cluster = own_cluster(&context, "draining").await?;
    let mut member = member(&context, &cluster, "one").await?;
    settled(&context, set(&context, &cluster, std::slice::from_ref(&member), 1)).await?;
    member.draining = true;
    let answer = context
        .settle(
            set(&context, &cluster, std::slice::from_ref(&member), 2),
            context.config.timeouts.ready,
        )
        .await?;
    let serving = answer
        .members
        .iter()
        .find(|told| told.provider_id == member.provider_id && told.state() == EndpointMemberState::Healthy);
    holds!(serving.is_none(), "it is HEALTHY still");
    Ok(())
}

async fn not_there(context: Context) -> Verdict {
    let request = context.create_cluster("phantom");
    let cluster = Cluster {
        uid: request.key(),
        request,
        status: v1::ClusterStatus::default(),
    };
    let answer = context.calls.call(set(&context, &cluster, &[], 1)).await;
    context
        .refused(
            answer,
            &[ErrorReason::ResourceNotFound],
            "members of a cluster that is not there",
        )
        .map(|_| ())
}

async fn missing(context: Context) -> Verdict {
    let cluster = context.cluster().await?;
    let whole = set(&context, &cluster, &[], 1);
    let answer = context
        .calls
        .call(v1::SetEndpointMembersRequest {
            meta: None,
            ..whole.clone()
        })
        .await;
    context.refused(answer, &[ErrorReason::InvalidField], "members without meta")?;
    let answer = context
        .calls
        .call(v1::SetEndpointMembersRequest { cluster: None, ..whole })
        .await;
    context
        .refused(answer, &[ErrorReason::InvalidField], "members without cluster")
        .map(|_| ())
}

async fn same_endpoint(context: Context) -> Verdict {
    let cluster = own_cluster(&context, "endpoint").await?;
    let answer = settled(&context, set(&context, &cluster, &[], 1)).await?;
    let told = answer.endpoint;
    holds!(
        told.is_some() && told == cluster.status.endpoint,
        "{told:?} is told, the cluster has {:?}",
        cluster.status.endpoint
    );
    Ok(())
}
