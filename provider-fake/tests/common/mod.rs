//! The real binary on a socket of its own, and a client. For the tests beside it.
#![allow(dead_code, missing_docs)]
// Helpers of tests may end a test.
#![allow(clippy::expect_used, clippy::panic)]

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use actuator_proto::digest;
use actuator_proto::errors::Classified;
use actuator_proto::v1::cluster_service_client::ClusterServiceClient;
use actuator_proto::v1::endpoint_service_client::EndpointServiceClient;
use actuator_proto::v1::identity_service_client::IdentityServiceClient;
use actuator_proto::v1::machine_service_client::MachineServiceClient;
use actuator_proto::v1::{self, ErrorReason};
use provider_fake::audit::{self, AuditReport};
use provider_fake::control::v1::control_service_client::ControlServiceClient;
use tempfile::TempDir;
use tonic::transport::{Channel, Endpoint};

/// How long anything may take before the test fails.
pub const PATIENCE: Duration = Duration::from_secs(30);
/// The cluster of all tests.
pub const CLUSTER: &str = "cluster-1";

/// A provider-fake process with its folder.
pub struct Fake {
    folder: TempDir,
    flags: Vec<String>,
    child: Child,
    channel: Channel,
}

impl Fake {
    /// Starts one on an empty ledger.
    pub async fn start(flags: &[&str]) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let flags: Vec<String> = flags.iter().map(|flag| (*flag).to_owned()).collect();
        let child = spawn(folder.path(), &flags);
        let channel = connect(folder.path()).await;
        Self {
            folder,
            flags,
            child,
            channel,
        }
    }

    /// Starts one that has a cluster already.
    pub async fn with_cluster(flags: &[&str]) -> Self {
        let fake = Self::start(flags).await;
        fake.clusters()
            .create_cluster(create_cluster(CLUSTER))
            .await
            .expect("a cluster");
        fake
    }

    /// Kills it as `kill -9` does.
    pub fn kill(&mut self) {
        self.child.kill().expect("killed");
        self.child.wait().expect("ended");
    }

    /// Starts it again on the same ledger.
    pub async fn restart(&mut self) {
        self.kill();
        self.child = spawn(self.folder.path(), &self.flags);
        self.channel = connect(self.folder.path()).await;
    }

    /// The state folder.
    pub fn state_dir(&self) -> std::path::PathBuf {
        self.folder.path().join("state")
    }

    /// What the journal says.
    pub fn audit(&self) -> AuditReport {
        audit::audit(&self.state_dir()).expect("a report")
    }

    pub fn machines(&self) -> MachineServiceClient<Channel> {
        MachineServiceClient::new(self.channel.clone())
    }

    pub fn clusters(&self) -> ClusterServiceClient<Channel> {
        ClusterServiceClient::new(self.channel.clone())
    }

    pub fn endpoints(&self) -> EndpointServiceClient<Channel> {
        EndpointServiceClient::new(self.channel.clone())
    }

    pub fn identity(&self) -> IdentityServiceClient<Channel> {
        IdentityServiceClient::new(self.channel.clone())
    }

    pub fn control(&self) -> ControlServiceClient<Channel> {
        ControlServiceClient::new(self.channel.clone())
    }

    /// Whether a machine is there.
    pub async fn exists(&self, key: &str) -> v1::MachineExistsResponse {
        let request = timed(v1::MachineExistsRequest {
            r#ref: Some(reference(key)),
            ..Default::default()
        });
        self.machines()
            .machine_exists(request)
            .await
            .expect("an answer")
            .into_inner()
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn spawn(folder: &Path, flags: &[String]) -> Child {
    Command::new(env!("CARGO_BIN_EXE_provider-fake"))
        .arg(format!("--listen=unix://{}/fake.sock", folder.display()))
        .arg(format!("--state-dir={}/state", folder.display()))
        .arg("--log-level=warn")
        .args(flags)
        .stdin(Stdio::null())
        .spawn()
        .expect("started")
}

async fn connect(folder: &Path) -> Channel {
    let address = format!("unix://{}/fake.sock", folder.display());
    let endpoint = Endpoint::from_shared(address)
        .expect("an address")
        .origin("http://localhost".parse().expect("an origin"));
    let started = Instant::now();
    loop {
        match endpoint.connect().await {
            Ok(channel) => return channel,
            Err(error) if started.elapsed() > PATIENCE => panic!("it does not serve: {error}"),
            // There is nothing to wait on before the socket is there.
            Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
        }
    }
}

/// The same request with a deadline.
pub fn timed<T>(message: T) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    request.set_timeout(PATIENCE);
    request
}

pub fn ownership(object: &str) -> v1::Ownership {
    v1::Ownership {
        management_cluster_id: "management-1".to_owned(),
        cluster_uid: CLUSTER.to_owned(),
        object_uid: object.to_owned(),
        namespace: "default".to_owned(),
        cluster_name: "demo".to_owned(),
        object_name: object.to_owned(),
    }
}

pub fn meta(key: &str, generation: i64) -> v1::OperationMeta {
    v1::OperationMeta {
        idempotency_key: key.to_owned(),
        generation,
        fencing_epoch: 1,
        attempt: 1,
    }
}

pub fn config(kind: &str, json: &str) -> v1::OpaqueConfig {
    v1::OpaqueConfig {
        kind: kind.to_owned(),
        schema_version: "v1".to_owned(),
        json: json.as_bytes().to_vec(),
        sha256: digest::sha256(json.as_bytes()),
    }
}

pub fn reference(key: &str) -> v1::ResourceRef {
    v1::ResourceRef {
        ownership: Some(ownership(key)),
        idempotency_key: key.to_owned(),
        provider_id: String::new(),
    }
}

pub fn create_cluster(key: &str) -> tonic::Request<v1::CreateClusterRequest> {
    let mut spec = v1::ClusterSpec {
        name: "demo".to_owned(),
        config: Some(config("FakeClusterConfig", "{}")),
        ..Default::default()
    };
    spec.digest = digest::cluster_spec(&spec);
    timed(v1::CreateClusterRequest {
        meta: Some(meta(key, 1)),
        ownership: Some(ownership(key)),
        spec: Some(spec),
        ..Default::default()
    })
}

pub fn delete_cluster(key: &str) -> tonic::Request<v1::DeleteClusterRequest> {
    timed(v1::DeleteClusterRequest {
        meta: Some(meta(key, 2)),
        r#ref: Some(reference(key)),
        ..Default::default()
    })
}

pub fn machine_spec(json: &str) -> v1::MachineSpec {
    let mut spec = v1::MachineSpec {
        name: "worker".to_owned(),
        kubernetes_version: "v1.34.1".to_owned(),
        config: Some(config("FakeMachineConfig", json)),
        ..Default::default()
    };
    spec.digest = digest::machine_spec(&spec);
    spec
}

pub fn create_machine_with(key: &str, json: &str) -> tonic::Request<v1::CreateMachineRequest> {
    let data = b"#cloud-config".to_vec();
    timed(v1::CreateMachineRequest {
        meta: Some(meta(key, 1)),
        ownership: Some(ownership(key)),
        spec: Some(machine_spec(json)),
        bootstrap: Some(v1::BootstrapData {
            sha256: digest::sha256(&data),
            data,
            format: v1::BootstrapFormat::CloudConfig as i32,
        }),
        ..Default::default()
    })
}

pub fn create_machine(key: &str) -> tonic::Request<v1::CreateMachineRequest> {
    create_machine_with(key, r#"{"machineType":"fake.small","publicAddress":true}"#)
}

pub fn delete_machine(key: &str) -> tonic::Request<v1::DeleteMachineRequest> {
    timed(v1::DeleteMachineRequest {
        meta: Some(meta(key, 2)),
        r#ref: Some(reference(key)),
        ..Default::default()
    })
}

/// The id that a create told.
pub fn id(response: tonic::Response<v1::CreateMachineResponse>) -> String {
    response.into_inner().status.expect("a status").provider_id
}

/// The error as the core reads it; it must carry what the contract asks for.
pub fn classified<T: std::fmt::Debug>(answer: Result<T, tonic::Status>) -> Classified {
    let classified = Classified::from_status(&answer.expect_err("an error"));
    assert!(classified.from_provider, "{classified:?}");
    classified
}

pub fn reason<T: std::fmt::Debug>(answer: Result<T, tonic::Status>) -> ErrorReason {
    classified(answer).reason.expect("a registered reason")
}
