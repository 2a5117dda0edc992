//! What the runtime remembers of a MachineSet between two plans: answers that never came, and failures to wait for.
//!
//! In memory only: a process that forgets it loses a back-off, never a machine. Not for what the API server tells: that is in
//! the view.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;

use crate::event::Event;

/// Creates in one plan as long as none fails, to begin with.
const FIRST_BATCH: usize = 16;
/// Creates in one plan at most.
pub const LARGEST_BATCH: usize = 256;
/// Back-off after the first failure in a row.
const FIRST_DELAY: Duration = Duration::from_secs(1);
/// Longest back-off.
const LONGEST_DELAY: Duration = Duration::from_mins(5);
/// How long without a replacement until replacing failed machines is no longer slowed down.
const CALM: Duration = Duration::from_mins(10);
/// How long a request whose answer never came can still be carried out: as long as an API server works on one, and then some.
pub(super) const ANSWER_WINDOW: Duration = Duration::from_secs(90);
/// How many names an event lists.
const NAMES_IN_EVENT: usize = 5;

/// One action that was carried out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Performed {
    /// A Machine of this name was to be created.
    Create {
        /// The Machine's name.
        name: String,
    },
    /// A Machine was to be deleted.
    Delete {
        /// The Machine's name.
        name: String,
        /// The Machine's UID.
        uid: String,
        /// Whether it had failed and is to be replaced.
        replaced: bool,
    },
    /// A Machine was to be adopted.
    Adopt {
        /// The Machine's name.
        name: String,
    },
    /// A Machine was to be released.
    Release {
        /// The Machine's name.
        name: String,
    },
}

/// How an action went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is done, and the index shows it. A create that found the Machine there and ours, a delete that found it gone count
    /// as done.
    Done,
    /// It is certainly not done.
    Refused {
        /// One CamelCase word, as the API server's Status has it.
        reason: String,
        /// Words for people.
        message: String,
    },
    /// Nobody can tell: the answer did not come.
    Unknown {
        /// Words for people.
        message: String,
    },
}

/// Why the last create or delete did not work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// `FailedCreate` or `FailedDelete`.
    pub reason: &'static str,
    /// Words for people.
    pub message: String,
}

/// What is remembered. `Default` is knowing nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observation {
    pub(super) unanswered_creates: BTreeMap<String, Timestamp>,
    pub(crate) unanswered_deletes: BTreeMap<String, Timestamp>,
    pub(super) batch: usize,
    pub(super) not_before: Option<Timestamp>,
    pub(super) failure: Option<Failure>,
    pub(super) replace_not_before: Option<Timestamp>,
    failures: u32,
    replacements: u32,
}

impl Default for Observation {
    fn default() -> Self {
        Self {
            unanswered_creates: BTreeMap::new(),
            unanswered_deletes: BTreeMap::new(),
            batch: FIRST_BATCH,
            not_before: None,
            failure: None,
            replace_not_before: None,
            failures: 0,
            replacements: 0,
        }
    }
}

/// Doubles from the first delay up to the longest.
pub(crate) fn delay(times: u32) -> Duration {
    FIRST_DELAY
        .saturating_mul(1 << times.saturating_sub(1).min(16))
        .min(LONGEST_DELAY)
}

/// `now` and a delay.
pub(crate) fn after(now: Timestamp, delay: Duration) -> Timestamp {
    Timestamp::from_millisecond(now.as_millisecond() + delay.as_millis() as i64).unwrap_or(Timestamp::MAX)
}

impl Observation {
    /// Learns how the actions of one plan went, and says what people should read of it: one event for all that was created,
    /// one for all that was deleted, and one for a failure that is not the same again.
    pub fn observe(&mut self, results: &[(Performed, Outcome)], now: Timestamp) -> Vec<Event> {
        let recent = |asked: &Timestamp| after(*asked, ANSWER_WINDOW) > now;
        self.unanswered_creates.retain(|_, asked| recent(asked));
        self.unanswered_deletes.retain(|_, asked| recent(asked));
        let (mut created, mut deleted) = (Vec::new(), Vec::new());
        let mut failure = None;
        let (mut asked_to_create, mut replaced) = (false, false);
        for (performed, outcome) in results {
            match performed {
                Performed::Create { name } => {
                    asked_to_create = true;
                    match outcome {
                        Outcome::Done => {
                            self.unanswered_creates.remove(name);
                            created.push(name.as_str());
                        }
                        Outcome::Refused { message, .. } => {
                            self.unanswered_creates.remove(name);
                            failure = Some(Failure {
                                reason: "FailedCreate",
                                message: format!("Machine {name} could not be created: {message}"),
                            });
                        }
                        Outcome::Unknown { message } => {
                            self.unanswered_creates.insert(name.clone(), now);
                            failure = Some(Failure {
                                reason: "FailedCreate",
                                message: format!(
                                    "nobody can tell whether Machine {name} was created, asking again: {message}"
                                ),
                            });
                        }
                    }
                }
                Performed::Delete {
                    name,
                    uid,
                    replaced: failed,
                } => match outcome {
                    Outcome::Done => {
                        self.unanswered_deletes.remove(uid);
                        replaced |= failed;
                        deleted.push(name.as_str());
                    }
                    // Somebody else was faster, or the machine of that name is another one by now.
                    Outcome::Refused { reason, .. } if ["NotFound", "Conflict"].contains(&reason.as_str()) => {
                        self.unanswered_deletes.remove(uid);
                    }
                    Outcome::Refused { message, .. } => {
                        self.unanswered_deletes.remove(uid);
                        failure = Some(Failure {
                            reason: "FailedDelete",
                            message: format!("Machine {name} could not be deleted: {message}"),
                        });
                    }
                    Outcome::Unknown { message } => {
                        self.unanswered_deletes.insert(uid.clone(), now);
                        failure = Some(Failure {
                            reason: "FailedDelete",
                            message: format!(
                                "nobody can tell whether Machine {name} was deleted, asking again: {message}"
                            ),
                        });
                    }
                },
                Performed::Adopt { .. } | Performed::Release { .. } => {}
            }
        }
        if replaced {
            self.note_replacement(now);
        }
        let mut events = Vec::new();
        if !created.is_empty() {
            events.push(Event::normal(
                "SuccessfulCreate",
                "Create",
                format!("created {}", name_some(&created)),
            ));
        }
        if !deleted.is_empty() {
            events.push(Event::normal(
                "SuccessfulDelete",
                "Delete",
                format!("deleted {}", name_some(&deleted)),
            ));
        }
        events.extend(self.note_failure(
            failure,
            asked_to_create,
            !created.is_empty() || !deleted.is_empty(),
            now,
        ));
        events
    }

    /// The machines that may be there though the index does not show them, creates whose answer never came: until when each of
    /// them may still show.
    pub fn possible_machines(&self, now: Timestamp) -> Vec<Timestamp> {
        let until = self
            .unanswered_creates
            .values()
            .map(|asked| after(*asked, ANSWER_WINDOW));
        until.filter(|until| *until > now).collect()
    }

    fn note_failure(
        &mut self,
        failure: Option<Failure>,
        asked_to_create: bool,
        some_done: bool,
        now: Timestamp,
    ) -> Option<Event> {
        let Some(failure) = failure else {
            if some_done {
                self.failures = 0;
                self.failure = None;
                self.not_before = None;
                if asked_to_create {
                    self.batch = (self.batch * 2).min(LARGEST_BATCH);
                }
            }
            return None;
        };
        self.failures += 1;
        if failure.reason == "FailedCreate" {
            self.batch = 1;
        }
        self.not_before = Some(after(now, delay(self.failures)));
        let news = self.failure.as_ref().is_none_or(|known| known.reason != failure.reason);
        let event = news.then(|| {
            let action = if failure.reason == "FailedCreate" {
                "Create"
            } else {
                "Delete"
            };
            Event::warning(failure.reason, action, failure.message.clone())
        });
        self.failure = Some(failure);
        event
    }

    /// A template that cannot be made would be made and replaced for ever: each replacement soon after another waits longer.
    fn note_replacement(&mut self, now: Timestamp) {
        let calm = self.replace_not_before.is_none_or(|time| after(time, CALM) < now);
        self.replacements = if calm { 1 } else { self.replacements + 1 };
        self.replace_not_before = Some(after(now, delay(self.replacements)));
    }
}

/// `3 machines: a, b, c`, and no more names than a person reads.
fn name_some(names: &[&str]) -> String {
    let listed = names
        .iter()
        .take(NAMES_IN_EVENT)
        .copied()
        .collect::<Vec<_>>()
        .join(", ");
    let noun = if names.len() == 1 { "machine" } else { "machines" };
    let more = if names.len() > NAMES_IN_EVENT { ", …" } else { "" };
    format!("{} {noun}: {listed}{more}", names.len())
}
