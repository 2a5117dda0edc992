//! How the simulated cloud says no: a reason of the contract's error table, the
//! cloud's own code, and what was done before. Not for: gRPC statuses.

use std::fmt;
use std::time::Duration;

use actuator_proto::v1::{Effect, ErrorReason};

/// An answer of the cloud that is no success.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CloudError {
    /// What kind of error it is.
    pub reason: ErrorReason,
    /// One sentence for people.
    pub message: String,
    /// What the call did before.
    pub effect: Effect,
    /// Not before this long.
    pub retry_after: Option<Duration>,
    /// The quota that is used up: its name and how much of it is used.
    pub quota: Option<(String, String)>,
    /// Facts for machines, by name.
    pub facts: Vec<(&'static str, String)>,
    /// The field of the request that is wrong.
    pub field: Option<&'static str>,
}

impl CloudError {
    /// An error of a call that did nothing.
    pub fn new(reason: ErrorReason, message: impl Into<String>) -> Self {
        Self {
            reason,
            message: message.into(),
            effect: Effect::None,
            retry_after: None,
            quota: None,
            facts: Vec::new(),
            field: None,
        }
    }

    /// What the call did before.
    #[must_use]
    pub fn with_effect(mut self, effect: Effect) -> Self {
        self.effect = effect;
        self
    }

    /// Not before this long.
    #[must_use]
    pub fn with_retry_after(mut self, retry_after: Duration) -> Self {
        self.retry_after = Some(retry_after);
        self
    }

    /// One more fact for machines.
    #[must_use]
    pub fn with_fact(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.facts.push((name, value.into()));
        self
    }

    /// The field of the request that is wrong.
    #[must_use]
    pub fn with_field(mut self, field: &'static str) -> Self {
        self.field = Some(field);
        self
    }

    /// The cloud's own code, as it stands in the journal: `QUOTA_EXCEEDED`.
    pub fn code(&self) -> &'static str {
        self.reason.wire_name()
    }

    pub(super) fn quota(quota: &str, used: u64, limit: u64) -> Self {
        let mut error = Self::new(
            ErrorReason::QuotaExceeded,
            format!("the quota of {quota} is used up: {used} of {limit}; raise it or delete something"),
        );
        error.quota = Some((quota.to_owned(), format!("{used} of {limit} {quota} are in use")));
        error
    }
}

impl fmt::Display for CloudError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code(), self.message)
    }
}

impl std::error::Error for CloudError {}
