//! The provider on a simulated AWS where things go wrong: never a second instance, never
//! "absent" where nobody can tell, nothing left at the end.

#![allow(clippy::expect_used, clippy::panic)] // a test may panic

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::REGION;
use common::proxy::{Cloud, Fault};
use provider_aws::client::credentials::Sources;
use provider_aws::client::http::Http;
use provider_aws::client::query::Filter;
use provider_aws::client::{Client, Wire};
use provider_aws::ec2::{instances, network};
use provider_aws::provider::{AwsProvider, Settings};
use provider_aws::tags::{CLUSTER_KEY, MACHINE_KEY};
use provider_sdk::v1::{self, BootstrapFormat, Effect, ErrorReason};
use provider_sdk::{
    ActuatorError, Bootstrap, CallContext, ClusterSpec, ConfigHint, CreateCluster, CreateMachine, Credentials,
    DeleteCluster, DeleteMachine, Deletion, Existence, MachineExists, MachineSpec, OperationContext, Provider as _,
    Resource,
};

const CLUSTER: &str = "cluster-1";
const MACHINE: &str = "machine-1";

/// A cloud, and a provider that may be started anew on it.
struct Stage {
    cloud: Cloud,
    wire: Wire,
    provider: AwsProvider,
    cluster: v1::ClusterStatus,
}

impl Stage {
    /// With a cluster that is ready. Nothing is hidden for longer than `window`.
    async fn with_cluster(window: Duration) -> Self {
        let cloud = Cloud::start().await;
        let wire = Wire {
            http: Http::new().expect("a client"),
            endpoint: Some(cloud.address()),
            counts: Arc::default(),
        };
        let provider = provider(&wire, window);
        let mut stage = Self {
            cloud,
            wire,
            provider,
            cluster: v1::ClusterStatus::default(),
        };
        stage.cluster = stage.create_cluster().await.expect("a cluster");
        assert_eq!(stage.cluster.phase(), v1::ClusterPhase::Ready);
        stage
    }

    /// As after `kill -9`: nothing is remembered.
    fn restart(&mut self, window: Duration) {
        self.provider = provider(&self.wire, window);
    }

    async fn create_cluster(&self) -> Result<v1::ClusterStatus, ActuatorError> {
        let request = CreateCluster {
            ownership: ownership(CLUSTER),
            spec: ClusterSpec {
                name: "demo".to_owned(),
                config: serde_json::from_value(serde_json::json!({"region": REGION})).expect("a config"),
                pod_cidr_blocks: Vec::new(),
                service_cidr_blocks: Vec::new(),
                control_plane_endpoint: None,
                digest: vec![1; 32],
            },
            provider_state: bytes::Bytes::new(),
        };
        let context = OperationContext::for_tests(CLUSTER, 1, credentials());
        self.provider.create_cluster(&context, request).await
    }

    async fn create(&self, bootstrap: &str) -> Result<v1::MachineStatus, ActuatorError> {
        let config = serde_json::json!({"instanceType": "t3.micro", "image": {"id": "ami-12c6146b"}});
        let request = CreateMachine {
            ownership: ownership(MACHINE),
            spec: MachineSpec {
                name: MACHINE.to_owned(),
                kubernetes_version: None,
                failure_domain: None,
                node_labels: std::collections::BTreeMap::new(),
                taints: Vec::new(),
                config: serde_json::from_value(config).expect("a config"),
                control_plane: false,
                cluster: Some(self.cluster.clone()),
                digest: vec![2; 32],
            },
            bootstrap: Some(Bootstrap::new(
                bootstrap.as_bytes().to_vec(),
                BootstrapFormat::CloudConfig,
            )),
            provider_state: bytes::Bytes::new(),
        };
        let context = OperationContext::for_tests(MACHINE, 1, credentials());
        self.provider.create_machine(&context, request).await
    }

    async fn exists(&self) -> Result<Existence<v1::MachineStatus>, ActuatorError> {
        let request = MachineExists {
            resource: resource(MACHINE),
            config: ConfigHint::Missing,
            provider_state: bytes::Bytes::new(),
        };
        self.provider
            .machine_exists(&CallContext::for_tests(credentials()), request)
            .await
    }

    async fn delete_until_gone(&self) {
        for _ in 0..100 {
            let request = DeleteMachine {
                resource: resource(MACHINE),
                config: ConfigHint::Missing,
                provider_state: bytes::Bytes::new(),
            };
            let context = OperationContext::for_tests(MACHINE, 1, credentials());
            let deletion = self
                .provider
                .delete_machine(&context, request)
                .await
                .expect("an answer");
            let Deletion::InProgress { poll_after, .. } = deletion else {
                return;
            };
            tokio::time::sleep(poll_after.expect("when to ask again")).await;
        }
        panic!("it is not gone");
    }

    async fn delete_cluster(&self) -> Deletion {
        let request = DeleteCluster {
            resource: resource(CLUSTER),
            config: ConfigHint::Missing,
            provider_state: bytes::Bytes::new(),
        };
        let context = OperationContext::for_tests(CLUSTER, 1, credentials());
        self.provider
            .delete_cluster(&context, request)
            .await
            .expect("an answer")
    }

    fn client(&self) -> Client {
        let (source, _) = Sources::new(self.wire.clone())
            .of(&credentials(), REGION)
            .expect("credentials");
        Client::new(self.wire.clone(), REGION, source)
    }

    /// The ids of all instances that live, whoever made them.
    async fn instances(&self) -> Vec<String> {
        let found = instances::describe(&self.client(), &[]).await.expect("an answer");
        let living = found.into_iter().filter(|instance| instance.state.name != "terminated");
        living.map(|instance| instance.id).collect()
    }
}

fn provider(wire: &Wire, window: Duration) -> AwsProvider {
    let settings = Settings {
        regions: vec![REGION.to_owned()],
        read_after_write: window,
        describe_interval: Duration::from_millis(1),
        poll_interval: Duration::from_millis(10),
    };
    AwsProvider::new(wire.clone(), settings)
}

fn credentials() -> Credentials {
    let entry = |name: &str, value: &str| (name.to_owned(), value.as_bytes().to_vec());
    Credentials::from_entries([
        entry("AWS_ACCESS_KEY_ID", "AKIAGOOD"),
        entry("AWS_SECRET_ACCESS_KEY", "secret"),
    ])
}

fn ownership(object: &str) -> v1::Ownership {
    v1::Ownership {
        management_cluster_id: "management".to_owned(),
        cluster_uid: CLUSTER.to_owned(),
        object_uid: object.to_owned(),
        namespace: "default".to_owned(),
        cluster_name: "demo".to_owned(),
        object_name: object.to_owned(),
    }
}

fn resource(key: &str) -> Resource {
    Resource {
        ownership: ownership(key),
        key: key.to_owned(),
        provider_id: None,
    }
}

#[tokio::test]
async fn a_lost_answer_and_a_crash_make_no_second_instance_and_nothing_is_left() {
    let mut stage = Stage::with_cluster(Duration::ZERO).await;
    stage.cloud.fault("RunInstances", Fault::LoseAnswer);
    let error = stage.create("one").await.expect_err("the answer is lost");
    assert_eq!(
        (error.reason(), error.effect()),
        (ErrorReason::CloudUnavailable, Effect::Unknown)
    );
    stage.restart(Duration::ZERO);
    // EC2 does not show it yet, and the bootstrap data has been rotated.
    stage.cloud.fault("DescribeInstances", Fault::ShowNothing);
    let made = stage.create("two").await.expect("the instance of the first try");
    assert_eq!(stage.instances().await.len(), 1);
    assert_eq!(
        stage.create("three").await.expect("again").provider_id,
        made.provider_id
    );
    assert_eq!(stage.cloud.called("RunInstances"), 2);

    // moto lets go of a group that is in use; EC2 does not.
    stage
        .cloud
        .fault("DeleteSecurityGroup", Fault::Refuse(400, "DependencyViolation"));
    assert!(
        matches!(stage.delete_cluster().await, Deletion::InProgress { .. }),
        "a machine is in the group"
    );
    stage.delete_until_gone().await;
    assert!(matches!(stage.exists().await, Ok(Existence::Absent)));
    assert_eq!(stage.delete_cluster().await, Deletion::Gone);
    assert!(stage.instances().await.is_empty());
    let ours = |tag: &str| [Filter::exactly("tag-key", [tag])];
    let volumes = instances::describe_volumes(&stage.client(), &ours(MACHINE_KEY))
        .await
        .expect("an answer");
    let groups = network::describe_security_groups(&stage.client(), &ours(CLUSTER_KEY))
        .await
        .expect("an answer");
    assert!(volumes.is_empty() && groups.is_empty(), "{volumes:?} {groups:?}");
}

#[tokio::test]
async fn what_ec2_does_not_show_yet_is_not_absent() {
    let mut stage = Stage::with_cluster(Duration::from_mins(1)).await;
    let made = stage.create("one").await.expect("made");
    stage.cloud.fault("DescribeInstances", Fault::ShowNothing);
    let Ok(Existence::Present(seen)) = stage.exists().await else {
        panic!("it was made a moment ago")
    };
    assert_eq!(seen.provider_id, made.provider_id);
    // One that has just started does not know of it, and cannot be sure either.
    stage.restart(Duration::from_mins(1));
    stage.cloud.fault("DescribeInstances", Fault::ShowNothing);
    let error = stage.exists().await.expect_err("it cannot tell");
    assert_eq!(error.reason(), ErrorReason::OperationPending);
}

#[tokio::test]
async fn a_refused_mutation_is_sent_once_and_a_read_again() {
    let stage = Stage::with_cluster(Duration::ZERO).await;
    for (status, code, reason) in [
        (503, "RequestLimitExceeded", ErrorReason::RateLimited),
        (500, "InsufficientInstanceCapacity", ErrorReason::InsufficientCapacity),
        (400, "VcpuLimitExceeded", ErrorReason::QuotaExceeded),
        (403, "UnauthorizedOperation", ErrorReason::MissingPermission),
    ] {
        let before = stage.cloud.called("RunInstances");
        stage.cloud.fault("RunInstances", Fault::Refuse(status, code));
        let error = stage.create("one").await.expect_err(code);
        assert_eq!((error.reason(), error.effect()), (reason, Effect::None), "{code}");
        assert_eq!(stage.cloud.called("RunInstances"), before + 1, "{code}");
        assert!(stage.instances().await.is_empty());
    }
    stage
        .cloud
        .fault("DescribeInstances", Fault::Refuse(503, "Unavailable"));
    stage.cloud.fault("DescribeInstances", Fault::LoseAnswer);
    assert!(matches!(stage.exists().await, Ok(Existence::Absent)));
    // Where it may not look, it does not know.
    stage
        .cloud
        .fault("DescribeInstances", Fault::Refuse(403, "UnauthorizedOperation"));
    let error = stage.exists().await.expect_err("it cannot tell");
    assert_eq!(error.reason(), ErrorReason::MissingPermission);
}

#[tokio::test]
async fn a_cluster_that_was_interrupted_is_made_once() {
    let mut stage = Stage::with_cluster(Duration::ZERO).await;
    assert_eq!(stage.delete_cluster().await, Deletion::Gone);
    for action in ["CreateSecurityGroup", "AuthorizeSecurityGroupIngress", "CreateTags"] {
        stage.cloud.fault(action, Fault::LoseAnswer);
        let error = stage.create_cluster().await.expect_err(action);
        assert_ne!(error.effect(), Effect::None, "{action}");
        stage.restart(Duration::ZERO);
    }
    let status = stage.create_cluster().await.expect("a cluster");
    assert_eq!(status.phase(), v1::ClusterPhase::Ready);
    let ours = [Filter::exactly("tag-key", [CLUSTER_KEY])];
    let groups = network::describe_security_groups(&stage.client(), &ours)
        .await
        .expect("an answer");
    assert_eq!((groups.len(), groups[0].rules().len()), (1, 1));
}
