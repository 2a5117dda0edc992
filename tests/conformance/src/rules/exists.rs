//! `MachineExists`: the one call that tells the truth after anything went wrong.

use actuator_proto::v1::{self, ErrorReason, MachinePhase, Presence};
use tonic::Code;

use crate::context::Context;
use crate::holds;
use crate::requests;
use crate::rule::{
    Rule,
    Severity::{Critical, Major, Minor},
    Stop, Verdict,
};

pub fn rules() -> Vec<Rule> {
    vec![
        Rule::required(
            "exists.absent-for-unknown-keys",
            Critical,
            "A key that was never used is ABSENT, not NOT_FOUND.",
            unknown,
        ),
        Rule::required(
            "exists.present-by-key-alone",
            Critical,
            "A machine is found by its key alone, without its provider_id.",
            by_key,
        )
        .machines(1),
        Rule::required(
            "exists.present-with-provider-id",
            Major,
            "With the provider_id the answer is the same.",
            with_id,
        )
        .machines(1),
        Rule::required(
            "exists.present-without-config",
            Major,
            "A machine is found without the config that it was made from.",
            without_config,
        )
        .machines(1),
        Rule::required(
            "exists.present-at-once",
            Critical,
            "A machine is not ABSENT after the window that is told for reads after writes.",
            at_once,
        )
        .machines(1),
        Rule::required(
            "exists.foreign-provider-id",
            Critical,
            "The provider_id of another key is refused with OWNERSHIP_MISMATCH, or the machine of the key is told.",
            foreign_id,
        )
        .machines(2),
        Rule::required(
            "exists.malformed-provider-id",
            Minor,
            "A provider_id that is none of this provider's is refused with MALFORMED_PROVIDER_ID.",
            malformed_id,
        ),
        Rule::required(
            "exists.other-management-cluster",
            Critical,
            "The same key under another management cluster is not this machine.",
            other_management,
        )
        .machines(1),
        Rule::required(
            "exists.bad-credentials",
            Critical,
            "With credentials that the cloud refuses it cannot tell: an error, never ABSENT.",
            bad_credentials,
        )
        .machines(1),
        Rule::required(
            "exists.missing-ref",
            Minor,
            "Without ref it is refused with INVALID_FIELD.",
            missing_ref,
        ),
        Rule::required(
            "exists.twenty-at-once",
            Major,
            "Twenty at once get the same machine.",
            twenty,
        )
        .machines(1),
        Rule::required(
            "exists.changes-nothing",
            Major,
            "Asking changes nothing: digest, generation and id stay.",
            changes_nothing,
        )
        .machines(1),
    ]
}

async fn unknown(context: Context) -> Verdict {
    let request = context.create_machine(&*context.cluster().await?, "unknown");
    let answer = context.exists(&request).await?;
    holds!(
        answer.presence() == Presence::Absent,
        "it is {}",
        answer.presence().as_str_name()
    );
    Ok(())
}

async fn made(context: &Context, label: &str) -> Result<(v1::CreateMachineRequest, String), Stop> {
    let request = context.create_machine(&*context.cluster().await?, label);
    let id = context.create(&request).await?.provider_id;
    tokio::time::sleep(context.read_after_write()).await;
    Ok((request, id))
}

fn is(answer: &v1::MachineExistsResponse, id: &str) -> Verdict {
    let found = answer
        .status
        .as_ref()
        .map(|status| status.provider_id.as_str())
        .unwrap_or_default();
    holds!(
        answer.presence() == Presence::Present && found == id,
        "it is {} with the id {found:?}; PRESENT with {id:?} is due",
        answer.presence().as_str_name()
    );
    Ok(())
}

async fn by_key(context: Context) -> Verdict {
    let (request, id) = made(&context, "by-key").await?;
    is(&context.exists(&request).await?, &id)
}

async fn with_id(context: Context) -> Verdict {
    let (request, id) = made(&context, "by-id").await?;
    let mut asked = requests::machine_exists(&request);
    if let Some(reference) = &mut asked.r#ref {
        reference.provider_id.clone_from(&id);
    }
    is(&context.settle(asked, context.config.timeouts.gone).await?, &id)
}

async fn without_config(context: Context) -> Verdict {
    let (request, id) = made(&context, "no-config").await?;
    let asked = v1::MachineExistsRequest {
        config: None,
        ..requests::machine_exists(&request)
    };
    is(&context.settle(asked, context.config.timeouts.gone).await?, &id)
}

async fn at_once(context: Context) -> Verdict {
    let request = context.create_machine(&*context.cluster().await?, "window");
    let id = context.create(&request).await?.provider_id;
    tokio::time::sleep(context.read_after_write()).await;
    for _ in 0..10 {
        is(&context.exists(&request).await?, &id)?;
    }
    Ok(())
}

async fn foreign_id(context: Context) -> Verdict {
    let (request, id) = made(&context, "mine").await?;
    let (_, foreign) = made(&context, "theirs").await?;
    let mut asked = requests::machine_exists(&request);
    if let Some(reference) = &mut asked.r#ref {
        reference.provider_id = foreign;
    }
    match context.calls.call(asked).await {
        Ok(answer) => is(&answer, &id),
        Err(status) => context
            .refused::<()>(
                Err(status),
                &[ErrorReason::OwnershipMismatch],
                "the provider_id of another machine",
            )
            .map(|_| ()),
    }
}

async fn malformed_id(context: Context) -> Verdict {
    let request = context.create_machine(&*context.cluster().await?, "malformed");
    let mut asked = requests::machine_exists(&request);
    if let Some(reference) = &mut asked.r#ref {
        reference.provider_id = "no-such-provider:///x".into();
    }
    let answer = context.calls.call(asked).await;
    context
        .refused(
            answer,
            &[ErrorReason::MalformedProviderId],
            "a foreign kind of provider_id",
        )
        .map(|_| ())
}

async fn other_management(context: Context) -> Verdict {
    let (request, _) = made(&context, "ours").await?;
    let mut asked = requests::machine_exists(&request);
    if let Some(ownership) = asked.r#ref.as_mut().and_then(|reference| reference.ownership.as_mut()) {
        ownership.management_cluster_id.push_str("-other");
    }
    match context.calls.call(asked).await {
        Ok(answer) => {
            holds!(
                answer.presence() == Presence::Absent,
                "another management cluster sees it as {}",
                answer.presence().as_str_name()
            );
            Ok(())
        }
        Err(status) => context
            .refused::<()>(
                Err(status),
                &[ErrorReason::OwnershipMismatch],
                "another management cluster",
            )
            .map(|_| ()),
    }
}

async fn bad_credentials(context: Context) -> Verdict {
    let Some(bad) = context.bad.clone() else {
        return Err(Stop::skipped("the config has no credentials.bad"));
    };
    let (request, _) = made(&context, "unseen").await?;
    let asked = v1::MachineExistsRequest {
        credentials: Some(bad),
        ..requests::machine_exists(&request)
    };
    let answer = context.calls.call(asked).await;
    context
        .code(
            answer,
            &[Code::Unauthenticated, Code::PermissionDenied],
            "Exists with bad credentials",
        )
        .map(|_| ())
}

async fn missing_ref(context: Context) -> Verdict {
    let answer = context.calls.call(v1::MachineExistsRequest::default()).await;
    context
        .refused(answer, &[ErrorReason::InvalidField], "Exists without ref")
        .map(|_| ())
}

async fn twenty(context: Context) -> Verdict {
    let (request, id) = made(&context, "many").await?;
    let answers = futures::future::try_join_all((0..20).map(|_| context.exists(&request))).await?;
    answers.iter().try_for_each(|answer| is(answer, &id))
}

async fn changes_nothing(context: Context) -> Verdict {
    let (request, _) = made(&context, "quiet").await?;
    let first = context.phase(&request, MachinePhase::Running).await?;
    for _ in 0..5 {
        let other = context.exists(&request).await?.status.unwrap_or_default();
        holds!(
            other.provider_id == first.provider_id
                && other.observed_digest == first.observed_digest
                && other.observed_generation == first.observed_generation
                && other.artefacts.len() == first.artefacts.len(),
            "it was {first:?} and is {other:?}"
        );
    }
    Ok(())
}
