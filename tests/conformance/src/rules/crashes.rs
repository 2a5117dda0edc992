//! The provider is killed without warning and started again on the same state: nothing is
//! forgotten, nothing is made twice.

use std::time::Duration;

use actuator_proto::discovery::v1::GetProtocolsRequest;
use actuator_proto::v1::{ErrorReason, MachinePhase, Presence};

use crate::context::Context;
use crate::holds;
use crate::requests::{self, changed};
use crate::rule::{
    Rule,
    Severity::{Critical, Major},
    Verdict,
};

pub fn rules() -> Vec<Rule> {
    vec![
        Rule::required("crashes.new-instance-id", Major, "After a restart the instance_id is another, the name and the capabilities are the same.", instance_id).faults(),
        Rule::required("crashes.machines-are-found", Critical, "After a restart every machine is found by its key, with the same id.", found).machines(2).faults(),
        Rule::required("crashes.replay-after-restart", Critical, "After a restart a replay of a create returns the same machine.", replay).machines(1).faults(),
        Rule::required("crashes.conflict-after-restart", Critical, "After a restart the same key with another digest is KEY_CONFLICT still.", conflict).machines(1).faults(),
        Rule::required("crashes.killed-in-a-create", Critical, "A provider that is killed while it creates makes no second machine.", in_create).machines(4).faults(),
        Rule::required("crashes.killed-in-a-delete", Critical, "A provider that is killed while it deletes ends what it began, when it is asked again.", in_delete).machines(1).faults(),
        Rule::required("crashes.deleted-stays-deleted", Critical, "After a restart a create that comes too late for a deleted key leaves no machine, or the machine is deletable as ever.", deleted).machines(1).faults(),
        Rule::required("crashes.epoch-is-kept-or-harmless", Major, "After a restart an older fencing epoch is refused, or leaves one machine and no more.", epoch).machines(1).faults(),
    ]
}

async fn instance_id(context: Context) -> Verdict {
    let before = context.ask(GetProtocolsRequest {}).await?;
    let info = context.ask(actuator_proto::v1::GetInfoRequest {}).await?;
    let context = context.with(context.restart().await?);
    let after = context.ask(GetProtocolsRequest {}).await?;
    holds!(
        after.instance_id != before.instance_id,
        "it is {:?} still",
        after.instance_id
    );
    holds!(
        after.name == before.name,
        "the name was {:?} and is {:?}",
        before.name,
        after.name
    );
    let again = context.ask(actuator_proto::v1::GetInfoRequest {}).await?;
    holds!(
        again.capabilities == info.capabilities,
        "the capabilities were {:?} and are {:?}",
        info.capabilities,
        again.capabilities
    );
    Ok(())
}

async fn found(context: Context) -> Verdict {
    let cluster = context.cluster().await?;
    let mut made = Vec::new();
    for label in ["one", "two"] {
        let request = context.create_machine(&cluster, label);
        let id = context.create(&request).await?.provider_id;
        made.push((request, id));
    }
    let context = context.with(context.restart().await?);
    tokio::time::sleep(context.read_after_write()).await;
    for (request, id) in made {
        let answer = context.exists(&request).await?;
        let told = answer.status.clone().unwrap_or_default().provider_id;
        holds!(
            answer.presence() == Presence::Present && told == id,
            "{id:?} is {} with the id {told:?} now",
            answer.presence().as_str_name()
        );
    }
    Ok(())
}

async fn replay(context: Context) -> Verdict {
    let request = context.create_machine(&*context.cluster().await?, "replay");
    let first = context.create(&request).await?.provider_id;
    let context = context.with(context.restart().await?);
    let again = context.create(&request).await?.provider_id;
    holds!(again == first, "it returned {again:?} instead of {first:?}");
    Ok(())
}

async fn conflict(context: Context) -> Verdict {
    let request = context.create_machine(&*context.cluster().await?, "conflict");
    context.create(&request).await?;
    let context = context.with(context.restart().await?);
    let mut other = request.clone();
    other.spec = other.spec.map(|spec| {
        changed(spec, |spec| {
            spec.node_labels.insert("other".to_owned(), "digest".to_owned());
        })
    });
    let answer = context.calls.call(other).await;
    context
        .refused(answer, &[ErrorReason::KeyConflict], "the same key with another digest")
        .map(|_| ())
}

async fn in_create(context: Context) -> Verdict {
    let cluster = context.cluster().await?;
    let mut context = context;
    for delay in [0, 5, 20, 60] {
        let request = context.create_machine(&cluster, "killed");
        let (created, restarted) = tokio::join!(context.calls.call(request.clone()), async {
            tokio::time::sleep(Duration::from_millis(delay)).await;
            context.restart().await
        });
        let answered = created
            .ok()
            .and_then(|answer| answer.status)
            .map(|status| status.provider_id);
        context = context.with(restarted?);
        let first = context.create(&request).await?.provider_id;
        holds!(
            answered.as_ref().is_none_or(|answered| *answered == first),
            "it had answered {answered:?}, and after the restart {first:?}"
        );
        let again = context.create(&request).await?.provider_id;
        holds!(again == first, "two replays returned {first:?} and {again:?}");
        context.phase(&request, MachinePhase::Running).await?;
    }
    Ok(())
}

async fn in_delete(context: Context) -> Verdict {
    let request = context.create_machine(&*context.cluster().await?, "deleting");
    context.create(&request).await?;
    let (deleted, restarted) = tokio::join!(context.calls.call(requests::delete_machine(&request)), async {
        tokio::time::sleep(Duration::from_millis(10)).await;
        context.restart().await
    });
    drop(deleted);
    let context = context.with(restarted?);
    context.delete(&request).await?;
    tokio::time::sleep(context.read_after_write()).await;
    let found = context.exists(&request).await?.presence();
    holds!(found == Presence::Absent, "it is {}", found.as_str_name());
    Ok(())
}

async fn deleted(context: Context) -> Verdict {
    let request = context.create_machine(&*context.cluster().await?, "buried");
    context.create(&request).await?;
    context.delete(&request).await?;
    let context = context.with(context.restart().await?);
    tokio::time::sleep(context.read_after_write()).await;
    let found = context.exists(&request).await?.presence();
    holds!(
        found == Presence::Absent,
        "after the restart it is {}",
        found.as_str_name()
    );
    // A provider that keeps no state cannot know of the delete: what it makes must go as ever.
    let _ = context.calls.call(request.clone()).await;
    context.delete(&request).await?;
    tokio::time::sleep(context.read_after_write()).await;
    let found = context.exists(&request).await?.presence();
    holds!(found == Presence::Absent, "it is {}", found.as_str_name());
    Ok(())
}

async fn epoch(context: Context) -> Verdict {
    let request = context.create_machine(&*context.cluster().await?, "epoch");
    let (lower, higher) = (context.next_epoch(), context.next_epoch());
    let fenced = |epoch| {
        let mut request = request.clone();
        if let Some(meta) = &mut request.meta {
            meta.fencing_epoch = epoch;
        }
        request
    };
    let first = context.create(&fenced(higher)).await?.provider_id;
    let context = context.with(context.restart().await?);
    match context.calls.call(fenced(lower)).await {
        Ok(answer) => {
            let again = answer.status.unwrap_or_default().provider_id;
            holds!(again == first, "an older epoch made {again:?} beside {first:?}");
            Ok(())
        }
        Err(status) => context
            .refused::<()>(Err(status), &[ErrorReason::StaleFencingEpoch], "an older epoch")
            .map(|_| ()),
    }
}
