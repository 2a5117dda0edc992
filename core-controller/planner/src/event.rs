//! Events as plans ask for them: what happened to an object, in words.
//! Not for: writing, counting or aggregating them, which the executor does.

/// Whether an event tells of the normal course or of something to look at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EventKind {
    /// The normal course.
    Normal,
    /// Something to look at.
    Warning,
}

impl EventKind {
    /// The word of `events.k8s.io/v1`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Normal => "Normal",
            Self::Warning => "Warning",
        }
    }
}

/// What happened to an object. The executor aggregates equal ones, writes none per
/// retry and none for a plan that was the same before.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Event {
    /// Normal or Warning.
    pub kind: EventKind,
    /// Why, in CamelCase: `SuccessfulCreate`.
    pub reason: &'static str,
    /// What was done or tried, in CamelCase: `Create`.
    pub action: &'static str,
    /// For people; no times, no counts of attempts, no secrets.
    pub message: String,
}

impl Event {
    /// An event of the normal course.
    pub fn normal(reason: &'static str, action: &'static str, message: impl Into<String>) -> Self {
        Self {
            kind: EventKind::Normal,
            reason,
            action,
            message: message.into(),
        }
    }

    /// An event to look at.
    pub fn warning(reason: &'static str, action: &'static str, message: impl Into<String>) -> Self {
        Self {
            kind: EventKind::Warning,
            reason,
            action,
            message: message.into(),
        }
    }
}
