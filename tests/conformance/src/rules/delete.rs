//! `DeleteMachine`: it wins, and GONE means that nothing is left.

use std::time::Duration;

use actuator_proto::v1::{self, DeletionState, ErrorReason, MachinePhase, Presence};

use crate::calls::show_status;
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
        Rule::required("delete.by-key-alone", Critical, "A machine is removed by its key alone: no provider_id, no config.", by_key).machines(1),
        Rule::required("delete.gone-is-absent", Critical, "After GONE the machine is ABSENT, and stays so.", gone_is_absent).machines(1),
        Rule::required("delete.gone-leaves-no-artefact", Critical, "After GONE nothing is left: a new machine of the name has artefacts of its own.", no_artefact).machines(1),
        Rule::required("delete.never-there", Critical, "Deleting what was never there answers GONE, not NOT_FOUND.", never_there),
        Rule::required("delete.replay", Major, "Ten replays of a delete answer IN_PROGRESS or GONE, and GONE stays GONE.", replay).machines(1),
        Rule::required("delete.while-it-boots", Critical, "A machine that boots is removed.", while_booting).machines(1),
        Rule::required("delete.right-after-create", Critical, "A delete right after the create's answer removes the machine, though reads may not show it yet.", right_after).machines(1),
        Rule::required("delete.wins-over-running-create", Critical, "A delete beside a running create leaves no machine.", beside_create).machines(1),
        Rule::required("delete.wins-over-late-create", Critical, "A create that comes after the delete of its key leaves no machine.", late_create).machines(1),
        Rule::required("delete.before-create", Critical, "A delete of a key that was never used, then a late create: no machine is left.", before_create).machines(1),
        Rule::required("delete.twenty-at-once", Major, "Twenty deletes at once all end in GONE.", twenty).machines(1),
        Rule::required("delete.terminating-until-gone", Major, "While a delete is IN_PROGRESS, Exists answers TERMINATING or PRESENT with DELETING, and never ABSENT.", terminating).machines(1),
        Rule::required("delete.foreign-provider-id", Critical, "With the provider_id of another machine nothing of the other is removed.", foreign_id).machines(2),
        Rule::required("delete.other-management-cluster", Critical, "A delete of another management cluster does not remove the machine.", other_management).machines(1),
        Rule::required("delete.malformed-provider-id", Minor, "A provider_id that is none of this provider's is refused with MALFORMED_PROVIDER_ID.", malformed_id),
        Rule::required("delete.bad-credentials", Critical, "With credentials that the cloud refuses it is an error, never GONE.", bad_credentials).machines(1),
        Rule::required("delete.missing-fields", Minor, "A delete without meta or ref is refused with INVALID_FIELD.", missing_fields),
        Rule::required("delete.after-a-short-deadline", Critical, "A delete that met a deadline of 50 ms goes on, and a replay ends in GONE.", short_deadline).machines(1),
        Rule::required("delete.stale-fencing-epoch", Critical, "A delete with a fencing epoch below one that was seen is refused with STALE_FENCING_EPOCH, and removes nothing.", stale_epoch).machines(1).alone(),
    ]
}

async fn made(context: &Context, label: &str) -> Result<(v1::CreateMachineRequest, v1::MachineStatus), Stop> {
    let request = context.create_machine(&*context.cluster().await?, label);
    let status = context.create(&request).await?;
    Ok((request, status))
}

async fn presence(context: &Context, request: &v1::CreateMachineRequest) -> Result<Presence, Stop> {
    Ok(context.exists(request).await?.presence())
}

async fn stays_absent(context: &Context, request: &v1::CreateMachineRequest) -> Verdict {
    // Beyond the window, so that a late effect of a create would be seen.
    for wait in [Duration::ZERO, context.read_after_write(), Duration::from_millis(500)] {
        tokio::time::sleep(wait).await;
        let found = presence(context, request).await?;
        holds!(found == Presence::Absent, "after GONE it is {}", found.as_str_name());
    }
    Ok(())
}

async fn by_key(context: Context) -> Verdict {
    let (request, _) = made(&context, "by-key").await?;
    let delete = v1::DeleteMachineRequest {
        config: None,
        ..requests::delete_machine(&request)
    };
    let end = std::time::Instant::now() + context.config.timeouts.gone;
    loop {
        let answer = context.settle(delete.clone(), context.config.timeouts.gone).await?;
        if answer.state() == DeletionState::Gone {
            break;
        }
        holds!(
            std::time::Instant::now() < end,
            "it was not GONE in time: {}",
            answer.message
        );
        context.pause(answer.poll_after.as_ref()).await;
    }
    stays_absent(&context, &request).await
}

async fn gone_is_absent(context: Context) -> Verdict {
    let (request, _) = made(&context, "gone").await?;
    context.phase(&request, MachinePhase::Running).await?;
    context.delete(&request).await?;
    stays_absent(&context, &request).await
}

async fn no_artefact(context: Context) -> Verdict {
    let (first, _) = made(&context, "artefact").await?;
    let old = context.phase(&first, MachinePhase::Running).await?;
    context.delete(&first).await?;
    let (second, _) = made(&context, "artefact").await?;
    let new = context.phase(&second, MachinePhase::Running).await?;
    holds!(
        new.provider_id != old.provider_id,
        "the new machine has the old one's id {:?}",
        old.provider_id
    );
    let reused = new.artefacts.iter().find(|artefact| old.artefacts.contains(artefact));
    holds!(reused.is_none(), "the new machine has the old one's {reused:?}");
    Ok(())
}

async fn never_there(context: Context) -> Verdict {
    let request = context.create_machine(&*context.cluster().await?, "never");
    let asked = context.delete(&request).await?;
    holds!(asked == 1, "it took {asked} calls until GONE was said of nothing");
    Ok(())
}

async fn replay(context: Context) -> Verdict {
    let (request, _) = made(&context, "replayed").await?;
    let mut gone = false;
    for _ in 0..10 {
        let state = context
            .settle(requests::delete_machine(&request), context.config.timeouts.gone)
            .await?
            .state();
        holds!(state != DeletionState::Unspecified, "the state is not told");
        holds!(
            !gone || state == DeletionState::Gone,
            "it was GONE and is {}",
            state.as_str_name()
        );
        gone = state == DeletionState::Gone;
    }
    context.delete(&request).await.map(|_| ())
}

async fn while_booting(context: Context) -> Verdict {
    let (request, _) = made(&context, "booting").await?;
    tokio::time::sleep(context.read_after_write()).await;
    context.delete(&request).await?;
    stays_absent(&context, &request).await
}

async fn right_after(context: Context) -> Verdict {
    let (request, _) = made(&context, "early").await?;
    context.delete(&request).await?;
    stays_absent(&context, &request).await
}

async fn beside_create(context: Context) -> Verdict {
    for delay in [0, 5, 30] {
        let request = context.create_machine(&*context.cluster().await?, "race");
        let (created, deleted) = tokio::join!(context.calls.call(request.clone()), async {
            tokio::time::sleep(Duration::from_millis(delay)).await;
            context.delete(&request).await
        });
        // Made and removed, told to wait, or refused: what counts is what is left.
        drop(created);
        deleted?;
        stays_absent(&context, &request).await?;
    }
    Ok(())
}

/// A create whose key was deleted may be refused, or make something that goes again.
async fn create_too_late(context: &Context, request: &v1::CreateMachineRequest) -> Verdict {
    if let Ok(answer) = context.calls.call(request.clone()).await {
        let status = answer.status.unwrap_or_default();
        holds!(
            status.provider_id.is_empty() || status.phase() == MachinePhase::Deleting,
            "a create after the delete made {:?}, which is {}",
            status.provider_id,
            status.phase().as_str_name()
        );
    }
    // Nobody will ask again: it has to be gone without another delete.
    let end = std::time::Instant::now() + context.config.timeouts.gone;
    loop {
        let found = presence(context, request).await?;
        if found == Presence::Absent {
            return stays_absent(context, request).await;
        }
        holds!(
            found == Presence::Terminating,
            "a late create left a machine: {}",
            found.as_str_name()
        );
        holds!(std::time::Instant::now() < end, "it was not gone in time");
        context.pause(None).await;
    }
}

async fn late_create(context: Context) -> Verdict {
    let (request, _) = made(&context, "late").await?;
    context.delete(&request).await?;
    create_too_late(&context, &request).await
}

async fn before_create(context: Context) -> Verdict {
    let request = context.create_machine(&*context.cluster().await?, "swapped");
    context.delete(&request).await?;
    create_too_late(&context, &request).await
}

async fn twenty(context: Context) -> Verdict {
    let (request, _) = made(&context, "crowd").await?;
    futures::future::try_join_all((0..20).map(|_| context.delete(&request))).await?;
    stays_absent(&context, &request).await
}

async fn terminating(context: Context) -> Verdict {
    let (request, _) = made(&context, "leaving").await?;
    context.phase(&request, MachinePhase::Running).await?;
    let end = std::time::Instant::now() + context.config.timeouts.gone;
    loop {
        let answer = context
            .settle(requests::delete_machine(&request), context.config.timeouts.gone)
            .await?;
        if answer.state() == DeletionState::Gone {
            return Ok(());
        }
        let found = context.exists(&request).await?;
        let phase = found.status.clone().unwrap_or_default().phase();
        // It may have gone between the two calls: then the next delete says GONE.
        let fits = match found.presence() {
            Presence::Terminating => true,
            Presence::Present => phase == MachinePhase::Deleting || !context.read_after_write().is_zero(),
            Presence::Absent => {
                let again = context
                    .settle(requests::delete_machine(&request), context.config.timeouts.gone)
                    .await?;
                again.state() == DeletionState::Gone
            }
            Presence::Unspecified => false,
        };
        holds!(
            fits,
            "IN_PROGRESS, but Exists answers {} and {}",
            found.presence().as_str_name(),
            phase.as_str_name()
        );
        holds!(std::time::Instant::now() < end, "it was not GONE in time");
        context.pause(answer.poll_after.as_ref()).await;
    }
}

async fn foreign_id(context: Context) -> Verdict {
    let (mine, _) = made(&context, "mine").await?;
    let (theirs, status) = made(&context, "theirs").await?;
    let mut delete = requests::delete_machine(&mine);
    if let Some(reference) = &mut delete.r#ref {
        reference.provider_id.clone_from(&status.provider_id);
    }
    if let Err(refused) = context.calls.call(delete).await {
        context.refused::<()>(
            Err(refused),
            &[ErrorReason::OwnershipMismatch],
            "the provider_id of another machine",
        )?;
    }
    tokio::time::sleep(context.read_after_write() + Duration::from_millis(200)).await;
    let found = presence(&context, &theirs).await?;
    holds!(
        found == Presence::Present,
        "the other machine is {}",
        found.as_str_name()
    );
    Ok(())
}

async fn other_management(context: Context) -> Verdict {
    let (request, _) = made(&context, "guarded").await?;
    let mut delete = requests::delete_machine(&request);
    if let Some(ownership) = delete.r#ref.as_mut().and_then(|reference| reference.ownership.as_mut()) {
        ownership.management_cluster_id.push_str("-other");
    }
    // GONE (of its own, which it never had) or refused: ours has to stay.
    if let Err(status) = context.calls.call(delete).await {
        context.refused::<()>(
            Err(status),
            &[ErrorReason::OwnershipMismatch],
            "another management cluster",
        )?;
    }
    tokio::time::sleep(context.read_after_write() + Duration::from_millis(200)).await;
    let found = presence(&context, &request).await?;
    holds!(found == Presence::Present, "it is {}", found.as_str_name());
    Ok(())
}

async fn malformed_id(context: Context) -> Verdict {
    let request = context.create_machine(&*context.cluster().await?, "malformed");
    let mut delete = requests::delete_machine(&request);
    if let Some(reference) = &mut delete.r#ref {
        reference.provider_id = "no-such-provider:///x".into();
    }
    let answer = context.calls.call(delete).await;
    context
        .refused(
            answer,
            &[ErrorReason::MalformedProviderId],
            "a foreign kind of provider_id",
        )
        .map(|_| ())
}

async fn bad_credentials(context: Context) -> Verdict {
    let Some(bad) = context.bad.clone() else {
        return Err(Stop::skipped("the config has no credentials.bad"));
    };
    let (request, _) = made(&context, "locked").await?;
    let delete = v1::DeleteMachineRequest {
        credentials: Some(bad),
        ..requests::delete_machine(&request)
    };
    if let Ok(answer) = context.calls.call(delete).await {
        return Err(Stop::broken(format!("it answered {}", answer.state().as_str_name())));
    }
    let found = presence(&context, &request).await?;
    holds!(found == Presence::Present, "it is {}", found.as_str_name());
    Ok(())
}

async fn missing_fields(context: Context) -> Verdict {
    let request = requests::delete_machine(&context.create_machine(&*context.cluster().await?, "missing"));
    let answer = context
        .calls
        .call(v1::DeleteMachineRequest {
            meta: None,
            ..request.clone()
        })
        .await;
    context.refused(answer, &[ErrorReason::InvalidField], "a delete without meta")?;
    let answer = context
        .calls
        .call(v1::DeleteMachineRequest { r#ref: None, ..request })
        .await;
    context
        .refused(answer, &[ErrorReason::InvalidField], "a delete without ref")
        .map(|_| ())
}

async fn short_deadline(context: Context) -> Verdict {
    let (request, _) = made(&context, "hurried").await?;
    let _ = context
        .calls
        .call_within(requests::delete_machine(&request), Duration::from_millis(50))
        .await;
    context.delete(&request).await?;
    stays_absent(&context, &request).await
}

async fn stale_epoch(context: Context) -> Verdict {
    let (request, _) = made(&context, "fenced").await?;
    let (lower, higher) = (context.next_epoch(), context.next_epoch());
    let mut newer = context.create_machine(&*context.cluster().await?, "leader");
    if let Some(meta) = &mut newer.meta {
        meta.fencing_epoch = higher;
    }
    context.settle(newer.clone(), context.config.timeouts.running).await?;
    let mut delete = requests::delete_machine(&request);
    if let Some(meta) = &mut delete.meta {
        meta.fencing_epoch = lower;
    }
    let answer = context.calls.call(delete).await;
    if let Err(status) = &answer {
        holds!(!status.message().is_empty(), "{} has no message", show_status(status));
    }
    context.refused(
        answer,
        &[ErrorReason::StaleFencingEpoch],
        "a delete of a core that lost the lead",
    )?;
    let found = presence(&context, &request).await?;
    holds!(
        found == Presence::Present,
        "{} is {}",
        request.key(),
        found.as_str_name()
    );
    Ok(())
}
