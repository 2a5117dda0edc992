//! A scripted provider, served on a Unix socket: a cloud in memory that does what a test
//! says and counts what it is asked.

use std::collections::{HashMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use actuator_proto::discovery::v1 as discovery;
use actuator_proto::errors::ActuatorError;
use actuator_proto::v1;
use parking_lot::Mutex;
use tokio::net::UnixListener;
use tokio_stream::wrappers::UnixListenerStream;
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::{Request, Response, Status};

/// What happens to the next Create.
#[derive(Debug, Clone)]
pub enum Fault {
    /// It is refused with this error.
    Refuse(ActuatorError),
    /// The machine is made, and the answer is lost.
    LoseAnswer,
}

#[derive(Debug, Clone)]
pub struct Instance {
    pub id: String,
    pub owner: v1::Ownership,
    pub spec: v1::MachineSpec,
    pub bootstrap: Option<Vec<u8>>,
}

#[derive(Debug, Default)]
pub struct State {
    pub instances: HashMap<String, Instance>,
    pub clusters: HashMap<String, v1::ClusterSpec>,
    pub calls: HashMap<&'static str, usize>,
    pub create_faults: VecDeque<Fault>,
    pub epochs: Vec<i64>,
    pub made: usize,
    /// Credentials as last seen, by entry.
    pub credentials: std::collections::BTreeMap<String, Vec<u8>>,
    /// Whether deletions only begin and never end.
    pub deletions_hang: bool,
}

impl State {
    fn count(&mut self, call: &'static str) {
        *self.calls.entry(call).or_default() += 1;
    }

    pub fn calls(&self, call: &str) -> usize {
        self.calls.get(call).copied().unwrap_or_default()
    }
}

/// The provider. Dropping it ends its serving.
pub struct Cloud {
    pub state: Arc<Mutex<State>>,
    path: PathBuf,
    _serving: DropGuard,
    /// Goes with the cloud.
    folder: Option<tempfile::TempDir>,
}

impl Cloud {
    /// Serves on a socket of its own.
    pub fn start() -> Self {
        let folder = tempfile::Builder::new().prefix("core").tempdir().unwrap();
        let path = folder.path().join("actuator.sock");
        let mut cloud = Self::start_at(&path, Arc::default());
        cloud.folder = Some(folder);
        cloud
    }

    /// Serves this cloud on a socket at this path.
    pub fn start_at(path: &Path, state: Arc<Mutex<State>>) -> Self {
        let _ = std::fs::remove_file(path);
        let listener = UnixListener::bind(path).unwrap();
        let service = Service {
            state: Arc::clone(&state),
            instance_id: uuid::Uuid::new_v4().to_string(),
        };
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        tokio::spawn(async move {
            tonic::transport::Server::builder()
                .add_service(discovery::discovery_service_server::DiscoveryServiceServer::new(
                    service.clone(),
                ))
                .add_service(v1::identity_service_server::IdentityServiceServer::new(service.clone()))
                .add_service(v1::cluster_service_server::ClusterServiceServer::new(service.clone()))
                .add_service(v1::machine_service_server::MachineServiceServer::new(service))
                .serve_with_incoming_shutdown(UnixListenerStream::new(listener), stopped.cancelled_owned())
                .await
                .unwrap();
        });
        Self {
            state,
            path: path.to_owned(),
            _serving: stop.drop_guard(),
            folder: None,
        }
    }

    pub fn has_own_folder(&self) -> bool {
        self.folder.is_some()
    }

    pub fn endpoint(&self) -> String {
        format!("unix://{}", self.path.display())
    }

    /// How many instances there are for each object; more than one is a fault.
    pub fn instances(&self) -> usize {
        self.state.lock().instances.len()
    }
}

#[derive(Clone)]
struct Service {
    state: Arc<Mutex<State>>,
    instance_id: String,
}

fn machine_status(instance: &Instance) -> v1::MachineStatus {
    v1::MachineStatus {
        provider_id: instance.id.clone(),
        phase: v1::MachinePhase::Running.into(),
        addresses: vec![v1::MachineAddress {
            r#type: v1::MachineAddressType::InternalIp.into(),
            address: "10.0.0.1".to_owned(),
        }],
        observed_digest: instance.spec.digest.clone(),
        ..v1::MachineStatus::default()
    }
}

fn cluster_status(key: &str, spec: &v1::ClusterSpec) -> v1::ClusterStatus {
    v1::ClusterStatus {
        provider_id: format!("scripted:///network/{key}"),
        phase: v1::ClusterPhase::Ready.into(),
        endpoint: Some(v1::Endpoint {
            host: "10.0.0.100".to_owned(),
            port: 6443,
        }),
        observed_digest: spec.digest.clone(),
        ..v1::ClusterStatus::default()
    }
}

#[tonic::async_trait]
impl discovery::discovery_service_server::DiscoveryService for Service {
    async fn get_protocols(
        &self,
        _: Request<discovery::GetProtocolsRequest>,
    ) -> Result<Response<discovery::GetProtocolsResponse>, Status> {
        Ok(Response::new(discovery::GetProtocolsResponse {
            name: "scripted".to_owned(),
            version: "1.2.3".to_owned(),
            instance_id: self.instance_id.clone(),
            protocols: vec![discovery::Protocol {
                package: actuator_proto::PACKAGE_V1.to_owned(),
                stability: discovery::Stability::Stable.into(),
            }],
        }))
    }
}

#[tonic::async_trait]
impl v1::identity_service_server::IdentityService for Service {
    async fn get_info(&self, _: Request<v1::GetInfoRequest>) -> Result<Response<v1::GetInfoResponse>, Status> {
        let kind = |kind: &str, target: v1::ConfigTarget| v1::ConfigKind {
            kind: kind.to_owned(),
            target: target.into(),
            schema_versions: vec!["v1".to_owned()],
        };
        Ok(Response::new(v1::GetInfoResponse {
            name: "scripted".to_owned(),
            vendor_version: "1.2.3".to_owned(),
            instance_id: self.instance_id.clone(),
            capabilities: Some(v1::Capabilities::default()),
            config_kinds: vec![
                kind("ScriptedCluster", v1::ConfigTarget::Cluster),
                kind("ScriptedMachine", v1::ConfigTarget::Machine),
            ],
            provider_id_prefix: "scripted://".to_owned(),
            ..v1::GetInfoResponse::default()
        }))
    }

    async fn probe(&self, _: Request<v1::ProbeRequest>) -> Result<Response<v1::ProbeResponse>, Status> {
        Ok(Response::new(v1::ProbeResponse {
            readiness: v1::Readiness::Ready.into(),
            checks: vec![],
        }))
    }

    async fn get_config_schema(
        &self,
        _: Request<v1::GetConfigSchemaRequest>,
    ) -> Result<Response<v1::GetConfigSchemaResponse>, Status> {
        Err(Status::unimplemented("no schema"))
    }

    async fn validate_config(
        &self,
        request: Request<v1::ValidateConfigRequest>,
    ) -> Result<Response<v1::ValidateConfigResponse>, Status> {
        self.state.lock().count("ValidateConfig");
        let config = request.into_inner().config.unwrap_or_default();
        let json: serde_json::Value = serde_json::from_slice(&config.json).unwrap();
        let mut diagnostics = Vec::new();
        if json["size"] == "impossible" {
            diagnostics.push(v1::Diagnostic {
                severity: v1::Severity::Error.into(),
                json_pointer: "/size".to_owned(),
                message: "is none of small, large".to_owned(),
                requires_replacement: false,
            });
        }
        Ok(Response::new(v1::ValidateConfigResponse { diagnostics }))
    }
}

#[tonic::async_trait]
impl v1::cluster_service_server::ClusterService for Service {
    async fn create_cluster(
        &self,
        request: Request<v1::CreateClusterRequest>,
    ) -> Result<Response<v1::CreateClusterResponse>, Status> {
        let request = request.into_inner();
        let key = request.meta.unwrap_or_default().idempotency_key;
        let mut state = self.state.lock();
        state.count("CreateCluster");
        let spec = state
            .clusters
            .entry(key.clone())
            .or_insert(request.spec.unwrap_or_default());
        Ok(Response::new(v1::CreateClusterResponse {
            status: Some(cluster_status(&key, spec)),
        }))
    }

    async fn update_cluster(
        &self,
        request: Request<v1::UpdateClusterRequest>,
    ) -> Result<Response<v1::UpdateClusterResponse>, Status> {
        let request = request.into_inner();
        let key = request.meta.unwrap_or_default().idempotency_key;
        let mut state = self.state.lock();
        state.count("UpdateCluster");
        let spec = request.spec.unwrap_or_default();
        let status = cluster_status(&key, &spec);
        state.clusters.insert(key, spec);
        Ok(Response::new(v1::UpdateClusterResponse { status: Some(status) }))
    }

    async fn delete_cluster(
        &self,
        request: Request<v1::DeleteClusterRequest>,
    ) -> Result<Response<v1::DeleteClusterResponse>, Status> {
        let key = request.into_inner().meta.unwrap_or_default().idempotency_key;
        let mut state = self.state.lock();
        state.count("DeleteCluster");
        state.clusters.remove(&key);
        Ok(Response::new(v1::DeleteClusterResponse {
            state: v1::DeletionState::Gone.into(),
            ..v1::DeleteClusterResponse::default()
        }))
    }

    async fn cluster_exists(
        &self,
        request: Request<v1::ClusterExistsRequest>,
    ) -> Result<Response<v1::ClusterExistsResponse>, Status> {
        let key = request.into_inner().r#ref.unwrap_or_default().idempotency_key;
        let mut state = self.state.lock();
        state.count("ClusterExists");
        let status = state.clusters.get(&key).map(|spec| cluster_status(&key, spec));
        Ok(Response::new(v1::ClusterExistsResponse {
            presence: presence(status.is_some()).into(),
            status,
        }))
    }

    async fn list_clusters(
        &self,
        _: Request<v1::ListClustersRequest>,
    ) -> Result<Response<v1::ListClustersResponse>, Status> {
        Err(Status::unimplemented("not offered"))
    }
}

fn presence(there: bool) -> v1::Presence {
    if there {
        v1::Presence::Present
    } else {
        v1::Presence::Absent
    }
}

#[tonic::async_trait]
impl v1::machine_service_server::MachineService for Service {
    async fn create_machine(
        &self,
        request: Request<v1::CreateMachineRequest>,
    ) -> Result<Response<v1::CreateMachineResponse>, Status> {
        let request = request.into_inner();
        let meta = request.meta.unwrap_or_default();
        let mut state = self.state.lock();
        state.count("CreateMachine");
        state.epochs.push(meta.fencing_epoch);
        if let Some(v1::Credentials {
            source: Some(v1::credentials::Source::Data(data)),
        }) = request.credentials
        {
            state.credentials = data.entries;
        }
        let fault = state.create_faults.pop_front();
        if let Some(Fault::Refuse(error)) = fault {
            return Err(error.into());
        }
        if !state.instances.contains_key(&meta.idempotency_key) {
            state.made += 1;
            let instance = Instance {
                id: format!("scripted:///instance/{}", state.made),
                owner: request.ownership.unwrap_or_default(),
                spec: request.spec.unwrap_or_default(),
                bootstrap: request.bootstrap.map(|bootstrap| bootstrap.data),
            };
            state.instances.insert(meta.idempotency_key.clone(), instance);
        }
        if matches!(fault, Some(Fault::LoseAnswer)) {
            return Err(Status::deadline_exceeded("the answer is lost"));
        }
        let status = machine_status(&state.instances[&meta.idempotency_key]);
        Ok(Response::new(v1::CreateMachineResponse { status: Some(status) }))
    }

    async fn update_machine(
        &self,
        request: Request<v1::UpdateMachineRequest>,
    ) -> Result<Response<v1::UpdateMachineResponse>, Status> {
        let request = request.into_inner();
        let key = request.meta.unwrap_or_default().idempotency_key;
        let mut state = self.state.lock();
        state.count("UpdateMachine");
        let Some(instance) = state.instances.get_mut(&key) else {
            return Err(ActuatorError::new(v1::ErrorReason::ResourceNotFound, "there is none").into());
        };
        instance.spec = request.spec.unwrap_or_default();
        let status = machine_status(instance);
        Ok(Response::new(v1::UpdateMachineResponse { status: Some(status) }))
    }

    async fn delete_machine(
        &self,
        request: Request<v1::DeleteMachineRequest>,
    ) -> Result<Response<v1::DeleteMachineResponse>, Status> {
        let key = request.into_inner().meta.unwrap_or_default().idempotency_key;
        let mut state = self.state.lock();
        state.count("DeleteMachine");
        let answer = if state.deletions_hang {
            v1::DeletionState::InProgress
        } else {
            state.instances.remove(&key);
            v1::DeletionState::Gone
        };
        Ok(Response::new(v1::DeleteMachineResponse {
            state: answer.into(),
            ..v1::DeleteMachineResponse::default()
        }))
    }

    async fn machine_exists(
        &self,
        request: Request<v1::MachineExistsRequest>,
    ) -> Result<Response<v1::MachineExistsResponse>, Status> {
        let key = request.into_inner().r#ref.unwrap_or_default().idempotency_key;
        let mut state = self.state.lock();
        state.count("MachineExists");
        let status = state.instances.get(&key).map(machine_status);
        Ok(Response::new(v1::MachineExistsResponse {
            presence: presence(status.is_some()).into(),
            status,
        }))
    }

    async fn list_machines(
        &self,
        _: Request<v1::ListMachinesRequest>,
    ) -> Result<Response<v1::ListMachinesResponse>, Status> {
        Err(Status::unimplemented("not offered"))
    }

    type WatchMachinesStream = tokio_stream::Empty<Result<v1::WatchMachinesResponse, Status>>;

    async fn watch_machines(
        &self,
        _: Request<v1::WatchMachinesRequest>,
    ) -> Result<Response<Self::WatchMachinesStream>, Status> {
        Err(Status::unimplemented("not offered"))
    }

    type GetConsoleOutputStream = tokio_stream::Empty<Result<v1::GetConsoleOutputResponse, Status>>;

    async fn get_console_output(
        &self,
        _: Request<v1::GetConsoleOutputRequest>,
    ) -> Result<Response<Self::GetConsoleOutputStream>, Status> {
        Err(Status::unimplemented("not offered"))
    }

    async fn list_machine_types(
        &self,
        _: Request<v1::ListMachineTypesRequest>,
    ) -> Result<Response<v1::ListMachineTypesResponse>, Status> {
        Err(Status::unimplemented("not offered"))
    }
}
