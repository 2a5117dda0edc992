//! One Machine: from its spec, its provider's answers and its cluster to the next step.
//! Everything that a process must remember between two plans is in the API object or
//! can be asked for again; see [`Observation`].
//! Not for: calls, clocks, or the children of sets.

use std::time::Duration;

use actuator_proto::v1;
use jiff::Timestamp;
use outrigger_api::{Cluster, Machine, MachineStatus};

mod observation;

pub use observation::{InFlight, Observation};

use crate::event::Event;
use crate::operation::{self, Basis};
use crate::provider::Snapshot;
use crate::validation::Verdict;

/// The finalizer of a Machine: it goes last.
pub const FINALIZER: &str = "cluster.outrigger.dev/machine";

/// What was observed of one machine.
#[derive(Debug, Clone, Copy)]
pub struct View<'a> {
    /// The object, as the index has it.
    pub machine: &'a Machine,
    /// Its Cluster, where it is there.
    pub cluster: Option<&'a Cluster>,
    /// The provider named by [`provider_name`], where it is known.
    pub provider: Option<&'a Snapshot>,
    /// What this process has learned from the provider.
    pub observation: &'a Observation,
    /// Whether this process saw the object being created, so that nobody else can have
    /// called Create for it.
    pub witnessed_birth: bool,
    /// Since when this process leads. What others did for this machine, they did before.
    pub leading_since: Timestamp,
    /// The version of the credentials Secret where it is watched, else "".
    pub credentials_version: &'a str,
    /// What is known of the machine's config; `None`: nobody has asked this provider.
    pub verdict: Option<&'a Verdict>,
    /// Failure domains that had no capacity for siblings a short while ago.
    pub exhausted_domains: &'a [String],
}

/// A call to the provider.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Call {
    /// ValidateConfig, STATIC.
    Validate,
    /// CreateMachine.
    Create {
        /// Where; `None` lets the provider choose.
        failure_domain: Option<String>,
    },
    /// UpdateMachine.
    Update,
    /// DeleteMachine.
    Delete,
    /// MachineExists.
    Exists,
}

impl Call {
    /// Whether it may change something.
    pub fn is_mutation(&self) -> bool {
        matches!(self, Self::Create { .. } | Self::Update | Self::Delete)
    }

    /// A word for logs and metrics.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Validate => "Validate",
            Self::Create { .. } => "Create",
            Self::Update => "Update",
            Self::Delete => "Delete",
            Self::Exists => "Exists",
        }
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

/// What a provider answered.
#[derive(Debug, Clone, PartialEq)]
pub enum Answer {
    /// To Validate: the diagnostics, which also go into [`crate::validation::Verdicts`].
    Validated(Vec<v1::Diagnostic>),
    /// To Create and Update.
    Machine(Box<v1::MachineStatus>),
    /// To Delete.
    Deleted(v1::DeleteMachineResponse),
    /// To Exists.
    Exists(v1::MachineExistsResponse),
}

/// What became of an operation.
pub type OperationResult = operation::OperationResult<Operation, Answer>;

/// What the executor is to do. A plan holds at most one action; the status is written
/// after it, except that a plan with [`Action::Provider`] has its status written first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Put [`FINALIZER`] on the object.
    AddFinalizer,
    /// Take [`FINALIZER`] off the object.
    RemoveFinalizer,
    /// Write `spec.providerID` with a patch of its own, at once.
    SetProviderId(String),
    /// Call the provider: [`Observation::started`] first, [`Observation::observe`] with
    /// what became of it.
    Provider(Operation),
}

/// What to do about one machine.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// The full desired status; written only where it differs from the observed one.
    pub status: MachineStatus,
    /// The next step, if there is one.
    pub action: Option<Action>,
    /// Plan again after this long at the latest; `None`: something will change first.
    pub look_again: Option<Duration>,
    /// What happened.
    pub events: Vec<Event>,
    /// Why it acts or waits.
    pub reason: String,
    /// Another core leads: end this process.
    pub step_down: bool,
}
