//! A tiny provider that does what a test tells it, served over a real Unix socket, and
//! requests to send to it.

#![allow(dead_code)]

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use provider_sdk::proto::digest::{self, sha256};
use provider_sdk::proto::errors::Classified;
use provider_sdk::v1::cluster_service_client::ClusterServiceClient;
use provider_sdk::v1::endpoint_service_client::EndpointServiceClient;
use provider_sdk::v1::identity_service_client::IdentityServiceClient;
use provider_sdk::v1::machine_service_client::MachineServiceClient;
use provider_sdk::{
    ActuatorError, ByteStream, CallContext, ClusterExists, Config, ConsoleOutput, CreateCluster, CreateMachine,
    CredentialKey, DeleteCluster, DeleteMachine, Deletion, Diagnostic, Existence, ListMachines, Listen, MachineExists,
    OperationContext, Page, Provider, ProviderInfo, Server, ServerBuilder, SetEndpointMembers, UpdateCluster,
    UpdateMachine, Validation, WatchEvent, WatchMachines, WatchStream, async_trait, v1,
};
use schemars::JsonSchema;
use serde::Deserialize;
use tempfile::TempDir;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};

/// What stands for every secret in the tests.
pub const SENTINEL: &str = "s3cr3t-sentinel-7f3a";
/// Longer than any test may wait.
pub const LONG: Duration = Duration::from_secs(20);

#[derive(Debug, Clone, Deserialize, JsonSchema)]
pub struct ClusterConfig {
    #[serde(default)]
    pub network: String,
}

#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MachineConfig {
    pub size: String,
    #[serde(default)]
    pub account: u64,
    #[serde(default)]
    pub disk: Option<Disk>,
}

#[derive(Debug, Clone, Deserialize, JsonSchema)]
pub struct Disk {
    pub gib: u32,
}

impl Config for ClusterConfig {
    const KIND: &'static str = "TestClusterConfig";
    const VERSION: &'static str = "v1";
}

impl Config for MachineConfig {
    const KIND: &'static str = "TestMachineConfig";
    const VERSION: &'static str = "v1";
}

/// What the provider does with one key.
#[derive(Clone)]
pub enum Behaviour {
    /// Tells that it has started, then waits.
    Hold(Arc<Hold>),
    Panic,
    Fail(ActuatorError),
    /// Answers this provider_id.
    Id(String),
}

/// Where a mutation is held.
pub struct Hold {
    started: Semaphore,
    go_on: Semaphore,
}

impl Hold {
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            started: Semaphore::new(0),
            go_on: Semaphore::new(0),
        })
    }

    /// Waits until a mutation is held here.
    pub async fn started(&self) {
        let started = tokio::time::timeout(LONG, self.started.acquire()).await;
        started.expect("it starts").expect("open").forget();
    }

    /// Lets one go on.
    pub fn release(&self) {
        self.go_on.add_permits(1);
    }

    async fn pass(&self) {
        self.started.add_permits(1);
        self.go_on.acquire().await.expect("open").forget();
    }
}

#[derive(Default)]
pub struct Cloud {
    /// provider_id by key.
    pub machines: Mutex<HashMap<String, String>>,
    pub behaviours: Mutex<HashMap<String, Behaviour>>,
    /// What the provider was called for, in order: `create k`, `delete k`.
    pub calls: Mutex<Vec<String>>,
    /// What a create was told.
    pub accounts: Mutex<Vec<u64>>,
    pub page: Mutex<Option<Page<v1::ListedMachine>>>,
    pub ended: Semaphore0,
    pub has_shut_down: CancellationToken,
}

/// A semaphore that starts at zero.
pub struct Semaphore0(Semaphore);

impl Default for Semaphore0 {
    fn default() -> Self {
        Self(Semaphore::new(0))
    }
}

impl Semaphore0 {
    pub async fn wait(&self) {
        let ended = tokio::time::timeout(LONG, self.0.acquire()).await;
        ended.expect("it ends").expect("open").forget();
    }
}

impl Cloud {
    pub fn behave(&self, key: &str, behaviour: Behaviour) {
        self.behaviours.lock().insert(key.to_owned(), behaviour);
    }

    pub fn hold(&self, key: &str) -> Arc<Hold> {
        let hold = Hold::new();
        self.behave(key, Behaviour::Hold(Arc::clone(&hold)));
        hold
    }

    pub fn calls(&self) -> Vec<String> {
        self.calls.lock().clone()
    }

    async fn act(&self, verb: &str, key: &str) -> Result<Option<String>, ActuatorError> {
        self.calls.lock().push(format!("{verb} {key}"));
        let behaviour = self.behaviours.lock().get(key).cloned();
        match behaviour {
            None => Ok(None),
            Some(Behaviour::Id(id)) => Ok(Some(id)),
            Some(Behaviour::Hold(hold)) => {
                hold.pass().await;
                Ok(None)
            }
            Some(Behaviour::Panic) => panic!("a panic with {SENTINEL}"),
            Some(Behaviour::Fail(error)) => Err(error),
        }
    }
}

pub struct TestProvider(pub Arc<Cloud>);

fn status(id: String) -> v1::MachineStatus {
    v1::MachineStatus {
        provider_id: id,
        phase: v1::MachinePhase::Running.into(),
        ..Default::default()
    }
}

#[async_trait]
impl Provider for TestProvider {
    type ClusterConfig = ClusterConfig;
    type MachineConfig = MachineConfig;

    fn info(&self) -> ProviderInfo {
        let mut info = ProviderInfo::new("test", "1.2.3", "test:///");
        info.limits.max_concurrent_mutations = 4;
        info.limits.max_bootstrap_bytes = 1024;
        info.bootstrap_formats = vec![v1::BootstrapFormat::CloudConfig];
        info.credential_keys = vec![CredentialKey::required("token", "a token")];
        info
    }

    fn capabilities(&self) -> v1::Capabilities {
        v1::Capabilities {
            list_machines: Some(v1::ListMachinesCapability {}),
            watch_machines: Some(v1::WatchMachinesCapability::default()),
            console_output: Some(v1::ConsoleOutputCapability {}),
            endpoint_members: Some(v1::EndpointMembersCapability { max_members: 2 }),
            ..Default::default()
        }
    }

    async fn validate_machine(
        &self,
        _: &CallContext,
        request: &Validation<MachineConfig>,
    ) -> Result<Vec<Diagnostic>, ActuatorError> {
        let mut found = Vec::new();
        if request.config.size == "impossible" {
            found.push(Diagnostic::error("/size", "there is no such size"));
        }
        if request
            .previous
            .as_ref()
            .is_some_and(|previous| previous.size != request.config.size)
        {
            found.push(Diagnostic::replacement("/size", "another size is another machine"));
        }
        Ok(found)
    }

    async fn create_cluster(
        &self,
        context: &OperationContext,
        _: CreateCluster<ClusterConfig>,
    ) -> Result<v1::ClusterStatus, ActuatorError> {
        self.0.act("create-cluster", context.key()).await?;
        Ok(v1::ClusterStatus {
            provider_id: format!("net-{}", context.key()),
            ..Default::default()
        })
    }

    async fn update_cluster(
        &self,
        context: &OperationContext,
        _: UpdateCluster<ClusterConfig>,
    ) -> Result<v1::ClusterStatus, ActuatorError> {
        self.0.act("update-cluster", context.key()).await?;
        Ok(v1::ClusterStatus {
            provider_id: format!("net-{}", context.key()),
            ..Default::default()
        })
    }

    async fn delete_cluster(
        &self,
        context: &OperationContext,
        _: DeleteCluster<ClusterConfig>,
    ) -> Result<Deletion, ActuatorError> {
        self.0.act("delete-cluster", context.key()).await?;
        Ok(Deletion::in_progress("the network"))
    }

    async fn cluster_exists(
        &self,
        _: &CallContext,
        _: ClusterExists<ClusterConfig>,
    ) -> Result<Existence<v1::ClusterStatus>, ActuatorError> {
        Ok(Existence::Absent)
    }

    async fn create_machine(
        &self,
        context: &OperationContext,
        request: CreateMachine<MachineConfig>,
    ) -> Result<v1::MachineStatus, ActuatorError> {
        assert_eq!(context.credentials().text("token")?, SENTINEL);
        self.0.accounts.lock().push(request.spec.config.account);
        let id = self.0.act("create", context.key()).await?;
        let id = id.unwrap_or_else(|| format!("test:///{}", context.key()));
        self.0.machines.lock().insert(context.key().to_owned(), id.clone());
        self.0.ended.0.add_permits(1);
        Ok(status(id))
    }

    async fn update_machine(
        &self,
        context: &OperationContext,
        request: UpdateMachine<MachineConfig>,
    ) -> Result<v1::MachineStatus, ActuatorError> {
        self.0.act("update", context.key()).await?;
        Ok(status(format!("test:///{}", request.resource.key)))
    }

    async fn delete_machine(
        &self,
        context: &OperationContext,
        _: DeleteMachine<MachineConfig>,
    ) -> Result<Deletion, ActuatorError> {
        self.0.calls.lock().push(format!("delete {}", context.key()));
        self.0.machines.lock().remove(context.key());
        Ok(Deletion::Gone)
    }

    async fn machine_exists(
        &self,
        _: &CallContext,
        request: MachineExists<MachineConfig>,
    ) -> Result<Existence<v1::MachineStatus>, ActuatorError> {
        if request.resource.key == "read-panics" {
            panic!("a panic with {SENTINEL}");
        }
        let id = self.0.machines.lock().get(&request.resource.key).cloned();
        Ok(id.map_or(Existence::Absent, |id| Existence::Present(status(id))))
    }

    async fn list_machines(
        &self,
        _: &CallContext,
        _: ListMachines<ClusterConfig>,
    ) -> Result<Page<v1::ListedMachine>, ActuatorError> {
        let page = self.0.page.lock().clone();
        Ok(page.unwrap_or(Page {
            items: Vec::new(),
            next_page_token: None,
        }))
    }

    async fn watch_machines(
        &self,
        _: &CallContext,
        request: WatchMachines<ClusterConfig>,
    ) -> Result<WatchStream, ActuatorError> {
        if request.resume_token.as_deref() == Some("old") {
            return Err(ActuatorError::new(v1::ErrorReason::ResumeTokenExpired, "too old"));
        }
        let machine = v1::ListedMachine {
            status: Some(status("test:///a".into())),
            ..Default::default()
        };
        let events = [
            Ok(WatchEvent::Present(Box::new(machine))),
            Ok(WatchEvent::Synced("token-1".into())),
        ];
        // Then silence.
        Ok(Box::pin(futures::StreamExt::chain(
            futures::stream::iter(events),
            futures::stream::pending(),
        )))
    }

    async fn set_endpoint_members(
        &self,
        context: &OperationContext,
        request: SetEndpointMembers,
    ) -> Result<v1::SetEndpointMembersResponse, ActuatorError> {
        self.0.act("members", context.key()).await?;
        let members = request.members.into_iter().map(|member| v1::EndpointMemberStatus {
            provider_id: member.provider_id,
            ..Default::default()
        });
        Ok(v1::SetEndpointMembersResponse {
            members: members.collect(),
            ..Default::default()
        })
    }

    async fn console_output(
        &self,
        _: &CallContext,
        _: ConsoleOutput<MachineConfig>,
    ) -> Result<ByteStream, ActuatorError> {
        let pieces = [Ok(vec![b'x'; 150_000].into()), Ok(Vec::from("end").into())];
        Ok(Box::pin(futures::stream::iter(pieces)))
    }

    async fn shutdown(&self) {
        self.0.has_shut_down.cancel();
    }
}

/// A provider that is served.
pub struct Served {
    pub cloud: Arc<Cloud>,
    pub path: PathBuf,
    pub shutdown: CancellationToken,
    pub serving: Option<JoinHandle<()>>,
    pub metrics: provider_sdk::Metrics,
    _folder: TempDir,
}

pub async fn serve() -> Served {
    serve_with(|builder| builder).await
}

pub async fn serve_with(adjust: impl FnOnce(ServerBuilder<TestProvider>) -> ServerBuilder<TestProvider>) -> Served {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("test/actuator.sock");
    let cloud = Arc::new(Cloud::default());
    let builder = Server::builder(TestProvider(Arc::clone(&cloud))).drain(LONG);
    let server = adjust(builder).build().expect("a good provider");
    let metrics = server.metrics();
    let bound = server.bind(&Listen::unix(&path).expect("a path")).await.expect("bound");
    let shutdown = CancellationToken::new();
    let stop = shutdown.clone();
    let serving = tokio::spawn(async move { bound.serve(stop).await.expect("an orderly end") });
    Served {
        cloud,
        path,
        shutdown,
        serving: Some(serving),
        metrics,
        _folder: folder,
    }
}

impl Served {
    pub async fn channel(&self) -> Channel {
        channel(&self.path).await
    }

    pub async fn machines(&self) -> MachineServiceClient<Channel> {
        MachineServiceClient::new(self.channel().await)
    }

    pub async fn clusters(&self) -> ClusterServiceClient<Channel> {
        ClusterServiceClient::new(self.channel().await)
    }

    pub async fn endpoints(&self) -> EndpointServiceClient<Channel> {
        EndpointServiceClient::new(self.channel().await)
    }

    pub async fn identity(&self) -> IdentityServiceClient<Channel> {
        IdentityServiceClient::new(self.channel().await)
    }

    pub async fn stop(&mut self) {
        self.shutdown.cancel();
        if let Some(serving) = self.serving.take() {
            tokio::time::timeout(LONG, serving)
                .await
                .expect("it ends")
                .expect("no panic");
        }
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

pub async fn channel(path: &Path) -> Channel {
    try_channel(path).await.expect("connected")
}

pub async fn try_channel(path: &Path) -> Result<Channel, tonic::transport::Error> {
    Endpoint::try_from(format!("unix://{}", path.display()))
        .expect("an address")
        .connect()
        .await
}

pub fn credentials() -> Option<v1::Credentials> {
    Some(v1::Credentials {
        source: Some(v1::credentials::Source::Data(v1::CredentialData {
            entries: [("token".to_owned(), SENTINEL.as_bytes().to_vec())].into(),
        })),
    })
}

pub fn ownership(key: &str) -> Option<v1::Ownership> {
    Some(v1::Ownership {
        management_cluster_id: "management".into(),
        cluster_uid: "cluster-uid".into(),
        object_uid: key.into(),
        namespace: "default".into(),
        cluster_name: "demo".into(),
        object_name: format!("machine-{key}"),
    })
}

pub fn meta(key: &str, generation: i64) -> Option<v1::OperationMeta> {
    Some(v1::OperationMeta {
        idempotency_key: key.into(),
        generation,
        fencing_epoch: 0,
        attempt: 1,
    })
}

pub fn reference(key: &str) -> Option<v1::ResourceRef> {
    Some(v1::ResourceRef {
        ownership: ownership(key),
        idempotency_key: key.into(),
        provider_id: String::new(),
    })
}

pub fn opaque(kind: &str, json: &str) -> Option<v1::OpaqueConfig> {
    Some(v1::OpaqueConfig {
        kind: kind.into(),
        schema_version: "v1".into(),
        json: json.as_bytes().to_vec(),
        sha256: sha256(json.as_bytes()),
    })
}

pub fn machine_config(json: &str) -> Option<v1::OpaqueConfig> {
    opaque("TestMachineConfig", json)
}

pub fn machine_spec(json: &str) -> v1::MachineSpec {
    let mut spec = v1::MachineSpec {
        name: "machine".into(),
        config: machine_config(json),
        ..Default::default()
    };
    spec.digest = digest::machine_spec(&spec);
    spec
}

pub fn create(key: &str) -> v1::CreateMachineRequest {
    create_with(key, 1, r#"{"size":"small"}"#)
}

pub fn create_with(key: &str, generation: i64, json: &str) -> v1::CreateMachineRequest {
    v1::CreateMachineRequest {
        meta: meta(key, generation),
        ownership: ownership(key),
        spec: Some(machine_spec(json)),
        bootstrap: None,
        credentials: credentials(),
        provider_state: Vec::new(),
    }
}

pub fn update(key: &str, generation: i64) -> v1::UpdateMachineRequest {
    v1::UpdateMachineRequest {
        meta: meta(key, generation),
        r#ref: reference(key),
        spec: Some(machine_spec(r#"{"size":"large"}"#)),
        credentials: credentials(),
        provider_state: Vec::new(),
    }
}

pub fn delete(key: &str, generation: i64) -> v1::DeleteMachineRequest {
    v1::DeleteMachineRequest {
        meta: meta(key, generation),
        r#ref: reference(key),
        config: None,
        credentials: credentials(),
        provider_state: Vec::new(),
    }
}

pub fn exists(key: &str) -> v1::MachineExistsRequest {
    v1::MachineExistsRequest {
        r#ref: reference(key),
        config: None,
        credentials: credentials(),
        provider_state: Vec::new(),
    }
}

pub fn classified(status: &Status) -> Classified {
    Classified::from_status(status)
}

/// Code, reason and whether nothing was done, of a refusal.
#[track_caller]
pub fn refusal<T: std::fmt::Debug>(result: Result<T, Status>) -> (Code, Option<v1::ErrorReason>, Classified) {
    let status = result.expect_err("refused");
    let error = classified(&status);
    (status.code(), error.reason, error)
}

/// What a task gave.
pub async fn joined<T>(task: JoinHandle<T>) -> T {
    let ended = tokio::time::timeout(LONG, task).await;
    ended.expect("it ends").expect("no panic")
}

/// Waits until it is so; for what no event tells.
pub async fn eventually(what: &str, mut so: impl FnMut() -> bool) {
    let waited = tokio::time::timeout(LONG, async {
        while !so() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    assert!(waited.await.is_ok(), "{what}");
}
