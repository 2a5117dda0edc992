//! The calls of the protocol as data: path, lane, whether they change anything,
//! whether a provider must have them, how long they may take.
//!
//! Not for: making a call (see `channel` and `layers`).

use std::time::Duration;

use actuator_proto::limits;

use crate::snapshot::ProviderTimings;

/// A call of the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Rpc {
    /// `DiscoveryService.GetProtocols`.
    GetProtocols,
    /// `IdentityService.GetInfo`.
    GetInfo,
    /// `IdentityService.Probe`.
    Probe,
    /// `IdentityService.GetConfigSchema`.
    GetConfigSchema,
    /// `IdentityService.ValidateConfig` of the config alone.
    ValidateConfigStatic,
    /// `IdentityService.ValidateConfig` against the cloud.
    ValidateConfigPreflight,
    /// `ClusterService.CreateCluster`.
    CreateCluster,
    /// `ClusterService.UpdateCluster`.
    UpdateCluster,
    /// `ClusterService.DeleteCluster`.
    DeleteCluster,
    /// `ClusterService.ClusterExists`.
    ClusterExists,
    /// `ClusterService.ListClusters`.
    ListClusters,
    /// `EndpointService.SetEndpointMembers`.
    SetEndpointMembers,
    /// `MachineService.CreateMachine`.
    CreateMachine,
    /// `MachineService.UpdateMachine`.
    UpdateMachine,
    /// `MachineService.DeleteMachine`.
    DeleteMachine,
    /// `MachineService.MachineExists`.
    MachineExists,
    /// `MachineService.ListMachines`.
    ListMachines,
    /// `MachineService.WatchMachines`.
    WatchMachines,
    /// `MachineService.GetConsoleOutput`.
    GetConsoleOutput,
    /// `MachineService.ListMachineTypes`.
    ListMachineTypes,
}

/// Calls that share a bound on how many run at a time. Each lane has its own, so
/// that a hundred slow deletions never starve creations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Lane {
    /// Answered from the provider's memory: schemas, static validation.
    Identity,
    /// Exists and preflight validation.
    Read,
    /// Pages of lists, console output.
    List,
    /// Creations.
    Create,
    /// Updates and endpoint members.
    Update,
    /// Deletions.
    Delete,
}

impl Lane {
    /// All lanes.
    pub const ALL: [Self; 6] = [
        Self::Identity,
        Self::Read,
        Self::List,
        Self::Create,
        Self::Update,
        Self::Delete,
    ];

    /// Whether its calls change anything.
    pub fn is_mutation(self) -> bool {
        matches!(self, Self::Create | Self::Update | Self::Delete)
    }

    /// The name in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Identity => "identity",
            Self::Read => "read",
            Self::List => "list",
            Self::Create => "create",
            Self::Update => "update",
            Self::Delete => "delete",
        }
    }
}

impl Rpc {
    /// All calls.
    pub const ALL: [Self; 20] = [
        Self::GetProtocols,
        Self::GetInfo,
        Self::Probe,
        Self::GetConfigSchema,
        Self::ValidateConfigStatic,
        Self::ValidateConfigPreflight,
        Self::CreateCluster,
        Self::UpdateCluster,
        Self::DeleteCluster,
        Self::ClusterExists,
        Self::ListClusters,
        Self::SetEndpointMembers,
        Self::CreateMachine,
        Self::UpdateMachine,
        Self::DeleteMachine,
        Self::MachineExists,
        Self::ListMachines,
        Self::WatchMachines,
        Self::GetConsoleOutput,
        Self::ListMachineTypes,
    ];

    /// The HTTP path.
    pub fn path(self) -> &'static str {
        match self {
            Self::GetProtocols => "/actuator.discovery.v1.DiscoveryService/GetProtocols",
            Self::GetInfo => "/actuator.v1.IdentityService/GetInfo",
            Self::Probe => "/actuator.v1.IdentityService/Probe",
            Self::GetConfigSchema => "/actuator.v1.IdentityService/GetConfigSchema",
            Self::ValidateConfigStatic | Self::ValidateConfigPreflight => "/actuator.v1.IdentityService/ValidateConfig",
            Self::CreateCluster => "/actuator.v1.ClusterService/CreateCluster",
            Self::UpdateCluster => "/actuator.v1.ClusterService/UpdateCluster",
            Self::DeleteCluster => "/actuator.v1.ClusterService/DeleteCluster",
            Self::ClusterExists => "/actuator.v1.ClusterService/ClusterExists",
            Self::ListClusters => "/actuator.v1.ClusterService/ListClusters",
            Self::SetEndpointMembers => "/actuator.v1.EndpointService/SetEndpointMembers",
            Self::CreateMachine => "/actuator.v1.MachineService/CreateMachine",
            Self::UpdateMachine => "/actuator.v1.MachineService/UpdateMachine",
            Self::DeleteMachine => "/actuator.v1.MachineService/DeleteMachine",
            Self::MachineExists => "/actuator.v1.MachineService/MachineExists",
            Self::ListMachines => "/actuator.v1.MachineService/ListMachines",
            Self::WatchMachines => "/actuator.v1.MachineService/WatchMachines",
            Self::GetConsoleOutput => "/actuator.v1.MachineService/GetConsoleOutput",
            Self::ListMachineTypes => "/actuator.v1.MachineService/ListMachineTypes",
        }
    }

    /// The name without package and service: `CreateMachine`.
    pub fn name(self) -> &'static str {
        self.path().rsplit('/').next().unwrap_or_default()
    }

    /// The lane that it runs in.
    pub fn lane(self) -> Lane {
        match self {
            Self::GetProtocols | Self::GetInfo | Self::Probe | Self::GetConfigSchema | Self::ValidateConfigStatic => {
                Lane::Identity
            }
            Self::ValidateConfigPreflight | Self::ClusterExists | Self::MachineExists => Lane::Read,
            Self::ListClusters
            | Self::ListMachines
            | Self::WatchMachines
            | Self::GetConsoleOutput
            | Self::ListMachineTypes => Lane::List,
            Self::CreateCluster | Self::CreateMachine => Lane::Create,
            Self::UpdateCluster | Self::UpdateMachine | Self::SetEndpointMembers => Lane::Update,
            Self::DeleteCluster | Self::DeleteMachine => Lane::Delete,
        }
    }

    /// Whether it changes anything.
    pub fn is_mutation(self) -> bool {
        self.lane().is_mutation()
    }

    /// Whether it may reach the cloud; the others are answered from memory and are
    /// never paused or rated.
    pub fn reaches_cloud(self) -> bool {
        self.lane() != Lane::Identity
    }

    /// Whether a provider may do without it.
    pub fn is_optional(self) -> bool {
        matches!(
            self,
            Self::ListClusters
                | Self::SetEndpointMembers
                | Self::ListMachines
                | Self::WatchMachines
                | Self::GetConsoleOutput
                | Self::ListMachineTypes
        )
    }

    /// How long a call may take: the contract's deadline, or the provider's longer
    /// recommendation, at most [`limits::MAX_DEADLINE`]. `None`: a watch.
    pub fn deadline(self, timings: &ProviderTimings) -> Option<Duration> {
        let deadline = match self {
            Self::WatchMachines => return None,
            Self::GetProtocols | Self::GetInfo | Self::GetConfigSchema => limits::IDENTITY_DEADLINE,
            Self::Probe => limits::PROBE_DEADLINE,
            Self::ValidateConfigStatic => limits::VALIDATE_STATIC_DEADLINE,
            Self::ValidateConfigPreflight => limits::VALIDATE_PREFLIGHT_DEADLINE,
            Self::ClusterExists | Self::MachineExists => limits::EXISTS_DEADLINE.max(timings.exists_deadline),
            Self::ListClusters | Self::ListMachines | Self::ListMachineTypes | Self::GetConsoleOutput => {
                limits::LIST_PAGE_DEADLINE
            }
            Self::CreateCluster
            | Self::UpdateCluster
            | Self::DeleteCluster
            | Self::SetEndpointMembers
            | Self::CreateMachine
            | Self::UpdateMachine
            | Self::DeleteMachine => limits::MUTATION_DEADLINE.max(timings.mutation_deadline),
        };
        Some(deadline.min(limits::MAX_DEADLINE))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recommendation_only_lengthens_and_is_capped() {
        let timings = |mutation, exists| ProviderTimings {
            mutation_deadline: Duration::from_secs(mutation),
            exists_deadline: Duration::from_secs(exists),
            ..ProviderTimings::default()
        };
        let seconds = |rpc: Rpc, timings: &ProviderTimings| rpc.deadline(timings).map(|deadline| deadline.as_secs());
        assert_eq!(seconds(Rpc::CreateMachine, &timings(1, 1)), Some(60));
        assert_eq!(seconds(Rpc::CreateMachine, &timings(90, 1)), Some(90));
        assert_eq!(seconds(Rpc::DeleteCluster, &timings(9000, 1)), Some(300));
        assert_eq!(seconds(Rpc::MachineExists, &timings(9000, 1)), Some(20));
        assert_eq!(seconds(Rpc::MachineExists, &timings(1, 301)), Some(300));
        assert_eq!(seconds(Rpc::WatchMachines, &timings(1, 1)), None);
    }

    #[test]
    fn every_call_but_a_watch_has_a_deadline_and_every_path_is_in_the_descriptors() {
        for rpc in Rpc::ALL {
            assert_eq!(
                rpc.deadline(&ProviderTimings::default()).is_none(),
                rpc == Rpc::WatchMachines
            );
            let name = rpc.name().as_bytes();
            assert!(
                actuator_proto::FILE_DESCRIPTOR_SET
                    .windows(name.len())
                    .any(|window| window == name),
                "{} is no RPC of the protocol",
                rpc.name()
            );
        }
    }
}
