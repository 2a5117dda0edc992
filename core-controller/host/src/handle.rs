//! The calls that can be made to one provider.

use std::fmt;
use std::sync::Arc;

use actuator_proto::v1;
use bytes::Bytes;

use crate::call_error::CallError;
use crate::rpc::Lane;
use crate::shared::Shared;
use crate::snapshot::ProviderSnapshot;
use crate::unary::Unary;
use crate::watch::{self, MachineWatch};

/// Names a credential for limits and throttling, `namespace/name` of its Secret for
/// example. It holds no secret, and it stays the same when the Secret is rotated.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct CredentialId(Arc<str>);

impl CredentialId {
    /// The credential of this name.
    pub fn new(name: impl Into<Arc<str>>) -> Self {
        Self(name.into())
    }

    /// The credentials of the provider's own process.
    pub fn ambient() -> Self {
        Self::new("ambient")
    }
}

impl fmt::Display for CredentialId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The JSON Schema of a config kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigSchema {
    /// JSON Schema 2020-12, UTF-8.
    pub json: Bytes,
    /// Its SHA-256, verified.
    pub sha256: [u8; 32],
}

/// One provider; clones are cheap. It stays usable over reconnects, and after the
/// endpoint was removed every call is refused.
#[derive(Clone)]
pub struct ProviderHandle {
    pub(crate) shared: Arc<Shared>,
}

impl fmt::Debug for ProviderHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ProviderHandle").field(&self.shared.name).finish()
    }
}

impl ProviderHandle {
    /// The provider's name.
    pub fn name(&self) -> &Arc<str> {
        &self.shared.name
    }

    /// How things stand with it.
    pub fn snapshot(&self) -> ProviderSnapshot {
        self.shared.snapshot()
    }

    /// How many calls may run at a time in a lane; more wait inside the host, bounded in
    /// number and time. It changes with the provider's limits.
    pub fn places(&self, lane: Lane) -> u32 {
        self.shared.lanes().places(lane)
    }

    async fn unary<R: Unary>(&self, credential: &CredentialId, request: R) -> Result<R::Response, CallError> {
        crate::unary::call(&self.shared, credential, request).await
    }

    /// Makes a machine, or finds the one of this key.
    pub async fn create_machine(
        &self,
        credential: &CredentialId,
        request: v1::CreateMachineRequest,
    ) -> Result<v1::CreateMachineResponse, CallError> {
        self.unary(credential, request).await
    }

    /// Changes a machine in place.
    pub async fn update_machine(
        &self,
        credential: &CredentialId,
        request: v1::UpdateMachineRequest,
    ) -> Result<v1::UpdateMachineResponse, CallError> {
        self.unary(credential, request).await
    }

    /// Removes a machine.
    pub async fn delete_machine(
        &self,
        credential: &CredentialId,
        request: v1::DeleteMachineRequest,
    ) -> Result<v1::DeleteMachineResponse, CallError> {
        self.unary(credential, request).await
    }

    /// Asks whether a machine is there.
    pub async fn machine_exists(
        &self,
        credential: &CredentialId,
        request: v1::MachineExistsRequest,
    ) -> Result<v1::MachineExistsResponse, CallError> {
        self.unary(credential, request).await
    }

    /// Makes what a cluster needs besides its machines, or finds that of this key.
    pub async fn create_cluster(
        &self,
        credential: &CredentialId,
        request: v1::CreateClusterRequest,
    ) -> Result<v1::CreateClusterResponse, CallError> {
        self.unary(credential, request).await
    }

    /// Changes a cluster's resources.
    pub async fn update_cluster(
        &self,
        credential: &CredentialId,
        request: v1::UpdateClusterRequest,
    ) -> Result<v1::UpdateClusterResponse, CallError> {
        self.unary(credential, request).await
    }

    /// Removes a cluster's resources.
    pub async fn delete_cluster(
        &self,
        credential: &CredentialId,
        request: v1::DeleteClusterRequest,
    ) -> Result<v1::DeleteClusterResponse, CallError> {
        self.unary(credential, request).await
    }

    /// Asks whether a cluster's resources are there.
    pub async fn cluster_exists(
        &self,
        credential: &CredentialId,
        request: v1::ClusterExistsRequest,
    ) -> Result<v1::ClusterExistsResponse, CallError> {
        self.unary(credential, request).await
    }

    /// Sets the machines behind a cluster's endpoint. Optional: without the capability
    /// the error's disposition is `Fallback` and nothing is sent.
    pub async fn set_endpoint_members(
        &self,
        credential: &CredentialId,
        request: v1::SetEndpointMembersRequest,
    ) -> Result<v1::SetEndpointMembersResponse, CallError> {
        self.unary(credential, request).await
    }

    /// Judges a config; the verdict is in the diagnostics, which are bounded and clean.
    pub async fn validate_config(
        &self,
        credential: &CredentialId,
        request: v1::ValidateConfigRequest,
    ) -> Result<v1::ValidateConfigResponse, CallError> {
        self.unary(credential, request).await
    }

    /// One page of the machines; see [`Self::list_all_machines`]. Optional.
    pub async fn list_machines(
        &self,
        credential: &CredentialId,
        request: v1::ListMachinesRequest,
    ) -> Result<v1::ListMachinesResponse, CallError> {
        self.unary(credential, request).await
    }

    /// One page of the clusters; see [`Self::list_all_clusters`]. Optional.
    pub async fn list_clusters(
        &self,
        credential: &CredentialId,
        request: v1::ListClustersRequest,
    ) -> Result<v1::ListClustersResponse, CallError> {
        self.unary(credential, request).await
    }

    /// One page of the machine types; see [`Self::list_all_machine_types`]. Optional.
    pub async fn list_machine_types(
        &self,
        credential: &CredentialId,
        request: v1::ListMachineTypesRequest,
    ) -> Result<v1::ListMachineTypesResponse, CallError> {
        self.unary(credential, request).await
    }

    /// All machines, page by page, from a list that was complete: a list that begins
    /// anew (`PAGE_TOKEN_EXPIRED`) is begun anew here, a few times. Optional.
    pub async fn list_all_machines(
        &self,
        credential: &CredentialId,
        request: v1::ListMachinesRequest,
    ) -> Result<Vec<v1::ListedMachine>, CallError> {
        crate::pages::all(self, credential, request).await
    }

    /// All clusters, as [`Self::list_all_machines`]. Optional.
    pub async fn list_all_clusters(
        &self,
        credential: &CredentialId,
        request: v1::ListClustersRequest,
    ) -> Result<Vec<v1::ListedCluster>, CallError> {
        crate::pages::all(self, credential, request).await
    }

    /// All machine types, as [`Self::list_all_machines`]. Optional.
    pub async fn list_all_machine_types(
        &self,
        credential: &CredentialId,
        request: v1::ListMachineTypesRequest,
    ) -> Result<Vec<v1::MachineType>, CallError> {
        crate::pages::all(self, credential, request).await
    }

    /// The schema of a config kind; asked once for each process of the provider.
    pub async fn get_config_schema(&self, kind: &str, schema_version: &str) -> Result<Arc<ConfigSchema>, CallError> {
        crate::schema::get(&self.shared, kind, schema_version).await
    }

    /// What a machine wrote to its console, at most `max_bytes` of it. It may hold what
    /// the bootstrap data printed. Optional.
    pub async fn console_output(
        &self,
        credential: &CredentialId,
        request: v1::GetConsoleOutputRequest,
        max_bytes: usize,
    ) -> Result<Bytes, CallError> {
        crate::console::get(&self.shared, credential, request, max_bytes).await
    }

    /// A stream of hints about machines that reconnects and resumes by itself. `None`
    /// when the provider does not offer it: poll by `poll_after` then. The stream ends
    /// when the provider stops offering it or is removed.
    ///
    /// `request.resume_token` is used for the first connection only.
    pub fn watch_machines(&self, credential: &CredentialId, request: v1::WatchMachinesRequest) -> Option<MachineWatch> {
        watch::start(&self.shared, credential, request)
    }
}

/// One call of any kind, for the modules beside this one.
pub(crate) async fn unary<R: Unary>(
    handle: &ProviderHandle,
    credential: &CredentialId,
    request: R,
) -> Result<R::Response, CallError> {
    handle.unary(credential, request).await
}
