//! What a test is: the rule that it checks, when it has to pass, and how it may end.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;

use actuator_proto::v1::Capabilities;

use crate::context::Context;

/// How a test ends that does not pass.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stop {
    /// The provider broke the rule; the words say how.
    Broken(String),
    /// The rule could not be looked at; the words say why. Never taken for passed.
    Skipped(String),
    /// The rule says nothing about this provider or endpoint; the words say why.
    Inapplicable(String),
}

/// How a test ends.
pub type Verdict = Result<(), Stop>;

impl Stop {
    /// The rule is broken.
    pub fn broken(words: impl fmt::Display) -> Self {
        Self::Broken(words.to_string())
    }

    /// The rule could not be looked at.
    pub fn skipped(words: impl fmt::Display) -> Self {
        Self::Skipped(words.to_string())
    }

    /// The rule says nothing about this provider or endpoint.
    pub fn inapplicable(words: impl fmt::Display) -> Self {
        Self::Inapplicable(words.to_string())
    }
}

/// Ends the test as broken unless the condition holds.
#[macro_export]
macro_rules! holds {
    ($condition:expr, $($words:tt)+) => {
        if !$condition {
            return Err($crate::rule::Stop::Broken(format!($($words)+)));
        }
    };
}

/// When a rule has to hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Tier {
    /// For every provider.
    Required,
    /// For a provider that advertises the capability.
    Capability(Capability),
    /// For every provider, and seen only where the suite can do harm: restart it, read its logs.
    Faults,
}

/// A part of the protocol that a provider may leave out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Capability {
    /// MachineService.ListMachines.
    ListMachines,
    /// ClusterService.ListClusters.
    ListClusters,
    /// MachineService.WatchMachines.
    WatchMachines,
    /// EndpointService.SetEndpointMembers.
    EndpointMembers,
    /// MachineService.GetConsoleOutput.
    ConsoleOutput,
    /// MachineService.ListMachineTypes.
    MachineTypes,
}

impl Capability {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::ListMachines,
        Self::ListClusters,
        Self::WatchMachines,
        Self::EndpointMembers,
        Self::ConsoleOutput,
        Self::MachineTypes,
    ];

    /// Its field in `actuator.v1.Capabilities`.
    pub fn name(self) -> &'static str {
        match self {
            Self::ListMachines => "list_machines",
            Self::ListClusters => "list_clusters",
            Self::WatchMachines => "watch_machines",
            Self::EndpointMembers => "endpoint_members",
            Self::ConsoleOutput => "console_output",
            Self::MachineTypes => "machine_types",
        }
    }

    /// Whether a provider says that it has it.
    pub fn advertised(self, capabilities: &Capabilities) -> bool {
        match self {
            Self::ListMachines => capabilities.list_machines.is_some(),
            Self::ListClusters => capabilities.list_clusters.is_some(),
            Self::WatchMachines => capabilities.watch_machines.is_some(),
            Self::EndpointMembers => capabilities.endpoint_members.is_some(),
            Self::ConsoleOutput => capabilities.console_output.is_some(),
            Self::MachineTypes => capabilities.machine_types.is_some(),
        }
    }
}

impl fmt::Display for Tier {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Required => formatter.write_str("required"),
            Self::Capability(capability) => formatter.write_str(capability.name()),
            Self::Faults => formatter.write_str("faults"),
        }
    }
}

/// What it costs a user when the rule is broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Machines made twice, lost or left behind; secrets told.
    Critical,
    /// Clusters that get stuck, or wait for a person.
    Major,
    /// Worse messages, slower recovery.
    Minor,
}

impl fmt::Display for Severity {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Critical => "critical",
            Self::Major => "major",
            Self::Minor => "minor",
        })
    }
}

/// When a test runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Beside others.
    Shared,
    /// Alone: it takes the provider down, or fills it.
    Alone,
    /// After all others, on what they left.
    Last,
}

type Future = Pin<Box<dyn std::future::Future<Output = Verdict> + Send>>;

/// One test.
#[derive(Clone)]
pub struct Rule {
    /// Its id, `part.what-holds`, the same for ever.
    pub id: &'static str,
    /// The sentence that it checks.
    pub sentence: &'static str,
    /// When it has to hold.
    pub tier: Tier,
    /// What it costs when it does not.
    pub severity: Severity,
    /// When it runs.
    pub phase: Phase,
    /// How many machines it has at most at a time, for the budget.
    pub machines: u32,
    run: Arc<dyn Fn(Context) -> Future + Send + Sync>,
}

impl fmt::Debug for Rule {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.id)
    }
}

impl Rule {
    /// A rule for every provider, checked beside others, without a machine.
    pub fn required<F>(
        id: &'static str,
        severity: Severity,
        sentence: &'static str,
        run: impl Fn(Context) -> F + Send + Sync + 'static,
    ) -> Self
    where
        F: std::future::Future<Output = Verdict> + Send + 'static,
    {
        Self {
            id,
            sentence,
            tier: Tier::Required,
            severity,
            phase: Phase::Shared,
            machines: 0,
            run: Arc::new(move |context| Box::pin(run(context))),
        }
    }

    /// It holds for a provider with this capability.
    #[must_use]
    pub fn with(mut self, capability: Capability) -> Self {
        self.tier = Tier::Capability(capability);
        self
    }

    /// It is seen only where the suite can do harm.
    #[must_use]
    pub fn faults(mut self) -> Self {
        self.tier = Tier::Faults;
        self.phase = Phase::Alone;
        self
    }

    /// It runs alone.
    #[must_use]
    pub fn alone(mut self) -> Self {
        self.phase = Phase::Alone;
        self
    }

    /// It runs after all others.
    #[must_use]
    pub fn last(mut self) -> Self {
        self.phase = Phase::Last;
        self
    }

    /// It makes so many machines at a time.
    #[must_use]
    pub fn machines(mut self, machines: u32) -> Self {
        self.machines = machines;
        self
    }

    /// Looks whether the rule holds.
    pub async fn check(&self, context: Context) -> Verdict {
        (self.run)(context).await
    }
}
