//! The end of a cloud resource, the same for machines and clusters: Delete until the
//! provider says GONE, then Exists until it says ABSENT, asked for past the window in
//! which reads may be old. Only then nothing is left.
//! Not for: what has to come before, or what is shown.

use jiff::Timestamp;

use crate::observation::{Deletion, Knowledge, Observation, ProviderStatus, plus};
use crate::operation::Call;
use crate::provider::Timings;

/// What comes next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step {
    /// Call Delete.
    Delete,
    /// The provider is at it; ask again then.
    Pending(Timestamp),
    /// Reads may still show the old state; ask then.
    Settle(Timestamp),
    /// Call Exists.
    Ask,
    /// Nothing is left.
    Done,
}

/// The table.
pub(crate) fn next<Status: ProviderStatus>(
    observation: &Observation<Status>,
    timings: &Timings,
    now: Timestamp,
) -> Step {
    match &observation.deletion {
        None => match &observation.knowledge {
            // Said to be gone, and there again: not asked in a row without a pause.
            Knowledge::Present { told, hint: false, .. } if observation.deletion_failed_to_last => {
                let again = plus(*told, timings.poll_interval);
                if again > now {
                    Step::Pending(again)
                } else {
                    Step::Delete
                }
            }
            Knowledge::Nothing | Knowledge::Absent { .. } | Knowledge::Present { .. } => Step::Delete,
        },
        Some(Deletion::InProgress(_)) => {
            let due = observation
                .poll_at
                .or_else(|| observation.last_mutation.map(|at| plus(at, timings.poll_interval)))
                .unwrap_or(now);
            if due > now && !observation.doubt && observation.trouble(&Call::Delete).is_none() {
                Step::Pending(due)
            } else {
                Step::Delete
            }
        }
        Some(Deletion::Gone(at)) => {
            let from = plus(*at, timings.read_after_write);
            match &observation.knowledge {
                Knowledge::Absent { last_asked, .. } if *last_asked >= from && !observation.doubt => Step::Done,
                _ if from > now => Step::Settle(from),
                _ => Step::Ask,
            }
        }
    }
}

/// What the provider says it waits for, as a sentence.
pub(crate) fn words<Status>(observation: &Observation<Status>) -> String {
    let told = match &observation.deletion {
        Some(Deletion::InProgress(words)) => words.trim().trim_end_matches('.'),
        Some(Deletion::Gone(_)) | None => "",
    };
    match actuator_proto::limits::bounded_text(told, actuator_proto::limits::MAX_TEXT_BYTES).as_str() {
        "" => "the provider is removing it".to_owned(),
        words => format!("the provider is removing it: {words}"),
    }
}
