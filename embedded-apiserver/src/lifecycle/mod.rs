//! What the server does by itself: garbage collection, the end of namespaces and definitions, the expiry of events.
//!
//! The store tells of every write; what needs a look is put in a queue without repetitions, and workers take it from
//! there. A look decides from what is stored at that moment, so nothing depends on the order of looks.

mod aggregate;
mod garbage;
mod queue;
mod teardown;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use tokio_util::sync::CancellationToken;

pub use queue::{Queue, Work};

use crate::rest::{Core, DeleteOptions, delete_key};
use crate::storage::{Key, WriteError};

/// How many looks are under way at a time: with a file, they share its transactions.
const CONCURRENCY: usize = 64;
/// How long until a failed look is repeated.
const RETRY_DELAY: Duration = Duration::from_secs(1);
/// How often events are looked over.
const EXPIRY_INTERVAL: Duration = Duration::from_mins(1);
/// How long events live, in intervals.
const EVENT_LIFETIME: usize = 60;

/// Brings everything in order that a stop left halfway: definitions are settled and served.
pub async fn resume(core: &Arc<Core>) {
    core.registry.reload(&core.store);
    let definitions = core.store.list_all(crate::registry::DEFINITIONS, None);
    for (name, _) in definitions {
        crate::rest::settle_definition(core, &name.name).await;
    }
}

/// Works until cancelled.
pub async fn run(core: Arc<Core>, shutdown: CancellationToken) {
    for key in core.store.unfinished() {
        core.queue.push(Work::Object(key));
    }
    core.queue.push(Work::ClusterRoles);
    let looks = futures::stream::unfold(Arc::clone(&core.queue), |queue| async move {
        let work = queue.pop().await;
        Some((work, queue))
    })
    .for_each_concurrent(CONCURRENCY, |work| look(&core, work));
    tokio::select! {
        () = shutdown.cancelled() => {}
        () = looks => {}
        () = expire_events(&core) => {}
    }
}

async fn look(core: &Arc<Core>, work: Work) {
    let result = match &work {
        Work::Object(key) => object(core, key).await,
        Work::OwnerGone(uid) => {
            for key in core.store.dependents(*uid) {
                core.queue.push(Work::Object(key));
            }
            Ok(())
        }
        Work::ClusterRoles => aggregate::cluster_roles(core).await,
        Work::DependentGone(owner) => match core.store.key_of_number(*owner) {
            Some(key) => object(core, &key).await,
            None => Ok(()),
        },
    };
    if let Err(error) = result {
        match error {
            // Content came in between or is still going: its own deletion brings the next look.
            WriteError::Guard => {}
            error => {
                tracing::warn!(?work, %error, "unable to tend an object, trying again");
                tokio::time::sleep(RETRY_DELAY).await;
                core.queue.push(work);
            }
        }
    }
}

async fn object(core: &Arc<Core>, key: &Key) -> Result<(), WriteError> {
    let Some(stored) = core.store.get(key) else {
        return Ok(());
    };
    if stored.deleting() {
        match key.resource.as_ref() {
            "namespaces" => teardown::namespace(core, key).await?,
            crate::registry::DEFINITIONS => teardown::definition(core, key).await?,
            _ => {}
        }
        garbage::deleting_owner(core, key, &stored).await?;
    }
    if stored.owned() {
        garbage::dependent(core, key).await?;
    }
    Ok(())
}

/// Revisions stand for time: what was last written at or before the revision of an hour ago is older than an hour.
#[derive(Debug, Default)]
struct Horizon {
    past: VecDeque<u64>,
}

impl Horizon {
    /// Notes the revision of this moment, once an interval; answers the one of a lifetime ago.
    fn advance(&mut self, revision: u64) -> Option<u64> {
        self.past.push_back(revision);
        if self.past.len() > EVENT_LIFETIME {
            self.past.pop_front()
        } else {
            None
        }
    }
}

/// Removes events that were not written for an hour.
async fn expire_events(core: &Arc<Core>) {
    let mut horizon = Horizon::default();
    loop {
        if let Some(revision) = horizon.advance(core.store.revision()) {
            remove_events(core, revision).await;
        }
        tokio::time::sleep(EXPIRY_INTERVAL).await;
    }
}

/// Removes the events that were last written at or before a revision.
async fn remove_events(core: &Arc<Core>, horizon: u64) {
    let resource: Arc<str> = "events".into();
    for (object, stored) in core.store.list_all(&resource, None) {
        if stored.revision > horizon {
            continue;
        }
        let key = Key {
            resource: Arc::clone(&resource),
            object,
        };
        if let Err(error) = delete_key(core, &key, &DeleteOptions::default()).await {
            tracing::warn!(%error, "unable to remove an expired event");
        }
    }
}
