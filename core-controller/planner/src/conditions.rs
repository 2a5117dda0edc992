//! Conditions: a pure merge that keeps transition times, so that a condition that says the same again is no write.
//!
//! Not for what a condition should say: each planner decides that.

use jiff::Timestamp;
use outrigger_api::names::{STATUS_FALSE, STATUS_TRUE, STATUS_UNKNOWN};
use outrigger_api::{Condition, Time};

/// Longest message that the API server takes, in characters.
const MAX_MESSAGE: usize = 32_768;

/// What a condition should say, without when it began to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assertion {
    /// The condition's type.
    pub type_: &'static str,
    /// True, False or Unknown.
    pub status: &'static str,
    /// One CamelCase word for programs.
    pub reason: String,
    /// Words for people; they may be empty.
    pub message: String,
}

impl Assertion {
    /// The condition holds.
    pub fn holds(type_: &'static str, reason: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            type_,
            status: STATUS_TRUE,
            reason: reason.into(),
            message: message.into(),
        }
    }

    /// The condition does not hold.
    pub fn fails(type_: &'static str, reason: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            type_,
            status: STATUS_FALSE,
            reason: reason.into(),
            message: message.into(),
        }
    }

    /// Nobody can tell whether the condition holds.
    pub fn unknown(type_: &'static str, reason: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            type_,
            status: STATUS_UNKNOWN,
            reason: reason.into(),
            message: message.into(),
        }
    }
}

/// Puts `assertion` into `conditions`, in the place that its type already has. The transition time is that of the observed
/// condition as long as the status is the same, and else `now` in whole seconds, as Kubernetes keeps time.
/// Conditions of other types, other writers' included, stay as they are.
pub fn set(conditions: &mut Vec<Condition>, assertion: Assertion, generation: Option<i64>, now: Timestamp) {
    let Assertion {
        type_,
        status,
        reason,
        message,
    } = assertion;
    let message = if message.len() > MAX_MESSAGE {
        message.chars().take(MAX_MESSAGE / 4).collect()
    } else {
        message
    };
    match conditions.iter_mut().find(|condition| condition.type_ == type_) {
        Some(condition) => {
            if condition.status != status {
                status.clone_into(&mut condition.status);
                condition.last_transition_time = Time(whole_seconds(now));
            }
            condition.reason = reason;
            condition.message = message;
            condition.observed_generation = generation;
        }
        None => conditions.push(Condition {
            type_: type_.to_owned(),
            status: status.to_owned(),
            reason,
            message,
            observed_generation: generation,
            last_transition_time: Time(whole_seconds(now)),
        }),
    }
}

/// Takes the condition of this type away, if it is there.
pub fn remove(conditions: &mut Vec<Condition>, type_: &str) {
    conditions.retain(|condition| condition.type_ != type_);
}

/// The condition of this type.
pub fn get<'a>(conditions: &'a [Condition], type_: &str) -> Option<&'a Condition> {
    conditions.iter().find(|condition| condition.type_ == type_)
}

/// Whether the condition of this type is there and holds.
pub fn is_true(conditions: &[Condition], type_: &str) -> bool {
    get(conditions, type_).is_some_and(|condition| condition.status == STATUS_TRUE)
}

/// The time without the fraction of its second.
pub fn whole_seconds(time: Timestamp) -> Timestamp {
    Timestamp::from_second(time.as_second()).unwrap_or(time)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::new(second, 123_456_789).unwrap()
    }

    #[test]
    fn the_transition_time_moves_only_when_the_status_does() {
        let mut conditions = Vec::new();
        set(
            &mut conditions,
            Assertion::fails("Ready", "Waiting", "one of three"),
            Some(1),
            at(100),
        );
        assert_eq!(
            conditions[0].last_transition_time.0,
            Timestamp::from_second(100).unwrap()
        );

        set(
            &mut conditions,
            Assertion::fails("Ready", "Waiting", "two of three"),
            Some(2),
            at(200),
        );
        assert_eq!(conditions[0].last_transition_time.0.as_second(), 100);
        assert_eq!(conditions[0].message, "two of three");
        assert_eq!(conditions[0].observed_generation, Some(2));

        set(
            &mut conditions,
            Assertion::holds("Ready", "Ready", ""),
            Some(2),
            at(300),
        );
        assert_eq!(conditions[0].last_transition_time.0.as_second(), 300);
        assert!(is_true(&conditions, "Ready"));
    }

    #[test]
    fn saying_the_same_again_changes_nothing() {
        let mut conditions = Vec::new();
        set(
            &mut conditions,
            Assertion::unknown("Ready", "Why", "words"),
            Some(1),
            at(100),
        );
        let before = conditions.clone();
        set(
            &mut conditions,
            Assertion::unknown("Ready", "Why", "words"),
            Some(1),
            at(500),
        );
        assert_eq!(conditions, before);
    }

    #[test]
    fn other_writers_conditions_stay_where_they_are() {
        let mut conditions = Vec::new();
        set(&mut conditions, Assertion::holds("Theirs", "Theirs", ""), None, at(1));
        set(&mut conditions, Assertion::holds("Ours", "Ours", ""), None, at(1));
        let theirs = conditions[0].clone();
        set(&mut conditions, Assertion::fails("Ours", "Changed", ""), None, at(2));
        assert_eq!(conditions[0], theirs);
        remove(&mut conditions, "Ours");
        assert_eq!(conditions, vec![theirs]);
        assert!(get(&conditions, "Ours").is_none());
    }

    #[test]
    fn a_message_is_cut_to_what_the_api_server_takes() {
        let mut conditions = Vec::new();
        set(
            &mut conditions,
            Assertion::fails("Ready", "Long", "ä".repeat(40_000)),
            None,
            at(1),
        );
        assert!(conditions[0].message.len() <= MAX_MESSAGE);
    }
}
