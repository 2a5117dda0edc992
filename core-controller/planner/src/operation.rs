//! What became of a call to a provider, as the planners see it: one type of result
//! and one of failure for machines and clusters. The runtime makes them from the
//! host's answers, or itself where nothing was sent.
//! Not for: reading gRPC statuses or choosing back-offs, which the host does.

use std::time::Duration;

use actuator_proto::v1::{self, DeletionState, Effect, Presence};
use jiff::Timestamp;

/// What the core does about a failure: the recovery column of the error table, with
/// the times that the host has chosen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The same again, not before this long.
    Retry {
        /// Not before this long.
        after: Duration,
    },
    /// Nothing is wrong, it only takes time; the same again, not before this long.
    Wait {
        /// Not before this long.
        after: Duration,
    },
    /// Nobody knows what the call did: Exists by key first, not before this long, then
    /// decide anew.
    Resolve {
        /// Not before this long.
        after: Duration,
    },
    /// Hold until the spec, the credentials or the provider change.
    Hold {
        /// What is missing may appear: look again this often.
        look_again: Option<Duration>,
    },
    /// No capacity here: another failure domain where that is allowed, else the same
    /// again, not before this long.
    TryElsewhere {
        /// Not before this long in the same place.
        after: Duration,
    },
    /// Read the credentials Secret again; the second time in a row: hold.
    RefreshCredentials,
    /// The owner replaces the machine.
    ReplaceByOwner,
    /// The object has moved on: plan again from the newest version.
    ReadObjectAgain,
    /// Another core leads; this one ends.
    StepDown,
    /// What the provider finds contradicts itself: hold and alert, never delete.
    Escalate,
    /// The provider does not have this call.
    Fallback,
    /// The provider, or its cloud, is not reachable for now.
    ProviderUnavailable {
        /// Not before this long; sooner when the provider is connected anew.
        after: Duration,
    },
    /// This provider and credential are paused.
    Throttled {
        /// Not before this long.
        after: Duration,
    },
    /// Nothing was sent: something that the call needs is missing or wrong on our side.
    NotSent {
        /// Look again this often.
        look_again: Duration,
    },
}

/// A place in an opaque config that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Where: a JSON pointer into the config, or a field of the request.
    pub pointer: String,
    /// What is wrong and what is allowed.
    pub message: String,
}

/// A call that failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// What to do about it.
    pub outcome: Outcome,
    /// Why: a registered reason as on the wire (`INVALID_CONFIG`), a gRPC code's name
    /// (`DEADLINE_EXCEEDED`), or one of ours in CamelCase (`SecretNotFound`).
    pub reason: String,
    /// For people, bounded, without secrets.
    pub message: String,
    /// What the call did before it failed.
    pub effect: Effect,
    /// The id of what there is now, where the provider told.
    pub provider_id: Option<String>,
    /// What was wrong with the request, where the provider told.
    pub violations: Vec<Violation>,
}

/// How often the core looks again for something that it misses on its own side.
const LOOK_AGAIN_FOR_MISSING: Duration = Duration::from_secs(30);

impl Failure {
    /// A failure of ours: nothing was sent, look again in half a minute.
    pub fn not_sent(reason: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            outcome: Outcome::NotSent {
                look_again: LOOK_AGAIN_FOR_MISSING,
            },
            reason: reason.into(),
            message: message.into(),
            effect: Effect::None,
            provider_id: None,
            violations: Vec::new(),
        }
    }

    /// The Secret with `purpose` ("credentials", "bootstrap data") is not there.
    pub fn missing_secret(purpose: &str, namespace: &str, name: &str) -> Self {
        Self::not_sent(
            "SecretNotFound",
            format!("the Secret {namespace}/{name} with the {purpose} is not there; create it"),
        )
    }

    /// The Secret with `purpose` has no entry of this name.
    pub fn missing_secret_entry(purpose: &str, namespace: &str, name: &str, entry: &str) -> Self {
        Self::not_sent(
            "SecretEntryNotFound",
            format!("the Secret {namespace}/{name} with the {purpose} has no entry {entry:?}; add it"),
        )
    }

    /// The Secret with `purpose` may not be read by this controller.
    pub fn secret_forbidden(purpose: &str, namespace: &str, name: &str) -> Self {
        Self::not_sent(
            "SecretForbidden",
            format!(
                "the Secret {namespace}/{name} with the {purpose} may not be read; allow the core controller to get it"
            ),
        )
    }

    /// Whether nothing in the cloud has changed, for sure.
    pub fn is_final(&self) -> bool {
        self.effect == Effect::None
    }

    /// Whether only time is needed, no person: such a failure is shown only once it
    /// lasts, and with the words of its first time.
    pub fn is_transient(&self) -> bool {
        match &self.outcome {
            Outcome::Retry { .. }
            | Outcome::Wait { .. }
            | Outcome::Resolve { .. }
            | Outcome::ReadObjectAgain
            | Outcome::StepDown
            | Outcome::Throttled { .. }
            | Outcome::ProviderUnavailable { .. } => true,
            Outcome::Hold { .. }
            | Outcome::TryElsewhere { .. }
            | Outcome::RefreshCredentials
            | Outcome::ReplaceByOwner
            | Outcome::Escalate
            | Outcome::Fallback
            | Outcome::NotSent { .. } => false,
        }
    }

    /// The reason as a condition has it: CamelCase, bounded, of allowed characters.
    pub fn condition_reason(&self) -> String {
        condition_reason(&self.reason)
    }

    /// The message with what was wrong where, for a condition.
    pub fn sentence(&self) -> String {
        let mut sentence = self.message.trim().trim_end_matches('.').to_owned();
        if sentence.is_empty() {
            sentence = format!("the provider answered {}", self.condition_reason());
        }
        for violation in self.violations.iter().take(MAX_VIOLATIONS_SHOWN) {
            sentence.push_str("; ");
            sentence.push_str(&pointed(&violation.pointer, &violation.message));
        }
        actuator_proto::limits::bounded_text(&sentence, actuator_proto::limits::MAX_TEXT_BYTES)
    }
}

/// How many violations go into one sentence.
pub(crate) const MAX_VIOLATIONS_SHOWN: usize = 5;

/// `message` with the place it is about in front.
pub(crate) fn pointed(pointer: &str, message: &str) -> String {
    let message = message.trim().trim_end_matches('.');
    match pointer {
        "" => message.to_owned(),
        pointer => format!("at {pointer}: {message}"),
    }
}

/// `INVALID_CONFIG` as `InvalidConfig`; what is CamelCase already stays. Characters
/// that a condition's reason may not have are dropped.
pub(crate) fn condition_reason(reason: &str) -> String {
    const MAX_REASON_BYTES: usize = 128;
    let screaming = !reason.chars().any(|character| character.is_ascii_lowercase());
    let mut converted = String::with_capacity(reason.len());
    let mut word_begins = true;
    for character in reason.chars() {
        match character {
            _ if converted.len() >= MAX_REASON_BYTES => break,
            letter if letter.is_ascii_alphabetic() => {
                converted.push(match (screaming, word_begins) {
                    (_, true) => letter.to_ascii_uppercase(),
                    (true, false) => letter.to_ascii_lowercase(),
                    (false, false) => letter,
                });
                word_begins = false;
            }
            digit if digit.is_ascii_digit() && !converted.is_empty() => {
                converted.push(digit);
                word_begins = false;
            }
            _ => word_begins = true,
        }
    }
    if converted.is_empty() {
        "ProviderError".to_owned()
    } else {
        converted
    }
}

/// What an operation was decided on. A hold ends when any of it changes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Basis {
    /// The generation of the object.
    pub generation: i64,
    /// The digest of the spec that goes, or would go, to the provider.
    pub digest: Vec<u8>,
    /// The provider's session: its `instance_id`.
    pub session: String,
    /// Which connection to the provider, counted; ends a wait for the provider only.
    pub connections: u64,
    /// The version of the credentials Secret, empty where it is not watched.
    pub credentials: String,
}

impl Basis {
    /// Whether nothing that a hold waits for has changed since. The digest is no part
    /// of it: what it is made from is in the generation.
    pub fn holds_for(&self, now: &Self) -> bool {
        self.generation == now.generation && self.session == now.session && self.credentials == now.credentials
    }
}

/// A call to a provider for one machine or one cluster.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Call {
    /// ValidateConfig, STATIC.
    Validate,
    /// CreateMachine or CreateCluster.
    Create {
        /// Where; `None` lets the provider choose. Always `None` for a cluster.
        failure_domain: Option<String>,
    },
    /// UpdateMachine or UpdateCluster.
    Update,
    /// DeleteMachine or DeleteCluster.
    Delete,
    /// MachineExists or ClusterExists.
    Exists,
    /// SetEndpointMembers, for a cluster: the full set.
    SetEndpointMembers(Vec<Member>),
}

/// A control-plane machine behind a cluster's endpoint.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Member {
    /// The machine's key.
    pub idempotency_key: String,
    /// The machine's id.
    pub provider_id: String,
    /// Whether it is on its way out.
    pub draining: bool,
}

impl Call {
    /// Whether it may change something.
    pub fn is_mutation(&self) -> bool {
        match self {
            Self::Create { .. } | Self::Update | Self::Delete | Self::SetEndpointMembers(_) => true,
            Self::Validate | Self::Exists => false,
        }
    }

    /// A word for logs and metrics.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Validate => "Validate",
            Self::Create { .. } => "Create",
            Self::Update => "Update",
            Self::Delete => "Delete",
            Self::Exists => "Exists",
            Self::SetEndpointMembers(_) => "SetEndpointMembers",
        }
    }

    /// Whether `other` is the same kind of call, whatever its parameters.
    pub(crate) fn is_like(&self, other: &Self) -> bool {
        std::mem::discriminant(self) == std::mem::discriminant(other)
    }
}

/// A call with what it was decided on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Operation {
    /// The call.
    pub call: Call,
    /// What it was decided on.
    pub basis: Basis,
}

/// What a provider answered; `Status` is `v1::MachineStatus` or `v1::ClusterStatus`.
#[derive(Debug, Clone, PartialEq)]
pub enum Answer<Status> {
    /// To Validate. The runtime puts the verdict into [`crate::validation::Verdicts`].
    Validated,
    /// To Create and Update.
    Status(Box<Status>),
    /// To Delete.
    Deleted {
        /// How far it is.
        state: DeletionState,
        /// What it waits for, in the provider's words.
        message: String,
        /// Ask again after this long.
        poll_after: Option<Duration>,
    },
    /// To Exists.
    Exists {
        /// Whether it is there.
        presence: Presence,
        /// When it is.
        status: Option<Box<Status>>,
    },
    /// To SetEndpointMembers.
    Members {
        /// Ask again after this long; `None`: all is in place.
        poll_after: Option<Duration>,
    },
}

impl<Status> From<v1::DeleteMachineResponse> for Answer<Status> {
    fn from(response: v1::DeleteMachineResponse) -> Self {
        Self::Deleted {
            state: response.state(),
            poll_after: duration(response.poll_after.as_ref()),
            message: response.message,
        }
    }
}

impl<Status> From<v1::DeleteClusterResponse> for Answer<Status> {
    fn from(response: v1::DeleteClusterResponse) -> Self {
        Self::Deleted {
            state: response.state(),
            poll_after: duration(response.poll_after.as_ref()),
            message: response.message,
        }
    }
}

impl From<v1::MachineExistsResponse> for Answer<v1::MachineStatus> {
    fn from(response: v1::MachineExistsResponse) -> Self {
        Self::Exists {
            presence: response.presence(),
            status: response.status.map(Box::new),
        }
    }
}

impl From<v1::ClusterExistsResponse> for Answer<v1::ClusterStatus> {
    fn from(response: v1::ClusterExistsResponse) -> Self {
        Self::Exists {
            presence: response.presence(),
            status: response.status.map(Box::new),
        }
    }
}

impl<Status> From<v1::SetEndpointMembersResponse> for Answer<Status> {
    fn from(response: v1::SetEndpointMembersResponse) -> Self {
        Self::Members {
            poll_after: duration(response.poll_after.as_ref()),
        }
    }
}

/// A duration of the wire; a negative one is none.
pub(crate) fn duration(wire: Option<&prost_types::Duration>) -> Option<Duration> {
    wire.and_then(|wire| Duration::try_from(*wire).ok())
}

/// What became of an operation that was started.
#[derive(Debug, Clone, PartialEq)]
pub struct OperationResult<Status> {
    /// The operation, as it stood in the plan.
    pub operation: Operation,
    /// When it was sent: a read tells of no earlier time than this.
    pub started: Timestamp,
    /// The answer, or why there is none.
    pub result: Result<Answer<Status>, Failure>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_become_camel_case() {
        assert_eq!(condition_reason("INVALID_CONFIG"), "InvalidConfig");
        assert_eq!(condition_reason("SecretNotFound"), "SecretNotFound");
        assert_eq!(condition_reason("UNKNOWN"), "Unknown");
        assert_eq!(condition_reason("EC2_QUOTA2"), "Ec2Quota2");
        assert_eq!(condition_reason("9 \u{202e}weird-reason!"), "WeirdReason");
        assert_eq!(condition_reason(""), "ProviderError");
        assert!(condition_reason(&"A".repeat(5000)).len() <= 128);
    }

    #[test]
    fn sentences_name_the_place() {
        let mut failure = Failure::not_sent("INVALID_CONFIG", "the config is refused.");
        failure.violations = vec![Violation {
            pointer: "/instanceType".into(),
            message: "\"m9\" is unknown; one of m5, m6.".into(),
        }];
        assert_eq!(
            failure.sentence(),
            "the config is refused; at /instanceType: \"m9\" is unknown; one of m5, m6"
        );
    }

    #[test]
    fn a_hold_ends_with_spec_credentials_or_provider() {
        let basis = Basis {
            generation: 1,
            digest: vec![1],
            session: "a".into(),
            connections: 1,
            credentials: "5".into(),
        };
        assert!(basis.holds_for(&basis));
        for changed in [
            Basis {
                generation: 2,
                ..basis.clone()
            },
            Basis {
                session: "b".into(),
                ..basis.clone()
            },
            Basis {
                credentials: "6".into(),
                ..basis.clone()
            },
        ] {
            assert!(!basis.holds_for(&changed));
        }
    }
}
