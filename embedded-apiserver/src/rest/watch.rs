//! Following a collection: what a watcher gets, from the store's history, without a queue of its own.
//!
//! A watcher is a position in the history. One that falls behind the history is told so and ends; no writer waits.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rand::Rng as _;
use tokio::time::Instant;

use super::bookmark::bookmark;
use super::list::Selection;
use super::number::parse_revision;
use super::{ApiError, Core, Request, convert};
use crate::storage::{Event, EventKind, ObjectName, RevisionError, Stored};

/// How many events are taken from the history at a time.
const CHUNK: usize = 256;
/// How often a watcher is told the present revision.
const BOOKMARK_INTERVAL: Duration = Duration::from_mins(1);
/// How long before its end a watch is told the present revision once more.
const LAST_BOOKMARK: Duration = Duration::from_secs(2);

/// What an event says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WatchKind {
    /// The object came into view.
    Added,
    /// It changed.
    Modified,
    /// It went out of view.
    Deleted,
    /// Nothing happened up to a revision.
    Bookmark,
    /// The watch ends, with a `Status`.
    Error,
}

impl WatchKind {
    /// As it is written.
    pub fn name(self) -> &'static str {
        match self {
            Self::Added => "ADDED",
            Self::Modified => "MODIFIED",
            Self::Deleted => "DELETED",
            Self::Bookmark => "BOOKMARK",
            Self::Error => "ERROR",
        }
    }
}

/// One event for a watcher.
#[derive(Clone, Debug)]
pub struct WatchEvent {
    /// What it says.
    pub kind: WatchKind,
    /// The object as JSON in the request's version.
    pub object: Bytes,
}

/// A running watch.
#[derive(Debug)]
pub struct Watch {
    core: Arc<Core>,
    request: Request,
    selection: Selection,
    /// Initial objects that were not sent yet.
    initial: VecDeque<(ObjectName, Arc<Stored>)>,
    /// Whether the end of the initial events is still to be announced.
    announce_end: bool,
    position: u64,
    wake: tokio::sync::watch::Receiver<u64>,
    deadline: Instant,
    next_bookmark: Option<Instant>,
    pending: VecDeque<WatchEvent>,
    ended: bool,
}

/// Starts a watch.
pub fn start(core: &Arc<Core>, request: Request) -> Result<Watch, ApiError> {
    let selection = Selection::parse(&request)?;
    let options = &request.options;
    let requested: Option<u64> = match options.resource_version.as_str() {
        "" => None,
        text => Some(parse_revision(text).map_err(ApiError::unclassified)?),
    };
    let wants_initial = match options.send_initial_events {
        Some(wanted) => wanted,
        None => matches!(requested, None | Some(0)),
    };
    // Subscribed before the first look, so that nothing between the two is missed.
    let wake = core.store.subscribe(&request.resource.storage);
    let current = core.store.revision();
    // The watch has begun when such things are found out: they are its only event.
    let mut refused: Option<ApiError> = None;
    if let Some(requested) = requested.filter(|requested| wants_initial && *requested > current) {
        refused = Some(RevisionError::Future { requested, current }.into());
    }
    let namespace = (!request.namespace.is_empty()).then_some(request.namespace.as_str());
    let (initial, position) = if wants_initial && refused.is_none() {
        let snapshot = core
            .store
            .list(&request.resource.storage, namespace, None, None, usize::MAX)?;
        (snapshot.objects.into(), snapshot.revision)
    } else {
        (
            VecDeque::new(),
            requested.filter(|revision| *revision > 0).unwrap_or(current),
        )
    };
    let seconds = match options.timeout_seconds {
        Some(seconds) if seconds > 0 => seconds.unsigned_abs().min(24 * 3600),
        // Over before it began.
        Some(seconds) if seconds < 0 => 0,
        // Spread, so that watches started together do not end together.
        _ => rand::rng().random_range(1800..3600),
    };
    let now = Instant::now();
    let deadline = now + Duration::from_secs(seconds);
    let mut watch = Watch {
        core: Arc::clone(core),
        selection,
        initial,
        announce_end: options.send_initial_events == Some(true) && options.bookmarks,
        position,
        wake,
        deadline,
        next_bookmark: next_bookmark(now, deadline),
        pending: VecDeque::new(),
        ended: false,
        request,
    };
    if let Some(error) = refused {
        watch.end_with(&error);
    }
    Ok(watch)
}

/// Now and then, and once more shortly before the end, so that the next watch begins where this one ended.
fn next_bookmark(now: Instant, deadline: Instant) -> Option<Instant> {
    let last = deadline.checked_sub(LAST_BOOKMARK).filter(|last| *last > now);
    last.map(|last| last.min(now + BOOKMARK_INTERVAL))
}

async fn sleep_until(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time).await,
        None => std::future::pending().await,
    }
}

impl Watch {
    /// The request that it answers.
    pub fn request(&self) -> &Request {
        &self.request
    }

    /// The next event; none when the watch has ended. Cancellation safe.
    pub async fn next(&mut self) -> Option<WatchEvent> {
        loop {
            if let Some(event) = self.ready() {
                return Some(event);
            }
            if self.ended {
                return None;
            }
            tokio::select! {
                biased;
                () = tokio::time::sleep_until(self.deadline) => {
                    self.ended = true;
                }
                changed = self.wake.changed() => {
                    if changed.is_err() {
                        self.ended = true;
                    }
                }
                () = sleep_until(self.next_bookmark), if self.request.options.bookmarks => {
                    self.next_bookmark = next_bookmark(Instant::now(), self.deadline);
                    self.fill();
                    if self.pending.is_empty() && !self.ended {
                        self.pending.push_back(self.bookmark(false));
                    }
                }
            }
        }
    }

    /// The next event if there is one without waiting.
    pub fn ready(&mut self) -> Option<WatchEvent> {
        if let Some(event) = self.pending.pop_front() {
            return Some(event);
        }
        if self.ended {
            return None;
        }
        if Instant::now() >= self.deadline {
            self.ended = true;
            return None;
        }
        while let Some((name, stored)) = self.initial.pop_front() {
            if let Some(object) = self.visible(&name, &stored) {
                return Some(self.event(WatchKind::Added, object));
            }
        }
        if self.announce_end {
            self.announce_end = false;
            return Some(self.bookmark(true));
        }
        self.fill();
        self.pending.pop_front()
    }

    /// Takes events from the history until there is one to send or none left.
    fn fill(&mut self) {
        while self.pending.is_empty() && !self.ended {
            self.wake.borrow_and_update();
            if self.is_redefined() {
                self.ended = true;
                return;
            }
            // Of what is still to come, only what comes after the revision that was asked for.
            if self.position > self.core.store.revision() {
                self.check_served();
                return;
            }
            let storage = &self.request.resource.storage;
            let events = match self.core.store.events_after(storage, self.position, CHUNK) {
                Ok(events) => events,
                Err(error) => {
                    self.end_with(&error.into());
                    return;
                }
            };
            self.position = events.revision;
            for event in &events.events {
                if let Some(event) = self.translate(event) {
                    self.pending.push_back(event);
                }
            }
            if events.events.len() < CHUNK {
                self.check_served();
                return;
            }
        }
    }

    /// Whether the definition says something else by now: as with the real server, the client begins again.
    fn is_redefined(&self) -> bool {
        let resource = &self.request.resource;
        let Some(origin) = &resource.custom else { return false };
        let snapshot = self.core.registry.snapshot();
        let now = snapshot.find(&resource.group, &resource.plural);
        now.and_then(|now| now.custom.as_ref())
            // One that goes takes its objects along: their ends are told first.
            .is_some_and(|now| now.uid == origin.uid && now.generation != origin.generation && !now.terminating)
    }

    /// Ends when the resource is no longer served as it was asked for.
    fn check_served(&mut self) {
        let request = &self.request;
        let Some(origin) = &request.resource.custom else { return };
        let snapshot = self.core.registry.snapshot();
        let now = snapshot.find(&request.resource.group, &request.resource.plural);
        match now {
            Some(now) if now.custom.as_ref().is_some_and(|custom| custom.uid == origin.uid) => {
                if now.served(&request.version).is_none() {
                    self.ended = true;
                } else if !Arc::ptr_eq(now, &request.resource) {
                    self.request.resource = Arc::clone(now);
                }
            }
            _ => self.ended = true,
        }
    }

    fn end_with(&mut self, error: &ApiError) {
        let object = serde_json::to_vec(&error.status()).unwrap_or_default().into();
        self.pending.push_back(WatchEvent {
            kind: WatchKind::Error,
            object,
        });
        self.ended = true;
    }

    fn visible<'stored>(&self, name: &ObjectName, stored: &'stored Arc<Stored>) -> Option<&'stored Arc<Stored>> {
        let version = self.request.resource.served(&self.request.version)?;
        let inside = self.request.namespace.is_empty() || self.request.namespace == *name.namespace;
        (inside && self.selection.matches(&self.request.resource, version, name, stored)).then_some(stored)
    }

    /// What an event means to this watcher: objects come into view and go out of it.
    fn translate(&self, event: &Arc<Event>) -> Option<WatchEvent> {
        let name = &event.key.object;
        let after = (event.kind != EventKind::Deleted)
            .then(|| self.visible(name, &event.object))
            .flatten();
        let before = event
            .previous
            .as_ref()
            .and_then(|previous| self.visible(name, previous));
        match (before, after) {
            (None, None) => None,
            (None, Some(after)) => Some(self.event(WatchKind::Added, after)),
            (Some(_), Some(after)) => Some(self.event(WatchKind::Modified, after)),
            (Some(_), None) if event.kind == EventKind::Deleted => Some(self.event(WatchKind::Deleted, &event.object)),
            (Some(before), None) => {
                // It left the selection: its last state in view, with the revision at which it left.
                let mut object = convert::load(&self.request.resource, &self.request.version, before).ok()?;
                super::object::set_metadata(
                    &mut object,
                    "resourceVersion",
                    Some(event.revision().to_string().into()),
                );
                let object = serde_json::to_vec(&object).ok()?.into();
                Some(WatchEvent {
                    kind: WatchKind::Deleted,
                    object,
                })
            }
        }
    }

    fn event(&self, kind: WatchKind, stored: &Stored) -> WatchEvent {
        match convert::bytes(&self.request.resource, &self.request.version, stored) {
            Ok(object) => WatchEvent { kind, object },
            Err(error) => {
                let object = serde_json::to_vec(&error.status()).unwrap_or_default().into();
                WatchEvent {
                    kind: WatchKind::Error,
                    object,
                }
            }
        }
    }

    fn bookmark(&self, end_of_initial: bool) -> WatchEvent {
        let object = bookmark(&self.request, self.position, end_of_initial);
        WatchEvent {
            kind: WatchKind::Bookmark,
            object: serde_json::to_vec(&object).unwrap_or_default().into(),
        }
    }
}
