//! Who is connected, and who goes when there is no room for one more: of those without a request under way, first who
//! never sent one, then who was idle longest. So a client that opens connections without end closes its own.

use std::collections::{BTreeMap, HashMap};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// All connections.
#[derive(Debug)]
pub(super) struct Connections {
    state: Mutex<State>,
    changed: Notify,
}

impl Connections {
    pub(super) fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::new(State {
                limit,
                ..State::default()
            }),
            changed: Notify::new(),
        })
    }

    /// A place for one more; waits while all are busy.
    pub(super) async fn place(self: &Arc<Self>) -> Arc<Place> {
        loop {
            let changed = self.changed.notified();
            if let Some((id, leave)) = self.state.lock().enter() {
                return Arc::new(Place {
                    id,
                    leave,
                    connections: Arc::clone(self),
                });
            }
            changed.await;
        }
    }

    /// Has an idle connection leave, if there is one: when the system has no room for another.
    pub(super) fn evict(&self) -> bool {
        self.state.lock().evict()
    }
}

/// The place of a connection; it is free again when the last clone is gone.
#[derive(Debug)]
pub(super) struct Place {
    id: u64,
    leave: CancellationToken,
    connections: Arc<Connections>,
}

impl Place {
    /// Ends when the connection is to leave.
    pub(super) async fn left(&self) {
        self.leave.cancelled().await;
    }

    /// Marks a request as under way until the answer is dropped.
    pub(super) fn busy(self: &Arc<Self>) -> Busy {
        self.connections.state.lock().begin(self.id);
        Busy(Arc::clone(self))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.connections.state.lock().exit(self.id);
        self.connections.changed.notify_waiters();
    }
}

/// A request under way.
#[derive(Debug)]
pub(super) struct Busy(Arc<Place>);

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.connections.state.lock().end(self.0.id);
        self.0.connections.changed.notify_waiters();
    }
}

/// A response body whose request is under way until it is gone.
pub(super) struct Answering<B> {
    body: B,
    _busy: Busy,
}

impl<B> Answering<B> {
    pub(super) fn new(body: B, busy: Busy) -> Self {
        Self { body, _busy: busy }
    }
}

impl<B: Body<Data = Bytes> + Unpin> Body for Answering<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        Pin::new(&mut self.get_mut().body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Who would go first: who never sent a request, then who was idle longest.
type Turn = (bool, u64);

#[derive(Debug, Default)]
struct State {
    limit: usize,
    members: HashMap<u64, Member>,
    /// How many were told to leave and have not yet.
    leaving: usize,
    idle: BTreeMap<Turn, u64>,
    next: u64,
}

#[derive(Debug)]
struct Member {
    requests: usize,
    turn: Option<Turn>,
    leave: CancellationToken,
}

impl State {
    fn enter(&mut self) -> Option<(u64, CancellationToken)> {
        if self.members.len() >= self.limit {
            if self.leaving == 0 {
                self.evict();
            }
            return None;
        }
        let id = self.number();
        let turn = (false, self.number());
        let leave = CancellationToken::new();
        self.idle.insert(turn, id);
        self.members.insert(
            id,
            Member {
                requests: 0,
                turn: Some(turn),
                leave: leave.clone(),
            },
        );
        Some((id, leave))
    }

    fn evict(&mut self) -> bool {
        let Some((_, id)) = self.idle.pop_first() else {
            return false;
        };
        if let Some(member) = self.members.get_mut(&id) {
            member.turn = None;
            member.leave.cancel();
            self.leaving += 1;
        }
        true
    }

    fn exit(&mut self, id: u64) {
        let Some(member) = self.members.remove(&id) else { return };
        if let Some(turn) = member.turn {
            self.idle.remove(&turn);
        }
        if member.leave.is_cancelled() {
            self.leaving -= 1;
        }
    }

    fn begin(&mut self, id: u64) {
        let Some(member) = self.members.get_mut(&id) else {
            return;
        };
        member.requests += 1;
        if let Some(turn) = member.turn.take() {
            self.idle.remove(&turn);
        }
    }

    fn end(&mut self, id: u64) {
        let turn = (true, self.number());
        let Some(member) = self.members.get_mut(&id) else {
            return;
        };
        member.requests -= 1;
        if member.requests == 0 && !member.leave.is_cancelled() {
            member.turn = Some(turn);
            self.idle.insert(turn, id);
        }
    }

    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // tests
mod tests {
    use super::*;

    fn state(limit: usize) -> State {
        State {
            limit,
            ..State::default()
        }
    }

    #[test]
    fn who_never_asked_goes_before_who_is_idle_and_who_is_busy_stays() {
        let mut state = state(3);
        let (busy, busy_leaves) = state.enter().unwrap();
        let (idle, idle_leaves) = state.enter().unwrap();
        let (_, silent_leaves) = state.enter().unwrap();
        state.begin(busy);
        state.begin(idle);
        state.end(idle);
        assert!(state.enter().is_none());
        assert!(silent_leaves.is_cancelled() && !idle_leaves.is_cancelled());
        // One leaves for one who comes, not more.
        assert!(state.enter().is_none());
        assert!(!idle_leaves.is_cancelled());
        state.exit(3 + 2);
        let (new, _) = state.enter().unwrap();
        state.begin(new);
        assert!(state.enter().is_none());
        assert!(idle_leaves.is_cancelled());
        state.exit(idle);
        let (newer, _) = state.enter().unwrap();
        state.begin(newer);
        assert!(state.enter().is_none());
        assert!(!busy_leaves.is_cancelled(), "a request under way was cut off");
        state.end(busy);
        assert!(state.enter().is_none());
        assert!(busy_leaves.is_cancelled());
    }

    #[test]
    fn all_is_given_back() {
        let mut state = state(2);
        for _ in 0..10 {
            let (one, _) = state.enter().unwrap();
            let (two, _) = state.enter().unwrap();
            state.begin(one);
            state.begin(one);
            state.end(one);
            assert!(state.enter().is_none());
            state.end(one);
            state.exit(one);
            state.exit(two);
        }
        assert!(state.members.is_empty() && state.idle.is_empty());
        assert_eq!(state.leaving, 0);
    }
}
