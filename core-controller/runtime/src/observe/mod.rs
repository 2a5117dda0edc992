//! One list and watch per kind, for the whole process. Events go into the index and
//! from there to whoever has to look.
//!
//! It differs from kube's own `watcher` in one thing that the index needs: it tells the
//! revision of each list and bookmark, so that a list never undoes our newer writes and
//! never keeps what is gone. Lists are streamed where the server can
//! (`sendInitialEvents`), else read in pages.
//!
//! Not for: reading single objects, or reconciling.

use std::pin::pin;
use std::time::Duration;

use futures::StreamExt as _;
use kube::Api;
use kube::api::{ListParams, WatchEvent, WatchParams};
use kube::core::Status;
use rand::Rng as _;
use serde::de::DeserializeOwned;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::index::{StaleList, Stored};

/// What a watch tells, to be folded into a table.
#[derive(Debug)]
pub enum Observed<K> {
    /// A complete list at a revision.
    Listed(Vec<K>, u64),
    /// An object came into being or changed; true when it came into being.
    Applied(K, bool),
    /// An object is gone.
    Deleted(K),
    /// Nothing else happened until this revision.
    Bookmark(u64),
    /// The server's storage was put back to an older state: take the next list
    /// whatever its revision.
    StorageReset,
}

/// Takes what is observed. The only refusal is of a list that is older than what is
/// known already.
pub trait Sink<K>: Send {
    /// Folds it in.
    fn take(&mut self, observed: Observed<K>) -> Result<(), StaleList>;
}

/// The annotation of the bookmark that ends a streamed list.
const INITIAL_EVENTS_END: &str = "k8s.io/initial-events-end";
/// Objects per page of a list that is not streamed.
const PAGE: u32 = 500;
/// How long the server keeps a watch open, in seconds.
const WATCH_SECONDS: u32 = 290;
/// A watch without any event or bookmark for this long is taken for dead.
const SILENCE: Duration = Duration::from_secs(WATCH_SECONDS as u64 + 10);
/// How long a streamed list may take.
const STREAM_DEADLINE: Duration = Duration::from_secs(90);
/// How long a page may take.
const LIST_DEADLINE: Duration = Duration::from_mins(1);
/// Bounds of the back-off after an error.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));
/// So many lists in a row older than what is known mean that the storage was reset.
const STALE_LISTS: u32 = 5;

/// Why a list or a watch ended.
#[derive(Debug, thiserror::Error)]
enum ObserveError {
    #[error("unable to list: {0}")]
    List(#[source] kube::Error),
    #[error("unable to watch: {0}")]
    Watch(#[source] kube::Error),
    #[error("the watch was ended by the server: {0}")]
    Ended(Box<Status>),
    #[error("no answer for {0:?}")]
    Silence(Duration),
    #[error("the list has no resourceVersion that is a number")]
    NoVersion,
    #[error("the list at {} is older than what was seen at {}", .0.listed, .0.watched)]
    Stale(StaleList),
    #[error("the server cannot stream lists")]
    NoStreaming,
}

impl ObserveError {
    /// Whether the revision that was asked for is gone, so that only a list helps.
    fn needs_list(&self) -> bool {
        match self {
            Self::Ended(status) => status.code == 410 || status.code == 504,
            Self::Watch(kube::Error::Api(status)) => status.code == 410,
            Self::NoVersion | Self::Stale(_) | Self::NoStreaming | Self::List(_) => true,
            Self::Watch(_) | Self::Silence(_) => false,
        }
    }
}

/// Lists and watches until `shutdown`.
pub async fn observe<K, S>(api: Api<K>, kind: &'static str, mut sink: S, shutdown: CancellationToken)
where
    K: Stored + DeserializeOwned + std::fmt::Debug,
    S: Sink<K>,
{
    let observer = Observer { api, kind };
    tokio::select! {
        () = shutdown.cancelled() => {}
        () = observer.run(&mut sink) => {}
    }
}

struct Observer<K> {
    api: Api<K>,
    kind: &'static str,
}

impl<K> Observer<K>
where
    K: Stored + DeserializeOwned + std::fmt::Debug,
{
    async fn run<S: Sink<K>>(&self, sink: &mut S) {
        let mut reached: Option<u64> = None;
        let mut streaming = true;
        let mut failures: u32 = 0;
        let mut stale: u32 = 0;
        loop {
            let started = Instant::now();
            let (ended, error) = match reached {
                None if streaming => self.stream(sink).await,
                None => match self.list(sink).await {
                    Ok(version) => (Some(version), None),
                    Err(error) => (None, Some(error)),
                },
                Some(version) => self.watch(version, sink).await,
            };
            reached = ended;
            let Some(error) = error else {
                failures = 0;
                continue;
            };
            match &error {
                ObserveError::NoStreaming => {
                    tracing::debug!(kind = self.kind, "the server cannot stream lists; reading pages");
                    streaming = false;
                    continue;
                }
                ObserveError::Stale(_) => {
                    stale += 1;
                    if stale >= STALE_LISTS {
                        tracing::warn!(
                            kind = self.kind,
                            "the API server's storage was put back to an older state"
                        );
                        let _ = sink.take(Observed::StorageReset);
                        stale = 0;
                    }
                }
                _ => stale = 0,
            }
            if error.needs_list() {
                reached = None;
            }
            // A watch that worked for a while does not count as a failure in a row.
            failures = if started.elapsed() > BACKOFF.1 { 1 } else { failures + 1 };
            if failures > 2 {
                tracing::warn!(kind = self.kind, %error, "watching is tried again");
            } else {
                tracing::debug!(kind = self.kind, %error, "watching is tried again");
            }
            tokio::time::sleep(backoff(failures)).await;
        }
    }

    /// A list by watch, and then the watch itself. Returns the revision reached.
    async fn stream<S: Sink<K>>(&self, sink: &mut S) -> (Option<u64>, Option<ObserveError>) {
        let params = WatchParams::default().timeout(WATCH_SECONDS).initial_events();
        let events = match tokio::time::timeout(LIST_DEADLINE, self.api.watch(&params, "")).await {
            Err(_) => return (None, Some(ObserveError::Silence(LIST_DEADLINE))),
            Ok(Ok(events)) => events,
            // Servers that do not know the parameter refuse it.
            Ok(Err(kube::Error::Api(status))) if matches!(status.code, 400 | 422) => {
                return (None, Some(ObserveError::NoStreaming));
            }
            Ok(Err(error)) => return (None, Some(ObserveError::List(error))),
        };
        let mut events = pin!(events);
        let mut listed = Vec::new();
        let deadline = Instant::now() + STREAM_DEADLINE;
        loop {
            let event = match tokio::time::timeout_at(deadline, events.next()).await {
                // A server that does not know the parameter never says that the list is
                // complete.
                Err(_) => return (None, Some(ObserveError::NoStreaming)),
                Ok(None) => return (None, Some(ObserveError::NoStreaming)),
                Ok(Some(Err(error))) => return (None, Some(ObserveError::List(error))),
                Ok(Some(Ok(event))) => event,
            };
            match event {
                WatchEvent::Added(mut object) | WatchEvent::Modified(mut object) => {
                    object.trim();
                    listed.push(object);
                }
                WatchEvent::Deleted(gone) => {
                    listed.retain(|object: &K| object.meta().uid != gone.meta().uid);
                }
                WatchEvent::Bookmark(bookmark) => {
                    if !bookmark.metadata.annotations.contains_key(INITIAL_EVENTS_END) {
                        continue;
                    }
                    let Ok(version) = bookmark.metadata.resource_version.parse() else {
                        return (None, Some(ObserveError::NoVersion));
                    };
                    if let Err(error) = sink.take(Observed::Listed(std::mem::take(&mut listed), version)) {
                        return (None, Some(ObserveError::Stale(error)));
                    }
                    return follow(version, events, sink).await;
                }
                WatchEvent::Error(status) => return (None, Some(ObserveError::Ended(status))),
            }
        }
    }

    /// A list in pages. Returns its revision.
    async fn list<S: Sink<K>>(&self, sink: &mut S) -> Result<u64, ObserveError> {
        let mut listed = Vec::new();
        let mut version = None;
        let mut token: Option<String> = None;
        loop {
            let mut params = ListParams::default().limit(PAGE);
            if let Some(token) = &token {
                params = params.continue_token(token);
            }
            let page = tokio::time::timeout(LIST_DEADLINE, self.api.list(&params))
                .await
                .map_err(|_| ObserveError::Silence(LIST_DEADLINE))?
                .map_err(ObserveError::List)?;
            // Every page is at the revision of the first.
            version = version.or_else(|| page.metadata.resource_version.as_deref()?.parse().ok());
            listed.extend(page.items.into_iter().map(|mut object| {
                object.trim();
                object
            }));
            token = page.metadata.continue_.filter(|token| !token.is_empty());
            if token.is_none() {
                break;
            }
        }
        let version = version.ok_or(ObserveError::NoVersion)?;
        sink.take(Observed::Listed(listed, version))
            .map_err(ObserveError::Stale)?;
        Ok(version)
    }

    /// A watch from a revision. Returns the revision reached.
    async fn watch<S: Sink<K>>(&self, version: u64, sink: &mut S) -> (Option<u64>, Option<ObserveError>) {
        let params = WatchParams::default().timeout(WATCH_SECONDS);
        match tokio::time::timeout(LIST_DEADLINE, self.api.watch(&params, &version.to_string())).await {
            Err(_) => (Some(version), Some(ObserveError::Silence(LIST_DEADLINE))),
            Ok(Err(error)) => (Some(version), Some(ObserveError::Watch(error))),
            Ok(Ok(events)) => follow(version, pin!(events), sink).await,
        }
    }
}

/// Takes the events of a live watch until it ends. Returns the revision reached.
async fn follow<K, S, E>(
    mut version: u64,
    mut events: std::pin::Pin<&mut E>,
    sink: &mut S,
) -> (Option<u64>, Option<ObserveError>)
where
    K: Stored,
    S: Sink<K>,
    E: futures::Stream<Item = kube::Result<WatchEvent<K>>>,
{
    loop {
        let event = match tokio::time::timeout(SILENCE, events.next()).await {
            Err(_) => return (Some(version), Some(ObserveError::Silence(SILENCE))),
            // The server ends each watch after a while: nothing is wrong.
            Ok(None) => return (Some(version), None),
            Ok(Some(Err(error))) => return (Some(version), Some(ObserveError::Watch(error))),
            Ok(Some(Ok(event))) => event,
        };
        let observed = match event {
            WatchEvent::Added(object) => Observed::Applied(object, true),
            WatchEvent::Modified(object) => Observed::Applied(object, false),
            WatchEvent::Deleted(object) => Observed::Deleted(object),
            WatchEvent::Bookmark(bookmark) => match bookmark.metadata.resource_version.parse() {
                Ok(version) => Observed::Bookmark(version),
                Err(_) => continue,
            },
            WatchEvent::Error(status) => return (Some(version), Some(ObserveError::Ended(status))),
        };
        version = version.max(match &observed {
            Observed::Applied(object, _) | Observed::Deleted(object) => crate::index::version_of(object),
            Observed::Bookmark(version) => *version,
            Observed::Listed(..) | Observed::StorageReset => 0,
        });
        if let Err(error) = sink.take(observed) {
            return (None, Some(ObserveError::Stale(error)));
        }
    }
}

fn backoff(failures: u32) -> Duration {
    let grown = BACKOFF.0.saturating_mul(1 << failures.saturating_sub(1).min(10));
    grown.min(BACKOFF.1).mul_f64(rand::rng().random_range(0.8..1.2))
}
