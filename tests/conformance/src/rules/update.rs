//! `UpdateMachine`: in place, or not at all.

use actuator_proto::v1::{self, ConfigTarget, ErrorReason, MachinePhase, Presence};
use serde_json::Value;

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
        Rule::required(
            "update.in-place",
            Major,
            "A change that can be made in place is made: same id, new digest and generation.",
            in_place,
        )
        .machines(1),
        Rule::required(
            "update.replay",
            Major,
            "A replay of an update changes nothing more.",
            replay,
        )
        .machines(1),
        Rule::required(
            "update.same-spec",
            Minor,
            "An update to the spec that is there already succeeds.",
            same_spec,
        )
        .machines(1),
        Rule::required(
            "update.replace-required",
            Critical,
            "A change that cannot be made in place is refused with REPLACE_REQUIRED, and changes nothing.",
            replace,
        )
        .machines(1),
        Rule::required(
            "update.not-there",
            Major,
            "An update of what is not there is NOT_FOUND with RESOURCE_NOT_FOUND, and makes nothing.",
            not_there,
        ),
        Rule::required(
            "update.after-delete",
            Critical,
            "An update after a delete does not bring the machine back.",
            after_delete,
        )
        .machines(1),
        Rule::required(
            "update.stale-generation",
            Major,
            "An update with a generation below one that was seen is refused with STALE_GENERATION, or changes nothing.",
            stale,
        )
        .machines(1),
        Rule::required(
            "update.invalid-config",
            Major,
            "An update to an invalid config is refused with INVALID_CONFIG, and changes nothing.",
            invalid,
        )
        .machines(1),
        Rule::required(
            "update.other-key-in-ref",
            Minor,
            "An update whose ref has another key than its meta is refused with INVALID_FIELD.",
            other_key,
        ),
    ]
}

async fn running(context: &Context, label: &str) -> Result<(v1::CreateMachineRequest, v1::MachineStatus), Stop> {
    let request = context.create_machine(&*context.cluster().await?, label);
    context.create(&request).await?;
    let status = context.phase(&request, MachinePhase::Running).await?;
    Ok((request, status))
}

fn spec_with(context: &Context, request: &v1::CreateMachineRequest, config: &Value) -> v1::MachineSpec {
    let config = context.opaque(ConfigTarget::Machine, config);
    changed(request.spec.clone().unwrap_or_default(), |spec| {
        spec.config = Some(config);
    })
}

fn alternative(context: &Context, request: &v1::CreateMachineRequest) -> Result<v1::MachineSpec, Stop> {
    match &context.configs(ConfigTarget::Machine).alternative {
        Some(config) => Ok(spec_with(context, request, config)),
        None => Err(Stop::skipped("the config has no machine.alternative")),
    }
}

/// Waits until the digest is applied; returns the status.
async fn applied(
    context: &Context,
    request: &v1::CreateMachineRequest,
    digest: &[u8],
) -> Result<v1::MachineStatus, Stop> {
    let end = std::time::Instant::now() + context.config.timeouts.running;
    loop {
        let status = context.exists(request).await?.status.unwrap_or_default();
        if status.observed_digest == digest {
            return Ok(status);
        }
        holds!(
            std::time::Instant::now() < end,
            "observed_digest did not become that of the new spec"
        );
        context.pause(status.poll_after.as_ref()).await;
    }
}

async fn in_place(context: Context) -> Verdict {
    let (request, before) = running(&context, "update").await?;
    let spec = alternative(&context, &request)?;
    let digest = spec.digest.clone();
    context
        .settle(
            requests::update_machine(&request, spec, 2),
            context.config.timeouts.running,
        )
        .await?;
    let after = applied(&context, &request, &digest).await?;
    holds!(
        after.provider_id == before.provider_id,
        "its id changed from {:?} to {:?}",
        before.provider_id,
        after.provider_id
    );
    holds!(
        after.observed_generation == 2,
        "observed_generation is {}",
        after.observed_generation
    );
    Ok(())
}

async fn replay(context: Context) -> Verdict {
    let (request, before) = running(&context, "again").await?;
    let update = requests::update_machine(&request, alternative(&context, &request)?, 2);
    let digest = update.spec.as_ref().map(|spec| spec.digest.clone()).unwrap_or_default();
    for _ in 0..3 {
        context.settle(update.clone(), context.config.timeouts.running).await?;
    }
    let after = applied(&context, &request, &digest).await?;
    holds!(after.provider_id == before.provider_id, "its id changed");
    Ok(())
}

async fn same_spec(context: Context) -> Verdict {
    let (request, before) = running(&context, "same").await?;
    let update = requests::update_machine(&request, request.spec.clone().unwrap_or_default(), 2);
    let status = context
        .settle(update, context.config.timeouts.running)
        .await?
        .status
        .unwrap_or_default();
    holds!(
        status.provider_id == before.provider_id,
        "its id is {:?} now",
        status.provider_id
    );
    Ok(())
}

async fn replace(context: Context) -> Verdict {
    let Some(config) = context.configs(ConfigTarget::Machine).replacement.clone() else {
        return Err(Stop::skipped("the config has no machine.replacement"));
    };
    let (request, before) = running(&context, "replace").await?;
    let update = requests::update_machine(&request, spec_with(&context, &request, &config), 2);
    let answer = context.calls.call(update).await;
    context.refused(
        answer,
        &[ErrorReason::ReplaceRequired],
        "a change that cannot be made in place",
    )?;
    let after = context.exists(&request).await?.status.unwrap_or_default();
    holds!(
        after.provider_id == before.provider_id && after.observed_digest == before.observed_digest,
        "it was changed all the same: {after:?}"
    );
    Ok(())
}

async fn not_there(context: Context) -> Verdict {
    let request = context.create_machine(&*context.cluster().await?, "nothing");
    let update = requests::update_machine(&request, request.spec.clone().unwrap_or_default(), 1);
    let answer = context.calls.call(update).await;
    context.refused(
        answer,
        &[ErrorReason::ResourceNotFound],
        "an update of what is not there",
    )?;
    let found = context.exists(&request).await?;
    holds!(
        found.presence() == Presence::Absent,
        "now it is {}",
        found.presence().as_str_name()
    );
    Ok(())
}

async fn after_delete(context: Context) -> Verdict {
    let (request, _) = running(&context, "deleted").await?;
    context.delete(&request).await?;
    let update = requests::update_machine(&request, request.spec.clone().unwrap_or_default(), 2);
    let answer = context.calls.call(update).await;
    context.refused(answer, &[ErrorReason::ResourceNotFound], "an update after a delete")?;
    tokio::time::sleep(context.read_after_write()).await;
    let found = context.exists(&request).await?;
    holds!(
        found.presence() == Presence::Absent,
        "it is back: {}",
        found.presence().as_str_name()
    );
    Ok(())
}

async fn stale(context: Context) -> Verdict {
    let (request, _) = running(&context, "stale").await?;
    let newer = requests::update_machine(&request, request.spec.clone().unwrap_or_default(), 7);
    context.settle(newer, context.config.timeouts.running).await?;
    let older = requests::update_machine(&request, alternative(&context, &request)?, 5);
    let original = request
        .spec
        .as_ref()
        .map(|spec| spec.digest.clone())
        .unwrap_or_default();
    if let Err(status) = context.calls.call(older).await {
        context.refused::<()>(Err(status), &[ErrorReason::StaleGeneration], "an older generation")?;
    }
    let after = context.exists(&request).await?.status.unwrap_or_default();
    holds!(
        after.observed_digest == original && after.observed_generation >= 7,
        "an older generation was applied: {} with {}",
        after.observed_generation,
        hex::encode(&after.observed_digest)
    );
    Ok(())
}

async fn invalid(context: Context) -> Verdict {
    let (request, before) = running(&context, "invalid").await?;
    let mut config = context.configs(ConfigTarget::Machine).valid.clone();
    config["x-conformance-no-such-field"] = 1.into();
    let update = requests::update_machine(&request, spec_with(&context, &request, &config), 2);
    let answer = context.calls.call(update).await;
    context.refused(answer, &[ErrorReason::InvalidConfig], "an invalid config")?;
    let after = context.exists(&request).await?.status.unwrap_or_default();
    holds!(after.observed_digest == before.observed_digest, "it was applied");
    Ok(())
}

async fn other_key(context: Context) -> Verdict {
    let request = context.create_machine(&*context.cluster().await?, "two-keys");
    let mut update = requests::update_machine(&request, request.spec.clone().unwrap_or_default(), 1);
    if let Some(reference) = &mut update.r#ref {
        reference.idempotency_key = requests::new_key();
    }
    let answer = context.calls.call(update).await;
    context
        .refused(answer, &[ErrorReason::InvalidField], "two different keys")
        .map(|_| ())
}
