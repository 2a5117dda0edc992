//! The recovery column of the error table, resolved with all that the host knows:
//! what the caller does next. Pure.
//!
//! Not for: deciding about objects (the planner) or acting (the runtime).

use std::time::Duration;

use actuator_proto::errors::{Classified, Recovery};

use crate::backoff::{self, MAX_WAIT, MIN_WAIT};
use crate::rpc::Rpc;

/// How slowly to look again for something that a config names and that is missing.
const LOOK_AGAIN: (Duration, Duration) = (Duration::from_mins(2), Duration::from_mins(30));

/// What the caller does after a failed call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Disposition {
    /// The same again after a back-off.
    Retry {
        /// After this long.
        after: Duration,
    },
    /// The same again when what is in the way may be gone.
    Wait {
        /// After this long.
        after: Duration,
    },
    /// Nobody knows what the call did: ask Exists by key first.
    Resolve {
        /// And then.
        then: AfterResolve,
    },
    /// Nothing until the spec, the credential or the provider (its session) changes.
    Hold {
        /// Look again all the same after this long; `None`: do not.
        look_again: Option<Duration>,
    },
    /// Another failure domain where that is allowed, else the same again; siblings
    /// learn of it.
    TryElsewhere {
        /// The same again after this long.
        after: Duration,
    },
    /// The owner replaces the machine.
    ReplaceByOwner,
    /// Read the object again, its generation has moved on.
    ReadObjectAgain,
    /// Give up the lead: another core has it.
    StepDown,
    /// Hold and alert; never delete, never create.
    Escalate,
    /// Read the credentials Secret again and try once more.
    RefreshCredentials,
    /// The provider has no such capability: do without it.
    Fallback,
    /// Start the list again from its first page.
    RestartList,
    /// List in full instead of resuming.
    ListInFull,
    /// Throttled: nothing goes to this provider with this credential for a while.
    Paused {
        /// The same again after this long.
        after: Duration,
        /// Whether this call was sent and may have had an effect: ask Exists first.
        resolve: bool,
    },
    /// The provider cannot be reached, or the circuit is open.
    Unavailable {
        /// The same again after this long, or when the snapshot says Ready.
        after: Duration,
        /// Whether this call may have had an effect: ask Exists first.
        resolve: bool,
    },
    /// Too many calls are waiting already; this one was not sent.
    Busy {
        /// The same again after this long.
        after: Duration,
    },
}

/// What comes after Exists was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AfterResolve {
    /// Replay the same call with the same key.
    Replay,
    /// The same again after a back-off.
    Retry {
        /// After this long.
        after: Duration,
    },
    /// Plan anew with what Exists said.
    Decide,
}

impl Disposition {
    /// The same with no wait longer than this.
    #[must_use]
    pub(crate) fn at_most(mut self, longest: Duration) -> Self {
        match &mut self {
            Self::Retry { after }
            | Self::Wait { after }
            | Self::TryElsewhere { after }
            | Self::Paused { after, .. }
            | Self::Unavailable { after, .. }
            | Self::Busy { after }
            | Self::Hold {
                look_again: Some(after),
            }
            | Self::Resolve {
                then: AfterResolve::Retry { after },
            } => *after = longest.min(*after),
            Self::Resolve { .. }
            | Self::Hold { look_again: None }
            | Self::ReplaceByOwner
            | Self::ReadObjectAgain
            | Self::StepDown
            | Self::Escalate
            | Self::RefreshCredentials
            | Self::Fallback
            | Self::RestartList
            | Self::ListInFull => {}
        }
        self
    }

    /// When to look again, where the disposition gives a time.
    pub fn after(&self) -> Option<Duration> {
        match self {
            Self::Retry { after }
            | Self::Wait { after }
            | Self::TryElsewhere { after }
            | Self::Paused { after, .. }
            | Self::Unavailable { after, .. }
            | Self::Busy { after }
            | Self::Resolve {
                then: AfterResolve::Retry { after },
            } => Some(*after),
            Self::Hold { look_again } => *look_again,
            Self::Resolve { .. }
            | Self::ReplaceByOwner
            | Self::ReadObjectAgain
            | Self::StepDown
            | Self::Escalate
            | Self::RefreshCredentials
            | Self::Fallback
            | Self::RestartList
            | Self::ListInFull => None,
        }
    }
}

/// Why the host did not send a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// No usable session: not connected, incompatible, or the circuit is open.
    Unavailable,
    /// This provider and credential are paused.
    Paused,
    /// Too many calls are waiting.
    Busy,
    /// The provider does not have this capability.
    CapabilityMissing,
}

impl Refusal {
    /// The word for conditions and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Unavailable => "PROVIDER_UNAVAILABLE",
            Self::Paused => "PROVIDER_PAUSED",
            Self::Busy => "PROVIDER_BUSY",
            Self::CapabilityMissing => "CAPABILITY_MISSING",
        }
    }
}

/// What the host knows of a failed call besides its error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Facts {
    /// Which call.
    pub rpc: Rpc,
    /// Set when nothing was sent.
    pub refusal: Option<Refusal>,
    /// How long the pause or the open circuit that this call met or caused lasts.
    pub closed_for: Option<Duration>,
}

/// What to do after a failed call. `failures` counts the failures in a row of this
/// operation on this object, this one included; `random` is in 0..1.
pub fn resolve(error: &Classified, facts: Facts, failures: u32, random: f64) -> Disposition {
    let retry = || backoff::backoff(failures, random);
    let closed_for = || {
        let floor = facts.closed_for.unwrap_or(MIN_WAIT);
        backoff::wait(Some(floor), MIN_WAIT, MAX_WAIT, failures, random)
    };
    match facts.refusal {
        Some(Refusal::CapabilityMissing) => return Disposition::Fallback,
        Some(Refusal::Paused) => {
            return Disposition::Paused {
                after: closed_for(),
                resolve: false,
            };
        }
        Some(Refusal::Unavailable) => {
            return Disposition::Unavailable {
                after: closed_for(),
                resolve: false,
            };
        }
        Some(Refusal::Busy) => return Disposition::Busy { after: closed_for() },
        None => {}
    }
    let mutation = facts.rpc.is_mutation();
    // What a call that changes nothing did is known: to resolve it is to make it again.
    let resolve_then = |then: AfterResolve| match then {
        then if mutation => Disposition::Resolve { then },
        AfterResolve::Retry { after } => Disposition::Retry { after },
        AfterResolve::Replay | AfterResolve::Decide => Disposition::Retry { after: retry() },
    };
    match error.recovery {
        Recovery::Retry => Disposition::Retry {
            after: error.retry_after.map_or_else(retry, |asked| {
                backoff::wait(Some(asked), MIN_WAIT, MAX_WAIT, failures, random)
            }),
        },
        Recovery::RetryProvider => Disposition::Retry {
            after: error.retry_after.or(facts.closed_for).map_or_else(retry, |asked| {
                backoff::wait(Some(asked.max(MIN_WAIT)), MIN_WAIT, MAX_WAIT, failures, random)
            }),
        },
        Recovery::ResolveThenReplay => resolve_then(AfterResolve::Replay),
        Recovery::ResolveThenRetry { slow_after } => resolve_then(AfterResolve::Retry {
            after: backoff::backoff_slowing(failures, slow_after, random),
        }),
        Recovery::Resolve => resolve_then(AfterResolve::Decide),
        Recovery::Hold => Disposition::Hold { look_again: None },
        Recovery::HoldAndLookAgain => Disposition::Hold {
            look_again: Some(backoff::wait(
                error.retry_after,
                LOOK_AGAIN.0,
                LOOK_AGAIN.1,
                failures,
                random,
            )),
        },
        Recovery::RefreshCredentials if failures <= 1 => Disposition::RefreshCredentials,
        Recovery::RefreshCredentials => Disposition::Hold { look_again: None },
        Recovery::Wait { min, max } => Disposition::Wait {
            after: backoff::wait(error.retry_after, min, max, failures, random),
        },
        Recovery::TryElsewhere { min, max } => Disposition::TryElsewhere {
            after: backoff::wait(error.retry_after, min, max, failures, random),
        },
        Recovery::Throttle => Disposition::Paused {
            after: closed_for(),
            resolve: mutation && !error.is_final(),
        },
        Recovery::Break => Disposition::Unavailable {
            after: closed_for(),
            resolve: false,
        },
        Recovery::BreakThenResolve => Disposition::Unavailable {
            after: closed_for(),
            resolve: mutation,
        },
        Recovery::Fallback if facts.rpc.is_optional() => Disposition::Fallback,
        Recovery::Fallback => Disposition::Unavailable {
            after: closed_for(),
            resolve: false,
        },
        Recovery::StepDown => Disposition::StepDown,
        Recovery::Escalate => Disposition::Escalate,
        Recovery::ReplaceByOwner => Disposition::ReplaceByOwner,
        Recovery::ReadObjectAgain => Disposition::ReadObjectAgain,
        Recovery::RestartList => Disposition::RestartList,
        Recovery::ListInFull => Disposition::ListInFull,
    }
}
