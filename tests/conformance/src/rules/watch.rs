//! `WatchMachines`: a snapshot, a sync marker, events, bookmarks; hints only.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use actuator_proto::limits::BOOKMARK_INTERVAL;
use actuator_proto::v1::watch_machines_response::Event;
use actuator_proto::v1::{self, ConfigTarget, ErrorReason};
use tonic::Status;

use crate::calls::Stream;
use crate::context::{Context, Expected as _};
use crate::holds;
use crate::requests::Created as _;
use crate::rule::{
    Capability, Rule,
    Severity::{Critical, Major, Minor},
    Stop, Verdict,
};

type Watch = Stream<v1::WatchMachinesRequest>;

pub fn rules() -> Vec<Rule> {
    let capability = Capability::WatchMachines;
    vec![
        Rule::required(
            "watch.snapshot-then-synced",
            Major,
            "A watch begins with every machine, each once, and a sync marker.",
            snapshot,
        )
        .with(capability)
        .machines(2),
        Rule::required(
            "watch.empty-snapshot",
            Minor,
            "A watch of nothing begins with the sync marker.",
            empty,
        )
        .with(capability),
        Rule::required(
            "watch.tells-new-machines",
            Major,
            "A machine that is made is told.",
            tells_new,
        )
        .with(capability)
        .machines(1),
        Rule::required(
            "watch.tells-gone-machines",
            Major,
            "A machine that is gone is told, with its key.",
            tells_gone,
        )
        .with(capability)
        .machines(1),
        Rule::required(
            "watch.bookmarks",
            Minor,
            "A bookmark comes at least every 30 s.",
            bookmarks,
        )
        .with(capability),
        Rule::required(
            "watch.other-management-cluster",
            Critical,
            "Machines of another management cluster are not told.",
            other,
        )
        .with(capability)
        .machines(1),
        Rule::required(
            "watch.resumes",
            Minor,
            "With the token of a bookmark only what changed since is told, or RESUME_TOKEN_EXPIRED.",
            resumes,
        )
        .with(capability)
        .machines(2),
        Rule::required(
            "watch.bad-resume-token",
            Minor,
            "A resume token that is none is refused with RESUME_TOKEN_EXPIRED.",
            bad_token,
        )
        .with(capability),
        Rule::required(
            "watch.needs-management-cluster",
            Critical,
            "A watch without a management cluster is refused with INVALID_FIELD.",
            no_management,
        )
        .with(capability),
        Rule::required(
            "watch.slow-reader",
            Major,
            "A watcher that does not read holds up nobody.",
            slow,
        )
        .with(capability)
        .machines(1),
        Rule::required(
            "watch.many-watchers",
            Minor,
            "Sixteen watchers see the same snapshot.",
            many,
        )
        .with(capability)
        .machines(1),
    ]
}

fn request(context: &Context) -> v1::WatchMachinesRequest {
    v1::WatchMachinesRequest {
        management_cluster_id: context.management_cluster_id(),
        resume_token: String::new(),
        credentials: Some(context.good.clone()),
        config: Some(context.valid(ConfigTarget::Cluster)),
    }
}

async fn open(context: &Context) -> Result<Watch, Stop> {
    context.calls.stream(request(context)).await.expected("WatchMachines")
}

async fn event(watch: &mut Watch, within: Duration) -> Result<Event, Stop> {
    match watch.next(within).await {
        Some(Ok(answer)) => answer
            .event
            .ok_or_else(|| Stop::broken("an element of the stream holds nothing")),
        Some(Err(status)) => Err(Stop::broken(crate::calls::show_status(&status))),
        None => Err(Stop::broken("the stream ended by itself")),
    }
}

/// Everything up to the sync marker: machines by key, and the resume token.
async fn synced(context: &Context, watch: &mut Watch) -> Result<(BTreeMap<String, v1::ListedMachine>, String), Stop> {
    let mut machines = BTreeMap::new();
    loop {
        match event(watch, context.config.timeouts.ready).await? {
            Event::Present(machine) => {
                let key = machine.idempotency_key.clone();
                // Changed while the snapshot was sent is no fault; the last word counts.
                machines.insert(key, machine);
            }
            Event::Gone(gone) => {
                machines.remove(&gone.idempotency_key);
            }
            Event::Synced(synced) => return Ok((machines, synced.resume_token)),
            Event::Bookmark(_) => return Err(Stop::broken("a bookmark came before the sync marker")),
        }
    }
}

/// Waits for an event that fits.
async fn until<T>(
    watch: &mut Watch,
    within: Duration,
    what: &str,
    fits: impl Fn(&Event) -> Option<T>,
) -> Result<T, Stop> {
    let end = Instant::now() + within;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        holds!(!left.is_zero(), "{what} was not told within {within:?}");
        if let Some(found) = fits(&event(watch, left.max(Duration::from_millis(1))).await?) {
            return Ok(found);
        }
    }
}

async fn made(context: &Context, label: &str) -> Result<v1::CreateMachineRequest, Stop> {
    let request = context.create_machine(&*context.cluster().await?, label);
    context.create(&request).await?;
    Ok(request)
}

fn present(key: &str) -> impl Fn(&Event) -> Option<v1::ListedMachine> {
    move |event| match event {
        Event::Present(machine) if machine.idempotency_key == key => Some(machine.clone()),
        _ => None,
    }
}

async fn snapshot(context: Context) -> Verdict {
    let (one, two) = (made(&context, "one").await?, made(&context, "two").await?);
    tokio::time::sleep(context.read_after_write()).await;
    let (machines, _) = synced(&context, &mut open(&context).await?).await?;
    for request in [&one, &two] {
        let Some(found) = machines.get(&request.key()) else {
            return Err(Stop::broken(format!("{} is not in the snapshot", request.key())));
        };
        let ownership = found.ownership.clone().unwrap_or_default();
        holds!(ownership.object_uid == request.key(), "it is told with {ownership:?}");
        holds!(
            found
                .status
                .as_ref()
                .is_some_and(|status| !status.provider_id.is_empty()),
            "it is told without an id"
        );
    }
    Ok(())
}

async fn empty(context: Context) -> Verdict {
    let mut request = request(&context);
    request.management_cluster_id.push_str("-empty");
    let mut watch = context.calls.stream(request).await.expected("WatchMachines")?;
    let (machines, _) = synced(&context, &mut watch).await?;
    holds!(machines.is_empty(), "{} machines are told of nothing", machines.len());
    Ok(())
}

async fn tells_new(context: Context) -> Verdict {
    context.cluster().await?;
    let mut watch = open(&context).await?;
    synced(&context, &mut watch).await?;
    let request = made(&context, "new").await?;
    until(
        &mut watch,
        context.config.timeouts.running,
        "the new machine",
        present(&request.key()),
    )
    .await
    .map(|_| ())
}

async fn tells_gone(context: Context) -> Verdict {
    let request = made(&context, "leaving").await?;
    let mut watch = open(&context).await?;
    synced(&context, &mut watch).await?;
    context.delete(&request).await?;
    let key = request.key();
    until(
        &mut watch,
        context.config.timeouts.gone,
        "the end of the machine",
        |event| match event {
            Event::Gone(gone) if gone.idempotency_key == key => Some(()),
            _ => None,
        },
    )
    .await
}

async fn bookmarks(context: Context) -> Verdict {
    let mut watch = open(&context).await?;
    synced(&context, &mut watch).await?;
    // Twice the interval: a machine under load is no broken rule.
    let token = until(&mut watch, 2 * BOOKMARK_INTERVAL, "a bookmark", |event| match event {
        Event::Bookmark(bookmark) => Some(bookmark.resume_token.clone()),
        _ => None,
    })
    .await?;
    let resumable = context
        .info
        .capabilities
        .and_then(|told| told.watch_machines)
        .is_some_and(|watch| watch.resume_window.is_some());
    holds!(
        !resumable || !token.is_empty(),
        "a resume_window is advertised, and the bookmark has no token"
    );
    Ok(())
}

async fn other(context: Context) -> Verdict {
    let request = made(&context, "ours").await?;
    tokio::time::sleep(context.read_after_write()).await;
    let mut foreign = self::request(&context);
    foreign.management_cluster_id.push_str("-other");
    let mut watch = context.calls.stream(foreign).await.expected("WatchMachines")?;
    let (machines, _) = synced(&context, &mut watch).await?;
    holds!(
        !machines.contains_key(&request.key()),
        "it is told to another management cluster"
    );
    Ok(())
}

async fn resumes(context: Context) -> Verdict {
    let before = made(&context, "before").await?;
    tokio::time::sleep(context.read_after_write()).await;
    let (_, resume_token) = synced(&context, &mut open(&context).await?).await?;
    if resume_token.is_empty() {
        return Err(Stop::inapplicable("the sync marker has no resume token"));
    }
    let after = made(&context, "after").await?;
    let opened = context
        .calls
        .stream(v1::WatchMachinesRequest {
            resume_token,
            ..request(&context)
        })
        .await;
    let mut watch = match opened {
        Ok(watch) => watch,
        Err(status) => return expired(&context, status),
    };
    loop {
        match watch.next(context.config.timeouts.running).await {
            Some(Ok(v1::WatchMachinesResponse {
                event: Some(Event::Present(machine)),
            })) => {
                if machine.idempotency_key == after.key() {
                    return Ok(());
                }
                // The old one may have changed since; only a whole snapshot would be no resumption.
                holds!(
                    machine.idempotency_key == before.key() || machine.ownership.is_some(),
                    "a machine is told without an owner"
                );
            }
            Some(Ok(_)) => {}
            Some(Err(status)) => return expired(&context, status),
            None => return Err(Stop::broken("the stream ended by itself")),
        }
    }
}

fn expired(context: &Context, status: Status) -> Verdict {
    context
        .refused::<()>(Err(status), &[ErrorReason::ResumeTokenExpired], "a resume token")
        .map(|_| ())
}

async fn first(opened: Result<Watch, Status>) -> Result<(), Status> {
    match opened?.next(Duration::from_secs(20)).await {
        Some(Err(status)) => Err(status),
        _ => Ok(()),
    }
}

async fn bad_token(context: Context) -> Verdict {
    let request = v1::WatchMachinesRequest {
        resume_token: "no-such-token".to_owned(),
        ..request(&context)
    };
    let answer = first(context.calls.stream(request).await).await;
    context
        .refused(
            answer,
            &[ErrorReason::ResumeTokenExpired],
            "a resume token that is none",
        )
        .map(|_| ())
}

async fn no_management(context: Context) -> Verdict {
    let request = v1::WatchMachinesRequest {
        management_cluster_id: String::new(),
        ..request(&context)
    };
    let answer = first(context.calls.stream(request).await).await;
    context
        .refused(
            answer,
            &[ErrorReason::InvalidField],
            "a watch of every management cluster",
        )
        .map(|_| ())
}

async fn slow(context: Context) -> Verdict {
    let stuck: Vec<Watch> = {
        let mut stuck = Vec::new();
        for _ in 0..4 {
            stuck.push(open(&context).await?);
        }
        stuck
    };
    let request = made(&context, "beside").await?;
    context.with(context.connection().await?).exists(&request).await?;
    drop(stuck);
    Ok(())
}

async fn many(context: Context) -> Verdict {
    let request = made(&context, "many").await?;
    tokio::time::sleep(context.read_after_write()).await;
    let watching = (0..16).map(|_| async {
        let (machines, _) = synced(&context, &mut open(&context).await?).await?;
        holds!(machines.contains_key(&request.key()), "one of them does not see it");
        Ok(())
    });
    futures::future::try_join_all(watching).await.map(|_: Vec<()>| ())
}
