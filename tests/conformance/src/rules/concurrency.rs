//! A lock per key, never a global one; reads do not wait behind creates.

use std::time::{Duration, Instant};

use actuator_proto::errors::Classified;
use actuator_proto::v1::{self, ErrorReason};

use crate::calls::show_status;
use crate::context::Context;
use crate::holds;
use crate::requests;
use crate::rule::{
    Rule,
    Severity::{Critical, Major, Minor},
    Stop, Verdict,
};

/// As many keys as these tests use at a time.
const KEYS: u32 = 8;

pub fn rules() -> Vec<Rule> {
    vec![
        Rule::required("concurrency.keys-do-not-wait-for-each-other", Major, "Creates of eight keys at once make eight machines.", many_keys).machines(KEYS).alone(),
        Rule::required("concurrency.reads-beside-creates", Major, "Exists is answered while creates are running.", reads).machines(KEYS).alone(),
        Rule::required("concurrency.identity-beside-creates", Major, "Probe and GetInfo are answered within their deadlines while creates are running.", identity).machines(KEYS).alone(),
        Rule::required("concurrency.same-key-is-ordered", Critical, "Create, update and delete of one key, sent at once, leave no machine after a last delete.", mixed).machines(1),
        Rule::required("concurrency.too-many-in-flight", Minor, "Above max_concurrent_mutations a mutation waits or is refused with TOO_MANY_IN_FLIGHT, and has done nothing.", too_many).machines(KEYS).alone(),
    ]
}

async fn requests(context: &Context, label: &str) -> Result<Vec<v1::CreateMachineRequest>, Stop> {
    let cluster = context.cluster().await?;
    Ok((0..KEYS)
        .map(|number| context.create_machine(&cluster, &format!("{label}-{number}")))
        .collect())
}

async fn many_keys(context: Context) -> Verdict {
    let requests = requests(&context, "many").await?;
    let made = futures::future::try_join_all(requests.iter().map(|request| context.create(request))).await?;
    let mut ids: Vec<&String> = made.iter().map(|status| &status.provider_id).collect();
    ids.sort();
    ids.dedup();
    holds!(ids.len() == KEYS as usize, "{KEYS} keys made {} machines", ids.len());
    Ok(())
}

async fn reads(context: Context) -> Verdict {
    let requests = requests(&context, "reads").await?;
    let first = &requests[0];
    context.create(first).await?;
    let reading = async {
        // Each within its own deadline, and never told to come again.
        for _ in 0..10 {
            context.ask(requests::machine_exists(first)).await?;
        }
        Ok(())
    };
    let creating = futures::future::try_join_all(requests[1..].iter().map(|request| context.create(request)));
    let (read, created) = tokio::join!(reading, creating);
    created?;
    read
}

async fn identity(context: Context) -> Verdict {
    let requests = requests(&context, "identity").await?;
    let asking = async {
        for _ in 0..10 {
            context.ask(v1::ProbeRequest {}).await?;
            context.ask(v1::GetInfoRequest {}).await?;
        }
        Ok(())
    };
    let creating = futures::future::try_join_all(requests.iter().map(|request| context.create(request)));
    let (asked, created) = tokio::join!(asking, creating);
    created?;
    asked
}

async fn mixed(context: Context) -> Verdict {
    let request = context.create_machine(&*context.cluster().await?, "mixed");
    let update = requests::update_machine(&request, request.spec.clone().unwrap_or_default(), 2);
    let update_meta = update.meta.clone();
    let delete = requests::delete_machine(&request);
    let (created, updated, deleted) = tokio::join!(
        context.calls.call(request.clone()),
        context.calls.call(update),
        context.calls.call(delete)
    );
    for status in [created.err(), updated.err(), deleted.err()].into_iter().flatten() {
        let classified = Classified::from_status(&status);
        holds!(
            classified.reason != Some(ErrorReason::ProviderBug)
                && classified.reason != Some(ErrorReason::StateInconsistent),
            "one of them got {}",
            show_status(&status)
        );
    }
    // Of the newest generation: an older one would be refused, and rightly so.
    let last = v1::CreateMachineRequest {
        meta: update_meta,
        ..request.clone()
    };
    context.delete(&last).await?;
    tokio::time::sleep(context.read_after_write() + Duration::from_millis(500)).await;
    let found = context.exists(&request).await?.presence();
    holds!(found == v1::Presence::Absent, "it is {}", found.as_str_name());
    Ok(())
}

async fn too_many(context: Context) -> Verdict {
    let most = context
        .info
        .limits
        .as_ref()
        .map_or(0, |limits| limits.max_concurrent_mutations);
    if most == 0 {
        return Err(Stop::inapplicable("max_concurrent_mutations is not bounded"));
    }
    // Deletes of what is not there cost nothing: as many as it takes to go above the bound.
    let cluster = context.cluster().await?;
    let number = usize::try_from(most).unwrap_or(0).saturating_mul(2).min(512);
    let began = Instant::now();
    let answers = futures::future::join_all((0..number).map(|_| {
        let request = context.create_machine(&cluster, "flood");
        let context = &context;
        async move { context.calls.call(requests::delete_machine(&request)).await }
    }))
    .await;
    for status in answers.into_iter().filter_map(Result::err) {
        context.refused::<()>(
            Err(status),
            &[ErrorReason::TooManyInFlight, ErrorReason::RateLimited],
            &format!("one of {number} mutations at once, after {:?},", began.elapsed()),
        )?;
    }
    Ok(())
}
