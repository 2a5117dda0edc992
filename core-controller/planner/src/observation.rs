//! What a process has learned of one machine or one cluster from its provider: kept in
//! memory per UID, empty after a restart, and never the only place of anything that
//! matters. Results and hints are folded in here; nothing is decided.
//! Not for: decisions (see `machine` and `cluster`) or calls.

use std::time::Duration;

use actuator_proto::v1::{self, DeletionState, Presence};
use jiff::{SignedDuration, Timestamp};

use crate::operation::{self, Answer, Basis, Call, Failure, Operation, OperationResult, Outcome};

/// What machines' and clusters' statuses have in common.
pub trait ProviderStatus {
    /// The provider's id.
    fn provider_id(&self) -> &str;
    /// The highest generation that was applied; 0: not told.
    fn observed_generation(&self) -> i64;
    /// The digest that was applied; empty: not told.
    fn observed_digest(&self) -> &[u8];
    /// Ask again after this long.
    fn poll_after(&self) -> Option<Duration>;
    /// What the provider likes to see again.
    fn provider_state(&self) -> &[u8];
    /// Whether something would be decided on it that cannot be taken back.
    fn is_grave(&self) -> bool;
}

impl ProviderStatus for v1::MachineStatus {
    fn provider_id(&self) -> &str {
        &self.provider_id
    }
    fn observed_generation(&self) -> i64 {
        self.observed_generation
    }
    fn observed_digest(&self) -> &[u8] {
        &self.observed_digest
    }
    fn poll_after(&self) -> Option<Duration> {
        operation::duration(self.poll_after.as_ref())
    }
    fn provider_state(&self) -> &[u8] {
        &self.provider_state
    }
    fn is_grave(&self) -> bool {
        matches!(self.phase(), v1::MachinePhase::Failed | v1::MachinePhase::Deleting)
            || self.failure.as_ref().is_some_and(|failure| failure.terminal)
    }
}

impl ProviderStatus for v1::ClusterStatus {
    fn provider_id(&self) -> &str {
        &self.provider_id
    }
    fn observed_generation(&self) -> i64 {
        self.observed_generation
    }
    fn observed_digest(&self) -> &[u8] {
        &self.observed_digest
    }
    fn poll_after(&self) -> Option<Duration> {
        operation::duration(self.poll_after.as_ref())
    }
    fn provider_state(&self) -> &[u8] {
        &self.provider_state
    }
    fn is_grave(&self) -> bool {
        matches!(self.phase(), v1::ClusterPhase::Failed | v1::ClusterPhase::Deleting)
            || self.failure.as_ref().is_some_and(|failure| failure.terminal)
    }
}

/// An operation that was sent and has not come back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InFlight {
    /// The operation.
    pub operation: Operation,
    /// Since when.
    pub started: Timestamp,
}

/// What the provider last said of the resource.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Knowledge<Status> {
    /// Nothing yet, or nothing that still counts.
    Nothing,
    /// There is none.
    Absent {
        /// When the first of the unbroken row of such answers was asked for.
        first_asked: Timestamp,
        /// When the last one was asked for.
        last_asked: Timestamp,
    },
    /// There is one.
    Present {
        /// What it is.
        status: Box<Status>,
        /// When it was told.
        told: Timestamp,
        /// Whether somebody is removing it.
        terminating: bool,
        /// From a watch: good to show, never to decide on.
        hint: bool,
    },
}

/// What was known of mutations before the one in flight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct BeforeMutation {
    attempted: bool,
    uncertain: bool,
    last: Option<Timestamp>,
}

/// How far the deletion is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Deletion {
    /// Accepted; the words tell what the provider waits for.
    InProgress(String),
    /// The provider said at this time that nothing is left.
    Gone(Timestamp),
}

/// A failure that still counts: the last one of its kind of call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Trouble {
    /// The call that failed and what it was decided on.
    pub operation: Operation,
    /// How it failed; of an unbroken row of the same class, with the words of the first.
    pub failure: Failure,
    /// Since when this kind of call has failed without a break.
    pub since: Timestamp,
    /// When it failed last.
    pub last: Timestamp,
    /// How often in a row.
    pub times: u32,
}

/// Whether a call may be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Gate {
    /// Now.
    Open,
    /// Not before this.
    Until(Timestamp),
    /// Not before the spec, the credentials or the provider change.
    Held,
}

/// What a process knows of one machine or one cluster.
#[derive(Debug, Clone, PartialEq)]
pub struct Observation<Status> {
    pub(crate) in_flight: Option<InFlight>,
    pub(crate) knowledge: Knowledge<Status>,
    /// At most one for each kind of call.
    pub(crate) troubles: Vec<Trouble>,
    /// No call before this.
    pub(crate) not_before: Option<Timestamp>,
    /// Whether this process has sent a Create, whatever became of it.
    pub(crate) create_attempted: bool,
    /// Whether it has sent one that may have made something.
    pub(crate) create_uncertain: bool,
    /// Whether this process saw a Create or an Update answered with a status.
    pub(crate) accepted: bool,
    /// What to go back to when the mutation in flight turns out to have changed nothing.
    before_mutation: Option<BeforeMutation>,
    /// When a mutation was last known to be running: for the read-after-write window
    /// from then on, reads may show the old state.
    pub(crate) last_mutation: Option<Timestamp>,
    /// Something speaks against what is known: ask before anything else.
    pub(crate) doubt: bool,
    /// The digest of the last Update that was accepted, and when.
    pub(crate) update_sent: Option<(Vec<u8>, Timestamp)>,
    pub(crate) deletion: Option<Deletion>,
    /// Whether the provider has said GONE of what was there afterwards.
    pub(crate) deletion_failed_to_last: bool,
    /// The failure domains that had no capacity, "" for the provider's own choice, each
    /// with the time from which it may be tried again.
    pub(crate) exhausted: Vec<(String, Timestamp)>,
    /// When to ask again for what is changing, as the provider wishes.
    pub(crate) poll_at: Option<Timestamp>,
    /// The set of endpoint members that was accepted, and when to send it again.
    pub(crate) members: Option<(Vec<operation::Member>, Option<Timestamp>)>,
}

impl<Status> Default for Observation<Status> {
    fn default() -> Self {
        Self {
            in_flight: None,
            knowledge: Knowledge::Nothing,
            troubles: Vec::new(),
            not_before: None,
            create_attempted: false,
            create_uncertain: false,
            accepted: false,
            before_mutation: None,
            last_mutation: None,
            doubt: false,
            update_sent: None,
            deletion: None,
            deletion_failed_to_last: false,
            exhausted: Vec::new(),
            poll_at: None,
            members: None,
        }
    }
}

/// The longest wait that is taken from a provider's `poll_after`.
const MAX_POLL_AFTER: Duration = Duration::from_mins(10);
/// How slowly to look again for what nobody tells us of.
const PATIENCE: Duration = Duration::from_mins(10);
/// How soon to plan again from a newer version of the object.
const SOON: Duration = Duration::from_secs(1);
/// How long to wait after an answer that tells nothing.
const AFTER_NO_ANSWER: Duration = Duration::from_secs(5);
/// The most failure domains that are remembered as exhausted.
const MAX_EXHAUSTED: usize = 64;

impl<Status: ProviderStatus> Observation<Status> {
    /// The executor sends this operation now.
    pub fn started(&mut self, operation: Operation, now: Timestamp) {
        if operation.call.is_mutation() {
            self.before_mutation = Some(BeforeMutation {
                attempted: self.create_attempted,
                uncertain: self.create_uncertain,
                last: self.last_mutation,
            });
            self.last_mutation = Some(now);
        }
        if matches!(operation.call, Call::Create { .. }) {
            self.create_attempted = true;
            self.create_uncertain = true;
        }
        self.in_flight = Some(InFlight {
            operation,
            started: now,
        });
    }

    /// The operation that is under way, if any: no other may be sent.
    pub fn in_flight(&self) -> Option<&InFlight> {
        self.in_flight.as_ref()
    }

    /// Which try in a row the next call is, from 1: for `OperationMeta.attempt`, which
    /// is for logs only.
    pub fn next_attempt(&self) -> i32 {
        let times = self.troubles.iter().map(|trouble| trouble.times).max().unwrap_or(0);
        i32::try_from(times).unwrap_or(i32::MAX).saturating_add(1)
    }

    /// The provider's state blob of the last answer, for the next request; may be empty.
    pub fn provider_state(&self) -> &[u8] {
        match &self.knowledge {
            Knowledge::Present { status, .. } => status.provider_state(),
            Knowledge::Nothing | Knowledge::Absent { .. } => &[],
        }
    }

    /// Whether nothing was ever learned or sent by this process.
    pub fn is_blank(&self) -> bool {
        self.in_flight.is_none()
            && self.troubles.is_empty()
            && !self.create_attempted
            && self.deletion.is_none()
            && matches!(self.knowledge, Knowledge::Nothing)
    }

    /// Folds in what became of the operation in flight.
    pub fn observe(&mut self, result: OperationResult<Status>, now: Timestamp) {
        self.in_flight = None;
        let OperationResult {
            operation,
            started,
            result,
        } = result;
        if operation.call.is_mutation() {
            // Until now it may have been changing things, whether an answer came or not.
            self.last_mutation = Some(now);
        }
        match result {
            Ok(answer) => self.answered(&operation, answer, started, now),
            Err(failure) => self.failed(operation, failure, now),
        }
    }

    fn answered(&mut self, operation: &Operation, answer: Answer<Status>, started: Timestamp, now: Timestamp) {
        // A read that goes well ends only its own trouble: a Create that is held stays
        // held though Exists answers.
        if operation.call.is_mutation() {
            self.troubles.clear();
        } else {
            self.troubles
                .retain(|trouble| !trouble.operation.call.is_like(&operation.call));
        }
        self.not_before = None;
        match answer {
            Answer::Validated => {}
            Answer::Status(status) => {
                self.accepted = true;
                self.poll_after(status.poll_after(), now);
                if operation.call == Call::Update {
                    self.update_sent = Some((operation.basis.digest.clone(), now));
                }
                self.doubt = false;
                self.knowledge = Knowledge::Present {
                    status,
                    told: now,
                    terminating: false,
                    hint: false,
                };
            }
            Answer::Exists { presence, status } => self.exists(presence, status, started, now),
            Answer::Deleted {
                state,
                message,
                poll_after,
            } => {
                self.poll_after(poll_after, now);
                self.doubt = false;
                self.deletion = Some(match state {
                    DeletionState::Gone => Deletion::Gone(now),
                    DeletionState::InProgress | DeletionState::Unspecified => Deletion::InProgress(message),
                });
                // What was known from before says nothing about after.
                self.knowledge = Knowledge::Nothing;
            }
            Answer::Members { poll_after } => {
                if let Call::SetEndpointMembers(members) = &operation.call {
                    let again = poll_after.map(|after| plus(now, after.min(MAX_POLL_AFTER)));
                    self.members = Some((members.clone(), again));
                }
            }
        }
    }

    fn exists(&mut self, presence: Presence, status: Option<Box<Status>>, started: Timestamp, now: Timestamp) {
        match (presence, status) {
            (Presence::Absent, _) => {
                self.doubt = false;
                self.poll_at = None;
                let first_asked = match self.knowledge {
                    Knowledge::Absent { first_asked, .. } => first_asked,
                    Knowledge::Nothing | Knowledge::Present { .. } => started,
                };
                self.knowledge = Knowledge::Absent {
                    first_asked,
                    last_asked: started,
                };
            }
            (Presence::Present | Presence::Terminating, Some(status)) => {
                self.doubt = false;
                self.poll_after(status.poll_after(), now);
                // What failed has been reached all the same.
                self.troubles.retain(|trouble| match &trouble.operation.call {
                    Call::Create { .. } => false,
                    Call::Update => trouble.operation.basis.digest != status.observed_digest(),
                    Call::Validate | Call::Delete | Call::Exists | Call::SetEndpointMembers(_) => true,
                });
                // Said to be gone, and there: the deletion begins anew.
                self.deletion_failed_to_last |= matches!(self.deletion, Some(Deletion::Gone(_)));
                self.deletion = None;
                self.knowledge = Knowledge::Present {
                    status,
                    told: now,
                    terminating: presence == Presence::Terminating,
                    hint: false,
                };
            }
            // "Cannot tell", in one way or another: nothing is learned, ask again.
            (Presence::Unspecified | Presence::Present | Presence::Terminating, _) => {
                self.wait(now, AFTER_NO_ANSWER);
            }
        }
    }

    fn poll_after(&mut self, after: Option<Duration>, now: Timestamp) {
        self.poll_at = after.map(|after| plus(now, after.min(MAX_POLL_AFTER)));
    }

    fn wait(&mut self, now: Timestamp, after: Duration) {
        self.not_before = self.not_before.max(Some(plus(now, after)));
    }

    fn failed(&mut self, operation: Operation, failure: Failure, now: Timestamp) {
        if let (Outcome::TryElsewhere { after }, Call::Create { failure_domain }) = (&failure.outcome, &operation.call)
        {
            let domain = failure_domain.clone().unwrap_or_default();
            self.exhausted.retain(|(other, until)| *other != domain && *until > now);
            if self.exhausted.len() < MAX_EXHAUSTED {
                self.exhausted.push((domain, plus(now, *after)));
            }
        }
        let nothing_changed = failure.is_final() && !needs_a_look(&failure);
        if nothing_changed
            && operation.call.is_mutation()
            && let Some(before) = self.before_mutation.take()
        {
            self.last_mutation = before.last;
            self.create_uncertain = before.uncertain;
            if matches!(failure.outcome, Outcome::NotSent { .. }) {
                self.create_attempted = before.attempted;
            }
        }
        if operation.call.is_mutation() && !nothing_changed {
            // What is known was learned before the call: ABSENT no longer counts.
            self.doubt = true;
            if matches!(self.knowledge, Knowledge::Absent { .. }) {
                self.knowledge = Knowledge::Nothing;
            }
            if operation.call == Call::Delete {
                self.deletion = None;
            }
        }
        let before = self
            .troubles
            .iter()
            .position(|trouble| trouble.operation.call.is_like(&operation.call))
            .map(|index| self.troubles.swap_remove(index));
        let trouble = match before {
            None => Trouble {
                operation,
                failure,
                since: now,
                last: now,
                times: 1,
            },
            Some(before) => {
                // In a row of the same class the first words stay, so that a cloud's
                // request ids do not change a status with each retry.
                let same = before.failure.reason == failure.reason && failure.is_transient();
                let failure = if same {
                    Failure {
                        message: before.failure.message,
                        violations: before.failure.violations,
                        ..failure
                    }
                } else {
                    failure
                };
                // A hold that ended with a new spec begins a new row.
                let (since, times) = if before.operation.basis.generation == operation.basis.generation {
                    (before.since, before.times.saturating_add(1))
                } else {
                    (now, 1)
                };
                Trouble {
                    operation,
                    failure,
                    since,
                    last: now,
                    times,
                }
            }
        };
        self.troubles.push(trouble);
    }

    /// Folds in what a watch tells: the resource is there, in this state. It changes
    /// what is shown; before anything is decided on it, Exists is asked.
    pub fn hint_present(&mut self, status: Status, now: Timestamp) {
        if self.deletion.is_some() {
            // It goes, and Delete tells how far it is.
            return;
        }
        let untold = status.observed_digest().is_empty() && status.observed_generation() == 0;
        match &self.knowledge {
            Knowledge::Present { status: known, .. } => {
                if status.observed_generation() < known.observed_generation() {
                    // It was on its way while the provider applied something newer.
                    return;
                }
                if status.provider_id() != known.provider_id() {
                    self.doubt = true;
                }
                // It says less than is known: which spec was applied would be forgotten.
                self.doubt |= untold && !known.observed_digest().is_empty();
            }
            Knowledge::Absent { .. } => self.doubt = true,
            // Of a hint that does not tell which spec was applied nobody could say whether it is the one that is
            // asked for; a provider that never tells is asked once.
            Knowledge::Nothing => self.doubt |= untold,
        }
        if status.is_grave() {
            self.doubt = true;
        }
        if self.doubt {
            return;
        }
        self.poll_after(status.poll_after(), now);
        self.knowledge = Knowledge::Present {
            status: Box::new(status),
            told: now,
            terminating: false,
            hint: true,
        };
    }

    /// Folds in what a watch tells: the resource is gone. Exists is asked next.
    pub fn hint_gone(&mut self) {
        if !matches!(self.knowledge, Knowledge::Absent { .. }) {
            self.doubt = true;
        }
    }

    /// What the resource is, where something is known of it.
    pub fn status(&self) -> Option<&Status> {
        match &self.knowledge {
            Knowledge::Present { status, .. } => Some(status),
            Knowledge::Nothing | Knowledge::Absent { .. } => None,
        }
    }

    /// The trouble with this kind of call.
    pub(crate) fn trouble(&self, call: &Call) -> Option<&Trouble> {
        self.troubles
            .iter()
            .find(|trouble| trouble.operation.call.is_like(call))
    }

    /// Whether Exists is being asked, or will be at once, because nobody knows what a
    /// mutation did: until it is answered there is nothing to say of its failure.
    pub(crate) fn is_looking_into(&self, basis: &Basis, now: Timestamp) -> bool {
        let asks = match &self.in_flight {
            Some(in_flight) => in_flight.operation.call == Call::Exists,
            None => self.gate(&Call::Exists, basis, now) == Gate::Open,
        };
        self.doubt && asks
    }

    /// Whether `call` may be sent on this basis.
    pub(crate) fn gate(&self, call: &Call, basis: &Basis, now: Timestamp) -> Gate {
        let mut until = self.not_before.filter(|not_before| *not_before > now);
        for trouble in &self.troubles {
            let own = trouble.operation.call.is_like(call);
            match trouble.gate(own, call, basis) {
                Gate::Open => {}
                Gate::Held => return Gate::Held,
                Gate::Until(time) if time > now => until = until.max(Some(time)),
                Gate::Until(_) => {}
            }
        }
        until.map_or(Gate::Open, Gate::Until)
    }
}

impl Trouble {
    /// Whether it stands in the way of `call`; `own`: it is of that kind of call.
    fn gate(&self, own: bool, call: &Call, basis: &Basis) -> Gate {
        let decided_on = &self.operation.basis;
        let unchanged = decided_on.holds_for(basis);
        let again = |after: Duration| Gate::Until(plus(self.last, after));
        let held = |look_again: Option<Duration>| match (unchanged, look_again) {
            (false, _) => Gate::Open,
            // A deletion never comes to rest: what forbids it may end without a sign.
            (true, None) if *call == Call::Delete => again(PATIENCE),
            // Nobody tells when a permission or a credential becomes good in the cloud.
            (true, None) if self.is_about_access() => again(PATIENCE),
            (true, None) => Gate::Held,
            (true, Some(after)) => again(after),
        };
        match &self.failure.outcome {
            // These are about the provider as a whole, whatever the call.
            Outcome::Throttled { after } => again(*after),
            Outcome::ProviderUnavailable { after } => {
                if unchanged && decided_on.connections == basis.connections {
                    again(*after)
                } else {
                    Gate::Open
                }
            }
            Outcome::StepDown => Gate::Held,
            // What contradicts itself may be looked at, never changed.
            // Like any hold, it ends when spec, credentials or provider change.
            Outcome::Escalate if !unchanged => Gate::Open,
            Outcome::Escalate if *call == Call::Exists => again(PATIENCE),
            Outcome::Escalate => Gate::Held,
            _ if !own => Gate::Open,
            Outcome::Retry { after } | Outcome::Wait { after } | Outcome::Resolve { after } => again(*after),
            Outcome::NotSent { look_again } => {
                if decided_on.credentials == basis.credentials {
                    again(*look_again)
                } else {
                    Gate::Open
                }
            }
            Outcome::ReadObjectAgain => again(SOON),
            Outcome::Hold { look_again } => held(*look_again),
            Outcome::RefreshCredentials if self.times < 2 => Gate::Open,
            Outcome::RefreshCredentials => held(Some(PATIENCE)),
            Outcome::ReplaceByOwner => held(None),
            Outcome::Fallback => held(Some(PATIENCE)),
            // In another place at once; see also `exhausted`.
            Outcome::TryElsewhere { .. } if *call != self.operation.call => Gate::Open,
            Outcome::TryElsewhere { after } => again(*after),
        }
    }

    /// Whether it is about what the credentials may do.
    pub(crate) fn is_about_access(&self) -> bool {
        matches!(
            self.failure.reason.as_str(),
            "MISSING_PERMISSION" | "CREDENTIALS_INVALID" | "CREDENTIALS_EXPIRED"
        )
    }
}

/// Whether Exists has to be asked though the failure changed nothing: it says itself
/// that the resource is there, or that it is not.
fn needs_a_look(failure: &Failure) -> bool {
    matches!(failure.outcome, Outcome::Resolve { .. })
        || matches!(failure.reason.as_str(), "KEY_CONFLICT" | "RESOURCE_NOT_FOUND")
}

/// `now` + `after`, saturating.
pub(crate) fn plus(now: Timestamp, after: Duration) -> Timestamp {
    SignedDuration::try_from(after)
        .ok()
        .and_then(|after| now.checked_add(after).ok())
        .unwrap_or(Timestamp::MAX)
}

/// How long from `now` until `then`, zero when it is past.
pub(crate) fn until(now: Timestamp, then: Timestamp) -> Duration {
    Duration::try_from(then.duration_since(now)).unwrap_or(Duration::ZERO)
}
