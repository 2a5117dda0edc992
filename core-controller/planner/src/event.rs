//! Events that a plan asks for: what people read under `kubectl describe`.
//!
//! Not for writing them: the runtime aggregates and limits them. A planner gives an event for something that happened, never
//! for a retry.

use std::borrow::Cow;

/// Whether an event is news or a warning.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Severity {
    /// Things go as they should.
    Normal,
    /// Somebody may have to look.
    Warning,
}

/// An event about the planned object, as `events.k8s.io/v1` has it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Event {
    /// News or a warning.
    pub severity: Severity,
    /// One CamelCase word: what happened, such as `SuccessfulCreate`.
    pub reason: Cow<'static, str>,
    /// One CamelCase word: what was being done, such as `Create`.
    pub action: Cow<'static, str>,
    /// Words for people, at most 1,000 characters.
    pub note: String,
}

impl Event {
    /// News.
    pub fn normal(
        reason: impl Into<Cow<'static, str>>,
        action: impl Into<Cow<'static, str>>,
        note: impl Into<String>,
    ) -> Self {
        Self {
            severity: Severity::Normal,
            reason: reason.into(),
            action: action.into(),
            note: note.into(),
        }
    }

    /// A warning.
    pub fn warning(
        reason: impl Into<Cow<'static, str>>,
        action: impl Into<Cow<'static, str>>,
        note: impl Into<String>,
    ) -> Self {
        Self {
            severity: Severity::Warning,
            reason: reason.into(),
            action: action.into(),
            note: note.into(),
        }
    }
}
