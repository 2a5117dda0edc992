//! The error table of the contract: code, reason, allowed effects, recovery. It is
//! data; the SDK takes the code and the effects from it, the host the recovery.

use std::time::Duration;

use tonic::Code;

use crate::v1::{Effect, ErrorReason};

/// What the core does after an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recovery {
    /// Back off 1 s to 5 min with jitter, then again.
    Retry,
    /// The same, for everything that goes to this provider: its cloud is down.
    RetryProvider,
    /// Ask Exists by key, then replay the same key.
    ResolveThenReplay,
    /// Ask Exists by key, then back off and retry; after `slow_after` failures in a
    /// row at the slowest pace.
    ResolveThenRetry {
        /// How many failures in a row until the slowest pace; `None`: never.
        slow_after: Option<u32>,
    },
    /// Ask Exists by key, then decide anew.
    Resolve,
    /// Hold until the spec, the credential or the provider changes.
    Hold,
    /// Hold, and look again slowly: what is missing may appear.
    HoldAndLookAgain,
    /// Read the credentials Secret again once, then hold.
    RefreshCredentials,
    /// Wait as RetryInfo says, within these bounds.
    Wait {
        /// The shortest wait.
        min: Duration,
        /// The longest wait.
        max: Duration,
    },
    /// Try another failure domain where that is allowed, else wait within these
    /// bounds; siblings learn of it.
    TryElsewhere {
        /// The shortest wait.
        min: Duration,
        /// The longest wait.
        max: Duration,
    },
    /// Pause this provider and credential.
    Throttle,
    /// Open the circuit, dial and discover again.
    Break,
    /// Open the circuit, dial and discover again, then ask Exists by key.
    BreakThenResolve,
    /// Treat the capability as missing; for an RPC that is required: as [`Recovery::Break`].
    Fallback,
    /// Give up the lead.
    StepDown,
    /// Hold and alert, never delete.
    Escalate,
    /// The owner replaces the machine.
    ReplaceByOwner,
    /// Read the object again, its generation has moved on.
    ReadObjectAgain,
    /// Start the list again.
    RestartList,
    /// List in full instead of resuming.
    ListInFull,
}

/// One row of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ErrorRule {
    /// The registered reason.
    pub reason: ErrorReason,
    /// The code that goes with it.
    pub code: Code,
    /// The effects that an error with this reason may have.
    pub effects: &'static [Effect],
    /// What the core does.
    pub recovery: Recovery,
}

const NONE: &[Effect] = &[Effect::None];
const ANY: &[Effect] = &[Effect::None, Effect::Partial, Effect::Unknown];
const NONE_OR_PARTIAL: &[Effect] = &[Effect::None, Effect::Partial];

const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

const fn rule(reason: ErrorReason, code: Code, effects: &'static [Effect], recovery: Recovery) -> ErrorRule {
    ErrorRule {
        reason,
        code,
        effects,
        recovery,
    }
}

/// The shortest and the longest wait that RetryInfo may ask for, unless a row says otherwise.
pub const WAIT_BOUNDS: (Duration, Duration) = (seconds(1), seconds(30 * 60));
/// The shortest and the longest back-off of [`Recovery::Retry`].
pub const RETRY_BOUNDS: (Duration, Duration) = (seconds(1), seconds(5 * 60));

/// Every registered reason.
pub const RULES: &[ErrorRule] = &[
    rule(
        ErrorReason::CloudUnclassified,
        Code::Unknown,
        ANY,
        Recovery::ResolveThenRetry { slow_after: None },
    ),
    rule(
        ErrorReason::ProviderBug,
        Code::Internal,
        ANY,
        Recovery::ResolveThenRetry { slow_after: Some(5) },
    ),
    rule(ErrorReason::InvalidField, Code::InvalidArgument, NONE, Recovery::Hold),
    rule(ErrorReason::InvalidConfig, Code::InvalidArgument, NONE, Recovery::Hold),
    rule(
        ErrorReason::UnsupportedSchemaVersion,
        Code::InvalidArgument,
        NONE,
        Recovery::Hold,
    ),
    rule(
        ErrorReason::BootstrapTooLarge,
        Code::InvalidArgument,
        NONE,
        Recovery::Hold,
    ),
    rule(
        ErrorReason::MalformedProviderId,
        Code::InvalidArgument,
        NONE,
        Recovery::Hold,
    ),
    rule(ErrorReason::LimitExceeded, Code::InvalidArgument, NONE, Recovery::Hold),
    rule(ErrorReason::ResourceNotFound, Code::NotFound, NONE, Recovery::Resolve),
    rule(
        ErrorReason::DependencyNotFound,
        Code::NotFound,
        NONE_OR_PARTIAL,
        Recovery::HoldAndLookAgain,
    ),
    rule(ErrorReason::KeyConflict, Code::AlreadyExists, NONE, Recovery::Hold),
    rule(
        ErrorReason::NameConflict,
        Code::AlreadyExists,
        NONE_OR_PARTIAL,
        Recovery::Hold,
    ),
    rule(
        ErrorReason::MissingPermission,
        Code::PermissionDenied,
        ANY,
        Recovery::Hold,
    ),
    rule(
        ErrorReason::CredentialsInvalid,
        Code::Unauthenticated,
        ANY,
        Recovery::RefreshCredentials,
    ),
    rule(
        ErrorReason::CredentialsExpired,
        Code::Unauthenticated,
        ANY,
        Recovery::RefreshCredentials,
    ),
    rule(
        ErrorReason::InsufficientCapacity,
        Code::ResourceExhausted,
        NONE_OR_PARTIAL,
        Recovery::TryElsewhere {
            min: seconds(2 * 60),
            max: seconds(30 * 60),
        },
    ),
    rule(
        ErrorReason::QuotaExceeded,
        Code::ResourceExhausted,
        NONE_OR_PARTIAL,
        Recovery::Wait {
            min: seconds(10 * 60),
            max: seconds(30 * 60),
        },
    ),
    rule(
        ErrorReason::RateLimited,
        Code::ResourceExhausted,
        ANY,
        Recovery::Throttle,
    ),
    rule(
        ErrorReason::TooManyInFlight,
        Code::ResourceExhausted,
        NONE,
        Recovery::Throttle,
    ),
    rule(
        ErrorReason::DependentsExist,
        Code::FailedPrecondition,
        NONE_OR_PARTIAL,
        Recovery::Wait {
            min: seconds(1),
            max: seconds(30 * 60),
        },
    ),
    rule(
        ErrorReason::ClusterNotReady,
        Code::FailedPrecondition,
        NONE,
        Recovery::Wait {
            min: seconds(1),
            max: seconds(30 * 60),
        },
    ),
    rule(
        ErrorReason::ReplaceRequired,
        Code::FailedPrecondition,
        NONE,
        Recovery::ReplaceByOwner,
    ),
    rule(
        ErrorReason::StaleFencingEpoch,
        Code::FailedPrecondition,
        NONE,
        Recovery::StepDown,
    ),
    rule(
        ErrorReason::OwnershipMismatch,
        Code::FailedPrecondition,
        NONE,
        Recovery::Hold,
    ),
    rule(
        ErrorReason::DeletionProtected,
        Code::FailedPrecondition,
        NONE_OR_PARTIAL,
        Recovery::Hold,
    ),
    rule(
        ErrorReason::StateVersionUnsupported,
        Code::FailedPrecondition,
        NONE,
        Recovery::Hold,
    ),
    rule(
        ErrorReason::OperationPending,
        Code::Aborted,
        ANY,
        Recovery::Wait {
            min: seconds(2),
            max: seconds(10),
        },
    ),
    rule(
        ErrorReason::StaleGeneration,
        Code::Aborted,
        NONE,
        Recovery::ReadObjectAgain,
    ),
    rule(
        ErrorReason::PageTokenExpired,
        Code::Aborted,
        NONE,
        Recovery::RestartList,
    ),
    rule(
        ErrorReason::ResumeTokenExpired,
        Code::OutOfRange,
        NONE,
        Recovery::ListInFull,
    ),
    rule(
        ErrorReason::CloudUnavailable,
        Code::Unavailable,
        ANY,
        Recovery::RetryProvider,
    ),
    rule(ErrorReason::MultipleInstances, Code::DataLoss, ANY, Recovery::Escalate),
    rule(ErrorReason::StateInconsistent, Code::DataLoss, ANY, Recovery::Escalate),
];

/// The row of a registered reason; `None` for the unspecified one.
pub fn rule_for(reason: ErrorReason) -> Option<&'static ErrorRule> {
    RULES.iter().find(|rule| rule.reason == reason)
}

/// What the core does after an error without an ErrorInfo, or with a reason that is
/// not registered: the code alone has to do.
///
/// `from_provider` tells that there was an ErrorInfo: then the provider itself spoke,
/// in a later dialect, and the transport is well.
pub fn recovery_for_code(code: Code, from_provider: bool) -> Recovery {
    match code {
        Code::Ok | Code::Cancelled | Code::DeadlineExceeded => Recovery::ResolveThenReplay,
        Code::Unknown => Recovery::ResolveThenRetry { slow_after: None },
        Code::Internal => Recovery::ResolveThenRetry { slow_after: Some(5) },
        Code::Unimplemented => Recovery::Fallback,
        Code::DataLoss => Recovery::Escalate,
        Code::Unauthenticated if !from_provider => Recovery::Break,
        Code::Unavailable if !from_provider => Recovery::BreakThenResolve,
        Code::Unavailable => Recovery::RetryProvider,
        Code::ResourceExhausted | Code::OutOfRange if !from_provider => Recovery::Resolve,
        Code::ResourceExhausted | Code::OutOfRange | Code::Aborted => Recovery::ResolveThenRetry { slow_after: None },
        Code::InvalidArgument
        | Code::AlreadyExists
        | Code::PermissionDenied
        | Code::Unauthenticated
        | Code::FailedPrecondition
            if from_provider =>
        {
            Recovery::Hold
        }
        Code::NotFound if from_provider => Recovery::Resolve,
        // Without an ErrorInfo nobody of the protocol said this: never final.
        Code::InvalidArgument
        | Code::NotFound
        | Code::AlreadyExists
        | Code::PermissionDenied
        | Code::Unauthenticated
        | Code::FailedPrecondition => Recovery::ResolveThenRetry { slow_after: Some(5) },
    }
}

/// The name of a code as gRPC writes it.
pub fn code_name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}

impl ErrorReason {
    /// The reason as it travels in `google.rpc.ErrorInfo.reason`: `INVALID_FIELD`.
    pub fn wire_name(self) -> &'static str {
        self.as_str_name().trim_start_matches("ERROR_REASON_")
    }

    /// The registered reason of this name, `None` when it is not registered here.
    pub fn from_wire_name(name: &str) -> Option<Self> {
        Self::from_str_name(&format!("ERROR_REASON_{name}")).filter(|reason| *reason != Self::Unspecified)
    }
}
